"""Hidden units matched by what they do on data (Git Re-Basin, arXiv 2209.04836, section 3.1).

Units are paired so that the sum of the correlations of their activations is largest, one exact
assignment a layer. A layer's activations do not depend on how the layers before it are numbered, so
there is nothing to iterate, however deep the network. (That paper takes inner products, which
prefer units with large activations; correlations treat all alike and do not see the ReLU scale.)
"""

import torch
from jaxtyping import Float
from torch import Tensor

from spinscape.glass.matching.assignments import PairAlignment, distance_of, solve_assignments
from spinscape.glass.matching.hidden_units import HiddenUnits
from spinscape.nets.chunks import pieces
from spinscape.nets.symmetry import HiddenLayer, Symmetry

__all__ = ["activation_correlations", "match_activations"]

BLOCK_ELEMENTS = 2**22
"""Numbers in a block of activations: 16 MiB in single precision."""

TIE = 1e-4
"""Weight of the cosine of incoming weights beside the correlation. It decides between units that
activations cannot tell apart, above all those that are silent on all samples."""


def match_activations(
    symmetry: Symmetry,
    units: HiddenUnits,
    x: Tensor,
    a: Float[Tensor, "pair n"],
    b: Float[Tensor, "pair n"],
) -> PairAlignment:
    """Permute each point of b towards its partner in a by the activations on x.

    Parameters
    ----------
    symmetry : Symmetry
    units : HiddenUnits
        Of the same module.
    x : [S, ...]
        Samples; they are streamed.
    a, b : [pair, n]
        Balanced already.

    Raises
    ------
    ValueError
        If the units are not those of the symmetry.
    """
    if units.layers != symmetry.layers:
        raise ValueError(
            f"symmetry: of widths {symmetry.widths}, not that of the module whose activations are "
            "matched; use method='weights'"
        )
    orders = [torch.arange(width).repeat(len(b), 1) for width in symmetry.widths]
    correlations: list[list[Tensor]] = [[] for _ in orders]
    for rows in pieces(len(b), units.points_at_once(BLOCK_ELEMENTS)):
        found = activation_correlations(units, x, a[rows], b[rows])
        for parts, part in zip(correlations, found, strict=True):
            parts.append(part)
    moved = b
    for k, layer in enumerate(symmetry.layers):
        scores = torch.cat(correlations[k]) + TIE * _cosines(layer, a, moved)
        orders[k] = solve_assignments(scores)
        moved = symmetry.permute(b, orders)
    return PairAlignment(tuple(orders), moved, distance_of(a, moved))


def activation_correlations(
    units: HiddenUnits, x: Tensor, a: Float[Tensor, "pair n"], b: Float[Tensor, "pair n"]
) -> list[Float[Tensor, "pair width width"]]:
    """Correlate the activations of every unit of a with those of every unit of b, layer by layer.

    In float64; 0 where either unit does not change from sample to sample.
    """
    sums: list[_Moments] = []
    for some in units.blocks(x):
        both = zip(units.run(a, some), units.run(b, some), strict=True)
        for k, ((_, first), (_, second)) in enumerate(both):
            if k == len(sums):
                sums.append(_Moments(first, second))
            sums[k].add(first, second)
    return [moments.correlations() for moments in sums]


class _Moments:
    """Sums over samples, of activations less their means over the first block.

    Without that shift the covariance of units that hardly change would be a difference of large
    numbers.
    """

    def __init__(self, first: Tensor, second: Tensor) -> None:
        self.shifts = tuple(values.mean(2, keepdim=True) for values in (first, second))
        self.sums: list[Tensor] = []
        self.squares: list[Tensor] = []
        self.products = torch.zeros((), dtype=torch.float64, device=first.device)
        self.count = 0

    def add(self, first: Tensor, second: Tensor) -> None:
        near, far = (v - s for v, s in zip((first, second), self.shifts, strict=True))
        self.products = self.products + (near @ far.mT).double()
        sums = [values.sum(2).double() for values in (near, far)]
        squares = [values.square().sum(2).double() for values in (near, far)]
        self.sums = sums if not self.sums else _added(self.sums, sums)
        self.squares = squares if not self.squares else _added(self.squares, squares)
        self.count += first.shape[2]

    def correlations(self) -> Tensor:
        means = [total / self.count for total in self.sums]
        spreads = []
        for mean, square, shift in zip(means, self.squares, self.shifts, strict=True):
            variance = square / self.count - mean.square()
            level = 8 * torch.finfo(shift.dtype).eps * (shift[..., 0].double() + mean).abs()
            spreads.append(torch.where(variance > level.square(), variance, torch.inf).sqrt())
        covariance = self.products / self.count - means[0][:, :, None] * means[1][:, None]
        return covariance / (spreads[0][:, :, None] * spreads[1][:, None])


def _added(old: list[Tensor], new: list[Tensor]) -> list[Tensor]:
    return [before + more for before, more in zip(old, new, strict=True)]


def _cosines(layer: HiddenLayer, a: Tensor, b: Tensor) -> Float[Tensor, "pair width width"]:
    """Cosines of all that leads into units, every unit of a against every unit of b."""
    products = layer.weights_in(a) @ layer.weights_in(b).mT
    if layer.bias is not None:
        products = products + a[:, layer.bias, None] * b[:, None, layer.bias]
    norms = layer.norms_in(a)[:, :, None] * layer.norms_in(b)[:, None]
    return (products / norms.clamp(min=torch.finfo(norms.dtype).tiny)).double()
