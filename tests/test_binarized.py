"""Binarized networks, their loss and initialisation: gradients against autograd, both engines."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from spinscape.nets import losses, models
from spinscape.nets.activations import Sign
from spinscape.nets.engine import training_engine
from spinscape.nets.initialisation import initial_points, kaiming_normal
from spinscape.nets.training import train


def normal(*shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def test_the_sign_is_one_at_zero_and_lets_gradients_through_near_it():
    z = torch.tensor([-2.0, -0.5, -0.0, 0.0, 0.5, 1.0, 2.0], requires_grad=True)
    h = Sign()(z)
    assert h.tolist() == [-1, -1, 1, 1, 1, 1, 1]
    assert set(Sign()(torch.linspace(-1, 1, 999)).tolist()) == {-1.0, 1.0}
    h.sum().backward()
    assert z.grad.tolist() == [0, 1, 1, 1, 1, 0, 0]


def test_both_engines_give_the_same_gradient_of_a_binarized_network():
    module = models.mlp(6, [5, 4], 3, activation="sign").double()
    points = initial_points(module, range(3))
    x, y = normal(20, 6, seed=1), torch.arange(20) % 3
    loss = losses.loss_of("squared_hinge")
    engines = [training_engine(each) for each in (module, Wrapped(module))]
    assert [engine.name for engine in engines] == ["dense", "auto"]
    both = [engine.loss_and_gradient(points, x, y, loss, own=False) for engine in engines]
    for dense, other in zip(*both, strict=True):
        torch.testing.assert_close(dense, other)


class Wrapped(nn.Module):
    """A module that is no chain, so that it is not taken for a dense stack."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x) + 0 * x.sum()


@pytest.mark.parametrize("own", [False, True])
def test_the_squared_hinge_is_what_it_says(own):
    outputs = normal(3, 7, 4, seed=2).requires_grad_()
    y = torch.arange(21).reshape(3, 7) % 4 if own else torch.arange(7) % 4
    loss = losses.SquaredHinge()
    value = loss.value(outputs, y, own=own)
    expected = torch.zeros(3, dtype=torch.float64)
    for p in range(3):
        for s in range(7):
            label = int(y[p, s] if own else y[s])
            for j in range(4):
                if j != label:
                    margin = 1 - outputs[p, s, label] + outputs[p, s, j]
                    expected[p] += margin.clamp(min=0).square().detach() / 7
    torch.testing.assert_close(value, expected)
    value.sum().backward()
    again, slope = loss.output_gradient(outputs.detach(), y, own=own)
    torch.testing.assert_close(again, expected)
    torch.testing.assert_close(slope, outputs.grad)


def test_a_scaled_loss_is_that_of_scaled_outputs():
    outputs, y = normal(2, 9, 3, seed=3).requires_grad_(), torch.arange(9) % 3
    loss = losses.Scaled(losses.CrossEntropy(), 2.5)
    expected = torch.stack([cross_entropy(2.5 * each, y) for each in outputs])
    torch.testing.assert_close(loss.value(outputs, y), expected)
    expected.sum().backward()
    value, slope = loss.output_gradient(outputs.detach(), y)
    torch.testing.assert_close(value, expected.detach())
    torch.testing.assert_close(slope, outputs.grad)


def test_kaiming_weights_have_the_variance_of_their_fan_in():
    module = models.mlp(100, [400], 10)
    before = torch.get_rng_state()
    point = initial_points(module, [7], kaiming_normal)[0]
    assert torch.equal(before, torch.get_rng_state())
    weights = point[: 100 * 400]
    error = (2 / len(weights)) ** 0.5  # of a variance, relative
    assert float(weights.var()) * 100 / 2 == pytest.approx(1, abs=4 * error)
    assert not point[100 * 400 : 100 * 400 + 400].any()


def test_a_binarized_network_learns(tiny_digits):
    module = models.mlp(64, [64], 10, activation="sign", bias=False)
    trained = train(
        module,
        tiny_digits,
        replicas=2,
        epochs=15,
        loss="squared_hinge",
        init=kaiming_normal,
        learning_rate=0.005,
        momentum=0.9,
        seed=0,
    )
    assert float(trained["test_error"].max()) < 0.2


@pytest.fixture(scope="module")
def tiny_digits():
    from spinscape.nets import datasets

    return datasets.load("digits", seed=0)
