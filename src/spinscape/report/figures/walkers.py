"""Pictures of walks: how the loss rises, how far the walkers come."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from xarray import Dataset

from spinscape.report.figures.traces import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    axis,
    band,
    bundle,
    line,
    log_axis,
    thinned,
)
from spinscape.report.figures.walk_memory import draw_memory, draw_relaxation
from spinscape.report.panels import Drawing, Panel, Parts, Trace
from spinscape.report.wording import axis_label, number, percent, spread

__all__ = ["draw_walks"]

_FREE, _THERMAL = "walk/free", "walk/thermal"
_THRESHOLD, _LANGEVIN, _UNITS = "walk/threshold", "walk/langevin", "walk/units"
_UNTRAINED, _HALFWAY = "walk/free_untrained", "walk/free_halfway"
_LOOK = {
    _FREE: ("free", BLUE, "solid"),
    _THERMAL: ("thermal", VERMILION, "dash"),
    _THRESHOLD: ("threshold", GREEN, "dashdot"),
    _LANGEVIN: ("Langevin", PURPLE, "longdash"),
    _UNITS: ("single-unit", ORANGE, "longdashdot"),
    _UNTRAINED: ("free, untrained", SKY, "longdash"),
    _HALFWAY: ("free, halfway", GREEN, "dashdot"),
}
_COMPARED = (_FREE, _THERMAL, _THRESHOLD, _LANGEVIN)
"""Walks whose steps all move every weight, so that their displacements compare."""
_STAGES = (_UNTRAINED, _HALFWAY, _FREE)
_Array = NDArray[np.float64]


def draw_walks(parts: Parts) -> list[Drawing]:
    """Loss of walks by every rule, their displacement, overlap, relaxation and memory."""
    walks = {name: parts[name] for name in _LOOK if name in parts}
    panels = []
    if _FREE in walks:
        panels.append(_rise(walks[_FREE]))
    if _THERMAL in walks:
        panels.append(_energy(walks[_THERMAL]))
    if _THRESHOLD in walks and "start_energy" in walks[_THRESHOLD]:
        panels.append(_below_threshold(walks[_THRESHOLD]))
    compared = {name: walks[name] for name in _COMPARED if name in walks}
    if compared:
        panels.append(_displacement(compared))
    overlaps = {name: walk for name, walk in compared.items() if "overlap" in walk}
    if overlaps:
        panels.append(_overlap(overlaps))
    stages = {name: walks[name] for name in _STAGES if name in walks}
    if len(stages) > 1:
        panels.append(_stages(stages))
    walkers = ", ".join(
        f"{walk.sizes['walker']} {_LOOK[name][0]} walkers" for name, walk in walks.items()
    )
    caption = (
        f"{walkers}. Thick lines are medians, shaded bands hold the middle 80 % of walkers, "
        f"thin lines are single walkers.{_apart(walks)}"
    )
    named = {_LOOK[name][0]: walk for name, walk in walks.items()}
    drawn = [Drawing("walks", tuple(panels), caption, *_table(walks))]
    return drawn + draw_relaxation(named) + draw_memory(named)


def _apart(walks: dict[str, Dataset]) -> str:
    """Which walks the panels show elsewhere than at their start, or do not show."""
    away = [
        _LOOK[name][0]
        for name, walk in walks.items()
        if name in _COMPARED and float(walk["displacement"].isel(step=0).max()) > 0
    ]
    words = ""
    if away:
        names = " and ".join(away)
        words = f" Steps of {names} walkers are counted after a burn-in, which led away already."
    if _UNITS in walks:
        words += (
            " Single-unit walkers change one hidden unit a step, so that their steps do not "
            "compare: they stand in the next figure and in the table."
        )
    return words


def _read(walk: Dataset, name: str) -> _Array:
    return walk[name].transpose("walker", "step").values.astype(float)


def _steps(walk: Dataset) -> _Array:
    return walk["step"].values.astype(float)


def _fan(
    x: _Array,
    values: _Array,
    name: str,
    colour: str,
    *,
    dash: str = "solid",
    opacity: float = 0.55,
) -> list[Trace]:
    """Median, the band of the middle 80 %, and five walkers."""
    low, middle, high = np.nanquantile(values, [0.1, 0.5, 0.9], axis=0)
    some = values[thinned(len(values), 5)]
    return [
        band(x, low, high, f"middle 80 % of {name} walkers", colour),
        bundle(x, some, f"single {name} walkers", colour, opacity=opacity),
        line(x, middle, f"median, {name}", colour, dash=dash, hover="step %{x}: %{y:.3g}"),
    ]


def _rise(walk: Dataset) -> Panel:
    energy, steps = _read(walk, "energy"), _steps(walk)
    rise = energy - energy[:, :1]
    at = thinned(len(steps))
    traces = _fan(steps[at], rise[:, at], "free", BLUE)
    end = number(np.nanmedian(rise[:, -1]))
    words = f"Rise of the loss of free walkers: median {end} nats after {steps[-1]:.0f} steps"
    law = _law(walk)
    if law is not None:
        name = "what a smooth bowl would give"
        traces.append(line(steps[at], law[at], name, INK, dash="dot", width=3))
        words += f", where the curvature at the start foretells {number(law[-1])}"
    return Panel(
        "walks-free",
        "Free walk: how fast does the loss rise?",
        f"{words}.",
        tuple(traces),
        {
            "xaxis": axis("Steps made", rangemode="tozero"),
            "yaxis": axis("Rise of the loss (nats)"),
        },
        height=340,
    )


def _law(walk: Dataset) -> _Array | None:
    if "quadratic_law" not in walk:
        return None
    law = walk["quadratic_law"]
    return law.mean([d for d in law.dims if d != "step"]).values.astype(float)


def _energy(walk: Dataset) -> Panel:
    energy, steps = _read(walk, "energy"), _steps(walk)
    at = thinned(len(steps))
    first, last = np.nanmedian(energy[:, 0]), np.nanmedian(energy[:, -1])
    return Panel(
        "walks-thermal",
        f"Thermal walk{_temperature(walk)}: where does the loss settle?",
        f"Loss of thermal walkers: median {number(first)} at the start, "
        f"{number(last)} after {steps[-1]:.0f} steps.",
        tuple(_fan(steps[at], energy[:, at], "thermal", VERMILION, dash="dash")),
        {
            "xaxis": axis("Steps made", rangemode="tozero"),
            "yaxis": axis(axis_label(walk["energy"], "loss")),
        },
        height=340,
    )


def _temperature(walk: Dataset) -> str:
    temperature = walk.attrs.get("temperature")
    if temperature is None:
        return ""
    return f" at temperature {number(float(temperature)).replace(' ', chr(0xA0))}"


def _below_threshold(walk: Dataset) -> Panel:
    """Height above the start, as a fraction of the threshold's."""
    steps, bottom = _steps(walk), walk["start_energy"].values[:, None]
    height = (_read(walk, "energy") - bottom) / (walk["threshold"].values[:, None] - bottom)
    at = thinned(len(steps))
    last = number(np.nanmedian(height[:, -1]))
    law = line(steps[at], np.ones(len(at)), "threshold", INK, dash="dot", width=3)
    return Panel(
        "walks-threshold",
        "Threshold walk: how close to the threshold does the loss stay?",
        "Loss of walkers that may not exceed a threshold, above its value at the start and as a "
        f"fraction of the threshold's: median {last} after {steps[-1]:.0f} steps. In a bowl of d "
        "dimensions it would stay at d/(d + 2).",
        (*_fan(steps[at], height[:, at], "threshold", GREEN, dash="dashdot", opacity=0.25), law),
        {
            "xaxis": axis("Steps made", rangemode="tozero"),
            "yaxis": axis("Rise of the loss over the largest allowed"),
        },
        height=340,
    )


