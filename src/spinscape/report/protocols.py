"""What the page says about each protocol, in plain words: one record a protocol.

A new protocol gets its section by one more record in `PROTOCOLS` and one function that draws.
"""

from __future__ import annotations

from spinscape.report import figures
from spinscape.report.sections import Protocol, drawn
from spinscape.report.spin_protocols import (
    SPIN_CAVEATS,
    SPIN_GLOSSARY,
    SPIN_PROTOCOLS,
    SPIN_STUDIES,
)
from spinscape.report.valley_protocols import (
    ASYMMETRY_CAVEATS,
    ASYMMETRY_STUDIES,
    MINING_CAVEATS,
    MINING_STUDIES,
    VALLEY_GLOSSARY,
    VALLEY_PROTOCOLS,
)

__all__ = ["PROTOCOLS", "caveats_of", "glossary_of", "protocols_of"]


_RUGGEDNESS = (
    "Along a straight slice in a random direction, T is how far the loss goes up and down in all, "
    "in units of its range: between 1 (a slope) and 2 (a symmetric well) where there is one "
    "minimum, above 2 only where the loss turns more often. "
    "The roughness index is the spread of T between slices in units of its mean; where no slice "
    "exceeds 2, it measures how unevenly lopsided the wells are rather than bumps. "
    "Local energy is how much the loss rises when every weight is multiplied by a random factor "
    "near 1. "
    "Rescaling a network without changing what it computes never changes the local energy; it "
    "does not change the slices either where the symmetry of the network is known. "
)

_MATCHED = (
    "after matching their hidden units as well as can be found (exactly for one hidden layer, "
    "layer by layer for more)"
)

_PATHS = (
    "The loss is measured along the straight line in weight space between two networks. "
    "Kinds of pairs: a network and its own copy with hidden units renumbered at random; two "
    f"{{independent}}; the same two {_MATCHED}, by their weights and, where it is known how, by "
    "what the units do on data; and, as the null of both, after a random matching. "
    "In all matched pairs the scale of ReLU units, which changes nothing that a network "
    "computes, is removed first. "
    "The barrier is how far the loss on the way rises above the straight line between its ends."
)


