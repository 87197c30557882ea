"""Moves of one hidden unit against whole evaluations, exact laws, quadrature and whole moves.

Tolerances of stochastic tests are standard errors over independent walkers, whose correlation in
time therefore does not matter; FALSE_ALARM of them are exceeded by chance once in 370 comparisons,
were the seeds not fixed, and this file makes about 30.
"""

import json
import random
from math import sqrt

import numpy as np
import pytest
import torch
from arviz_stats.base import array_stats
from scipy.stats import chisquare
from scipy.stats import t as student
from torch import nn

import oracles
from spinscape.glass.walking.moves import Gaussian, generators
from spinscape.glass.walking.rules import RULES
from spinscape.glass.walking.unit_moves import SingleUnit
from spinscape.glass.walking.walks import walk
from spinscape.landscape.energy import Landscape
from spinscape.nets import models

FALSE_ALARM = 3.0


def setting(
    widths=(6, 5, 4),
    samples=30,
    walkers=3,
    *,
    loss="cross_entropy",
    dtype=torch.float64,
    seed=0,
    **net,
):
    """A landscape of random data, and points where its loss is that of typical weights."""
    inputs, hidden, classes = widths
    generator = torch.Generator().manual_seed(seed)
    module = models.mlp(inputs, [hidden], classes, **net)
    x = torch.randn(samples, inputs, generator=generator, dtype=dtype)
    y = torch.randint(classes, (samples,), generator=generator)
    landscape = Landscape(module, x, y, loss)
    points = torch.randn(walkers, landscape.n, generator=generator, dtype=torch.float64)
    return landscape, (0.6 * points).to(dtype)


def begun(landscape, points, move, rule="free", temperature=None, seed=1):
    """A walker, its state at the start, and its generators."""
    if temperature is not None:
        temperature = torch.full((len(points),), temperature, dtype=torch.float64)
    walker = move.walker(landscape, RULES[rule], temperature, None)
    return walker, walker.init(points), generators(seed, len(points))


def close(values, expected):
    """Whether the mean over independent walkers is the expected one within its standard error."""
    values = np.asarray(values, dtype=float)
    return abs(values.mean() - expected) < FALSE_ALARM * values.std(ddof=1) / sqrt(len(values))


# Energies


@pytest.mark.parametrize("activation", sorted(models.ACTIVATIONS))
@pytest.mark.parametrize("bias", [True, False])
def test_energies_are_those_of_the_network(activation, bias):
    landscape, points = setting(activation=activation, bias=bias)
    walker, state, streams = begun(landscape, points, SingleUnit(0.3), "thermal", 0.05)
    accepted = 0
    for _ in range(40):
        state, info = walker.step(state, streams)
        nets = oracles.models_at(landscape.module, state.point)
        expected = oracles.losses_at(nets, landscape.x, landscape.y)
        torch.testing.assert_close(walker.energies(state), expected, rtol=1e-12, atol=1e-12)
        assert info.finite.all()
        accepted += info.accepted
    assert (accepted > 5).all()
    assert (accepted < 35).all()


def absolute(outputs, y):
    return (outputs - nn.functional.one_hot(y, outputs.shape[-1])).abs().mean()


