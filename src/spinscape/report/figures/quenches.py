"""Pictures of quenches: how many fall back into the solution they left, against the distance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from xarray import Dataset

from spinscape.report.figures.traces import (
    BLUE,
    GREY,
    ORANGE,
    PALETTE,
    VERMILION,
    axis,
    line,
    points,
)
from spinscape.report.panels import Drawing, Panel, Parts, Trace
from spinscape.report.wording import axis_label, number, percent

__all__ = ["draw_quenches"]

_LOOK = {
    "distance": (BLUE, "solid", "circle", "dash"),
    "barrier": (ORANGE, "dot", "diamond", "dashdot"),
}
"""Colour, dash and symbol of each criterion, and the dash of its null."""
_MEANT = {
    "distance": "back at the point itself",
    "barrier": "back in its basin (no barrier)",
}
_Array = NDArray[np.float64]


def draw_quenches(parts: Parts) -> list[Drawing]:
    """Fraction returned, and where quenches end, for each temperature walked at."""
    data = parts["walk/quenches"]
    groups = _groups(data)
    panels = [_fractions(one, words, k) for k, (words, one) in enumerate(groups.items())]
    panels += [
        _ends(groups, "end_distance", "Distance from the solution"),
        _ends(groups, "barrier", "Barrier to the solution"),
    ]
    caption = (
        f"Gradient descent from {data.sizes['quench']} points that walkers reached from "
        f"{data.sizes['solution']} solutions, compared with the solution trained on alike, hidden "
        "units matched. Distance 0 are the controls: the solution itself, trained on with another "
        "data order. The null, in dashed lines, are pairs of independent solutions. "
        "A quench on the grey diagonal has undone nothing of its distance."
    )
    return [Drawing("quenches", tuple(panels), caption, *_table(groups))]


def _groups(data: Dataset) -> dict[str, Dataset]:
    """Quenches of one temperature each, by what to call it."""
    if "temperature" not in data:
        return {"": data}
    heat = data["temperature"].values
    kinds = np.unique(heat)
    if len(kinds) == 1:
        return {"": data}
    names = ["free walks" if np.isinf(kind) else f"T = {number(kind)}" for kind in kinds]
    return {
        name: data.isel(quench=np.flatnonzero(heat == kind))
        for name, kind in zip(names, kinds, strict=True)
    }


def _stages(data: Dataset) -> list[Dataset]:
    stage = data["stage"].values
    return [data.isel(quench=np.flatnonzero(stage == k)) for k in np.unique(stage)]


def _returned(data: Dataset, criterion: str) -> tuple[_Array, _Array]:
    """Mean distance of each stage and the fraction that returned, the controls first."""
    stages = _stages(data)
    control = float(data["control_returned"].sel(criterion=criterion).mean())
    back = [float(one["returned"].sel(criterion=criterion).mean()) for one in stages]
    walked = [float(one["distance"].mean()) for one in stages]
    return np.array([0.0, *walked]), np.array([control, *back])


def _fractions(data: Dataset, words: str, place: int) -> Panel:
    traces: list[Trace] = []
    said = []
    for criterion in (str(name) for name in data["criterion"].values):
        colour, dash, symbol, of_null = _LOOK[criterion]
        x, y = _returned(data, criterion)
        null = float(data["other_returned"].sel(criterion=criterion).mean())
        name = _MEANT[criterion]
        traces += [
            line([0, x.max()], [100 * null] * 2, f"null: {name}", colour, dash=of_null, width=1.5),
            line(x, 100 * y, name, colour, dash=dash, hover="from %{x:.3g}: %{y:.0f} %"),
            points(x, 100 * y, name, colour, symbol=symbol, legend=False),
        ]
        said.append(
            f"{name}: {percent(y[1])} from {number(x[1])}, {percent(y[-1])} from "
            f"{number(x[-1])}, null {percent(null)}"
        )
    title = f"Quenches that return{', ' if words else ''}{words}"
    return Panel(
        f"quenches-returned-{place}",
        title,
        f"{title}. {'; '.join(said)}.",
        tuple(traces),
        {
            "xaxis": axis("Distance walked", rangemode="tozero"),
            "yaxis": axis("Returned (% of quenches)", range=[-4, 104]),
        },
        height=340,
    )


def _ends(groups: dict[str, Dataset], name: str, title: str) -> Panel:
    traces: list[Trace] = []
    farthest, said = 0.0, []
    for k, (words, data) in enumerate(groups.items()):
        colour = PALETTE[k % len(PALETTE)]
        symbol = ("circle", "diamond", "square", "cross")[k % 4]
        x, y = data["distance"].values, data[name].values
        traces.append(points(x, y, words or "quenches", colour, symbol=symbol, size=6))
        farthest = max(farthest, float(x.max()))
        said.append(f"{words or 'quenches'} {number(float(np.nanmedian(y)))}")
    first = next(iter(groups.values()))
    control, other = (float(first[f"{kind}_{name}"].mean()) for kind in ("control", "other"))
    ends = [0.0, farthest]
    traces.append(line(ends, [other] * 2, "other solutions (null)", VERMILION, dash="dash"))
    traces.append(line(ends, [control] * 2, "controls", GREY, dash="dot"))
    if name == "end_distance":
        traces.append(line(ends, ends, "nothing undone", GREY, width=1))
    return Panel(
        f"quenches-{name.replace('_', '-')}",
        title,
        f"{title}. Medians: {', '.join(said)}; controls {number(control)}, other solutions "
        f"{number(other)}.",
        tuple(traces),
        {
            "xaxis": axis("Distance walked", rangemode="tozero"),
            "yaxis": axis(axis_label(first[name], name), rangemode="tozero"),
        },
        height=340,
    )


def _table(groups: dict[str, Dataset]) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    rows = []
    for words, data in groups.items():
        for one in _stages(data):
            cells = [words] if len(groups) > 1 else []
            cells.append(number(float(one["distance"].mean())))
            cells += [percent(float(one["returned"].sel(criterion=c).mean())) for c in _MEANT]
            cells += [number(float(one[name].mean())) for name in ("end_distance", "barrier")]
            cells += [number(float(one[f"loss_{when}"].mean())) for when in ("before", "after")]
            rows.append(tuple(cells))
    columns = (
        "Distance walked",
        "Back at the point",
        "Back in its basin",
        "Distance at the end",
        "Barrier, nats",
        "Loss before, nats",
        "Loss after, nats",
    )
    return (("Walk",) if len(groups) > 1 else ()) + columns, tuple(rows)
