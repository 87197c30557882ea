"""Surfaces over two directions, to be turned with the mouse, with contours and a table."""

from __future__ import annotations

import numpy as np
from xarray import Dataset

from spinscape.report.figures.traces import axis
from spinscape.report.panels import Drawing, Panel, Parts
from spinscape.report.wording import number, percent

__all__ = ["draw_built_planes", "draw_mined_planes", "draw_one_plane", "draw_pairs"]

_MOST = 10
_TABLE = 7

_CAPTION = (
    "Left: the loss as a relief, which can be turned. Right: its contours. Heights and colours are "
    "logarithmic; a hole is a loss that is not finite. Label: {label}, with confidence {sure}."
)


def draw_pairs(parts: Parts) -> list[Drawing]:
    """Planes of all pairs of directions around the solution."""
    return _of_pairs(parts["surfaces/pairs"], "pairs", "{first} × {second}")


def draw_built_planes(parts: Parts) -> list[Drawing]:
    """Planes that were built by hand."""
    return _of_pairs(parts["surfaces/constructed"], "built", "Built as {first}")


def draw_mined_planes(parts: Parts) -> list[Drawing]:
    """Mined planes: of each kind the first that succeeded, or else the first."""
    drawings = []
    for name, data in parts.items():
        if not name.startswith("mined/") or "a" not in data.dims:
            continue
        kind, success = name.split("/")[1], data["success"].values.astype(bool)
        best = int(np.flatnonzero(success)[0]) if success.any() else 0
        one = data.isel(seed=best)
        title = f"Mined {kind} ({int(success.sum())} of {len(success)} starts)"
        drawings.append(_plane(one, f"surfaces-mined-{kind}", title))
    return drawings


def draw_one_plane(parts: Parts) -> list[Drawing]:
    """A plane that was made by hand, without a label."""
    data = parts["surfaces/given"]
    return [_plane(data, "surfaces-given", "Loss on a plane")]


def _of_pairs(data: Dataset, key: str, title: str) -> list[Drawing]:
    drawings = []
    for k in range(min(_MOST, data.sizes["pair"])):
        one = data.isel(pair=k)
        extent = float(one["extent"]) if "extent" in one.coords else 1.0
        one = one.assign_coords(a=one["a"] * extent, b=one["b"] * extent)
        first, second = str(one["first"].values), str(one["second"].values)
        words = title.format(first=first, second=second)
        names = (first, second) if "{second}" in title else ("d₁", "d₂")
        drawings.append(_plane(one, f"surfaces-{key}-{k}", words, names))
    return drawings


def _plane(one: Dataset, key: str, title: str, names: tuple[str, str] = ("d₁", "d₂")) -> Drawing:
    a, b = one["a"].values, one["b"].values
    loss = one["loss"].transpose("a", "b").values.astype(float)
    heights = np.log10(np.where(loss > 0, loss, np.nan))
    label = str(one["label"].values) if "label" in one else "none"
    sure = percent(float(one["confidence"])) if "confidence" in one else "–"
    alternative = _told(title, a, b, loss, label)
    ticks, words = _ticks(heights)
    bar = {"tickvals": ticks, "ticktext": words, "title": {"text": "loss"}, "thickness": 12}
    common = {"x": a, "y": b, "z": heights.T, "colorscale": "Viridis"}
    hover = "a = %{x:.3g}, b = %{y:.3g}: %{customdata:.3g}<extra></extra>"
    labels = [f"a, along {name}" if i == 0 else f"b, along {name}" for i, name in enumerate(names)]
    relief = {
        **common,
        "type": "surface",
        "showscale": False,
        "customdata": loss.T,
        "hovertemplate": hover,
        "contours": {"z": {"show": True, "usecolormap": True, "width": 1}},
    }
    contour = {
        **common,
        "type": "contour",
        "ncontours": 18,
        "colorbar": bar,
        "customdata": loss.T,
        "hovertemplate": hover,
        "line": {"width": 0.7},
    }
    scene = {
        "xaxis": {"title": {"text": "a"}, "nticks": 5},
        "yaxis": {"title": {"text": "b"}, "nticks": 5},
        "zaxis": {"title": {"text": "loss"}, "tickvals": ticks, "ticktext": words},
        "aspectratio": {"x": 1, "y": 1, "z": 0.7},
        "camera": {"eye": {"x": 1.25, "y": -1.25, "z": 0.95}},
    }
    bare = {"scene": scene, "margin": dict.fromkeys("lrtb", 0)}
    panels = (
        Panel(f"{key}-relief", title, alternative, (relief,), bare, height=380),
        Panel(
            f"{key}-contours",
            "Contours",
            alternative,
            (contour,),
            {"xaxis": axis(labels[0]), "yaxis": axis(labels[1], scaleanchor="x")},
            height=380,
        ),
    )
    columns, rows = _table(a, b, loss)
    return Drawing(key, panels, _CAPTION.format(label=label, sure=sure), columns, rows)


def _told(title: str, a: np.ndarray, b: np.ndarray, loss: np.ndarray, label: str) -> str:
    centre = float(loss[int(np.abs(a).argmin()), int(np.abs(b).argmin())])
    finite = loss[np.isfinite(loss)]
    holes = int(loss.size - len(finite))
    range_ = f"from {number(finite.min())} to {number(finite.max())}" if len(finite) else "nowhere"
    lost = f"; {holes} points are not finite" if holes else ""
    return f"{title}: loss {range_}, {number(centre)} at the centre; labelled {label}{lost}."


def _ticks(heights: np.ndarray) -> tuple[list[float], list[str]]:
    finite = heights[np.isfinite(heights)]
    low, high = (finite.min(), finite.max()) if len(finite) else (-1.0, 1.0)
    steps = (1.0, 3.0) if high - low < 4 else (1.0,)
    values = [
        step * 10.0**power
        for power in range(int(np.floor(low)), int(np.ceil(high)) + 1)
        for step in steps
    ]
    shown = [value for value in values if low <= np.log10(value) <= high]
    return [float(np.log10(value)) for value in shown], [f"{value:g}" for value in shown]


def _table(
    a: np.ndarray, b: np.ndarray, loss: np.ndarray
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """The loss on a few rows and columns; all of it is in the store."""
    i, j = (np.unique(np.linspace(0, len(x) - 1, _TABLE).round().astype(int)) for x in (a, b))
    columns = ("Loss at", *(f"b = {number(value)}" for value in b[j]))
    rows = tuple((f"a = {number(a[k])}", *(number(value) for value in loss[k, j])) for k in i)
    return columns, rows
