"""Pictures of one Dataset, for a notebook: the same that the page shows."""

from __future__ import annotations

import plotly.graph_objects as go
from xarray import Dataset

from spinscape.report.protocols import PROTOCOLS

__all__ = ["draw"]

_TELLTALE = {
    "linkage": "hierarchy",
    "slice_loss": "ruggedness",
    "barrier": "permutation",
    "displacement": "walk/free",
    "test_error": "population",
}
"""A variable that gives away which protocol a Dataset comes from, the surest first."""


def draw(dataset: Dataset) -> dict[str, go.Figure]:
    """Draw what a protocol returned.

    Parameters
    ----------
    dataset : Dataset
        Of `train`, `population`, `walk`, `permutation_paths`, `hierarchy` or `ruggedness`.

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
    if part is None:
        raise ValueError(
            f"no picture is known for a Dataset with variables {sorted(map(str, dataset))}; "
            f"one of {sorted(_TELLTALE)} was expected"
        )
    if part == "walk/free" and "temperature" in dataset.attrs:
        part = "walk/thermal"
    protocol = next(protocol for protocol in PROTOCOLS if part in protocol.parts)
    drawings = protocol.draw({part: dataset})
    return {panel.key: panel.figure() for drawing in drawings for panel in drawing.panels}
