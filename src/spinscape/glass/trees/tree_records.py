"""How distances, trees and the statistics of pairs are written into a Dataset."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from scipy.cluster.hierarchy import leaves_list

from spinscape.glass.trees.mixing import FunctionStar
from spinscape.glass.trees.rulers import Matrix, PairStatistics, Ruler
from spinscape.glass.trees.surrogates import Null, draw_pairs
from spinscape.glass.trees.ultrametricity import (
    Linkage,
    hed_young_domany_k,
    jackknife_error,
    tree_of,
)
from spinscape.records import labelled

__all__ = ["pair_variables", "statistics_variables", "surrogate_trees"]

LABELS = {
    "K": "K of Hed, Young and Domany",
    "cophenetic": "cophenetic correlation",
    "rammal_toulouse_virasoro": "index of Rammal, Toulouse and Virasoro",
    "mean_distance": "mean distance of two replicas",
    "overlap_mean": "mean overlap q of two replicas",
    "overlap_width": "standard deviation of the overlap q over pairs",
    "overlap_quantiles": "quantiles of the overlap q over pairs",
}


def pair_variables(
    distance: Matrix, overlap: Matrix, linkage: Linkage, label: str
) -> dict[str, Any]:
    """Distances and overlaps of all pairs, the tree, and its leaves in an order to draw them in."""
    tree = tree_of(distance, linkage, ordered=True)
    return {
        "distance": labelled(("replica", "other"), distance, label),
        "overlap": labelled(("replica", "other"), overlap, "overlap q"),
        "linkage": labelled(("merge", "column"), tree, "joined, joined, height, members"),
        "order": labelled("replica", leaves_list(tree), "order of the leaves"),
    }


def surrogate_trees(
    nulls: Sequence[Null | FunctionStar], *, ruler: Ruler, linkage: Linkage, seed: int
) -> xr.Dataset:
    """Return the tree of the first surrogate of each null, to be drawn beside that of the data."""
    drawn = [draw_pairs(null, 0, ruler=ruler, seed=seed) for null in nulls]
    trees = [xr.Dataset(pair_variables(*pairs, linkage, "distance")) for pairs in drawn]
    joined = xr.concat(trees, "null")
    return joined.rename({name: f"surrogate_{name}" for name in joined.data_vars})


def statistics_variables(
    distance: Matrix,
    overlap: Matrix,
    observed: PairStatistics,
    surrogate: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    """Statistics of the data, of the surrogates, and the jackknife errors of those of the data."""
    variables = {}
    for name, value in observed._asdict().items():
        axes = ("quantile",) * np.ndim(value)
        variables[name] = labelled(axes, value, LABELS[name])
        label = f"{LABELS[name]}, surrogates"
        variables[f"{name}_null"] = labelled(("null", "surrogate", *axes), surrogate[name], label)
    errors: dict[str, tuple[Matrix, Callable[[Matrix], float]]] = {
        "K": (distance, hed_young_domany_k),
        "overlap_mean": (overlap, lambda q: float(_pairs(q).mean())),
        "overlap_width": (overlap, lambda q: float(_pairs(q).std())),
    }
    for name, (matrix, statistic) in errors.items():
        error = jackknife_error(matrix, statistic)
        variables[f"{name}_error"] = labelled((), error, f"{LABELS[name]}, standard error")
    return variables


def _pairs(matrix: Matrix) -> np.ndarray:
    return matrix[np.triu_indices(len(matrix), 1)]
