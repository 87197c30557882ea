"""Whether a hierarchy comes back: in several independent sets of replicas, and beyond their starts.

One set can be lucky: at p < .01 one of a hundred is. Sets are independent where they share no
replica (other seeds, better still other subsets of the data), so their p-values combine (Fisher)
and the number of supported ones has a binomial null. The untrained starts of the same replicas are
a third null: what they show, training did not make.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.stats
import xarray as xr

from spinscape.glass.trees.clustering import BY, distance_kind, hierarchy_findings, judged
from spinscape.glass.trees.surrogates import LEAST_SURROGATES, LEVEL, RATIO, Verdict
from spinscape.glass.trees.ultrametricity import hed_young_domany_k
from spinscape.records import labelled, provenance
from spinscape.statistics import Finding, Interval, p_value

__all__ = ["hierarchy_of_sets", "hierarchy_of_sets_findings", "untrained_finding"]

SOURCE = "Fisher's combination of p-values and a binomial count, over sets; the choice is ours"
STATISTICS = ("K", "cophenetic", "rammal_toulouse_virasoro", "mean_distance")
OVERLAPS = ("overlap_mean", "overlap_width", "overlap_quantiles")
ERRORS = ("K_error", "overlap_mean_error", "overlap_width_error")
LEAST_SETS = 3
SETS_RULE = (
    "Supported only if more than half of the sets are, each by its own rule, and {p} is below "
    f"{LEVEL}. Not supported if no more than half would be even with all undecided ones. Undecided "
    f"otherwise, with fewer than {LEAST_SETS} sets or {LEAST_SURROGATES} surrogates."
)


def hierarchy_of_sets(trees: Sequence[xr.Dataset]) -> xr.Dataset:
    """Put the trees of several independent sets of replicas side by side.

    Parameters
    ----------
    trees : sequence of Dataset
        One of `hierarchy` a set, by the same distance, with the same surrogates. Sets may differ in
        their number of replicas; none may be in two.

    Returns
    -------
    Dataset
        Of every set its statistics, their errors and those of its surrogates, ``K`` [set],
        ``K_null`` [set, null, surrogate] and so on (`hierarchy`); ``p`` [set, null] of K;
        ``replicas`` [set], ``families`` [set] (of at least two members, at the top level); verdicts
        by the rule of one set, ``verdict`` [set] and, for families within families,
        ``verdict_within`` [set].

    Raises
    ------
    ValueError
        If there is no set, or distances, nulls or numbers of surrogates differ between sets.
    """
    trees = list(trees)
    _refuse_unlike(trees)
    names = [n for base in (*STATISTICS, *OVERLAPS) for n in (base, f"{base}_null")]
    shared = xr.concat([tree[[*names, *ERRORS]] for tree in trees], "set")
    shared["judged"] = trees[0]["judged"]
    findings = [hierarchy_findings(tree) for tree in trees]
    p = [[p_value(float(t["K"]), one.values) for one in t["K_null"]] for t in trees]
    families = [int((tree["cluster_size"] > 1).sum()) for tree in trees]
    shared = shared.assign(
        p=labelled(("set", "null"), p, "p of K, one-sided"),
        replicas=labelled("set", [tree.sizes["replica"] for tree in trees], "replicas of the set"),
        families=labelled("set", families, "families at the top level"),
        verdict=labelled("set", [found[0].verdict for found in findings], "families"),
        verdict_within=labelled("set", [f[1].verdict for f in findings], "families within them"),
    )
    attrs = provenance(
        "hierarchy_of_sets", SOURCE, int(trees[0].attrs["seed"]), sets=[_origin(t) for t in trees]
    )
    shared.attrs = {**attrs, "distance": distance_kind(trees[0])}
    return shared


def hierarchy_of_sets_findings(dataset: xr.Dataset) -> list[Finding]:
    """Judge a Dataset of `hierarchy_of_sets`: families, and families within them, in most sets."""
    by = BY[distance_kind(dataset)]
    ratio = (dataset["K"] / judged(dataset, "K_null").mean("surrogate")).max("null").values
    spread = (
        f"K is {ratio.mean():.3g} ± {ratio.std(ddof=min(1, len(ratio) - 1)):.2g} times that of the "
        "nearest null (mean and spread of the sets)"
    )
    combined = _combined(dataset)
    return [
        _over_sets(
            dataset,
            "verdict",
            question=f"Do families come back in independent sets of solutions{by}?",
            answer="Families",
            seen=f"{spread}; combined p = {combined:.2g}",
            p=combined,
            rule=SETS_RULE.format(p="the combined p (Fisher) against every null"),
        ),
        _over_sets(
            dataset,
            "verdict_within",
            question=f"Do families within families come back in independent sets{by}?",
            answer="Families within families",
            seen="they are looked for only where a set has families",
            p=_chance(dataset["verdict_within"].values),
            rule=SETS_RULE.format(p=f"the chance of as many, at {LEVEL} each,"),
        ),
    ]


def _over_sets(
    dataset: xr.Dataset,
    name: str,
    *,
    question: str,
    answer: str,
    seen: str,
    p: float,
    rule: str,
) -> Finding:
    verdicts = dataset[name].values.astype(str)
    sets, count, still_open = (
        len(verdicts),
        *(int((verdicts == word).sum()) for word in ("supported", "undecided")),
    )
    verdict: Verdict = "undecided"
    if sets >= LEAST_SETS and dataset.sizes["surrogate"] >= LEAST_SURROGATES:
        if 2 * count > sets and p < LEVEL:
            verdict = "supported"
        elif 2 * (count + still_open) <= sets:
            verdict = "not supported"
    answers: dict[Verdict, str] = {
        "supported": f"{answer} come back",
        "not supported": f"{answer} do not come back",
        "undecided": f"Whether {answer[:1].lower()}{answer[1:]} come back is undecided",
    }
    return Finding(
        protocol="hierarchy",
        question=question,
        statement=(
            f"{answers[verdict]}: supported in {count} of {sets} independent sets "
            f"({still_open} undecided), where chance gives {LEVEL * sets:.2g}; {seen}."
        ),
        value=float(count),
        null=f"sets without families, each supported with probability {LEVEL}",
        null_value=LEVEL * sets,
        p=p,
        rule=rule,
        verdict=verdict,
    )


def _chance(verdicts: np.ndarray) -> float:
    """Probability that chance supports as many sets or more."""
    count = int((verdicts.astype(str) == "supported").sum())
    return float(scipy.stats.binom.sf(count - 1, len(verdicts), LEVEL))


def _combined(dataset: xr.Dataset) -> float:
    """Fisher's combined p over the sets, against the null that is hardest to beat."""
    p = judged(dataset, "p").transpose("null", "set").values
    return float(max(scipy.stats.combine_pvalues(one, "fisher").pvalue for one in p))


