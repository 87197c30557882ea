"""How rugged the ground around a solution is: slices through it, its local energy, and others.

All measures are taken at one representative of all networks that differ by the order and the
scale of their hidden units, so that a permuted and rescaled copy measures the same: units are
balanced and stand in the order of their norms. Each measure is larger on rougher or sharper ground.

*Local energy* (Pittorino et al., arXiv 2006.07897): how much
the loss rises when every weight is multiplied by 1 + σz, z standard normal. The other measures are
explained where they stand: `glass.rugged.along_slices`, `along_walks`, `sharpness`,
`flatness`, `local_entropies`, `learning_coefficients`; the trace of the Hessian is that of
`quadratic_law`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from spinscape.glass.energies import EnergyLike, batch_of, energy_function
from spinscape.glass.rugged.along_slices import slices, total_variation
from spinscape.glass.rugged.along_walks import walk_ruggedness
from spinscape.glass.rugged.flatness import relative_flatness
from spinscape.glass.rugged.learning_coefficients import learning_coefficient
from spinscape.glass.rugged.local_entropies import local_entropy
from spinscape.glass.rugged.sharpness import adaptive_sharpness
from spinscape.glass.walking.moves import Gaussian, generators, noise
from spinscape.glass.walking.quadratic import quadratic_law
from spinscape.nets import symmetry as symmetries
from spinscape.nets.symmetry import Symmetry
from spinscape.nets.weightspace import WeightSpace
from spinscape.records import labelled, provenance

__all__ = ["local_energy", "ruggedness"]

SOURCE = "roughness index: arXiv 2103.11069, local energy: arXiv 2006.07897; for arXiv 2407.20724"
ROUNDING = 1e-3
"""What rounding may add to the total variation of a slice with one minimum, which is at most 2."""

SPREAD = 0.3
"""Width of the Gaussian that local entropy and learning coefficient put around a point, in units
of the point's root mean square weight."""


class _Place(NamedTuple):
    """Where and over what a measure is taken."""

    landscape: Any
    states: Float[Tensor, "replica n"]
    filters: tuple[Tensor, ...]
    seed: int


_Variables = dict[str, tuple[Any, Any, dict[str, str]]]


def ruggedness(
    landscape: EnergyLike,
    points: "Float[Tensor, 'replica n'] | xr.DataArray | xr.Dataset",
    *,
    directions: int = 12,
    extent: float = 0.5,
    resolution: int = 41,
    probes: int = 32,
    sigma: float = 0.2,
    measures: Sequence[str] = ("roughness", "local_energy"),
    options: Mapping[str, Mapping[str, Any]] | None = None,
    seed: int,
    symmetry: Symmetry | None = None,
) -> xr.Dataset:
    """Measure how rugged the ground around every point is.

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
    measures : sequence of str
        Of ``"roughness"`` (slices), ``"local_energy"``, ``"walk_ruggedness"``,
        ``"adaptive_sharpness"``, ``"relative_flatness"``, ``"hessian_trace"``,
        ``"local_entropy"`` and ``"learning_coefficient"``. All but the first three need a
        landscape with gradients or curvature.
    options : mapping of mappings, optional
        Arguments of the other measures than the first two by name, as of the functions of these
        names, ``{"adaptive_sharpness": {"rho": 0.5}}``; for ``hessian_trace`` its ``probes``. In
        place of ``gamma`` the last two take ``spread``: the ridge's width in units of each point's
        root mean square weight, γ = 1/(spread² · mean w²).
    seed : int
        Point k's random numbers depend on it and on k alone.
    symmetry : Symmetry, optional
        For a module whose symmetry is not known; without one points are taken as they are
        (``balanced`` in the arguments says so).

    Returns
    -------
    Dataset
        Over ``replica`` a variable named as each measure and its standard error ``…_se`` where
        there is one (not for ``roughness``, which is a spread itself, and
        ``adaptive_sharpness``, a maximum). With ``roughness``: ``slice_loss`` [replica, direction,
        lam], ``total_variation`` [replica, direction], ``mean_total_variation`` and
        ``rugged_slices`` (the fraction with more than one minimum) [replica]. With
        ``walk_ruggedness``: ``walk_ruggedness_null``, what smooth ground would give. With
        ``learning_coefficient``: ``learning_coefficient_rhat`` and ``…_acceptance``; with
        ``local_entropy``: ``local_entropy_effective``, the fraction of draws that carry it.

    Raises
    ------
    TypeError
        If the landscape lacks what a measure needs.
    ValueError
        If a measure or option is unknown, or a number is out of range.
    """
    _check(directions, extent, resolution, probes, sigma)
    own: dict[str, dict[str, Any]] = {
        "roughness": {"directions": directions, "extent": extent, "resolution": resolution},
        "local_energy": {"probes": probes, "sigma": sigma},
    }
    own |= {name: dict(given) for name, given in _options(measures, options).items()}
    states, filters, balanced = _representatives(landscape, batch_of(points), symmetry)
    place = _Place(landscape, states, filters, seed)
    result = xr.Dataset()
    if "roughness" in measures:
        lam = torch.linspace(-extent, extent, resolution, dtype=torch.float64)
        words = {"long_name": "displacement along the direction", "units": "filter norms"}
        result = result.assign_coords(lam=("lam", lam.numpy(), words))
    for name in measures:
        result = result.assign(_MEASURES[name](place, **own.get(name, {})))
    settings = {**own["roughness"], **own["local_energy"], "balanced": balanced}
    if options or tuple(measures) != tuple(own)[:2]:
        settings |= {"measures": list(measures), "options": _options(measures, options)}
    result.attrs.update(provenance("ruggedness", SOURCE, seed, **settings))
    return result


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


