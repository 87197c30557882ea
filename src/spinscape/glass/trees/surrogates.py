"""Surrogates: sets of replicas that share everything with the given ones but their tree.

Two nulls in weight space, each sent through the same symmetry removal and statistics as the data:

- *norm-matched*: every hidden unit keeps its norms, its directions are drawn at random. Replicas
  that have anything in common already differ from it, tree or no tree.
- *star*: replicas are one common network plus noise. All are aligned to their barycentre (iterated
  until no permutation changes), the mean is subtracted, every unit keeps the norms of what remains,
  the directions of that are drawn at random, and the mean is added back.

The norms of a unit are |(w, b)| of what leads into it and, in the last hidden layer, |a| of what
leads out of it; what leads out of an earlier one leads into the next. The output bias keeps its
norm and draws its direction. Plain points (no symmetry) keep their norms after centring; origin and
mean do not matter to distances, so this one null, the star, takes the place of both. Where weights
are compared as they are, nothing is balanced or aligned for the surrogates either.

Where functions are compared (`functional`), surrogate weights compute something else than the
replicas do, and may well form families. Only a null in the space of functions, the *function star*
(`mixing`), is judged by there; the others are shown beside it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from spinscape.glass.matching.alignment import match_weights
from spinscape.glass.trees.mixing import FunctionStar, draw_overlaps, function_star
from spinscape.glass.trees.rulers import Matrix, PairStatistics, Ruler, pair_statistics
from spinscape.glass.trees.ultrametricity import Linkage
from spinscape.nets.symmetry import Symmetry
from spinscape.statistics import p_value

__all__ = [
    "RULE",
    "Map",
    "Null",
    "Verdict",
    "are_judged",
    "barycentre",
    "draw_pairs",
    "draw_surrogate",
    "judge",
    "norm_matched",
    "null_statistics",
    "nulls_of",
    "run_here",
    "star",
    "surrogate_statistics",
]

Cell: TypeAlias = Callable[[], list[PairStatistics]]
Map: TypeAlias = Callable[[Iterable[Cell]], Iterable[list[PairStatistics]]]
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
    ruler: Ruler, points: Float[Tensor, "replica n"], *, stream: tuple[int, ...] = ()
) -> tuple[Null | FunctionStar, ...]:
    """Return the nulls of a set of replicas.

    Two for networks, one for plain points, and the function star where functions are compared.

    Parameters
    ----------
    ruler : Ruler
        By what replicas are compared.
    points : [replica, n]
    stream : tuple of int
        Which random numbers the surrogates take: another one for every set of replicas.
    """
    symmetry, raw = ruler.symmetry, ruler.kind == "weights"
    ours = (*stream, 1)
    if symmetry is None or not symmetry.layers:
        known: tuple[Null, ...] = (star(None, points, seed=ruler.seed, stream=ours),)
    else:
        known = (
            norm_matched(symmetry, points, stream=(*stream, 0), raw=raw),
            star(symmetry, points, seed=ruler.seed, stream=ours, raw=raw),
        )
    if not ruler.functional:
        return known
    assert ruler.landscape is not None
    return (*known, function_star(ruler.landscape, points, ruler.kind, stream=(*stream, 3)))


def norm_matched(
    symmetry: Symmetry,
    points: Float[Tensor, "replica n"],
    *,
    stream: tuple[int, ...] = (0,),
    raw: bool = False,
) -> Null:
    """Keep the norms of every hidden unit of the points, balanced unless `raw`."""
    kept = points if raw else symmetry.balance(points)
    return Null("norm-matched", torch.zeros_like(kept[0]), kept, symmetry, stream)


def star(
    symmetry: Symmetry | None,
    points: Float[Tensor, "replica n"],
    *,
    seed: int = 0,
    stream: tuple[int, ...] = (1,),
    raw: bool = False,
) -> Null:
    """Keep the mean of the points and the norms beyond it; first align them unless `raw`."""
    aligned = points if symmetry is None or raw else barycentre(symmetry, points, seed=seed)
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


def draw_pairs(
    null: Null | FunctionStar, index: int, *, ruler: Ruler, seed: int
) -> tuple[Matrix, Matrix]:
    """Return distances and overlaps of the surrogate with this index, taken as the data's are."""
    if isinstance(null, FunctionStar):
        overlap = draw_overlaps(null, index, seed=seed)
        return 1 - overlap, overlap
    drawn = draw_surrogate(null, index, seed=seed)
    return ruler.pairs(drawn + null.centre if null.symmetry is None and ruler.functional else drawn)


def surrogate_statistics(
    null: Null | FunctionStar,
    indices: Sequence[int],
    *,
    ruler: Ruler,
    linkage: Linkage,
    seed: int,
) -> list[PairStatistics]:
    """Statistics of the surrogates with these indices: one cell of work for a worker."""
    return [
        pair_statistics(*draw_pairs(null, index, ruler=ruler, seed=seed), linkage)
        for index in indices
    ]


def judge(
    value: float,
    null: Float[np.ndarray, "null surrogate"],
    *,
    alternative: Literal["less", "greater"] = "less",
) -> Verdict:
    """Apply `RULE` to a K and those of the surrogates; mirrored if large values are claimed."""
    if null.shape[1] < LEAST_SURROGATES:
        return "undecided"
    significant = np.array([p_value(value, one, alternative) < LEVEL for one in null])
    mean = null.mean(axis=1)
    far = value <= RATIO * mean if alternative == "less" else RATIO * value >= mean
    if (significant & far).all():
        return "supported"
    return "undecided" if (significant | far).all() else "not supported"


def are_judged(nulls: Sequence[Null | FunctionStar]) -> list[bool]:
    """Say which nulls a verdict asks for: the function star where there is one, else all."""
    stars = [isinstance(null, FunctionStar) for null in nulls]
    return stars if any(stars) else [True] * len(nulls)


def run_here(cells: Iterable[Cell]) -> Iterator[list[PairStatistics]]:
    """Run cells one after the other."""
    return (cell() for cell in cells)


def null_statistics(
    nulls: Sequence[Null | FunctionStar],
    surrogates: int,
    *,
    ruler: Ruler,
    linkage: Linkage,
    seed: int,
    map: Map = run_here,
) -> dict[str, Float[np.ndarray, "null surrogate *quantile"]]:
    """Statistics of all surrogates of all nulls, in cells that `map` may hand to workers."""
    count = partial(surrogate_statistics, ruler=ruler, linkage=linkage, seed=seed)
    cells = [
        partial(count, null, range(start, min(start + SURROGATES_A_CELL, surrogates)))
        for null in nulls
        for start in range(0, surrogates, SURROGATES_A_CELL)
    ]
    flat = [statistics for cell in map(cells) for statistics in cell]
    columns = zip(PairStatistics._fields, zip(*flat, strict=True), strict=True)
    return {
        name: np.reshape(values, (len(nulls), surrogates, *np.shape(values[0])))
        for name, values in columns
    }


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
