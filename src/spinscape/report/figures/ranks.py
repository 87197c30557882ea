"""Pictures of rank correlations: how each measure of ruggedness goes with generalisation."""

from __future__ import annotations

import textwrap

import numpy as np
from xarray import Dataset

from spinscape.report.figures.traces import BLUE, GREY, axis, line, points
from spinscape.report.panels import Drawing, Panel, Trace
from spinscape.report.wording import interval, number

__all__ = ["MEASURES", "draw_ranks"]

MEASURES = {
    "roughness": "roughness index",
    "local_energy": "local energy",
    "walk_ruggedness": "inverse correlation length of walks",
    "adaptive_sharpness": "adaptive sharpness",
    "relative_flatness": "relative flatness (large: sharp)",
    "hessian_trace": "Hessian trace",
    "local_entropy": "local entropy",
    "learning_coefficient": "local learning coefficient",
}
_TARGETS = {
    "test_error": "test error",
    "gap_error": "gap of errors",
    "gap_loss": "gap of losses",
}
_ENDS = ("tau_of_low", "tau_of_high", "tau_of_null_low", "tau_of_null_high")


def draw_ranks(data: Dataset) -> Drawing | None:
    """Kendall τ of every measure with every target, beside what shuffled targets give."""
    if not {"tau_of", *_ENDS} <= set(data.data_vars) or not bool(data["tau_of"].notnull().any()):
        return None
    targets = [str(name) for name in data["target"].values]
    level = float(data.attrs.get("level", 0.95))
    panels = tuple(_panel(data.sel(target=name), name, level) for name in targets)
    caption = (
        "Kendall τ of each measure, one setting varied at a time: 1 where a lower measure goes "
        "with a lower target in every pair of settings, −1 where it never does. "
        f"Marks have their {level:.0%} intervals; a grey bar holds {level:.0%} of what targets "
        "shuffled among the settings give. The gaps are test less training error or loss."
    )
    columns = ("Measure", *(f"τ with {_TARGETS.get(name, name)}" for name in targets))
    corrected = "p_holm" in data
    columns += ("p, corrected for the number of measures",) if corrected else ()
    return Drawing("ranks", panels, caption, columns, tuple(_rows(data, targets, level)))


def _panel(one: Dataset, target: str, level: float) -> Panel:
    names = [str(name) for name in one["measure"].values]
    words = [MEASURES.get(name, name.replace("_", " ")) for name in names]
    tau, low, high, null_low, null_high = (
        one[name].values.astype(float) for name in ("tau_of", *_ENDS)
    )
    places = -np.arange(len(names), dtype=float)
    goal = _TARGETS.get(target, target)
    said = ", ".join(f"{word} {number(value)}" for word, value in zip(words, tau, strict=True))
    labels = ["<br>".join(textwrap.wrap(word, 18)) for word in words]
    bottom, top = places[-1] - 0.6, 0.6
    zero = line([0, 0], [bottom, top], "none", GREY, dash="dot", width=1.5, legend=False)
    return Panel(
        f"ranks-{target.replace('_', '-')}",
        f"Does less ruggedness go with a smaller {goal}?",
        f"Kendall τ of each measure with the {goal}, with intervals, beside the range of shuffled "
        f"targets: {said}.",
        (_bars(null_low, null_high, places, level), zero, _marks(tau, low, high, places, words)),
        {
            "xaxis": axis("Kendall τ", range=[-1.05, 1.05]),
            "yaxis": axis("", tickvals=places, ticktext=labels, range=[bottom, top]),
        },
        height=max(220, 60 + 44 * len(names)),
    )


def _bars(low: np.ndarray, high: np.ndarray, places: np.ndarray, level: float) -> Trace:
    gap = np.full(len(places), np.nan)
    x = np.stack([low, high, gap], axis=1).ravel()
    y = np.stack([places, places, gap], axis=1).ravel()
    trace = line(x, y, f"{level:.0%} of shuffles", "#c3cad2", width=14, hover="%{x:.3g}")
    return {**trace, "connectgaps": False}


def _marks(
    tau: np.ndarray, low: np.ndarray, high: np.ndarray, places: np.ndarray, words: list[str]
) -> Trace:
    marks = points(tau, places, "τ", BLUE, size=9, hover="%{text}: %{x:.3g}", text=words)
    reach = {"type": "data", "symmetric": False, "array": high - tau, "arrayminus": tau - low}
    return {**marks, "error_x": {**reach, "color": BLUE, "thickness": 2, "width": 5}}


def _rows(data: Dataset, targets: list[str], level: float) -> list[tuple[str, ...]]:
    rows = []
    for name in map(str, data["measure"].values):
        one = data.sel(measure=name)
        cells = [MEASURES.get(name, name.replace("_", " "))]
        for target in targets:
            at = one.sel(target=target)
            text = number(float(at["tau_of"]))
            if text != "–":
                ends = (float(at["tau_of_low"]), float(at["tau_of_high"]))
                text += f", {interval(*ends, level)}"
            cells.append(text)
        if "p_holm" in data:
            cells.append(number(float(one["p_holm"])))
        rows.append(tuple(cells))
    return rows
