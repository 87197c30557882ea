"""Optimisers that move a batch of points at once, each replica with its own settings."""

from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["OPTIMIZERS", "Adam", "Asam", "Optimizer", "Sam", "Sgd"]


class Optimizer(Protocol):
    """Moves points in place and keeps its memory, one row a replica."""

    settings: ClassVar[tuple[str, ...]]
    """Fields of a recipe that it is made with: scalars, or one number a replica ``[P, 1]``."""

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

    settings: ClassVar[tuple[str, ...]] = ("momentum", "weight_decay")

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

    settings: ClassVar[tuple[str, ...]] = ("momentum", "weight_decay")

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


@dataclass
class Sam(Sgd):
    """Sharpness-aware minimisation (Foret et al., arXiv 2010.01412) over `Sgd`.

    The gradient of the step is that at the top of the ascent, θ + ρ g/‖g‖, on the same mini-batch;
    ‖g‖ is the norm of a replica's whole gradient. As in the paper's eq. 1 the L2 decay stands
    outside of the maximum: it is no part of g and is taken at θ.
    """

    settings: ClassVar[tuple[str, ...]] = ("momentum", "weight_decay", "rho")
    usual_rho: ClassVar[float] = 0.05

    rho: Tensor = field(kw_only=True)

    def ascended(
        self, points: Float[Tensor, "P n"], gradient: Float[Tensor, "P n"]
    ) -> Float[Tensor, "P n"]:
        """Where the gradient of the step is taken, given that at the points."""
        return points + gradient * (self.rho / _length(gradient))


@dataclass
class Asam(Sam):
    """Adaptive SAM (Kwon et al., arXiv 2102.11600), element by element: T = |θ| + η, η = .01.

    The ascent ρ T²g/‖Tg‖ goes as far in a rescaled copy of a network, up to η.
    """

    usual_rho: ClassVar[float] = 0.5
    eta: float = 0.01

    def ascended(
        self, points: Float[Tensor, "P n"], gradient: Float[Tensor, "P n"]
    ) -> Float[Tensor, "P n"]:
        """Where the gradient of the step is taken, given that at the points."""
        scale = points.abs() + self.eta
        scaled = scale * gradient
        return points + scale * scaled * (self.rho / _length(scaled))


def _length(vectors: Float[Tensor, "P n"]) -> Float[Tensor, "P 1"]:
    """Norm of every row, never 0: where there is no gradient there is nothing to climb."""
    norm = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return norm.clamp(min=torch.finfo(vectors.dtype).tiny)


def _move(points: Tensor, direction: Tensor, learning_rate: Tensor | float) -> None:
    if isinstance(learning_rate, float):
        points.add_(direction, alpha=-learning_rate)
    else:
        points.addcmul_(direction, learning_rate, value=-1)


OPTIMIZERS: dict[str, type[Sgd] | type[Adam]] = {
    "sgd": Sgd,
    "adam": Adam,
    "sam": Sam,
    "asam": Asam,
}
