"""Tails of a sample of positive numbers: a power law, its goodness of fit, and its rivals.

The method of Clauset, Shalizi and Newman (2009, SIAM Rev. 51, 661): maximum likelihood above the
x_min that brings the fitted and the empirical distribution closest (Kolmogorov and Smirnov), a
p-value by semi-parametric bootstrap, and Vuong's likelihood ratio against other tails above the
same x_min.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.optimize
import scipy.stats
from jaxtyping import Float
from numpy.typing import ArrayLike

__all__ = ["PowerLawTail", "power_law_tail"]

FEWEST = 10
"""Numbers above x_min that a fit needs."""

CANDIDATES = 50


class PowerLawTail(NamedTuple):
    """A tail p(x) ∝ x^(−alpha) above x_min, and how well it fits.

    Attributes
    ----------
    alpha, alpha_error : float
        Exponent, and its standard error (alpha − 1)/√n.
    x_min : float
        Where the tail begins.
    numbers : int
        Numbers in the tail.
    distance : float
        Kolmogorov-Smirnov distance.
    p : float
        Share of samples drawn from the fit that fit no better; below 0.1 the power law is ruled
        out.
    against_exponential, against_lognormal : float
        Vuong's normalised log likelihood ratio: positive where the power law is the better one.
    p_exponential, p_lognormal : float
        Two-sided p-value of its sign.
    """

    alpha: float
    alpha_error: float
    x_min: float
    numbers: int
    distance: float
    p: float
    against_exponential: float
    p_exponential: float
    against_lognormal: float
    p_lognormal: float


def power_law_tail(values: ArrayLike, *, bootstraps: int = 100, seed: int = 0) -> PowerLawTail:
    """Fit a power law to the tail of positive numbers and test it.

    Parameters
    ----------
    values : array [sample]
        Numbers that are not positive are left out.
    bootstraps : int
        Samples of the goodness of fit; its p-value is known to ½/√bootstraps.
    seed : int
        Of these.

    Raises
    ------
    ValueError
        If fewer than 20 positive numbers are left.
    """
    numbers = np.sort(np.asarray(values, dtype=float))
    numbers = numbers[numbers > 0]
    if len(numbers) < 2 * FEWEST or numbers[0] == numbers[-1]:
        raise ValueError(
            f"values: {len(numbers)} positive numbers, expected {2 * FEWEST} or more, not all equal"
        )
    x_min, alpha, distance = _fitted(numbers)
    tail = numbers[numbers >= x_min]
    generator = np.random.default_rng(seed)
    worse = 0
    for _ in range(bootstraps):
        worse += _fitted(_redrawn(numbers, x_min, alpha, generator))[2] >= distance
    logs = np.log(alpha - 1) - np.log(x_min) - alpha * np.log(tail / x_min)
    exponential, p_exponential = _vuong(logs, _exponential(tail, x_min))
    lognormal, p_lognormal = _vuong(logs, _lognormal(tail, x_min))
    return PowerLawTail(
        alpha,
        (alpha - 1) / np.sqrt(len(tail)),
        x_min,
        len(tail),
        distance,
        worse / bootstraps if bootstraps else np.nan,
        exponential,
        p_exponential,
        lognormal,
        p_lognormal,
    )


def _fitted(numbers: Float[np.ndarray, "sample"]) -> tuple[float, float, float]:
    """x_min, exponent and distance of the best tail of sorted numbers."""
    last = len(numbers) - FEWEST
    candidates = np.unique(np.linspace(0, last, min(CANDIDATES, last + 1)).astype(int))
    best = (float(numbers[0]), 2.0, np.inf)
    for first in candidates:
        x_min = numbers[first]
        tail = numbers[first:]
        spread = np.log(tail / x_min).sum()
        if spread <= 0:
            continue
        alpha = 1 + len(tail) / spread
        cumulative = 1 - (tail / x_min) ** (1 - alpha)
        ranks = np.arange(len(tail) + 1) / len(tail)
        distance = max((ranks[1:] - cumulative).max(), (cumulative - ranks[:-1]).max())
        if distance < best[2]:
            best = (float(x_min), float(alpha), float(distance))
    return best


def _redrawn(
    numbers: Float[np.ndarray, "sample"],
    x_min: float,
    alpha: float,
    generator: np.random.Generator,
) -> Float[np.ndarray, "sample"]:
    """As many numbers: below x_min from the sample, above it from the fit."""
    body = numbers[numbers < x_min]
    above = generator.random(len(numbers)) < 1 - len(body) / len(numbers)
    drawn = x_min * (1 - generator.random(len(numbers))) ** (-1 / (alpha - 1))
    if len(body):
        drawn = np.where(above, drawn, generator.choice(body, len(numbers)))
    return np.sort(drawn)


def _exponential(tail: Float[np.ndarray, "tail"], x_min: float) -> Float[np.ndarray, "tail"]:
    rate = 1 / (tail.mean() - x_min)
    return np.log(rate) - rate * (tail - x_min)


def _lognormal(tail: Float[np.ndarray, "tail"], x_min: float) -> Float[np.ndarray, "tail"]:
    """Log densities of a log-normal cut off below x_min, at its maximum likelihood."""
    logs = np.log(tail)

    def densities(parameters: np.ndarray) -> np.ndarray:
        mean, spread = parameters[0], np.exp(parameters[1])
        beyond = scipy.stats.norm.logsf((np.log(x_min) - mean) / spread)
        return scipy.stats.norm.logpdf(logs, mean, spread) - logs - beyond

    start = np.array([logs.mean(), np.log(logs.std() + 1e-12)])
    minimise: Any = scipy.optimize.minimize
    found = minimise(
        lambda parameters: float(-densities(parameters).sum()), start, method="Nelder-Mead"
    )
    return densities(found.x)


def _vuong(
    ours: Float[np.ndarray, "tail"], other: Float[np.ndarray, "tail"]
) -> tuple[float, float]:
    difference = ours - other
    spread = difference.std() * np.sqrt(len(difference))
    if not spread > 0:
        return 0.0, 1.0
    ratio = float(difference.sum() / spread)
    return ratio, float(2 * scipy.stats.norm.sf(abs(ratio)))