def _stages(walks: dict[str, Dataset]) -> Panel:
    """Median rise of the loss of free walks from points of unequal training."""
    traces: list[Trace] = []
    words = []
    for part, walk in walks.items():
        name, colour, dash = _LOOK[part]
        name = "free, trained" if part == _FREE else name
        energy, steps = _read(walk, "energy"), _steps(walk)
        at = thinned(len(steps))
        rise = energy[:, at] - energy[:, :1]
        low, middle, high = np.nanquantile(rise, [0.1, 0.5, 0.9], axis=0)
        traces.append(band(steps[at], low, high, f"middle 80 %, {name}", colour))
        traces.append(line(steps[at], middle, name, colour, dash=dash))
        words.append(f"{name} {number(middle[-1])} from {number(np.median(energy[:, 0]))}")
    return Panel(
        "walks-stages",
        "Free walks from untrained, half-trained and trained networks",
        f"Rise of the loss of free walkers; medians at the end: {', '.join(words)} nats.",
        tuple(traces),
        {
            "xaxis": axis("Steps made", rangemode="tozero"),
            "yaxis": axis("Rise of the loss (nats)"),
        },
        height=340,
    )


def _displacement(walks: dict[str, Dataset]) -> Panel:
    traces: list[Trace] = []
    words = []
    for part, walk in walks.items():
        name, colour, dash = _LOOK[part]
        distance, steps = _read(walk, "displacement"), _steps(walk)
        at = thinned(len(steps), logarithmic=True)
        at = at[steps[at] > 0]
        low, middle, high = np.nanquantile(distance[:, at], [0.1, 0.5, 0.9], axis=0)
        traces.append(band(steps[at], low, high, f"middle 80 %, {name}", colour))
        traces.append(line(steps[at], middle, name, colour, dash=dash))
        words.append(f"{name} {number(middle[-1])}")
        if name == "free" or len(walks) == 1:
            traces.append(_diffusion(steps[at], middle))
    first = next(iter(walks.values()))
    label = axis_label(first["displacement"], "distance from the start")
    return Panel(
        "walks-displacement",
        "How far do the walkers come?",
        f"Distance from the start against steps, both on logarithmic axes; "
        f"medians at the end: {', '.join(words)}.",
        tuple(traces),
        {
            "xaxis": log_axis("Steps made", np.concatenate([trace["x"] for trace in traces])),
            "yaxis": log_axis(label, np.concatenate([trace["y"] for trace in traces])),
        },
        height=340,
    )


