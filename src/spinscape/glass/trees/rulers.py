"""By what two replicas are compared: weights up to symmetry, weights as they are, or functions.

A ruler turns points into distances and overlaps of all pairs, and those into the numbers that are
compared between data and surrogates.
"""

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor, nn

from spinscape.glass.matching.orbits import euclidean_distances, orbit_distances
from spinscape.glass.trees.functional import FUNCTIONAL, functional_overlaps
from spinscape.glass.trees.ultrametricity import Linkage, tree_statistics
from spinscape.landscape.energy import Landscape
from spinscape.nets import symmetry as symmetries
from spinscape.nets.symmetry import Symmetry
from spinscape.nets.weightspace import points as points_of

__all__ = [
    "DISTANCES",
    "QUANTILES",
    "Distance",
    "PairStatistics",
    "Ruler",
    "comparable",
    "is_flat",
    "pair_statistics",
    "refuse_flat",
    "ruler_of",
]

Distance: TypeAlias = Literal["orbit", "weights", "agreement", "cka", "cka_outputs"]
DISTANCES: dict[str, str] = {
    "orbit": "distance, symmetry removed",
    "weights": "distance of the weights as they are",
    **FUNCTIONAL,
}
QUANTILES = 200
"""Values that stand for a distribution of overlaps, each for as many pairs."""

Matrix: TypeAlias = Float[np.ndarray, "replica replica"]


@dataclass(frozen=True)
class Ruler:
    """One way to compare replicas.

    Attributes
    ----------
    kind : str
        One of `DISTANCES`.
    symmetry : Symmetry or None
        What a hidden unit is; None for plain points, and where it is not known.
    landscape : Landscape or None
        Network and samples of the functional kinds.
    seed : int
        Of the sweep order in the alignment of deep networks.
    """

    kind: str
    symmetry: Symmetry | None = None
    landscape: Landscape | None = None
    seed: int = 0

    @property
    def functional(self) -> bool:
        """Whether functions are compared rather than weights."""
        return self.kind in FUNCTIONAL

    def pairs(self, points: Float[Tensor, "replica n"]) -> tuple[Matrix, Matrix]:
        """Return distances and overlaps of all pairs, in float64."""
        if self.functional:
            assert self.landscape is not None
            overlap = functional_overlaps(self.landscape, points, self.kind).numpy()
            return 1 - overlap, overlap
        if self.symmetry is None or self.kind == "weights":
            distance = euclidean_distances(points).numpy()
        else:
            points = self.symmetry.balance(points)
            distance = orbit_distances(self.symmetry, points, seed=self.seed).numpy()
        squares = torch.linalg.vector_norm(points.double(), dim=1).square().cpu().numpy()
        product = (squares[:, None] + squares - distance**2) / 2
        norm = np.sqrt(squares)
        with np.errstate(invalid="ignore"):  # a point at the origin has no overlap
            return distance, product / (norm[:, None] * norm)

    def rounding(self, points: Float[Tensor, "replica n"]) -> float:
        """Size of a distance that rounding alone may make."""
        eps = torch.finfo(points.dtype).eps
        norm = float(torch.linalg.vector_norm(points, dim=1).max())
        return 16 * eps * (1.0 if self.functional else norm)


class PairStatistics(NamedTuple):
    """What is compared between data and surrogates, of the distances and overlaps of all pairs."""

    K: float
    cophenetic: float
    rammal_toulouse_virasoro: float
    mean_distance: float
    overlap_mean: float
    overlap_width: float
    overlap_quantiles: Float[np.ndarray, "quantile"]


def pair_statistics(distance: Matrix, overlap: Matrix, linkage: Linkage) -> PairStatistics:
    """Return the statistics of the tree, and mean, width (standard deviation) and quantiles of q.

    The quantiles are those at (k − ½) / 200: equal shares of the pairs.
    """
    q = overlap[np.triu_indices(len(overlap), 1)]
    levels = (np.arange(QUANTILES) + 0.5) / QUANTILES
    quantiles = np.quantile(q, levels, method="inverted_cdf")
    tree = tree_statistics(distance, linkage)
    return PairStatistics(*tree, float(q.mean()), float(q.std()), quantiles)


def ruler_of(
    module: nn.Module | None,
    distance: str,
    landscape: Landscape | None,
    symmetry: Symmetry | None,
    seed: int,
) -> Ruler:
    """Make the ruler that the arguments of `hierarchy` ask for."""
    if distance not in DISTANCES:
        raise ValueError(f"distance={distance!r}: expected one of {', '.join(DISTANCES)}")
    ruler = Ruler(distance, None, landscape, seed)
    if not ruler.functional:
        found = None if module is None else symmetries.of(module, symmetry)
        return replace(ruler, symmetry=found, landscape=None)
    if landscape is None:
        raise ValueError(
            f"landscape: distance={distance!r} compares functions and needs samples to do it on; "
            "pass landscape=Landscape(module, x, y)"
        )
    with suppress(TypeError):  # of a network whose symmetry is not known
        return replace(ruler, symmetry=symmetries.of(landscape.module, symmetry))
    return ruler


def comparable(
    points: Float[Tensor, "replica n"] | xr.DataArray | xr.Dataset, ruler: Ruler
) -> Tensor:
    """Return the points as a floating tensor [replica, n] that can be clustered."""
    states = points_of(points)
    if ruler.symmetry is None and not states.is_floating_point():
        states = states.double()
    if states.ndim != 2 or len(states) < 4:
        raise ValueError(f"points: expected [replica ≥ 4, n], got shape {tuple(states.shape)}")
    if ruler.symmetry is not None and states.shape[1] != ruler.symmetry.n:
        raise ValueError(
            f"points: of length {states.shape[1]:,}, but the module has {ruler.symmetry.n:,} "
            "parameters"
        )
    bad = torch.nonzero(~torch.isfinite(states).all(1))[:, 0].tolist()
    if bad:
        raise ValueError(f"points: replicas {bad} are not finite; leave them out, visibly")
    return states


def refuse_flat(distance: np.ndarray, ruler: Ruler, points: Tensor) -> None:
    """Refuse equal distances, and networks at none: one given twice would pass for a family."""
    if is_flat(distance, ruler.rounding(points)):
        what = "networks that all compute the same" if ruler.functional else "copies of one another"
        raise ValueError(
            f"points: all distances are {distance.max():g} up to rounding, so there is nothing to "
            f"cluster; are the replicas {what}?"
        )
    if ruler.symmetry is None:
        return
    orbits = replace(ruler, kind="orbit")
    apart = distance if ruler.kind == "orbit" else orbits.pairs(points)[0]
    first, second = np.nonzero(np.triu(apart <= orbits.rounding(points), 1))
    if len(first):
        raise ValueError(
            f"points: replicas {first[0]} and {second[0]} are the same network up to symmetry "
            f"({len(first)} such pairs), which would pass for a family; leave copies out"
        )


def is_flat(distance: Float[np.ndarray, "m m"], rounding: float) -> bool:
    """Whether distances differ by no more than the rounding of what they are between."""
    sides = distance[np.triu_indices(len(distance), 1)]
    return float(np.ptp(sides)) <= max(rounding, 8 * np.finfo(float).eps * sides.max())
