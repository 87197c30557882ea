"""Shapes of one-dimensional loss curves, from v-basin to vvv-basin.

The types are named after arXiv 2405.12493; their definitions are ours: how many interior minima a
curve has, and where λ = 0 stands among them. A label depends on thresholds, window, resolution and
metric, so all of these stand beside it, with the share of other thresholds that give the same.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.signal import find_peaks

__all__ = ["SHAPES", "CurveShape", "ShapeRule", "classify"]

SHAPES = ("v-basin", "v-side", "w-basin", "w-peak", "vvv-basin", "flat", "other")

LEAST_POINTS = 41
ABSOLUTE = {"loss": 0.1, "error": 0.02}
"""Prominence below which nothing counts: nats, and share of samples."""


@dataclass(frozen=True)
class ShapeRule:
    """When a dip counts, and when λ = 0 stands at it."""

    absolute: float = ABSOLUTE["loss"]
    """Least prominence of a minimum, in units of the curve."""
    relative: float = 0.1
    """The same, as a share of the rise from the lowest point to the lower of both sides' highest
    points; the larger of both prominences decides."""
    tolerance: float = 0.1
    """How far from λ = 0 an extremum may stand, as a share of half the window."""
    metric: str = "loss"

    def scaled(self, factor: float) -> ShapeRule:
        """The same with both prominences multiplied."""
        return replace(self, absolute=factor * self.absolute, relative=factor * self.relative)


@dataclass(frozen=True)
class CurveShape:
    """The label of a curve, and what it depends on."""

    label: str
    confidence: float
    """Share of halved and doubled prominences at which the label is the same: 0, ½ or 1."""
    minima: tuple[float, ...]
    """λ of the interior minima that count."""
    prominence: float
    """What a minimum needed, in units of the curve."""
    holes: int
    """Points whose loss is not finite; with any, the label is "other"."""
    window: tuple[float, float]
    points: int
    rule: ShapeRule

    def __str__(self) -> str:
        return self.label

    def settings(self) -> dict[str, Any]:
        """Return what the label depends on, as plain data."""
        return {"window": list(self.window), "points": self.points, **asdict(self.rule)}


def classify(
    lam: ArrayLike,
    loss: ArrayLike,
    *,
    metric: str = "loss",
    absolute: float | None = None,
    relative: float = 0.1,
    tolerance: float = 0.1,
) -> CurveShape:
    """Label a curve of losses (or errors) by its interior minima and by where λ = 0 stands.

    A minimum counts if the curve rises on either side by more than
    ``max(absolute, relative × range)`` before it falls lower (scipy's prominence), where the range
    goes from the lowest point to the lower of both sides' highest: a wall on one side, however
    high, does not hide what is on the other. One such minimum
    with λ = 0 at it is a v-basin; two with λ = 0 at one of them a w-basin, with λ = 0 at the
    maximum between them a w-peak; three with λ = 0 at the middle one a vvv-basin; at most one, and
    a descent from λ = 0 by more than the prominence, a v-side. "At" means that λ = 0 is within the
    tolerance of the extremum, or no further than a prominence above (below) it on its own slope.

    Parameters
    ----------
    lam : [k]
        Increasing positions around 0, at least 41.
    loss : [k]
        May hold values that are not finite: holes, which make the label "other".
    metric : "loss" or "error"
        Sets the default of `absolute`: 0.1 nats, or 0.02 of the samples.
    absolute, relative, tolerance : float
        As in `ShapeRule`.

    Raises
    ------
    ValueError
        If positions and losses do not fit each other, are too few, unsorted, or not around 0; or a
        threshold is not positive.

    Examples
    --------
    >>> lam = np.linspace(-1.5, 1.5, 61)
    >>> str(classify(lam, lam**2)), str(classify(lam, (lam**2 - 1) ** 2))
    ('v-basin', 'w-peak')
    """
    if metric not in ABSOLUTE:
        raise ValueError(f"metric={metric!r}: expected one of {', '.join(ABSOLUTE)}")
    rule = ShapeRule(
        ABSOLUTE[metric] if absolute is None else absolute, relative, tolerance, metric
    )
    for name in ("absolute", "relative", "tolerance"):
        if not getattr(rule, name) > 0:
            raise ValueError(f"{name}={getattr(rule, name)!r}: expected a number above 0")
    x, c = _checked(lam, loss)
    holes = int((~np.isfinite(c)).sum())
    window = (float(x[0]), float(x[-1]))
    if holes:
        return CurveShape("other", 0.0, (), float("nan"), holes, window, len(x), rule)
    label, minima, needed = _label(x, c, rule)
    agreeing = [_label(x, c, rule.scaled(factor))[0] == label for factor in (0.5, 2.0)]
    places = tuple(float(x0) for x0, _ in minima)
    return CurveShape(label, float(np.mean(agreeing)), places, needed, 0, window, len(x), rule)


def _checked(lam: ArrayLike, loss: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    x, c = np.asarray(lam, dtype=float), np.asarray(loss, dtype=float)
    if x.ndim != 1 or x.shape != c.shape:
        raise ValueError(f"loss has shape {c.shape} and lam {x.shape}: expected two equal lists")
    if len(x) < LEAST_POINTS:
        raise ValueError(f"lam has {len(x)} points: expected at least {LEAST_POINTS} for a label")
    if not (np.diff(x) > 0).all():
        raise ValueError("lam: expected increasing positions; sort both lists by lam")
    if not x[0] < 0 < x[-1]:
        raise ValueError(
            f"lam goes from {x[0]:g} to {x[-1]:g}: expected positions on both sides of 0"
        )
    return x, c


Minima = list[tuple[float, float]]


def _label(
    x: Float[np.ndarray, "k"], c: Float[np.ndarray, "k"], rule: ShapeRule
) -> tuple[str, Minima, float]:
    """Return label, interior minima (λ, loss), and the prominence asked for."""
    walls = min(float(c[x <= 0].max()), float(c[x >= 0].max())) - float(c.min())
    needed = max(rule.absolute, rule.relative * walls)
    if float(c.max() - c.min()) <= rule.absolute:
        return "flat", [], needed
    minima = _minima(x, c, needed)
    near = rule.tolerance * 0.5 * (x[-1] - x[0]) * (1 + 1e-9)  # positions carry rounding errors
    here = float(np.interp(0.0, x, c))
    at = _stands_at(x, c, minima, here, near, needed)
    if len(minima) == 3 and at == ("minimum", 1):
        return "vvv-basin", minima, needed
    if len(minima) == 2 and at is not None:
        return "w-basin" if at[0] == "minimum" else "w-peak", minima, needed
    if len(minima) == 1 and at is not None:
        return "v-basin", minima, needed
    if len(minima) < 2 and _descends(x, c, minima, here, needed):
        return "v-side", minima, needed
    return "other", minima, needed


def _minima(x: np.ndarray, c: np.ndarray, needed: float) -> Minima:
    """Interior minima of enough prominence; of a flat bottom, its middle."""
    places, found = find_peaks(-c, prominence=needed, plateau_size=1)
    middles = 0.5 * (x[found["left_edges"]] + x[found["right_edges"]])
    deep = found["prominences"] > needed
    kept = [(float(m), float(c[k])) for m, k in zip(middles[deep], places[deep], strict=True)]
    return _parted(x, c, kept, needed)


def _parted(x: np.ndarray, c: np.ndarray, minima: Minima, needed: float) -> Minima:
    """Join minima of equal depth with no rise between: prominence does not tell them apart."""
    groups: list[Minima] = []
    for place, value in minima:
        if groups:
            between = c[(x >= groups[-1][-1][0]) & (x <= place)]
            if float(between.max()) - max(value, groups[-1][-1][1]) <= needed:
                groups[-1].append((place, value))
                continue
        groups.append([(place, value)])
    joined = []
    for group in groups:
        lowest = min(value for _, value in group)
        joined.append((float(np.mean([p for p, value in group if value == lowest])), lowest))
    return joined


def _stands_at(
    x: np.ndarray, c: np.ndarray, minima: Minima, here: float, near: float, needed: float
) -> tuple[str, int] | None:
    """The extremum at which λ = 0 stands: the nearest one within reach."""
    found: list[tuple[float, str, float, int]] = []  # distance, kind, how far from the middle one
    for k, (place, value) in enumerate(minima):
        reach = abs(place) <= near or (here - value <= needed and _unparted(x, c, place, needed))
        if reach:
            found.append((round(abs(place), 9), "minimum", abs(k - (len(minima) - 1) / 2), k))
    for k, ((left, _), (right, _)) in enumerate(pairwise(minima)):
        inside = np.flatnonzero((x >= left) & (x <= right))
        top = float(c[inside].max())
        tops = x[inside][c[inside] == top]
        place = float(0.5 * (tops[0] + tops[-1]))
        if abs(place) <= near or (left < 0 < right and top - here <= needed / 2):
            found.append((round(abs(place), 9), "maximum", 0.0, k))
    if not found:
        return None
    _, kind, _, number = min(found)
    return kind, number


def _unparted(x: np.ndarray, c: np.ndarray, place: float, needed: float) -> bool:
    """Whether no rise of a prominence lies between λ = 0 and a minimum."""
    low, high = min(0.0, place), max(0.0, place)
    between = c[(x >= low) & (x <= high)]
    return len(between) == 0 or float(between.max()) - float(np.interp(0.0, x, c)) <= needed


def _descends(x: np.ndarray, c: np.ndarray, minima: Minima, here: float, needed: float) -> bool:
    """Whether the curve falls by more than a prominence on one side of λ = 0, and on one only."""
    left = here - float(c[x < 0].min()) > needed
    right = here - float(c[x > 0].min()) > needed
    return left != right
