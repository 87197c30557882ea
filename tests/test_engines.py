"""Engines give the numbers of a plain loop over models, whatever is cut into whichever pieces."""

import copy
import random
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import oracles
from spinscape.landscape.energy import Landscape
from spinscape.nets.engine import engine_of
from spinscape.nets.models import ACTIVATIONS, cnn, mlp

HIDDEN = {0: [], 1: [5], 2: [5, 4], 3: [5, 4, 3]}


def close(found, expected, rtol=1e-10):
    """Relative to the largest entry, so that entries that cancel are not compared with zero."""
    scale = float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=rtol, atol=rtol * max(scale, 1e-300))


def random_points(module, count=4, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    point = oracles.point_of(module).to(dtype)
    return point + 0.3 * torch.randn(count, len(point), generator=generator, dtype=dtype)


def dense_task(hidden=(5,), activation="relu", inputs=6, classes=3, samples=23, bias=True):
    generator = torch.Generator().manual_seed(1)
    module = mlp(inputs, list(hidden), classes, activation=activation, bias=bias).double()
    x = torch.randn(samples, inputs, generator=generator, dtype=torch.float64)
    y = torch.randint(0, classes, (samples,), generator=generator)
    return module, x, y


def image_task(dtype=torch.float64, samples=21):
    generator = torch.Generator().manual_seed(2)
    module = cnn(1, 3, width=2).to(dtype)
    for layer in module:  # running statistics other than those of a fresh layer
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(generator=generator)
            layer.running_var.uniform_(0.5, 2, generator=generator)
    x = torch.randn(samples, 1, 6, 6, generator=generator, dtype=dtype)
    y = torch.randint(0, 3, (samples,), generator=generator)
    return module, x, y


def assert_all_equal(landscape, models, points, x, y, loss):
    vectors = torch.randn(points.shape, generator=torch.Generator().manual_seed(3)).to(points)
    close(landscape.loss(points), oracles.losses_at(models, x, y, loss))
    close(landscape.outputs(points), oracles.outputs_at(models, x))
    close(landscape.gradient(points), oracles.gradients_at(models, x, y, loss))
    close(landscape.hvp(points, vectors), oracles.products_at(models, vectors, x, y, loss))
    value, error = landscape.evaluate(points)
    close(value, oracles.losses_at(models, x, y, loss))
    assert torch.allclose(error, oracles.errors_at(models, x, y), atol=1e-12)


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("depth", HIDDEN)
def test_engines_agree_with_a_plain_loop(depth, activation, loss):
    module, x, y = dense_task(HIDDEN[depth], activation)
    points = random_points(module)
    models = oracles.models_at(module, points)
    for engine in ("dense", "vmap", "loop"):
        landscape = Landscape(module, x, y, loss, engine=engine)
        assert landscape.engine == engine
        assert_all_equal(landscape, models, points, x, y, loss)


@pytest.mark.parametrize("statistics", ["frozen", "reestimate"])
@pytest.mark.parametrize("engine", ["vmap", "loop"])
def test_batch_norm_agrees_with_a_plain_loop(engine, statistics):
    module, x, y = image_task()
    points = random_points(module, 3)
    options = {"engine": engine, "statistics": statistics, "statistics_batch": 8}
    landscape = Landscape(module, x, y, **options)
    inputs = None if statistics == "frozen" else x
    models = oracles.models_at(module, points, inputs, batch=8)
    assert_all_equal(landscape, models, points, x, y, "cross_entropy")


def test_statistics_come_from_the_inputs_asked_for():
    module, x, y = image_task()
    points = random_points(module, 2)
    other = 2 + 3 * x.flip(0)
    for asked, used in ((10, x[:10]), (other, other)):
        found = Landscape(module, x, y, statistics_samples=asked, statistics_batch=7).loss(points)
        close(found, oracles.losses_at(oracles.models_at(module, points, used, 7), x, y))


def test_batch_norm_without_running_statistics_is_given_some():
    module, x, y = image_task()
    bare = copy.deepcopy(module)
    for k, layer in enumerate(bare):
        if isinstance(layer, nn.BatchNorm2d):
            bare[k] = nn.BatchNorm2d(layer.num_features, track_running_stats=False).double()
    points = random_points(module, 2)
    expected = oracles.losses_at(oracles.models_at(module, points, x), x, y)
    close(Landscape(bare, x, y).loss(points), expected)
    with pytest.raises(ValueError, match="statistics='frozen'"):
        Landscape(bare, x, y, statistics="frozen")


def test_without_bias_and_with_images_and_regression_targets():
    module, x, y = dense_task(bias=False)
    points = random_points(module)
    landscape = Landscape(module, x, y, engine="dense")
    assert_all_equal(landscape, oracles.models_at(module, points), points, x, y, "cross_entropy")
    targets = torch.randn(len(x), 3, generator=torch.Generator().manual_seed(4)).double()
    flattens = mlp((2, 3), [5], 3, bias=False).double()
    models = oracles.models_at(flattens, points)
    for engine in ("dense", "vmap"):
        landscape = Landscape(flattens, x.view(-1, 2, 3), targets, "mse", engine=engine)
        expected = oracles.gradients_at(models, x.view(-1, 2, 3), targets, "mse")
        close(landscape.gradient(points), expected)


def test_a_callable_joins():
    module, x, y = dense_task()
    points = random_points(module)

    def smooth(outputs, y):
        return nn.functional.cross_entropy(outputs, y, label_smoothing=0.1)

    models = oracles.models_at(module, points)
    for engine in ("dense", "vmap", "loop"):
        landscape = Landscape(module, x, y, smooth, engine=engine)
        assert_all_equal(landscape, models, points, x, y, smooth)


def test_as_many_points_as_samples_are_not_taken_for_targets_of_their_own():
    module, x, _ = dense_task(classes=4, samples=4)
    y = torch.randn(4, 4, generator=torch.Generator().manual_seed(5)).double()
    points = random_points(module, 4)
    models = oracles.models_at(module, points)
    for loss in ("mse", lambda outputs, y: (outputs - y).abs().mean()):
        landscape = Landscape(module, x, y, loss)
        close(landscape.loss(points), oracles.losses_at(models, x, y, loss))
        close(landscape.gradient(points), oracles.gradients_at(models, x, y, loss))


@pytest.mark.parametrize("memory", [1, 20_000])
@pytest.mark.parametrize("task", [dense_task, image_task])
def test_chunks_change_nothing(task, memory):
    module, x, y = task()
    x, y = x[:9], y[:9]
    points = random_points(module, 5)
    vectors = random_points(module, 5, seed=9)
    whole, cut = Landscape(module, x, y), Landscape(module, x, y, memory=memory)
    for name in ("loss", "error", "outputs", "gradient"):
        close(getattr(cut, name)(points), getattr(whole, name)(points), 1e-12)
    close(cut.hvp(points, vectors), whole.hvp(points, vectors), 1e-12)
    tracked = points.clone().requires_grad_()
    cut.loss(tracked).sum().backward()
    close(tracked.grad, whole.gradient(points), 1e-12)


@pytest.mark.parametrize("task", [dense_task, image_task])
def test_a_point_does_not_know_its_companions(task):
    module, x, y = task()
    points = random_points(module, 6)
    landscape = Landscape(module, x, y)
    for name in ("loss", "error", "gradient"):
        among, alone = getattr(landscape, name)(points), getattr(landscape, name)(points[2:3])
        close(among[2:3], alone, 1e-12)
    grid = points.view(2, 3, -1)
    assert landscape.loss(grid).shape == landscape.error(grid).shape == (2, 3)
    assert landscape.gradient(grid).shape == landscape.hvp(grid, points[0]).shape == grid.shape
    close(landscape.loss(grid)[1, 0], landscape.loss(points[3]), 1e-12)
    assert landscape.loss(points[:0]).shape == (0,)
    assert landscape.outputs(points[:0]).shape == (0, len(x), 3)
    assert landscape.loss(points[:0].clone().requires_grad_()).shape == (0,)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_point_that_is_not_a_number_leaves_the_others_alone(classes):
    module, x, y = dense_task(classes=classes)
    module, y = mlp(6, [5], classes).double(), y.clamp(max=classes - 1)
    points = torch.zeros(2, oracles.point_of(module).numel(), dtype=torch.float64)
    points[1] = torch.nan
    landscape = Landscape(module, x, y)
    close(landscape.error(points)[:1], landscape.error(points[:1]), 1e-12)
    close(landscape.error(points[:1]), (y != 0).double().mean()[None], 1e-12)
    assert landscape.error(points)[1].isnan()
    assert landscape.loss(points).isnan().tolist() == [False, True]


def test_hessian_is_symmetric_and_equals_the_dense_one():
    module, x, y = dense_task(activation="tanh")
    landscape = Landscape(module, x, y)
    point = random_points(module, 1)[0]
    found = landscape.hvp(point, torch.eye(landscape.n, dtype=torch.float64))
    close(found, found.T.contiguous(), 1e-10)
    models = oracles.models_at(module, point.expand_as(found))
    close(found, oracles.products_at(models, torch.eye(landscape.n).double(), x, y))


@pytest.mark.parametrize("engine", ["dense", "vmap", "loop"])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_autograd_follows_the_loss(engine, loss):
    module, x, y = dense_task([2], "tanh", inputs=2, samples=6)
    landscape = Landscape(module, x, y, loss, engine=engine, memory=1000)
    points = random_points(module, 2).requires_grad_()
    assert torch.autograd.gradcheck(landscape.loss, points)
    assert torch.autograd.gradgradcheck(landscape.loss, points)


def test_autograd_through_batch_norm_holds_statistics_fixed():
    module, x, y = image_task()
    points = random_points(module, 2).requires_grad_()
    landscape = Landscape(module, x, y)
    (found,) = torch.autograd.grad(landscape.loss(points).sum(), points)
    close(found, landscape.gradient(points.detach()), 1e-12)


class Counting(nn.Module):
    """Its buffer changes with every pass."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3).double()
        self.register_buffer("passes", torch.zeros((), dtype=torch.float64))

    def forward(self, x):
        self.passes += 1
        return self.layer(x)


def random_states():
    numpy = np.random.get_state()[1].tolist()  # noqa: NPY002
    return torch.get_rng_state().tolist(), numpy, random.getstate()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["dense", "image", "counting"])
def test_module_buffers_mode_and_random_state_stay_as_they_were(name, training):
    module, x, y = image_task() if name == "image" else dense_task()
    module = Counting() if name == "counting" else nn.Sequential(module, nn.Dropout(0.5))
    module.train(training)
    kept, states = copy.deepcopy(module.state_dict()), random_states()
    landscape = Landscape(module, x, y, memory=20_000)
    points = random_points(module, 3)
    landscape.loss(points.clone().requires_grad_()).sum().backward()
    landscape.evaluate(points)
    landscape.gradient(points)
    landscape.hvp(points, points)
    landscape.outputs(points)
    landscape.line(points[0], points[1])
    landscape.lines(points, points, [0.0, 0.5, 1.0])
    assert random_states() == states
    assert all(part.training == training for part in module.modules())
    assert all(p.requires_grad and p.grad is None for p in module.parameters())
    for key, value in module.state_dict().items():
        assert torch.equal(value, kept[key])


def test_control_flow_on_data_is_looped_over_with_a_warning():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 3).double()

        def forward(self, x):
            outputs = self.layer(x)
            return outputs if outputs.sum() > 0 else 2 * outputs

    _, x, y = dense_task()
    module = Branching()
    points = random_points(module, 5)
    with pytest.warns(UserWarning, match="'Branching' cannot be run at many points at once"):
        landscape = Landscape(module, x, y)
    assert landscape.engine == "loop"
    models = oracles.models_at(module, points)
    close(landscape.loss(points), oracles.losses_at(models, x, y))
    close(landscape.gradient(points), oracles.gradients_at(models, x, y))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        close(Landscape(module, x, y, engine="loop").loss(points), landscape.loss(points))


def test_dropout_is_left_out_of_evaluation():
    module, x, y = dense_task()
    drops = nn.Sequential(*module[:2], nn.Dropout(0.5), *module[2:]).train()
    points = random_points(module)
    expected = oracles.losses_at(oracles.models_at(module, points), x, y)
    for engine in ("dense", "vmap", "loop"):
        close(Landscape(drops, x, y, engine=engine).loss(points), expected)


@pytest.mark.parametrize("task", [dense_task, image_task])
def test_points_fix_the_precision(task):
    module, x, y = task()
    points = random_points(module)
    expected = Landscape(module, x, y).loss(points)
    for kind in (torch.float32, torch.float64):
        landscape = Landscape(copy.deepcopy(module).to(kind), x.to(kind), y)
        for dtype in (torch.float32, torch.float64):
            found = landscape.loss(points.to(dtype))
            assert found.dtype == landscape.gradient(points.to(dtype)).dtype == dtype
            assert landscape.hvp(points.to(dtype), points).dtype == dtype
            torch.testing.assert_close(found.double(), expected, rtol=2e-5, atol=1e-6)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(1, 7), max_size=3),
    st.integers(1, 5),
    st.integers(1, 4),
    st.integers(1, 6),
    st.sampled_from(sorted(ACTIVATIONS)),
    st.booleans(),
)
def test_two_engines_agree_at_any_width(hidden, inputs, classes, samples, activation, bias):
    module, x, y = dense_task(hidden, activation, inputs, classes, samples, bias)
    points = random_points(module, 3)
    dense = Landscape(module, x, y, engine="dense", memory=3_000)
    vmap = Landscape(module, x, y, engine="vmap")
    close(dense.loss(points), vmap.loss(points))
    close(dense.gradient(points), vmap.gradient(points))
    close(dense.outputs(points), vmap.outputs(points))


def test_engines_are_chosen_and_refused_by_name():
    assert engine_of(mlp(4, [3], 2)).name == "dense"
    assert engine_of(nn.Sequential(nn.Linear(4, 3), nn.SiLU(), nn.Linear(3, 2))).name == "auto"
    shared = nn.Linear(4, 4)
    for module in (nn.Sequential(shared, nn.ReLU(), shared), nn.Sequential(shared, nn.ReLU())):
        with pytest.raises(ValueError, match="engine='dense': module 'Sequential' is not"):
            engine_of(module, "dense")
    with pytest.raises(ValueError, match="engine='fast': expected one of"):
        engine_of(mlp(4, [3], 2), "fast")
