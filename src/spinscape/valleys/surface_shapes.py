"""Surfaces over two directions: what they are called, and by which rule.

Kinds are those of arXiv 2405.12493 (saddle, bottom of a wine bottle) and their plain relatives; the
rule is ours: what the loss does along rays from the centre.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.interpolate import RegularGridInterpolator

from spinscape.valleys.shapes import ABSOLUTE

__all__ = ["SURFACES", "SurfaceShape", "classify_surface"]

SURFACES = ("bowl", "saddle", "wine-bottle", "valley", "flat", "other")

RAYS = 32
RAY_KINDS = ("climbs", "falls", "trough", "level")
NEARLY_ALL = 0.95  # share of rays that a bowl and a wine bottle need


@dataclass(frozen=True)
class SurfaceShape:
    """The label of a surface, and what it depends on."""

    label: str
    confidence: float
    """Share of halved and doubled prominences at which the label is the same: 0, ½ or 1."""
    rays: dict[str, float]
    """Share of rays that climb, fall, cross a trough, or stay level."""
    prominence: float
    holes: int
    """Grid points within reach whose loss is not finite; with any, the label is "other"."""
    radius: float
    absolute: float
    relative: float

    def __str__(self) -> str:
        return self.label

    def settings(self) -> dict[str, Any]:
        """Return what the label depends on, as plain data."""
        return {"radius": self.radius, "absolute": self.absolute, "relative": self.relative}


def classify_surface(
    a: ArrayLike,
    b: ArrayLike,
    loss: ArrayLike,
    *,
    metric: str = "loss",
    absolute: float | None = None,
    relative: float = 0.1,
) -> SurfaceShape:
    """Label a surface by what the loss does along 32 rays from (0, 0) to the nearest edge.

    A ray *climbs* if it rises by more than the prominence and never falls by it; it crosses a
    *trough* if it falls by more and then rises by more; it *falls* if it only falls; else it is
    *level*. All but 5 % climbing: bowl; crossing a trough: wine-bottle. Both ends of one axis
    falling or crossing a trough and both of the perpendicular one climbing: saddle; level and
    climbing: valley. The prominence is ``max(absolute, relative × range)``, the range going from
    the lowest point to the highest one of a ray of which a quarter are lower: walls elsewhere hide
    nothing.

    Parameters
    ----------
    a, b : [k], [m]
        Increasing positions around 0, at least 9 each.
    loss : [k, m]
        May hold values that are not finite.
    metric, absolute, relative
        As in `classify`.

    Raises
    ------
    ValueError
        If the shapes do not fit each other, or an axis is not increasing around 0.
    """
    if metric not in ABSOLUTE:
        raise ValueError(f"metric={metric!r}: expected one of {', '.join(ABSOLUTE)}")
    least = ABSOLUTE[metric] if absolute is None else absolute
    x, y, z = (np.asarray(values, dtype=float) for values in (a, b, loss))
    for name, axis in (("a", x), ("b", y)):
        if axis.ndim != 1 or len(axis) < 9 or not (np.diff(axis) > 0).all():
            raise ValueError(f"{name}: expected at least 9 increasing positions")
        if not axis[0] < 0 < axis[-1]:
            raise ValueError(f"{name}: expected positions on both sides of 0")
    if z.shape != (len(x), len(y)):
        raise ValueError(f"loss has shape {z.shape}: expected {(len(x), len(y))} as a and b say")
    radius = float(min(-x[0], x[-1], -y[0], y[-1]))
    near = np.hypot(*np.meshgrid(x, y, indexing="ij")) <= radius
    holes = int((~np.isfinite(z[near])).sum())
    if holes:
        return SurfaceShape("other", 0.0, {}, float("nan"), holes, radius, least, relative)
    rays = _rays(x, y, z, radius)
    label, kinds, needed = _label(rays, least, relative)
    agreeing = [_label(rays, f * least, f * relative)[0] == label for f in (0.5, 2.0)]
    shares = {kind: float((kinds == kind).mean()) for kind in RAY_KINDS}
    return SurfaceShape(label, float(np.mean(agreeing)), shares, needed, 0, radius, least, relative)


def _rays(
    x: np.ndarray, y: np.ndarray, z: np.ndarray, radius: float
) -> Float[np.ndarray, "ray step"]:
    """Losses along rays within the grid, by linear interpolation."""
    angles = 2 * np.pi * np.arange(RAYS) / RAYS
    radii = np.linspace(0, radius, 2 * max(len(x), len(y)))
    at = np.stack([np.outer(np.cos(angles), radii), np.outer(np.sin(angles), radii)], -1)
    at = np.clip(at, [x[0], y[0]], [x[-1], y[-1]])
    filled = np.where(np.isfinite(z), z, np.nanmax(z[np.isfinite(z)]))
    return RegularGridInterpolator((x, y), filled)(at)


def _label(
    rays: Float[np.ndarray, "ray step"], absolute: float, relative: float
) -> tuple[str, np.ndarray, float]:
    low, high = float(rays.min()), float(np.quantile(rays.max(1), 0.25))
    needed = max(absolute, relative * (high - low))
    kinds = np.array([_kind(ray, needed) for ray in rays])
    if float(rays.max()) - low <= absolute:
        return "flat", kinds, needed
    if (kinds == "climbs").mean() >= NEARLY_ALL:
        return "bowl", kinds, needed
    if (kinds == "trough").mean() >= NEARLY_ALL:
        return "wine-bottle", kinds, needed
    up, down, level = kinds == "climbs", np.isin(kinds, ("falls", "trough")), kinds == "level"
    across = _opposite(up, RAYS // 4)
    if (_opposite(down, 0) & across).any():
        return "saddle", kinds, needed
    if (_opposite(level, 0) & across).any():
        return "valley", kinds, needed
    return "other", kinds, needed


def _kind(ray: Float[np.ndarray, "step"], needed: float) -> str:
    lowest = int(ray.argmin())
    if ray[0] - ray[lowest] > needed:
        return "trough" if ray[lowest:].max() - ray[lowest] > needed else "falls"
    return "climbs" if ray.max() - ray[0] > needed else "level"


def _opposite(chosen: np.ndarray, turned: int) -> np.ndarray:
    """At which angles both ends of the axis, turned by so many rays, are chosen."""
    return np.roll(chosen, -turned) & np.roll(chosen, -turned - RAYS // 2)
