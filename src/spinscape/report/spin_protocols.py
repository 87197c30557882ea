"""What the page of a spin study says about each protocol, in plain words."""

from __future__ import annotations

from spinscape.report.figures.phases import (
    draw_both_trainings,
    draw_laziness,
    draw_one_phase,
    draw_phases,
)
from spinscape.report.figures.spins import draw_overlaps, draw_spectra, draw_taps
from spinscape.report.sections import Protocol, drawn

__all__ = ["SPIN_CAVEATS", "SPIN_GLOSSARY", "SPIN_LEADS", "SPIN_PROTOCOLS", "SPIN_STUDIES"]

SPIN_STUDIES = ("spins", "barney2024")

SPIN_LEADS = {
    "trained": (
        "Take every neuron of a network, inputs and outputs included, for a magnet that points up "
        "or down, and its weights for the forces between them. At random weights such magnets "
        "freeze into a disordered glass when they are cooled. Here that is followed while networks "
        "learn: at which temperature they freeze, into what, and whether more than growing weights "
        "is behind it."
    ),
    "given": (
        "Take every neuron of a network, inputs and outputs included, for a magnet that points up "
        "or down, and its weights for the forces between them. Random weights freeze into a "
        "disordered glass when they are cooled; training can plant an order. These networks were "
        "brought from elsewhere: at which temperature do they freeze, and into what?"
    ),
}

_PHASES = (
    "Couplings are the weights as they are, no bias, no rescaling. T_c is where the state without "
    "magnetisation loses its stability in the free energy of Thouless, Anderson and Palmer: the "
    "first root of the smallest eigenvalue of A(β) = 1 − βJ + β² diag(Σ J²) as β = 1/T grows, or "
    "where that eigenvalue comes nearest to zero. Order is said only where the eigenvalue crosses "
    "zero at a T_c above, and more deeply than, that of all nulls: the same weights at random "
    "places within each layer."
)

SPIN_PROTOCOLS = (
    Protocol(
        key="population",
        title="The trained networks",
        question="Do the networks solve the task?",
        why=(
            "What follows looks at networks while they learn; that means little if they never do."
        ),
        method=(
            "Networks with continuous (ReLU) and with binarized activations (the sign, with the "
            "gradient of a hard tanh), three hidden layers, weights at first from a normal "
            "distribution (Kaiming), no biases. The recipe is ours: that of the paper is not known."
        ),
        drawings=(drawn(draw_both_trainings, "population", "population_binarized"),),
        aliases=("training",),
        studies=SPIN_STUDIES,
    ),
    Protocol(
        key="phases",
        title="Phases",
        question="At which temperature do the spins freeze, into a glass or into an order?",
        why=(
            "An untrained network is a spin glass of layers, whose freezing temperature theory "
            "knows. Training changes the weights: if T_c rises above that of the same weights in "
            "random places, the weights hold an order that their sizes do not explain."
        ),
        method=_PHASES,
        drawings=(
            drawn(draw_phases, "phases/relu", "phases/binarized", "phases/followed"),
            drawn(draw_one_phase, "phases/given"),
        ),
        aliases=("phase",),
        studies=SPIN_STUDIES,
    ),
    Protocol(
        key="tap",
        title="TAP solutions",
        question="How many states does the mean-field theory find below T_c?",
        why=(
            "A glass has very many states, an order one and its mirror image. The equations of "
            "Thouless, Anderson and Palmer (TAP) have a solution for each state; but in a glass no "
            "simple solver finds them, so that finding none there says nothing."
        ),
        method=(
            "From random starts, three solvers: damped iteration, iteration with a lagging "
            "reaction term, and descent in the free energy. A solution counts if its residual is "
            "below 1e−8, the free energy has a minimum there, and the expansion behind the "
            "equations holds (Plefka). Solutions are one if, up to sign, the cosine of their "
            "angle exceeds 0.99."
        ),
        drawings=(drawn(draw_taps, "tap/relu", "tap/binarized", "tap/given"),),
        aliases=(),
        studies=SPIN_STUDIES,
    ),
    Protocol(
        key="spectra",
        title="Spectra",
        question="Do eigenvalues leave the spectrum of random weights?",
        why=(
            "Random couplings have a spectrum with sharp edges. An order that training plants "
            "shows as eigenvalues beyond them, long before it can be seen in single weights."
        ),
        method=(
            "All eigenvalues of the bond matrix, from the singular values between even and odd "
            "layers; beside them those of the weights permuted within each layer. Tails are fitted "
            "by maximum likelihood above the best x_min, with a bootstrap for the goodness of fit "
            "and Vuong's test against a log-normal (Clauset, Shalizi and Newman 2009)."
        ),
        drawings=(drawn(draw_spectra, "spectra/relu", "spectra/binarized", "spectra/given"),),
        aliases=("spectrum",),
        studies=SPIN_STUDIES,
    ),
    Protocol(
        key="overlaps",
        title="Overlaps of replicas",
        question="Do two copies of the spins at one temperature agree?",
        why=(
            "Above T_c two copies agree no more than chance; below, they do. How much they do, "
            "against temperature, tells networks apart."
        ),
        method=(
            "Spins are sampled layer by layer (heat bath), copies at neighbouring temperatures "
            "exchange them (parallel tempering). Pairs of copies start at random or at one and the "
            "same quenched state; R-hat, effective sample sizes, the agreement of both starts and "
            "logarithmic time bins decide whether a temperature counts as equilibrated."
        ),
        drawings=(drawn(draw_overlaps, "overlaps/relu", "overlaps/binarized", "overlaps/given"),),
        aliases=("samples",),
        studies=SPIN_STUDIES,
    ),
    Protocol(
        key="laziness",
        title="Rich and lazy learning",
        question="Does the order come with weights that move?",
        why=(
            "A network can fit its data while its weights hardly move. If the hidden order is what "
            "the weights learned, such a lazy network should stay a glass."
        ),
        method=(
            "ReLU networks whose outputs are multiplied by a factor before the loss, the learning "
            "rate divided by its square (Chizat, Oyallon and Bach 2019), trained as long."
        ),
        drawings=(drawn(draw_laziness, "laziness"),),
        aliases=("lazy",),
        studies=("barney2024",),
    ),
)

