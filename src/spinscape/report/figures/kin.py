"""Pictures of clones: what siblings remember of each other, and whether their tree is found."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from xarray import DataArray, Dataset

from spinscape.report.figures.traces import (
    BLUE,
    GREY,
    INK,
    PALETTE,
    VERMILION,
    axis,
    band,
    line,
    points,
)
from spinscape.report.panels import Drawing, Panel, Parts, Trace
from spinscape.report.wording import axis_label, number, percent

__all__ = ["draw_clones"]

_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star")
_Array = NDArray[np.float64]
_COMPARED = (
    ("barrier", "Barrier between siblings"),
    ("error_barrier", "Rise of the error between siblings"),
    ("aligned_distance", "Distance of siblings"),
)


def draw_clones(parts: Parts) -> list[Drawing]:
    """Siblings against the time that they shared, and the family tree beside a surrogate's."""
    drawings = []
    if "clones" in parts:
        drawings.append(_siblings(parts["clones"]))
    if "clones_family" in parts:
        drawings.append(_family(parts["clones_family"]))
    return drawings


def _siblings(data: Dataset) -> Drawing:
    names = [(name, title) for name, title in _COMPARED if name in data]
    if "aligned_distance" not in data:
        names.append(("distance", "Distance of siblings"))
    panels = tuple(_against_time(data, name, title) for name, title in names)
    caption = (
        f"Copies of {data.sizes['ancestor']} networks go on with data orders of their own after "
        "the steps on the horizontal axis. Lines are means over pairs, bands reach from the lowest "
        "to the highest ancestor; dashed is the null, networks of different ancestors. "
        "At 0 siblings share their start alone."
    )
    return Drawing("siblings", panels, caption, *_times_table(data))


def _against_time(data: Dataset, name: str, title: str) -> Panel:
    scale = 100.0 if name == "error_barrier" else 1.0
    near = scale * data[name].mean("pair").transpose("waiting", "ancestor").values
    far = scale * data[f"unrelated_{name}"].transpose("waiting", "couple", "child").values
    strange = far.mean(2)
    x, ticks = _time_axis(data["waiting"])
    unit = " percent" if scale > 1 else f" {data[name].attrs.get('units', '')}".replace(" 1", "")
    traces: list[Trace] = [
        band(x, strange.min(1), strange.max(1), "unrelated, each couple of ancestors", GREY),
        band(x, near.min(1), near.max(1), "siblings, each ancestor", BLUE),
        line(x, strange.mean(1), "unrelated (null)", VERMILION, dash="dash"),
        line(x, near.mean(1), "siblings", BLUE),
        points(x, near.mean(1), "siblings", BLUE, legend=False),
    ]
    label = "Rise of the error (percentage points)" if scale > 1 else axis_label(data[name], name)
    first, last = data["waiting"].values[[0, -1]]
    return Panel(
        f"clones-{name.replace('_', '-')}",
        title,
        f"{title}: {number(near[0].mean())}{unit} when they part after {first} steps, "
        f"{number(near[-1].mean())} after {last}; unrelated networks {number(strange.mean())}.",
        tuple(traces),
        {
            "xaxis": axis("Steps shared", tickvals=x, ticktext=ticks),
            "yaxis": axis(label, rangemode="tozero"),
        },
        height=320,
    )


def _time_axis(waiting: DataArray) -> tuple[_Array, list[str]]:
    """Places of the waiting times, log(1 + t) so that 0 has one, and their labels."""
    times = waiting.values.astype(float)
    return np.log10(1 + times), [f"{time:g}" for time in times]


def _times_table(data: Dataset) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    distance = "aligned_distance" if "aligned_distance" in data else "distance"
    columns = ["Steps shared", "Barrier (unrelated), nats", "Distance (unrelated)"]
    if "error_barrier" in data:
        columns += ["Rise of the error (unrelated)", "Classified differently (unrelated)"]
    rows = []
    for place, time in enumerate(data["waiting"].values):
        here = data.isel(waiting=place)
        cells = [f"{time:g}"]
        for name in ("barrier", distance, "error_barrier", "disagreement"):
            if name in data:
                write = percent if name in ("error_barrier", "disagreement") else number
                near, far = (float(here[key].mean()) for key in (name, f"unrelated_{name}"))
                cells.append(f"{write(near)} ({write(far)})")
        rows.append(tuple(cells))
    return tuple(columns), tuple(rows)


