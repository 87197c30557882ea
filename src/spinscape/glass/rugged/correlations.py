"""Whether smoother solutions generalise better: rank correlations over cells of hyper-parameters.

The unit is a cell (one setting of all hyper-parameters), with measures and test error averaged over
its replicas: replicas of one cell say little new about hyper-parameters. Cells are compared that
differ in *one* hyper-parameter (Jiang et al., arXiv 1912.02178), for a correlation over all cells
may come from one that moves both quantities. The question is that of arXiv 2407.20724. How well a
network generalises is its test error; beside it stand the gaps between test and training error and
between test and training loss. All measures ask one question, so their p-values are corrected for
their number (Holm 1979, Scand. J. Stat. 6, 65).
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from spinscape.glass.rugged import rank_relations
from spinscape.glass.rugged.cells import TARGETS, agreement, by_axis, cells_of, counted, target_of
from spinscape.glass.rugged.rank_relations import related
from spinscape.records import labelled, provenance
from spinscape.statistics import Finding, kendall

__all__ = ["AXES", "MEASURES", "TARGETS", "generalisation", "generalisation_findings"]

SOURCE = "one hyper-parameter at a time: arXiv 1912.02178; question of arXiv 2407.20724"
AXES = ("learning_rate", "weight_decay", "batch_size", "width", "optimizer")
MEASURES = {
    "roughness": "roughness index",
    "local_energy": "local energy",
    "walk_ruggedness": "inverse correlation length of walks",
    "adaptive_sharpness": "adaptive sharpness",
    "relative_flatness": "relative flatness (large: sharp)",
    "hessian_trace": "Hessian trace",
    "local_entropy": "local entropy",
    "learning_coefficient": "local learning coefficient",
}
LEVEL = 0.05
STRONG = 0.5
WORDS = {
    "tau": "Kendall τ, one setting at a time",
    "tau_all": "Kendall τ over all settings",
    "p": "p-value against shuffled errors",
    "p_holm": "the same, corrected for the number of measures",
    "p_without": "p-value with this setting left out",
    "p_without_holm": "the same, corrected for the number of measures",
    "tau_axis": "Kendall τ along one setting",
    "tau_null": "Kendall τ of shuffled errors",
    "tau_of": "Kendall τ with each target, one setting at a time",
    "p_of": "p-value against a shuffled target",
    "tau_of_null_low": "lower end of the middle of Kendall τ with a shuffled target",
    "tau_of_null_high": "upper end of the same",
}
DIMENSIONS = {
    "tau_axis": ("measure", "axis"),
    "p_without": ("measure", "axis"),
    "p_without_holm": ("measure", "axis"),
    "tau_null": ("measure", "shuffle"),
}


def generalisation(
    measured: xr.Dataset,
    *,
    measures: Sequence[str] | None = None,
    axes: Sequence[str] | None = None,
    target: str = "test_error",
    level: float = 0.95,
    seed: int,
) -> xr.Dataset:
    """Correlate measures of ruggedness with the test error, one hyper-parameter at a time.

    Parameters
    ----------
    measured : Dataset
        Over ``replica``: the measures, ``test_error``, the hyper-parameters (numbers or words), and
        where there are any ``train_error``, ``test_loss``, ``train_loss``, ``reached`` (the
        training loss aimed at) and ``diverged``; replicas that did not reach it, diverged, or have
        a measure that is not finite do not count.
    measures, axes : sequence of str, optional
        Names of variables; if not given, all of `MEASURES` and `AXES` that there are.
    target : {"test_error", "gap_error", "gap_loss"}
        What is judged: the test error, or test less training error or loss.
    level : float
        Of the intervals.
    seed : int
        Of resampling and shuffles.

    Returns
    -------
    Dataset
        Over ``measure``: ``tau``, the mean over axes of the mean of sign(Δmeasure · Δtarget) over
        pairs of cells that differ in that axis alone, and ``tau_low``, ``tau_high`` (cells redrawn,
        which is conservative: the noise of single pairs counts several times); ``tau_all``,
        Kendall's τ_b over all cells, with its interval; ``tau_axis`` [measure, axis]; ``p`` and
        ``p_without`` [measure, axis], one-sided p-values of ``tau`` and of the same with one axis
        left out, against targets shuffled among the cells, and corrected by Holm for the number of
        measures ``p_holm``, ``p_without_holm``; ``tau_null`` [measure, shuffle]. Over ``measure``
        and ``target``, for all targets that there are: ``tau_of``, its interval, ``p_of`` and the
        range that holds `level` of its null, ``tau_of_null_low`` and ``…_high``. NaN where there
        are too few cells, or where all have one value. In the attributes: ``target``, ``cells``,
        ``used`` (replicas in them), the range of their training losses (``least_loss``,
        ``most_loss``), ``tau_train_loss``, the same τ between training loss and target as a
        control, and ``rugged_slices``, the mean fraction of slices with more than one minimum.

    Raises
    ------
    ValueError
        If the target is unknown or not there, or there is no measure or axis.
    """
    measures = _present(measured, measures, MEASURES, "measures")
    axes = _present(measured, axes, AXES, "axes")
    targets = [name for name in TARGETS if target_of(measured, name) is not None]
    if target not in targets:
        raise ValueError(f"target={target!r}: expected one of those there are, {targets}")
    cells = cells_of(measured, measures, axes, targets)
    found = _blank(len(measures), len(axes), len(targets))
    for k, name in enumerate(measures):
        for j, other in enumerate(targets):
            one = related(cells, name, other, len(axes), level, seed)
            if one is None:
                continue
            ends = np.quantile(one.null, [(1 - level) / 2, (1 + level) / 2])
            numbers = (*one.tau[:3], one.p, *ends)
            for column, number in zip(_OF_TARGETS, numbers, strict=True):
                found[column][k, j] = number
            if other == target:
                every = kendall(cells.means[name], cells.means[other], level=level, seed=seed)
                numbers = (*one.tau[:3], *every[:3], one.p)
                for column, number in zip(_OF_MEASURES, numbers, strict=True):
                    found[column][k] = number
                found["tau_axis"][k], found["tau_null"][k] = one.axis, one.null
                found["p_without"][k] = one.without
    found["p_holm"] = _holm(found["p"])
    found["p_without_holm"] = np.stack([_holm(p) for p in found["p_without"].T], axis=1)
    result = _dataset(found, measures, axes, targets)
    settings = {"level": level, "measures": list(measures), "target": target}
    result.attrs.update(provenance("generalisation", SOURCE, seed, **settings))
    counts = {
        "cells": len(cells.means[target]),
        "used": cells.used,
        "replicas": measured.sizes["replica"],
    }
    around = _circumstances(measured, axes, target)
    result.attrs |= {"level": level, "target": target, **counts, **around}
    return result


_OF_MEASURES = ("tau", "tau_low", "tau_high", "tau_all", "tau_all_low", "tau_all_high", "p")
_OF_TARGETS = (
    "tau_of",
    "tau_of_low",
    "tau_of_high",
    "p_of",
    "tau_of_null_low",
    "tau_of_null_high",
)


def _blank(measures: int, axes: int, targets: int) -> dict[str, np.ndarray]:
    found = {name: np.full(measures, np.nan) for name in _OF_MEASURES}
    found |= {name: np.full((measures, targets), np.nan) for name in _OF_TARGETS}
    found |= {name: np.full((measures, axes), np.nan) for name in ("tau_axis", "p_without")}
    return found | {"tau_null": np.full((measures, rank_relations.SHUFFLES), np.nan)}


def _dataset(
    found: dict[str, np.ndarray], measures: Sequence[str], axes: Sequence[str], targets: list[str]
) -> xr.Dataset:
    coords = {"measure": list(measures), "axis": list(axes), "target": targets}
    result = xr.Dataset(coords=coords)
    for name, values in found.items():
        usual = ("measure", "target") if values.ndim > 1 else ("measure",)
        words = WORDS.get(name, f"{name} bound")
        result[name] = labelled(DIMENSIONS.get(name, usual), values, words)
    return result


def generalisation_findings(correlated: xr.Dataset) -> list[Finding]:
    """Judge each measure of a Dataset of `generalisation`."""
    return [_finding(correlated.sel(measure=name)) for name in correlated["measure"].values]


def _finding(one: xr.Dataset) -> Finding:
    name = MEASURES.get(str(one["measure"].item()), str(one["measure"].item()))
    target = TARGETS[one.attrs["target"]]
    networks = (
        f"{one.attrs['used']} of {one.attrs['replicas']} networks, in {one.attrs['cells']} settings"
    )
    common: dict[str, Any] = {
        "protocol": "ruggedness",
        "question": f"At equal training loss, do {name} and {target} go together?",
        "null": f"{target}s shuffled among the settings: τ is 0 on average",
        "null_value": 0.0,
        "rule": (
            "τ compares settings that differ in one hyper-parameter and averages over these. "
            f"Supported if p < {LEVEL}, corrected by Holm for the number of measures, against "
            "shuffled errors with each hyper-parameter left out in turn, lest a single one that "
            "moves both carry it; not supported if with all of them the uncorrected p ≥ "
            f"{LEVEL} and the interval excludes a strong relation (τ ≥ {STRONG}); else undecided"
        ),
    }
    value = float(one["tau"])
    if not np.isfinite(value):
        why = f"{networks}, reached the training loss aimed at: too few to compare, or all alike"
        return Finding(**common, statement=f"Undecided: {why}", value=None, verdict="undecided")
    along = one["tau_axis"].dropna("axis")
    without = one["p_without_holm"].dropna("axis").values
    p, low, high = float(one["p_holm"]), float(one["tau_low"]), float(one["tau_high"])
    supported = len(without) > 1 and p < LEVEL and bool((without < LEVEL).all())
    refuted = float(one["p"]) >= LEVEL and high < STRONG
    verdict = "supported" if supported else "not supported" if refuted else "undecided"
    pair = f"a lower {name} and a lower {target}"
    answers = {
        "supported": f"A{pair[1:]} go together",
        "not supported": f"A{pair[1:]} do not go together"
        + (", but opposite ways" if high < 0 else ""),
        "undecided": f"Whether {pair} go together is undecided",
    }
    axes = ", ".join(
        f"{str(axis).replace('_', ' ')} {tau:.2g}"
        for axis, tau in zip(along["axis"].values, along.values, strict=True)
    )
    return Finding(
        **common,
        statement=f"{answers[verdict]}: over {networks}, τ = {value:.2g} when one setting is "
        f"varied at a time ({axes}){_others(one)}{_beside(one)}",
        value=value,
        low=low,
        high=high,
        level=one.attrs["level"],
        p=p,
        verdict=verdict,
    )


def _others(one: xr.Dataset) -> str:
    """The same τ with the other targets."""
    words = ""
    for name in one["target"].values:
        other = one.sel(target=name)
        if str(name) != one.attrs["target"] and bool(other["tau_of"].notnull()):
            low, high = float(other["tau_of_low"]), float(other["tau_of_high"])
            words += f"; with the {TARGETS[str(name)]} τ = {float(other['tau_of']):.2g} "
            words += f"({low:.2g} to {high:.2g})"
    return words


def _beside(one: xr.Dataset) -> str:
    """What a reader must know beside τ: are slices rugged, how equal are training losses."""
    words = ""
    if str(one["measure"].item()) == "roughness" and "rugged_slices" in one.attrs:
        words += f"; {one.attrs['rugged_slices']:.1%} of the slices have more than one minimum"
    if "least_loss" in one.attrs:
        low, high = one.attrs["least_loss"], one.attrs["most_loss"]
        words += f"; training losses from {low:.3g} to {high:.3g} nats"
    if np.isfinite(one.attrs.get("tau_train_loss", np.nan)):
        words += f", whose own τ with the {TARGETS[one.attrs['target']]} is "
        words += f"{one.attrs['tau_train_loss']:.2g}"
    return words


def _circumstances(measured: xr.Dataset, axes: Sequence[str], target: str) -> dict[str, float]:
    found: dict[str, float] = {}
    used = counted(measured, [target])
    if not used.any():
        return found
    if "rugged_slices" in measured:
        found["rugged_slices"] = float(measured["rugged_slices"].values[used].mean())
    if "train_loss" in measured:
        losses = measured["train_loss"].values[used]
        found |= {"least_loss": float(losses.min()), "most_loss": float(losses.max())}
        control = cells_of(measured, ["train_loss"], axes, [target])
        if len(control.pairs):
            signs = agreement(control.means["train_loss"], control.means[target], control.pairs)
            found["tau_train_loss"] = float(np.nanmean(by_axis(signs, control.axis, len(axes))))
    return found


def _present(
    measured: xr.Dataset, given: Sequence[str] | None, known: Iterable[str], argument: str
) -> list[str]:
    """Names that are there: those given, or all known ones."""
    names = [name for name in known if name in measured] if given is None else list(given)
    missing = [name for name in names if name not in measured]
    if missing or not names:
        raise ValueError(
            f"{argument}={names}: {missing or 'none'} among the variables of measured, "
            f"which are {', '.join(map(str, measured.data_vars))}"
        )
    return names


def _holm(p: Float[np.ndarray, "measure"]) -> Float[np.ndarray, "measure"]:
    """p-values corrected for their number by Holm's step-down rule; NaN counts as no test."""
    result = p.copy()
    order = np.argsort(p)[: np.isfinite(p).sum()]
    factors = np.arange(len(order), 0, -1)
    result[order] = np.minimum(np.maximum.accumulate(factors * p[order]), 1.0)
    return result
