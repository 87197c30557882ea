"""What curvature is measured with: operators of a batch of points, and random vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from spinscape.landscape.checks import check_finite
from spinscape.landscape.energy import Landscape
from spinscape.nets.orders import generator
from spinscape.nets.weightspace import points as points_of

__all__ = ["Group", "gaussian", "operator", "prepared", "rademacher"]

_STREAM = 83

Group = str | Tensor | None
Project = Callable[[Tensor], Tensor]


def prepared(
    landscape: Landscape, points: Any, group: Group
) -> tuple[Float[Tensor, "P n"], Tensor | None, Project]:
    """Points as rows, the indices that count, and how vectors get their other entries back."""
    points = points_of(points).detach()
    landscape.space.check(points, "points")
    check_finite(points, "points")
    rows = points.reshape(-1, landscape.n)
    if group is None:
        return rows, None, lambda vectors: vectors
    index = _indices(landscape, group).to(rows.device)

    def whole(vectors: Tensor) -> Tensor:
        full = vectors.new_zeros(*vectors.shape[:-1], landscape.n)
        full[..., index] = vectors
        return full

    return rows, index, whole


def _indices(landscape: Landscape, group: str | Tensor) -> Tensor:
    if isinstance(group, Tensor):
        index = group.nonzero().flatten() if group.dtype == torch.bool else group
        if index.ndim != 1 or index.is_floating_point() or len(index.unique()) != len(index):
            raise ValueError("group: expected a list of different integers, or a mask of booleans")
        if not len(index) or int(index.min()) < 0 or int(index.max()) >= landscape.n:
            raise ValueError(f"group: expected indices from 0 to {landscape.n - 1:,}, at least one")
        return index.long()
    known = landscape.space.groups
    if not isinstance(group, str) or group not in known:
        raise ValueError(
            f"group={group!r}: module {landscape.space.kind!r} has none of that name; it has "
            f"{', '.join(list(known)[:12])}"
        )
    return known[group]


def operator(
    landscape: Landscape, rows: Float[Tensor, "P n"], index: Tensor | None, matrix: str
) -> Callable[[Float[Tensor, "P k m"]], Float[Tensor, "P k m"]]:
    """Products of the points' matrices with k vectors each, restricted to the indices."""
    kept = landscape.hessians(rows) if matrix == "hessian" else None

    def whole(vectors: Tensor) -> Tensor:
        if kept is not None and vectors.shape[1] == 1:
            return kept(vectors[:, 0])[:, None]
        return landscape.hvp(rows[:, None], vectors, matrix)

    def product(vectors: Tensor) -> Tensor:
        if index is None:
            return whole(vectors)
        full = vectors.new_zeros(*vectors.shape[:-1], landscape.n)
        full[..., index] = vectors
        return whole(full)[..., index]

    return product


def gaussian(
    rows: Tensor, size: int, words: tuple[int, int], some: slice
) -> Float[Tensor, "P size"]:
    """Gaussian vectors, one a point; each depends on its place and the words alone."""
    drawn = [
        torch.randn(size, generator=generator(_STREAM, *words, k), dtype=torch.float64)
        for k in range(some.start, some.stop)
    ]
    return torch.stack(drawn).to(rows)


def rademacher(
    rows: Tensor, probes: int, size: int, seed: int, first: int = 0
) -> Float[Tensor, "P probe size"]:
    """Signs of chance; those of a point depend on its place and the probe's alone."""
    drawn = [
        torch.stack(
            [
                torch.randint(0, 2, (size,), generator=generator(_STREAM, seed, 2, k, j))
                for j in range(probes)
            ]
        )
        for k in range(first, first + len(rows))
    ]
    return (2 * torch.stack(drawn) - 1).to(rows)
