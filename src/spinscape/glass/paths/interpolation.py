"""Straight paths between solutions: what joins a network to its permuted copies, and to others.

Renumbering hidden units leaves a network's function as it is, so the barrier between a solution and
its own permuted copy belongs to that one solution. Entezari et al. (arXiv 2110.06296) conjecture
that independent solutions are such copies of one another: the two kinds of barrier would then have
the same statistics, and matching the units would remove the second. The question is that of arXiv
2407.20724, the method is ours.
"""

from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from spinscape.glass.energies import batch_of
from spinscape.glass.matching.alignment import align_pairs
from spinscape.glass.matching.hidden_units import hidden_units_of
from spinscape.glass.paths.barriers import SOURCE, along, positions
from spinscape.glass.paths.pairings import balanced_pairs
from spinscape.glass.walking.moves import generators
from spinscape.landscape.energy import Landscape
from spinscape.landscape.paths import BARRIERS, path_barrier
from spinscape.nets import symmetry as symmetries
from spinscape.nets.chunks import pieces
from spinscape.nets.symmetry import Symmetry
from spinscape.records import labelled, provenance
from spinscape.statistics import Finding, Interval, pair_bootstrap

__all__ = ["KINDS", "permutation_findings", "permutation_paths"]

BY_ACTIVATIONS = "aligned by activations"
KINDS = ("own copy", "independent", "random matching", "aligned", BY_ACTIVATIONS)
BLOCK_ELEMENTS = 2**24
"""Numbers in one block of end points: 64 MiB in single precision."""


