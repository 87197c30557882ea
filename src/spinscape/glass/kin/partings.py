"""What clones say: whether siblings stay connected, and what they remember of what they shared."""

from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.stats import kendalltau

from spinscape.statistics import Finding, Interval, bootstrap, p_value

__all__ = ["CONNECTED", "clone_findings"]

CONNECTED = 0.02
"""Frankle et al. call networks connected where the error rises by less than 2 %."""


def clone_findings(relatives: xr.Dataset, *, level: float = 0.95, seed: int = 0) -> list[Finding]:
    """Judge a Dataset of `siblings`: who is connected, a steady fall, and what is remembered."""
    judges = (_connected, _falls, _remember)
    return [judge(relatives, level, seed) for judge in judges]


HALF = 0.5
FORGOTTEN = 0.9


def _connected(relatives: xr.Dataset, level: float, seed: int) -> Finding:
    """How much lower the barrier is between those that parted last than first, in strangers'."""
    waiting = relatives["waiting"].values
    first, last = (_by_ancestor(relatives, "barrier")[k] for k in (0, -1))
    strange = _strangers(relatives, "barrier").mean(0) if len(first) > 1 else np.zeros(1)
    common: dict[str, Any] = {
        "protocol": "clones",
        "question": (
            "Do siblings that part late stay linearly connected while those that part early do not?"
        ),
        "null": "a barrier that does not depend on the time shared",
        "null_value": 0.0,
        "rule": (
            "From the first to the last waiting time the barrier falls by a part of that between "
            "networks of different ancestors: supported if the interval of that part over "
            f"ancestors lies above {HALF}, that of the error's rise between those that part first "
            f"above {CONNECTED:.0%}, and that of the last below. Not supported if the first lies "
            "below, the second below or the third above. Else undecided"
        ),
    }
    told = (
        f"the barrier between siblings is {first.mean():.3g} nats after {waiting[0]} shared steps "
        f"and {last.mean():.3g} after {waiting[-1]}, that between unrelated networks "
        f"{strange.mean():.3g}"
    )
    if len(first) < 2 or len(waiting) < 2 or not strange.mean() > 0:
        return _undecided(common, f"{told}; it takes two ancestors, two times, and a barrier")
    fall = bootstrap(
        (first, last, strange),
        lambda a, b, u: (a.mean() - b.mean()) / u.mean(),
        paired=True,
        level=level,
        seed=seed,
    )
    checks = [-_side(fall, HALF)]
    if "error_barrier" in relatives:
        rises = _by_ancestor(relatives, "error_barrier")
        early, late = (bootstrap(rises[k], level=level, seed=seed) for k in (0, -1))
        checks += [-_side(early, CONNECTED), _side(late, CONNECTED)]
        told += f"; the error rises by {early.value:.2%} and by {late.value:.2%} on the way"
    verdict = "supported" if all(c == 1 for c in checks) else "undecided"
    verdict = "not supported" if -1 in checks else verdict
    answers = {
        "supported": "Siblings stay connected if they part late and not if they part early",
        "not supported": "The time that siblings shared does not decide whether they are connected",
        "undecided": "Whether it takes a late parting to stay connected is undecided",
    }
    return Finding(
        **common,
        **fall._asdict(),
        statement=f"{answers[verdict]}: {told}",
        verdict=verdict,
    )


def _side(interval: Interval, bound: float) -> int:
    """1 where the interval lies below the bound, −1 above, 0 where it holds it."""
    return int(interval.high < bound) - int(interval.low > bound)


def _remember(relatives: xr.Dataset, level: float, seed: int) -> Finding:
    """Distance of siblings that parted first, in distances of unrelated networks."""
    name = "aligned_distance" if "aligned_distance" in relatives else "distance"
    first = _by_ancestor(relatives, name)[0]
    time = int(relatives["waiting"].values[0])
    how = ", symmetry removed," if name == "aligned_distance" else ""
    common: dict[str, Any] = {
        "protocol": "clones",
        "question": "Do networks that part early end up as far apart as unrelated ones?",
        "null": "networks of different ancestors: ratio 1",
        "null_value": 1.0,
        "rule": (
            "As far, so that what was shared is forgotten: supported if the interval over "
            f"ancestors of the ratio of mean distances lies above {FORGOTTEN}, not supported if it "
            "lies below, else undecided"
        ),
    }
    if len(first) < 2:
        return _undecided(common, "it takes two ancestors")
    strange = _strangers(relatives, name)
    ratio = bootstrap(
        (first, strange[0]), lambda a, u: a.mean() / u.mean(), paired=True, level=level, seed=seed
    )
    verdict = ("undecided", "not supported", "supported")[_side(ratio, FORGOTTEN)]
    answers = {
        "supported": "Siblings forget their common start",
        "not supported": "Siblings remember their common start",
        "undecided": "Whether siblings forget their common start is undecided",
    }
    return Finding(
        **common,
        **ratio._asdict(),
        statement=(
            f"{answers[verdict]}: those that part after {time} steps end{how} at a distance of "
            f"{first.mean():.3g}, {ratio.value:.3g} times that of unrelated networks"
        ),
        verdict=verdict,
    )


