"""Parallel tempering of systems that are no spins and whose answers are known.

Chains of the Gaussian system are drawn anew at every sweep from exp(−½ β |x|²), so that energies
are Gamma distributed and exchanges independent: with n coordinates, mean n T/2 and variance n T²/2.
Seeds are fixed; means are compared within four standard errors of independent draws.
"""

from functools import cache

import numpy as np
import pytest
import scipy.stats
import torch

from spinscape.glass.tempering import Exchange, Tempering, even_ladder, ladder_of
from spinscape.spins import SpinModel, ladder, sample

ERRORS = 4.0
ENSEMBLES = 400
COORDINATES = 12
HEATS = np.array([0.5, 0.7, 1.0, 1.3, 2.0])


class Walkers:
    """Independent Gaussian coordinates, drawn anew at every sweep."""

    def __init__(self, seed=0):
        self.generator = torch.Generator().manual_seed(seed)
        self.betas = []

    def sweep(self, state, beta):
        self.betas.append(beta.clone())
        drawn = torch.randn(state.shape, generator=self.generator, dtype=state.dtype)
        state.copy_(drawn / beta[:, None].sqrt())

    def energy(self, state):
        return state.square().sum(1).double() / 2


class Scripted:
    """Energies that are given; a sweep does nothing."""

    def __init__(self, energies):
        self.energies = energies

    def sweep(self, state, beta):
        state += 1

    def energy(self, state):
        return self.energies


def tempering_of(system, heats, ensembles, seed=0, exchanging=True):
    beta = torch.from_numpy(1 / np.asarray(heats, float))
    made = Tempering(system, beta, torch.Generator().manual_seed(seed), exchanging)
    made.begin(ensembles)
    return made


def walkers(steps=60, heats=HEATS, sweeps=1, exchanging=True, n=COORDINATES):
    """Energies [step, ensemble, temperature] of the Gaussian system, and what made them."""
    made = tempering_of(Walkers(seed=1), heats, ENSEMBLES, exchanging=exchanging)
    state = torch.zeros(ENSEMBLES * len(heats), n, dtype=torch.float64)
    energies = [made.step(state, sweeps).clone() for _ in range(steps)]
    return torch.stack(energies).numpy(), made


@pytest.mark.parametrize("heats", [HEATS, HEATS[::-1], HEATS[:2], HEATS[:1]])
@pytest.mark.parametrize("exchanging", [True, False])
def test_exchanges_leave_every_temperature_s_energies_as_they_are(heats, exchanging):
    found, _ = walkers(heats=heats, exchanging=exchanging)
    draws = found.reshape(-1, len(heats))
    mean, variance = COORDINATES * heats / 2, COORDINATES * heats**2 / 2
    assert (np.abs(draws.mean(0) - mean) < ERRORS * np.sqrt(variance / len(draws))).all()
    fourth = variance * np.sqrt((2 + 12 / COORDINATES) / len(draws))  # kurtosis of Gamma: 6/(n/2)
    assert (np.abs(draws.var(0) - variance) < ERRORS * fourth).all()
    for k, heat in enumerate(heats):
        law = scipy.stats.gamma(COORDINATES / 2, scale=heat)
        assert scipy.stats.kstest(draws[:, k], law.cdf).pvalue > 1e-3


def accepted_exactly(heats, n=COORDINATES):
    """⟨min(1, p(swapped)/p)⟩ = 2 P(the colder chain has the higher energy), by a Beta law."""
    low, high = np.minimum(heats[1:], heats[:-1]), np.maximum(heats[1:], heats[:-1])
    return 2 * scipy.stats.beta(n / 2, n / 2).sf(high / (low + high))


@pytest.mark.parametrize("heats", [HEATS, HEATS[::-1]])
def test_exchanges_are_accepted_as_often_as_they_should_be(heats):
    _, made = walkers(heats=heats)
    record, exact = made.record, accepted_exactly(heats)
    assert record.tried.tolist() == [ENSEMBLES * 30] * 4  # even and odd pairs take turns
    error = np.sqrt(exact * (1 - exact) / record.tried.numpy())
    assert (np.abs((record.accepted / record.tried).numpy() - exact) < ERRORS * error).all()


