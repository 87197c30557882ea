"""Hidden units matched by their weights (Git Re-Basin, arXiv 2209.04836, section 3.2).

With one hidden layer the nearest permuted copy is *one* exact assignment, of the scores W1a·W1bᵀ +
ba·bbᵀ + W2aᵀ·W2b. Deeper networks share weights between layers and take coordinate descent over
the layers (Alg. 1), which finds a local optimum.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from spinscape.glass.matching.assignments import PairAlignment, distance_of, solve_assignments
from spinscape.nets.symmetry import HiddenLayer, Symmetry

__all__ = ["match_weights"]

SWEEPS = 100


def match_weights(
    symmetry: Symmetry, a: Float[Tensor, "pair n"], b: Float[Tensor, "pair n"], *, seed: int = 0
) -> PairAlignment:
    """Permute each point of b towards its partner in a; both are balanced already."""
    if len(symmetry.layers) <= 1:
        permutations, moved = _descend(symmetry, a, b, iter([range(len(symmetry.layers))]))
        return PairAlignment(permutations, moved, distance_of(a, moved))
    results = []
    for forward in (False, True):
        permutations, moved = _descend(symmetry, a, b, _sweeps(symmetry, seed), forward)
        results.append(PairAlignment(permutations, moved, distance_of(a, moved)))
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
