"""Spectra against dense algebra, planted outliers, and tails against an independent library."""

import numpy as np
import pytest
import torch

from spinscape.spins import spectra
from spinscape.spins.couplings import SpinModel
from spinscape.spins.spectra import density, spectrum
from spinscape.spins.tails import power_law_tail


def test_densities_are_those_of_the_eigenvalues():
    model = SpinModel.layered([60, 50, 40], 1.0, 0)
    found = spectrum(model, nulls=2, bins=21, bootstraps=0)
    values = np.linalg.eigvalsh(model.dense_bonds().double().numpy())
    width = float(found.lam[1] - found.lam[0])
    edges = np.append(found.lam.values - width / 2, found.lam.values[-1] + width / 2)
    expected = np.histogram(values, edges)[0] / len(values) / width
    np.testing.assert_allclose(found.density, expected, atol=2.5 / 150 / width)  # ties at edges
    assert float(found.density.sum()) * width == pytest.approx(1)
    np.testing.assert_allclose(found.largest, values[::-1][:12])


def test_the_density_of_a_large_model_is_estimated_by_lanczos(monkeypatch):
    """Sixteen vectors of 1250 entries: bins hold their share to four standard errors or .01."""
    model = SpinModel.layered([700, 300, 250], 1.0, 0)
    edges = np.linspace(-4, 4, 9) + 0.013
    exact = density(model, edges)
    monkeypatch.setattr(spectra, "EXACT", 10)
    estimate = density(model, edges, seed=1)
    np.testing.assert_allclose(estimate, exact, atol=0.015)
    again = density(model, edges, seed=1)
    np.testing.assert_array_equal(again, estimate)
    found = spectrum(model, nulls=2, bins=9, bootstraps=0)
    assert found.attrs["method"] == "stochastic Lanczos quadrature"
    assert found.zero_modes.isnull()
    values = np.linalg.eigvalsh(model.dense_bonds().double().numpy())
    np.testing.assert_allclose(found.largest, values[::-1][:12], rtol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_a_planted_order_is_an_outlier_and_noise_has_none(seed):
    noise = SpinModel.layered([150, 120, 100], 1.0, seed)
    assert int(spectrum(noise, bootstraps=0, seed=seed).outliers) == 0
    planted = SpinModel.layered([150, 120, 100], 1.0, seed, spike=[0.0, 6.0])
    found = spectrum(planted, bootstraps=0, seed=seed)
    assert int(found.outliers) == 1
    assert found.layer_outliers.values.tolist() == [0, 1]
    assert float(found.largest[0]) > 6.0


def test_a_dense_model_has_a_spectrum_too():
    found = spectrum(SpinModel.sk(200, 0), nulls=2, bootstraps=0)
    assert float(found.largest[0]) == pytest.approx(2, abs=0.15)  # Wigner's edge
    assert "layer_edge" not in found


@pytest.mark.parametrize("alpha", [2.2, 3.0])
def test_tails_agree_with_an_independent_library(alpha):
    powerlaw = pytest.importorskip("powerlaw")
    values = np.random.default_rng(1).pareto(alpha - 1, 800) + 1
    found = power_law_tail(values, bootstraps=40, seed=0)
    assert found.alpha == pytest.approx(alpha, abs=4 * found.alpha_error)
    peer = powerlaw.Fit(values, xmin=found.x_min, verbose=False)
    assert found.alpha == pytest.approx(peer.power_law.alpha, rel=1e-6)
    assert found.distance == pytest.approx(peer.power_law.D, abs=2 / found.numbers)
    assert found.against_exponential == pytest.approx(
        peer.distribution_compare("power_law", "exponential", normalized_ratio=True)[0], rel=0.02
    )
    assert found.p > 0.1


def test_what_is_no_power_law_is_ruled_out():
    values = np.random.default_rng(2).normal(10, 1, 4000)
    found = power_law_tail(values, bootstraps=60, seed=0)
    body = power_law_tail(np.random.default_rng(3).uniform(1, 2, 4000), bootstraps=60, seed=0)
    assert min(found.p, body.p) < 0.1
    assert found.against_lognormal < 0
    assert found.alpha > 8


@pytest.mark.parametrize(
    ("call", "kind", "told"),
    [
        (lambda: spectrum(torch.ones(3, 3)), TypeError, "SpinModel"),
        (lambda: spectrum(SpinModel.sk(20), nulls=1), ValueError, "nulls=1"),
        (lambda: spectrum(SpinModel.sk(20), bins=2), ValueError, "bins=2"),
        (lambda: power_law_tail([1.0] * 30), ValueError, "not all equal"),
        (lambda: power_law_tail([1.0, 2.0]), ValueError, "expected 20"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(call, kind, told):
    with pytest.raises(kind, match=told):
        call()
