"""What the symmetry of hidden units moves must leave every output where it was."""

from itertools import pairwise

import pytest
import torch
from torch import nn

import oracles
from spinscape.nets.models import cnn, mlp
from spinscape.nets.symmetry import of

DEPTHS = {"linear": [], "one": [6], "two": [6, 5], "deep": [7, 6, 5, 4]}


def task(hidden, activation="relu", bias=True, count=4):
    generator = torch.Generator().manual_seed(1)
    module = mlp(5, hidden, 3, activation=activation, bias=bias).double()
    n = oracles.point_of(module).numel()
    points = torch.randn(count, n, generator=generator, dtype=torch.float64)
    x = torch.randn(20, 5, generator=generator, dtype=torch.float64)
    return module, points, x


def assert_same_outputs(module, found, points, x):
    expected = oracles.outputs_at(oracles.models_at(module, points), x)
    actual = oracles.outputs_at(oracles.models_at(module, found), x)
    torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-11)


def own_permutations(symmetry, count, seed=2):
    generator = torch.Generator().manual_seed(seed)
    drawn = [symmetry.random_permutation(generator) for _ in range(count)]
    return [torch.stack(orders) for orders in zip(*drawn, strict=True)]


def factors_for(symmetry, *batch, seed=3):
    generator = torch.Generator().manual_seed(seed)
    widths = [layer.width for layer in symmetry.layers if layer.rescalable]
    shapes = [(*batch, width) for width in widths]
    return [torch.randn(shape, generator=generator, dtype=torch.float64).exp() for shape in shapes]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "tanh", "gelu", "identity"])
@pytest.mark.parametrize("depth", DEPTHS)
def test_outputs_stay(depth, activation, bias):
    module, points, x = task(DEPTHS[depth], activation, bias)
    symmetry = of(module)
    assert symmetry.widths == tuple(DEPTHS[depth])
    kept = points.clone()
    for orders in (own_permutations(symmetry, 1), own_permutations(symmetry, len(points))):
        orders = [order.squeeze(0) for order in orders]
        permuted = symmetry.permute(points, orders)
        assert_same_outputs(module, permuted, points, x)
        assert not orders or not torch.equal(permuted, points)
    for batch in ((), (len(points),)):
        rescaled = symmetry.rescale(points, factors_for(symmetry, *batch))
        assert_same_outputs(module, rescaled, points, x)
    assert_same_outputs(module, symmetry.balance(points), points, x)
    assert torch.equal(points, kept)


def test_unit_k_is_what_was_unit_permutation_k():
    module, points, x = task([6, 5])
    symmetry = of(module)
    orders = own_permutations(symmetry, len(points))
    found = oracles.models_at(module, symmetry.permute(points, orders))
    for k, model in enumerate(oracles.models_at(module, points)):
        torch.testing.assert_close(found[k][:2](x), model[:2](x)[:, orders[0][k]])
        torch.testing.assert_close(found[k][:4](x), model[:4](x)[:, orders[1][k]])
    back = symmetry.permute(symmetry.permute(points, orders), [o.argsort(-1) for o in orders])
    assert torch.equal(back, points)


@pytest.mark.parametrize("depth", ["one", "two", "deep"])
@pytest.mark.parametrize("bias", [True, False])
def test_balanced_points_have_the_least_norm_and_equal_norms_in_and_out(depth, bias):
    module, points, _ = task(DEPTHS[depth], bias=bias)
    symmetry = of(module)
    balanced = symmetry.balance(points)
    torch.testing.assert_close(symmetry.balance(balanced), balanced, rtol=1e-12, atol=1e-14)
    for model in oracles.models_at(module, balanced):
        layers = [part for part in model if isinstance(part, nn.Linear)]
        for first, second in pairwise(layers):
            rows = first.weight if not bias else torch.cat([first.weight, first.bias[:, None]], 1)
            torch.testing.assert_close(rows.norm(dim=1), second.weight.norm(dim=0))
    for seed in range(20):
        other = symmetry.rescale(balanced, factors_for(symmetry, len(points), seed=seed))
        assert (other.norm(dim=-1) > balanced.norm(dim=-1)).all()