def untrained_finding(
    trained: xr.Dataset, untrained: xr.Dataset, *, level: float = 0.95
) -> Finding:
    """Compare K, in units of its null's mean, of solutions and of their untrained starts.

    Parameters
    ----------
    trained, untrained : Dataset
        Of `hierarchy`, by one distance, of the same replicas in the same order.
    level : float
        Of the interval: Student's t, by a jackknife over replicas (solution and start together)
        that takes the mean of the surrogates as known.

    Raises
    ------
    ValueError
        If the two are not of the same replicas, or not by the same distance.
    """
    _refuse_unlike([trained, untrained], surrogates=False)
    counts = (trained.sizes["replica"], untrained.sizes["replica"])
    if counts[0] != counts[1]:
        raise ValueError(f"trained, untrained: of {counts[0]} and {counts[1]} replicas; make equal")
    nulls = [str(null) for null in judged(trained, "K_null")["null"].values]
    rule = (
        "K of solutions over K of starts, each in units of the mean of its own null. Supported "
        f"only if, with every null, it is at most {RATIO} and its interval below 1; not supported "
        "if, with some null, neither holds; undecided otherwise."
    )
    common: dict[str, Any] = {
        "protocol": "hierarchy",
        "question": f"Are solutions more tree-like than their starts{BY[distance_kind(trained)]}?",
        "null": "untrained starts, treated alike",
        "rule": rule,
    }
    if float(untrained["K"]) == 0:
        why = "The ratio is undefined: the starts form an exact tree, so that their K is 0."
        return Finding(**common, statement=why, value=None, verdict="undecided")
    relative = [_relative(trained, untrained, null, level) for null in nulls]
    worst = int(np.argmax([one.value for one in relative]))
    verdict = _less_than_one(relative)
    answers: dict[Verdict, str] = {
        "supported": "Solutions are more tree-like than their untrained starts",
        "not supported": "Solutions are no more tree-like than their untrained starts",
        "undecided": "Whether solutions are more tree-like than their starts is undecided",
    }
    at = [
        float(tree["K"] / tree["K_null"].sel(null=nulls[worst]).mean())
        for tree in (trained, untrained)
    ]
    return Finding(
        **common,
        statement=(
            f"{answers[verdict]}: K is {at[0]:.3g} times that of the {nulls[worst]} null after "
            f"training and {at[1]:.3g} times before, a ratio of {relative[worst].value:.3g}."
        ),
        **relative[worst]._asdict(),
        null_value=1.0,
        verdict=verdict,
    )


