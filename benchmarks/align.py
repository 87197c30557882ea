"""Distances of all pairs of networks up to symmetry, against rebasin one pair at a time."""

import copy
from collections.abc import Callable
from importlib import import_module

import torch
from torch import Tensor

from benchmarks.harness import Duel, Work
from spinscape.glass.matching.orbits import orbit_distances
from spinscape.nets import models
from spinscape.nets import symmetry as symmetries
from spinscape.nets.initialisation import initial_points
from spinscape.nets.weightspace import WeightSpace

__all__ = ["all_pairs", "duels"]


def duels() -> list[Duel]:
    """List the rows."""
    return [all_pairs()]


def all_pairs(replicas: int = 64, widths: tuple[int, int, int] = (784, 128, 10)) -> Duel:
    """Aligned distances of all pairs of replicas."""
    inputs, hidden, classes = widths
    module = models.mlp(inputs, [hidden], classes)
    symmetry = symmetries.of(module)
    space = WeightSpace(module)
    points = initial_points(module, range(replicas))
    pairs = replicas * (replicas - 1) // 2

    def ours() -> Work:
        return lambda: orbit_distances(symmetry, points)

    def one_pair(near: Tensor, far: Tensor) -> Callable[[], float]:
        descent = import_module("rebasin").PermutationCoordinateDescent
        first, second = copy.deepcopy(module), copy.deepcopy(module)
        space.load(first, near)
        sample = torch.zeros(1, inputs)

        def work() -> float:
            space.load(second, far)
            descent(first, second, sample).rebasin()
            return float((space.point(second) - near).detach().double().norm())

        return work

    def peer() -> Work:
        return one_pair(*symmetry.balance(points[:2]))

    def agree() -> None:
        near, far = symmetry.balance(points[:2])
        order = symmetry.random_permutation(torch.Generator().manual_seed(0))
        copied = symmetry.permute(near, order)
        found = orbit_distances(symmetry, torch.stack([near, copied, far]))[0]
        theirs = one_pair(near, copied)()
        if max(float(found[1]), theirs) > 1e-5:
            raise AssertionError(f"a permuted copy is {found[1]} away, {theirs} by rebasin")
        # rebasin counts the incoming weights twice, so that what it finds is near, not nearest.
        theirs = one_pair(near, far)()
        if found[2] > theirs * (1 + 1e-6):
            raise AssertionError(f"distance {found[2]}, but rebasin finds {theirs}")

    return Duel(
        f"aligned distances of {pairs:,} pairs of {'-'.join(map(str, widths))}",
        "rebasin 0.0.47",
        ours,
        peer,
        agree,
        wanted=15.0,
        package="rebasin",
        peer_scale=pairs,
        note=f"the peer's one pair times {pairs:,}; its copies are not nearer",
    )
