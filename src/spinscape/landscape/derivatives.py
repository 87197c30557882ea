"""Exact gradients and Hessian-vector products at a batch of points, summed over chunks.

The statistics of normalisation layers count as constants.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from spinscape.nets.chunks import pieces
from spinscape.nets.engine import DenseEngine, PointEvaluator
from spinscape.nets.losses import Loss

__all__ = ["differentiable_losses", "gradients", "hessian_products"]

GRADIENT_FACTOR = 3.0
"""Intermediate results that back-propagation keeps, in those of a forward pass."""

HESSIAN_FACTOR = 8.0
"""The same for the derivative of back-propagation."""


def differentiable_losses(
    evaluator: PointEvaluator, points: Float[Tensor, "P n"], x: Tensor, y: Tensor
) -> Float[Tensor, "P"]:
    """Losses that autograd can follow back to the points; it keeps all intermediate results."""
    cuts = evaluator.cuts(points, x, GRADIENT_FACTOR)
    losses = []
    for rows in pieces(len(points), cuts.points):
        buffers = evaluator.buffers(points[rows])
        parts = []
        for samples in pieces(len(x), cuts.samples):
            outputs = evaluator.engine.outputs(points[rows], x[samples], buffers=buffers)
            share = (samples.stop - samples.start) / len(x)
            parts.append(share * evaluator.loss.value(outputs, y[samples], own=False))
        losses.append(torch.stack(parts).sum(0))
    return torch.cat(losses) if losses else points.sum(-1)


def gradients(
    evaluator: PointEvaluator, points: Float[Tensor, "P n"], x: Tensor, y: Tensor
) -> Float[Tensor, "P n"]:
    """Gradient of the loss at every point."""
    piece = _dense_gradient if isinstance(evaluator.engine, DenseEngine) else _gradient
    cuts = evaluator.cuts(points, x, GRADIENT_FACTOR)
    result = torch.zeros_like(points)
    for rows in pieces(len(points), cuts.points):
        buffers = evaluator.buffers(points[rows])
        for samples in pieces(len(x), cuts.samples):
            share = (samples.stop - samples.start) / len(x)
            part = piece(evaluator, points[rows], x[samples], y[samples], buffers)
            result[rows].add_(part, alpha=share)
    return result


def hessian_products(
    evaluator: PointEvaluator,
    points: Float[Tensor, "P n"],
    vectors: Float[Tensor, "P n"],
    x: Tensor,
    y: Tensor,
) -> Float[Tensor, "P n"]:
    """Hessian of the loss at every point, times that point's vector."""
    cuts = evaluator.cuts(points, x, HESSIAN_FACTOR)
    result = torch.zeros_like(points)
    for rows in pieces(len(points), cuts.points):
        buffers = evaluator.buffers(points[rows])
        for samples in pieces(len(x), cuts.samples):
            share = (samples.stop - samples.start) / len(x)
            part = _product(evaluator, points[rows], vectors[rows], x[samples], y[samples], buffers)
            result[rows].add_(part, alpha=share)
    return result


class _SharedTargets(Loss):
    """A loss whose targets are shared by all points, whatever their shape suggests."""

    def __init__(self, loss: Loss) -> None:
        self.loss = loss

    def output_gradient(
        self, outputs: Tensor, y: Tensor, *, own: bool | None = None
    ) -> tuple[Tensor, Tensor]:
        return self.loss.output_gradient(outputs, y, own=False)


def _dense_gradient(
    evaluator: PointEvaluator, points: Tensor, x: Tensor, y: Tensor, buffers: dict[str, Tensor]
) -> Tensor:
    assert isinstance(evaluator.engine, DenseEngine)
    stack = evaluator.engine.stack
    x = stack.inputs(x.to(points.dtype))
    return stack.gradient(points, x, y, _SharedTargets(evaluator.loss))[1]


def _gradient(
    evaluator: PointEvaluator, points: Tensor, x: Tensor, y: Tensor, buffers: dict[str, Tensor]
) -> Tensor:
    points = points.detach().requires_grad_()
    with torch.enable_grad():
        outputs = evaluator.engine.outputs(points, x, buffers=buffers)
        total = evaluator.loss.value(outputs, y, own=False).sum()
    return torch.autograd.grad(total, points)[0]


def _product(
    evaluator: PointEvaluator,
    points: Tensor,
    vectors: Tensor,
    x: Tensor,
    y: Tensor,
    buffers: dict[str, Tensor],
) -> Tensor:
    points = points.detach().requires_grad_()
    with torch.enable_grad():
        outputs = evaluator.engine.outputs(points, x, buffers=buffers)
        total = evaluator.loss.value(outputs, y, own=False).sum()
        (gradient,) = torch.autograd.grad(total, points, create_graph=True)
        slope = (gradient * vectors).sum()
    if not slope.requires_grad:  # the loss is linear in the point
        return torch.zeros_like(points)
    return torch.autograd.grad(slope, points, materialize_grads=True)[0]
