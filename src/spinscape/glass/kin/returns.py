"""What quenches say: from how far away gradient descent falls back into the same solution."""

from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from spinscape.statistics import Finding, Interval, bootstrap

__all__ = ["half_distance", "quench_findings", "returned_fraction"]

HALF = 0.5


def returned_fraction(
    quenches: xr.Dataset, criterion: str, temperature: float | None = None
) -> xr.Dataset:
    """Fraction of quenches that returned, of every solution at every stage of the walk.

    Parameters
    ----------
    quenches : Dataset
        Of `quenches.quench`.
    criterion : "distance" or "barrier"
    temperature : float, optional
        Take the walks of this temperature alone.

    Returns
    -------
    Dataset
        ``fraction [stage, solution]`` (NaN where there is none), ``distance [stage]``, the mean
        walked. Stage 0 are the controls, from distance zero.
    """
    chosen = quenches
    if temperature is not None:
        chosen = quenches.isel(quench=np.flatnonzero(quenches["temperature"] == temperature))
    stages = 1 + chosen["stage"].values
    origin, returned = chosen["origin"].values, chosen["returned"].sel(criterion=criterion).values
    zero = chosen["control_returned"].sel(criterion=criterion).transpose("solution", "control")
    count = int(stages.max()) + 1
    fraction = np.full((count, len(zero)), np.nan)
    fraction[0] = zero.values.mean(1)
    for stage, solution in set(zip(stages.tolist(), origin.tolist(), strict=True)):
        here = (stages == stage) & (origin == solution)
        fraction[stage, solution] = returned[here].mean()
    walked = chosen["distance"].values
    distance = [0.0, *(walked[stages == stage].mean() for stage in range(1, count))]
    return xr.Dataset(
        {"fraction": (("stage", "solution"), fraction), "distance": ("stage", distance)}
    )


def half_distance(
    distance: Float[np.ndarray, "stage"], fraction: Float[np.ndarray, "stage"]
) -> float:
    """Distance at which the fraction that returns first falls to a half, linear between stages.

    Not a number where it never does.

    Examples
    --------
    >>> half_distance(np.array([0.0, 1.0, 2.0]), np.array([1.0, 0.75, 0.25]))
    1.5
    """
    below = np.flatnonzero(fraction <= HALF)
    if not len(below) or below[0] == 0:
        return float("nan")
    k = int(below[0])
    part = (fraction[k - 1] - HALF) / (fraction[k - 1] - fraction[k])
    return float(distance[k - 1] + part * (distance[k] - distance[k - 1]))


def quench_findings(quenches: xr.Dataset, *, level: float = 0.95, seed: int = 0) -> list[Finding]:
    """Judge a Dataset of `quenches.quench`, by both criteria, one temperature after the other."""
    heats: list[float | None] = [None]
    if "temperature" in quenches:
        heats = [float(heat) for heat in np.unique(quenches["temperature"].values)]
    return [
        _reach(quenches, str(criterion), heat, level, seed)
        for heat in heats
        for criterion in quenches["criterion"].values
    ]


ASKED = {
    "distance": "Does gradient descent come back to a solution from nearby, and not from afar?",
    "barrier": "Does it fall back into a solution's basin from nearby, and not from afar?",
}
MEANT = {
    "distance": "end no farther from it than twice as far as training on moves it",
    "barrier": "end behind a barrier lower than half of that to other solutions",
}
SAID = {
    "near and not far": {
        "distance": "Gradient descent comes back from nearby and not from afar",
        "barrier": "Gradient descent falls back into the basin from nearby and not from afar",
    },
    "not near": {
        "distance": "Gradient descent does not come back to the point that was left",
        "barrier": "Gradient descent does not fall back into the basin that was left",
    },
    "far": {
        "distance": "Gradient descent comes back from as far as was tried",
        "barrier": "Gradient descent falls back into the basin from as far as was tried",
    },
    "undecided": {
        "distance": "From how far gradient descent comes back is undecided",
        "barrier": "From how far gradient descent falls back into the basin is undecided",
    },
}
VERDICTS = {"near and not far": "supported", "not near": "not supported", "far": "not supported"}


