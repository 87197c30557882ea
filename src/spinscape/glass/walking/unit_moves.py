"""Moves of one hidden unit at a time: the single-spin flips of a network with one hidden layer.

A proposal changes the incoming weights, the bias and the outgoing weights of one hidden unit, drawn
at random for each walker, by Gaussian noise; the output bias is one more unit, so that every weight
is reached. The change of energy comes from the unit's local field (`local_fields`) at a cost that
does not depend on the number of units, where a whole evaluation costs that many times more. The
steps' sizes are fixed at the start of the walk, so the move is symmetric, and a thermal walk keeps
exp(−E/T) invariant, a threshold walk the uniform measure of its sublevel set.

One *sweep* is as many moves as there are units (the output bias included), after which each weight
was moved once on average: compare sweeps with steps of moves that change all weights at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from spinscape.glass.walking.local_fields import LocalFields, Units, units_of
from spinscape.glass.walking.moves import TARGET
from spinscape.glass.walking.rules import Info, Rule, finite_start
from spinscape.landscape.checks import check_device
from spinscape.landscape.energy import Landscape
from spinscape.nets.dense import stack_of

__all__ = ["SingleUnit", "UnitState", "UnitWalker"]

BLOCK = 32
"""Steps whose random numbers are drawn at once, to spare a call for each walker and step."""

SCALES = ("isotropic", "filter")


@dataclass(frozen=True)
class SingleUnit:
    """Gaussian steps of one hidden unit a walker, for landscapes of one hidden layer.

    A walk keeps walkers × samples × (units + 2·classes) numbers in memory; send many walkers in
    several walks where that is too much.

    Parameters
    ----------
    step : float
        Standard deviation of one coordinate's change, in units of the weights or of `scale`.
    scale : {"isotropic", "filter"}
        "isotropic": all coordinates alike. "filter": in units of the root mean square of the unit's
        incoming weights (bias included) and of its outgoing weights, each at the start of the walk,
        so that a network and its copy with rescaled ReLU units take the same walk; the output bias
        in units of its own root mean square.
    ridge : float
        κ of a term κ‖w‖²/2 that is added to the loss, in nats per squared weight. The loss alone
        confines no weights: at a temperature, walkers on it drift away for ever.
    refresh : int
        Accepted moves of a walker after which its outputs are summed anew, at the cost of one or
        two moves. Between refreshes, energies differ from those of a whole evaluation by rounding
        errors that add up like a random walk: at most ε·√refresh times the largest output (or the
        largest share of one unit in it), ε = 1.2·10⁻⁷ in float32 or 2.2·10⁻¹⁶ in float64.

    Raises
    ------
    ValueError
        If a number is out of range or the scale unknown.

    Examples
    --------
    >>> from spinscape.nets import models
    >>> x, y = torch.randn(5, 3), torch.tensor([0, 1, 0, 1, 1])
    >>> SingleUnit(0.1).sweep(Landscape(models.mlp(3, [4], 2), x, y))
    5
    """

    step: float
    scale: str = "isotropic"
    ridge: float = 0.0
    refresh: int = 1000
    target: ClassVar[float] = TARGET

    def __post_init__(self) -> None:
        if not (isfinite(self.step) and self.step > 0):
            raise ValueError(f"step={self.step}: expected a positive number, the size of one step")
        if self.scale not in SCALES:
            raise ValueError(f"scale={self.scale!r}: expected one of {', '.join(SCALES)}")
        if not (isfinite(self.ridge) and self.ridge >= 0):
            raise ValueError(f"ridge={self.ridge}: expected 0 or a positive number")
        if self.refresh < 1:
            raise ValueError(f"refresh={self.refresh}: expected 1 or more accepted moves")

    def sweep(self, energy: object) -> int:
        """Moves after which each weight was moved once on average."""
        return len(_units(energy)[1])

    def walker(
        self,
        energy: object,
        rule: Rule,
        temperature: Float[Tensor, "walker"] | None = None,
        threshold: Float[Tensor, "walker"] | None = None,
    ) -> "UnitWalker":
        """Return what makes the steps of a walk.

        Raises
        ------
        TypeError
            If the energy is not the landscape of a network with one hidden layer.
        """
        landscape, units = _units(energy)
        return UnitWalker(landscape, units, self, rule, temperature, threshold)


class UnitState(NamedTuple):
    """Where the walkers are, and what is kept for the next step.

    A step writes into `point`, `fields` and `draws`; copy what should stay.
    """

    point: Float[Tensor, "walker n"]
    energy: Float[Tensor, "walker"]
    scale: Float[Tensor, "walker"]  # by which a walker's steps are multiplied
    sizes: Float[Tensor, "walker unit 2"]  # standard deviations of what comes in and goes out
    penalty: Float[Tensor, "walker"]  # the ridge
    stale: Int[Tensor, "walker"]  # accepted moves since the outputs were last summed
    fields: LocalFields
    draws: "Draws"


@dataclass(frozen=True)
class UnitWalker:
    """A walk's settings: its landscape, how it moves and what it accepts."""

    landscape: Landscape
    units: Units
    move: SingleUnit
    rule: Rule
    temperature: Float[Tensor, "walker"] | None = None
    threshold: Float[Tensor, "walker"] | None = None

    def init(self, points: Float[Tensor, "walker n"]) -> UnitState:
        """Put every walker at its start; ValueError where the energy is not finite there."""
        landscape = self.landscape
        landscape.space.check(points, "points", ndim=2)
        check_device(points, landscape.x)
        point = points.detach().clone(memory_format=torch.contiguous_format)
        fields = LocalFields(self.units, landscape.criterion, landscape.x, landscape.y, point)
        penalty = self._ridge(point)
        energy = finite_start(_sum(fields.refresh(point, fields.order), penalty))
        scale = torch.ones(len(point), dtype=torch.float64, device=point.device)
        stale = torch.zeros_like(fields.order)
        draws = Draws(*self.units.places.shape)
        return UnitState(point, energy, scale, self._sizes(point), penalty, stale, fields, draws)

    def step(
        self, state: UnitState, generators: Sequence[torch.Generator]
    ) -> tuple[UnitState, Info]:
        """Move one unit of every walker, each with its own generator; writes into the state."""
        point, fields = state.point, state.fields
        unit, noise, log_u = state.draws.next(point, generators)
        places = fields.places[unit]
        before = point.gather(1, places)
        after = before + noise * self._deviation(state, unit)
        penalty = state.penalty + self._ridge(after) - self._ridge(before)
        proposed = _sum(fields.propose(unit, before, after), penalty)
        accepted = self.rule.accept(
            state.energy,
            proposed,
            log_u,
            temperature=self.temperature,
            threshold=self.threshold,
        )
        fields.accept(unit, accepted)
        point.scatter_(1, places, torch.where(accepted[:, None], after, before))
        moved = state._replace(
            energy=torch.where(accepted, proposed, state.energy),
            penalty=torch.where(accepted, penalty, state.penalty),
            stale=state.stale + accepted,
        )
        return self._refreshed(moved), Info(accepted, proposed.isfinite())

    def energies(self, state: UnitState) -> Float[Tensor, "walker"]:
        """Energies of the walkers, the ridge included."""
        return state.energy

    def _refreshed(self, state: UnitState) -> UnitState:
        rows = (state.stale >= self.move.refresh).nonzero().flatten()
        if len(rows):
            state.penalty[rows] = self._ridge(state.point[rows])
            losses = state.fields.refresh(state.point, rows)
            state.energy[rows] = _sum(losses, state.penalty[rows])
            state.stale[rows] = 0
        return state

    def _ridge(self, weights: Float[Tensor, "walker k"]) -> Float[Tensor, "walker"]:
        if not self.move.ridge:
            return torch.zeros_like(weights[:, 0], dtype=torch.float64)
        return self.move.ridge / 2 * weights.double().square().sum(1)

    def _sizes(self, point: Float[Tensor, "walker n"]) -> Float[Tensor, "walker unit 2"]:
        """Standard deviations of the changes of what comes into each unit and what goes out."""
        units = self.units
        sizes = point.new_ones(len(point), len(units), 2)
        if self.move.scale == "filter":
            weights = point[:, units.places.to(point.device)]
            for k, part in enumerate((slice(units.incoming), slice(units.incoming, None))):
                sizes[..., k] = weights[..., part].square().mean(-1).sqrt()
        sizes[:, units.hidden :, 0] = 1.0
        bad = (sizes == 0).any(2).nonzero().tolist()
        if bad:
            raise ValueError(
                f"scale='filter': unit {bad[0][1]} of walker {bad[0][0]} has only zeros coming in "
                "or going out (a last unit is the output bias), which sets no size of a step; "
                "use scale='isotropic'"
            )
        # The row of the output bias points at coordinate 0 where others have incoming weights.
        sizes[:, units.hidden :, 0] = 0.0
        return self.move.step * sizes

    def _deviation(
        self, state: UnitState, unit: Int[Tensor, "walker"]
    ) -> Float[Tensor, "walker k"]:
        sizes = state.sizes[state.fields.order, unit]
        sizes = sizes * state.scale[:, None].to(sizes.dtype)
        return sizes.index_select(1, state.fields.outgoes)


