"""Flattened minima against plain ones: cost counted apart, laws of averages, planted verdicts."""

import json

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import oracles
from spinscape.glass.rugged.flattening import KINDS, flattened, flattening_findings
from spinscape.glass.rugged.flattening_kinds import share_out
from spinscape.glass.rugged.flattening_walks import thermal_average
from spinscape.glass.walking.langevin import Langevin
from spinscape.glass.walking.moves import FilterGaussian, Gaussian
from spinscape.landscape.energy import Landscape
from spinscape.nets.datasets import Data, Split
from spinscape.nets.engine import TrainingEngine
from spinscape.nets.training import train
from spinscape.nets.weightspace import WeightSpace

FALSE_ALARM = 4.0  # standard errors: once in 16 000 comparisons, were the seeds not fixed
FEW = {"probes": 4, "directions": 3, "samples": 40}


def toy_data(samples=70, inputs=6, classes=3):
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(3 * samples, inputs, generator=generator, dtype=torch.float64)
    y = (x[:, :classes] + 0.3 * x[:, classes : 2 * classes]).argmax(1)
    splits = [Split(x[k::3], y[k::3]) for k in range(3)]
    return Data(*splits, name="toy", classes=classes, description="linear teacher")


def net(inputs=6, hidden=5, classes=3):
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, classes)).double()


def small(**changes):
    settings = {"replicas": 3, "seed": 4, "epochs": 20, "batch_size": 16} | FEW | changes
    return flattened(net(), toy_data(), **settings)


@pytest.fixture(scope="module")
def one():
    return small()


# The average of a thermal walk's points


def flat(points):
    return points.new_zeros(points.shape[:-1])


def test_the_average_of_a_free_walk_has_the_variance_of_its_law():
    walkers, n, size, every = 60, 40, 0.3, 3
    found = thermal_average(
        flat,
        torch.zeros(walkers, n, dtype=torch.float64),
        temperature=1.0,
        move=Gaussian(size),
        steps=20,
        every=every,
        seed=1,
    )
    times = np.arange(every, 21, every)
    expected = size**2 * np.minimum.outer(times, times).mean()
    values = found.point.values.ravel()
    assert abs(values.var() / expected - 1) < FALSE_ALARM * np.sqrt(2 / values.size)
    assert found.acceptance.values.tolist() == [1.0] * walkers
    assert found.attrs["averaged"] == len(times)


def test_the_average_of_a_thermal_walk_in_a_bowl_is_nearer_to_its_bottom():
    walkers, n, steps, heat, size = 3000, 2, 60, 0.5, 1.0
    generator = np.random.default_rng(2)
    start = generator.standard_normal((walkers, n)) * np.sqrt(heat)
    found = thermal_average(
        oracles.Bowl([1.0] * n),
        torch.from_numpy(start),
        temperature=heat,
        move=Gaussian(size),
        steps=steps,
        seed=3,
    )
    point, mean = start.copy(), np.zeros_like(start)
    for _ in range(steps):  # Metropolis by hand, with other random numbers
        tried = point + size * generator.standard_normal(point.shape)
        gain = ((point**2).sum(1) - (tried**2).sum(1)) / 2 / heat
        point = np.where((np.log(generator.random(walkers)) < gain)[:, None], tried, point)
        mean += point / steps
    here, by_hand = ((values**2).sum(1) for values in (found.point.values, mean))
    error = np.hypot(here.std(), by_hand.std()) / np.sqrt(walkers)
    assert abs(here.mean() - by_hand.mean()) < FALSE_ALARM * error
    assert here.mean() < 0.25 * n * heat
    assert abs(found.walk_energy.values.mean() - n * heat / 2) < 0.03
    assert (found.energy <= found.walk_energy + 1e-12).all()