def permutation_paths(
    landscape: Landscape,
    points: "Float[Tensor, 'replica n'] | xr.DataArray | xr.Dataset",
    *,
    pairs: int = 96,
    resolution: int = 25,
    seed: int = 0,
    symmetry: Symmetry | None = None,
) -> xr.Dataset:
    """Loss along straight paths between solutions and copies of solutions, of five kinds.

    *own copy*: a solution and itself with all hidden units renumbered at random, which computes the
    same function. *independent*: two solutions as trained. *aligned*: the same two, the ReLU scale
    removed and the units of the second matched to those of the first by their weights. *aligned by
    activations*: matched by what they do on the landscape's samples; left out where the module is
    no chain, so that activations are not known. *random matching*, the null of both: the scale
    removed and the units matched at random.

    Parameters
    ----------
    landscape : Landscape
    points : [replica, n]
        At least two solutions.
    pairs : int
        How many pairs of solutions, at most all of them; every replica is in equally many,
        or one more.
    resolution : int
        Points on each path, ends included.
    seed : int
        Of the choice of pairs and of all permutations.
    symmetry : Symmetry, optional
        For a module whose symmetry is not known.

    Returns
    -------
    Dataset
        Over ``kind, path, lam``: ``loss``, ``error``; over ``kind, path``: ``distance``,
        ``barrier`` (above the straight line between the ends) and ``barrier_mean`` (above the mean
        of the ends); ``pair`` [path, end].

    Raises
    ------
    TypeError
        If the module's symmetry is not known.
    ValueError
        If there are fewer than two points, or a number is out of range.
    """
    states = batch_of(points)
    if len(states) < 2:
        raise ValueError(f"points: expected at least two solutions, got {len(states)}")
    if pairs < 1:
        raise ValueError(f"pairs={pairs}: expected 1 or more")
    found = symmetries.of(landscape.module, symmetry)
    kinds = _kinds(landscape, found)
    lam = positions(resolution)
    chosen = balanced_pairs(len(states), pairs, seed)
    streams = generators(seed, len(chosen))
    blocks = []
    for rows in pieces(len(chosen), max(1, BLOCK_ELEMENTS // states.shape[1])):
        ends = _ends(landscape, found, states, chosen[rows], streams[rows], seed, kinds)
        blocks.append([along(landscape, *ends[kind], lam) for kind in kinds])
    loss, error, distance = (
        torch.stack([torch.cat([block[k][i] for block in blocks]) for k in range(len(kinds))])
        for i in range(3)
    )
    return _dataset(loss, error, distance, chosen, lam, kinds, found, seed)


def permutation_findings(paths: xr.Dataset, *, level: float = 0.95, seed: int = 0) -> list[Finding]:
    """Judge whether matching removes barriers, and whether own copies are as far as strangers."""
    found = [_removed(paths, "aligned", level, seed), _conjecture(paths, level, seed)]
    if BY_ACTIVATIONS in paths["kind"].values:
        found.append(_removed(paths, BY_ACTIVATIONS, level, seed))
    return found


LEAST_REMOVED = 0.5
ALIKE = (0.8, 1.25)


def _removed(paths: xr.Dataset, kind: str, level: float, seed: int) -> Finding:
    """Share of the barrier between independent solutions that a matching removes."""
    by, best = (" by what they do on data", "that") if kind == BY_ACTIVATIONS else ("", "the best")
    height = {str(kind): paths["barrier"].sel(kind=kind).values for kind in paths["kind"].values}
    common: dict[str, Any] = {
        "protocol": "permutation",
        "question": f"Does matching hidden units{by} remove the barrier between two solutions?",
        "null": "a random matching of the units, which removes nothing",
        "null_value": 0.0,
        "rule": (
            f"Of the barrier after a random matching, {best} one removes a fraction: supported if "
            f"its interval lies above {LEAST_REMOVED}, not supported if it lies below, else "
            "undecided; the ReLU scale is removed in both"
        ),
    }
    ratio = _ratio(paths, kind, "random matching", level, seed)
    if ratio is None or not np.isfinite(height["independent"]).all():
        return Finding(**common, **_nothing(paths))
    value, low, high = 1 - ratio.value, 1 - ratio.high, 1 - ratio.low
    above, below = low > LEAST_REMOVED, high < LEAST_REMOVED
    verdict = "supported" if above else "not supported" if below else "undecided"
    answers = {
        "supported": f"Matching hidden units{by} removes most of the barrier",
        "not supported": f"Matching hidden units{by} does not remove most of the barrier",
        "undecided": f"Whether matching hidden units{by} removes most of the barrier is undecided",
    }
    return Finding(
        **common,
        statement=(
            f"{answers[verdict]}: between {len(height[kind])} pairs of independent solutions "
            f"it is {height['independent'].mean():.3g} nats on average as trained, "
            f"{height['random matching'].mean():.3g} after a random and "
            f"{height[kind].mean():.3g} after {best} matching; {value:.0%} of it goes"
        ),
        value=value,
        low=low,
        high=high,
        level=level,
        verdict=verdict,
    )


def _conjecture(paths: xr.Dataset, level: float, seed: int) -> Finding:
    """Barrier to the own permuted copy in units of that between independent solutions."""
    low, high = ALIKE
    common: dict[str, Any] = {
        "protocol": "permutation",
        "question": "Is the barrier to the own permuted copy like that to another solution?",
        "null": f"unlike: mean barriers whose ratio lies outside {low} to {high}",
        "rule": (
            f"Alike: supported if the interval of the ratio of mean barriers lies within {low} to "
            f"{high}, not supported if it lies outside, else undecided. Equal means are less than "
            "the equal statistics of the conjecture"
        ),
    }
    ratio = _ratio(paths, "own copy", "independent", level, seed)
    if ratio is None:
        return Finding(**common, **_nothing(paths))
    inside = low <= ratio.low and ratio.high <= high
    outside = ratio.high < low or ratio.low > high
    mean = paths["barrier"].mean("path")
    verdict = "supported" if inside else "not supported" if outside else "undecided"
    answers = {
        "supported": "Own copies stand behind barriers as high as other solutions do",
        "not supported": "Own copies do not stand behind barriers as high as other solutions do",
        "undecided": "Whether own copies stand behind barriers as high as others is undecided",
    }
    return Finding(
        **common,
        **ratio._asdict(),
        statement=(
            f"{answers[verdict]}: the barrier between a solution and its own copy with all units "
            f"renumbered is {float(mean.sel(kind='own copy')):.3g} nats on average, "
            f"{ratio.value:.3g} times that between independent solutions"
        ),
        verdict=verdict,
    )


def _ratio(paths: xr.Dataset, over: str, under: str, level: float, seed: int) -> Interval | None:
    """Ratio of the mean barriers of two kinds of paths over the same pairs, replicas redrawn."""
    above, below = (paths["barrier"].sel(kind=kind).values.astype(float) for kind in (over, under))
    pairs = paths["pair"].transpose("path", "end").values
    if len(pairs) < 2 or not np.isfinite([above, below]).all() or below.mean() <= 0:
        return None

    def ratio(rows: np.ndarray) -> float:
        drawn = rows.astype(int)
        return float(above[drawn].sum() / below[drawn].sum())

    return pair_bootstrap(np.arange(len(pairs)), pairs, ratio, level=level, seed=seed)


def _nothing(paths: xr.Dataset) -> dict[str, Any]:
    finite = np.isfinite(paths["barrier"].transpose("kind", "path").values).all(0)
    lost = int((~finite).sum())
    why = f"on {lost} of them the loss is not finite" if lost else "no barrier, or too few of them"
    return {
        "statement": f"The ratio is undefined: {paths.sizes['path']} pairs, {why}",
        "value": None,
        "verdict": "undecided",
    }


def _kinds(landscape: Landscape, symmetry: Symmetry) -> tuple[str, ...]:
    """All kinds, but by activations only where those of the units to be matched are known."""
    try:
        known = hidden_units_of(landscape.module).layers == symmetry.layers
    except TypeError:
        known = False
    return KINDS if known else KINDS[:-1]


def _ends(
    landscape: Landscape,
    symmetry: Symmetry,
    points: Float[Tensor, "replica n"],
    pairs: Int[Tensor, "pair 2"],
    streams: list[torch.Generator],
    seed: int,
    kinds: tuple[str, ...],
) -> dict[str, tuple[Tensor, Tensor]]:
    """Both ends of the paths of each kind."""
    a, b = (points[pairs[:, end].to(points.device)] for end in (0, 1))
    plain = symmetry.balance(a)
    ends = {
        "own copy": (a, symmetry.permute(a, _permutations(symmetry, streams))),
        "independent": (a, b),
        "random matching": (
            plain,
            symmetry.permute(symmetry.balance(b), _permutations(symmetry, streams)),
        ),
        "aligned": (plain, align_pairs(symmetry, points, pairs, seed=seed).points),
    }
    if BY_ACTIVATIONS in kinds:
        matched = align_pairs(
            symmetry, points, pairs, method="activations", module=landscape.module, x=landscape.x
        )
        ends[BY_ACTIVATIONS] = (plain, matched.points)
    return ends


def _permutations(
    symmetry: Symmetry, streams: list[torch.Generator]
) -> list[Int[Tensor, "pair width"]]:
    drawn = [symmetry.random_permutation(stream) for stream in streams]
    return [torch.stack(layer) for layer in zip(*drawn, strict=True)]


def _dataset(
    loss: Float[Tensor, "kind path lam"],
    error: Float[Tensor, "kind path lam"],
    distance: Float[Tensor, "kind path"],
    pairs: Int[Tensor, "path 2"],
    lam: Float[Tensor, "lam"],
    kinds: tuple[str, ...],
    symmetry: Symmetry,
    seed: int,
) -> xr.Dataset:
    arguments = {
        "pairs": len(pairs),
        "resolution": len(lam),
        "symmetry": symmetry.describe(),
    }
    over = {definition: path_barrier(loss, definition=definition) for definition in BARRIERS}
    both = ("kind", "path")
    return xr.Dataset(
        {
            "loss": labelled((*both, "lam"), loss, "loss", "nats"),
            "error": labelled((*both, "lam"), error, "error rate"),
            "barrier": labelled(both, over["line"], "barrier above the straight line", "nats"),
            "barrier_mean": labelled(both, over["mean"], "barrier above the ends' mean", "nats"),
            "distance": labelled(both, distance, "distance of the ends"),
            "pair": labelled(("path", "end"), pairs, "replicas at the ends"),
        },
        coords={
            "kind": list(kinds),
            "lam": ("lam", lam.numpy(), {"long_name": "position on the path", "units": "1"}),
        },
        attrs=provenance("permutation_paths", SOURCE, seed, **arguments),
    )