class Draws:
    """Random numbers of the next steps, drawn on the CPU, each walker's from its own generator."""

    def __init__(self, units: int, width: int) -> None:
        self.units, self.width, self.used = units, width, BLOCK

    def next(
        self, like: Float[Tensor, "walker n"], generators: Sequence[torch.Generator]
    ) -> tuple[Int[Tensor, "walker"], Float[Tensor, "walker k"], Float[Tensor, "walker"]]:
        """A unit, standard normal numbers and log u for each walker."""
        if self.used == BLOCK:
            self._draw(like, generators)
        now = self.used
        self.used += 1
        return self.unit[:, now], self.noise[:, now], self.log_u[:, now]

    def _draw(self, like: Tensor, generators: Sequence[torch.Generator]) -> None:
        walkers = len(generators)
        unit = torch.empty(walkers, BLOCK, dtype=torch.long)
        noise = torch.empty(walkers, BLOCK, self.width, dtype=like.dtype)
        uniform = torch.empty(walkers, BLOCK, dtype=torch.float64)
        for k, generator in enumerate(generators):
            unit[k].random_(self.units, generator=generator)
            noise[k].normal_(generator=generator)
            uniform[k].uniform_(generator=generator)
        self.unit, self.noise = unit.to(like.device), noise.to(like.device)
        self.log_u, self.used = uniform.log().to(like.device), 0


def _sum(loss: Float[Tensor, "walker"], penalty: Float[Tensor, "walker"]) -> Tensor:
    return (loss + penalty).to(loss.dtype)


def _units(energy: object) -> tuple[Landscape, Units]:
    """Return the landscape and the units of its network."""
    stack = None
    if isinstance(energy, Landscape) and energy.engine == "dense":
        stack = stack_of(energy.module)
    if not isinstance(energy, Landscape) or stack is None or len(stack.layers) != 2:
        raise TypeError(
            f"energy: SingleUnit moves need the Landscape of a network with one hidden layer "
            f"(Linear, activation, Linear), got {energy!r:.80}; use Gaussian(step)"
        )
    return energy, units_of(stack)
