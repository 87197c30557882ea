"""Pairs of networks: their common start, random or pre-trained, and their halves of the data.

Whatever is random is fixed by a seed and the number of a pair: it is the same in any company.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from math import ceil, isqrt
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from spinscape.nets.datasets import Data
from spinscape.nets.initialisation import initial_points
from spinscape.nets.orders import generator, word
from spinscape.nets.splits import Split
from spinscape.nets.training import train
from spinscape.nets.weightspace import points as points_of

__all__ = [
    "both_starts",
    "halves",
    "other_task",
    "part_of_classes",
    "rotated",
    "trained_halves",
    "trained_whole",
]

_HALVES, _INITIAL, _PRETRAINING, _TUNING, _WHOLE = range(21, 26)
"""Words that keep the seeds of the study's parts apart."""


def both_starts(
    module: nn.Module,
    data: Data,
    seeds: Sequence[int],
    pretraining: str | Data,
    epochs: int,
    init: Callable[[nn.Module, torch.Generator], None] | None,
    common: dict[str, Any],
) -> list[Float[Tensor, "seed n"]]:
    """Initialise a network a seed, and pre-train a copy of each on another task.

    `common` has the seed, the loss and the recipe of `train`, here and below.
    """
    seed = common["seed"]
    random = initial_points(module, [word(seed, k, _INITIAL) for k in seeds], init)
    task = other_task(data, pretraining)
    steps = epochs * ceil(len(task.train.x) / common["batch_size"])
    settings = {**common, "seed": word(seed, _PRETRAINING), "evaluate_every": max(1, steps)}
    trained = train(module, task, replicas=seeds, start=random, epochs=epochs, **settings)
    return [start.to(data.train.x.device) for start in (random, points_of(trained))]


def trained_halves(
    module: nn.Module,
    data: Data,
    start: Float[Tensor, "seed n"],
    parts: Tensor,
    seeds: Sequence[int],
    steps: Sequence[int],
    common: dict[str, Any],
) -> Float[Tensor, "seed epoch 2 n"]:
    """Train A and B of every seed, and return them at the steps."""
    trained = train(
        module,
        data,
        replicas=[2 * k + end for k in seeds for end in (0, 1)],
        start=start.repeat_interleave(2, 0),
        indices=list(parts),
        steps=steps[-1],
        snapshots=list(steps),
        evaluate_every=steps[-1],
        **{**common, "seed": word(common["seed"], _TUNING)},
    )
    found = points_of(trained["snapshot"], data.test.x.device)
    return found.unflatten(1, (len(seeds), 2)).transpose(0, 1)


def trained_whole(
    module: nn.Module,
    data: Data,
    start: Float[Tensor, "seed n"],
    seeds: Sequence[int],
    steps: int,
    common: dict[str, Any],
) -> Float[Tensor, "seed n"]:
    """Train one network a seed on all the data, with as many steps as A and B make together."""
    settings = {**common, "seed": word(common["seed"], _WHOLE), "evaluate_every": steps}
    trained = train(module, data, replicas=seeds, start=start, steps=steps, **settings)
    return points_of(trained, data.test.x.device)


def halves(count: int, seed: int, replica: int) -> Int[Tensor, "2 half"]:
    """Cut the samples 0 .. count − 1 into two random halves of one size, in increasing order.

    Of an odd number one sample is left out. The halves depend on the seed and the replica alone.
    """
    if count < 2:
        raise ValueError(f"count={count}: two halves need at least two samples")
    shuffled = torch.randperm(count, generator=generator(seed, replica, _HALVES))
    return shuffled[: count - count % 2].view(2, -1).sort(dim=1).values


def other_task(data: Data, task: "str | Data") -> Data:
    """Return the data of a task to pre-train on, for networks that then learn `data`.

    Parameters
    ----------
    data : Data
    task : "rotated", "classes" or Data
        Images turned by 90°; the first half of the classes alone; or data of your own, whose
        samples have the shape of `data` and which has no more classes.

    Raises
    ------
    ValueError
        If the task is not known or does not fit.
    """
    if isinstance(task, Data):
        if task.inputs != data.inputs or task.classes > data.classes:
            raise ValueError(
                f"pretraining: data with samples of shape {task.inputs} and {task.classes} "
                f"classes do not fit a network for {data.inputs} and {data.classes}"
            )
        return task
    if task == "rotated":
        return rotated(data)
    if task == "classes":
        return part_of_classes(data, max(1, data.classes // 2))
    raise ValueError(f"pretraining={task!r}: expected 'rotated', 'classes' or a Data")


def rotated(data: Data, quarters: int = 1) -> Data:
    """Turn all images by quarters of a circle, counter-clockwise; labels stay what they are.

    Parameters
    ----------
    data : Data
        Samples [C, H, H], or vectors of one or three channels of square images.
    quarters : int

    Raises
    ------
    ValueError
        If the samples are no square images.
    """
    square = _square(data.inputs)
    if square is None:
        raise ValueError(
            f"data: samples of shape {data.inputs} are no square images that could be rotated; "
            "pre-train on pretraining='classes', or pass a Data"
        )

    def turned(split: Split) -> Split:
        images = split.x.reshape(-1, *square)
        return Split(torch.rot90(images, quarters, (-2, -1)).reshape(split.x.shape), split.y)

    train, validation, test = (turned(split) for split in data.splits.values())
    name = f"{data.name}, rotated by {90 * (quarters % 4)}°"
    return dataclasses.replace(data, train=train, validation=validation, test=test, name=name)


def part_of_classes(data: Data, count: int) -> Data:
    """Keep the samples of the first classes alone; the number of outputs stays.

    Raises
    ------
    ValueError
        If `count` is not between 1 and the number of classes, or a split then holds no sample.
    """
    if not 1 <= count <= data.classes:
        raise ValueError(f"count={count}: expected 1 to {data.classes}, the number of classes")
    train, validation, test = (
        Split(split.x[split.y < count], split.y[split.y < count]) for split in data.splits.values()
    )
    name = f"{data.name}, {count} classes"
    return dataclasses.replace(data, train=train, validation=validation, test=test, name=name)


def _square(inputs: tuple[int, ...]) -> tuple[int, int, int] | None:
    """Channels, height and width of square images, that may come as vectors."""
    if len(inputs) == 3:
        return (inputs[0], inputs[1], inputs[2]) if inputs[1] == inputs[2] else None
    if len(inputs) == 1:
        for channels in (1, 3):
            side = isqrt(inputs[0] // channels)
            if channels * side * side == inputs[0]:
                return channels, side, side
    return None
