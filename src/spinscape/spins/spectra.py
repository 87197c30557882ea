"""The spectrum of the bond matrix, beside that of the same weights at random places.

The layers form a bipartite graph, so that eigenvalues come in pairs ±σ, σ the singular values of
the block between even and odd layers, and at least |Σ_even N_k − Σ_odd N_k| of them vanish
(arXiv 2408.06421 discusses tails of this spectrum).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from scipy.linalg import eigh_tridiagonal
from scipy.sparse.linalg import eigsh

from spinscape.records import labelled, provenance
from spinscape.spins.arguments import check_model, check_whole
from spinscape.spins.couplings import SpinModel
from spinscape.spins.tails import FEWEST, PowerLawTail, power_law_tail

__all__ = ["bond_eigenvalues", "density", "spectrum"]

SOURCE = "spectrum of the bond matrix, arXiv 2408.06421; tails by Clauset, Shalizi, Newman 2009"
EXACT = 6000
"""Most spins whose spectrum is computed whole."""

ZERO = 1e-9
"""Times the largest eigenvalue: a zero mode."""

LANCZOS_STEPS = 80
PROBES = 16


def spectrum(
    model: SpinModel,
    *,
    nulls: int = 8,
    bins: int = 81,
    bootstraps: int = 100,
    seed: int = 0,
) -> xr.Dataset:
    """Spectrum of the bond matrix and of each layer, with outliers, tails and zero modes.

    Parameters
    ----------
    model : SpinModel
    nulls : int
        Models of the same weights permuted within each layer, at least 2.
    bins : int
        Of the densities.
    bootstraps : int
        Of the goodness of fit of tails.
    seed : int
        Of permutations, probes and bootstraps.

    Returns
    -------
    Dataset
        ``density`` and ``density_null [bin]`` of eigenvalues, per spin and unit; ``edge_null
        [null]``, the largest eigenvalue of each null; ``outliers``, eigenvalues above all of these,
        their sum over ± pairs halved; ``largest [top]``; ``zero_modes`` and the number that the
        widths enforce; ``tail [tail_number]`` of the whole, and for each layer of couplings
        ``layer_edge``, ``layer_edge_null``, ``layer_outliers``, ``layer_tail``. More than 6,000
        spins get a density by stochastic Lanczos quadrature and no zero modes or tails (NaN).

    Raises
    ------
    TypeError, ValueError
        If `model` is none, or a number is too small.
    """
    check_model(model)
    check_whole(2, nulls=nulls)
    check_whole(3, bins=bins)
    seeds = [int(s.generate_state(1)[0]) for s in np.random.SeedSequence(seed).spawn(nulls)]
    permuted = [model.permuted(own) for own in seeds]
    exact = model.n <= EXACT
    tops = [_largest(each) for each in (model, *permuted)]
    edges = np.array([top[0] for top in tops[1:]])
    reach = 1.05 * max(top[0] for top in tops)
    grid = np.linspace(-reach, reach, bins + 1)
    counts = density(model, grid, seed=seed)
    of_nulls = np.mean([density(each, grid, seed=seed) for each in permuted], axis=0)
    eigenvalues = bond_eigenvalues(model) if exact else None
    zero = np.nan if eigenvalues is None else float((np.abs(eigenvalues) < ZERO * reach).sum())
    enforced = abs(sum(model.widths[::2]) - sum(model.widths[1::2])) if model.layers else 0
    tail = _tail(
        None if eigenvalues is None else eigenvalues[eigenvalues > ZERO * reach], bootstraps, seed
    )
    variables: dict[str, Any] = {
        "density": labelled("bin", counts, "density of eigenvalues", "1/weights"),
        "density_null": labelled("bin", of_nulls, "density of permuted weights", "1/weights"),
        "largest": labelled("top", tops[0], "largest eigenvalues", "weights"),
        "edge_null": labelled("null", edges, "largest eigenvalue, permuted", "weights"),
        "outliers": labelled(
            (), int((tops[0] > _bound(edges)).sum()), "eigenvalues beyond the null"
        ),
        "zero_modes": labelled((), zero, "zero modes"),
        "zero_modes_enforced": labelled((), enforced, "zero modes that the widths enforce"),
        "tail": labelled("tail_number", tail, "power law of the positive eigenvalues"),
    }
    middle = (grid[1:] + grid[:-1]) / 2
    if model.layers:
        variables |= _of_layers(model, permuted, bootstraps, seed)
    return xr.Dataset(
        variables,
        {
            "lam": ("bin", middle, {"long_name": "eigenvalue", "units": "weights"}),
            "tail_number": list(PowerLawTail._fields),
        },
        provenance("spectrum", SOURCE, seed, nulls=nulls, bins=bins, widths=list(model.widths))
        | {"method": "exact" if exact else "stochastic Lanczos quadrature"},
    )


def bond_eigenvalues(model: SpinModel) -> Float[np.ndarray, "N"]:
    """All eigenvalues of the bond matrix, rising; of a layered model from singular values."""
    if model.matrix is not None:
        return torch.linalg.eigvalsh(model.matrix.double()).cpu().numpy()
    values = torch.linalg.svdvals(_between_colours(model)).cpu().numpy()
    return np.sort(np.concatenate([values, -values, np.zeros(model.n - 2 * len(values))]))


def density(
    model: SpinModel, edges: Float[np.ndarray, "edge"], *, seed: int = 0
) -> Float[np.ndarray, "bin"]:
    """Density of eigenvalues per spin and unit: exact up to 6,000 spins, else estimated.

    Stochastic Lanczos quadrature (Ubaru, Chen and Saad 2017, SIAM J. Matrix Anal. Appl. 38, 1075)
    with 16 random vectors and 80 steps.
    """
    if model.n <= EXACT:
        values, weights = bond_eigenvalues(model), np.full(model.n, 1 / model.n)
    else:
        values, weights = _quadrature(model, PROBES, LANCZOS_STEPS, seed)
    return np.histogram(values, edges, weights=weights)[0] / np.diff(edges)


def _largest(model: SpinModel, count: int = 12) -> Float[np.ndarray, "top"]:
    """Largest eigenvalues, falling."""
    if model.n <= EXACT:
        return bond_eigenvalues(model)[::-1][:count]
    operator: Any = model.bond_matrix()
    values = eigsh(operator, count, which="LA", return_eigenvectors=False)
    return np.sort(values)[::-1]


def _between_colours(model: SpinModel) -> Float[torch.Tensor, "even odd"]:
    """The couplings between the even and the odd layers, as one matrix."""
    even = np.cumsum([0, *model.widths[::2]])
    odd = np.cumsum([0, *model.widths[1::2]])
    block = torch.zeros(int(even[-1]), int(odd[-1]), dtype=torch.float64, device=model.device)
    for k, layer in enumerate(model.layers):
        own = layer.double()
        if k % 2:  # from odd layer k to even layer k + 1
            own = own.mT
        row, column = (k + 1) // 2, k // 2
        block[even[row] : even[row + 1], odd[column] : odd[column + 1]] = own
    return block


def _quadrature(
    model: SpinModel, probes: int, steps: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of all probes, moved together as one batch."""
    host = model.to(torch.float64)
    generator = np.random.default_rng(seed)
    v = torch.from_numpy(generator.choice([-1.0, 1.0], (probes, model.n))).to(model.device)
    v = v / v.norm(dim=1, keepdim=True)
    basis, alphas, betas = [v], [], []
    for step in range(steps):
        w = host.product(basis[-1])
        alphas.append((w * basis[-1]).sum(1))
        for u in (*basis, *basis):  # orthogonal to all before, twice
            w = w - (w * u).sum(1, keepdim=True) * u
        betas.append(w.norm(dim=1))
        if step < steps - 1:
            basis.append(w / betas[-1][:, None].clamp(min=1e-300))
    a, b = torch.stack(alphas, 1).cpu().numpy(), torch.stack(betas, 1).cpu().numpy()
    nodes, weights = [], []
    for row in range(probes):
        values, vectors = eigh_tridiagonal(a[row], b[row, :-1])
        nodes.append(values)
        weights.append(vectors[0] ** 2 / probes)
    return np.concatenate(nodes), np.concatenate(weights)


