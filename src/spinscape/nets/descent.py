"""The descent of one batch of replicas: points, memory of the optimiser, data order, curves."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor, nn

from spinscape.nets.datasets import Data
from spinscape.nets.engine import TrainingEngine
from spinscape.nets.losses import Loss
from spinscape.nets.optimizers import OPTIMIZERS, Optimizer, Sam
from spinscape.nets.orders import Order, replica_seeds, word
from spinscape.nets.populations import Evaluator, describe
from spinscape.nets.recipes import SCHEDULES, Recipe, averaged_steps, snapshot_steps
from spinscape.nets.weightspace import WeightSpace

__all__ = ["Descent", "Setup"]

_CURVES = {
    "train_loss": ("training loss", "nats"),
    "validation_loss": ("validation loss", "nats"),
    "validation_error": ("validation error", "1"),
}


@dataclass(frozen=True)
class Setup:
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
        copies = 6 + 2 * issubclass(OPTIMIZERS[self.recipe.optimizer], Sam)
        copies += self.recipe.average_from is not None
        return size * (copies * self.space.n + 4 * width * self.recipe.batch_size)


@dataclass
class Descent:
    """The state of a training: points, memory of the optimiser, data order, curves."""

    setup: Setup
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
        whole = [len(self.setup.data.train.x)]
        self.order = Order(seeds, samples, recipe.batch_size, self.first_step, whole)
        planned = recipe.steps or recipe.epochs * self.order.steps_per_epoch
        self.total = self.first_step + planned
        self.every = recipe.evaluate_every or self.order.steps_per_epoch
        self.rate = self._setting("learning_rate")
        kind = OPTIMIZERS[recipe.optimizer]
        settings: dict[str, Any] = {name: self._setting(name) for name in kind.settings}
        self.optimizer: Optimizer = kind(**settings, memory=dict(self.state))
        self.averaged_at = averaged_steps(
            recipe, self.first_step, self.total, self.order.steps_per_epoch
        )
        self.average = torch.full_like(self.points, math.nan) if self.averaged_at else None
        self.averaged = torch.zeros(count, dtype=torch.long)
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

    def train(self, progress: Callable[[int, int], None] | None) -> "Descent":
        """Run all steps, or until the last replica has stopped."""
        wanted = snapshot_steps(self.setup.recipe.snapshots, self.first_step, self.total)
        for step in range(self.first_step, self.total):
            if step in wanted:
                self.snapshots[step] = self._all_points()
            self._step(step)
            if step + 1 in self.averaged_at:
                self._accumulate()
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
        result["epoch"].attrs.update(long_name="passes over the training set", units="epoch")
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
        if self.average is not None:
            words = {"long_name": "mean of the points along the training", "units": "1"}
            result["average"] = (("replica", "n"), self.average.cpu().numpy(), words)
            words = {"long_name": "points in that mean", "units": "1"}
            result["averaged"] = ("replica", self.averaged.numpy(), words)
        if keep_state:
            result.attrs["step"] = int(self.stopped_at.max())
            for name, value in self.memory.items():
                words = {"long_name": f"{name.replace('_', ' ')} of the optimiser", "units": "1"}
                result[name] = (("replica", "n"), value.cpu().numpy(), words)
        return result

    def _setting(self, name: str) -> Tensor:
        values = torch.as_tensor(getattr(self.setup.recipe, name), dtype=self.points.dtype)
        if values.ndim == 0:
            return values
        return values[list(self.rows)].to(self.points.device)[:, None]

    def _step(self, step: int) -> None:
        picked = self.order.next().to(self.x.device)
        if self.shared:
            x, y = self.x[picked[0]], self.y[picked[0]]
        else:
            x = self.x.index_select(0, picked.flatten()).view(*picked.shape, *self.x.shape[1:])
            y = self.y.index_select(0, picked.flatten()).view(*picked.shape, *self.y.shape[1:])
        gradient = self._gradient(self.live, x, y, step)
        if isinstance(self.optimizer, Sam):
            top = self.optimizer.ascended(self.live, gradient)
            gradient = self._gradient(top, x, y, step)
        share = (step - self.first_step) / (self.total - self.first_step)
        rate = self.rate * SCHEDULES[self.setup.recipe.schedule](share)
        self.optimizer.step(self.live, gradient, float(rate) if rate.ndim == 0 else rate, step + 1)

    def _gradient(
        self, points: Float[Tensor, "P n"], x: Tensor, y: Tensor, step: int
    ) -> Float[Tensor, "P n"]:
        seeds = None
        if self.setup.engine.name != "dense":
            seeds = [word(self.seed, self.ids[k], step) for k in self.active.tolist()]
        _, gradient = self.setup.engine.loss_and_gradient(
            points, x, y, self.setup.loss, own=not self.shared, seeds=seeds
        )
        if self.setup.penalty is not None:
            points = points.detach().requires_grad_()
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

    def _accumulate(self) -> None:
        """Take the points of all replicas still in training into their running mean."""
        assert self.average is not None
        self.averaged[self.active] += 1
        count = self.averaged[self.active].to(self.points)[:, None]
        mean = self.average[self.active].where(count > 1, self.live)
        self.average[self.active] = mean + (self.live - mean) / count

    def _evaluate(self, step: int) -> None:
        train_loss = self.evaluate(self.live, "train")[0].cpu()
        validation = self.evaluate(self.live, "validation")
        validation_loss, validation_error = (values.cpu() for values in validation)
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
            curve[name][self.active] = values
        self.curves.append(curve)
        self.steps.append(step)
        broken = ~torch.isfinite(train_loss)
        self.diverged[self.active[broken]] = True
        done = broken | self._reached(train_loss) | self._stale(validation_loss)
        if done.any():
            self.stopped_at[self.active[done]] = step
            self._retire(done)

    def _reached(self, loss: Tensor) -> Tensor:
        if self.setup.recipe.stop_at is None:
            return torch.zeros(len(loss), dtype=torch.bool)
        target = self._setting("stop_at").cpu()
        return loss <= (target if target.ndim == 0 else target[self.active, 0])

    def _stale(self, loss: Tensor) -> Tensor:
        patience = self.setup.recipe.patience
        if patience is None:
            return torch.zeros(len(loss), dtype=torch.bool)
        values = loss.double()
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
        for name in self.optimizer.settings:
            setting = getattr(self.optimizer, name)
            setattr(self.optimizer, name, setting[going] if setting.ndim else setting)
        self.rate = self.rate[going] if self.rate.ndim else self.rate
        if not self.shared:
            self.order.keep(torch.nonzero(going).flatten())

    def _all_points(self) -> Tensor:
        whole = self.points.clone()
        whole[self.active] = self.live
        return whole
