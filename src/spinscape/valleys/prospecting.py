"""The engine of mining: directions or frames optimised under a target profile, many at once.

The objectives are ours (arXiv 2405.12493 is known to us by its abstract): Adam on the directions
alone, the network frozen; after every step the frame is put back onto the set of orthogonal
directions of the wanted length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from spinscape.landscape.energy import Landscape
from spinscape.valleys.directions import gaussian
from spinscape.valleys.profiles import Profile

__all__ = ["Mined", "MinerSettings", "prospect", "retract"]


@dataclass(frozen=True)
class MinerSettings:
    """How directions are optimised."""

    s: float = 1.0
    """Length of each direction in lengths of θ."""
    steps: int = 600
    learning_rate: float = 1e-2
    flat: float = 0.1
    """Collapsed: losses at all targets and at the centre within so little of one another."""
    patience: int = 250
    """Steps for which this must last before a seed is given up; successful seeds cross such a
    stretch of some hundred steps as well."""


@dataclass(frozen=True)
class Mined:
    """What the engine found, one row a seed."""

    frames: Float[Tensor, "seed axis n"]
    start: Float[Tensor, "seed axis n"]
    objective: Float[Tensor, "seed step"]
    """NaN after a seed was given up."""
    collapsed: Bool[Tensor, "seed"]
    steps: Int[Tensor, "seed"]


def retract(frames: Float[Tensor, "seed axis n"], length: float) -> Float[Tensor, "seed axis n"]:
    """Return the nearest frames of orthogonal directions of a length (the polar factor)."""
    if frames.shape[1] == 1:
        norm = torch.linalg.vector_norm(frames, dim=-1, keepdim=True)
        return frames * (length / norm)
    size = torch.linalg.vector_norm(frames, dim=-1, keepdim=True)
    left, _, right = torch.linalg.svd(frames / size.mean(1, keepdim=True), full_matrices=False)
    return length * (left @ right)


def prospect(
    landscape: Landscape,
    point: Float[Tensor, "n"],
    profile: Profile,
    settings: MinerSettings,
    seeds: Sequence[int],
    group: Bool[Tensor, "n"] | None = None,
) -> Mined:
    """Optimise one frame a seed, all in one batch; seeds that collapse leave it early."""
    length = settings.s * float(torch.linalg.vector_norm(point))
    mask = None if group is None else group.to(point)
    axes = profile.axes
    drawn = gaussian(point, [axes * seed + k for seed in seeds for k in range(axes)])
    start = drawn.view(len(seeds), axes, -1)
    start = retract(start if mask is None else start * mask, length)
    state = _State.begin(start, settings.steps)
    targets = torch.as_tensor(profile.coordinates).to(point)
    lowered = len(profile.lower)
    centre = float(landscape.loss(point))
    for step in range(settings.steps):
        if not len(state.alive):
            break
        value, slope, losses = _objective(
            landscape, point, state.working, targets, lowered, profile
        )
        state.objective[state.alive, step] = value
        slope = slope if mask is None else slope * mask
        # A seed whose loss is not finite stays where it is, and takes no other along.
        slope = torch.where(torch.isfinite(value)[:, None, None], slope, 0.0)
        state.move(slope, settings.learning_rate, length)
        spread = torch.cat([losses, losses.new_full((len(losses), 1), centre)], 1)
        flat = (spread.amax(1) - spread.amin(1)) < settings.flat
        state.give_up(flat, step, settings.patience)
    frames = state.frames.clone()
    frames[state.alive] = state.working
    return Mined(frames, start, state.objective, state.collapsed, state.steps)


def _objective(
    landscape: Landscape,
    point: Tensor,
    frames: Float[Tensor, "seed axis n"],
    targets: Float[Tensor, "target axis"],
    lowered: int,
    profile: Profile,
) -> tuple[Float[Tensor, "seed"], Float[Tensor, "seed axis n"], Float[Tensor, "seed target"]]:
    """Objective, its gradient with respect to the frames, and the losses at the targets."""
    places = point + torch.einsum("ta,san->stn", targets, frames)
    losses, slopes = landscape.loss_and_gradient(places)
    factor = torch.ones_like(losses)
    factor[:, lowered:] = -profile.weight * (losses[:, lowered:] < profile.cap).to(losses)
    counted = losses.clone()
    counted[:, lowered:] = -profile.weight * losses[:, lowered:].clamp(max=profile.cap)
    slope = torch.einsum("st,ta,stn->san", factor, targets, slopes)
    return counted.sum(1), slope, losses


@dataclass
class _State:
    """Frames of all seeds, and Adam's moments of those that are still alive."""

    frames: Tensor
    working: Tensor
    first: Tensor
    second: Tensor
    flat: Tensor
    alive: Tensor
    objective: Tensor
    collapsed: Tensor
    steps: Tensor
    count: int = 0

    @classmethod
    def begin(cls, start: Tensor, steps: int) -> _State:
        seeds = len(start)
        return cls(
            frames=start.clone(),
            working=start.clone(),
            first=torch.zeros_like(start),
            second=torch.zeros_like(start),
            flat=torch.zeros(seeds, device=start.device, dtype=torch.long),
            alive=torch.arange(seeds, device=start.device),
            objective=start.new_full((seeds, steps), float("nan")),
            collapsed=torch.zeros(seeds, dtype=torch.bool, device=start.device),
            steps=torch.full((seeds,), steps, device=start.device),
        )

    def move(self, slope: Tensor, rate: float, length: float) -> None:
        """One step of Adam (Kingma and Ba 2015) with its usual constants, and the retraction.

        Written out, since seeds leave the batch, which torch.optim cannot follow.
        """
        self.count += 1
        self.first.lerp_(slope, 0.1)
        self.second.lerp_(slope.square(), 0.001)
        first = self.first / (1 - 0.9**self.count)
        second = self.second / (1 - 0.999**self.count)
        self.working = retract(self.working - rate * first / (second.sqrt() + 1e-8), length)

    def give_up(self, flat: Tensor, step: int, patience: int) -> None:
        """Take out the seeds that have been flat for too long."""
        self.flat = torch.where(flat, self.flat + 1, 0)
        lost = self.flat >= patience
        if not bool(lost.any()):
            return
        gone = self.alive[lost]
        self.frames[gone] = self.working[lost]
        self.collapsed[gone] = True
        self.steps[gone] = step + 1
        self.alive = self.alive[~lost]
        for name in ("working", "first", "second", "flat"):
            setattr(self, name, getattr(self, name)[~lost])
