"""From a solution to its copy with two hidden units exchanged, through a permutation point.

Where two units have the same incoming weights they are one unit, and their output weights may be
exchanged at constant loss (Brea, Şimşek, Illing & Gerstner, arXiv 1907.02911). The path of three
legs merges the two units, exchanges what leads out of them, and takes them apart again, each to
the other's place. The last leg is the first one's mirror image under the exchange, and has the same
losses. With an extra unit there is a path on which the loss does not change (`extra_neuron`).
"""

from dataclasses import asdict
from typing import Any, NamedTuple, Protocol

import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor, nn

from spinscape.glass.energies import Energy, batch_of
from spinscape.glass.paths.barriers import positions
from spinscape.glass.paths.curves import STANDARD, Bending, along_curve, bend
from spinscape.glass.paths.unit_pairs import draw_units, merged, traded, transposed
from spinscape.glass.walking.moves import generators
from spinscape.landscape.paths import path_barrier
from spinscape.nets import symmetry as symmetries
from spinscape.nets.chunks import pieces
from spinscape.nets.symmetry import HiddenLayer, Symmetry
from spinscape.records import labelled, provenance

__all__ = ["ROUTES", "EnergyOfNetworks", "permutation_point_paths"]

SOURCE = "permutation points: Brea et al., arXiv 1907.02911; bent lines: arXiv 1802.10026"
ROUTES = ("straight", "bent", "merged", "lowered")
BLOCK_ELEMENTS = 2**24
"""Numbers in one block of control points: 64 MiB in single precision."""


class EnergyOfNetworks(Energy, Protocol):
    """An energy of the weights of a module: a `Landscape`, a `ReluTeacher`."""

    @property
    def module(self) -> nn.Module:
        """The architecture."""


class _Routes(NamedTuple):
    """Control points of all routes; of those with a merged point, of the first leg."""

    straight: Float[Tensor, "swap 3 n"]
    bent: Float[Tensor, "swap 3 n"]
    merged: Float[Tensor, "swap 2 n"]
    lowered: Float[Tensor, "swap 2 n"]


class _Measured(NamedTuple):
    """Over route, swap and position; the last two over route and swap."""

    loss: Float[Tensor, "route swap lam"]
    error: Float[Tensor, "route swap lam"]
    barrier: Float[Tensor, "route swap"]
    exchange: Float[Tensor, "route swap"]


