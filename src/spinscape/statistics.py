"""Intervals and p-values: what stands beside every headline number.

Intervals are bootstrap intervals: bias-corrected and accelerated (BCa; Efron 1987,
J. Am. Stat. Assoc. 82, 171) wherever BCa is defined. What is drawn again is always the
independent unit: samples, replicas (`pair_bootstrap`) or points (`kendall`). With few units a
plain bootstrap is too narrow, so intervals are expanded as Student's t is (Hesterberg 2015,
Am. Stat. 69, 371): at 8 normal values 95 % cover about 93 %, not 88 %.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from inspect import signature
from math import isfinite
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import scipy.stats
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from spinscape.findings import Finding

__all__ = [
    "Finding",
    "Interval",
    "above",
    "bootstrap",
    "kendall",
    "numbers_of",
    "p_value",
    "pair_bootstrap",
    "share",
]

Statistic: TypeAlias = Literal["mean", "median"] | Callable[..., Any]
RESAMPLES = 4999
BATCH_NUMBERS = 2**22  # resamples are drawn so many numbers at a time: 32 MiB


class Interval(NamedTuple):
    """A number and the interval around it, at confidence `level`."""

    value: float
    low: float
    high: float
    level: float


def bootstrap(
    values: ArrayLike | tuple[ArrayLike, ...],
    statistic: Statistic = "mean",
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int,
    paired: bool = False,
) -> Interval:
    """Bootstrap interval of a statistic of independent values.

    BCa, expanded for small samples; where BCa is undefined (constant values, all resamples
    on one side of the estimate) the percentile interval of the same resamples. Resamples on
    which the statistic is not finite are left out.

    Parameters
    ----------
    values : array [sample] or tuple of arrays
        At least two finite values, or a tuple of samples for a statistic of several.
    statistic : "mean", "median" or callable
        A callable gets one array a sample and returns a number; if it has an `axis`
        argument, it is called once for many resamples. A name given two samples means
        the first sample's statistic minus the second's.
    level : float
        Confidence level, between 0 and 1.
    resamples : int
        Number of resamples.
    seed : int
        Seed of the resampling.
    paired : bool
        Draw the samples of a tuple together: element i of each belongs to one unit.

    Raises
    ------
    ValueError
        Fewer than two values, values that are not finite, paired samples of different
        lengths, or a statistic that is not finite on the values themselves.
    """
    samples = tuple(_finite(sample, "values") for sample in _as_samples(values))
    if paired and len({len(sample) for sample in samples}) > 1:
        raise ValueError(
            f"paired samples must have equal lengths, got {[len(s) for s in samples]}; "
            "pass paired=False for independent samples"
        )
    return _interval(
        samples, _statistic(statistic, len(samples)), level, resamples, seed, paired=paired
    )


def pair_bootstrap(
    values: ArrayLike,
    pairs: ArrayLike,
    statistic: Statistic = "mean",
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int,
) -> Interval:
    """Bootstrap interval of a statistic over pairs of replicas.

    Pairs that share a replica are dependent, so replicas are drawn again, not pairs: a
    pair then counts as often as the product of its replicas' counts (Owen 2007,
    arXiv 0712.1111), and a replica paired with itself does not count. This is right to
    leading order where replicas differ, and too wide where all the spread belongs to single
    pairs. If no replica is in two pairs, the pairs are independent and are drawn again
    themselves.

    Parameters
    ----------
    values : array [pair]
        One finite number a pair.
    pairs : integer array [pair, 2]
        The two different replicas of each pair, by any labels.
    statistic : "mean", "median" or callable
        A callable gets one array of values, pairs repeated as often as drawn.
    level, resamples, seed
        As in `bootstrap`.

    Raises
    ------
    ValueError
        Fewer than two pairs, shapes that do not match, a replica paired with itself, or
        values that are not finite.
    """
    numbers = _finite(values, "values")
    members = _pair_members(pairs, len(numbers))
    replicas, counts = np.unique(members, return_counts=True)
    if counts.max() == 1:
        return bootstrap(numbers, statistic, level=level, resamples=resamples, seed=seed)
    single = _statistic(statistic, 1)
    ends = np.searchsorted(replicas, members)

    def of_replicas(
        drawn: Int[np.ndarray, "*batch replica"], axis: int = -1
    ) -> Float[np.ndarray, "*batch"]:
        counts = _counts(drawn, len(replicas))
        weights = counts[..., ends[:, 0]] * counts[..., ends[:, 1]]
        if statistic == "mean":
            return weights @ numbers / weights.sum(-1)
        return np.apply_along_axis(_of_repeated, -1, weights, numbers, single)

    width = max(len(numbers), len(replicas))
    return _interval((np.arange(len(replicas)),), of_replicas, level, resamples, seed, width=width)


def kendall(
    x: ArrayLike,
    y: ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int,
) -> Interval:
    """Kendall's rank correlation τ_b of x and y, with a bootstrap interval over the points.

    τ_b is a ratio of quadratic forms in how often each point was drawn, so all resamples
    are computed at once. It takes memory of order points². BCa without expansion: the ties
    that resampling makes leave it wide enough (95 % cover 95 to 98 % at 8 to 100 points).
    Points in perfect order give an interval of width 0 at any number of points: judge those by
    `p_value` against permutations.

    Parameters
    ----------
    x, y : array [point]
        At least three points, finite, neither x nor y constant.
    level, resamples, seed
        As in `bootstrap`.

    Raises
    ------
    ValueError
        Different lengths, fewer than three points, values that are not finite, or x or y
        constant (τ is then undefined).
    """
    first, second = _finite(x, "x"), _finite(y, "y")
    if len(first) != len(second) or len(first) < 3:
        raise ValueError(
            f"kendall needs two samples of one length ≥ 3, got {len(first)} and {len(second)}"
        )
    for name, sample in (("x", first), ("y", second)):
        if np.ptp(sample) == 0:
            raise ValueError(f"{name} is constant, so that its rank correlation is undefined")
    order_x, order_y = _order(first), _order(second)
    forms = (order_x * order_y, np.abs(order_x), np.abs(order_y))

    def tau(drawn: Int[np.ndarray, "*batch point"], axis: int = -1) -> Float[np.ndarray, "*batch"]:
        counts = _counts(drawn, len(first))
        agreement, x_untied, y_untied = (((counts @ form) * counts).sum(-1) for form in forms)
        return agreement / np.sqrt(x_untied * y_untied)

    return _interval((np.arange(len(first)),), tau, level, resamples, seed, expand=False)


def share(flags: ArrayLike) -> Interval:
    """Share of true flags, with its 95 % interval by Wilson (1927), which exists where all agree.

    Parameters
    ----------
    flags : array [sample] of bool
        At least one.

    Raises
    ------
    ValueError
        If there is none.
    """
    chosen = np.asarray(flags, dtype=bool).ravel()
    if not len(chosen):
        raise ValueError("flags: expected at least one")
    found = scipy.stats.binomtest(int(chosen.sum()), len(chosen)).proportion_ci(method="wilson")
    return Interval(float(chosen.mean()), float(found.low), float(found.high), 0.95)


def numbers_of(found: Interval | None) -> dict[str, Any]:
    """Value, ends and level of an interval as the fields of a finding."""
    if found is None:
        return {"value": None, "low": None, "high": None, "level": None}
    return {"value": found.value, "low": found.low, "high": found.high, "level": found.level}


def above(found: Interval, bound: float = 0.0) -> str:
    """The verdict on whether a number exceeds a bound, by its interval."""
    if found.low > bound:
        return "supported"
    return "not supported" if found.high < bound else "undecided"


def p_value(
    observed: float,
    null: ArrayLike,
    alternative: Literal["less", "greater", "two-sided"] = "less",
) -> float:
    """Probability, under the null, of a statistic at least as extreme as the observed one.

    (1 + number of null values at least as extreme) / (1 + number of null values), which
    is valid at any number of surrogates and never below 1 / (1 + surrogates) (Phipson &
    Smyth 2010, Stat. Appl. Genet. Mol. Biol. 9, 39).

    Parameters
    ----------
    observed : float
        The statistic on the data.
    null : array [surrogate]
        The statistic on surrogates, at least one.
    alternative : "less", "greater" or "two-sided"
        Which side counts as extreme; "two-sided" is twice the smaller side, at most 1.

    Raises
    ------
    ValueError
        No surrogates, values that are not finite, or an unknown alternative.
    """
    surrogates = _finite(null, "null", least=1)
    if not isfinite(observed):
        raise ValueError(f"observed must be finite, got {observed}")
    total = 1 + len(surrogates)
    below = (1 + int(np.sum(surrogates <= observed))) / total
    above = (1 + int(np.sum(surrogates >= observed))) / total
    sides = {"less": below, "greater": above, "two-sided": min(1.0, 2 * min(below, above))}
    if alternative not in sides:
        raise ValueError(f"alternative must be one of {sorted(sides)}, got {alternative!r}")
    return sides[alternative]


def _interval(
    samples: tuple[np.ndarray, ...],
    statistic: Callable[..., Any],
    level: float,
    resamples: int,
    seed: int,
    *,
    paired: bool = False,
    expand: bool = True,
    width: int | None = None,
) -> Interval:
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}; 0.95 is usual")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    fewest, widest = min(map(len, samples)), max(map(len, samples))
    spread = _expanded(level, fewest) if expand else level
    draw = partial(
        scipy.stats.bootstrap,
        samples,
        statistic,
        paired=paired,
        confidence_level=spread,
        batch=max(1, BATCH_NUMBERS // (width or widest)),
        rng=np.random.default_rng(seed),
    )
    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        warnings.simplefilter("ignore", scipy.stats.DegenerateDataWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        over_axis = {"axis": -1} if "axis" in signature(statistic).parameters else {}
        value = float(statistic(*samples, **over_axis))
        drawn = draw(n_resamples=resamples, method="percentile").bootstrap_distribution
        kept = drawn[np.isfinite(drawn)]
        if not isfinite(value) or 2 * len(kept) < len(drawn):
            raise ValueError(
                f"the statistic is {value} on the values and finite on {len(kept)} of "
                f"{len(drawn)} resamples: too few values to bound it"
            )
        again = SimpleNamespace(bootstrap_distribution=kept)
        bounds = draw(n_resamples=0, bootstrap_result=again, method="BCa").confidence_interval
    low, high = bounds
    if not (isfinite(low) and isfinite(high)):
        low, high = np.quantile(kept, [(1 - spread) / 2, (1 + spread) / 2])
    return Interval(value, float(low), float(high), level)


def _expanded(level: float, units: int) -> float:
    bound = np.sqrt(units / (units - 1)) * scipy.stats.t.ppf((1 + level) / 2, units - 1)
    return float(1 - 2 * scipy.stats.norm.sf(bound))


def _as_samples(values: ArrayLike | tuple[ArrayLike, ...]) -> tuple[ArrayLike, ...]:
    several = isinstance(values, tuple) and any(np.ndim(value) > 0 for value in values)
    return values if several else (values,)  # type: ignore[return-value]


def _statistic(statistic: Statistic, samples: int) -> Callable[..., Any]:
    if callable(statistic):
        return statistic
    named: dict[str, Callable[..., Any]] = {"mean": np.mean, "median": np.median}
    if statistic not in named or samples > 2:
        raise ValueError(
            f"statistic {statistic!r} of {samples} samples is not known: use one of "
            f"{sorted(named)} for one or two samples, or pass a function"
        )
    single = named[statistic]
    if samples == 1:
        return single
    return lambda first, second, axis=-1: single(first, axis=axis) - single(second, axis=axis)


def _finite(values: ArrayLike, name: str, *, least: int = 2) -> Float[np.ndarray, "sample"]:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or len(numbers) < least:
        raise ValueError(
            f"{name} must be one-dimensional with at least {least} entries, "
            f"got shape {numbers.shape}"
        )
    bad = np.flatnonzero(~np.isfinite(numbers))
    if len(bad):
        raise ValueError(
            f"{name} must be finite, got {numbers[bad[0]]} at {bad[0]} and {len(bad)} such in all; "
            "leave them out visibly, or say what they mean"
        )
    return numbers


def _pair_members(pairs: ArrayLike, expected: int) -> Int[np.ndarray, "pair 2"]:
    members = np.asarray(pairs)
    if members.shape != (expected, 2):
        raise ValueError(f"pairs must have shape ({expected}, 2) as values, got {members.shape}")
    if np.any(members[:, 0] == members[:, 1]):
        raise ValueError("pairs must join different replicas, got one paired with itself")
    return members


def _counts(drawn: Int[np.ndarray, "*batch m"], units: int) -> Float[np.ndarray, "*batch unit"]:
    rows = drawn.reshape(-1, drawn.shape[-1])
    cells = rows + units * np.arange(len(rows))[:, None]
    counts = np.bincount(cells.ravel(), minlength=units * len(rows))
    return counts.reshape(*drawn.shape[:-1], units).astype(np.float64)


def _of_repeated(
    weights: Float[np.ndarray, "pair"],
    numbers: Float[np.ndarray, "pair"],
    statistic: Callable[..., Any],
) -> float:
    repeated = np.repeat(numbers, weights.astype(int))
    return float(statistic(repeated)) if len(repeated) else np.nan


def _order(sample: Float[np.ndarray, "point"]) -> Float[np.ndarray, "point point"]:
    return np.sign(sample[:, None] - sample)
