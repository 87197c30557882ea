"""Losses on lines, planes and subspaces, barriers, and what a landscape refuses."""

import json

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import oracles
from spinscape.landscape.energy import Landscape
from spinscape.landscape.paths import path_barrier
from spinscape.nets.models import cnn, mlp


def task(hidden=(5,), activation="relu", samples=23, dtype=torch.float64, bias=True):
    generator = torch.Generator().manual_seed(1)
    module = mlp(6, list(hidden), 3, activation=activation, bias=bias).to(dtype)
    x = torch.randn(samples, 6, generator=generator, dtype=dtype)
    y = torch.randint(0, 3, (samples,), generator=generator)
    return module, x, y


def images(samples=24):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(samples, 1, 6, 6, generator=generator, dtype=torch.float64)
    return cnn(1, 3, width=2).double(), x, torch.randint(0, 3, (samples,), generator=generator)


def drawn(*shape, seed=3, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def judged(module, points, x, y, statistics=None):
    models = oracles.models_at(module, points.reshape(-1, points.shape[-1]), statistics)
    shape = points.shape[:-1]
    return (
        oracles.losses_at(models, x, y).view(shape),
        oracles.errors_at(models, x, y).view(shape),
    )


def assert_judged(found, expected):
    for values, known in zip(found, expected, strict=True):
        values = torch.as_tensor(values.values) if isinstance(values, xr.DataArray) else values
        torch.testing.assert_close(values, known, rtol=1e-11, atol=1e-12)


SCANS = {
    "linear": (lambda: task(()), "dense"),
    "dense": (task, "dense"),
    "deep": (lambda: task((5, 4, 3), "gelu"), "dense"),
    "tanh": (lambda: task(activation="tanh", bias=False), "dense"),
    "vmap": (task, "vmap"),
    "loop": (task, "loop"),
    "batch norm": (images, "vmap"),
}


@pytest.mark.parametrize("memory", [None, 3000])
@pytest.mark.parametrize("name", SCANS)
def test_lines_planes_and_subspaces_are_the_losses_of_their_points(name, memory):
    build, engine = SCANS[name]
    module, x, y = build()
    statistics = x if name == "batch norm" else None
    landscape = Landscape(module, x, y, engine=engine, memory=memory)
    origin, *directions = drawn(4, landscape.n)
    directions = torch.stack(directions)
    lam = torch.tensor([-0.7, 0.0, 0.3, 1.0, 2.0], dtype=torch.float64)

    line = landscape.line(origin, directions[0], lam)
    expected = judged(module, origin + lam[:, None] * directions[0], x, y, statistics)
    assert_judged((line.loss, line.error), expected)

    plane = landscape.plane(origin, directions[0], directions[1], lam, lam[:3])
    assert plane.loss.dims == ("a", "b")
    points = origin + lam[:, None, None] * directions[0] + lam[:3, None] * directions[1]
    assert_judged((plane.loss, plane.error), judged(module, points, x, y, statistics))

    for count in (2, 9):
        weights = drawn(2, count, 3, seed=4)
        points = origin + weights @ directions
        found = landscape.subspace(origin, directions, weights)
        assert_judged(found, judged(module, points, x, y, statistics))

    for few in (lam, lam[:2]):
        points = directions[:, None] + few[:, None] * (origin - directions)[:, None]
        found = landscape.lines(directions, origin - directions, few)
        assert_judged(found, judged(module, points, x, y, statistics))


@pytest.mark.parametrize("engine", ["dense", "vmap"])
def test_no_lines_give_no_losses(engine):
    module, x, y = task()
    landscape = Landscape(module, x, y, engine=engine)
    none = torch.zeros(0, landscape.n, dtype=torch.float64)
    assert [v.shape for v in landscape.lines(none, none, [0.0, 0.5, 1.0])] == [(0, 3)] * 2
    weights = torch.zeros(0, 4, 1)
    found = landscape.subspace(drawn(landscape.n), drawn(1, landscape.n), weights)
    assert [v.shape for v in found] == [(0, 4)] * 2


def test_the_origin_is_on_the_default_grid():
    module, x, y = task()
    landscape = Landscape(module, x, y)
    origin, d1, d2 = drawn(3, landscape.n)
    known = float(oracles.losses_at(oracles.models_at(module, origin[None]), x, y))
    line, plane = landscape.line(origin, d1), landscape.plane(origin, d1, d2)
    assert line.sizes == {"lam": 51}
    assert plane.sizes == {"a": 51, "b": 51}
    assert float(line.loss.sel(lam=0.0)) == pytest.approx(known, rel=1e-13)
    assert float(plane.loss.sel(a=0.0, b=0.0)) == pytest.approx(known, rel=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_coordinates_are_not_rounded(dtype):
    module, x, y = task(dtype=dtype)
    landscape = Landscape(module, x, y)
    origin, direction = drawn(2, landscape.n, dtype=dtype)
    lam = np.array([1 / 3, 0.1, 1e-9])
    line = landscape.line(origin, direction, lam)
    assert line.lam.values.tolist() == lam.tolist()
    assert line.loss.dtype == str(dtype).removeprefix("torch.")
    assert line.lam.attrs["direction_length"] == pytest.approx(float(direction.norm()), rel=1e-6)


def test_a_quadratic_loss_is_the_parabola_it_must_be():
    generator = torch.Generator().manual_seed(6)
    x = torch.randn(40, 3, generator=generator, dtype=torch.float64)
    y = torch.randn(40, 2, generator=generator, dtype=torch.float64)
    module = nn.Linear(3, 2, bias=False).double()
    landscape = Landscape(module, x, y, "mse")
    best = torch.linalg.lstsq(x, y).solution.T
    floor = float((x @ best.T - y).square().mean())
    direction = drawn(2, 3, seed=7)
    curvature = float((x @ direction.T).square().mean())
    line = landscape.line(best.flatten(), direction.flatten())
    np.testing.assert_allclose(line.loss, floor + curvature * line.lam**2, rtol=1e-12)
    assert "error" not in line
    assert landscape.gradient(best.flatten()).abs().max() < 1e-14
    expected = (direction @ (x.T @ x)).flatten() * 2 / y.numel()
    found = landscape.hvp(drawn(6, seed=8), direction.flatten())
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    ends = landscape.lines(
        (best - direction).flatten()[None], 3 * direction.flatten()[None], torch.linspace(0, 1, 31)
    )[0]
    # From -1 to 2 a parabola stays below its chord, and reaches the higher end.
    assert path_barrier(ends).tolist() == [0]
    assert float(path_barrier(ends, definition="mean")) == pytest.approx(1.5 * curvature)


def test_stale_statistics_are_a_barrier_and_fresh_ones_are_none():
    """Along the line the first layer only shrinks, which batch norm makes up for."""
    y = torch.arange(200) % 2
    x = drawn(200, 2)
    x[:, 0] += 8.0 * y - 4
    module = nn.Sequential(nn.Linear(2, 1, False), nn.BatchNorm1d(1), nn.Linear(1, 2)).double()
    start, end = torch.tensor([[1.0, 0, 1, 0, -4, 4, 0, 0], [0.05, 0, 1, 0, -4, 4, 0, 0]]).double()
    module = oracles.update_statistics(oracles.loaded(module, start), x, 256)
    losses = {}
    for statistics in ("frozen", "reestimate"):
        landscape = Landscape(module, x, y, statistics=statistics)
        line = landscape.line(start, end - start, torch.linspace(0, 1, 11))
        losses[statistics] = line.loss
        told = json.loads(line.attrs["arguments"])
        assert told["statistics"] == statistics
        assert told.get("statistics_samples") == (200 if statistics == "reestimate" else None)
    fresh, stale = losses["reestimate"], losses["frozen"]
    assert float(fresh.max() - fresh.min()) < 1e-3
    assert float(stale.max()) > float(fresh.max()) + 0.3
    assert float(stale[0]) == pytest.approx(float(fresh[0]), rel=1e-9)


@pytest.mark.parametrize("name", ["line", "plane"])
def test_datasets_say_what_they_hold_and_survive_storage(name, tmp_path):
    module, x, y = task()
    landscape = Landscape(module, x, y)
    origin, d1, d2 = drawn(3, landscape.n)
    if name == "line":
        found = landscape.line(origin, d1, [0.0, 0.5, 1.0])
    else:
        found = landscape.plane(origin, d1, d2, [0.0, 1.0], [0.0, 0.5, 1.0])
    assert set(found.attrs) >= {"protocol", "arguments", "versions", "source"}
    assert found.attrs["protocol"] == name
    assert all(v.attrs["units"] and v.attrs["long_name"] for v in found.variables.values())
    assert found.loss.attrs["units"] == "nats"
    arguments = json.loads(found.attrs["arguments"])
    assert arguments["engine"] == "dense"
    assert arguments["samples"] == 23
    found.to_zarr(tmp_path / "scan.zarr", consolidated=False)
    stored = xr.open_zarr(tmp_path / "scan.zarr", consolidated=False)
    xr.testing.assert_identical(found, stored.load())


def test_labelled_points_are_taken():
    module, x, y = task()
    landscape = Landscape(module, x, y)
    points = drawn(4, landscape.n)
    stored = xr.DataArray(points.numpy(), dims=("replica", "n"))
    expected = landscape.loss(points)
    assert torch.equal(landscape.loss(stored), expected)
    assert torch.equal(landscape.energy(stored.to_dataset(name="point")), expected)
    assert torch.equal(landscape.gradient(stored.T), landscape.gradient(points))
    line = landscape.line(stored[0], stored[1])
    np.testing.assert_array_equal(line.loss, landscape.line(points[0], points[1]).loss)


def landscape_with(**changes):
    module, x, y = task()
    return Landscape(**{"module": module, "x": x, "y": y, **changes})


def with_nan(values):
    values = values.clone()
    values.flatten()[3] = torch.nan
    return values


MODULE, X, Y = task()
SKEWED = torch.tensor([0] * 20 + [1, 2, 2])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": Y[:-1]}, "x has 23 samples and y 22: expected as many"),
        ({"x": X[:0], "y": Y[:0]}, r"x has shape \(0, 6\)"),
        ({"x": with_nan(X)}, "x holds 1 values that are NaN or infinite"),
        ({"x": X / 0}, "x holds 138 values"),
        ({"y": with_nan(X[:, :3]), "loss": "mse"}, "y holds 1 values that are NaN"),
        ({"x": X[:, :4]}, "x: the first layer takes 6 inputs a sample"),
        ({"x": X[:, :4], "engine": "vmap"}, r"x: .* cannot take samples of shape \(4,\)"),
        ({"y": Y + 1}, r"y holds the label 3: the module has 3 outputs, so labels are 0\.\.2"),
        ({"y": Y - 1}, "y holds the label -1"),
        ({"y": Y.double()}, "y has dtype torch.float64: class labels are integers"),
        ({"y": Y[:, None]}, r"y has shape \(.*\) and the outputs"),
        ({"y": X[:, :2], "loss": "mse"}, r"y has shape .* same shape"),
        (
            {"loss": "hinge"},
            r"loss='hinge': expected one of \['cross_entropy', 'mse', 'squared_hinge'\]",
        ),
        ({"loss": nn.CrossEntropyLoss(reduction="sum")}, "loss 'CrossEntropyLoss': .* a mean over"),
        ({"loss": nn.CrossEntropyLoss(reduction="none")}, "loss CrossEntropyLoss returned shape"),
        (
            {
                "loss": nn.CrossEntropyLoss(weight=torch.tensor([1.0, 1.0, 9.0]).double()),
                "y": SKEWED,
            },
            "loss 'CrossEntropyLoss': .*no class weights",
        ),
        ({"engine": "fast"}, "engine='fast': expected one of 'auto', 'dense', 'vmap', 'loop'"),
        ({"statistics": "fresh"}, "statistics='fresh': expected 'reestimate' or 'frozen'"),
        ({"statistics_samples": 24}, "statistics_samples=24: expected 1 to 23"),
        ({"statistics_samples": 0}, "statistics_samples=0"),
        ({"statistics_samples": with_nan(X)}, "statistics_samples holds 1 values"),
        ({"memory": 0}, "memory=0: expected a positive number"),
        ({"module": nn.ReLU()}, "'ReLU' has no parameters"),
    ],
)
def test_a_landscape_refuses_by_name(changes, message):
    with pytest.raises(ValueError, match=message) as refused:
        landscape_with(**changes)
    assert "\n" not in str(refused.value)


