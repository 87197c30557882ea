"""Alignment of networks: hidden units matched by their weights, or by their activations on data.

The ReLU scale is removed first (`Symmetry.balance`). Weights give the nearest permuted copy
(`weight_matching`; exact with one hidden layer), activations pair the units that do the same on
data (`activation_matching`). Both: Git Re-Basin, Ainsworth, Hayase & Srinivasa, arXiv 2209.04836.
"""

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor, nn

from spinscape.glass.matching.activation_matching import match_activations
from spinscape.glass.matching.assignments import PairAlignment, solve_assignments
from spinscape.glass.matching.hidden_units import hidden_units_of
from spinscape.glass.matching.weight_matching import match_weights
from spinscape.landscape.checks import check_device
from spinscape.nets import symmetry as symmetries
from spinscape.nets.symmetry import Symmetry
from spinscape.nets.weightspace import points as points_of
from spinscape.records import labelled, provenance

__all__ = [
    "METHODS",
    "PairAlignment",
    "align",
    "align_pairs",
    "match_activations",
    "match_weights",
    "solve_assignments",
]

METHODS = ("weights", "activations")
SOURCE = "{} matching: Git Re-Basin, arXiv 2209.04836; ReLU scale removed first"
CHUNK_ELEMENTS = 2**23


def align(
    module: nn.Module,
    a: Float[Tensor, "n"] | xr.DataArray | xr.Dataset,
    b: Float[Tensor, "n"] | xr.DataArray | xr.Dataset,
    *,
    method: str = "weights",
    x: Tensor | None = None,
    seed: int = 0,
    symmetry: Symmetry | None = None,
) -> xr.Dataset:
    """Permute and rescale network b's hidden units so that it comes as near to a as it can.

    Parameters
    ----------
    module : nn.Module
        Gives the symmetry (`nets.symmetry.of`).
    a, b : [n], or a Dataset with ``point``
        Two points.
    method : {"weights", "activations"}
        Match units by their weights, which gives the smallest distance, or by the correlation of
        their activations on `x`.
    x : [S, ...], optional
        Samples, for activations.
    seed : int
        Of the order in which the layers of deeper networks are swept; one hidden layer needs none,
        nor do activations.
    symmetry : Symmetry, optional
        For a module whose symmetry is not known here; matching by weights alone.

    Returns
    -------
    Dataset
        ``reference`` [n] (a, balanced), ``point`` [n] (b, balanced and permuted), ``permutation``
        [unit] (unit k of ``point`` is unit ``permutation[k]`` of b, counted within its layer; the
        coordinate ``layer`` says which), ``distance`` = ‖reference − point‖.

    Raises
    ------
    TypeError
        If the module's symmetry is not known, or its activations where they are asked for.
    ValueError
        If a and b are not two finite points of the module on one device, the method is unknown, or
        `x` is missing.
    """
    found = symmetries.of(module, symmetry)
    a, b = points_of(a), points_of(b)
    _check_pair(found, a, b)
    both, pair = torch.stack([a, b]), torch.tensor([[0, 1]])
    result = align_pairs(found, both, pair, method=method, module=module, x=x, seed=seed)
    units = torch.cat([torch.empty(1, 0).long(), *result.permutations], dim=1)[0]
    layer = np.repeat(np.arange(len(found.layers)), found.widths)
    how = _by_weights(found) if method == "weights" else "one exact assignment a layer"
    source = SOURCE.format(method.removesuffix("s"))
    attrs = provenance("align", source, seed, symmetry=found.describe(), method=how)
    return xr.Dataset(
        {
            "reference": labelled("n", found.balance(a), "first network, balanced"),
            "point": labelled("n", result.points[0], "second network, balanced and permuted"),
            "permutation": labelled("unit", units, "unit of the second network in this place"),
            "distance": labelled((), result.distance[0], "distance of the two"),
        },
        coords={"layer": labelled("unit", layer, "hidden layer")},
        attrs=attrs,
    )


def _by_weights(symmetry: Symmetry) -> str:
    if len(symmetry.layers) <= 1:
        return "one exact assignment"
    return (
        "coordinate descent over the layers until no gain, in seeded order, from the identity and "
        "from a pass over incoming weights; the nearer of the two"
    )


def align_pairs(
    symmetry: Symmetry,
    points: Float[Tensor, "replica n"],
    pairs: Int[Tensor, "pair 2"],
    *,
    method: str = "weights",
    module: nn.Module | None = None,
    x: Tensor | None = None,
    seed: int = 0,
) -> PairAlignment:
    """Align the second point of every pair to the first.

    The result holds a point a pair; where only distances are wanted, `orbits.orbit_distances`
    takes a fraction of the time and memory.

    Parameters
    ----------
    symmetry : Symmetry
    points : [replica, n]
    pairs : [pair, 2]
        Indices of replicas.
    method : {"weights", "activations"}
        What units are matched by.
    module, x : nn.Module and [S, ...], optional
        What runs on which samples, for activations.
    seed : int
        Of the sweep order in deeper networks, for weights.

    Returns
    -------
    PairAlignment
        Permutations, one ``[pair, width]`` a hidden layer, in terms of the second points' units;
        aligned points ``[pair, n]``; distances ``[pair]`` in float64, on the CPU.

    Raises
    ------
    ValueError
        If the method is unknown, or activations are asked for without a module and samples.
    TypeError
        If the module is no chain, so that its activations are not known.
    """
    if method not in METHODS:
        raise ValueError(f"method={method!r}: expected 'weights' or 'activations'")
    balanced = symmetry.balance(points)
    pairs = pairs.to(points.device)
    chunks = pairs.split(max(1, CHUNK_ELEMENTS // symmetry.n))
    ends = ((balanced[chunk[:, 0]], balanced[chunk[:, 1]]) for chunk in chunks)
    if method == "weights":
        results = [match_weights(symmetry, *both, seed=seed) for both in ends]
    else:
        if module is None or x is None:
            raise ValueError(
                "x: method='activations' needs samples x (and a module to run on them)"
            )
        check_device(points, x)
        units = hidden_units_of(module)
        results = [match_activations(symmetry, units, x, *both) for both in ends]
    return PairAlignment(
        tuple(torch.cat(orders) for orders in zip(*(r.permutations for r in results), strict=True)),
        torch.cat([result.points for result in results]),
        torch.cat([result.distance for result in results]),
    )


def _check_pair(symmetry: Symmetry, a: Tensor, b: Tensor) -> None:
    for name, point in (("a", a), ("b", b)):
        if tuple(point.shape) != (symmetry.n,):
            raise ValueError(
                f"{name}: expected one point of length {symmetry.n:,}, got shape "
                f"{tuple(point.shape)}; did you mean WeightSpace.point(module)?"
            )
        if not bool(torch.isfinite(point).all()):
            raise ValueError(f"{name}: holds values that are not finite; did training diverge?")
    if a.device != b.device or a.dtype != b.dtype:
        raise ValueError(f"a is {a.dtype} on {a.device}, b is {b.dtype} on {b.device}; make equal")
