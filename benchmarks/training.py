"""A step of training many replicas, against a loop of PyTorch models and against plain vmap."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.harness import Case, compare
from spinscape.nets import models
from spinscape.nets.datasets import Data, Split
from spinscape.nets.initialisation import initial_points
from spinscape.nets.orders import replica_seeds
from spinscape.nets.training import train
from spinscape.nets.weightspace import WeightSpace

__all__ = ["cases"]

BATCH = 64
SHAPES = (  # inputs, hidden, replicas, and the wanted ratio to the loop for own, shared batches
    (64, 16, 256, 10.0, 16.0),
    (64, 8, 512, 16.0, 20.0),
    (784, 32, 64, 1.6, 3.0),
)


def _data(inputs: int, samples: int) -> Data:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(samples, inputs, generator=generator)
    y = torch.randint(0, 10, (samples,), generator=generator)
    small = Split(x[:64], y[:64])
    return Data(Split(x, y), small, small, name="noise", classes=10, description="")


def loop_step(module: nn.Module, points: Tensor, data: Data) -> Callable[[], None]:
    """One step of every replica with ordinary PyTorch models, each with its own batch."""
    copies = [copy.deepcopy(module) for _ in points]
    for model, point in zip(copies, points, strict=True):
        WeightSpace(model).load(model, point)
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9) for model in copies]
    x, y = data.train

    def step() -> None:
        for k, (model, optimizer) in enumerate(zip(copies, optimizers, strict=True)):
            picked = torch.arange(k, k + BATCH)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[picked]), y[picked]).backward()
            optimizer.step()

    return step


def vmap_step(module: nn.Module, points: Tensor, data: Data) -> Callable[[], None]:
    """One step of every replica with ``vmap(grad)`` and stacked parameters."""
    template = copy.deepcopy(module)
    params = {k: v.clone() for k, v in WeightSpace(module).unflatten(points).items()}
    velocity = {name: torch.zeros_like(value) for name, value in params.items()}
    x, y = data.train
    picked = torch.stack([torch.arange(k, k + BATCH) for k in range(len(points))])

    def loss(values: dict[str, Tensor], inputs: Tensor, labels: Tensor) -> Tensor:
        outputs = torch.func.functional_call(template, values, (inputs,))
        return nn.functional.cross_entropy(outputs, labels)

    gradient = torch.vmap(torch.func.grad(loss))

    def step() -> None:
        found = gradient(params, x[picked], y[picked])
        for name, value in found.items():
            velocity[name].mul_(0.9).add_(value)
            params[name].sub_(velocity[name], alpha=0.1)

    return step


def _ours(module: nn.Module, data: Data, replicas: int, batches: str) -> Callable[[int], Any]:
    def run(epochs: int) -> Any:
        return train(
            module,
            data,
            replicas=replicas,
            epochs=epochs,
            batch_size=BATCH,
            learning_rate=0.01,
            batches=batches,
            evaluate_every=10**9,
        )

    return run


def cases() -> Iterator[Case]:
    """Yield one row a shape, kind of batches and peer."""
    for inputs, hidden, replicas, own, shared in SHAPES:
        data = _data(inputs, 1280)
        module = models.mlp(inputs, [hidden], 10)
        points = initial_points(module, replica_seeds(0, range(replicas)))
        peers = {"loop of models": loop_step, "vmap(grad)": vmap_step}
        for batches, wanted in (("own", own), ("shared", shared)):
            run = _ours(module, data, replicas, batches)
            for peer_name, peer in peers.items():
                yield compare(
                    f"step of {replicas} × {inputs}-{hidden}-10, {batches} batches",
                    lambda run=run: run(10),
                    peer(module, points, data),
                    peer_name,
                    wanted=wanted if peer_name.startswith("loop") else None,
                    ours_scale=1 / 200,
                    repeats=5,
                    note="ours with seeds, permutations and first and last evaluation",
                )
