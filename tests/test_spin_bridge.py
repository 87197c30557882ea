"""Tools of `glass` on spins, where the answers are known: walks, trees and P(q).

A glass (Sherrington and Kirkpatrick at T = .3) is the positive control, the same glass above T_c
and a ferromagnet (Mattis) the negative ones. What tells them apart is P(q) of configurations
without their global flip: broader than that of a star, and different from sample to sample. K of
Hed, Young and Domany is small for any model with a ± pair of states, ferromagnets included, and
with the flip removed it varies from one glass to the next, so that no single K is asserted.
Seeds are fixed; means are compared within four standard errors of walkers or samples.
"""

from functools import cache

import numpy as np
import pytest
import torch

import spinscape as ss
from spinscape.glass.trees.repeats import hierarchy_of_sets
from spinscape.spins import SpinFlip, SpinModel, sample, without_flip

ERRORS = 4.0


def configurations(walkers, n, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).choice([-1.0, 1.0], (walkers, n)))


# Walks


@pytest.mark.parametrize("flips", [1, 2])
def test_a_thermal_walk_of_flips_has_the_enumerated_energy(flips):
    """Steps of two flips keep the parity of each walker, and starts are half and half of each."""
    model, T, walkers = SpinModel.sk(10, seed=3), 1.2, 500
    states = model.configurations()
    energy = model.energy(states).double()
    weights = torch.softmax(-energy / T, 0)
    expected = float(weights @ energy)
    if flips == 2:
        even = (states.prod(1) > 0).double()
        each = [float((p * weights) @ energy / (p @ weights)) for p in (even, 1 - even)]
        expected = sum(each) / 2
    start = configurations(walkers, 10)
    start[:, 0] *= start.prod(1) * torch.tensor([1.0, -1.0]).repeat(walkers // 2)
    found = ss.glass.walk(
        model,
        start,
        rule="thermal",
        temperature=T,
        move=SpinFlip(flips),
        steps=260,
        record=range(100, 261, 10),
        seed=1,
    )
    mean = found.energy.mean("step").values
    assert abs(mean.mean() - expected) < ERRORS * mean.std(ddof=1) / np.sqrt(walkers)
    points = torch.from_numpy(found.point.values)
    assert (points.abs() == 1).all()
    last = found.energy.isel(step=-1).values
    assert np.allclose(model.energy(points), last, atol=1e-5)
    assert 0.05 < float(found.acceptance.mean()) < 0.95


@pytest.mark.parametrize("flips", [1, 3])
def test_a_free_walk_forgets_its_start_as_flips_say(flips):
    """⟨q⟩ = (1 − 2 flips / N)^t."""
    n, walkers = 40, 800
    found = ss.glass.walk(
        SpinModel.sk(n, seed=0),
        configurations(walkers, n),
        rule="free",
        move=SpinFlip(flips),
        steps=40,
        record=range(0, 41, 4),
        seed=2,
    )
    overlap = found.overlap.values
    assert np.allclose(overlap[:, 0], 1)
    exact = (1 - 2 * flips / n) ** found.step.values
    error = overlap.std(0, ddof=1) / np.sqrt(walkers)
    assert (np.abs(overlap.mean(0) - exact)[1:] < ERRORS * error[1:]).all()
    assert (found.acceptance == 1).all()


@pytest.mark.parametrize("flips", [1, 3, 12])
def test_one_step_turns_as_many_spins_as_asked_each_as_often(flips):
    move, start = SpinFlip(flips), torch.ones(2000, 12)
    streams = [torch.Generator().manual_seed(k) for k in range(2000)]
    moved = move.propose(start, move.init(start), streams)
    assert ((moved == -1).sum(1) == flips).all()
    assert (start == 1).all()
    share = (moved == -1).double().mean(0).numpy()
    p = flips / 12
    assert (np.abs(share - p) <= ERRORS * np.sqrt(p * (1 - p) / 2000)).all()
    assert move.step == float(flips)


def test_a_threshold_walk_of_flips_stays_below_its_threshold():
    model = SpinModel.sk(30, seed=0)
    start = configurations(20, 30)
    top = float(model.energy(start).max())
    found = ss.glass.walk(
        model, start, rule="threshold", threshold=top, move=SpinFlip(), steps=80, seed=0
    )
    assert (found.energy <= top).all()
    assert (found.acceptance < 1).any()


@pytest.mark.parametrize("flips", [0, -1, 1.0, True, "one"])
def test_flips_are_a_whole_number(flips):
    with pytest.raises(ValueError, match="flips"):
        SpinFlip(flips)


def test_flips_move_spins_only():
    with pytest.raises(ValueError, match=r"\+1 and −1"):
        SpinFlip().init(torch.randn(3, 5))
    with pytest.raises(ValueError, match="only 2"):
        SpinFlip(3).init(torch.ones(3, 2))


# The global flip


def test_configurations_are_turned_to_one_side_and_changed_in_no_other_way():
    base = configurations(1, 90, seed=1)
    noise = torch.from_numpy(np.random.default_rng(2).choice([-1, 1], (40, 90), p=[0.2, 0.8]))
    points = base * noise
    sides = configurations(40, 1, seed=3)
    found = without_flip(points * sides)
    assert found.shape == points.shape
    kept = (found * points).sum(1).abs()
    assert (kept == 90).all()
    assert (found @ found.T > 0).all()
    assert torch.equal(found.view(5, 8, 90), without_flip((points * sides).view(5, 8, 90)))
    again = without_flip(-points)
    assert torch.equal(again, found) or torch.equal(again, -found)


def test_energies_do_not_see_the_flip():
    model = SpinModel.sk(50, seed=0)
    points = configurations(12, 50)
    assert torch.allclose(model.energy(points), model.energy(without_flip(points)))


# Trees and P(q)

COLD, MIDDLE, HOT = 0.3, 0.6, 1.5
REPLICAS = 32


@cache
def samples(n, kind, count, sweeps):
    """Independent replicas of several glasses or ferromagnets, at all temperatures."""
    rungs = {64: 8, 128: 12, 256: 18}[n]
    heats = np.unique(np.append(np.geomspace(COLD, HOT, rungs), MIDDLE))
    made, sweeps = [], sweeps if kind == "SK" else sweeps // 3
    for seed in range(count):
        model = SpinModel.sk(n, seed) if kind == "SK" else SpinModel.mattis(n, seed)
        made.append(
            sample(model, heats, REPLICAS, sweeps, 100 + seed, keep=1, every=5, burn_in=sweeps // 2)
        )
    return made


def points_at(made, heat, flipped):
    """The last configuration of every replica of each sample."""
    for one in made:
        points = torch.from_numpy(one.point.sel(temperature=heat, method="nearest").values[:, -1])
        yield points if flipped else without_flip(points)


@cache
def trees(n, kind, heat, flipped, count=6, sweeps=1200):
    return hierarchy_of_sets(
        [
            ss.glass.hierarchy(None, points, surrogates=100, seed=0)
            for points in points_at(samples(n, kind, count, sweeps), heat, flipped)
        ]
    )


def judged(*case, **settings):
    """Is P(q) broader than chance, and does it differ from sample to sample?"""
    return ss.glass.overlap_findings(ss.glass.overlap_distribution(trees(*case, **settings)))


def ratio_of_k(found):
    return (found.K / found.K_null.mean("surrogate")).values.ravel()


def test_trees_of_kept_configurations_need_no_module():
    (made, *_) = samples(64, "SK", 6, 1200)
    for flipped in (True, False):
        (points, *_) = points_at([made], COLD, flipped)
        found = ss.glass.hierarchy(None, points, surrogates=20, seed=0)
        q = (points @ points.T / 64).numpy()
        assert np.allclose(found.overlap, q, atol=1e-6)
        # |σ − σ'|² = 2N (1 − q), up to the rounding of squares
        assert np.allclose(found.distance**2, 128 * (1 - q), atol=1e-3)
        assert found.sizes["replica"] == REPLICAS
        assert found.null.values.tolist() == ["star"]
        assert np.isfinite(found.K)
        pairs = q[np.triu_indices(REPLICAS, 1)]
        assert float(found.overlap_width) == pytest.approx(pairs.std(), abs=1e-6)
        broad, *rest = ss.glass.overlap_findings(ss.glass.overlap_distribution(found))
        assert broad.verdict == "undecided"  # of 20 surrogates
        assert rest == []


def test_replicas_of_the_glass_are_in_equilibrium():
    """By hot and cold starts; the overlap of pairs is that of the tree's pairs."""
    for made in samples(64, "SK", 6, 1200):
        gap, error = made.hot_minus_cold.values, made.hot_minus_cold_error.values
        assert (np.abs(gap) <= ERRORS * error).all()


def test_p_of_q_of_a_paramagnet_has_the_width_of_its_susceptibility():
    """N⟨q²⟩ = 1/(1 − β²) over samples, of a glass at T = 1.5; 1/N corrections of 10 %."""
    found = trees(64, "SK", HOT, True)
    squares = 64 * (found.overlap_width**2 + found.overlap_mean**2).values
    error = squares.std(ddof=1) / np.sqrt(len(squares))
    exact = 1 / (1 - HOT**-2)
    assert abs(squares.mean() - exact) < ERRORS * error + 0.1 * exact
    assert error < 0.1 * exact


@pytest.mark.parametrize(("kind", "heat"), [("SK", COLD), ("Mattis", MIDDLE)])
def test_with_its_mirror_images_any_order_forms_families(kind, heat):
    """K is far below the star's for the ferromagnet too: it is the ± pair that K sees."""
    found = trees(64, kind, heat, True)
    assert (found.verdict == "supported").all()
    assert (ratio_of_k(found) < 0.5).all()
    assert judged(64, kind, heat, True)[0].verdict == "supported"


@pytest.mark.parametrize("flipped", [True, False])
@pytest.mark.parametrize("kind", ["SK", "Mattis"])
def test_above_the_transition_there_are_no_families(kind, flipped):
    found = trees(64, kind, HOT, flipped)
    assert not (found.verdict == "supported").any()
    assert (ratio_of_k(found) > 0.85).all()
    broad, unlike = judged(64, kind, HOT, flipped)
    assert broad.verdict != "supported"
    assert unlike.verdict == "not supported"


def test_without_its_mirror_images_a_ferromagnet_has_one_state():
    found = trees(64, "Mattis", MIDDLE, False)
    assert not (found.verdict == "supported").any()
    assert (ratio_of_k(found) > 0.7).all()
    assert (found.overlap_width < 1.2 * found.overlap_width_null.mean(("null", "surrogate"))).all()
    broad, unlike = judged(64, "Mattis", MIDDLE, False)
    assert (broad.verdict, unlike.verdict) == ("not supported", "not supported")


def test_without_their_mirror_images_cold_glasses_have_a_broad_p_of_q_that_varies():
    broad, unlike = judged(64, "SK", COLD, False)
    assert (broad.verdict, unlike.verdict) == ("supported", "supported")
    assert broad.value > 1.4 * broad.null_value
    assert unlike.value > 4
    cold = trees(64, "SK", COLD, False).overlap_width.values
    for kind, heat in (("SK", HOT), ("Mattis", MIDDLE)):
        other = trees(64, kind, heat, False).overlap_width.values
        error = np.hypot(cold.std(ddof=1), other.std(ddof=1)) / np.sqrt(len(cold))
        assert cold.mean() - other.mean() > 2 * error


@pytest.mark.slow
@pytest.mark.parametrize(("n", "sweeps"), [(128, 3000), (256, 6000)])
def test_p_of_q_tells_larger_glasses_from_paramagnets_and_ferromagnets(n, sweeps):
    settings = {"count": 6, "sweeps": sweeps}
    broad, unlike = judged(n, "SK", COLD, False, **settings)
    assert (broad.verdict, unlike.verdict) == ("supported", "supported")
    for kind, heat in (("SK", HOT), ("Mattis", MIDDLE), ("Mattis", HOT)):
        broad, unlike = judged(n, kind, heat, False, **settings)
        assert broad.verdict != "supported"
        assert unlike.verdict == "not supported"
        width = trees(n, kind, heat, False, **settings).overlap_width.values
        assert (width * np.sqrt(n) < 1.6).all()  # what has one state narrows as N^(−1/2)
    cold = trees(n, "SK", COLD, False, **settings).overlap_width.values
    assert np.sqrt(n) * cold.mean() > 2  # and a glass does not