SPIN_CAVEATS = (
    "The spin model has the weights of the network, not its dynamics: the network never visits the "
    "configurations of these spins, biases are left out, and T is not a temperature of training.",
    "T_c is that of mean-field theory at finite size: of pure glasses of 90 to 800 spins it comes "
    "out 1 to 5 % above the theory of infinite layers.",
    "The mean-field theory of these glasses breaks replica symmetry; a sample of finite size at a "
    "few temperatures cannot show that, and nothing here claims it.",
    "A verdict follows a rule stated beforehand; “not supported” says that this measurement gives "
    "no support, not that the opposite is shown.",
    "Of the paper (Barney, Winer and Galitski, arXiv 2408.06421) the claims of the abstract are "
    "known to us, and neither its widths nor its learning rates nor its fits.",
    "Several findings are judged side by side. Intervals and p-values are not corrected for that.",
)

SPIN_GLOSSARY = (
    ("Spin", "A neuron taken for a magnet that points up (+1) or down (−1)."),
    ("Coupling", "A weight, taken for the force between two spins; their list is the bond matrix."),
    (
        "Temperature",
        "How strongly the spins are shaken, in units of the weights. It has nothing to do with how "
        "the network was trained.",
    ),
    ("Paramagnet", "Spins so hot that none prefers a direction."),
    (
        "Glass",
        "Spins frozen in a pattern without order, one of very many that are as good.",
    ),
    (
        "Hidden order",
        "Spins frozen in one pattern (or its mirror image) that the couplings agree on.",
    ),
    ("T_c", "The temperature at which the paramagnet gives way to one of these."),
    ("Replica", "A copy of the spins with the same couplings, moved on its own."),
    ("Overlap q", "Mean product of the spins of two replicas: 1 if alike, 0 by chance."),
    (
        "Null",
        "What a number would be without what is looked for: here the same weights at random places "
        "within each layer, or theory.",
    ),
    ("Interval", "Range that would hold the true value in 95 of 100 repetitions (at 95 %)."),
)
