"""Autocorrelation of the energy along a walk: over how many steps the ground stays like itself.

r(k) is the correlation of energies k steps apart (Weinberger 1990, Biol. Cybern. 63, 325). A short
length means rugged ground, but a free walk on *any* ground has a rising energy, so each walker's
straight line is subtracted first, which takes the quadratic law (linear in time) with it.

What is left over still has a length in a smooth bowl. There a free walker's changes of energy, less
their mean, are martingale differences: ΔE = g(w)·ξ + ½ξ·Hξ has the same mean ½tr(SHS) wherever the
walker is, so that changes are uncorrelated, however large they have become. On rugged ground a step
up is followed by steps down. The null therefore gives each change of the same walk (less the
walker's mean change) a sign at random, and measures again: same size at every time, same
detrending, no memory of what came before.
"""

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from spinscape.glass.walking.starts import by_start, from_starts
from spinscape.records import labelled
from spinscape.statistics import Finding, Interval, bootstrap, p_value

__all__ = ["autocorrelation", "correlation_finding"]

_Array = NDArray[np.float64]
FEWEST = 8
DETRENDS = ("line", "mean")
BAND = 999  # resamples of the band, one interval a lag


def autocorrelation(
    walk: xr.Dataset,
    *,
    detrend: str = "line",
    lags: int | None = None,
    surrogates: int = 199,
    level: float = 0.95,
    seed: int = 0,
) -> xr.Dataset:
    """Autocorrelation of the detrended energy, its lengths, and those of surrogates.

    Parameters
    ----------
    walk : Dataset
        Of `walk`, recorded at even distances; with ``start [walker]``, starts are the units.
    detrend : {"line", "mean"}
        Subtract each walker's own least-squares line, or, of stationary walks over one landscape,
        the mean over all walkers and steps. A line makes r(k) of a short walk too small at long
        lags, alike in walk and surrogates.
    lags : int, optional
        Longest lag, in records; half the record if not given.
    surrogates : int
        Sign-flipped surrogates; 0 leaves the null out.
    level : float
        Confidence of the bootstrap intervals over starts.
    seed : int
        Of surrogates and bootstrap.

    Returns
    -------
    Dataset
        ``correlation [walker, lag]`` of each walker; ``correlation_mean``, ``_low``, ``_high``
        ``[lag]`` of the covariances averaged over starts; ``correlation_length`` (first fall below
        1/e, between lags on a straight line; the longest lag where it never falls) and
        ``integrated_length`` (½ + Σr up to the first r ≤ 0), each with ``_low``, ``_high``, in
        steps; of the surrogates, ``correlation_null``, ``correlation_null_low``, ``_high`` (5 and
        95 %) over ``lag`` and ``null_length [surrogate]``.

    Raises
    ------
    ValueError
        If the record is uneven or has fewer than 8 steps, an energy is not finite or constant, or
        there are fewer than two starts.
    """
    if detrend not in DETRENDS:
        raise ValueError(f"detrend={detrend!r}: expected one of {', '.join(DETRENDS)}")
    energy, spacing = _even(walk)
    longest = energy.shape[1] // 2 if lags is None else lags
    if not 1 <= longest < energy.shape[1]:
        raise ValueError(f"lags={lags}: expected 1 to {energy.shape[1] - 1}")
    single = _covariance(_detrended(energy, detrend), longest)
    if not (single[:, 0] > 0).all():
        raise ValueError("walk: a walker's energy is constant, so that it has no correlation")
    covariance = by_start(walk, single)
    mean = covariance.mean(0) / covariance[:, 0].mean()
    result = xr.Dataset(coords={"lag": spacing * np.arange(longest + 1)})
    result["lag"].attrs.update(long_name="steps between", units="1")
    result["correlation"] = labelled(
        ("walker", "lag"), single / single[:, :1], "autocorrelation of the energy"
    )
    result["correlation_mean"] = labelled("lag", mean, "autocorrelation of the energy, mean")
    band = np.array([_at_lag(covariance, k, level, seed) for k in range(longest + 1)])
    for side, values in zip(("low", "high"), band.T, strict=True):
        result[f"correlation_{side}"] = labelled("lag", values, f"its {side} bound")
    for name, measure in (("correlation_length", _crossing), ("integrated_length", _integrated)):
        found = _length(covariance, measure, level, seed)
        for value, suffix in zip(found, ("", "_low", "_high"), strict=False):
            words = name.replace("_", " ") + suffix.replace("_", ", ")
            result[name + suffix] = labelled((), spacing * value, words, "steps")
    if surrogates:
        _add_null(result, walk, energy, detrend, surrogates, seed)
    return result.assign_attrs(detrend=detrend, level=level, surrogates=surrogates, seed=seed)


def _even(walk: xr.Dataset) -> tuple[_Array, float]:
    energy = walk["energy"].transpose("walker", "step").values.astype(float)
    steps = np.diff(walk["step"].values)
    if energy.shape[1] < FEWEST or np.ptp(steps) > 1:
        apart = f", {steps.min()} to {steps.max()} steps apart" if len(steps) else ""
        raise ValueError(
            f"walk: {energy.shape[1]} records{apart}: expected {FEWEST} or more at even distances; "
            "give record as a number"
        )
    if not np.isfinite(energy).all():
        raise ValueError("walk: an energy is not finite; take smaller steps or fewer")
    return energy, float(steps.mean())


def _detrended(energy: _Array, detrend: str) -> _Array:
    if detrend == "mean":
        return energy - energy.mean()
    time = np.arange(energy.shape[-1]) - (energy.shape[-1] - 1) / 2
    slope = energy @ time / (time @ time)
    return energy - energy.mean(-1, keepdims=True) - slope[..., None] * time