def _of_layers(
    model: SpinModel, permuted: list[SpinModel], bootstraps: int, seed: int
) -> dict[str, Any]:
    """Singular values of each layer against those of the permuted ones."""
    edge, edge_null, outliers, tails = [], [], [], []
    for k, layer in enumerate(model.layers):
        values = torch.linalg.svdvals(layer.double()).cpu().numpy()
        bound = [float(torch.linalg.matrix_norm(p.layers[k].double(), 2)) for p in permuted]
        edge.append(values[0])
        edge_null.append(bound)
        outliers.append(int((values > _bound(np.array(bound))).sum()))
        tails.append(_tail(values, bootstraps, seed))
    return {
        "layer_edge": labelled("layer", np.array(edge), "largest singular value", "weights"),
        "layer_edge_null": labelled(
            ("layer", "null"), np.array(edge_null), "largest singular value, permuted", "weights"
        ),
        "layer_outliers": labelled("layer", np.array(outliers), "singular values beyond the null"),
        "layer_tail": labelled(
            ("layer", "tail_number"), np.stack(tails), "power law of the singular values"
        ),
    }


def _bound(edges: Float[np.ndarray, "null"]) -> float:
    """What the largest eigenvalue of a null hardly ever exceeds."""
    return float(edges.mean() + 4 * edges.std(ddof=1))


def _tail(
    values: Float[np.ndarray, "sample"] | None, bootstraps: int, seed: int
) -> Float[np.ndarray, "tail_number"]:
    """Fit a tail; not a number where there are too few values."""
    if values is None or len(values) < 2 * FEWEST:
        return np.full(len(PowerLawTail._fields), np.nan)
    return np.array(power_law_tail(values, bootstraps=bootstraps, seed=seed), dtype=float)