def _roughness(place: _Place, directions: int, extent: float, resolution: int) -> _Variables:
    lam = torch.linspace(-extent, extent, resolution, dtype=torch.float64)
    loss = slices(
        place.landscape,
        place.states,
        lam,
        directions=directions,
        filters=place.filters,
        seed=place.seed,
    )
    variation = total_variation(loss)
    lines, mean = ("replica", "direction"), variation.mean(1)
    rugged = (variation > 2 + ROUNDING).double().mean(1)
    return {
        "slice_loss": labelled((*lines, "lam"), loss, "loss", "nats"),
        "total_variation": labelled(lines, variation, "normalised total variation"),
        "roughness": labelled("replica", variation.std(1) / mean, "roughness index"),
        "rugged_slices": labelled("replica", rugged, "slices with more than one minimum"),
        "mean_total_variation": labelled("replica", mean, "mean total variation"),
    }


def _local_energy(place: _Place, **given: Any) -> _Variables:
    found = local_energy(place.landscape, place.states, seed=place.seed, **given)
    return _with_error("local_energy", *found, "local energy", "nats")


def _walk_ruggedness(place: _Place, **given: Any) -> _Variables:
    found = walk_ruggedness(
        place.landscape, place.states, filters=place.filters, seed=place.seed, **given
    )
    name, words = "walk_ruggedness", "inverse correlation length of the loss along a walk"
    variables = _with_error(name, found.value, found.error, words, "1/steps")
    smooth = labelled("replica", found.null, "the same on ground without memory", "1/steps")
    return variables | {f"{name}_null": smooth}


def _adaptive_sharpness(place: _Place, **given: Any) -> _Variables:
    found = adaptive_sharpness(place.landscape, place.states, seed=place.seed, **given)
    return {"adaptive_sharpness": labelled("replica", found, "adaptive sharpness", "nats")}


def _relative_flatness(place: _Place, **given: Any) -> _Variables:
    found = relative_flatness(place.landscape, place.states, seed=place.seed, **given)
    return _with_error("relative_flatness", *found, "relative flatness (large: sharp)", "nats")


def _hessian_trace(place: _Place, probes: int = 8) -> _Variables:
    found = quadratic_law(
        place.landscape, place.states, move=Gaussian(1.0), probes=probes, seed=place.seed
    )
    return _with_error("hessian_trace", found["trace"], found["trace_se"], "Hessian trace", "nats")


