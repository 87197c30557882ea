"""What is said of walks that relax, age, forget and equilibrate, where the answer is known."""

import json
from math import log, sqrt

import numpy as np
import pytest
import torch
import xarray as xr

import oracles
from spinscape.glass.walking.ageing import ageing_finding, relaxation
from spinscape.glass.walking.convergence import equilibrium
from spinscape.glass.walking.diagnostics import diagnosed
from spinscape.glass.walking.memory import autocorrelation, correlation_finding
from spinscape.glass.walking.moves import Gaussian
from spinscape.glass.walking.quadratic import excess
from spinscape.glass.walking.sublevel import dimension_finding, effective_dimension
from spinscape.glass.walking.walks import walk
from spinscape.glass.walking.wandering import diffusion, walk_findings

ERRORS = 3.0
STRICT = 0.9973
SETS = 40


class Egg(oracles.Bowl):
    """A bowl with bumps."""

    height, wave = 0.3, 4.0

    def energy(self, points):
        bumps = self.height * (1 - torch.cos(self.wave * points))
        return super().energy(points) + bumps.sum(-1)

    def hvp(self, points, vectors):
        bumps = self.height * self.wave**2 * torch.cos(self.wave * points)
        return super().hvp(points, vectors) + bumps * vectors


def flat(points):
    return points.new_zeros(points.shape[:-1])


