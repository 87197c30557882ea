"""Alignment of networks by the weights of their hidden units.

The ReLU scale is removed first (`Symmetry.balance`). With one hidden layer the nearest permuted
copy is then *one* exact assignment, of the scores W1a·W1bᵀ + ba·bbᵀ + W2aᵀ·W2b. Deeper networks
share weights between layers and take coordinate descent over the layers (Git Re-Basin, Ainsworth,
Hayase & Srinivasa, arXiv 2209.04836, Alg. 1), which finds a local optimum.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from spinscape.glass.records import labelled, provenance
from spinscape.nets import symmetry as symmetries
from spinscape.nets.symmetry import HiddenLayer, Symmetry
from spinscape.nets.weightspace import points as points_of

__all__ = ["PairAlignment", "align", "align_pairs", "match_weights", "solve_assignments"]

SOURCE = "weight matching: Git Re-Basin, arXiv 2209.04836; ReLU scale removed first"
SWEEPS = 100
CHUNK_ELEMENTS = 2**23
THREADED_WIDTH = 48
REDUCTION_CHUNK = 2**18


class PairAlignment(NamedTuple):
    """Second points of pairs, balanced and permuted towards the balanced first ones."""

    permutations: tuple[Int[Tensor, "pair width"], ...]
    points: Float[Tensor, "pair n"]
    distance: Float[Tensor, "pair"]


def align(
    module: nn.Module,
    a: Float[Tensor, "n"] | xr.DataArray | xr.Dataset,
    b: Float[Tensor, "n"] | xr.DataArray | xr.Dataset,
    *,
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
    seed : int
        Of the order in which the layers of deeper networks are swept; one hidden layer needs none.
    symmetry : Symmetry, optional
        For a module whose symmetry is not known here.

    Returns
    -------
    Dataset
        ``reference`` [n] (a, balanced), ``point`` [n] (b, balanced and permuted), ``permutation``
        [unit] (unit k of ``point`` is unit ``permutation[k]`` of b, counted within its layer; the
        coordinate ``layer`` says which), ``distance`` = ‖reference − point‖.

    Raises
    ------
    TypeError
        If the module's symmetry is not known.
    ValueError
        If a and b are not two finite points of the module on one device.
    """
    found = symmetries.of(module, symmetry)
    a, b = points_of(a), points_of(b)
    _check_pair(found, a, b)
    result = align_pairs(found, torch.stack([a, b]), torch.tensor([[0, 1]]), seed=seed)
    units = torch.cat([torch.empty(1, 0).long(), *result.permutations], dim=1)[0]
    layer = np.repeat(np.arange(len(found.layers)), found.widths)
    attrs = provenance("align", SOURCE, seed, symmetry=found.describe(), method=_method(found))
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


