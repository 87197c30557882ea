"""Phases: glasses touch, orders cross; T_c against theory, dense algebra and permuted nulls."""

import numpy as np
import pytest
import torch

import spinscape as ss
from spinscape.spins.couplings import SpinModel
from spinscape.spins.phases import phase
from spinscape.spins.replica import critical_temperature
from spinscape.spins.stability import Paramagnet, stability_scan

SMALL = [
    SpinModel.layered([20, 15, 12], seed=1),
    SpinModel.layered([40, 30], [0.5], seed=2, spike=2.0),
    SpinModel.sk(50, 3),
    SpinModel.mattis(40, 4),
]


def dense_lowest(model, beta):
    J = model.dense_bonds().double().numpy()
    A = np.eye(model.n) - beta * J + beta**2 * np.diag((J**2).sum(1))
    return np.linalg.eigvalsh(A)[0]


@pytest.mark.parametrize("model", SMALL, ids=str)
@pytest.mark.parametrize("beta", [0.2, 0.7, 1.5])
def test_the_smallest_eigenvalue_is_that_of_the_dense_matrix(model, beta):
    assert Paramagnet(model).lowest(beta)[0] == pytest.approx(dense_lowest(model, beta), abs=1e-6)


@pytest.mark.parametrize("model", SMALL, ids=str)
def test_the_scan_finds_the_first_root_or_the_lowest_value(model):
    found = stability_scan(Paramagnet(model))
    grid = np.linspace(0.3 * found.beta, 1.5 / Paramagnet(model).onset(), 400)
    values = np.array([dense_lowest(model, beta) for beta in grid])
    assert found.crosses == (values.min() < 0)
    if found.crosses:
        root = grid[np.flatnonzero(values < 0)[0]]
        assert found.beta == pytest.approx(root, abs=2 * (grid[1] - grid[0]))
        assert dense_lowest(model, found.beta) == pytest.approx(0, abs=1e-3)
    assert found.lowest == pytest.approx(dense_lowest(model, found.beta_min), abs=1e-4)
    assert found.lowest < values.min() + 1e-3


def test_onset_and_naive_mean_field():
    model = SMALL[0]
    J = model.dense_bonds().double().numpy()
    paramagnet = Paramagnet(model)
    assert paramagnet.onset() == pytest.approx(np.linalg.eigvalsh(J**2)[-1] ** 0.5)
    assert paramagnet.largest_coupling() == pytest.approx(np.linalg.eigvalsh(J)[-1])


