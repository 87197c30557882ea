"""Straight paths from a solution to copies of itself with only some of its hidden units moved.

All copies compute the same function, so a barrier to one belongs to that solution alone. Swaps of
units that did not feel each other would add up: the barrier would grow in proportion to the number
of units moved, which is the null here. The question is that of arXiv 2407.20724, the method ours.
"""

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from spinscape.glass.energies import batch_of
from spinscape.glass.paths.barriers import SOURCE, along, positions
from spinscape.landscape.energy import Landscape
from spinscape.landscape.paths import BARRIERS, path_barrier
from spinscape.nets import symmetry as symmetries
from spinscape.nets.chunks import pieces
from spinscape.nets.symmetry import Symmetry
from spinscape.records import labelled, provenance
from spinscape.statistics import Finding, Interval, bootstrap

__all__ = ["COPIES", "copies_findings", "growth", "partial_copies"]

COPIES = ("transpositions", "cycle", "random")
BLOCK_ELEMENTS = 2**24
"""Numbers in one block of copies or of their outputs: 64 MiB in single precision."""

ROUNDINGS = 1024
"""Outputs of a copy may differ by so many units in the last place of the largest output."""


def partial_copies(
    landscape: Landscape,
    points: "Float[Tensor, 'replica n'] | xr.DataArray | xr.Dataset",
    *,
    moved: Sequence[int] | None = None,
    kinds: Sequence[str] = COPIES,
    draws: int = 2,
    layer: int = 0,
    resolution: int = 25,
    seed: int = 0,
    symmetry: Symmetry | None = None,
) -> xr.Dataset:
    """Loss along straight paths from solutions to their own copies with some units moved.

    Of one hidden layer, `moved` units change places: two by two (*transpositions*), all in one
    *cycle*, or by a *random* permutation that leaves none of them where it was. A draw puts the
    units into a random order, whose first ones are moved: more units are moved in addition to the
    same fewer ones, and by all kinds the same ones.

    Parameters
    ----------
    landscape : Landscape
    points : [replica, n]
        Solutions.
    moved : sequence of int, optional
        How many units change places, 2 or more; even for transpositions. 2, 4, 8 … and all (of an
        odd number all but one) if not given.
    kinds : sequence of {"transpositions", "cycle", "random"}
    draws : int
        Copies of each kind and number, of every solution.
    layer : int
        The hidden layer whose units are moved.
    resolution : int
        Points on each path, ends included.
    seed : int
        Of the permutations; those of a draw depend on no other replica, draw, kind or number.
    symmetry : Symmetry, optional
        For a module whose symmetry is not known.

    Returns
    -------
    Dataset
        Over ``kind, moved, replica, draw, lam``: ``loss``, ``error``; without ``lam``: ``barrier``
        (above the straight line between the ends), ``barrier_mean`` (above their mean),
        ``distance`` and ``overlap`` θ·Pθ/‖θ‖² of the ends.

    Raises
    ------
    TypeError
        If the module's symmetry is not known.
    ValueError
        If a number is out of range, a kind unknown, or a copy computes something else than its
        solution (the symmetry is not the module's).
    """
    states = batch_of(points)
    found = symmetries.of(landscape.module, symmetry)
    numbers = _check(found, layer, moved, kinds, draws)
    lam = positions(resolution)
    orders = _orders(found.widths[layer], numbers, kinds, len(states), draws, seed)
    owners = torch.arange(len(states)).repeat_interleave(draws).repeat(len(kinds) * len(numbers))
    answers = landscape.outputs(states)
    size = max(1, BLOCK_ELEMENTS // max(found.n, answers[0].numel()))
    blocks = []
    for rows in pieces(len(owners), size):
        here = states[owners[rows]]
        copies = _moved(found, here, orders[rows], layer)
        _check_function(landscape.outputs(copies), answers[owners[rows]], owners[rows])
        overlap = (here.double() * copies.double()).sum(1) / here.double().square().sum(1)
        blocks.append((*along(landscape, here, copies, lam), overlap))
    shape = len(kinds), len(numbers), len(states), draws
    loss, error, distance, overlap = (
        torch.cat(parts).unflatten(0, shape) for parts in zip(*blocks, strict=True)
    )
    dataset = _dataset(loss, error, distance, overlap, kinds, numbers, lam)
    arguments = {
        "moved": numbers,
        "draws": draws,
        "layer": layer,
        "width": found.widths[layer],
        "resolution": resolution,
        "symmetry": found.describe(),
    }
    return dataset.assign_attrs(provenance("partial_copies", SOURCE, seed, **arguments))


def growth(
    copies: xr.Dataset, kind: str = COPIES[0], *, level: float = 0.95, seed: int = 0
) -> Interval:
    """Exponent x of the mean barrier ∝ movedˣ, with a bootstrap interval over replicas.

    A straight line through the logarithms of the mean barriers at all numbers of units moved.

    Raises
    ------
    ValueError
        If there are fewer than two replicas or numbers, or a mean barrier is not above 0.
    """
    heights = copies["barrier"].sel(kind=kind).mean("draw").transpose("moved", "replica")
    values = heights.values.astype(float)
    if len(values) < 2 or not np.all(values.mean(1) > 0):
        raise ValueError(
            f"copies: no exponent from the mean barriers {values.mean(1).tolist()} of {kind}; it "
            "takes two or more, all above 0"
        )
    place = np.log(copies["moved"].values.astype(float))
    place -= place.mean()

    def exponent(drawn: np.ndarray, axis: int = -1) -> np.ndarray:
        means = values[:, drawn.astype(int)].mean(-1)
        return np.tensordot(place, np.log(means), 1) / (place @ place)

    return bootstrap(np.arange(values.shape[1]), exponent, level=level, seed=seed)


def copies_findings(copies: xr.Dataset, *, level: float = 0.95, seed: int = 0) -> list[Finding]:
    """Judge whether the barrier to the own copy grows faster than the number of units moved."""
    kinds = [str(kind) for kind in copies["kind"].values]
    common: dict[str, Any] = {
        "protocol": "permutation",
        "question": "Does the barrier to the own copy grow faster than the number of units moved?",
        "null": "swaps that do not feel each other, whose barriers add up: exponent 1",
        "null_value": 1.0,
        "rule": (
            f"The mean barrier of {kinds[0]} grows as a power of the number of units moved: "
            "supported if the interval of the exponent lies above 1, not supported if it lies "
            "below, else undecided"
        ),
    }
    try:
        powers = {kind: growth(copies, kind, level=level, seed=seed) for kind in kinds}
    except ValueError as reason:
        told = f"The exponent is undefined ({reason})"
        return [Finding(**common, statement=told, value=None, verdict="undecided")]
    power = powers[kinds[0]]
    faster, slower = power.low > 1, power.high < 1
    verdict = "supported" if faster else "not supported" if slower else "undecided"
    answers = {
        "supported": "The barrier grows faster than the number of units moved",
        "not supported": "The barrier grows more slowly than the number of units moved",
        "undecided": "Whether the barrier grows faster than the number of units moved is undecided",
    }
    few, many = (int(copies["moved"][end]) for end in (0, -1))
    heights = copies["barrier"].sel(kind=kinds[0]).mean(("replica", "draw"))
    others = "".join(f"; {kind}: {powers[kind].value:.3g}" for kind in kinds[1:])
    told = (
        f"{answers[verdict]}: over {copies.sizes['replica']} solutions it is "
        f"{float(heights[0]):.3g} nats on average with {few} units moved and "
        f"{float(heights[-1]):.3g} with {many}, in {kinds[0]} as their number to the power "
        f"{power.value:.3g}{others}"
    )
    return [Finding(**common, **power._asdict(), statement=told, verdict=verdict)]


def _check(
    symmetry: Symmetry, layer: int, moved: Sequence[int] | None, kinds: Sequence[str], draws: int
) -> list[int]:
    """Return the numbers of units to move; refuse what cannot be done."""
    if not 0 <= layer < len(symmetry.layers):
        raise ValueError(f"layer={layer}: the module has {len(symmetry.layers)} hidden layers")
    width = symmetry.widths[layer]
    if width < 2:
        raise ValueError(f"layer={layer}: holds one unit, and it takes two to change places")
    if not kinds or len(set(kinds)) < len(kinds) or not set(kinds) <= set(COPIES):
        raise ValueError(f"kinds={list(kinds)!r}: expected different ones of {', '.join(COPIES)}")
    if draws < 1:
        raise ValueError(f"draws={draws}: expected 1 or more")
    if moved is None:
        doubled = [2**k for k in range(1, width.bit_length()) if 2**k < width - 1]
        return [*doubled, width - width % 2]
    numbers = [int(number) for number in moved]
    if not numbers or sorted(set(numbers)) != numbers or numbers[0] < 2 or numbers[-1] > width:
        raise ValueError(f"moved={list(moved)}: expected rising numbers from 2 to {width} units")
    if "transpositions" in kinds and any(number % 2 for number in numbers):
        raise ValueError(f"moved={list(moved)}: transpositions move an even number of units")
    return numbers


def _orders(
    width: int, moved: list[int], kinds: Sequence[str], replicas: int, draws: int, seed: int
) -> Int[Tensor, "copy width"]:
    """Which unit stands where in each copy: kinds, numbers, replicas and draws in this order."""
    rows = []
    for kind, number, replica, draw in product(kinds, moved, range(replicas), range(draws)):
        stream = np.random.SeedSequence(seed, spawn_key=(replica, draw))
        chosen = np.random.default_rng(stream).permutation(width)[:number]
        order = np.arange(width)
        if kind == "transpositions":
            order[chosen] = chosen.reshape(-1, 2)[:, ::-1].ravel()
        elif kind == "cycle":
            order[chosen] = np.roll(chosen, -1)
        else:
            order[chosen] = chosen[_derangement(number, replica, draw, seed)]
        rows.append(order)
    return torch.from_numpy(np.stack(rows))


def _derangement(number: int, replica: int, draw: int, seed: int) -> np.ndarray:
    """Draw uniformly among the permutations without a fixed point (one in e has none)."""
    stream = np.random.SeedSequence(seed, spawn_key=(replica, draw, number))
    generator = np.random.default_rng(stream)
    while True:
        order = generator.permutation(number)
        if (order != np.arange(number)).all():
            return order


def _moved(
    symmetry: Symmetry,
    points: Float[Tensor, "copy n"],
    orders: Int[Tensor, "copy width"],
    layer: int,
) -> Float[Tensor, "copy n"]:
    every = [torch.arange(width) for width in symmetry.widths]
    return symmetry.permute(points, [*every[:layer], orders, *every[layer + 1 :]])


def _check_function(outputs: Tensor, expected: Tensor, owners: Tensor) -> None:
    """Refuse copies whose outputs are not those of their solutions within rounding."""
    apart = (outputs - expected).flatten(1).abs().amax(1)
    size = expected.flatten(1).abs().amax(1)
    bad = ~(apart <= ROUNDINGS * torch.finfo(outputs.dtype).eps * size)
    if bool(bad.any()):
        worst = int(torch.where(bad, apart, -1).argmax())
        raise ValueError(
            f"points: a copy of {int(owners[worst])} computes something else (outputs differ by "
            f"{float(apart[worst]):.3g}); is the symmetry the module's?"
        )


def _dataset(
    loss: Float[Tensor, "kind moved replica draw lam"],
    error: Float[Tensor, "kind moved replica draw lam"],
    distance: Float[Tensor, "kind moved replica draw"],
    overlap: Float[Tensor, "kind moved replica draw"],
    kinds: Sequence[str],
    moved: list[int],
    lam: Float[Tensor, "lam"],
) -> xr.Dataset:
    over = {definition: path_barrier(loss, definition=definition) for definition in BARRIERS}
    dims = ("kind", "moved", "replica", "draw")
    return xr.Dataset(
        {
            "loss": labelled((*dims, "lam"), loss, "loss", "nats"),
            "error": labelled((*dims, "lam"), error, "error rate"),
            "barrier": labelled(dims, over["line"], "barrier above the straight line", "nats"),
            "barrier_mean": labelled(dims, over["mean"], "barrier above the ends' mean", "nats"),
            "distance": labelled(dims, distance, "distance of the ends"),
            "overlap": labelled(dims, overlap, "overlap of the ends"),
        },
        coords={
            "kind": list(kinds),
            "moved": ("moved", moved, {"long_name": "units moved", "units": "1"}),
            "lam": ("lam", lam.numpy(), {"long_name": "position on the path", "units": "1"}),
        },
    )
