"""Curves and surfaces that can be built by hand, for comparison with mined ones.

Those of curves need solutions and their initialisations alone. The bottom of a wine bottle needs a
symmetry: a network of one hidden ReLU layer that carries a linear classifier twice has logits
proportional to a² + b², whatever the data, on the plane of both copies' sizes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from scipy.optimize import minimize_scalar
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from spinscape.landscape.energy import Landscape
from spinscape.nets.dense import DenseStack, stack_of
from spinscape.nets.losses import CrossEntropy
from spinscape.valleys.directions import between, gaussian, orthogonal, scaled

__all__ = [
    "Construction",
    "bowl",
    "saddle",
    "v_basin",
    "v_side",
    "w_basin",
    "w_peak",
    "wine_bottle",
]


class Construction(NamedTuple):
    """A centre and one or two directions there, with the label that they should give."""

    label: str
    point: Float[Tensor, "n"]
    directions: Float[Tensor, "axis n"]


def v_basin(landscape: Landscape, solution: Float[Tensor, "n"], seed: int = 0) -> Construction:
    """From a solution along Gaussian noise of its own norm."""
    noise = scaled(gaussian(solution, [seed]), solution, landscape.space)
    return Construction("v-basin", solution, noise)


def v_side(
    initial: Float[Tensor, "n"], solution: Float[Tensor, "n"], share: float = 0.3
) -> Construction:
    """From part of the way between initialisation and solution, on towards the solution."""
    start = initial + share * between(initial, solution)
    return Construction("v-side", start, between(start, solution)[None])


def w_basin(a: Float[Tensor, "n"], b: Float[Tensor, "n"]) -> Construction:
    """From one solution towards an independent one."""
    return Construction("w-basin", a, between(a, b)[None])


def w_peak(a: Float[Tensor, "n"], b: Float[Tensor, "n"]) -> Construction:
    """From the midpoint of two solutions along half their difference."""
    return Construction("w-peak", 0.5 * (a + b), 0.5 * between(a, b)[None])


def bowl(landscape: Landscape, solution: Float[Tensor, "n"], seed: int = 0) -> Construction:
    """From a solution along two Gaussian directions: v-basin × v-basin."""
    noise = scaled(gaussian(solution, [2 * seed, 2 * seed + 1]), solution, landscape.space)
    second = orthogonal(noise[1], noise[:1])
    return Construction("bowl", solution, torch.stack([noise[0], second]))


def saddle(
    landscape: Landscape, a: Float[Tensor, "n"], b: Float[Tensor, "n"], seed: int = 0
) -> Construction:
    """From the midpoint of two solutions, half their difference and Gaussian noise as long.

    w-peak × v-basin: the loss falls towards both solutions and rises across. The noise is made
    orthogonal to the gradient at the midpoint as well, where the loss is not at its lowest.
    """
    middle, along = 0.5 * (a + b), 0.5 * between(a, b)
    level = torch.stack([along, landscape.gradient(middle)])
    across = orthogonal(gaussian(a, [seed])[0], level)
    length = torch.linalg.vector_norm(along)
    across = across * (length / torch.linalg.vector_norm(across))
    return Construction("saddle", middle, torch.stack([along, across]))


def wine_bottle(landscape: Landscape) -> Construction:
    """From zero, the sizes of two copies of a linear classifier in one network.

    A pair of hidden units ±(w x + b) with output weights ±v adds v (w x + b), of whatever sign, so
    that 2C units carry a linear classifier f of C classes. With first layer and output weights of
    one copy multiplied by a, and of another copy by b, the logits are (a² + b²) f(x): a hump of
    loss ln C at zero, and a trough all round at a² + b² = 1, where f has the best scale.

    Parameters
    ----------
    landscape : Landscape
        Of a network with one hidden ReLU layer of at least 4C units, and cross-entropy. The
        classifier (scikit-learn's logistic regression) is fitted to its data.

    Raises
    ------
    ValueError
        If the network or the loss is another one.
    """
    stack = _one_hidden(landscape)
    x, y = landscape.x, landscape.y
    inputs = x.flatten(1).double().cpu().numpy()
    fitted = LogisticRegression(max_iter=200, C=0.1).fit(inputs, y.cpu().numpy())
    weight = torch.as_tensor(fitted.coef_).double()
    bias = torch.as_tensor(fitted.intercept_).double()
    logits = torch.as_tensor(inputs) @ weight.mT + bias

    def loss(scale: float) -> float:
        return float(nn.functional.cross_entropy(scale * logits, y.cpu().long()))

    scale = float(minimize_scalar(loss, bounds=(1e-3, 1e3), method="bounded").x)
    classes = len(weight)
    first, last = stack.layers
    directions = torch.zeros(2, stack.n, dtype=torch.float64)
    for copy, row in enumerate(directions):
        units = slice(2 * classes * copy, 2 * classes * (copy + 1))
        inner = row[first.weight].view(first.outputs, first.inputs)
        inner[units] = torch.cat([weight, -weight]) * scale**0.5
        if first.bias is not None:
            row[first.bias][units] = torch.cat([bias, -bias]) * scale**0.5
        outer = row[last.weight].view(last.outputs, last.inputs)
        eye = torch.eye(classes, dtype=torch.float64) * scale**0.5
        outer[:, units] = torch.cat([eye, -eye], 1)
    directions = directions.to(landscape.space.dtype).to(x.device)
    return Construction("wine-bottle", torch.zeros_like(directions[0]), directions)


def _one_hidden(landscape: Landscape) -> DenseStack:
    stack = stack_of(landscape.module)
    fits = (
        stack is not None
        and len(stack.layers) == 2
        and stack.activations == ("relu",)
        and isinstance(landscape.criterion, CrossEntropy)
        and stack.layers[0].outputs >= 4 * stack.layers[1].outputs
        and (stack.layers[0].bias is not None)
    )
    if stack is None or not fits:
        raise ValueError(
            f"landscape: the wine bottle is built for one hidden layer of ReLU units with biases, "
            f"at least four a class, and cross-entropy; got {landscape!r}. Mine one instead: "
            "mine(landscape, point, 'wine-bottle')"
        )
    return stack