def _local_entropy(place: _Place, spread: float = SPREAD, **given: Any) -> _Variables:
    gamma = _stiffness(place.states, spread)
    value, error, effective = local_entropy(
        place.landscape, place.states, gamma=gamma, seed=place.seed, **given
    )
    found = _with_error("local_entropy", value, error, "local entropy")
    words = "fraction of draws that carry the local entropy"
    return found | {"local_entropy_effective": labelled("replica", effective, words)}


def _learning_coefficient(place: _Place, spread: float = SPREAD, **given: Any) -> _Variables:
    gamma = _stiffness(place.states, spread)
    value, error, rhat, accepted = learning_coefficient(
        place.landscape, place.states, gamma=gamma, seed=place.seed, **given
    )
    name = "learning_coefficient"
    return {
        **_with_error(name, value, error, "local learning coefficient"),
        f"{name}_rhat": labelled("replica", rhat, "R-hat of the loss over its chains"),
        f"{name}_acceptance": labelled("replica", accepted, "acceptance of its chains"),
    }


_MEASURES: dict[str, Callable[..., _Variables]] = {
    "roughness": _roughness,
    "local_energy": _local_energy,
    "walk_ruggedness": _walk_ruggedness,
    "adaptive_sharpness": _adaptive_sharpness,
    "relative_flatness": _relative_flatness,
    "hessian_trace": _hessian_trace,
    "local_entropy": _local_entropy,
    "learning_coefficient": _learning_coefficient,
}


def _with_error(name: str, value: Any, error: Any, words: str, units: str = "1") -> _Variables:
    return {
        name: labelled("replica", value, words, units),
        f"{name}_se": labelled("replica", error, f"standard error of the {words}", units),
    }


def _stiffness(states: Float[Tensor, "replica n"], spread: float) -> Float[Tensor, "replica"]:
    if not 0 < spread < float("inf"):
        raise ValueError(f"spread={spread}: expected a positive number")
    return 1 / (spread**2 * states.square().mean(-1))


def _representatives(
    landscape: EnergyLike, points: Tensor, symmetry: Symmetry | None
) -> tuple[Tensor, tuple[Tensor, ...], bool]:
    """Points balanced and in order where the symmetry is known, the filters, and whether it was."""
    module: Any = getattr(landscape, "module", None)
    if module is None:
        return points, (torch.arange(points.shape[-1]),), False
    filters = WeightSpace(module).filters
    try:
        found = symmetries.of(module, symmetry)
    except TypeError:
        return points, filters, False
    balanced = found.balance(points)
    norms = [torch.hypot(h.norms_in(balanced), h.norms_out(balanced)) for h in found.layers]
    return found.permute(balanced, [norm.argsort(-1) for norm in norms]), filters, True


def _options(
    measures: Sequence[str], options: Mapping[str, Mapping[str, Any]] | None
) -> dict[str, dict[str, Any]]:
    """Options by measure; ValueError where there is no such measure, or it is not asked for."""
    first, *_ = measures or ("",)
    for name in measures:
        if name not in _MEASURES:
            raise ValueError(f"measures: {name!r} is none of {', '.join(_MEASURES)}")
    if not first or len(set(measures)) < len(measures):
        raise ValueError(f"measures={list(measures)}: expected at least one, each once")
    for name in options or {}:
        if name not in measures or name in ("roughness", "local_energy"):
            others = [other for other in measures if other not in ("roughness", "local_energy")]
            raise ValueError(f"options: {name!r} takes none here; expected of {others}")
    return {name: dict(given) for name, given in (options or {}).items()}


def _check(directions: int, extent: float, resolution: int, probes: int, sigma: float) -> None:
    for name, value in (("directions", directions), ("probes", probes)):
        if value < 2:
            raise ValueError(f"{name}={value}: expected 2 or more, for a spread")
    if resolution < 3 or resolution % 2 == 0:
        raise ValueError(f"resolution={resolution}: expected an odd number, 3 or more")
    for name, size in (("extent", extent), ("sigma", sigma)):
        if not 0 < size < float("inf"):
            raise ValueError(f"{name}={size}: expected a positive number")
