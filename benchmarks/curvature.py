"""Curvature at many points at once, against one point after another and against a peer."""

from collections.abc import Callable
from importlib import import_module

import torch
from torch import Tensor, nn

from benchmarks.harness import Duel, Work
from spinscape.landscape import curvature
from spinscape.landscape.energy import Landscape
from spinscape.landscape.krylov import Operator, extreme_eigenpairs
from spinscape.landscape.probing import operator
from spinscape.nets import models
from spinscape.nets.initialisation import initial_points

__all__ = ["duels", "many_points", "one_network"]


def duels() -> list[Duel]:
    """List the rows."""
    peers = ("pyhessian", "curvlinops")
    return [
        many_points(),
        many_points(32, (64, 32, 10), 1168, top=3),
        *(one_network(package, kind) for kind in ("cnn", "vgg") for package in peers),
    ]


def many_points(
    points: int = 64, widths: tuple[int, int, int] = (64, 16, 10), samples: int = 200, top: int = 1
) -> Duel:
    """Top eigenvalues at many points, against our own of each (neither makes a Dataset)."""
    inputs, hidden, classes = widths
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(samples, inputs, generator=generator)
    module = models.mlp(inputs, [hidden], classes)
    landscape = Landscape(module, x, torch.randint(0, classes, (samples,), generator=generator))
    rows = initial_points(module, range(points))
    start, fresh = torch.randn(2, points, landscape.n, generator=generator)

    def found(some: Tensor) -> Tensor:
        def at(left: Tensor) -> Operator:
            return operator(landscape, rows[some[left]], None, "hessian")

        pairs = extreme_eigenpairs(
            at(torch.arange(len(some))),
            start[some],
            fresh[some],
            top,
            0,
            tolerance=1e-2,
            steps=200,
            narrowed=at,
        )
        return pairs.values

    def ours() -> Work:
        return lambda: found(torch.arange(points))

    def loop() -> Work:
        return lambda: torch.cat([found(row) for row in torch.arange(points).split(1)])

    def agree() -> None:
        torch.testing.assert_close(ours()(), loop()(), rtol=1e-2, atol=1e-3)

    name = "-".join(map(str, widths))
    return Duel(
        f"top {top} of the Hessian at {points} points, {name}, {samples:,} samples",
        "one point after another",
        ours,
        loop,
        agree,
        wanted=5.0,
        repeats=5,
        note="" if samples < 1000 else "bound by arithmetic: a product alone is hardly dearer",
    )


def one_network(package: str, kind: str = "vgg", samples: int = 256) -> Duel:
    """The top eigenvalue of a convolutional network's Hessian, against a package."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(samples, 1, 28, 28, generator=generator)
    y = torch.randint(0, 10, (samples,), generator=generator)
    module = _MODULES[kind]().eval()
    landscape = Landscape(module, x, y, statistics="frozen")
    point = landscape.space.point(module).detach()

    def ours() -> Work:
        def work() -> float:
            pairs = curvature.eigenpairs(
                landscape, point, top=1, bottom=0, tolerance=0.03, steps=60
            )
            return float(pairs["eigenvalue"].squeeze())

        return work

    def peer() -> Work:
        return {"pyhessian": _by_pyhessian, "curvlinops": _by_curvlinops}[package](module, x, y)

    def agree() -> None:
        one, other = ours()(), peer()()
        if abs(one - other) > 0.01 * abs(other):
            raise AssertionError(f"top eigenvalue {one:.6g} here, {other:.6g} by {package}")

    return Duel(
        f"top eigenvalue of a {kind}, {landscape.n:,} weights, {samples} samples",
        package,
        ours,
        peer,
        agree,
        wanted=1.0,
        package=package,
        repeats=3,
        note="the same to 1 %; a residual of 3 % makes an error of less",
    )


_MODULES: dict[str, Callable[[], nn.Module]] = {
    "cnn": lambda: models.cnn(1, 10),
    "vgg": lambda: models.vgg(1, 10, blocks=(2, 2), width=16, batch_norm=False),
}


def _by_pyhessian(module: nn.Module, x: Tensor, y: Tensor) -> Work:
    hessian = import_module("pyhessian").hessian

    def work() -> float:
        computed = hessian(module, nn.CrossEntropyLoss(), data=(x, y), cuda=False)
        return float(computed.eigenvalues(maxIter=200, tol=1e-3, top_n=1)[0][0])

    return work


def _by_curvlinops(module: nn.Module, x: Tensor, y: Tensor) -> Work:
    package = import_module("curvlinops")
    eigsh = import_module("scipy.sparse.linalg").eigsh

    def work() -> float:
        linear = package.HessianLinearOperator(
            module, nn.CrossEntropyLoss(), list(module.parameters()), [(x, y)], progressbar=False
        )
        return float(eigsh(linear.to_scipy(), k=1, which="LA", tol=0.03)[0][0])

    return work