def permutation_point_paths(
    landscape: EnergyOfNetworks,
    points: "Float[Tensor, 'replica n'] | xr.DataArray | xr.Dataset",
    *,
    swaps: int = 2,
    units: Int[Tensor, "*replica swap 2"] | None = None,
    layer: int = 0,
    bending: Bending = STANDARD,
    resolution: int = 17,
    descent: EnergyOfNetworks | None = None,
    held_out: EnergyOfNetworks | None = None,
    seed: int = 0,
    symmetry: Symmetry | None = None,
) -> xr.Dataset:
    """Loss on four routes between a solution and its copy with two hidden units exchanged.

    *straight*: the straight line. *bent*: the line, bent by one control point until its mean loss
    is low (`bezier`). *merged*: through the permutation point where both units have the mean of
    their incoming weights. *lowered*: the same, the permutation point moved down the mean loss of
    the leg that leads to it, all weights free but for the two units that stay one. By construction
    bent is never higher than straight, nor lowered than merged, on `landscape`.

    Parameters
    ----------
    landscape : Landscape, or an energy with a ``module``
        On which routes are looked at, and the best ones kept.
    points : [replica, n]
        Solutions.
    swaps : int
        Pairs of hidden units, drawn at random for every solution.
    units : [swap, 2] or [replica, swap, 2], optional
        Which pairs of units instead.
    layer : int
        Hidden layer of the units.
    bending : Bending
        Settings of the optimiser.
    resolution : int
        Points on each of the three legs, ends included; the other routes have as many in all.
    descent : Landscape, Energy or callable, optional
        What the gradient is taken of, if not of `landscape`: all training samples, say, where
        `landscape` holds some. A curve bent on few samples fits these.
    held_out : Landscape, Energy or callable, optional
        A landscape of samples that had no part in bending.
    seed : int
        Of the pairs of units, and of the positions and samples of every step.
    symmetry : Symmetry, optional
        For a module whose symmetry is not known.

    Returns
    -------
    Dataset
        Over ``route, replica, swap, lam``: ``loss``, ``error`` (each leg is a third of the way);
        over ``route, replica, swap``: ``barrier`` above the line between the ends' losses, and
        ``exchange``, by how much the loss varies while output weights are exchanged (rounding
        alone; not a number on routes without); ``unit`` [replica, swap, end]. With `held_out`, the
        first three as ``held_loss``, ``held_error``, ``held_barrier``.

    Raises
    ------
    TypeError
        If the module's symmetry is not known.
    ValueError
        If a number is out of range, or the units are not pairs of units of the layer.
    """
    states = batch_of(points)
    found = symmetries.of(landscape.module, symmetry)
    if not 0 <= layer < len(found.layers):
        raise ValueError(f"layer={layer}: the module has {len(found.layers)} hidden layers")
    hidden, leg = found.layers[layer], positions(resolution)
    pairs = _pairs(hidden, len(states), swaps, units, seed)
    owners = torch.arange(len(states)).repeat_interleave(pairs.shape[1]).to(states.device)
    energies = [landscape] if held_out is None else [landscape, held_out]
    blocks = []
    for rows in pieces(len(owners), max(1, BLOCK_ELEMENTS // (3 * found.n))):
        own = pairs.flatten(0, 1)[rows]
        start = states[owners[rows]]
        routes = _routes(landscape, descent, hidden, start, own, leg, bending, seed)
        blocks.append([_measured(energy, hidden, routes, own, leg) for energy in energies])
    measured = [
        _Measured(*(torch.cat(parts, 1) for parts in zip(*of_energy, strict=True)))
        for of_energy in zip(*blocks, strict=True)
    ]
    arguments = {"layer": layer, "resolution": resolution, "symmetry": found.describe()}
    result = _dataset(measured, pairs)
    result.attrs.update(
        provenance("permutation_point_paths", SOURCE, seed, **arguments, **asdict(bending))
    )
    return result


def _pairs(
    layer: HiddenLayer, replicas: int, swaps: int, units: Tensor | None, seed: int
) -> Int[Tensor, "replica swap 2"]:
    """Pairs of units of every replica, drawn if they are not given."""
    if units is None:
        streams = generators(seed, replicas)
        return torch.stack([draw_units(layer.width, swaps, stream) for stream in streams])
    given = units.cpu().long()
    fits = given.ndim in (2, 3) and given.numel() and given.shape[-1] == 2
    if not fits or (given.ndim == 3 and len(given) != replicas):
        raise ValueError(
            f"units has shape {tuple(units.shape)}: expected [swap, 2] or [{replicas}, swap, 2]"
        )
    inside = (given >= 0) & (given < layer.width)
    if not bool(inside.all()) or bool((given[..., 0] == given[..., 1]).any()):
        raise ValueError(f"units: expected pairs of different units from 0 to {layer.width - 1}")
    return given.expand(replicas, -1, -1)


def _routes(
    landscape: EnergyOfNetworks,
    descent: EnergyOfNetworks | None,
    layer: HiddenLayer,
    start: Float[Tensor, "swap n"],
    units: Int[Tensor, "swap 2"],
    leg: Float[Tensor, "lam"],
    bending: Bending,
    seed: int,
) -> _Routes:
    """Bend the straight line, and lower the merged point."""
    end, middle = transposed(layer, start, units), merged(layer, start, units)
    line = torch.stack([start, torch.lerp(start, end, 0.5), end], 1)
    first = torch.stack([start, middle], 1)

    def together(free: Float[Tensor, "swap 1 n"]) -> Tensor:
        return merged(layer, free, units[:, None])

    common: dict[str, Any] = {"bending": bending, "seed": seed, "descent": descent}
    bent = bend(landscape, line, slice(1, 2), _way(leg), path_barrier, **common)
    lowered = bend(landscape, first, slice(1, 2), leg, _rise, project=together, **common)
    return _Routes(line, bent.controls, first, lowered.controls)


def _rise(loss: Float[Tensor, "swap lam"]) -> Float[Tensor, "swap"]:
    """Barrier on three legs, of the first one's losses: both ends are as high."""
    return (loss - loss[:, :1]).amax(-1)


def _way(leg: Float[Tensor, "lam"]) -> Float[Tensor, "lam3"]:
    """Positions on a route of three legs."""
    return torch.linspace(0, 1, 3 * len(leg) - 2, dtype=leg.dtype)


def _measured(
    energy: EnergyOfNetworks,
    layer: HiddenLayer,
    routes: _Routes,
    units: Int[Tensor, "swap 2"],
    leg: Float[Tensor, "lam"],
) -> _Measured:
    """Loss and error on every route."""
    found = []
    for controls in (routes.straight, routes.bent):
        loss, error = along_curve(energy, controls, _way(leg))
        height = path_barrier(loss)
        found.append(_Measured(loss, error, height, torch.full_like(height, torch.nan)))
    for controls in (routes.merged, routes.lowered):
        point = controls[:, 1]
        across = torch.stack([point, traded(layer, point, units)], 1)
        aside, between = along_curve(energy, controls, leg), along_curve(energy, across, leg)
        loss, error = (
            torch.cat([first[:, :-1], middle, first.flip(1)[:, 1:]], 1)
            for first, middle in zip(aside, between, strict=True)
        )
        varies = between[0].amax(1) - between[0].amin(1)
        found.append(_Measured(loss, error, _rise(aside[0]), varies))
    return _Measured(*(torch.stack(parts) for parts in zip(*found, strict=True)))


def _dataset(measured: list[_Measured], pairs: Int[Tensor, "replica swap 2"]) -> xr.Dataset:
    shape, each = pairs.shape[:2], ("route", "replica", "swap")
    result = xr.Dataset(
        {"unit": labelled(("replica", "swap", "end"), pairs, "hidden units exchanged")},
        {"route": list(ROUTES)},
    )
    for name, where, (loss, error, barrier, exchange) in zip(
        ("", "held_"), ("", ", held out"), measured, strict=False
    ):
        losses = loss.unflatten(1, shape)
        result[f"{name}loss"] = labelled((*each, "lam"), losses, f"loss{where}", "nats")
        if not bool(error.isnan().all()):
            errors = error.unflatten(1, shape)
            result[f"{name}error"] = labelled((*each, "lam"), errors, f"error rate{where}")
        height = barrier.unflatten(1, shape)
        result[f"{name}barrier"] = labelled(each, height, f"barrier{where}", "nats")
        if not name:
            varies = exchange.unflatten(1, shape)
            result["exchange"] = labelled(each, varies, "range of the exchange", "nats")
    lam = torch.linspace(0, 1, loss.shape[-1], dtype=torch.float64)
    return result.assign_coords(
        lam=("lam", lam.numpy(), {"long_name": "position on the route", "units": "1"})
    )
