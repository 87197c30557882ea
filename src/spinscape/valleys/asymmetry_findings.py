"""What lopsided curves say of arXiv 2405.12489, each against its control.

The independent unit is a network: curves are averaged over the seeds of the noise first. Intervals
are bootstrap intervals over networks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from spinscape.statistics import Finding, Interval, above, bootstrap, numbers_of

__all__ = [
    "activation_finding",
    "aligned_finding",
    "consistent_findings",
    "hyper_finding",
    "learned_finding",
    "line_finding",
    "norm_finding",
    "ratio_finding",
    "relu_finding",
    "softmax_finding",
    "special_findings",
    "withheld",
]

SMALL = 0.1
"""An index of at most so much counts as symmetric."""

LEARNED = 0.3
"""Median test error above which a variant has not learned its task, and nothing is judged."""

ABOVE = "supported if the interval lies above 0, not supported if below, else undecided"
NETWORKS = "the interval is over networks"


def consistent_findings(base: xr.Dataset, seed: int) -> list[Finding]:
    """Whether ordinary noise is symmetric, and noise with the signs of θ is not.

    Parameters
    ----------
    base : Dataset
        `asymmetry` of several networks, along ``replica``.
    """
    own, given = (_index(base, signs) for signs in ("own", "given"))
    noises = base["noise"].values.astype(str)
    centred = [k for k, name in enumerate(noises) if name in ("gaussian", "uniform", "ternary")]
    plain = _interval(own[:, centred].mean(1), seed=seed)
    weakest = int(np.nan_to_num(given.mean(0), nan=np.inf).argmin())
    lopsided = _interval(given[:, weakest], seed=seed)
    within = max(abs(plain.low), abs(plain.high)) <= SMALL
    outside = plain.low > SMALL or plain.high < -SMALL
    error = _told(base["index"].sel(signs="given", noise=noises[weakest]))
    return [
        _finding(
            protocol="signs",
            question="Is the valley symmetric along noise that is centred at 0?",
            statement=f"the index of loss is {plain.value:+.2f} (0: symmetric)",
            **_numbers(plain),
            rule=(
                f"supported if the interval lies within ±{SMALL}, not supported if outside of it, "
                f"else undecided; {NETWORKS}"
            ),
            verdict="supported" if within else "not supported" if outside else "undecided",
        ),
        _finding(
            protocol="signs",
            question="With the signs of the solution, is every kind of noise flatter on its side?",
            statement=(
                f"the least lopsided of {len(noises)} kinds ({noises[weakest]}) has the index "
                f"{lopsided.value:+.2f} ({error}), and {own[:, weakest].mean():+.2f} with its own "
                "signs"
            ),
            **_numbers(lopsided),
            null="the same noise with its own signs",
            null_value=float(own[:, weakest].mean()),
            rule=f"for the least lopsided kind: {ABOVE}; {NETWORKS}",
            verdict=_above(lopsided),
        ),
    ]


def learned_finding(error: Float[np.ndarray, "network"], seed: int) -> Finding:
    """Whether the networks solve their task; if not, nothing else is judged."""
    value = _interval(1 - error, seed=seed)
    middle = float(np.median(error))
    return _finding(
        protocol="signs",
        question="Do the networks solve the task?",
        statement=f"the median test error of {len(error)} networks is {middle:.1%}",
        **_numbers(value),
        rule=(
            f"supported if the median test error is at most {LEARNED:.0%}, else not supported, and "
            "other findings on these networks are undecided; the value is the mean accuracy"
        ),
        verdict="supported" if middle <= LEARNED else "not supported",
    )


def withheld(findings: Sequence[Finding], learned: Finding) -> list[Finding]:
    """Leave findings undecided where the networks have not learned their task."""
    if learned.verdict == "supported":
        return list(findings)
    return [
        replace(each, verdict="undecided", statement=f"not learned, not judged: {each.statement}")
        for each in findings
    ]


def ratio_finding(base: xr.Dataset, seed: int) -> Finding:
    """Whether the index rises with the share of entries that are given the signs of θ."""
    correlations = base["ratio_correlation"].sel(metric="loss").values
    value = _interval(correlations, seed=seed)
    first, last = (
        float(base["ratio_index"].sel(metric="loss").isel(ratio=k).mean()) for k in (0, -1)
    )
    return _finding(
        protocol="signs",
        question="Does the valley grow more lopsided with the share of equal signs?",
        statement=(
            f"the index of loss goes from {first:+.2f} to {last:+.2f}; its rank correlation with "
            f"the share, over ratios and seeds of each network, is {value.value:.2f}"
        ),
        **_numbers(value),
        null="no correlation",
        null_value=0.0,
        rule=f"{ABOVE}; {NETWORKS}",
        verdict=_above(value),
    )


def special_findings(base: xr.Dataset, seed: int) -> list[Finding]:
    """Whether θ₀, θ and its signs are lopsided directions, and its positive parts are not."""
    index = base["special_index"].sel(metric="loss").transpose("replica", "special").values
    names = base["special"].values.astype(str)
    told = ", ".join(
        f"{name} {value:+.2f}" for name, value in zip(names, index.mean(0), strict=True)
    )
    found = []
    for sgp, question in (
        (False, "Are θ₀, θ, sign θ and sign(θ − μ) lopsided directions?"),
        (True, "Are the positive parts, sgp θ and sgp(θ − μ), symmetric directions?"),
    ):
        chosen = [k for k, name in enumerate(names) if name.startswith("sgp") == sgp]
        if not chosen:
            continue
        sizes = np.abs(index[:, chosen]).mean(0) if sgp else -index[:, chosen].mean(0)
        worst = chosen[int(np.nan_to_num(sizes, nan=-np.inf).argmax())]
        value = _interval(index[:, worst], seed=seed)
        verdict = _above(value)
        if sgp:
            within = max(abs(value.low), abs(value.high)) <= SMALL
            outside = value.low > SMALL or value.high < -SMALL
            verdict = "supported" if within else "not supported" if outside else "undecided"
        found.append(
            _finding(
                protocol="signs",
                question=question,
                statement=f"indices of loss: {told}; {names[worst]} decides",
                **_numbers(value),
                rule=(
                    f"for the one farthest from 0: supported if its interval lies within ±{SMALL}, "
                    "not supported if outside of it, else undecided"
                    if sgp
                    else f"for the least lopsided one: {ABOVE}"
                ),
                verdict=verdict,
            )
        )
    return found


def aligned_finding(base: xr.Dataset, seed: int) -> Finding:
    """Whether signs matter beyond the part of the noise that lies along θ itself."""
    index = base["control_index"].sel(metric="loss").mean("seed")
    consistent, aligned, scale = (
        index.sel(control=name).values for name in ("consistent", "aligned", "point")
    )
    value = _interval(consistent - aligned, seed=seed)
    return _finding(
        protocol="signs",
        question="Do equal signs matter beyond what lies along the solution itself?",
        statement=(
            f"index {consistent.mean():+.2f} with the signs of θ, {aligned.mean():+.2f} for "
            f"noise of the same overlap with θ and signs of chance, {scale.mean():+.2f} along θ: a "
            f"difference of {value.value:+.2f} for the signs"
        ),
        **_numbers(value),
        null="noise of the same norm and the same overlap with θ",
        null_value=0.0,
        rule=f"{ABOVE}; {NETWORKS}",
        verdict=_above(value),
    )


def norm_finding(variants: Mapping[str, xr.Dataset], seed: int) -> Finding:
    """Whether all-positive batch-norm weights make noise off centre lopsided.

    Parameters
    ----------
    variants : mapping of str to Dataset
        "base" (weights begin at 1) and "norm-gaussian" (at G(0, .1)), with ``norm_positive``.
    """
    ones, gaussian = (
        np.abs(_index(variants[name], "own", "unit_uniform")) for name in ("base", "norm-gaussian")
    )
    value = _interval((ones, gaussian), seed=seed)
    learned = all(_has_learned(variants[name]) for name in ("base", "norm-gaussian"))
    positive = [float(variants[n]["norm_positive"].mean()) for n in ("base", "norm-gaussian")]
    spread = variants.get("norm-uniform")
    third = ""
    if spread is not None:
        size = float(np.abs(_index(spread, "own", "unit_uniform")).mean())
        third = f", {size:.2f} from U(0, 1)"
    return _finding(
        protocol="controls",
        question="Do batch-norm weights that begin at 1 make noise off centre lopsided?",
        statement=(
            f"along noise from U(0, 1) the index of loss has the size {ones.mean():.2f} where "
            f"batch-norm weights begin at 1{third}, and {gaussian.mean():.2f} from G(0, .1); "
            f"{positive[0]:.0%} and {positive[1]:.0%} of these weights end positive"
        ),
        **_numbers(value),
        null="batch-norm weights that begin at G(0, .1)",
        null_value=float(gaussian.mean()),
        rule=(
            f"the difference of both sizes: {ABOVE}, or if either has a median test error above "
            f"{LEARNED:.0%}; {NETWORKS}"
        ),
        verdict=_above(value) if learned else "undecided",
    )


def hyper_finding(variants: Mapping[str, xr.Dataset], names: tuple[str, ...], seed: int) -> Finding:
    """Whether learning rate, batch size and weight decay leave ordinary noise symmetric."""
    known = [name for name in names if name in variants]
    rows = {
        name: _index(variants[name], "own", "gaussian")
        for name in known
        if _has_learned(variants[name])
    }
    judged = len(rows) > 1
    if not rows:
        rows = {name: _index(variants[name], "own", "gaussian") for name in known[:1]}
    lost = [name for name in known if name not in rows]
    widths = {
        name: float(variants[name]["plus"].sel(signs="own", noise="gaussian", metric="loss").mean())
        for name in rows
    }
    far = max(rows, key=lambda name: np.nan_to_num(abs(rows[name].mean()), nan=-1.0))
    value = _interval(rows[far], seed=seed)
    within = max(abs(value.low), abs(value.high)) <= SMALL
    outside = value.low > SMALL or value.high < -SMALL
    told = ", ".join(
        f"{name} {row.mean():+.2f} (mean loss {widths[name]:.2g})" for name, row in rows.items()
    )
    return _finding(
        protocol="controls",
        question="Do learning rate, batch size and weight decay leave the valley symmetric?",
        statement=(
            f"index of loss along Gaussian noise: {told}; {far} decides"
            + (f"; not learned, and not judged: {', '.join(lost)}" if lost else "")
        ),
        **_numbers(value),
        rule=(
            f"for the setting farthest from 0: supported if its interval lies within ±{SMALL}, not "
            "supported if outside of it, else undecided, or if fewer than two settings have learned"
        ),
        verdict=(
            "undecided"
            if not judged
            else "supported"
            if within
            else "not supported"
            if outside
            else "undecided"
        ),
    )


def activation_finding(variants: Mapping[str, xr.Dataset], seed: int) -> list[Finding]:
    """Whether networks without ReLU are lopsided as well, which the paper does not have."""
    found = []
    relu = _index(variants["base"], "given", "gaussian")
    for name in ("gelu", "tanh", "no-norm"):
        if name not in variants:
            continue
        own = _index(variants[name], "given", "gaussian")
        value = _interval(own, seed=seed)
        error = float(variants[name]["test_error"].median())
        words = "without batch normalisation" if name == "no-norm" else f"with {name}"
        found.append(
            _finding(
                protocol="controls",
                question=f"Is a network {words} lopsided along noise with its signs?",
                statement=(
                    f"the index of loss is {value.value:+.2f} ({relu.mean():+.2f} with ReLU and "
                    f"batch normalisation); median test error {error:.1%}"
                ),
                **_numbers(value),
                null="a symmetric valley",
                null_value=0.0,
                rule=f"{ABOVE}, or if the median test error is above {LEARNED:.0%}; {NETWORKS}",
                verdict=_above(value) if _has_learned(variants[name]) else "undecided",
            )
        )
    return found


def line_finding(line: xr.Dataset, seed: int) -> Finding:
    """Whether the small-batch solution is sharper, on the line to the large-batch one.

    Parameters
    ----------
    line : Dataset
        ``rise [replica, end]``: mean rise of the loss on either side of each end, and ``index``;
        ``agreement [replica, end, group]`` of signs of the end with the way towards the other.
    """
    rise = line["rise"].transpose("replica", "end").values
    ratio = np.log(np.maximum(rise[:, 0], 1e-12) / np.maximum(rise[:, 1], 1e-12))
    value = _interval(ratio, seed=seed)
    index = line["index"].mean("replica").values
    agree = line["agreement"].sel(group="all").mean("replica").values
    return _finding(
        protocol="line",
        question="Along the line between them, is the small-batch solution the sharper one?",
        statement=(
            f"the loss rises {np.exp(value.value):.2g} times as much around the small-batch end; "
            f"indices {index[0]:+.2f} (small) and {index[1]:+.2f} (large), shares of signs that "
            f"agree with the way across {agree[0]:.2f} and {agree[1]:.2f}"
        ),
        **_numbers(value),
        null="equal rise",
        null_value=0.0,
        rule=f"the logarithm of the ratio of both rises: {ABOVE}; {NETWORKS}",
        verdict=_above(value),
    )


def relu_finding(base: xr.Dataset, seed: int) -> Finding:
    """Whether units keep their state on the side of the signs of θ."""
    agreement = base["agreement"].sel(direction="consistent").transpose("replica", "lam").values
    value = _interval(agreement[:, -1] - agreement[:, 0], seed=seed)
    plain = base["agreement"].sel(direction="ordinary").transpose("replica", "lam").values
    return _finding(
        protocol="mechanism",
        question="Do units keep their state on the side of the solution's signs?",
        statement=(
            f"{agreement[:, -1].mean():.0%} of units and samples keep it at λ = 1 and "
            f"{agreement[:, 0].mean():.0%} at −1; for ordinary noise {plain[:, -1].mean():.0%} and "
            f"{plain[:, 0].mean():.0%}"
        ),
        **_numbers(value),
        null="the same difference for ordinary noise",
        null_value=float((plain[:, -1] - plain[:, 0]).mean()),
        rule=f"the difference of both shares: {ABOVE}; {NETWORKS}",
        verdict=_above(value),
    )


def softmax_finding(base: xr.Dataset, seed: int) -> Finding:
    """Whether the trace of the last layer's Hessian falls where the classifier's signs are kept."""
    trace = base["trace"].sel(direction="classifier").transpose("replica", "lam").values
    value = _interval(np.log(trace[:, 0] / np.maximum(trace[:, -1], 1e-12)), seed=seed)
    whole = base["trace"].sel(direction="consistent").transpose("replica", "lam").values
    return _finding(
        protocol="mechanism",
        question="Does noise with the classifier's signs, in it alone, flatten its own Hessian?",
        statement=(
            f"the trace is {trace[:, 0].mean():.3g} at λ = −1, "
            f"{trace[:, trace.shape[1] // 2].mean():.3g} at 0 and {trace[:, -1].mean():.3g} at 1; "
            f"with noise in all weights {whole[:, 0].mean():.3g} and {whole[:, -1].mean():.3g}"
        ),
        **_numbers(value),
        null="equal traces",
        null_value=0.0,
        rule=f"the logarithm of the ratio of the traces at −1 and 1: {ABOVE}; {NETWORKS}",
        verdict=_above(value),
    )


def _index(data: xr.Dataset, signs: str, noise: str | None = None) -> Float[np.ndarray, "..."]:
    """Index of loss, averaged over seeds: [replica, noise], or [replica] for one noise."""
    index = data["index"].sel(signs=signs, metric="loss").mean("seed")
    if noise is not None:
        return index.sel(noise=noise).values
    return index.transpose("replica", "noise").values


def _interval(
    values: Float[np.ndarray, "network"] | tuple[np.ndarray, np.ndarray], *, seed: int
) -> Interval:
    """Bootstrap over networks with finite numbers; not a number with fewer than two of them."""
    given = values if isinstance(values, tuple) else (values,)
    kept = tuple(np.asarray(each)[np.isfinite(each)] for each in given)
    if min(map(len, kept)) < 2:
        return Interval(np.nan, np.nan, np.nan, 0.95)
    return bootstrap(kept if len(kept) > 1 else kept[0], "mean", seed=seed)


def _numbers(found: Interval) -> dict[str, Any]:
    return numbers_of(found if np.isfinite(found.value) else None)


def _above(found: Interval) -> str:
    return above(found) if np.isfinite(found.value) else "undecided"


def _finding(**record: Any) -> Finding:
    """Make a finding; without a number it is undecided, and says why."""
    null = record.get("null_value")
    if null is not None and not np.isfinite(null):
        record["null_value"] = None
    if record["value"] is None:
        record["verdict"] = "undecided"
        record["statement"] = f"fewer than two networks have a finite number: {record['statement']}"
    return Finding(**record)


def _has_learned(data: xr.Dataset) -> bool:
    return float(data["test_error"].median()) <= LEARNED


def _told(index: xr.DataArray) -> str:
    if "error" not in index["metric"].values:
        return "errors are not known"
    return f"{float(index.sel(metric='error').mean()):+.2f} by error"
