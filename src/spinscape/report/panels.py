"""What a figure of the page is made of: panels, legend keys, numbers in words.

A panel holds plain plotly dictionaries: they are cheap to make and to write as JSON, and
`Panel.figure` turns one into a `plotly.graph_objects.Figure`, which checks every property.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import plotly.graph_objects as go
from xarray import Dataset

__all__ = ["Drawing", "Key", "Panel", "Parts", "Trace", "to_json"]

Trace = dict[str, Any]
Parts = Mapping[str, Dataset]
"""The stored Datasets of a run by the names of their parts."""

_FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
_BASE: dict[str, Any] = {
    "font": {"family": _FONT, "size": 13, "color": "#1f2933"},
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "margin": {"l": 58, "r": 20, "t": 10, "b": 46},
    "hoverlabel": {"font": {"family": _FONT, "size": 12}, "align": "left"},
    "hovermode": "closest",
    "autosize": True,
}


@dataclass(frozen=True)
class Key:
    """One entry of a legend: its words and how its traces look."""

    name: str
    group: str
    colour: str
    shape: str
    """A plotly dash or marker symbol, "thin", "band", "bar", "hatched bar" or "crossed bar"."""


@dataclass(frozen=True)
class Panel:
    """One plot with its own axes and text alternative."""

    key: str
    title: str
    alternative: str
    traces: tuple[Trace, ...]
    layout: dict[str, Any] = field(default_factory=dict)
    height: int = 300

    @property
    def keys(self) -> tuple[Key, ...]:
        """The legend, one entry for each trace that asks for one."""
        return tuple(_key(trace) for trace in self.traces if trace.get("showlegend"))

    def as_dict(self) -> dict[str, Any]:
        """Write as plotly's dictionary, arrays included."""
        return {"data": list(self.traces), "layout": {**_BASE, **self.layout}}

    def figure(self) -> go.Figure:
        """Build the panel as a plotly figure, for use outside the page."""
        below = {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom"}
        title = {"title": {"text": self.title}, "legend": below}
        return go.Figure(self.as_dict()).update_layout(title, margin={"t": 50, "b": 90})


@dataclass(frozen=True)
class Drawing:
    """A figure of the page: panels side by side, a caption, the main numbers as a table."""

    key: str
    panels: tuple[Panel, ...]
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def _key(trace: Trace) -> Key:
    marker, line = trace.get("marker", {}), trace.get("line", {})
    if trace["type"] == "bar":
        hatched = marker.get("pattern", {}).get("shape", "")
        colour, shape = marker["color"], {"": "bar", "x": "crossed bar"}.get(hatched, "hatched bar")
    elif trace.get("fill"):
        colour, shape = trace["fillcolor"], "band"
    elif trace["type"] == "box" or trace.get("mode") == "markers":
        colour, shape = marker["color"], marker.get("symbol", "circle")
    else:
        dash = line.get("dash", "solid")
        colour, shape = line["color"], "thin" if line["width"] <= 1 and dash == "solid" else dash
    return Key(trace["name"], trace["legendgroup"], colour, shape)


def to_json(value: object, digits: int = 5) -> str:
    """Write as JSON that is safe inside a script element.

    Arrays become lists rounded to so many significant digits (what a screen can show), and
    values that are not finite become null, which plotly leaves out.
    """
    text = json.dumps(
        value,
        default=partial(_plain, digits=digits),
        allow_nan=False,
        separators=(",", ":"),
        ensure_ascii=False,
    )
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _plain(value: object, digits: int) -> object:
    if isinstance(value, np.generic):
        value = np.asarray(value)
    if not isinstance(value, np.ndarray):
        raise TypeError(f"cannot write {type(value).__name__} into a figure")
    if value.dtype.kind != "f":
        return value.tolist()
    values = value.astype(np.float64)
    size = np.abs(np.where(np.isfinite(values) & (values != 0), values, 1.0))
    scale = 10.0 ** (digits - 1 - np.floor(np.log10(size)))
    rounded = np.asarray(np.round(values * scale) / scale, dtype=object)
    rounded[~np.isfinite(values)] = None
    return rounded.tolist()
