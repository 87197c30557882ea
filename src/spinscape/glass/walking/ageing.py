"""Two-time displacements: how walkers spread from a waiting time on, and whether they age.

Δ(t_w, t_w + t) = ‖w(t_w + t) − w(t_w)‖²/n (Baity-Jesi et al., arXiv 1803.06969). In equilibrium,
and in free diffusion, it depends on the lag t alone; in a glass that ages it falls as t_w grows.
"""

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from spinscape.glass.walking.convergence import equilibrium_note
from spinscape.glass.walking.starts import by_start, from_starts
from spinscape.records import labelled
from spinscape.statistics import Finding, Interval, bootstrap

__all__ = ["ageing_finding", "relaxation"]


def relaxation(walk: xr.Dataset, *, level: float = 0.95, seed: int = 0) -> xr.Dataset:
    """Exponents of the two-time displacement, and how much it falls with the waiting time.

    All waiting times are compared over the same lags: the last decade of those that the longest
    waiting time leaves. There a straight line through log ⟨Δ⟩ against log lag gives the exponent
    (1 free, 2 ballistic, 0 in a well). The ageing ratio is that of ⟨Δ⟩ from the longest waiting
    time to ⟨Δ⟩ from the shortest, its logarithm averaged over these lags: 1 where only the lag
    counts, below 1 where walkers slow down with age, above 1 where they still warm up.

    Parameters
    ----------
    walk : Dataset
        Of ``walk(…, waiting=…)``; with ``start [walker]``, starts are the units.
    level : float
        Confidence of the bootstrap intervals over starts.
    seed : int
        Of the bootstrap.

    Returns
    -------
    Dataset
        ``exponent``, ``exponent_low``, ``exponent_high`` over ``waiting``; ``ageing``,
        ``ageing_low``, ``ageing_high`` (NaN with a single waiting time); ``lag_range [end]``, the
        lags compared.

    Raises
    ------
    ValueError
        If there is no ``two_time``, fewer than three recorded lags lie in the last decade, there
        are fewer than two starts, or none moved.
    """
    log_lag, curves = _curves(walk)
    centred = log_lag - log_lag.mean()
    slope, units = centred / (centred @ centred), np.arange(curves.shape[1])

    def interval(of: Any) -> Interval:
        def statistic(drawn: NDArray[Any], axis: int = -1) -> NDArray[np.float64]:
            counts = (drawn[..., None] == units).sum(-2)
            return np.asarray(of([np.log(counts @ curve / len(units)) for curve in curves]))

        return bootstrap(units, statistic, level=level, seed=seed)

    exponents = [interval(lambda y, k=k: y[k] @ slope) for k in range(len(curves))]
    ratio = Interval(np.nan, np.nan, np.nan, level)
    if len(curves) > 1:
        ratio = interval(lambda y: np.exp((y[-1] - y[0]).mean(-1)))
    result = xr.Dataset(coords={"waiting": walk["waiting"]})
    for k, suffix in enumerate(("", "_low", "_high")):
        words = ("", ", lower bound", ", upper bound")[k]
        values = [exponent[k] for exponent in exponents]
        name = "exponent of the mean-square displacement"
        result[f"exponent{suffix}"] = labelled("waiting", values, name + words)
        name = "displacement after the longest wait over that after the shortest"
        result[f"ageing{suffix}"] = labelled((), ratio[k], name + words)
    lags = np.exp(log_lag[[0, -1]])
    result["lag_range"] = labelled("end", lags, "lags compared, least and most", "steps")
    return result.assign_attrs(level=level)


def _curves(walk: xr.Dataset) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log lags, and displacements ``[waiting, start, lag]`` at these."""
    if "two_time" not in walk:
        raise ValueError("walk: it has no two_time; give walk(…, waiting=[…])")
    data = walk["two_time"].transpose("waiting", "walker", "step").values.astype(float)
    steps, waits = walk["step"].values.astype(float), walk["waiting"].values.astype(float)
    longest = steps[-1] - waits[-1]
    lags = steps - waits[-1]
    lags = lags[lags >= max(longest / 10, 1)]
    if len(lags) < 3:
        raise ValueError(
            f"walk: {len(lags)} recorded lags in the last decade after waiting {waits[-1]:.0f} "
            "steps, expected 3 or more; raise record or wait less"
        )
    curves = []
    for wait, displacement in zip(waits, data, strict=True):
        later = steps > wait
        rows = by_start(walk, displacement[:, later])
        if not rows.mean(0).all():
            raise ValueError("walk: no walker moved, so that displacement has no exponent")
        at = np.log(lags), np.log(steps[later] - wait)
        if at[1][0] > at[0][0] + 1e-9:
            raise ValueError(
                f"walk: nothing was recorded within {lags[0]:.0f} steps of waiting time "
                f"{wait:.0f}; raise record"
            )
        # Where lags differ, each start's curve is interpolated between its recorded lags.
        rows = np.stack([np.interp(at[0], at[1], row) for row in rows])
        curves.append(rows)
    return np.log(lags), np.stack(curves)


SLOWER = 0.9  # a ratio this close to 1 is time-translation invariance for all one cares


def ageing_finding(walk: xr.Dataset, *, level: float = 0.95, seed: int = 0) -> Finding:
    """Judge whether thermal walkers slow down as they grow older."""
    common: dict[str, Any] = {
        "protocol": "walk",
        "question": "Do thermal walkers slow down as they grow older, as a glass does?",
        "null": "equilibrium or free diffusion: displacement depends on the lag alone, ratio 1",
        "null_value": 1.0,
        "rule": (
            "Supported if the interval of the ageing ratio (displacement over the same lags, "
            f"longest waiting time over shortest) lies below {SLOWER}, not supported if it lies "
            "above, else undecided"
        ),
    }
    try:
        found = relaxation(walk, level=level, seed=seed)
    except ValueError as reason:
        statement = f"Undecided: no ageing ratio of the thermal walk ({reason})"
        return Finding(**common, statement=statement, value=None, verdict="undecided")
    waits = walk["waiting"].values
    exponents = ", ".join(f"{value:.3g}" for value in found["exponent"].values)
    told = (
        f"{walk.sizes['walker']} walkers{from_starts(walk)} spread as the lag to the power "
        f"{exponents} after waiting {', '.join(map(str, waits))} steps"
    )
    if len(waits) < 2:
        statement = f"Undecided: {told}; one waiting time tells no ageing"
        return Finding(**common, statement=statement, value=None, verdict="undecided")
    value, low, high = (float(found[f"ageing{suffix}"]) for suffix in ("", "_low", "_high"))
    ratio = Interval(value, low, high, level)
    slower, steady = ratio.high < SLOWER, ratio.low > SLOWER
    verdict = "supported" if slower else "not supported" if steady else "undecided"
    answers = {
        "supported": "Walkers slow down with age",
        "not supported": "Walkers do not slow down with age",
        "undecided": "Whether walkers slow down with age is undecided",
    }
    return Finding(
        **common,
        **ratio._asdict(),
        statement=f"{answers[verdict]}: {told}, and over the same lags came {ratio.value:.3g} "
        f"times as far (squared) from the longest wait as from the shortest"
        f"{equilibrium_note(walk)}",
        verdict=verdict,
    )
