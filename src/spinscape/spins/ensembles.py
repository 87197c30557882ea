"""Random couplings: Sherrington-Kirkpatrick, Mattis, layered, planted, and permuted ones.

All are drawn on the CPU in float64 from NumPy's generator, so that a seed means the same model on
every device and in every precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["layered", "mattis", "per_layer", "permuted", "permuted_pairs", "sk"]


def sk(n: int, seed: int, J0: float = 0.0) -> Float[Tensor, "n n"]:
    """Symmetric couplings from N(J0/n, 1/n), zero on the diagonal."""
    _check_widths([n])
    upper = np.triu(np.random.default_rng(seed).standard_normal((n, n)), 1)
    matrix = (upper + upper.T) / np.sqrt(n) + J0 / n
    np.fill_diagonal(matrix, 0.0)
    return torch.from_numpy(matrix)


def mattis(n: int, seed: int) -> Float[Tensor, "n n"]:
    """ξ_i ξ_j / n with random signs ξ, zero on the diagonal."""
    _check_widths([n])
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], n)
    matrix = np.outer(signs, signs) / n
    np.fill_diagonal(matrix, 0.0)
    return torch.from_numpy(matrix)


def layered(
    widths: Sequence[int],
    C: float | Sequence[float],
    seed: int,
    spike: float | Sequence[float] = 0.0,
) -> list[Float[Tensor, "before after"]]:
    """Couplings from N(0, C_k / N_{k−1}) plus θ_k u_{k−1} u_kᵀ.

    The directions come from a stream of their own, so that the noise of a seed is the same with
    and without them.
    """
    _check_widths(widths)
    if len(widths) < 2:
        raise ValueError(f"widths={list(widths)}: expected at least two layers of spins")
    variances = per_layer("C", C, len(widths) - 1)
    strengths = per_layer("spike", spike, len(widths) - 1, negative=True)
    noise, planted = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(2))
    directions = [planted.standard_normal(width) for width in widths]
    units = [direction / np.linalg.norm(direction) for direction in directions]
    return [
        torch.from_numpy(
            np.sqrt(variance / before) * noise.standard_normal((before, after))
            + strength * np.outer(units[k], units[k + 1])
        )
        for k, ((before, after), variance, strength) in enumerate(
            zip(pairwise(widths), variances, strengths, strict=True)
        )
    ]


def permuted(layers: Sequence[Tensor], seed: int) -> list[Tensor]:
    """The same entries at random places within each matrix; norms and histograms stay."""
    streams = np.random.SeedSequence(seed).spawn(len(layers))
    return [_shuffled(layer, np.random.default_rng(s)) for layer, s in zip(layers, streams)]  # noqa: B905


def permuted_pairs(matrix: Float[Tensor, "n n"], seed: int) -> Float[Tensor, "n n"]:
    """A symmetric matrix with its pairs at random places."""
    rows, columns = torch.triu_indices(len(matrix), len(matrix), offset=1, device=matrix.device)
    pairs = _shuffled(matrix[rows, columns], np.random.default_rng(seed))
    result = torch.zeros_like(matrix)
    result[rows, columns] = pairs
    return result + result.mT


def per_layer(
    name: str, value: float | Sequence[float], layers: int, *, negative: bool = False
) -> list[float]:
    """One number a layer of couplings, from one for all or one for each.

    Raises
    ------
    ValueError
        If there are another number of them, or one is not finite (or negative).
    """
    given = np.asarray(value, dtype=float)
    if given.ndim > 1 or (given.ndim == 1 and len(given) != layers):
        raise ValueError(f"{name}={value!r}: expected one number, or one for each of {layers}")
    if not np.isfinite(given).all() or (not negative and (given < 0).any()):
        raise ValueError(f"{name}={value!r}: expected finite numbers{'' if negative else ' ≥ 0'}")
    return [float(number) for number in np.broadcast_to(given, layers)]


def _shuffled(entries: Tensor, generator: np.random.Generator) -> Tensor:
    order = torch.from_numpy(generator.permutation(entries.numel())).to(entries.device)
    return entries.reshape(-1)[order].view(entries.shape)


def _check_widths(widths: Sequence[int]) -> None:
    bad = [width for width in widths if isinstance(width, bool) or int(width) != width or width < 1]
    if bad:
        raise ValueError(f"widths: expected whole numbers of spins, 1 or more, got {bad[0]!r}")
