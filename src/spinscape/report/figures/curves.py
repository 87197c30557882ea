"""Pictures of how the replicas were trained and how well they solve the task."""

from __future__ import annotations

import numpy as np
from xarray import DataArray, Dataset

from spinscape.report.figures.traces import (
    BLUE,
    INK,
    axis,
    bundle,
    histogram,
    line,
    log_axis,
    thinned,
    upright,
)
from spinscape.report.panels import Drawing, Panel, Parts
from spinscape.report.wording import axis_label, number, percent, plain, spread

__all__ = ["draw_training"]

_MOST_CURVES = 128


def draw_training(parts: Parts) -> list[Drawing]:
    """Training curves of all replicas, and the spread of their test errors."""
    data = parts["population"]
    panels = [
        panel
        for panel in (
            _curves(data, "curve_train_loss", "Training loss"),
            _curves(data, "curve_validation_error", "Validation error"),
            _errors(data),
        )
        if panel is not None
    ]
    if not panels:
        return []
    curves = any(panel.key != "training-test-error" for panel in panels)
    return [Drawing("training", tuple(panels), _caption(data, curves), *_table(data))]


def _caption(data: Dataset, curves: bool) -> str:
    lost = _diverged(data)
    kept = data.sizes["replica"] - lost
    words = []
    if curves:
        drawn = f"{_MOST_CURVES} of {kept}" if kept > _MOST_CURVES else f"each of {kept}"
        words.append(f"One thin line for {drawn} replicas; the thick line is their median.")
    if "checkpoint" in data or data.attrs.get("source") == "networks trained elsewhere":
        words.append(
            "These networks were given; whether they were trained on the samples that are called "
            "test samples here is not known."
        )
    if lost:
        verb = "is" if lost == 1 else "are"
        words.append(
            f"{lost} of {kept + lost} replicas diverged and {verb} left out here and below."
        )
    return " ".join(words)


def _diverged(data: Dataset) -> int:
    return int(data["diverged"].sum()) if "diverged" in data else 0


def _kept(data: Dataset) -> Dataset:
    return data.isel(replica=np.flatnonzero(~data["diverged"].values)) if _diverged(data) else data


def _curves(data: Dataset, name: str, title: str) -> Panel | None:
    """Curves of all replicas: a loss in nats on a logarithmic axis, or an error in percent."""
    if name not in data or not np.isfinite(data[name]).any():
        return None
    curves = _kept(data)[name].transpose("replica", "epoch")
    error = name.endswith("error")
    at = thinned(curves.sizes["epoch"], 120)
    some = thinned(curves.sizes["replica"], _MOST_CURVES)
    x = _epochs(curves)[at]
    values = (100 if error else 1) * curves.values[:, at]
    with np.errstate(all="ignore"):
        middle = _median(values)
    units = "%" if error else "nats"
    hover = f"epoch %{{x:.4g}}: %{{y:.3g}} {units}"
    label = f"{title} (%)" if error else axis_label(curves, title)
    return Panel(
        f"training-{name.replace('_', '-')}",
        f"{title} of each replica",
        f"{title} against epoch for {len(some)} replicas; the median goes from "
        f"{number(middle[0])} to {number(_last(middle))} {units}.",
        (
            {**bundle(x, values[some], "each replica", BLUE), "hovertemplate": hover},
            line(x, middle, "median", INK, hover=hover),
        ),
        {
            "xaxis": axis("Epoch"),
            "yaxis": axis(label) if error else log_axis(label, values),
        },
    )


def _epochs(curves: DataArray) -> np.ndarray:
    """Epochs at which the curves were taken; without a coordinate, one after each epoch."""
    if "epoch" in curves.coords:
        return curves["epoch"].values.astype(float)
    return np.arange(1.0, curves.sizes["epoch"] + 1)


def _median(values: np.ndarray) -> np.ndarray:
    """Median over replicas still in training; those that stopped early keep their last value."""
    filled = values.copy()
    for column in range(1, filled.shape[1]):
        gone = ~np.isfinite(filled[:, column])
        filled[gone, column] = filled[gone, column - 1]
    return np.nanmedian(filled, axis=0)


def _last(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite[-1]) if len(finite) else float("nan")


def _errors(data: Dataset) -> Panel | None:
    if "test_error" not in data:
        return None
    kept = _kept(data)
    test = kept["test_error"].values
    if not np.isfinite(test).any():
        return None
    edges = np.histogram_bin_edges(100 * test[np.isfinite(test)], bins=16)
    bars = histogram(100 * test, edges, "replicas", BLUE)
    middle = float(np.nanmedian(test))
    top = 1.08 * float(bars["y"].max())
    return Panel(
        "training-test-error",
        "Test error of the replicas",
        f"Histogram of test error over {len(test)} replicas: median {percent(middle)}, "
        f"from {percent(np.nanmin(test))} to {percent(np.nanmax(test))}.",
        (bars, upright(100 * middle, top, "median", INK)),
        {
            "xaxis": axis("Test error (%)"),
            "yaxis": axis("Number of replicas", rangemode="tozero"),
        },
    )


def _table(data: Dataset) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    kept = _kept(data)
    rows = []
    for split in ("train", "validation", "test"):
        for measure, write in (("loss", number), ("error", percent)):
            name = f"{split}_{measure}"
            if name not in kept or not np.isfinite(kept[name]).any():
                continue
            units = ", nats" if measure == "loss" else ""
            rows.append((f"{split} {measure}{units}", *spread(kept[name].values, write)))
    if "epochs_run" in kept:
        rows.append(("epochs run", *spread(kept["epochs_run"].values, plain)))
    return ("Quantity", "Median", "10–90 % of replicas"), tuple(rows)