@pytest.mark.parametrize("widths", [(200,) * 4, (300, 200, 250), (784, 200, 200, 10)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_random_layers_are_glasses_at_the_temperature_of_theory(widths, seed):
    found = phase(SpinModel.layered(widths, 1 / 3, seed), seed=seed)
    assert str(found.kind.values) == "glass"
    assert float(found.T_c) == pytest.approx(critical_temperature(widths, 1 / 3), rel=0.05)
    assert float(found.T_variance) == pytest.approx(critical_temperature(widths, 1 / 3), rel=0.02)


@pytest.mark.parametrize("widths", [(200,) * 4, (300, 200, 250), (784, 200, 200, 10)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_planted_layers_are_ordered_at_the_temperature_of_theory(widths, seed):
    found = phase(SpinModel.layered(widths, 1.0, seed, spike=3.0), seed=seed)
    assert str(found.kind.values) == "order"
    assert float(found.T_c) == pytest.approx(critical_temperature(widths, 1.0, 3.0), rel=0.05)
    assert float(found.T_c) > float(found.T_null.max())


def test_naive_mean_field_is_more_than_twice_too_high():
    found = phase(SpinModel.layered([784, 100, 10], 1 / 3, 0), permutations=2)
    ratio = float(found.T_naive) / critical_temperature([784, 100, 10], 1 / 3)
    assert 2.1 <= ratio <= 2.5


def test_dense_glasses_come_near_one_and_a_mean_coupling_orders():
    glasses = [phase(SpinModel.sk(400, seed), permutations=2, seed=seed) for seed in range(4)]
    near = [float(each.T_c) for each in glasses]
    assert np.median(near) == pytest.approx(1.0, abs=0.05)
    ordered = phase(SpinModel.sk(400, 0, 2.0), permutations=2)
    assert str(ordered.kind.values) == "order"
    assert float(ordered.T_c) == pytest.approx(2.0, rel=0.05)


def test_a_glass_that_crosses_by_accident_is_no_order():
    kinds, crossed = [], 0
    for seed in range(24):
        found = phase(SpinModel.sk(100, seed), permutations=4, seed=seed)
        crossed += float(found.lowest) < 0
        kinds.append(str(found.kind.values))
    assert kinds.count("order") <= 1
    assert crossed < 8


def test_the_softest_direction_is_the_planted_one():
    model = SpinModel.layered([80, 70, 60], [0.0, 0.0], seed=5, spike=1.0)
    noisy = SpinModel.layered([80, 70, 60], 1.0, seed=5, spike=4.0)
    found = phase(noisy, permutations=2)
    values, vectors = torch.linalg.eigh(model.dense_bonds().double())
    planted = vectors[:, -1].numpy()
    assert abs(planted @ found.mode.values) > 0.9
    assert found.layer.values.tolist() == [0] * 80 + [1] * 70 + [2] * 60
    assert float(values[-1]) > 0


@pytest.mark.parametrize("factor", [0.01, 30.0])
def test_temperatures_scale_with_the_weights(factor):
    model = SpinModel.layered([60, 50, 40], 1.0, 0, spike=2.5)
    scaled = SpinModel([factor * layer for layer in model.layers])
    one, other = (phase(each, permutations=2) for each in (model, scaled))
    assert float(other.T_c) == pytest.approx(factor * float(one.T_c), rel=1e-3)
    assert str(one.kind.values) == str(other.kind.values)


def test_precision_changes_nothing_and_a_seed_fixes_all():
    model = SpinModel.layered([60, 50, 40], 1.0, 0)
    one, again = phase(model, seed=1), phase(model, seed=1)
    assert one.drop_attrs().identical(again.drop_attrs())
    other = phase(model.to(torch.float64), seed=1)
    assert float(other.T_c) == pytest.approx(float(one.T_c), rel=1e-4)


def test_nulls_are_the_same_weights_elsewhere():
    model = SpinModel.layered([60, 50, 40], 1.0, 0, spike=3.0)
    for null, layer in zip(model.permuted(3).layers, model.layers, strict=True):
        assert torch.equal(null.flatten().sort().values, layer.flatten().sort().values)
        assert not torch.equal(null, layer)
    dense = SpinModel.sk(30, 0)
    shuffled = dense.permuted(1).matrix
    assert torch.equal(shuffled, shuffled.T)
    assert torch.equal(shuffled.flatten().sort().values, dense.matrix.flatten().sort().values)


def test_without_nulls_a_root_decides_and_the_rule_says_so():
    model = SpinModel.layered([60, 50, 40], 1.0, 0, spike=3.0)
    found = phase(model, permutations=0)
    assert str(found.kind.values) == "order"
    assert found.sizes["permutation"] == 0
    assert "no nulls" in found.attrs["rule"]
    assert "one null" in phase(model, permutations=1).attrs["rule"]


@pytest.mark.parametrize(
    ("call", "kind", "told"),
    [
        (lambda: phase(torch.ones(3, 3)), TypeError, "from_module"),
        (lambda: phase(SMALL[0], permutations=-1), ValueError, "permutations"),
        (lambda: phase(SMALL[0], permutations=True), ValueError, "permutations"),
        (lambda: phase(SpinModel([torch.zeros(4, 3)])), ValueError, "zero"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(call, kind, told):
    with pytest.raises(kind, match=told):
        call()


def test_names_are_those_that_users_are_promised():
    found = ss.spins.phase(ss.spins.SpinModel.layered([30, 20], seed=0), permutations=2, seed=0)
    assert found.kind == "glass"
    assert float(found.T_c) > 0
