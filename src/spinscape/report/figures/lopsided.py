"""Pictures of lopsided valleys: curves with and without the solution's signs, and why."""

from __future__ import annotations

import numpy as np
from xarray import DataArray, Dataset

from spinscape.report.figures.traces import (
    BLUE,
    GREY,
    ORANGE,
    PALETTE,
    VERMILION,
    axis,
    band,
    line,
    log_axis,
    points,
)
from spinscape.report.panels import Drawing, Panel, Parts, Trace
from spinscape.report.wording import number

__all__ = ["NOISE", "draw_controls", "draw_line_between", "draw_mechanism", "draw_signs"]

NOISE = {
    "gaussian": "G(0, 1)",
    "uniform": "U(−1, 1)",
    "ternary": "{−1, 0, 1}",
    "shifted_gaussian": "G(1, 1)",
    "unit_uniform": "U(0, 1)",
    "binary": "{0, 1}",
    "ones": "ones",
    "initial": "θ₀",
    "point": "θ",
    "sign": "sign θ",
    "sign_centred": "sign(θ − μ)",
    "sgp": "sgp θ",
    "sgp_centred": "sgp(θ − μ)",
}

_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")


def draw_signs(parts: Parts) -> list[Drawing]:
    """Curves under each kind of noise, special directions, the ratio sweep and the controls."""
    data = _replicated(parts["asymmetry/base"])
    metrics = data["metric"].values.astype(str)
    kinds = data["noise"].values.astype(str)
    panels = tuple(_noise_panel(data, kind, "loss") for kind in kinds)
    drawings = [
        Drawing(
            "signs-noise",
            panels,
            "Loss along noise as drawn (orange, dashed) and with the signs of the solution (blue); "
            "means over seeds and networks, bands from the lowest to the highest network. λ = 1 is "
            "the length of the solution times the setting s.",
            ("Noise", "Index, own signs", "Index, signs of θ"),
            tuple(
                (
                    NOISE.get(kind, kind),
                    *(_mean(data["index"].sel(noise=kind, signs=s)) for s in ("own", "given")),
                )
                for kind in kinds
            ),
        )
    ]
    further = [_ratio_panel(data, metrics), _control_panel(data)]
    rows = [
        (f"share of signs given {float(r):g}", _mean(data["ratio_index"].sel(ratio=r)))
        for r in data["ratio"].values
    ]
    rows += [
        (f"control: {name}", _mean(data["control_index"].sel(control=name)))
        for name in data["control"].values
    ]
    if data.sizes.get("special"):
        further.append(_special_panel(data))
        rows += [
            (NOISE.get(str(name), str(name)), _mean(data["special_index"].sel(special=name)))
            for name in data["special"].values
        ]
    drawings.append(
        Drawing(
            "signs-index",
            tuple(further),
            "The index (E⁻ − E⁺)/(E⁻ + E⁺) is 0 for a symmetric valley and above 0 where the plus "
            "side is the flatter one. Noise of the control “aligned” has as much of θ in it as "
            "noise with the signs of θ, but its signs are those of chance.",
            ("Direction", "Index of loss"),
            tuple(rows),
        )
    )
    return drawings


def _replicated(data: Dataset) -> Dataset:
    return data if "replica" in data.dims else data.expand_dims("replica")


def _noise_panel(data: Dataset, kind: str, metric: str) -> Panel:
    lam = data["lam"].values
    curve = data["curve"].sel(noise=kind, metric=metric).mean("seed")
    traces: list[Trace] = []
    told = []
    for signs, words, colour, dash in (
        ("own", "as drawn", ORANGE, "dash"),
        ("given", "with the signs of θ", BLUE, "solid"),
    ):
        rows = curve.sel(signs=signs).transpose("replica", "lam").values
        if len(rows) > 1:
            traces.append(band(lam, rows.min(0), rows.max(0), f"{words}, networks", colour))
        middle = rows.mean(0)
        traces.append(line(lam, middle, words, colour, dash=dash))
        told.append(f"{words} {number(middle[0])} at −1 and {number(middle[-1])} at 1")
    name = NOISE.get(kind, kind)
    return Panel(
        f"signs-{kind}",
        f"Noise {name}",
        f"Loss along noise {name}: {'; '.join(told)}.",
        tuple(traces),
        {"xaxis": axis("λ"), "yaxis": log_axis("loss", np.maximum(curve.values, 1e-6))},
        height=260,
    )


