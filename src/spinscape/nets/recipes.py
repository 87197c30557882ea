"""Recipes: everything about a training but the network, the data and the seeds."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from spinscape.nets.optimizers import OPTIMIZERS, Sam

__all__ = ["SCHEDULES", "Recipe", "averaged_steps", "snapshot_steps"]

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1.0 - done,
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
}

Setting = float | Sequence[float] | Tensor


@dataclass(frozen=True)
class Recipe:
    """Everything about a training but the network, the data and the seeds."""

    epochs: int
    batch_size: int = 64
    optimizer: str = "sgd"
    learning_rate: Setting = 0.1
    momentum: Setting = 0.9
    weight_decay: Setting = 0.0
    schedule: str = "constant"
    batches: Literal["own", "shared"] = "own"
    stop_at: Setting | None = None
    patience: int | None = None
    evaluate_every: int | None = None
    snapshots: int | Sequence[int] | None = None
    steps: int | None = None
    rho: Setting | None = None
    average_from: float | None = None
    average_every: int | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}={value!r}: expected a whole number, 1 or more")
        _choose("optimizer", self.optimizer, OPTIMIZERS)
        _choose("schedule", self.schedule, SCHEDULES)
        _choose("batches", self.batches, ("own", "shared"))
        self._check_ascent()
        self._check_average()
        for name in ("learning_rate", "momentum", "weight_decay", "rho"):
            if getattr(self, name) is None:
                continue
            values = torch.as_tensor(getattr(self, name), dtype=torch.float64)
            if not torch.isfinite(values).all() or (values < 0).any():
                raise ValueError(f"{name}={getattr(self, name)!r}: expected numbers ≥ 0")
        if (torch.as_tensor(self.momentum) >= 1).any():
            raise ValueError(f"momentum={self.momentum!r}: expected numbers below 1")
        for name in ("patience", "evaluate_every", "steps", "average_every"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(f"{name}={value!r}: expected a whole number, 1 or more, or None")

    def _check_ascent(self) -> None:
        """Fill in the usual `rho` of an optimiser that has one, and refuse it for any other."""
        kind = OPTIMIZERS[self.optimizer]
        if not issubclass(kind, Sam):
            if self.rho is not None:
                raise ValueError(
                    f"rho={self.rho!r}: {self.optimizer!r} has no such setting; "
                    "use optimizer='sam', or leave rho out"
                )
        elif self.rho is None:
            object.__setattr__(self, "rho", kind.usual_rho)

    def _check_average(self) -> None:
        share = self.average_from
        if share is None and self.average_every is not None:
            raise ValueError(
                f"average_every={self.average_every!r}: nothing is averaged without average_from="
            )
        if share is not None and not 0 <= share < 1:
            raise ValueError(
                f"average_from={share!r}: expected the share of the training that is left out of "
                "the average, from 0 and below 1"
            )

    def check_lengths(self, count: int) -> None:
        """Refuse settings of one value a replica that are not as many as there are replicas."""
        for name in ("learning_rate", "momentum", "weight_decay", "stop_at", "rho"):
            value = getattr(self, name)
            shape = () if value is None else tuple(torch.as_tensor(value).shape)
            if shape not in ((), (count,)):
                given = f"{shape[0]} values" if len(shape) == 1 else f"shape {shape}"
                raise ValueError(f"{name}: {given}, expected one for each of {count} replicas")

    def describe(self) -> str:
        """Return all settings as JSON."""
        return json.dumps(
            asdict(self), default=lambda value: torch.as_tensor(value).tolist(), sort_keys=True
        )


def _choose(name: str, value: object, known: Any) -> None:
    if value not in known:
        raise ValueError(f"{name}={value!r}: expected one of {', '.join(map(repr, known))}")


def snapshot_steps(wanted: int | Sequence[int] | None, first: int, total: int) -> set[int]:
    """Steps at which points are kept: log-spaced from 0 to the last, or those given."""
    if wanted is None:
        return set()
    if isinstance(wanted, int):
        spaced = np.unique(np.geomspace(1, total - first + 1, wanted).round().astype(int)) - 1
        return {first + int(step) for step in spaced}
    outside = [step for step in wanted if not first <= step <= total]
    if outside:
        raise ValueError(f"snapshots={outside}: outside of the training's steps {first}..{total}")
    return {int(step) for step in wanted}


def averaged_steps(recipe: Recipe, first: int, total: int, epoch: int) -> range:
    """Numbers of steps after which the points enter the average.

    The multiples of `average_every` (the steps of an `epoch` if not given), counted from `first`,
    at which more than the share `average_from` has been made.

    Raises
    ------
    ValueError
        If there is none.
    """
    if recipe.average_from is None:
        return range(0)
    every = recipe.average_every or epoch
    steps = total - first
    found = range(first + every * (int(recipe.average_from * steps) // every + 1), total + 1, every)
    if not found:
        raise ValueError(
            f"average_from={recipe.average_from!r}: no step of {steps} lies on a multiple of "
            f"average_every={every} after it; lower one of them"
        )
    return found