def normal(*shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def two_time_of(paths, waits):
    """Dataset of paths ``[walker, step, n]``, without `walk`."""
    moved = np.stack([((paths - paths[:, [wait]]) ** 2).mean(-1) for wait in waits])
    moved[np.arange(paths.shape[1]) < np.array(waits)[:, None, None] + 0 * moved] = np.nan
    return xr.Dataset(
        {"two_time": (("waiting", "walker", "step"), moved)},
        {"waiting": waits, "step": np.arange(paths.shape[1])},
    )


def series(energy, **more):
    return xr.Dataset({"energy": (("walker", "step"), energy), **more}).assign_coords(
        step=np.arange(energy.shape[1])
    )


# Two-time displacements


class March:
    """Free steps of one length in each walker's own direction."""

    step = 1.0

    def init(self, points):
        return points.clone()

    def propose(self, points, fixed, generators):
        return points + fixed


def test_exponents_of_free_ballistic_and_confined_walkers_at_any_age():
    waiting = [0, 40, 100]
    start = torch.zeros(80, 8, dtype=torch.float64)
    options = {"steps": 200, "record": 101, "waiting": waiting}
    free = relaxation(walk(flat, start, move=Gaussian(0.1), seed=1, **options), level=STRICT)
    assert ((free.exponent_low < 1) & (free.exponent_high > 1)).all()
    assert free.ageing_low < 1 < free.ageing_high
    assert free.lag_range.values == pytest.approx([10, 100])
    march = walk(flat, normal(5, 3, seed=2), move=March(), **options)
    ballistic = relaxation(march)
    assert ballistic.exponent.values == pytest.approx([2, 2, 2])
    assert float(ballistic.ageing) == pytest.approx(1)
    held = relaxation(
        walk(
            oracles.Bowl([1.0] * 8),
            normal(80, 8, seed=3),
            rule="thermal",
            temperature=1.0,
            move=Gaussian(0.8),
            seed=4,
            **options | {"steps": 1500, "waiting": [0, 300, 700]},
        ),
        level=STRICT,
    )
    assert ((held.exponent_low < 0) & (held.exponent_high > 0)).all()
    assert (held.exponent_high < 0.2).all()
    assert held.ageing_low < 1 < held.ageing_high


def test_walkers_that_slow_down_age_by_the_ratio_that_was_planted():
    """Brownian motion in log time: ⟨Δ⟩ = ln((1 + t_w + t) / (1 + t_w))."""
    generator = np.random.default_rng(5)
    clock = np.log1p(np.arange(301.0))
    steps = generator.standard_normal((200, 300, 10)) * np.sqrt(np.diff(clock))[:, None]
    paths = np.concatenate([np.zeros((200, 1, 10)), steps.cumsum(1)], 1)
    data = two_time_of(paths, [0, 50])
    found = relaxation(data, level=STRICT)
    lags = np.arange(25, 251)
    exact = [np.log1p(lags), np.log((51 + lags) / 51)]
    ratio = np.exp(np.log(exact[1] / exact[0]).mean())
    assert found.ageing_low < ratio < found.ageing_high
    for k, curve in enumerate(exact):
        slope = np.polyfit(np.log(lags), np.log(curve), 1)[0]
        assert found.exponent_low[k] < slope < found.exponent_high[k]
    thermal = data.assign(energy=(("walker", "step"), np.ones((200, 301))))
    aged = ageing_finding(thermal)
    assert aged.verdict == "supported"
    assert aged.value == pytest.approx(float(found.ageing))
    assert "not in equilibrium" in aged.statement
    straight = two_time_of(
        np.random.default_rng(6).standard_normal((100, 301, 20)).cumsum(1), [0, 50]
    )
    young = ageing_finding(straight.assign(energy=thermal.energy[:100]))
    assert young.verdict == "not supported"
    assert young.low < 1 < young.high
    assert ageing_finding(thermal.isel(waiting=[0])).verdict == "undecided"


def test_walks_without_lags_have_no_exponent():
    paths = np.zeros((4, 30, 2))
    with pytest.raises(ValueError, match=r"^walk: no walker moved"):
        relaxation(two_time_of(paths, [0, 5]))
    moved = two_time_of(np.random.default_rng(7).standard_normal((4, 30, 2)), [0, 27])
    with pytest.raises(ValueError, match=r"^walk: 2 recorded lags in the last decade after"):
        relaxation(moved)
    with pytest.raises(ValueError, match=r"^walk: it has no two_time"):
        relaxation(moved.drop_vars("two_time"))
    late = two_time_of(np.random.default_rng(7).standard_normal((4, 200, 2)), [0, 90])
    with pytest.raises(ValueError, match=r"^walk: nothing was recorded within .* time 0"):
        relaxation(late.isel(step=range(90, 200)))
    finding = ageing_finding(moved)
    assert (finding.verdict, finding.value) == ("undecided", None)


# Autocorrelation


def test_the_autocorrelation_is_that_of_its_definition():
    """Against sums written out; lengths of an exponential are the known ones."""
    energy = np.random.default_rng(8).standard_normal((4, 40)).cumsum(1)
    found = autocorrelation(series(energy), lags=20, surrogates=0)
    time = np.arange(40)
    covariances = []
    for k, row in enumerate(energy):
        rest = row - np.polyval(np.polyfit(time, row, 1), time)
        c = [np.mean(rest[: 40 - lag] * rest[lag:]) for lag in range(21)]
        np.testing.assert_allclose(found.correlation[k], np.array(c) / c[0], atol=1e-12)
        covariances.append(c)
    mean = np.mean(covariances, 0)
    np.testing.assert_allclose(found.correlation_mean, mean / mean[0], atol=1e-12)
    shifted = series(energy + 3 + 2 * time)
    again = autocorrelation(shifted, lags=20, surrogates=0)
    np.testing.assert_allclose(again.correlation, found.correlation, atol=1e-9)
    assert (found.correlation_low[1:] <= found.correlation_mean[1:]).all()


def ar1(memory, chains, draws, seed):
    noise = np.random.default_rng(seed).standard_normal((chains, draws))
    values = np.empty_like(noise)
    values[:, 0] = noise[:, 0]
    for k in range(1, draws):
        values[:, k] = memory * values[:, k - 1] + sqrt(1 - memory**2) * noise[:, k]
    return values


def test_lengths_of_an_exponential_correlation():
    memory = 0.8
    found = autocorrelation(
        series(ar1(memory, 60, 600, seed=9)), detrend="mean", lags=60, surrogates=0, level=STRICT
    )
    decay = -1 / log(memory)
    assert found.correlation_length_low - 0.05 < decay < found.correlation_length_high + 0.05
    assert float(found.correlation_length) == pytest.approx(decay, rel=0.1)
    whole = 0.5 + memory / (1 - memory)
    assert found.integrated_length_low < whole < found.integrated_length_high


SMOOTH = {
    "from the bottom": (np.ones(40), 0.0, 0.1),
    "down a slope": (np.ones(40), 2.0, 0.1),
    "few directions": ([30.0, 5.0] + [0.01] * 38, 0.0, 0.1),
    "along a saddle": (np.linspace(-1, 1.5, 40), 1.0, 0.1),
}


@pytest.mark.parametrize("case", SMOOTH)
def test_quadratic_ground_is_as_smooth_as_its_surrogates(case):
    curvatures, where, step = SMOOTH[case]
    start = torch.full((60, 40), where, dtype=torch.float64)
    free = walk(
        oracles.Bowl(curvatures), start, move=Gaussian(step), steps=200, record=201, seed=10
    )
    found = correlation_finding(free, level=STRICT)
    assert found.verdict != "supported"
    assert found.low <= 1 <= found.high
    assert found.p > 0.001


def test_p_values_of_quadratic_ground_are_even():
    """Over walks of 8, as many p below a level as that level says."""
    start = torch.zeros(8 * SETS, 12, dtype=torch.float64)
    free = walk(oracles.Bowl(np.ones(12)), start, move=Gaussian(0.1), steps=60, record=61, seed=11)
    p = []
    for k in range(SETS):
        some = free.isel(walker=slice(8 * k, 8 * k + 8))
        found = autocorrelation(some, lags=25, surrogates=99, seed=k)
        p.append((1 + (found.null_length <= found.correlation_length).sum()) / 100)
    for level in (0.1, 0.3, 0.5):
        rate = np.mean(np.array(p) <= level)
        assert abs(rate - level) < ERRORS * sqrt(level * (1 - level) / SETS)


def test_bumps_are_forgotten_sooner_than_a_bowl():
    egg = Egg(0.05 * np.ones(40))
    start = normal(60, 40, seed=12)
    free = walk(egg, start, move=Gaussian(0.15), steps=200, record=201, probes=2, seed=13)
    found = correlation_finding(free)
    assert found.verdict == "supported"
    assert found.high < 0.9
    assert found.p <= 0.01
    assert found.null_value == 1


def test_records_that_are_uneven_infinite_or_constant_have_no_autocorrelation():
    energy = np.random.default_rng(14).standard_normal((3, 20))
    good = series(energy)
    with pytest.raises(ValueError, match=r"^walk: 7 records, .* expected 8 or more"):
        autocorrelation(good.isel(step=slice(7)))
    with pytest.raises(ValueError, match=r"1 to 11 steps apart: expected .* even distances"):
        autocorrelation(good.isel(step=[*range(8), 18]))
    with pytest.raises(ValueError, match=r"^detrend='curve'"):
        autocorrelation(good, detrend="curve")
    with pytest.raises(ValueError, match=r"^lags=20: expected 1 to 19"):
        autocorrelation(good, lags=20)
    energy[1] = 2.0
    with pytest.raises(ValueError, match=r"^walk: a walker's energy is constant"):
        autocorrelation(series(energy))
    energy[1, 3] = np.inf
    with pytest.raises(ValueError, match=r"^walk: an energy is not finite"):
        autocorrelation(series(energy))
    finding = correlation_finding(series(energy))
    assert (finding.verdict, finding.value) == ("undecided", None)


# Equilibrium


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.9])
def test_the_effective_sample_size_of_an_autoregression_is_known(memory):
    starts, draws = 24, 4000
    data = series(ar1(memory, 4 * starts, draws, seed=15))
    found = equilibrium(data.assign(start=("walker", np.repeat(np.arange(starts), 4))), discard=0.0)
    exact = 4 * draws * (1 - memory) / (1 + memory)
    bulk = found.ess_bulk.values.ravel()
    assert abs(bulk.mean() - exact) < ERRORS * bulk.std(ddof=1) / sqrt(starts) + 0.02 * exact
    assert bulk.mean() == pytest.approx(exact, rel=0.1)
    assert found.rhat.max() < 1.02
    assert found.equilibrated.all() or memory == 0.9
    strict = equilibrium(data, discard=0.0, least_ess=10 * exact)
    assert not strict.equilibrated.any()


