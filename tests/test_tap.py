"""TAP: derivatives, known solutions, and what is told of solvers that find nothing.

Stochastic answers are compared within standard errors over samples of couplings, or within the
spread between samples where that is what is known; seeds are fixed.
"""

from functools import cache

import numpy as np
import pytest
import torch
from torch.autograd.functional import hessian

from spinscape.spins import SpinModel, critical_temperature, replica_symmetric, tap
from spinscape.spins.tap_equations import TapEquations
from spinscape.spins.tap_solvers import SOLVERS, damped

ERRORS = 4.0
FIELDS = torch.linspace(-0.5, 0.7, 12, dtype=torch.float64)


def models():
    layered = SpinModel.layered([5, 4, 3], C=1.5, seed=1, dtype=torch.float64)
    dense = SpinModel.sk(12, seed=2, dtype=torch.float64)
    return {
        "layered": layered,
        "layered in fields": SpinModel(layered.layers, fields=FIELDS),
        "SK": dense,
        "SK in fields": SpinModel.from_matrix(dense.matrix, fields=FIELDS),
    }


KINDS = list(models())
HEATS = [0.4, 1.0, 3.0]


def magnetisations(n=12, count=3, seed=0):
    drawn = np.random.default_rng(seed).uniform(-0.97, 0.97, (count, n))
    return torch.from_numpy(drawn)


def dense_free_energy(model, T, m):
    """The free energy as it stands in the papers, from the dense matrix."""
    J = model.dense_bonds()
    fields = 0.0 if model.fields is None else model.fields @ m
    up, down = (1 + m) / 2, (1 - m) / 2
    loose = 1 - m**2
    entropy = -(up * up.log() + down * down.log()).sum()
    return -m @ J @ m / 2 - fields - loose @ J**2 @ loose / (4 * T) - T * entropy


def dense_hessian(model, T, m):
    J = model.dense_bonds().numpy().astype(float)
    H = -J - 2 / T * J**2 * np.outer(m, m)
    H[np.diag_indices(len(m))] = T / (1 - m**2) + (J**2) @ (1 - m**2) / T
    return H


def dense_plefka(model, T, m):
    J = model.dense_bonds().numpy().astype(float)
    loose = 1 - m**2
    return 1 - np.linalg.eigvals(J**2 * np.outer(loose, loose)).real.max() / T**2


def dense_residual(model, T, m):
    J = model.dense_bonds().numpy().astype(float)
    field = J @ m + (0 if model.fields is None else model.fields.numpy())
    return np.abs(m - np.tanh(field / T - m * (J**2 @ (1 - m**2)) / T**2)).max()


def check_accepted(model, T, found):
    """All solutions again, by dense matrices."""
    host = model.to(torch.float64)
    assert (np.diff(found.free_energy) >= 0).all()
    for k in range(found.sizes["solution"]):
        m = found.m.values[k]
        assert dense_residual(host, T, m) < 1e-8
        least = np.linalg.eigvalsh(dense_hessian(host, T, m))[0]
        scale = np.sqrt((1 - m**2) / T)
        scaled = np.linalg.eigvalsh(scale[:, None] * dense_hessian(host, T, m) * scale)[0]
        plefka = dense_plefka(host, T, m)
        assert least > 0
        assert plefka >= 0
        assert float(found.curvature[k]) == pytest.approx(scaled, abs=1e-5)
        assert float(found.plefka[k]) == pytest.approx(plefka, abs=1e-5)
        assert float(found.q[k]) == pytest.approx((m**2).mean())
        exact = float(dense_free_energy(host, T, torch.from_numpy(m)))
        assert float(found.free_energy[k]) == pytest.approx(exact)
    cosines = found.overlap.values - np.eye(found.sizes["solution"])
    if model.fields is None:
        cosines = np.abs(cosines)
    assert (cosines < found.attrs.get("same", 0.99)).all()


def check_counts(found, starts):
    assert (found["count"].sum("outcome_kind") == starts).all()
    for solver in found.solver.values:
        told = found.outcome.sel(solver=solver).values
        for kind in found.outcome_kind.values:
            number = int(found["count"].sel(solver=solver, outcome_kind=kind))
            assert number == (told == kind).sum()
        hits = int(found.hits.sel(solver=solver).sum())
        assert hits == int(found["count"].sel(solver=solver, outcome_kind="accepted"))