_LANDSCAPE = (
    Protocol(
        key="population",
        title="The trained networks",
        question="Do the networks solve the task?",
        why=(
            "What follows looks at copies of one network, each trained from its own random start; "
            "protocols that train further networks say so. What is said about the landscape "
            "around them means little if they never learned the task, so this comes first."
        ),
        method=(
            "All copies (replicas) have the same architecture and recipe; the seed of each fixes "
            "its start and the order in which it sees the samples. "
            "The test samples play no part in training. "
            "Replicas whose loss ran away are marked, counted here and used nowhere else."
        ),
        given_why=(
            "Everything below looks at these networks. What is said about the landscape around "
            "them means little if they never learned the task, so this comes first."
        ),
        given_method=(
            "These networks were trained elsewhere and given to this study; how each of them was "
            "started and trained is not known here. "
            "The data were split here: if the networks were trained on these samples, what is "
            "called test error is no error on new data. "
            "Networks whose loss is not finite are marked, counted here and used nowhere else."
        ),
        drawings=(drawn(figures.draw_training, "population"),),
        aliases=("population", "training", "train"),
    ),
    Protocol(
        key="walk",
        title="Random walks",
        question="What does the ground around a trained network look like?",
        why=(
            "Start at a trained network and change all its weights at random, a little at a time. "
            "If it lies at the bottom of a smooth bowl, the loss rises as the curvature of the "
            "bowl foretells; where it does not, the ground is more than a bowl. "
            "A thermal walker may also refuse a step that costs too much, like a particle shaken "
            "at some temperature: it shows whether a trained network is held in place or free to "
            "drift away at little cost."
        ),
        method=(
            "Walkers start at trained networks (where it is known how, rescaled so that their "
            "weights are smallest) and propose small Gaussian steps. "
            "The free walk accepts all of them; the thermal walk accepts a rise of the loss with "
            "probability exp(−rise / temperature), the temperature being that at which a bowl with "
            "a dimension for each weight would hold the thermal energy of the settings. "
            "The free walk is set against the rise that the curvature at the start foretells, "
            "where there is one to compute."
        ),
        further=(
            "Further walkers step along the gradient and then at random (Langevin), move the "
            "weights of one hidden unit at a time, or accept every step that stays below a "
            "threshold of the loss; and free walkers also start at networks before training and "
            "half-way through it. "
            "Quenches train on from where walkers came to, and compare where they end with the "
            "solution that was left, trained on as long."
        ),
        drawings=(
            drawn(
                figures.draw_walks,
                "walk/free",
                "walk/thermal",
                "walk/threshold",
                "walk/langevin",
                "walk/units",
                "walk/free_untrained",
                "walk/free_halfway",
            ),
            drawn(figures.draw_quenches, "walk/quenches"),
        ),
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
        method=(_PATHS.format(independent="independently trained networks")),
        given_method=(
            _PATHS.format(
                independent="of the networks given (called independent, though whether they were "
                "trained so is not known here)"
            )
        ),
        further=(
            "Further: copies with only some of the hidden units renumbered; barriers of networks "
            "of several widths, and between all pairs; paths that are bent until the loss along "
            "them is low, checked on samples that had no part in bending; paths through a point "
            "where two hidden units coincide; and networks half-way whose units' mean and spread "
            "are restored (REPAIR)."
        ),
        drawings=(
            drawn(figures.draw_paths, "permutation"),
            drawn(
                figures.draw_copies,
                "permutation_copies",
                "permutation_widths",
                "permutation_pairs",
                "permutation_pairs_aligned",
                "permutation_repair",
            ),
            drawn(figures.draw_bends, "permutation_bezier", "permutation_points"),
        ),
        aliases=("permutation", "permutation_paths", "paths", "interpolation", "connectivity"),
    ),
    Protocol(
        key="hierarchy",
        title="Families of solutions",
        question="Do the solutions form families within families?",
        why=(
            "In the mean-field theory of spin glasses the states at low temperature form a family "
            "tree: of any three, the two closest are equally far from the third. If trained "
            "networks did the same, the landscape would have valleys within valleys. But a tree "
            "can be drawn for any set of points, random ones included, so the tree itself proves "
            "nothing; what counts is whether they are more tree-like than random points with the "
            "same norms, or with the same norms around the same centre."
        ),
        method=(
            f"Distances are taken between every two networks {_MATCHED}, so that renumbering does "
            "not count as a difference. "
            "K (Hed, Young and Domany) compares the longest with the middle side of triangles of "
            "networks: 0 for a perfect family tree. "
            "Two nulls go through the same steps: random directions with the same norms, and a "
            "star, in which all networks share a common centre but have no families."
        ),
        further=(
            "The same is done for the untrained starts, and for several sets of networks that "
            "share no seed, each trained on a half of the training samples. "
            "Networks are also compared by what they do on samples that had no part in training: "
            "how often they predict alike, and the centred kernel alignment of their hidden units."
        ),
        drawings=(
            drawn(figures.draw_hierarchy, "hierarchy"),
            drawn(
                figures.draw_sets,
                "hierarchy_overlaps",
                "hierarchy_sets",
                "hierarchy_agreement",
                "hierarchy_cka",
                "hierarchy_untrained",
            ),
        ),
        aliases=("hierarchy", "clustering"),
    ),
    Protocol(
        key="clones",
        title="Clones",
        question="Would a family tree be found if there were one?",
        why=(
            "Copies of a network that is being trained, made at some step and trained on with "
            "other orders of the data, are siblings: their family tree is known. When do they part "
            "for good? And does the clustering of the section before find a tree that was planted?"
        ),
        method=(
            "Siblings that part after different numbers of steps are compared at the end of "
            "training: their distance, symmetry removed, and the barrier between them, beside the "
            "same for networks of different ancestors. "
            "Then a family is grown that parts twice, the hidden units of every network are "
            "permuted and rescaled at random, and the tree found is compared with the one planted; "
            "the null relabels its leaves at random."
        ),
        drawings=(drawn(figures.draw_clones, "clones", "clones_family"),),
        aliases=("clones", "clone", "family"),
        studies=("liao2024",),
    ),
    Protocol(
        key="ruggedness",
        title="Ruggedness and generalisation",
        question="Do networks on smoother ground make fewer mistakes on new data?",
        why=(
            "A popular idea holds that flat, smooth minima generalise better. To test it fairly, "
            "networks are trained with different settings to about the same training loss, lest "
            "how well they fit be taken for the ground they lie on. A correlation found in this "
            "way does not say which causes which."
        ),
        method=(
            f"{_RUGGEDNESS}"
            "Kendall's τ asks whether the order of settings by one of them is their order by test "
            "error: 1 the same, −1 the reverse, 0 unrelated. "
            "Settings are averaged over their networks and compared in pairs that differ in one "
            "hyper-parameter, lest one that moves both quantities be taken for a link between them."
        ),
        given_why=(
            "A popular idea holds that flat, smooth minima generalise better. A fair test takes "
            "networks that were trained with different settings to about the same training loss. "
            "The networks here are as they were given: the ground around them is measured, and "
            "nothing is judged."
        ),
        given_method=(
            f"{_RUGGEDNESS}"
            "The test error beside them is taken on the split made here; it is no error on new "
            "data if the networks were trained on these samples."
        ),
        further=(
            "Further measures are explained in the documentation. "
            "Minima are flattened in three ways (the mean of the weights along the last epochs, "
            "sharpness-aware training, the mean of a thermal walk) and set against the plain "
            "minimum of the same seed, at the same number of sample gradients."
        ),
        drawings=(
            drawn(figures.draw_ruggedness, "ruggedness"),
            drawn(figures.draw_flattening, "ruggedness_flattened"),
        ),
        aliases=("ruggedness", "roughness", "generalisation"),
    ),
)


