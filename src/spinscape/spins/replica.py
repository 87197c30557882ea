"""Replica theory of layered and Sherrington-Kirkpatrick glasses.

Notation: layers l of N_l spins, n_l = N_l / N; couplings between layers l and l' of variance
σ²_ll'; S_ll' = N_l' σ²_ll'. All is in float64 and vectorised over the temperatures; Gaussian
averages ∫Dz are trapezoidal sums over 4001 points in |z| ≤ 10, whose error is below 1e−8 from
T = 0.02 √ρ(S) upwards (it decays exponentially with the number of points).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.stats
import xarray as xr
from jaxtyping import Float
from numpy.typing import ArrayLike

from spinscape.records import labelled, provenance
from spinscape.spins.arguments import temperatures_of
from spinscape.spins.ensembles import per_layer

__all__ = ["critical_temperature", "flip_stable_states", "replica_symmetric"]

Z = np.linspace(-10.0, 10.0, 4001)
DZ = np.exp(-(Z**2) / 2) / np.exp(-(Z**2) / 2).sum()
SOURCE = "arXiv 2408.06421; Sherrington and Kirkpatrick 1975; de Almeida and Thouless 1978"


def critical_temperature(
    widths: Sequence[int], C: float | Sequence[float] = 1.0, spike: float | Sequence[float] = 0.0
) -> float:
    """Temperature below which a layered model is no paramagnet, as its widths grow.

    T_c = max(√ρ(S), λ_max(Θ)). The first is the glass: √ of the largest eigenvalue of the
    tridiagonal matrix with off-diagonals C_k √(N_k / N_{k−1}), for L equal layers of couplings
    [2 C cos(π/(L+2))]^½ (arXiv 2408.06421); the second the order, Θ with off-diagonals θ_k.

    Parameters
    ----------
    widths : sequence of int
        N_0..N_L, at least two.
    C : float or one per layer of couplings
        Variance of J^(k) is C_k / N_{k−1}; 1/3 is PyTorch's default initialisation, 2 is He's.
    spike : float or one per layer of couplings
        θ_k of a planted order along unit vectors (`SpinModel.layered`).

    Returns
    -------
    float
        In units of the weights.

    Raises
    ------
    ValueError
        If there are fewer than two layers, a width below 1, or another number of C or θ.

    Examples
    --------
    >>> round(critical_temperature([784, 100, 10], C=1 / 3), 4)
    0.3988
    """
    sizes = _widths(widths)
    variances = np.array(per_layer("C", C, len(sizes) - 1))
    strengths = np.array(per_layer("spike", spike, len(sizes) - 1, negative=True))
    glass = _largest(variances * np.sqrt(sizes[1:] / sizes[:-1]))
    return float(max(np.sqrt(glass), _largest(np.abs(strengths))))


def replica_symmetric(
    temperatures: ArrayLike,
    widths: Sequence[int] | None = None,
    C: float | Sequence[float] = 1.0,
    J0: float = 0.0,
) -> xr.Dataset:
    """Replica-symmetric solution at many temperatures.

    The saddle q_l = ∫Dz tanh²(β √((Sq)_l) z) of the layered glass, or of Sherrington and
    Kirkpatrick's with mean coupling J0/N, where m = ∫Dz tanh(β(√q z + J0 m)) comes beside it.
    Below the line of de Almeida and Thouless (`replicon` < 0) it is not the answer, only a bound.

    Parameters
    ----------
    temperatures : array [temperature]
        Positive.
    widths : sequence of int, optional
        Of a layered model; None is the Sherrington-Kirkpatrick model.
    C : float or one per layer of couplings
        As in `critical_temperature`.
    J0 : float
        Mean coupling times N; only of the Sherrington-Kirkpatrick model.

    Returns
    -------
    Dataset
        ``overlap [temperature, layer]``, ``magnetisation [temperature]``, and per spin
        ``free_energy``, ``energy``, ``entropy``; ``replicon``, 1 − β²ρ(diag⟨sech⁴⟩ S).

    Raises
    ------
    ValueError
        Temperatures that are not positive, or J0 for a layered model.
    """
    heats = temperatures_of(temperatures)
    shares, S = _glass(widths, C)
    if J0 and widths is not None:
        raise ValueError(f"J0={J0}: only for the Sherrington-Kirkpatrick model, widths=None")
    beta = (1 / heats)[:, None]
    q, m = _saddle(beta, S, J0)
    x = beta[..., None] * (np.sqrt(q @ S.T)[..., None] * Z + J0 * m[:, None, None])
    variances = S / shares  # N σ²_ll'
    pairs = shares[:, None] * shares * variances
    loose, bound = 1 - q, 1 - np.einsum("ta,tb->tab", q, q)
    site = np.log(2) + (np.logaddexp(x, -x) - np.log(2)) @ DZ
    entropic = (site * shares).sum(-1)
    paired = np.einsum("ta,ab,tb->t", loose, pairs, loose)
    b = beta[:, 0]
    free = -(entropic + b**2 / 4 * paired - b * J0 * m**2 / 2) / b
    energy = -b / 2 * np.einsum("tab,ab->t", bound, pairs) - J0 * m**2 / 2
    rigid = np.cosh(np.minimum(np.abs(x), 300.0)) ** -4.0 @ DZ
    stability = [1 - t * _radius(r[:, None] * S) for t, r in zip(b**2, rigid, strict=True)]
    layer = np.arange(len(S))
    return xr.Dataset(
        {
            "overlap": labelled(("temperature", "layer"), q, "replica-symmetric overlap q"),
            "magnetisation": labelled("temperature", m, "magnetisation m"),
            "free_energy": labelled("temperature", free, "free energy per spin", "weights"),
            "energy": labelled("temperature", energy, "energy per spin", "weights"),
            "entropy": labelled("temperature", b * (energy - free), "entropy per spin", "nats"),
            "replicon": labelled("temperature", np.array(stability), "stability; < 0 breaks it"),
        },
        {"temperature": ("temperature", heats, {"units": "weights"}), "layer": layer},
        provenance(
            "replica_symmetric",
            SOURCE,
            0,
            widths=None if widths is None else list(map(int, widths)),
            C=C if np.ndim(C) == 0 else list(map(float, np.asarray(C))),
            J0=J0,
        ),
    )


def flip_stable_states(
    widths: Sequence[int] | None = None, C: float | Sequence[float] = 1.0
) -> float:
    """ln⟨N_s⟩/N of states at T = 0 that no single flip improves.

    The annealed count of Tanaka and Edwards (1980) and Bray and Moore (1980): the largest of
    Σ_l n_l ln 2Φ(x_l) minus a quadratic form of the common part of the local fields, at
    x_l = Σ_l' σ²_ll' N_l' r(x_l') / √(v_l v_l'), with r = φ/Φ and v_l = (S 1)_l. For
    Sherrington and Kirkpatrick's model max_x [ln 2Φ(x) − x²/2] = 0.1992.

    Parameters
    ----------
    widths, C
        As in `replica_symmetric`.
    """
    shares, S = _glass(widths, C)
    spread = np.sqrt(S.sum(1))
    coupled = S / np.outer(spread, spread)
    x = np.full(len(S), 0.5)
    for _ in range(10_000):
        ratio = np.exp(scipy.stats.norm.logpdf(x) - scipy.stats.norm.logcdf(x))
        moved = (x + coupled @ ratio) / 2
        if np.abs(moved - x).max() < 1e-13:
            break
        x = moved
    lam = shares * ratio / spread
    quadratic = lam @ (S / shares) @ lam / 2
    return float(shares @ (np.log(2) + scipy.stats.norm.logcdf(x)) - quadratic)


def _saddle(
    beta: Float[np.ndarray, "t 1"], S: Float[np.ndarray, "l l"], J0: float
) -> tuple[Float[np.ndarray, "t l"], Float[np.ndarray, "t"]]:
    """Iterate from full order down; every third step extrapolates the three before it."""
    q, m = np.ones((len(beta), len(S))), np.ones(len(beta))
    history = [(q, m)]
    for _ in range(20_000):
        x = beta[..., None] * (np.sqrt(q @ S.T)[..., None] * Z + J0 * m[:, None, None])
        tanh = np.tanh(x)
        moved = tanh**2 @ DZ, (tanh @ DZ)[:, 0] if J0 else np.zeros_like(m)
        change = max(np.abs(new - old).max() for new, old in zip(moved, (q, m), strict=True))
        history.append(moved)
        q, m = moved
        if change < 1e-13:
            break
        if len(history) == 3:
            q, m = (_aitken(*three) for three in zip(*history, strict=True))
            history = [(q, m)]
    return np.where(q < 1e-10, 0.0, q), np.where(np.abs(m) < 1e-10, 0.0, m)


def _aitken(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Limit of a sequence of which a, b, c follow one another, where it lies in [0, c]."""
    curve = (c - b) - (b - a)
    with np.errstate(divide="ignore", invalid="ignore"):
        limit = c - (c - b) ** 2 / curve
    return np.where(np.isfinite(limit) & (limit > 0) & (limit < c), limit, c)


def _glass(
    widths: Sequence[int] | None, C: float | Sequence[float]
) -> tuple[Float[np.ndarray, "l"], Float[np.ndarray, "l l"]]:
    """Shares n_l of the spins, and S_ll'."""
    if widths is None:
        return np.ones(1), np.full((1, 1), per_layer("C", C, 1)[0])
    sizes = _widths(widths)
    variances = np.array(per_layer("C", C, len(sizes) - 1)) / sizes[:-1]
    between = np.zeros((len(sizes), len(sizes)))
    for k, variance in enumerate(variances):
        between[k, k + 1] = between[k + 1, k] = variance
    return sizes / sizes.sum(), between * sizes


def _largest(off_diagonal: Float[np.ndarray, "k"]) -> float:
    """Largest eigenvalue of a tridiagonal matrix with zero diagonal."""
    zeros = np.zeros(len(off_diagonal) + 1)
    matrix = np.diag(zeros) + np.diag(off_diagonal, 1) + np.diag(off_diagonal, -1)
    return float(np.linalg.eigvalsh(matrix)[-1])


def _radius(matrix: Float[np.ndarray, "l l"]) -> float:
    return float(np.abs(np.linalg.eigvals(matrix)).max())


def _widths(widths: Sequence[int]) -> Float[np.ndarray, "l"]:
    sizes = np.asarray(widths, dtype=float)
    if sizes.ndim != 1 or len(sizes) < 2 or (sizes < 1).any() or (sizes % 1).any():
        raise ValueError(f"widths={widths!r}: expected two or more whole numbers of spins, ≥ 1")
    return sizes
