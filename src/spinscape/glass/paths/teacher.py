"""A landscape known exactly: ReLU students of a ReLU teacher, over all Gaussian inputs.

For x ~ N(0, 1) the expectation E relu(u·x) relu(v·x) = |u||v| (sin φ + (π − φ) cos φ) / 2π, φ being
the angle between u and v (the arc-cosine kernel of degree one: Cho & Saul, NIPS 2009), gives the
population loss ½E(f − f*)² of two-layer networks without samples. Along the straight line to a copy
with two units of an orthonormal teacher exchanged, output weights 1, it is .0412869 a quarter of
the way and .0908451 half-way.
"""

from math import pi
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from spinscape.nets.models import mlp

__all__ = ["ReluTeacher", "relu_kernel"]


class ReluTeacher:
    """The loss ½E(f − f*)² of students f(x) = Σ aᵢ relu(wᵢ·x) of a teacher f* of the same form.

    A point is that of ``mlp(inputs, [units], 1, bias=False)``: the incoming weights, one unit after
    the other, then the output weights. Energies are computed in double precision, because the
    terms of the square cancel near the teacher, and returned in the points' own.

    Parameters
    ----------
    weights : [unit, input]
        Incoming weights of the teacher.
    outputs : [unit], optional
        Its output weights; 1 if not given.
    units : int, optional
        Hidden units of the students; as many as the teacher's if not given.

    Raises
    ------
    ValueError
        If a shape does not fit, a value is not finite, or `units` is below 1.

    Examples
    --------
    >>> teacher = ReluTeacher(torch.eye(4))
    >>> teacher.energy(teacher.point)
    tensor(0.)
    """

    def __init__(
        self,
        weights: Float[Tensor, "unit input"],
        outputs: Float[Tensor, "unit"] | None = None,
        *,
        units: int | None = None,
    ) -> None:
        outputs = weights.new_ones(weights.shape[:1]) if outputs is None else outputs
        if weights.ndim != 2 or not weights.numel() or outputs.shape != weights.shape[:1]:
            raise ValueError(
                f"weights {tuple(weights.shape)} and outputs {tuple(outputs.shape)}: expected "
                "[unit, input] and [unit]"
            )
        if not bool(weights.isfinite().all() and outputs.isfinite().all()):
            raise ValueError("weights, outputs: hold values that are not finite")
        self.units = len(weights) if units is None else units
        if self.units < 1:
            raise ValueError(f"units={units}: expected 1 or more hidden units of a student")
        self.weights, self.outputs = weights.detach(), outputs.detach()
        self.module: nn.Module = mlp(weights.shape[1], [self.units], 1, bias=False)

    @property
    def n(self) -> int:
        """Length of a point."""
        return self.units * (self.weights.shape[1] + 1)

    @property
    def point(self) -> Float[Tensor, "n"]:
        """The teacher as a student; units that the teacher lacks are zero."""
        units = min(self.units, len(self.weights))
        if units < len(self.weights):
            raise ValueError(
                f"a student of {units} units cannot be the teacher, who has {len(self.weights)}"
            )
        point = self.weights.new_zeros(self.n)
        incoming, outgoing = self._split(point)
        incoming[:units], outgoing[:units] = self.weights, self.outputs
        return point

    def energy(self, points: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
        """Population loss of every point; autograd follows it back, once.

        Raises
        ------
        ValueError
            If the points are of another length.
        """
        if points.ndim == 0 or points.shape[-1] != self.n:
            raise ValueError(
                f"points: expected last axis {self.n}, got shape {tuple(points.shape)}: "
                f"{self.units} units of {self.weights.shape[1]} inputs and one output each"
            )
        w, a = self._split(points.double())
        v, b = self.weights.to(w), self.outputs.to(a)
        own = torch.einsum("...i,...ij,...j->...", a, relu_kernel(w, w), a)
        cross = torch.einsum("...i,...ij,j->...", a, relu_kernel(w, v), b)
        return ((own - 2 * cross + b @ relu_kernel(v, v) @ b) / 2).to(points.dtype)

    def gradient(self, points: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        """Gradient of the population loss at every point."""
        points = points.detach().requires_grad_()
        with torch.enable_grad():
            total = self.energy(points).sum()
        return torch.autograd.grad(total, points)[0]

    def _split(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Views of incoming ``[..., unit, input]`` and output weights ``[..., unit]``."""
        incoming, outgoing = points.split([self.n - self.units, self.units], dim=-1)
        return incoming.unflatten(-1, (self.units, -1)), outgoing


def relu_kernel(
    u: Float[Tensor, "*batch i input"], v: Float[Tensor, "*batch j input"]
) -> Float[Tensor, "*batch i j"]:
    """E relu(u·x) relu(v·x) over standard normal x, for all pairs of rows.

    The value is exact to rounding at any angle; its gradient is off by the square root of rounding
    where two rows are parallel to within rounding.
    """
    lengths = (torch.linalg.vector_norm(rows, dim=-1) for rows in (u, v))
    first, second = next(lengths), next(lengths)
    product = first[..., :, None] * second[..., None, :]
    cosine = (u @ v.mT) / torch.where(product > 0, product, 1.0)
    return product * _ArcCosine.apply(cosine.clamp(-1, 1)) / (2 * pi)


class _ArcCosine(torch.autograd.Function):
    """sin φ + (π − φ) cos φ of cos φ, whose derivative π − φ autograd loses at φ = 0 and π.

    There it would multiply the infinite slopes of the angle and of its sine by zero.
    """

    @staticmethod
    def forward(ctx: Any, cosine: Tensor) -> Tensor:
        ctx.save_for_backward(cosine)
        sine = ((1 - cosine) * (1 + cosine)).sqrt()
        return sine + (pi - torch.atan2(sine, cosine)) * cosine

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        (cosine,) = ctx.saved_tensors
        return slope * (pi - cosine.acos())
