"""Walks against exact laws: quadratic bowls, boxes, free space. Tolerances are standard errors.

FALSE_ALARM standard errors are exceeded by chance once in 370 comparisons, were the seeds not
fixed; this file makes about 60.
"""

import random
from math import sqrt

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.stats import t as student
from torch import nn

import oracles
from spinscape.glass.walking.moves import FilterGaussian, Gaussian, generators
from spinscape.glass.walking.quadratic import quadratic_law
from spinscape.glass.walking.walks import walk
from spinscape.landscape.energy import Landscape
from spinscape.nets.weightspace import WeightSpace

FALSE_ALARM = 3.0
FREE = {"rule": "free", "steps": 10, "record": [0, 10]}


def flat(points):
    return points.new_zeros(points.shape[:-1])


def equilibrium(k, temperature, walkers, n, seed):
    """Points in equilibrium in a bowl; numpy mixes a small seed before it is used, torch not."""
    drawn = torch.from_numpy(np.random.default_rng(seed).standard_normal((walkers, n)))
    return drawn * sqrt(temperature / k)


def close(values, expected, se=None):
    """Whether the mean of independent values is the expected one within its standard error."""
    values = np.asarray(values, dtype=float)
    se = values.std(ddof=1) / sqrt(len(values)) if se is None else se
    return abs(values.mean() - expected) < FALSE_ALARM * se


@pytest.mark.parametrize("curvatures", [np.ones(20), np.linspace(0, 3, 25), [5.0, 0.1]])
def test_free_walks_from_a_minimum_obey_the_quadratic_law(curvatures):
    walkers, step, times = 3000, 0.1, (7, 20)
    bowl, start = (
        oracles.Bowl(curvatures),
        torch.zeros(walkers, len(curvatures), dtype=torch.float64),
    )
    found = walk(bowl, start, move=Gaussian(step), steps=20, record=[0, *times], seed=1)
    h = bowl.curvatures.numpy()
    for time in times:
        rise = found.energy.sel(step=time).values - found.energy.sel(step=0).values
        variance = step**4 * time**2 * (h**2).sum() / 2
        fourth = 48 * ((step**2 * time * h / 2) ** 4).sum()  # cumulant, of a sum of squares
        assert close(rise, step**2 * time * h.sum() / 2, sqrt(variance / walkers))
        spread = sqrt((fourth + 2 * variance**2) / walkers)
        assert close((rise - rise.mean()) ** 2, variance, spread)
        moved = found.displacement.sel(step=time).values ** 2
        assert close(moved, len(h) * step**2 * time)


@pytest.mark.parametrize(("n", "rate"), [(2, 0.356), (5, 0.287), (20, 0.248), (100, 0.2369)])
def test_thermal_walks_keep_equilibrium_and_their_exact_acceptance(n, rate):
    k, temperature, length, walkers = 3.0, 0.4, 2.38, 6000
    exact = 2 * student.cdf(-length / 2, n)
    assert exact == pytest.approx(rate, abs=5e-4)
    start = equilibrium(k, temperature, walkers, n, seed=2)
    found = walk(
        oracles.Bowl([k] * n),
        start,
        rule="thermal",
        temperature=temperature,
        move=Gaussian(length / sqrt(n * k / temperature)),
        steps=40,
        record=3,
        seed=3,
    )
    assert close(found.acceptance, exact)
    for energy in found.energy.transpose("step", "walker"):
        se = temperature * sqrt(n / 2 / walkers)
        assert close(energy, n * temperature / 2, se)


def test_each_walker_has_its_own_temperature():
    temperatures = torch.tensor([0.1, 1.0]).repeat_interleave(1000)
    start = equilibrium(1, 1, 2000, 4, seed=4) * temperatures.double().sqrt()[:, None]
    found = walk(
        oracles.Bowl([1.0] * 4),
        start,
        rule="thermal",
        temperature=temperatures.tolist(),
        move=Gaussian(0.5),
        steps=30,
        seed=5,
    )
    for T, energy in zip((0.1, 1.0), found.energy.isel(step=-1).values.reshape(2, -1), strict=True):
        assert close(energy, 4 * T / 2, T * sqrt(4 / 2 / 1000))
    assert found.temperature.values[[0, -1]] == pytest.approx([0.1, 1.0])


def test_energies_that_are_not_finite_are_refused_and_counted():
    def box(points):
        outside = torch.where(points[..., 0] > 0, torch.inf, torch.nan)
        return torch.where(points.abs().amax(-1) < 1, 0.0, outside)

    start = torch.zeros(50, 2, dtype=torch.float64)
    steps = {"move": Gaussian(0.5), "steps": 100, "seed": 9}
    thermal = walk(box, start, rule="thermal", temperature=1.0, **steps)
    assert np.isfinite(thermal.energy).all()
    assert np.abs(thermal.point).max() < 1
    assert thermal.non_finite.min() > 0
    np.testing.assert_allclose(thermal.acceptance, 1 - thermal.non_finite / 100, rtol=1e-6)
    free = walk(box, start, record=[0, 50, 100], **steps)
    assert (free.acceptance == 1).all()
    assert (free.non_finite == (~np.isfinite(free.energy)).sum("step")).all()
    assert free.non_finite.sum() > 0


