"""Whether trained replicas form a hierarchy, as the states of a spin glass do.

Distances of all pairs (`rulers`), a tree, and K (`ultrametricity.hed_young_domany_k`) beside the K
of surrogates that have no tree (`surrogates`). One level of families makes K small, too, so K is
taken again inside every family of the top level, against surrogates of that family.
"""

from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float
from torch import Tensor, nn

from spinscape.glass.trees.families import (
    LEAST_MEMBERS,
    Families,
    families_of,
    k_of_surrogates,
)
from spinscape.glass.trees.rulers import (
    DISTANCES,
    Distance,
    Ruler,
    comparable,
    pair_statistics,
    refuse_flat,
    ruler_of,
)
from spinscape.glass.trees.surrogates import (
    LEAST_SURROGATES,
    LEVEL,
    RULE,
    Map,
    Verdict,
    are_judged,
    judge,
    null_statistics,
    nulls_of,
    run_here,
)
from spinscape.glass.trees.tree_records import pair_variables, statistics_variables, surrogate_trees
from spinscape.glass.trees.ultrametricity import LINKAGES, Linkage, jackknife_k, tree_of
from spinscape.landscape.energy import Landscape
from spinscape.nets.symmetry import Symmetry
from spinscape.records import labelled, provenance
from spinscape.statistics import Finding, p_value

__all__ = ["BY", "distance_kind", "hierarchy", "hierarchy_findings", "judged", "which_null"]

SOURCE = "arXiv 2407.20724 (question); Hed, Young & Domany 2004 (K); the nulls are ours"
BY = {
    "orbit": "",
    "weights": " by their weights as they are, symmetry left in",
    "agreement": " by what they predict",
    "cka": " by what their hidden units do",
    "cka_outputs": " by their outputs",
}


