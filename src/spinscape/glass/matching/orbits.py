"""Distances between networks once the symmetry of their hidden units is removed.

min_P ‖θ_i − Pθ_j‖ over the permutations P of hidden units, both points balanced. Inner products
decide only which unit is paired with which; the distance itself is the norm of a difference, for a
Gram expression loses three digits in float32.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from spinscape.glass.matching.alignment import align_pairs, solve_assignments
from spinscape.nets.symmetry import HiddenLayer, Symmetry

__all__ = ["euclidean_distances", "orbit_distances"]

# A block of scores stays small (32 MB at most), a chunk of differences in the CPU's cache.
BLOCK_ELEMENTS = 2**22
CACHED_ELEMENTS = 2**18


def orbit_distances(
    symmetry: Symmetry, points: Float[Tensor, "replica n"], *, seed: int = 0
) -> Float[Tensor, "replica replica"]:
    """Return the distances between the orbits of all pairs of points.

    Exact for networks with at most one hidden layer; for deeper ones an upper bound, from weight
    matching (`alignment.align_pairs`) of the later point of a pair to the earlier.

    Parameters
    ----------
    symmetry : Symmetry
    points : [replica, n]
        Balanced or not: they are balanced here.
    seed : int
        Of the sweep order in deeper networks.

    Returns
    -------
    [replica, replica], float64, on the CPU
        Symmetric, its diagonal zero.
    """
    count = len(points)
    result = torch.zeros(count, count, dtype=torch.float64)
    if not symmetry.layers:
        return euclidean_distances(points)
    if len(symmetry.layers) == 1:
        blocks = _one_layer_blocks(symmetry, symmetry.balance(points))
    else:
        blocks = _deep_blocks(symmetry, points, seed)
    for pairs, distances in blocks:
        result[pairs[:, 0], pairs[:, 1]] = distances
    return result + result.T


def euclidean_distances(points: Float[Tensor, "replica n"]) -> Float[Tensor, "replica replica"]:
    """Return the plain distances of all pairs as norms of differences, in float64 on the CPU."""
    count = len(points)
    squares = torch.zeros(count, count, dtype=torch.float64, device=points.device)
    for columns in points.split(max(1, BLOCK_ELEMENTS // max(1, count)), dim=1):
        columns = columns.double()
        mode = "donot_use_mm_for_euclid_dist"
        squares += torch.cdist(columns, columns, compute_mode=mode).square_()
    return squares.sqrt_().cpu()


def _one_layer_blocks(symmetry: Symmetry, points: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield pairs and their distances, some rows of the matrix at a time."""
    units = _units(symmetry.layers[0], points)
    count, width, size = units.shape
    rows = units.view(count * width, size)
    rest = points[:, symmetry.outside.to(points.device)]
    height = max(1, min(count, BLOCK_ELEMENTS // (count * width * width)))
    for start in range(0, count - 1, height):
        stop = min(start + height, count)
        pairs = _upper_pairs(start, stop, count)
        scores = rows[start * width : stop * width] @ rows[start * width :].T
        scores = scores.view(stop - start, width, count - start, width)
        here = (pairs - start).to(points.device)
        order = solve_assignments(scores[here[:, 0], :, here[:, 1]]).to(points.device)
        squares = _squared_differences(rows, units, pairs.to(points.device), order)
        outside = (rest[pairs[:, 0]] - rest[pairs[:, 1]]).double().square().sum(1)
        yield pairs, (squares + outside).sqrt().cpu()


def _squared_differences(
    rows: Tensor, units: Tensor, pairs: Int[Tensor, "pair 2"], order: Int[Tensor, "pair width"]
) -> Float[Tensor, "pair"]:
    """Sum over units of ‖u_k − v_P(k)‖², in float64 above the level of a unit."""
    width, size = units.shape[1:]
    chunk = max(1, CACHED_ELEMENTS // (width * size))
    squares = []
    for near, places in zip(pairs.split(chunk), order.split(chunk), strict=True):
        places = (near[:, 1:] * width + places).flatten()
        difference = rows.index_select(0, places).view(-1, width, size)
        difference -= units[near[:, 0]] if len(near) > 1 else units[near[0, 0]]
        norms = torch.linalg.vector_norm(difference, dim=2).double()
        squares.append(norms.square_().sum(1))
    return torch.cat(squares)


def _deep_blocks(symmetry: Symmetry, points: Tensor, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    for pairs in _upper_pairs(0, len(points), len(points)).split(
        max(1, BLOCK_ELEMENTS // symmetry.n)
    ):
        yield pairs, align_pairs(symmetry, points, pairs, seed=seed).distance


def _upper_pairs(start: int, stop: int, count: int) -> Int[Tensor, "pair 2"]:
    """All pairs i < j with i in [start, stop)."""
    rows, columns = torch.triu_indices(stop - start, count - start, offset=1)
    return torch.stack([rows, columns], dim=1) + start


def _units(layer: HiddenLayer, points: Tensor) -> Float[Tensor, "replica width weight"]:
    """All weights of every unit side by side: incoming, bias, outgoing."""
    parts = [layer.weights_in(points), layer.weights_out(points).mT]
    if layer.bias is not None:
        parts.insert(1, points[:, layer.bias, None])
    return torch.cat(parts, dim=2)
