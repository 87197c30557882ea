"""A step of training many replicas, against a loop of PyTorch models and against plain vmap."""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from benchmarks.harness import Duel, Work
from spinscape.nets import models
from spinscape.nets.datasets import Data, Split
from spinscape.nets.initialisation import initial_points
from spinscape.nets.orders import Order, replica_seeds
from spinscape.nets.training import train
from spinscape.nets.weightspace import WeightSpace

__all__ = ["duels"]

BATCH = 64
SAMPLES = 1280
EPOCHS = 10
RATE = 0.01
SHAPES = (  # inputs, hidden, replicas, and the wanted ratio to the loop for own, shared batches
    (64, 16, 256, 10.0, 16.0),
    (64, 8, 512, 16.0, 20.0),
    (784, 32, 64, 1.6, 3.0),
)


class Setting:
    """One population and its data, trained by us or one step at a time by a peer."""

    def __init__(self, inputs: int, hidden: int, replicas: int, batches: str) -> None:
        generator = torch.Generator().manual_seed(0)
        x = torch.rand(SAMPLES, inputs, generator=generator)
        y = torch.randint(0, 10, (SAMPLES,), generator=generator)
        small = Split(x[:64], y[:64])
        self.data = Data(Split(x, y), small, small, name="noise", classes=10, description="")
        self.module = models.mlp(inputs, [hidden], 10)
        self.replicas = replicas
        self.batches = batches
        self.shared = batches == "shared"
        self.name = f"step of {replicas} × {inputs}-{hidden}-10, {batches} batches"

    def train(self, epochs: int) -> Tensor:
        """Train as a user does, and return the points."""
        result = train(
            self.module,
            self.data,
            replicas=self.replicas,
            epochs=epochs,
            batch_size=BATCH,
            learning_rate=RATE,
            batches=self.batches,
            evaluate_every=10**9,
        )
        return torch.from_numpy(result["point"].values)

    def points(self) -> Tensor:
        """Where all start."""
        return initial_points(self.module, replica_seeds(0, range(self.replicas)))

    def picks(self, steps: int) -> Iterator[Tensor]:
        """Yield the samples of every step: ``[B]`` for all, or ``[P, B]``."""
        seeds = [0] if self.shared else replica_seeds(0, range(self.replicas))
        order = Order(seeds, [torch.arange(SAMPLES)] * len(seeds), BATCH)
        for _ in range(steps):
            picked = order.next()
            yield picked[0] if self.shared else picked


class Loop:
    """Ordinary PyTorch models, one after another."""

    def __init__(self, setting: Setting) -> None:
        points = setting.points()
        self.copies = [copy.deepcopy(setting.module) for _ in points]
        for model, point in zip(self.copies, points, strict=True):
            WeightSpace(model).load(model, point)
        self.optimizers = [
            torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9) for model in self.copies
        ]
        self.x, self.y = setting.data.train

    def step(self, picked: Tensor) -> None:
        """Move every model once."""
        shared = picked.ndim == 1
        batches = [(self.x[rows], self.y[rows]) for rows in (picked[None] if shared else picked)]
        for k, (model, optimizer) in enumerate(zip(self.copies, self.optimizers, strict=True)):
            x, y = batches[0 if shared else k]
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()

    def points(self) -> Tensor:
        """All weights."""
        return torch.stack([WeightSpace(model).point(model).detach() for model in self.copies])


class Vmap:
    """Stacked parameters under ``vmap(grad)``, moved all at once."""

    def __init__(self, setting: Setting) -> None:
        template = copy.deepcopy(setting.module)
        stacked = WeightSpace(template).unflatten(setting.points())
        self.params = {name: value.clone() for name, value in stacked.items()}
        self.velocity = {name: torch.zeros_like(value) for name, value in self.params.items()}
        self.x, self.y = setting.data.train

        def loss(values: dict[str, Tensor], inputs: Tensor, labels: Tensor) -> Tensor:
            outputs = torch.func.functional_call(template, values, (inputs,))
            return nn.functional.cross_entropy(outputs, labels)

        axis = None if setting.shared else 0
        self.gradient = torch.vmap(torch.func.grad(loss), (0, axis, axis))

    def step(self, picked: Tensor) -> None:
        """Move every model once."""
        for name, value in self.gradient(self.params, self.x[picked], self.y[picked]).items():
            self.velocity[name].mul_(0.9).add_(value)
            self.params[name].sub_(self.velocity[name], alpha=RATE)

    def points(self) -> Tensor:
        """All weights."""
        return torch.cat([value.flatten(1) for value in self.params.values()], 1)


PEERS: dict[str, type[Loop] | type[Vmap]] = {"loop of models": Loop, "vmap(grad)": Vmap}


def duels(shapes: tuple[tuple[int, int, int, float, float], ...] = SHAPES) -> list[Duel]:
    """List one row a shape, kind of batches and peer."""
    return [
        _duel(Setting(inputs, hidden, replicas, batches), peer_name, wanted)
        for inputs, hidden, replicas, own, shared in shapes
        for batches, wanted in (("own", own), ("shared", shared))
        for peer_name in PEERS
    ]


def _duel(setting: Setting, peer_name: str, wanted: float) -> Duel:
    def agree() -> None:
        peer = PEERS[peer_name](setting)
        for picked in setting.picks(SAMPLES // BATCH):
            peer.step(picked)
        torch.testing.assert_close(setting.train(1), peer.points(), rtol=1e-4, atol=1e-5)

    def ours() -> Work:
        return lambda: setting.train(EPOCHS)

    def peer() -> Work:
        runner = PEERS[peer_name](setting)
        picked = next(setting.picks(1))
        return lambda: runner.step(picked)

    return Duel(
        setting.name,
        peer_name,
        ours,
        peer,
        agree,
        wanted=wanted if peer_name == "loop of models" else None,
        repeats=5,
        ours_scale=BATCH / (SAMPLES * EPOCHS),
        note="ours with seeds, data order, first and last evaluation; the peer's step alone",
    )