def test_a_walkers_average_depends_on_its_own_number_alone():
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    settings = {"temperature": 0.3, "move": Gaussian(0.5), "steps": 12, "burn_in": 6, "seed": 2}
    together = thermal_average(oracles.Bowl([1.0, 2, 3]), start, **settings)
    some = thermal_average(oracles.Bowl([1.0, 2, 3]), start[[4, 1]], walkers=[4, 1], **settings)
    np.testing.assert_array_equal(some.point, together.point[[4, 1]])
    assert not np.allclose(some.step_scale, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"walkers": [1]}, "walkers=.1.: expected a number, 0 or more, for each of 2 points"),
        ({"every": 9}, "every=9: expected from 1 to the 8 steps"),
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"burn_in": -1}, "burn_in=-1"),
    ],
)
def test_bad_walks_are_refused_by_name(arguments, message):
    settings = {"temperature": 1.0, "move": Gaussian(0.1), "steps": 8, "seed": 0} | arguments
    with pytest.raises(ValueError, match=message):
        thermal_average(flat, torch.zeros(2, 3), **settings)


# Equal cost, equal seeds


def test_the_cost_is_what_was_spent(monkeypatch):
    spent = dict.fromkeys(("training", "energy", "gradient"), 0)
    learn, loss, gradient = TrainingEngine.loss_and_gradient, Landscape.loss, Landscape.gradient

    def counted_training(self, points, x, y, *rest, own, **more):
        spent["training"] += y.numel() if own else len(points) * len(y)
        return learn(self, points, x, y, *rest, own=own, **more)

    def counted(name, method):
        def call(self, points):
            if len(self.x) == 60:  # the walk's landscape, not the one that is measured
                spent[name] += len(points) * len(self.x)
            return method(self, points)

        return call

    monkeypatch.setattr(TrainingEngine, "loss_and_gradient", counted_training)
    monkeypatch.setattr(Landscape, "loss", counted("energy", loss))
    monkeypatch.setattr(Landscape, "gradient", counted("gradient", gradient))
    found = small(walk_samples=60)
    plain, averaged, sam, walk = found.cost.values
    recording = 60  # the energy of the average, which is only written down
    walked = spent["gradient"] / 3 + (spent["energy"] / 3 - recording) / 3
    start = 50 * 16
    assert plain == averaged == 100 * 16
    assert spent["training"] / 3 == pytest.approx(plain + sam + start)
    assert walk == pytest.approx(start + walked)
    np.testing.assert_allclose(found.cost, plain, rtol=0.011)  # to a batch of 16


@pytest.mark.parametrize("move", [Langevin(0.1), Gaussian(0.1)])
@pytest.mark.parametrize(("size", "epochs"), [(6400, 20), (6400, 41), (1168, 40)])
def test_costs_are_equal_within_a_few_percent(move, size, epochs):
    budget = share_out(size, 64, epochs, 0.5, move, min(size, 1000))
    np.testing.assert_allclose(budget.cost, budget.cost[0], rtol=0.002)
    assert max(budget.cost) <= budget.cost[0]
    assert budget.burn_in + budget.walk_steps >= 4


def test_each_kind_is_what_it_is_called(one):
    data, module = toy_data(), net()
    settings = {"replicas": 3, "seed": 4, "batch_size": 16}
    plain = train(module, data, epochs=20, snapshots=[80, 85, 90, 95, 100], **settings)
    np.testing.assert_array_equal(one.point.sel(kind="plain"), plain.point)
    np.testing.assert_array_equal(one.seed, plain.seed)
    averaged = one.point.sel(kind="weight averaging")
    np.testing.assert_allclose(averaged, plain.snapshot.mean("snapshot"), rtol=1e-12)
    sam = train(module, data, steps=50, optimizer="sam", rho=0.05, **settings)
    np.testing.assert_array_equal(one.point.sel(kind="SAM"), sam.point)
    assert one.kind.values.tolist() == list(KINDS)
    far = np.linalg.norm(one.point.sel(kind="walk averaging") - plain.point, axis=1)
    assert (far > 0.1).all()


