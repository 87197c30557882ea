"""Whether trained replicas form a hierarchy, as the states of a spin glass do.

Distances between the orbits of all pairs, a tree, and K (`ultrametricity.hed_young_domany_k`)
beside the K of surrogates that have no tree (`surrogates`). One level of families makes K small,
too, so K is taken again inside every family of the top level, against surrogates of that family.
"""

from functools import partial
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from scipy.cluster.hierarchy import leaves_list
from torch import Tensor, nn

from spinscape.glass.families import (
    LEAST_MEMBERS,
    Families,
    families_of,
    is_flat,
    k_of_surrogates,
)
from spinscape.glass.records import labelled, provenance
from spinscape.glass.surrogates import (
    LEAST_SURROGATES,
    LEVEL,
    RULE,
    Map,
    Null,
    Verdict,
    distances,
    draw_surrogate,
    judge,
    null_statistics,
    nulls_of,
    run_here,
)
from spinscape.glass.ultrametricity import (
    LINKAGES,
    Linkage,
    TreeStatistics,
    jackknife_k,
    tree_of,
    tree_statistics,
)
from spinscape.nets import symmetry as symmetries
from spinscape.nets.symmetry import Symmetry
from spinscape.nets.weightspace import points as points_of
from spinscape.statistics import Finding, p_value

__all__ = ["hierarchy", "hierarchy_findings"]

SOURCE = "arXiv 2407.20724 (question); Hed, Young & Domany 2004 (K); both nulls are ours"
LABELS = {
    "K": "K of Hed, Young and Domany",
    "cophenetic": "cophenetic correlation",
    "rammal_toulouse_virasoro": "index of Rammal, Toulouse and Virasoro",
    "mean_distance": "mean distance of two replicas",
}


