"""Pictures of paths other than straight ones: bent, and through permutation points."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

import numpy as np
from numpy.typing import NDArray
from xarray import DataArray, Dataset

from spinscape.report.figures.traces import BLUE, GREEN, GREY, VERMILION, axis, band, line
from spinscape.report.panels import Drawing, Panel, Parts, Trace
from spinscape.report.wording import axis_label, number, plain, spread

__all__ = ["draw_bends"]

_Array = NDArray[np.float64]
_LOOK = {
    "straight": (GREY, "dash", "x"),
    "bent": (BLUE, "solid", "circle"),
    "merged": (VERMILION, "dot", "square"),
    "lowered": (GREEN, "dashdot", "diamond"),
}
_ENDS = {
    "own copy": "a solution and its own copy",
    "independent": "two solutions",
    "aligned": "two solutions, units matched",
}


def draw_bends(parts: Parts) -> list[Drawing]:
    """Loss along straight lines and lower paths, and their barriers, of what was stored."""
    drawings = []
    if "permutation_bezier" in parts:
        drawings.append(_bent(parts["permutation_bezier"]))
    if "permutation_points" in parts:
        drawings.append(_points(parts["permutation_points"]))
    return drawings


def _bent(data: Dataset) -> Drawing:
    kinds = [str(kind) for kind in data["kind"].values]
    panels = [_along_bent(data, kind) for kind in kinds]
    heights = {
        route: [(kind, _finite(data[name].sel(kind=kind))) for kind in kinds]
        for route, name in (("straight", "straight_barrier"), ("bent", "barrier"))
    }
    label = axis_label(data["barrier"], "barrier")
    panels.append(_boxes("bends-barriers", "Barrier, straight and bent", heights, label))
    caption = (
        f"{data.sizes['path']} paths of each kind. Lines are medians, bands hold the middle 80 % "
        "of paths. A bent path starts from the straight one, which is what it is set against, and "
        "is moved until the mean loss on it is low; of all curves met the lowest is kept."
    )
    return Drawing("bends", tuple(panels), caption, *_bent_table(data, kinds))


def _along_bent(data: Dataset, kind: str) -> Panel:
    curves = {
        route: data[name].sel(kind=kind).transpose("path", "lam")
        for route, name in (("straight", "straight_loss"), ("bent", "loss"))
    }
    title = f"Loss between {_ENDS.get(kind, kind)}"
    return _along(f"bends-{kind.replace(' ', '-')}", title, "Position on the path", curves)


def _points(data: Dataset) -> Drawing:
    routes = [str(route) for route in data["route"].values]
    stacked = data.stack(path=("replica", "swap"))
    curves = {route: stacked["loss"].sel(route=route).transpose("path", "lam") for route in routes}
    title = "Loss while two hidden units change places"
    panels = (
        _along("points-loss", title, "Position on the route", curves),
        _boxes(
            "points-barriers",
            "Barrier between a solution and its copy",
            {route: [(route, _finite(stacked["barrier"].sel(route=route)))] for route in routes},
            axis_label(data["barrier"], "barrier"),
        ),
    )
    swaps = data.sizes["swap"]
    caption = (
        f"{data.sizes['replica']} solutions, {swaps} pair{'' if swaps == 1 else 's'} of hidden "
        "units of each. "
        "Straight: the straight line to the copy with both units exchanged. Bent: the same, bent. "
        "Merged: to the point where both units are one, there their output weights are exchanged "
        "(the level middle third), and back. Lowered: the same, that point moved to lower loss. "
        "Lines are medians, bands hold the middle 80 %."
    )
    names = [name for name in ("barrier", "held_barrier") if name in data]
    rows = tuple(
        (route, *(_spread(stacked[name].sel(route=route)) for name in names)) for route in routes
    )
    columns = ("Route", *(_COLUMNS[name] for name in names))
    return Drawing("permutation-points", panels, caption, columns, rows)


_COLUMNS = {
    "straight_barrier": "Straight barrier: median (10–90 %), nats",
    "barrier": "Barrier: median (10–90 %), nats",
    "held_straight_barrier": "Straight barrier, samples held out",
    "held_barrier": "Barrier, samples held out",
}


def _bent_table(
    data: Dataset, kinds: list[str]
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    names = [name for name in _COLUMNS if name in data]
    stretch = (data["length"] / data["distance"]).transpose("kind", "path")
    rows = tuple(
        (
            kind,
            *(_spread(data[name].sel(kind=kind)) for name in names),
            plain(round(float(stretch.sel(kind=kind).median()), 2)),
        )
        for kind in kinds
    )
    columns = (
        "Kind of path",
        *(_COLUMNS[name].replace("Barrier", "Bent barrier") for name in names),
        "Length, bent to straight, median",
    )
    return columns, rows


def _along(key: str, title: str, place: str, curves: Mapping[str, DataArray]) -> Panel:
    """Median and middle 80 % of the loss on every route."""
    bands: list[Trace] = []
    lines: list[Trace] = []
    words = []
    for route, curve in curves.items():
        values = curve.values.astype(float)
        values = values[np.isfinite(values).all(axis=1)]
        if not len(values):
            continue
        colour, dash, _ = _look(route)
        low, middle, high = np.quantile(values, [0.1, 0.5, 0.9], axis=0)
        lam = curve["lam"].values
        bands.append({**band(lam, low, high, route, colour), "showlegend": False})
        lines.append(line(lam, middle, route, colour, dash=dash, hover="at %{x:.2f}: %{y:.3g}"))
        words.append(f"{route} {number(middle.max())}")
    label = axis_label(list(curves.values())[-1], "loss")
    return Panel(
        key,
        title,
        f"{title}. Highest median on the way: {', '.join(words)} nats.",
        (*bands, *lines),
        {"xaxis": axis(place), "yaxis": axis(label, rangemode="tozero")},
    )


def _boxes(
    key: str, title: str, heights: Mapping[str, list[tuple[str, _Array]]], label: str
) -> Panel:
    """One box a route at every place on the axis, one mark a path."""
    traces: list[Trace] = []
    words = []
    for route, places in heights.items():
        traces.append(_box(route, places, grouped=len(places) > 1))
        for place, values in places:
            name = route if place == route else f"{place}, {route}"
            words.append(f"{name} {number(np.median(values)) if len(values) else '–'}")
    return Panel(
        key,
        title,
        f"{title}, medians: {'; '.join(words)} nats.",
        tuple(traces),
        {
            "xaxis": axis("", type="category"),
            "yaxis": axis(label, rangemode="tozero"),
            "boxmode": "group"
            if any(len(places) > 1 for places in heights.values())
            else "overlay",
            "boxgap": 0.35,
        },
    )


def _box(route: str, places: list[tuple[str, _Array]], *, grouped: bool) -> Trace:
    colour, _, symbol = _look(route)
    return {
        "type": "box",
        "y": np.concatenate([values for _, values in places]),
        "x": [place for place, values in places for _ in values],
        "name": route,
        "legendgroup": route,
        "showlegend": grouped,
        "boxpoints": "all",
        "jitter": 0.5,
        "pointpos": 0,
        "marker": {"color": colour, "symbol": symbol, "size": 5, "opacity": 0.45},
        "line": {"color": colour, "width": 1.5},
        "fillcolor": "rgba(255,255,255,0)",
        "hovertemplate": f"barrier %{{y:.3g}}<extra>{escape(route)}</extra>",
    }


def _look(route: str) -> tuple[str, str, str]:
    return _LOOK.get(route, (GREY, "longdash", "circle"))


def _finite(variable: DataArray) -> _Array:
    values = variable.values.astype(float).ravel()
    return values[np.isfinite(values)]


def _spread(variable: DataArray) -> str:
    return "{} ({})".format(*spread(variable.values.astype(float).ravel()))
