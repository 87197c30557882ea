"""Whether smoother solutions generalise better: rank correlations over cells of hyper-parameters.

The unit is a cell (one setting of all hyper-parameters), with measures and test error averaged over
its replicas: replicas of one cell say little new about hyper-parameters. Cells are compared that
differ in *one* hyper-parameter (Jiang et al., arXiv 1912.02178), for a correlation over all cells
may come from one that moves both quantities. The question is that of arXiv 2407.20724.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from spinscape.glass.records import labelled, provenance
from spinscape.statistics import Finding, kendall, p_value, pair_bootstrap

__all__ = ["AXES", "MEASURES", "generalisation", "generalisation_findings"]

SOURCE = "one hyper-parameter at a time: arXiv 1912.02178; question of arXiv 2407.20724"
AXES = ("learning_rate", "weight_decay", "batch_size", "width")
MEASURES = {"roughness": "roughness index", "local_energy": "local energy"}
SHUFFLES = 999
LEVEL = 0.05
FEWEST_CELLS = 4


class _Cells(NamedTuple):
    """Means over the replicas of each cell, and the pairs of cells that differ in one axis."""

    measures: dict[str, Float[np.ndarray, "cell"]]
    error: Float[np.ndarray, "cell"]
    pairs: Int[np.ndarray, "pair 2"]
    axis: Int[np.ndarray, "pair"]
    used: int


def generalisation(
    measured: xr.Dataset,
    *,
    measures: Sequence[str] = tuple(MEASURES),
    axes: Sequence[str] = AXES,
    level: float = 0.95,
    seed: int,
) -> xr.Dataset:
    """Correlate measures of ruggedness with the test error, one hyper-parameter at a time.

    Parameters
    ----------
    measured : Dataset
        Over ``replica``: the measures, ``test_error``, the hyper-parameters, and where there are
        any ``reached`` (the training loss aimed at) and ``diverged``; replicas that did not reach
        it or diverged do not count.
    measures, axes : sequence of str
        Names of variables.
    level : float
        Of the intervals.
    seed : int
        Of resampling and shuffles.

    Returns
    -------
    Dataset
        Over ``measure``: ``tau``, the mean of sign(Δmeasure · Δerror) over pairs of cells that
        differ in one axis, with ``tau_low`` and ``tau_high`` (cells redrawn), and ``tau_all``,
        Kendall's τ_b over all cells, with its interval; ``tau_axis`` [measure, axis], the mean
        over pairs of that axis; ``tau_null`` [measure, shuffle], τ after the errors of the cells
        were shuffled. NaN where there are too few cells, or where all have one value. ``cells``
        and ``used``, the number of replicas in them, are in the attributes.
    """
    cells = _cells(measured, measures, axes)
    shape = (len(measures),)
    found = {name: np.full(shape, np.nan) for name in ("tau", "tau_low", "tau_high")}
    found |= {name: np.full(shape, np.nan) for name in ("tau_all", "tau_all_low", "tau_all_high")}
    by_axis = np.full((*shape, len(axes)), np.nan)
    null = np.full((*shape, SHUFFLES), np.nan)
    enough = len(cells.error) >= FEWEST_CELLS and len(cells.pairs) > 1
    for k, name in enumerate(measures if enough else ()):
        if not (np.ptp(cells.measures[name]) > 0 and np.ptp(cells.error) > 0):
            continue
        signs = _agreement(cells.measures[name], cells.error, cells.pairs)
        one = pair_bootstrap(signs, cells.pairs, level=level, seed=seed)
        found["tau"][k], found["tau_low"][k], found["tau_high"][k], _ = one
        by_axis[k] = [_mean(signs[cells.axis == j]) for j in range(len(axes))]
        null[k] = _shuffled(cells.measures[name], cells, seed)
        every = kendall(cells.measures[name], cells.error, level=level, seed=seed)
        found["tau_all"][k], found["tau_all_low"][k], found["tau_all_high"][k], _ = every
    words = {
        "tau": "Kendall τ, one setting at a time",
        "tau_all": "Kendall τ over all settings",
    }
    result = xr.Dataset(
        {
            name: labelled("measure", v, words.get(name, f"{name} bound"))
            for name, v in found.items()
        },
        coords={"measure": list(measures), "axis": list(axes)},
        attrs=provenance("generalisation", SOURCE, seed, level=level, cells=len(cells.error)),
    )
    result["tau_axis"] = labelled(("measure", "axis"), by_axis, "Kendall τ along one setting")
    result["tau_null"] = labelled(("measure", "shuffle"), null, "Kendall τ of shuffled errors")
    result.attrs |= {"level": level, "cells": len(cells.error), "used": cells.used}
    return result


def generalisation_findings(correlated: xr.Dataset) -> list[Finding]:
    """Judge each measure of a Dataset of `generalisation`."""
    return [_finding(correlated.sel(measure=name)) for name in correlated["measure"].values]


def _finding(one: xr.Dataset) -> Finding:
    name = MEASURES.get(str(one["measure"].item()), str(one["measure"].item()))
    counted = f"{one.attrs['used']} networks in {one.attrs['cells']} settings"
    common: dict[str, Any] = {
        "protocol": "ruggedness",
        "question": f"At equal training loss, does a lower {name} go with a lower test error?",
        "null": "test errors shuffled among the settings: τ is 0 on average",
        "null_value": 0.0,
        "rule": (
            "Supported if the interval of τ over pairs of settings that differ in one "
            f"hyper-parameter lies above 0 and p < {LEVEL} against shuffled errors; not supported "
            "if the interval lies below 0.1; else undecided"
        ),
    }
    value = float(one["tau"])
    if not np.isfinite(value):
        why = f"{counted} reached the training loss aimed at: too few to compare, or all alike"
        return Finding(**common, statement=f"Undecided: {why}", value=None, verdict="undecided")
    low, high, null = float(one["tau_low"]), float(one["tau_high"]), one["tau_null"].values
    p = p_value(value, null, "greater")
    supported = low > 0 and p < LEVEL
    verdict = "supported" if supported else "not supported" if high < 0.1 else "undecided"
    answers = {
        "supported": f"A lower {name} goes with a lower test error",
        "not supported": f"A lower {name} does not go with a lower test error",
        "undecided": f"Whether a lower {name} goes with a lower test error is undecided",
    }
    return Finding(
        **common,
        statement=(
            f"{answers[verdict]}: over {counted} the two orders agree with τ = {value:.2g} when "
            f"one setting is varied at a time ({float(one['tau_all']):.2g} over all settings)"
        ),
        value=value,
        low=low,
        high=high,
        level=one.attrs["level"],
        p=p,
        verdict=verdict,
    )


def _used(measured: xr.Dataset) -> Bool[np.ndarray, "replica"]:
    used = np.isfinite(measured["test_error"].values)
    if "reached" in measured:
        used &= measured["reached"].values.astype(bool)
    if "diverged" in measured:
        used &= ~measured["diverged"].values.astype(bool)
    return used


def _cells(measured: xr.Dataset, measures: Sequence[str], axes: Sequence[str]) -> _Cells:
    used = _used(measured)
    for name in measures:
        used &= np.isfinite(measured[name].values)
    settings = np.stack([measured[axis].values[used].astype(float) for axis in axes], axis=1)
    cells, member = np.unique(settings, axis=0, return_inverse=True)
    member = member.ravel()
    sizes = np.bincount(member, minlength=len(cells))

    def means(name: str) -> np.ndarray:
        values = measured[name].values[used].astype(float)
        return np.bincount(member, values, minlength=len(cells)) / sizes

    first, second = np.triu_indices(len(cells), 1)
    differs = cells[first] != cells[second]
    alone = differs.sum(1) == 1
    pairs = np.stack([first, second], axis=1)[alone]
    axis = differs[alone].argmax(1) if len(pairs) else np.empty(0, int)
    errors = means("test_error")
    return _Cells({name: means(name) for name in measures}, errors, pairs, axis, int(used.sum()))


def _agreement(
    measure: Float[np.ndarray, "cell"], error: Float[np.ndarray, "cell"], pairs: np.ndarray
) -> Float[np.ndarray, "pair"]:
    first, second = pairs.T
    return np.sign(measure[first] - measure[second]) * np.sign(error[first] - error[second])


def _shuffled(
    measure: Float[np.ndarray, "cell"], cells: _Cells, seed: int
) -> Float[np.ndarray, "shuffle"]:
    generator = np.random.default_rng(np.random.SeedSequence(seed))
    shuffles = [generator.permutation(cells.error) for _ in range(SHUFFLES)]
    return np.array([_agreement(measure, error, cells.pairs).mean() for error in shuffles])


def _mean(values: Float[np.ndarray, "pair"]) -> float:
    return float(values.mean()) if len(values) else np.nan
