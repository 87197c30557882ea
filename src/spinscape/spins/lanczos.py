"""The smallest or largest eigenvalue of a symmetric matrix that is known by its products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from scipy.sparse.linalg import LinearOperator, eigsh

__all__ = ["extreme"]

SMALL = 32
"""Rows up to which the matrix is diagonalised whole."""


def extreme(
    product: Callable[[Float[np.ndarray, "N"]], Float[np.ndarray, "N"]],
    size: int,
    which: Literal["smallest", "largest"],
    *,
    start: Float[np.ndarray, "N"] | None = None,
    tolerance: float = 1e-4,
) -> tuple[float, Float[np.ndarray, "N"]]:
    """Eigenvalue and eigenvector, by implicitly restarted Lanczos (ARPACK).

    Parameters
    ----------
    product : callable
        The matrix times a vector.
    size : int
        Rows.
    which : {"smallest", "largest"}
        With its sign.
    start : array [N], optional
        Vector to begin with; a fixed random one by default.
    tolerance : float
        Relative, of the residual; the error of the eigenvalue is of second order in it.
    """
    if size <= SMALL:
        matrix = np.stack([product(row) for row in np.eye(size)])
        values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
        place = 0 if which == "smallest" else -1
        return float(values[place]), vectors[:, place]
    operator: Any = LinearOperator((size, size), matvec=lambda x: product(x.ravel()), dtype=float)
    begin = np.random.default_rng(0).standard_normal(size) if start is None else start
    found, vector = eigsh(
        operator, 1, which="SA" if which == "smallest" else "LA", tol=tolerance, v0=begin
    )
    return float(found[0]), vector[:, 0]
