"""Pictures of one Dataset, for a notebook: the same that the page shows."""

from __future__ import annotations

import json

import plotly.graph_objects as go
from xarray import Dataset

from spinscape.report.figures.gallery import draw_one_scan
from spinscape.report.protocols import PROTOCOLS

__all__ = ["draw"]

_TELLTALE = {
    "overlap_null": ("mined/v-basin", "lam"),
    "ratio_index": ("asymmetry/base", "noise"),
    "agreement": ("mechanism", "direction"),
    "prominence": ("curves/given", "direction"),
    "apart": ("mined/saddle", "a"),
    "holes": ("surfaces/pairs", "pair"),
    "flat": ("sweep", "weight"),
    "rise": ("line", "end"),
    "eigenvalue": ("curvature/given", "eigenpair"),
    "kernel_change": ("laziness", "scale"),
    "layer_correlation": ("overlaps/given", "heat"),
    "ends_overlap": ("tap/given", "heat"),
    "edge_null": ("spectra/given", "step"),
    "weight_change": ("phases/followed", "step"),
    "T_null": ("phases/given", "replica"),
    "rand_null": ("clones_family", "level"),
    "linkage": ("hierarchy", "merge"),
    "density_null": ("hierarchy_overlaps", "set"),
    "verdict_within": ("hierarchy_sets", "set"),
    "slice_loss": ("ruggedness", "replica"),
    "walk_energy": ("ruggedness_flattened", "replica"),
    "unrelated_barrier": ("clones", "waiting"),
    "control_returned": ("walk/quenches", "quench"),
    "straight_barrier": ("permutation_bezier", "kind"),
    "exchange": ("permutation_points", "route"),
    "variance_law": ("permutation_repair", "path"),
    "midpoint": ("permutation_pairs", "replica"),
    "displacement": ("walk/free", "walker"),
    "test_error": ("population", "replica"),
    "loss": ("surfaces/given", "a"),
}
"""A variable that gives away which part a Dataset is, the surest first, and a dimension it has."""

_DIMENSION = {"moved": "permutation_copies", "width": "permutation_widths", "kind": "permutation"}
"""What tells apart those that have barriers."""

_CLONES = ("waiting", "ancestor", "child")
"""Dimensions of clones, which are drawn as any trained networks."""


def draw(dataset: Dataset) -> dict[str, go.Figure]:
    """Draw what a protocol returned.

    Parameters
    ----------
    dataset : Dataset
        Of `train`, `population`, `clone`, `family`, a protocol of `spinscape.glass` or
        `spinscape.valleys`, `spins.phase`, `spins.tap`, `spins.spectrum`, `curvature.eigenpairs`,
        or a line or plane of a landscape.

    Returns
    -------
    dict of str to plotly.graph_objects.Figure
        One figure a panel, by names such as ``"walks-free"``.

    Raises
    ------
    ValueError
        If it is a Dataset of none of these.
    """
    dataset = _of_one_network(dataset)
    if dataset.attrs.get("protocol") == "line":
        drawings = draw_one_scan({"curves/given": dataset.expand_dims(direction=["line"])})
        return {panel.key: panel.figure() for drawing in drawings for panel in drawing.panels}
    if "point" in dataset and set(_CLONES) <= set(dataset.dims):
        dataset = dataset.stack(replica=_CLONES)
    part = next(
        (
            part
            for name, (part, dimension) in _TELLTALE.items()
            if name in dataset and dimension in dataset.dims
        ),
        None,
    )
    if part is None and "barrier" in dataset:
        part = next((part for name, part in _DIMENSION.items() if name in dataset.dims), None)
    if part is None:
        raise ValueError(
            f"no picture is known for a Dataset with variables {sorted(map(str, dataset))}; "
            f"one of {sorted([*_TELLTALE, 'barrier'])} was expected"
        )
    for rule in ("thermal", "threshold"):
        level = "temperature" if rule == "thermal" else rule
        if part == "walk/free" and (level in dataset or level in dataset.attrs):
            part = f"walk/{rule}"
    arguments = json.loads(dataset.attrs.get("arguments") or "{}")
    if part == "permutation_pairs" and arguments.get("aligned"):
        part = "permutation_pairs_aligned"
    protocol = next(protocol for protocol in PROTOCOLS if part in protocol.parts)
    drawings = protocol.draw({part: dataset})
    return {panel.key: panel.figure() for drawing in drawings for panel in drawing.panels}


def _of_one_network(dataset: Dataset) -> Dataset:
    """What one spin model gave, as a study stores it of many: with the dimensions of a history."""
    if "T_null" in dataset and "scan" in dataset.dims and "replica" not in dataset.dims:
        return dataset.reset_coords("beta").expand_dims(replica=["network"])
    if "edge_null" in dataset and "replica" not in dataset.dims:
        return dataset.reset_coords("lam").expand_dims(replica=["network"], step=[0])
    if "ends_overlap" in dataset and "heat" not in dataset.dims:
        arguments = json.loads(dataset.attrs.get("arguments") or "{}")
        solutions, q = dataset.sizes["solution"], dataset["q"].values
        kept = dataset[["count", "ends_overlap"]].rename(other_end="other")
        kept = kept.expand_dims(replica=["network"], step=[0], heat=[arguments.get("T", 0.0)])
        lowest = q[0] if len(q) else float("nan")
        return kept.assign(
            solutions=kept["heat"].copy(data=[solutions]).expand_dims(replica=1, step=1),
            q=kept["heat"].copy(data=[lowest]).expand_dims(replica=1, step=1),
            ends_overlap=kept["ends_overlap"].isel(step=0),
        )
    return dataset