def hierarchy(
    module: nn.Module | None,
    points: Float[Tensor, "replica n"] | xr.DataArray | xr.Dataset,
    *,
    distance: Distance = "orbit",
    landscape: Landscape | None = None,
    surrogates: int = 100,
    seed: int,
    linkage: Linkage = "average",
    symmetry: Symmetry | None = None,
    map: Map = run_here,
) -> xr.Dataset:
    """Cluster replicas, and compare how tree-like they are with surrogates that have no tree.

    Parameters
    ----------
    module : nn.Module or None
        Gives the symmetry that is removed; None for points that have none (spin configurations).
    points : [replica, n], or a Dataset with ``point``
        At least four replicas.
    distance : {"orbit", "weights", "agreement", "cka", "cka_outputs"}
        Between weights up to symmetry; between weights as they are; or between functions, by
        predictions, hidden units or outputs (`functional.functional_distances`).
    landscape : Landscape, optional
        Network and samples for distances between functions; held-out samples tell more.
    surrogates : int
        How many of each null; with fewer than 100 nothing can be supported.
    seed : int
        Surrogate k depends on it and on k alone.
    linkage : {"average", "single", "complete", "weighted"}
    symmetry : Symmetry, optional
        For a module whose symmetry is not known.
    map : callable
        Runs zero-argument cells and yields their results in order; by default one after the other.

    Returns
    -------
    Dataset
        ``distance`` and ``overlap`` [replica, other], ``linkage`` [merge, column], ``order``
        [replica] (leaves); ``K``, ``cophenetic``, ``rammal_toulouse_virasoro``, ``mean_distance``,
        ``overlap_mean``, ``overlap_width`` (standard deviation of q over pairs),
        ``overlap_quantiles`` [quantile], and the same of the surrogates, ``…_null`` [null,
        surrogate]; ``K_error``, ``overlap_mean_error``, ``overlap_width_error``, standard errors by
        the jackknife over replicas; ``surrogate_distance``, ``…_overlap``, ``…_linkage``,
        ``…_order`` of the first surrogate of each null; ``cluster`` [replica] and ``cluster_size``
        [top], the top level; ``K_within`` [top] and ``K_within_null`` [null, top, surrogate], NaN
        for families of fewer than 8 members; the latter is taken only where the top level is
        supported (see ``second_level`` in the attributes). Plain points have one null, the star;
        distances between functions have one more, the function star.

    Raises
    ------
    TypeError
        If the module's symmetry is not known and weights are compared.
    ValueError
        If there are fewer than four replicas, some are not finite, all distances are equal, or two
        networks are copies of one another; if functions are to be compared without a landscape.

    Notes
    -----
    Surrogate weights compute functions of their own: random networks fall into families by the
    class that each favours, and a noisy average of independent networks does no better. For
    distances between functions both are kept for comparison, and the verdict asks for the function
    star alone (``judged`` [null]).
    """
    if linkage not in LINKAGES:
        raise ValueError(f"linkage: expected one of {LINKAGES}, got {linkage!r}")
    if surrogates < 1:
        raise ValueError(f"surrogates: expected at least 1, got {surrogates}")
    ruler = ruler_of(module, distance, landscape, symmetry, seed)
    states = comparable(points, ruler)
    between, overlap = ruler.pairs(states)
    refuse_flat(between, ruler, states)
    nulls = nulls_of(ruler, states)
    judged = are_judged(nulls)
    count = partial(
        null_statistics, surrogates=surrogates, ruler=ruler, linkage=linkage, seed=seed, map=map
    )
    observed, surrogate = pair_statistics(between, overlap, linkage), count(nulls)
    families = families_of(between, tree_of(between, linkage), ruler.rounding(states))
    within_null = np.full((len(nulls), len(families.sizes), surrogates), np.nan)
    descend = judge(observed.K, surrogate["K"][judged]) == "supported" and len(families.tested) > 0
    if descend:
        within_null = k_of_surrogates(families, ruler, states, count)
    arguments: dict[str, Any] = {"surrogates": surrogates, "linkage": linkage}
    arguments |= {"distance": distance} | _described(ruler)
    return xr.Dataset(
        {
            **pair_variables(between, overlap, linkage, DISTANCES[distance]),
            **surrogate_trees(nulls, ruler=ruler, linkage=linkage, seed=seed),
            **statistics_variables(between, overlap, observed, surrogate),
            "judged": labelled("null", judged, "whether a verdict asks for this null"),
            "cluster": labelled("replica", families.labels, "family at the top level"),
            "cluster_size": labelled("top", families.sizes, "members of the family"),
            "K_within": labelled("top", families.K, "K inside the family"),
            "K_within_null": labelled(("null", "top", "surrogate"), within_null, "K, surrogates"),
        },
        coords={"null": [null.name for null in nulls]},
        attrs={
            **provenance("hierarchy", SOURCE, seed, **arguments),
            "distance": distance,
            "rule": RULE,
            "second_level": _note(families, descend),
        },
    )


def hierarchy_findings(dataset: xr.Dataset) -> list[Finding]:
    """Judge a Dataset of `hierarchy`: families, families within them, alike beyond chance.

    The last compares the mean distance with the norm-matched null, which plain points do not have
    and which means nothing for distances between functions.
    """
    families = _families(dataset)
    findings = [families, _families_within(dataset, families.verdict)]
    of_networks = "norm-matched" in dataset["null"] and distance_kind(dataset) == "orbit"
    return findings + ([_alike(dataset)] if of_networks else [])


def _families(dataset: xr.Dataset) -> Finding:
    interval = jackknife_k(dataset["distance"].values)
    null = judged(dataset, "K_null")
    verdict = judge(interval.value, null.values)
    answers: dict[Verdict, str] = {
        "supported": "Solutions form families beyond chance",
        "not supported": "Solutions form no families beyond chance",
        "undecided": "Whether solutions form families beyond chance is undecided",
    }
    return Finding(
        protocol="hierarchy",
        question=f"Do the solutions form families{BY[distance_kind(dataset)]}?",
        statement=f"{answers[verdict]}: {_against(interval.value, dataset['K_null'])}.",
        **interval._asdict(),
        **_null_fields(interval.value, null),
        rule=RULE + which_null(dataset),
        verdict=verdict,
    )


