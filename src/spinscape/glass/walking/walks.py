"""Random walks in weight space: many walkers, free, at a temperature, or below a threshold.

A *free* walk accepts every step. From a point with Hessian H its energy rises on average by
½ t tr(S H S) after t steps of standard deviations S (½σ²t tr H for isotropic steps): the quadratic
law. A landscape is rugged where its walkers depart from it. A *thermal* walk accepts a step that
changes the energy by ΔE with probability min(1, exp(−ΔE/T)) (Metropolis et al. 1953), which leaves
exp(−E/T) invariant for the symmetric moves of `glass.walking.moves`; k_B = 1, and T is in nats
where the energy is a mean loss per sample. A *threshold* walk accepts while the energy is at most
L*, which leaves the uniform weight on {E ≤ L*} invariant; in a bowl of N dimensions ⟨E⟩/L* =
N/(N+2), so that in many dimensions it sits at its threshold and its energy says nothing but N. The
question is that of arXiv 2407.20724, the method is ours.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from spinscape.glass.energies import EnergyLike, batch_of, energy_function
from spinscape.glass.walking.moves import Move, generators
from spinscape.glass.walking.quadratic import quadratic_law
from spinscape.glass.walking.recording import Recording, recorded
from spinscape.glass.walking.rules import Info, Rule, finite_start, levels, log_uniform, rule_of
from spinscape.glass.walking.tuning import target_of, tuned
from spinscape.records import labelled, provenance

__all__ = ["Info", "OwnWalker", "State", "Walker", "walk"]

SOURCE = "random walks in parameter space, a protocol of arXiv 2407.20724; method ours"


class State(NamedTuple):
    """What the next step needs."""

    point: Float[Tensor, "walker n"]
    energy: Float[Tensor, "walker"] | None  # None: not asked for since the point moved
    fixed: Tensor  # what the move keeps from the start
    scale: Float[Tensor, "walker"]  # multiplies the size of the steps; 1 where it is not tuned


@dataclass(frozen=True)
class Walker:
    """A walk's settings: its energy, how it moves and what it accepts."""

    energy: Callable[[Tensor], Tensor]
    move: Move
    rule: Rule
    temperature: Float[Tensor, "walker"] | None = None
    threshold: Float[Tensor, "walker"] | None = None

    def init(self, points: Float[Tensor, "walker n"]) -> State:
        """Put every walker at its start; ValueError where the energy is not finite."""
        energy = finite_start(self.energy(points))
        scale = torch.ones(len(points), dtype=torch.float64, device=points.device)
        return State(points, energy, self.move.init(points), scale)

    def step(self, state: State, generators: Sequence[torch.Generator]) -> tuple[State, Info]:
        """Move all walkers once, each with its own generator."""
        sizes = state.fixed * state.scale[:, None].to(state.fixed.dtype)
        proposal = self.move.propose(state.point, sizes, generators)
        if self.rule.needs is None:
            every = torch.ones(len(proposal), dtype=torch.bool, device=proposal.device)
            return state._replace(point=proposal, energy=None), Info(every, every)
        now, proposed = self.energies(state), self.energy(proposal)
        accepted = self.rule.accept(
            now,
            proposed,
            log_uniform(generators).to(now.device),
            temperature=self.temperature,
            threshold=self.threshold,
        )
        point = torch.where(accepted[:, None], proposal, state.point)
        energy = torch.where(accepted, proposed, now)
        return state._replace(point=point, energy=energy), Info(accepted, proposed.isfinite())

    def energies(self, state: State) -> Float[Tensor, "walker"]:
        """Energies of the walkers; a free walk asks for them only when they are recorded."""
        return self.energy(state.point) if state.energy is None else state.energy


class OwnWalker(Protocol):
    """A move that brings its own walker, with ``init``, ``step`` and ``energies`` as `Walker`.

    The walker's state has ``point``, ``energy`` and ``scale``, and is a NamedTuple.
    """

    @property
    def step(self) -> float:
        """Size of one step, in the move's own unit."""

    def walker(
        self,
        energy: EnergyLike,
        rule: Rule,
        temperature: Float[Tensor, "walker"] | None,
        threshold: Float[Tensor, "walker"] | None,
    ) -> Any:
        """Make the walker of these settings."""