def _ratio_panel(data: Dataset, metrics: np.ndarray) -> Panel:
    ratio = data["ratio"].values
    traces: list[Trace] = []
    for metric, colour, dash in zip(metrics, (BLUE, VERMILION), ("solid", "dash"), strict=False):
        rows = data["ratio_index"].sel(metric=metric).mean("seed").transpose("replica", "ratio")
        if rows.sizes["replica"] > 1:
            lowest, highest = rows.min("replica").values, rows.max("replica").values
            traces.append(band(ratio, lowest, highest, f"{metric}, networks", colour))
        traces.append(line(ratio, rows.mean("replica").values, str(metric), colour, dash=dash))
    ends = data["ratio_index"].sel(metric=metrics[0]).mean(("seed", "replica")).values
    return Panel(
        "signs-ratio",
        "Index against the share of signs given",
        f"Index of {metrics[0]} from {number(ends[0])} at share {number(ratio[0])} to "
        f"{number(ends[-1])} at {number(ratio[-1])}.",
        tuple(traces),
        {"xaxis": axis("share of entries given the sign of θ"), "yaxis": axis("index")},
    )


def _control_panel(data: Dataset) -> Panel:
    names = {
        "ordinary": "noise",
        "consistent": "with signs of θ",
        "aligned": "aligned with θ",
        "point": "θ itself",
    }
    index = data["control_index"].sel(metric="loss").mean("seed").transpose("control", "replica")
    return _dots(
        index.values,
        [names.get(str(name), str(name)) for name in data["control"].values],
        "signs-control",
        "Signs, or only the norm?",
    )


def _special_panel(data: Dataset) -> Panel:
    index = data["special_index"].sel(metric="loss").transpose("special", "replica")
    names = [NOISE.get(str(name), str(name)) for name in data["special"].values]
    return _dots(index.values, names, "signs-special", "Special directions")


def _dots(values: np.ndarray, names: list[str], key: str, title: str) -> Panel:
    """One column a name, one mark a network, and a bar for the mean."""
    place = np.repeat(np.arange(len(names), dtype=float), values.shape[1])
    means = values.mean(1)
    told = ", ".join(f"{name} {number(m)}" for name, m in zip(names, means, strict=True))
    return Panel(
        key,
        title,
        f"Index of loss: {told}.",
        (
            line([-0.5, len(names) - 0.5], [0, 0], "symmetric", GREY, dash="dot", width=1.5),
            points(place, values.ravel(), "each network", BLUE),
            points(
                np.arange(len(names), dtype=float),
                means,
                "mean",
                VERMILION,
                symbol="diamond",
                size=11,
            ),
        ),
        {
            "xaxis": axis("", tickvals=list(range(len(names))), ticktext=names),
            "yaxis": axis("index of loss"),
        },
    )


def draw_controls(parts: Parts) -> list[Drawing]:
    """Indices of every variant, along noise with own and with given signs."""
    found = {
        name.split("/")[1]: _replicated(data)
        for name, data in parts.items()
        if name.startswith("asymmetry/")
    }
    if len(found) < 2:
        return []
    names = list(found)
    panels = []
    for noise, signs, title in (
        ("gaussian", "own", "Gaussian noise as drawn"),
        ("gaussian", "given", "Gaussian noise with the signs of θ"),
        ("unit_uniform", "own", "Noise off centre, U(0, 1), as drawn"),
    ):
        place, values = [], []
        for k, name in enumerate(names):
            one = found[name]["index"].sel(noise=noise, signs=signs, metric="loss").mean("seed")
            place += [float(k)] * one.size
            values += one.values.ravel().tolist()
        panels.append(
            Panel(
                f"controls-{noise}-{signs}",
                title,
                f"{title}: indices of loss from {number(np.nanmin(values))} to "
                f"{number(np.nanmax(values))} over {len(names)} variants.",
                (
                    line(
                        [-0.5, len(names) - 0.5], [0, 0], "symmetric", GREY, dash="dot", width=1.5
                    ),
                    points(place, values, "each network", BLUE),
                ),
                {
                    "xaxis": axis(
                        "", tickvals=list(range(len(names))), ticktext=names, tickangle=-60
                    ),
                    "yaxis": axis("index of loss"),
                },
                height=340,
            )
        )
    rows = tuple(
        (
            name,
            _mean(data["index"].sel(noise="gaussian", signs="own")),
            _mean(data["index"].sel(noise="gaussian", signs="given")),
            _mean(data["index"].sel(noise="unit_uniform", signs="own")),
            number(float(data["plus"].sel(noise="gaussian", signs="own", metric="loss").mean())),
        )
        for name, data in found.items()
    )
    columns = ("Variant", "Index, noise", "Index, signs of θ", "Index, U(0, 1)", "Mean loss")
    caption = (
        "Each variant differs from the base in one thing. The mean loss, over λ from 0 to 1 along "
        "Gaussian noise, tells how wide the valley is."
    )
    return [Drawing("controls", tuple(panels), caption, columns, rows)]


