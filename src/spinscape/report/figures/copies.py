"""Pictures of barriers to own copies, by units moved, and between networks of several widths."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from xarray import Dataset

from spinscape.report.figures.midpoints import draw_pairs, draw_repair
from spinscape.report.figures.traces import (
    BLUE,
    GREEN,
    GREY,
    PURPLE,
    VERMILION,
    band,
    line,
    log_axis,
    points,
    thinned,
)
from spinscape.report.panels import Drawing, Panel, Parts, Trace
from spinscape.report.wording import axis_label, number, spread

__all__ = ["draw_copies"]

_COPIES = {
    "transpositions": (BLUE, "solid", "circle"),
    "cycle": (VERMILION, "dash", "square"),
    "random": (GREEN, "dot", "diamond"),
}
_WIDTHS = {
    "own copy": (BLUE, "solid", "circle"),
    "independent": (VERMILION, "dash", "square"),
    "aligned": (GREEN, "dot", "diamond"),
    "aligned by activations": (PURPLE, "dashdot", "triangle-up"),
}
_Array = NDArray[np.float64]


def draw_copies(parts: Parts) -> list[Drawing]:
    """Draw those of the parts that are there, each as a figure of its own.

    ``permutation_copies`` and ``permutation_widths`` against power laws, ``permutation_pairs``
    beside ``permutation_pairs_aligned``, and ``permutation_repair``.
    """
    drawn: list[tuple[tuple[str, ...], Callable[[Parts], Drawing]]] = [
        (("permutation_copies",), _copies),
        (("permutation_widths",), _widths),
        (("permutation_pairs", "permutation_pairs_aligned"), draw_pairs),
        (("permutation_repair",), draw_repair),
    ]
    return [draw(parts) for names, draw in drawn if any(name in parts for name in names)]


def _copies(parts: Parts) -> Drawing:
    data = parts["permutation_copies"]
    moved = data["moved"].values.astype(float)
    heights = data["barrier"].mean("draw").transpose("kind", "moved", "replica")
    label = axis_label(data["barrier"], "barrier")
    top: list[Trace] = []
    curves: list[Trace] = []
    words, rows = [], []
    for kind in map(str, data["kind"].values):
        colour, dash, symbol = _COPIES.get(kind, (GREY, "longdash", "x"))
        values = heights.sel(kind=kind).values.astype(float)
        mean = _positive(values.mean(1))
        low, high = np.quantile(values, [0.1, 0.9], axis=1)
        top.append(
            {**band(moved, _positive(low), _positive(high), kind, colour), "showlegend": False}
        )
        curves.append(_marked(line(moved, mean, kind, colour, dash=dash), symbol))
        words.append(f"{kind} {number(mean[0])} to {number(mean[-1])}")
        q = data["overlap"].sel(kind=kind).mean(("replica", "draw")).values
        rows += [
            (kind, f"{int(m)}", number(at), number(overlap), "{} ({})".format(*spread(each)))
            for m, at, overlap, each in zip(moved, mean, q, values, strict=True)
        ]
    first = float(curves[0]["y"][0])
    null = line(moved, first * moved / moved[0], "in proportion", GREY, dash="longdash", width=2)
    axes = {"xaxis": log_axis("Hidden units moved", moved), "yaxis": _log_y(label, curves)}
    by_moved = Panel(
        "copies-moved",
        "Barrier to the own copy, by units moved",
        f"Mean barrier from {int(moved[0])} to {int(moved[-1])} units moved: {', '.join(words)} "
        f"nats; in proportion it would end at {number(first * moved[-1] / moved[0])}.",
        (*top, *curves, null),
        axes,
        height=340,
    )
    caption = (
        f"Copies of {data.sizes['replica']} solutions that compute the same, some hidden units "
        "exchanged. Lines are means, bands hold the middle 80 % of solutions. Swaps that did not "
        "feel each other would add up: the grey line."
    )
    columns = ("Copies", "Units moved", "Mean barrier, nats", "Overlap q", "Median (10–90 %)")
    return Drawing("copies", (by_moved, _by_overlap(data, label)), caption, columns, tuple(rows))


def _by_overlap(data: Dataset, label: str) -> Panel:
    traces: list[Trace] = []
    words = []
    for kind in map(str, data["kind"].values):
        colour, _, symbol = _COPIES.get(kind, (GREY, "longdash", "x"))
        apart = _positive(1 - data["overlap"].sel(kind=kind).values.astype(float).ravel())
        height = _positive(data["barrier"].sel(kind=kind).values.astype(float).ravel())
        kept = thinned(len(apart), 400)
        traces.append(points(apart[kept], height[kept], kind, colour, symbol=symbol, size=5))
        words.append(f"{kind} {number(np.nanmin(apart))} to {number(np.nanmax(apart))}")
    everywhere = np.concatenate([trace["x"] for trace in traces])
    return Panel(
        "copies-overlap",
        "Barrier, by how far the copy is",
        f"Barriers against 1 − q; range of 1 − q: {', '.join(words)}.",
        tuple(traces),
        {
            "xaxis": log_axis("1 − overlap q of the ends", everywhere),
            "yaxis": _log_y(label, traces),
        },
        height=340,
    )


def _widths(parts: Parts) -> Drawing:
    data = parts["permutation_widths"]
    widths = data["width"].values.astype(float)
    label = axis_label(data["barrier"], "barrier")
    bands: list[Trace] = []
    curves: list[Trace] = []
    words, rows = [], []
    for kind in map(str, data["kind"].values):
        if kind not in _WIDTHS:
            continue
        colour, dash, symbol = _WIDTHS[kind]
        values = data["barrier"].sel(kind=kind).transpose("width", "path").values.astype(float)
        mean = _positive(values.mean(1))
        low, high = np.quantile(values, [0.1, 0.9], axis=1)
        bands.append(
            {**band(widths, _positive(low), _positive(high), kind, colour), "showlegend": False}
        )
        curves.append(_marked(line(widths, mean, kind, colour, dash=dash), symbol))
        words.append(f"{kind} {number(mean[0])} to {number(mean[-1])}")
        rows += [
            (kind, f"{int(width)}", number(at), "{} ({})".format(*spread(each)))
            for width, at, each in zip(widths, mean, values, strict=True)
        ]
    guides: list[Trace] = []
    if curves:
        start = float(curves[-1]["y"][0])
        half = start * (widths / widths[0]) ** -0.5
        guides = [
            line(widths, half, "width to the power −½", GREY, dash="longdash", width=2),
            line(widths, np.full(len(widths), start), "no dependence", GREY, width=1),
        ]
    panel = Panel(
        "copies-widths",
        "Barriers of networks of different widths",
        f"Mean barrier from {int(widths[0])} to {int(widths[-1])} hidden units: {', '.join(words)} "
        "nats.",
        (*bands, *curves, *guides),
        {"xaxis": log_axis("Hidden units", widths), "yaxis": _log_y(label, [*curves, *guides])},
        height=360,
    )
    caption = (
        f"{data.sizes['path']} paths of each kind at every width; means, and the middle 80 % of "
        "paths. The grey lines begin at the last curve: barriers that did not depend on the width, "
        "and the power −½ that is foretold of aligned wide networks after a peak."
    )
    columns = ("Kind of path", "Hidden units", "Mean barrier, nats", "Median (10–90 %)")
    return Drawing("widths", (panel,), caption, columns, tuple(rows))


def _marked(trace: Trace, symbol: str) -> Trace:
    marker = {"symbol": symbol, "size": 8, "color": trace["line"]["color"]}
    return {**trace, "mode": "lines+markers", "marker": marker}


def _positive(values: _Array) -> _Array:
    """Values that a logarithmic axis can show; others are left out."""
    return np.where(values > 0, values, np.nan)


def _log_y(label: str, traces: list[Trace]) -> dict[str, object]:
    return log_axis(label, np.concatenate([np.asarray(trace["y"], float) for trace in traces]))