def test_measures_are_those_of_the_points(one):
    data, module = toy_data(), net()
    for kind in KINDS:
        points = torch.from_numpy(one.point.sel(kind=kind).values)
        models = oracles.models_at(module, points)
        for split in ("train", "test"):
            x, y = data.splits[split]
            losses, errors = oracles.losses_at(models, x, y), oracles.errors_at(models, x, y)
            np.testing.assert_allclose(one[f"{split}_loss"].sel(kind=kind), losses, rtol=1e-9)
            np.testing.assert_allclose(one[f"{split}_error"].sel(kind=kind), errors, rtol=1e-9)
    np.testing.assert_allclose(one.gap, one.test_loss - one.train_loss)
    for name, variable in one.data_vars.items():
        assert {"long_name", "units"} <= variable.attrs.keys(), name
    assert json.loads(one.attrs["arguments"])["walk_steps"] > 0


def test_a_replica_does_not_know_its_companions(one):
    alone = small(replicas=[1, 2])
    assert alone.replica.values.tolist() == [1, 2]
    np.testing.assert_allclose(alone.point, one.point[:, 1:], rtol=1e-7, atol=1e-9)
    cells = [small(replicas=[0]), alone]
    joined = xr.concat(cells, "replica", data_vars="minimal", combine_attrs="override")
    assert joined.cost.dims == ("kind",)
    np.testing.assert_allclose(joined.test_loss, one.test_loss, rtol=1e-7)
    assert [f.value for f in flattening_findings(joined)[:3]] == pytest.approx(
        [f.value for f in flattening_findings(one)[:3]]
    )


def test_under_a_schedule_weights_are_averaged_at_a_constant_rate(one):
    cosine = small(schedule="cosine")
    np.testing.assert_array_equal(
        cosine.point.sel(kind="weight averaging"), one.point.sel(kind="weight averaging")
    )
    assert not np.allclose(cosine.point.sel(kind="plain"), one.point.sel(kind="plain"))


def test_the_user_s_module_and_the_random_state_are_untouched():
    module, before = net(), torch.random.get_rng_state()
    point = oracles.point_of(module)
    flattened(module, toy_data(), replicas=2, seed=0, epochs=20, batch_size=16, **FEW)
    assert torch.equal(oracles.point_of(module), point)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_diverged_replica_is_marked_and_left_out_of_the_verdicts():
    found = small(learning_rate=[0.1, 1e300, 0.1])
    assert found.diverged.values.tolist() == [[False, True, False]] * 4
    assert np.isnan(found.local_energy[:, 1]).all()
    assert np.isfinite(found.local_energy[:, [0, 2]]).all()
    told = [finding.statement for finding in flattening_findings(found)]
    assert all("over 2 pairs" in statement for statement in told)


def test_networks_with_normalisation_need_a_walk_without_gradient():
    module = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3)).double()
    settings = {"replicas": 2, "seed": 0, "epochs": 20, "batch_size": 16} | FEW
    move = FilterGaussian(0.02, WeightSpace(module).filters)
    found = flattened(module, toy_data(), move=move, **settings)
    assert np.isfinite(found.test_loss).all()
    point = torch.from_numpy(found.point.sel(kind="weight averaging").values)
    data = toy_data()
    models = oracles.models_at(module, point, statistics=data.train.x)
    expected = oracles.losses_at(models, *data.test)
    np.testing.assert_allclose(found.test_loss.sel(kind="weight averaging"), expected, rtol=1e-9)
    with pytest.raises(TypeError, match="statistics"):
        flattened(module, toy_data(), **settings)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"optimizer": "adam"}, TypeError, "optimizer: all kinds share batch_size, learning_rate"),
        ({"stop_at": 0.1}, TypeError, "stop_at: all kinds share"),
        ({"walk_share": 1.0}, ValueError, "walk_share=1.0: expected a share of the budget"),
        ({"epochs": 1}, ValueError, "go to the walk, which makes 0, expected 4 or more; raise"),
        ({"temperature": 0.0}, ValueError, "temperature=0.0: expected a positive number"),
        ({"rho": -1.0}, ValueError, "rho=-1.0"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, kind, message):
    with pytest.raises(kind, match=message):
        small(**arguments)


