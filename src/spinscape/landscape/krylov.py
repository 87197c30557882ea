"""Krylov methods for a batch of symmetric operators at once: Lanczos, traces, densities.

Libraries work on one operator at a time; here every product is one product of a whole batch. An
operator maps vectors ``[P, k, n]`` to vectors, the p-th of P matrices applied to k of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = [
    "Eigenpairs",
    "Operator",
    "Recurrence",
    "extreme_eigenpairs",
    "hutch_plus_plus",
    "hutchinson",
    "lanczos",
    "quadrature",
]

Operator: TypeAlias = Callable[[Float[Tensor, "P k n"]], Float[Tensor, "P k n"]]

TINY = {torch.float32: 1e-5, torch.float64: 1e-12}
"""A residual of at most so much of the operator's size ends an invariant subspace."""


class Recurrence(NamedTuple):
    """Tridiagonal matrices and the basis in which they are the operators."""

    diagonal: Float[Tensor, "P m"]
    off_diagonal: Float[Tensor, "P m"]
    """Between step j and j + 1; the last one is the norm of the residual."""
    basis: Float[Tensor, "P m n"]
    onward: Float[Tensor, "P n"]
    """The vector with which the recurrence goes on."""

    def tridiagonal(self) -> Float[Tensor, "P m m"]:
        """The matrices, whole."""
        inner = self.off_diagonal[:, :-1]
        return (
            torch.diag_embed(self.diagonal)
            + torch.diag_embed(inner, offset=1)
            + torch.diag_embed(inner, offset=-1)
        )


class Eigenpairs(NamedTuple):
    """Those at the top, largest first; then those at the bottom, smallest last."""

    values: Float[Tensor, "P k"]
    vectors: Float[Tensor, "P k n"]
    residuals: Float[Tensor, "P k"]
    """Norms of H v − λ v, by the recurrence; at least the rounding error of λ."""
    converged: Bool[Tensor, "P k"]
    """Whether the residual is as small as was asked for."""
    steps: Int[Tensor, "P"]
    """Products that each matrix took."""