LEVEL = 0.01
PERMUTATIONS = 9999


def _falls(relatives: xr.Dataset, level: float, seed: int) -> Finding:
    """Rank correlation of barrier and waiting time, ancestor by ancestor."""
    waiting = relatives["waiting"].values.astype(float)
    barrier = _by_ancestor(relatives, "barrier")
    common: dict[str, Any] = {
        "protocol": "clones",
        "question": "Does the barrier between siblings fall with the time that they shared?",
        "null": "waiting times shuffled within each ancestor",
        "null_value": 0.0,
        "rule": (
            "Supported if Kendall's τ of barrier and waiting time, averaged over ancestors, has "
            f"p < {LEVEL} (one-sided) and an interval over ancestors below 0; not supported if "
            "neither; else undecided. Barriers that are all equal count as τ = 0"
        ),
    }
    if len(waiting) < 3 or barrier.shape[1] < 2:
        return _undecided(common, "it takes three waiting times and two ancestors")
    taus = np.array([_tau(waiting, one) for one in barrier.T])
    interval = bootstrap(taus, level=level, seed=seed)
    shuffled = _shuffled_taus(barrier, seed)  # rounded, so that equal ones are equal
    p = p_value(round(float(taus.mean()), 9), shuffled.round(9), "less")
    below = interval.high < 0
    verdict = ("not supported", "undecided", "supported")[int(below) + int(p < LEVEL)]
    answers = {
        "supported": "The longer siblings shared a training, the lower the barrier between them",
        "not supported": "The barrier between siblings does not fall with the time they shared",
        "undecided": "Whether the barrier falls with the time shared is undecided",
    }
    return Finding(
        **common,
        **interval._asdict(),
        p=p,
        statement=(
            f"{answers[verdict]}: τ is {interval.value:.2f} on average of {len(taus)} ancestors; "
            f"{_crossing(waiting, relatives)}"
        ),
        verdict=verdict,
    )


def _shuffled_taus(
    barrier: Float[np.ndarray, "waiting ancestor"], seed: int
) -> Float[np.ndarray, "shuffle"]:
    """Mean τ of waiting times shuffled within ancestors; ties among barriers stay."""
    count, ancestors = barrier.shape
    signs = np.sign(barrier[:, None] - barrier[None])
    untied = np.abs(signs).sum((0, 1))
    generator = np.random.default_rng(np.random.SeedSequence(seed))
    total = np.zeros(PERMUTATIONS)
    for ancestor in range(ancestors):
        order = generator.permuted(np.tile(np.arange(count), (PERMUTATIONS, 1)), axis=1)
        drawn = np.sign(order[:, :, None] - order[:, None])
        agreement = (drawn * signs[..., ancestor]).sum((1, 2))
        total += agreement / np.sqrt(max(untied[ancestor], 1) * count * (count - 1))
    return total / ancestors


def _tau(waiting: Float[np.ndarray, "waiting"], barrier: Float[np.ndarray, "waiting"]) -> float:
    return float(kendalltau(waiting, barrier).statistic) if np.ptp(barrier) else 0.0


def _crossing(waiting: Float[np.ndarray, "waiting"], relatives: xr.Dataset) -> str:
    """When siblings' barrier comes below half of that between unrelated networks, in words."""
    near = relatives["barrier"].mean(("ancestor", "pair")).values
    far = relatives["unrelated_barrier"].mean(("couple", "child")).values
    if not far.size or not np.isfinite(far).all() or not (far > 0).all():
        return "there is no barrier between unrelated networks to compare it with"
    share = near / far
    below = np.flatnonzero(share < HALF)
    if not len(below):
        return "it stays above half of that between unrelated networks"
    k = int(below[0])
    if k == 0:
        return "it is below half of that between unrelated networks from the first"
    part = (share[k - 1] - HALF) / (share[k - 1] - share[k])
    ends = np.log1p(waiting[k - 1 : k + 1])
    time = np.expm1(ends[0] + part * (ends[1] - ends[0]))
    return f"it falls below half of that between unrelated networks after {time:.3g} steps"


def _by_ancestor(relatives: xr.Dataset, name: str) -> Float[np.ndarray, "waiting ancestor"]:
    return relatives[name].mean("pair").transpose("waiting", "ancestor").values.astype(float)


def _strangers(relatives: xr.Dataset, name: str) -> Float[np.ndarray, "waiting ancestor"]:
    """Means over the couples that each ancestor is in."""
    values = relatives[f"unrelated_{name}"].mean("child").transpose("waiting", "couple").values
    ends = relatives["ancestors"].transpose("couple", "end").values
    inside = [(ends == ancestor).any(1) for ancestor in relatives["ancestor"].values]
    return np.array([values[:, chosen].mean(1) for chosen in inside if chosen.any()]).T


def _undecided(common: dict[str, Any], why: str) -> Finding:
    return Finding(**common, statement=f"Undecided: {why}", value=None, verdict="undecided")
