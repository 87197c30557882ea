"""The marks that every figure is made of, in one palette that colour-blind readers can tell apart.

Colours are those of Okabe and Ito (2008). No meaning rests on colour alone: lines differ in
dash, points in symbol, bars in hatching.
"""

from __future__ import annotations

import textwrap
from html import escape
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spinscape.report.panels import Trace

__all__ = [
    "BLUE",
    "GREEN",
    "GREY",
    "INK",
    "ORANGE",
    "PALETTE",
    "PURPLE",
    "SKY",
    "VERMILION",
    "axis",
    "band",
    "bundle",
    "histogram",
    "line",
    "log_axis",
    "points",
    "thinned",
    "upright",
]

BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, INK, GREY = "#CC79A7", "#56B4E9", "#1f2933", "#6b7785"
PALETTE = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY)
_GRID = "#e3e7ec"


def axis(title: str, **settings: Any) -> dict[str, Any]:
    """Collect the settings of an axis; a long title is broken into lines."""
    lines = "<br>".join(textwrap.wrap(title, 34))
    return {
        "title": {"text": lines, "standoff": 8},
        "gridcolor": _GRID,
        "zeroline": False,
        "linecolor": "#9aa5b1",
        "showline": True,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": "#9aa5b1",
        "automargin": True,
        **settings,
    }


def log_axis(title: str, values: ArrayLike, **settings: Any) -> dict[str, Any]:
    """Collect the settings of a logarithmic axis, labelled with plain numbers.

    Labels stand at powers of ten, or also between them where the values span few: at 2 and 5, or
    at 3 where those would crowd.
    """
    numbers = np.asarray(values, dtype=float)
    numbers = numbers[np.isfinite(numbers) & (numbers > 0)]
    low, high = (numbers.min(), numbers.max()) if len(numbers) else (0.1, 1.0)
    decades = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    every = -(-len(decades) // 7)
    between = [1.0] if len(decades) > 4 else [1.0, 2.0, 5.0]
    ticks = [step * 10.0**decade for decade in decades[::every] for step in between]
    if len(between) > 1 and sum(low <= tick <= high for tick in ticks) > 7:
        ticks = [step * 10.0**decade for decade in decades[::every] for step in (1.0, 3.0)]
    labels = [f"{tick:g}" if 1e-3 <= tick < 1e4 else _power(tick) for tick in ticks]
    return axis(title, type="log", tickvals=ticks, ticktext=labels, **settings)


def _power(tick: float) -> str:
    mantissa, _, exponent = f"{tick:.0e}".partition("e")
    power = f"10<sup>{int(exponent)}</sup>".replace("-", "−")
    return power if mantissa == "1" else f"{mantissa}·{power}"


def line(
    x: ArrayLike,
    y: ArrayLike,
    name: str,
    colour: str,
    *,
    dash: str = "solid",
    width: float = 2.5,
    legend: bool = True,
    hover: str = "%{x:.4g}, %{y:.3g}",
) -> Trace:
    """One curve."""
    return {
        "type": "scatter",
        "mode": "lines",
        "x": np.asarray(x),
        "y": np.asarray(y),
        "name": name,
        "legendgroup": name,
        "showlegend": legend,
        "line": {"color": colour, "width": width, "dash": dash},
        "hovertemplate": f"{hover}<extra>{escape(name)}</extra>",
    }


def bundle(
    x: ArrayLike, curves: ArrayLike, name: str, colour: str, *, opacity: float = 0.35
) -> Trace:
    """Many thin curves `[curve, x]` as one trace, with a gap between them."""
    y = np.asarray(curves, dtype=float)
    gap = np.full((len(y), 1), np.nan)
    repeated = np.tile(np.append(np.asarray(x, dtype=float), np.nan), len(y))
    trace = line(repeated, np.hstack([y, gap]).ravel(), name, colour, width=1)
    return {**trace, "opacity": opacity, "connectgaps": False}


def band(x: ArrayLike, low: ArrayLike, high: ArrayLike, name: str, colour: str) -> Trace:
    """Fill between two curves; places where either is missing are left out."""
    xs, bottom, top = (np.asarray(v, dtype=float) for v in (x, low, high))
    there = np.isfinite(bottom) & np.isfinite(top)
    xs, bottom, top = xs[there], bottom[there], top[there]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": np.concatenate([xs, xs[::-1]]),
        "y": np.concatenate([top, bottom[::-1]]),
        "name": name,
        "legendgroup": name,
        "showlegend": True,
        "fill": "toself",
        "fillcolor": _faded(colour, 0.2),
        "line": {"width": 0, "color": colour},
        "hoverinfo": "skip",
    }


def points(
    x: ArrayLike,
    y: ArrayLike,
    name: str,
    colour: str,
    *,
    symbol: str = "circle",
    size: float = 8,
    legend: bool = True,
    hover: str = "%{x:.4g}, %{y:.3g}",
    text: list[str] | None = None,
) -> Trace:
    """Separate marks, translucent so that those behind show."""
    trace: Trace = {
        "type": "scatter",
        "mode": "markers",
        "x": np.asarray(x),
        "y": np.asarray(y),
        "name": name,
        "legendgroup": name,
        "showlegend": legend,
        "marker": {"color": colour, "symbol": symbol, "size": size, "opacity": 0.75},
        "hovertemplate": f"{hover}<extra>{escape(name)}</extra>",
    }
    return trace if text is None else {**trace, "text": text}


def histogram(
    values: ArrayLike, edges: NDArray[np.float64], name: str, colour: str, *, hatch: str = ""
) -> Trace:
    """Bars of counts between given edges, counted here so that the page stays small."""
    finite = np.asarray(values, dtype=float).ravel()
    counts, _ = np.histogram(finite[np.isfinite(finite)], edges)
    return {
        "type": "bar",
        "x": (edges[1:] + edges[:-1]) / 2,
        "y": counts,
        "width": np.diff(edges),
        "name": name,
        "legendgroup": name,
        "showlegend": True,
        "opacity": 0.65,
        "marker": {
            "color": colour,
            "line": {"color": "#ffffff", "width": 0.5},
            "pattern": {
                "shape": hatch,
                "fgcolor": "#ffffff",
                "fillmode": "overlay",
                "size": 7,
                "solidity": 0.3,
            },
        },
        "hovertemplate": f"%{{x:.4g}}: %{{y}}<extra>{escape(name)}</extra>",
    }


def upright(x: float, top: float, name: str, colour: str, *, dash: str = "solid") -> Trace:
    """Vertical line from the axis to `top`, at an observed value."""
    return line([x, x], [0, top], name, colour, dash=dash, width=3, hover="%{x:.4g}")


def thinned(length: int, limit: int = 200, *, logarithmic: bool = False) -> NDArray[np.intp]:
    """At most `limit` of the indices below `length`, the first and the last among them."""
    if length <= limit:
        return np.arange(length)
    if logarithmic:
        spread = np.geomspace(1, length, limit) - 1
    else:
        spread = np.linspace(0, length - 1, limit)
    return np.unique(np.round(spread).astype(np.intp))


def _faded(colour: str, opacity: float) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"
