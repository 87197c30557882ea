"""Laws of growth are told apart where one was planted, and laziness where weights stay."""

import numpy as np
import pytest
import torch

from spinscape.nets import models
from spinscape.nets.weightspace import WeightSpace
from spinscape.spins.growth_laws import LAWS, first_ordered, growth
from spinscape.spins.laziness import kernel_change, tangent_kernel, weight_change

STEPS = np.geomspace(10, 5000, 24).round()


def planted(name, parameters, seed, spread=0.01):
    noise = np.random.default_rng(seed).normal(size=(6, len(STEPS)))
    return LAWS[name].function(STEPS, *parameters) * np.exp(spread * noise)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("power", (1.2, 0.2)),
        ("offset power", (1.0, 0.1, 0.45)),
        ("logarithm", (0.5, 0.7)),
        ("saturating", (5.0, 3.5, 300.0)),
    ],
)
def test_the_law_that_was_planted_wins(name, parameters):
    found = growth(STEPS, planted(name, parameters, 0), np.ones((6, len(STEPS)), bool))
    advantage = found["advantage"].values
    # a + c t^α holds the logarithm as a limit, so that single seeds may prefer it
    assert (advantage.mean() > 0) == ("power" in name)
    best = found["law"].values[found["criterion"].values.argmin(1)]
    assert (best == name).sum() >= 4


def test_the_exponent_is_that_of_the_law():
    found = growth(STEPS, planted("power", (1.2, 0.2), 1), np.ones((6, len(STEPS)), bool))
    alpha = found["alpha"].values
    error = 0.01 / (np.log(STEPS).std() * len(STEPS) ** 0.5)  # of a slope, least squares
    assert alpha.mean() == pytest.approx(0.2, abs=4 * error / 6**0.5)


def test_only_ordered_checkpoints_enter():
    heats = planted("power", (1.2, 0.2), 2)
    ordered = np.ones(heats.shape, bool)
    ordered[:, :6] = False
    heats[:, :6] = 100.0
    found = growth(STEPS, heats, ordered)
    assert (found["checkpoints"] == len(STEPS) - 6).all()
    assert found["alpha"].values == pytest.approx(0.2, abs=0.02)
    none = growth(STEPS, heats, np.zeros(heats.shape, bool))
    assert none["alpha"].isnull().all()


def test_the_first_ordered_step_is_the_one_after_the_last_glass():
    step = np.array([0.0, 1, 2, 4, 8])
    flags = np.array([[0, 0, 1, 1, 1], [0, 1, 0, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 1, 0]], bool)
    found = first_ordered(step, flags)
    np.testing.assert_array_equal(found[:3], [2, 4, 0])
    assert np.isnan(found[3])


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="expected"):
        growth(STEPS, np.ones((2, 3)), np.ones((2, 3), bool))


def test_the_tangent_kernel_is_the_gram_matrix_of_gradients():
    module = models.mlp(5, [4], 3)
    space = WeightSpace(module)
    point = space.point(module)
    x = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    rows = []
    for sample in x:
        for output in range(3):
            module.zero_grad()
            module(sample[None])[0, output].backward()
            rows.append(torch.cat([p.grad.flatten() for p in module.parameters()]))
    gradients = torch.stack(rows).view(6, 3, -1).double()
    expected = torch.einsum("icn,jcn->ij", gradients, gradients)
    torch.testing.assert_close(tangent_kernel(module, point, x), expected, rtol=1e-5, atol=1e-6)
    assert kernel_change(module, point, point, x) == pytest.approx(0, abs=1e-12)
    other = point + 0.5 * torch.randn(point.shape, generator=torch.Generator().manual_seed(1))
    assert 0 < kernel_change(module, point, other, x) < 2
    assert float(weight_change(point, 1.5 * point)) == pytest.approx(0.5)
