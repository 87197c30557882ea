"""Engines: a network's outputs at a batch of points, and what is made of them in chunks.

``dense`` runs stacks of linear layers in closed form, ``vmap`` any other module at many points at
once, ``loop`` those that vmap cannot take, one point after another. All give the same numbers.
"""

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from spinscape.nets.chunks import CACHE, MEMORY, Plan, pieces, plan
from spinscape.nets.dense import ACTIVATIONS, DenseStack, stack_of
from spinscape.nets.losses import Loss, are_labels, judge
from spinscape.nets.normalisation import reestimate, statistics_batches, tracking_layers
from spinscape.nets.template import Template
from spinscape.nets.weightspace import WeightSpace

__all__ = [
    "ENGINES",
    "DenseEngine",
    "Engine",
    "ModuleEngine",
    "PointEvaluator",
    "TrainingEngine",
    "activate",
    "engine_of",
    "training_engine",
]

ENGINES = ("auto", "dense", "vmap", "loop")

MODULE_CACHE = 64 << 20
"""As `CACHE`, for modules under vmap, whose operations take longer to start."""

_IN_PLACE: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu_,
    "tanh": torch.tanh_,
    "sigmoid": torch.sigmoid_,
    "leaky_relu": lambda z: nn.functional.leaky_relu_(z),
}


class Engine(Protocol):
    """Runs a network at points."""

    space: WeightSpace

    @property
    def name(self) -> str:
        """One of "dense", "vmap", "loop" ("auto" before the first use decides)."""

    def outputs(
        self,
        points: Float[Tensor, "P n"],
        x: Tensor,
        *,
        own: bool = False,
        buffers: Mapping[str, Tensor] | None = None,
    ) -> Float[Tensor, "P B *output"]:
        """Run every point on inputs ``[B, ...]``, or ``[P, B, ...]`` if `own`."""

    def footprint(self, x: Tensor) -> float:
        """Bytes of intermediate results of one point on one sample."""


