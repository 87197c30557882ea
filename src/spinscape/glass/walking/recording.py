"""What a walk writes down, and when."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from spinscape.glass.energies import EnergyLike
from spinscape.records import labelled

__all__ = ["Recording", "join_walks", "recorded"]

WRITTEN: dict[str, tuple[tuple[str, ...], str, str]] = {
    "energy": (("walker",), "energy", "nats"),
    "displacement": (("walker",), "distance from the start", "1"),
    "overlap": (("walker",), "overlap with the start", "1"),
    "acceptance_rate": (("walker",), "fraction of steps accepted since the last record", "1"),
    "error": (("walker",), "fraction of samples classified wrongly", "1"),
    "two_time": (("waiting", "walker"), "mean-square displacement since the waiting time", "1"),
    "two_time_overlap": (("waiting", "walker"), "overlap with the point at the waiting time", "1"),
    "pair_distance": (("pair",), "distance of two partners", "1"),
    "pair_overlap": (("pair",), "overlap of two partners", "1"),
}
"""Variables over ``step``: their other dimensions, name and units."""


@dataclass(frozen=True)
class Recording:
    """When to look at the walkers, and at what."""

    times: Sequence[int]
    waiting: Sequence[int]
    partners: bool
    evaluate: Any  # loss and error of points, or None

    @classmethod
    def of(
        cls,
        record: int | Sequence[int],
        steps: int,
        *,
        waiting: Sequence[int],
        partners: bool,
        errors: bool,
        energy: EnergyLike,
        start: Float[Tensor, "walker n"],
    ) -> "Recording":
        """Check what is wanted of a walk of so many steps."""
        times = _times(record, steps)
        waits = sorted({int(t) for t in waiting})
        if waits and not 0 <= waits[0] <= waits[-1] < steps:
            raise ValueError(f"waiting: steps from 0 to {steps - 1}, got {waits[0]} to {waits[-1]}")
        if partners and len(start) % 2:
            raise ValueError(
                f"partners=True: {len(start)} walkers do not make pairs; give an even number"
            )
        evaluate = getattr(energy, "evaluate", None) if errors else None
        if errors and evaluate is None:
            raise TypeError(
                f"errors=True: {type(energy).__name__} has no evaluate(points); use a Landscape "
                "with class labels"
            )
        return cls(times, waits, partners, evaluate)


def recorded(
    walker: Any,
    state: Any,
    start: Float[Tensor, "walker n"],
    recording: Recording,
    streams: Sequence[torch.Generator],
) -> xr.Dataset:
    """Make the steps and keep what is observed at the recorded times."""
    times, look = set(recording.times), _Look(walker, start, recording)
    accepted, refused, lately = (torch.zeros(len(start), device=start.device) for _ in range(3))
    seen, last = [], 0
    for time in range(recording.times[-1] + 1):
        if time:
            state, info = walker.step(state, streams)
            accepted += info.accepted
            lately += info.accepted
            refused += ~info.finite
        look.wait(state, time)
        if time in times:
            seen.append(look(state) | {"acceptance_rate": lately / (time - last)})
            lately, last = torch.zeros_like(lately), time
    refused += sum((~one["energy"].isfinite()).float() for one in seen)
    result = xr.Dataset(
        coords={"step": ("step", np.asarray(recording.times), {"long_name": "steps made"})}
    )
    for name, (dims, long_name, units) in WRITTEN.items():
        if name in seen[0]:
            values = torch.stack([one[name] for one in seen], dim=-1)
            result[name] = labelled((*dims, "step"), values, long_name, units)
    if recording.waiting:
        words = {"long_name": "waiting time", "units": "1"}
        result = result.assign_coords(waiting=("waiting", list(recording.waiting), words))
    rate = accepted / recording.times[-1]
    result["acceptance"] = labelled("walker", rate, "fraction of steps accepted")
    result["non_finite"] = labelled("walker", refused.long(), "energies that were not finite")
    result["step_scale"] = labelled("walker", state.scale, "tuned size of a step, over the move's")
    result["point"] = labelled(("walker", "n"), state.point, "weights after the last step")
    result.attrs["moving"] = int((state.point != start).any(0).sum())
    return result


class _Look:
    """Observes walkers, and remembers where they were at the waiting times."""

    def __init__(self, walker: Any, start: Tensor, recording: Recording) -> None:
        self.walker, self.start, self.recording = walker, start, recording
        self.waited: list[Tensor] = []

    def wait(self, state: Any, time: int) -> None:
        """Remember the points if this is a waiting time."""
        if time in self.recording.waiting:
            self.waited.append(state.point.clone())

    def __call__(self, state: Any) -> dict[str, Tensor]:
        """Everything that is asked for, of the walkers where they are now."""
        point, recording = state.point, self.recording
        moved = (point - self.start).norm(dim=-1)
        seen = {"displacement": moved, "overlap": _overlap(point, self.start)}
        energy = state.energy
        if recording.evaluate is not None:  # the walker's energy may hold more than the loss
            loss, seen["error"] = recording.evaluate(point)
            energy = loss if energy is None else energy
        energy = self.walker.energies(state) if energy is None else energy
        seen["energy"] = energy.to(moved.dtype, copy=True)
        if recording.partners:
            seen["pair_distance"] = (point[::2] - point[1::2]).norm(dim=-1)
            seen["pair_overlap"] = _overlap(point[::2], point[1::2])
        if recording.waiting:
            missing = [torch.full_like(moved, torch.nan)] * (
                len(recording.waiting) - len(self.waited)
            )
            squares = [(point - old).square().mean(-1) for old in self.waited]
            overlaps = [_overlap(point, old) for old in self.waited]
            seen["two_time"] = torch.stack(squares + missing)
            seen["two_time_overlap"] = torch.stack(overlaps + missing)
        return seen


def join_walks(pieces: Sequence[xr.Dataset]) -> xr.Dataset:
    """Join walks of the same settings along ``walker``, their pairs along ``pair``.

    The attributes are those of the first, ``moving`` the largest.
    """
    joined = xr.Dataset()
    for along in ("walker", "pair"):
        owned = [p[[name for name in p.data_vars if along in p[name].dims]] for p in pieces]
        joined = joined.merge(xr.concat(owned, along, join="exact", combine_attrs="override"))
    rest = pieces[0].drop_vars([str(name) for name in joined.variables], errors="ignore")
    moving = max(piece.attrs["moving"] for piece in pieces)
    return joined.merge(rest).assign_attrs(pieces[0].attrs | {"moving": moving})


def _overlap(one: Float[Tensor, "k n"], other: Float[Tensor, "k n"]) -> Float[Tensor, "k"]:
    return (one * other).sum(-1) / (one.norm(dim=-1) * other.norm(dim=-1))


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
