"""Effective dimension of the ground below a threshold, from where a threshold walk stays.

Uniform weight on {L ≤ L*} in a bowl of d curved directions has ⟨(L − L_min)/(L* − L_min)⟩ =
d/(d + 2), whatever the curvatures: flat directions do not count, so d is the rank of the bowl.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from spinscape.glass.walking.convergence import equilibrium
from spinscape.glass.walking.starts import by_start, from_starts
from spinscape.statistics import Finding, Interval, bootstrap

__all__ = ["dimension_finding", "effective_dimension"]


def effective_dimension(
    walk: xr.Dataset,
    *,
    minimum: float | Sequence[float],
    discard: float = 0.5,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Effective dimension d = 2m/(1 − m), m = ⟨(L − L_min)/(L* − L_min)⟩ along a threshold walk.

    Parameters
    ----------
    walk : Dataset
        Of ``walk(…, rule="threshold")``; with ``start [walker]``, starts are the units.
    minimum : float or one per walker
        Energy L_min at the bottom of the ground that the walkers are on.
    discard : float
        Fraction of the record that is left out at its beginning. A walk from the bottom that has
        not yet spread gives too small a d.
    level : float
        Confidence of the bootstrap interval over starts.
    seed : int
        Of the bootstrap.

    Raises
    ------
    ValueError
        If the walk has no threshold, a minimum is not below it, an energy lies below the minimum,
        or there are fewer than two starts.
    """
    if "threshold" not in walk:
        raise ValueError("walk: it has no threshold; give walk(…, rule='threshold')")
    top = walk["threshold"].values.astype(float)
    bottom = np.broadcast_to(np.asarray(minimum, dtype=float), top.shape)
    if not (bottom < top).all():
        raise ValueError(f"minimum={minimum}: expected energies below the threshold")
    kept = walk["energy"].transpose("walker", "step")
    kept = kept.isel(step=slice(int(discard * walk.sizes["step"]), None))
    height = (kept.values.astype(float) - bottom[:, None]) / (top - bottom)[:, None]
    if (height < 0).any():
        raise ValueError(
            f"minimum={minimum}: walker {int((height < 0).any(1).argmax())} came lower, to "
            f"{float(kept.min()):.6g}; give the energy at the bottom"
        )
    means = by_start(walk, height.mean(1))

    def dimension(values: np.ndarray, axis: int = -1) -> np.ndarray:
        mean = values.mean(axis)
        return np.asarray(2 * mean / (1 - mean))

    return bootstrap(means, dimension, level=level, seed=seed)


FULL = 0.9  # a dimension this close to the full one is the full one for all one cares


def dimension_finding(walk: xr.Dataset, *, level: float = 0.95, seed: int = 0) -> Finding:
    """Judge whether the ground below the threshold is curved in fewer directions than there are.

    The minimum is the energy at each walker's given start. The full dimension is the number of
    coordinates that the move moved at all.
    """
    full = int(walk.attrs["moving"])
    common: dict[str, Any] = {
        "protocol": "walk",
        "question": "Is the ground around a solution curved in fewer directions than there are?",
        "null": f"a bowl curved in all {full} directions: that dimension",
        "null_value": float(full),
        "rule": (
            "Supported if the interval of the effective dimension lies below "
            f"{FULL} of the full one and the walk is in equilibrium at every start (else a short "
            "walk would look low-dimensional), not supported if the interval lies above "
            f"{FULL} of it, else undecided"
        ),
    }
    try:
        mixed = equilibrium(walk)["equilibrated"]
        found = effective_dimension(
            walk, minimum=walk["start_energy"].values.tolist(), level=level, seed=seed
        )
    except ValueError as reason:
        statement = f"Undecided: no effective dimension of the threshold walk ({reason})"
        return Finding(**common, statement=statement, value=None, verdict="undecided")
    settled = bool(mixed.all())
    low, high = found.high < FULL * full, found.low > FULL * full
    verdict = "supported" if low and settled else "not supported" if high else "undecided"
    answers = {
        "supported": "The ground is curved in fewer directions than there are",
        "not supported": "The ground is curved in about all directions",
        "undecided": "How many directions are curved is undecided",
    }
    state = "in equilibrium" if settled else "not in equilibrium"
    return Finding(
        **common,
        **found._asdict(),
        statement=f"{answers[verdict]}: {walk.sizes['walker']} walkers{from_starts(walk)} below "
        f"their threshold had an effective dimension of {found.value:.3g} of {full}, accepted "
        f"{float(walk['acceptance'].mean()):.0%} of {int(walk['step'].max())} steps, and the walk "
        f"is {state} (at {int(mixed.sum())} of {mixed.size} starts)",
        verdict=verdict,
    )
