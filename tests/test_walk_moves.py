"""Langevin moves, tuned steps, thresholds, walkers of a move's own, and what a walk writes down."""

import json
from dataclasses import dataclass
from math import log, sqrt
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

import oracles
from spinscape.glass.walking.langevin import Langevin
from spinscape.glass.walking.moves import FilterGaussian, Gaussian, generators
from spinscape.glass.walking.recording import join_walks
from spinscape.glass.walking.rules import RULES, Info
from spinscape.glass.walking.walks import walk
from spinscape.landscape.energy import Landscape
from spinscape.nets.weightspace import WeightSpace

THERMAL = {"rule": "thermal", "temperature": 0.5}


class Bowl(oracles.Bowl):
    """Energy ½ Σ h w², with its gradient."""

    def gradient(self, points):
        return self.curvatures * points


def flat(points):
    return points.new_zeros(points.shape[:-1])


def normal(*shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def small_landscape(samples=40, **options):
    module = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    x, y = normal(samples, 4, seed=1), torch.arange(samples) % 3
    return Landscape(module, x, y, **options), normal(3, WeightSpace(module).n, seed=2)


# Langevin


def test_langevin_steps_are_accepted_by_the_densities_of_their_proposals():
    """Each step again, one walker at a time, with both densities written out."""
    landscape, points = small_landscape()
    step, temperatures, steps = 0.12, [0.02, 0.01, 0.03], 25
    found = walk(
        landscape,
        points,
        rule="thermal",
        temperature=temperatures,
        move=Langevin(step),
        steps=steps,
        record=steps + 1,
        seed=3,
    )

    def loss_and_slope(point):
        point = point.clone().requires_grad_()
        outputs = oracles.run_point(landscape.module, point, landscape.x)
        value = nn.functional.cross_entropy(outputs, landscape.y)
        return value.item(), torch.autograd.grad(value, point)[0]

    accepted = 0
    for k, (here, temperature) in enumerate(zip(points, temperatures, strict=True)):
        generator = generators(3, 3)[k]
        for time in range(1, steps + 1):
            value, slope = loss_and_slope(here)
            drawn = torch.empty_like(here).normal_(generator=generator)
            log_u = log(torch.rand((), generator=generator, dtype=torch.float64))
            drift = step**2 / 2 / temperature
            there = here - drift * slope + step * drawn
            ahead, its_slope = loss_and_slope(there)
            forth = torch.distributions.Normal(here - drift * slope, step).log_prob(there).sum()
            back = torch.distributions.Normal(there - drift * its_slope, step).log_prob(here).sum()
            if log_u < (value - ahead) / temperature + float(back - forth):
                here, accepted = there, accepted + 1
            assert float(found.energy[k, time]) == pytest.approx(loss_and_slope(here)[0])
    assert found.acceptance.values.sum() * steps == pytest.approx(accepted)
    assert 0.2 < accepted / 3 / steps < 0.95


def test_a_langevin_step_costs_one_energy_and_one_gradient():
    calls = []

    class Counted(Bowl):
        def energy(self, points):
            calls.append("energy")
            return super().energy(points)

        def gradient(self, points):
            calls.append("gradient")
            return super().gradient(points)

    walk(Counted([1.0] * 3), torch.ones(2, 3), move=Langevin(0.1), steps=20, **THERMAL)
    assert calls.count("energy") == calls.count("gradient") == 21


def test_langevin_proposals_that_are_not_finite_are_rejected():
    class Box(Bowl):
        def energy(self, points):
            inside = points.abs().amax(-1) < 1
            return torch.where(inside, super().energy(points), torch.inf)

        def gradient(self, points):
            inside = (points.abs().amax(-1) < 1)[..., None]
            return torch.where(inside, super().gradient(points), torch.nan)

    found = walk(Box([1.0] * 2), torch.zeros(20, 2), move=Langevin(0.5), steps=50, **THERMAL)
    assert np.isfinite(found.energy).all()
    assert (np.abs(found.point) < 1).all()
    assert found.non_finite.min() > 0


def test_langevin_moves_refuse_what_they_cannot_walk():
    start, move = torch.zeros(2, 3), Langevin(0.1)
    for step in (0.0, float("nan")):
        with pytest.raises(ValueError, match=r"^step="):
            Langevin(step)
    with pytest.raises(ValueError, match=r"^rule='free': a Langevin move drifts at a temperature"):
        walk(Bowl([1.0] * 3), start, move=move, steps=2)
    with pytest.raises(ValueError, match=r"^rule='threshold': a Langevin"):
        walk(Bowl([1.0] * 3), start, move=move, steps=2, rule="threshold", threshold=1.0)
    with pytest.raises(TypeError, match=r"^energy: function has no gradient.*use Gaussian"):
        walk(flat, start, move=move, steps=2, **THERMAL)
    with pytest.raises(TypeError, match=r"^probes=4: .* not of Langevin"):
        walk(Bowl([1.0] * 3), start, move=move, steps=2, probes=4, **THERMAL)
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    x, y = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 2
    point = WeightSpace(module).point(module)
    with pytest.raises(TypeError, match="re-estimated at every point"):
        walk(Landscape(module, x, y), point, move=move, steps=2, **THERMAL)
    frozen = Landscape(module, x, y, statistics="frozen")
    assert walk(frozen, point, move=move, steps=2, **THERMAL)["energy"].notnull().all()


# Tuned steps


@pytest.mark.parametrize("poor", [0.003, 30.0])
@pytest.mark.parametrize(
    ("move", "target", "rule"),
    [
        (Gaussian, 0.234, {"rule": "thermal", "temperature": 0.5}),
        (Langevin, 0.574, {"rule": "thermal", "temperature": 0.5}),
        (Gaussian, 0.234, {"rule": "threshold", "threshold": 20.0}),
    ],
)
def test_tuned_steps_are_accepted_as_often_as_asked(move, target, rule, poor):
    start = sqrt(0.5) * normal(30, 20, seed=4)
    settings = {"steps": 400, "burn_in": 600, "record": [0, 400], "seed": 5, **rule}
    found = walk(Bowl([1.0] * 20), start, move=move(poor), **settings)
    assert abs(float(found.acceptance.mean()) - target) < 0.03
    good = found.step_scale * poor
    assert good.max() < 2 * good.min()
    assert json.loads(found.attrs["arguments"])["target"] == target
    if rule["rule"] == "threshold":
        return
    other = walk(Bowl([1.0] * 20), start, move=move(poor), target=0.8, **settings)
    assert abs(float(other.acceptance.mean()) - 0.8) < 0.03
    assert (other.step_scale < found.step_scale).all()


def test_the_burn_in_comes_before_the_record_and_does_not_depend_on_neighbours():
    bowl, start = Bowl([1.0, 2.0, 3.0]), normal(4, 3, seed=6)
    settings = {"move": Gaussian(3.0), "steps": 30, "burn_in": 50, "seed": 7, **THERMAL}
    settings |= {"record": 31, "waiting": [0]}
    together = walk(bowl, start, **settings)
    alone = walk(bowl, start[:2], **settings)
    for name in ("energy", "point", "step_scale", "two_time"):
        kept = alone[name].transpose("walker", ...)
        assert (kept.values == together[name].transpose("walker", ...).values[:2]).all()
    np.testing.assert_allclose(together.start_energy, bowl.energy(start))
    assert (together.displacement.sel(step=0) > 0).all()  # from the given points
    assert (together.two_time.sel(waiting=0, step=0) == 0).all()  # from the end of the burn-in
    assert together.step.values[0] == 0
    assert len(set(together.step_scale.values)) == 4


def test_flat_ground_does_not_tune_without_end():
    found = walk(flat, torch.zeros(2, 3), move=Gaussian(1.0), steps=5, burn_in=3000, **THERMAL)
    assert found.step_scale.values == pytest.approx([1e6, 1e6], rel=0.2)
    assert np.isfinite(found.point).all()


# Thresholds, records, walkers of a move's own


def test_each_walker_keeps_below_its_own_threshold():
    tops = [0.5, 2.0, 1.0]
    found = walk(
        Bowl([1.0] * 4),
        torch.zeros(3, 4),
        rule="threshold",
        threshold=tops,
        move=Gaussian(0.5),
        steps=200,
        record=201,
        seed=8,
    )
    assert (found.energy.max("step") <= tops).all()
    assert (found.energy.max("step") > 0.8 * np.array(tops)).all()
    assert found.threshold.values == pytest.approx(tops)


def test_records_follow_from_the_recorded_points():
    """Against a walk that is stopped at each time to look at its point."""
    landscape, points = small_landscape()
    points = torch.cat([points, points[:1] + 1])
    settings = {"move": Gaussian(0.1), "seed": 9, "rule": "thermal", "temperature": 0.05}
    found = walk(
        landscape,
        points,
        steps=12,
        record=[0, 3, 4, 12],
        waiting=[3, 5],
        partners=True,
        errors=True,
        **settings,
    )
    stops = {
        time: walk(landscape, points, steps=time, record=2, **settings) for time in (3, 4, 5, 12)
    }
    path = {time: stop.point.values for time, stop in stops.items()} | {0: points.numpy()}
    counts = {time: stop.acceptance.values * time for time, stop in stops.items()} | {0: 0.0}
    models = oracles.models_at(landscape.module, torch.from_numpy(path[4]))
    errors = oracles.errors_at(models, landscape.x, landscape.y)
    np.testing.assert_allclose(found.error.sel(step=4), errors)
    losses = oracles.losses_at(models, landscape.x, landscape.y)
    np.testing.assert_allclose(found.energy.sel(step=4), losses)
    for wait, time in [(3, 3), (3, 4), (3, 12), (5, 12)]:
        at = {"waiting": wait, "step": time}
        moved = ((path[time] - path[wait]) ** 2).mean(1)
        np.testing.assert_allclose(found.two_time.sel(at), moved)
        cosine = (path[time] * path[wait]).sum(1)
        cosine /= np.linalg.norm(path[time], axis=1) * np.linalg.norm(path[wait], axis=1)
        np.testing.assert_allclose(found.two_time_overlap.sel(at), cosine)
    assert found.two_time.sel(waiting=5, step=[0, 3, 4]).isnull().all()
    for time in (0, 4, 12):
        one, other = path[time][::2], path[time][1::2]
        gaps = np.linalg.norm(one - other, axis=1)
        np.testing.assert_allclose(found.pair_distance.sel(step=time), gaps)
        cosine = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
        np.testing.assert_allclose(found.pair_overlap.sel(step=time), cosine)
    for before, time in [(0, 3), (3, 4), (4, 12)]:
        rate = (counts[time] - counts[before]) / (time - before)
        np.testing.assert_allclose(found.acceptance_rate.sel(step=time), rate, atol=1e-6)
    assert found.acceptance_rate.sel(step=0).isnull().all()
    assert all(v.attrs["units"] and v.attrs["long_name"] for v in found.data_vars.values())
    assert found.attrs["moving"] == points.shape[1]


def test_coordinates_that_no_move_touches_are_not_counted_as_moving():
    move = FilterGaussian(0.1, [torch.arange(2)])
    assert walk(flat, torch.ones(2, 5), move=move, steps=3).attrs["moving"] == 2


def test_joined_walks_are_the_walk_of_all():
    bowl, start = Bowl([1.0, 2.0]), normal(6, 2, seed=10)
    options = {"move": Gaussian(0.3), "steps": 20, "waiting": [2, 5], **THERMAL}
    pieces = [walk(bowl, start[k : k + 2], partners=True, seed=k, **options) for k in (0, 2, 4)]
    joined = join_walks(pieces)
    assert dict(joined.sizes) | {"step": 0} == {
        "walker": 6,
        "pair": 3,
        "step": 0,
        "waiting": 2,
        "n": 2,
    }
    for k, piece in enumerate(pieces):
        rows = joined.isel(walker=slice(2 * k, 2 * k + 2), pair=[k])
        for name in piece.data_vars:
            assert rows[name].equals(piece[name]), name
    lone = [walk(bowl, start[k : k + 1], seed=k, **options) for k in (0, 2)]
    assert join_walks(lone).sizes["walker"] == 2


class Tally(NamedTuple):
    point: torch.Tensor
    energy: torch.Tensor
    scale: torch.Tensor


@dataclass(frozen=True)
class March:
    """A move with a walker of its own: one unit along the first axis, where the rule allows it."""

    step: float = 1.0

    def walker(self, energy, rule, temperature, threshold):
        march = self

        class Marcher:
            def init(self, points):
                return Tally(points.clone(), energy.energy(points), torch.ones(len(points)))

            def step(self, state, generators):
                there = state.point.clone()
                there[:, 0] += march.step * state.scale
                ahead = energy.energy(there)
                limits = {"temperature": temperature, "threshold": threshold}
                taken = rule.accept(state.energy, ahead, torch.zeros(len(there)), **limits)
                point = torch.where(taken[:, None], there, state.point)
                moved = Tally(point, torch.where(taken, ahead, state.energy), state.scale)
                return moved, Info(taken, ahead.isfinite())

            def energies(self, state):
                return state.energy

        return Marcher()


def test_a_move_may_bring_its_own_walker():
    start = torch.zeros(2, 3, dtype=torch.float64)
    settings = {"move": March(), "steps": 5, "record": 6}
    free = walk(Bowl([1.0] * 3), start, **settings)
    assert free.displacement[0].values.tolist() == [0, 1, 2, 3, 4, 5]
    held = walk(Bowl([1.0] * 3), start, rule="threshold", threshold=[2.0, 4.5], **settings)
    assert held.displacement.isel(step=-1).values.tolist() == [2, 3]
    assert held.acceptance.values == pytest.approx([0.4, 0.6])
    with pytest.raises(ValueError, match=r"^target: March has no usual acceptance; give one"):
        walk(Bowl([1.0] * 3), start, burn_in=5, **settings, **THERMAL)


def test_rules_accept_by_their_definitions():
    here, there = torch.tensor([1.0, 1.0, 1.0, 1.0]), torch.tensor([0.5, 2.0, 1.5, torch.nan])
    log_u = torch.tensor([-0.1, -1.9, -1.9, -50.0], dtype=torch.float64)
    free, thermal, threshold = (RULES[name] for name in ("free", "thermal", "threshold"))
    assert free.accept(here, there, log_u).all()
    half = torch.full((4,), 0.5, dtype=torch.float64)
    accepted = thermal.accept(here, there, log_u, temperature=half)
    assert accepted.tolist() == [True, False, True, False]
    ratio = torch.tensor([-2.0, 0.2, -1.0, 0.0], dtype=torch.float64)
    accepted = thermal.accept(here, there, log_u, temperature=half, log_ratio=ratio)
    assert accepted.tolist() == [False, True, False, False]
    accepted = threshold.accept(here, there, log_u, threshold=3 * half)
    assert accepted.tolist() == [True, False, True, False]


BAD = {
    "no threshold": ({"rule": "threshold"}, r"^threshold: a threshold walk needs one"),
    "threshold of a free walk": ({"threshold": 1.0}, r"^threshold=1.0: a free walk has none"),
    "threshold of a thermal walk": ({**THERMAL, "threshold": 1.0}, r"^threshold=1.0: a thermal"),
    "infinite": ({"rule": "threshold", "threshold": float("inf")}, r"^threshold=inf: expected fin"),
    "above": (
        {"rule": "threshold", "threshold": [1.0, 4.0]},
        r"^threshold=1: walkers \[0\] start above it, the first at 1.5; raise it",
    ),
    "burn-in": ({"burn_in": -1}, r"^burn_in=-1"),
    "free burn-in": ({"burn_in": 5}, r"^burn_in=5: a free walk accepts every step"),
    "target alone": ({"target": 0.5}, r"^target=0.5: nothing is tuned without burn_in"),
    "target": ({**THERMAL, "burn_in": 5, "target": 1.0}, r"^target=1.0: expected a fraction"),
    "law": ({**THERMAL, "burn_in": 5, "probes": 4}, r"^probes=4: .* burn_in=5 changes both"),
    "waiting": ({"waiting": [10]}, r"^waiting: steps from 0 to 9, got 10 to 10"),
    "partners": ({"points": torch.ones(3, 3), "partners": True}, r"^partners=True: 3 walkers"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_walked_is_refused_by_name(case):
    changed, message = BAD[case]
    settings = {"energy": Bowl(torch.ones(3)), "points": torch.ones(2, 3), "move": Gaussian(0.1)}
    with pytest.raises(ValueError, match=message):
        walk(**settings | {"steps": 10} | changed)


def test_errors_need_something_that_evaluates():
    with pytest.raises(TypeError, match=r"^errors=True: Bowl has no evaluate"):
        walk(Bowl([1.0]), torch.ones(1, 1), move=Gaussian(0.1), steps=2, errors=True)
