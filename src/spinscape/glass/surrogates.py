"""Surrogates: sets of points that share everything with a set of replicas but its tree.

Two nulls, each sent through the same symmetry removal and statistics as the data:

- *norm-matched*: every hidden unit keeps its norms, its directions are drawn at random. Replicas
  that have anything in common already differ from it, tree or no tree.
- *star*: replicas are one common network plus noise. All are aligned to their barycentre (iterated
  until no permutation changes), the mean is subtracted, every unit keeps the norms of what remains,
  the directions of that are drawn at random, and the mean is added back.

The norms of a unit are |(w, b)| of what leads into it and, in the last hidden layer, |a| of what
leads out of it; what leads out of an earlier one leads into the next. The output bias keeps its
norm and draws its direction. Plain points (no symmetry) keep their norms after centring; origin and
mean do not matter to distances, so this one null, the star, takes the place of both.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from spinscape.glass.alignment import match_weights
from spinscape.glass.orbits import euclidean_distances, orbit_distances
from spinscape.glass.ultrametricity import Linkage, TreeStatistics, tree_statistics
from spinscape.nets.symmetry import Symmetry
from spinscape.statistics import p_value

__all__ = [
    "RULE",
    "Map",
    "Null",
    "Verdict",
    "barycentre",
    "distances",
    "draw_surrogate",
    "judge",
    "norm_matched",
    "null_statistics",
    "nulls_of",
    "run_here",
    "star",
    "surrogate_statistics",
]

Cell: TypeAlias = Callable[[], list[TreeStatistics]]
Map: TypeAlias = Callable[[Iterable[Cell]], Iterable[list[TreeStatistics]]]
Verdict: TypeAlias = Literal["supported", "not supported", "undecided"]

LEVEL = 0.01
RATIO = 0.7
LEAST_SURROGATES = 100
RULE = (
    f"Supported only if K is below every null (one-sided p < {LEVEL}) and at most {RATIO} times "
    "the mean of each. Not supported if, against some null, neither holds. Undecided otherwise, "
    f"and with fewer than {LEAST_SURROGATES} surrogates, where p cannot get there."
)

BARYCENTRE_STEPS = 50
SURROGATES_A_CELL = 5


@dataclass(frozen=True)
class Null:
    """A common centre, and what the replicas have beyond it, whose directions are drawn anew.

    Attributes
    ----------
    name : str
    centre : [n]
    residual : [replica, n]
    symmetry : Symmetry or None
        Says what a unit is; None for plain points.
    stream : tuple of int
        Which stream of random numbers its surrogates take.
    """

    name: str
    centre: Float[Tensor, "n"]
    residual: Float[Tensor, "replica n"]
    symmetry: Symmetry | None
    stream: tuple[int, ...]


def nulls_of(
    symmetry: Symmetry | None,
    points: Float[Tensor, "replica n"],
    *,
    seed: int,
    stream: tuple[int, ...] = (),
) -> tuple[Null, ...]:
    """Return the nulls of a set of replicas: two for networks, one for plain points.

    Parameters
    ----------
    symmetry : Symmetry or None
        None for plain points.
    points : [replica, n]
    seed : int
        Of the sweep order in the alignment of deep networks.
    stream : tuple of int
        Which random numbers the surrogates take: another one for every set of replicas.
    """
    if symmetry is None or not symmetry.layers:
        return (star(None, points, seed=seed, stream=(*stream, 1)),)
    return (
        norm_matched(symmetry, points, stream=(*stream, 0)),
        star(symmetry, points, seed=seed, stream=(*stream, 1)),
    )


def norm_matched(
    symmetry: Symmetry, points: Float[Tensor, "replica n"], *, stream: tuple[int, ...] = (0,)
) -> Null:
    """Keep the norms of every hidden unit of the balanced points."""
    balanced = symmetry.balance(points)
    return Null("norm-matched", torch.zeros_like(balanced[0]), balanced, symmetry, stream)


def star(
    symmetry: Symmetry | None,
    points: Float[Tensor, "replica n"],
    *,
    seed: int = 0,
    stream: tuple[int, ...] = (1,),
) -> Null:
    """Keep the mean of the points, aligned to their barycentre, and the norms beyond it."""
    aligned = points if symmetry is None else barycentre(symmetry, points, seed=seed)
    centre = aligned.double().mean(0).to(points.dtype)
    return Null("star", centre, aligned - centre, symmetry, stream)


def barycentre(
    symmetry: Symmetry, points: Float[Tensor, "replica n"], *, seed: int = 0
) -> Float[Tensor, "replica n"]:
    """Align all points to their own mean, until no permutation changes any more.

    The first reference is the first point: the mean of points that are not aligned has no
    direction to align to. Serves the star null only; distances are taken pair by pair, since a
    common reference becomes a hub that distorts them.
    """
    balanced = symmetry.balance(points)
    aligned, reference = balanced, balanced[0]
    for _ in range(BARYCENTRE_STEPS):
        result = match_weights(symmetry, reference.expand_as(aligned), aligned, seed=seed)
        settled = torch.equal(result.points, aligned)
        aligned, reference = result.points, result.points.double().mean(0).to(points.dtype)
        if settled:
            break
    return aligned


def draw_surrogate(null: Null, index: int, *, seed: int) -> Float[Tensor, "replica n"]:
    """Draw the surrogate with this index; it depends on nothing but null, index and seed."""
    sequence = np.random.SeedSequence(seed, spawn_key=(*null.stream, index))
    generator = torch.Generator().manual_seed(int(sequence.generate_state(1, np.uint64)[0]))
    residual = null.residual
    drawn = torch.randn(residual.shape, generator=generator, dtype=residual.dtype)
    drawn = drawn.to(residual.device)
    if null.symmetry is None:
        return _with_norms_of(residual, drawn)
    _take_unit_norms(null.symmetry, residual, drawn)
    return null.centre + drawn


def distances(
    symmetry: Symmetry | None, points: Float[Tensor, "replica n"], *, seed: int = 0
) -> Float[np.ndarray, "replica replica"]:
    """Distances between orbits of networks, or plain ones without a symmetry."""
    if symmetry is None:
        return euclidean_distances(points).numpy()
    return orbit_distances(symmetry, points, seed=seed).numpy()


def surrogate_statistics(
    null: Null, indices: Sequence[int], *, linkage: Linkage, seed: int
) -> list[TreeStatistics]:
    """Statistics of the surrogates with these indices: one cell of work for a worker."""
    return [
        tree_statistics(
            distances(null.symmetry, draw_surrogate(null, index, seed=seed), seed=seed), linkage
        )
        for index in indices
    ]


def judge(value: float, null: Float[np.ndarray, "null surrogate"]) -> Verdict:
    """Apply `RULE` to a K and those of the surrogates."""
    if null.shape[1] < LEAST_SURROGATES:
        return "undecided"
    significant = np.array([p_value(value, one) < LEVEL for one in null])
    small = value <= RATIO * null.mean(axis=1)
    if (significant & small).all():
        return "supported"
    return "undecided" if (significant | small).all() else "not supported"


def run_here(cells: Iterable[Cell]) -> Iterator[list[TreeStatistics]]:
    """Run cells one after the other."""
    return (cell() for cell in cells)


def null_statistics(
    nulls: Sequence[Null], surrogates: int, *, linkage: Linkage, seed: int, map: Map = run_here
) -> dict[str, Float[np.ndarray, "null surrogate"]]:
    """Statistics of all surrogates of all nulls, in cells that `map` may hand to workers."""
    cells = [
        partial(surrogate_statistics, null, range(start, stop), linkage=linkage, seed=seed)
        for null in nulls
        for start in range(0, surrogates, SURROGATES_A_CELL)
        for stop in [min(start + SURROGATES_A_CELL, surrogates)]
    ]
    flat = [statistics for cell in map(cells) for statistics in cell]
    values = np.array(flat).reshape(len(nulls), surrogates, len(TreeStatistics._fields))
    return {name: values[..., i] for i, name in enumerate(TreeStatistics._fields)}


def _take_unit_norms(symmetry: Symmetry, residual: Tensor, drawn: Tensor) -> None:
    """Give each unit's drawn directions the norms that it has in `residual`, in place."""
    for layer in symmetry.layers:
        factors = layer.norms_in(residual) / layer.norms_in(drawn)
        layer.weights_in(drawn).mul_(factors[..., None])
        if layer.bias is not None:
            drawn[..., layer.bias] *= factors
    last = symmetry.layers[-1]
    factors = last.norms_out(residual) / last.norms_out(drawn)
    last.weights_out(drawn).mul_(factors[..., None, :])
    outside = symmetry.outside
    drawn[..., outside] = _with_norms_of(residual[..., outside], drawn[..., outside])


def _with_norms_of(residual: Tensor, drawn: Tensor) -> Tensor:
    norms = torch.linalg.vector_norm(residual, dim=-1, keepdim=True)
    return drawn * (norms / torch.linalg.vector_norm(drawn, dim=-1, keepdim=True))
