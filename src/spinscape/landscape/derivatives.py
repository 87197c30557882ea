"""Exact gradients and Hessian-vector products at a batch of points, summed over chunks.

The statistics of normalisation layers count as constants.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from spinscape.nets.chunks import pieces
from spinscape.nets.engine import DenseEngine, PointEvaluator
from spinscape.nets.losses import Loss

__all__ = [
    "differentiable_losses",
    "gauss_newton_products",
    "hessian_products",
    "linearised_gradients",
    "losses_and_gradients",
]

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


def losses_and_gradients(
    evaluator: PointEvaluator, points: Float[Tensor, "P n"], x: Tensor, y: Tensor
) -> tuple[Float[Tensor, "P"], Float[Tensor, "P n"]]:
    """Loss and its gradient at every point."""
    piece = _dense_gradient if isinstance(evaluator.engine, DenseEngine) else _gradient
    cuts = evaluator.cuts(points, x, GRADIENT_FACTOR)
    losses, result = points.new_zeros(len(points)), torch.zeros_like(points)
    for rows in pieces(len(points), cuts.points):
        buffers = evaluator.buffers(points[rows])
        for samples in pieces(len(x), cuts.samples):
            share = (samples.stop - samples.start) / len(x)
            value, part = piece(evaluator, points[rows], x[samples], y[samples], buffers)
            losses[rows].add_(value, alpha=share)
            result[rows].add_(part, alpha=share)
    return losses, result


def gauss_newton_products(
    evaluator: PointEvaluator,
    points: Float[Tensor, "P n"],
    vectors: Float[Tensor, "P n"],
    x: Tensor,
    y: Tensor,
) -> Float[Tensor, "P n"]:
    """Generalised Gauss-Newton matrix Jᵀ (∂²L/∂z²) J at every point, times that point's vector."""
    return _products(_gauss_newton, evaluator, points, vectors, x, y)


def hessian_products(
    evaluator: PointEvaluator,
    points: Float[Tensor, "P n"],
    vectors: Float[Tensor, "P n"],
    x: Tensor,
    y: Tensor,
) -> Float[Tensor, "P n"]:
    """Hessian of the loss at every point, times that point's vector."""
    return _products(_product, evaluator, points, vectors, x, y)


def _products(
    piece: Callable[..., Tensor],
    evaluator: PointEvaluator,
    points: Tensor,
    vectors: Tensor,
    x: Tensor,
    y: Tensor,
) -> Tensor:
    """Sum products over chunks of samples, for one chunk of points after another."""
    cuts = evaluator.cuts(points, x, HESSIAN_FACTOR)
    result = torch.zeros_like(points)
    for rows in pieces(len(points), cuts.points):
        buffers = evaluator.buffers(points[rows])
        for samples in pieces(len(x), cuts.samples):
            share = (samples.stop - samples.start) / len(x)
            part = piece(evaluator, points[rows], vectors[rows], x[samples], y[samples], buffers)
            result[rows].add_(part, alpha=share)
    return result


def linearised_gradients(
    evaluator: PointEvaluator, points: Float[Tensor, "P n"], x: Tensor, y: Tensor
) -> Callable[[Tensor], Tensor] | None:
    """Return Hessian-vector products at the points that share one forward and backward pass.

    None if what they keep does not fit into the evaluator's memory.
    """
    scale = points.dtype.itemsize / evaluator.engine.space.dtype.itemsize
    kept = HESSIAN_FACTOR * scale * evaluator.engine.footprint(x[:2]) * len(points) * len(x)
    if kept > evaluator.memory:
        return None
    points = points.detach().requires_grad_()
    with torch.enable_grad():
        outputs = evaluator.engine.outputs(points, x, buffers=evaluator.buffers(points))
        total = evaluator.loss.value(outputs, y, own=False).sum()
        (slope,) = torch.autograd.grad(total, points, create_graph=True)
    if not slope.requires_grad:
        return torch.zeros_like

    def product(vectors: Tensor) -> Tensor:
        return torch.autograd.grad(
            slope, points, vectors, retain_graph=True, materialize_grads=True
        )[0]

    return product


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
) -> tuple[Tensor, Tensor]:
    assert isinstance(evaluator.engine, DenseEngine)
    stack = evaluator.engine.stack
    x = stack.inputs(x.to(points.dtype))
    return stack.gradient(points, x, y, _SharedTargets(evaluator.loss))


def _gradient(
    evaluator: PointEvaluator, points: Tensor, x: Tensor, y: Tensor, buffers: dict[str, Tensor]
) -> tuple[Tensor, Tensor]:
    points = points.detach().requires_grad_()
    with torch.enable_grad():
        outputs = evaluator.engine.outputs(points, x, buffers=buffers)
        value = evaluator.loss.value(outputs, y, own=False)
    return value.detach(), torch.autograd.grad(value.sum(), points)[0]


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


def _gauss_newton(
    evaluator: PointEvaluator,
    points: Tensor,
    vectors: Tensor,
    x: Tensor,
    y: Tensor,
    buffers: dict[str, Tensor],
) -> Tensor:
    """Three passes backwards; the Jacobian times a vector is the derivative of its transpose's."""
    points = points.detach().requires_grad_()
    with torch.enable_grad():
        outputs = evaluator.engine.outputs(points, x, buffers=buffers)
        dual = torch.zeros_like(outputs, requires_grad=True)
        (pulled,) = torch.autograd.grad(outputs, points, dual, create_graph=True)
        pushed = torch.autograd.grad(pulled, dual, vectors, retain_graph=True)[0]
        free = outputs.detach().requires_grad_()
        total = evaluator.loss.value(free, y, own=False).sum()
        (slope,) = torch.autograd.grad(total, free, create_graph=True)
        if not slope.requires_grad:  # the loss is linear in the outputs
            return torch.zeros_like(points)
        (bent,) = torch.autograd.grad(slope, free, pushed)
    return torch.autograd.grad(outputs, points, bent)[0]
