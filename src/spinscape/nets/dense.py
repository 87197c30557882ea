"""Stacks of linear layers and activations, forward and backward in closed form for many points.

A batch of P points is P networks. With inputs shared by all of them the first layer of all
networks is one large matrix product; with inputs of their own it is a batched one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spinscape.nets.activations import Sign, straight_through_sign
from spinscape.nets.chains import PASSIVE, chain_of, places_of
from spinscape.nets.losses import Loss

__all__ = ["ACTIVATIONS", "DenseStack", "Layer", "stack_of"]


@dataclass(frozen=True)
class Activation:
    """An elementwise function and its derivative, given pre-activation and activation."""

    value: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor, Tensor], Tensor]


def _gelu_derivative(z: Tensor, _: Tensor) -> Tensor:
    density = torch.exp(-0.5 * z * z) * 0.3989422804014327
    return 0.5 * (1 + torch.erf(z * 0.7071067811865476)) + z * density


def _leaky_derivative(z: Tensor, _: Tensor) -> Tensor:
    return torch.full_like(z, 0.01).masked_fill_(z > 0, 1.0)


ACTIVATIONS: dict[str, Activation] = {
    "relu": Activation(torch.relu, lambda z, h: (h > 0).to(h.dtype)),
    "leaky_relu": Activation(nn.functional.leaky_relu, _leaky_derivative),
    "tanh": Activation(torch.tanh, lambda z, h: 1 - h * h),
    "sigmoid": Activation(torch.sigmoid, lambda z, h: h * (1 - h)),
    "gelu": Activation(nn.functional.gelu, _gelu_derivative),
    "sign": Activation(straight_through_sign, lambda z, h: (z.abs() < 1).to(z.dtype)),
    "identity": Activation(lambda z: z, lambda z, h: torch.ones_like(z)),
}


@dataclass(frozen=True)
class Layer:
    """The place of one linear layer in a point."""

    weight: slice
    bias: slice | None
    inputs: int
    outputs: int

    def weights(self, points: Tensor) -> Tensor:
        """Views ``[P, outputs, inputs]`` of the weights of points ``[P, n]``."""
        return points[:, self.weight].view(len(points), self.outputs, self.inputs)


@dataclass(frozen=True)
class DenseStack:
    """A feed-forward network of linear layers with an activation after each hidden one."""

    layers: tuple[Layer, ...]
    activations: tuple[str, ...]
    n: int
    flattens: bool = False

    def inputs(self, x: Tensor, own: bool = False) -> Tensor:
        """Inputs as the first layer takes them, ``[B, d]`` or own ``[P, B, d]``.

        Raises
        ------
        ValueError
            If they do not fit the first layer.
        """
        axes = 3 if own else 2
        if self.flattens and x.ndim > axes:
            x = x.flatten(axes - 1)
        if x.ndim != axes or x.shape[-1] != self.layers[0].inputs:
            raise ValueError(
                f"x: the first layer takes {self.layers[0].inputs} inputs a sample, got samples of "
                f"shape {tuple(x.shape[axes - 1 :])}"
            )
        return x

    def first(self, points: Float[Tensor, "P n"], x: Tensor) -> Float[Tensor, "P h B"]:
        """Pre-activations of the first layer; x is shared ``[B, d]`` or own ``[P, B, d]``."""
        layer = self.layers[0]
        weight = layer.weights(points)
        if x.ndim == 2:
            rows = weight.reshape(-1, layer.inputs)
            if layer.bias is None:
                pre = torch.mm(rows, x.t())
            else:
                pre = torch.addmm(points[:, layer.bias].reshape(-1, 1), rows, x.t())
            return pre.view(*weight.shape[:2], -1)
        return _affine(layer, points, x.transpose(1, 2))

    def rest(
        self, points: Float[Tensor, "P n"], pre: Float[Tensor, "P h B"]
    ) -> Float[Tensor, "P C B"]:
        """Outputs, samples last, given the pre-activations of the first layer."""
        for name, layer in zip(self.activations, self.layers[1:], strict=True):
            pre = _affine(layer, points, ACTIVATIONS[name].value(pre))
        return pre

    def outputs(self, points: Float[Tensor, "P n"], x: Tensor) -> Float[Tensor, "P B C"]:
        """Outputs of every point on inputs shared ``[B, d]`` or own ``[P, B, d]``."""
        return self.rest(points, self.first(points, x)).transpose(1, 2)

    def gradient(
        self,
        points: Float[Tensor, "P n"],
        x: Tensor,
        y: Tensor,
        loss: Loss,
        out: Tensor | None = None,
    ) -> tuple[Float[Tensor, "P"], Float[Tensor, "P n"]]:
        """Loss and its gradient at every point, by back-propagation in closed form.

        Parameters
        ----------
        points : [P, n]
        x, y : [B, ...] shared, or [P, B, ...] each point's own
        loss : Loss
        out : [P, n], optional
            Where the gradient is written.
        """
        pres = [self.first(points, x)]
        hidden: list[Tensor] = []
        for name, layer in zip(self.activations, self.layers[1:], strict=True):
            hidden.append(ACTIVATIONS[name].value(pres[-1]))
            pres.append(_affine(layer, points, hidden[-1]))
        value, slope = loss.output_gradient(pres[-1].transpose(1, 2), y)
        delta = slope.transpose(1, 2)
        gradient = torch.empty_like(points) if out is None else out
        for k in range(len(self.layers) - 1, 0, -1):
            layer = self.layers[k]
            _write(gradient, layer, delta, torch.bmm(delta, hidden[k - 1].transpose(1, 2)))
            delta = torch.bmm(layer.weights(points).transpose(1, 2), delta)
            delta = _through(self.activations[k - 1], delta, pres[k - 1], hidden[k - 1])
        shared = x.ndim == 2
        product = torch.mm(delta.reshape(-1, len(x)), x) if shared else torch.bmm(delta, x)
        _write(gradient, self.layers[0], delta, product)
        return value, gradient


def _affine(layer: Layer, points: Tensor, columns: Tensor) -> Tensor:
    """Weights times columns ``[P, inputs, B]`` plus bias; samples stay the last axis.

    Samples last, because a softmax over ten classes is twenty times faster when the samples, not
    the classes, are contiguous.
    """
    weight = layer.weights(points)
    if layer.bias is None:
        return torch.bmm(weight, columns)
    return torch.baddbmm(points[:, layer.bias, None], weight, columns)


def _through(name: str, delta: Tensor, pre: Tensor, hidden: Tensor) -> Tensor:
    """Carry delta back through an activation."""
    if name == "identity":
        return delta
    if name == "relu":
        return torch.ops.aten.threshold_backward(delta, hidden, 0)
    return delta.mul_(ACTIVATIONS[name].derivative(pre, hidden))


def _write(gradient: Tensor, layer: Layer, delta: Tensor, weight: Tensor) -> None:
    """Write a layer's weight gradient, and its bias gradient: delta summed over samples."""
    place = layer.weights(gradient)
    place.copy_(weight.view_as(place))
    if layer.bias is not None:
        torch.sum(delta, 2, out=gradient[:, layer.bias])


