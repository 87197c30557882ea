"""What the pages of the two studies of valleys say about each protocol, in plain words."""

from __future__ import annotations

from spinscape.report.figures.curves import draw_training
from spinscape.report.figures.gallery import (
    SHAPES,
    draw_built,
    draw_mined,
    draw_noise,
    draw_one_scan,
    draw_sweep,
)
from spinscape.report.figures.hessians import draw_curvature, draw_eigenvalues
from spinscape.report.figures.lopsided import (
    draw_controls,
    draw_line_between,
    draw_mechanism,
    draw_signs,
)
from spinscape.report.figures.reliefs import (
    draw_built_planes,
    draw_mined_planes,
    draw_one_plane,
    draw_pairs,
)
from spinscape.report.sections import Protocol, drawn

__all__ = [
    "ASYMMETRY_CAVEATS",
    "ASYMMETRY_STUDIES",
    "MINING_CAVEATS",
    "MINING_STUDIES",
    "VALLEY_GLOSSARY",
    "VALLEY_LEADS",
    "VALLEY_PROTOCOLS",
]

MINING_STUDIES = ("mine", "li2024-mining")
ASYMMETRY_STUDIES = ("li2024-asymmetry",)

VALLEY_LEADS = {
    "mine": (
        "Around a trained network the loss looks like a bowl, whichever way one turns at random. "
        "Here other ways are searched for: along which it has two valleys or three, and planes on "
        "which it is a saddle or the bottom of a wine bottle. Each is judged on data that the "
        "search did not see, beside how often it comes by chance."
    ),
    "asymmetry": (
        "A valley in which a trained network lies may be steep on one side and flat on the other. "
        "Here that is measured along noise that has the signs of the trained weights and along "
        "noise that has not, in networks that differ from one another in one thing at a time."
    ),
}

_MINED = tuple(f"mined/{shape}" for shape in SHAPES)
_MINED_PLANES = ("mined/bowl", "mined/saddle", "mined/wine-bottle")
_VARIANTS = (
    "base",
    "norm-uniform",
    "norm-gaussian",
    "slow",
    "fast",
    "small-batch",
    "large-batch",
    "no-decay",
    "more-decay",
    "deeper",
    "gelu",
    "tanh",
    "no-norm",
)

_LABELS = (
    "A minimum counts if the curve rises on either side by more than 0.1 nats and a tenth of the "
    "lower of both sides' heights before it falls lower. One minimum with λ = 0 at it is "
    "a v-basin; "
    "λ = 0 on a slope a v-side; two minima with λ = 0 at one of them a w-basin, and at the maximum "
    "between them a w-peak; three with λ = 0 at the middle one a vvv-basin. The confidence is the "
    "share of halved and doubled thresholds that give the same label. Types are named after arXiv "
    "2405.12493; their definitions are ours."
)

