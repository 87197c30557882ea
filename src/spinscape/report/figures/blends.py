"""Pictures of straight paths between solutions, and of the barriers on them."""

from __future__ import annotations

import textwrap
from html import escape

import numpy as np
from numpy.typing import NDArray
from xarray import DataArray, Dataset

from spinscape.report.figures.traces import BLUE, GREEN, GREY, PURPLE, VERMILION, axis, band, line
from spinscape.report.panels import Drawing, Panel, Parts, Trace
from spinscape.report.wording import axis_label, number, percent, spread

__all__ = ["draw_paths"]

_LOOK = {
    "own copy": (BLUE, "solid", "circle"),
    "independent": (VERMILION, "dash", "square"),
    "random matching": (GREY, "longdash", "x"),
    "aligned": (GREEN, "dot", "diamond"),
    "aligned by activations": (PURPLE, "dashdot", "triangle-up"),
}
_Array = NDArray[np.float64]


def draw_paths(parts: Parts) -> list[Drawing]:
    """Loss and error along straight paths of every kind, and their barriers."""
    data = parts["permutation"]
    panels = [
        _along(data, "loss", "Loss while one network is blended into another"),
        _along(data, "error", "Error while one network is blended into another"),
        _barriers(data),
    ]
    paths = data.sizes["path"]
    caption = (
        f"{paths} straight paths of each kind. Lines are medians, bands hold the middle 80 % of "
        "paths. At 0 and at 1 stands a trained network, or a copy of one that computes the same; "
        "the blends in between were never trained."
    )
    shown = tuple(panel for panel in panels if panel is not None)
    return [Drawing("paths", shown, caption, *_table(data))]


def _kinds(data: Dataset) -> list[str]:
    return [str(kind) for kind in data["kind"].values]


def _look(kind: str) -> tuple[str, str, str]:
    return _LOOK.get(kind, ("#6b7785", "longdash", "x"))


def _values(variable: DataArray, kind: str) -> _Array:
    values = variable.sel(kind=kind).values.astype(float)
    return values[np.isfinite(values).reshape(len(values), -1).all(axis=1)]


def _along(data: Dataset, name: str, title: str) -> Panel | None:
    if name not in data:
        return None
    along = data[name].transpose("kind", "path", "lam")
    scale = 100.0 if name == "error" else 1.0
    bands: list[Trace] = []
    lines: list[Trace] = []
    words = []
    for kind in _kinds(data):
        values = scale * _values(along, kind)
        if not len(values):
            continue
        colour, dash, _ = _look(kind)
        low, middle, high = np.nanquantile(values, [0.1, 0.5, 0.9], axis=0)
        lam = data["lam"].values
        bands.append({**band(lam, low, high, kind, colour), "showlegend": False})
        lines.append(line(lam, middle, kind, colour, dash=dash, hover="at %{x:.2f}: %{y:.3g}"))
        words.append(f"{kind} {number(middle.max())}")
    label = "Wrongly classified (%)" if name == "error" else axis_label(along, "loss")
    return Panel(
        f"paths-{name}",
        title,
        f"{title}. Highest median on the way: {', '.join(words)}"
        f"{' percent' if name == 'error' else ' nats'}.",
        (*bands, *lines),
        {
            "xaxis": axis("Position on the path"),
            "yaxis": axis(label, rangemode="tozero"),
        },
        height=340,
    )


def _barriers(data: Dataset) -> Panel | None:
    if "barrier" not in data:
        return None
    traces: list[Trace] = []
    words = []
    for kind in _kinds(data):
        values = _values(data["barrier"].transpose("kind", "path"), kind)
        if not len(values):
            continue
        traces.append(_box(values, kind))
        words.append(f"{kind} {number(np.median(values))}")
    return Panel(
        "paths-barriers",
        "Height of the barrier, one mark a path",
        f"Barriers of each kind of path; medians: {', '.join(words)} nats.",
        tuple(traces),
        {
            "xaxis": axis("Barrier (nats)", rangemode="tozero"),
            "yaxis": axis("", type="category", autorange="reversed"),
            "boxgap": 0.35,
        },
        height=340,
    )


def _box(values: _Array, kind: str) -> Trace:
    colour, _, symbol = _look(kind)
    return {
        "type": "box",
        "orientation": "h",
        "x": values,
        "y": ["<br>".join(textwrap.wrap(escape(kind), 12))] * len(values),
        "name": kind,
        "legendgroup": kind,
        "showlegend": False,
        "boxpoints": "all",
        "jitter": 0.5,
        "pointpos": 0,
        "marker": {"color": colour, "symbol": symbol, "size": 5, "opacity": 0.45},
        "line": {"color": colour, "width": 1.5},
        "fillcolor": "rgba(255,255,255,0)",
        "hovertemplate": f"barrier %{{x:.3g}}<extra>{escape(kind)}</extra>",
    }


def _table(data: Dataset) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    rows = []
    for kind in _kinds(data):
        cells = [kind]
        for name in ("barrier", "distance"):
            values = _values(data[name], kind) if name in data else np.empty(0)
            cells.append("{} ({})".format(*spread(values)) if len(values) else "–")
        worst = 100 * _values(data["error"], kind) if "error" in data else np.empty((0, 1))
        cells.append(percent(np.median(worst.max(axis=1)) / 100) if len(worst) else "–")
        rows.append(tuple(cells))
    columns = (
        "Kind of path",
        "Barrier: median (10–90 %), nats",
        "Distance of the ends: median (10–90 %)",
        "Highest error on the way, median",
    )
    return columns, tuple(rows)