def lanczos(
    operator: Operator,
    start: Float[Tensor, "P n"],
    steps: int,
    fresh: Float[Tensor, "P n"] | None = None,
    before: Recurrence | None = None,
) -> Recurrence:
    """Run the Lanczos recurrence with full reorthogonalisation, done twice.

    Where a residual vanishes (an invariant subspace), a fresh vector goes on, uncoupled: repeated
    eigenvalues are found so, and quadrature weights of what follows are zero.

    Parameters
    ----------
    operator : Operator
    start : [P, n]
        Need not be of unit length.
    steps : int
        At most n.
    fresh : [P, n], optional
        Random vectors for such places; the same for all matrices, if not given.
    before : Recurrence, optional
        An earlier run from the same start, which is gone on with.
    """
    count, n = start.shape
    steps = min(steps, n)
    basis = start.new_zeros(count, steps, n)
    diagonal, off = start.new_zeros(count, steps), start.new_zeros(count, steps)
    done = 0
    if before is not None:
        done = before.diagonal.shape[1]
        basis[:, :done], diagonal[:, :done], off[:, :done] = (
            before.basis,
            before.diagonal,
            before.off_diagonal,
        )
    if fresh is None:
        drawn = torch.randn(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        fresh = drawn.to(start).expand_as(start)
    size = diagonal.abs().amax(1) if done else start.new_zeros(count)
    vector = _unit(start) if before is None else before.onward
    for j in range(done, steps):
        basis[:, j] = vector
        residual = operator(vector[:, None])[:, 0]
        diagonal[:, j] = (residual * vector).sum(1)
        size = torch.maximum(size, torch.linalg.vector_norm(residual, dim=1))
        residual = _orthogonal(residual, basis[:, : j + 1])
        off[:, j] = torch.linalg.vector_norm(residual, dim=1)
        vector, off[:, j] = _onward(residual, off[:, j], basis[:, : j + 1], fresh, size)
    return Recurrence(diagonal, off, basis, vector)


def _onward(
    residual: Tensor, norm: Tensor, basis: Tensor, fresh: Tensor, size: Tensor
) -> tuple[Float[Tensor, "P n"], Float[Tensor, "P"]]:
    """The next basis vector, and its coupling, which is zero where a fresh one had to be taken."""
    ended = norm <= TINY.get(norm.dtype, 1e-5) * size
    if bool(ended.any()) and basis.shape[1] < basis.shape[2]:
        other = _orthogonal(fresh.roll(basis.shape[1], -1), basis)  # another one at every step
        residual = torch.where(ended[:, None], other, residual)
    return _unit(residual), torch.where(ended, torch.zeros_like(norm), norm)


def _orthogonal(vectors: Float[Tensor, "P n"], basis: Float[Tensor, "P m n"]) -> Tensor:
    for _ in range(2):
        inside = torch.einsum("pmn,pn->pm", basis, vectors)
        vectors = vectors - torch.einsum("pmn,pm->pn", basis, inside)
    return vectors


def _unit(vectors: Tensor) -> Tensor:
    norm = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors / norm.clamp(min=torch.finfo(vectors.dtype).tiny)


def extreme_eigenpairs(
    operator: Operator,
    start: Float[Tensor, "P n"],
    fresh: Float[Tensor, "P n"],
    top: int,
    bottom: int,
    *,
    tolerance: float,
    steps: int,
    stride: int = 1,
    narrowed: Callable[[Int[Tensor, "some"]], Operator] | None = None,
) -> Eigenpairs:
    """Find the largest and smallest eigenpairs by Lanczos runs that grow until they converge.

    Each matrix keeps what it had when its own pairs converged, however long others take; those
    with entries that are not finite have eigenpairs that are not a number.

    Parameters
    ----------
    operator : Operator
    start, fresh : [P, n]
        Random vectors.
    top, bottom : int
        How many at either end.
    tolerance : float
        Residual allowed, as a share of the largest eigenvalue in size.
    steps : int
        At most so many.
    stride : int
        Steps between tests of convergence.
    narrowed : callable, optional
        Makes the operator of some of the matrices alone: when half have converged, only the others
        are gone on with.
    """
    count, n = start.shape
    limit = min(n, max(steps, top + bottom))
    found = _nothing(start, top + bottom)
    at_work = waiting = torch.arange(count, device=start.device)
    run: Recurrence | None = None
    reached = 0
    while len(waiting) and reached < limit:
        reached = min(limit, max(reached + stride, top + bottom + 2))
        run = lanczos(operator, start, reached, fresh, run)
        open_ = torch.isin(at_work, waiting)
        pairs = _ritz(Recurrence(*(part[open_] for part in run)), top, bottom, tolerance)
        ready = pairs.converged.all(1) | pairs.values.isnan().any(1) | (reached == limit)
        for kept, new in zip(found, pairs, strict=True):
            kept[waiting[ready]] = new[ready]
        waiting = waiting[~ready]
        if narrowed is not None and 0 < 2 * len(waiting) <= len(at_work):
            left = torch.isin(at_work, waiting)
            run, start, fresh = Recurrence(*(part[left] for part in run)), start[left], fresh[left]
            at_work, operator = waiting, narrowed(waiting)
    return found


def _nothing(start: Tensor, pairs: int) -> Eigenpairs:
    count, n = start.shape
    return Eigenpairs(
        start.new_zeros(count, pairs),
        start.new_zeros(count, pairs, n),
        start.new_zeros(count, pairs),
        torch.zeros(count, pairs, dtype=torch.bool, device=start.device),
        torch.zeros(count, dtype=torch.long, device=start.device),
    )


def _ritz(run: Recurrence, top: int, bottom: int, tolerance: float) -> Eigenpairs:
    """Eigenpairs within the basis, with what is missing to those of the operators."""
    count, reached, n = run.basis.shape
    values, inner = _decomposed(run)
    chosen = [*range(reached - 1, reached - 1 - top, -1), *range(bottom - 1, -1, -1)]
    last = run.off_diagonal[:, -1:] if reached < n else torch.zeros_like(values[:, :1])
    residuals = last * inner[:, -1, chosen].abs()
    size = values.abs().amax(1, keepdim=True)
    vectors = torch.einsum("pmn,pmk->pkn", run.basis, inner[:, :, chosen])
    least = torch.finfo(values.dtype).eps * size
    return Eigenpairs(
        values[:, chosen],
        _unit(vectors),
        torch.maximum(residuals, least),
        torch.maximum(residuals, least) <= tolerance * size,
        torch.full((count,), reached, device=values.device),
    )


def _decomposed(run: Recurrence) -> tuple[Float[Tensor, "P m"], Float[Tensor, "P m m"]]:
    """Eigenvalues, ascending, and eigenvectors; not a number where the matrix is not finite."""
    matrix = run.tridiagonal()
    lost = ~torch.isfinite(matrix).all(2).all(1)
    values, inner = torch.linalg.eigh(matrix.masked_fill(lost[:, None, None], 0))
    values, inner = values.clone(), inner.clone()
    values[lost], inner[lost] = torch.nan, torch.nan
    return values, inner


def hutchinson(
    operator: Operator, probes: Float[Tensor, "P k n"]
) -> tuple[Float[Tensor, "P k"], Float[Tensor, "P k"]]:
    """Estimates of trace and squared Frobenius norm, one a probe: zᵀHz and ‖Hz‖²."""
    image = operator(probes)
    return (probes * image).sum(-1), image.square().sum(-1)


def hutch_plus_plus(
    operator: Operator, sketch: Float[Tensor, "P k n"], probes: Float[Tensor, "P g n"]
) -> tuple[Float[Tensor, "P"], Float[Tensor, "P g"], Float[Tensor, "P k"]]:
    """Trace by Hutch++ (Meyer, Musco, Musco and Woodruff 2021, arXiv 2010.09649, algorithm 1).

    Returns
    -------
    (inside, outside, squares)
        The trace within the range of the sketch's images, exactly; for every probe the estimate of
        the rest; and ‖Hz‖² of every vector of the sketch.
    """
    images = operator(sketch)
    basis = torch.linalg.qr(images.mT)[0].mT  # rows
    inside = (basis * operator(basis)).sum((1, 2))
    rest = probes - (probes @ basis.mT) @ basis
    outside = (rest * operator(rest)).sum(-1)
    return inside, outside, images.square().sum(-1)


def quadrature(run: Recurrence) -> tuple[Float[Tensor, "P m"], Float[Tensor, "P m"]]:
    """Nodes and weights of the Gauss quadrature that a Lanczos run is (Golub and Welsch 1969)."""
    nodes, inner = _decomposed(run)
    return nodes, inner[:, 0, :].square()
