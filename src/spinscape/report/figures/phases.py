"""Pictures of phases: T_c against training time, the eigenvalue behind it, rich against lazy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from xarray import Dataset

from spinscape.report.figures.curves import draw_training
from spinscape.report.figures.traces import (
    BLUE,
    GREY,
    INK,
    PALETTE,
    VERMILION,
    axis,
    band,
    bundle,
    line,
    log_axis,
    points,
)
from spinscape.report.panels import Drawing, Panel, Parts
from spinscape.report.wording import number

__all__ = ["NETS", "draw_both_trainings", "draw_laziness", "draw_one_phase", "draw_phases"]

NETS = {"relu": "ReLU", "binarized": "binarized", "followed": "these"}
"""Kinds of network by the last word of their parts' names."""

_CURVES = 5


def draw_both_trainings(parts: Parts) -> list[Drawing]:
    """Training curves of both kinds of network."""
    found = []
    for name, words in (("population", "ReLU"), ("population_binarized", "binarized")):
        if name not in parts:
            continue
        for drawing in draw_training({"population": parts[name]}):
            panels = tuple(
                replace(
                    panel,
                    key=panel.key.replace("training", f"training-{words.lower()}", 1),
                    title=f"{panel.title} ({words})",
                )
                for panel in drawing.panels
                if words == "ReLU" or "loss" not in panel.key  # a hinge loss is not in nats
            )
            found.append(replace(drawing, key=f"training-{words.lower()}", panels=panels))
    return found


def draw_phases(parts: Parts) -> list[Drawing]:
    """Phase diagrams in T and training time, and the smallest eigenvalue of A(β)."""
    drawings = []
    for net, words in NETS.items():
        if f"phases/{net}" in parts:
            data = parts[f"phases/{net}"]
            panels = (_diagram(data, net, words), _eigenvalues(data, net, words))
            drawings.append(Drawing(f"phases-{net}", panels, _PHASES, *_table(data)))
    return drawings


_PHASES = (
    "Left: above its T_c a network's spins are a paramagnet; below, a glass where T_c is drawn as "
    "a circle, a hidden order where it is a diamond. Thin lines are single networks. The grey band "
    "holds T_c of the same weights at random places within each layer: what growing norms alone "
    "would give. Right: the smallest eigenvalue whose first root is T_c, for one network; a glass "
    "touches zero, up to its finite size, and an order crosses it."
)


def _diagram(data: Dataset, net: str, words: str) -> Panel:
    """T_c of all replicas, their median with its class, and the null band."""
    time = data["step"].values.astype(float) + 1
    heats = data["T_c"].transpose("replica", "step").values
    kinds = data["kind"].transpose("replica", "step").values
    null = data["T_null"].transpose("step", "replica", "permutation").values.reshape(len(time), -1)
    middle = np.median(heats, 0)
    ordered = (kinds == "order").mean(0) > 0.5
    traces = [
        band(time, null.min(1), null.max(1), "permuted weights", GREY),
        bundle(time, heats, "each network", BLUE),
        line(time, middle, "median", INK, width=1.5, legend=False),
    ]
    for flags, name, colour, symbol in (
        (~ordered, "glass below", BLUE, "circle"),
        (ordered, "order below", VERMILION, "diamond"),
    ):
        if flags.any():
            traces.append(
                points(
                    time[flags],
                    middle[flags],
                    name,
                    colour,
                    symbol=symbol,
                    hover="step + 1 = %{x:.4g}: T_c = %{y:.3g}",
                )
            )
    first = data["step"].values[ordered]
    told = f"ordered from step {first[0]:.0f} on" if len(first) else "never ordered"
    return Panel(
        f"phases-{net}-diagram",
        f"T_c while {words} networks train",
        f"Median T_c of {heats.shape[0]} networks goes from {number(middle[0])} to "
        f"{number(middle[-1])}; that of permuted weights from {number(np.median(null[0]))} to "
        f"{number(np.median(null[-1]))}; {told}.",
        tuple(traces),
        {
            "xaxis": log_axis("training step + 1", time),
            "yaxis": axis("T, in units of the weights", rangemode="tozero"),
        },
        height=340,
    )


def _eigenvalues(data: Dataset, net: str, words: str) -> Panel:
    one = data.isel(replica=0)
    at = np.unique(np.linspace(0, one.sizes["step"] - 1, _CURVES).round().astype(int))
    dashes = ("solid", "dash", "dot", "dashdot", "longdash")
    traces = []
    for k, place in enumerate(at):
        row = one.isel(step=int(place))
        there = np.isfinite(row["beta"].values)
        step = int(one["step"].values[place])
        traces.append(
            line(
                row["beta"].values[there],
                row["stability"].values[there],
                f"step {step}",
                PALETTE[k % len(PALETTE)],
                dash=dashes[k % len(dashes)],
                hover="β = %{x:.3g}: %{y:.3g}",
            )
        )
    beta = one["beta"].values[at]
    ends = [np.nanmin(beta), np.nanmax(beta)]
    traces.append(line(ends, [0, 0], "zero", GREY, dash="dot", width=1.5, legend=False))
    lowest = one["lowest"].values
    return Panel(
        f"phases-{net}-eigenvalue",
        f"Smallest eigenvalue of A(β), one {words} network",
        f"The lowest value over β is {number(lowest[0])} before training and {number(lowest[-1])} "
        "after.",
        tuple(traces),
        {
            "xaxis": axis("β = 1/T"),
            "yaxis": axis("λ_min of 1 − βJ + β² diag(Σ J²)", range=[-0.6, 1.0]),
        },
        height=340,
    )