VALLEY_PROTOCOLS = (
    Protocol(
        key="training",
        title="The networks",
        question="Do the networks solve the task?",
        why="The ground around a network that does not solve its task tells little.",
        method=(
            "The networks are trained from independent starts by gradient descent on mini-batches; "
            "where each began is kept. Losses and errors are of the whole splits."
        ),
        given_method="The networks were given; they are evaluated on the splits of the data.",
        drawings=(drawn(draw_training, "population"),),
        aliases=("population",),
        studies=(*MINING_STUDIES, *ASYMMETRY_STUDIES),
    ),
    Protocol(
        key="curves",
        title="Curves",
        question="What does the loss look like along noise, and along directions built by hand?",
        why=(
            "Along nearly every random direction a trained network lies at the bottom of "
            "a bowl: in "
            "so many dimensions noise feels the mean curvature alone. Directions towards other "
            "networks show more."
        ),
        method=(
            "Noise is Gaussian, as long as the network's own weight vector. Losses are of held-out "
            f"samples. {_LABELS}"
        ),
        drawings=(
            drawn(draw_noise, "curves/solution", "curves/initial"),
            drawn(draw_built, "curves/constructed"),
            drawn(draw_one_scan, "curves/given"),
        ),
        aliases=(),
        studies=MINING_STUDIES,
    ),
    Protocol(
        key="mining",
        title="Mined curves",
        question="Which curve types exist around the network, and along which directions?",
        why=(
            "That noise shows one type only does not mean that there are no others. They can be "
            "searched for, and then it matters whether they are there for data that the search did "
            "not see."
        ),
        method=(
            "A direction of fixed length is optimised (Adam; the network stays as it is) so that "
            "the loss is low at some places on the line and high, up to a cap, at others; many "
            "starts as one batch. A start on which the loss stays flat is given up. The verdict is "
            f"the label of the dense curve of held-out samples. {_LABELS}"
        ),
        drawings=(drawn(draw_mined, *_MINED),),
        aliases=("mined",),
        studies=MINING_STUDIES,
    ),
    Protocol(
        key="surfaces",
        title="Surfaces",
        question="What does the loss look like on planes of two directions?",
        why=(
            "Two directions span a plane, on which the loss is a relief: a bowl, a "
            "valley, a saddle, "
            "or the bottom of a wine bottle, a hump with a trough all round."
        ),
        method=(
            "The second direction is made orthogonal to the first. Labels: what the loss "
            "does along "
            "32 rays from the centre. Nearly all climbing is a bowl, nearly all crossing "
            "a trough a "
            "wine bottle; falling both ways along one axis and climbing along the other a saddle. "
            "Mined planes had their targets on a ring or on two axes. The wine bottle "
            "built by hand "
            "is a plane of exact symmetry: two copies of a linear classifier in one network."
        ),
        drawings=(
            drawn(draw_built_planes, "surfaces/constructed"),
            drawn(draw_mined_planes, *_MINED_PLANES),
            drawn(draw_pairs, "surfaces/pairs"),
            drawn(draw_one_plane, "surfaces/given"),
        ),
        aliases=(),
        studies=MINING_STUDIES,
    ),
    Protocol(
        key="curvature",
        title="Curvature",
        question="Does the Hessian explain what the curves show?",
        why=(
            "The second derivatives of the loss say how steeply it rises near the network. Their "
            "mean is what noise feels; a few directions are far steeper, and along some the loss "
            "falls."
        ),
        method=(
            "Extreme eigenvalues by the Lanczos method with full reorthogonalisation, the trace by "
            "Hutch++, the density of eigenvalues by stochastic Lanczos quadrature, all on the "
            "samples that were mined."
        ),
        drawings=(
            drawn(draw_curvature, "curvature/solution", "curvature/initial"),
            drawn(draw_eigenvalues, "curvature/given"),
        ),
        aliases=("hessian",),
        studies=MINING_STUDIES,
    ),
    Protocol(
        key="sweep",
        title="When mining fails",
        question="How long must a direction be, and how much is height worth?",
        why=(
            "Where a direction is short, or height is worth little, the search ends in a direction "
            "along which the loss hardly changes at all: a flat collapse, and a failure."
        ),
        method="vvv-basins are mined as above at several lengths s and weights w.",
        drawings=(drawn(draw_sweep, "sweep"),),
        aliases=(),
        studies=("li2024-mining",),
    ),
    Protocol(
        key="signs",
        title="Signs and sides",
        question="Is the valley flatter on the side of the solution's own signs?",
        why=(
            "Noise pushes weights up and down alike. If it pushes each weight the way it already "
            "points, the network may keep working far longer than if it pushes the other way."
        ),
        method=(
            "Curves θ + λ s (ε/‖ε‖)‖θ‖ for λ from −1 to 1, on held-out samples, "
            "statistics of batch "
            "normalisation re-estimated at every point. E⁺ and E⁻ are the means over either side, "
            "the index is (E⁻ − E⁺)/(E⁻ + E⁺). Noise of equal norm and equal overlap with θ, but "
            "with signs of chance, separates the signs from what lies along θ itself."
        ),
        drawings=(drawn(draw_signs, "asymmetry/base"),),
        aliases=("asymmetry",),
        studies=ASYMMETRY_STUDIES,
    ),
    Protocol(
        key="controls",
        title="What makes a valley lopsided",
        question="Is it batch normalisation, the way of training, or the activation?",
        why=(
            "The paper holds the all-positive weights of batch normalisation for the cause of one "
            "kind of lopsidedness, and finds that learning rate, batch size and weight "
            "decay change "
            "how wide a valley is, not how symmetric."
        ),
        method=(
            "Further networks that differ from the base in one thing; each is put to "
            "Gaussian noise "
            "and to noise off centre, as drawn and with the signs of the solution."
        ),
        drawings=(drawn(draw_controls, *(f"asymmetry/{variant}" for variant in _VARIANTS)),),
        aliases=(),
        studies=ASYMMETRY_STUDIES,
    ),
    Protocol(
        key="line",
        title="From small to large batches",
        question="Is the small-batch solution sharper on the line to the large-batch one?",
        why="What looks sharp from one side of a lopsided valley may look flat from the other.",
        method=(
            "The straight line between networks trained from the same start with small and with "
            "large batches, and beyond both ends."
        ),
        drawings=(drawn(draw_line_between, "line"),),
        aliases=(),
        studies=ASYMMETRY_STUDIES,
    ),
    Protocol(
        key="mechanism",
        title="Units, margins, curvature",
        question="Do ReLU and softmax explain it?",
        why=(
            "Weights pushed the way they point keep active units active, and make the "
            "network surer "
            "of itself; where it is sure, the loss is flat."
        ),
        method=(
            "Along noise: the share of units in the state that they have at λ = 0, the margin of "
            "the label, the scale of the logits, and the trace of the last layer's Hessian, "
            "Σ p(1 − p)‖h‖², per sample."
        ),
        drawings=(drawn(draw_mechanism, "mechanism"),),
        aliases=(),
        studies=ASYMMETRY_STUDIES,
    ),
)

