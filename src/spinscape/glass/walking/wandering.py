"""What a walk says: how fast its walkers get away, and what that is set against."""

from typing import Any

import numpy as np
import xarray as xr

from spinscape.glass.walking.ageing import ageing_finding
from spinscape.glass.walking.convergence import equilibrium_note
from spinscape.glass.walking.memory import correlation_finding
from spinscape.glass.walking.starts import by_start, from_starts
from spinscape.glass.walking.sublevel import dimension_finding
from spinscape.statistics import Finding, Interval, bootstrap

__all__ = ["diffusion", "walk_findings"]


def diffusion(walk: xr.Dataset, *, level: float = 0.95, seed: int = 0) -> Interval:
    """Exponent x of the mean-square displacement ∝ tˣ over the walk's last decade of time.

    A straight line through log ⟨‖w − w₀‖²⟩ against log t at the recorded steps from a tenth of the
    last to the last, with a bootstrap interval over walkers. 1 is free diffusion, 2 ballistic, 0 a
    walker that stays in its well. Walkers with one ``start [walker]``, where the walk says so, are
    averaged first. After a burn-in, displacement counts from its end (``two_time`` at waiting time
    0): from the start, it would hold what the burn-in added.

    Raises
    ------
    ValueError
        If fewer than three recorded steps lie there, there are fewer than two walkers, none has
        moved, or there was a burn-in and waiting time 0 was not recorded.
    """
    squared = _squared_displacement(walk).transpose("walker", "step")
    chosen = squared.where(walk["step"] >= walk["step"].max() / 10, drop=True)
    if chosen.sizes["step"] < 3:
        raise ValueError(
            f"walk: {chosen.sizes['step']} recorded steps in the last decade, expected 3 or more;"
            " raise record"
        )
    log_time = np.log(chosen["step"].values.astype(float))
    log_time -= log_time.mean()
    squares = by_start(walk, chosen.values.astype(float))
    if not squares.any(axis=0).all():
        raise ValueError("walk: no walker moved, so that displacement has no exponent")

    def exponent(drawn: np.ndarray) -> float:
        growth = np.log(squares[drawn.astype(int)].mean(0))
        return float(growth @ log_time / (log_time @ log_time))

    return bootstrap(np.arange(len(squares)), exponent, level=level, seed=seed)


def _squared_displacement(walk: xr.Dataset) -> xr.DataArray:
    if not walk.attrs.get("burn_in"):
        return walk["displacement"].astype(float) ** 2
    if "two_time" not in walk or 0 not in walk["waiting"].values:
        raise ValueError(
            "walk: its displacement counts from before the burn-in; give walk(…, waiting=[0, …])"
        )
    return walk["two_time"].sel(waiting=0)


def walk_findings(
    free: xr.Dataset,
    thermal: xr.Dataset,
    threshold: xr.Dataset | None = None,
    *,
    level: float = 0.95,
    seed: int = 0,
) -> list[Finding]:
    """Judge a free walk against the quadratic law, and a thermal one against free diffusion.

    `free` must carry ``quadratic_law`` (``walk(…, probes=16)``), else its finding is left out.
    Behind these two: whether the loss along the free walk forgets itself sooner than over a bowl,
    if it has at least 8 records; whether thermal walkers age, if they have ``two_time``; and the
    effective dimension, of a `threshold` walk.
    """
    found = [_confinement(free, thermal, level, seed)]
    if "quadratic_law" in free:
        found.insert(0, _ruggedness_of_walk(free, level, seed))
    if free.sizes["step"] >= FEWEST_RECORDS:
        found.append(correlation_finding(free, level=level, seed=seed))
    if "two_time" in thermal:
        found.append(ageing_finding(thermal, level=level, seed=seed))
    if threshold is not None:
        found.append(dimension_finding(threshold, level=level, seed=seed))
    return found


FEWEST_RECORDS = 8
LAW_MARGIN = 0.1  # a ratio this close to 1 counts as the quadratic law's


