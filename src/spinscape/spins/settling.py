"""Whether a sample is in equilibrium: chains against one another, hot against cold, over time."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import xarray as xr
from arviz_stats.base import array_stats
from jaxtyping import Float

from spinscape.records import labelled

__all__ = ["FEWEST", "equilibration"]

FEWEST = 16
"""Measurements below which nothing can be said."""

BINS = 4
TAIL = (0.05, 0.95)


def equilibration(
    samples: xr.Dataset,
    *,
    largest_rhat: float = 1.01,
    least_ess: float = 400.0,
    largest_z: float = 3.0,
) -> xr.Dataset:
    """Return a sample with what tells whether it is in equilibrium, temperature by temperature.

    A temperature passes if, of energy and squared overlap, the rank-normalised split R-hat of the
    replicas is below `largest_rhat` and the smaller of the bulk and tail effective sample sizes
    above `least_ess` (Vehtari et al. 2021), if hot and cold pairs agree in ⟨q²⟩ within `largest_z`
    standard errors (where there are both), and if the energy of the last half of the record
    agrees with that of the quarter before it. A quantity that is constant passes only if no chain
    differs from another.

    Parameters
    ----------
    samples : Dataset
        Of `sample`, with at least 16 measurements.
    largest_rhat, least_ess, largest_z : float
        The rule.

    Returns
    -------
    Dataset
        ``rhat``, ``ess [quantity, temperature]``; ``hot_minus_cold``, ⟨q²⟩, and
        ``hot_minus_cold_error [temperature]``; ``energy_bins`` and ``energy_bins_error
        [temperature, bin]`` over sixteenth, eighth, quarter and half of the record;
        ``equilibrated [temperature]``; the attribute ``equilibrated`` sums it up.

    Raises
    ------
    ValueError
        If there are fewer measurements.
    """
    if samples.sizes["measurement"] < FEWEST:
        raise ValueError(
            f"samples: {samples.sizes['measurement']} measurements, expected {FEWEST} or more; "
            "raise sweeps, or lower every"
        )
    quantities = {"energy": samples["energy"].values}
    if "overlap" in samples:
        quantities["squared overlap"] = samples["overlap"].values ** 2
    judged = {name: _diagnosed(values) for name, values in quantities.items()}
    rhat = np.stack([judged[name][0] for name in quantities])
    ess = np.stack([judged[name][1] for name in quantities])
    passed = ((rhat < largest_rhat) & (ess > least_ess)).all(0)
    bins, errors = _log_bins(quantities["energy"])
    drift = np.abs(bins[:, -1] - bins[:, -2])
    passed &= drift <= largest_z * np.hypot(errors[:, -1], errors[:, -2]) + 1e-12
    gap, gap_error = _hot_minus_cold(samples)
    both = np.isfinite(gap)
    passed &= ~both | (np.abs(gap) <= largest_z * gap_error + 1e-12)
    result = samples.assign_coords(quantity=list(quantities))
    named: dict[str, tuple[Any, np.ndarray, str, str]] = {
        "rhat": (("quantity", "temperature"), rhat, "rank-normalised split R-hat", "1"),
        "ess": (("quantity", "temperature"), ess, "effective sample size", "1"),
        "energy_bins": (("temperature", "bin"), bins, "energy over time bins", "weights"),
        "energy_bins_error": (("temperature", "bin"), errors, "standard error", "weights"),
        "hot_minus_cold": ("temperature", gap, "⟨q²⟩ of hot minus cold pairs", "1"),
        "hot_minus_cold_error": ("temperature", gap_error, "its standard error", "1"),
        "equilibrated": ("temperature", passed, "whether it passes", "1"),
    }
    for name, (dims, values, told, units) in named.items():
        result[name] = labelled(dims, values, told, units)
    return result.assign_attrs(
        samples.attrs
        | {
            "equilibrated": _told(passed, samples["temperature"].values, both.any()),
            "largest_rhat": largest_rhat,
            "least_ess": least_ess,
        }
    )


def _diagnosed(
    values: Float[np.ndarray, "temperature chain measurement"],
) -> tuple[Float[np.ndarray, "temperature"], Float[np.ndarray, "temperature"]]:
    """R-hat and effective sample size, a single chain split in two."""
    rhat, ess = np.full(len(values), np.nan), np.full(len(values), np.nan)
    for t, chains in enumerate(values):
        if len(chains) == 1:
            half = chains.shape[1] // 2
            chains = np.stack([chains[0, :half], chains[0, -half:]])
        if np.ptp(chains) == 0:
            rhat[t], ess[t] = 1.0, chains.size
        elif (np.ptp(chains, axis=1) > 0).all():
            axes = {"chain_axis": 0, "draw_axis": 1}
            rhat[t] = array_stats.rhat(chains, **axes)
            ess[t] = min(
                float(array_stats.ess(chains, method="bulk", **axes)),
                float(array_stats.ess(chains, method="tail", prob=TAIL, **axes)),
            )
    return rhat, ess


def _log_bins(
    energy: Float[np.ndarray, "temperature replica measurement"],
) -> tuple[Float[np.ndarray, "temperature bin"], Float[np.ndarray, "temperature bin"]]:
    """Means over the last half, the quarter before it …, oldest first, with their errors."""
    length = energy.shape[-1]
    edges = [0, *(length >> k for k in range(BINS - 1, 0, -1)), length]
    means, errors = [], []
    for low, high in pairwise(edges):
        part = energy[..., low:high]
        means.append(part.mean((1, 2)))
        errors.append(_standard_errors(part))
    return np.stack(means, 1), np.stack(errors, 1)


def _standard_errors(
    values: Float[np.ndarray, "temperature chain measurement"],
) -> Float[np.ndarray, "temperature"]:
    """Of the mean over chains and time: from blocks of time, as many as the record allows."""
    blocks = min(8, values.shape[-1])
    parts = np.array_split(values, blocks, axis=-1)
    means = np.stack([part.mean(-1) for part in parts], -1)
    flat = means.reshape(len(means), -1)
    return flat.std(1, ddof=1) / np.sqrt(flat.shape[1])


def _hot_minus_cold(
    samples: xr.Dataset,
) -> tuple[Float[np.ndarray, "temperature"], Float[np.ndarray, "temperature"]]:
    nothing = np.full(samples.sizes["temperature"], np.nan)
    if "overlap" not in samples or samples["cold"].values.all() or not samples["cold"].any():
        return nothing, nothing.copy()
    squares, cold = samples["overlap"].values ** 2, samples["cold"].values
    hot, from_cold = squares[:, ~cold], squares[:, cold]
    error = np.hypot(_standard_errors(hot), _standard_errors(from_cold))
    return hot.mean((1, 2)) - from_cold.mean((1, 2)), error


def _told(
    passed: np.ndarray, temperatures: Float[np.ndarray, "temperature"], compared: bool
) -> str:
    starts = "" if compared else " (hot and cold starts not compared: that takes 4 replicas)"
    if passed.all():
        return f"yes, at all {len(passed)} temperatures{starts}"
    failed = ", ".join(f"{heat:.3g}" for heat in temperatures[~passed][:6])
    more = ", …" if (~passed).sum() > 6 else ""
    return f"NOT at {(~passed).sum()} of {len(passed)} temperatures: {failed}{more}{starts}"
