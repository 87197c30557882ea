"""Local entropy: how much room there is around a solution at about its loss.

−ln of the Gaussian average of exp(−B(L(w + v) − L(w))) over v of variance 1/γ a coordinate: 0 on
level ground, large in a narrow valley. It is −ln ∫ exp(−B·L(w') − γ|w' − w|²/2) dw' (Baldassi et
al., arXiv 1511.05634; Chaudhari et al., arXiv 1611.01838) without B·L(w) and the Gaussian's own
volume; quadratic minima of curvatures 4H and H differ by ½ ln[det(4H + γ)/det(H + γ)] at B = 1.
"""

from math import log
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from spinscape.glass.energies import EnergyLike, energy_function
from spinscape.glass.walking.moves import generators, noise

__all__ = ["LocalEntropy", "local_entropy"]


class LocalEntropy(NamedTuple):
    """What was estimated, for every point."""

    value: Float[Tensor, "replica"]
    error: Float[Tensor, "replica"]
    """Standard error, by the jackknife over draws."""
    effective: Float[Tensor, "replica"]
    """Fraction of the draws that carry the average: near 0 it rests on a few and is too large."""


def local_entropy(
    landscape: EnergyLike,
    points: Float[Tensor, "replica n"],
    *,
    gamma: float | Float[Tensor, "replica"],
    strength: float = 1.0,
    probes: int = 32,
    seed: int,
) -> LocalEntropy:
    """Local entropy around every point by Gaussian importance sampling.

    The draws are those of the Gaussian itself, each with its mirror image. That is enough while
    ``strength`` times the spread of the loss among them is of order 1 or less; ``effective`` says
    whether it was.

    Parameters
    ----------
    landscape : Landscape, Energy or callable
    points : [replica, n]
    gamma : float or one a point
        Stiffness of the Gaussian: draws have variance 1/γ a coordinate.
    strength : float
        The factor B of the loss.
    probes : int
        Draws a point, each with its mirror image; at least 2.
    seed : int
        Point k's draws depend on it and on k alone.

    Raises
    ------
    ValueError
        If a number is out of range.
    """
    if probes < 2:
        raise ValueError(f"probes={probes}: expected 2 or more, for a standard error")
    stiffness = torch.as_tensor(gamma, dtype=points.dtype, device=points.device)
    for name, numbers in (("gamma", stiffness), ("strength", torch.as_tensor(strength))):
        if not bool(((numbers > 0) & numbers.isfinite()).all()):
            raise ValueError(f"{name}={numbers.tolist()}: expected positive numbers")
    call, streams = energy_function(landscape), generators((seed, 4), len(points))
    here = call(points).double()
    width = stiffness.rsqrt().expand(len(points))[:, None]
    logs = []
    for _ in range(probes):
        step = width * noise(points, streams)
        pair = torch.stack([call(points + step), call(points - step)]).double()
        logs.append(-strength * (pair - here))
    weights = torch.stack(logs)  # [probe, sign, replica]
    total = weights.flatten(0, 1).logsumexp(0)
    value = log(2 * probes) - total
    effective = (2 * total - (2 * weights).flatten(0, 1).logsumexp(0)).exp() / (2 * probes)
    # Leaving a pair out removes its share of the sum: 1 − share of the total is left.
    share = (weights.logsumexp(1) - total).exp()
    without = -((1 - share).log() + total - log(2 * (probes - 1)))
    error = ((probes - 1) * without.var(0, correction=0)).sqrt()
    return LocalEntropy(value, error, effective)