@pytest.mark.parametrize("rule", ["free", "thermal"])
def test_a_walk_does_not_depend_on_who_walks_beside_it(rule):
    bowl, start = oracles.Bowl([1.0, 2.0, 3.0]), equilibrium(1, 1, 5, 3, seed=10)
    settings = {"rule": rule, "move": Gaussian(0.3), "steps": 30, "probes": 4, "seed": 11}
    settings["temperature"] = 0.5 if rule == "thermal" else None
    together = walk(bowl, start, **settings)
    others = torch.stack([start[0], start[4] + 1, start[2]])
    fewer = walk(bowl, others, **settings)
    for name in ("energy", "displacement", "point", "acceptance", "quadratic_law"):
        assert (fewer[name].values[[0, 2]] == together[name].values[[0, 2]]).all()
        assert (fewer[name].values[1] != together[name].values[1]).any() or name in (
            "acceptance",
            "quadratic_law",
        )
    assert together.equals(walk(bowl, start, **settings))
    assert not together.point.equals(walk(bowl, start, **settings | {"seed": 12}).point)


def small_net():
    generator = torch.Generator().manual_seed(13)
    module = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    x = torch.randn(40, 4, generator=generator, dtype=torch.float64)
    y = torch.randint(3, (40,), generator=generator)
    points = torch.randn(3, WeightSpace(module).n, generator=generator, dtype=torch.float64)
    return module, x, y, points


def test_walks_of_a_network_do_not_depend_on_chunks_and_change_nothing_else():
    module, x, y, points = small_net()
    kept = [p.clone() for p in module.parameters()], points.clone()
    random.seed(1)
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    settings = {"rule": "thermal", "temperature": 0.01, "move": Gaussian(0.02), "steps": 40}
    whole = walk(Landscape(module, x, y), points, probes=2, **settings)
    cut = walk(Landscape(module, x, y, memory=2000), points, probes=2, **settings)
    assert 0.05 < whole.acceptance.mean() < 0.95
    xr.testing.assert_allclose(cut, whole, rtol=1e-9)
    assert all(map(torch.equal, module.parameters(), kept[0]))
    assert torch.equal(points, kept[1])
    assert random.getstate() == states[0]
    assert (np.random.get_state()[1] == states[1]).all()  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])


def test_the_quadratic_law_is_the_trace_of_the_hessian():
    module, x, y, points = small_net()
    space = WeightSpace(module)
    hessians = [oracles.dense_hessian(module, x, y, point) for point in points]
    landscape = Landscape(module, x, y)
    for move in (Gaussian(0.3), FilterGaussian(0.2, space)):
        law = quadratic_law(landscape, points, move=move, probes=400, seed=14)
        sizes = move.init(points).expand_as(points)
        for k, (matrix, size) in enumerate(zip(hessians, sizes, strict=True)):
            exact = float((size.square() * matrix.diagonal()).sum()) / 2
            error = float(law.rise_se[k])
            assert abs(float(law.rise[k]) - exact) < FALSE_ALARM * error
            scaled = matrix * size[:, None] * size
            off = scaled - scaled.diagonal().diag()
            exact_error = float(off.square().sum() * 2 / 400) ** 0.5 / 2
            # A sign form's kurtosis is at most that of a squared normal number, 15.
            assert error == pytest.approx(exact_error, rel=FALSE_ALARM * sqrt(14 / 4 / 400))
            if isinstance(move, Gaussian):
                distance = abs(float(law.trace[k]) - float(matrix.trace()))
                assert distance < FALSE_ALARM * float(law.trace_se[k])
    probed = walk(landscape, points, move=Gaussian(0.1), steps=8, probes=16, seed=15)
    law = quadratic_law(landscape, points, move=Gaussian(0.1), probes=16, seed=15)
    np.testing.assert_allclose(probed.quadratic_law, law.rise.values[:, None] * probed.step.values)


def test_filter_steps_are_in_proportion_to_the_norm_of_each_filter():
    module, _, _, points = small_net()
    space = WeightSpace(module)
    start = points[:1].expand(4000, -1)
    found = walk(flat, start, move=FilterGaussian(0.1, space), steps=1, record=2, seed=16)
    change = torch.from_numpy(found.point.values) - start
    in_filters = torch.zeros(space.n, dtype=torch.bool)
    for indices in space.filters:
        in_filters[indices] = True
        moved = change[:, indices].square().sum(1) / points[0, indices].square().sum()
        assert close(moved, 0.1**2, 0.1**2 * sqrt(2 / len(indices) / len(start)))
    assert not change[:, ~in_filters].any()
    assert int((~in_filters).sum()) == 5 + 3  # the biases


