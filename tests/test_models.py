import numpy as np
import pytest
import torch
from torch import nn

from spinscape.nets.models import ACTIVATIONS, cnn, mlp


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_mlp_is_linear_layers_and_activations():
    module = mlp(64, [16, 8], 10)
    kinds = [type(layer) for layer in module]
    assert kinds == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]
    assert count(module) == 64 * 16 + 16 + 16 * 8 + 8 + 8 * 10 + 10


def test_mlp_without_hidden_layers_is_linear():
    module = mlp(3, [], 2, bias=False)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    assert count(module) == 6
    torch.testing.assert_close(module(x), x @ module[0].weight.T)


@pytest.mark.parametrize("inputs", [(8, 8), torch.Size([1, 8, 8])])
def test_mlp_flattens_images(inputs):
    module = mlp(inputs, [4], 10)
    assert module(torch.zeros(3, *inputs)).shape == (3, 10)
    assert count(mlp((64,), [4], 10)) == count(mlp(np.int64(64), [4], 10)) == count(module)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_trains(activation):
    module = mlp(4, [3], 2, activation=activation)
    module(torch.ones(2, 4)).square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in module.parameters())


@pytest.mark.parametrize(
    "build", [lambda seed: mlp(5, [4], 2, seed=seed), lambda seed: cnn(1, 3, seed=seed)]
)
def test_weights_come_from_the_seed_alone(build):
    before = torch.get_rng_state()
    first, again, other = (
        torch.cat([p.flatten() for p in build(seed).parameters()]) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


def test_cnn_takes_images_of_any_size():
    module = cnn(3, 10, width=4).eval()
    for size in ((2, 2), (8, 8), (28, 17)):
        assert module(torch.zeros(2, 3, *size)).shape == (2, 10)
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in module) == 2


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: mlp(64, 16, 10), TypeError, r"say \[16\]"),
        (lambda: mlp(64, [16], 10, activation="rely"), ValueError, "known: relu, leaky_relu"),
        (
            lambda: mlp(64, [0], 10),
            ValueError,
            "hidden must be a whole number of at least 1, got 0",
        ),
        (lambda: mlp(64, [1.5], 10), ValueError, "got 1.5"),
        (lambda: mlp(0, [1], 10), ValueError, "inputs"),
        (lambda: cnn(1, 10, width=0), ValueError, "width"),
    ],
)
def test_wrong_arguments_are_refused(build, error, message):
    with pytest.raises(error, match=message):
        build()
