"""The families that a tree shows at its top level, and whether they hold families themselves.

One level of families makes K small. A hierarchy needs two, so K is taken again inside every family
with enough members, beside the same nulls made from its members alone: their norms, and their own
barycentre.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.cluster.hierarchy import cut_tree
from torch import Tensor

from spinscape.glass.trees.mixing import FunctionStar
from spinscape.glass.trees.rulers import Ruler, is_flat
from spinscape.glass.trees.surrogates import Null, nulls_of
from spinscape.glass.trees.ultrametricity import hed_young_domany_k

__all__ = ["LEAST_MEMBERS", "Families", "families_of", "k_of_surrogates", "top_clusters"]

LEAST_MEMBERS = 8
GAP_SHARE = 0.5


class Families(NamedTuple):
    """The top level: which replica is in which family, and K inside those that can be tested."""

    labels: Int[np.ndarray, "replica"]
    sizes: Int[np.ndarray, "top"]
    K: Float[np.ndarray, "top"]

    @property
    def tested(self) -> Int[np.ndarray, "tested"]:
        """Families with enough members, not all at one distance."""
        return np.flatnonzero(np.isfinite(self.K))


def families_of(
    distance: Float[np.ndarray, "replica replica"],
    tree: Float[np.ndarray, "merge 4"],
    rounding: float,
) -> Families:
    """Cut the tree at its top level and take K inside each family of at least 8 (else NaN)."""
    labels = top_clusters(tree, LEAST_MEMBERS)
    sizes = np.bincount(labels)
    within = np.full(len(sizes), np.nan)
    for label in np.flatnonzero(sizes >= LEAST_MEMBERS):
        inside = distance[np.ix_(labels == label, labels == label)]
        if not is_flat(inside, rounding):
            within[label] = hed_young_domany_k(inside)
    return Families(labels, sizes, within)


def k_of_surrogates(
    families: Families,
    ruler: Ruler,
    points: Float[Tensor, "replica n"],
    statistics: Callable[[Sequence[Null | FunctionStar]], dict[str, np.ndarray]],
) -> Float[np.ndarray, "null top surrogate"]:
    """K of each family's own surrogates, NaN where the family cannot be tested."""
    nulls: list[Null | FunctionStar] = []
    for label in families.tested:
        members = torch.from_numpy(families.labels == label).to(points.device)
        nulls += nulls_of(ruler, points[members], stream=(2, int(label)))
    values = statistics(nulls)["K"]
    values = values.reshape(len(families.tested), -1, values.shape[1]).transpose(1, 0, 2)
    result = np.full((len(values), len(families.sizes), values.shape[2]), np.nan)
    result[:, families.tested] = values
    return result


def top_clusters(
    tree: Float[np.ndarray, "merge 4"], least_members: int
) -> Int[np.ndarray, "replica"]:
    """Cut a tree at its top level and label the clusters from 0, largest first.

    A level ends at the widest gap in height; gaps that leave fewer than two clusters of two members
    do not count, lest a single outlier be taken for a level. Higher levels may have gaps that are
    less wide, so of all gaps wider than half of that one, the widest that leaves two clusters of
    at least `least_members` is taken. One that is narrower still may be chance among families of
    one level: joined by it, they would pass for two levels. Where no gap counts, the last merge is
    undone.
    """
    heights, count = tree[:, 2], len(tree) + 1
    gaps = {k: float(heights[count - k] - heights[count - k - 1]) for k in range(2, count)}

    def widest(least: int, floor: float) -> int | None:
        fit = (k for k in gaps if np.sum(np.bincount(_labels(tree, k)) >= least) >= 2)
        return max((k for k in fit if gaps[k] > floor), key=gaps.__getitem__, default=None)

    level = widest(2, 0.0)
    if level is None:
        return _labels(tree, 2)
    return _labels(tree, widest(least_members, GAP_SHARE * gaps[level]) or level)


def _labels(tree: Float[np.ndarray, "merge 4"], clusters: int) -> Int[np.ndarray, "replica"]:
    labels = cut_tree(tree, [clusters])[:, 0]  # by order of merges: heights may be equal
    rank = np.argsort(np.argsort(-np.bincount(labels), kind="stable"), kind="stable")
    return rank[labels]
