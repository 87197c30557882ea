"""Pictures of curvature: the density of the Hessian's eigenvalues, and its ends."""

from __future__ import annotations

import numpy as np
from xarray import Dataset

from spinscape.report.figures.traces import BLUE, VERMILION, axis, line, log_axis, points
from spinscape.report.panels import Drawing, Panel, Parts
from spinscape.report.wording import number, percent

__all__ = ["draw_curvature", "draw_eigenvalues"]

_WHERE = {"solution": "trained network", "initial": "initialisation"}


def draw_curvature(parts: Parts) -> list[Drawing]:
    """Density and extreme eigenvalues at the solution and at the initialisation."""
    panels, rows = [], []
    for where, words in _WHERE.items():
        if f"curvature/{where}" not in parts:
            continue
        data = parts[f"curvature/{where}"].isel(point=0)
        panels.append(_density(data, where, words))
        trace, error = float(data["trace"]), float(data["trace_error"])
        negative = float(data["negative"])
        rows += [
            (f"{words}: trace", f"{number(trace)} ± {number(error, 2)}"),
            (f"{words}: Frobenius norm", number(float(data["square"]) ** 0.5)),
            (f"{words}: largest eigenvalues", _list(data["eigenvalue"].values[:5])),
            (f"{words}: smallest eigenvalue", number(float(data["eigenvalue"].values[-1]))),
            (f"{words}: share of negative curvature", percent(negative)),
            (f"{words}: mean curvature along noise, foretold", number(float(data["foretold"]))),
        ]
    caption = (
        "Density of eigenvalues by stochastic Lanczos quadrature, smoothed; diamonds are extreme "
        "eigenvalues by Lanczos. The axis bends near zero, so that the few large and the many "
        "small ones can be seen together."
    )
    return [Drawing("curvature", tuple(panels), caption, ("Quantity", "Value, nats"), tuple(rows))]


def draw_eigenvalues(parts: Parts) -> list[Drawing]:
    """Extreme eigenvalues at given points."""
    data = parts["curvature/given"]
    values = data["eigenvalue"].transpose("point", "eigenpair").values
    place = np.tile(np.arange(values.shape[1]), len(values))
    panel = Panel(
        "curvature-given",
        "Extreme eigenvalues",
        f"{values.shape[1]} eigenvalues of {len(values)} points, from {number(values.min())} to "
        f"{number(values.max())}.",
        (points(place, values.ravel(), "each point", BLUE),),
        {"xaxis": axis("eigenpair"), "yaxis": axis("eigenvalue")},
    )
    rows = tuple((str(k), _list(row)) for k, row in enumerate(values))
    return [Drawing("curvature-given", (panel,), "", ("Point", "Eigenvalues"), rows)]


def _density(data: Dataset, where: str, words: str) -> Panel:
    value, density = data["value"].values, data["density"].values
    ends = data["eigenvalue"].values
    unit = max(float(np.abs(ends).max()) / 1000, 1e-12)
    floor = float(density.max()) * 1e-7
    shown = density > floor
    ticks = [s * unit * 10.0**k for k in range(1, 4) for s in (-1, 1)] + [0.0]
    return Panel(
        f"curvature-{where}",
        f"Eigenvalues of the Hessian, {words}",
        f"Eigenvalues from {number(ends.min())} to {number(ends.max())}; trace "
        f"{number(float(data['trace']))}; {percent(float(data['negative']))} negative.",
        (
            line(_bent(value[shown], unit), density[shown], "density", BLUE),
            points(
                _bent(ends, unit),
                np.full(len(ends), floor * 3),
                "extreme eigenvalues",
                VERMILION,
                symbol="diamond",
                text=[number(end) for end in ends],
                hover="%{text}",
            ),
        ),
        {
            "xaxis": axis(
                "eigenvalue (nats)",
                tickvals=_bent(np.array(ticks), unit).tolist(),
                ticktext=[number(tick, 1) for tick in ticks],
            ),
            "yaxis": log_axis("density", density[shown]),
        },
        height=340,
    )


def _bent(values: np.ndarray, unit: float) -> np.ndarray:
    """Linear near zero, logarithmic far from it."""
    return np.arcsinh(values / unit)


def _list(values: np.ndarray) -> str:
    return ", ".join(number(value) for value in values)
