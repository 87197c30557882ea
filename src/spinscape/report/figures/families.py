"""Pictures of how solutions cluster: ordered distances beside those of surrogates, and K."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from xarray import DataArray, Dataset

from spinscape.report.figures.traces import (
    BLUE,
    INK,
    ORANGE,
    axis,
    histogram,
    line,
    thinned,
    upright,
)
from spinscape.report.panels import Drawing, Panel, Parts, Trace
from spinscape.report.wording import axis_label, number, quantity, spread

__all__ = ["draw_hierarchy", "draw_nulls"]

_MOST_CELLS = 160
_LOOK = {"norm-matched": (BLUE, ""), "star": (ORANGE, "/")}
_Array = NDArray[np.float64]
_WARNING = (
    "The trees above the matrices are no evidence: any set of points has one, and points without "
    "any structure look much alike. Only K against both nulls decides."
)


def draw_hierarchy(parts: Parts) -> list[Drawing]:
    """Distance matrices of solutions and of surrogates, then K and mean distance with nulls."""
    data = parts["hierarchy"]
    return [_matrices(data), *([draw_nulls(data)] if "K_null" in data else [])]


def _nulls(data: Dataset) -> list[str]:
    return [str(null) for null in data["null"].values] if "null" in data.coords else []


def _matrices(data: Dataset) -> Drawing:
    sets = {"trained networks": (data["distance"], data["linkage"], data["order"])}
    for null in _nulls(data) if "surrogate_distance" in data else []:
        one = data.sel(null=null)
        sets[f"one {null} surrogate"] = (
            one["surrogate_distance"],
            one["surrogate_linkage"],
            one["surrogate_order"],
        )
    squares = {name: _square(distance, order) for name, (distance, _, order) in sets.items()}
    inside = np.concatenate([_off_diagonal(square) for square in squares.values()])
    low, high = np.nanquantile(inside, [0.005, 0.995])
    top = max(float(linkage.values[:, 2].max()) for _, linkage, _ in sets.values())
    label = axis_label(data["distance"], "distance")
    panels = tuple(
        _matrix(number_, name, squares[name], linkage, order, (low, high), top, label)
        for number_, (name, (_, linkage, order)) in enumerate(sets.items())
    )
    shown = len(squares["trained networks"])
    caption = (
        f"Distance between every two of {data.sizes['replica']} solutions after removing the "
        "symmetries, ordered by a clustering tree, beside the same for surrogates that have no "
        f"families by construction. All are on one scale. {_WARNING}"
    )
    if shown < data.sizes["replica"]:
        caption += f" Every so many rows are left out, so that {shown} are drawn."
    rows = tuple((name, *spread(_off_diagonal(square))) for name, square in squares.items())
    columns = ("Set", "Distance: median", "10–90 % of pairs")
    return Drawing("matrices", panels, caption, columns, rows)


def _square(distance: DataArray, order: DataArray) -> _Array:
    square = distance.values.astype(float)
    rows = order.values.astype(int)[thinned(len(square), _MOST_CELLS)]
    square = square[np.ix_(rows, rows)]
    np.fill_diagonal(square, np.nan)
    return square


def _off_diagonal(square: _Array) -> _Array:
    return square[np.isfinite(square)]


def _matrix(
    place: int,
    name: str,
    square: _Array,
    linkage: DataArray,
    order: DataArray,
    limits: tuple[float, float],
    top: float,
    label: str,
) -> Panel:
    size = len(square)
    middle = number(np.median(_off_diagonal(square)))
    leaves = order.sizes[order.dims[-1]]
    hidden: dict[str, Any] = {"showticklabels": False, "ticks": "", "showline": False}
    cells = (size - 1) * (np.arange(leaves) / max(leaves - 1, 1))
    return Panel(
        f"matrix-{place}",
        f"{name[:1].upper()}{name[1:]}",
        f"Heat map of the distances between {size} {name}, rows ordered by a clustering tree "
        f"drawn above it; median distance {middle}.",
        (_heat(square, limits, label), _tree(linkage.values, order.values.astype(int), cells)),
        {
            "xaxis": axis("", **hidden, range=[-0.5, size - 0.5], anchor="y"),
            "yaxis": axis("", **hidden, range=[size - 0.5, -0.5], domain=[0, 0.76]),
            "yaxis2": axis(
                "", showline=False, domain=[0.79, 1], range=[0, 1.05 * top], nticks=3, anchor="x"
            ),
            "margin": {"l": 40, "r": 8, "t": 6, "b": 62},
        },
        height=440,
    )


def _heat(square: _Array, limits: tuple[float, float], label: str) -> Trace:
    return {
        "type": "heatmap",
        "z": square,
        "zmin": limits[0],
        "zmax": limits[1],
        "colorscale": "Cividis",
        "colorbar": {
            "orientation": "h",
            "thickness": 10,
            "len": 1,
            "x": 0.5,
            "y": -0.02,
            "yanchor": "top",
            "nticks": 5,
            "title": {"text": label, "side": "bottom", "font": {"size": 12}},
            "outlinewidth": 0,
        },
        "hovertemplate": "distance %{z:.3g}<extra></extra>",
        "showlegend": False,
    }


def _tree(linkage: _Array, order: NDArray[np.int_], cells: _Array) -> Trace:
    """Tree of a SciPy linkage as one line: each merge is a bracket over its two branches."""
    leaves = len(order)
    place = np.empty(2 * leaves - 1)
    height = np.zeros(2 * leaves - 1)
    place[order] = cells
    brackets = np.full((leaves - 1, 5, 2), np.nan)
    for merge, (left, right, distance, _) in enumerate(linkage):
        a, b = int(left), int(right)
        brackets[merge, :4, 0] = place[a], place[a], place[b], place[b]
        brackets[merge, :4, 1] = height[a], distance, distance, height[b]
        place[leaves + merge] = (place[a] + place[b]) / 2
        height[leaves + merge] = distance
    x, y = brackets.reshape(-1, 2).T
    tree = line(x, y, "tree", INK, width=1, legend=False)
    return {**tree, "yaxis": "y2", "hoverinfo": "skip", "hovertemplate": None}


def draw_nulls(data: Dataset, of: str = "trained networks") -> Drawing:
    """K and mean distance of what `of` names, each against its surrogates."""
    wanted = ("K", "mean_distance")
    panels = []
    rows: list[tuple[str, ...]] = []
    for name in wanted:
        if name not in data or f"{name}_null" not in data:
            continue
        panels.append(_histograms(data, name, of))
        for null in _nulls(data):
            rows.append(_compared(data, name, null))
    surrogates = data.sizes["surrogate"]
    caption = (
        f"K is small for a family tree: the smaller, the more the triangles of solutions have two "
        f"long sides and one short. Hatched and plain bars: {surrogates} surrogates of each null, "
        "treated exactly alike. A family tree would put the black line of K to the left of both "
        "heaps; a mean distance to the left says only that the networks are alike."
    )
    return Drawing(
        "nulls",
        tuple(panels),
        caption,
        ("Quantity", "Networks", "Null", "Null: mean (lowest to highest)", "Networks / null mean"),
        tuple(rows),
    )


def _histograms(data: Dataset, name: str, of: str) -> Panel:
    observed = float(data[name])
    nulls = {null: data[f"{name}_null"].sel(null=null).values for null in _nulls(data)}
    finite = np.concatenate([v[np.isfinite(v)] for v in nulls.values()])
    edges = _edges(nulls, np.append(finite, observed))
    bars = [
        histogram(values, edges, f"null: {null}", _look(null)[0], hatch=_look(null)[1])
        for null, values in nulls.items()
    ]
    top = float(max(bar["y"].max() for bar in bars))
    means = ", ".join(f"{null} {number(np.nanmean(values))}" for null, values in nulls.items())
    long_name = quantity(data[name], "K")
    return Panel(
        f"nulls-{name.replace('_', '-').lower()}",
        "K against its nulls" if name == "K" else "Mean distance against the same nulls",
        f"{long_name}: {number(observed)} for {of}; mean of the nulls: {means}.",
        (*bars, upright(observed, 1.08 * top, of, INK)),
        {
            "xaxis": axis(axis_label(data[name], name)),
            "yaxis": axis("Surrogates", rangemode="tozero"),
            "barmode": "overlay",
        },
        height=320,
    )


def _look(null: str) -> tuple[str, str]:
    return _LOOK.get(null, ("#CC79A7", "x"))


def _edges(nulls: dict[str, _Array], everything: _Array) -> _Array:
    """Bins narrow enough for the narrowest null, over the whole range, at most 200."""
    low, high = float(everything.min()), float(everything.max())
    span = (high - low) or max(abs(high), 1.0) * 0.1
    narrowest = min((float(np.ptp(v[np.isfinite(v)])) for v in nulls.values()), default=span)
    count = int(np.clip(np.ceil(span / max(narrowest / 10, span / 120)), 12, 120))
    return np.linspace(low - 0.04 * span, high + 0.04 * span, count + 1)


def _compared(data: Dataset, name: str, null: str) -> tuple[str, ...]:
    values = data[f"{name}_null"].sel(null=null).values
    observed = float(data[name])
    mean = float(np.nanmean(values))
    spread = f"{number(mean)} ({number(np.nanmin(values))} to {number(np.nanmax(values))})"
    return quantity(data[name], name), number(observed), null, spread, number(observed / mean)