def walk(
    energy: EnergyLike,
    points: "Float[Tensor, '*walker n'] | xr.DataArray | xr.Dataset",
    *,
    rule: str = "free",
    move: Move | OwnWalker,
    steps: int,
    temperature: float | Sequence[float] | None = None,
    threshold: float | Sequence[float] | None = None,
    record: int | Sequence[int] = 50,
    waiting: Sequence[int] = (),
    partners: bool = False,
    errors: bool = False,
    burn_in: int = 0,
    target: float | None = None,
    probes: int = 0,
    seed: int = 0,
) -> xr.Dataset:
    """Walk from given points and record energy, displacement and overlap with the start.

    Walker k's steps depend on `seed` and k alone, not on who walks beside it or on how its energy
    is chunked. A proposal whose energy is not finite is rejected by a thermal or threshold walk; a
    free walk records it as it is; both are counted in ``non_finite``.

    Parameters
    ----------
    energy : Energy or callable
        A `Landscape`, anything with ``.energy(points [..., n])``, or such a function.
    points : Tensor, DataArray or Dataset
        Starting points ``[walker, n]``, or ``[n]`` for one walker. To send many walkers from one
        point, repeat it: ``point.expand(64, -1)``.
    rule : {"free", "thermal", "threshold"}
        Accept every step, by Metropolis at `temperature`, or while the energy is at most
        `threshold`.
    move : Move
        ``Gaussian(step)``, ``FilterGaussian(step, filters)``, ``Langevin(step)``,
        ``SingleUnit(step)``, or another that makes its own walker (`OwnWalker`).
    steps : int
        Steps of each walker.
    temperature, threshold : float or one per walker
        Of a thermal or threshold walk, in units of the energy (nats).
    record : int or sequence of int
        How many times to record, evenly spaced from 0 to `steps`; or the steps at which to.
    waiting : sequence of int
        Steps t_w from which displacements are measured anew, for ``two_time`` and
        ``two_time_overlap``.
    partners : bool
        Whether to record how far walkers 2k and 2k + 1 are from each other.
    errors : bool
        Whether to record the error; the energy must have ``evaluate``.
    burn_in : int
        Steps before step 0 of the record, in which each walker's step size is tuned to `target`
        and then frozen (`glass.walking.tuning`). The record begins where they end, and waiting
        times count from there; ``displacement`` and ``overlap`` are still those from `points`.
    target : float, optional
        Fraction of steps to accept; that of the move if not given (.234 for Gaussian steps, .574
        for Langevin's).
    probes : int
        Hutchinson probes for ``quadratic_law [walker, step]``, the rise that the curvature at the
        start foretells (`quadratic_law`); 0 leaves it out. The energy must have ``hvp``.
    seed : int
        Fixes all random numbers.

    Returns
    -------
    Dataset
        ``energy``, ``displacement`` (‖w − w₀‖), ``overlap`` (w·w₀/‖w‖‖w₀‖), ``acceptance_rate``
        (since the last recorded step) over ``walker, step``; ``acceptance``, ``non_finite``,
        ``step_scale``, ``start_energy`` (at `points`) over ``walker``; the last
        ``point [walker, n]``. Where asked for: ``error``; ``two_time [waiting, walker, step]``
        (‖w(t) − w(t_w)‖²/n, NaN before t_w) and ``two_time_overlap``; ``pair_distance [pair,
        step]`` and ``pair_overlap``; ``temperature`` or ``threshold [walker]``. The attribute
        ``moving`` counts the coordinates that moved at all, ``burn_in`` its steps if any.

    Raises
    ------
    ValueError
        If the rule is unknown, a number is out of range, the temperature or threshold is missing
        (or given to a walk without), a start lies above its threshold, or an energy is not finite
        at the start.
    TypeError
        If the energy lacks what was asked of it.
    """
    start = batch_of(points)
    named = rule_of(rule)
    given = {
        name: levels(named, name, value, start)
        for name, value in (("temperature", temperature), ("threshold", threshold))
    }
    recording = Recording.of(
        record, steps, waiting=waiting, partners=partners, errors=errors, energy=energy, start=start
    )
    aim = target_of(move, named, burn_in, target)
    walker = _walker(energy, move, named, **given)
    law = _law(energy, start, move, probes, burn_in, seed)
    streams, state = generators(seed, len(start)), walker.init(start)
    first = walker.energies(state).clone()
    _check_below(first, given["threshold"])
    if aim is not None:
        state = tuned(walker, state, streams, burn_in, aim)
    result = recorded(walker, state, start, recording, streams)
    result["start_energy"] = labelled("walker", first, "energy at the given points", "nats")
    for name, values in given.items():
        if values is not None:
            result[name] = labelled("walker", values, name, "nats")
            if values.unique().numel() == 1:
                result.attrs[name] = float(values[0])
    if law is not None:
        result["quadratic_law"] = labelled(
            ("walker", "step"),
            law["rise"].values[:, None] * np.asarray(recording.times),
            "rise of the energy that the curvature at the start foretells",
            "nats",
        )
    if burn_in:
        result.attrs["burn_in"] = burn_in
    settings = {"rule": rule, "move": _described(move), "steps": steps, "probes": probes}
    settings |= {"waiting": list(recording.waiting), "burn_in": burn_in, "target": aim}
    result.attrs.update(provenance("walk", SOURCE, seed, **settings))
    return result


def _described(move: Move | OwnWalker) -> dict[str, Any]:
    """Name of a move and its settings, as JSON takes them; which coordinates are filters is not."""
    settings = vars(move).items()
    return {"name": type(move).__name__} | {
        name: value for name, value in settings if isinstance(value, int | float | str)
    }


def _walker(
    energy: EnergyLike,
    move: Any,
    rule: Rule,
    temperature: Tensor | None,
    threshold: Tensor | None,
) -> Any:
    own = getattr(move, "walker", None)
    if own is not None:
        return own(energy, rule, temperature, threshold)
    return Walker(energy_function(energy), move, rule, temperature, threshold)


def _law(
    energy: EnergyLike, start: Tensor, move: Any, probes: int, burn_in: int, seed: int
) -> xr.Dataset | None:
    if not probes:
        return None
    if burn_in:
        raise ValueError(
            f"probes={probes}: the quadratic law is of steps of one size from the start, and "
            f"burn_in={burn_in} changes both; leave one out"
        )
    if not hasattr(move, "init"):
        raise TypeError(
            f"probes={probes}: the quadratic law is that of Gaussian steps, not of "
            f"{type(move).__name__}; use Gaussian or FilterGaussian"
        )
    return quadratic_law(energy, start, move=move, probes=probes, seed=seed)


def _check_below(energy: Float[Tensor, "walker"], threshold: Tensor | None) -> None:
    if threshold is None:
        return
    above = (energy.double() > threshold).nonzero().flatten().tolist()
    if above:
        raise ValueError(
            f"threshold={float(threshold[above[0]]):.6g}: walkers {above[:8]} start above it, the "
            f"first at {float(energy[above[0]]):.6g}; raise it above the energy at the start"
        )