def _method(symmetry: Symmetry) -> str:
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
    seed : int
        Of the sweep order in deeper networks.

    Returns
    -------
    PairAlignment
        Permutations, one ``[pair, width]`` a hidden layer, in terms of the second points' units;
        aligned points ``[pair, n]``; distances ``[pair]`` in float64, on the CPU.
    """
    balanced = symmetry.balance(points)
    pairs = pairs.to(points.device)
    results = [
        match_weights(symmetry, balanced[chunk[:, 0]], balanced[chunk[:, 1]], seed=seed)
        for chunk in pairs.split(max(1, CHUNK_ELEMENTS // symmetry.n))
    ]
    return PairAlignment(
        tuple(torch.cat(orders) for orders in zip(*(r.permutations for r in results), strict=True)),
        torch.cat([result.points for result in results]),
        torch.cat([result.distance for result in results]),
    )


def match_weights(
    symmetry: Symmetry, a: Float[Tensor, "pair n"], b: Float[Tensor, "pair n"], *, seed: int = 0
) -> PairAlignment:
    """Permute each point of b towards its partner in a; both are balanced already."""
    if len(symmetry.layers) <= 1:
        permutations, moved = _descend(symmetry, a, b, iter([range(len(symmetry.layers))]))
        return PairAlignment(permutations, moved, _distance(a, moved))
    results = []
    for forward in (False, True):
        permutations, moved = _descend(symmetry, a, b, _sweeps(symmetry, seed), forward)
        results.append(PairAlignment(permutations, moved, _distance(a, moved)))
    plain, ahead = results
    nearer = ahead.distance < plain.distance
    there = nearer.to(a.device)[:, None]
    return PairAlignment(
        tuple(
            torch.where(nearer[:, None], second, first)
            for first, second in zip(plain.permutations, ahead.permutations, strict=True)
        ),
        torch.where(there, ahead.points, plain.points),
        torch.minimum(ahead.distance, plain.distance),
    )


def solve_assignments(scores: Float[Tensor, "pair k k"]) -> Int[Tensor, "pair k"]:
    """Solve max_P Σ_k scores[k, P(k)] exactly for every matrix of a batch, on the CPU.

    Rows and columns are reduced first, which leaves the solution and saves scipy a third of its
    time. Scipy releases the interpreter's lock while it solves, so large problems share the cores.
    """
    count, width = scores.shape[:2]
    if not count:
        return torch.empty(0, width).long()
    chunks = scores.detach().cpu().split(max(1, REDUCTION_CHUNK // max(1, width * width)))
    if width >= THREADED_WIDTH and torch.get_num_threads() > 1 and len(chunks) > 1:
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            solved = list(pool.map(_solve_chunk, chunks))
    else:
        solved = [_solve_chunk(chunk) for chunk in chunks]
    return torch.from_numpy(np.concatenate(solved))


def _solve_chunk(scores: Tensor) -> np.ndarray:
    costs = -scores.double()
    costs -= costs.amin(2, keepdim=True)
    costs -= costs.amin(1, keepdim=True)
    return np.stack([linear_sum_assignment(matrix)[1] for matrix in costs.numpy()])


def _sweeps(symmetry: Symmetry, seed: int) -> Iterator[np.ndarray]:
    """Yield seeded orders in which to visit the layers."""
    generator = np.random.default_rng(np.random.SeedSequence(seed))
    for _ in range(SWEEPS):
        yield generator.permutation(len(symmetry.layers))


def _descend(
    symmetry: Symmetry,
    a: Tensor,
    b: Tensor,
    sweeps: Iterator[np.ndarray] | Iterator[range],
    forward: bool = False,
) -> tuple[tuple[Tensor, ...], Tensor]:
    """Permute one layer after the other as long as any pair gains.

    Git Re-Basin starts from the identity, where the outgoing weights of a layer meet units that are
    not matched yet. A first pass that looks at incoming weights only (`forward`) recovers exact
    copies of any depth.
    """
    moved = b.clone()
    permutations = [torch.arange(width).repeat(len(b), 1) for width in symmetry.widths]
    size = torch.linalg.vector_norm(a, dim=-1) * torch.linalg.vector_norm(b, dim=-1)
    # Below rounding, layers could go in circles; one layer cannot, and its assignment is exact.
    least_gain = (8 * torch.finfo(a.dtype).eps * size).cpu() * (len(symmetry.layers) > 1)
    step = partial(_improve_layer, symmetry, a, moved, permutations)
    if forward:
        for k in range(len(symmetry.layers)):
            step(k, torch.full_like(least_gain, -torch.inf), outgoing=False)
    for order in sweeps:
        gained = [step(int(k), least_gain) for k in order]
        if not any(gained):
            break
    return tuple(permutations), moved


def _improve_layer(
    symmetry: Symmetry,
    a: Tensor,
    moved: Tensor,
    permutations: list[Tensor],
    k: int,
    least_gain: Tensor,
    outgoing: bool = True,
) -> bool:
    """Permute layer k of `moved` where it gains, in place; return whether any pair did."""
    layer = symmetry.layers[k]
    scores = _scores(layer, a, moved, outgoing)
    best = solve_assignments(scores)
    value = scores.cpu().gather(2, best[..., None]).double().sum((1, 2))
    gains = value - scores.diagonal(dim1=1, dim2=2).double().sum(1).cpu() > least_gain
    if not bool(gains.any()):
        return False
    best = torch.where(gains[:, None], best, torch.arange(layer.width))
    permutations[k] = permutations[k].gather(1, best)
    best = best.to(moved.device)
    rows, columns = layer.weights_in(moved), layer.weights_out(moved)
    rows.copy_(rows.gather(1, best[..., None].expand_as(rows)))
    columns.copy_(columns.gather(2, best[:, None].expand_as(columns)))
    if layer.bias is not None:
        moved[:, layer.bias] = moved[:, layer.bias].gather(1, best)
    return True


def _scores(layer: HiddenLayer, a: Tensor, b: Tensor, outgoing: bool) -> Tensor:
    """Inner products of all of a unit's weights, every unit of a against every unit of b."""
    scores = layer.weights_in(a) @ layer.weights_in(b).mT
    if layer.bias is not None:
        scores = scores + a[:, layer.bias, None] * b[:, None, layer.bias]
    if outgoing:
        scores = scores + layer.weights_out(a).mT @ layer.weights_out(b)
    return scores


def _distance(a: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.vector_norm(a - b, dim=-1, dtype=torch.float64).cpu()


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
