"""Random walks in weight space: many walkers, free or at a temperature.

A *free* walk accepts every step. From a point with Hessian H its energy rises on average by
½ t tr(S H S) after t steps of standard deviations S (½σ²t tr H for isotropic steps): the quadratic
law. A landscape is rugged where its walkers depart from it. A *thermal* walk accepts a step that
changes the energy by ΔE with probability min(1, exp(−ΔE/T)) (Metropolis et al. 1953), which leaves
exp(−E/T) invariant for the symmetric moves of `glass.moves`; k_B = 1, and T is in nats where the
energy is a mean loss per sample. The question is that of arXiv 2407.20724, the method is ours.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float
from torch import Tensor

from spinscape.glass.energies import EnergyLike, batch_of, energy_function
from spinscape.glass.moves import Move, generators
from spinscape.glass.quadratic import quadratic_law
from spinscape.glass.records import labelled, provenance

__all__ = ["Info", "State", "Walker", "walk"]

SOURCE = "random walks in parameter space, a protocol of arXiv 2407.20724; method ours"


class State(NamedTuple):
    """What the next step needs."""

    point: Float[Tensor, "walker n"]
    energy: Float[Tensor, "walker"] | None  # None: not asked for since the point moved
    fixed: Tensor  # what the move keeps from the start


class Info(NamedTuple):
    """What a step did."""

    accepted: Bool[Tensor, "walker"]
    finite: Bool[Tensor, "walker"]  # the proposal's energy, where the rule asked for it


class Rule(NamedTuple):
    """Whether a proposal is accepted, given both energies, log u and the temperature."""

    accept: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor] | None
    needs_temperature: bool


def _metropolis(
    energy: Tensor, proposed: Tensor, log_u: Tensor, temperature: Tensor | None
) -> Tensor:
    assert temperature is not None
    return proposed.isfinite() & (log_u < (energy - proposed).double() / temperature)


RULES = {
    "free": Rule(accept=None, needs_temperature=False),
    "thermal": Rule(accept=_metropolis, needs_temperature=True),
}


@dataclass(frozen=True)
class Walker:
    """A walk's settings: its energy, how it moves and what it accepts."""

    energy: Callable[[Tensor], Tensor]
    move: Move
    rule: Rule
    temperature: Float[Tensor, "walker"] | None = None

    def init(self, points: Float[Tensor, "walker n"]) -> State:
        """Put every walker at its start; ValueError where the energy is not finite."""
        energy = self.energy(points)
        bad = (~energy.isfinite()).nonzero().flatten().tolist()
        if bad:
            raise ValueError(
                f"points: the energy of walkers {bad[:8]} is not finite at the start; "
                "leave diverged replicas out"
            )
        return State(points, energy, self.move.init(points))

    def step(self, state: State, generators: Sequence[torch.Generator]) -> tuple[State, Info]:
        """Move all walkers once, each with its own generator."""
        proposal = self.move.propose(state.point, state.fixed, generators)
        if self.rule.accept is None:
            every = torch.ones(len(proposal), dtype=torch.bool, device=proposal.device)
            return State(proposal, None, state.fixed), Info(every, every)
        now, proposed = self.energies(state), self.energy(proposal)
        log_u = torch.stack([torch.rand((), generator=g, dtype=torch.float64) for g in generators])
        accepted = self.rule.accept(now, proposed, log_u.log().to(now.device), self.temperature)
        point = torch.where(accepted[:, None], proposal, state.point)
        energy = torch.where(accepted, proposed, now)
        return State(point, energy, state.fixed), Info(accepted, proposed.isfinite())

    def energies(self, state: State) -> Float[Tensor, "walker"]:
        """Energies of the walkers; a free walk asks for them only when they are recorded."""
        return self.energy(state.point) if state.energy is None else state.energy


