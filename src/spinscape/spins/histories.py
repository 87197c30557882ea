"""A network while it trains: phases, TAP solutions, spectra and overlaps at its checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr

from spinscape.records import labelled
from spinscape.spins.couplings import SpinModel
from spinscape.spins.laziness import weight_change
from spinscape.spins.mean_field import tap
from spinscape.spins.phases import phase
from spinscape.spins.readings import observables
from spinscape.spins.sampling import sample
from spinscape.spins.spectra import spectrum

__all__ = ["overlap_history", "phase_history", "spectrum_history", "tap_history"]

SCANNED = 64
"""Values of β that are kept of a stability scan; no scan needs as many."""


def phase_history(
    models: Sequence[SpinModel],
    steps: Sequence[int],
    *,
    permutations: int = 4,
    seed: int = 0,
) -> xr.Dataset:
    """Phase and critical temperature of every checkpoint of a training.

    Parameters
    ----------
    models : sequence of SpinModel
        The checkpoints of one network; the first is taken for the start.
    steps : sequence of int
        Their training steps.
    permutations, seed : int
        As in `phase`.

    Returns
    -------
    Dataset
        The variables of `phase` along ``step``, and ``weight_change [step]``, ‖W − W₀‖/‖W₀‖.
    """
    found = [_padded(phase(each, permutations=permutations, seed=seed)) for each in models]
    result = xr.concat(found, "step", combine_attrs="override")
    points = torch.stack([torch.cat([w.flatten() for w in each.layers]) for each in models])
    result["weight_change"] = labelled("step", weight_change(points[0], points), "‖W − W₀‖/‖W₀‖")
    return result.assign_coords(step=_steps(steps))


def tap_history(
    models: Sequence[SpinModel],
    steps: Sequence[int],
    T_c: Sequence[float],
    *,
    heats: Sequence[float] = (0.9, 0.7, 0.5),
    starts: int = 20,
    iterations: int = 1500,
    seed: int = 0,
) -> xr.Dataset:
    """TAP solutions of checkpoints, at temperatures that are shares of each one's T_c.

    Parameters
    ----------
    models, steps
        As in `phase_history`.
    T_c : sequence of float
        Of each checkpoint.
    heats : sequence of float
        T / T_c.
    starts, iterations, seed : int
        As in `tap`.

    Returns
    -------
    Dataset
        ``solutions [step, heat]``, accepted ± pairs beside m = 0; ``count [step, heat, solver,
        outcome_kind]``; ``q [step, heat]`` of the lowest one; ``ends_overlap [heat, end, other]``
        of all accepted ends at the last checkpoint (padded with NaN).
    """
    solutions = np.zeros((len(models), len(heats)))
    q = np.full(solutions.shape, np.nan)
    counts: list[Any] = []
    last: list[np.ndarray] = []
    for s, model in enumerate(models):
        for h, heat in enumerate(heats):
            found = tap(model, heat * float(T_c[s]), starts, seed, iterations=iterations)
            solutions[s, h] = found.sizes["solution"]
            if found.sizes["solution"]:
                q[s, h] = float(found["q"][0])
            counts.append(found["count"].values)
            if s == len(models) - 1:
                last.append(found["ends_overlap"].values)
    most = max(len(matrix) for matrix in last)
    padded = np.full((len(heats), most, most), np.nan)
    for h, matrix in enumerate(last):
        padded[h, : len(matrix), : len(matrix)] = matrix
    shape = (len(models), len(heats), *counts[0].shape)
    return xr.Dataset(
        {
            "solutions": labelled(("step", "heat"), solutions, "accepted ± pairs of solutions"),
            "q": labelled(("step", "heat"), q, "Σm²/N of the lowest solution"),
            "count": labelled(
                ("step", "heat", "solver", "outcome_kind"),
                np.array(counts).reshape(shape),
                "starts by outcome",
            ),
            "ends_overlap": labelled(
                ("heat", "end", "other"), padded, "cosine of accepted ends, last checkpoint"
            ),
        },
        {
            "step": _steps(steps),
            "heat": ("heat", list(heats), {"long_name": "T / T_c", "units": "1"}),
            "solver": found["solver"],
            "outcome_kind": found["outcome_kind"],
        },
        found.attrs,
    )


def spectrum_history(
    models: Sequence[SpinModel],
    steps: Sequence[int],
    *,
    nulls: int = 8,
    bootstraps: int = 100,
    seed: int = 0,
) -> xr.Dataset:
    """Spectra of checkpoints along ``step``; the bins of each are its own.

    Parameters
    ----------
    models, steps
        As in `phase_history`.
    nulls, bootstraps, seed : int
        As in `spectrum`.
    """
    found = [
        spectrum(each, nulls=nulls, bootstraps=bootstraps, seed=seed).reset_coords("lam")
        for each in models
    ]
    return xr.concat(found, "step", combine_attrs="override").assign_coords(step=_steps(steps))


def overlap_history(
    models: Sequence[SpinModel],
    steps: Sequence[int],
    T_c: Sequence[float],
    *,
    heats: Sequence[float],
    replicas: int = 8,
    sweeps: int = 1000,
    seed: int = 0,
) -> xr.Dataset:
    """Overlaps of checkpoints, and of their permuted weights, at shares of each one's T_c.

    Parameters
    ----------
    models, steps, T_c
        As in `tap_history`.
    heats : sequence of float
        T / T_c, rising or falling.
    replicas, sweeps, seed : int
        As in `sample`.

    Returns
    -------
    Dataset
        The variables of `observables` along ``step, weights, heat``, where ``weights`` is "as
        trained" or "permuted"; ``equilibrated``; and ``layer_correlation [step, weights, heat,
        bond]``, ⟨q_{k−1} q_k⟩, which the exact identity of untrained networks needs.
    """
    rows = []
    for each, critical in zip(models, T_c, strict=True):
        model = each.to(torch.float32)
        pair = []
        for one in (model, model.permuted(seed)):
            samples = sample(one, float(critical) * np.asarray(heats), replicas, sweeps, seed)
            pair.append(_read(samples, heats))
        rows.append(xr.concat(pair, "weights", combine_attrs="override"))
    result = xr.concat(rows, "step", combine_attrs="override")
    return result.assign_coords(step=_steps(steps), weights=["as trained", "permuted"])


def _read(samples: xr.Dataset, heats: Sequence[float]) -> xr.Dataset:
    found = observables(samples)
    found["equilibrated"] = samples["equilibrated"]
    q = samples["layer_overlap"]
    both = [
        (q.isel(layer=k) * q.isel(layer=k + 1)).mean(("pair", "measurement"))
        for k in range(samples.sizes["layer"] - 1)
    ]
    found["layer_correlation"] = labelled(
        ("temperature", "bond"), np.stack([each.values for each in both], 1), "⟨q_{k−1} q_k⟩"
    )
    at = labelled("heat", samples["temperature"].values, "temperature", "weights")
    found = found.drop_vars("temperature").rename_dims(temperature="heat").assign(T=at)
    return found.assign_coords(heat=("heat", list(heats), {"long_name": "T / T_c", "units": "1"}))


def _padded(found: xr.Dataset) -> xr.Dataset:
    """Scans of one length, the rest not a number."""
    missing = SCANNED - found.sizes["scan"]
    if missing < 0:
        raise RuntimeError(f"a stability scan of {found.sizes['scan']} values, at most {SCANNED}")
    return found.pad(scan=(0, missing)).reset_coords("beta")


def _steps(steps: Sequence[int]) -> tuple[str, list[int], dict[str, str]]:
    return "step", list(steps), {"long_name": "training step", "units": "steps"}
