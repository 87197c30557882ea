"""The local learning coefficient: quadratures, regular and singular minima, chains that lag."""

from math import log, sqrt

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from spinscape.glass.rugged.learning_coefficients import RidgeLangevin, learning_coefficient
from spinscape.glass.walking.moves import generators
from spinscape.landscape.energy import Landscape
from spinscape.nets.models import mlp

FALSE_ALARM = 4.0  # standard errors: once in 16 000 comparisons, were the seeds not fixed
SAMPLES = 1000
STRENGTH = SAMPLES / log(SAMPLES)
LONG = {"samples": SAMPLES, "chains": 4, "settle": 200, "steps": 500}


class Smooth:
    """A function of points with its gradient by autograd."""

    def __init__(self, function):
        self.energy = function

    def gradient(self, points):
        points = points.detach().requires_grad_()
        with torch.enable_grad():
            return torch.autograd.grad(self.energy(points).sum(), points)[0]


def bowl(curvatures):
    h = torch.tensor(curvatures, dtype=torch.float64)
    return Smooth(lambda w: (h * w.square()).sum(-1) / 2)


def origin(count, n):
    return torch.zeros(count, n, dtype=torch.float64)


def agrees(found, exact):
    """Points are independent: their mean is as far away as their own spread allows."""
    away = found.value - exact
    return abs(away.mean()) < FALSE_ALARM * found.value.std() / sqrt(len(away))


# Known answers


@pytest.mark.parametrize("gamma", [1.0, 30.0])
def test_in_a_bowl_every_direction_adds_its_share_of_a_half(gamma):
    h = np.array([0.5, 1, 2, 8, 0])
    exact = (STRENGTH * h / (STRENGTH * h + gamma)).sum() / 2
    found = learning_coefficient(bowl(h.tolist()), origin(16, 5), gamma=gamma, **LONG, seed=0)
    assert agrees(found, exact)
    assert ((found.value - exact).abs() < FALSE_ALARM * found.error).all()
    assert (found.rhat < 1.1).all()
    assert float(found.error.mean()) < 0.1 * exact


def test_a_regular_minimum_has_half_its_dimension_and_a_level_direction_nothing():
    found = learning_coefficient(bowl([4, 4, 4, 0, 0]), origin(16, 5), gamma=1.0, **LONG, seed=1)
    assert agrees(found, 1.5 / (1 + 1 / (4 * STRENGTH)))
    assert float(found.value.mean()) == pytest.approx(1.5, abs=0.05)


def test_a_quartic_minimum_has_a_quarter():
    def weight(w):
        return np.exp(-STRENGTH * w**4 - 0.2 * w**2 / 2)

    exact = STRENGTH * quad(lambda w: w**4 * weight(w), -3, 3)[0] / quad(weight, -3, 3)[0]
    assert exact == pytest.approx(0.25, abs=0.002)
    quartic = Smooth(lambda w: w.pow(4).sum(-1))
    found = learning_coefficient(quartic, origin(32, 1), gamma=0.2, **LONG, seed=2)
    assert agrees(found, exact)
    assert float(found.value.std()) / sqrt(32) < 0.01


def test_four_times_the_curvature_is_the_same_regular_minimum():
    """Volume falls as the loss to the power d/2 in both; sharpness is not what it counts."""
    for scale in (1, 4):
        h = [scale * v for v in (1.0, 2.0, 3.0)]
        found = learning_coefficient(bowl(h), origin(16, 3), gamma=0.5, **LONG, seed=3)
        assert float(found.value.mean()) == pytest.approx(1.5, abs=0.06)


def test_a_point_that_is_no_minimum_may_be_negative():
    point = torch.tensor([[1.0, 0, 0]], dtype=torch.float64)
    found = learning_coefficient(bowl([2, 2, 2]), point, gamma=10.0, **LONG, seed=4)
    h, drift = STRENGTH * 2 + 10, 10 * 1.0  # the posterior is centred at drift/h, not at the point
    exact = 3 * STRENGTH / h + STRENGTH * ((drift / h) ** 2 - 1)
    assert exact < -50
    assert abs(float(found.value) - exact) < FALSE_ALARM * float(found.error)


# The sampler


def test_it_leaves_its_distribution_as_it_is():
    """Chains begun in equilibrium stay there: the second moments of a bowl with a ridge."""
    h, gamma, chains = torch.tensor([0.0, 3.0, 40.0]).double(), 2.0, 4000
    sampler = RidgeLangevin(
        lambda p: (h * p.square()).sum(-1) / 2,
        lambda p: h * p,
        origin(chains, 3),
        torch.full((chains,), gamma, dtype=torch.float64),
    )
    streams = generators(5, chains)
    state = sampler.init(streams, delta=0.05)
    begun = state.away * (gamma / (gamma + h)).sqrt()
    state = sampler._at(begun, state.delta)
    for _ in range(10):
        state, chance = sampler.step(state, streams)
    assert 0.3 < float(chance.mean()) < 0.95
    variance = state.away.square().mean(0)
    exact = 1 / (gamma + h)
    assert ((variance - exact).abs() < FALSE_ALARM * exact * sqrt(2 / chains)).all()
    kept = (state.away == begun).all(1).double().mean()
    assert float(kept) < 0.1


