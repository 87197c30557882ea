"""Pictures of several independent sets of solutions: P(q), K of each, and K by functions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from xarray import Dataset

from spinscape.report.figures.families import draw_nulls
from spinscape.report.figures.traces import BLUE, INK, ORANGE, PURPLE, axis, bundle, line, points
from spinscape.report.panels import Drawing, Panel, Parts
from spinscape.report.wording import number

__all__ = ["draw_sets"]

_NULLS = {"norm-matched": (BLUE, "dot"), "star": (ORANGE, "dash")}
_OTHERS = {
    "hierarchy_agreement": ("K by what the networks predict", "trained networks"),
    "hierarchy_cka": ("K by what their hidden units do", "trained networks"),
    "hierarchy_untrained": ("K before training", "untrained starts"),
}
"""What each part is compared by, and what its networks are."""


def draw_sets(parts: Parts) -> list[Drawing]:
    """Those that are there: P(q) and K over sets, then K of other distances and of the starts."""
    drawn = []
    if "hierarchy_overlaps" in parts:
        drawn.append(_overlaps(parts["hierarchy_overlaps"]))
    if "hierarchy_sets" in parts:
        drawn.append(_sets(parts["hierarchy_sets"]))
    others = {name: parts[name] for name in _OTHERS if name in parts}
    return drawn + ([_others(others)] if others else [])


def _look(null: str) -> tuple[str, str]:
    return _NULLS.get(null, (PURPLE, "dashdot"))


def _overlaps(data: Dataset) -> Drawing:
    sets, nulls = data.sizes["set"], [str(null) for null in data["null"].values]
    q = data["q"].values
    traces = [bundle(q, data["density"].values, f"{sets} sets of solutions", INK, opacity=0.5)]
    for null in nulls:
        mean = data["density_null"].sel(null=null).mean("set").values
        colour, dash = _look(null)
        traces.append(line(q, mean, f"null: {null}", colour, dash=dash))
    width = data["width"].values
    told = ", ".join(number(value) for value in width)
    panel = Panel(
        "overlap-density",
        "P(q) of each set",
        f"Distribution of the overlap of two solutions, {sets} sets; standard deviations {told}.",
        tuple(traces),
        {"xaxis": axis("Overlap q"), "yaxis": axis("Probability density", rangemode="tozero")},
        height=320,
    )
    caption = (
        "Distribution of the overlap q of two solutions, symmetry removed, one thin line a set, "
        "beside that of surrogates. A glass that breaks replica symmetry has a broad P(q) that "
        "stays broad as the system grows; broad at one size is necessary and not sufficient."
    )
    rows: list[tuple[str, ...]] = [
        ("solutions", f"set {k + 1}", number(float(data["mean"][k])), number(float(width[k])))
        for k in range(sets)
    ]
    for null in nulls:
        one = data.sel(null=null)
        spread = (float(one[f"{name}_null"].mean()) for name in ("mean", "width"))
        rows.append((f"null: {null}", "all sets", *(number(value) for value in spread)))
    columns = ("Networks", "Set", "Mean of q", "Standard deviation of q")
    return Drawing("overlaps", (panel,), caption, columns, tuple(rows))


def _sets(data: Dataset) -> Drawing:
    nulls = [str(null) for null in data["null"].values]
    places = np.arange(1, data.sizes["set"] + 1)
    traces = []
    for k, null in enumerate(nulls):
        ratio = (data["K"] / data["K_null"].sel(null=null).mean("surrogate")).values
        traces.append(
            points(
                places + 0.08 * (k - (len(nulls) - 1) / 2),
                ratio,
                f"null: {null}",
                _look(null)[0],
                symbol=("circle", "square", "diamond")[k % 3],
            )
        )
    ends = [places[0] - 0.4, places[-1] + 0.4]
    traces.append(line(ends, [0.7, 0.7], "at most this for support", INK, dash="dash"))
    traces.append(line(ends, [1, 1], "as without families", INK, width=1))
    verdicts = [str(verdict) for verdict in data["verdict"].values]
    panel = Panel(
        "sets-k",
        "K of each set, in units of its nulls",
        f"K over the mean of its nulls for {len(places)} sets; verdicts: {', '.join(verdicts)}.",
        tuple(traces),
        {
            "xaxis": axis("Set", tickvals=places.tolist()),
            "yaxis": axis("K / mean K of the surrogates", rangemode="tozero"),
        },
        height=320,
    )
    rows = tuple(
        (
            f"set {k + 1}",
            str(int(data["replicas"][k])),
            number(float(data["K"][k])),
            ", ".join(number(float(p), 2) for p in data["p"].isel(set=k).values),
            verdicts[k],
            str(data["verdict_within"].values[k]),
        )
        for k in range(len(places))
    )
    columns = ("Set", "Networks", "K", f"p against {', '.join(nulls)}", "Families", "Within them")
    caption = (
        "Each set is trained anew from other seeds, on a half of the training samples of its own. "
        "Families that the landscape has, and not one lucky set, come back in most of them."
    )
    return Drawing("sets", (panel,), caption, columns, rows)


def _others(found: dict[str, Dataset]) -> Drawing:
    """K of other distances and of the starts, each against its surrogates, side by side."""
    panels, rows = [], []
    columns: tuple[str, ...] = ()
    for name, data in found.items():
        title, of = _OTHERS[name]
        drawing = draw_nulls(data, of)
        first, key = drawing.panels[0], name.removeprefix("hierarchy_")
        panels.append(replace(first, key=f"{key}-{first.key}", title=title))
        rows += [(title, *row[1:]) for row in drawing.rows if row[0] == drawing.rows[0][0]]
        columns = drawing.columns
    caption = "K once more, with as many surrogates of each null."
    if set(found) - {"hierarchy_untrained"}:
        caption += (
            " Networks compared by what they do need no symmetry removed. Surrogate weights "
            "compute something else than solutions do, so the verdict rests on the function star "
            "alone: networks that share what they have in common, and no more."
        )
    if "hierarchy_untrained" in found:
        caption += " Untrained starts are what training has to differ from."
    return Drawing("further-nulls", tuple(panels), caption, columns, tuple(rows))
