"""Monte Carlo of spins against enumeration, exact identities and limits that are known.

Seeds are fixed. Where a mean is compared, its standard error is that of independent replicas or of
independent couplings, and four of them are allowed, unless a test says otherwise.
"""

from functools import cache

import numpy as np
import pytest
import scipy.stats
import torch
import xarray as xr

from spinscape.spins import (
    SpinModel,
    critical_temperature,
    equilibration,
    gaussian_identity,
    ground_states,
    observables,
    sample,
)
from spinscape.spins import kernels as kernel
from spinscape.spins.sweeps import DenseSweeps, LayeredSweeps

ERRORS = 4.0
MASK = 0xFFFFFFFF


def deviation(values, expected, axis=0):
    """Distance of a mean over independent rows from what is expected, in standard errors."""
    values = np.asarray(values, float)
    error = values.std(axis, ddof=1) / np.sqrt(values.shape[axis])
    return np.abs(values.mean(axis) - expected) / np.maximum(error, 1e-12)


def within(values, expected, relative=0.0):
    """Whether the mean over independent rows agrees within four errors and a share of the value."""
    values, expected = np.asarray(values, float), np.asarray(expected, float)
    error = values.std(0, ddof=1) / np.sqrt(len(values))
    return np.abs(values.mean(0) - expected) <= ERRORS * error + relative * np.abs(expected)


# Random numbers


def xoshiro(state, count):
    """Words of xoshiro128++ (Blackman and Vigna 2021), as in their reference in C."""

    def turned(x, k):
        return ((x << k) | (x >> (32 - k))) & MASK

    s, words = [int(word) for word in state], []
    for _ in range(count):
        words.append((turned((s[0] + s[3]) & MASK, 7) + s[0]) & MASK)
        t = (s[1] << 9) & MASK
        s[2] ^= s[0]
        s[3] ^= s[1]
        s[1] ^= s[2]
        s[0] ^= s[3]
        s[2] ^= t
        s[3] = turned(s[3], 11)
    return words, s


def drawn_words(state, count):
    words, rows = np.empty(kernel.LANES, np.uint32), []
    for _ in range(count):
        kernel._bits(state, words)
        rows.append(words.copy())
    return np.array(rows)


def test_random_words_are_those_of_the_published_generator():
    state = np.repeat(np.array([1, 2, 3, 4], np.uint32)[:, None], kernel.LANES, 1)
    known = [641, 1573767, 3222811527, 3517856514, 836907274, 4247214768, 3867114732]
    assert xoshiro([1, 2, 3, 4], 7)[0] == known  # as implementations of others give them
    assert (drawn_words(state, 7) == np.array(known)[:, None]).all()


def test_all_lanes_go_on_as_the_plain_generator_does():
    state = kernel.streams(np.random.SeedSequence(11), 1)[0]
    begun = state.copy()
    found = drawn_words(state, 200)
    for lane in range(kernel.LANES):
        words, left = xoshiro(begun[:, lane], 200)
        assert found[:, lane].tolist() == words
        assert state[:, lane].tolist() == left


def test_streams_differ_and_none_is_all_zeros():
    state = kernel.streams(np.random.SeedSequence(0), 300)
    assert state.shape == (300, 4, kernel.LANES)
    assert state.dtype == np.uint32
    assert (state != 0).any(1).all()
    lanes = state.transpose(0, 2, 1).reshape(-1, 4)
    assert len(np.unique(lanes, axis=0)) == len(lanes)
    assert (kernel.streams(np.random.SeedSequence(0), 300) == state).all()


def test_a_word_becomes_the_logistic_number_that_belongs_to_it():
    edges = np.arange(64)
    words = np.random.default_rng(0).integers(0, 2**32, 1 << 18)
    words = np.concatenate([edges, 2**32 - 1 - edges, words]).astype(np.uint32)
    found = np.empty(len(words), np.float32)
    for first in range(0, len(words), kernel.LANES):
        kernel._logistic(words[first : first + 16], found[first : first + 16])
    v = ((words >> 1).astype(float) + 0.5) / 2**31
    exact = np.where(words & 1, -1.0, 1.0) * np.log(2 / v - 1)
    assert (np.abs(found - exact) <= 3e-7 * np.maximum(1, np.abs(exact))).all()
    assert np.abs(found).max() > 22.8  # both tails reach e^-22
    assert found.min() == -found.max()


@cache
def logistic_numbers():
    state = kernel.streams(np.random.SeedSequence(1), 16)
    found = np.empty((16, 1 << 21), np.float32)
    kernel.logistic(state, found)
    return found


def test_noise_is_logistic():
    found = logistic_numbers()[:, :100_000].ravel().astype(float)
    assert scipy.stats.kstest(found, "logistic").pvalue > 0.01
    assert abs(found.mean()) < ERRORS * np.pi / np.sqrt(3 * len(found))
    assert abs(found.var() - np.pi**2 / 3) < ERRORS * np.sqrt(3.2 / len(found)) * np.pi**2 / 3


@pytest.mark.parametrize("edge", [4.0, 8.0, 12.0, 14.0])
@pytest.mark.parametrize("sign", [-1, 1])
def test_the_tails_hold_as_many_as_they_should(edge, sign):
    found = logistic_numbers()
    expected = found.size / (1 + np.exp(edge))
    count = (sign * found > edge).sum()
    assert abs(count - expected) < ERRORS * np.sqrt(expected)