def engine_of(module: nn.Module, engine: str = "auto") -> "DenseEngine | ModuleEngine":
    """Return the engine that runs a module.

    Parameters
    ----------
    module : nn.Module
        Evaluated as in ``module.eval()``; only read, never changed.
    engine : "auto", "dense", "vmap" or "loop"
        "auto" takes dense where the module is a stack of linear layers and activations.

    Raises
    ------
    ValueError
        If the engine is unknown, or "dense" and the module is not such a stack.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine={engine!r}: expected one of {', '.join(map(repr, ENGINES))}")
    stack = stack_of(module) if engine in ("auto", "dense") else None
    if stack is not None:
        return DenseEngine(module, stack)
    if engine == "dense":
        raise ValueError(
            f"engine='dense': module {type(module).__name__!r} is not a chain of Flatten, "
            f"Linear and activations ({', '.join(ACTIVATIONS)}); use engine='auto'"
        )
    return ModuleEngine(module, engine)


def activate(name: str, pre: Tensor) -> Tensor:
    """Apply an activation, writing over its argument where it can."""
    return _IN_PLACE.get(name, ACTIVATIONS[name].value)(pre)


class DenseEngine:
    """Runs a stack of linear layers and activations."""

    name = "dense"

    def __init__(self, module: nn.Module, stack: DenseStack) -> None:
        self.space = WeightSpace(module)
        self.stack = stack
        self.tail = dataclasses.replace(stack, activations=("identity", *stack.activations[1:]))

    def outputs(
        self,
        points: Float[Tensor, "P n"],
        x: Tensor,
        *,
        own: bool = False,
        buffers: Mapping[str, Tensor] | None = None,
    ) -> Float[Tensor, "P B C"]:
        """Run every point on inputs ``[B, ...]``, or ``[P, B, ...]`` if `own`."""
        pre = self.stack.first(points, self.stack.inputs(x.to(points.dtype), own))
        if pre.requires_grad or not self.stack.activations:
            return self.stack.rest(points, pre).transpose(1, 2)
        hidden = activate(self.stack.activations[0], pre)
        return self.tail.rest(points, hidden).transpose(1, 2)

    def footprint(self, x: Tensor) -> float:
        """Bytes of intermediate results of one point on one sample."""
        return self.space.dtype.itemsize * sum(layer.outputs for layer in self.stack.layers)


class ModuleEngine:
    """Runs any module, under vmap or in a loop."""

    def __init__(self, module: nn.Module, method: str = "auto") -> None:
        self.template = Template(module, method)
        self.space = self.template.space

    @property
    def name(self) -> str:
        """Either "vmap" or "loop" ("auto" before the first use decides)."""
        return self.template.method

    def outputs(
        self,
        points: Float[Tensor, "P n"],
        x: Tensor,
        *,
        own: bool = False,
        buffers: Mapping[str, Tensor] | None = None,
    ) -> Float[Tensor, "P B *output"]:
        """Run every point on inputs ``[B, ...]``, or ``[P, B, ...]`` if `own`."""
        x = x.to(points.dtype) if x.is_floating_point() else x
        return self.template.outputs(points, x, own=own, buffers=buffers)

    def footprint(self, x: Tensor) -> float:
        """Bytes of intermediate results of one point on one sample."""
        return self.template.footprint(x)


class PointEvaluator:
    """Losses and errors of points on any samples, in chunks that fit.

    Parameters
    ----------
    module : nn.Module
        Evaluated as in ``module.eval()``; only read, never changed.
    loss : Loss
    engine : str
        As in `engine_of`.
    statistics : Tensor or None
        Inputs on which the statistics of normalisation layers are re-estimated at every point;
        None keeps the module's own.
    statistics_batch : int
        Samples a batch of that estimate.
    memory : int, optional
        Bytes of intermediate results; 1 GiB if not given.
    """

    def __init__(
        self,
        module: nn.Module,
        loss: Loss,
        *,
        engine: str = "auto",
        statistics: Tensor | None = None,
        statistics_batch: int = 256,
        memory: int | None = None,
    ) -> None:
        self.engine = engine_of(module, engine)
        self.loss = loss
        self.statistics = statistics if self.normalises else None
        self.statistics_batch = statistics_batch
        self.memory = MEMORY if memory is None else int(memory)
        if self.memory <= 0:
            raise ValueError(f"memory={memory!r}: expected a positive number of bytes")
        if self.statistics is not None:
            statistics_batches(len(self.statistics), statistics_batch)
        elif isinstance(self.engine, ModuleEngine) and self.engine.template.lacks_statistics:
            raise ValueError(
                "statistics='frozen': the module's batch norm keeps no running statistics "
                "(track_running_stats=False); use statistics='reestimate'"
            )

    @property
    def normalises(self) -> bool:
        """Whether the module has layers with running statistics."""
        if isinstance(self.engine, DenseEngine):
            return False
        return bool(tracking_layers(self.engine.template.module))

    def __call__(
        self, points: Float[Tensor, "P n"], x: Tensor, y: Tensor, with_error: bool = True
    ) -> tuple[Float[Tensor, "P"], Float[Tensor, "P"]]:
        """Loss and error rate of every point (not a number where `y` holds no class labels)."""
        found = points.new_empty(2, len(points))
        cuts = self.cuts(points, x)
        labelled: bool | None = None if with_error else False
        with torch.no_grad():
            for rows in pieces(len(points), cuts.points):
                buffers = self.buffers(points[rows])
                sums = points.new_zeros(2, rows.stop - rows.start)
                for samples in pieces(len(x), cuts.samples):
                    outputs = self.engine.outputs(points[rows], x[samples], buffers=buffers)
                    if labelled is None:
                        labelled = are_labels(y, outputs.shape[2:])
                    share = outputs.shape[1] / len(x)
                    sums.add_(judge(self.loss, outputs, y[samples], labelled), alpha=share)
                found[:, rows] = sums
        return found[0], found[1]

    def cuts(self, points: Tensor, x: Tensor, factor: float = 1.0) -> Plan:
        """How to cut points and samples for work that keeps `factor` times the forward pass."""
        scale = points.dtype.itemsize / self.engine.space.dtype.itemsize
        pair = factor * scale * self.engine.footprint(x[:2])
        cache = CACHE if isinstance(self.engine, DenseEngine) else MODULE_CACHE
        return plan(len(points), len(x), pair, points.device, self.memory, cache)

    def buffers(self, points: Float[Tensor, "P n"]) -> dict[str, Tensor]:
        """Re-estimated statistics of the points, as stacked buffers; empty if there are none."""
        if self.statistics is None or isinstance(self.engine, DenseEngine):
            return {}
        points = points.detach()
        batch = min(self.statistics_batch, len(self.statistics))
        pair = batch * points.dtype.itemsize / self.engine.space.dtype.itemsize
        pair *= self.engine.footprint(self.statistics[:2])
        size = max(1, int(self.memory // max(pair, 1)))
        found = [
            reestimate(self.engine.template, points[rows], self.statistics, self.statistics_batch)
            for rows in pieces(len(points), size)
        ]
        return {name: torch.cat([part[name] for part in found]) for name in found[0]}


class TrainingEngine:
    """Loss and gradient of points in training mode (layers normalise by the batch)."""

    def __init__(self, module: nn.Module, memory: int = MEMORY) -> None:
        drops = any(isinstance(part, _DropoutNd) and part.p > 0 for part in module.modules())
        self.stack = None if drops else stack_of(module)
        self.template = None if self.stack is not None else Template(module, training=True)
        self.random = drops
        self.memory = memory
        if drops:
            warnings.warn(
                "the module drops units at random in training: replicas are run one after another, "
                "each with its own random numbers, which is slow",
                stacklevel=4,
            )

    @property
    def name(self) -> str:
        """One of "dense", "vmap", "loop" ("auto" before the first use decides)."""
        if self.template is None:
            return "dense"
        return "loop" if self.random else self.template.method

    def loss_and_gradient(
        self,
        points: Float[Tensor, "P n"],
        x: Tensor,
        y: Tensor,
        loss: Loss,
        *,
        own: bool,
        seeds: Sequence[int] | None = None,
    ) -> tuple[Float[Tensor, "P"], Float[Tensor, "P n"]]:
        """Loss of every point on a batch, and its gradient.

        Parameters
        ----------
        points : [P, n]
        x, y : [B, ...] for all, or [P, B, ...] if `own`
        loss : Loss
        own : bool
            Whether every point has samples of its own.
        seeds : sequence of int, optional
            One a point; they fix the random numbers of modules that draw some (dropout).
        """
        if self.stack is not None:
            x = self.stack.inputs(x.to(points.dtype), own)
            return self.stack.gradient(points, x, y, loss)
        value, gradient = points.new_empty(len(points)), torch.empty_like(points)
        seeds = [0] * len(points) if seeds is None else seeds
        for rows in pieces(len(points), self._at_once(x[0] if own else x)):
            mine = (x[rows], y[rows]) if own else (x, y)
            value[rows], gradient[rows] = self._piece(points[rows], *mine, loss, own, seeds[rows])
        return value, gradient

    def _at_once(self, x: Tensor) -> int:
        assert self.template is not None
        return max(1, int(self.memory // max(1, 3 * len(x) * self.template.footprint(x))))

    def _piece(
        self, points: Tensor, x: Tensor, y: Tensor, loss: Loss, own: bool, seeds: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        assert self.template is not None
        points = points.detach().requires_grad_()
        x = x.to(points.dtype) if x.is_floating_point() else x
        looping = self.random or self.name == "loop"
        with torch.enable_grad():
            outputs = self.template.outputs(points, x, own=own, seeds=seeds if looping else None)
            value = loss.value(outputs, y, own=own)
            (gradient,) = torch.autograd.grad(value.sum(), points)
        return value.detach(), gradient


def training_engine(module: nn.Module) -> TrainingEngine:
    """Return the engine that trains copies of a module; the module is only read."""
    return TrainingEngine(module)