def test_chains_apart_or_adrift_are_not_in_equilibrium():
    chains = ar1(0.0, 4, 4000, seed=16)
    apart = equilibrium(
        series(chains + np.array([[0.5], [-0.5], [0.5], [-0.5]]), start=("walker", [7] * 4))
    )
    assert apart.solution.values.tolist() == [7]
    # The means of the eight half chains have variance 8/7 · ¼, values within one have variance 1.
    assert apart.rhat.item() == pytest.approx(sqrt(1 + 2 / 7), rel=0.01)
    assert not apart.equilibrated
    adrift = equilibrium(series(chains[:1] + np.linspace(0, 4, 4000)))
    assert adrift.rhat > 1.1
    still = chains[:2].copy()
    still[1] = 3.0
    verdicts = equilibrium(series(still))
    assert verdicts.equilibrated.values.tolist() == [True, False]
    assert verdicts.rhat.isnull().values.tolist() == [[False, True]]
    both = series(chains, displacement=(("walker", "step"), still[[0, 0, 1, 1]]))
    joint = equilibrium(both, variables=["energy", "displacement"])
    assert joint.rhat.sizes == {"variable": 2, "solution": 4}
    assert joint.equilibrated.values.tolist() == [True, True, False, False]


def test_equilibrium_leaves_out_the_beginning():
    chains = ar1(0.0, 1, 2000, seed=17)
    chains[:, :900] += 100
    assert equilibrium(series(chains)).equilibrated.all()
    assert not equilibrium(series(chains), discard=0.0).equilibrated.any()
    with pytest.raises(ValueError, match=r"^discard=1.0"):
        equilibrium(series(chains), discard=1.0)
    with pytest.raises(ValueError, match=r"^variables=\['loss'\]: the walk has no \['loss'\]"):
        equilibrium(series(chains), variables=["loss"])
    with pytest.raises(ValueError, match=r"^walk: 7 records are left"):
        equilibrium(series(chains[:, :14]))


