"""How rugged the ground around a solution is: slices through it, and its local energy.

Both measures are taken at the balanced representative of a solution, along directions or noise in
proportion to its weights, so that a rescaled copy of a network measures the same.

*Roughness index* (Wu et al., arXiv 2103.11069): along a straight slice the loss f has the
normalised total variation T = ∫|f'| / (max f − min f), which is 1 on a slope, 2 in a symmetric well
and more than 2 only where the loss goes up and down; the index is the standard deviation of T over
random directions in units of its mean, 0 for an isotropic quadratic. Without slices above 2 it says
how unevenly lopsided the wells are. *Local energy* (Pittorino et al., arXiv 2006.07897): how much
the loss rises when every weight is multiplied by 1 + σz, z standard normal.
"""

from typing import Any

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from spinscape.glass.energies import EnergyLike, batch_of, energies_along, energy_function
from spinscape.glass.moves import filter_scale, generators, noise
from spinscape.glass.records import labelled, provenance
from spinscape.nets import symmetry as symmetries
from spinscape.nets.chunks import pieces
from spinscape.nets.symmetry import Symmetry
from spinscape.nets.weightspace import WeightSpace

__all__ = ["local_energy", "ruggedness", "slices", "total_variation"]

SOURCE = "roughness index: arXiv 2103.11069, local energy: arXiv 2006.07897; for arXiv 2407.20724"
ROUNDING = 1e-3
"""What rounding may add to the total variation of a slice with one minimum, which is at most 2."""

BLOCK_ELEMENTS = 2**24
"""Numbers in one block of directions: 64 MiB in single precision."""


def ruggedness(
    landscape: EnergyLike,
    points: "Float[Tensor, 'replica n'] | xr.DataArray | xr.Dataset",
    *,
    directions: int = 12,
    extent: float = 0.5,
    resolution: int = 41,
    probes: int = 32,
    sigma: float = 0.2,
    seed: int,
    symmetry: Symmetry | None = None,
) -> xr.Dataset:
    """Measure slices and local energy around every point.

    Parameters
    ----------
    landscape : Landscape, Energy or callable
        A `Landscape` says which coordinates are filters and what may be rescaled; for any other
        energy all coordinates are one filter.
    points : [replica, n]
    directions : int
        Random filter-normalised directions a point (Li et al., arXiv 1712.09913).
    extent : float
        Slices go from −extent to extent, in units of the filters' norms.
    resolution : int
        Places on a slice, odd, so that the point itself is one.
    probes : int
        Draws of multiplicative noise a point, each with its mirror image.
    sigma : float
        Relative size of that noise.
    seed : int
        Point k's directions and noise depend on it and on k alone.
    symmetry : Symmetry, optional
        For a module whose symmetry is not known; without one points are taken as they are
        (``balanced`` in the arguments says so).

    Returns
    -------
    Dataset
        ``slice_loss`` [replica, direction, lam], ``total_variation`` [replica, direction],
        ``roughness`` (the index), ``mean_total_variation`` and ``rugged_slices`` (the fraction with
        more than one minimum) [replica], ``local_energy`` and its standard error
        ``local_energy_se`` [replica].

    Raises
    ------
    ValueError
        If a number is out of range.
    """
    _check(directions, extent, resolution, probes, sigma)
    states, filters, balanced = _representatives(landscape, batch_of(points), symmetry)
    lam = torch.linspace(-extent, extent, resolution, dtype=torch.float64)
    loss = slices(landscape, states, lam, directions=directions, filters=filters, seed=seed)
    variation = total_variation(loss)
    rise, error = local_energy(landscape, states, probes=probes, sigma=sigma, seed=seed)
    lines = ("replica", "direction")
    result = xr.Dataset(coords={"lam": ("lam", lam.numpy())})
    result["lam"].attrs.update(long_name="displacement along the direction", units="filter norms")
    result["slice_loss"] = labelled((*lines, "lam"), loss, "loss", "nats")
    result["total_variation"] = labelled(lines, variation, "normalised total variation")
    index = variation.std(1) / variation.mean(1)
    result["roughness"] = labelled("replica", index, "roughness index")
    rugged = (variation > 2 + ROUNDING).double().mean(1)
    result["rugged_slices"] = labelled("replica", rugged, "slices with more than one minimum")
    result["mean_total_variation"] = labelled("replica", variation.mean(1), "mean total variation")
    result["local_energy"] = labelled("replica", rise, "local energy", "nats")
    result["local_energy_se"] = labelled("replica", error, "its standard error", "nats")
    settings = {"directions": directions, "extent": extent, "resolution": resolution}
    settings |= {"probes": probes, "sigma": sigma, "balanced": balanced}
    result.attrs.update(provenance("ruggedness", SOURCE, seed, **settings))
    return result


