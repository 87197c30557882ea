"""How one measure goes with one target over cells: a rank correlation and its shuffles."""

from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from spinscape.glass.rugged.cells import Cells, agreement, by_axis
from spinscape.statistics import Interval, p_value, pair_bootstrap

__all__ = ["SHUFFLES", "Relation", "related"]

SHUFFLES = 999
FEWEST_CELLS = 4


class Relation(NamedTuple):
    """How one measure goes with one target.

    Attributes
    ----------
    tau : Interval
        Mean over axes of the mean agreement of the pairs of cells that differ in that axis alone.
    axis : [axis]
        Agreement along each axis, NaN for one without pairs.
    p : float
        One-sided p-value of τ against `null`.
    without : [axis]
        The same with one axis left out.
    null : [shuffle]
        τ with targets shuffled among the cells.
    """

    tau: Interval
    axis: Float[np.ndarray, "axis"]
    p: float
    without: Float[np.ndarray, "axis"]
    null: Float[np.ndarray, "shuffle"]


def related(
    cells: Cells, measure: str, target: str, axes: int, level: float, seed: int
) -> Relation | None:
    """Correlate a measure with a target; None where there is too little, or all is alike."""
    values, errors = cells.means[measure], cells.means[target]
    if len(errors) < FEWEST_CELLS or len(cells.pairs) < 2:
        return None
    if not (np.ptp(values) > 0 and np.ptp(errors) > 0):
        return None
    signs = agreement(values, errors, cells.pairs)
    average = partial(_average_of, signs, cells.axis)
    tau = pair_bootstrap(np.arange(len(signs)), cells.pairs, average, level=level, seed=seed)
    along = by_axis(signs, cells.axis, axes)
    chance = _shuffled(values, errors, cells, axes, seed)
    null = np.nanmean(chance, axis=1)
    p = p_value(tau.value, null, "greater")
    return Relation(tau, along, p, _p_without(along, chance), null)


def _average_of(
    signs: Float[np.ndarray, "pair"], axis: Int[np.ndarray, "pair"], rows: np.ndarray
) -> float:
    drawn = rows.astype(int)
    return float(np.nanmean(by_axis(signs[drawn], axis[drawn], int(axis.max()) + 1)))


def _shuffled(
    measure: Float[np.ndarray, "cell"],
    error: Float[np.ndarray, "cell"],
    cells: Cells,
    axes: int,
    seed: int,
) -> Float[np.ndarray, "shuffle axis"]:
    generator = np.random.default_rng(np.random.SeedSequence(seed))
    shuffles = [generator.permutation(error) for _ in range(SHUFFLES)]
    return np.stack(
        [by_axis(agreement(measure, e, cells.pairs), cells.axis, axes) for e in shuffles]
    )


def _p_without(
    along: Float[np.ndarray, "axis"], null: Float[np.ndarray, "shuffle axis"]
) -> Float[np.ndarray, "axis"]:
    """One-sided p-values with each axis left out; NaN where no other axis is left."""
    result = np.full(len(along), np.nan)
    for axis in np.flatnonzero(np.isfinite(along)):
        rest = np.isfinite(along) & (np.arange(len(along)) != axis)
        if rest.any():
            result[axis] = p_value(along[rest].mean(), null[:, rest].mean(1), "greater")
    return result
