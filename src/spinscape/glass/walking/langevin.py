"""Langevin moves: steps that drift down the gradient, corrected to keep the Boltzmann weight.

The proposal w' = w − (h²/2T) ∇E(w) + h ξ is one step of overdamped Langevin dynamics, and is
accepted with Metropolis' and Hastings' probability min(1, exp(−(E(w') − E(w))/T) q(w|w')/q(w'|w)),
so that exp(−E/T) is invariant at any step size h (Roberts & Tweedie 1996, "MALA").
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from spinscape.glass.energies import EnergyLike, energy_function
from spinscape.glass.walking.moves import check_step, noise
from spinscape.glass.walking.rules import Info, Rule, finite_start, log_uniform

__all__ = ["Langevin", "LangevinWalker"]


@dataclass(frozen=True)
class Langevin:
    """Gaussian steps with a drift down the gradient, at a temperature.

    Without the correction the walk would keep another weight than exp(−E/T), so a *free* Langevin
    walk is refused, and so is one below a threshold, where there is no temperature to set the
    drift. One step costs one energy and one gradient.

    Parameters
    ----------
    step : float
        Standard deviation h of one coordinate's noise, in units of the weights.

    Raises
    ------
    ValueError
        If `step` is not positive and finite; in a walk, if its rule is not "thermal".
    TypeError
        In a walk, if the energy has no ``gradient(points)``, or that is the gradient of another
        function, as where normalisation layers are re-estimated.
    """

    step: float
    target: ClassVar[float] = 0.574  # acceptance to tune to (Roberts & Rosenthal 1998)

    def __post_init__(self) -> None:
        check_step(self.step)

    def walker(
        self,
        energy: EnergyLike,
        rule: Rule,
        temperature: Float[Tensor, "walker"] | None,
        threshold: Float[Tensor, "walker"] | None,
    ) -> "LangevinWalker":
        """Make the walker that keeps its gradient; see `Langevin` for what is refused."""
        if rule.name != "thermal" or temperature is None:
            raise ValueError(
                f"rule={rule.name!r}: a Langevin move drifts at a temperature; use rule='thermal', "
                "or Gaussian(step)"
            )
        gradient = getattr(energy, "gradient", None)
        if gradient is None:
            raise TypeError(
                f"energy: {type(energy).__name__} has no gradient(points [walker, n]), which a "
                "Langevin move needs; add one, or use Gaussian(step)"
            )
        if getattr(energy, "reestimates", False):
            raise TypeError(
                "energy: its statistics of normalisation layers are re-estimated at every point, "
                "which its gradient holds fixed: two different functions; use statistics='frozen'"
            )
        return LangevinWalker(energy_function(energy), gradient, self.step, rule, temperature)


class LangevinState(NamedTuple):
    """What the next step needs."""

    point: Float[Tensor, "walker n"]
    energy: Float[Tensor, "walker"]
    gradient: Float[Tensor, "walker n"]
    scale: Float[Tensor, "walker"]


@dataclass(frozen=True)
class LangevinWalker:
    """A Langevin walk's settings."""

    energy: Callable[[Tensor], Tensor]
    gradient: Callable[[Tensor], Tensor]
    size: float
    rule: Rule
    temperature: Float[Tensor, "walker"]

    def init(self, points: Float[Tensor, "walker n"]) -> LangevinState:
        """Put every walker at its start; ValueError where the energy is not finite."""
        energy = finite_start(self.energy(points))
        scale = torch.ones(len(points), dtype=torch.float64, device=points.device)
        return LangevinState(points, energy, self.gradient(points), scale)

    def step(
        self, state: LangevinState, generators: Sequence[torch.Generator]
    ) -> tuple[LangevinState, Info]:
        """Move all walkers once, each with its own generator."""
        size = self.size * state.scale[:, None]
        drift = (size.square() / 2 / self.temperature[:, None]).to(state.point.dtype)
        size = size.to(state.point.dtype)
        drawn = noise(state.point, generators)
        proposal = state.point - drift * state.gradient + size * drawn
        proposed, gradient = self.energy(proposal), self.gradient(proposal)
        # (‖h ξ‖² − ‖w − w' + a g'‖²) / 2h² with w' = w − a g + h ξ, without their cancellation
        both = state.gradient + gradient
        share = drift / size
        log_ratio = (share * both * (drawn - share * both / 2)).double().sum(-1)
        accepted = self.rule.accept(
            state.energy,
            proposed,
            log_uniform(generators).to(proposed.device),
            temperature=self.temperature,
            log_ratio=log_ratio,
        )
        chosen: Any = accepted[:, None]
        moved = LangevinState(
            torch.where(chosen, proposal, state.point),
            torch.where(accepted, proposed, state.energy),
            torch.where(chosen, gradient, state.gradient),
            state.scale,
        )
        return moved, Info(accepted, proposed.isfinite())

    def energies(self, state: LangevinState) -> Float[Tensor, "walker"]:
        """Energies of the walkers."""
        return state.energy
