"""Local fields of a network with one hidden layer: what each hidden unit adds to the outputs.

The outputs are Σ_u a_u h_u + b, with h_u = φ(w_u·x + c_u) the output of hidden unit u. As a spin's
flip changes the energy of a spin glass through its local field alone, so a change of unit u changes
the outputs by a'_u h'_u − a_u h_u, which costs O(samples × (inputs + classes)), however many units
there are. For that, the outputs of all hidden units and of the network are kept, on all samples.
The output bias is one more unit, whose output is one.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from spinscape.nets.chunks import MEMORY, pieces, plan
from spinscape.nets.dense import DenseStack
from spinscape.nets.engine import activate
from spinscape.nets.losses import Loss

__all__ = ["LocalFields", "Units", "units_of"]


@dataclass(frozen=True, eq=False)
class Units:
    """The units of a network with one hidden layer, and where their weights stand in a point.

    Parameters
    ----------
    places : LongTensor [unit, k]
        Coordinates of each unit: `inputs` incoming weights, its bias where units have one, and the
        outgoing weights. An output bias is the last unit; where others have incoming weights its
        row points at coordinate 0, which must not be changed.
    hidden, inputs, incoming : int
        Number of hidden units, of incoming weights, and of these with the bias.
    stack : DenseStack
        The network.
    """

    places: Int[Tensor, "unit k"]
    hidden: int
    inputs: int
    incoming: int
    stack: DenseStack

    def __len__(self) -> int:
        return len(self.places)


def units_of(stack: DenseStack) -> Units:
    """Find the units of a stack of two linear layers."""
    first, last = stack.layers

    def places(part: slice, *shape: int) -> Tensor:
        return torch.arange(part.start, part.stop).view(shape)

    rows = [places(first.weight, first.outputs, first.inputs)]
    if first.bias is not None:
        rows.append(places(first.bias, first.outputs, 1))
    incoming = sum(part.shape[1] for part in rows)
    rows.append(places(last.weight, last.outputs, last.inputs).t())
    found = torch.cat(rows, 1)
    if last.bias is not None:
        none = torch.zeros(1, incoming, dtype=torch.long)
        bias = torch.cat([none, places(last.bias, 1, last.outputs)], 1)
        found = torch.cat([found, bias])
    return Units(found, first.outputs, first.inputs, incoming, stack)


class LocalFields:
    """Outputs of all units and of the network, for every walker and sample.

    They take walkers × samples × (units + 2·classes) numbers. Samples are the last axis (see
    `dense`). A unit's output is computed anew from its weights at every proposal, so only the
    network's outputs, to which each accepted proposal adds a difference, gather rounding errors:
    after t of them less than ε·√t times the largest output, or the largest share of one unit in it
    (a third of that was measured after 10,000), until `refresh` sums them again. It must be called
    for all walkers before the first proposal.
    """

    def __init__(
        self, units: Units, loss: Loss, x: Tensor, y: Tensor, points: Float[Tensor, "walker n"]
    ) -> None:
        self.units, self.loss, self.y = units, loss, y
        self.x = units.stack.inputs(x.to(points.dtype))
        self.places = units.places.to(points.device)
        walkers, samples = len(points), len(self.x)
        classes = units.stack.layers[-1].outputs
        self.order = torch.arange(walkers, device=points.device)
        columns = torch.arange(units.places.shape[1], device=points.device)
        self.outgoes = (columns >= units.incoming).long()
        self.hidden = points.new_ones(walkers, len(units), samples)
        self.outputs = points.new_empty(walkers, classes, samples)
        self.proposed = torch.empty_like(self.outputs)
        self.pair = points.new_empty(walkers, 2, samples)
        bytes_each = classes * samples * points.dtype.itemsize
        self.at_once = plan(walkers, 1, bytes_each, points.device, MEMORY).points
        name = units.stack.activations[0]
        for rows in pieces(walkers, self.at_once):
            pre = units.stack.first(points[rows], self.x)
            self.hidden[rows, : units.hidden] = activate(name, pre)

    def refresh(self, points: Float[Tensor, "walker n"], rows: Int[Tensor, "row"]) -> Tensor:
        """Sum the outputs of some walkers anew from all units; return their losses."""
        outgoing = self.places[:, self.units.incoming :]
        for k in rows.tolist():
            torch.mm(points[k][outgoing].t(), self.hidden[k], out=self.outputs[k])
        return self._losses(self.outputs[rows])

    def propose(
        self,
        unit: Int[Tensor, "walker"],
        before: Float[Tensor, "walker k"],
        after: Float[Tensor, "walker k"],
    ) -> Float[Tensor, "walker"]:
        """Losses, were the weights of one unit of each walker changed.

        Parameters
        ----------
        unit : [walker]
        before, after : [walker, k]
            The unit's weights, in the order of `Units.places`.
        """
        inputs, incoming = self.units.inputs, self.units.incoming
        pre = torch.mm(after[:, :inputs], self.x.t())
        if incoming > inputs:
            pre += after[:, inputs:incoming]
        new = activate(self.units.stack.activations[0], pre)
        new[(unit == self.units.hidden).nonzero().flatten()] = 1.0
        self.pair[:, 0] = new
        self.pair[:, 1] = self.hidden[self.order, unit]
        factors = torch.stack([after[:, incoming:], -before[:, incoming:]], 2)
        losses = []
        for rows in pieces(len(unit), self.at_once):
            out = self.proposed[rows]
            torch.baddbmm(self.outputs[rows], factors[rows], self.pair[rows], out=out)
            losses.append(self._losses(out))
        return torch.cat(losses)

    def accept(self, unit: Int[Tensor, "walker"], accepted: Bool[Tensor, "walker"]) -> None:
        """Make the proposals of some walkers true; nothing is copied for the others."""
        rows = accepted.nonzero().flatten()
        self.hidden[rows, unit[rows]] = self.pair[rows, 0]
        # One by one is four times as fast as by an index on CPUs: whole blocks are copied.
        for k in rows.tolist():
            self.outputs[k].copy_(self.proposed[k])

    def _losses(self, outputs: Float[Tensor, "row C S"]) -> Float[Tensor, "row"]:
        return self.loss.value(outputs.transpose(1, 2), self.y, own=False)
