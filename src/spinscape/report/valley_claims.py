"""The claims of arXiv 2405.12493 and 2405.12489, and which findings bear on them."""

from __future__ import annotations

from spinscape.report.claiming import Claim

__all__ = ["ASYMMETRY_CLAIMS", "MINING_CLAIMS"]

MINING_CLAIMS = (
    Claim(
        key="noise",
        text=(
            "Along Gaussian noise the loss is almost always a v-basin with the model at its bottom."
        ),
        known="the claim; sizes of noise, networks and the definition of a v-basin are not known.",
        ours=(
            "Gaussian directions as long as the weights, labelled by minima that count; almost "
            "always means an interval above 90 %."
        ),
        deciding=("Along Gaussian noise, is the loss a v-basin with the network at its bottom?",),
        beside=("Do curves built by hand look as they should?",),
    ),
    Claim(
        key="mined",
        text="Curves from v-side and w-basin to w-peak and vvv-basin exist and can be mined.",
        known="five types are named, the last two said to need mining; algorithms are not known.",
        ours=(
            "an optimiser of our own under target profiles, judged on held-out data, beside how "
            "often the label comes unmined. A v-side asks for a network that is not at a minimum: "
            "at a trained one its failure is expected, and does not decide."
        ),
        deciding=(
            "Is there a w-basin around a trained network?",
            "Is there a vvv-basin around a trained network?",
            "Is there a w-peak around an initialisation?",
        ),
        beside=(
            "Is there a v-basin around a trained network?",
            "Is there a v-side around a trained network?",
            "Do short, weakly rewarded directions collapse into flat ones?",
        ),
    ),
    Claim(
        key="surfaces",
        text="Combined, they give saddles and the bottom of a wine bottle.",
        known="such surfaces are shown, from combined directions.",
        ours=(
            "planes built by hand and planes mined with targets on axes and rings, labelled by "
            "what the loss does along rays."
        ),
        deciding=(
            "Is there a saddle around an initialisation?",
            "Is there a wine-bottle around an initialisation?",
        ),
        beside=("Do surfaces built by hand look as they should?",),
    ),
    Claim(
        key="hessian",
        text="The Hessian explains what is seen.",
        known="an explanation by the Hessian is announced; which, is not known.",
        ours=(
            "curvature along noise against its exact mean tr H/n; cosines of mined directions with "
            "the top eigenvectors against noise."
        ),
        deciding=(
            "Does the trace of the Hessian foretell the curvature along noise? (a trained network)",
        ),
        beside=(
            "Do directions of a vvv-basin lie along the top of the Hessian's spectrum?",
            "Do directions of a w-basin lie along the top of the Hessian's spectrum?",
        ),
    ),
)

ASYMMETRY_CLAIMS = (
    Claim(
        key="signs",
        text=(
            "Noise with the signs of the solution makes valleys flat on its side, sharp opposite."
        ),
        known="seven kinds of noise on large networks; numbers of its tables are not known.",
        ours="the same seven kinds, small networks, an index of both sides' mean losses.",
        deciding=(
            "Is the valley symmetric along noise that is centred at 0?",
            "With the signs of the solution, is every kind of noise flatter on its side?",
            "Does the valley grow more lopsided with the share of equal signs?",
        ),
        beside=("Do equal signs matter beyond what lies along the solution itself?",),
    ),
    Claim(
        key="special",
        text="θ₀, θ and its signs are asymmetric directions, its positive parts are not.",
        known="six special directions; for θ₀ batch normalisation is named as the cause.",
        ours="the same six directions.",
        deciding=(
            "Are θ₀, θ, sign θ and sign(θ − μ) lopsided directions?",
            "Are the positive parts, sgp θ and sgp(θ − μ), symmetric directions?",
        ),
    ),
    Claim(
        key="norm",
        text="Batch-norm weights that begin, and stay, positive make noise off centre asymmetric.",
        known="initialisations 1, U(0, 1) and G(0, .1) are compared.",
        ours="the same three; the size of the index along U(0, 1) noise.",
        deciding=("Do batch-norm weights that begin at 1 make noise off centre lopsided?",),
    ),
    Claim(
        key="hyper",
        text="Learning rate, batch size and weight decay change the width, not the symmetry.",
        known="the claim, and that a small batch is sharper on the line to a large one.",
        ours="one setting changed at a time; the line between solutions of the same starts.",
        deciding=("Do learning rate, batch size and weight decay leave the valley symmetric?",),
        beside=("Along the line between them, is the small-batch solution the sharper one?",),
    ),
    Claim(
        key="mechanism",
        text="ReLU and softmax explain it.",
        known="arguments for ReLU units that stay active and for the softmax Hessian.",
        ours="states of units and the trace of the last layer's Hessian, measured along λ.",
        deciding=(
            "Do units keep their state on the side of the solution's signs?",
            "Does noise with the classifier's signs, in it alone, flatten its own Hessian?",
        ),
        beside=(
            "Is a network with gelu lopsided along noise with its signs?",
            "Is a network with tanh lopsided along noise with its signs?",
            "Is a network without batch normalisation lopsided along noise with its signs?",
        ),
    ),
)
