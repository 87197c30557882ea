"""How far a matrix of distances is from that of a tree.

In an ultrametric space the two longest sides of every triangle are equal. Points without any
structure come close to that in high dimension, so none of these numbers means anything without a
null (`glass.trees.surrogates`): a dendrogram is never evidence.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import scipy.stats
from jaxtyping import Float
from scipy.cluster.hierarchy import cophenet
from scipy.cluster.hierarchy import linkage as join
from scipy.spatial.distance import squareform

from spinscape.statistics import Interval

__all__ = [
    "LINKAGES",
    "Linkage",
    "TreeStatistics",
    "hed_young_domany_k",
    "jackknife_error",
    "jackknife_k",
    "rammal_toulouse_virasoro",
    "tree_of",
    "tree_statistics",
]

Linkage: TypeAlias = Literal["average", "single", "complete", "weighted"]
LINKAGES: tuple[Linkage, ...] = ("average", "single", "complete", "weighted")
Matrix: TypeAlias = Float[np.ndarray, "replica replica"]


class TreeStatistics(NamedTuple):
    """What is compared between data and surrogates."""

    K: float
    cophenetic: float
    rammal_toulouse_virasoro: float
    mean_distance: float


def hed_young_domany_k(distance: Matrix) -> float:
    """Mean over triangles of (d_max − d_med), in standard deviations of all distances.

    0 for a tree; (3 / (2√π)) √(3/4) = .7329 for independent isotropic points as their dimension
    grows, since squared distances are then jointly normal with correlation 1/4 for pairs that share
    a point. Hed, Young & Domany, Phys. Rev. Lett. 92, 157201 (2004); Katzgraber & Hartmann, arXiv
    0807.3513.

    Parameters
    ----------
    distance : [replica, replica]
        Symmetric, of at least three points.

    Raises
    ------
    ValueError
        If there are fewer than three points, or all distances are equal: K is 0/0 then.

    Examples
    --------
    >>> hed_young_domany_k(np.array([[0, 1, 4], [1, 0, 4], [4, 4, 0.0]]))
    0.0
    """
    sides = _sides(distance)
    spread = float(sides.std())
    if spread <= 8 * np.finfo(float).eps * sides.max():
        raise ValueError(
            f"distance: all {len(sides)} distances are {sides.mean():g}, so that K is undefined; "
            "are the points copies of one another?"
        )
    total, count = 0.0, len(distance)
    for i in range(count - 2):
        first, second = np.triu_indices(count - i - 1, 1)
        near = distance[i, i + 1 :]
        a, b, c = near[first], near[second], distance[i + 1 :, i + 1 :][first, second]
        low, high = np.minimum(a, b), np.maximum(a, b)
        total += float((np.maximum(high, c) - np.maximum(low, np.minimum(high, c))).sum())
    return total / (count * (count - 1) * (count - 2) / 6) / spread


def jackknife_k(distance: Matrix, *, level: float = 0.95) -> Interval:
    """K with the interval that leaving out one replica at a time gives (Student's t, at `level`).

    A bootstrap would put copies at distance zero into the sample, which make K look like a tree's.
    """
    value, count = hed_young_domany_k(distance), len(distance)
    if count < 4:
        raise ValueError(f"distance: an interval needs at least 4 replicas, got {count}")
    error = jackknife_error(distance, hed_young_domany_k)
    reach = float(scipy.stats.t.ppf((1 + level) / 2, count - 1) * error)
    return Interval(value, value - reach, value + reach, level)


def jackknife_error(matrix: Matrix, statistic: Callable[[Matrix], float]) -> float:
    """Return the standard error of a statistic of all pairs, one replica left out at a time."""
    count = len(matrix)
    kept = [np.delete(np.arange(count), i) for i in range(count)]
    left_out = np.array([statistic(matrix[np.ix_(rows, rows)]) for rows in kept])
    return float(np.sqrt((count - 1) / count * np.square(left_out - left_out.mean()).sum()))


def rammal_toulouse_virasoro(distance: Matrix) -> float:
    """Σ(d − d_single) / Σd, d_single the largest ultrametric below d: 0 for a tree.

    Rammal, Toulouse & Virasoro, Rev. Mod. Phys. 58, 765 (1986). Also small for points without any
    structure in high dimension.
    """
    sides = _sides(distance)
    return float((sides - cophenet(join(sides, "single"))).sum() / sides.sum())


def tree_of(
    distance: Matrix, linkage: Linkage = "average", *, ordered: bool = False
) -> Float[np.ndarray, "merge 4"]:
    """Return scipy's linkage matrix; if `ordered`, its leaves are put next to their nearest."""
    return join(_sides(distance), linkage, optimal_ordering=ordered)


def tree_statistics(distance: Matrix, linkage: Linkage = "average") -> TreeStatistics:
    """Return K, cophenetic correlation, the index of Rammal et al. and the mean distance."""
    sides = _sides(distance)
    correlation, _ = cophenet(join(sides, linkage), sides)
    return TreeStatistics(
        hed_young_domany_k(distance),
        float(correlation),
        rammal_toulouse_virasoro(distance),
        float(sides.mean()),
    )


def _sides(distance: Matrix) -> Float[np.ndarray, "pair"]:
    if distance.ndim != 2 or distance.shape[0] != distance.shape[1] or len(distance) < 3:
        raise ValueError(
            f"distance: expected a square matrix of at least 3 points, got {distance.shape}"
        )
    return squareform(distance, checks=False)