@pytest.mark.parametrize("depth", ["one", "two", "deep"])
def test_one_representative_whatever_the_scale_and_the_batch(depth):
    module, points, _ = task(DEPTHS[depth])
    symmetry = of(module)
    balanced = symmetry.balance(points)
    scaled = symmetry.rescale(points, factors_for(symmetry, len(points)))
    torch.testing.assert_close(symmetry.balance(scaled), balanced, rtol=1e-10, atol=1e-12)
    for k, point in enumerate(points):
        assert torch.equal(symmetry.balance(point), balanced[k])
    assert torch.equal(symmetry.balance(points.view(2, 2, -1)), balanced.view(2, 2, -1))
    assert torch.equal(symmetry.balance(points.flip(0)), balanced.flip(0))
    assert symmetry.balance(points[:0]).shape == points[:0].shape
    single = symmetry.balance(points.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), balanced, rtol=1e-4, atol=1e-5)


def test_units_without_a_way_in_or_out_are_left_alone():
    module, points, x = task([6, 5])
    symmetry = of(module)
    with torch.no_grad():
        symmetry.layers[0].weights_in(points)[:, 2] = 0
        points[:, symmetry.layers[0].bias][:, 2] = 0
        symmetry.layers[1].weights_out(points)[..., 1] = 0
    balanced = symmetry.balance(points)
    assert torch.isfinite(balanced).all()
    assert_same_outputs(module, balanced, points, x)


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "gelu", "identity"])
def test_only_relu_and_leaky_relu_are_rescaled(activation):
    module, points, _ = task([6, 5], activation)
    symmetry = of(module)
    assert not any(layer.rescalable for layer in symmetry.layers)
    assert torch.equal(symmetry.balance(points), points)
    assert torch.equal(symmetry.rescale(points, []), points)
    assert "rescaling of the units of 0 of 2" in symmetry.describe()


def test_mixed_activations_are_told_apart():
    relu, tanh = nn.Sequential(nn.LeakyReLU(0.2), nn.Dropout(), nn.ReLU()), nn.Tanh()
    module = nn.Sequential(
        nn.Flatten(), nn.Linear(5, 6), relu, nn.Linear(6, 4), tanh, nn.Linear(4, 3)
    ).double()
    points = task([6, 4])[1]
    x = task([6, 4])[2]
    symmetry = of(module)
    assert [layer.rescalable for layer in symmetry.layers] == [True, False]
    assert [layer.name for layer in symmetry.layers] == ["1", "3"]
    scaled = symmetry.rescale(points, factors_for(symmetry))
    assert_same_outputs(module, scaled, points, x)
    assert not torch.equal(scaled, points)
    assert symmetry.outside.tolist() == list(range(points.shape[-1] - 3, points.shape[-1]))


def tied():
    shared = nn.Linear(4, 4)
    return nn.Sequential(shared, nn.ReLU(), shared)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x):
        return x + self.inner(x)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: cnn(1, 3, width=2), "layer '0' is a Conv2d: .*pass symmetry="),
        (lambda: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), "layer '1' is a BatchNorm1d"),
        (lambda: nn.Sequential(nn.Linear(4, 4), Residual()), "layer '1' is a Residual"),
        (lambda: nn.Sequential(nn.Linear(4, 4), nn.PReLU()), "layer '1' is a PReLU"),
        (lambda: nn.Sequential(nn.Linear(4, 4), nn.Softmax(1)), "layer '1' is a Softmax"),
        (Residual, "layer 'module' is a Residual"),
        (tied, "layer '2.weight' shares its weights"),
        (lambda: nn.Sequential(nn.Linear(4, 4), nn.Linear(5, 4)), "layer '1' takes 5 inputs"),
        (nn.ReLU, "no linear layer"),
    ],
)
def test_other_modules_are_refused_by_layer(build, message):
    with pytest.raises(TypeError, match=message):
        of(build())


def test_a_given_symmetry_is_taken_if_it_fits():
    given = of(mlp(4, [], 4))
    assert of(Residual(), given) is given
    with pytest.raises(ValueError, match="symmetry: of points of length 20, module has 8"):
        of(mlp(3, [], 2), given)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s, p: s.permute(p, []), r"permutation: .* of lengths \(6, 5\), got lengths \(\)"),
        (lambda s, p: s.rescale(p, [torch.ones(6)]), "factors: expected 2"),
        (
            lambda s, p: s.rescale(p, [torch.ones(6), -torch.ones(5)]),
            "factors: must be positive, got -1",
        ),
        (lambda s, p: s.balance(p[..., 1:]), "points: expected last axis 89"),
    ],
)
def test_misfits_are_refused_by_name(call, message):
    module, points, _ = task([6, 5])
    with pytest.raises(ValueError, match=message):
        call(of(module), points)
