"""Means, spreads and covariances of hidden units' pre-activations on data, for many networks."""

from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from spinscape.glass.matching.hidden_units import HiddenUnits

__all__ = ["Moments", "moments_of"]


class Moments(NamedTuple):
    """Of one layer's pre-activations, in float64: of each set of points, and between the first two.

    Means and variances ``[set, pair, width]``, covariance ``[pair, width]``.
    """

    mean: Tensor
    variance: Tensor
    covariance: Tensor


def moments_of(
    units: HiddenUnits, x: Tensor, sets: tuple[Tensor, ...], layers: int
) -> list[Moments]:
    """Measure the first layers on all samples, block by block."""
    found: list[list[tuple[Tensor, Tensor, Tensor]]] = [[] for _ in range(layers)]
    sizes = []
    for some in units.blocks(x):
        sizes.append(len(some))
        runs = zip(*(units.run(points, some) for points in sets), strict=True)
        for k, layer in enumerate(islice(runs, layers)):
            pre = torch.stack([before for before, _ in layer])
            variance, mean = torch.var_mean(pre, dim=3, correction=0)
            apart = pre - mean[..., None]
            covariance = (apart[0] * apart[-1]).mean(2)
            found[k].append((mean.double(), variance.double(), covariance.double()))
    shares = torch.tensor(sizes, dtype=torch.float64, device=x.device) / sum(sizes)
    return [_together(shares, *map(torch.stack, zip(*blocks, strict=True))) for blocks in found]


def _together(shares: Tensor, means: Tensor, variances: Tensor, covariances: Tensor) -> Moments:
    """Moments of all samples from those of blocks, which hold a share each."""
    mean = torch.tensordot(shares, means, 1)
    apart = means - mean
    variance = torch.tensordot(shares, variances + apart.square(), 1)
    covariance = torch.tensordot(shares, covariances + apart[:, 0] * apart[:, -1], 1)
    return Moments(mean, variance, covariance)
