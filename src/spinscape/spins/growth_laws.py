"""How T_c grows while a network trains: a power law against other laws, seed by seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.optimize
import xarray as xr
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike

from spinscape.records import labelled, provenance

__all__ = ["LAWS", "Law", "first_ordered", "growth"]

FEWEST = 6
"""Ordered checkpoints that a fit needs."""


@dataclass(frozen=True)
class Law:
    """A form of T_c(t): a function of t and its parameters, and where a fit begins."""

    function: Callable[..., np.ndarray]
    start: Callable[[np.ndarray, np.ndarray], list[float]]
    words: str


def _slope(t: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope and intercept of ln y against ln t."""
    slope, intercept = np.polyfit(np.log(t), np.log(y), 1)
    return float(slope), float(intercept)


LAWS: dict[str, Law] = {
    "power": Law(
        lambda t, c, alpha: c * t**alpha,
        lambda t, y: [float(np.exp(_slope(t, y)[1])), _slope(t, y)[0]],
        "c t^α",
    ),
    "offset power": Law(
        lambda t, a, c, alpha: a + c * t**alpha,
        lambda t, y: [0.5 * float(y.min()), 0.5 * float(y.min()), max(_slope(t, y)[0], 0.05)],
        "a + c t^α",
    ),
    "logarithm": Law(
        lambda t, a, b: a + b * np.log(t),
        lambda t, y: [float(y[0]), float(np.ptp(y) / np.ptp(np.log(t)))],
        "a + b ln t",
    ),
    "saturating": Law(
        lambda t, a, b, tau: a - b * np.exp(-t / max(abs(tau), 1e-9)),
        lambda t, y: [float(y.max()), float(np.ptp(y)), float(np.median(t))],
        "a − b exp(−t/τ)",
    ),
}


def growth(
    step: ArrayLike, T_c: ArrayLike, ordered: ArrayLike, *, source: str = "arXiv 2408.06421"
) -> xr.Dataset:
    """Fit laws of growth to the ordered checkpoints of every seed.

    Least squares on the logarithm of T_c, because its spread grows with it; laws are compared by
    the corrected Akaike criterion. Residuals along one training are not independent, so that a
    difference counts only if it comes back from seed to seed: seeds are the units of all
    intervals.

    Parameters
    ----------
    step : array [step]
        Training steps; 0 is left out.
    T_c : array [replica, step]
        Critical temperatures.
    ordered : boolean array [replica, step]
        Which checkpoints enter.
    source : str
        Recorded.

    Returns
    -------
    Dataset
        ``alpha``, ``offset_alpha`` (of c t^α and of a + c t^α), ``criterion [replica, law]``,
        ``advantage [replica]``: the best criterion of the two other laws less the best of the two
        power laws, positive where a power law is the better one; ``checkpoints [replica]``, how
        many entered. Not a number where fewer than six did.

    Raises
    ------
    ValueError
        If the shapes do not fit.
    """
    times, heats = np.asarray(step, float), np.asarray(T_c, float)
    kept = np.asarray(ordered, bool)
    if heats.ndim != 2 or kept.shape != heats.shape or heats.shape[1] != len(times):
        raise ValueError(
            f"T_c: shape {heats.shape}, ordered: {kept.shape}, step: {times.shape}; expected "
            "[replica, step], the same, and [step]"
        )
    criterion = np.full((len(heats), len(LAWS)), np.nan)
    alpha, offset_alpha = np.full(len(heats), np.nan), np.full(len(heats), np.nan)
    used = kept & (times > 0)
    for row in range(len(heats)):
        if used[row].sum() < FEWEST:
            continue
        t, y = times[used[row]], heats[row, used[row]]
        for k, (name, law) in enumerate(LAWS.items()):
            parameters, criterion[row, k] = _fit(law, t, y)
            if name == "power":
                alpha[row] = parameters[1]
            elif name == "offset power":
                offset_alpha[row] = parameters[2]
    names = list(LAWS)
    power = np.minimum(criterion[:, 0], criterion[:, 1])
    others = np.minimum(criterion[:, 2], criterion[:, 3])
    return xr.Dataset(
        {
            "alpha": labelled("replica", alpha, "exponent of c t^α"),
            "offset_alpha": labelled("replica", offset_alpha, "exponent of a + c t^α"),
            "criterion": labelled(("replica", "law"), criterion, "corrected Akaike criterion"),
            "advantage": labelled("replica", others - power, "criterion: other laws less power"),
            "checkpoints": labelled("replica", used.sum(1), "ordered checkpoints"),
        },
        {"law": names},
        provenance("growth", source, 0),
    )


def _fit(
    law: Law, t: Float[np.ndarray, "time"], y: Float[np.ndarray, "time"]
) -> tuple[Float[np.ndarray, "parameter"], float]:
    """Parameters, and AICc of the residuals of ln y; a law that goes below zero fits nothing."""

    def residuals(parameters: np.ndarray) -> np.ndarray:
        found = law.function(t, *parameters)
        return np.log(np.maximum(found, 1e-9 * y.min())) - np.log(y)

    start = np.array(law.start(t, y))
    solved = scipy.optimize.least_squares(
        residuals, start, x_scale=np.maximum(np.abs(start), 1e-3), max_nfev=2000
    )
    number, parameters = len(t), len(start) + 1  # the residuals' variance is one more
    mean_square = max(float(np.mean(solved.fun**2)), 1e-30)
    penalty = 2 * parameters * number / max(number - parameters - 1, 1)
    return solved.x, float(number * np.log(mean_square) + penalty)


def first_ordered(
    step: Float[np.ndarray, "step"], ordered: Bool[np.ndarray, "replica step"]
) -> Float[np.ndarray, "replica"]:
    """Step from which a replica stays ordered; not a number where it never does."""
    found = np.full(len(ordered), np.nan)
    for row, flags in enumerate(ordered):
        glasses = np.flatnonzero(~flags)
        after = glasses[-1] + 1 if len(glasses) else 0
        if after < len(step):
            found[row] = step[after]
    return found
