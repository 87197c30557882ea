"""Moves of a walk: how one step is proposed, for many walkers at once.

A move is a frozen settings object with two methods. ``init(points)`` looks at the starting points
once and returns what stays fixed during the walk; ``propose(points, fixed, generators)`` proposes
the next points, each walker with its own generator. Nothing but the walker's own point, what was
fixed at its start and its own generator enters a proposal, so a walk does not depend on who walks
beside it.

A Metropolis walk needs a *symmetric* move: the probability of proposing b from a equals that of
proposing a from b. Both moves here are Gaussian steps whose size does not depend on where the
walker is, which is symmetric. A move that is not, or whose walker keeps more than a point, brings
its own walker instead of these two methods (`walks.OwnWalker`; `langevin.Langevin` does).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import ClassVar, Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["FilterGaussian", "Gaussian", "Move", "check_step", "generators", "noise"]

TARGET = 0.234
"""Acceptance to tune Gaussian steps to: the best in many dimensions (Roberts, Gelman & Gilks 1997)
"""


class Move(Protocol):
    """A symmetric move: ``init`` once, ``propose`` at every step."""

    @property
    def step(self) -> float:
        """Size of one step, in the move's own unit."""

    def init(self, points: Float[Tensor, "walker n"]) -> Float[Tensor, "walker n"]:
        """Standard deviation of each coordinate's change, or a shape that broadcasts to it."""

    def propose(
        self,
        points: Float[Tensor, "walker n"],
        fixed: Float[Tensor, "walker n"],
        generators: Sequence[torch.Generator],
    ) -> Float[Tensor, "walker n"]:
        """The points that the walkers try next; `fixed` comes times the walker's tuned scale."""


@dataclass(frozen=True)
class Gaussian:
    """Isotropic steps: every coordinate changes by `step` times a standard normal number.

    Parameters
    ----------
    step : float
        Standard deviation of one coordinate's change, in units of the weights.

    Raises
    ------
    ValueError
        If `step` is not positive and finite.

    Examples
    --------
    >>> Gaussian(0.1).init(torch.zeros(2, 3))
    tensor([[0.1000]])
    """

    step: float
    target: ClassVar[float] = TARGET

    def __post_init__(self) -> None:
        check_step(self.step)

    def init(self, points: Float[Tensor, "walker n"]) -> Float[Tensor, "1 1"]:
        """One standard deviation for all."""
        return points.new_full((1, 1), self.step)

    def propose(
        self,
        points: Float[Tensor, "walker n"],
        fixed: Float[Tensor, "1 1"],
        generators: Sequence[torch.Generator],
    ) -> Float[Tensor, "walker n"]:
        """Points plus independent Gaussian noise."""
        return points + fixed * noise(points, generators)


@dataclass(frozen=True, eq=False)
class FilterGaussian:
    """Steps in proportion to the norm of each filter (the incoming weights of one unit).

    The change of filter f is Gaussian with root mean square length ``step · ‖θ_f‖``, where θ_f is
    the filter *at the start of the walk*. Filter normalisation (Li et al., arXiv 1712.09913,
    section 4) by the current filter would make large filters take large steps back and small ones
    small steps forth: no longer symmetric, and a thermal walk would not keep the Boltzmann weight.
    Coordinates in no filter (biases, scales of normalisation layers) do not move, as in that paper.

    Parameters
    ----------
    step : float
        Root mean square change of a filter, in units of its norm at the start.
    filters : sequence of LongTensor, or WeightSpace
        Coordinates of each filter, as in ``WeightSpace(module).filters``.

    Raises
    ------
    ValueError
        If `step` is not positive and finite, or there is no filter.
    """

    step: float
    filters: Sequence[Tensor]
    target: ClassVar[float] = TARGET

    def __post_init__(self) -> None:
        check_step(self.step)
        object.__setattr__(self, "filters", tuple(getattr(self.filters, "filters", self.filters)))
        if not self.filters:
            raise ValueError("filters: none given; Gaussian(step) moves points without filters")

    def init(self, points: Float[Tensor, "walker n"]) -> Float[Tensor, "walker n"]:
        """Standard deviations ``step · ‖θ_f‖ / √|f|`` from the starting points."""
        return self.step * filter_scale(points, self.filters)

    def propose(
        self,
        points: Float[Tensor, "walker n"],
        fixed: Float[Tensor, "walker n"],
        generators: Sequence[torch.Generator],
    ) -> Float[Tensor, "walker n"]:
        """Points plus Gaussian noise, scaled filter by filter."""
        return points + fixed * noise(points, generators)


def filter_scale(
    points: Float[Tensor, "*batch n"], filters: Sequence[Tensor]
) -> Float[Tensor, "*batch n"]:
    """Root mean square weight of the filter that each coordinate belongs to; 0 outside filters."""
    owner, sizes = _owners(filters, points)
    squares = points.new_zeros(*points.shape[:-1], len(filters) + 1)
    squares.index_add_(-1, owner, points.square())
    scale = (squares / sizes).sqrt()
    scale[..., -1] = 0.0
    return scale[..., owner]


def noise(
    like: Float[Tensor, "walker n"], generators: Sequence[torch.Generator]
) -> Float[Tensor, "walker n"]:
    """Standard normal numbers, each walker's from its own generator.

    They are drawn on the CPU, so that the same seed gives the same walk on every device.
    """
    drawn = torch.empty(like.shape, dtype=like.dtype)
    for row, generator in zip(drawn.unbind(), generators, strict=True):
        row.normal_(generator=generator)
    return drawn.to(like.device)


def generators(seed: int | Sequence[int], count: int) -> list[torch.Generator]:
    """One generator a walker; that of walker k is the same, however many there are."""
    return [
        torch.Generator().manual_seed(int(child.generate_state(1, np.uint64)[0]))
        for child in np.random.SeedSequence(seed).spawn(count)
    ]


def _owners(filters: Sequence[Tensor], like: Tensor) -> tuple[Tensor, Tensor]:
    """The filter of each coordinate (the last number: none), and the filters' sizes."""
    n = like.shape[-1]
    owner = torch.full((n,), len(filters), dtype=torch.long)
    for number, indices in enumerate(filters):
        if int(indices.max()) >= n:
            raise ValueError(
                f"filters: coordinate {int(indices.max())} of filter {number} is beyond points of "
                f"length {n}; are the filters another module's?"
            )
        owner[indices] = number
    sizes = torch.bincount(owner, minlength=len(filters) + 1).clamp(min=1)
    return owner.to(like.device), sizes.to(like.device, like.dtype)


def check_step(step: float) -> None:
    """Refuse a size of steps that is not positive and finite."""
    if not (isfinite(step) and step > 0):
        raise ValueError(f"step={step}: expected a positive number, the size of one step")
