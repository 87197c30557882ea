"""Whether clustering finds the family tree that networks were trained in.

The positive control of `clustering.hierarchy`: networks of a known tree (`clones.family`), units
permuted and rescaled, are clustered without being told, and the tree found is compared with the one
planted: adjusted Rand index (Hubert & Arabie, J. Classif. 2, 193 (1985)) at every level, and the
correlation of cophenetic distances (Sokal & Rohlf, Taxon 11, 33 (1962)), beside random
relabellings.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float, Int
from scipy.cluster.hierarchy import cophenet, cut_tree
from scipy.spatial.distance import squareform
from sklearn.metrics import adjusted_rand_score
from torch import nn

from spinscape.glass.trees.clustering import hierarchy, hierarchy_findings
from spinscape.glass.trees.surrogates import Map, run_here
from spinscape.nets.symmetry import Symmetry
from spinscape.records import labelled
from spinscape.statistics import Finding, p_value

__all__ = ["family_findings", "kinship"]


def kinship(
    module: nn.Module | None,
    family: xr.Dataset,
    *,
    surrogates: int = 100,
    relabellings: int = 999,
    seed: int = 0,
    symmetry: Symmetry | None = None,
    map: Map = run_here,
) -> xr.Dataset:
    """Cluster a family of networks and compare the tree found with the one planted.

    Parameters
    ----------
    module : nn.Module or None
        Gives the symmetry that is removed; None for plain points.
    family : Dataset
        Of `clones.family`, with ``point [replica, n]`` and ``lineage [level, replica]``; levels
        that hold one group, or none of two networks, are left out.
    surrogates : int
        Of each null of `hierarchy`.
    relabellings : int
        How many random assignments of networks to leaves make the null of the comparison.
    seed : int
    symmetry : Symmetry, optional
        For a module whose symmetry is not known.
    map : callable
        As in `hierarchy`.

    Returns
    -------
    Dataset
        That of `hierarchy`, and ``lineage [level, replica]``; ``found [level, replica]``, the tree
        cut into as many clusters as were planted; ``rand [level]``, their adjusted Rand index, and
        ``rand_null [level, relabelling]``; ``rand_top``, that of the level at which `hierarchy`
        cut by itself with the planted level that it fits best, ``top_level``; ``likeness``, the
        correlation of cophenetic distances of both trees, and ``likeness_null [relabelling]``.

    Raises
    ------
    ValueError
        If no tree was planted (a star, or independent networks), or as in `hierarchy`.
    """
    lineage = family["lineage"].transpose("level", "replica").values
    lineage = lineage[[1 < len(np.unique(level)) < len(level) for level in lineage]]
    if not len(lineage):
        raise ValueError(
            "family: no level in it has several groups of several networks, so there is no tree "
            "to be found; to cluster a star or independent networks use hierarchy"
        )
    if relabellings < 1:
        raise ValueError(f"relabellings={relabellings}: expected 1 or more")
    result = hierarchy(
        module, family["point"], surrogates=surrogates, seed=seed, symmetry=symmetry, map=map
    )
    tree = result["linkage"].values
    found = np.stack([cut_tree(tree, [len(np.unique(level))])[:, 0] for level in lineage])
    shuffles = _shuffles(lineage.shape[1], relabellings, seed)
    null = [
        [adjusted_rand_score(level, cut[order]) for order in shuffles]
        for level, cut in zip(lineage, found, strict=True)
    ]
    top = [adjusted_rand_score(level, result["cluster"].values) for level in lineage]
    planted, heights = _planted(lineage), squareform(cophenet(tree))
    both, leaves = ("level", "replica"), lineage.shape[1]
    rand = [adjusted_rand_score(level, cut) for level, cut in zip(lineage, found, strict=True)]
    likeness = _likeness(planted, heights, np.arange(leaves))
    alike = [_likeness(planted, heights, order) for order in shuffles]
    result["lineage"] = labelled(both, lineage, "number of the forefather at a level")
    result["found"] = labelled(both, found, "cluster of the tree found")
    result["rand"] = labelled("level", rand, "adjusted Rand index, found and planted")
    result["rand_null"] = labelled(("level", "relabelling"), null, "the same, relabelled at random")
    result["rand_top"] = labelled((), max(top), "adjusted Rand index of the top level found")
    result["top_level"] = labelled((), int(np.argmax(top)), "planted level that it fits best")
    result["likeness"] = labelled((), likeness, "cophenetic correlation, found and planted")
    result["likeness_null"] = labelled("relabelling", alike, "the same, relabelled at random")
    return result.assign_attrs(family=str(family.attrs.get("arguments", "")))


def _planted(lineage: Int[np.ndarray, "level replica"]) -> Float[np.ndarray, "replica replica"]:
    """How many levels up the tree two leaves meet."""
    apart = lineage[:, :, None] != lineage[:, None]
    distance = 1.0 + apart.sum(0)
    np.fill_diagonal(distance, 0)
    return distance


def _likeness(
    planted: Float[np.ndarray, "replica replica"],
    heights: Float[np.ndarray, "replica replica"],
    order: Int[np.ndarray, "replica"],
) -> float:
    found = squareform(heights[np.ix_(order, order)], checks=False)
    return float(np.corrcoef(squareform(planted, checks=False), found)[0, 1])


def _shuffles(leaves: int, count: int, seed: int) -> Int[np.ndarray, "relabelling replica"]:
    generator = np.random.default_rng(np.random.SeedSequence(seed))
    return generator.permuted(np.tile(np.arange(leaves), (count, 1)), axis=1)


RECOVERED = 0.9
LEVEL = 0.01


def family_findings(kin: xr.Dataset) -> list[Finding]:
    """Judge a Dataset of `kinship`: whether the planted tree is found, and what K says of it."""
    where = "they" if kin.sizes["level"] > 1 else "none"
    questions = (
        "Does K see families where they were planted?",
        f"Does K see families within families where {where} were planted?",
    )
    seen = zip(hierarchy_findings(kin), questions, strict=False)
    controls = [replace(one, protocol="clones", question=question) for one, question in seen]
    return [_recovered(kin), *controls]


def _recovered(kin: xr.Dataset) -> Finding:
    """Adjusted Rand index at the level where it is least."""
    rand, null = kin["rand"].values, kin["rand_null"].transpose("level", "relabelling").values
    worst = int(np.argmin(rand))
    p = max(p_value(one, drawn, "greater") for one, drawn in zip(rand, null, strict=True))
    planted = [len(np.unique(level)) for level in kin["lineage"].transpose("level", ...).values]
    groups = " and ".join(
        f"{count} groups with an adjusted Rand index of {value:.3g}"
        for count, value in zip(planted, rand, strict=True)
    )
    verdict = "not supported"
    if rand[worst] >= RECOVERED:
        verdict = "supported" if p < LEVEL else "undecided"
    answers: dict[str, str] = {
        "supported": "Clustering finds the family tree that was planted",
        "not supported": "Clustering does not find the whole family tree that was planted",
        "undecided": "Whether clustering finds the planted family tree is undecided",
    }
    fields: dict[str, Any] = {"null": "networks put at random leaves", "p": p}
    return Finding(
        protocol="clones",
        question="Does the clustering of networks find the planted family tree?",
        statement=(
            f"{answers[verdict]}: cut where it was planted, the tree of {kin.sizes['replica']} "
            f"networks recovers {groups}; its cophenetic distances correlate with the planted ones "
            f"by {float(kin['likeness']):.3g}"
        ),
        value=float(rand[worst]),
        null_value=float(null[worst].mean()),
        **fields,
        rule=(
            f"Supported if the adjusted Rand index is {RECOVERED} or more at every planted level "
            f"and beyond random leaves at each (p < {LEVEL}); not supported if it is less at some "
            "level; else undecided. The value is that of the level where it is least"
        ),
        verdict=verdict,
    )