def _table(data: Dataset) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    columns = ("Step", "Networks ordered", "T_c, median", "T_c / T_null", "‖W − W₀‖/‖W₀‖")
    rows = []
    for k in np.unique(np.linspace(0, data.sizes["step"] - 1, 6).round().astype(int)):
        at = data.isel(step=int(k))
        ratio = (at["T_c"] / at["T_null"].mean("permutation")).values
        rows.append(
            (
                str(int(at["step"])),
                f"{int((at['kind'].values == 'order').sum())} of {at.sizes['replica']}",
                number(float(np.median(at["T_c"].values))),
                number(float(np.median(ratio))),
                number(float(np.median(at["weight_change"].values))),
            )
        )
    return columns, tuple(rows)


def draw_one_phase(parts: Parts) -> list[Drawing]:
    """The phases of networks that were brought: T_c against its nulls, and the eigenvalue."""
    data = parts["phases/given"]
    data = data.isel(step=0) if "step" in data.dims else data
    numbers = np.arange(data.sizes["replica"], dtype=float)
    names = [str(name) for name in data["replica"].values]
    null = data["T_null"].transpose("replica", "permutation").values
    heats, kinds = data["T_c"].values, data["kind"].values
    traces = [
        points(
            np.repeat(numbers, null.shape[1]),
            null.ravel(),
            "permuted weights",
            GREY,
            symbol="square",
        )
    ]
    for kind, colour, symbol in (("glass", BLUE, "circle"), ("order", VERMILION, "diamond")):
        flags = kinds == kind
        if flags.any():
            traces.append(
                points(numbers[flags], heats[flags], f"T_c, {kind} below", colour, symbol=symbol)
            )
    curves = []
    for k, name in enumerate(names[:_CURVES]):
        row = data.isel(replica=k)
        there = np.isfinite(row["beta"].values)
        x, y = row["beta"].values[there], row["stability"].values[there]
        curves.append(line(x, y, name, PALETTE[k % len(PALETTE)]))
    told = "; ".join(f"{n}: {number(t)}, {k}" for n, t, k in zip(names, heats, kinds, strict=True))
    panels = (
        Panel(
            "phases-given",
            "T_c and that of the same weights at random places",
            f"T_c of each network: {told}.",
            tuple(traces),
            {
                "xaxis": axis("", tickvals=numbers, ticktext=names),
                "yaxis": axis("T, in units of the weights", rangemode="tozero"),
            },
        ),
        Panel(
            "phases-given-eigenvalue",
            "Smallest eigenvalue of A(β)",
            "A glass touches zero, an order crosses it.",
            tuple(curves),
            {"xaxis": axis("β = 1/T"), "yaxis": axis("λ_min of A(β)", range=[-0.6, 1.0])},
        ),
    )
    columns = ("Network", "Below T_c", "T_c", "Null, largest", "√ρ(S)", "λ_max(J), naive")
    rows = tuple(
        (
            names[k],
            str(kinds[k]),
            number(heats[k]),
            number(null[k].max()),
            number(float(data["T_variance"][k])),
            number(float(data["T_naive"][k])),
        )
        for k in range(len(names))
    )
    return [Drawing("phases-given", panels, _GIVEN, columns, rows)]


_GIVEN = (
    "Left: T_c of each network, a circle where a glass sets in below it, a diamond where a hidden "
    "order does; squares are T_c of the same weights at random places within each layer. Right: "
    "the smallest eigenvalue whose first root is T_c; a glass touches zero, up to its finite size, "
    "and an order crosses it."
)


def draw_laziness(parts: Parts) -> list[Drawing]:
    """T_c over its null against how far the weights moved, one colour an output scale."""
    data = parts["laziness"]
    scales = data["scale"].values
    symbols = ("circle", "square", "diamond", "cross", "triangle-up", "star", "x")
    panels = []
    for name, title in (
        ("excess", "T_c / T_null"),
        ("outliers", "Eigenvalues beyond the null"),
        ("kernel_change", "Change of the tangent kernel"),
    ):
        traces = [
            points(
                data["weight_change"].sel(scale=scale).values,
                data[name].sel(scale=scale).values,
                f"output scale {scale:g}",
                PALETTE[k % len(PALETTE)],
                symbol=symbols[k % len(symbols)],
            )
            for k, scale in enumerate(scales)
        ]
        means = [float(data[name].sel(scale=scale).mean()) for scale in scales]
        told = ", ".join(f"{number(m)} at {s:g}" for m, s in zip(means, scales, strict=True))
        panels.append(
            Panel(
                f"laziness-{name.replace('_', '-')}",
                title,
                f"Means by output scale: {told}.",
                tuple(traces),
                {
                    "xaxis": log_axis("‖W − W₀‖/‖W₀‖", data["weight_change"].values),
                    "yaxis": axis(title, rangemode="tozero"),
                },
            )
        )
    columns = (
        "Output scale",
        "‖ΔW‖/‖W‖",
        "Kernel change",
        "T_c / T_null",
        "Outliers",
        "Test error",
    )
    rows = tuple(
        (
            f"{scale:g}",
            *(
                number(float(data[name].sel(scale=scale).mean()))
                for name in ("weight_change", "kernel_change", "excess", "outliers", "test_error")
            ),
        )
        for scale in scales
    )
    caption = (
        "Every mark is a network. The outputs of the network are multiplied by a factor before "
        "the loss, and the learning rate is divided by its square: large factors let a network "
        "learn while its weights hardly move (lazy), small ones make it move far (rich)."
    )
    lost = int(data.attrs.get("diverged", 0))
    if lost:
        caption += f" {lost} seeds diverged at one of the scales and are left out."
    return [Drawing("laziness", tuple(panels), caption, columns, rows)]