def _covariance(series: _Array, longest: int) -> _Array:
    """Mean product of values so many records apart, by the Fourier transform."""
    count = series.shape[-1]
    spectrum = np.fft.rfft(series, 2 * count)
    sums = np.fft.irfft(np.abs(spectrum) ** 2, 2 * count)[..., : longest + 1]
    return sums / (count - np.arange(longest + 1))


def _at_lag(covariance: _Array, lag: int, level: float, seed: int) -> tuple[float, float]:
    if lag == 0:
        return 1.0, 1.0

    def ratio(c: _Array, v: _Array, axis: int = -1) -> _Array:
        return np.asarray(c.mean(axis) / v.mean(axis))

    samples = (covariance[:, lag], covariance[:, 0])
    found = bootstrap(samples, ratio, paired=True, level=level, resamples=BAND, seed=seed)
    return found.low, found.high


def _length(covariance: _Array, measure: Any, level: float, seed: int) -> Interval:
    units = np.arange(len(covariance))

    def of(drawn: NDArray[Any], axis: int = -1) -> _Array:
        counts = (drawn[..., None] == units).sum(-2)
        some = counts @ covariance
        return measure(some / some[..., :1])

    return bootstrap(units, of, level=level, seed=seed)


def _crossing(r: _Array) -> _Array:
    """Where r ``[…, lag]`` first falls below 1/e; the longest lag where it never does."""
    below = r < np.exp(-1)
    k = np.where(below.any(-1), below.argmax(-1), r.shape[-1] - 1)[..., None]
    before, after = np.take_along_axis(r, k - 1, -1), np.take_along_axis(r, k, -1)
    part = np.where(after < np.exp(-1), (before - np.exp(-1)) / (before - after), 1.0)
    return np.asarray((k - 1 + part)[..., 0])


def _integrated(r: _Array) -> _Array:
    positive = np.logical_and.accumulate(r > 0, axis=-1)
    return np.asarray(np.where(positive, r, 0.0)[..., 1:].sum(-1) + 0.5)


def _add_null(
    result: xr.Dataset, walk: xr.Dataset, energy: _Array, detrend: str, count: int, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    changes = np.diff(energy, axis=-1)
    changes -= changes.mean(-1, keepdims=True)
    longest, curves = result.sizes["lag"] - 1, []
    for _ in range(count):
        signs = generator.integers(0, 2, changes.shape) * 2 - 1
        path = np.cumsum(signs * changes, axis=-1)
        path = np.concatenate([np.zeros((len(path), 1)), path], -1)
        covariance = by_start(walk, _covariance(_detrended(path, detrend), longest)).mean(0)
        curves.append(covariance / covariance[0])
    spacing = float(result["lag"][1])
    lengths = [spacing * _crossing(curve) for curve in curves]
    low, high = np.quantile(curves, [0.05, 0.95], axis=0)
    name = "autocorrelation of surrogates without memory"
    result["correlation_null"] = labelled("lag", np.mean(curves, axis=0), name)
    result["correlation_null_low"] = labelled("lag", low, f"{name}, 5 %")
    result["correlation_null_high"] = labelled("lag", high, f"{name}, 95 %")
    result["null_length"] = labelled("surrogate", lengths, f"length of {name}", "steps")


SHORTER = 0.9  # a length this close to the surrogates' is theirs for all one cares
LEVEL_OF_P = 0.01


def correlation_finding(free: xr.Dataset, *, level: float = 0.95, seed: int = 0) -> Finding:
    """Judge whether a free walk's energy forgets itself sooner than on smooth ground."""
    common: dict[str, Any] = {
        "protocol": "walk",
        "question": "Does the loss along a free walk forget itself sooner than over a bowl?",
        "null": (
            "the same changes of the loss with random signs, as uncorrelated as over any "
            "quadratic bowl: ratio of correlation lengths 1"
        ),
        "null_value": 1.0,
        "rule": (
            "The ground is rugged along the walk: supported if the interval of the correlation "
            f"length over the surrogates' lies below {SHORTER} and p < {LEVEL_OF_P}, not "
            f"supported if it lies above {SHORTER}, else undecided"
        ),
    }
    try:
        found = autocorrelation(free, level=level, seed=seed)
    except ValueError as reason:
        statement = f"Undecided: no correlation length of the free walk ({reason})"
        return Finding(**common, statement=statement, value=None, verdict="undecided")
    null = found["null_length"].values
    names = ("correlation_length", "correlation_length_low", "correlation_length_high")
    length = [float(found[name]) for name in names]
    value, low, high = (steps / null.mean() for steps in length)
    ratio = Interval(value, low, high, level)
    p = p_value(length[0], null, "less")
    shorter, as_long = ratio.high < SHORTER and p < LEVEL_OF_P, ratio.low > SHORTER
    verdict = "supported" if shorter else "not supported" if as_long else "undecided"
    answers = {
        "supported": "The ground is rugged along the walk",
        "not supported": "The ground is as smooth along the walk as a bowl",
        "undecided": "Whether the ground is rugged along the walk is undecided",
    }
    return Finding(
        **common,
        **ratio._asdict(),
        p=p,
        statement=f"{answers[verdict]}: the loss of {free.sizes['walker']} walkers"
        f"{from_starts(free)}, less its straight line, was correlated over {length[0]:.3g} of "
        f"{int(free['step'].max())} steps, {ratio.value:.3g} times as long as with its changes' "
        "signs drawn at random",
        verdict=verdict,
    )