def _diffusion(steps: _Array, middle: _Array) -> Trace:
    """Square-root law of a walk that nothing holds back, through the first point."""
    law = middle[0] * np.sqrt(steps / steps[0])
    return line(steps, law, "square root of steps (nothing holds back)", INK, dash="dot", width=2)


def _overlap(walks: dict[str, Dataset]) -> Panel:
    traces: list[Trace] = []
    words = []
    for part, walk in walks.items():
        name, colour, dash = _LOOK[part]
        overlap, steps = _read(walk, "overlap"), _steps(walk)
        at = thinned(len(steps), logarithmic=True)
        at = at[steps[at] > 0]
        low, middle, high = np.nanquantile(overlap[:, at], [0.1, 0.5, 0.9], axis=0)
        traces.append(band(steps[at], low, high, f"middle 80 %, {name}", colour))
        traces.append(line(steps[at], middle, name, colour, dash=dash))
        words.append(f"{name} {number(middle[-1])}")
    return Panel(
        "walks-overlap",
        "How much of the start is remembered?",
        "Overlap with the start (1 means the same direction in weight space) against steps; "
        f"medians at the end: {', '.join(words)}.",
        tuple(traces),
        {
            "xaxis": log_axis("Steps made", np.concatenate([trace["x"] for trace in traces])),
            "yaxis": axis("Overlap with the start"),
        },
        height=340,
    )


def _table(walks: dict[str, Dataset]) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    rows = []
    for part, walk in walks.items():
        name = _LOOK[part][0]
        energy, steps = _read(walk, "energy"), _steps(walk)
        rows.append((f"{name}: steps made", f"{steps[-1]:,.0f}", ""))
        away = float(walk["displacement"].isel(step=0).max()) > 0
        first = "after the burn-in" if away else "at the start"
        rows.append((f"{name}: loss {first}", *spread(energy[:, 0])))
        rows.append((f"{name}: loss at the end", *spread(energy[:, -1])))
        since = " since the burn-in" if away else ""
        rows.append((f"{name}: rise of the loss{since}", *spread(energy[:, -1] - energy[:, 0])))
        law = _law(walk)
        if law is not None:
            rows.append((f"{name}: rise foretold by the curvature (mean)", number(law[-1]), ""))
        distance = _read(walk, "displacement")[:, -1]
        rows.append((f"{name}: distance from the start", *spread(distance)))
        if "acceptance" in walk:
            accepted = float(walk["acceptance"].mean())
            rows.append((f"{name}: proposed moves accepted (mean)", percent(accepted), ""))
    return ("Quantity", "Median", "10–90 % of walkers"), tuple(rows)