def _reach(
    quenches: xr.Dataset, criterion: str, heat: float | None, level: float, seed: int
) -> Finding:
    """Distance at which half of the quenches return."""
    table = returned_fraction(quenches, criterion, heat)
    fraction, distance = table["fraction"].values, table["distance"].values
    whole = fraction[:, np.isfinite(fraction).all(0)]
    others = float(quenches["other_returned"].sel(criterion=criterion).mean())
    apart = float(quenches["other_end_distance"].mean())
    common: dict[str, Any] = {
        "protocol": "walk",
        "question": ASKED[criterion] + _at(heat),
        "null": "pairs of independent solutions, judged by the same rule",
        "rule": (
            "Supported if the interval over solutions of the fraction that returns lies above "
            f"{HALF} at the shortest distance, beyond the bound of returning by distance, and "
            "below it at the longest, and the null's fraction is below it; not supported if the "
            "first lies below or the second above; else undecided. The value is the distance at "
            f"which {HALF} return. "
            f"{quenches.attrs.get('rule', '')}"
        ).strip(),
    }
    least = float(quenches["bound"].sel(criterion="distance").mean())
    shortest = int(np.searchsorted(distance, least, side="right"))
    if whole.shape[1] < 2 or shortest >= len(distance) - 1:
        why = f"it takes two solutions and two distances above {least:.3g}, each with a quench"
        return Finding(**common, statement=f"Undecided: {why}", value=None, verdict="undecided")
    near, far = (bootstrap(whole[k], level=level, seed=seed) for k in (shortest, -1))
    half = _half(distance, whole, level, seed)
    outcome = _outcome(near, far, others, half)
    left = float((quenches["end_distance"] / quenches["distance"]).mean())
    between = f"half do at {half.value:.3g}" if half else "half do at none of the distances tried"
    told = (
        f"{near.value:.0%} of quenches from a distance of {distance[shortest]:.3g} and "
        f"{far.value:.0%} from {distance[-1]:.3g} {MEANT[criterion]}, symmetry removed; {between}. "
        f"On average {left:.0%} of the distance walked is left. Of independent solutions, "
        f"{apart:.3g} apart, {others:.0%} count as the same"
    )
    return Finding(
        **common,
        **(half._asdict() if half else {"value": None}),
        statement=f"{SAID[outcome][criterion]}: {told}",
        verdict=VERDICTS.get(outcome, outcome),
    )


def _half(
    distance: Float[np.ndarray, "stage"],
    fraction: Float[np.ndarray, "stage solution"],
    level: float,
    seed: int,
) -> Interval | None:
    """Interval over solutions of `half_distance`; None where there is no such distance.

    It is no narrower than from one distance tried to the next, between which nothing was measured.
    """

    def statistic(drawn: np.ndarray) -> float:
        return half_distance(distance, fraction[:, drawn.astype(int)].mean(1))

    try:
        found = bootstrap(np.arange(fraction.shape[1]), statistic, level=level, seed=seed)
    except ValueError:  # too few resamples have one
        return None
    after = int(np.searchsorted(distance, found.value))
    low, high = min(found.low, distance[after - 1]), max(found.high, distance[after])
    return found._replace(low=float(low), high=float(high))


def _outcome(near: Interval, far: Interval, others: float, half: Interval | None) -> str:
    if near.high < HALF:
        return "not near"
    if far.low > HALF:
        return "far"
    held = near.low > HALF > far.high and others < HALF
    return "near and not far" if held and half is not None else "undecided"


def _at(heat: float | None) -> str:
    if heat is None:
        return ""
    return " (free walks)" if np.isinf(heat) else f" (walks at T = {heat:.3g} nats)"