# Derivatives


@pytest.mark.parametrize("T", HEATS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_free_energy_is_that_of_the_papers(kind, T):
    model, m = models()[kind], magnetisations()
    found = TapEquations(model, T).free_energy(m)
    for k in range(len(m)):
        assert float(found[k]) == pytest.approx(float(dense_free_energy(model, T, m[k])))


@pytest.mark.parametrize("T", HEATS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_the_derivative_of_the_free_energy(kind, T):
    equations, m = TapEquations(models()[kind], T), magnetisations().requires_grad_()
    (expected,) = torch.autograd.grad(equations.free_energy(m).sum(), m)
    assert torch.allclose(equations.gradient(m.detach()), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("T", HEATS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_hessian_is_the_derivative_of_the_gradient(kind, T):
    model = models()[kind]
    equations, m = TapEquations(model, T), magnetisations()[1]
    expected = hessian(lambda x: dense_free_energy(model, T, x), m)
    reaction = equations.reaction(m)
    columns = [equations.hessian_product(m, v, reaction) for v in torch.eye(12).double()]
    found = torch.stack(columns, 1)
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-9)
    assert np.allclose(dense_hessian(model, T, m.numpy()), expected, rtol=1e-9)
    v, h = magnetisations(seed=1)[0], 1e-6
    slope = (equations.gradient(m + h * v) - equations.gradient(m - h * v)) / (2 * h)
    product = equations.hessian_product(m, v, reaction)
    assert torch.allclose(slope, product, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["layered", "SK"])
def test_at_zero_the_hessian_is_that_of_the_stability_scan(kind):
    """H = T A(β), A = 1 − βJ + β² diag(Σ_j J_ij²)."""
    T, model = 0.8, models()[kind]
    equations, zero = TapEquations(model, T), torch.zeros(12, dtype=torch.float64)
    J = model.dense_bonds()
    A = torch.eye(12) - J / T + torch.diag((J**2).sum(1)) / T**2
    reaction = equations.reaction(zero)
    columns = [equations.hessian_product(zero, v, reaction) for v in torch.eye(12).double()]
    assert torch.allclose(torch.stack(columns, 1), T * A)
    least = float(torch.linalg.eigvalsh(A)[0])
    assert equations.least_curvature(zero) == pytest.approx(least, abs=1e-6)


@pytest.mark.parametrize("n", [20, 90])
def test_curvature_and_plefka_s_criterion_are_those_of_dense_matrices(n):
    """Also where they are found by Lanczos, above 32 spins."""
    model, T = SpinModel.sk(n, seed=4, dtype=torch.float64), 0.7
    equations = TapEquations(model, T)
    for m in magnetisations(n):
        H, scale = dense_hessian(model, T, m.numpy()), np.sqrt((1 - m.numpy() ** 2) / T)
        expected = np.linalg.eigvalsh(scale[:, None] * H * scale)[0]
        assert equations.least_curvature(m) == pytest.approx(expected, abs=1e-5)
        assert equations.plefka(m) == pytest.approx(dense_plefka(model, T, m.numpy()), abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_solutions_of_the_equations_are_where_the_gradient_is_zero(kind):
    equations = TapEquations(models()[kind], 2.5)
    for solve in SOLVERS.values():
        m = solve(equations, magnetisations(), 1500)
        assert (equations.residual(m) < 1e-8).all()
        assert (equations.gradient(m).abs() < 1e-7).all()
        assert dense_residual(equations.model, 2.5, m[0].numpy()) < 1e-8


# Hot


@pytest.mark.parametrize("kind", ["layered", "SK"])
def test_a_hot_model_has_the_paramagnet_alone(kind):
    model, T = models()[kind], 3.0
    found = tap(model, T, starts=20, seed=0)
    assert found.sizes["solution"] == 0
    assert (found["count"].sel(outcome_kind="paramagnet") == 20).all()
    check_counts(found, 20)
    assert bool(found.m0_accepted)
    squares = float((model.dense_bonds() ** 2).sum())  # ordered pairs
    exact = -12 * T * np.log(2) - squares / (4 * T)
    assert float(found.free_energy_of_m0) == pytest.approx(exact)


@pytest.mark.parametrize("kind", ["layered", "SK"])
def test_the_free_energy_of_the_hot_paramagnet_is_that_of_enumeration(kind):
    """Without triangles (layered) the next term is of order β³, with them of order β²."""
    model, gaps = models()[kind], []
    energy = model.energy(model.configurations())
    for T in (3.0, 6.0, 12.0):
        exact = -T * float(torch.logsumexp(-energy / T, 0))
        zero = torch.zeros(12, dtype=torch.float64)
        gaps.append(abs(float(TapEquations(model, T).free_energy(zero)) - exact))
        assert gaps[-1] < 2e-3 * abs(exact)
    order = np.log2(gaps[1] / gaps[2])
    assert order == pytest.approx(3 if kind == "layered" else 2, abs=0.4)


@pytest.mark.parametrize("kind", ["layered in fields", "SK in fields"])
def test_in_fields_a_hot_model_has_one_solution_with_the_enumerated_magnetisations(kind):
    """The next order in β is left to 4 % of the largest."""
    model, T = models()[kind], 3.0
    found = tap(model, T, starts=20, seed=0)
    assert found.sizes["solution"] == 1
    assert (found.hits == 20).all()
    assert not bool(found.m0_accepted)
    check_accepted(model, T, found)
    states = model.configurations()
    weights = torch.softmax(-model.energy(states) / T, 0)
    exact = (weights @ states).numpy()
    assert np.abs(found.m.values[0] - exact).max() < 0.04 * np.abs(exact).max()
    free = -T * float(torch.logsumexp(-model.energy(states) / T, 0))
    assert float(found.free_energy[0]) == pytest.approx(free, rel=2e-3)


# Order


@cache
def planted(seed, share):
    model = SpinModel.layered([50] * 4, C=1.0, seed=seed, spike=3.0)
    T = share * critical_temperature([50] * 4, 1.0, 3.0)
    return model, T, tap(model, T, starts=60, seed=seed, solvers=("damped", "minimise"))


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("share", "q"), [(0.7, 0.27), (0.4, 0.57)])
def test_a_hidden_order_gives_one_pair_from_every_start(seed, share, q):
    """Spike θ = 3 in three weight layers of 50; q known to ± .04 between samples: two of these."""
    model, T, found = planted(seed, share)
    assert critical_temperature([50] * 4, 1.0, 3.0) == pytest.approx(6 * np.cos(np.pi / 5))
    assert found.sizes["solution"] == 1
    assert (found.hits == 60).all()
    check_counts(found, 60)
    check_accepted(model, T, found)
    assert float(found.q[0]) == pytest.approx(q, abs=2 * 0.04)
    assert float(found.free_energy[0]) < float(found.free_energy_of_m0)
    assert not bool(found.m0_accepted)


@pytest.mark.parametrize(("share", "q"), [(0.7, 0.27), (0.4, 0.57)])
def test_the_overlap_of_a_hidden_order_is_the_known_one_on_average(share, q):
    found = [float(planted(seed, share)[2].q[0]) for seed in (0, 1, 2)]
    assert np.mean(found) == pytest.approx(q, abs=2 * 0.04 / np.sqrt(3))


def test_both_ends_of_a_pair_are_told_apart_before_they_are_counted_as_one():
    _, _, found = planted(0, 0.7)
    cosines = found.ends_overlap.values
    assert cosines.shape == (120, 120)
    assert np.allclose(np.abs(cosines), 1, atol=1e-6)
    assert (cosines < 0).any()


@cache
def ordered_glasses():
    made = []
    for seed in range(10):
        model = SpinModel.sk(300, seed=seed, J0=2.0)
        made.append((model, tap(model, 1.0, starts=4, seed=seed, solvers=("damped", "minimise"))))
    return made


def test_an_ordered_glass_has_the_magnetisation_of_the_replica_symmetric_theory():
    """SK with J₀ = 2 at T = 1: m = .8145, q = .7396; N = 1000 gave .818, .742 (± .004)."""
    exact = replica_symmetric([1.0], J0=2.0)
    assert float(exact.magnetisation[0]) == pytest.approx(0.8145, abs=1e-3)
    assert float(exact.overlap[0, 0]) == pytest.approx(0.7396, abs=1e-3)
    m = [float(np.abs(found.m.mean("spin"))[0]) for _, found in ordered_glasses()]
    q = [float(found.q[0]) for _, found in ordered_glasses()]
    for values, known in ((m, 0.818), (q, 0.742)):
        error = np.std(values, ddof=1) / np.sqrt(len(values))
        assert error < 0.02
        assert abs(np.mean(values) - known) < 3 * error + 0.004


def test_an_ordered_glass_has_one_pair_of_solutions():
    for model, found in ordered_glasses():
        assert found.sizes["solution"] == 1
        assert (found.hits == 4).all()
        check_accepted(model, 1.0, found)


# Glass


@cache
def glass():
    model = SpinModel.sk(150, seed=0)
    return model, tap(model, 0.5, starts=60, seed=0)


def test_in_a_glass_the_solvers_find_nothing_and_say_so():
    """The solver trap: no solution is accepted, though the glass has many."""
    _, found = glass()
    assert found.sizes["solution"] == 0
    assert found.m.shape == (0, 150)
    assert found.hits.shape == (0, 3)
    assert found.solver.values.tolist() == ["damped", "amp", "minimise"]
    check_counts(found, 60)
    assert (found["count"].sel(outcome_kind="accepted") == 0).all()
    assert not bool(found.m0_accepted)  # Plefka's criterion is violated at m = 0
    assert dense_plefka(glass()[0], 0.5, np.zeros(150)) < 0


def test_descent_in_a_glass_is_said_to_end_at_zero():
    """m = 0 is a minimum of F there, and all descents end in it."""
    model, found = glass()
    zero = np.zeros(150)
    assert np.linalg.eigvalsh(dense_hessian(model, 0.5, zero))[0] > 0
    assert int(found["count"].sel(solver="minimise", outcome_kind="paramagnet")) == 60


@pytest.mark.parametrize(("n", "seed"), [(24, 1), (32, 1), (50, 2)])
def test_what_is_accepted_in_a_small_glass_is_a_solution(n, seed):
    model = SpinModel.sk(n, seed=seed)
    found = tap(model, 0.3, starts=40, seed=0, solvers=("amp",))
    assert found.sizes["solution"] >= 1
    check_counts(found, 40)
    check_accepted(model, 0.3, found)


def two_blocks(second):
    """A ferromagnet and another model beside it, uncoupled."""
    J = torch.zeros(20 + second.n, 20 + second.n, dtype=torch.float64)
    J[:20, :20] = SpinModel.mattis(20, seed=0, dtype=torch.float64).matrix
    J[20:, 20:] = second.matrix
    return SpinModel.from_matrix(J)


@pytest.mark.parametrize(
    ("second", "outcome"),
    [
        (SpinModel.mattis(20, seed=1, dtype=torch.float64), "not a minimum"),
        (SpinModel.sk(30, seed=3, dtype=torch.float64), "Plefka violated"),
    ],
)
def test_solutions_that_fail_a_test_are_counted_by_it(monkeypatch, second, outcome):
    """The second block at 0: a saddle of a ferromagnet, no phase of a glass."""
    model, T = two_blocks(second), 0.5

    def half(equations, m, iterations):
        begun = m.clone()
        begun[:, 20:] = 0
        return damped(equations, begun, iterations)

    monkeypatch.setitem(SOLVERS, "damped", half)
    found = tap(model, T, starts=5, seed=0, solvers=["damped"])
    assert found["count"].sel(outcome_kind=outcome).values.tolist() == [5]
    assert found.sizes["solution"] == 0
    check_counts(found, 5)
    m = half(TapEquations(model, T), magnetisations(model.n), 1500)[0].numpy()
    assert dense_residual(model, T, m) < 1e-8
    least = np.linalg.eigvalsh(dense_hessian(model, T, m))[0]
    assert (least > 0) == (outcome == "Plefka violated")
    assert least > 0 or outcome == "not a minimum"
    if outcome == "Plefka violated":
        assert dense_plefka(model, T, m) < 0


# The global flip


def test_flips_are_one_solution_without_fields_and_two_with_them():
    model, T = SpinModel.mattis(60, seed=5, dtype=torch.float64), 0.5
    found = tap(model, T, starts=30, seed=0)
    assert found.sizes["solution"] == 1
    assert (found.hits == 30).all()
    signs = model.matrix[0].sign()  # ξ, up to ξ_0
    signs[0] = 1
    field = 0.02
    pulled = SpinModel.from_matrix(model.matrix, fields=field * signs)
    both = tap(pulled, T, starts=30, seed=0)
    assert both.sizes["solution"] == 2
    check_accepted(pulled, T, both)
    check_counts(both, 30)
    assert float(both.overlap[0, 1]) < -0.99
    assert (both.hits.sum("solution") == 30).all()
    along = both.m.values @ signs.numpy() / 60
    assert (np.abs(along) > 0.9).all()
    side = np.sign(along)  # lowest F first: that along the field
    assert side.tolist() == [side[0], -side[0]]
    assert side[0] == 1
    gap = float(both.free_energy[1] - both.free_energy[0])
    m = np.abs(along).mean()
    assert gap == pytest.approx(2 * 60 * field * m, rel=0.05)


def test_a_solver_that_is_given_too_few_iterations_has_not_converged():
    model, T, _ = planted(0, 0.7)
    found = tap(model, T, starts=10, seed=0, solvers=["damped"], iterations=3)
    assert found["count"].sel(outcome_kind="not converged").values.tolist() == [10]
    assert found.sizes["solution"] == 0


def test_states_that_are_no_mirror_images_are_two_solutions():
    """Two uncoupled ferromagnets: (+, +) and (+, −), whose cosine is 0."""
    model = two_blocks(SpinModel.mattis(20, seed=1, dtype=torch.float64))
    found = tap(model, 0.5, starts=20, seed=0, solvers=["damped"])
    assert found.sizes["solution"] == 2
    assert found.hits.sum() == 20
    assert abs(float(found.overlap[0, 1])) < 1e-6
    check_accepted(model, 0.5, found)
    assert np.ptp(found.free_energy.values) < 1e-8


def test_solvers_begin_from_the_same_starts_and_the_seed_decides():
    model = SpinModel.layered([20, 20], seed=0, spike=3.0)
    before = torch.get_rng_state()
    first, again = (tap(model, 1.5, starts=5, seed=0) for _ in range(2))
    assert first.identical(again)
    alone = tap(model, 1.5, starts=5, seed=0, solvers=["amp"])
    assert (alone.outcome.values == first.outcome.sel(solver=["amp"]).values).all()
    assert torch.equal(before, torch.get_rng_state())
    assert model.dtype == torch.float32
    assert first.m.dtype == np.float64


@pytest.mark.parametrize(
    ("given", "error", "told"),
    [
        ({"T": 0.0}, ValueError, "T=0"),
        ({"T": -1.0}, ValueError, "T=-1"),
        ({"T": float("nan")}, ValueError, "T="),
        ({"T": float("inf")}, ValueError, "T="),
        ({"T": [0.5, 1.0]}, ValueError, "one positive"),
        ({"T": "hot"}, ValueError, "T="),
        ({"starts": 0}, ValueError, "starts"),
        ({"starts": 2.0}, ValueError, "starts"),
        ({"solvers": ["newton"]}, ValueError, "newton"),
        ({"solvers": []}, ValueError, "solvers"),
        ({"solvers": "damped"}, ValueError, "solvers"),
        ({"iterations": 0}, ValueError, "iterations"),
        ({"same": 1.0}, ValueError, "same"),
        ({"same": 0.0}, ValueError, "same"),
        ({"model": torch.nn.Linear(2, 2)}, TypeError, "from_module"),
    ],
)
def test_what_does_not_fit_is_named(given, error, told):
    with pytest.raises(error, match=told):
        tap(**({"model": SpinModel.sk(8), "T": 1.0, "starts": 2} | given))
