"""Stability of the paramagnet m = 0: λ_min of A(β) = 1 − βJ + β² diag(Σ_j J_ij²).

A is the Hessian of the TAP free energy at m = 0, in units of T. A pure glass only touches zero,
an ordered model crosses it (arXiv 2408.06421; Plefka 1982).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import brentq, minimize_scalar

from spinscape.spins.couplings import SpinModel
from spinscape.spins.lanczos import extreme

__all__ = ["Paramagnet", "Touch", "stability_scan"]

RATIO = 1.13
"""Between neighbouring β of the first scan, which only brackets."""

BEYOND = 1.7
"""The scan ends at so many times the β at which the variances alone would make m = 0 unstable."""

PRECISION = 1e-4
"""Relative, of the β found."""


class Paramagnet:
    """The Hessian at m = 0 of a model, on the host in float64.

    Parameters
    ----------
    model : SpinModel
        Its fields play no part.
    seed : int
        Of the vector that Lanczos starts with.
    """

    def __init__(self, model: SpinModel, seed: int = 0) -> None:
        host = model.to(torch.float64, "cpu")
        self.n = model.n
        self._couplings = [layer.numpy() for layer in host.couplings]
        self._places = host.places
        self._dense = host.matrix is not None
        ones = torch.ones(host.n, dtype=torch.float64)
        self.variances: Float[np.ndarray, "N"] = host.squares.product(ones).numpy()
        self._squares = host.squares
        self._start = np.random.default_rng(seed).standard_normal(self.n)
        self.products = 0

    def product(self, x: Float[np.ndarray, "N"]) -> Float[np.ndarray, "N"]:
        """J x, layer by layer."""
        self.products += 1
        if self._dense:
            return self._couplings[0] @ x
        result = np.zeros(self.n)
        for coupling, before, after in zip(
            self._couplings, self._places[:-1], self._places[1:], strict=True
        ):
            result[after] += x[before] @ coupling
            result[before] += coupling @ x[after]
        return result

    def lowest(self, beta: float) -> tuple[float, Float[np.ndarray, "N"]]:
        """Smallest eigenvalue of A(β) and its vector; the vector starts the next search."""
        diagonal = 1 + beta**2 * self.variances
        value, vector = extreme(
            lambda x: diagonal * x - beta * self.product(x), self.n, "smallest", start=self._start
        )
        self._start = vector
        return value, vector

    def largest_coupling(self) -> float:
        """λ_max(J): the T_c of naive mean field, always above the true one."""
        return extreme(self.product, self.n, "largest", start=self._start)[0]

    def onset(self) -> float:
        """√ρ of the matrix of squared couplings: T below which variances make m = 0 unstable."""
        squares = self._squares
        x = torch.ones(self.n, dtype=torch.float64)
        radius = 0.0
        for _ in range(200):  # J∘J has no negative entry; two products, as a bipartite one swings
            moved = squares.product(squares.product(x))
            grown, x = float(moved.norm() / x.norm()), moved / moved.norm()
            if abs(grown - radius) < 1e-10 * grown:
                break
            radius = grown
        return float(grown**0.25)


@dataclass(frozen=True)
class Touch:
    """Where the smallest eigenvalue of A(β) first vanishes, or how near it comes.

    Attributes
    ----------
    crosses : bool
        Whether it vanishes.
    beta : float
        Where it first does; where it is smallest, if it does not.
    beta_min, lowest : float
        Where it is smallest over the scan, and how small.
    scanned, values : array
        All β that were looked at, sorted, and the eigenvalues there.
    mode : array [N]
        The eigenvector at `beta`.
    """

    crosses: bool
    beta: float
    beta_min: float
    lowest: float
    scanned: Float[np.ndarray, "scan"]
    values: Float[np.ndarray, "scan"]
    mode: Float[np.ndarray, "N"]


def stability_scan(paramagnet: Paramagnet) -> Touch:
    """Follow the smallest eigenvalue from β = 1/λ_max(J), below which it is positive, upwards.

    A geometric scan brackets the first root or the minimum, Brent's methods refine them.

    Raises
    ------
    ValueError
        If all couplings are zero.
    """
    top = paramagnet.largest_coupling()
    onset = paramagnet.onset()
    if not onset > 0:
        raise ValueError("model: all couplings are zero, so that there is no temperature scale")
    seen: dict[float, float] = {}

    def value(beta: float) -> float:
        if beta not in seen:
            seen[beta] = paramagnet.lowest(beta)[0]
        return seen[beta]

    last = BEYOND / onset
    begin = 0.98 / top
    grid = [begin * RATIO**k for k in range(int(np.log(last / begin) / np.log(RATIO)) + 2)]
    for beta in grid:
        if value(beta) < 0:
            break
    beta_min, lowest = _minimum(value, seen)
    crosses = min(seen.values()) < 0
    beta = _first_root(value, seen) if crosses else beta_min
    mode = paramagnet.lowest(beta)[1]
    scanned = np.array(sorted(seen))
    return Touch(
        crosses, beta, beta_min, lowest, scanned, np.array([seen[b] for b in scanned]), mode
    )


def _minimum(value: Callable[[float], float], seen: dict[float, float]) -> tuple[float, float]:
    """Refine the smallest of the values seen; the scan goes on while it is the last of them."""
    while max(seen) == min(seen, key=seen.__getitem__):
        value(max(seen) * RATIO)
    betas = sorted(seen)
    place = betas.index(min(seen, key=seen.__getitem__))
    low, high = betas[max(place - 1, 0)], betas[min(place + 1, len(betas) - 1)]
    minimize_scalar(
        value, bounds=(low, high), method="bounded", options={"xatol": 10 * PRECISION * high}
    )
    best = min(seen, key=seen.__getitem__)
    return best, seen[best]


def _first_root(value: Callable[[float], float], seen: dict[float, float]) -> float:
    betas = sorted(seen)
    after = next(k for k, beta in enumerate(betas) if seen[beta] < 0)
    if after == 0:
        return betas[0]
    low, high = betas[after - 1], betas[after]
    return float(brentq(value, low, high, xtol=PRECISION * high, rtol=PRECISION))
