"""Curvature of a landscape at many points at once: eigenpairs, traces, densities, parabolas.

Products with the Hessian are exact; the statistics of normalisation layers are held fixed, as in
`Landscape.hvp`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from spinscape.landscape.energy import Landscape
from spinscape.landscape.krylov import (
    Operator,
    extreme_eigenpairs,
    hutch_plus_plus,
    hutchinson,
    lanczos,
    quadrature,
)
from spinscape.landscape.probing import Group, gaussian, operator, prepared, rademacher
from spinscape.nets.chunks import pieces
from spinscape.nets.weightspace import points as points_of
from spinscape.records import labelled, provenance

__all__ = ["along", "density", "eigenpairs", "predicted", "trace"]

MEMORY = 1 << 30
"""Bytes that the vectors of points worked on at once may take."""


def eigenpairs(
    landscape: Landscape,
    points: Float[Tensor, "*batch n"],
    *,
    top: int = 5,
    bottom: int = 1,
    group: Group = None,
    matrix: str = "hessian",
    seed: int = 0,
    tolerance: float = 1e-4,
    steps: int = 200,
) -> xr.Dataset:
    """Find the largest and smallest eigenvalues with their eigenvectors, by Lanczos.

    Of an eigenvalue that is repeated exactly, one copy is found.

    Parameters
    ----------
    landscape : Landscape
    points : [..., n]
    top, bottom : int
        How many at either end.
    group : str or LongTensor, optional
        Parameters to which the matrix is restricted: a name of ``landscape.space.groups``, or
        indices. Eigenvectors are zero elsewhere.
    matrix : "hessian" or "gauss_newton"
    seed : int
        Of the vectors to start from.
    tolerance : float
        Residual ‖Hv − λv‖ allowed, as a share of the largest eigenvalue in size.
    steps : int
        At most so many products a point; what has not converged by then says so.

    Returns
    -------
    Dataset
        ``eigenvalue [point, eigenpair]`` (top ones first, largest first; then the bottom ones,
        smallest last), ``eigenvector [point, eigenpair, n]``, ``residual``, ``converged``, and
        ``products [point]``, how many it took. Without leading axes of `points` there is one
        point; one whose matrix is not finite has eigenpairs that are not a number.

    Raises
    ------
    ValueError
        If more eigenpairs are asked for than there are, a group or matrix is unknown, or a point is
        not finite.
    """
    rows, index, project = prepared(landscape, points, group)
    size = landscape.n if index is None else len(index)
    for name, value in (("top", top), ("bottom", bottom)):
        if value < 0:
            raise ValueError(f"{name}={value!r}: expected 0 or more")
    if not 1 <= top + bottom <= size:
        raise ValueError(
            f"top={top} and bottom={bottom}: expected 1 to {size:,} in all, as many as there are"
        )
    if not tolerance > 0:
        raise ValueError(f"tolerance={tolerance!r}: expected a number above 0")
    if steps < 1:
        raise ValueError(f"steps={steps!r}: expected 1 or more")
    parts = []
    for some in _some(rows, size, max(min(size, steps), top + bottom)):
        mine = rows[some]

        def narrowed(left: Tensor, mine: Tensor = mine) -> Operator:
            return operator(landscape, mine[left], index, matrix)

        start, fresh = (gaussian(mine, size, (seed, kind), some) for kind in (0, 1))
        parts.append(
            extreme_eigenpairs(
                operator(landscape, mine, index, matrix),
                start,
                fresh,
                top,
                bottom,
                tolerance=tolerance,
                steps=steps,
                narrowed=narrowed,
            )
        )
    values, vectors, residuals, converged, taken = map(torch.cat, zip(*parts, strict=True))
    dims = ("point", "eigenpair")
    result = xr.Dataset(
        {
            "eigenvalue": labelled(dims, values, "eigenvalue", landscape.criterion.units),
            "eigenvector": labelled((*dims, "n"), project(vectors), "unit eigenvector"),
            "residual": labelled(dims, residuals, "‖Hv − λv‖", landscape.criterion.units),
            "converged": labelled(dims, converged, "whether the residual is allowed"),
            "products": labelled("point", taken, "products with the matrix"),
        }
    )
    told = {"top": top, "bottom": bottom, "tolerance": tolerance, "steps": steps}
    return result.assign_attrs(
        _provenance("eigenpairs", "Lanczos 1950", landscape, seed, group, matrix, **told)
    )


def trace(
    landscape: Landscape,
    points: Float[Tensor, "*batch n"],
    *,
    probes: int = 48,
    group: Group = None,
    matrix: str = "hessian",
    method: str = "hutch++",
    seed: int = 0,
) -> xr.Dataset:
    """Estimate trace and Frobenius norm, by Hutch++ or Hutchinson's estimator.

    Parameters
    ----------
    landscape, points, group, matrix, seed
        As in `eigenpairs`.
    probes : int
        Products with the matrix in all; Hutch++ spends a third on the range, a third within it
        and a third outside, and is exact where the range is the whole space.
    method : "hutch++" or "hutchinson"
        Meyer, Musco, Musco and Woodruff 2021 (arXiv 2010.09649), or Hutchinson 1990, both with
        Rademacher vectors.

    Returns
    -------
    Dataset
        ``trace [point]`` and ``trace_error`` (standard error over probes), ``square [point]``
        (‖H‖_F²) and ``square_error``, and ``weights``, the dimension of the matrix.

    Raises
    ------
    ValueError
        If there are fewer than 6 probes, or a group, matrix or method is unknown.
    """
    rows, index, _ = prepared(landscape, points, group)
    size = landscape.n if index is None else len(index)
    if method not in ("hutch++", "hutchinson"):
        raise ValueError(f"method={method!r}: expected 'hutch++' or 'hutchinson'")
    if probes < 6:
        raise ValueError(f"probes={probes!r}: expected at least 6, or there is no standard error")
    parts = []
    for some in _some(rows, size, 2 * probes):
        product = operator(landscape, rows[some], index, matrix)
        if method == "hutchinson":
            vectors = rademacher(rows[some], probes, size, seed, some.start)
            parts.append((torch.zeros_like(rows[some, 0]), *hutchinson(product, vectors)))
        else:
            third = probes // 3
            inner = min(third, size)
            vectors = rademacher(rows[some], inner + third, size, seed, some.start)
            parts.append(hutch_plus_plus(product, vectors[:, :inner], vectors[:, inner:]))
    inside, estimates, squares = map(torch.cat, zip(*parts, strict=True))
    units = landscape.criterion.units
    result = xr.Dataset(
        {
            "trace": labelled("point", inside + estimates.mean(1), "trace of the matrix", units),
            "trace_error": labelled("point", _error(estimates), "its standard error", units),
            "square": labelled("point", squares.mean(1), "squared Frobenius norm"),
            "square_error": labelled("point", _error(squares), "its standard error"),
            "weights": labelled((), size, "dimension of the matrix"),
        }
    )
    source = "arXiv 2010.09649, algorithm 1" if method == "hutch++" else "Hutchinson 1990"
    return result.assign_attrs(
        _provenance("trace", source, landscape, seed, group, matrix, probes=probes, method=method)
    )


def density(
    landscape: Landscape,
    points: Float[Tensor, "*batch n"],
    *,
    probes: int = 8,
    steps: int = 64,
    group: Group = None,
    matrix: str = "hessian",
    grid: int = 256,
    width: float = 0.01,
    seed: int = 0,
) -> xr.Dataset:
    """Estimate the density of eigenvalues by stochastic Lanczos quadrature.

    Ghorbani, Krishnan and Xiao 2019 (arXiv 1901.10159).

    Parameters
    ----------
    landscape, points, group, matrix, seed
        As in `eigenpairs`.
    probes : int
        Random vectors, each with a Lanczos run of its own.
    steps : int
        Of each run.
    grid : int
        Points at which the density is given, evenly from the smallest node to the largest of all.
    width : float
        Standard deviation of the Gaussians by which it is smoothed, as a share of that range.

    Returns
    -------
    Dataset
        ``node`` and ``weight [point, probe, node]`` (weights of a probe add up to 1), ``density
        [point, value]`` on the coordinate ``value``; ``negative [point]``, the share of eigenvalues
        below zero by more than `width` of the largest in size, with ``negative_error`` over probes.

    Raises
    ------
    ValueError
        If there are fewer than 2 probes or steps, or a group or matrix is unknown.
    """
    rows, index, _ = prepared(landscape, points, group)
    size = landscape.n if index is None else len(index)
    if probes < 2 or steps < 2 or grid < 2 or not width > 0:
        raise ValueError(
            f"probes={probes!r}, steps={steps!r}, grid={grid!r}, width={width!r}: expected at "
            "least 2 of each and a positive width"
        )
    nodes: list[Tensor] = []
    weights: list[Tensor] = []
    for some in _some(rows, size, min(size, steps) * probes):
        single = rows[some].repeat_interleave(probes, 0)
        start = rademacher(rows[some], probes, size, seed, some.start).flatten(0, 1)
        run = lanczos(operator(landscape, single, index, matrix), start, steps)
        for kept, found in zip((nodes, weights), quadrature(run), strict=True):
            kept.append(found.unflatten(0, (-1, probes)))
    node, weight = (torch.cat(kept).double() for kept in (nodes, weights))
    value, smooth = _smoothed(node, weight, grid, width)
    edge = width * node.abs().amax((1, 2), keepdim=True)
    below = (weight * (node < -edge)).sum(2)
    dims = ("point", "probe", "node")
    units = landscape.criterion.units
    result = xr.Dataset(
        {
            "node": labelled(dims, node, "node of the quadrature", units),
            "weight": labelled(dims, weight, "its weight"),
            "density": labelled(("point", "value"), smooth, "density of eigenvalues"),
            "negative": labelled("point", below.mean(1), "share of negative eigenvalues"),
            "negative_error": labelled("point", _error(below), "its standard error"),
        },
        {"value": ("value", value.cpu().numpy(), {"long_name": "eigenvalue", "units": units})},
    )
    told = {"probes": probes, "steps": steps, "width": width}
    return result.assign_attrs(
        _provenance("density", "arXiv 1901.10159", landscape, seed, group, matrix, **told)
    )


def along(
    landscape: Landscape,
    points: Float[Tensor, "*batch n"],
    directions: Float[Tensor, "*batch direction n"],
    *,
    matrix: str = "hessian",
) -> xr.Dataset:
    """Measure dᵀHd of every direction at every point.

    Parameters
    ----------
    landscape : Landscape
    points : [..., n]
    directions : [direction, n], or [..., direction, n]
        The same for all points, or each point's own; of any length but 0.
    matrix : "hessian" or "gauss_newton"

    Returns
    -------
    Dataset
        ``curvature [point, direction]``, and ``length [direction]`` (``[point, direction]`` of
        directions that are each point's own).

    Raises
    ------
    ValueError
        If a direction has a wrong length or zero norm, or others have directions of their own than
        there are points.
    """
    rows, _, _ = prepared(landscape, points, None)
    directions = points_of(directions).to(rows)
    landscape.space.check(directions, "directions")
    if directions.ndim != 2:
        batch = points_of(points).shape[:-1]
        if directions.ndim < 2 or directions.shape[:-2] != batch:
            raise ValueError(
                f"directions of shape {tuple(directions.shape)}: expected [k, {landscape.n}] for "
                f"all points, or {[*batch, 'k', landscape.n]} for each"
            )
        directions = directions.reshape(len(rows), -1, landscape.n)
    lengths = torch.linalg.vector_norm(directions, dim=-1)
    for k, length in enumerate(lengths.flatten().tolist()):
        if not 0 < length < float("inf"):
            raise ValueError(f"directions: row {k} has norm {length:g}; leave it out")
    images = landscape.hvp(rows[:, None], directions, matrix)
    found = (images * directions).sum(-1)
    result = xr.Dataset(
        {
            "curvature": labelled(("point", "direction"), found, "dᵀHd", landscape.criterion.units),
            "length": labelled(
                ("point", "direction")[-lengths.ndim :],
                lengths,
                "length of the direction",
                "weights",
            ),
        }
    )
    return result.assign_attrs(_provenance("along", "ours", landscape, 0, None, matrix))


def predicted(moments: xr.Dataset, length: float = 1.0) -> xr.Dataset:
    """Foretell the curvature along isotropic directions of a length, from trace and norm.

    The mean of dᵀHd is ‖d‖² tr H/n, its relative standard deviation √[2 (n‖H‖_F² − tr²H) /
    ((n + 2) tr²H)] (Böttcher and Wheeler 2022, arXiv 2208.13219).

    Parameters
    ----------
    moments : Dataset
        Of `trace`.
    length : float
        ‖d‖.

    Returns
    -------
    Dataset
        ``foretold`` and ``foretold_spread [point]``; the latter is not finite for a trace of 0.

    Raises
    ------
    ValueError
        If the length is not positive.
    """
    if not length > 0:
        raise ValueError(f"length={length!r}: expected a number above 0")
    n = float(moments["weights"])
    total, square = (moments[name].values.astype(float) for name in ("trace", "square"))
    left = np.maximum(n * square - total**2, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.sqrt(2 * left / ((n + 2) * total**2))
    units = moments["trace"].attrs["units"]
    return xr.Dataset(
        {
            "foretold": labelled("point", length**2 * total / n, "‖d‖² tr H / n", units),
            "foretold_spread": labelled("point", spread, "relative standard deviation of dᵀHd"),
        },
        attrs={**moments.attrs, "protocol": "predicted", "length": length},
    )


def _some(rows: Tensor, size: int, vectors: int) -> Iterator[slice]:
    """Points whose vectors, so many each, fit into memory at once."""
    if not len(rows):
        raise ValueError("points: there are none; expected at least one, [n] or [..., n]")
    return pieces(len(rows), max(1, MEMORY // (rows.itemsize * size * vectors)))


def _smoothed(
    node: Float[Tensor, "P probe m"], weight: Float[Tensor, "P probe m"], grid: int, width: float
) -> tuple[Float[Tensor, "grid"], Float[Tensor, "P grid"]]:
    """Values of one grid for all points, and the density of Gaussians there."""
    finite = node[torch.isfinite(node)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
    spread = max(width * (high - low), 1e-12)
    value = torch.linspace(low - 3 * spread, high + 3 * spread, grid, dtype=torch.float64)
    value = value.to(node.device)
    bumps = torch.exp(-0.5 * ((value - node[..., None]) / spread) ** 2) * weight[..., None]
    return value, bumps.sum(2).mean(1) / (spread * (2 * np.pi) ** 0.5)


def _error(estimates: Float[Tensor, "P probe"]) -> Float[Tensor, "P"]:
    return estimates.std(1) / estimates.shape[1] ** 0.5


def _provenance(
    protocol: str,
    source: str,
    landscape: Landscape,
    seed: int,
    group: Group,
    matrix: str,
    **arguments: Any,
) -> dict[str, Any]:
    told = group if isinstance(group, str) else "indices" if group is not None else "all"
    arguments |= {"group": told, "matrix": matrix, "samples": len(landscape.x)}
    return provenance(protocol, source, seed, **arguments, loss=landscape.criterion.name)
