"""Distances of all pairs of networks up to symmetry, against rebasin one pair at a time."""

import copy

import torch

from benchmarks.harness import Duel, Work
from spinscape.glass.orbits import orbit_distances
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

    def peer() -> Work:
        from rebasin import PermutationCoordinateDescent

        first, second = copy.deepcopy(module), copy.deepcopy(module)
        near, far = symmetry.balance(points[:2])
        space.load(first, near)
        sample = torch.zeros(1, inputs)

        def work() -> float:
            space.load(second, far)
            PermutationCoordinateDescent(first, second, sample).rebasin()
            return float((space.point(second) - near).detach().double().norm())

        return work

    def agree() -> None:
        # rebasin counts the outgoing weights more than once and stops short of the optimum.
        theirs, nearest = peer()(), float(orbit_distances(symmetry, points[:2])[0, 1])
        plain = float((points[0] - points[1]).double().norm())
        if not nearest <= theirs * (1 + 1e-6) or theirs > nearest + 0.05 * (plain - nearest):
            raise AssertionError(f"distance {nearest} here, {theirs} by rebasin, {plain} unaligned")

    return Duel(
        f"aligned distances of {pairs:,} pairs of {'-'.join(map(str, widths))}",
        "rebasin 0.0.47",
        ours,
        peer,
        agree,
        wanted=15.0,
        package="rebasin",
        peer_scale=pairs,
        note=f"the peer's one pair times {pairs:,}; it finds no nearer copy than we do",
    )