@pytest.mark.parametrize("delta", [0.1, 1.0, 2.0])
def test_the_acceptance_is_that_of_both_densities(delta):
    """Metropolis and Hastings' ratio from the densities themselves, ridge included."""
    n, gamma = 4, 3.0
    smooth = Smooth(lambda w: w.pow(4).sum(-1) + w.sin().sum(-1))
    sampler = RidgeLangevin(
        smooth.energy, smooth.gradient, origin(6, n) + 0.2, torch.full((6,), gamma).double()
    )
    size = torch.full((6,), delta, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    places = 0.3 * torch.randn(2, 6, n, generator=generator, dtype=torch.float64)
    old, new = (sampler._at(away, size) for away in places)

    def log_density(state):
        return -state.potential - gamma * state.away.square().sum(-1) / 2

    def log_proposal(start, end):
        mean = ((2 - delta) * start.away - 2 * delta / gamma * sampler._drift(start)) / (2 + delta)
        variance = 8 * delta / gamma / (2 + delta) ** 2
        return -(end.away - mean).square().sum(-1) / (2 * variance)

    exact = log_density(new) - log_density(old) + log_proposal(new, old) - log_proposal(old, new)
    torch.testing.assert_close(sampler._log_ratio(old, new), exact)


def test_on_level_ground_every_step_is_taken_however_many_weights():
    found = learning_coefficient(
        Smooth(lambda w: 0 * w.sum(-1)), origin(2, 20_000), gamma=1.0, samples=100, seed=6
    )
    assert found.acceptance.tolist() == [1, 1]
    assert found.value.tolist() == [0, 0]


def test_chains_that_have_not_settled_say_so():
    """A narrow valley that a few steps from a wide start do not find."""
    h = [1e5] * 200
    few = {"samples": SAMPLES, "chains": 3, "settle": 0, "steps": 8}
    found = learning_coefficient(bowl(h), origin(4, 200), gamma=1.0, **few, seed=7)
    assert (found.value > 2 * 100).all()
    assert (found.rhat > 1.2).all()


# Networks


def small(replicas=4):
    module = mlp(4, [6], 3).double()
    generator = torch.Generator().manual_seed(8)
    x = torch.randn(50, 4, generator=generator, dtype=torch.float64)
    y = torch.randint(3, (50,), generator=generator)
    n = sum(parameter.numel() for parameter in module.parameters())
    points = torch.randn(replicas, n, generator=generator, dtype=torch.float64)
    return Landscape(module, x, y), points


def test_the_number_of_samples_is_that_of_the_landscape():
    landscape, points = small()
    found = learning_coefficient(landscape, points, gamma=10.0, seed=9)
    given = learning_coefficient(landscape, points, gamma=10.0, samples=50, seed=9)
    other = learning_coefficient(landscape, points, gamma=10.0, samples=500, seed=9)
    assert torch.equal(found.value, given.value)
    assert not torch.isclose(found.value, other.value).any()


def test_a_point_is_sampled_alike_whoever_is_beside_it():
    landscape, points = small()
    gammas = torch.tensor([5.0, 10, 20, 40], dtype=torch.float64)
    state = torch.get_rng_state()
    whole = learning_coefficient(landscape, points, gamma=gammas, seed=10)
    part = learning_coefficient(landscape, points[:2], gamma=gammas[:2], seed=10)
    assert torch.equal(torch.get_rng_state(), state)
    for ours, theirs in zip(part, whole, strict=True):
        torch.testing.assert_close(ours, theirs[:2])


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"chains": 1}, "chains=1: expected 2 or more"),
        ({"steps": 3}, "steps=3: expected 4 or more"),
        ({"settle": -1}, "settle=-1: expected 0 or more"),
        ({"gamma": 0.0}, "gamma=0.0: expected positive numbers"),
        ({"samples": 1}, "samples=1: expected 2 or more"),
        ({"samples": None}, "samples: Smooth does not say how many"),
    ],
)
def test_numbers_out_of_range_are_refused_by_name(wrong, words):
    given = {"gamma": 1.0, "samples": 10} | wrong
    with pytest.raises(ValueError, match=words):
        learning_coefficient(bowl([1.0]), origin(2, 1), seed=0, **given)


def test_an_energy_without_gradient_is_refused():
    with pytest.raises(TypeError, match="has no gradient"):
        learning_coefficient(lambda w: w.sum(-1), origin(2, 1), gamma=1.0, samples=9, seed=0)
