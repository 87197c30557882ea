"""Energies of a batch of points and a plane of losses, against loops and against bare products."""

import copy
import time
from collections.abc import Sequence
from functools import partial
from importlib import import_module

import torch
from torch import Tensor, nn

from benchmarks.harness import Duel, Work, missing, peak_megabytes
from spinscape.landscape.energy import Landscape
from spinscape.nets import models
from spinscape.nets.chunks import pieces
from spinscape.nets.engine import PointEvaluator
from spinscape.nets.initialisation import initial_points
from spinscape.nets.losses import loss_of
from spinscape.nets.weightspace import WeightSpace

__all__ = ["duels", "energies", "fine_line", "plane"]


def duels() -> list[Duel]:
    """List the rows."""
    planes = [plane(), *(plane(widths=(784, hidden, 10), wanted=None) for hidden in (32, 512))]
    return [*energies(), *planes, fine_line(), fine_line(widths=(784, 512, 10))]


def energies(
    points: int = 256, widths: tuple[int, int, int] = (64, 16, 10), samples: int = 1168
) -> list[Duel]:
    """Energies of many points, against a loop of models and against their products alone."""
    setting = _Setting(widths, samples, points)
    shape = "-".join(map(str, widths))
    name = f"energies of {points} × {shape}, {samples:,} samples"

    def ours() -> Work:
        return lambda: setting.landscape.loss(setting.points)

    def loop() -> Work:
        copies = setting.copies()
        x, y = setting.landscape.x, setting.landscape.y

        def work() -> Tensor:
            with torch.no_grad():
                return torch.stack([nn.functional.cross_entropy(net(x), y) for net in copies])

        return work

    def agree_with_loop() -> None:
        torch.testing.assert_close(ours()(), loop()(), rtol=1e-4, atol=1e-5)

    chunks = (setting.chunk(), (points, 128), (points, samples))
    products = [
        Duel(
            name,
            f"its two products alone, {some} × {many:,} at once",
            ours,
            partial(setting.products, some, many),
            setting.check_products,
            wanted=0.6,
            repeats=31,
            note="the roofline: no bias, no ReLU, no loss",
        )
        for some, many in chunks
    ]
    return [Duel(name, "loop of models", ours, loop, agree_with_loop, 2.2, repeats=15), *products]


def plane(
    side: int = 51,
    widths: tuple[int, int, int] = (784, 128, 10),
    samples: int = 2000,
    steps: int = 10,
    wanted: float | None = 14.0,
) -> Duel:
    """Losses on a plane through three points, against the package loss-landscapes.

    Parameters
    ----------
    steps : int
        Side of the peer's grid, of which every point costs the same.
    """
    setting = _Setting(widths, samples, 3)
    origin, directions = setting.points[0], setting.points[1:] - setting.points[0]
    along = torch.linspace(0, 1, side)

    def ours() -> Work:
        return lambda: setting.landscape.plane(origin, directions[0], directions[1], along, along)

    def peer(steps: int = steps) -> Work:
        package = import_module("loss_landscapes")
        x, y = setting.landscape.x, setting.landscape.y
        metric = package.metrics.Loss(nn.functional.cross_entropy, x, y)
        walk = partial(package.planar_interpolation, *setting.copies(), metric)
        return lambda: walk(steps=steps, deepcopy_model=True)

    def agree() -> None:
        theirs = torch.as_tensor(peer(4)())
        first, second = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
        # The peer walks to and fro: it measures after a step on its way out, and on its way back.
        second = second + (first + 1) % 2
        grid = torch.stack([first, second], -1) / 4
        found, _ = setting.landscape.subspace(origin, directions, grid)
        torch.testing.assert_close(found.double(), theirs, rtol=0, atol=1e-4)

    return Duel(
        f"plane of {side} × {side}, {'-'.join(map(str, widths))}, {samples:,} samples",
        "loss-landscapes 3.0.6",
        ours,
        peer,
        agree,
        wanted=wanted,
        package="loss_landscapes",
        repeats=5,
        peer_scale=side**2 / steps**2,
        note=lambda: (
            f"ours with error; the peer's {steps} × {steps} points scaled to {side} × {side}; peak "
            f"memory {_peak(_OURS, widths, samples, side):.0f} MB, the peer's "
            f"{_peak(_THEIRS, widths, samples, 3):.0f} MB"
        ),
    )