_MODULES: dict[type[nn.Module], str] = {
    nn.ReLU: "relu",
    nn.Tanh: "tanh",
    nn.Sigmoid: "sigmoid",
    Sign: "sign",
}


def activation_name(module: nn.Module) -> str | None:
    """Name of an activation module in `ACTIVATIONS`, or None."""
    if type(module) is nn.GELU:
        return "gelu" if module.approximate == "none" else None
    if type(module) is nn.LeakyReLU:
        return "leaky_relu" if module.negative_slope == 0.01 else None
    return _MODULES.get(type(module))


def stack_of(module: nn.Module) -> DenseStack | None:
    """Return the stack that a module is, or None if it is something else.

    Recognised are the chains (`chains.chain_of`) of Flatten, Linear, the activations of
    `ACTIVATIONS` and Identity whose linear layers are declared in the order in which they are
    applied, with at most one activation after each hidden linear layer and none after the last.
    Dropout counts as the identity: a stack is evaluated, not trained, with it.
    """
    chain = chain_of(module)
    if chain is None or not any(isinstance(layer, nn.Linear) for _, layer in chain):
        return None
    places, n = places_of(module)
    layers: list[Layer] = []
    activations: list[str] = []
    for _, part in chain:
        if isinstance(part, nn.Linear):
            if len(activations) < len(layers):
                activations.append("identity")
            layers.append(_layer(part, places))
        elif isinstance(part, nn.Flatten):
            if layers or (part.start_dim, part.end_dim) != (1, -1):
                return None
        elif not isinstance(part, PASSIVE):
            name = activation_name(part)
            if name is None or len(activations) >= len(layers):
                return None
            activations.append(name)
    if len(activations) >= len(layers) or not _follow_each_other(layers):
        return None
    flattens = any(isinstance(part, nn.Flatten) for _, part in chain)
    return DenseStack(tuple(layers), tuple(activations), n, flattens)


def _layer(linear: nn.Linear, places: dict[int, slice]) -> Layer:
    bias = None if linear.bias is None else places[id(linear.bias)]
    return Layer(places[id(linear.weight)], bias, linear.in_features, linear.out_features)


def _follow_each_other(layers: list[Layer]) -> bool:
    """Whether the layers' places in a point are in order: scans cut the first layer's off."""
    places = [place for layer in layers for place in (layer.weight, layer.bias) if place]
    return all(first.stop == second.start for first, second in pairwise(places))
