"""A gallery of curves around a network: along noise, built by hand, and mined."""

from __future__ import annotations

import numpy as np
from xarray import Dataset

from spinscape.report.figures.traces import (
    BLUE,
    GREEN,
    GREY,
    INK,
    VERMILION,
    axis,
    bundle,
    line,
    log_axis,
    points,
)
from spinscape.report.panels import Drawing, Panel, Parts, Trace
from spinscape.report.wording import axis_label, number, percent

__all__ = ["SHAPES", "draw_built", "draw_mined", "draw_noise", "draw_one_scan", "draw_sweep"]

SHAPES = ("v-basin", "v-side", "w-basin", "vvv-basin", "w-peak")

_WHERE = {"solution": "a trained network", "initial": "an initialisation"}

_PARABOLA = (
    "The dotted line is the parabola of slope and Hessian at λ = 0; where it leaves the curve, the "
    "Hessian no longer tells what the loss does."
)


def draw_noise(parts: Parts) -> list[Drawing]:
    """Curves along Gaussian noise, at the solution and at the initialisation."""
    panels, rows = [], []
    for where, words in _WHERE.items():
        name = f"curves/{where}"
        if name not in parts:
            continue
        data = parts[name]
        panels.append(_noise_panel(data, where, words))
        for label, count in _counts(data):
            rows.append((words, label, str(count), percent(count / data.sizes["direction"])))
    if not panels:
        return []
    caption = (
        "Each thin line is the loss along one Gaussian direction as long as the network's own "
        f"weights. {_PARABOLA}"
    )
    columns = ("Around", "Curve type", "Directions", "Share")
    return [Drawing("curves-noise", tuple(panels), caption, columns, tuple(rows))]


def _noise_panel(data: Dataset, where: str, words: str) -> Panel:
    lam, loss = data["lam"].values, data["loss"].transpose("direction", "lam").values
    traces = [bundle(lam, loss, "each direction", BLUE)]
    if "parabola" in data:
        middle = np.nanmedian(data["parabola"].transpose("direction", "lam").values, 0)
        traces.append(_dotted(lam, middle, loss))
    first = _counts(data)[0]
    return Panel(
        f"curves-noise-{where}",
        f"Along noise, around {words}",
        f"Loss along {len(loss)} Gaussian directions around {words}: {first[1]} of them are "
        f"labelled {first[0]}; the loss at the centre is {number(loss[0, len(lam) // 2])}.",
        tuple(traces),
        _layout(data, loss),
    )


def draw_built(parts: Parts) -> list[Drawing]:
    """One panel for each direction built by hand."""
    data = parts.get("curves/constructed")
    if data is None:
        return []
    return [
        Drawing(
            "curves-built",
            tuple(
                _curve_panel(data.isel(direction=k), f"curves-built-{k}", f"Built as {name}")
                for k, name in enumerate(data["expected"].values.astype(str))
            ),
            "Directions put together by hand: along noise, towards a solution, from one solution "
            f"to another, and from their midpoint. {_PARABOLA}",
            ("Built as", "Labelled", "Confidence", "Curvature dᵀHd"),
            tuple(
                (
                    str(one["expected"].values),
                    str(one["label"].values),
                    percent(float(one["confidence"])),
                    number(float(one["curvature"])),
                )
                for one in (data.isel(direction=k) for k in range(data.sizes["direction"]))
            ),
        )
    ]


def draw_one_scan(parts: Parts) -> list[Drawing]:
    """Curves of a scan that was made by hand, at most twelve."""
    data = parts["curves/given"]
    names = (
        data["direction"].values.astype(str)
        if "direction" in data.coords
        else [f"direction {k}" for k in range(data.sizes["direction"])]
    )
    shown = range(min(12, data.sizes["direction"]))
    panels = tuple(
        _curve_panel(data.isel(direction=k), f"curves-given-{k}", str(names[k])) for k in shown
    )
    if "label" not in data:
        columns = ("Direction", "Loss at the ends", "At 0")
        rows = tuple(_ends(data.isel(direction=k), str(names[k])) for k in shown)
        return [Drawing("curves-given", panels, "", columns, rows)]
    rows = tuple(
        (
            str(names[k]),
            str(data["label"].values[k]),
            percent(float(data["confidence"].values[k])),
        )
        for k in range(data.sizes["direction"])
    )
    return [
        Drawing("curves-given", panels, _PARABOLA, ("Direction", "Labelled", "Confidence"), rows)
    ]


def _ends(one: Dataset, name: str) -> tuple[str, str, str]:
    lam, loss = one["lam"].values, one["loss"].values
    return name, f"{number(loss[0])}, {number(loss[-1])}", number(_at(lam, loss))


def _curve_panel(one: Dataset, key: str, title: str) -> Panel:
    lam, loss = one["lam"].values, one["loss"].values
    told = labelled = ""
    if "label" in one:
        label, confidence = str(one["label"].values), float(one["confidence"])
        told = f": {label} ({confidence:.0%})"
        labelled = f"; labelled {label} with confidence {confidence:.0%}"
    traces = [line(lam, loss, "loss", BLUE)]
    if "parabola" in one:
        traces.append(_dotted(lam, one["parabola"].values, loss))
    return Panel(
        key,
        f"{title}{told}",
        f"Loss from λ = {lam[0]:.3g} to {lam[-1]:.3g}: {number(loss[0])}, {number(_at(lam, loss))} "
        f"at 0, {number(loss[-1])}{labelled}.",
        tuple(traces),
        _layout(one, loss),
        height=260,
    )


