"""What the four kinds of minima are trained with: the same starts, data and cost.

Cost is counted in *sample gradients*, one forward and backward pass of one sample; a forward pass
alone is a third of one. SAM takes two a step and so makes half the steps; a thermal walk starts
from a shorter training and spends the rest. Evaluations that only record are not counted.
"""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
import xarray as xr
from torch import nn

from spinscape.glass.rugged.flattening_walks import thermal_average
from spinscape.glass.walking.moves import Move
from spinscape.glass.walking.walks import OwnWalker
from spinscape.landscape.energy import Landscape
from spinscape.nets import symmetry as symmetries
from spinscape.nets.datasets import Data
from spinscape.nets.training import train
from spinscape.nets.weightspace import points as points_of

__all__ = ["Budget", "share_out", "trainings", "walk_from"]

FORWARD = 1 / 3
"""Sample gradients that one forward pass of one sample costs."""

LEAST_ROUNDINGS = 50
"""Temperatures below so many rounding errors of one nat are walked in double precision."""


@dataclass(frozen=True)
class Budget:
    """How many steps each kind may make, and what that costs in sample gradients."""

    steps: int
    batch: int
    sam_steps: int
    start_steps: int
    burn_in: int
    walk_steps: int
    cost: tuple[float, ...]


def share_out(
    size: int, batch_size: int, epochs: int, walk_share: float, move: Move | OwnWalker, samples: int
) -> Budget:
    """Share out the sample gradients of a plain training of `epochs` over `size` samples.

    A step of the walk costs a forward pass of its `samples`, and a forward and a backward pass too
    if the move brings its own walker, which then asks for gradients.

    Raises
    ------
    ValueError
        If the walk's share is none, or too short for four steps.
    """
    if not 0 < walk_share < 1:
        raise ValueError(f"walk_share={walk_share}: expected a share of the budget, in (0, 1)")
    price = (FORWARD + hasattr(move, "walker")) * samples
    batch = min(batch_size, size)
    steps = epochs * math.ceil(size / batch)
    walk = int(walk_share * steps * batch / price) - 1  # one for the start of the walk
    start = steps - math.ceil((walk + 1) * price / batch)
    if walk < 4 or start < 1:
        raise ValueError(
            f"walk_share={walk_share}: of {steps} training steps {steps - start} go to the walk, "
            f"which makes {max(walk, 0)}, expected 4 or more; raise epochs or lower walk_samples"
        )
    plain = float(steps * batch)
    cost = (plain, plain, 2.0 * (steps // 2) * batch, start * batch + (walk + 1) * price)
    return Budget(steps, batch, steps // 2, start, walk // 4, walk - walk // 4, cost)


def trainings(
    module: nn.Module,
    data: Data,
    budget: Budget,
    rho: float,
    average_from: float,
    common: dict[str, Any],
) -> dict[str, xr.Dataset]:
    """Train what the four kinds are made of: from the same starts, on the same order of data."""
    steady = common | {"schedule": "constant"}
    averaged = train(module, data, steps=budget.steps, average_from=average_from, **steady)
    found = {"averaged": averaged, "plain": averaged}
    if common.get("schedule", "constant") != "constant":
        found["plain"] = train(module, data, steps=budget.steps, **common)
    found["SAM"] = train(module, data, steps=budget.sam_steps, optimizer="sam", rho=rho, **common)
    found["start"] = train(module, data, steps=budget.start_steps, **common)
    return found


def walk_from(
    landscape: Landscape,
    start: xr.Dataset,
    temperature: float,
    move: Move | OwnWalker,
    budget: Budget,
    numbers: Sequence[int],
    seed: int,
) -> xr.Dataset:
    """Average the points of a thermal walk; of replicas that diverged there is no average."""
    points = points_of(start)
    finite = ~torch.from_numpy(start["diverged"].values)
    points = torch.where(finite[:, None], points, 0.0).to(landscape.x.device)
    with suppress(TypeError):  # of a network whose symmetry is not known
        points = symmetries.of(landscape.module).balance(points)
    coarse = temperature < LEAST_ROUNDINGS * torch.finfo(points.dtype).eps
    walked = thermal_average(
        landscape,
        points.double() if coarse else points,
        temperature=temperature,
        move=move,
        steps=budget.walk_steps,
        burn_in=budget.burn_in,
        walkers=numbers,
        seed=seed,
    )
    walked["point"] = walked["point"].astype(start["point"].dtype)
    return walked.where(xr.DataArray(finite.numpy(), dims="walker"))