def test_noise_of_neighbours_in_lane_time_and_chain_is_unrelated():
    found = logistic_numbers()[:, : 1 << 18].astype(float) / np.sqrt(np.pi**2 / 3)
    size = found[:, 1:].size
    pairs = {
        "lanes": (found[:, 1:] * found[:, :-1]).mean(),
        "times": (found[:, 16:] * found[:, :-16]).mean(),
        "chains": (found[1:] * found[:-1]).mean(),
        "squares": ((found[:, 1:] ** 2 - 1) * (found[:, :-1] ** 2 - 1)).mean() / 3.2,
    }
    assert all(abs(value) < 1.05 * ERRORS / np.sqrt(size) for value in pairs.values()), pairs


# Updates


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_block_of_spins_follows_its_fields(kind):
    fields = np.array([-3, -1, -0.4, -0.1, 0, 0.02, 0.3, 0.7, 1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 0.5])
    heats = np.array([0.5, 1.0, 3.0])
    chains, times = 3 * 200, 400
    state = kernel.streams(np.random.SeedSequence(3), chains)
    spins = np.empty((chains, len(fields)), kind)
    doubled = np.tile(2 / heats, 200).astype(kind)
    every = np.tile(fields, (chains, 1)).astype(kind)
    up = np.zeros((3, len(fields)))
    for _ in range(times):
        kernel.settle_block(every, doubled, spins, state)
        up += (spins == 1).reshape(200, 3, -1).sum(0)
    assert (np.abs(spins) == 1).all()
    total = 200 * times
    p = (1 + np.tanh(fields / heats[:, None])) / 2
    assert (np.abs(up / total - p) <= ERRORS * np.sqrt(p * (1 - p) / total) + 0.5 / total).all()


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("n", [16, 37])
def test_single_flips_are_those_of_a_slow_loop_with_the_same_noise(kind, n):
    chains, padded = 5, -(-n // 16) * 16
    model = SpinModel.sk(n, seed=4)
    J = model.matrix.numpy().astype(kind)
    external = np.random.default_rng(1).standard_normal(n).astype(kind) / 2
    spins = np.random.default_rng(0).choice([-1.0, 1.0], (chains, n)).astype(kind)
    fields = spins @ J + external
    doubled = (2 / np.array([0.05, 0.4, 0.8, 1.5, 40.0])).astype(kind)
    state = kernel.streams(np.random.SeedSequence(5), chains)
    slow_state, slow = state.copy(), spins.copy()
    for _ in range(10):
        noise = np.empty((chains, padded), np.float32)
        kernel.logistic(slow_state, noise)
        flips = 0
        for chain in range(chains):
            for i in range(n):
                field = slow[chain] @ J[:, i] + external[i]
                drawn = 1.0 if doubled[chain] * field + noise[chain, i] > 0 else -1.0
                flips += int(drawn != slow[chain, i])
                slow[chain, i] = drawn
        assert kernel.settle_one_by_one(J, fields, doubled, spins, state) == flips
        assert (spins == slow).all()
        assert (state == slow_state).all()
        assert np.abs(fields - spins @ J - external).max() < (1e-5 if kind is np.float32 else 1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_energies_of_sweeps_are_those_of_the_model(dtype):
    fields = torch.linspace(-1, 1, 24)
    layers = SpinModel.layered([10, 6, 5, 3], seed=2).layers
    for model, kind in (
        (SpinModel(layers, fields=fields).to(dtype), LayeredSweeps),
        (SpinModel.from_matrix(SpinModel.sk(24).matrix, fields=fields).to(dtype), DenseSweeps),
    ):
        system = kind(model)
        chains = system.begin(torch.ones(6, 24), np.random.SeedSequence(0))
        beta = torch.linspace(0.2, 4, 6, dtype=torch.float64)
        for _ in range(70):  # past the 64th, after which fields are made anew
            expected = model.energy(chains.configurations()).double()
            assert torch.allclose(system.energy(chains), expected, atol=1e-4, rtol=1e-5)
            system.sweep(chains, beta)


# Small models, every state of which is known


def small(kind):
    random = np.random.default_rng(7)
    if kind.startswith("layered"):
        model = SpinModel.layered([5, 4, 5], C=1.5, seed=3)
    else:
        model = SpinModel.sk(14, seed=5)
    if kind.endswith("in fields"):
        fields = torch.from_numpy(random.normal(0, 0.4, 14))
        if model.matrix is None:
            return SpinModel(model.layers, fields=fields)
        return SpinModel.from_matrix(model.matrix, fields=fields)
    return model.to(torch.float64) if kind.endswith("in float64") else model


KINDS = [
    "layered",
    "layered in fields",
    "SK",
    "SK in fields",
    "layered in float64",
    "SK in float64",
]
HEATS = np.array([0.5, 0.9, 1.6])


def boltzmann(model, heats):
    """All states, their energies, and their weights at each temperature."""
    exact = model.to(torch.float64)
    states = exact.configurations()
    energy = exact.energy(states)
    return states.numpy(), energy.numpy(), torch.softmax(-energy / torch.tensor(heats)[:, None], 1)


def law_of_overlaps(weights, n):
    """P(d) of the number of spins in which two independent states differ."""
    cube = weights.numpy().reshape((2,) * n)
    both = np.fft.ifftn(np.fft.fftn(cube) ** 2).real.ravel()  # a convolution over Z_2^n
    differing = np.array([state.bit_count() for state in range(2**n)])
    return np.bincount(differing, both, n + 1)


@cache
def sampled(kind):
    return sample(
        small(kind), HEATS, replicas=32, sweeps=1300, burn_in=100, every=3, seed=8, keep=400
    )


@pytest.mark.parametrize("kind", KINDS)
def test_energies_are_those_of_enumeration(kind):
    _, energy, weights = boltzmann(small(kind), HEATS)
    found = sampled(kind).energy.mean("measurement").transpose("replica", "temperature").values
    assert within(found, weights.numpy() @ energy).all()


@pytest.mark.parametrize("kind", KINDS)
def test_correlations_of_all_pairs_are_those_of_enumeration(kind):
    states, _, weights = boltzmann(small(kind), HEATS)
    exact = np.einsum("ts,si,sj->tij", weights.numpy(), states, states)
    points = sampled(kind).point.values
    found = np.einsum("trki,trkj->rtij", points, points) / points.shape[2]
    rows, columns = np.triu_indices(14, 1)
    z = deviation(found, exact)[:, rows, columns]
    assert z.max() < 5.0  # the largest of 273; four is passed by one in ten
    assert (z**2).mean() < 1.5
    mean = np.einsum("ts,si->ti", weights.numpy(), states)
    assert deviation(points.mean(2).transpose(1, 0, 2), mean).max() < 5.0


@pytest.mark.parametrize("kind", KINDS)
def test_the_distribution_of_overlaps_is_that_of_enumeration(kind):
    _, _, weights = boltzmann(small(kind), HEATS)
    found = sampled(kind)
    differing = np.rint((1 - found.overlap.values) * 7).astype(int)
    for t in range(len(HEATS)):
        exact = law_of_overlaps(weights[t], 14)
        counts = np.array([np.bincount(pair, minlength=15) for pair in differing[t]])
        shares = counts / differing.shape[-1]
        seen = exact > 1e-3
        assert deviation(shares[:, seen], exact[seen]).max() < 5.0  # of 16 pairs
        assert shares[:, ~seen].mean(0).sum() < 5e-3


@pytest.mark.parametrize("kind", ["layered", "SK"])
def test_chains_that_do_not_exchange_have_the_same_equilibrium(kind):
    model = small(kind)
    found = sample(model, [2.0, 1.4], 32, 800, 2, burn_in=50, tempering=False)
    _, energy, weights = boltzmann(model, [2.0, 1.4])
    assert within(found.energy.mean("measurement").values.T, weights.numpy() @ energy).all()
    assert found.exchange.isnull().all()


def test_layer_overlaps_make_up_the_overlap():
    found = sampled("layered")
    widths = found.width.values
    whole = (found.layer_overlap * widths[:, None]).sum("layer") / widths.sum()
    assert np.allclose(whole, found.overlap, atol=1e-7)
    points = found.point.values  # every third sweep was measured, and every measurement kept
    own = (points[:, 0::2] * points[:, 1::2]).mean(-1)
    assert np.allclose(own, found.overlap.values, atol=1e-6)


@pytest.mark.parametrize("kind", ["layered in fields", "SK in fields"])
def test_the_heat_capacity_is_that_of_enumeration(kind):
    _, energy, weights = boltzmann(small(kind), HEATS)
    mean = weights.numpy() @ energy
    exact = (weights.numpy() @ energy**2 - mean**2) / HEATS**2 / 14
    found = observables(sampled(kind))
    gap = np.abs(found.heat_capacity.values - exact)
    assert (gap <= ERRORS * found.heat_capacity_error.values).all()
    assert (found.heat_capacity_error.values < 0.05 * exact).all()


# Limits that are known


@cache
def hot_glasses():
    return [
        sample(SpinModel.sk(200, seed=k), [1.6, 2.0, 3.0], 16, 500, k, burn_in=60, every=2)
        for k in range(24)
    ]


def test_a_hot_sherrington_kirkpatrick_glass_has_the_energy_of_the_first_order():
    """u = −β/2 to order 1/N: −β/2 (1 − [q²]) with N [q²] = 1/(1 − β²), at most 0.8 % here."""
    beta = 1 / np.array([1.6, 2.0, 3.0])
    found = [one.energy.mean(("replica", "measurement")).values / 200 for one in hot_glasses()]
    assert within(found, -beta / 2, relative=0.01).all()
    assert within(found, -beta / 2 * (1 - 1 / (200 * (1 - beta**2))), relative=1e-3).all()


def test_the_susceptibility_of_a_hot_sherrington_kirkpatrick_glass():
    """N⟨q²⟩ = 1/(1 − β²); 3 % are left to the next order in 1/N."""
    beta = 1 / np.array([1.6, 2.0, 3.0])
    found = [200 * (one.overlap**2).mean(("pair", "measurement")).values for one in hot_glasses()]
    assert within(found, 1 / (1 - beta**2), relative=0.03).all()
    assert (np.std(found, 0, ddof=1) / np.sqrt(24) < 0.03 * np.mean(found, 0)).all()


WIDTHS = (40, 60, 30)
GAINS = (1.0, 0.5)


def test_a_hot_layered_glass_has_the_energy_and_the_overlaps_of_the_first_order():
    """Above 2 T_c, to leading order; 3 % are left to the next."""
    heat = 2.2 * critical_temperature(WIDTHS, GAINS)
    energies, covariances = [], []
    for k in range(24):
        model = SpinModel.layered(WIDTHS, GAINS, seed=k)
        found = sample(model, [heat], 32, 600, k, burn_in=60, every=2)
        q = found.layer_overlap.values[0]
        energies.append(float(found.energy.mean()))
        covariances.append(np.einsum("pam,pbm->ab", q, q) / (q.shape[0] * q.shape[2]))
    sizes, paired = np.array(WIDTHS, float), np.zeros((3, 3))
    for k, gain in enumerate(GAINS):  # σ_k² N_{k−1} N_k with σ_k² = C_k / N_{k−1}
        paired[k, k + 1] = paired[k + 1, k] = gain * WIDTHS[k + 1]
    exact = np.linalg.inv(np.diag(sizes) - paired / heat**2)
    scale = np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
    error = np.std(covariances, 0, ddof=1) / np.sqrt(24)
    assert (np.abs(np.mean(covariances, 0) - exact) <= ERRORS * error + 0.03 * scale).all()
    assert (error < 0.03 * scale).all()
    assert exact[0, 1] > ERRORS * error[0, 1]  # neighbouring layers are seen to be related
    assert within(energies, -(GAINS[0] * 60 + GAINS[1] * 30) / heat, relative=0.02)


@cache
def cold_glasses(layered):
    """Glasses from above T_c to well below it, with what the identity needs to know."""
    widths, C = ((14, 18, 10), (1.0, 1.5)) if layered else (None, 1.0)
    critical = critical_temperature(widths, C) if layered else 1.0
    heats = critical * np.array([0.4, 0.52, 0.66, 0.82, 1.0, 1.25, 1.6])
    made = []
    for k in range(32):
        model = SpinModel.layered(widths, C, seed=k) if layered else SpinModel.sk(36, seed=k)
        made.append(sample(model, heats, 4, 900, k, burn_in=300, every=4))
    return made, widths, C


@pytest.mark.parametrize("layered", [False, True])
def test_energies_and_overlaps_obey_the_exact_identity_above_and_below_the_transition(layered):
    made, widths, C = cold_glasses(layered)
    found = gaussian_identity(made, widths, C)
    assert (np.abs(found.difference) <= ERRORS * found.difference_error).all()
    assert (found.difference_error < 0.1 * np.abs(found.energy)).all()
    assert np.allclose(found.energy - found.from_overlaps, found.difference)


@pytest.mark.parametrize("layered", [False, True])
def test_what_is_not_in_equilibrium_breaks_the_identity(layered):
    """Quenched replicas have too high an energy and too small an overlap."""
    made, (widths, C) = [], ((14, 18, 10), (1.0, 1.5)) if layered else (None, 1.0)
    for k in range(24):
        model = SpinModel.layered(widths, C, seed=k) if layered else SpinModel.sk(36, seed=k)
        made.append(sample(model, [0.2], 2, 30, k, tempering=False))
    found = gaussian_identity(made, widths, C)
    assert found.difference[0] > ERRORS * found.difference_error[0]


def test_the_identity_asks_for_several_models():
    with pytest.raises(ValueError, match="two or more"):
        gaussian_identity([sampled("SK")])


PARISI = {0.4: (-0.7351, 0.412), 0.6: (-0.6800, 0.184), 0.8: (-0.5975, 0.0440)}


@cache
def parisi_glasses(n, samples, sweeps):
    """[sample, quantity, temperature] of u, ⟨q²⟩ and ⟨|q|⟩."""
    heats = np.array([0.4, 0.46, 0.53, 0.6, 0.66, 0.73, 0.8, 0.9, 1.0, 1.12, 1.26, 1.42, 1.6])
    made = [
        sample(SpinModel.sk(n, seed=k), heats, 4, sweeps, k, burn_in=sweeps // 4, every=4)
        for k in range(samples)
    ]
    found = gaussian_identity(made)
    assert (np.abs(found.difference) <= ERRORS * found.difference_error).all()
    return np.array(
        [
            [
                one.energy.mean(("replica", "measurement")) / n,
                (one.overlap**2).mean(("pair", "measurement")),
                np.abs(one.overlap).mean(("pair", "measurement")),
            ]
            for one in (each.sel(temperature=list(PARISI)) for each in made)
        ]
    )


@pytest.mark.slow
def test_a_cold_glass_comes_near_parisi_s_solution():
    """SK, N = 256: what is left of the finite size is of the order N^(−2/3) = .025.

    Seen at T = .4, .6, .8: u too high by .020, .020, .019 (± .003), ⟨q²⟩ by .046, .047, .042 (±
    .023, .016, .008), ⟨|q|⟩ by .045, .045, .055 (± .021, .020, .013).
    """
    found, size = parisi_glasses(256, 24, 4000), 256 ** (-2 / 3)
    error = found.std(0, ddof=1) / np.sqrt(len(found))
    energy, squared = np.array(list(PARISI.values())).T
    gap = found.mean(0) - np.array([energy, squared, 1 - np.array(list(PARISI))])
    assert (gap > -ERRORS * error).all()
    assert (gap[0] < size + ERRORS * error[0]).all()
    assert (gap[1:] < 2 * size + ERRORS * error[1:]).all()
    assert (gap[0] > ERRORS * error[0]).all()  # and it is seen


@pytest.mark.slow
def test_the_energy_of_a_cold_glass_goes_to_parisi_s_as_it_grows():
    """Extrapolated from N = 64 and 256 in N^(−2/3); seen .001 to .002 below it (± .005)."""
    small, large = parisi_glasses(64, 96, 2000)[:, 0], parisi_glasses(256, 24, 4000)[:, 0]
    sizes = np.array([64, 256]) ** (-2 / 3)
    share = sizes[0] / (sizes[0] - sizes[1])
    found = share * large.mean(0) - (share - 1) * small.mean(0)
    error = np.hypot(
        share * large.std(0, ddof=1) / np.sqrt(len(large)),
        (share - 1) * small.std(0, ddof=1) / np.sqrt(len(small)),
    )
    exact = [energy for energy, _ in PARISI.values()]
    assert (np.abs(found - exact) <= ERRORS * error).all()


# How a run is made


def same(first, second, names=("energy", "overlap", "layer_overlap")):
    for name in names:
        np.testing.assert_array_equal(first[name].values, second[name].values)


MANY = {
    "layered": lambda: SpinModel.layered([12, 9, 7], seed=1),
    "SK": lambda: SpinModel.sk(20, seed=1),
}


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("kind", MANY)
def test_threads_change_no_number(kind):
    made = [
        sample(MANY[kind](), np.linspace(0.5, 2, 8), 40, 60, 3, keep=2, threads=threads)
        for threads in (1, 2)
    ]
    xr.testing.assert_identical(*made)
    assert made[0].attrs["arguments"] == made[1].attrs["arguments"]


def test_threads_change_no_number_of_a_large_model(two_threads):
    model = SpinModel.layered([784, 256, 128, 10], seed=0)
    made = [
        sample(model, np.linspace(0.3, 2, 8), 34, 6, 0, burn_in=0, threads=threads)
        for threads in (1, 2)
    ]
    same(*made)


def test_the_seed_decides():
    model = MANY["SK"]()
    first, again, other = (sample(model, [0.5, 1.0], 4, 60, seed) for seed in (0, 0, 1))
    same(first, again)
    assert not np.array_equal(first.energy, other.energy)


@pytest.mark.parametrize("kind", MANY)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_run_goes_on_where_it_was_left_bit_by_bit(kind, dtype):
    model = MANY[kind]().to(dtype)
    heats, replicas = np.geomspace(2, 0.4, 6), 26  # of 20 replicas and 6
    whole = sample(model, heats, replicas, 150, 5, burn_in=45, keep=105, keep_state=True)
    first = sample(model, heats, replicas, 45, 5, keep_state=True)
    second = sample(model, heats, replicas, 50, 5, start=first, keep_state=True)
    third = sample(model, heats, replicas, 55, 5, start=second, keep=55, keep_state=True)
    same(whole.isel(measurement=slice(0, 50)), second)
    same(whole.isel(measurement=slice(50, None)), third)
    np.testing.assert_array_equal(whole.point.values[:, :, 50:], third.point.values)
    for name in ("spins", "fields", "streams", "generator", "chain", "going"):
        np.testing.assert_array_equal(whole[f"state_{name}"], third[f"state_{name}"])
    assert (second.attrs["sweeps_before"], third.attrs["sweeps_before"]) == (45, 95)


@pytest.mark.parametrize(
    "kind",
    [
        "layered",
        "SK",
    ],
)
def test_a_start_is_left_as_it_was(kind):
    model = MANY[kind]()
    start = sample(model, [0.5, 1.0], 4, 30, 5, keep_state=True)
    before = start.copy(deep=True)
    first, second = (sample(model, [0.5, 1.0], 4, 30, 5, start=start) for _ in range(2))
    xr.testing.assert_identical(start, before)
    same(first, second)


@pytest.mark.parametrize("kind", MANY)
def test_a_measured_run_goes_on_as_one_that_was_not_looked_at(kind):
    looks = [
        sample(MANY[kind](), [0.6, 1.0], 4, 41, 5, every=every, burn_in=burn_in, keep_state=True)
        for every, burn_in in ((1, 0), (7, 3), (40, 0))
    ]
    for one in looks[1:]:
        np.testing.assert_array_equal(looks[0].state_spins, one.state_spins)
        np.testing.assert_array_equal(looks[0].state_chain, one.state_chain)


def test_every_sweep_that_is_named_is_measured():
    found = sample(MANY["SK"](), [1.0], 2, 30, 0, burn_in=9, every=4)
    assert found.sweep.values.tolist() == [13, 17, 21, 25, 29]
    whole = sample(MANY["SK"](), [1.0], 2, 30, 0, burn_in=0, every=1)
    np.testing.assert_array_equal(
        whole.energy.sel(measurement=found.sweep.values - 1), found.energy
    )


def test_progress_is_told_to_the_end():
    told = []
    sample(MANY["SK"](), [1.0], 2, 30, 0, progress=lambda *now: told.append(now))
    assert told == [(done, 30) for done in range(11, 31)]


def test_falling_and_rising_temperatures_are_labelled():
    rising = sample(MANY["SK"](), [0.4, 1.0, 3.0], 8, 400, 0)
    falling = sample(MANY["SK"](), [3.0, 1.0, 0.4], 8, 400, 0)
    for heat in (0.4, 1.0, 3.0):
        gap = (
            rising.energy.sel(temperature=heat).mean() - falling.energy.sel(temperature=heat).mean()
        )
        assert abs(float(gap)) < 1.0
    assert (rising.energy.mean(("replica", "measurement")).diff("temperature") > 0).all()
    assert (falling.energy.mean(("replica", "measurement")).diff("temperature") < 0).all()


@pytest.mark.parametrize("kind", MANY)
def test_kept_points_have_the_energies_that_were_recorded(kind):
    model = MANY[kind]()
    found = sample(model, [0.5, 1.0, 2.0], 4, 90, 1, keep=7)
    at = np.linspace(0, found.sizes["measurement"] - 1, 7).round().astype(int)
    points = torch.from_numpy(found.point.values)
    assert points.shape == (3, 4, 7, model.n)
    assert (points.abs() == 1).all()
    np.testing.assert_allclose(
        model.energy(points).numpy(), found.energy.values[..., at], rtol=1e-5, atol=1e-4
    )


@pytest.mark.parametrize("kind", MANY)
def test_couplings_in_bfloat16_are_those_of_the_rounded_model(kind):
    model = MANY[kind]()
    rounded = model.to(torch.bfloat16).to(torch.float64)
    found = sample(model, [0.5, 1.0], 4, 60, 1, keep=60, burn_in=0, precision="bfloat16")
    points = torch.from_numpy(found.point.values)
    energy = rounded.energy(points).numpy()
    np.testing.assert_allclose(energy, found.energy.values, rtol=1e-5, atol=1e-4)
    assert np.abs(model.energy(points).numpy() - found.energy.values).max() > 1e-3
    assert model.dtype == torch.float32
    same(found, sample(model.to(torch.bfloat16).to(torch.float32), [0.5, 1.0], 4, 60, 1, burn_in=0))


def test_bfloat16_is_of_float32_models():
    with pytest.raises(ValueError, match="float32"):
        sample(MANY["SK"]().to(torch.float64), [1.0], 2, 30, 0, precision="bfloat16")


@pytest.mark.parametrize("failing", [False, True])
@pytest.mark.parametrize("precision", ["as given", "bfloat16"])
def test_the_settings_of_the_process_are_left_alone(two_threads, precision, failing):
    def state():
        return (
            torch.get_rng_state().numpy().tobytes(),
            str(np.random.get_state()),  # noqa: NPY002
            torch.get_num_threads(),
            torch.get_float32_matmul_precision(),
        )

    def fail(done, planned):
        if failing and done > 20:
            raise KeyboardInterrupt

    before = state()
    try:
        sample(
            MANY["layered"](), [0.5, 1.0], 90, 40, 0, precision=precision, threads=2, progress=fail
        )
    except KeyboardInterrupt:
        assert failing
    else:
        assert not failing
    ground_states(MANY["SK"](), temperatures=[0.5, 1.0], sweeps=10)
    assert state() == before


# Equilibrium


@pytest.mark.parametrize("kind", MANY)
def test_hot_and_cold_starts_agree_in_equilibrium(kind):
    found = sample(MANY[kind](), [0.6, 0.8, 1.1, 1.6], 8, 3000, 0)
    assert found.attrs["equilibrated"] == "yes, at all 4 temperatures"
    assert found.equilibrated.all()
    assert (np.abs(found.hot_minus_cold) <= 3 * found.hot_minus_cold_error).all()
    assert found.cold.values.tolist() == [False, True, False, True]
    assert (found.rhat < 1.01).all()
    assert (found.ess > 400).all()


def test_a_cold_glass_that_was_stopped_early_is_said_not_to_be_in_equilibrium():
    model = SpinModel.sk(256, seed=0)
    found = sample(model, [0.2, 3.0], 16, 60, 0, tempering=False)
    assert found.attrs["equilibrated"].startswith("NOT at")
    assert "0.2" in found.attrs["equilibrated"]
    assert not found.equilibrated[0]
    gap, error = float(found.hot_minus_cold[0]), float(found.hot_minus_cold_error[0])
    assert gap < -3 * error  # cold pairs still remember their common start


def test_cold_pairs_start_at_one_quenched_configuration_and_hot_ones_anywhere():
    model = SpinModel.sk(200, seed=0)
    found = sample(model, [1e-4], 8, 1, 0, burn_in=0, tempering=False)
    q = found.overlap.values[0, :, 0]
    assert np.allclose(q[1::2], 1)
    assert (np.abs(q[0::2]) < 0.95).all()


def record(case, T=1, M=1600):
    """A record of four replicas without memory, or with one fault."""
    random = np.random.default_rng(3)
    energy, overlap = random.standard_normal((T, 4, M)), random.standard_normal((T, 2, M))
    if case == "one chain apart":
        energy[:, 3] += 0.6
    elif case == "one chain wider":
        energy[:, 3] *= 2
    elif case == "slow":  # ten independent values a chain
        energy = np.repeat(energy[..., ::160], 160, axis=-1)
    elif case == "hot and cold differ":  # within what R-hat lets pass
        overlap[:, 1] *= 1.17
    elif case == "drift":
        energy[..., M // 2 :] += 0.17
    elif case == "frozen":
        energy[:] = -3.0
        overlap[:] = 1.0
    elif case == "frozen apart":
        energy[:] = np.arange(4)[:, None]
    return xr.Dataset(
        {
            "energy": (("temperature", "replica", "measurement"), energy),
            "overlap": (("temperature", "pair", "measurement"), overlap),
        },
        {"temperature": [1.0] * T, "cold": ("pair", [False, True])},
    )


@pytest.mark.parametrize(
    "case",
    ["one chain apart", "one chain wider", "slow", "hot and cold differ", "drift", "frozen apart"],
)
def test_each_sign_of_no_equilibrium_is_enough(case):
    found = equilibration(record(case))
    assert found.attrs["equilibrated"] == "NOT at 1 of 1 temperatures: 1"
    rules = {
        "R-hat": bool((found.rhat < 1.01).all()),
        "ess": bool((found.ess > 400).all()),
        "hot and cold": bool(
            (np.abs(found.hot_minus_cold) <= 3 * found.hot_minus_cold_error).all()
        ),
    }
    failed = {
        "one chain apart": "R-hat",
        "one chain wider": "R-hat",
        "slow": "ess",
        "hot and cold differ": "hot and cold",
        "drift": None,
        "frozen apart": "R-hat",
    }[case]
    if failed is not None:
        assert not rules[failed]
    if case in ("hot and cold differ", "drift"):  # by nothing else
        assert all(passed for name, passed in rules.items() if name != failed)
    if case == "drift":
        gap = float(found.energy_bins[0, -1] - found.energy_bins[0, -2])
        assert gap > 3 * np.hypot(*found.energy_bins_error.values[0, -2:])


@pytest.mark.parametrize("case", ["as it should be", "frozen"])
def test_a_record_without_memory_or_motion_is_in_equilibrium(case):
    assert equilibration(record(case)).attrs["equilibrated"] == "yes, at all 1 temperatures"


def test_the_rule_of_equilibrium_can_be_set():
    strict = equilibration(record("as it should be"), least_ess=1e6)
    assert not strict.equilibrated.any()
    assert strict.attrs["least_ess"] == 1e6
    assert equilibration(record("hot and cold differ"), largest_z=30.0).equilibrated.all()


def test_few_measurements_tell_nothing():
    found = sample(MANY["SK"](), [1.0], 4, 10, 0)
    assert found.attrs["equilibrated"].startswith("unknown")
    with pytest.raises(ValueError, match="16 or more"):
        equilibration(found)


def test_without_a_cold_pair_that_is_said():
    found = sample(MANY["SK"](), [2.0], 2, 2000, 0)
    assert "not compared" in found.attrs["equilibrated"]
    assert found.hot_minus_cold.isnull().all()


# What is read off


def test_binder_s_ratio_tells_order_from_disorder():
    model = SpinModel.mattis(200, seed=2)
    found = observables(sample(model, [0.2, 3.0], 16, 400, 0, tempering=False))
    assert found.binder[0] > 0.999
    assert abs(float(found.binder[1])) < ERRORS * float(found.binder_error[1]) + 0.02
    assert found.q_absolute[0] > 0.99
    point = sample(model, [0.2], 4, 100, 0, keep=1).point.values[0, :, 0]
    signs = np.sign(model.matrix[0].numpy())  # of ξ, up to ξ_0
    signs[0] = 1
    assert (np.abs(point @ signs) / 200 > 0.99).all()


def test_the_floor_of_the_descriptor_is_taken_off():
    """At infinite temperature; that of a layer is known to 1/(4 N_k) of itself."""
    model = SpinModel.layered([150, 100], seed=0)
    found = observables(sample(model, [1e6], 32, 500, 0, burn_in=0))
    assert abs(float(found.descriptor[0])) < ERRORS * float(found.descriptor_error[0]) + 1e-4
    layers = np.abs(found.layer_descriptor.values[0])
    assert (layers < ERRORS * found.layer_descriptor_error.values[0] + 5e-4).all()
    assert found.susceptibility[0] == pytest.approx(
        1, abs=ERRORS * float(found.susceptibility_error[0])
    )
    floor = np.sqrt(2 / (np.pi * 250))
    assert float(found.q_absolute[0] - found.descriptor[0]) == pytest.approx(floor)


def test_errors_are_as_large_as_what_independent_runs_show():
    """Of 40 runs; the ratio of two standard deviations from so few is 1 ± .11."""
    model = MANY["SK"]()
    runs = [observables(sample(model, [1.5], 8, 500, k)) for k in range(40)]
    for name in ("energy_per_spin", "q_squared", "q_absolute", "heat_capacity"):
        shown = np.std([float(run[name][0]) for run in runs], ddof=1)
        told = np.sqrt(np.mean([float(run[f"{name}_error"][0]) ** 2 for run in runs]))
        assert 0.6 < told / shown < 1.6, (name, told, shown)


def test_the_distribution_of_overlaps_is_a_density():
    found = observables(sampled("SK"))
    assert np.allclose(found.distribution.sum("q") * 2 / 41 * (1 + 1 / 41), 1)
    assert np.allclose(found.q.values, -found.q.values[::-1])


def test_overlaps_take_two_replicas():
    with pytest.raises(ValueError, match="replicas=2"):
        observables(sample(MANY["SK"](), [1.0], 1, 30, 0))


# What is refused


@pytest.mark.parametrize(
    ("given", "error", "told"),
    [
        ({"temperatures": [0.0, 1.0]}, ValueError, "temperatures"),
        ({"temperatures": [-1.0]}, ValueError, "temperatures"),
        ({"temperatures": [float("nan")]}, ValueError, "temperatures"),
        ({"temperatures": []}, ValueError, "temperatures"),
        ({"temperatures": [1.0, 3.0, 2.0]}, ValueError, "rising or falling"),
        ({"temperatures": [1.0, 1.0]}, ValueError, "rising or falling"),
        ({"model": torch.nn.Linear(3, 2)}, TypeError, "from_module"),
        ({"model": torch.eye(3)}, TypeError, "SpinModel"),
        ({"replicas": 0}, ValueError, "replicas"),
        ({"replicas": 2.5}, ValueError, "replicas"),
        ({"sweeps": 0}, ValueError, "sweeps"),
        ({"sweeps": True}, ValueError, "sweeps"),
        ({"keep": -1}, ValueError, "keep"),
        ({"every": 0}, ValueError, "every"),
        ({"every": 50}, ValueError, "no measurement"),
        ({"burn_in": 30}, ValueError, "burn_in"),
        ({"burn_in": 31}, ValueError, "burn_in"),
        ({"burn_in": -1}, ValueError, "burn_in"),
        ({"burn_in": 2.5}, ValueError, "burn_in"),
        ({"burn_in": True}, ValueError, "burn_in"),
        ({"threads": 0}, ValueError, "threads"),
        ({"threads": 1.5}, ValueError, "threads"),
        ({"keep": 21}, ValueError, "of only 20 measurements"),
        ({"precision": "half"}, ValueError, "precision"),
        ({"threads": -1}, ValueError, "threads"),
    ],
)
def test_what_does_not_fit_is_named(given, error, told):
    arguments = {"model": MANY["SK"](), "temperatures": [1.0], "replicas": 2, "sweeps": 30} | given
    with pytest.raises(error, match=told):
        sample(**arguments)


@pytest.mark.parametrize(
    "changed",
    [
        {"model": SpinModel.sk(21, seed=1)},
        {"temperatures": [0.5, 1.1]},
        {"temperatures": [0.5, 1.0, 2.0]},
        {"replicas": 6},
        {"seed": 1},
    ],
)
def test_a_start_of_something_else_is_refused(changed):
    arguments = {"model": MANY["SK"](), "temperatures": [0.5, 1.0], "replicas": 4, "sweeps": 30}
    start = sample(**arguments, keep_state=True)
    with pytest.raises(ValueError, match="start"):
        sample(**(arguments | changed), start=start)


@pytest.mark.parametrize(
    "other", [SpinModel.sk(20, seed=2), SpinModel.layered([12, 8], seed=1), SpinModel.mattis(20)]
)
def test_a_start_of_another_model_of_the_same_size_is_refused(other):
    start = sample(MANY["SK"](), [0.5, 1.0], 4, 30, 0, keep_state=True)
    with pytest.raises(ValueError, match="start"):
        sample(other, [0.5, 1.0], 4, 30, 0, start=start)


def test_a_start_without_a_state_is_refused():
    start = sample(MANY["SK"](), [1.0], 2, 30)
    with pytest.raises(ValueError, match="keep_state"):
        sample(MANY["SK"](), [1.0], 2, 30, start=start)


# Ground states


@pytest.mark.parametrize("kind", ["layered", "layered in fields", "SK", "SK in fields"])
def test_the_ground_state_of_a_small_model_is_the_enumerated_one(kind):
    model = small(kind)
    states, energy, _ = boltzmann(model, [1.0])
    found = ground_states(model, temperatures=[0.2, 0.5, 1.0], sweeps=100, seed=1)
    assert np.allclose(found.energy, energy.min(), atol=1e-5)
    assert float(found.agreement) == 1
    best = states[energy.argmin()]
    for point in found.point.values:
        assert (point == best).all() or (model.fields is None and (point == -best).all())


def ground_energies(n, seeds, heats, sweeps, replicas=4):
    found, agreed = [], []
    for k in range(seeds):
        one = ground_states(
            SpinModel.sk(n, seed=k), temperatures=heats, replicas=replicas, sweeps=sweeps, seed=k
        )
        points = torch.from_numpy(one.point.values)
        energy = SpinModel.sk(n, seed=k).energy(points)
        assert np.allclose(energy, one.energy, rtol=1e-5)
        found.append(float(one.energy.min()) / n)
        agreed.append(float(one.agreement))
    return np.array(found), np.array(agreed)


def finite_size(n):
    return -0.7632 + 0.70 * n ** (-2 / 3)


def test_ground_states_of_small_glasses_obey_the_law_of_finite_sizes():
    """Known to ± .003; two standard errors of 60 samples are added."""
    found, agreed = ground_energies(64, 60, np.geomspace(0.15, 1.5, 8), 200)
    error = found.std(ddof=1) / np.sqrt(len(found))
    assert abs(found.mean() - finite_size(64)) < 0.003 + 2 * error
    assert error < 0.005
    assert (agreed == 1).mean() > 0.9


@pytest.mark.slow
@pytest.mark.parametrize(("n", "seeds", "sweeps"), [(128, 60, 600), (256, 30, 1500)])
def test_ground_states_of_larger_glasses_obey_the_law_of_finite_sizes(n, seeds, sweeps):
    found, agreed = ground_energies(n, seeds, np.geomspace(0.15, 1.5, 14), sweeps)
    error = found.std(ddof=1) / np.sqrt(len(found))
    assert abs(found.mean() - finite_size(n)) < 0.003 + 2 * error
    assert (agreed > 0.4).mean() > 0.8


def test_ground_states_of_a_bipartite_glass_obey_the_same_law():
    """Two layers of w with variance C/w: −.7632 √C a spin, and the finite size is that of 2w."""
    found = []
    for k in range(100):
        model = SpinModel.bipartite(32, 32, C=4.0, seed=k)
        one = ground_states(model, temperatures=np.geomspace(0.3, 3, 8), sweeps=150, seed=k)
        found.append(float(one.energy.min()) / 64)
    error = np.std(found, ddof=1) / np.sqrt(len(found))
    assert abs(np.mean(found) / 2 - finite_size(64)) < 0.003 + 2 * error / 2


def test_ground_states_refuse_what_sample_refuses():
    with pytest.raises(TypeError, match="SpinModel"):
        ground_states(torch.eye(3), temperatures=[1.0])
    with pytest.raises(ValueError, match="temperatures"):
        ground_states(MANY["SK"](), temperatures=[0.0])
    with pytest.raises(ValueError, match="sweeps"):
        ground_states(MANY["SK"](), temperatures=[1.0], sweeps=0)


# Devices without compiled kernels


@pytest.mark.parametrize("kind", ["layered", "layered in fields", "SK", "SK in fields"])
def test_the_path_of_other_devices_samples_the_same(kind, monkeypatch):
    """PyTorch's own operations, on this device: energies within four errors over replicas."""
    monkeypatch.setattr("spinscape.spins.sweeps._on_cpu", lambda model: False)
    model, heats = small(kind), [0.9, 1.6]
    states = model.configurations()
    energy = model.energy(states).double()
    found = sample(model, heats, 24, 500, 3, burn_in=100, every=2)["energy"]
    for heat in heats:
        expected = float(torch.softmax(-energy / heat, 0) @ energy)
        means = found.sel(temperature=heat).mean("measurement").values
        assert abs(means.mean() - expected) < 4 * means.std(ddof=1) / len(means) ** 0.5
