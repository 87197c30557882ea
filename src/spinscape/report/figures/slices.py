"""Pictures of ruggedness: slices through solutions, and roughness against test error."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from xarray import Dataset

from spinscape.report.figures.ranks import MEASURES, draw_ranks
from spinscape.report.figures.traces import (
    BLUE,
    GREY,
    PALETTE,
    VERMILION,
    axis,
    bundle,
    log_axis,
    points,
    thinned,
)
from spinscape.report.panels import Drawing, Panel, Parts, Trace
from spinscape.report.wording import axis_label, interval, number, percent, plain

__all__ = ["draw_ruggedness"]

_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star")
_SETTINGS = ("optimizer", "learning_rate", "batch_size", "weight_decay", "width")
_SCALE = {
    True: (
        ", taken where rescaling its units makes a network smallest, so that a rescaled copy gives "
        "the same slices"
    ),
    False: (
        "; how this network could be rescaled without changing what it computes is not known here, "
        "and a rescaled copy may give other slices"
    ),
    None: "",
}
_EXTREMES = 3
_Array = NDArray[np.float64]


def draw_ruggedness(parts: Parts) -> list[Drawing]:
    """Slices at both ends of the roughness index; measures against test error, and their ranks."""
    data = parts["ruggedness"]
    drawings = (_slices(data), _scatters(data), draw_ranks(data))
    return [drawing for drawing in drawings if drawing is not None]


def _used(data: Dataset) -> NDArray[np.bool_]:
    """Mark the networks that count: near the loss aimed at, if any was, and not diverged."""
    used = np.ones(data.sizes["replica"], dtype=bool)
    if "reached" in data:
        used &= data["reached"].values.astype(bool)
    if "diverged" in data:
        used &= ~data["diverged"].values.astype(bool)
    return used


def _slices(data: Dataset) -> Drawing | None:
    if "slice_loss" not in data or "roughness" not in data:
        return None
    roughness = np.where(_used(data), data["roughness"].values, np.nan)
    ranked = np.argsort(roughness)[: int(np.isfinite(roughness).sum())]
    if not len(ranked):
        return None
    count = max(1, min(_EXTREMES, len(ranked) // 2))
    sets = {"lowest": (ranked[:count], BLUE), "highest": (ranked[-count:], VERMILION)}
    loss = data["slice_loss"].transpose("replica", "direction", "lam").values
    top = max(float(np.nanquantile(loss[chosen], 0.98)) for chosen, _ in sets.values())
    panels = []
    rows = []
    for name, (chosen, colour) in sets.items():
        panels.append(_slice_panel(data, loss[chosen], name, colour, top))
        for replica in chosen:
            rows.append((name, str(replica), *_measures(data, replica)))
    directions = data.sizes["direction"]
    many = f"{count} networks" if count > 1 else "network"
    caption = (
        f"Loss along straight lines through the {many} of lowest and the {many} of highest "
        f"roughness index of {len(ranked)}; {directions} random directions each, at most 24 lines "
        "drawn. "
        f"λ is the displacement relative to the size of the weights{_SCALE[_balanced(data)]}."
    )
    columns = ("Index", "Network", "Roughness index", "Local energy", "Test error")
    return Drawing("slices", tuple(panels), caption, columns, tuple(rows))


def _balanced(data: Dataset) -> bool | None:
    """Whether slices were taken at representatives that rescaling does not move, if it is said."""
    arguments = json.loads(data.attrs.get("arguments") or "{}")
    found = arguments.get("balanced") if isinstance(arguments, dict) else None
    return found if isinstance(found, bool) else None


def _slice_panel(data: Dataset, loss: _Array, name: str, colour: str, top: float) -> Panel:
    lam = data["lam"].values
    at = thinned(len(lam), 101)
    curves = loss.reshape(-1, len(lam))
    some = curves[thinned(len(curves), 24)][:, at]
    return Panel(
        f"slices-{name}",
        f"Slices, {name} roughness index",
        f"Loss along {len(some)} straight lines through networks of {name} roughness index: median "
        f"{number(np.median(loss[..., len(lam) // 2]))} in the middle and "
        f"{number(np.median(loss[..., [0, -1]]))} nats at the ends.",
        ({**bundle(lam[at], some, f"{name} index, one line a direction", colour, opacity=0.6)},),
        {
            "xaxis": axis(axis_label(data["lam"], "displacement λ")),
            "yaxis": axis(axis_label(data["slice_loss"], "loss"), range=[0, 1.05 * top]),
        },
    )


def _measures(data: Dataset, replica: int) -> tuple[str, ...]:
    one = data.isel(replica=replica)
    return tuple(
        write(float(one[name])) if name in data else "–"
        for name, write in (
            ("roughness", number),
            ("local_energy", number),
            ("test_error", percent),
        )
    )


def _scatters(data: Dataset) -> Drawing | None:
    shown = [name for name in MEASURES if name in data]
    if "test_error" not in data or not shown:
        return None
    used, grouping = _used(data), _grouping(data)
    panels = tuple(_scatter(data, name, used, grouping) for name in shown)
    taus = tuple(row for name in data.data_vars for row in _taus(data, str(name)))
    summaries = tuple((MEASURES[name], _range(data[name].values[used])) for name in shown)
    error = ("test error", _range(data["test_error"].values[used], percent))
    rugged: tuple[tuple[str, str], ...] = ()
    if "rugged_slices" in data:
        fraction = _range(data["rugged_slices"].values[used], percent)
        rugged = (("slices with more than one minimum (T above 2)", fraction),)
    return Drawing(
        "generalisation",
        panels,
        _scatter_caption(data, used, grouping),
        ("Quantity", "Median (lowest to highest), or value"),
        (*summaries, *rugged, error, *taus),
    )


def _scatter_caption(data: Dataset, used: NDArray[np.bool_], grouping: str | None) -> str:
    count, left = int(used.sum()), int((~used).sum())
    losses = data["train_loss"].values[used] if "train_loss" in data else np.empty(0)
    losses = losses[np.isfinite(losses)]
    ends = (number(losses.min()), number(losses.max())) if len(losses) else None
    if "reached" in data:
        origin = "trained with different settings to about the same training loss"
        origin += f" ({ends[0]} to {ends[1]} nats)" if ends else ""
        reason = "diverged or did not end near that loss"
    else:
        origin = "as given"
        origin += f"; their training losses run from {ends[0]} to {ends[1]} nats" if ends else ""
        reason = "diverged"
    caption = f"One mark for each network that counts ({count}), {origin}."
    if grouping is not None:
        caption += f" Colour and symbol give the {grouping.replace('_', ' ')}."
    if left:
        noun, verb = ("network", "is") if left == 1 else ("networks", "are")
        negation = "does" if left == 1 else "do"
        caption += (
            f" {left} {noun} that {reason} {verb} hollow and {negation} not count; the frame is "
            "that of the others."
        )
    return caption


def _grouping(data: Dataset) -> str | None:
    """Pick the setting that colours the marks: the first that takes a few different values."""
    for name in _SETTINGS:
        if name in data and 1 < len(np.unique(data[name].values)) <= len(PALETTE):
            return name
    return None


def _scatter(data: Dataset, name: str, used: NDArray[np.bool_], grouping: str | None) -> Panel:
    x, y = data[name].values.astype(float), 100 * data["test_error"].values.astype(float)
    notes = np.array([_note(data, replica) for replica in range(data.sizes["replica"])])
    hover = "%{text}<br>test error %{y:.2f} %<br>" + MEASURES[name] + " %{x:.3g}"
    traces: list[Trace] = []
    for place, (label, chosen) in enumerate(_groups(data, used, grouping).items()):
        traces.append(
            points(
                x[chosen],
                y[chosen],
                label,
                PALETTE[place],
                symbol=_SYMBOLS[place],
                hover=hover,
                text=notes[chosen].tolist(),
            )
        )
    if (~used).any():
        out = ~used
        traces.append(
            points(
                x[out],
                y[out],
                "not counted",
                GREY,
                symbol="circle-open",
                hover=hover,
                text=notes[out].tolist(),
            )
        )
    label = axis_label(data[name], name)
    spread = x[used & np.isfinite(x) & (x > 0)]
    wide = len(spread) > 1 and bool(spread.min() > 0) and spread.max() / spread.min() > 30
    return Panel(
        f"generalisation-{name.replace('_', '-')}",
        f"Test error against {MEASURES[name]}",
        f"Scatter of test error against {MEASURES[name]} for {int(used.sum())} networks: "
        f"{MEASURES[name]} {_range(x[used])}, test error {_range(y[used])} percent.",
        tuple(traces),
        {
            "xaxis": log_axis(label, spread) if wide else axis(label, **_frame(x[used])),
            "yaxis": axis("Test error (%)", **_frame(y[used])),
        },
        height=340,
    )


def _frame(values: _Array) -> dict[str, list[float]]:
    """Range that shows the networks that count, whatever the others did."""
    finite = values[np.isfinite(values)]
    if len(finite) < 2 or np.ptp(finite) == 0:
        return {}
    margin = 0.06 * float(np.ptp(finite))
    return {"range": [float(finite.min()) - margin, float(finite.max()) + margin]}


def _groups(
    data: Dataset, used: NDArray[np.bool_], grouping: str | None
) -> dict[str, NDArray[np.bool_]]:
    if grouping is None:
        return {"networks": used}
    values = data[grouping].values
    return {_setting(data, grouping, v): used & (values == v) for v in np.unique(values)}


def _setting(data: Dataset, name: str, value: float) -> str:
    """A setting and its value; an optimiser is stored as the number of its name."""
    names = data[name].attrs.get("words")
    told = plain(value) if names is None else str(names[int(value)])
    return f"{name.replace('_', ' ')} {told}"


def _note(data: Dataset, replica: int) -> str:
    settings = [
        _setting(data, name, data[name].values[replica])
        for name in _SETTINGS
        if name in data and (name != "width" or data[name].values.any())  # 0: its own
    ]
    return "<br>".join([f"network {replica}", *settings])


def _range(values: _Array, write: Callable[[float], str] = number) -> str:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return "–"
    return f"{write(np.median(finite))} ({write(finite.min())} to {write(finite.max())})"


def _taus(data: Dataset, name: str) -> list[tuple[str, str]]:
    """Rank correlations that the study stored beside the measures, with their intervals."""
    variable = data[name]
    if not name.startswith("tau") or name.endswith(("_low", "_high")) or variable.ndim > 1:
        return []
    words = str(variable.attrs.get("long_name", name.replace("_", " ")))
    if variable.ndim == 0:
        return [(words, number(float(variable)))]
    rows = []
    for label in map(str, variable[variable.dims[0]].values):
        at = {variable.dims[0]: label}
        text = number(float(variable.sel(at)))
        if f"{name}_low" in data and f"{name}_high" in data and text != "–":
            low, high = (float(data[f"{name}_{end}"].sel(at)) for end in ("low", "high"))
            text += f", {interval(low, high, float(data.attrs.get('level', 0.95)))}"
        rows.append((f"{words}, {MEASURES.get(label, label)}", text))
    return rows
