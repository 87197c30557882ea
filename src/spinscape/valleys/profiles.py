"""Target profiles of the miner: where the loss is to be low, and where high up to a cap."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

__all__ = ["PROFILES", "Profile", "picture", "profile_of"]


@dataclass(frozen=True)
class Profile:
    """Points of a line or a plane at which the loss is lowered, or raised up to a cap.

    The objective is Σ_lower L − `weight` Σ_raise min(L, `cap`), in units of the direction: the
    point at coordinates c is θ + Σ_i c_i d_i.

    Parameters
    ----------
    name : str
        The label that a mined line or surface must get.
    lower, raised : tuple of tuple of float
        Coordinates, one number a direction.
    weight, cap : float
        Of the raised points; the cap in units of the loss.
    """

    name: str
    lower: tuple[tuple[float, ...], ...] = ()
    raised: tuple[tuple[float, ...], ...] = ()
    weight: float = 2.0
    cap: float = 2.0

    def __post_init__(self) -> None:
        axes = {len(point) for point in (*self.lower, *self.raised)}
        if len(axes) != 1 or not axes <= {1, 2}:
            raise ValueError(
                f"profile {self.name!r}: expected points of one coordinate each (a line) or two "
                f"each (a plane), got {sorted(axes)}"
            )
        if not all(math.isfinite(c) for point in (*self.lower, *self.raised) for c in point):
            raise ValueError(f"profile {self.name!r}: coordinates must be finite")
        for name in ("weight", "cap"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"profile {self.name!r}: {name}={value!r} must be above 0")

    @property
    def axes(self) -> int:
        """Number of directions: 1 or 2."""
        return len((*self.lower, *self.raised)[0])

    @property
    def coordinates(self) -> Float[np.ndarray, "target axis"]:
        """All points, those to lower first."""
        return np.array([*self.lower, *self.raised], dtype=float)


def _line(*places: float) -> tuple[tuple[float, ...], ...]:
    return tuple((place,) for place in places)


def _ring(radius: float, points: int) -> tuple[tuple[float, ...], ...]:
    angles = 2 * np.pi * np.arange(points) / points
    return tuple(
        (round(radius * math.cos(angle), 12), round(radius * math.sin(angle), 12))
        for angle in angles
    )


PROFILES: dict[str, Profile] = {
    "v-basin": Profile("v-basin", raised=_line(-1, 1)),
    "v-side": Profile("v-side", lower=_line(1), raised=_line(-1)),
    "w-basin": Profile("w-basin", lower=_line(1), raised=_line(-0.5, 0.5)),
    "w-peak": Profile("w-peak", lower=_line(-1, 1), raised=_line(-1.5, 1.5), weight=0.5),
    "vvv-basin": Profile("vvv-basin", lower=_line(-1, 1), raised=_line(-0.5, 0.5)),
    "bowl": Profile("bowl", raised=_ring(1, 8)),
    "saddle": Profile("saddle", lower=((1, 0), (-1, 0)), raised=((0, 1), (0, -1)), cap=4.0),
    "wine-bottle": Profile("wine-bottle", lower=_ring(1, 8), raised=_ring(2, 8)),
}
"""What each curve type and surface asks for; λ = 0 is the given network, which nothing moves.

A w-peak is raised at ±1.5 as well: with L(θ + d) + L(θ − d) alone, from an initialisation, the
loss falls on beyond ±1, and what is found has no interior minima.
"""


def profile_of(
    shape: str | Profile, weight: float | None = None, cap: float | None = None
) -> Profile:
    """Return the profile that goes by a name, with another weight or cap where these are given.

    Raises
    ------
    ValueError
        If the name is not known.
    """
    if isinstance(shape, Profile):
        found = shape
    elif shape in PROFILES:
        found = PROFILES[shape]
    else:
        raise ValueError(
            f"shape={shape!r}: expected one of {', '.join(PROFILES)}, or a Profile of your own"
        )
    changed: dict[str, Any] = {"name": found.name, "lower": found.lower, "raised": found.raised}
    changed["weight"] = found.weight if weight is None else weight
    changed["cap"] = found.cap if cap is None else cap
    return Profile(**changed)


def picture(cells: Any, name: str = "picture", *, reach: float = 1.0, **options: float) -> Profile:
    """Return the profile of a picture given as a grid over [−reach, reach]².

    Raising and lowering the loss at chosen cells of a plane is what Skorokhodov and Burtsev 2019
    (arXiv 1910.03867) did.

    Parameters
    ----------
    cells : [rows, columns] of numbers, or strings of "+", "-" and "."
        Above 0 (or "+"): raise; below 0 (or "-"): lower; 0 (or "."): as it comes. Rows go from
        b = reach down to −reach, columns from a = −reach to reach. The centre of a grid of odd
        sides is the network itself, and does not count.
    name : str
        Of the profile. A mined plane succeeds if its held-out losses at raised and lowered cells
        are apart.
    reach : float
        Half the side of the picture, in units of the directions.
    **options
        `weight` and `cap` of the profile.

    Raises
    ------
    ValueError
        If it is no grid of at least 2 × 2 cells, or asks for nothing.

    Examples
    --------
    >>> len(picture(["+-", "-+"]).lower)
    2
    """
    if all(isinstance(row, str) for row in cells):
        values = {"+": 1.0, "-": -1.0, ".": 0.0}
        try:
            grid = np.array([[values[c] for c in row] for row in cells])
        except (KeyError, ValueError) as error:
            raise ValueError(
                "cells: expected rows of equal length of the characters +, - and ."
            ) from error
    else:
        grid = np.asarray(cells, dtype=float)
    if grid.ndim != 2 or min(grid.shape) < 2 or not np.isfinite(grid).all():
        raise ValueError(f"cells: expected a finite grid of at least 2 × 2, got shape {grid.shape}")
    rows, columns = grid.shape
    a, b = np.linspace(-reach, reach, columns), np.linspace(reach, -reach, rows)
    found: dict[bool, list[tuple[float, ...]]] = {True: [], False: []}
    for (i, j), value in np.ndenumerate(grid):
        if value and (abs(a[j]) > 1e-9 or abs(b[i]) > 1e-9):
            found[bool(value > 0)].append((float(a[j]), float(b[i])))
    if not found[False] and not found[True]:
        raise ValueError("cells: asks for nothing; mark cells to raise with + and to lower with -")
    return Profile(name, tuple(found[False]), tuple(found[True]), **options)
