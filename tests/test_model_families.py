"""LeNet, VGG, ResNet and a transformer: shapes, seeds, many weights at once, statistics."""

import math
import warnings

import numpy as np
import pytest
import torch
from tests.oracles import gradients_at, losses_at, models_at, run_point
from torch import nn

from spinscape import Landscape, WeightSpace, datasets, models, train
from spinscape.nets.initialisation import initial_points

FAMILIES = {
    "lenet": lambda size=8, **o: models.lenet(1, 3, size=size, **o),
    "vgg": lambda size=8, **o: models.vgg(1, 3, blocks=(1, 1), width=2, **o),
    "plain vgg": lambda size=8, **o: models.vgg(
        1, 3, blocks=(1, 2), width=2, batch_norm=False, **o
    ),
    "resnet": lambda size=8, **o: models.resnet(1, 3, blocks=(1, 1), width=2, **o),
    "transformer": lambda size=8, **o: models.transformer(
        1, 3, size=size, patch=4, width=8, depth=1, heads=2, **o
    ),
}


@pytest.mark.parametrize("size", [8, 28, 32])
@pytest.mark.parametrize("family", FAMILIES)
def test_shapes(family, size):
    module = FAMILIES[family](size)
    assert module(torch.rand(2, 1, size, size)).shape == (2, 3)
    assert [name for name, _ in module.named_children()] == ["features", "classifier"]


@pytest.mark.parametrize(
    "build",
    [
        models.lenet,
        lambda *sizes, size: models.vgg(*sizes),
        lambda *sizes, size: models.resnet(*sizes),
        lambda *sizes, size: models.transformer(*sizes, size=size, patch=4),
    ],
)
@pytest.mark.parametrize("size", [8, 28, 32])
def test_shapes_of_colour_images_as_built_by_default(build, size):
    assert build(3, 10, size=size)(torch.rand(2, 3, size, size)).shape == (2, 10)


def test_pooling_ends_at_one_position():
    x = torch.rand(2, 1, 8, 8)
    assert models.vgg(1, 3, blocks=(1,) * 6, width=2)(x).shape == (2, 3)
    pools = [part for part in models.vgg(1, 3).modules() if isinstance(part, nn.MaxPool2d)]
    assert len(pools) == 2
    assert torch.equal(pools[0](x), nn.functional.max_pool2d(x, 2))
    assert pools[0](x[..., :1]).shape == (2, 1, 4, 1)


def test_width_and_depth():
    counts = [
        (models.lenet(1, 10), [6, 16, 120, 84, 10]),
        (models.lenet(1, 10, width=3), [3, 8, 60, 42, 10]),
        (models.vgg(1, 10, blocks=(1, 2), width=4), [4, 8, 8, 10]),
        (models.vgg(1, 10, blocks=(2, 2, 3, 3, 3), width=2), [2, 2, 4, 4, *[8] * 3, *[16] * 3]),
        (models.resnet(1, 10, blocks=(1, 1), width=4), [4, 4, 4, 8, 8, 8, 10]),
    ]
    for module, expected in counts:
        found = [
            len(part.weight) for part in module.modules() if isinstance(part, nn.Conv2d | nn.Linear)
        ]
        assert found[: len(expected)] == expected
    blocks = models.transformer(1, 10, depth=3, activation="tanh").features
    assert sum(isinstance(part, nn.Tanh) for part in blocks.modules()) == 3


@pytest.mark.parametrize(("size", "patch", "given"), [(28, 7, 8), (8, 8, 16), (28, 7, 35)])
def test_a_transformer_refuses_images_of_another_size(size, patch, given):
    module = models.transformer(1, 3, size=size, patch=patch)
    with pytest.raises(ValueError, match=r"built for \d+; build it with size="):
        module(torch.rand(2, 1, given, given))


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_are_on_the_cpu_whatever_the_default_device(family):
    with torch.device("meta"):
        state = FAMILIES[family]().state_dict()
    assert {value.device.type for value in state.values()} == {"cpu"}


