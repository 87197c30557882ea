"""What the phases of networks in training say, each against its null, with seeds as the units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.stats
import xarray as xr

from spinscape.spins.growth import first_ordered, growth
from spinscape.statistics import Finding, Interval, bootstrap, p_value

__all__ = [
    "above",
    "accuracy_finding",
    "alike_finding",
    "given_findings",
    "glass_finding",
    "growth_findings",
    "lazy_findings",
    "numbers_of",
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


def growth_findings(histories: xr.Dataset, name: str, *, seed: int) -> list[Finding]:
    """Whether T_c grows, and whether as a power of the training time.

    Parameters
    ----------
    histories, name, seed
        As in `order_findings`.
    """
    ordered = histories["kind"].transpose("replica", "step").values == "order"
    fitted = growth(
        histories["step"].values, histories["T_c"].transpose("replica", "step").values, ordered
    )
    alpha = fitted["alpha"].values[np.isfinite(fitted["alpha"].values)]
    advantage = fitted["advantage"].values[np.isfinite(fitted["advantage"].values)]
    question = f"Does T_c grow as a power of the training time? ({name})"
    rule = (
        "with seeds as units: supported if the interval of the exponent α of c t^α lies above 0 "
        "and that of the criterion's advantage of c t^α or a + c t^α over a logarithm and a "
        "saturating exponential lies above 2; not supported if it lies below −2, or α does not "
        "exceed 0; else undecided"
    )
    if len(alpha) < 2:
        return [
            Finding(
                protocol="phases",
                question=question,
                statement=(
                    f"{len(alpha)} of {len(ordered)} networks are ordered at enough checkpoints "
                    "for a fit"
                ),
                value=None,
                rule=rule,
                verdict="undecided",
            )
        ]
    exponent = bootstrap(alpha, "mean", seed=seed)
    better = bootstrap(advantage, "mean", seed=seed)
    grows = exponent.low > 0
    verdict = "supported" if grows and better.low > 2 else "undecided"
    if exponent.high < 0 or better.high < -2:
        verdict = "not supported"
    names = fitted["law"].values[fitted["criterion"].values.argmin(1)]
    best, times = np.unique(names, return_counts=True)
    told = ", ".join(f"{law} in {count}" for law, count in zip(best, times, strict=True))
    return [
        Finding(
            protocol="phases",
            question=question,
            statement=(
                f"α = {exponent.value:.3f} over the ordered checkpoints; the best law is {told} of "
                f"{len(names)} networks (advantage of a power law {better.value:.1f} "
                f"[{better.low:.1f}, {better.high:.1f}] in the corrected Akaike criterion)"
            ),
            **numbers_of(exponent),
            null="no growth",
            null_value=0.0,
            rule=rule,
            verdict=verdict,
        )
    ]


def alike_finding(
    by_net: Mapping[str, xr.Dataset], names: Mapping[str, str], *, seed: int
) -> Finding:
    """Whether two kinds of network go the same way from glass to order.

    Parameters
    ----------
    by_net : mapping of str to Dataset
        `phase_history` of the replicas of each of two kinds.
    names : mapping of str to str
        Of the kinds, as a reader knows them.
    seed : int
        Of the bootstrap.
    """
    ends, alphas = [], []
    for histories in by_net.values():
        kinds = histories["kind"].transpose("replica", "step").values
        ends.append(bool((kinds[:, -1] == "order").all()))
        found = growth(
            histories["step"].values,
            histories["T_c"].transpose("replica", "step").values,
            kinds == "order",
        )["alpha"].values
        alphas.append(found[np.isfinite(found)])
    enough = all(len(alpha) > 1 for alpha in alphas)
    gap = bootstrap((alphas[0], alphas[1]), "mean", seed=seed) if enough else None
    same = gap is not None and gap.low <= 0 <= gap.high
    verdict = "supported" if all(ends) and same else "undecided" if all(ends) else "not supported"
    told_of = " and ".join(names[kind] for kind in by_net)
    told = "both end in order" if all(ends) else "not all of both kinds end in order"
    more = "" if gap is None else f"; their exponents α differ by {gap.value:+.3f}"
    return Finding(
        protocol="phases",
        question="Do networks with continuous and with binarized activations behave alike?",
        statement=f"{told_of} networks: {told}{more}",
        **numbers_of(gap),
        null="equal exponents",
        null_value=0.0,
        rule=(
            "supported if all networks of both kinds end in order and the interval of the "
            "difference of their exponents α contains 0; not supported if not all end in order; "
            "else undecided"
        ),
        verdict=verdict,
    )


def lazy_findings(sweep: xr.Dataset, *, seed: int) -> list[Finding]:
    """Whether order comes with rich learning: networks at several output scales.

    Parameters
    ----------
    sweep : Dataset
        Along ``scale, replica``: ``weight_change``, ``kernel_change``, ``excess`` (T_c / T_null),
        ``outliers``.
    seed : int
        Of the permutations.
    """
    change = sweep["weight_change"].transpose("scale", "replica").values
    excess = sweep["excess"].transpose("scale", "replica").values
    lazy, rich = int(change.mean(1).argmin()), int(change.mean(1).argmax())
    difference = bootstrap(excess[rich] - excess[lazy], "mean", seed=seed)
    scales = sweep["scale"].values
    shuffled = np.random.default_rng(seed)
    null = []
    for _ in range(999):
        mixed = shuffled.permutation(excess.ravel()).reshape(excess.shape)
        null.append(float((mixed[rich] - mixed[lazy]).mean()))
    kernel = sweep["kernel_change"].transpose("scale", "replica").values
    outliers = sweep["outliers"].transpose("scale", "replica").values
    return [
        Finding(
            protocol="laziness",
            question="Do networks that learn lazily stay nearer to the glass?",
            statement=(
                f"at output scale {scales[lazy]:g} (‖ΔW‖/‖W‖ = {change[lazy].mean():.2f}, kernel "
                f"changed by {kernel[lazy].mean():.2f}) T_c / T_null is {excess[lazy].mean():.2f} "
                f"with {outliers[lazy].mean():.1f} outliers; at {scales[rich]:g} "
                f"({change[rich].mean():.2f}, {kernel[rich].mean():.2f}) it is "
                f"{excess[rich].mean():.2f} with {outliers[rich].mean():.1f}"
            ),
            **numbers_of(difference),
            null="networks shuffled among the output scales",
            null_value=float(np.mean(null)),
            p=p_value(difference.value, null, "greater"),
            rule=(
                "supported if T_c / T_null of the richest setting exceeds that of the laziest, "
                "interval above 0; not supported if below 0"
            ),
            verdict=above(difference),
        )
    ]


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


def numbers_of(found: Interval | None) -> dict[str, Any]:
    """Value, ends and level of an interval as the fields of a finding."""
    if found is None:
        return {"value": None, "low": None, "high": None, "level": None}
    return {"value": found.value, "low": found.low, "high": found.high, "level": found.level}


def above(found: Interval, bound: float = 0.0) -> str:
    """The verdict on whether a number exceeds a bound, by its interval."""
    if found.low > bound:
        return "supported"
    return "not supported" if found.high < bound else "undecided"


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
