"""Cells of hyper-parameters: means over the networks of each setting, and which two to compare.

Two cells are compared if they differ in one hyper-parameter alone.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

__all__ = ["TARGETS", "Cells", "agreement", "by_axis", "cells_of", "counted", "target_of"]

TARGETS = {
    "test_error": "test error",
    "gap_error": "gap between test and training error",
    "gap_loss": "gap between test and training loss",
}


class Cells(NamedTuple):
    """Means over the replicas of each cell, and the pairs of cells that differ in one axis."""

    means: dict[str, Float[np.ndarray, "cell"]]
    pairs: Int[np.ndarray, "pair 2"]
    axis: Int[np.ndarray, "pair"]
    used: int


def target_of(measured: xr.Dataset, name: str) -> Float[np.ndarray, "replica"] | None:
    """Values of a target; None where what it is made of is missing."""
    if name in measured:
        return measured[name].values.astype(float)
    kind = name.removeprefix("gap_")
    if kind == name or f"test_{kind}" not in measured or f"train_{kind}" not in measured:
        return None
    return measured[f"test_{kind}"].values - measured[f"train_{kind}"].values.astype(float)


def _column(measured: xr.Dataset, name: str) -> Float[np.ndarray, "replica"]:
    """Values of a variable or target as numbers; words are numbered."""
    found = target_of(measured, name) if name in TARGETS else measured[name].values
    assert found is not None
    if found.dtype.kind in "USO":
        found = np.unique(found.astype(str), return_inverse=True)[1]
    return found.astype(float)


def counted(measured: xr.Dataset, names: Iterable[str]) -> Bool[np.ndarray, "replica"]:
    """Mark replicas that count: not diverged, near the loss aimed at, all values finite."""
    used = np.ones(measured.sizes["replica"], dtype=bool)
    for name in names:
        used &= np.isfinite(_column(measured, name))
    if "reached" in measured:
        used &= measured["reached"].values.astype(bool)
    if "diverged" in measured:
        used &= ~measured["diverged"].values.astype(bool)
    return used


def cells_of(
    measured: xr.Dataset, measures: Sequence[str], axes: Sequence[str], targets: Sequence[str]
) -> Cells:
    """Average measures and targets over the replicas of each cell that count."""
    names = [*measures, *targets]
    used = counted(measured, names)
    settings = np.stack([_column(measured, axis)[used] for axis in axes], axis=1)
    cells, member = np.unique(settings, axis=0, return_inverse=True)
    member = member.ravel()
    sizes = np.bincount(member, minlength=len(cells))
    means = {
        name: np.bincount(member, _column(measured, name)[used], minlength=len(cells)) / sizes
        for name in names
    }
    first, second = np.triu_indices(len(cells), 1)
    differs = cells[first] != cells[second]
    alone = differs.sum(1) == 1
    pairs = np.stack([first, second], axis=1)[alone]
    axis = differs[alone].argmax(1) if len(pairs) else np.empty(0, int)
    return Cells(means, pairs, axis, int(used.sum()))


def agreement(
    measure: Float[np.ndarray, "cell"], error: Float[np.ndarray, "cell"], pairs: np.ndarray
) -> Float[np.ndarray, "pair"]:
    """1 where measure and error order a pair alike, −1 where they do not, 0 for ties."""
    first, second = pairs.T
    return np.sign(measure[first] - measure[second]) * np.sign(error[first] - error[second])


def by_axis(
    signs: Float[np.ndarray, "pair"], axis: Int[np.ndarray, "pair"], axes: int
) -> Float[np.ndarray, "axis"]:
    """Mean over the pairs of each axis, NaN for an axis without pairs."""
    count = np.bincount(axis, minlength=axes)
    with np.errstate(invalid="ignore"):
        return np.bincount(axis, signs, minlength=axes) / count
