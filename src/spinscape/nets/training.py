"""Training of many replicas of a network as one batch of points.

Each replica carries its own seed, which fixes its initialisation and the order of its data; it
ends where it would have ended alone.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor, nn

from spinscape.nets.datasets import Data
from spinscape.nets.engine import TrainingEngine, training_engine
from spinscape.nets.initialisation import initial_points
from spinscape.nets.losses import Loss, LossFunction, loss_of
from spinscape.nets.optimizers import OPTIMIZERS, Optimizer
from spinscape.nets.orders import Order, replica_seeds
from spinscape.nets.populations import Evaluator, describe
from spinscape.nets.weightspace import WeightSpace
from spinscape.nets.weightspace import points as points_of

__all__ = ["SCHEDULES", "Recipe", "train"]

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
        for name in ("patience", "evaluate_every"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(f"{name}={value!r}: expected a whole number, 1 or more, or None")


def _choose(name: str, value: object, known: Any) -> None:
    if value not in known:
        raise ValueError(f"{name}={value!r}: expected one of {', '.join(map(repr, known))}")


def train(
    module: nn.Module,
    data: Data,
    *,
    replicas: int | Sequence[int] = 1,
    seed: int = 0,
    epochs: int = 50,
    loss: str | LossFunction = "cross_entropy",
    start: "Tensor | xr.Dataset | None" = None,
    init: Callable[[nn.Module, torch.Generator], None] | None = None,
    indices: Sequence[Sequence[int] | Tensor] | None = None,
    penalty: Callable[[Tensor], Tensor] | None = None,
    keep_state: bool = False,
    memory: int = 2 << 30,
    progress: Callable[[int, int], None] | None = None,
    **recipe: Any,
) -> xr.Dataset:
    """Train replicas of a network, all as one batch.

    Parameters
    ----------
    module : nn.Module
        The template. It is left untouched: each replica is initialised from its own seed by the
        ``reset_parameters`` of the module's parts.
    data : Data
        Training, validation and test split (`datasets.load`).
    replicas : int or sequence of int
        How many, or the indices of those to train: replica k is the same network in
        ``replicas=8``, in ``replicas=[k]`` and in any other set.
    seed : int
        With a replica's index it fixes that replica's initialisation and data order.
    epochs : int
        Passes over the (largest) training set; with `stop_at` the most there may be.
    loss : str or callable
        As in `losses.loss_of`.
    start : Tensor or Dataset, optional
        Points ``[n]`` or ``[replica, n]`` to start from, or the result of a training with
        ``keep_state=True``, which goes on where it ended, data order and momentum included.
    init : callable, optional
        ``init(module, generator)`` initialises a copy of the module, for modules that cannot do
        so themselves.
    indices : sequence, optional
        For each replica the samples of the training split that it may see; lengths may differ.
    penalty : callable, optional
        ``penalty(points [P, n]) -> [P]``, differentiable, added to each replica's loss. It must
        treat every point by itself.
    keep_state : bool
        Keep momentum and step count in the result, so that training can go on.
    memory : int
        Bytes the working set may take; more replicas than fit are trained chunk after chunk.
    progress : callable, optional
        Called with steps done and planned.
    batch_size, optimizer, learning_rate, momentum, weight_decay, schedule, batches, stop_at, \
