"""Which walkers share a start: starts are the independent units, walkers are not."""

import numpy as np
import xarray as xr
from numpy.typing import NDArray

__all__ = ["by_start", "from_starts", "starts_of"]


def starts_of(walk: xr.Dataset) -> NDArray[np.intp]:
    """Label of each walker's start; each walker is its own where the walk does not say."""
    if "start" in walk:
        return np.asarray(walk["start"].values)
    return np.arange(walk.sizes["walker"])


def by_start(walk: xr.Dataset, values: np.ndarray) -> np.ndarray:
    """Means over the walkers of each start: those share its ground and are not independent.

    From one start alone the walkers are the units, and the interval is that of its walks.
    """
    starts = starts_of(walk)
    groups = np.unique(starts)
    if len(groups) in (1, len(values)):
        return values
    return np.stack([values[starts == group].mean(0) for group in groups])


def from_starts(walk: xr.Dataset) -> str:
    """Say " from 6 solutions", or nothing where each walker has its own."""
    count = len(np.unique(starts_of(walk)))
    if count == walk.sizes["walker"]:
        return ""
    return f" from {count} solution{'s' if count > 1 else ''}"