def _ruggedness_of_walk(free: xr.Dataset, level: float, seed: int) -> Finding:
    """Rise of the loss over the quadratic law's, at the end of the free walk."""
    first, last = free.isel(step=0), free.isel(step=-1)
    rise = by_start(free, (last["energy"] - first["energy"]).values.astype(float))
    law = by_start(free, (last["quadratic_law"] - first["quadratic_law"]).values.astype(float))
    common: dict[str, Any] = {
        "protocol": "walk",
        "question": "Is the ground around a solution more than a bowl of its curvature?",
        "null": "a quadratic bowl with the curvature at the start: ratio 1",
        "null_value": 1.0,
        "rule": (
            "The landscape is more than its quadratic bowl: supported if the interval of the "
            f"ratio lies outside 1 ± {LAW_MARGIN}, not supported if it lies inside, else undecided"
        ),
    }
    far = float(last["displacement"].mean())
    told = (
        f"after {int(last['step'])} free steps, at a distance of {far:.3g}, the loss of "
        f"{free.sizes['walker']} walkers{from_starts(free)} had risen by {rise.mean():.3g} nats on "
        "average"
    )
    if not np.isfinite(rise).all() or law.mean() <= 0 or len(rise) < 2:
        why = "the ratio to the quadratic law is undefined"
        told = f"Undecided: {told}; {why}"
        return Finding(**common, statement=told, value=None, verdict="undecided")
    ratio = bootstrap(
        (rise, law), lambda r, q: r.mean() / q.mean(), paired=True, level=level, seed=seed
    )
    low, high = 1 - LAW_MARGIN, 1 + LAW_MARGIN
    outside = ratio.low > high or ratio.high < low
    inside = low <= ratio.low and ratio.high <= high
    verdict = "supported" if outside else "not supported" if inside else "undecided"
    answers = {
        "supported": "The ground is more than a bowl",
        "not supported": "The ground is a bowl as far as the walkers came",
        "undecided": "Whether the ground is more than a bowl is undecided",
    }
    return Finding(
        **common,
        **ratio._asdict(),
        statement=f"{answers[verdict]}: {told}, {ratio.value:.3g} times what the curvature at the "
        "start foretells",
        verdict=verdict,
    )


HELD = 0.9  # exponents this close to 1 are free diffusion's for all one cares


def _confinement(free: xr.Dataset, thermal: xr.Dataset, level: float, seed: int) -> Finding:
    """Exponent of the thermal walk's displacement against free diffusion's."""
    last = int(thermal["step"].max())
    kinds = np.unique(thermal["temperature"].values)
    at = " to ".join(f"{T:.3g}" for T in (kinds[[0, -1]] if len(kinds) > 1 else kinds))
    told = (
        f"{thermal.sizes['walker']} walkers{from_starts(thermal)} at T = {at} nats accepted "
        f"{float(thermal['acceptance'].mean()):.0%} of {last} steps and ended at a distance of "
        f"{_end(thermal):.3g} from their start (free walkers: {_end(free):.3g})"
    )
    common: dict[str, Any] = {
        "protocol": "walk",
        "question": "Does the landscape hold back a walker at temperature T?",
        "null": "free diffusion: mean-square displacement ∝ t¹",
        "null_value": 1.0,
        "rule": (
            "Supported if the interval of the exponent over the last decade of time lies below "
            f"{HELD}, not supported if it lies above, else undecided; 0 is a walker that stays"
        ),
    }
    try:
        exponent = diffusion(thermal, level=level, seed=seed)
    except ValueError as reason:
        statement = f"Undecided: {told}; no exponent ({reason}){equilibrium_note(thermal)}"
        return Finding(**common, statement=statement, value=None, verdict="undecided")
    held, diffusing = exponent.high < HELD, exponent.low > HELD
    verdict = "supported" if held else "not supported" if diffusing else "undecided"
    answers = {
        "supported": "Thermal walkers are held back",
        "not supported": "Thermal walkers get away nearly as freely as in flat ground",
        "undecided": "Whether thermal walkers are held back is undecided",
    }
    return Finding(
        **common,
        **exponent._asdict(),
        statement=f"{answers[verdict]}: {told}; their mean-square displacement grew as t to the "
        f"power {exponent.value:.3g}{equilibrium_note(thermal)}",
        verdict=verdict,
    )


def _end(walk: xr.Dataset) -> float:
    return float(walk["displacement"].isel(step=-1).mean())