# The quadratic law, the effective dimension, and all findings


def test_the_excess_over_the_quadratic_law_is_that_of_the_bumps():
    """A (1 − exp(−κ² t σ²/2)) − ½ A κ² t σ² a coordinate, from the bottom of cosines."""
    n, step = 30, 0.05
    egg, start = Egg(np.ones(n)), torch.zeros(400, n, dtype=torch.float64)
    free = walk(egg, start, move=Gaussian(step), steps=40, record=[10, 40], probes=2, seed=18)
    found = excess(free)
    assert found.dims == ("walker", "step")
    assert (found.isel(step=0) == 0).all()

    def exact(time):
        variance = time * step**2
        bumps = 1 - np.exp(-(egg.wave**2) * variance / 2) - egg.wave**2 * variance / 2
        return n * egg.height * bumps

    beyond = found.sel(step=40).values
    expected = exact(40) - exact(10)
    assert abs(beyond.mean() - expected) < ERRORS * beyond.std(ddof=1) / sqrt(400)
    assert expected < -5 * beyond.std(ddof=1) / sqrt(400)
    with pytest.raises(ValueError, match=r"^walk: it has no quadratic_law"):
        excess(free.drop_vars("quadratic_law"))
    with pytest.raises(ValueError, match=r"free walk$"):
        excess(free.assign(temperature=("walker", np.ones(400))))


