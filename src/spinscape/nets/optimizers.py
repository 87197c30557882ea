"""Optimisers that move a batch of points at once, each replica with its own settings."""

from dataclasses import dataclass, field
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["OPTIMIZERS", "Adam", "Optimizer", "Sgd"]


class Optimizer(Protocol):
    """Moves points in place and keeps its memory, one row a replica."""

    memory: dict[str, Tensor]

    def step(
        self,
        points: Float[Tensor, "P n"],
        gradient: Float[Tensor, "P n"],
        learning_rate: Tensor | float,
        count: int,
    ) -> None:
        """Make the `count`-th step (from one)."""


@dataclass
class Sgd:
    """Gradient descent with heavy-ball momentum and L2 decay, as ``torch.optim.SGD``.

    v ← μv + (g + wd·θ); θ ← θ − lr·v.
    """

    momentum: Tensor
    weight_decay: Tensor
    memory: dict[str, Tensor] = field(default_factory=dict)

    def step(
        self, points: Tensor, gradient: Tensor, learning_rate: Tensor | float, count: int
    ) -> None:
        """Make one step in place; `gradient` may be overwritten."""
        if self.weight_decay.any():
            gradient.add_(points * self.weight_decay)
        if self.momentum.ndim or self.momentum.any():  # the same memory whoever else is trained
            velocity = self.memory.setdefault("velocity", torch.zeros_like(points))
            gradient = velocity.mul_(self.momentum).add_(gradient)
        _move(points, gradient, learning_rate)


@dataclass
class Adam:
    """Adam (Kingma & Ba 2015) with L2 decay in the gradient, as ``torch.optim.Adam``."""

    momentum: Tensor
    weight_decay: Tensor
    memory: dict[str, Tensor] = field(default_factory=dict)
    beta2: float = 0.999
    epsilon: float = 1e-8

    def step(
        self, points: Tensor, gradient: Tensor, learning_rate: Tensor | float, count: int
    ) -> None:
        """Make one step in place; `gradient` may be overwritten."""
        if self.weight_decay.any():
            gradient.add_(points * self.weight_decay)
        first = self.memory.setdefault("velocity", torch.zeros_like(points))
        second = self.memory.setdefault("second_moment", torch.zeros_like(points))
        first.mul_(self.momentum).add_(gradient * (1 - self.momentum))
        second.mul_(self.beta2).addcmul_(gradient, gradient, value=1 - self.beta2)
        scale = (second / (1 - self.beta2**count)).sqrt_().add_(self.epsilon)
        _move(points, (first / (1 - self.momentum**count)).div_(scale), learning_rate)


def _move(points: Tensor, direction: Tensor, learning_rate: Tensor | float) -> None:
    if isinstance(learning_rate, float):
        points.add_(direction, alpha=-learning_rate)
    else:
        points.addcmul_(direction, learning_rate, value=-1)


OPTIMIZERS: dict[str, type[Sgd] | type[Adam]] = {"sgd": Sgd, "adam": Adam}
