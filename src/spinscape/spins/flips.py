"""Spin flips as a move of `glass.walk`, and configurations without their global flip.

With these, walks, overlaps, trees and ruggedness of `glass` take spin configurations as points,
and are tried where the answer is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["SpinFlip", "without_flip"]


@dataclass(frozen=True)
class SpinFlip:
    """Flip some spins, drawn at random: a symmetric move.

    Parameters
    ----------
    flips : int
        Different spins that one step flips.

    Raises
    ------
    ValueError
        If `flips` is no whole number ≥ 1.
    """

    flips: int = 1
    target: ClassVar[float] = 0.234

    def __post_init__(self) -> None:
        if isinstance(self.flips, bool) or not isinstance(self.flips, int) or self.flips < 1:
            raise ValueError(f"flips={self.flips!r}: expected a whole number, 1 or more")

    @property
    def step(self) -> float:
        """Spins that one step flips."""
        return float(self.flips)

    def init(self, points: Float[Tensor, "walker n"]) -> Float[Tensor, "walker 1"]:
        """Check that the points are configurations of ±1.

        Raises
        ------
        ValueError
            If an entry is neither 1 nor −1, or there are fewer spins than flips.
        """
        if not bool((points.abs() == 1).all()):
            raise ValueError("points: spin flips move configurations of +1 and −1 only")
        if self.flips > points.shape[-1]:
            raise ValueError(f"flips={self.flips}: of only {points.shape[-1]} spins")
        return torch.ones(len(points), 1, dtype=points.dtype, device=points.device)

    def propose(
        self,
        points: Float[Tensor, "walker n"],
        fixed: Float[Tensor, "walker 1"],
        generators: Sequence[torch.Generator],
    ) -> Float[Tensor, "walker n"]:
        """Points with some spins turned; `fixed` plays no part, as a flip has no size."""
        n = points.shape[-1]
        if self.flips == 1:
            drawn = [torch.randint(n, (1,), generator=generator) for generator in generators]
        else:
            drawn = [
                torch.randperm(n, generator=generator)[: self.flips] for generator in generators
            ]
        chosen = torch.stack(drawn).to(points.device)
        return points.scatter(1, chosen, -points.gather(1, chosen))


def without_flip(points: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
    """Turn configurations over so that all lie on one side of their principal direction.

    H(−σ) = H(σ) without fields, so that every state has a mirror image. The principal direction is
    the eigenvector of Σσσᵀ of the largest eigenvalue, which does not depend on their signs.
    """
    flat = points.reshape(-1, points.shape[-1]).double()
    gram = flat @ flat.mT
    _, vectors = torch.linalg.eigh(gram)
    sides = torch.where(vectors[:, -1] < 0, -1.0, 1.0).to(points.dtype)
    return (points.reshape(len(flat), -1) * sides[:, None]).view(points.shape)