def _family(data: Dataset) -> Drawing:
    lineage = data["lineage"].transpose("level", "replica").values.astype(int)
    trees = [data[name] for name in ("linkage", "surrogate_linkage") if name in data]
    top = max(float(tree.isel(column=2).max()) for tree in trees)
    panels = [_tree(data["linkage"], data["order"], lineage, top, "found", "The tree found")]
    for null in data["null"].values if "surrogate_linkage" in data else []:
        one = data.sel(null=null)
        title = f"One {null} surrogate"
        panels.append(
            _tree(one["surrogate_linkage"], one["surrogate_order"], None, top, str(null), title)
        )
    groups = [len(np.unique(level)) for level in lineage]
    planted = " of ".join(
        f"{count} {'families' if k == 0 else 'branches'}"
        for k, count in list(enumerate(groups))[::-1]
    )
    caption = (
        f"{data.sizes['replica']} networks trained as {planted}, their units permuted and rescaled "
        "afterwards, clustered without being told. Marks below the tree are the families planted: "
        "equal colours and symbols side by side are a family found. Beside it the trees of "
        "surrogates, which any set of points has; K tells them apart."
    )
    rows = [_recovered(data, level, count) for level, count in enumerate(groups)]
    null = data["likeness_null"].values
    drawn = f"{number(null.mean())} ({number(null.min())} to {number(null.max())})"
    rows.append(("Correlation with the planted tree", number(float(data["likeness"])), drawn))
    rows += [("K", number(float(data["K"])), _nulls(data["K_null"]))]
    columns = ("Quantity", "Found", "Null: mean (lowest to highest)")
    return Drawing("family-tree", tuple(panels), caption, columns, tuple(rows))


def _recovered(data: Dataset, level: int, count: int) -> tuple[str, str, str]:
    null = data["rand_null"].isel(level=level).values
    drawn = f"{number(null.mean())} ({number(null.min())} to {number(null.max())})"
    found = number(float(data["rand"][level]))
    return f"Adjusted Rand index, {count} groups", found, drawn


def _nulls(null: DataArray) -> str:
    return ", ".join(
        f"{number(float(one.mean()))} ({number(float(one.min()))} to {number(float(one.max()))}), "
        f"{one['null'].item()}"
        for one in null
    )


def _tree(
    linkage: DataArray,
    order: DataArray,
    lineage: NDArray[np.int_] | None,
    top: float,
    key: str,
    title: str,
) -> Panel:
    leaves = order.values.astype(int)
    traces: list[Trace] = [_brackets(linkage.values.astype(float), leaves)]
    words = "no families were planted in it"
    if lineage is not None:
        families = lineage[0][leaves]
        for family in np.unique(families):
            place = np.flatnonzero(families == family).astype(float)
            traces.append(
                points(
                    place,
                    np.full(len(place), -0.05 * top),
                    f"family {family + 1}",
                    PALETTE[family % len(PALETTE)],
                    symbol=_SYMBOLS[family % len(_SYMBOLS)],
                    size=7,
                    hover=f"network of family {family + 1}",
                )
            )
        runs = 1 + int((np.diff(families) != 0).sum())
        words = f"{len(np.unique(families))} planted families stand in {runs} blocks of leaves"
    hidden = {"showticklabels": False, "ticks": "", "showline": False, "showgrid": False}
    return Panel(
        f"family-{key}",
        title,
        f"{title}: dendrogram of {len(leaves)} networks, {words}.",
        tuple(traces),
        {
            "xaxis": axis("Networks", **hidden, range=[-1, len(leaves)]),
            "yaxis": axis("Distance at which groups join", range=[-0.1 * top, 1.05 * top]),
        },
        height=340,
    )


def _brackets(linkage: _Array, order: NDArray[np.int_]) -> Trace:
    """Tree of a SciPy linkage as one line: each merge is a bracket over its two branches."""
    leaves = len(order)
    place, height = np.empty(2 * leaves - 1), np.zeros(2 * leaves - 1)
    place[order] = np.arange(leaves)
    corners = np.full((leaves - 1, 5, 2), np.nan)
    for merge, (left, right, distance, _) in enumerate(linkage):
        a, b = int(left), int(right)
        corners[merge, :4, 0] = place[a], place[a], place[b], place[b]
        corners[merge, :4, 1] = height[a], distance, distance, height[b]
        place[leaves + merge], height[leaves + merge] = (place[a] + place[b]) / 2, distance
    x, y = corners.reshape(-1, 2).T
    return {**line(x, y, "tree", INK, width=1.2, legend=False), "hoverinfo": "skip"}
