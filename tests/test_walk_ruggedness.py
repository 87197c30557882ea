"""Correlation lengths along walks: Gaussian random fields, planes, and what a walk cannot tell."""

from math import log, sqrt

import numpy as np
import pytest
import torch

from spinscape.glass.rugged.along_walks import walk_ruggedness

FALSE_ALARM = 4.0  # standard errors: once in 16 000 comparisons, were the seeds not fixed


def whole(n):
    return (torch.arange(n),)


class Field:
    """Gaussian random field of covariance exp(−r²/2a²), as a sum of random waves."""

    def __init__(self, n, a, waves=2000, seed=0):
        generator = np.random.default_rng(seed)
        self.waves = torch.from_numpy(generator.standard_normal((n, waves)) / a)
        self.phases = torch.from_numpy(generator.uniform(0, 2 * np.pi, waves))
        self.height = sqrt(2 / waves)

    def energy(self, points):
        return self.height * (points @ self.waves + self.phases).cos().sum(-1)


@pytest.mark.parametrize("a", [0.3, 0.6, 1.5])
def test_in_a_gaussian_random_field_it_is_that_of_the_covariance(a):
    n, step, steps = 10, 0.2, 400
    points = torch.ones(4, n, dtype=torch.float64)  # so that a filter's norm is 1 a coordinate
    exact = n / 2 * log(1 + step**2 / a**2)
    given = {"walkers": 12, "steps": steps, "step": step, "filters": whole(n)}
    rate, error, null = walk_ruggedness(Field(n, a), points, **given, seed=1)
    # A finite walk less its own line looks a little rougher: by three lengths in its own.
    bias = 3 * (1 + 1 / exact) / steps
    assert abs(float(rate.mean()) - exact) < bias + FALSE_ALARM * float(error.mean()) / 2
    assert float(error.mean()) < 0.15 * exact
    assert (null < 0.5 * rate).all()


def test_smoother_fields_are_less_rugged():
    points = torch.ones(1, 10, dtype=torch.float64)
    given = {"filters": whole(10), "walkers": 4, "steps": 200, "step": 0.2, "seed": 2}
    rates = [float(walk_ruggedness(Field(10, a), points, **given)[0]) for a in (0.3, 0.6, 1.2, 2.4)]
    assert rates == sorted(rates, reverse=True)


def test_on_a_plane_it_is_that_of_a_random_walk_less_its_line():
    """What ground without any ruggedness measures, which depends on the number of steps alone."""
    n, steps = 6, 32
    slope = torch.linspace(-1, 2, n, dtype=torch.float64)
    points = torch.ones(1, n, dtype=torch.float64)
    time = np.arange(steps + 1)
    covariance = np.minimum(time[:, None], time)
    line = np.stack([np.ones(steps + 1), time], axis=1)
    rest = np.eye(steps + 1) - line @ np.linalg.pinv(line)
    left = rest @ covariance @ rest
    exact = -log(np.trace(left, 1) / np.trace(left) * (steps + 1) / steps)
    assert 0.1 < exact < 0.3
    for step in (0.01, 0.1):
        given = {"walkers": 800, "steps": steps, "step": step, "filters": whole(n)}
        rate, error, null = walk_ruggedness(lambda p: p @ slope, points, **given, seed=3)
        assert abs(float(rate) - exact) < FALSE_ALARM * float(error)
        assert float(error) < 0.05 * exact
        assert abs(float(null) - exact) < FALSE_ALARM * float(error)


def test_in_a_steep_bowl_it_is_that_of_changes_without_memory():
    """Curvature makes changes grow along the walk, but they remember nothing."""
    n, points = 20, torch.ones(1, 20, dtype=torch.float64)
    given = {"walkers": 800, "steps": 64, "step": 0.2, "filters": whole(n), "seed": 7}
    rate, error, null = walk_ruggedness(lambda p: 9 * (p - 1).square().sum(-1), points, **given)
    assert abs(float(rate - null)) < FALSE_ALARM * float(error)
    assert float(error) < 0.05 * float(rate)


def test_ground_forgotten_in_one_step_is_infinitely_rugged_and_level_ground_not_at_all():
    points = torch.ones(2, 5, dtype=torch.float64)
    given = {"filters": whole(5), "walkers": 16, "steps": 100, "step": 0.1, "seed": 4}
    white, _, _ = walk_ruggedness(lambda p: (1e7 * p.sum(-1)).sin(), points, **given)
    assert (white > 2).all()
    for level in (0.0, 0.3):
        found = walk_ruggedness(lambda p, v=level: 0 * p.sum(-1) + v, points.float(), **given)
        assert [values.tolist() for values in found] == 3 * [[0, 0]]


def test_a_point_is_walked_from_alike_whoever_is_beside_it():
    field, points = Field(5, 0.5), torch.rand(3, 5, generator=torch.Generator().manual_seed(5))
    rate, error, _ = walk_ruggedness(field, points.double(), filters=whole(5), seed=6)
    part, _, _ = walk_ruggedness(field, points[:2].double(), filters=whole(5), seed=6)
    torch.testing.assert_close(part, rate[:2])
    assert (error > 0).all()


@pytest.mark.parametrize("wrong", [{"walkers": 1}, {"steps": 7}, {"step": 0.0}])
def test_numbers_out_of_range_are_refused_by_name(wrong):
    ((name, value),) = wrong.items()
    points = torch.ones(1, 2)
    with pytest.raises(ValueError, match=rf"^{name}={value}: expected"):
        walk_ruggedness(lambda p: p.sum(-1), points, filters=whole(2), seed=0, **wrong)