def test_the_formula_of_the_acceptance_is_that_of_metropolis():
    random = np.random.default_rng(0)
    energy = random.gamma(COORDINATES / 2, HEATS, (200_000, len(HEATS)))
    rate = np.exp(np.minimum(0, (1 / HEATS[:-1] - 1 / HEATS[1:]) * -np.diff(energy, axis=1)))
    error = rate.std(0) / np.sqrt(len(rate))
    assert (np.abs(rate.mean(0) - accepted_exactly(HEATS)) < ERRORS * error).all()


def test_chains_keep_their_rows_and_permute_their_temperatures():
    system = Walkers()
    made = tempering_of(system, HEATS, 7)
    state = torch.zeros(35, COORDINATES, dtype=torch.float64)
    for step in range(1, 30):
        held = made.chain_beta()
        energies = made.step(state)
        assert torch.equal(system.betas[-1], held)  # each row was swept at its own temperature
        chain, rows = made.record.chain, made.rows()
        assert torch.equal(chain.sort(1).values, torch.arange(5).repeat(7, 1))
        assert torch.equal(rows // 5, torch.arange(7)[:, None].expand(7, 5))
        assert torch.equal(made.chain_beta()[rows], made.beta.expand(7, 5))
        assert torch.equal(system.energy(state)[rows], energies)
        assert made.record.steps == step


def test_only_neighbours_change_places_even_pairs_and_odd_ones_in_turn():
    made = tempering_of(Walkers(), HEATS, 50)
    state = torch.zeros(250, COORDINATES, dtype=torch.float64)
    for step in range(20):
        before = made.record.chain.clone()
        made.step(state)
        moved = (made.record.chain != before).numpy()
        first = step % 2
        for low in range(first, 4, 2):
            assert (moved[:, low] == moved[:, low + 1]).all()
            moved[:, low : low + 2] = False
        assert not moved.any()


def test_without_exchanges_nothing_moves():
    _, made = walkers(steps=5, exchanging=False)
    assert torch.equal(made.record.chain, torch.arange(5).repeat(ENSEMBLES, 1))
    assert made.record.tried.sum() == 0


def test_as_many_sweeps_as_are_asked_for_each_followed_by_exchanges():
    together, one_by_one = walkers(steps=4, sweeps=5), walkers(steps=20)
    np.testing.assert_array_equal(together[0], one_by_one[0][4::5])
    assert together[1].record.steps == 20
    assert torch.equal(together[1].record.accepted, one_by_one[1].record.accepted)


@pytest.mark.parametrize("falling", [False, True])
def test_an_exchange_that_lowers_the_energy_of_the_colder_chain_is_always_made(falling):
    heats = HEATS[:2][::-1] if falling else HEATS[:2]
    cold_first = torch.tensor([0.0, 100.0] if falling else [100.0, 0.0], dtype=torch.float64)
    for energies, swapped in ((cold_first, True), (cold_first.flip(0), False)):
        made = tempering_of(Scripted(energies), heats, 1)
        assert torch.equal(
            made.step(torch.zeros(2)).flatten(), energies.flip(0) if swapped else energies
        )
        assert made.record.chain.tolist() == ([[1, 0]] if swapped else [[0, 1]])


# Round trips


def trips_of(history, hottest, coldest):
    """Count anew: visits to the hottest end that followed one to the coldest after the last."""
    ensembles, count = history[0].shape
    trips = np.zeros((ensembles, count), int)
    for e in range(ensembles):
        for chain in range(count):
            last = None
            for order in history:
                if order[e, hottest] == chain:
                    trips[e, chain] += last == "down"
                    last = "up"
                elif order[e, coldest] == chain and last == "up":
                    last = "down"
    return trips


@pytest.mark.parametrize("falling", [False, True])
@pytest.mark.parametrize("count", [2, 3, 4, 7])
def test_where_all_energies_are_equal_chains_go_round_and_round(count, falling):
    """Every exchange is made, so that a chain comes back after 2 K rounds."""
    heats = np.linspace(1, 2, count)[:: -1 if falling else 1]
    made = tempering_of(Scripted(torch.zeros(3 * count, dtype=torch.float64)), heats, 3)
    state = torch.zeros(3 * count)
    made.step(state, 2 * count)  # by then all have been at the hottest end
    made.record.forget()
    assert not made.record.trips.any()
    made.step(state, 5 * 2 * count)
    assert torch.equal(made.record.trips, torch.full((3, count), 5))
    assert torch.equal(made.record.accepted, made.record.tried)


@pytest.mark.parametrize("falling", [False, True])
def test_round_trips_are_those_that_the_history_shows(falling):
    heats = HEATS[::-1] if falling else HEATS
    made = tempering_of(Walkers(), heats, 20)
    state, history = torch.zeros(100, COORDINATES, dtype=torch.float64), []
    for _ in range(300):
        made.step(state)
        history.append(made.record.chain.numpy().copy())
    expected = trips_of(history, *((0, -1) if falling else (-1, 0)))
    np.testing.assert_array_equal(made.record.trips.numpy(), expected)
    assert expected.sum() > 100


def test_a_record_is_taken_apart_and_put_together():
    _, made = walkers(steps=11)
    stored = made.record.to_dict()
    assert all(isinstance(value, torch.Tensor) for value in stored.values())
    again = Exchange.from_dict(stored)
    assert again.steps == 11
    for name in ("chain", "accepted", "tried", "going", "trips"):
        value = getattr(made.record, name)
        assert torch.equal(getattr(again, name), value)
        assert getattr(again, name).data_ptr() != value.data_ptr()
    again.forget()
    assert made.record.tried.sum() > 0
    assert again.tried.sum() == again.accepted.sum() == again.trips.sum() == 0
    assert torch.equal(again.chain, made.record.chain)
    assert torch.equal(again.going, made.record.going)


def test_a_tempering_goes_on_from_its_record():
    made = tempering_of(Walkers(seed=1), HEATS, ENSEMBLES)
    state = torch.zeros(ENSEMBLES * 5, COORDINATES, dtype=torch.float64)
    made.step(state, 7)
    again = Tempering(made.system, made.beta, torch.Generator())
    again.generator.set_state(made.generator.get_state())
    again.record = Exchange.from_dict(made.record.to_dict())
    random = made.system.generator.get_state()
    first = made.step(state.clone(), 6)
    made.system.generator.set_state(random)
    assert torch.equal(first, again.step(state.clone(), 6))


# Ladders


def spread(acceptance):
    return np.ptp(acceptance)


@pytest.mark.parametrize("n", [4, 12, 60])
@pytest.mark.parametrize("falling", [False, True])
def test_an_even_ladder_of_walkers_is_geometric(n, falling):
    """Acceptance depends on the ratio of temperatures alone."""
    ends = (3.0, 1.0) if falling else (1.0, 3.0)
    heats = np.linspace(*ends, 8)
    first = spread(accepted_exactly(heats, n))
    for _ in range(8):
        heats = even_ladder(heats, accepted_exactly(heats, n))
    assert spread(accepted_exactly(heats, n)) < 0.01 < first
    assert np.allclose(heats, np.geomspace(*ends, 8), rtol=0.01)
    assert (heats[0], heats[-1]) == pytest.approx(ends)


def accepted_two_levels(heats, n=60):
    """The same of n independent spins in a field of 1, whose heat capacity has a peak."""
    levels = np.arange(n + 1)
    law = np.array([scipy.stats.binom(n, 1 / (1 + np.exp(2 / heat))).pmf(levels) for heat in heats])
    gain = 2 * np.subtract.outer(levels, levels)
    return np.array(
        [
            law[k] @ np.exp(np.minimum(0, (1 / heats[k] - 1 / heats[k + 1]) * gain)) @ law[k + 1]
            for k in range(len(heats) - 1)
        ]
    )


def test_a_tuned_ladder_accepts_evenly_where_a_geometric_one_does_not():
    found = ladder_of(accepted_two_levels, 0.25, 4.0, 10)
    geometric = accepted_two_levels(np.geomspace(0.25, 4.0, 10))
    assert spread(geometric) > 0.2
    assert spread(accepted_two_levels(found)) < 0.02
    assert (found[0], found[-1]) == pytest.approx((0.25, 4.0))
    assert (np.diff(found) > 0).all()


def test_a_ladder_is_tuned_from_noisy_exchanges():
    """Acceptances of 12,000 exchanges: known to ± .005."""

    def measured(heats):
        record = walkers(heats=heats, steps=60)[1].record
        return (record.accepted / record.tried).numpy()

    heats = even_ladder(np.linspace(0.5, 2.0, 5), measured(np.linspace(0.5, 2.0, 5)))
    for _ in range(3):
        heats = even_ladder(heats, measured(heats))
    assert spread(accepted_exactly(heats)) < 0.04
    assert spread(accepted_exactly(np.linspace(0.5, 2.0, 5))) > 0.25


def test_a_ladder_may_get_more_rungs():
    heats = np.geomspace(1, 4, 5)
    found = even_ladder(heats, accepted_exactly(heats), 9)
    assert np.allclose(found, np.geomspace(1, 4, 9), rtol=0.02)
    sure = even_ladder([1.0, 2.0, 3.0], [1.0, 1.0])  # nothing refused: nothing known, but in order
    assert (np.diff(sure) > 0).all()


def test_the_number_of_rounds_is_that_asked_for():
    calls = []

    def acceptances(heats):
        calls.append(heats)
        return np.full(len(heats) - 1, 0.4)

    ladder_of(acceptances, 1.0, 2.0, 4, rounds=3)
    assert len(calls) == 3
    assert np.allclose(calls[0], np.geomspace(1, 2, 4))


@pytest.mark.parametrize(
    ("heats", "acceptance"),
    [([1.0, 2.0], [0.5]), ([1.0, 2.0, 3.0], [0.5]), ([1.0, 2.0, 3.0], [0.5, 0.5, 0.5])],
)
def test_a_ladder_takes_three_temperatures_and_their_acceptances(heats, acceptance):
    with pytest.raises(ValueError, match="three or more"):
        even_ladder(heats, acceptance)


@pytest.mark.parametrize(
    ("ends", "count", "told"),
    [
        ((1.0, 1.0), 4, "coldest"),
        ((2.0, 1.0), 4, "coldest"),
        ((0.0, 1.0), 4, "coldest"),
        ((0.5, float("inf")), 4, "hottest"),
        ((0.5, 1.0), 2, "count=2"),
    ],
)
def test_a_ladder_has_two_ends(ends, count, told):
    with pytest.raises(ValueError, match=told):
        ladder_of(lambda heats: np.full(len(heats) - 1, 0.5), *ends, count)
    with pytest.raises(ValueError, match=told):
        ladder(SpinModel.sk(8), *ends, count)


@cache
def tuned_for_a_glass():
    return ladder(SpinModel.sk(128, seed=3), 0.3, 2.0, 10, sweeps=300, replicas=8, seed=4)


def test_a_ladder_for_a_glass_accepts_more_evenly_than_a_geometric_one():
    model, tuned = SpinModel.sk(128, seed=3), tuned_for_a_glass()
    geometric = np.geomspace(0.3, 2.0, 10)
    even, uneven = (
        sample(model, heats, 16, 900, 7, every=50).exchange.values for heats in (tuned, geometric)
    )
    assert spread(even) < 0.5 * spread(uneven)
    assert spread(even) < 0.12
    assert even.min() > uneven.min()


def test_a_ladder_depends_on_its_seed_alone():
    model = SpinModel.sk(20, seed=3)
    first, again, other = (
        ladder(model, 0.3, 2.0, 5, sweeps=60, rounds=2, seed=seed) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert (np.diff(first) > 0).all()
