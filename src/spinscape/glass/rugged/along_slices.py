"""Slices: the loss along straight lines through a solution, and how much it goes up and down.

*Roughness index* (Wu et al., arXiv 2103.11069): along a straight slice the loss f has the
normalised total variation T = ∫|f'| / (max f − min f), which is 1 on a slope, 2 in a symmetric well
and more than 2 only where the loss goes up and down; the index is the standard deviation of T over
random directions in units of its mean, 0 for an isotropic quadratic. Without slices above 2 it says
how unevenly lopsided the wells are.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from spinscape.glass.energies import EnergyLike, energies_along
from spinscape.glass.walking.moves import filter_scale, generators, noise
from spinscape.nets.chunks import pieces

__all__ = ["slices", "total_variation"]

BLOCK_ELEMENTS = 2**24
"""Numbers in one block of directions: 64 MiB in single precision."""


def slices(
    landscape: EnergyLike,
    points: Float[Tensor, "replica n"],
    lam: Float[Tensor, "lam"],
    *,
    directions: int,
    filters: tuple[Tensor, ...],
    seed: int,
) -> Float[Tensor, "replica direction lam"]:
    """Loss along random filter-normalised directions through every point.

    Every filter of a direction has the norm of the point's filter; coordinates in no filter do not
    move (Li et al., arXiv 1712.09913, section 4).
    """
    streams = generators(seed, len(points))
    found = []
    for rows in pieces(len(points), max(1, BLOCK_ELEMENTS // (directions * points.shape[1]))):
        origins = points[rows].repeat_interleave(directions, 0)
        own = [stream for stream in streams[rows] for _ in range(directions)]
        drawn = noise(origins, own)
        scale = filter_scale(origins, filters) / filter_scale(drawn, filters)
        loss, _ = energies_along(landscape, origins, drawn * scale.nan_to_num(0.0), lam)
        found.append(loss.unflatten(0, (-1, directions)))
    return torch.cat(found)


def total_variation(
    loss: Float[Tensor, "*slice lam"],
) -> Float[Tensor, "*slice"]:
    """Normalised total variation Σ|Δf| / (max f − min f) of slices; 1 where f is flat.

    Flat is what varies by no more than rounding, which would go up and down without end. Not a
    number where f is not finite.
    """
    rounding = 8 * torch.finfo(loss.dtype).eps * loss.double().abs().amax(-1)
    loss = loss.double()
    span = loss.amax(-1) - loss.amin(-1)
    return torch.where(
        (span <= rounding) & span.isfinite(), 1.0, loss.diff(dim=-1).abs().sum(-1) / span
    )