MINING_CAVEATS = (
    "A mined shape is evidence that it exists, not that it is typical: networks that are deep and "
    "wide contain every smooth pattern of few dimensions (Czarnecki and others, arXiv 1912.07559).",
    "The curve types are named after arXiv 2405.12493, of which the abstract is known to us. Their "
    "definitions, the constructions and the miner are ours and do not reproduce its algorithms.",
    "A label depends on thresholds, window, resolution and metric; its confidence tells of the "
    "thresholds alone.",
    "A verdict follows a rule stated beforehand; “not supported” says that this measurement gives "
    "no support, not that the opposite is shown.",
    "Several findings are judged side by side. Intervals and p-values are not corrected for that.",
)

ASYMMETRY_CAVEATS = (
    "These are small networks on small images; the paper's are large ones on CIFAR-10 "
    "and ImageNet, "
    "and its numbers are not known to us.",
    "Networks of one variant share the data and the recipe; intervals are over their seeds alone.",
    "The index of loss is ruled by what happens far out, where losses are large.",
    "A verdict follows a rule stated beforehand; “not supported” says that this measurement gives "
    "no support, not that the opposite is shown.",
    "Several findings are judged side by side. Intervals and p-values are not corrected for that.",
)

VALLEY_GLOSSARY = (
    ("Loss", "Mean loss per sample, in nats."),
    ("Direction", "A change of all weights at once; λ says how far along it one has gone."),
    (
        "v-basin, w-basin, vvv-basin",
        "Curves with one, two or three valleys, seen from one of them.",
    ),
    ("v-side, w-peak", "A curve seen from its slope; one seen from the hump between two valleys."),
    ("Hessian", "All second derivatives of the loss; its eigenvalues are curvatures."),
    ("Parabola", "What slope and Hessian at λ = 0 alone would foretell."),
    ("Held out", "Samples that were used neither in training nor in mining."),
    ("Sign-consistent noise", "Noise that pushes every weight the way in which it already points."),
    ("Index", "(E⁻ − E⁺)/(E⁻ + E⁺): 0 for a symmetric valley, 1 if the plus side is flat."),
    (
        "Null",
        "What a number would be without what is looked for: by chance, or in a control that lacks "
        "the one thing that is asked about.",
    ),
    ("Interval", "Range that would hold the true value in 95 of 100 repetitions (at 95 %)."),
)