patience, evaluate_every, snapshots
        Fields of `Recipe`. Optimisers ``"sgd"`` (heavy-ball) and ``"adam"``; schedules
        ``"constant"``, ``"linear"``, ``"cosine"``; ``batches="own"`` draws each replica's
        mini-batches from its own seed, ``"shared"`` gives all the same ones (replicas then differ
        by initialisation), which is faster. ``learning_rate``, ``momentum``, ``weight_decay`` and
        ``stop_at`` are scalars or one value per replica. A replica stops when its training loss
        is at most `stop_at`, or when its validation loss has not improved for `patience`
        evaluations; evaluations come every `evaluate_every` steps (an epoch by default).
        `snapshots` asks for that many points at log-spaced steps, or at the steps given.

    Returns
    -------
    Dataset
        ``point [replica, n]``, ``seed``, loss and error on the three splits, curves along
        ``epoch``, ``epochs_run``, ``diverged``. A replica whose loss became non-finite is marked
        and stays where it was; it is never dropped.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit; the message names it, its value and the remedy.
    """
    settings = Recipe(epochs=epochs, **recipe)
    chosen = _replica_indices(replicas)
    space = WeightSpace(module)
    setup = _Setup(module, space, training_engine(module), data, loss_of(loss), settings, penalty)
    _check_lengths(settings, len(chosen))
    samples = _samples(indices, len(chosen), len(data.train.x), settings.batches)
    parts = []
    for rows in _chunks(len(chosen), setup.replica_bytes(), memory):
        ids = [chosen[k] for k in rows]
        points, state = _start(module, start, init, seed, ids, rows, len(chosen))
        run = _Run(setup, points.to(data.train.x.device), ids, rows, seed, samples, state)
        parts.append(run.train(progress).dataset(keep_state))
    result = _join(parts)
    result.attrs.update(seed=seed, source="training of replicas as one batch of points")
    return result


@dataclass(frozen=True)
class _Setup:
    """What all chunks of replicas share."""

    module: nn.Module
    space: WeightSpace
    engine: TrainingEngine
    data: Data
    loss: Loss
    recipe: Recipe
    penalty: Callable[[Tensor], Tensor] | None

    def replica_bytes(self) -> int:
        """Memory that one replica takes in a step, a rough upper bound."""
        width = self.data.train.x[0].numel() + sum((*shape, 1)[0] for shape in self.space.shapes)
        size = torch.finfo(self.space.dtype).bits // 8
        return size * (6 * self.space.n + 4 * width * self.recipe.batch_size)


@dataclass
class _Run:
    """The state of a training: points, memory of the optimiser, data order, curves."""

    setup: _Setup
    points: Tensor
    ids: Sequence[int]
    rows: Sequence[int]
    seed: int
    samples: Sequence[Tensor]
    state: dict[str, Tensor]
    steps: list[int] = field(default_factory=list)
    curves: list[dict[str, Tensor]] = field(default_factory=list)
    snapshots: dict[int, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        recipe, count = self.setup.recipe, len(self.ids)
        self.first_step = int(self.state.pop("step", torch.tensor(0)))
        self.state = {name: value.to(self.points) for name, value in self.state.items()}
        self.shared = recipe.batches == "shared"
        seeds = [self.seed] if self.shared else replica_seeds(self.seed, self.ids)
        samples = [self.samples[k] for k in self.rows[: len(seeds)]]
        sizes = list(map(len, self.samples))
        self.order = Order(seeds, samples, recipe.batch_size, self.first_step, sizes)
        self.total = self.first_step + recipe.epochs * self.order.steps_per_epoch
        self.every = recipe.evaluate_every or self.order.steps_per_epoch
        self.rate = self._setting("learning_rate")
        self.optimizer: Optimizer = OPTIMIZERS[recipe.optimizer](
            self._setting("momentum"), self._setting("weight_decay"), dict(self.state)
        )
        self.active = torch.arange(count)
        self.live = self.points.clone()
        self.stopped_at = torch.full((count,), self.total)
        self.diverged = torch.zeros(count, dtype=torch.bool)
        self.best = torch.full((count,), math.inf, dtype=torch.float64)
        self.waited = torch.zeros(count, dtype=torch.long)
        self.memory = {name: value.clone() for name, value in self.state.items()}
        self.evaluate = Evaluator(self.setup.module, self.setup.data, self.setup.loss)
        self.x = self.setup.data.train.x.to(self.points.dtype)
        self.y = self.setup.data.train.y

    def train(self, progress: Callable[[int, int], None] | None) -> "_Run":
        """Run all steps, or until the last replica has stopped."""
        wanted = _snapshot_steps(self.setup.recipe.snapshots, self.first_step, self.total)
        for step in range(self.first_step, self.total):
            if step in wanted:
                self.snapshots[step] = self._all_points()
            self._step(step)
            if (step + 1 - self.first_step) % self.every == 0 or step + 1 == self.total:
                self._evaluate(step + 1)
                if progress is not None:
                    progress(step + 1 - self.first_step, self.total - self.first_step)
            if len(self.active) == 0:
                break
        for step in sorted(wanted - self.snapshots.keys()):
            self.snapshots[step] = self._all_points()
        self._retire(torch.ones(len(self.active), dtype=torch.bool))
        return self

    def dataset(self, keep_state: bool) -> xr.Dataset:
        """Return the population, described and evaluated."""
        result = describe(
            self.setup.space, self.points, self.evaluate, self.ids, diverged=self.diverged
        )
        seeds = np.array(replica_seeds(self.seed, self.ids))
        result["seed"] = ("replica", seeds, {"long_name": "seed of the replica", "units": "1"})
        steps = (self.stopped_at - self.first_step).numpy()
        result["epochs_run"] = (
            "replica",
            steps / self.order.steps_per_epoch,
            {"long_name": "passes over the training set", "units": "epoch"},
        )
        result.coords["epoch"] = np.array(self.steps) / self.order.steps_per_epoch
        for name, (long_name, units) in _CURVES.items():
            values = torch.stack([curve[name] for curve in self.curves], 1).cpu().numpy()
            result[f"curve_{name}"] = (
                ("replica", "epoch"),
                values,
                {"long_name": long_name, "units": units},
            )
        if self.snapshots:
            result.coords["snapshot_step"] = ("snapshot", np.array(sorted(self.snapshots)))
            stacked = torch.stack([self.snapshots[step] for step in sorted(self.snapshots)])
            result["snapshot"] = (
                ("snapshot", "replica", "n"),
                stacked.cpu().numpy(),
                {"long_name": "points along the training", "units": "1"},
            )
        if keep_state:
            result.attrs["step"] = int(self.stopped_at.max())
            for name, value in self.memory.items():
                result[name] = (("replica", "n"), value.cpu().numpy())
        return result

    def _setting(self, name: str) -> Tensor:
        values = torch.as_tensor(getattr(self.setup.recipe, name), dtype=self.points.dtype)
        if values.ndim == 0:
            return values
        return values[list(self.rows)].to(self.points.device)[:, None]

    def _step(self, step: int) -> None:
        picked = self.order.next()
        if self.shared:
            x, y = self.x[picked[0]], self.y[picked[0]]
        else:
            x = self.x.index_select(0, picked.flatten()).view(*picked.shape, *self.x.shape[1:])
            y = self.y.index_select(0, picked.flatten()).view(*picked.shape, *self.y.shape[1:])
        gradient = self._gradient(x, y, step)
        share = (step - self.first_step) / (self.total - self.first_step)
        rate = self.rate * SCHEDULES[self.setup.recipe.schedule](share)
        self.optimizer.step(self.live, gradient, float(rate) if rate.ndim == 0 else rate, step + 1)

    def _gradient(self, x: Tensor, y: Tensor, step: int) -> Float[Tensor, "P n"]:
        seeds = [self.seed + 1000003 * self.ids[k] + step for k in self.active.tolist()]
        _, gradient = self.setup.engine.loss_and_gradient(
            self.live, x, y, self.setup.loss, own=not self.shared, seeds=seeds
        )
        if self.setup.penalty is not None:
            points = self.live.detach().requires_grad_()
            with torch.enable_grad():
                extra = self.setup.penalty(points)
                (pull,) = torch.autograd.grad(extra.sum(), points)
            if extra.shape != points.shape[:1]:
                raise ValueError(
                    f"penalty: returned shape {tuple(extra.shape)} for {len(points)} points, "
                    "expected one number a point"
                )
            gradient = gradient + pull
        return gradient

    def _evaluate(self, step: int) -> None:
        train_loss, _ = self.evaluate(self.live, "train")
        validation_loss, validation_error = self.evaluate(self.live, "validation")
        now = {
            "train_loss": train_loss,
            "validation_loss": validation_loss,
            "validation_error": validation_error,
        }
        last = self.curves[-1] if self.curves else None
        curve = {}
        for name, values in now.items():
            whole = torch.full((len(self.ids),), math.nan, dtype=values.dtype)
            curve[name] = whole if last is None else last[name].clone()
            curve[name][self.active] = values.cpu()
        self.curves.append(curve)
        self.steps.append(step)
        broken = ~torch.isfinite(train_loss)
        self.diverged[self.active[broken.cpu()]] = True
        done = broken | self._reached(train_loss) | self._stale(validation_loss)
        if done.any():
            self.stopped_at[self.active[done.cpu()]] = step
            self._retire(done.cpu())

    def _reached(self, loss: Tensor) -> Tensor:
        if self.setup.recipe.stop_at is None:
            return torch.zeros(len(loss), dtype=torch.bool)
        target = self._setting("stop_at")
        return loss <= (target if target.ndim == 0 else target[self.active, 0])

    def _stale(self, loss: Tensor) -> Tensor:
        patience = self.setup.recipe.patience
        if patience is None:
            return torch.zeros(len(loss), dtype=torch.bool)
        values = loss.cpu().double()
        better = values < self.best[self.active]
        self.best[self.active] = torch.minimum(values, self.best[self.active])
        self.waited[self.active] = torch.where(better, 0, self.waited[self.active] + 1)
        return self.waited[self.active] >= patience

    def _retire(self, done: Tensor) -> None:
        """Write finished replicas down and go on with the others."""
        self.points[self.active[done]] = self.live[done]
        for name, value in self.optimizer.memory.items():
            whole = self.memory.setdefault(name, torch.zeros_like(self.points))
            whole[self.active[done]] = value[done]
        going = ~done
        self.active, self.live = self.active[going], self.live[going]
        for name, value in self.optimizer.memory.items():
            self.optimizer.memory[name] = value[going]
        for name in ("momentum", "weight_decay"):
            setting = getattr(self.optimizer, name)
            setattr(self.optimizer, name, setting[going] if setting.ndim else setting)
        self.rate = self.rate[going] if self.rate.ndim else self.rate
        if not self.shared:
            self.order.keep(torch.nonzero(going).flatten())

    def _all_points(self) -> Tensor:
        whole = self.points.clone()
        whole[self.active] = self.live
        return whole


_CURVES = {
    "train_loss": ("training loss", "nats"),
    "validation_loss": ("validation loss", "nats"),
    "validation_error": ("validation error", "1"),
}


def _replica_indices(replicas: int | Sequence[int]) -> list[int]:
    chosen = list(range(replicas)) if isinstance(replicas, int) else [int(k) for k in replicas]
    if not chosen or min(chosen) < 0 or len(set(chosen)) < len(chosen):
        raise ValueError(f"replicas={replicas!r}: expected at least one, each index ≥ 0 once")
    return chosen


def _check_lengths(recipe: Recipe, count: int) -> None:
    for name in ("learning_rate", "momentum", "weight_decay", "stop_at"):
        value = getattr(recipe, name)
        shape = () if value is None else tuple(torch.as_tensor(value).shape)
        if shape not in ((), (count,)):
            given = f"{shape[0]} values" if len(shape) == 1 else f"shape {shape}"
            raise ValueError(f"{name}: {given}, expected one for each of {count} replicas")


def _join(parts: list[xr.Dataset]) -> xr.Dataset:
    """Put chunks of replicas together; those that stopped first stay where they were."""
    if len(parts) == 1:
        return parts[0]
    longest = max(parts, key=lambda part: part.sizes["epoch"]).epoch
    result = xr.concat([part.reindex(epoch=longest, method="ffill") for part in parts], "replica")
    if "step" in result.attrs:
        result.attrs["step"] = max(part.attrs["step"] for part in parts)
    return result


def _chunks(count: int, each: int, memory: int) -> list[range]:
    size = max(1, memory // each)
    return [range(k, min(k + size, count)) for k in range(0, count, size)]


def _start(
    module: nn.Module,
    start: "Tensor | xr.Dataset | None",
    init: Callable[[nn.Module, torch.Generator], None] | None,
    seed: int,
    ids: Sequence[int],
    rows: Sequence[int],
    count: int,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Starting points of some of the replicas, and the optimiser's memory if training goes on."""
    space = WeightSpace(module)
    if start is None:
        return initial_points(module, replica_seeds(seed, ids), init), {}
    points = points_of(start)
    space.check(points, "start")
    if points.ndim > 1 and len(points) != count:
        raise ValueError(f"start: {len(points)} points for {count} replicas")
    chosen = points.expand(count, -1)[list(rows)].clone()
    state: dict[str, Tensor] = {}
    if isinstance(start, xr.Dataset) and "step" in start.attrs:
        state["step"] = torch.tensor(start.attrs["step"])
        for name in {"velocity", "second_moment"} & set(map(str, start.data_vars)):
            state[name] = points_of(start[name])[list(rows)].clone()
    return chosen, state


def _samples(
    indices: Sequence[Sequence[int] | Tensor] | None, count: int, size: int, batches: str
) -> list[Tensor]:
    if indices is None:
        return [torch.arange(size)] * count
    if len(indices) != count:
        raise ValueError(f"indices: {len(indices)} sets of samples for {count} replicas")
    chosen = [torch.as_tensor(samples, dtype=torch.long) for samples in indices]
    for row, samples in enumerate(chosen):
        if batches == "shared" and not torch.equal(samples, chosen[0]):
            raise ValueError(
                f"indices[{row}]: other samples than indices[0], but batches='shared' gives all "
                "replicas the same ones; use batches='own'"
            )
        if len(samples) == 0 or samples.min() < 0 or samples.max() >= size:
            raise ValueError(f"indices[{row}]: expected samples among 0..{size - 1}, at least one")
    return chosen


def _snapshot_steps(wanted: int | Sequence[int] | None, first: int, total: int) -> set[int]:
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