# Verdicts


def planted(generator, *, gain=0.0, flatter=0.0, spread=0.004, replicas=16):
    """Measures of which SAM's are better than the plain ones by a given amount on average."""
    seeds = generator.normal(size=replicas)
    dims = ("kind", "replica")

    def measure(level, shift, noise):
        values = level + noise * (seeds + generator.normal(size=(4, replicas)))
        values[2] -= shift
        return dims, values

    return xr.Dataset(
        {
            "test_error": measure(0.05, gain, spread),
            "test_loss": measure(0.2, gain, spread),
            "train_loss": measure(0.01, 0.0, 1e-4),
            "local_energy": measure(0.02, flatter, 1e-3),
        },
        coords={"kind": list(KINDS), "replica": range(replicas)},
    )


def by_question(dataset, **settings):
    found = flattening_findings(dataset, **settings)
    assert len(found) == 6
    return {(f.question.split()[0], k): f for f, k in zip(found, 2 * KINDS[1:], strict=True)}


def test_planted_improvements_are_found_and_their_size_is_right():
    found = by_question(planted(np.random.default_rng(1), gain=0.01, flatter=0.005))
    error, energy = found["Do", "SAM"], found["Are", "SAM"]
    assert error.verdict == energy.verdict == "supported"
    assert error.low < 0.01 < error.high
    assert energy.low < 0.005 < energy.high
    assert error.level == pytest.approx(1 - 0.05 / 3)
    assert "Bonferroni" in error.rule
    assert "SAM" in error.question
    for kind in ("weight averaging", "walk averaging"):
        assert found["Do", kind].verdict != "supported"


def test_pairing_takes_out_what_a_seed_shares():
    """Seeds differ by ten times what is gained: only within a seed can the gain be seen."""
    generator = np.random.default_rng(2)
    data = planted(generator, spread=0.0002)
    data["test_error"] = data["test_error"] + 0.02 * generator.normal(size=16)
    data["test_error"][2] -= 0.002
    assert by_question(data)["Do", "SAM"].verdict == "supported"


def test_what_makes_minima_worse_or_no_better_is_not_supported():
    worse = by_question(planted(np.random.default_rng(3), gain=-0.01, flatter=-0.005))
    assert worse["Do", "SAM"].verdict == worse["Are", "SAM"].verdict == "not supported"
    same = planted(np.random.default_rng(4))
    for name in same.data_vars:
        same[name][1:] = same[name].values[0]
    for finding in flattening_findings(same):
        assert finding.verdict == "not supported"
        assert (finding.value, finding.low, finding.high) == (0, 0, 0)


def test_a_wide_interval_is_undecided():
    found = by_question(planted(np.random.default_rng(5), spread=0.05, replicas=5))
    assert {found["Do", kind].verdict for kind in KINDS[1:]} == {"undecided"}


def test_without_an_effect_all_intervals_hold_zero_at_their_common_rate():
    trials = np.random.default_rng(6).spawn(40)
    missed = 0
    for generator in trials:
        found = by_question(planted(generator))
        missed += not all(found["Do", k].low <= 0 <= found["Do", k].high for k in KINDS[1:])
    allowed = 0.05 * len(trials)
    assert missed <= allowed + FALSE_ALARM * np.sqrt(allowed)


def test_too_few_seeds_are_undecided():
    data = planted(np.random.default_rng(7), replicas=3)
    data["test_error"][:, 1:] = np.nan
    for finding in flattening_findings(data):
        assert finding.verdict == "undecided"
        assert "of 3 seeds 1 have finite measures" in finding.statement


def test_the_usual_temperature_is_that_of_half_a_nat_in_a_bowl(one):
    heat = json.loads(one.attrs["arguments"])["temperature"]
    assert one.sizes["n"] * heat / 2 == pytest.approx(0.5)
