"""Two hidden units of a point at a time: merged, exchanged whole, or exchanged in what they say."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from spinscape.nets.symmetry import HiddenLayer

__all__ = ["coordinates", "draw_units", "merged", "traded", "transposed"]

Points = Float[Tensor, "*batch n"]
Units = Int[Tensor, "*batch 2"]


def merged(layer: HiddenLayer, points: Points, units: Units) -> Points:
    """Give both units of every point the mean of their incoming weights and biases."""

    def to_mean(pair: Tensor) -> Tensor:
        return pair.mean(-2, keepdim=True).expand_as(pair)

    return _changed(points, coordinates(layer, units, outgoing=False), to_mean)


def traded(layer: HiddenLayer, points: Points, units: Units) -> Points:
    """Exchange the output weights of both units of every point."""
    return _changed(points, coordinates(layer, units, incoming=False), _flipped)


def transposed(layer: HiddenLayer, points: Points, units: Units) -> Points:
    """Exchange both units of every point, weights in and out: the same function."""
    return _changed(points, coordinates(layer, units), _flipped)


def coordinates(
    layer: HiddenLayer,
    units: Int[Tensor, "*batch unit"],
    *,
    incoming: bool = True,
    outgoing: bool = True,
) -> Int[Tensor, "*batch unit size"]:
    """Places in a point of what leads into units (weights, bias) and out of them."""
    at = units[..., None]
    places = []
    if incoming:
        places.append(layer.incoming.start + at * layer.inputs + torch.arange(layer.inputs))
        if layer.bias is not None:
            places.append(layer.bias.start + at)
    if outgoing:
        places.append(layer.outgoing.start + at + torch.arange(layer.outputs) * layer.width)
    return torch.cat(places, -1)


def draw_units(width: int, pairs: int, stream: torch.Generator) -> Int[Tensor, "pair 2"]:
    """Draw different pairs of different units, the smaller number first."""
    first, second = torch.triu_indices(width, width, offset=1)
    if not 1 <= pairs <= len(first):
        raise ValueError(f"swaps={pairs}: a layer of {width} units has 1 to {len(first)} pairs")
    chosen = torch.randperm(len(first), generator=stream)[:pairs]
    return torch.stack([first[chosen], second[chosen]], -1)


def _flipped(pair: Tensor) -> Tensor:
    return pair.flip(-2)


def _changed(
    points: Points, places: Int[Tensor, "*batch 2 size"], change: Callable[[Tensor], Tensor]
) -> Points:
    index = places.to(points.device).expand(*points.shape[:-1], *places.shape[-2:]).flatten(-2)
    pair = points.gather(-1, index).unflatten(-1, (2, -1))
    return points.scatter(-1, index, change(pair).flatten(-2))