def threshold_walk(curvatures, steps, walkers=30, seed=19):
    n = len(curvatures)
    return walk(
        oracles.Bowl(curvatures),
        torch.zeros(walkers, n, dtype=torch.float64),
        rule="threshold",
        threshold=1.0,
        move=Gaussian(0.6),
        steps=steps,
        record=min(steps + 1, 1201),
        seed=seed,
    ).assign(start=("walker", np.arange(walkers) // 5))


def test_planted_dimensions_are_found_and_short_walks_claim_none():
    low = dimension_finding(threshold_walk([1.0, 1.0, 1.0, 0, 0, 0], 6000))
    assert low.verdict == "supported"
    assert low.low < 3 < low.high < 6
    assert low.null_value == 6
    assert "is in equilibrium (at 6 of 6 starts)" in low.statement
    full = dimension_finding(threshold_walk([1.0, 2.0, 0.5], 3000))
    assert full.verdict != "supported"
    assert full.low < 3 < full.high
    short = dimension_finding(threshold_walk([1.0] * 30, 20))
    assert short.value < 20
    assert short.verdict == "undecided"  # though its interval lies below the full dimension
    assert "not in equilibrium" in short.statement


def test_effective_dimensions_need_a_threshold_and_a_bottom():
    found = threshold_walk([1.0, 1.0], 50)
    with pytest.raises(ValueError, match=r"^minimum=1.0: expected energies below the threshold"):
        effective_dimension(found, minimum=1.0)
    with pytest.raises(ValueError, match=r"^minimum=0.9: walker \d+ came lower, to"):
        effective_dimension(found, minimum=0.9)
    with pytest.raises(ValueError, match=r"^walk: it has no threshold"):
        effective_dimension(found.drop_vars("threshold"), minimum=0.0)
    lower = found.assign(start_energy=("walker", np.full(30, 0.5)))
    assert dimension_finding(lower).verdict == "undecided"


def test_walk_findings_collect_what_the_walks_allow():
    start = torch.zeros(12, 6, dtype=torch.float64)
    bowl = oracles.Bowl([1.0] * 6)
    free = walk(bowl, start, move=Gaussian(0.1), steps=40, record=41, probes=2, seed=20)
    thermal = walk(
        bowl,
        start,
        rule="thermal",
        temperature=1.0,
        move=Gaussian(0.8),
        steps=3000,
        record=1001,
        waiting=[300, 1500],
        seed=21,
    )
    below = threshold_walk([1.0, 1.0], 100)
    found = walk_findings(free, thermal, below)
    assert len(found) == len({one.question for one in found}) == 5
    assert [one.verdict for one in found[2:4]] != ["supported"] * 2
    assert "by its loss the walk is" in found[1].statement
    assert "by its loss the walk is" in found[3].statement
    assert all(one.protocol == "walk" for one in found)
    assert len(walk_findings(free, thermal.drop_vars("two_time"))) == 3


def test_a_burn_in_does_not_hold_walkers_back():
    """Flat land at a temperature is free diffusion, however far the burn-in led."""
    start = torch.ones(40, 12, dtype=torch.float64)
    options = {"rule": "thermal", "temperature": 1.0, "move": Gaussian(0.1), "burn_in": 400}
    options |= {"target": 0.9, "steps": 100, "record": 51, "seed": 24}
    bowl = oracles.Bowl([1e-9] * 12)
    found = walk(bowl, start, waiting=[0], **options)
    exponent = diffusion(found, level=STRICT)
    assert exponent.low < 1 < exponent.high
    assert diffusion(found.drop_attrs(), level=STRICT).high < 0.5  # what the start would have said
    with pytest.raises(ValueError, match=r"^walk: its displacement counts from before the burn-in"):
        diffusion(walk(bowl, start, waiting=[20], **options))


def test_a_diagnosed_walk_says_what_was_left_out():
    start = normal(8, 4, seed=22)
    options = {"rule": "thermal", "temperature": 1.0, "move": Gaussian(0.8), "seed": 23}
    options |= {"steps": 100, "waiting": [10, 30]}
    whole = diagnosed(walk(oracles.Bowl([1.0] * 4), start, record=101, **options))
    assert {"exponent", "correlation_mean", "rhat", "equilibrated", "energy"} <= set(whole)
    assert "correlation_null" not in whole
    assert json.loads(whole.attrs["left_out"]) == {}
    assert whole.attrs["protocol"] == "walk"
    short = diagnosed(walk(oracles.Bowl([1.0] * 4), start, record=4, **options))
    assert set(json.loads(short.attrs["left_out"])) == {
        "autocorrelation",
        "equilibrium",
        "relaxation",
    }
    free = diagnosed(walk(oracles.Bowl([1.0] * 4), start, move=Gaussian(0.1), steps=20))
    assert "correlation_null" in free
    assert "rhat" not in free
    assert all(v.attrs["units"] and v.attrs["long_name"] for v in free.data_vars.values())