def _families_within(dataset: xr.Dataset, first: str) -> Finding:
    """Judge the second level; its K is the mean over the families that are large enough."""
    tested = dataset["K_within"].notnull().values
    value = float(dataset["K_within"].mean()) if tested.any() else None
    null = judged(dataset, "K_within_null").isel(top=np.flatnonzero(tested))
    null = null.sum("top", skipna=False) / max(1, tested.sum())
    measured = value is not None and bool(np.isfinite(null).all())
    verdict: Verdict = "not supported" if first == "not supported" else "undecided"
    if measured and value is not None:
        verdict = judge(value, null.values)
        seen = f"inside the families, on average, {_against(value, null)}"
    elif first == "not supported":
        value, seen = None, "there are no families at the top level that could hold any"
    else:
        seen = dataset.attrs["second_level"]
    answers: dict[Verdict, str] = {
        "supported": "Families hold families: a hierarchy",
        "not supported": "There is no hierarchy beyond chance",
        "undecided": "Whether there is a hierarchy is undecided",
    }
    return Finding(
        protocol="hierarchy",
        question=f"Do the solutions form families within families{BY[distance_kind(dataset)]}?",
        statement=f"{answers[verdict]}: {seen}.",
        value=value,
        **(_null_fields(value, null) if measured and value is not None else {}),
        rule=f"Supported only if the top level is, and the mean K inside its families is. "
        f"{RULE}{which_null(dataset)}",
        verdict=verdict,
    )


def _alike(dataset: xr.Dataset) -> Finding:
    value = float(dataset["mean_distance"])
    null = dataset["mean_distance_null"].sel(null="norm-matched").values
    p = p_value(value, null)
    less = p < LEVEL
    short = len(null) < LEAST_SURROGATES
    verdict: Verdict = "supported" if less else "undecided" if short else "not supported"
    answers: dict[Verdict, str] = {
        "supported": "Solutions are more alike than chance",
        "not supported": "Solutions are not more alike than chance",
        "undecided": "Whether solutions are more alike than chance is undecided",
    }
    return Finding(
        protocol="hierarchy",
        question="Are solutions more alike than chance?",
        statement=f"{answers[verdict]}: their mean distance is {value / null.mean():.3g} times "
        "that of networks with the same norms and random directions.",
        value=value,
        null="norm-matched",
        null_value=float(null.mean()),
        p=p,
        rule=f"Supported if the mean distance is below the null (one-sided p < {LEVEL}).",
        verdict=verdict,
    )


def judged(dataset: xr.Dataset, name: str) -> xr.DataArray:
    """Return a variable of the surrogates for the nulls that a verdict asks for."""
    values = dataset[name]
    return values.isel(null=np.flatnonzero(dataset["judged"])) if "judged" in dataset else values


def which_null(dataset: xr.Dataset) -> str:
    """Say which null a rule means where it is not all of them."""
    if "function star" not in dataset["null"]:
        return ""
    return " The null is the function star: surrogate weights compute something else."


def distance_kind(dataset: xr.Dataset) -> str:
    """Return by what the replicas were compared."""
    return str(dataset.attrs.get("distance", "orbit"))


def _against(value: float, null: xr.DataArray) -> str:
    means = [f"{float(one.mean()):.3g} ({one['null'].item()})" for one in null]
    return f"K is {value:.3g}, that of surrogates {' and '.join(means)}"


def _null_fields(value: float, null: xr.DataArray) -> dict[str, Any]:
    """Take the null that is hardest to beat: the largest p, and of those the smallest mean."""
    rank = [(p_value(value, one.values), -float(one.mean()), i) for i, one in enumerate(null)]
    p, mean, place = max(rank)
    return {"null": str(null["null"].values[place]), "null_value": -mean, "p": p}


def _described(ruler: Ruler) -> dict[str, Any]:
    if ruler.functional and ruler.landscape is not None:
        return {"samples": len(ruler.landscape.x)}
    if ruler.symmetry is None or ruler.kind == "weights":
        return {"symmetry": "none"}
    return {"symmetry": ruler.symmetry.describe()}


def _note(families: Families, descend: bool) -> str:
    if descend:
        return f"tested in {len(families.tested)} families of at least {LEAST_MEMBERS} members"
    if not len(families.tested):
        return f"not tested: no family of the top level has {LEAST_MEMBERS} different members"
    return "not tested: the top level is not supported"
