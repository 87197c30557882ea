"""Pictures of what lies halfway: barriers between all pairs of solutions, and REPAIR."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from xarray import DataArray, Dataset

from spinscape.report.figures.traces import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    VERMILION,
    axis,
    line,
    points,
    thinned,
)
from spinscape.report.panels import Drawing, Panel, Parts, Trace
from spinscape.report.wording import axis_label, number, percent, spread

__all__ = ["draw_pairs", "draw_repair"]

_STATES = {
    "plain": (VERMILION, "square"),
    "repaired": (GREEN, "diamond"),
    "permuted statistics": (GREY, "x"),
}
_MOST_CELLS = 160
_Array = NDArray[np.float64]


def draw_pairs(parts: Parts) -> Drawing:
    """Barriers between all pairs, as trained and after alignment, side by side."""
    named = {"as trained": "permutation_pairs", "after alignment": "permutation_pairs_aligned"}
    found = {how: parts[name] for how, name in named.items() if name in parts}
    order = _by_height(next(iter(found.values()))["barrier"])
    squares = {how: _square(data["barrier"], order) for how, data in found.items()}
    top = max(float(np.nanmax(square)) for square in squares.values())
    panels = tuple(
        _matrix(how, square, top, axis_label(found[how]["barrier"], "barrier"))
        for how, square in squares.items()
    )
    count = len(next(iter(found.values()))["replica"])
    caption = (
        f"Height of the barrier between every two of {count} solutions, on one colour scale and in "
        f"one order: solutions with low barriers {next(iter(found))} come first."
    )
    rows = []
    for how, data in found.items():
        above = np.triu_indices(count, 1)
        cells = [data[name].values[above] for name in ("barrier", "distance", "midpoint")]
        rows.append((how, *("{} ({})".format(*spread(values)) for values in cells)))
    columns = (
        "Pairs",
        "Barrier: median (10–90 %), nats",
        "Distance: median (10–90 %)",
        "Loss halfway: median (10–90 %), nats",
    )
    return Drawing("pairs", panels, caption, columns, tuple(rows))


def _matrix(how: str, square: _Array, top: float, label: str) -> Panel:
    inside = square[np.isfinite(square)]
    places = np.arange(1, len(square) + 1)
    trace: Trace = {
        "type": "heatmap",
        "z": square,
        "x": places,
        "y": places,
        "zmin": 0,
        "zmax": top,
        "colorscale": "Cividis",
        "showlegend": False,
        "colorbar": {
            "orientation": "h",
            "thickness": 10,
            "len": 0.9,
            "y": -0.18,
            "yanchor": "top",
            "nticks": 5,
            "title": {"text": label, "side": "bottom", "font": {"size": 12}},
            "outlinewidth": 0,
        },
        "hovertemplate": "%{x}, %{y}: %{z:.3g}<extra></extra>",
    }
    return Panel(
        f"pairs-{how.replace(' ', '-')}",
        f"Barriers between all pairs {how}",
        f"Barriers {how} between {len(square)} solutions: median {number(np.median(inside))}, "
        f"from {number(inside.min())} to {number(inside.max())} nats.",
        (trace,),
        {
            "xaxis": axis("Solution", showgrid=False, constrain="domain"),
            "yaxis": axis(
                "Solution",
                showgrid=False,
                autorange="reversed",
                scaleanchor="x",
                constrain="domain",
            ),
            "margin": {"l": 58, "r": 14, "t": 6, "b": 100},
        },
        height=440,
    )


def _by_height(barrier: DataArray) -> NDArray[np.intp]:
    order = np.argsort(barrier.mean("other").values, kind="stable")
    return order[thinned(len(order), _MOST_CELLS)]


def _square(barrier: DataArray, order: NDArray[np.intp]) -> _Array:
    square = barrier.values.astype(float)[np.ix_(order, order)]
    np.fill_diagonal(square, np.nan)
    return square


def draw_repair(parts: Parts) -> Drawing:
    """Loss halfway between aligned solutions before and after REPAIR, and the variance there."""
    data = parts["permutation_repair"]
    states = [str(state) for state in data["state"].values]
    excess = {state: data["excess"].sel(state=state).values.astype(float) for state in states}
    panels = [
        _boxes(excess, [state for state in states if state != "permuted statistics"]),
        _variances(data),
    ]
    caption = (
        f"{data.sizes['path']} networks halfway between aligned solutions, one mark each. Mixing "
        "units that do not do quite the same flattens them; REPAIR gives them back the mean and "
        "spread of the ends. With the statistics of other units instead, the median is "
        f"{number(np.median(excess.get('permuted statistics', np.array([np.nan]))))} nats above "
        "the ends."
    )
    wrong = 100 * data["error"]
    rows = tuple(
        (
            state,
            "{} ({})".format(*spread(excess[state])),
            "{} ({})".format(*spread(data["loss"].sel(state=state).values)),
            percent(float(np.median(wrong.sel(state=state))) / 100),
        )
        for state in states
    )
    columns = (
        "Network halfway",
        "Loss above the ends: median (10–90 %), nats",
        "Loss: median (10–90 %), nats",
        "Error, median",
    )
    return Drawing("repair", tuple(panels), caption, columns, rows)


def _boxes(excess: dict[str, _Array], states: list[str]) -> Panel:
    traces: list[Trace] = []
    for state in states:
        colour, symbol = _STATES.get(state, (GREY, "x"))
        traces.append(
            {
                "type": "box",
                "y": excess[state],
                "x": [state] * len(excess[state]),
                "name": state,
                "legendgroup": state,
                "showlegend": False,
                "boxpoints": "all",
                "jitter": 0.5,
                "pointpos": 0,
                "marker": {"color": colour, "symbol": symbol, "size": 5, "opacity": 0.5},
                "line": {"color": colour, "width": 1.5},
                "fillcolor": "rgba(255,255,255,0)",
            }
        )
    words = ", ".join(f"{state} {number(np.median(excess[state]))}" for state in states)
    return Panel(
        "repair-excess",
        "Loss halfway, above the ends' mean",
        f"Median loss above the mean of the ends: {words} nats.",
        tuple(traces),
        {
            "xaxis": axis("", type="category"),
            "yaxis": axis("Loss above the ends' mean (nats)", zeroline=True),
            "boxgap": 0.45,
        },
        height=340,
    )


def _variances(data: Dataset) -> Panel:
    traces: list[Trace] = []
    words = []
    for layer in range(data.sizes["layer"]):
        here = data.isel(layer=layer)
        rho, ratio = here["correlation"].values, here["variance"].values
        name = f"hidden layer {layer + 1}"
        colour = (BLUE, ORANGE, GREEN, PURPLE)[layer % 4]
        traces.append(
            points(rho, ratio, name, colour, symbol=("circle", "square", "diamond", "x")[layer % 4])
        )
        words.append(f"{name}: correlation {number(rho.mean())}, variance {number(ratio.mean())}")
    low = min(0.0, float(data["correlation"].min()))
    ends = np.array([low, 1.0])
    law = line(ends, (1 + ends) / 2, "(1 + correlation) / 2", GREY, dash="longdash", width=2)
    return Panel(
        "repair-variance",
        "Variance that averaging leaves to the units",
        f"Share of the variance of hidden pre-activations that is left halfway; "
        f"{'; '.join(words)}. Equal spreads would give (1 + correlation) / 2.",
        (*traces, law),
        {
            "xaxis": axis("Correlation of matched units"),
            "yaxis": axis("Variance left halfway", rangemode="tozero"),
        },
        height=340,
    )