def _less_than_one(ratios: Sequence[Interval]) -> Verdict:
    below = np.array([one.high < 1 for one in ratios])
    small = np.array([one.value <= RATIO for one in ratios])
    if (below & small).all():
        return "supported"
    return "undecided" if (below | small).all() else "not supported"


def _relative(trained: xr.Dataset, untrained: xr.Dataset, null: str, level: float) -> Interval:
    """Ratio of the two K in units of their nulls, one replica left out of both at a time."""
    scale, other = (float(t["K_null"].sel(null=null).mean()) for t in (trained, untrained))
    distances = [tree["distance"].values for tree in (trained, untrained)]
    count = len(distances[0])

    def ratio(rows: np.ndarray) -> float:
        K = [hed_young_domany_k(distance[np.ix_(rows, rows)]) for distance in distances]
        return K[0] / scale / (K[1] / other)

    everyone = np.arange(count)
    value = ratio(everyone)
    left_out = np.array([ratio(np.delete(everyone, i)) for i in range(count)])
    error = np.sqrt((count - 1) / count * np.square(left_out - left_out.mean()).sum())
    reach = float(scipy.stats.t.ppf((1 + level) / 2, count - 1) * error)
    return Interval(value, value - reach, value + reach, level)


def _refuse_unlike(trees: Sequence[xr.Dataset], *, surrogates: bool = True) -> None:
    if not trees:
        raise ValueError("trees: expected at least one Dataset of `hierarchy`, got none")
    for place, tree in enumerate(trees):
        if distance_kind(tree) != distance_kind(trees[0]):
            raise ValueError(
                f"trees: number {place} is by distance {distance_kind(tree)!r}, the first by "
                f"{distance_kind(trees[0])!r}; make equal"
            )
        if tree["null"].values.tolist() != trees[0]["null"].values.tolist():
            raise ValueError(f"trees: number {place} has other nulls than the first")
        if surrogates and tree.sizes["surrogate"] != trees[0].sizes["surrogate"]:
            raise ValueError(
                f"trees: number {place} has {tree.sizes['surrogate']} surrogates, the first "
                f"{trees[0].sizes['surrogate']}; make equal"
            )


def _origin(tree: xr.Dataset) -> dict[str, Any]:
    return {"seed": int(tree.attrs["seed"]), "arguments": tree.attrs["arguments"]}
