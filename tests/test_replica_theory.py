"""Replica theory against closed forms, published numbers, thermodynamics and enumeration."""

import numpy as np
import pytest
import torch

from spinscape.spins.couplings import SpinModel
from spinscape.spins.replica import critical_temperature, flip_stable_states, replica_symmetric

TABLE = {  # widths: T_c at C = 1/3, 1, 2 to four digits
    (50, 50): (0.5774, 1.0, 1.4142),
    (50,) * 3: (0.6866, 1.1892, 1.6818),
    (50,) * 4: (0.7344, 1.2720, 1.7989),
    (50,) * 5: (0.7598, 1.3161, 1.8612),
    (784, 10): (0.1940, 0.3361, 0.4753),
    (784, 100, 10): (0.3988, 0.6907, 0.9768),
    (784, 256, 128, 10): (0.5585, 0.9673, 1.3680),
    (784, 256, 256, 256, 10): (0.7026, 1.2169, 1.7210),
}


@pytest.mark.parametrize("widths", TABLE)
def test_the_table_of_critical_temperatures(widths):
    found = [critical_temperature(widths, C) for C in (1 / 3, 1.0, 2.0)]
    np.testing.assert_allclose(found, TABLE[widths], atol=5e-5)


@pytest.mark.parametrize("layers", [1, 2, 3, 4, 7, 40])
def test_equal_layers_have_the_closed_form_of_the_paper(layers):
    expected = (2 * 1.7 * np.cos(np.pi / (layers + 2))) ** 0.5
    assert critical_temperature([30] * (layers + 1), 1.7) == pytest.approx(expected)


def test_one_gain_a_layer_and_spikes():
    same = critical_temperature([784, 100, 10], [2.0, 2.0])
    assert same == pytest.approx(critical_temperature([784, 100, 10], 2.0))
    theta = np.array([3.0, 1.0])
    matrix = np.diag(theta, 1) + np.diag(theta, -1)
    expected = np.linalg.eigvalsh(matrix)[-1]
    assert critical_temperature([50, 50, 50], 1.0, theta) == pytest.approx(expected)
    assert critical_temperature([50, 50], 1.0, 0.5) == 1.0  # the glass comes first


def test_the_overlap_of_sherrington_and_kirkpatrick():
    found = replica_symmetric([0.9, 0.7, 0.5, 0.3])
    np.testing.assert_allclose(found.overlap[:, 0], [0.1027, 0.3167, 0.5304, 0.7333], atol=5e-5)


def test_a_mean_coupling_orders():
    found = replica_symmetric([1.0], J0=2.0)
    assert float(found.magnetisation[0]) == pytest.approx(0.8145, abs=5e-5)
    assert float(found.overlap[0, 0]) == pytest.approx(0.7396, abs=5e-5)


@pytest.mark.parametrize("J0", [1.3, 2.0])
def test_the_ferromagnet_ends_at_T_equal_to_J0(J0):
    found = replica_symmetric([0.99 * J0, 1.01 * J0], J0=J0)
    assert float(found.magnetisation[0]) > 0.01
    assert float(found.magnetisation[1]) == 0


def test_above_the_transition_energy_and_entropy_are_those_of_the_paramagnet():
    heats = np.array([1.5, 3.0, 30.0])
    found = replica_symmetric(heats)
    np.testing.assert_allclose(found.energy, -1 / (2 * heats))
    np.testing.assert_allclose(found.entropy, np.log(2) - 1 / (4 * heats**2))
    assert (found.overlap == 0).all()


@pytest.mark.parametrize("widths", [None, (30, 30), (784, 100, 10), (50, 20, 70, 10)])
def test_replica_symmetry_breaks_at_the_critical_temperature(widths):
    T_c = 1.0 if widths is None else critical_temperature(widths, 1.0)
    found = replica_symmetric(T_c * np.array([0.8, 0.97, 1.03, 2.0]), widths)
    assert (found.replicon[:2] < 0).all()
    assert (found.replicon[2:] > 0).all()
    assert float(replica_symmetric([T_c], widths).replicon[0]) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(
    ("widths", "C", "J0"),
    [(None, 1.0, 0.0), (None, 1.0, 1.5), ((60, 30), 0.7, 0.0), ((784, 100, 10), [2.0, 1.0], 0.0)],
)
def test_the_energy_is_the_derivative_of_the_free_energy(widths, C, J0):
    """u = ∂(βf)/∂β, in the glass and outside; the saddle is stationary."""
    beta = np.array([0.5, 1.2, 2.5, 6.0])
    step = 1e-4
    both = [
        replica_symmetric(1 / (beta + sign * step), widths, C, J0).free_energy.values
        * (beta + sign * step)
        for sign in (1, -1)
    ]
    found = replica_symmetric(1 / beta, widths, C, J0)
    np.testing.assert_allclose(found.energy, (both[0] - both[1]) / (2 * step), atol=2e-6)


def test_two_equal_layers_are_the_dense_model_scaled():
    heats = np.array([0.3, 0.6, 0.9, 1.4])
    pair = replica_symmetric(heats * 0.5**0.5, (40, 40), 0.5)
    dense = replica_symmetric(heats)
    np.testing.assert_allclose(pair.overlap, np.repeat(dense.overlap.values, 2, 1), atol=1e-9)
    np.testing.assert_allclose(pair.free_energy, dense.free_energy * 0.5**0.5, atol=1e-9)


def test_the_count_of_states_that_no_flip_improves():
    assert flip_stable_states() == pytest.approx(0.1992, abs=5e-5)
    assert flip_stable_states((30, 30), 0.7) == pytest.approx(0.1992, abs=5e-5)


def test_the_annealed_count_is_met_by_enumeration():
    """ln⟨N_s⟩ grows by 0.1992 a spin: the slope between N = 10 and 16, four standard errors."""
    logs, errors = [], []
    for n, samples in ((10, 400), (16, 60)):
        counts = []
        for seed in range(samples):
            model = SpinModel.sk(n, seed)
            spins = model.configurations()
            counts.append(float(((spins * model.local_fields(spins)) > 0).all(1).sum()))
        # (n − 1)/n of the variance is there, which cancels: only signs of fields matter
        logs.append(np.log(np.mean(counts)))
        errors.append(np.std(counts, ddof=1) / np.mean(counts) / samples**0.5)
    slope = (logs[1] - logs[0]) / 6
    error = np.hypot(*errors) / 6
    assert error < 0.02
    assert slope == pytest.approx(0.1992, abs=4 * error + 0.02)  # the rest of order 1/N


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: critical_temperature([784]), "two or more"),
        (lambda: critical_temperature([784, 0]), "two or more"),
        (lambda: critical_temperature([784, 1.5]), "two or more"),
        (lambda: critical_temperature([784, 10], [1.0, 2.0]), "C="),
        (lambda: critical_temperature([784, 10], -1.0), "C="),
        (lambda: critical_temperature([784, 10], 1.0, [1.0, 2.0]), "spike="),
        (lambda: replica_symmetric([1.0, 0.0]), "positive"),
        (lambda: replica_symmetric([[1.0]]), "shape"),
        (lambda: replica_symmetric([float("nan")]), "positive"),
        (lambda: replica_symmetric([1.0], (3, 3), J0=1.0), "J0"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(call, told):
    with pytest.raises(ValueError, match=told):
        call()


def test_nothing_random_is_touched():
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    replica_symmetric([0.5], (30, 20))
    SpinModel.layered([5, 4], seed=3)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()  # noqa: NPY002