def draw_line_between(parts: Parts) -> list[Drawing]:
    """Loss and error from the small-batch to the large-batch solution."""
    data = parts["line"]
    lam = data["lam"].values
    panels = []
    for metric, words in (("loss", "loss"), ("error", "error (%)")):
        rows = data[metric].transpose("replica", "lam").values * (100 if metric == "error" else 1)
        if not np.isfinite(rows).any():
            continue
        panels.append(
            Panel(
                f"line-{metric}",
                f"{words[:1].upper()}{words[1:]} from small batch (0) to large batch (1)",
                f"Mean {words}: {number(rows[:, np.abs(lam).argmin()].mean())} at the small-batch "
                f"end, {number(rows[:, np.abs(lam - 1).argmin()].mean())} at the large-batch one.",
                (
                    band(lam, rows.min(0), rows.max(0), "pairs", BLUE),
                    line(lam, rows.mean(0), "mean", BLUE),
                ),
                {
                    "xaxis": axis("λ"),
                    "yaxis": log_axis(words, rows) if metric == "loss" else axis(words),
                },
            )
        )
    rows_ = tuple(
        (
            str(end),
            number(float(data["rise"].sel(end=end).mean())),
            number(float(data["index"].sel(end=end).mean())),
            *(
                number(float(data["agreement"].sel(end=end, group=group).mean()))
                for group in data["group"].values
            ),
        )
        for end in data["end"].values
    )
    columns = (
        "End",
        "Mean rise, nats",
        "Index of the rise",
        *(f"Signs that agree with the way, {group}" for group in data["group"].values),
    )
    caption = "Both ends were trained from the same start; statistics are re-estimated throughout."
    return [Drawing("line", tuple(panels), caption, columns, rows_)]


def draw_mechanism(parts: Parts) -> list[Drawing]:
    """States of units, margins and traces along noise."""
    data = _replicated(parts["mechanism"])
    names = [str(name) for name in data["direction"].values]
    words = {
        "agreement": ("Units in the state of λ = 0", "share", False),
        "trace": ("Trace of the last layer's Hessian", "tr H per sample", True),
        "margin": ("Margin of the label", "logits", False),
        "logit_scale": ("Scale of the logits", "standard deviation", False),
    }
    panels = tuple(
        _mechanism_panel(data[name], names, title, unit, logarithmic)
        for name, (title, unit, logarithmic) in words.items()
    )
    rows = tuple(
        (f"{title}, {name}", *_three(data[key].sel(direction=name)))
        for key, (title, _, _) in words.items()
        for name in names
    )
    caption = (
        "Along Gaussian noise as drawn, with the signs of θ, and with the signs of θ in the "
        "classifier alone. ReLU: units that keep their state compute the same function. Softmax: "
        "where probabilities go to one-hot and inputs of the last layer stay, its Hessian vanishes."
    )
    return [Drawing("mechanism", panels, caption, ("Quantity", "λ = −1", "0", "1"), rows)]


def _mechanism_panel(
    values: DataArray, names: list[str], title: str, unit: str, logarithmic: bool
) -> Panel:
    lam = values["lam"].values
    traces = []
    for k, name in enumerate(names):
        middle = values.sel(direction=name).mean("replica").values
        traces.append(line(lam, middle, name, PALETTE[k], dash=_DASHES[k % len(_DASHES)]))
    told = "; ".join(
        f"{name} {number(trace['y'][0])} at −1, {number(trace['y'][-1])} at 1"
        for name, trace in zip(names, traces, strict=True)
    )
    shown = values.values
    return Panel(
        f"mechanism-{values.name}",
        title,
        f"{title}: {told}.",
        tuple(traces),
        {
            "xaxis": axis("λ"),
            "yaxis": log_axis(unit, np.maximum(shown, 1e-9)) if logarithmic else axis(unit),
        },
    )


def _three(values: DataArray) -> tuple[str, str, str]:
    middle = values.mean("replica").values
    return number(middle[0]), number(middle[len(middle) // 2]), number(middle[-1])


def _mean(values: DataArray) -> str:
    return number(float(values.sel(metric="loss").mean()))
