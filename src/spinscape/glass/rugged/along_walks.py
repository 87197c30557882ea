"""How soon the loss along a random walk is forgotten: the inverse of its correlation length.

Along a free filter-normalised walk from a solution the loss, less its linear trend (the quadratic
law of `glass.walking.quadratic`), has the autocorrelation r(1) from one step to the next, and the
length ℓ = −1/ln r(1) in steps (Weinberger 1990, Biol. Cybern. 63, 325). Smooth ground is
remembered for long. In a Gaussian random field of covariance exp(−r²/2a²) and D dimensions,
steps of s a coordinate have r(1) = (1 + s²/a²)^(−D/2).

A short walk cannot tell a long length: on a plane the loss is itself a random walk, and less its
line it has ℓ near a sixth of the walk. So the same number is given for the walk's own changes of
loss with signs drawn at random, as uncorrelated as on smooth ground (see `glass.walking.memory`,
which tests this for one set of walks; here it is one number a solution).
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from spinscape.glass.energies import EnergyLike
from spinscape.glass.walking.moves import FilterGaussian, generators
from spinscape.glass.walking.walks import walk

__all__ = ["WalkRuggedness", "walk_ruggedness"]

SURROGATES = 50


class WalkRuggedness(NamedTuple):
    """What was estimated, for every point, in 1/steps."""

    value: Float[Tensor, "replica"]
    error: Float[Tensor, "replica"]
    """Standard error: the jackknife's of r(1) over walkers, over r(1)."""
    null: Float[Tensor, "replica"]
    """The same with changes of random signs, as on smooth ground; mean of 50 draws."""


def walk_ruggedness(
    landscape: EnergyLike,
    points: Float[Tensor, "replica n"],
    *,
    filters: tuple[Tensor, ...],
    walkers: int = 4,
    steps: int = 32,
    step: float = 0.02,
    seed: int,
) -> WalkRuggedness:
    """Inverse correlation length −ln r(1) of the loss along walks from every point.

    r(1) is the ratio of sums over all walkers of a point, each about its own trend. Infinite where
    it is not positive: nothing is left after one step.

    Parameters
    ----------
    landscape : Landscape, Energy or callable
    points : [replica, n]
    filters : tuple of LongTensor
        Coordinates of each filter.
    walkers, steps : int
        Walkers a point, at least 2, and their steps, at least 8.
    step : float
        Root mean square change of a filter in one step, in units of its norm.
    seed : int
        Point k's walkers depend on it and on k alone.

    Raises
    ------
    ValueError
        If a number is out of range.
    """
    for name, count, least in (("walkers", walkers, 2), ("steps", steps, 8)):
        if count < least:
            raise ValueError(f"{name}={count}: expected {least} or more")
    walked = walk(
        landscape,
        points.repeat_interleave(walkers, 0),
        rule="free",
        move=FilterGaussian(step, filters),
        steps=steps,
        record=steps + 1,
        seed=seed,
    )
    stored = torch.from_numpy(walked["energy"].values)
    energy = stored.double().unflatten(0, (-1, walkers))
    level = _is_level(energy, torch.finfo(stored.dtype).eps)
    both, own = _products(energy)
    correlation = both.sum(1) / own.sum(1)
    without = (both.sum(1, keepdim=True) - both) / (own.sum(1, keepdim=True) - own)
    error = ((walkers - 1) * without.var(1, correction=0)).sqrt() / correlation.clamp(min=0)
    rate, null = _rate(correlation), _null(energy, seed)
    return WalkRuggedness(
        *(torch.where(level, 0.0, found).to(points.device) for found in (rate, error, null))
    )


def _products(energy: Float[Tensor, "*walker step"]) -> tuple[Tensor, Tensor]:
    """Sums of products of neighbours and of squares, each walker about its own trend."""
    rest = _detrended(energy)
    steps = energy.shape[-1] - 1  # one product fewer than squares
    both, own = (rest[..., 1:] * rest[..., :-1]).sum(-1), rest.square().sum(-1)
    return both, own * steps / (steps + 1)


def _null(energy: Float[Tensor, "replica walker step"], seed: int) -> Float[Tensor, "replica"]:
    """Mean rate of walks whose changes, less their mean, have signs drawn at random."""
    changes = energy.diff(dim=-1)
    changes = (changes - changes.mean(-1, keepdim=True))[:, None]
    signs = torch.stack(
        [
            torch.randint(0, 2, (SURROGATES, *changes.shape[2:]), generator=stream)
            for stream in generators((seed, 6), len(energy))
        ]
    )
    paths = torch.nn.functional.pad(((2 * signs - 1) * changes).cumsum(-1), (1, 0))
    both, own = _products(paths)
    return _rate(both.sum(-1) / own.sum(-1)).mean(-1)


def _is_level(energy: Float[Tensor, "replica walker step"], eps: float) -> Tensor:
    """Mark points around which the energy varies by no more than rounding."""
    flat = energy.flatten(1)
    return flat.amax(1) - flat.amin(1) <= 8 * eps * flat.abs().amax(1)


def _detrended(energy: Float[Tensor, "*walker step"]) -> Float[Tensor, "*walker step"]:
    """Energies less their least-squares line in time."""
    time = torch.linspace(-1, 1, energy.shape[-1], dtype=energy.dtype)
    centred = energy - energy.mean(-1, keepdim=True)
    slope = (centred * time).sum(-1, keepdim=True) / time.square().sum()
    return centred - slope * time


def _rate(correlation: Tensor) -> Tensor:
    """−ln of the autocorrelation, infinite from 0 down."""
    return torch.where(correlation > 0, -correlation.clamp(min=1e-300).log(), torch.inf)