def hierarchy(
    module: nn.Module | None,
    points: Float[Tensor, "replica n"] | xr.DataArray | xr.Dataset,
    *,
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
        ``distance`` [replica, other], ``linkage`` [merge, column], ``order`` [replica] (leaves);
        ``K``, ``cophenetic``, ``rammal_toulouse_virasoro``, ``mean_distance``, and the same of the
        surrogates, ``…_null`` [null, surrogate]; ``surrogate_distance``, ``…_linkage``, ``…_order``
        of the first surrogate of each null; ``cluster`` [replica] and ``cluster_size`` [top], the
        top level; ``K_within`` [top] and ``K_within_null`` [null, top, surrogate], NaN for families
        of fewer than 8 members; the latter is taken only where the top level is supported (see
        ``second_level`` in the attributes). Plain points have one null, the star.

    Raises
    ------
    TypeError
        If the module's symmetry is not known.
    ValueError
        If there are fewer than four replicas, some are not finite, all distances are equal, or two
        networks are copies of one another.
    """
    if linkage not in LINKAGES:
        raise ValueError(f"linkage: expected one of {LINKAGES}, got {linkage!r}")
    if surrogates < 1:
        raise ValueError(f"surrogates: expected at least 1, got {surrogates}")
    found = None if module is None else symmetries.of(module, symmetry)
    states = _checked(points, found)
    distance = distances(found, states, seed=seed)
    if is_flat(distance, states):
        raise ValueError(
            f"points: all distances are {distance.max():g} up to rounding, so there is nothing to "
            "cluster; are the replicas copies of one another?"
        )
    if found is not None:
        _refuse_copies(distance, states)
    nulls = nulls_of(found, states, seed=seed)
    count = partial(null_statistics, surrogates=surrogates, linkage=linkage, seed=seed, map=map)
    observed, surrogate = tree_statistics(distance, linkage), count(nulls)
    families = families_of(distance, tree_of(distance, linkage), states)
    within_null = np.full((len(nulls), len(families.sizes), surrogates), np.nan)
    descend = judge(observed.K, surrogate["K"]) == "supported" and len(families.tested) > 0
    if descend:
        within_null = k_of_surrogates(families, found, states, count, seed=seed)
    arguments: dict[str, Any] = {"surrogates": surrogates, "linkage": linkage}
    arguments["symmetry"] = "none" if found is None else found.describe()
    return xr.Dataset(
        {
            **_tree(distance, linkage),
            **_surrogate_trees(nulls, linkage, seed),
            **_statistics_variables(observed, surrogate),
            "cluster": labelled("replica", families.labels, "family at the top level"),
            "cluster_size": labelled("top", families.sizes, "members of the family"),
            "K_within": labelled("top", families.K, "K inside the family"),
            "K_within_null": labelled(("null", "top", "surrogate"), within_null, "K, surrogates"),
        },
        coords={"null": [null.name for null in nulls]},
        attrs={
            **provenance("hierarchy", SOURCE, seed, **arguments),
            "rule": RULE,
            "second_level": _note(families, descend),
        },
    )


def hierarchy_findings(dataset: xr.Dataset) -> list[Finding]:
    """Judge a Dataset of `hierarchy`: families, families within them, alike beyond chance.

    The last compares the mean distance with the norm-matched null, which plain points do not have.
    """
    families = _families(dataset)
    findings = [families, _families_within(dataset, families.verdict)]
    return findings + ([_alike(dataset)] if "norm-matched" in dataset["null"] else [])


def _families(dataset: xr.Dataset) -> Finding:
    interval = jackknife_k(dataset["distance"].values)
    null = dataset["K_null"].values
    verdict = judge(interval.value, null)
    answers: dict[Verdict, str] = {
        "supported": "Solutions form families beyond chance",
        "not supported": "Solutions form no families beyond chance",
        "undecided": "Whether solutions form families beyond chance is undecided",
    }
    return Finding(
        protocol="hierarchy",
        question="Do the solutions form families?",
        statement=f"{answers[verdict]}: {_against(interval.value, dataset['K_null'])}.",
        **interval._asdict(),
        **_null_fields(interval.value, dataset["K_null"]),
        rule=RULE,
        verdict=verdict,
    )


def _families_within(dataset: xr.Dataset, first: str) -> Finding:
    """Judge the second level; its K is the mean over the families that are large enough."""
    tested = dataset["K_within"].notnull().values
    value = float(dataset["K_within"].mean()) if tested.any() else None
    null = dataset["K_within_null"].isel(top=np.flatnonzero(tested))
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
        question="Do the solutions form families within families?",
        statement=f"{answers[verdict]}: {seen}.",
        value=value,
        **(_null_fields(value, null) if measured and value is not None else {}),
        rule=f"Supported only if the top level is, and the mean K inside its families is. {RULE}",
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


def _against(value: float, null: xr.DataArray) -> str:
    means = [f"{float(one.mean()):.3g} ({one['null'].item()})" for one in null]
    return f"K is {value:.3g}, that of surrogates {' and '.join(means)}"


def _null_fields(value: float, null: xr.DataArray) -> dict[str, Any]:
    """Take the null that is hardest to beat: the largest p, and of those the smallest mean."""
    rank = [(p_value(value, one.values), -float(one.mean()), i) for i, one in enumerate(null)]
    p, mean, place = max(rank)
    return {"null": str(null["null"].values[place]), "null_value": -mean, "p": p}


def _checked(
    points: Float[Tensor, "replica n"] | xr.DataArray | xr.Dataset, symmetry: Symmetry | None
) -> Tensor:
    """Return the points as a floating tensor [replica, n] that can be clustered."""
    states = points_of(points)
    if symmetry is None and not states.is_floating_point():
        states = states.double()
    if states.ndim != 2 or len(states) < 4:
        raise ValueError(f"points: expected [replica ≥ 4, n], got shape {tuple(states.shape)}")
    if symmetry is not None and states.shape[1] != symmetry.n:
        raise ValueError(
            f"points: of length {states.shape[1]:,}, but the module has {symmetry.n:,} parameters"
        )
    bad = torch.nonzero(~torch.isfinite(states).all(1))[:, 0].tolist()
    if bad:
        raise ValueError(f"points: replicas {bad} are not finite; leave them out, visibly")
    return states


def _refuse_copies(distance: np.ndarray, points: Tensor) -> None:
    """Refuse networks at no distance: a checkpoint given twice would pass for a family."""
    norm = float(torch.linalg.vector_norm(points, dim=1).max())
    near = distance <= 16 * torch.finfo(points.dtype).eps * norm
    first, second = np.nonzero(np.triu(near, 1))
    if len(first):
        raise ValueError(
            f"points: replicas {first[0]} and {second[0]} are the same network up to symmetry "
            f"({len(first)} such pairs), which would pass for a family; leave copies out"
        )


def _note(families: Families, descend: bool) -> str:
    if descend:
        return f"tested in {len(families.tested)} families of at least {LEAST_MEMBERS} members"
    if not len(families.tested):
        return f"not tested: no family of the top level has {LEAST_MEMBERS} different members"
    return "not tested: the top level is not supported"


def _tree(distance: np.ndarray, linkage: Linkage) -> xr.Dataset:
    tree = tree_of(distance, linkage, ordered=True)
    return xr.Dataset(
        {
            "distance": labelled(("replica", "other"), distance, "distance, symmetry removed"),
            "linkage": labelled(("merge", "column"), tree, "joined, joined, height, members"),
            "order": labelled("replica", leaves_list(tree), "order of the leaves"),
        }
    )


def _surrogate_trees(nulls: tuple[Null, ...], linkage: Linkage, seed: int) -> xr.Dataset:
    """Return the tree of the first surrogate of each null, to be drawn beside that of the data."""
    trees = [
        _tree(distances(null.symmetry, draw_surrogate(null, 0, seed=seed), seed=seed), linkage)
        for null in nulls
    ]
    joined = xr.concat(trees, "null")
    return joined.rename({name: f"surrogate_{name}" for name in joined.data_vars})


def _statistics_variables(
    observed: TreeStatistics, surrogate: dict[str, np.ndarray]
) -> dict[str, Any]:
    variables = {}
    for name, value in observed._asdict().items():
        variables[name] = labelled((), value, LABELS[name])
        nulls = labelled(("null", "surrogate"), surrogate[name], f"{LABELS[name]}, surrogates")
        variables[f"{name}_null"] = nulls
    return variables
