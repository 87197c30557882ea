"""Planes: all pairs of directions, and grids that are fine only where the loss bends."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float
from scipy.interpolate import RegularGridInterpolator
from scipy.ndimage import maximum_filter
from torch import Tensor

from spinscape.landscape.energy import Landscape
from spinscape.nets.weightspace import points as points_of
from spinscape.records import labelled, provenance
from spinscape.valleys.directions import orthogonal
from spinscape.valleys.surface_shapes import SurfaceShape, classify_surface

__all__ = ["refined_plane", "surface_labels", "surfaces"]

SOURCE = "arXiv 2405.12493 (surfaces over pairs of directions); labels ours"


def surfaces(
    landscape: Landscape,
    point: Float[Tensor, "n"],
    directions: Float[Tensor, "direction n"],
    names: Sequence[str],
    *,
    extent: float = 1.5,
    side: int = 41,
) -> xr.Dataset:
    """Loss on the plane of every pair of directions, with a label each.

    The second direction of a pair is orthogonalised against the first and given its length back.

    Parameters
    ----------
    landscape : Landscape
    point : [n]
        The centre.
    directions : [direction, n]
    names : sequence of str
        One a direction.
    extent : float
        Grids go from −extent to extent in units of the directions.
    side : int
        Points a side.

    Returns
    -------
    Dataset
        ``loss [pair, a, b]``, ``error`` where targets are labels, ``label [pair]`` with
        ``confidence`` and ``holes``; coordinates ``first`` and ``second``.

    Raises
    ------
    ValueError
        If there are fewer than two directions, or names do not fit them, or two are parallel.
    """
    point, directions = points_of(point), points_of(directions)
    if directions.ndim != 2 or len(directions) < 2 or len(directions) != len(names):
        raise ValueError(
            f"directions has shape {tuple(directions.shape)} and names {len(names)} entries: "
            "expected at least two directions and one name each"
        )
    axis = np.linspace(-extent, extent, side)
    planes, labels = [], []
    pairs = list(combinations(range(len(names)), 2))
    for i, j in pairs:
        second = orthogonal(directions[j], directions[i][None])
        plane = landscape.plane(point, directions[i], second, axis, axis)
        planes.append(plane)
        labels.append(classify_surface(axis, axis, plane["loss"].values))
    joined = xr.concat(planes, "pair", combine_attrs="drop", coords="minimal", compat="override")
    joined["loss"].attrs.update(planes[0]["loss"].attrs)
    joined = (
        joined.assign(surface_labels(labels, "pair"))
        .assign(
            first=("pair", [names[i] for i, _ in pairs]),
            second=("pair", [names[j] for _, j in pairs]),
        )
        .set_coords(["first", "second"])
    )
    return joined.assign_attrs(
        provenance("surfaces", SOURCE, 0, extent=extent, side=side, **labels[0].settings())
    )


def surface_labels(found: Sequence[SurfaceShape], dim: str) -> dict[str, tuple]:
    """Return labels of surfaces, their confidence and holes, as variables of a Dataset."""
    return {
        "label": labelled(dim, [str(each) for each in found], "kind of surface"),
        "confidence": labelled(
            dim, [each.confidence for each in found], "share of thresholds that agree"
        ),
        "holes": labelled(dim, [each.holes for each in found], "points that are not finite"),
    }


def refined_plane(
    landscape: Landscape,
    origin: Float[Tensor, "n"],
    d1: Float[Tensor, "n"],
    d2: Float[Tensor, "n"],
    *,
    extent: float = 1.5,
    levels: int = 3,
    coarse: int = 9,
    tolerance: float = 0.01,
) -> xr.Dataset:
    """Loss on a plane, evaluated on a coarse grid everywhere and on finer ones where it bends.

    A cell is cut in four as long as straight lines between its corners would miss the loss by more
    than the tolerance, judged by second differences; what is not evaluated is interpolated, and
    says so in ``evaluated``. Nothing is interpolated next to a loss that is not finite.

    Parameters
    ----------
    landscape : Landscape
    origin, d1, d2 : [n]
    extent : float
        The grid goes from −extent to extent in units of the directions.
    levels : int
        How often cells may be cut.
    coarse : int
        Points a side of the first grid, odd.
    tolerance : float
        Error allowed, as a share of the loss there plus a hundredth of its median.

    Returns
    -------
    Dataset
        ``loss [a, b]`` and ``evaluated [a, b]``, with the share evaluated in ``attrs``.

    Raises
    ------
    ValueError
        If a setting is out of range.
    """
    if coarse < 5 or coarse % 2 == 0 or levels < 1 or not tolerance > 0:
        raise ValueError(
            f"coarse={coarse!r}, levels={levels!r}, tolerance={tolerance!r}: expected an odd "
            "number of at least 5 points, at least one level and a positive tolerance"
        )
    directions = torch.stack([points_of(d1), points_of(d2)])
    side = (coarse - 1) * 2**levels + 1
    axis = np.linspace(-extent, extent, side)
    loss = np.full((side, side), np.nan)
    evaluated = np.zeros((side, side), dtype=bool)

    def evaluate(asked: Bool[np.ndarray, "side side"]) -> None:
        where = np.argwhere(asked & ~evaluated)
        if len(where):
            at = torch.as_tensor(axis[where])
            found, _ = landscape.subspace(origin, directions, at)
            loss[tuple(where.T)] = found.cpu().numpy()
            evaluated[tuple(where.T)] = True

    stride = 2**levels
    evaluate(_every(side, stride))
    while stride > 1:
        bent = _bent(loss[::stride, ::stride], tolerance)
        stride //= 2
        near = np.kron(bent, np.ones((2, 2), dtype=bool))
        asked = np.zeros((side, side), dtype=bool)
        count = (side - 1) // stride
        for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
            asked[::stride, ::stride][i : count + i, j : count + j] |= near
        evaluate(asked)
        _fill(axis, loss, evaluated, stride)
    share = float(evaluated.mean())
    name = landscape.criterion.name
    units = landscape.criterion.units
    return xr.Dataset(
        {
            "loss": labelled(("a", "b"), loss, f"{name} loss", units),
            "evaluated": labelled(("a", "b"), evaluated, "whether the loss was evaluated there"),
        },
        {"a": ("a", axis), "b": ("b", axis)},
        {
            **provenance("refined_plane", SOURCE, 0, extent=extent, levels=levels, coarse=coarse),
            "tolerance": tolerance,
            "share_evaluated": share,
        },
    )


def _every(side: int, stride: int) -> np.ndarray:
    found = np.zeros((side, side), dtype=bool)
    found[::stride, ::stride] = True
    return found


def _bent(grid: Float[np.ndarray, "k k"], tolerance: float) -> Bool[np.ndarray, "k-1 k-1"]:
    """Which cells a finer grid is asked for, by second differences at their corners."""
    finite = np.isfinite(grid)
    floor = 0.01 * float(np.median(grid[finite])) if finite.any() else 0.0
    miss = np.zeros_like(grid)
    with np.errstate(invalid="ignore"):
        for turned in (grid, grid.T):
            second = np.abs(turned[:-2] - 2 * turned[1:-1] + turned[2:]) / 8
            padded = np.pad(second, ((1, 1), (0, 0)), mode="edge")
            miss = np.maximum(miss, padded if turned is grid else padded.T)
        corners = ~(miss <= tolerance * (np.abs(grid) + floor)) | ~finite
    corners = maximum_filter(corners, 3)  # neighbours, too: bends are seen one cell late
    return corners[:-1, :-1] | corners[1:, :-1] | corners[:-1, 1:] | corners[1:, 1:]


def _fill(axis: np.ndarray, loss: np.ndarray, evaluated: np.ndarray, stride: int) -> None:
    """Interpolate what was left out at this stride from the stride before."""
    before = 2 * stride
    known = RegularGridInterpolator(
        (axis[::before], axis[::before]), loss[::before, ::before], bounds_error=False
    )
    wanted = np.zeros(loss.shape, dtype=bool)
    wanted[::stride, ::stride] = True
    where = np.argwhere(wanted & ~evaluated)
    if len(where):
        old = (where % before == 0).all(1)
        where = where[~old]
        loss[tuple(where.T)] = known(axis[where])
