"""Local entropy: planted minima, slopes, and whether its errors are those it makes."""

from math import sqrt

import pytest
import torch

from spinscape.glass.rugged.local_entropies import local_entropy

FALSE_ALARM = 4.0  # standard errors: once in 16 000 comparisons, were the seeds not fixed
H = torch.tensor([0.3, 1.0, 2.5], dtype=torch.float64)


def origin(count):
    return torch.zeros(count, 3, dtype=torch.float64)


def test_minima_of_four_times_the_curvature_differ_by_half_the_log_determinants():
    curvatures, gamma = torch.stack([H, 4 * H]), 2.0

    def energy(points):
        return (curvatures * points.square()).sum(-1) / 2 + 0.7  # at equal loss

    found = local_entropy(energy, origin(2), gamma=gamma, probes=6000, seed=0)
    low, high = found.value.tolist()
    exact = float(((4 * H + gamma) / (H + gamma)).log().sum() / 2)
    assert abs(high - low - exact) < FALSE_ALARM * float(found.error.norm())
    assert float(found.error.norm()) < 0.02
    each = ((curvatures + gamma) / gamma).log().sum(1) / 2
    assert ((found.value - each).abs() < FALSE_ALARM * found.error).all()


def test_a_slope_has_more_room_below_than_above():
    slope = torch.tensor([0.5, -0.2, 0.1], dtype=torch.float64)
    found = local_entropy(lambda p: 3 + p @ slope, origin(1), gamma=0.8, probes=6000, seed=1)
    exact = -float(slope.square().sum()) / (2 * 0.8)
    assert abs(float(found.value) - exact) < FALSE_ALARM * float(found.error)


def test_level_ground_has_none():
    found = local_entropy(lambda p: 0 * p.sum(-1), origin(2), gamma=1.0, seed=0)
    assert found.value.tolist() == pytest.approx([0, 0], abs=1e-14)
    assert found.effective.tolist() == pytest.approx([1, 1])


def test_the_standard_error_is_the_spread_of_repetitions():
    count, probes, gamma = 400, 64, 2.0
    found = local_entropy(
        lambda p: (H * p.square()).sum(-1) / 2, origin(count), gamma=gamma, probes=probes, seed=2
    )
    spread = found.value.std()
    # s has relative error 1/√(2·count) for normal values, and the errors scatter by themselves.
    slack = FALSE_ALARM * (1 / sqrt(2 * count) + float(found.error.std() / found.error.mean()) / 20)
    assert float(found.error.square().mean().sqrt() / spread) == pytest.approx(1, abs=slack)
    exact = ((H + gamma) / gamma).log().sum() / 2
    bias = (found.error**2).mean() / 2  # of −ln of a mean
    assert abs(float(found.value.mean() - exact)) < float(bias + FALSE_ALARM * spread / sqrt(count))


def test_few_draws_that_carry_all_are_told():
    steep = local_entropy(
        lambda p: p.square().sum(-1), origin(3), gamma=0.1, strength=50.0, probes=64, seed=3
    )
    gentle = local_entropy(
        lambda p: p.square().sum(-1), origin(3), gamma=10.0, strength=0.1, probes=64, seed=3
    )
    assert (steep.effective < 0.1).all()
    assert (gentle.effective > 0.9).all()


def test_strength_multiplies_the_loss_and_every_point_may_have_its_gamma():
    def energy(points):
        return (H * points.square()).sum(-1)

    one = local_entropy(lambda p: 3 * energy(p), origin(2), gamma=2.0, probes=16, seed=4)
    two = local_entropy(energy, origin(2), gamma=2.0, strength=3.0, probes=16, seed=4)
    torch.testing.assert_close(one.value, two.value)
    gammas = torch.tensor([2.0, 8.0], dtype=torch.float64)
    own = local_entropy(energy, origin(2), gamma=gammas, strength=3.0, probes=16, seed=4)
    assert float(own.value[0]) == pytest.approx(float(two.value[0]))
    assert float(own.value[1]) < float(two.value[1])
    alone = local_entropy(energy, origin(1), gamma=2.0, strength=3.0, probes=16, seed=4)
    assert float(alone.value) == pytest.approx(float(two.value[0]))


@pytest.mark.parametrize("wrong", [{"probes": 1}, {"gamma": -1.0}, {"strength": 0.0}])
def test_numbers_out_of_range_are_refused_by_name(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=rf"^{name}={value}: expected"):
        local_entropy(lambda p: p.sum(-1), origin(2), **({"gamma": 1.0} | wrong), seed=0)
