"""Curves along many directions at once: losses, labels, and the parabola of the Hessian."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import Tensor

from spinscape.landscape.energy import Landscape
from spinscape.nets.weightspace import points as points_of
from spinscape.records import labelled, provenance
from spinscape.valleys.shapes import ABSOLUTE, classify

__all__ = ["LAM", "scan"]

LAM = np.linspace(-1.5, 1.5, 61)
"""Wider than ±1, so that minima near ±1 are interior."""

SOURCE = "arXiv 2405.12493 (curve types, named after it); definitions ours"


def scan(
    landscape: Landscape,
    points: Float[Tensor, "n"],
    directions: Float[Tensor, "direction n"],
    lam: ArrayLike | None = None,
    *,
    names: Sequence[str] | None = None,
    metric: str = "loss",
    curvature: bool = True,
) -> xr.Dataset:
    """Scan and label the curves along many directions in one pass.

    Parameters
    ----------
    landscape : Landscape
    points : [n] or [direction, n]
        Where λ = 0 is: one point for all, or one for each direction.
    directions : [direction, n]
    lam : [k], optional
        Positions; 61 from −1.5 to 1.5 if not given.
    names : sequence of str, optional
        One a direction.
    metric : "loss" or "error"
        What is labelled.
    curvature : bool
        Whether slope and dᵀHd at λ = 0 are computed, one Hessian-vector product a direction.

    Returns
    -------
    Dataset
        ``loss [direction, lam]``, ``error`` where targets are labels; ``label``, ``confidence``,
        ``holes``, ``length`` [direction]; with `curvature`, ``slope`` and ``curvature``
        [direction] and ``parabola [direction, lam]`` = L(θ) + λ dᵀ∇L + ½ λ² dᵀHd.

    Raises
    ------
    ValueError
        If shapes do not fit each other, or a direction has zero norm.
    """
    points, directions = points_of(points).detach(), points_of(directions).detach()
    landscape.space.check(points, "points")
    landscape.space.check(directions, "directions", ndim=2)
    origins = points.expand(len(directions), -1) if points.ndim == 1 else points
    _check(origins, directions, names, metric)
    lam = LAM if lam is None else np.asarray(lam, dtype=float)
    loss, error = landscape.lines(origins, directions, torch.as_tensor(lam))
    name = landscape.criterion.name
    units = landscape.criterion.units
    host = {"loss": _host(loss), "error": _host(error)}
    result = xr.Dataset(
        {
            "loss": labelled(
                ("direction", "lam"), host["loss"], f"{name.replace('_', '-')} loss", units
            )
        },
        {"lam": ("lam", lam, {"long_name": "λ", "units": "direction lengths"})},
    )
    if not np.isnan(host["error"]).all():
        result["error"] = labelled(("direction", "lam"), host["error"], "error rate")
    elif metric == "error":
        raise ValueError("metric='error': the targets are no class labels; use metric='loss'")
    result = result.assign(_labels_of(lam, host[metric], metric))
    lengths = torch.linalg.vector_norm(directions, dim=1)
    result["length"] = labelled("direction", lengths, "length of the direction", "weights")
    if names is not None:
        result = result.assign_coords(direction=("direction", list(names)))
    if curvature:
        at_zero, gradient = landscape.loss_and_gradient(points)
        slope = (gradient * directions).sum(1)
        bend = (landscape.hvp(points, directions) * directions).sum(1)
        parabola = _parabolas(at_zero.expand(len(directions)), slope, bend, lam)
        result = result.assign(
            slope=labelled("direction", slope, "dᵀ∇L", units),
            curvature=labelled("direction", bend, "dᵀHd", units),
            parabola=labelled(("direction", "lam"), parabola, "second order in λ", units),
        )
    settings = json.dumps({"lam": [float(lam[0]), float(lam[-1])], "points": len(lam)})
    attrs = provenance("scan", SOURCE, 0, metric=metric, loss=name, samples=len(landscape.x))
    return result.assign_attrs({**attrs, "window": settings})


def _labels_of(
    lam: np.ndarray, curves: Float[np.ndarray, "direction lam"], metric: str
) -> dict[str, tuple]:
    """Label curves, as variables of a Dataset."""
    dim = "direction"
    found = [classify(lam, curve, metric=metric) for curve in curves]
    return {
        "label": labelled(dim, [str(shape) for shape in found], f"curve type by {metric}"),
        "confidence": labelled(
            dim, [shape.confidence for shape in found], "share of thresholds that agree"
        ),
        "holes": labelled(dim, [shape.holes for shape in found], "points that are not finite"),
        "prominence": labelled(
            dim, [shape.prominence for shape in found], "what a minimum needed", "of the metric"
        ),
    }


def _parabolas(
    loss: Float[Tensor, "curve"],
    slope: Float[Tensor, "curve"],
    curvature: Float[Tensor, "curve"],
    lam: np.ndarray,
) -> Float[np.ndarray, "curve lam"]:
    """Return L + λ dᵀ∇L + ½ λ² dᵀHd along every direction."""
    at = [_host(values.double())[:, None] for values in (loss, slope, curvature)]
    return at[0] + at[1] * lam + 0.5 * at[2] * lam**2


def _check(points: Tensor, directions: Tensor, names: Sequence[str] | None, metric: str) -> None:
    if points.shape != directions.shape:
        raise ValueError(
            f"points have shape {tuple(points.shape)} and directions {tuple(directions.shape)}: "
            "expected one point, or one for each direction"
        )
    if names is not None and len(names) != len(directions):
        raise ValueError(f"names: expected {len(directions)}, one a direction, got {len(names)}")
    if metric not in ABSOLUTE:
        raise ValueError(f"metric={metric!r}: expected one of {', '.join(ABSOLUTE)}")
    zero = (torch.linalg.vector_norm(directions, dim=1) == 0).nonzero().flatten().tolist()
    if zero:
        raise ValueError(f"directions: row {zero[0]} has zero norm; leave it out")


def _host(values: Tensor) -> np.ndarray:
    return values.detach().cpu().numpy()