def fine_line(
    points: int = 2001, widths: tuple[int, int, int] = (784, 128, 10), samples: int = 2000
) -> Duel:
    """Losses on a very fine line, where logits are piecewise quadratic, against each point."""
    setting = _Setting(widths, samples, 2)
    origin, direction = setting.points[0], setting.points[1] - setting.points[0]
    lam = torch.linspace(-1, 1, points)

    def ours() -> Work:
        return lambda: setting.landscape.line(origin, direction, lam)

    def direct() -> Work:
        return lambda: setting.landscape.subspace(origin, direction[None], lam[:, None])

    def agree() -> None:
        found = torch.as_tensor(ours()()["loss"].values)
        torch.testing.assert_close(found, direct()()[0], rtol=1e-5, atol=1e-5)

    def told() -> str:
        some = lam[:: points // 50]
        coarse = _fastest(lambda: setting.landscape.line(origin, direction, some))
        return f"a line of {len(some)} points takes {1e3 * coarse:.1f} ms"

    return Duel(
        f"line of {points:,} points, {'-'.join(map(str, widths))}, {samples:,} samples",
        "every point by itself",
        ours,
        direct,
        agree,
        repeats=7,
        note=told,
    )


def _fastest(work: Work) -> float:
    work()
    times = []
    for _ in range(5):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


_OURS = "import benchmarks.landscape as b; b.plane_once({widths}, {samples}, {side})"
_THEIRS = "import benchmarks.landscape as b; b.peer_once({widths}, {samples}, {side})"


def _peak(code: str, widths: Sequence[int], samples: int, side: int) -> float:
    if missing("loss_landscapes"):
        return float("nan")
    return peak_megabytes(code.format(widths=tuple(widths), samples=samples, side=side))


def plane_once(widths: Sequence[int], samples: int, side: int) -> None:
    """Our plane, for its peak memory."""
    setting = _Setting(widths, samples, 3)
    along = torch.linspace(0, 1, side)
    setting.landscape.plane(*setting.points, along, along)


def peer_once(widths: Sequence[int], samples: int, side: int) -> None:
    """The peer's plane, for its peak memory; that does not grow with the grid."""
    setting = _Setting(widths, samples, 3)
    package = import_module("loss_landscapes")
    metric = package.metrics.Loss(
        nn.functional.cross_entropy, setting.landscape.x, setting.landscape.y
    )
    package.planar_interpolation(*setting.copies(), metric, steps=side, deepcopy_model=True)


class _Setting:
    """A network of one hidden layer, data, and points."""

    def __init__(self, widths: Sequence[int], samples: int, points: int) -> None:
        inputs, hidden, classes = widths
        generator = torch.Generator().manual_seed(0)
        x = torch.rand(samples, inputs, generator=generator)
        y = torch.randint(0, classes, (samples,), generator=generator)
        self.module = models.mlp(inputs, [hidden], classes)
        self.points = initial_points(self.module, range(points))
        self.landscape = Landscape(self.module, x, y)

    def copies(self) -> list[nn.Sequential]:
        """One ordinary model a point."""
        copies = [copy.deepcopy(self.module) for _ in self.points]
        for model, point in zip(copies, self.points, strict=True):
            WeightSpace(model).load(model, point)
        return copies

    def products(self, points: int, samples: int) -> Work:
        """Both matrix products for so many points and samples at once, and nothing else."""
        x = self.landscape.x
        stacked = self.landscape.space.unflatten(self.points)
        first, second = (value for value in stacked.values() if value.ndim == 3)

        def work() -> Tensor:
            for rows in pieces(len(self.points), points):
                weight = first[rows].reshape(-1, x.shape[1])
                for some in pieces(len(x), samples):
                    hidden = torch.mm(weight, x[some].t()).unflatten(0, first[rows].shape[:2])
                    outputs = torch.bmm(second[rows], hidden)
            return outputs

        return work

    def chunk(self) -> tuple[int, int]:
        """How many points and samples our energies take at once."""
        evaluator = PointEvaluator(self.module, loss_of("cross_entropy"))
        cuts = evaluator.cuts(self.points, self.landscape.x)
        return cuts.points, cuts.samples

    def check_products(self) -> None:
        """Products with bias, ReLU and loss are the energies."""
        x, y = self.landscape.x, self.landscape.y
        weight, bias, second, last = self.landscape.space.unflatten(self.points).values()
        hidden = torch.einsum("phd,bd->phb", weight, x).add_(bias[..., None]).relu_()
        outputs = torch.bmm(second, hidden).add_(last[..., None])
        labels = y.expand(len(self.points), -1)
        expected = nn.functional.cross_entropy(outputs, labels, reduction="none").mean(1)
        found = self.landscape.loss(self.points)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
