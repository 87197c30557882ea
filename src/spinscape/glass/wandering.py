"""What a walk says: how fast its walkers get away, and what that is set against."""

from typing import Any

import numpy as np
import xarray as xr

from spinscape.statistics import Finding, Interval, bootstrap

__all__ = ["diffusion", "walk_findings"]


def diffusion(walk: xr.Dataset, *, level: float = 0.95, seed: int = 0) -> Interval:
    """Exponent x of the mean-square displacement ∝ tˣ over the walk's last decade of time.

    A straight line through log ⟨‖w − w₀‖²⟩ against log t at the recorded steps from a tenth of the
    last to the last, with a bootstrap interval over walkers. 1 is free diffusion, 2 ballistic, 0 a
    walker that stays in its well. Walkers with one ``start [walker]``, where the walk says so, are
    averaged first.

    Raises
    ------
    ValueError
        If fewer than three recorded steps lie there, there are fewer than two walkers, or none
        has moved.
    """
    chosen = walk["displacement"].transpose("walker", "step")
    chosen = chosen.where(walk["step"] >= walk["step"].max() / 10, drop=True)
    if chosen.sizes["step"] < 3:
        raise ValueError(
            f"walk: {chosen.sizes['step']} recorded steps in the last decade, expected 3 or more;"
            " raise record"
        )
    log_time = np.log(chosen["step"].values.astype(float))
    log_time -= log_time.mean()
    squares = _by_start(walk, chosen.values.astype(float) ** 2)
    if not squares.any(axis=0).all():
        raise ValueError("walk: no walker moved, so that displacement has no exponent")

    def exponent(drawn: np.ndarray) -> float:
        growth = np.log(squares[drawn.astype(int)].mean(0))
        return float(growth @ log_time / (log_time @ log_time))

    return bootstrap(np.arange(len(squares)), exponent, level=level, seed=seed)


def walk_findings(
    free: xr.Dataset, thermal: xr.Dataset, *, level: float = 0.95, seed: int = 0
) -> list[Finding]:
    """Judge a free walk against the quadratic law, and a thermal one against free diffusion.

    `free` must carry ``quadratic_law`` (``walk(…, probes=16)``), else its finding is left out.
    """
    found = [_confinement(free, thermal, level, seed)]
    if "quadratic_law" in free:
        found.insert(0, _ruggedness_of_walk(free, level, seed))
    return found


LAW_MARGIN = 0.1  # a ratio this close to 1 counts as the quadratic law's


def _ruggedness_of_walk(free: xr.Dataset, level: float, seed: int) -> Finding:
    """Rise of the loss over the quadratic law's, at the end of the free walk."""
    first, last = free.isel(step=0), free.isel(step=-1)
    rise = _by_start(free, (last["energy"] - first["energy"]).values.astype(float))
    law = _by_start(free, (last["quadratic_law"] - first["quadratic_law"]).values.astype(float))
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
        f"{free.sizes['walker']} walkers{_from(free)} had risen by {rise.mean():.3g} nats on "
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
        f"{thermal.sizes['walker']} walkers{_from(thermal)} at T = {at} nats accepted "
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
        statement = f"Undecided: {told}; no exponent ({reason})"
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
        f"power {exponent.value:.3g}",
        verdict=verdict,
    )


def _by_start(walk: xr.Dataset, values: np.ndarray) -> np.ndarray:
    """Means over the walkers of each start: those share its ground and are not independent.

    From one start alone the walkers are the units, and the interval is that of its walks.
    """
    starts = walk["start"].values if "start" in walk else np.arange(len(values))
    groups = np.unique(starts)
    if len(groups) in (1, len(values)):
        return values
    return np.stack([values[starts == group].mean(0) for group in groups])


def _from(walk: xr.Dataset) -> str:
    count = len(np.unique(walk["start"].values)) if "start" in walk else walk.sizes["walker"]
    if count == walk.sizes["walker"]:
        return ""
    return f" from {count} solution{'s' if count > 1 else ''}"


def _end(walk: xr.Dataset) -> float:
    return float(walk["displacement"].isel(step=-1).mean())
