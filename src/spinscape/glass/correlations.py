"""Whether smoother solutions generalise better: rank correlations over cells of hyper-parameters.

The unit is a cell (one setting of all hyper-parameters), with measures and test error averaged over
its replicas: replicas of one cell say little new about hyper-parameters. Cells are compared that
differ in *one* hyper-parameter (Jiang et al., arXiv 1912.02178), for a correlation over all cells
may come from one that moves both quantities. The question is that of arXiv 2407.20724.
"""

from collections.abc import Sequence
from functools import partial
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
STRONG = 0.5
FEWEST_CELLS = 4
WORDS = {
    "tau": "Kendall τ, one setting at a time",
    "tau_all": "Kendall τ over all settings",
    "p": "p-value against shuffled errors",
}


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
        Over ``measure``: ``tau``, the mean over axes of the mean of sign(Δmeasure · Δerror) over
        pairs of cells that differ in that axis alone, and ``tau_low``, ``tau_high`` (cells redrawn,
        which is conservative: the noise of single pairs counts several times); ``tau_all``,
        Kendall's τ_b over all cells, with its interval; ``tau_axis`` [measure, axis]; ``p`` and
        ``p_without`` [measure, axis], one-sided p-values of ``tau`` and of the same with one axis
        left out, against errors shuffled among the cells; ``tau_null`` [measure, shuffle]. NaN
        where there are too few cells, or where all have one value. In the attributes: ``cells``,
        ``used`` (replicas in them), the range of their training losses (``least_loss``,
        ``most_loss``), ``tau_train_loss``, the same τ between training loss and test error as a
        control, and ``rugged_slices``, the mean fraction of slices with more than one minimum.
    """
    cells = _cells(measured, measures, axes)
    shape = (len(measures),)
    numbers = ("tau", "tau_low", "tau_high", "tau_all", "tau_all_low", "tau_all_high", "p")
    found = {name: np.full(shape, np.nan) for name in numbers}
    by_axis, without = (np.full((*shape, len(axes)), np.nan) for _ in range(2))
    null = np.full((*shape, SHUFFLES), np.nan)
    enough = len(cells.error) >= FEWEST_CELLS and len(cells.pairs) > 1
    for k, name in enumerate(measures if enough else ()):
        values = cells.measures[name]
        if not (np.ptp(values) > 0 and np.ptp(cells.error) > 0):
            continue
        signs = _agreement(values, cells.error, cells.pairs)
        average = partial(_average_of, signs, cells.axis)
        rows = np.arange(len(signs))
        one = pair_bootstrap(rows, cells.pairs, average, level=level, seed=seed)
        found["tau"][k], found["tau_low"][k], found["tau_high"][k], _ = one
        every = kendall(values, cells.error, level=level, seed=seed)
        found["tau_all"][k], found["tau_all_low"][k], found["tau_all_high"][k], _ = every
        by_axis[k] = _by_axis(signs, cells.axis, len(axes))
        chance = _shuffled(values, cells, len(axes), seed)
        null[k] = np.nanmean(chance, axis=1)
        found["p"][k] = p_value(one.value, null[k], "greater")
        without[k] = _p_without(by_axis[k], chance)
    result = xr.Dataset(
        {
            name: labelled("measure", v, WORDS.get(name, f"{name} bound"))
            for name, v in found.items()
        },
        coords={"measure": list(measures), "axis": list(axes)},
        attrs=provenance("generalisation", SOURCE, seed, level=level, measures=list(measures)),
    )
    both = ("measure", "axis")
    result["tau_axis"] = labelled(both, by_axis, "Kendall τ along one setting")
    result["p_without"] = labelled(both, without, "p-value with this setting left out")
    result["tau_null"] = labelled(("measure", "shuffle"), null, "Kendall τ of shuffled errors")
    counts = {"cells": len(cells.error), "used": cells.used, "replicas": measured.sizes["replica"]}
    result.attrs |= {"level": level, **counts, **_circumstances(measured, axes)}
    return result


def generalisation_findings(correlated: xr.Dataset) -> list[Finding]:
    """Judge each measure of a Dataset of `generalisation`."""
    return [_finding(correlated.sel(measure=name)) for name in correlated["measure"].values]


def _finding(one: xr.Dataset) -> Finding:
    name = MEASURES.get(str(one["measure"].item()), str(one["measure"].item()))
    counted = (
        f"{one.attrs['used']} of {one.attrs['replicas']} networks, in {one.attrs['cells']} settings"
    )
    common: dict[str, Any] = {
        "protocol": "ruggedness",
        "question": f"At equal training loss, do {name} and test error go together?",
        "null": "test errors shuffled among the settings: τ is 0 on average",
        "null_value": 0.0,
        "rule": (
            "τ compares settings that differ in one hyper-parameter and averages over these. "
            f"Supported if p < {LEVEL} against shuffled errors with each hyper-parameter left out "
            "in turn, lest a single one that moves both carry it; not supported if with all of "
            f"them p ≥ {LEVEL} and the interval excludes a strong relation (τ ≥ {STRONG}); else "
            "undecided"
        ),
    }
    value = float(one["tau"])
    if not np.isfinite(value):
        why = f"{counted}, reached the training loss aimed at: too few to compare, or all alike"
        return Finding(**common, statement=f"Undecided: {why}", value=None, verdict="undecided")
    along = one["tau_axis"].dropna("axis")
    without = one["p_without"].dropna("axis").values
    p, low, high = float(one["p"]), float(one["tau_low"]), float(one["tau_high"])
    supported = len(without) > 1 and p < LEVEL and bool((without < LEVEL).all())
    refuted = p >= LEVEL and high < STRONG
    verdict = "supported" if supported else "not supported" if refuted else "undecided"
    answers = {
        "supported": f"A lower {name} and a lower test error go together",
        "not supported": f"A lower {name} and a lower test error do not go together",
        "undecided": f"Whether a lower {name} and a lower test error go together is undecided",
    }
    axes = ", ".join(
        f"{str(axis).replace('_', ' ')} {tau:.2g}"
        for axis, tau in zip(along["axis"].values, along.values, strict=True)
    )
    return Finding(
        **common,
        statement=f"{answers[verdict]}: over {counted}, τ = {value:.2g} when one setting is varied "
        f"at a time ({axes}){_beside(one)}",
        value=value,
        low=low,
        high=high,
        level=one.attrs["level"],
        p=p,
        verdict=verdict,
    )


def _beside(one: xr.Dataset) -> str:
    """What a reader must know beside τ: are slices rugged, how equal are training losses."""
    words = ""
    if str(one["measure"].item()) == "roughness" and "rugged_slices" in one.attrs:
        words += f"; {one.attrs['rugged_slices']:.1%} of the slices have more than one minimum"
    if "least_loss" in one.attrs:
        low, high = one.attrs["least_loss"], one.attrs["most_loss"]
        words += f"; training losses from {low:.3g} to {high:.3g} nats"
    if np.isfinite(one.attrs.get("tau_train_loss", np.nan)):
        words += f", whose own τ with the test error is {one.attrs['tau_train_loss']:.2g}"
    return words


def _circumstances(measured: xr.Dataset, axes: Sequence[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    used = _used(measured)
    if not used.any():
        return found
    if "rugged_slices" in measured:
        found["rugged_slices"] = float(measured["rugged_slices"].values[used].mean())
    if "train_loss" in measured:
        losses = measured["train_loss"].values[used]
        found |= {"least_loss": float(losses.min()), "most_loss": float(losses.max())}
        control = _cells(measured, ["train_loss"], axes)
        if len(control.pairs):
            values = control.measures["train_loss"]
            signs = _agreement(values, control.error, control.pairs)
            found["tau_train_loss"] = float(np.nanmean(_by_axis(signs, control.axis, len(axes))))
    return found


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


def _by_axis(
    signs: Float[np.ndarray, "pair"], axis: Int[np.ndarray, "pair"], axes: int
) -> Float[np.ndarray, "axis"]:
    """Mean over the pairs of each axis, NaN for an axis without pairs."""
    count = np.bincount(axis, minlength=axes)
    with np.errstate(invalid="ignore"):
        return np.bincount(axis, signs, minlength=axes) / count


def _average_of(
    signs: Float[np.ndarray, "pair"], axis: Int[np.ndarray, "pair"], rows: np.ndarray
) -> float:
    drawn = rows.astype(int)
    return float(np.nanmean(_by_axis(signs[drawn], axis[drawn], int(axis.max()) + 1)))


def _shuffled(
    measure: Float[np.ndarray, "cell"], cells: _Cells, axes: int, seed: int
) -> Float[np.ndarray, "shuffle axis"]:
    generator = np.random.default_rng(np.random.SeedSequence(seed))
    shuffles = [generator.permutation(cells.error) for _ in range(SHUFFLES)]
    return np.stack(
        [_by_axis(_agreement(measure, e, cells.pairs), cells.axis, axes) for e in shuffles]
    )


def _p_without(
    by_axis: Float[np.ndarray, "axis"], null: Float[np.ndarray, "shuffle axis"]
) -> Float[np.ndarray, "axis"]:
    """One-sided p-values with each axis left out; NaN where no other axis is left."""
    result = np.full(len(by_axis), np.nan)
    for axis in np.flatnonzero(np.isfinite(by_axis)):
        rest = np.isfinite(by_axis) & (np.arange(len(by_axis)) != axis)
        if rest.any():
            result[axis] = p_value(by_axis[rest].mean(), null[:, rest].mean(1), "greater")
    return result