def walk(
    energy: EnergyLike,
    points: "Float[Tensor, '*walker n'] | xr.DataArray | xr.Dataset",
    *,
    rule: str = "free",
    move: Move,
    steps: int,
    temperature: float | Sequence[float] | None = None,
    record: int | Sequence[int] = 50,
    probes: int = 0,
    seed: int = 0,
) -> xr.Dataset:
    """Walk from given points and record energy, displacement and overlap with the start.

    Walker k's steps depend on `seed` and k alone, not on who walks beside it or on how its energy
    is chunked. A proposal whose energy is not finite is rejected by a thermal walk; a free walk
    records it as it is; both are counted in ``non_finite``.

    Parameters
    ----------
    energy : Energy or callable
        A `Landscape`, anything with ``.energy(points [..., n])``, or such a function.
    points : Tensor, DataArray or Dataset
        Starting points ``[walker, n]``, or ``[n]`` for one walker. To send many walkers from one
        point, repeat it: ``point.expand(64, -1)``.
    rule : {"free", "thermal"}
        Accept every step, or by Metropolis at `temperature`.
    move : Move
        ``Gaussian(step)`` or ``FilterGaussian(step, filters)``.
    steps : int
        Steps of each walker.
    temperature : float or one per walker
        Of a thermal walk, in units of the energy (nats).
    record : int or sequence of int
        How many times to record, evenly spaced from 0 to `steps`; or the steps at which to.
    probes : int
        Hutchinson probes for ``quadratic_law [walker, step]``, the rise that the curvature at the
        start foretells (`quadratic_law`); 0 leaves it out. The energy must have ``hvp``.
    seed : int
        Fixes all random numbers.

    Returns
    -------
    Dataset
        ``energy``, ``displacement`` (‖w − w₀‖), ``overlap`` (w·w₀/‖w‖‖w₀‖) over ``walker, step``;
        ``acceptance``, ``non_finite`` over ``walker``; the last ``point [walker, n]``;
        ``temperature [walker]`` of a thermal walk.

    Raises
    ------
    ValueError
        If the rule is unknown, a number is out of range, the temperature is missing (or given to a
        free walk), or an energy is not finite at the start.
    """
    start = batch_of(points)
    times = _times(record, steps)
    walker = Walker(
        energy_function(energy),
        move,
        _rule(rule),
        _temperature(rule, temperature, start),
    )
    law = quadratic_law(energy, start, move=move, probes=probes, seed=seed) if probes else None
    result = _run(walker, start, times, generators(seed, len(start)))
    if walker.temperature is not None:
        result["temperature"] = labelled("walker", walker.temperature, "temperature", "nats")
        if walker.temperature.unique().numel() == 1:
            result.attrs["temperature"] = float(walker.temperature[0])
    if law is not None:
        result["quadratic_law"] = labelled(
            ("walker", "step"),
            law["rise"].values[:, None] * np.asarray(times),
            "rise of the energy that the curvature at the start foretells",
            "nats",
        )
    moved = {"name": type(move).__name__, "step": move.step}
    settings = {"rule": rule, "move": moved, "steps": steps, "probes": probes}
    result.attrs.update(provenance("walk", SOURCE, seed, **settings))
    return result


def _run(
    walker: Walker, start: Tensor, times: Sequence[int], streams: Sequence[torch.Generator]
) -> xr.Dataset:
    """Make the steps and keep what is observed at the recorded times."""
    state = walker.init(start)
    accepted, refused = (torch.zeros(len(start), device=start.device) for _ in range(2))
    seen = [_observe(walker, state, start)] if times[0] == 0 else []
    for time in range(1, times[-1] + 1):
        state, info = walker.step(state, streams)
        accepted += info.accepted
        refused += ~info.finite
        if time in times:
            seen.append(_observe(walker, state, start))
    observed = torch.stack(seen, dim=-1)
    refused += (~observed[0].isfinite()).sum(-1)
    dims = ("walker", "step")
    result = xr.Dataset(coords={"step": ("step", np.asarray(times), {"long_name": "steps made"})})
    result["energy"] = labelled(dims, observed[0], "energy", "nats")
    result["displacement"] = labelled(dims, observed[1], "distance from the start")
    result["overlap"] = labelled(dims, observed[2], "overlap with the start")
    rate = accepted / times[-1]
    result["acceptance"] = labelled("walker", rate, "fraction of steps accepted")
    result["non_finite"] = labelled("walker", refused.long(), "energies that were not finite")
    result["point"] = labelled(("walker", "n"), state.point, "weights after the last step")
    return result


def _observe(walker: Walker, state: State, start: Tensor) -> Float[Tensor, "3 walker"]:
    length, first = state.point.norm(dim=-1), start.norm(dim=-1)
    overlap = (state.point * start).sum(-1) / (length * first)
    moved = (state.point - start).norm(dim=-1)
    return torch.stack([walker.energies(state).to(moved.dtype), moved, overlap])


def _times(record: int | Sequence[int], steps: int) -> list[int]:
    if steps < 1:
        raise ValueError(f"steps={steps}: expected 1 or more")
    if isinstance(record, int):
        if record < 2:
            raise ValueError(f"record={record}: expected 2 or more times, the start and the end")
        return sorted({round(t) for t in np.linspace(0, steps, min(record, steps + 1))})
    times = sorted({int(t) for t in record} | {steps})
    if times[0] < 0 or times[-1] > steps:
        raise ValueError(f"record: steps from 0 to {steps}, got {times[0]} to {times[-1]}")
    return times


def _rule(name: str) -> Rule:
    if name not in RULES:
        raise ValueError(f"rule={name!r}: expected one of {', '.join(RULES)}")
    return RULES[name]


def _temperature(
    rule: str, temperature: float | Sequence[float] | None, start: Tensor
) -> Float[Tensor, "walker"] | None:
    if not _rule(rule).needs_temperature:
        if temperature is not None:
            raise ValueError(
                f"temperature={temperature}: a {rule} walk has none; use rule='thermal'"
            )
        return None
    if temperature is None:
        raise ValueError(f"temperature: a {rule} walk needs one, in units of the energy (nats)")
    values = torch.as_tensor(temperature, dtype=torch.float64, device=start.device)
    if values.ndim > 1 or (values.ndim == 1 and len(values) != len(start)):
        raise ValueError(
            f"temperature: expected one number or one for each of {len(start)} walkers, "
            f"got shape {tuple(values.shape)}"
        )
    if not bool(((values > 0) & values.isfinite()).all()):
        raise ValueError(
            f"temperature={temperature}: expected positive numbers; free walks are T→∞"
        )
    return values.expand(len(start))
