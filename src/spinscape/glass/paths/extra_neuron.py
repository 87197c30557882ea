"""With one hidden unit to spare, two others change places and the loss never changes.

A unit whose output weights are zero may have any incoming weights, and one that copies another's
incoming weights may take over its output weights bit by bit. Six such moves carry two units to each
other's places (Şimşek et al., arXiv 2105.12221): the permuted copies of a solution, apart behind
barriers in a network of m units, are joined at constant loss in one of m + 1.
"""

import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from spinscape.glass.energies import batch_of, energies_along
from spinscape.glass.paths.barriers import along, positions
from spinscape.glass.paths.permutation_points import EnergyOfNetworks
from spinscape.glass.paths.unit_pairs import coordinates, transposed
from spinscape.landscape.paths import path_barrier
from spinscape.nets import symmetry as symmetries
from spinscape.nets.symmetry import HiddenLayer, Symmetry
from spinscape.records import labelled, provenance

__all__ = ["corners", "extra_neuron_path", "widened"]

SOURCE = "extra neuron: Şimşek et al., arXiv 2105.12221, section 3"


def extra_neuron_path(
    landscape: EnergyOfNetworks,
    wide: EnergyOfNetworks,
    points: "Float[Tensor, 'path n'] | xr.DataArray | xr.Dataset",
    units: Int[Tensor, "*path 2"],
    *,
    resolution: int = 5,
) -> xr.Dataset:
    """Loss on the way of an exchange of two units that an extra unit makes possible.

    Parameters
    ----------
    landscape, wide : Landscape, or energies with a ``module``
        Of networks with one hidden layer, on the same samples; the second has one unit more.
    points : [n] or [path, n]
        Solutions of the narrow network.
    units : [2] or [path, 2]
        The two hidden units, for all solutions alike or for each its own.
    resolution : int
        Points on each of the seven legs, ends included.

    Returns
    -------
    Dataset
        ``loss`` [path, lam] (and ``error``) in the wide network, each leg a seventh of the way;
        ``rise`` [path], the barrier on it (rounding alone), and ``straight_barrier`` [path] of the
        straight line in the narrow network.

    Raises
    ------
    TypeError
        If a module's symmetry is not known.
    ValueError
        If the networks do not fit each other, or the units are no pairs of units.
    """
    states, leg = batch_of(points), positions(resolution)
    narrow, broad = (symmetries.of(energy.module) for energy in (landscape, wide))
    _check(narrow, broad)
    layer = narrow.layers[0]
    pairs = units.long().cpu().expand(len(states), 2)
    outside = (pairs < 0) | (pairs >= layer.width)
    if bool(outside.any()) or bool((pairs[:, 0] == pairs[:, 1]).any()):
        raise ValueError(f"units: expected pairs of different units from 0 to {layer.width - 1}")
    way = corners(broad.layers[0], widened(narrow, broad, states), pairs)
    legs = [
        energies_along(wide, first, last - first, leg.to(states.device))
        for first, last in zip(way.unbind(1)[:-1], way.unbind(1)[1:], strict=True)
    ]
    loss = torch.cat([legs[0][0], *(values[:, 1:] for values, _ in legs[1:])], 1)
    straight, _, _ = along(landscape, states, transposed(layer, states, pairs), leg)
    if not torch.allclose(loss[:, 0], straight[:, 0], rtol=1e-3, atol=1e-5):
        raise ValueError("wide: another loss than landscape's at the start; give both one data set")
    lam = torch.linspace(0, 1, loss.shape[1], dtype=torch.float64)
    result = xr.Dataset(
        {
            "loss": labelled(("path", "lam"), loss, "loss", "nats"),
            "rise": labelled("path", path_barrier(loss), "barrier with an extra unit", "nats"),
            "straight_barrier": labelled("path", path_barrier(straight), "barrier", "nats"),
            "unit": labelled(("path", "end"), pairs, "hidden units exchanged"),
        },
        {"lam": ("lam", lam.numpy(), {"long_name": "position on the path", "units": "1"})},
    )
    return result.assign_attrs(provenance("extra_neuron_path", SOURCE, 0, resolution=resolution))


def widened(
    narrow: Symmetry, wide: Symmetry, points: Float[Tensor, "path n"]
) -> Float[Tensor, "path wide"]:
    """Points of the wide network of the same function, whose last hidden unit is all zero."""
    old, new = narrow.layers[0], wide.layers[0]
    found = points.new_zeros(len(points), wide.n)
    places = [coordinates(layer, torch.arange(old.width)).flatten() for layer in (old, new)]
    found[:, places[1]] = points[:, places[0]]
    found[:, wide.outside] = points[:, narrow.outside]
    return found


def corners(
    layer: HiddenLayer, points: Float[Tensor, "path n"], units: Int[Tensor, "path 2"]
) -> Float[Tensor, "path corner n"]:
    """Points between which the loss is constant, from one with a silent last unit to its copy.

    The last unit takes in what the first one does, then speaks for it; the first does the same for
    the second, the second for the last, which falls silent again.
    """
    spare = torch.full_like(units[:, 0], layer.width - 1)
    first, second = units.unbind(1)
    here, way = points, [points]
    for taker, giver in ((spare, first), (first, second), (second, spare)):
        pair = torch.stack([taker, giver], 1)
        heard = coordinates(layer, pair, outgoing=False).to(points.device).unbind(1)
        spoken = coordinates(layer, pair, incoming=False).to(points.device).unbind(1)
        here = here.scatter(1, heard[0], here.gather(1, heard[1]))
        way.append(here)
        here = here.scatter(1, spoken[0], here.gather(1, spoken[1]))
        here = here.scatter(1, spoken[1], 0.0)
        way.append(here)
    silent = coordinates(layer, spare[:, None], outgoing=False)[:, 0].to(points.device)
    return torch.stack([*way, here.scatter(1, silent, points.gather(1, silent))], 1)


def _check(narrow: Symmetry, wide: Symmetry) -> None:
    def shape(symmetry: Symmetry) -> tuple[int, ...]:
        return tuple(size for at in symmetry.layers for size in (at.inputs, at.width, at.outputs))

    inputs, width, outputs = shape(narrow) if len(narrow.layers) == 1 else (0, 0, 0)
    alike = len(narrow.outside) == len(wide.outside)
    if not width or shape(wide) != (inputs, width + 1, outputs) or not alike:
        raise ValueError(
            f"wide: hidden widths {wide.widths} against {narrow.widths}: expected one hidden layer "
            "in both, and one unit more in the second"
        )