@pytest.mark.parametrize("loss", ["mse", "targets", absolute])
def test_energies_of_other_losses(loss):
    landscape, points = setting(loss="mse" if loss == "targets" else loss)
    if loss == "targets":
        y = torch.randn(30, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
        landscape, loss = Landscape(landscape.module, landscape.x, y, "mse"), "mse"
    move = SingleUnit(0.2, ridge=0.3)
    walker, state, streams = begun(landscape, points, move, "thermal", 0.05)
    for _ in range(40):
        state, _ = walker.step(state, streams)
    nets = oracles.models_at(landscape.module, state.point)
    expected = oracles.losses_at(nets, landscape.x, landscape.y, loss)
    expected += 0.15 * state.point.square().sum(1)
    torch.testing.assert_close(state.energy, expected, rtol=1e-12, atol=1e-12)
    assert (state.point != points).any(1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ten_thousand_accepted_moves_later_the_energies_are_those_of_the_network(dtype):
    """The first walker's outputs are summed anew every 1000 moves, the second's never."""
    moves, refresh = 10_000, torch.tensor([1000, 10_000])
    landscape, points = setting(dtype=dtype, walkers=2)
    walker, state, streams = begun(landscape, points, SingleUnit(0.01, refresh=1000))
    state = state._replace(stale=torch.tensor([500, -moves]))
    for _ in range(moves):
        state, _ = walker.step(state, streams)
    assert state.stale.tolist() == [500, 0]
    outputs = landscape.outputs(state.point)
    bound = torch.finfo(dtype).eps * refresh.sqrt() * outputs.abs().amax((1, 2))
    assert bound.max() < (1e-2 if dtype == torch.float32 else 1e-11)
    exact = landscape.loss(state.point.double()).to(dtype)
    for expected in (landscape.loss(state.point), exact):
        assert ((state.energy - expected).abs() <= bound).all()
    drift = (state.fields.outputs.transpose(1, 2) - outputs).abs().amax((1, 2))
    assert (drift <= bound).all()
    assert drift[1] > 0


def test_a_refresh_takes_the_outputs_and_the_ridge_from_the_points():
    landscape, points = setting()
    move = SingleUnit(0.1, ridge=0.2, refresh=7)
    walker, state, streams = begun(landscape, points, move)
    state.fields.outputs.add_(1e-3 * torch.arange(4, dtype=torch.float64)[:, None])
    state.penalty.add_(1.0)
    for moves in range(1, 8):
        state, _ = walker.step(state, streams)
        expected = landscape.loss(state.point) + 0.1 * state.point.square().sum(1)
        assert moves == 7 or (state.energy - expected).abs().min() > 0.5
    torch.testing.assert_close(state.energy, expected, rtol=1e-13, atol=0)
    assert (state.stale == 0).all()


# What a move changes


@pytest.mark.parametrize("bias", [True, False])
def test_a_move_changes_one_unit_and_each_unit_as_often(bias):
    landscape, points = setting((3, 4, 2), walkers=40, bias=bias)
    place = {name: landscape.space.groups[name] for name in landscape.space.groups}
    weights = [("0.weight", "2.weight", "0.bias")[: 3 if bias else 2] for _ in range(4)]
    rows = {"0.weight": (4, 3), "0.bias": (4, 1), "2.weight": (2, 4)}
    units = [
        {
            int(index)
            for name in names
            for index in (
                place[name].view(rows[name])[:, u]
                if name == "2.weight"
                else place[name].view(rows[name])[u]
            )
        }
        for u, names in enumerate(weights)
    ]
    units += [set(place["2.bias"].tolist())] if bias else []
    assert sorted(index for unit in units for index in unit) == list(range(landscape.n))
    move = SingleUnit(0.1)
    assert move.sweep(landscape) == len(units)
    walker, state, streams = begun(landscape, points, move)
    counts = np.zeros(len(units))
    for _ in range(50):
        before = state.point.clone()
        state, _ = walker.step(state, streams)
        for moved in state.point != before:
            counts[units.index(set(moved.nonzero().flatten().tolist()))] += 1
    assert counts.sum() == 2000
    assert chisquare(counts).pvalue > 0.01


def test_the_sizes_of_steps_are_those_asked_for():
    landscape, points = setting((3, 2, 2), walkers=2)
    spread = {}
    for scale in ("isotropic", "filter"):
        walker, state, streams = begun(landscape, points, SingleUnit(1e-3, scale))
        state = state._replace(scale=torch.tensor([1.0, 2.0], dtype=torch.float64))
        changes = []
        for _ in range(1500):
            before = state.point.clone()
            state, _ = walker.step(state, streams)
            changes.append(state.point - before)
        squares = torch.stack(changes).square()
        spread[scale] = squares.sum(0) / (squares > 0).sum(0)
    w, c, a, b = (value for value in landscape.space.unflatten(points).values())
    incoming = torch.cat([w, c[..., None]], 2).square().mean(2)
    outgoing = a.square().mean(1)
    sizes = [
        incoming[..., None].expand(-1, -1, 3).flatten(1),
        incoming,
        outgoing[:, None].expand(-1, 2, -1).flatten(1),
        b.square().mean(1, keepdim=True).expand(-1, 2),
    ]
    expected = {"isotropic": torch.ones_like(points), "filter": torch.cat(sizes, 1)}
    doubled = torch.tensor([[1.0], [4.0]])
    for scale, found in spread.items():
        # 500 squares of each coordinate: a relative standard error of √(2/500) = 0.063.
        ratio = found / (1e-6 * doubled * expected[scale])
        assert (ratio - 1).abs().max() < 4 * 0.063
        assert abs(ratio.mean() - 1) < FALSE_ALARM * 0.063 / sqrt(ratio.numel())


def test_a_rescaled_copy_takes_the_same_walk():
    landscape, points = setting(walkers=4)
    factors = torch.tensor([0.1, 0.5, 1.0, 3.0, 20.0], dtype=torch.float64)
    parts = landscape.space.unflatten(points)
    copied = landscape.space.flatten(
        {
            "0.weight": parts["0.weight"] * factors[:, None],
            "0.bias": parts["0.bias"] * factors,
            "2.weight": parts["2.weight"] / factors,
            "2.bias": parts["2.bias"],
        }
    )
    settings = {"rule": "thermal", "temperature": 0.02, "steps": 60, "record": 61}
    walks = {
        scale: [
            walk(landscape, start, move=SingleUnit(0.2, scale), **settings).energy.values
            for start in (points, copied)
        ]
        for scale in ("filter", "isotropic")
    }
    np.testing.assert_allclose(*walks["filter"], rtol=1e-10)
    assert np.abs(np.subtract(*walks["isotropic"])).max() > 0.01


# Equilibrium


def nothing(outputs, y):
    return (outputs * 0).mean()


def test_with_a_ridge_alone_all_is_exact():
    """Weights of variance T/κ; a block of k coordinates is accepted as in k dimensions."""
    kappa, temperature, step, walkers = 2.0, 0.3, 0.35, 600
    landscape, points = setting((3, 4, 2), walkers=walkers, loss=nothing)
    points = points / 0.6 * sqrt(temperature / kappa)
    found = walk(
        landscape,
        points,
        rule="thermal",
        temperature=temperature,
        move=SingleUnit(step, ridge=kappa),
        steps=600,
        record=[0, 600],
        seed=4,
    )
    length = step * sqrt(kappa / temperature)
    rates = [2 * student.cdf(-length * sqrt(k) / 2, k) for k in (6, 2)]
    assert close(found.acceptance, (4 * rates[0] + rates[1]) / 5)
    n = landscape.n
    energy = found.energy.isel(step=-1).values
    assert close(energy, n * temperature / 2)
    assert close((energy - n * temperature / 2) ** 2, n * temperature**2 / 2)
    # Of n independent sums of squares none is further off than 4 of its standard errors.
    squares = (found.point**2).mean("walker").values / (temperature / kappa)
    assert np.abs(squares - 1).max() < 4 * sqrt(2 / walkers)
    first = (found.point.values - points.numpy()) ** 2
    assert first.mean(0).min() > 1.0 * temperature / kappa  # far from the start: each was moved


def test_a_threshold_walk_is_uniform_in_its_bowl():
    kappa, threshold, walkers = 2.0, 1.5, 400
    landscape, points = setting((1, 2, 1), walkers=walkers, loss=nothing, bias=False)
    found = walk(
        landscape,
        0 * points,
        rule="threshold",
        threshold=threshold,
        move=SingleUnit(0.8, ridge=kappa),
        steps=400,
        record=[0, 200, 400],
        seed=5,
    )
    n = landscape.n
    assert n == 4
    for step in (200, 400):
        assert close(found.energy.sel(step=step) / threshold, n / (n + 2))
    # Uniform in the ball: the second moment of each coordinate is R²/(n + 2), R² = 2·L*/κ.
    for coordinate in found.point.values.T:
        assert close(coordinate**2, 2 * threshold / kappa / (n + 2))


def test_a_thermal_walk_agrees_with_quadrature():
    """Two tanh units with one input and one output: a four-dimensional integral, on a grid."""
    kappa, temperature, walkers = 0.25, 0.08, 500
    x = torch.tensor([[-1.5], [-0.4], [0.6], [1.4]], dtype=torch.float64)
    y = torch.tensor([[-0.9], [-0.8], [0.2], [1.2]], dtype=torch.float64)
    landscape = Landscape(models.mlp(1, [2], 1, activation="tanh", bias=False), x, y, "mse")
    grid = np.linspace(-5.2, 5.2, 53)
    w, a = (side.ravel() for side in np.meshgrid(grid, grid))
    unit = a[:, None] * np.tanh(w[:, None] * x.numpy()[:, 0])
    bowl = kappa / 2 * (w**2 + a**2)
    kept = bowl < 16 * temperature  # beyond, exp(−E/T) is below e⁻¹⁶ of its largest value
    unit, bowl, w = unit[kept], bowl[kept], w[kept]
    weight, first, second, square = np.zeros(4)
    for one, its_bowl, its_w in zip(unit, bowl, w, strict=True):
        energy = ((unit + one - y.numpy()[:, 0]) ** 2).mean(1) + bowl + its_bowl
        boltzmann = np.exp(-energy / temperature)
        weight += boltzmann.sum()
        first += (boltzmann * energy).sum()
        second += (boltzmann * energy**2).sum()
        square += boltzmann.sum() * its_w**2
    mean, variance = first / weight, second / weight - (first / weight) ** 2
    found = walk(
        landscape,
        torch.zeros(walkers, 4, dtype=torch.float64),
        rule="thermal",
        temperature=temperature,
        move=SingleUnit(0.6, ridge=kappa),
        steps=1500,
        record=[0, *range(500, 1501, 20)],
        seed=6,
    )
    late = found.energy.sel(step=slice(500, None))
    assert close(late.mean("step"), mean)
    assert close(((late - mean) ** 2).mean("step"), variance)
    for u in (0, 1):
        assert close(found.point.values[:, u] ** 2, square / weight)


def test_equilibrium_is_that_of_moves_of_all_weights():
    """A student of a teacher 2-3-2 of its own size: cross-entropy with a ridge."""
    kappa, temperature, walkers = 0.4, 0.1, 24
    generator = torch.Generator().manual_seed(7)
    teacher = models.mlp(2, [3], 2, seed=8).double()
    x = torch.randn(40, 2, generator=generator, dtype=torch.float64)
    outputs = teacher(x).detach()
    y = (outputs - outputs.mean(0)).argmax(1)
    landscape = Landscape(models.mlp(2, [3], 2), x, y)
    spread = sqrt(temperature / kappa)
    shape = (2 * walkers, landscape.n)
    starts = spread * torch.randn(shape, generator=generator, dtype=torch.float64)

    def whole(points):
        return landscape.loss(points) + kappa / 2 * points.square().sum(-1)

    settings = {"rule": "thermal", "temperature": temperature, "seed": 9}
    ours, theirs = (
        walk(energy, start, move=move, steps=steps, record=range(steps // 8, steps, 15), **settings)
        for energy, start, move, steps in (
            (landscape, starts[:walkers], SingleUnit(0.4, ridge=kappa), 6000),
            (whole, starts[walkers:], Gaussian(0.2), 6000),
        )
    )
    assert min(ours.acceptance.min(), theirs.acceptance.min()) > 0.2
    assert array_stats.rhat(np.concatenate([ours.energy, theirs.energy])) < 1.03
    mean = float(ours.energy.mean())
    for moment in (lambda energy: energy, lambda energy: (energy - mean) ** 2):
        pair = [moment(found.energy).mean("step").values for found in (ours, theirs)]
        error = sqrt(sum(values.var(ddof=1) for values in pair) / walkers)
        assert abs(pair[0].mean() - pair[1].mean()) < FALSE_ALARM * error


# Walks


def test_a_walk_does_not_depend_on_who_walks_beside_it():
    landscape, points = setting(walkers=5)
    settings = {"rule": "thermal", "temperature": 0.02, "steps": 80, "record": 81, "seed": 11}
    together = walk(landscape, points, move=SingleUnit(0.3), **settings)
    fewer = walk(landscape, points[[0, 4, 2]], move=SingleUnit(0.3), **settings)
    np.testing.assert_allclose(fewer.energy[0], together.energy[0], rtol=1e-10)
    np.testing.assert_allclose(fewer.point[2], together.point[2], rtol=1e-10)
    assert not np.allclose(fewer.energy[1], together.energy[1])
    assert 0.1 < together.acceptance.mean() < 0.9
    assert together.equals(walk(landscape, points, move=SingleUnit(0.3), **settings))


def test_pieces_of_walkers_give_the_same_walk(monkeypatch):
    landscape, points = setting(walkers=5)
    settings = {"rule": "thermal", "temperature": 0.02, "steps": 80, "record": 81, "seed": 12}
    at_once = walk(landscape, points, move=SingleUnit(0.3), **settings)
    monkeypatch.setattr("spinscape.glass.walking.local_fields.MEMORY", 2 * 4 * 30 * 8)
    pieces = walk(landscape, points, move=SingleUnit(0.3), **settings)
    np.testing.assert_allclose(pieces.energy, at_once.energy, rtol=1e-10)


def test_step_sizes_are_tuned_and_nothing_else_is_changed():
    landscape, points = setting(walkers=8)
    kept = [oracles.point_of(landscape.module), points.clone(), landscape.x.clone()]
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    found = walk(
        landscape,
        points,
        rule="thermal",
        temperature=0.02,
        move=SingleUnit(5.0, ridge=0.1),
        steps=400,
        burn_in=800,
        target=0.3,
        seed=13,
    )
    assert (found.step_scale < 0.5).all()
    assert abs(found.acceptance.mean() - 0.3) < 0.06
    for old, new in zip(
        kept, [oracles.point_of(landscape.module), points, landscape.x], strict=True
    ):
        assert torch.equal(old, new)
    after = random.getstate(), np.random.get_state()[1], torch.get_rng_state()  # noqa: NPY002
    assert before[0] == after[0]
    assert (before[1] == after[1]).all()
    assert torch.equal(before[2], after[2])


def test_energies_that_are_not_finite_are_refused_and_counted():
    landscape, points = setting(dtype=torch.float32, loss="mse")
    settings = {"rule": "threshold", "threshold": 1e30, "move": SingleUnit(1e22), "steps": 20}
    found = walk(landscape, points, **settings)
    assert (found.non_finite == 20).all()
    assert (found.acceptance == 0).all()
    assert np.array_equal(found.point, points)
    assert np.isfinite(found.energy).all()


# Refusals


def test_settings_out_of_range_are_refused():
    for wrong in (
        {"step": 0.0},
        {"step": float("nan")},
        {"scale": "layer"},
        {"ridge": -1.0},
        {"refresh": 0},
    ):
        (name,) = wrong
        with pytest.raises(ValueError, match=f"{name}="):
            SingleUnit(**{"step": 0.1, **wrong})


def test_other_energies_are_refused_with_the_remedy():
    landscape, points = setting()
    deep = Landscape(models.mlp(6, [5, 5], 4), landscape.x, landscape.y)
    looped = Landscape(landscape.module, landscape.x, landscape.y, engine="vmap")
    linear = Landscape(models.mlp(6, [], 4), landscape.x, landscape.y)
    for other in (deep, looped, linear, landscape.loss):
        with pytest.raises(TypeError, match=r"one hidden layer.*Gaussian"):
            SingleUnit(0.1).walker(other, RULES["free"])
        with pytest.raises(TypeError, match="one hidden layer"):
            SingleUnit(0.1).sweep(other)
    dead = points.clone()
    dead[1, landscape.space.groups["2.bias"]] = 0.0
    with pytest.raises(ValueError, match=r"unit 5 of walker 1 .*isotropic"):
        walk(landscape, dead, move=SingleUnit(0.1, "filter"), steps=1)
    with pytest.raises(ValueError, match="expected points of length"):
        walk(landscape, points[:, 1:], move=SingleUnit(0.1), steps=1)
    with pytest.raises(ValueError, match="not finite at the start"):
        walk(landscape, points * 1e200, move=SingleUnit(0.1), steps=1)


def test_the_record_says_how_units_were_moved():
    landscape, start = setting()
    move = SingleUnit(0.1, scale="isotropic", ridge=0.5, refresh=7)
    found = walk(landscape, start, rule="thermal", temperature=1.0, move=move, steps=3, record=2)
    told = json.loads(found.attrs["arguments"])["move"]
    assert told == {
        "name": "SingleUnit",
        "step": 0.1,
        "scale": "isotropic",
        "ridge": 0.5,
        "refresh": 7,
    }
