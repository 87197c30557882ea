"""Very fine lines are exact: against each point by itself, at crossings, ties and holes."""

import numpy as np
import pytest
import torch
from tests.oracles import errors_at, losses_at, models_at
from torch import nn

from spinscape import Landscape, models
from spinscape.landscape import fine_lines


def landscape(hidden=(7,), *, bias=True, activation="relu", dtype=torch.float64, **options):
    generator = torch.Generator().manual_seed(0)
    module = models.mlp(5, list(hidden), 4, bias=bias, activation=activation, seed=1).to(dtype)
    x = torch.randn(30, 5, dtype=dtype, generator=generator)
    return Landscape(module, x, torch.arange(30) % 4, **options)


def ends(land, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(2, land.n, dtype=land.space.dtype, generator=generator)


@pytest.fixture
def always(monkeypatch):
    monkeypatch.setattr(fine_lines, "FINE", 2)


def by_models(land, origin, direction, lam):
    points = origin + torch.as_tensor(lam, dtype=origin.dtype)[:, None] * direction
    nets = models_at(land.module, points)
    return losses_at(nets, land.x, land.y), errors_at(nets, land.x, land.y)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_each_point_is_what_a_model_there_gives(always, seed, bias):
    land = landscape(bias=bias)
    origin, direction = ends(land, seed)
    lam = np.linspace(-2, 2, 41)
    found = land.line(origin, direction, lam)
    loss, error = by_models(land, origin, direction, lam)
    np.testing.assert_allclose(found["loss"], loss, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found["error"], error)


def test_a_long_line_takes_this_way_and_a_short_one_does_not(monkeypatch):
    taken = []
    whole = fine_lines.scan_fine_line
    monkeypatch.setattr(
        "spinscape.landscape.energy.scan_fine_line", lambda *a: taken.append(1) or whole(*a)
    )
    land = landscape()
    origin, direction = ends(land)
    short = land.line(origin, direction, np.linspace(-1, 1, 51))
    assert not taken
    fine = land.line(origin, direction, np.linspace(-1, 1, 501))
    assert taken
    np.testing.assert_allclose(fine["loss"][::10], short["loss"], rtol=1e-12)


@pytest.mark.parametrize(
    "make",
    [
        lambda: landscape(hidden=(6, 5)),
        lambda: landscape(hidden=()),
        lambda: landscape(activation="tanh"),
        lambda: landscape(loss="squared_hinge"),
    ],
)
def test_other_networks_and_losses_do_not_take_it(make):
    land = make()
    origin, direction = ends(land)
    stack = land._stack
    assert not fine_lines.fits(stack, land.criterion, True, origin, torch.zeros(1000))
    lam = np.linspace(-1, 1, 401)
    loss, _ = land.subspace(origin, direction[None], torch.as_tensor(lam)[:, None])
    np.testing.assert_allclose(land.line(origin, direction, lam)["loss"], loss)


def test_single_precision():
    land = landscape(hidden=(64,), dtype=torch.float32)
    origin, direction = ends(land)
    lam = np.linspace(-1, 1, 801)
    direct, error = land.subspace(origin, direction[None], torch.as_tensor(lam)[:, None])
    found = land.line(origin, direction, lam)
    np.testing.assert_allclose(found["loss"], direct, rtol=1e-5, atol=1e-5)
    assert np.abs(found["error"].values - error.numpy()).max() <= 1 / 30


def test_positions_in_any_order_and_repeated(always):
    land = landscape()
    origin, direction = ends(land)
    lam = [0.5, -1.0, 0.5, 2.0, 0.0]
    loss, _ = by_models(land, origin, direction, lam)
    np.testing.assert_allclose(land.line(origin, direction, lam)["loss"], loss, rtol=1e-10)


def test_units_that_never_change_and_crossings_on_the_grid(always):
    land = landscape(hidden=(2,), bias=False)
    origin = torch.zeros(land.n, dtype=torch.float64)
    first, second = land.space.unflatten(origin).values()
    second[:] = torch.arange(8.0).view(4, 2)
    direction = torch.zeros_like(origin)
    slope = land.space.unflatten(direction)["0.weight"]
    slope[0, 0] = 1.0  # changes its state at λ = 0 exactly, on every sample
    second_way = land.space.unflatten(direction)["2.weight"]
    second_way[1, 0] = 3.0
    lam = np.linspace(-1, 1, 21)
    loss, _ = by_models(land, origin, direction, lam)
    np.testing.assert_allclose(land.line(origin, direction, lam)["loss"], loss, rtol=1e-10)
    assert first is not None


def test_equal_logits_count_the_first_class(always):
    land = landscape()
    origin = torch.zeros(land.n, dtype=torch.float64)
    direction = torch.zeros_like(origin)
    direction[-4] = 1.0  # the bias of class 0
    found = land.line(origin, direction, [-1.0, 0.0, 1.0])
    expected = float((land.y != 0).double().mean())
    assert found["error"].values[1:].tolist() == pytest.approx([expected] * 2)
    assert found["loss"].values[1] == pytest.approx(np.log(4))


def test_what_is_not_finite_stays_a_hole(always):
    land = landscape()
    origin, direction = ends(land)
    direction = direction * 1e200
    lam = np.linspace(-1, 1, 21)
    direct, _ = land.subspace(origin, direction[None], torch.as_tensor(lam)[:, None])
    found = land.line(origin, direction, lam)["loss"].values
    assert np.isfinite(found[10])
    assert not np.isfinite(found[np.arange(21) != 10]).any()
    assert (np.isfinite(direct.numpy()) == np.isfinite(found)).all()
    lost = torch.where(torch.arange(land.n) == 3, torch.nan, origin)
    assert np.isnan(land.line(lost, direction, lam)["loss"]).all()


def test_blocks_of_samples_change_nothing(always, monkeypatch):
    land = landscape()
    origin, direction = ends(land)
    lam = np.linspace(-1, 1, 41)
    whole = land.line(origin, direction, lam)
    monkeypatch.setattr(fine_lines, "BLOCK", 1)
    np.testing.assert_allclose(land.line(origin, direction, lam)["loss"], whole["loss"], rtol=1e-12)


def test_flattening_networks_take_it(always):
    module = nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    x = torch.rand(10, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    land = Landscape(module, x, torch.arange(10) % 3)
    origin, direction = ends(land)
    loss, _ = by_models(land, origin, direction, [-1.0, 0.2, 1.0])
    found = land.line(origin, direction, [-1.0, 0.2, 1.0])["loss"]
    np.testing.assert_allclose(found, loss, rtol=1e-10)