@pytest.mark.parametrize("family", FAMILIES)
def test_seeds_fix_the_weights_and_leave_the_global_state(family):
    state = torch.get_rng_state()
    one, same, other = (FAMILIES[family](seed=seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)
    first, again, third = initial_points(FAMILIES[family](), [0, 0, 1])
    assert torch.equal(first, again)
    assert not torch.equal(first, third)


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(30, 1, 8, 8, dtype=torch.float64, generator=generator)
    return x, torch.arange(30) % 3


@pytest.mark.parametrize("family", FAMILIES)
def test_many_weights_at_once_are_a_loop_over_models(family, data):
    module = FAMILIES[family]().double()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        landscape = Landscape(module, *data)
        points = initial_points(module, [0, 1, 2])
        found = landscape.loss(points)
    assert landscape.engine == "vmap"
    statistics = data[0] if landscape.reestimates else None
    expected = losses_at(models_at(module, points, statistics), *data)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    assert landscape.reestimates == (family in ("vgg", "resnet"))


@pytest.mark.parametrize("family", FAMILIES)
def test_second_derivatives(family, data):
    options = {} if family == "transformer" else {"activation": "tanh"}  # no kinks
    module = FAMILIES[family](**options).double()
    # Held fixed, or the differences would see the statistics move.
    landscape = Landscape(module, *data, statistics="frozen")
    point = landscape.space.point(module).detach()
    generator = torch.Generator().manual_seed(1)
    vector = torch.randn(landscape.n, dtype=torch.float64, generator=generator)
    step = 1e-5 * vector / vector.norm()
    slope = (landscape.gradient(point + step) - landscape.gradient(point - step)) / (2e-5)
    torch.testing.assert_close(
        landscape.hvp(point, vector / vector.norm()), slope, rtol=1e-4, atol=1e-7
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_those_of_one_model_at_a_time(family, data):
    module = FAMILIES[family]().double()
    landscape = Landscape(module, *data)
    points = initial_points(module, [0, 1])
    found = landscape.gradient(points)
    assert bool(found.isfinite().all())
    statistics = data[0] if landscape.reestimates else None
    expected = gradients_at(models_at(module, points, statistics), *data)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-11)


def test_second_derivatives_of_a_transformer_against_its_dense_matrix(data):
    x, y = data[0][:4], data[1][:4]
    module = models.transformer(1, 3, size=8, patch=4, width=4, depth=1, heads=2).double()
    landscape = Landscape(module, x, y)
    point = landscape.space.point(module).detach()
    # Not torch.func.hessian: under nested transforms layer norm has wrong derivatives (2.13).
    matrix = torch.autograd.functional.hessian(
        lambda weights: nn.functional.cross_entropy(run_point(module, weights, x), y), point
    )
    torch.testing.assert_close(matrix, matrix.T, rtol=1e-8, atol=1e-11)
    found = landscape.hvp(point, torch.eye(landscape.n, dtype=torch.float64))
    torch.testing.assert_close(found, matrix, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("family", ["vgg", "resnet"])
@pytest.mark.parametrize("start", ["ones", "uniform", "gaussian"])
def test_batch_norm_weights_begin_where_they_should(family, start):
    build = {"vgg": models.vgg, "resnet": models.resnet}[family]
    module = build(1, 3, width=64, norm_weight=start)
    points = initial_points(module, [0, 1])
    places = dict(_norm_weights(module))
    weights = torch.cat([points[:, place].flatten() for place in places.values()])
    own = torch.cat([p.detach().flatten() for n, p in module.named_parameters() if n in places])
    for drawn in (weights, own):
        if start == "ones":
            assert bool((drawn == 1).all())
            continue
        if start == "uniform":
            assert 0 <= float(drawn.min()) <= float(drawn.max()) <= 1
        mean, variance = (0.5, 1 / 12) if start == "uniform" else (0.0, 0.01)
        # Four standard errors; that of a variance is the Gaussian's, the uniform's is smaller.
        assert abs(float(drawn.mean()) - mean) < 4 * math.sqrt(variance / len(drawn))
        assert abs(float(drawn.var()) / variance - 1) < 4 * math.sqrt(2 / len(drawn))
    if start != "ones":
        assert not torch.equal(points[0], points[1])


@pytest.mark.parametrize("build", [models.vgg, models.resnet])
@pytest.mark.parametrize("start", ["uniform", "gaussian"])
def test_statistics_are_reestimated_whatever_the_norm_weights(build, start, data):
    module = build(1, 3, blocks=(1, 1), width=2, norm_weight=start).double()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        landscape = Landscape(module, *data)
        points = initial_points(module, [0, 1, 2])
        found = landscape.loss(points)
    assert landscape.reestimates
    assert landscape.engine == "vmap"
    expected = losses_at(models_at(module, points, data[0]), *data)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def _norm_weights(module):
    space = WeightSpace(module)
    for name, part in module.named_modules():
        if isinstance(part, nn.BatchNorm2d):
            yield f"{name}.weight", space.slices[f"{name}.weight"]


@pytest.mark.parametrize("family", ["vgg", "resnet", "dropout"])
def test_scans_leave_the_module_bitwise_as_it_was(family, data):
    x, y = data
    if family == "dropout":
        module = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.Dropout(0.5), nn.Linear(4, 3))
        module = module.double().train()
    else:
        module = FAMILIES[family]().double().train()
        module(x)  # running statistics of its own
    before = {name: value.clone() for name, value in module.state_dict().items()}
    landscape = Landscape(module, x, y)
    point = landscape.space.point(module).detach()
    direction = torch.randn(
        landscape.n, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    landscape.line(point, direction, np.linspace(-1, 1, 5))
    landscape.plane(point, direction, direction.roll(1), [-1.0, 0.0], [0.0, 1.0])
    landscape.hvp(point, direction)
    assert all(part.training for part in module.modules())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: models.lenet(1, 3, size=4), "at least 8"),
        (lambda: models.lenet(1, 3, activation="swish"), "activation 'swish'"),
        (lambda: models.lenet(1, 3, width=0), "width must be"),
        (lambda: models.vgg(1, 3, blocks=()), "blocks is empty"),
        (lambda: models.vgg(1, 3, blocks=(1, 0)), "blocks must be"),
        (lambda: models.vgg(1, 3, norm_weight="zeros"), "norm_weight='zeros'"),
        (lambda: models.resnet(0, 3), "channels must be"),
        (lambda: models.resnet(1, 3, blocks=[]), "blocks is empty"),
        (lambda: models.transformer(1, 3, size=28, patch=5), "patch=5"),
        (lambda: models.transformer(1, 3, width=30, heads=4), "heads=4"),
        (lambda: models.transformer(1, 3, depth=0), "depth must be"),
        (lambda: models.transformer(1, 3, activation="swish"), "activation 'swish'"),
    ],
)
def test_bad_sizes_are_refused(build, words):
    with pytest.raises(ValueError, match=words) as told:
        build()
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("build", [models.vgg, models.resnet])
def test_blocks_are_a_sequence(build):
    with pytest.raises(TypeError, match=r"got 3; say \(3,\)"):
        build(1, 3, blocks=3)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["lenet", "vgg", "resnet", "transformer"])
def test_each_learns_digits(family):
    build = {
        "lenet": lambda: models.lenet(1, 10, size=8),
        "vgg": lambda: models.vgg(1, 10, blocks=(1, 1), width=8),
        "resnet": lambda: models.resnet(1, 10, blocks=(1, 1), width=8),
        "transformer": lambda: models.transformer(1, 10, size=8, patch=2, width=32),
    }[family]
    module = nn.Sequential(nn.Unflatten(1, (1, 8, 8)), build())
    options = {"optimizer": "adam", "learning_rate": 3e-3} if family == "transformer" else {}
    trained = train(module, datasets.load("digits", seed=0), replicas=2, epochs=40, **options)
    assert (trained["test_error"] <= 0.1).all()