def test_a_sum_is_found_out_even_where_the_module_makes_no_error():
    module = nn.Linear(3, 3, bias=False)
    with torch.no_grad():
        module.weight.copy_(40 * torch.eye(3))
    total = nn.CrossEntropyLoss(reduction="sum")
    with pytest.raises(ValueError, match="loss 'CrossEntropyLoss'"):
        Landscape(module, torch.eye(3), torch.arange(3), total)
    Landscape(module, torch.eye(3), torch.arange(3), nn.CrossEntropyLoss())


@pytest.mark.parametrize("batch", [1, 0, -3])
def test_statistics_of_one_sample_are_refused(batch):
    module, x, y = images()
    with pytest.raises(ValueError, match=f"statistics_batch={batch}: expected at least 2"):
        Landscape(module, x, y, statistics_batch=batch)
    with pytest.raises(ValueError, match="statistics_samples: 1 sample"):
        Landscape(module, x, y, statistics_samples=1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s, p: s.loss(p[:, 1:]), "points: expected points of length 53 .module 'Seq"),
        (lambda s, p: s.hvp(p, p[:, 1:]), "vectors: expected points of length 53"),
        (lambda s, p: s.line(p, p[0]), "origin: expected 1 axes"),
        (lambda s, p: s.line(p[0], p[0], [[0.0]]), "lam: expected a list of finite numbers"),
        (lambda s, p: s.line(p[0], p[0], []), "lam: expected a list"),
        (lambda s, p: s.line(p[0], p[0], [np.nan]), "lam: expected a list"),
        (lambda s, p: s.plane(p[0], p[0], p[:1]), "d2: expected 1 axes"),
        (lambda s, p: s.subspace(p[0], p, torch.zeros(5)), r"coefficients have shape \(5,\)"),
        (lambda s, p: s.lines(p, p[:1], [0.0]), "origins .* and directions"),
        (lambda s, p: s.lines(p[0], p[0], [0.0]), "origins .* and directions"),
    ],
)
def test_points_that_do_not_fit_are_refused_by_name(call, message):
    landscape = landscape_with()
    with pytest.raises(ValueError, match=message):
        call(landscape, drawn(2, landscape.n))


def test_an_error_rate_needs_labels():
    module, x, _ = task()
    landscape = Landscape(module, x, drawn(23, 3), "mse")
    with pytest.raises(ValueError, match=r"y of dtype torch\.float64 holds no class labels"):
        landscape.error(drawn(landscape.n))
    assert landscape.evaluate(drawn(landscape.n))[1].isnan()
    with pytest.raises(TypeError, match=r"points: expected a floating tensor, got torch\.int64"):
        landscape.loss(torch.zeros(landscape.n).long())
