"""What the page says about each protocol, in plain words: one record a protocol.

A new protocol gets its section by one more record in `PROTOCOLS` and one function that draws.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from spinscape.report import figures
from spinscape.report.panels import Drawing, Parts

__all__ = ["CAVEATS", "GLOSSARY", "PROTOCOLS", "Protocol"]


@dataclass(frozen=True)
class Protocol:
    """One section of the page."""

    key: str
    """Its anchor, and its name in a run's list of what was left out."""
    title: str
    question: str
    why: str
    """What a reader without a physics degree needs in order to care and to follow."""
    method: str
    """Three sentences."""
    parts: tuple[str, ...]
    """Names in the store."""
    draw: Callable[[Parts], list[Drawing]]
    aliases: tuple[str, ...]
    """What findings may call this protocol."""


PROTOCOLS = (
    Protocol(
        key="population",
        title="The trained networks",
        question="Do the networks solve the task?",
        why=(
            "Everything below looks at copies of one network, each trained from its own random "
            "start. What is said about the landscape around them means little if they never "
            "learned the task, so this comes first."
        ),
        method=(
            "All copies (replicas) have the same architecture and recipe; the seed of each fixes "
            "its start and the order in which it sees the samples. "
            "The test samples play no part in training. "
            "Replicas whose loss ran away are marked, counted here and used nowhere else."
        ),
        parts=("population",),
        draw=figures.draw_training,
        aliases=("population", "training", "train"),
    ),
    Protocol(
        key="walk",
        title="Random walks",
        question="What does the ground around a trained network look like?",
        why=(
            "Start at a trained network and change all its weights at random, a little at a time. "
            "If it lies at the bottom of a smooth bowl, the loss rises as the curvature of the "
            "bowl foretells; what departs from that is the ruggedness of the ground. "
            "A thermal walker may also refuse a step that costs too much, like a particle shaken "
            "at some temperature: it shows whether a trained network is held in place or free to "
            "drift away at little cost."
        ),
        method=(
            "Every walker starts at a trained network and proposes small Gaussian steps. "
            "The free walk accepts all of them; the thermal walk accepts a rise of the loss with "
            "probability exp(−rise / temperature), the temperature being that at which a bowl with "
            "a dimension for each weight would hold the thermal energy of the settings. "
            "The free walk is set against the rise that the curvature at the start foretells."
        ),
        parts=("walk/free", "walk/thermal"),
        draw=figures.draw_walks,
        aliases=("walk", "walks", "free", "thermal"),
    ),
    Protocol(
        key="permutation",
        title="Paths between solutions",
        question="Is there a wall between two networks that do the same thing?",
        why=(
            "Renumbering the hidden units of a network changes its weights but not what it "
            "computes, so every solution has very many identical copies elsewhere. Blend a "
            "network with such a copy of itself, half of one and half of the other, and the blend "
            "is often bad: a wall of loss (a barrier) stands between them. The question is "
            "whether the wall between different networks is any more than that, and whether it "
            "goes once their hidden units are matched."
        ),
        method=(
            "The loss is measured along the straight line in weight space between two networks. "
            "Four kinds of pairs: a network and its own copy with hidden units renumbered at "
            "random; two independently trained networks; the same two after the best matching of "
            "their hidden units (one exact assignment, after the ReLU scale is removed); and, as "
            "its null, after a random matching. "
            "The barrier is how far the loss on the way rises above the straight line between its "
            "ends."
        ),
        parts=("permutation",),
        draw=figures.draw_paths,
        aliases=("permutation", "permutation_paths", "paths", "interpolation", "connectivity"),
    ),
    Protocol(
        key="hierarchy",
        title="Families of solutions",
        question="Do the solutions form families within families?",
        why=(
            "In a spin glass at low temperature the states form a family tree: close cousins, "
            "distant cousins, and nothing in between. If trained networks did the same, the "
            "landscape would have valleys within valleys. But a tree can be drawn for any set of "
            "points, random ones included, so the tree itself proves nothing; what counts is "
            "whether it is more tree-like than random points that share everything else."
        ),
        method=(
            "Distances are taken between every two networks after the best matching of their "
            "hidden units, so that renumbering does not count as a difference. "
            "K (Hed, Young and Domany) compares the longest with the middle side of triangles of "
            "networks: 0 for a perfect family tree. "
            "Two nulls go through the same steps: random directions with the same norms, and a "
            "star, in which all networks share a common centre but have no families."
        ),
        parts=("hierarchy",),
        draw=figures.draw_hierarchy,
        aliases=("hierarchy", "clustering"),
    ),
    Protocol(
        key="ruggedness",
        title="Ruggedness and generalisation",
        question="Do networks on smoother ground make fewer mistakes on new data?",
        why=(
            "A popular idea holds that flat, smooth minima generalise better. To test it fairly, "
            "networks are trained with different settings to the same training loss, so that only "
            "the ground around them and their error on new data differ. A correlation found in "
            "this way does not say which causes which."
        ),
        method=(
            "The roughness index is how unevenly the loss goes up and down along random straight "
            "slices (the spread of its total variation between slices, in units of the mean); "
            "local energy is how much it rises when every weight is multiplied by a little noise; "
            "neither changes when a network is rescaled without changing what it computes. "
            "Kendall's τ asks whether the order of settings by one of them is their order by test "
            "error: 1 the same, −1 the reverse, 0 unrelated. "
            "Settings are averaged over their networks and compared in pairs that differ in one "
            "hyper-parameter, lest one that moves both quantities be taken for a link between them."
        ),
        parts=("ruggedness",),
        draw=figures.draw_ruggedness,
        aliases=("ruggedness", "roughness", "generalisation"),
    ),
)

CAVEATS = (
    "One data set with one set of trained networks cannot show replica symmetry breaking: that "
    "takes an overlap distribution that stays broad as networks grow, that differs between data "
    "sets, and an ultrametric tree. Nothing here claims it.",
    "A verdict follows a rule stated beforehand; “not supported” says that this measurement "
    "gives no support, not that the opposite is shown.",
    "The method follows the four protocols of Liao et al. (arXiv 2407.20724), of which only the "
    "claims are known to us. It tests those claims by methods of its own and does not reproduce "
    "that paper’s numbers.",
    "Several findings are judged side by side. Intervals and p-values are not corrected for that.",
)

GLOSSARY = (
    ("Loss, energy", "Mean loss per sample, in nats. Physicists call it energy; it is one thing."),
    ("Replica", "One trained copy of the network. Its seed fixes its start and its data order."),
    (
        "Weight space",
        "All weights of a network written as one long vector: one network, one point.",
    ),
    ("Walker", "A point that moves through weight space step by step."),
    ("Overlap", "Cosine of the angle between two points: 1 for the same direction, 0 for none."),
    ("Barrier", "How far the loss on a path rises above the straight line between its ends."),
    ("Aligned", "After the hidden units of two networks are matched as well as they can be."),
    ("Null", "The same number measured on data whose structure was destroyed on purpose."),
    ("Surrogate", "One such data set without the structure that is looked for."),
    ("Interval", "Range that would hold the true value in 95 of 100 repetitions (at 95 %)."),
)