PROTOCOLS = (*_LANDSCAPE, *SPIN_PROTOCOLS, *VALLEY_PROTOCOLS)


def protocols_of(study: str) -> tuple[Protocol, ...]:
    """Return the sections of a study's page, in their order."""
    return tuple(protocol for protocol in PROTOCOLS if study in protocol.studies)


_CAVEATS = (
    "One data set with one set of trained networks cannot show replica symmetry breaking: that "
    "takes an overlap distribution that stays broad as networks grow, that differs between data "
    "sets, and an ultrametric tree. Nothing here claims it.",
    "A verdict follows a rule stated beforehand; “not supported” says that this measurement "
    "gives no support, not that the opposite is shown.",
    "The method follows the four protocols of Liao et al. (arXiv 2407.20724), of which only the "
    "claims are known to us. It tests those claims by methods of its own and does not reproduce "
    "that paper’s numbers.",
    "Several findings are judged side by side. Intervals and p-values are not corrected for that, "
    "except where a rule says so.",
)

_GLOSSARY = (
    ("Loss, energy", "Mean loss per sample, in nats. Physicists call it energy; it is one thing."),
    (
        "Replica",
        "One trained copy of the network. Trained here, it has a seed that fixes its start and "
        "the order of its data.",
    ),
    (
        "Weight space",
        "All weights of a network written as one long vector: one network, one point.",
    ),
    ("Walker", "A point that moves through weight space step by step."),
    ("Overlap", "Cosine of the angle between two points: 1 for the same direction, 0 for none."),
    ("Barrier", "How far the loss on a path rises above the straight line between its ends."),
    ("Aligned", "After the hidden units of two networks are matched as well as can be found."),
    (
        "Null",
        "What a number would be without what is looked for: known from theory, or measured on "
        "data whose structure was destroyed on purpose.",
    ),
    ("Surrogate", "One such data set without the structure that is looked for."),
    ("Interval", "Range that would hold the true value in 95 of 100 repetitions (at 95 %)."),
)


def caveats_of(study: str) -> tuple[str, ...]:
    """Return what the page of a study cannot show."""
    if study in SPIN_STUDIES:
        return SPIN_CAVEATS
    if study in MINING_STUDIES:
        return MINING_CAVEATS
    return ASYMMETRY_CAVEATS if study in ASYMMETRY_STUDIES else _CAVEATS


def glossary_of(study: str) -> tuple[tuple[str, str], ...]:
    """Return the words that the page of a study explains."""
    if study in SPIN_STUDIES:
        return SPIN_GLOSSARY
    return VALLEY_GLOSSARY if study in (*MINING_STUDIES, *ASYMMETRY_STUDIES) else _GLOSSARY
