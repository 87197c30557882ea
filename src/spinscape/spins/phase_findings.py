"""What the phases of networks in training say, each against its null, with seeds as the units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import scipy.stats
import xarray as xr

from spinscape.spins.growth_laws import first_ordered
from spinscape.statistics import Finding, Interval, bootstrap, numbers_of

__all__ = [
    "accuracy_finding",
    "given_findings",
    "glass_finding",
    "order_findings",
]

TOLERANCE = 0.06
"""Finite-size excess of T_c by the stability scan, at most, of layers of 90 spins and more."""

SOON = 0.1
"""Share of the training within which a glass that goes "quickly" is gone."""


def glass_finding(untrained: Mapping[str, xr.Dataset], theory: float, *, seed: int) -> Finding:
    """Whether untrained networks are glasses at the T_c of replica theory.

    Parameters
    ----------
    untrained : mapping of str to Dataset
        `phase` of the untrained replicas of each kind of network, along ``replica``.
    theory : float
        `critical_temperature` of the widths and the initialisation.
    seed : int
        Of the bootstrap.
    """
    kinds = np.concatenate([each["kind"].values for each in untrained.values()])
    ratios = np.concatenate([each["T_c"].values for each in untrained.values()]) / theory
    found = bootstrap(ratios, "mean", seed=seed)
    glasses = int((kinds == "glass").sum())
    inside = found.high < 1 + TOLERANCE and found.low > 1 - TOLERANCE
    most = glasses >= 0.8 * len(kinds)
    verdict = "supported" if inside and most else "not supported"
    if not (inside and most) and found.low < 1 + TOLERANCE and found.high > 1 - TOLERANCE:
        verdict = "undecided"
    return Finding(
        protocol="phases",
        question="Is an untrained network a layered Sherrington-Kirkpatrick glass?",
        statement=(
            f"{glasses} of {len(kinds)} untrained networks are glasses, and their T_c is "
            f"{found.value:.3f} times that of replica theory, {theory:.4g}"
        ),
        **numbers_of(found),
        null="replica theory of Gaussian couplings, infinitely wide",
        null_value=1.0,
        rule=(
            "supported if at least 80 % are classed as glass and the interval of T_c / T_theory "
            f"lies within {TOLERANCE:.0%} of 1, the finite-size excess of the scan; undecided if "
            "it only overlaps with that"
        ),
        verdict=verdict,
    )


def order_findings(histories: xr.Dataset, name: str, *, seed: int) -> list[Finding]:
    """Whether training destroys the glass, how soon, and whether more than norms grow.

    Parameters
    ----------
    histories : Dataset
        `phase_history` of the replicas of one kind of network, along ``replica, step``.
    name : str
        Of the networks, as a reader knows them.
    seed : int
        Of the bootstrap.
    """
    steps = histories["step"].values.astype(float)
    ordered = histories["kind"].transpose("replica", "step").values == "order"
    onset = first_ordered(steps, ordered)
    ratio = (histories["T_c"] / histories["T_null"].mean("permutation")).transpose(
        "replica", "step"
    )
    end = bootstrap(ratio.values[:, -1], "mean", seed=seed)
    share = onset / steps[-1]
    gone = np.isfinite(onset)
    count = f"{int(gone.sum())} of {len(onset)}"
    soon: Interval | None = None
    if gone.all():
        soon = bootstrap(share, "median", seed=seed)
    if soon is None:
        verdict = "undecided" if gone.any() else "not supported"
    else:
        verdict = "supported" if soon.high < SOON else "undecided"
        verdict = "not supported" if soon.low > SOON else verdict
    told = (
        f", after {np.median(onset[gone]):.0f} of {steps[-1]:.0f} steps in the median"
        if gone.any()
        else ""
    )
    quick = Finding(
        protocol="phases",
        question=f"Does training quickly destroy the glass? ({name})",
        statement=f"the glass is gone for good in {count} networks{told}",
        **numbers_of(soon),
        rule=(
            "supported if all replicas stay ordered from a step whose share of the training has "
            f"an interval below {SOON:.0%}; not supported if it lies above, or none is ordered"
        ),
        verdict=verdict,
    )
    hidden = Finding(
        protocol="phases",
        question=f"Is there an order that the norms of the weights do not explain? ({name})",
        statement=(
            f"after training T_c is {end.value:.2f} times that of the same weights at random "
            f"places, and {int(ordered[:, -1].sum())} of {len(ordered)} networks are ordered"
        ),
        **numbers_of(end),
        null="entries permuted within each layer",
        null_value=1.0,
        rule="supported if the interval of T_c / T_null lies above 1 and all are classed as order",
        verdict=(
            "supported"
            if end.low > 1 and ordered[:, -1].all()
            else "not supported"
            if end.high < 1
            else "undecided"
        ),
    )
    return [quick, hidden]


def accuracy_finding(error: Sequence[float], wanted: float, name: str, *, seed: int) -> Finding:
    """Whether the networks learned the task as well as the recipe promises.

    Parameters
    ----------
    error : array [replica]
        Test errors.
    wanted : float
        Accuracy that the median must reach.
    name, seed
        As in `order_findings`.
    """
    accuracy = 1 - np.asarray(error, float)
    found = bootstrap(accuracy, "median", seed=seed)
    return Finding(
        protocol="phases",
        question=f"Did the networks learn the task? ({name})",
        statement=(
            f"median test accuracy {found.value:.1%} over {len(accuracy)} networks; the recipe "
            f"promises {wanted:.0%}"
        ),
        **numbers_of(found),
        rule=f"supported if the median over the networks reaches {wanted:.0%}",
        verdict="supported" if found.value >= wanted else "not supported",
    )


def given_findings(phases: xr.Dataset, *, level: float = 0.95) -> list[Finding]:
    """Whether each of some networks holds an order beyond its nulls, one network at a time.

    Parameters
    ----------
    phases : Dataset
        `phase` of every network, along ``replica``, which holds their names.
    level : float
        Of the interval, which is that of one more null: a prediction interval by Student's t.
    """
    found = []
    for name in phases["replica"].values:
        one = phases.sel(replica=name)
        null = one["T_null"].values
        reach = scipy.stats.t.ppf((1 + level) / 2, len(null) - 1) * null.std(ddof=1)
        reach *= np.sqrt(1 + 1 / len(null))
        ratio = float(one["T_c"]) / null.mean()
        low = float(one["T_c"]) / (null.mean() + reach)
        high = float(one["T_c"]) / max(null.mean() - reach, 1e-12)
        kind = str(one["kind"].values)
        verdict = "supported" if kind == "order" and low > 1 else "not supported"
        if kind == "glass" and low > 1:
            verdict = "undecided"
        found.append(
            Finding(
                protocol="phases",
                question=f"Is there an order that the norms do not explain in {name}?",
                statement=(
                    f"{name}: {kind} below T_c = {float(one['T_c']):.4g}, which is {ratio:.2f} "
                    "times that of the same weights at random places"
                ),
                value=ratio,
                low=low,
                high=high,
                level=level,
                null="entries permuted within each layer; the interval is that of one more null",
                null_value=1.0,
                rule="supported if the phase is an order and T_c lies above what one more null "
                "would have; undecided if only T_c does; else not supported",
                verdict=verdict,
            )
        )
    return found
