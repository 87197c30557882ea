"""Recipes: everything about a training but the network, the data and the seeds."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from spinscape.nets.optimizers import OPTIMIZERS

__all__ = ["SCHEDULES", "Recipe", "snapshot_steps"]

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

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}={value!r}: expected a whole number, 1 or more")
        _choose("optimizer", self.optimizer, OPTIMIZERS)
        _choose("schedule", self.schedule, SCHEDULES)
        _choose("batches", self.batches, ("own", "shared"))
        for name in ("learning_rate", "momentum", "weight_decay"):
            values = torch.as_tensor(getattr(self, name), dtype=torch.float64)
            if not torch.isfinite(values).all() or (values < 0).any():
                raise ValueError(f"{name}={getattr(self, name)!r}: expected numbers ≥ 0")
        if (torch.as_tensor(self.momentum) >= 1).any():
            raise ValueError(f"momentum={self.momentum!r}: expected numbers below 1")
        for name in ("patience", "evaluate_every"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(f"{name}={value!r}: expected a whole number, 1 or more, or None")

    def check_lengths(self, count: int) -> None:
        """Refuse settings of one value a replica that are not as many as there are replicas."""
        for name in ("learning_rate", "momentum", "weight_decay", "stop_at"):
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
