"""Losses over lines, planes and any affine subspace, with the first layer computed once.

On θ₀ + Σ aᵢ dᵢ the pre-activations of the first layer are affine in a: H(a) = H(θ₀) + Σ aᵢ H(dᵢ).
They are computed once for the origin and each direction, and combined at every grid point by a
product with the coefficients, instead of a product with the data. The work goes sample chunk by
sample chunk, so that the pre-activations of the basis and of a few grid points stay in the cache.
"""

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor

from spinscape.nets.chunks import pieces, plan
from spinscape.nets.dense import DenseStack, Layer
from spinscape.nets.engine import PointEvaluator, activate
from spinscape.nets.losses import Loss, are_labels, judge

__all__ = ["scan_lines", "scan_subspace"]

SCAN_CACHE = 32 << 20
"""As `CACHE`: the few rows that a scan combines are read again and again, and pay for more."""

GRID_POINTS = 16
"""Grid points at once: as few as fill the start of an operation, to leave room for samples."""


class _Tail:
    """All layers but the first, at points ``[P, rest]`` that hold their weights alone."""

    def __init__(self, stack: DenseStack, loss: Loss, y: Tensor) -> None:
        self.loss = loss
        self.labelled = are_labels(y, (stack.layers[-1].outputs,))
        self.activation = stack.activations[0] if stack.activations else "identity"
        self.start = stack.layers[1].weight.start if len(stack.layers) > 1 else stack.n
        moved = [_moved(layer, self.start) for layer in stack.layers[1:]]
        self.stack = dataclasses.replace(
            stack,
            layers=(stack.layers[0], *moved),
            activations=("identity", *stack.activations[1:])[: len(moved)],
        )

    def judge(self, rest: Tensor, pre: Float[Tensor, "P h B"], y: Tensor) -> Float[Tensor, "2 P"]:
        """Loss and error given the first pre-activations, which are written over."""
        outputs = self.stack.rest(rest, activate(self.activation, pre)).transpose(1, 2)
        return judge(self.loss, outputs, y, self.labelled)


def scan_subspace(
    evaluator: PointEvaluator,
    stack: DenseStack,
    basis: Float[Tensor, "k n"],
    coefficients: Float[Tensor, "G k"],
    x: Tensor,
    y: Tensor,
) -> tuple[Float[Tensor, "G"], Float[Tensor, "G"]]:
    """Loss and error at the points ``coefficients @ basis`` (the origin is a row of the basis)."""
    tail = _Tail(stack, evaluator.loss, y)
    total = basis.new_zeros(2, len(coefficients))
    size, samples_at_once = _cuts(evaluator, stack, basis, len(coefficients), len(x))
    rows_at_once = max(
        size, evaluator.memory // (4 * basis.itemsize * max(1, stack.n - tail.start))
    )
    for block in pieces(len(coefficients), rows_at_once):
        rest = coefficients[block] @ basis[:, tail.start :]
        for samples in pieces(len(x), samples_at_once):
            inputs = stack.inputs(x[samples].to(basis.dtype))
            first = stack.first(basis, inputs)
            sums = _combine(tail, first, coefficients[block], rest, y[samples], size)
            total[:, block] += sums * (len(inputs) / len(x))
    return total[0], total[1]


def _combine(
    tail: _Tail,
    first: Float[Tensor, "k h B"],
    coefficients: Float[Tensor, "G k"],
    rest: Tensor,
    y: Tensor,
    size: int,
) -> Float[Tensor, "2 G"]:
    """Loss and error of all grid points on one chunk of samples."""
    found = []
    room = first.new_empty(size, *first.shape[1:])
    for rows in pieces(len(coefficients), size):
        pre = room[: rows.stop - rows.start]
        torch.mm(coefficients[rows], first.flatten(1), out=pre.flatten(1))
        found.append(tail.judge(rest[rows], pre, y))
    return torch.cat(found, 1)


def scan_lines(
    evaluator: PointEvaluator,
    stack: DenseStack,
    origins: Float[Tensor, "L n"],
    directions: Float[Tensor, "L n"],
    lam: Float[Tensor, "k"],
    x: Tensor,
    y: Tensor,
) -> tuple[Float[Tensor, "L k"], Float[Tensor, "L k"]]:
    """Loss and error at ``origins + lam · directions``."""
    tail = _Tail(stack, evaluator.loss, y)
    total = origins.new_zeros(2, len(origins), len(lam))
    size, samples_at_once = _cuts(evaluator, stack, origins, len(origins) * len(lam), len(x))
    for lines in pieces(len(origins), max(1, size // len(lam))):
        ends = origins[lines], directions[lines]
        rest = tuple(end[:, None, tail.start :] for end in ends)
        for samples in pieces(len(x), samples_at_once):
            inputs = stack.inputs(x[samples].to(origins.dtype))
            first = tuple(stack.first(end, inputs)[:, None] for end in ends)
            share = len(inputs) / len(x)
            for steps in pieces(len(lam), max(1, size)):
                at = lam[steps].view(1, -1, 1, 1)
                pre = torch.addcmul(first[0], at, first[1])
                weights = torch.addcmul(rest[0], at[..., 0], rest[1])
                sums = tail.judge(weights.flatten(0, 1), pre.flatten(0, 1), y[samples])
                total[:, lines, steps] += share * sums.view(2, *pre.shape[:2])
    return total[0], total[1]


def _cuts(
    evaluator: PointEvaluator, stack: DenseStack, points: Tensor, count: int, samples: int
) -> tuple[int, int]:
    """Grid points and samples to work on at once."""
    pair = points.itemsize * sum(layer.outputs for layer in stack.layers)
    cpu = points.device.type == "cpu"
    pairs = max(1, int(min(evaluator.memory, SCAN_CACHE if cpu else evaluator.memory) // pair))
    at_once = plan(1, samples, 1, points.device, max(100, pairs // GRID_POINTS)).samples
    return max(1, min(count, pairs // at_once)), at_once


def _moved(layer: Layer, start: int) -> Layer:
    """Return the layer of points whose first `start` entries were cut off."""
    bias = layer.bias and slice(layer.bias.start - start, layer.bias.stop - start)
    weight = slice(layer.weight.start - start, layer.weight.stop - start)
    return dataclasses.replace(layer, weight=weight, bias=bias)
