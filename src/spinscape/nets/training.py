"""Training of many replicas of a network as one batch of points.

Each replica carries its own seed, which fixes its initialisation and the order of its data; it
ends where it would have ended alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import torch
import xarray as xr
from torch import Tensor, nn

from spinscape.nets.datasets import Data
from spinscape.nets.descent import Descent, Setup
from spinscape.nets.engine import training_engine
from spinscape.nets.initialisation import initial_points
from spinscape.nets.losses import LossFunction, loss_of
from spinscape.nets.orders import replica_seeds
from spinscape.nets.recipes import Recipe
from spinscape.nets.weightspace import WeightSpace
from spinscape.nets.weightspace import points as points_of

__all__ = ["train"]


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
        Passes over the training split, whatever part of it a replica sees (all make as many
        steps); with `stop_at` the most there may be.
    loss : str or callable
        As in `losses.loss_of`.
    start : Tensor or Dataset, optional
        Points ``[n]`` or ``[replica, n]`` to start from, or the result of a training with
        ``keep_state=True``, which goes on where it ended, data order and momentum included.
    init : callable, optional
        ``init(module, generator)`` initialises a copy of the module, for modules that cannot do
        so themselves.
    indices : sequence, optional
        For each replica the samples of the training split that it may see, at least a batch;
        lengths may differ.
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
patience, evaluate_every, snapshots, steps, rho, average_from, average_every
        Fields of `recipes.Recipe`. Optimisers ``"sgd"`` (heavy-ball), ``"adam"``, ``"sam"`` and
        ``"asam"`` (sharpness-aware: ``"sgd"`` whose gradient is taken at θ + ρ g/‖g‖, at the price
        of two gradients a step; `rho` .05, or .5 for ``"asam"``; a `penalty` is part of g, the L2
        decay is not); schedules ``"constant"``, ``"linear"``, ``"cosine"``; ``batches="own"``
        draws each replica's mini-batches from its own seed, ``"shared"`` gives all the same ones
        (replicas then differ by initialisation), which is faster. ``learning_rate``, ``momentum``,
        ``weight_decay``, ``rho`` and ``stop_at`` are scalars or one value per replica. A replica
        stops when its training loss is at most `stop_at`, or when its validation loss has not
        improved for `patience` evaluations; evaluations come every `evaluate_every` steps (an epoch
        by default).
        `snapshots` asks for that many points at log-spaced steps, or at the steps given. `steps`
        makes so many steps instead of whole `epochs`. `average_from` asks for the mean of a
        replica's points (stochastic weight averaging, arXiv 1803.05407) over the steps after that
        share of this call's training, every `average_every` steps (an epoch by default), as long as
        the replica is in training.

    Returns
    -------
    Dataset
        ``point [replica, n]``, ``seed``, loss and error on the three splits, curves along
        ``epoch``, ``epochs_run``, ``diverged``; with `average_from` ``average [replica, n]``, and
        ``averaged``, of how many points it is the mean (not a number where a replica stopped before
        the first). ``population(module, trained["average"], data)`` says what it reaches, with the
        statistics of normalisation layers re-estimated there. A replica whose loss became
        non-finite is marked and keeps its non-finite point; it is never dropped.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit; the message names it, its value and the remedy.
    """
    _check_arguments(module, data, recipe)
    settings = Recipe(epochs=epochs, **recipe)
    chosen = _replica_indices(replicas)
    space = WeightSpace(module)
    setup = Setup(module, space, training_engine(module), data, loss_of(loss), settings, penalty)
    settings.check_lengths(len(chosen))
    samples = _samples(indices, len(chosen), len(data.train.x), settings)
    parts = []
    for rows in _chunks(len(chosen), setup.replica_bytes(), memory):
        ids = [chosen[k] for k in rows]
        points, state = _start(module, start, init, seed, ids, rows, len(chosen))
        run = Descent(setup, points.to(data.train.x.device), ids, rows, seed, samples, state)
        parts.append(run.train(progress).dataset(keep_state))
    result = _join(parts)
    result.attrs.update(
        seed=seed,
        arguments=settings.describe(),
        source="training of replicas as one batch of points",
    )
    return result


def _check_arguments(module: nn.Module, data: Data, recipe: dict[str, Any]) -> None:
    """Refuse what is no setting, no data, or a parameter that must not move."""
    known = [field.name for field in fields(Recipe)]
    for name in recipe:
        if name not in known:
            raise TypeError(f"{name}: no such setting of train; there are {', '.join(known)}")
    if not isinstance(data, Data):
        raise TypeError(
            f"data: got {type(data).__name__}, expected the three splits of datasets.load(...)"
        )
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            raise ValueError(
                f"module: {name!r} has requires_grad=False, but train moves all parameters; "
                "make it a buffer (register_buffer), or set requires_grad=True"
            )


def _replica_indices(replicas: int | Sequence[int]) -> list[int]:
    chosen = list(range(replicas)) if isinstance(replicas, int) else [int(k) for k in replicas]
    if not chosen or min(chosen) < 0 or len(set(chosen)) < len(chosen):
        raise ValueError(f"replicas={replicas!r}: expected at least one, each index ≥ 0 once")
    return chosen


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
    indices: Sequence[Sequence[int] | Tensor] | None, count: int, size: int, recipe: Recipe
) -> list[Tensor]:
    if indices is None:
        return [torch.arange(size)] * count
    if len(indices) != count:
        raise ValueError(f"indices: {len(indices)} sets of samples for {count} replicas")
    chosen = [torch.as_tensor(samples, dtype=torch.long).cpu() for samples in indices]
    for row, samples in enumerate(chosen):
        if recipe.batches == "shared" and not torch.equal(samples, chosen[0]):
            raise ValueError(
                f"indices[{row}]: other samples than indices[0], but batches='shared' gives all "
                "replicas the same ones; use batches='own'"
            )
        if len(samples) == 0 or samples.min() < 0 or samples.max() >= size:
            raise ValueError(f"indices[{row}]: expected samples among 0..{size - 1}, at least one")
        if len(samples) < min(recipe.batch_size, size):
            raise ValueError(
                f"indices[{row}]: {len(samples)} samples are fewer than batch_size="
                f"{recipe.batch_size}; lower it (for all replicas, none of which depends on others)"
            )
    return chosen
