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

from spinscape.glass.surrogates import Null, nulls_of
from spinscape.glass.ultrametricity import hed_young_domany_k
from spinscape.nets.symmetry import Symmetry

__all__ = ["LEAST_MEMBERS", "Families", "families_of", "is_flat", "k_of_surrogates", "top_clusters"]

LEAST_MEMBERS = 8


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
    points: Float[Tensor, "replica n"],
) -> Families:
    """Cut the tree at its top level and take K inside each family of at least 8 (else NaN)."""
    labels = top_clusters(tree)
    sizes = np.bincount(labels)
    within = np.full(len(sizes), np.nan)
    for label in np.flatnonzero(sizes >= LEAST_MEMBERS):
        inside = distance[np.ix_(labels == label, labels == label)]
        if not is_flat(inside, points):
            within[label] = hed_young_domany_k(inside)
    return Families(labels, sizes, within)


def k_of_surrogates(
    families: Families,
    symmetry: Symmetry | None,
    points: Float[Tensor, "replica n"],
    statistics: Callable[[Sequence[Null]], dict[str, Float[np.ndarray, "null surrogate"]]],
    *,
    seed: int,
) -> Float[np.ndarray, "null top surrogate"]:
    """K of each family's own surrogates, NaN where the family cannot be tested."""
    nulls: list[Null] = []
    for label in families.tested:
        members = torch.from_numpy(families.labels == label).to(points.device)
        nulls += nulls_of(symmetry, points[members], seed=seed, stream=(2, int(label)))
    values = statistics(nulls)["K"]
    values = values.reshape(len(families.tested), -1, values.shape[1]).transpose(1, 0, 2)
    result = np.full((len(values), len(families.sizes), values.shape[2]), np.nan)
    result[:, families.tested] = values
    return result


def is_flat(distance: Float[np.ndarray, "m m"], points: Float[Tensor, "replica n"]) -> bool:
    """Whether distances differ by no more than the rounding of the points they are between."""
    norm = float(torch.linalg.vector_norm(points, dim=1).max())
    sides = distance[np.triu_indices(len(distance), 1)]
    return float(np.ptp(sides)) <= 16 * torch.finfo(points.dtype).eps * max(norm, sides.max())


def top_clusters(tree: Float[np.ndarray, "merge 4"]) -> Int[np.ndarray, "replica"]:
    """Cut a tree at its widest gap in height and label the clusters from 0, largest first.

    Only cuts with two clusters of at least two members count, lest a single outlier be taken for
    the top level; where there is none, the last merge is undone. To ask for families that are large
    enough to be tested would join small ones, and one level of families would then pass for two.
    """
    heights, count = tree[:, 2], len(tree) + 1
    best, widest = _labels(tree, 2), -np.inf
    for clusters in range(2, count):
        labels = _labels(tree, clusters)
        gap = heights[count - clusters] - heights[count - clusters - 1]
        if np.sum(np.bincount(labels) >= 2) >= 2 and gap > widest:
            best, widest = labels, gap
    return best


def _labels(tree: Float[np.ndarray, "merge 4"], clusters: int) -> Int[np.ndarray, "replica"]:
    labels = cut_tree(tree, clusters)[:, 0]  # by order of merges: heights may be equal
    rank = np.argsort(np.argsort(-np.bincount(labels), kind="stable"), kind="stable")
    return rank[labels]
