"""What training did to T_c: its law of growth, whether kinds of network agree, rich or lazy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from spinscape.spins.growth_laws import growth
from spinscape.statistics import Finding, above, bootstrap, numbers_of, p_value

__all__ = ["alike_finding", "growth_findings", "lazy_findings"]


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
