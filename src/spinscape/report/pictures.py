"""Pictures of one Dataset, for a notebook: the same that the page shows."""

from __future__ import annotations

import plotly.graph_objects as go
from xarray import Dataset

from spinscape.report.protocols import PROTOCOLS

__all__ = ["draw"]

_TELLTALE = {
    "rand_null": "clones_family",
    "linkage": "hierarchy",
    "density_null": "hierarchy_overlaps",
    "verdict_within": "hierarchy_sets",
    "slice_loss": "ruggedness",
    "walk_energy": "ruggedness_flattened",
    "unrelated_barrier": "clones",
    "control_returned": "walk/quenches",
    "straight_barrier": "permutation_bezier",
    "exchange": "permutation_points",
    "variance_law": "permutation_repair",
    "midpoint": "permutation_pairs",
    "displacement": "walk/free",
    "test_error": "population",
}
"""A variable that gives away which protocol a Dataset comes from, the surest first."""

_DIMENSION = {"moved": "permutation_copies", "width": "permutation_widths", "kind": "permutation"}
"""What tells apart those that have barriers."""


def draw(dataset: Dataset) -> dict[str, go.Figure]:
    """Draw what a protocol returned.

    Parameters
    ----------
    dataset : Dataset
        Of `train`, `population` or a protocol of `spinscape.glass`.

    Returns
    -------
    dict of str to plotly.graph_objects.Figure
        One figure a panel, by names such as ``"walks-free"``.

    Raises
    ------
    ValueError
        If it is a Dataset of none of these.
    """
    part = next((part for name, part in _TELLTALE.items() if name in dataset), None)
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
    protocol = next(protocol for protocol in PROTOCOLS if part in protocol.parts)
    drawings = protocol.draw({part: dataset})
    return {panel.key: panel.figure() for drawing in drawings for panel in drawing.panels}