def slices(
    landscape: EnergyLike,
    points: Float[Tensor, "replica n"],
    lam: Float[Tensor, "lam"],
    *,
    directions: int,
    filters: tuple[Tensor, ...],
    seed: int,
) -> Float[Tensor, "replica direction lam"]:
    """Loss along random filter-normalised directions through every point.

    Every filter of a direction has the norm of the point's filter; coordinates in no filter do not
    move (Li et al., arXiv 1712.09913, section 4).
    """
    streams = generators(seed, len(points))
    found = []
    for rows in pieces(len(points), max(1, BLOCK_ELEMENTS // (directions * points.shape[1]))):
        origins = points[rows].repeat_interleave(directions, 0)
        own = [stream for stream in streams[rows] for _ in range(directions)]
        drawn = noise(origins, own)
        scale = filter_scale(origins, filters) / filter_scale(drawn, filters)
        loss, _ = energies_along(landscape, origins, drawn * scale.nan_to_num(0.0), lam)
        found.append(loss.unflatten(0, (-1, directions)))
    return torch.cat(found)


def total_variation(
    loss: Float[Tensor, "*slice lam"],
) -> Float[Tensor, "*slice"]:
    """Normalised total variation Σ|Δf| / (max f − min f) of slices; 1 where f is flat.

    Flat is what varies by no more than rounding, which would go up and down without end. Not a
    number where f is not finite.
    """
    rounding = 8 * torch.finfo(loss.dtype).eps * loss.double().abs().amax(-1)
    loss = loss.double()
    span = loss.amax(-1) - loss.amin(-1)
    return torch.where(
        (span <= rounding) & span.isfinite(), 1.0, loss.diff(dim=-1).abs().sum(-1) / span
    )


def local_energy(
    landscape: EnergyLike,
    points: Float[Tensor, "replica n"],
    *,
    probes: int,
    sigma: float,
    seed: int,
) -> tuple[Float[Tensor, "replica"], Float[Tensor, "replica"]]:
    """E_z[L(w + σ z|w|)] − L(w) of every point, and its standard error.

    Every draw is used with both signs, which removes the odd terms of the expansion: for a
    quadratic loss the mean is ½σ²ΣH_ii w_i² without noise from the gradient.
    """
    call = energy_function(landscape)
    here = call(points).double()
    streams = generators((seed, 1), len(points))
    drawn = []
    for _ in range(probes):
        step = sigma * points.abs() * noise(points, streams)
        drawn.append((call(points + step).double() + call(points - step).double()) / 2 - here)
    rises = torch.stack(drawn)
    return rises.mean(0), rises.std(0) / probes**0.5


def _representatives(
    landscape: EnergyLike, points: Tensor, symmetry: Symmetry | None
) -> tuple[Tensor, tuple[Tensor, ...], bool]:
    """Balanced points where the symmetry is known, the filters, and whether it was."""
    module: Any = getattr(landscape, "module", None)
    if module is None:
        return points, (torch.arange(points.shape[-1]),), False
    filters = WeightSpace(module).filters
    try:
        found = symmetries.of(module, symmetry)
    except TypeError:
        return points, filters, False
    return found.balance(points), filters, True


def _check(directions: int, extent: float, resolution: int, probes: int, sigma: float) -> None:
    for name, value in (("directions", directions), ("probes", probes)):
        if value < 2:
            raise ValueError(f"{name}={value}: expected 2 or more, for a spread")
    if resolution < 3 or resolution % 2 == 0:
        raise ValueError(f"resolution={resolution}: expected an odd number, 3 or more")
    for name, size in (("extent", extent), ("sigma", sigma)):
        if not 0 < size < float("inf"):
            raise ValueError(f"{name}={size}: expected a positive number")