def test_filter_moves_are_symmetric_and_keep_the_boltzmann_weight():
    n, temperature = 6, 0.7
    filters = torch.arange(n).split(3)
    move = FilterGaussian(1.0, filters)
    start = equilibrium(1, temperature, 2000, n, seed=17)
    fixed = move.init(start)
    far = 10 * start + 1
    ahead, there = (move.propose(w, fixed, generators(18, len(w))) - w for w in (start, far))
    torch.testing.assert_close(ahead, there)  # the density of b − a is the same at a and at b
    # A walker's start sets its step, so equilibrium is kept by each walker that forgot its start.
    same = start[:1].expand(2000, -1)
    found = walk(
        oracles.Bowl([1.0] * n),
        same,
        rule="thermal",
        temperature=temperature,
        move=move,
        steps=80,
        record=[0, 80],
        seed=19,
    )
    assert close(found.energy.isel(step=-1), n * temperature / 2)
    assert 0.1 < found.acceptance.mean() < 0.9


def test_what_is_recorded():
    found = walk(flat, torch.ones(3), move=Gaussian(1.0), steps=10, record=4)
    assert dict(found.sizes) == {"walker": 1, "step": 4, "n": 3}
    assert found.step.values.tolist() == [0, 3, 7, 10]
    assert float(found.overlap[0, 0]) == pytest.approx(1)
    last, first = found.point.values[0], np.ones(3)
    cosine = last @ first / np.linalg.norm(last) / np.linalg.norm(first)
    assert float(found.overlap[0, -1]) == pytest.approx(cosine, rel=1e-5)
    assert float(found.displacement[0, -1]) == pytest.approx(np.linalg.norm(last - 1), rel=1e-5)
    assert all(v.attrs["units"] and v.attrs["long_name"] for v in found.data_vars.values())
    assert {"seed", "arguments", "versions", "source"} <= set(found.attrs)
    assert walk(flat, torch.ones(3), move=Gaussian(1.0), steps=10, record=[2]).sizes["step"] == 2


REFUSED = {
    "rule": ({"rule": "warm"}, r"^rule='warm': expected one of free, thermal"),
    "no temperature": ({"rule": "thermal"}, r"^temperature: a thermal walk needs one"),
    "temperature": ({"temperature": 1.0}, r"^temperature=1.0: a free walk has none"),
    "negative": ({"rule": "thermal", "temperature": -1.0}, r"^temperature=-1.0: expected positive"),
    "too many": ({"rule": "thermal", "temperature": [1.0] * 3}, r"^temperature: .* of 2 walkers"),
    "steps": ({"steps": 0}, r"^steps=0"),
    "record": ({"record": 1}, r"^record=1"),
    "record late": ({"record": [0, 11]}, r"^record: steps from 0 to 10, got 0 to 11"),
    "probes": ({"probes": 1}, r"^probes=1: expected 2 or more"),
    "points": ({"points": torch.zeros(2, 2, 3)}, r"^points: expected points \[n\]"),
    "diverged": ({"points": torch.full((2, 3), torch.nan)}, r"^points: \[0, 1\] are not finite"),
    "energy": ({"energy": lambda w: w}, r"^energy: function returned shape"),
    "filters": (
        {"move": FilterGaussian(0.1, [torch.arange(2, 5)])},
        r"^filters: .* 4.* length 3",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_walked_is_refused_by_name(case):
    changed, message = REFUSED[case]
    settings = {
        "energy": oracles.Bowl(torch.ones(3)),
        "points": torch.zeros(2, 3),
        "move": Gaussian(0.1),
    }
    with pytest.raises(ValueError, match=message):
        walk(**settings | FREE | changed)


def test_moves_and_curvature_are_refused_by_name():
    for step in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"^step="):
            Gaussian(step)
        with pytest.raises(ValueError, match=r"^step="):
            FilterGaussian(step, [torch.arange(2)])
    with pytest.raises(ValueError, match=r"^filters: none given"):
        FilterGaussian(0.1, [])
    with pytest.raises(TypeError, match=r"^landscape: function has no hvp"):
        quadratic_law(flat, torch.zeros(3), move=Gaussian(0.1))
    with pytest.raises(TypeError, match=r"^energy: expected an object"):
        walk(3, torch.zeros(3), move=Gaussian(0.1), steps=1)


def test_curvature_is_asked_for_before_the_walk():
    calls = []

    def counted(points):
        calls.append(1)
        return flat(points)

    with pytest.raises(TypeError, match=r"^landscape: "):
        walk(counted, torch.zeros(2, 3), move=Gaussian(0.1), steps=20, record=20, probes=4)
    assert len(calls) <= 1


def test_the_law_of_a_function_that_is_not_walked_on_is_refused():
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    x, y = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 2
    point = WeightSpace(module).point(module)
    with pytest.raises(TypeError, match="re-estimated at every point"):
        quadratic_law(Landscape(module, x, y), point, move=Gaussian(0.1))
    frozen = Landscape(module, x, y, statistics="frozen")
    assert quadratic_law(frozen, point, move=Gaussian(0.1))["rise"].notnull().all()
