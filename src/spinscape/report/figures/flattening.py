"""Pictures of flattened minima beside the plain ones of the same seeds."""

from __future__ import annotations

from html import escape

import numpy as np
from numpy.typing import NDArray
from xarray import DataArray, Dataset

from spinscape.report.figures.traces import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    VERMILION,
    axis,
    line,
    log_axis,
    points,
)
from spinscape.report.panels import Drawing, Panel, Parts, Trace
from spinscape.report.wording import axis_label, number, percent, spread

__all__ = ["draw_flattening"]

_LOOK = {
    "plain": (BLUE, "circle"),
    "weight averaging": (GREEN, "diamond"),
    "SAM": (VERMILION, "square"),
    "walk averaging": (ORANGE, "triangle-up"),
}
_Array = NDArray[np.float64]


def draw_flattening(parts: Parts) -> list[Drawing]:
    """What flattening gains in test error seed by seed, and how flat and good each minimum is."""
    data = parts["ruggedness_flattened"]
    cost = data["cost"].values
    caption = (
        f"{data.sizes['replica']} seeds, each trained in {data.sizes['kind']} ways at one cost, "
        f"{number(cost.max())} sample gradients (within {percent(1 - cost.min() / cost.max())}). "
        "Points right of the line of no improvement are seeds at which the flattened minimum has "
        "the lower test error. Training losses are not equal; the table gives them."
    )
    panels = (_improvements(data), _against_error(data))
    return [Drawing("flattening", panels, caption, *_table(data))]


def _kinds(data: Dataset) -> list[str]:
    return [str(kind) for kind in data["kind"].values]


def _values(variable: DataArray, kind: str) -> _Array:
    return variable.sel(kind=kind).values.astype(float)


def _gains(data: Dataset, kind: str) -> _Array:
    """Test error of the plain minimum less that of the flattened one, in points of percent."""
    plain, own = (_values(data["test_error"], one) for one in (_kinds(data)[0], kind))
    gains = 100 * (plain - own)
    return gains[np.isfinite(gains)]


def _improvements(data: Dataset) -> Panel:
    kinds = _kinds(data)[1:]
    traces: list[Trace] = []
    words = []
    for kind in kinds:
        gains = _gains(data, kind)
        if len(gains):
            traces.append(_box(gains, kind))
            words.append(f"{kind} {number(gains.mean())}")
    none = line([0] * len(kinds), kinds, "no improvement (null)", INK, dash="dash")
    return Panel(
        "flattening-gain",
        "What flattening gains, seed by seed",
        "Test error of the plain minimum less that of the flattened one of the same seed and cost; "
        f"means: {', '.join(words)} percentage points; 0 is no improvement.",
        (*traces, {**none, "hoverinfo": "skip", "hovertemplate": None}),
        {
            "xaxis": axis("Gain (percentage points)"),
            "yaxis": axis("", type="category", categoryarray=kinds[::-1], categoryorder="array"),
            "boxgap": 0.3,
        },
    )


def _box(gains: _Array, kind: str) -> Trace:
    colour, symbol = _LOOK.get(kind, (GREY, "x"))
    return {
        "type": "box",
        "x": gains,
        "y": [kind] * len(gains),
        "orientation": "h",
        "name": kind,
        "legendgroup": kind,
        "showlegend": False,
        "boxmean": True,
        "boxpoints": "all",
        "jitter": 0.9,
        "pointpos": 0,
        "marker": {"color": colour, "symbol": symbol, "size": 6, "opacity": 0.6},
        "line": {"color": colour, "width": 1.5},
        "fillcolor": "rgba(255,255,255,0)",
        "hovertemplate": f"%{{x:.3g}} points<extra>{escape(kind)}</extra>",
    }


def _against_error(data: Dataset) -> Panel:
    traces = []
    words = []
    for kind in _kinds(data):
        flatness, error = _values(data["local_energy"], kind), _values(data["test_error"], kind)
        there = np.isfinite(flatness) & np.isfinite(error)
        if there.any():
            colour, symbol = _LOOK.get(kind, (GREY, "x"))
            hover = "local energy %{x:.3g} nats, test error %{y:.3g} %"
            traces.append(
                points(
                    flatness[there], 100 * error[there], kind, colour, symbol=symbol, hover=hover
                )
            )
            middle = np.median(flatness[there]), 100 * np.median(error[there])
            words.append(f"{kind} {number(middle[0])} nats and {number(middle[1])} percent")
    every = data["local_energy"].values
    label = axis_label(data["local_energy"], "local energy")
    return Panel(
        "flattening-flatness",
        "Flatness and test error of every minimum",
        "Local energy against test error, one mark a network; medians: " + "; ".join(words) + ".",
        tuple(traces),
        {"xaxis": log_axis(label, every), "yaxis": axis("Test error (%)")},
    )


def _table(data: Dataset) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    rows = []
    for kind in _kinds(data):
        measured = [
            spread(_values(data[name], kind), write)[0]
            for name, write in (
                ("train_loss", number),
                ("test_loss", number),
                ("test_error", percent),
                ("local_energy", number),
            )
        ]
        gains = _gains(data, kind)
        gained = number(gains.mean()) if len(gains) and kind != _kinds(data)[0] else "–"
        rows.append((kind, number(float(data["cost"].sel(kind=kind))), *measured, gained))
    columns = (
        "Kind of minimum",
        "Cost, sample gradients",
        "Training loss, nats (median)",
        "Test loss, nats (median)",
        "Test error (median)",
        "Local energy, nats (median)",
        "Mean improvement of the test error, percentage points",
    )
    return columns, tuple(rows)
