"""Which hidden units of a network may be exchanged and rescaled without changing its function.

Exchanging two hidden units, weights in and out together, leaves the function as it is; so does,
for ReLU and leaky ReLU, (w, b, a) → (c·w, c·b, a/c) with c > 0, where w and b lead into a unit and
a out of it. `Symmetry` applies both to whole batches of points and picks one representative of
the rescaled ones: |(w, b)| = |a| for every unit, which is the one of smallest norm.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from spinscape.nets.chains import PASSIVE, NotAChain, places_of, read_chain

__all__ = ["HiddenLayer", "Symmetry", "of"]

RESCALABLE = (nn.ReLU, nn.LeakyReLU)
REMEDY = "write it as a chain of Linear layers and activations, or pass symmetry="
BALANCING_SWEEPS = 500


@dataclass(frozen=True)
class HiddenLayer:
    """Places in a point of all that leads into and out of one layer of hidden units."""

    name: str
    incoming: slice
    bias: slice | None
    outgoing: slice
    inputs: int
    width: int
    outputs: int
    rescalable: bool

    def weights_in(self, points: Tensor) -> Float[Tensor, "*batch width inputs"]:
        """View the incoming weights, one row a unit."""
        return points[..., self.incoming].unflatten(-1, (self.width, self.inputs))

    def weights_out(self, points: Tensor) -> Float[Tensor, "*batch outputs width"]:
        """View the outgoing weights, one column a unit."""
        return points[..., self.outgoing].unflatten(-1, (self.outputs, self.width))

    def norms_in(self, points: Tensor) -> Float[Tensor, "*batch width"]:
        """Return |(w, b)| of every unit."""
        norms = torch.linalg.vector_norm(self.weights_in(points), dim=-1)
        return norms if self.bias is None else torch.hypot(norms, points[..., self.bias])

    def norms_out(self, points: Tensor) -> Float[Tensor, "*batch width"]:
        """Return |a| of every unit."""
        return torch.linalg.vector_norm(self.weights_out(points), dim=-2)

    def scale_(self, points: Tensor, factors: Float[Tensor, "*batch width"]) -> None:
        """Multiply (w, b) of every unit by its factor and divide a by it, in place."""
        self.weights_in(points).mul_(factors[..., None])
        if self.bias is not None:
            points[..., self.bias].mul_(factors)
        self.weights_out(points).div_(factors[..., None, :])


@dataclass(frozen=True)
class Symmetry:
    """The permutations and positive rescalings that leave a feed-forward network's function alone.

    Attributes
    ----------
    layers : tuple of HiddenLayer
        From the input to the output.
    n : int
        Length of a point.
    """

    layers: tuple[HiddenLayer, ...]
    n: int

    @property
    def widths(self) -> tuple[int, ...]:
        """Number of units of each hidden layer."""
        return tuple(layer.width for layer in self.layers)

    @property
    def outside(self) -> Int[Tensor, "rest"]:
        """Indices of the coordinates that belong to no hidden unit: the output bias."""
        rest = torch.ones(self.n, dtype=torch.bool)
        for layer in self.layers:
            for place in (layer.incoming, layer.bias, layer.outgoing):
                if place is not None:
                    rest[place] = False
        return rest.nonzero()[:, 0]

    def describe(self) -> str:
        """Say in one line what is removed."""
        scaled = sum(layer.rescalable for layer in self.layers)
        widths = ", ".join(map(str, self.widths))
        return (
            f"permutations of the hidden units (widths {widths}); "
            f"positive rescaling of the units of {scaled} of {len(self.layers)} hidden layers"
        )

    def permute(
        self, points: Float[Tensor, "*batch n"], permutation: Sequence[Int[Tensor, "*batch width"]]
    ) -> Float[Tensor, "*batch n"]:
        """Return points in which unit ``k`` of a layer is what was unit ``permutation[k]``.

        Parameters
        ----------
        points : [..., n]
        permutation : sequence of LongTensor, one a hidden layer
            ``[width]`` for all points alike, or ``[..., width]`` for each point its own.

        Raises
        ------
        ValueError
            If their number or lengths do not fit the hidden layers.
        """
        self._check(points)
        if tuple(p.shape[-1] for p in permutation) != self.widths:
            raise ValueError(
                f"permutation: expected one a hidden layer, of lengths {self.widths}, got lengths "
                f"{tuple(p.shape[-1] for p in permutation)}"
            )
        moved = points.clone(memory_format=torch.contiguous_format)
        for layer, order in zip(self.layers, permutation, strict=True):
            order = order.to(points.device).expand(*points.shape[:-1], layer.width)
            rows, columns = layer.weights_in(moved), layer.weights_out(moved)
            rows.copy_(rows.gather(-2, order[..., None].expand_as(rows)))
            columns.copy_(columns.gather(-1, order[..., None, :].expand_as(columns)))
            if layer.bias is not None:
                moved[..., layer.bias] = moved[..., layer.bias].gather(-1, order)
        return moved

    def rescale(
        self, points: Float[Tensor, "*batch n"], factors: Sequence[Float[Tensor, "*batch width"]]
    ) -> Float[Tensor, "*batch n"]:
        """Return points with the same function, (w, b, a) of every unit taken to (cw, cb, a/c).

        Parameters
        ----------
        points : [..., n]
        factors : sequence of tensors, one a hidden layer that can be rescaled
            Positive, ``[width]`` or ``[..., width]``.

        Raises
        ------
        ValueError
            If their number is wrong or one is not positive.
        """
        self._check(points)
        layers = [layer for layer in self.layers if layer.rescalable]
        if len(factors) != len(layers):
            raise ValueError(
                f"factors: expected {len(layers)}, one a hidden layer that follows ReLU or leaky "
                f"ReLU, got {len(factors)}"
            )
        scaled = points.clone(memory_format=torch.contiguous_format)
        for layer, factor in zip(layers, factors, strict=True):
            if not bool((factor > 0).all()):
                raise ValueError(f"factors: must be positive, got {factor.min().item():g}")
            layer.scale_(scaled, factor.to(points).expand(*points.shape[:-1], layer.width))
        return scaled

    def balance(self, points: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        """Return the rescaled points of smallest norm: |(w, b)| = |a| for every unit.

        One hidden layer is balanced at once. Deeper ones share weights, so the layers are balanced
        in turn, which lowers the norm each time, until nothing moves by more than rounding; a point
        that has got there is not touched again, so the result does not depend on its batch. A unit
        with nothing coming in or going out has no such representative and is left alone.
        """
        self._check(points)
        balanced = points.clone(memory_format=torch.contiguous_format)
        layers = [layer for layer in self.layers if layer.rescalable]
        tolerance = 8 * torch.finfo(points.dtype).eps
        moving = torch.ones(points.shape[:-1], dtype=torch.bool, device=points.device)
        for _ in range(BALANCING_SWEEPS):
            largest = torch.zeros_like(moving, dtype=points.dtype)
            for layer in layers:
                factors = torch.where(moving[..., None], _balancing_factors(layer, balanced), 1.0)
                layer.scale_(balanced, factors)
                largest = torch.maximum(largest, (factors - 1).abs().amax(-1))
            moving = moving & (largest > tolerance)
            if len(layers) < 2 or not bool(moving.any()):
                break
        return balanced

    def random_permutation(self, generator: torch.Generator) -> tuple[Int[Tensor, "width"], ...]:
        """Draw one uniform permutation a hidden layer, on the CPU."""
        return tuple(torch.randperm(width, generator=generator) for width in self.widths)

    def _check(self, points: Tensor) -> None:
        if points.ndim == 0 or points.shape[-1] != self.n:
            raise ValueError(
                f"points: expected last axis {self.n:,}, got shape {tuple(points.shape)}; "
                "does the symmetry belong to another module?"
            )


def _balancing_factors(layer: HiddenLayer, points: Tensor) -> Tensor:
    incoming, outgoing = layer.norms_in(points), layer.norms_out(points)
    alive = (incoming > 0) & (outgoing > 0)
    return torch.where(alive, outgoing / incoming, 1.0).sqrt()


def of(module: nn.Module, symmetry: Symmetry | None = None) -> Symmetry:
    """Return the symmetry of a network of linear layers and elementwise activations.

    Removed are permutations of hidden units and, after ReLU and leaky ReLU, positive rescaling.
    The sign flips of odd activations (tanh) and the larger group of purely linear layers stay in.

    Parameters
    ----------
    module : nn.Module
        A chain of Flatten, Linear and activations (`chains.chain_of`), as Sequentials or as any
        module whose forward is one; its layers may be declared in another order.
    symmetry : Symmetry, optional
        The symmetry of a module that is something else; returned when it fits the module.

    Raises
    ------
    TypeError
        If the module holds anything else and no `symmetry` is given; the layer is named.
    ValueError
        If `symmetry` is of points of another length.
    """
    if symmetry is not None:
        n = sum(parameter.numel() for parameter in module.parameters())
        if symmetry.n != n:
            raise ValueError(f"symmetry: of points of length {symmetry.n:,}, module has {n:,}")
        return symmetry
    try:
        chain = read_chain(module)
    except NotAChain as reason:
        raise TypeError(f"{reason}: its symmetry is not known here; {REMEDY}") from reason
    places, n = places_of(module)
    layers: list[HiddenLayer] = []
    last: tuple[str, nn.Linear] | None = None
    activations: list[nn.Module] = []
    for name, part in chain:
        if isinstance(part, nn.Linear):
            if last is not None:
                layers.append(_hidden_layer(*last, activations, part, places))
            last, activations = (name, part), []
        elif not isinstance(part, nn.Flatten):
            activations.append(part)
    if last is None:
        raise TypeError(f"module {type(module).__name__!r} has no linear layer; {REMEDY}")
    return Symmetry(tuple(layers), n)


def _hidden_layer(
    name: str,
    incoming: nn.Linear,
    activations: list[nn.Module],
    outgoing: nn.Linear,
    places: dict[int, slice],
) -> HiddenLayer:
    active = [kind for kind in activations if not isinstance(kind, PASSIVE)]
    return HiddenLayer(
        name=name,
        incoming=places[id(incoming.weight)],
        bias=None if incoming.bias is None else places[id(incoming.bias)],
        outgoing=places[id(outgoing.weight)],
        inputs=incoming.in_features,
        width=incoming.out_features,
        outputs=outgoing.out_features,
        rescalable=bool(active) and all(isinstance(kind, RESCALABLE) for kind in active),
    )
