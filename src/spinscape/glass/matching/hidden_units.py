"""What the hidden units of a chain do on data: activations of a batch of points, layer by layer."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from spinscape.nets import symmetry as symmetries
from spinscape.nets.chains import NotAChain, read_chain
from spinscape.nets.chunks import pieces
from spinscape.nets.symmetry import HiddenLayer

__all__ = ["HiddenUnits", "hidden_units_of"]

SAMPLES = 512
"""Samples at once: the same whatever the batch and the memory, so that sums do not depend on it."""


@dataclass(frozen=True)
class HiddenUnits:
    """The hidden layers of a chain, each with what is applied to its pre-activations."""

    layers: tuple[HiddenLayer, ...]
    activations: tuple[nn.Module, ...]

    def run(
        self, points: Float[Tensor, "P n"], x: Tensor
    ) -> Iterator[tuple[Float[Tensor, "P width S"], Float[Tensor, "P width S"]]]:
        """Yield pre-activations and activations of one hidden layer after the other."""
        columns = x
        for k, (layer, activation) in enumerate(zip(self.layers, self.activations, strict=True)):
            if k == 0:
                rows = layer.weights_in(points).reshape(-1, layer.inputs)
                columns = self._inputs(x).to(points.dtype)
                pre = (rows @ columns.T).view(len(points), layer.width, -1)
            else:
                pre = layer.weights_in(points) @ columns
            if layer.bias is not None:
                pre = pre + points[:, layer.bias, None]
            columns = activation(pre)
            yield pre, columns

    def blocks(self, x: Tensor) -> Iterator[Tensor]:
        """Yield the samples some at a time."""
        rows = self._inputs(x) if self.layers else x[:0]
        for some in pieces(len(rows), SAMPLES):
            yield rows[some]

    def points_at_once(self, numbers: int) -> int:
        """How many points to run at once, if activations are to take so many numbers."""
        units = sum(layer.width for layer in self.layers)
        return max(1, numbers // max(1, SAMPLES * units))

    def _inputs(self, x: Tensor) -> Float[Tensor, "S inputs"]:
        """Samples as the first layer takes them, whatever their shape before a Flatten."""
        inputs = self.layers[0].inputs
        if x.ndim < 2 or not len(x) or x[0].numel() % inputs:
            raise ValueError(f"x: expected samples of {inputs} inputs, got shape {tuple(x.shape)}")
        return x.reshape(-1, inputs)


def hidden_units_of(module: nn.Module) -> HiddenUnits:
    """Return the hidden units of a chain of linear layers and activations (`chains.read_chain`).

    Raises
    ------
    TypeError
        If the module is something else: where its units' activations stand is not known.
    """
    try:
        chain = read_chain(module)
    except NotAChain as reason:
        raise TypeError(
            f"{reason}: the activations of its hidden units are not known here; write it as a "
            "chain of Linear layers and activations, or use what needs weights alone"
        ) from reason
    between: list[list[nn.Module]] = []
    for _, part in chain:
        if isinstance(part, nn.Linear):
            between.append([])
        elif between and not isinstance(part, (nn.Flatten, nn.Dropout)):
            between[-1].append(_out_of_place(part))
    return HiddenUnits(
        symmetries.of(module).layers,
        tuple(nn.Sequential(*parts) for parts in between[:-1]),
    )


def _out_of_place(part: nn.Module) -> nn.Module:
    fresh = copy.copy(part)
    if "inplace" in vars(fresh):
        vars(fresh)["inplace"] = False
    return fresh
