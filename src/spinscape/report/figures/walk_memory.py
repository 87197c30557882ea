"""Pictures of what walkers remember: displacement from a waiting time on, and of the loss."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from xarray import Dataset

from spinscape.report.figures.traces import (
    BLUE,
    GREY,
    INK,
    PALETTE,
    axis,
    band,
    line,
    log_axis,
    thinned,
)
from spinscape.report.panels import Drawing, Panel, Trace
from spinscape.report.wording import interval, number

__all__ = ["draw_memory", "draw_relaxation"]

_DASHES = ("solid", "dash", "dashdot", "longdash", "longdashdot")
_Array = NDArray[np.float64]


def draw_relaxation(walks: Mapping[str, Dataset]) -> list[Drawing]:
    """Two-time displacement of each walk that has it; exponents, ageing, R-hat in the table."""
    panels = tuple(_two_time(name, walk) for name, walk in walks.items() if "two_time" in walk)
    rows = tuple(row for name, walk in walks.items() for row in _rows(name, walk))
    if not panels:
        return []
    caption = (
        "Mean-square displacement per weight from a waiting time on, averaged over walkers, "
        "against the steps since. Where only the steps since count, all waiting times give one "
        "curve; walkers that slow down with age give lower curves the longer the wait. The dotted "
        "line is free diffusion: slope 1."
    )
    columns = ("Quantity", "Value", "Interval or worst start")
    return [Drawing("walks-relaxation", panels, caption, columns, rows)]


def _two_time(name: str, walk: Dataset) -> Panel:
    moved = walk["two_time"].transpose("waiting", "walker", "step").values.astype(float).mean(1)
    steps = walk["step"].values.astype(float)
    traces: list[Trace] = []
    words, first = [], None
    for k, wait in enumerate(walk["waiting"].values):
        lags = steps - float(wait)
        there = np.flatnonzero((lags > 0) & (moved[k] > 0))
        there = there[thinned(len(there), logarithmic=True)] if len(there) else there
        if not len(there):
            continue
        label = f"after {wait:,} steps"
        if "exponent" in walk:
            label += f": slope {number(walk['exponent'].values[k], 2)}"
        colour, dash = PALETTE[k % len(PALETTE)], _DASHES[k % len(_DASHES)]
        traces.append(line(lags[there], moved[k][there], label, colour, dash=dash))
        words.append(label)
        first = (lags[there], moved[k][there]) if first is None else first
    if first is not None:
        law = first[1][0] * first[0] / first[0][0]
        traces.append(line(first[0], law, "free diffusion: slope 1", GREY, dash="dot", width=2))
    x, y = (np.concatenate([trace[key] for trace in traces] or [[1.0]]) for key in "xy")
    key = name.lower().replace(" ", "-").replace(",", "")
    return Panel(
        f"walks-two-time-{key}",
        f"{name[:1].upper() + name[1:]} walk: do walkers slow down with age?",
        f"Mean-square displacement per weight of {name} walkers since a waiting time, against the "
        f"steps since, both on logarithmic axes; {'; '.join(words)}. Free diffusion has slope 1.",
        tuple(traces),
        {
            "xaxis": log_axis("Steps since the waiting time", x),
            "yaxis": log_axis("Mean-square displacement per weight", y),
        },
        height=340,
    )


def draw_memory(walks: Mapping[str, Dataset]) -> list[Drawing]:
    """Autocorrelation of the detrended loss beside that of surrogates, of each walk with both."""
    shown = {name: walk for name, walk in walks.items() if "correlation_null" in walk}
    if not shown:
        return []
    rows = []
    for name, walk in shown.items():
        for key, words in (
            ("correlation_length", "first below 1/e"),
            ("integrated_length", "summed"),
        ):
            low, high = (float(walk[f"{key}_{side}"]) for side in ("low", "high"))
            level = float(walk.attrs.get("level", 0.95))
            rows.append(
                (
                    f"{name}: correlation length, {words} (steps)",
                    number(float(walk[key])),
                    interval(low, high, level),
                )
            )
        lengths = walk["null_length"].values.astype(float)
        middle = np.quantile(lengths, [0.05, 0.95])
        told = f"{number(middle[0])} to {number(middle[1])} (5–95 %)"
        rows.append(
            (
                f"{name}: length of the surrogates, below 1/e (steps)",
                number(np.mean(lengths)),
                told,
            )
        )
    caption = (
        "Correlation of the loss with itself so many steps later, after each walker's straight "
        "line is taken away. The null gives the same changes of the loss random signs: as in any "
        "bowl, a change then tells nothing of the next. A curve that falls sooner than the null's "
        "means rugged ground."
    )
    panels = tuple(_correlation(name, walk) for name, walk in shown.items())
    columns = ("Quantity", "Value", "Interval")
    return [Drawing("walks-memory", panels, caption, columns, tuple(rows))]


def _correlation(name: str, walk: Dataset) -> Panel:
    lag = walk["lag"].values.astype(float)
    at = thinned(len(lag))

    def read(variable: str) -> _Array:
        return walk[variable].values.astype(float)[at]

    r, null = read("correlation_mean"), read("correlation_null")
    traces = (
        band(
            lag[at],
            read("correlation_null_low"),
            read("correlation_null_high"),
            "surrogates, 5 to 95 %",
            GREY,
        ),
        band(
            lag[at],
            read("correlation_low"),
            read("correlation_high"),
            "interval over starts",
            BLUE,
        ),
        line(lag[at], null, "surrogates: signs at random", INK, dash="dot", width=3),
        line(lag[at], r, f"{name} walkers", BLUE),
    )
    key = name.lower().replace(" ", "-").replace(",", "")
    return Panel(
        f"walks-memory-{key}",
        f"{name[:1].upper() + name[1:]} walk: how soon does the loss forget itself?",
        f"Autocorrelation of the detrended loss of {name} walkers against steps between: it falls "
        f"below 1/e after {number(float(walk['correlation_length']))} steps, that of surrogates "
        f"after {number(float(walk['null_length'].mean()))}.",
        traces,
        {"xaxis": axis("Steps between"), "yaxis": axis("Correlation of the detrended loss")},
        height=340,
    )


def _rows(name: str, walk: Dataset) -> list[tuple[str, str, str]]:
    rows, level = [], float(walk.attrs.get("level", 0.95))
    if "exponent" in walk:
        for k, wait in enumerate(walk["waiting"].values):
            low, value, high = (float(walk[f"exponent{side}"][k]) for side in ("_low", "", "_high"))
            label = f"{name}: slope after waiting {wait:,} steps"
            rows.append((label, number(value), interval(low, high, level)))
        low, value, high = (float(walk[f"ageing{side}"]) for side in ("_low", "", "_high"))
        label = f"{name}: displacement after the longest wait over that after the shortest"
        rows.append((label, number(value), interval(low, high, level)))
    if "rhat" in walk:
        starts = walk.sizes["solution"]
        passed = int(walk["equilibrated"].sum())
        rows.append((f"{name}: starts in equilibrium", f"{passed} of {starts}", ""))
        for variable, label, worst in (
            ("rhat", "R-hat of the loss", np.nanmax),
            ("ess_bulk", "effective sample size, bulk", np.nanmin),
            ("ess_tail", "effective sample size, tails", np.nanmin),
        ):
            values = walk[variable].values.astype(float)
            told = (number(np.nan),) * 2
            if np.isfinite(values).any():
                told = number(np.nanmedian(values), 4), f"worst {number(worst(values), 4)}"
            rows.append((f"{name}: {label} (median of starts)", *told))
    return rows