def draw_mined(parts: Parts) -> list[Drawing]:
    """One panel a mined curve type, with the curves of all seeds."""
    found = {
        name.split("/")[1]: data
        for name, data in parts.items()
        if name.startswith("mined/") and "lam" in data.dims
    }
    if not found:
        return []
    panels = tuple(_mined_panel(shape, data) for shape, data in found.items())
    caption = (
        "Held-out loss along mined directions, one line a start; those that got the label are "
        "solid blue, the others dashed orange. Marks stand where the loss was lowered (diamonds) "
        f"and raised (triangles). {_PARABOLA}"
    )
    rows = tuple(_mined_row(shape, data) for shape, data in found.items())
    columns = (
        "Curve type",
        "Success",
        "95 % interval",
        "Given up as flat",
        "Confidence, mean",
        "Largest cosine with another direction (noise has)",
    )
    return [Drawing("mining-curves", panels, caption, columns, rows)]


def _mined_panel(shape: str, data: Dataset) -> Panel:
    lam, loss = data["lam"].values, data["loss"].transpose("seed", "lam").values
    success = data["success"].values.astype(bool)
    traces: list[Trace] = []
    if success.any():
        traces.append(bundle(lam, loss[success], "labelled so", BLUE, opacity=0.7))
    if (~success).any():
        missed = bundle(lam, loss[~success], "not", VERMILION, opacity=0.7)
        missed["line"] = {**missed["line"], "dash": "dash"}
        traces.append(missed)
    best = int(np.flatnonzero(success)[0]) if success.any() else 0
    parabola = data["parabola"].transpose("seed", "lam").values[best]
    traces.append(_dotted(lam, parabola, loss))
    raised = data["raised"].values.astype(bool)
    targets, values = data["target"].values, data["target_loss"].transpose("seed", "target").values
    for chosen, words, symbol, colour in (
        (~raised, "lowered", "diamond", GREEN),
        (raised, "raised", "triangle-up", INK),
    ):
        if chosen.any():
            at = np.median(values[:, chosen], 0)
            traces.append(points(targets[chosen], at, words, colour, symbol=symbol))
    return Panel(
        f"mining-{shape}",
        f"{shape}: {int(success.sum())} of {len(success)} starts",
        f"Held-out loss along directions mined for a {shape}: {int(success.sum())} of "
        f"{len(success)} get the label; the loss at the centre is {number(_at(lam, loss[best]))}.",
        tuple(traces),
        _layout(data, loss),
    )


def _mined_row(shape: str, data: Dataset) -> tuple[str, ...]:
    overlap = np.abs(data["overlap"].values).mean((0, 1))
    names = data["reference"].values.astype(str)
    largest = int(overlap.argmax())
    return (
        shape,
        f"{int(data['success'].sum())} of {data.sizes['seed']}",
        f"{percent(data.attrs['success_low'])} to {percent(data.attrs['success_high'])}",
        str(int(data["collapsed"].sum())),
        percent(float(data["confidence"].mean())),
        f"{names[largest]} {overlap[largest]:.2g} ({float(data['overlap_null']):.2g})",
    )


def draw_sweep(parts: Parts) -> list[Drawing]:
    """Success rates of vvv-basin mining against length and weight."""
    data = parts["sweep"]
    rates = data["success"].mean("seed").transpose("weight", "s").values
    flat = data["flat"].mean("seed").transpose("weight", "s").values
    s, weight = data["s"].values, data["weight"].values
    panels = tuple(
        Panel(
            f"sweep-{key}",
            title,
            f"{title} at {len(s)} lengths and {len(weight)} weights: from "
            f"{percent(values.min())} to {percent(values.max())}.",
            (
                {
                    "type": "heatmap",
                    "x": [f"{x:g}" for x in s],
                    "y": [f"{w:g}" for w in weight],
                    "z": 100 * values,
                    "zmin": 0,
                    "zmax": 100,
                    "colorscale": "Cividis",
                    "colorbar": {"title": {"text": "%"}},
                    "hovertemplate": "s = %{x}, w = %{y}: %{z:.0f} %<extra></extra>",
                },
            ),
            {
                "xaxis": axis("length s of d", type="category"),
                "yaxis": axis("weight w of raised points", type="category"),
            },
        )
        for key, title, values in (
            ("success", "vvv-basins found", rates),
            ("flat", "Ends flat", flat),
        )
    )
    rows = tuple(
        (f"{x:g}", f"{w:g}", percent(rates[j, i]), percent(flat[j, i]))
        for i, x in enumerate(s)
        for j, w in enumerate(weight)
    )
    caption = f"Share of {data.sizes['seed']} starts at each length and weight."
    return [Drawing("sweep", panels, caption, ("s", "w", "Found", "Flat"), rows)]


def _dotted(lam: np.ndarray, parabola: np.ndarray, loss: np.ndarray) -> Trace:
    """The parabola within the range of the curves, which alone is drawn."""
    finite = loss[np.isfinite(loss)]
    top = float(finite.max()) if len(finite) else 1.0
    low = 0.3 * float(finite.min()) if len(finite) else 0.0
    shown = np.where((parabola <= top) & (parabola > max(low, 1e-12)), parabola, np.nan)
    return line(lam, shown, "parabola", GREY, dash="dot", width=2)


def _layout(data: Dataset, loss: np.ndarray) -> dict[str, object]:
    return {
        "xaxis": axis("λ"),
        "yaxis": log_axis(axis_label(data["loss"], "loss"), np.maximum(loss, 1e-6)),
    }


def _counts(data: Dataset) -> list[tuple[str, int]]:
    names, counts = np.unique(data["label"].values.astype(str), return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [(str(names[k]), int(counts[k])) for k in order]


def _at(lam: np.ndarray, loss: np.ndarray) -> float:
    return float(loss[int(np.abs(lam).argmin())])
