"""Polynomial curves between points, bent until the energy along them is low: many at once.

A curve is Σ_c B_c(t) θ_c with the Bernstein polynomials B_c of its degree and control points θ_c.
Following Garipov et al. (arXiv 1802.10026, section 3) some control points move down the gradient
of E_{t ~ U(0, 1)} L(curve(t)); it reaches control point c with weight B_c(t), so that no graph is
kept over the curve. What is returned is the best curve met, the one that it began with included.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, comb, isfinite
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from spinscape.glass.energies import EnergyLike, energies_along, energy_function
from spinscape.glass.walking.moves import generators
from spinscape.landscape.energy import Landscape

__all__ = ["STANDARD", "Bending", "Bent", "along_curve", "bend", "bernstein", "curve_length"]

Height = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Bending:
    """How curves are bent: Adam, with a learning rate that falls to zero along a cosine.

    Parameters
    ----------
    steps : int
        Steps of the optimiser; 0 leaves every curve as it is.
    learning_rate : float
        Of the first step, in units of the weights.
    samples_per_step : int
        Positions t at which a step takes the gradient, one in each of as many equal parts of the
        curve; the same for all curves.
    batch_size : int, optional
        Samples of a `Landscape` drawn for each of them; all if not given.
    checks : int
        How often, evenly spaced, the whole curve is looked at and kept if it is the best so far.

    Raises
    ------
    ValueError
        If a number is out of range.
    """

    steps: int = 200
    learning_rate: float = 0.003
    samples_per_step: int = 2
    batch_size: int | None = None
    checks: int = 8

    def __post_init__(self) -> None:
        for name, least in (("steps", 0), ("samples_per_step", 1), ("checks", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}: expected {least} or more")
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size}: expected 1 or more, or None for all")
        if not (isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(f"learning_rate={self.learning_rate}: expected a positive number")


STANDARD = Bending()


class Bent(NamedTuple):
    """The best curves met, and the curves that they began as."""

    controls: Float[Tensor, "path control n"]
    loss: Float[Tensor, "path lam"]
    error: Float[Tensor, "path lam"]
    start_loss: Float[Tensor, "path lam"]
    start_error: Float[Tensor, "path lam"]
    objective: Float[Tensor, "path check"]


def bernstein(lam: Float[Tensor, "lam"], degree: int) -> Float[Tensor, "lam control"]:
    """Weights of the control points of a curve at every position."""
    terms = [comb(degree, c) * lam**c * (1 - lam) ** (degree - c) for c in range(degree + 1)]
    return torch.stack(terms, -1)


def along_curve(
    energy: EnergyLike, controls: Float[Tensor, "path control n"], lam: Float[Tensor, "lam"]
) -> tuple[Float[Tensor, "path lam"], Float[Tensor, "path lam"]]:
    """Loss and error (not a number where there is none) along every curve.

    A curve lies in the affine subspace of its control points, in which a `Landscape` evaluates a
    first layer only once for each of them.
    """
    lam = lam.to(controls.device)
    error: Tensor | None = None
    subspace = getattr(energy, "subspace", None)
    weights = bernstein(lam, controls.shape[1] - 1).to(controls)
    if controls.shape[1] == 2:
        first, last = controls.unbind(1)
        loss, error = energies_along(energy, first, last - first, lam)
    elif subspace is not None:
        found = [subspace(own[0], own[1:] - own[0], weights[:, 1:]) for own in controls]
        loss, error = (torch.stack(part) for part in zip(*found, strict=True))
    else:
        call = energy_function(energy)
        loss = torch.stack([call(_at(controls, row)) for row in weights], dim=-1)
    return loss, torch.full_like(loss, torch.nan) if error is None else error


def curve_length(
    controls: Float[Tensor, "path control n"], lam: Float[Tensor, "lam"]
) -> Float[Tensor, "path"]:
    """Length of every curve, by the chords between the given positions."""
    steps = bernstein(lam, controls.shape[1] - 1).diff(dim=0).to(controls.device)
    centred = (controls - controls[:, :1]).double()
    gram = centred @ centred.mT
    squares = torch.einsum("lc,pcd,ld->pl", steps, gram, steps)
    return squares.clamp(min=0).sqrt().sum(-1)


def bend(
    energy: EnergyLike,
    controls: Float[Tensor, "path control n"],
    free: slice,
    lam: Float[Tensor, "lam"],
    height: Height,
    *,
    bending: Bending,
    seed: int,
    descent: EnergyLike | None = None,
    project: Callable[[Tensor], Tensor] | None = None,
) -> Bent:
    """Move the free control points of many curves down the mean loss along them.

    Parameters
    ----------
    energy : Landscape, Energy or callable
        Whose height along whole curves decides which one is kept.
    controls : [path, control, n]
        Of the curves to begin with.
    free : slice
        Which control points move.
    lam : [lam]
        Positions at which whole curves are looked at.
    height : callable
        Of losses ``[path, lam]``: the least of ``[path]`` says which curve is best. No curve is
        returned that stands higher by it than the one that it began as.
    bending : Bending
    seed : int
        Of the positions and samples of every step, which all curves share: a curve does not depend
        on those beside it.
    descent : Landscape, Energy or callable, optional
        Whose gradient is followed, if not that of `energy`: by ``gradient(points)`` if it has
        one, else by autograd.
    project : callable, optional
        Takes free control points ``[path, free, n]`` back to what is allowed, after every step.
    """
    loss, error = along_curve(energy, controls, lam)
    best = Bent(controls.clone(), loss, error, loss, error, loss.mean(-1, keepdim=True))
    lowest, moved = height(loss), controls.clone()
    moving = moved[:, free].detach()
    optimizer = torch.optim.Adam([moving], lr=bending.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, bending.steps))
    (stream,) = generators(seed, 1)
    slope = _slope_function(energy if descent is None else descent, bending.batch_size, stream)
    every = max(1, ceil(bending.steps / bending.checks))
    for step in range(1, bending.steps + 1):
        moving.grad = _mean_slope(slope, moved, free, bending.samples_per_step, stream)
        optimizer.step()
        schedule.step()
        if project is not None:
            moving.copy_(project(moving))
        if step % every == 0 or step == bending.steps:
            loss, error = along_curve(energy, moved, lam)
            reached = height(loss)
            better = (reached < lowest)[:, None]
            lowest = torch.minimum(reached, lowest).where(better[:, 0], lowest)
            best = best._replace(
                controls=torch.where(better[..., None], moved, best.controls),
                loss=torch.where(better, loss, best.loss),
                error=torch.where(better, error, best.error),
                objective=torch.cat([best.objective, loss.mean(-1, keepdim=True)], 1),
            )
    return best


def _mean_slope(
    slope: Callable[[Tensor], Tensor],
    controls: Float[Tensor, "path control n"],
    free: slice,
    count: int,
    stream: torch.Generator,
) -> Float[Tensor, "path free n"]:
    """Gradient of the mean loss at `count` positions with respect to the free control points."""
    drawn = torch.rand(count, generator=stream, dtype=torch.float64)
    places = (torch.arange(count) + drawn) / count
    total = torch.zeros_like(controls[:, free])
    for row in bernstein(places, controls.shape[1] - 1).to(controls):
        gradient = slope(_at(controls, row))
        total.addcmul_(row[free, None] / count, gradient[:, None])
    return total


def _at(controls: Tensor, weights: Float[Tensor, "control"]) -> Float[Tensor, "path n"]:
    return torch.einsum("c,pcn->pn", weights, controls)


def _slope_function(
    energy: EnergyLike, batch_size: int | None, stream: torch.Generator
) -> Callable[[Tensor], Tensor]:
    """Gradient of the energy at points; with `batch_size`, on samples drawn at every call."""
    if batch_size is not None and not isinstance(energy, Landscape):
        raise ValueError(
            f"batch_size={batch_size}: {type(energy).__name__} has no samples; leave it out"
        )
    if isinstance(energy, Landscape) and batch_size is not None and batch_size < len(energy.x):
        return lambda points: _part(energy, batch_size, stream).gradient(points)
    own: Callable[[Tensor], Tensor] | None = getattr(energy, "gradient", None)
    return own if own is not None else lambda points: _autograd(energy, points)


def _part(landscape: Landscape, size: int, stream: torch.Generator) -> Landscape:
    """Return the landscape of samples drawn without repetition."""
    rows = torch.randperm(len(landscape.x), generator=stream)[:size].to(landscape.x.device)
    part = copy.copy(landscape)
    part.x, part.y = landscape.x[rows], landscape.y[rows]
    return part


def _autograd(energy: EnergyLike, points: Tensor) -> Tensor:
    call = getattr(energy, "energy", None) or energy
    assert callable(call)
    points = points.detach().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(call(points).sum(), points)
    return gradient
