"""Trees, and what looks like one: statistics, nulls and refusals against known answers."""

import warnings
from functools import partial
from itertools import permutations
from math import pi, sqrt

import numpy as np
import pytest
import scipy.cluster.hierarchy as scipy_trees
import torch
import xarray as xr
from scipy.spatial.distance import pdist, squareform
from torch import nn

import oracles
from spinscape import parallel
from spinscape.glass.matching.orbits import euclidean_distances
from spinscape.glass.trees.clustering import hierarchy, hierarchy_findings
from spinscape.glass.trees.families import top_clusters
from spinscape.glass.trees.surrogates import barycentre, draw_surrogate, judge, norm_matched, star
from spinscape.glass.trees.ultrametricity import (
    LINKAGES,
    hed_young_domany_k,
    jackknife_k,
    rammal_toulouse_virasoro,
    tree_of,
    tree_statistics,
)
from spinscape.nets import symmetry as symmetries

FALSE_ALARM = 4.0  # standard errors: once in 16 000 comparisons, were the seeds not fixed
NORMAL_GAP = 3 / (2 * sqrt(pi))  # of the two largest of three normal numbers


def iid(count, size, seed, norm_spread=0.0):
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(count, size, generator=generator, dtype=torch.float64)
    return points * (1 + norm_spread * torch.randn(count, 1, generator=generator).double())


def dense(*sizes):
    first, width, last = sizes
    return nn.Sequential(nn.Linear(first, width), nn.ReLU(), nn.Linear(width, last)).double()


def small_nets(count=8, noise=1.0):
    """Permuted and rescaled copies of one network plus noise, and that network."""
    module = dense(4, 5, 3)
    common = iid(1, 43, seed=30)[0]
    noisy = common + noise * iid(count, 43, seed=31)
    nets = [oracles.hidden_copy(module, net, seed=k)[0] for k, net in enumerate(noisy)]
    return module, torch.stack(nets), common


def norms(module, point):
    """Of what leads into and out of every hidden unit, one after the other."""
    return torch.cat([side for layer in oracles.unit_norms(module, point) for side in layer])


def matrices():
    generator = np.random.default_rng(32)
    return [squareform(pdist(generator.standard_normal((m, 3)))) for m in (3, 4, 9, 17)]


def test_an_exact_binary_tree_has_no_departure():
    labels = np.arange(16)
    lowest_common = [[int(a ^ b).bit_length() for b in labels] for a in labels]
    distance = np.array(lowest_common, dtype=float)
    K, cophenetic, rtv, mean = tree_statistics(distance)
    assert (K, rtv) == (0, 0)
    assert cophenetic == pytest.approx(1)
    assert mean == pytest.approx((8 * 4 + 4 * 3 + 2 * 2 + 1) / 15)


@pytest.mark.parametrize("distance", matrices(), ids=len)
def test_statistics_are_those_of_their_definitions(distance):
    sides = squareform(distance)
    lowest = squareform(oracles.subdominant(distance), checks=False)
    assert hed_young_domany_k(distance) == pytest.approx(oracles.triangle_k(distance))
    rtv = (sides - lowest).sum() / sides.sum()
    assert rammal_toulouse_virasoro(distance) == pytest.approx(rtv)
    found = tree_statistics(distance, "single")
    assert found.cophenetic == pytest.approx(np.corrcoef(sides, lowest)[0, 1])
    assert found.mean_distance == pytest.approx(sides.mean())


def test_points_without_structure_have_the_k_of_their_dimension():
    draws = [euclidean_distances(iid(64, 10_000, seed=s)).numpy() for s in range(10)]
    K = np.array([hed_young_domany_k(d) for d in draws])
    assert np.abs(K - 0.736).max() < FALSE_ALARM * 0.013
    assert abs(K.mean() - 0.736) < FALSE_ALARM * 0.013 / sqrt(10)
    limit = NORMAL_GAP * sqrt(3 / 4)
    assert limit == pytest.approx(0.7329, abs=5e-5)
    bias = 2 * limit / 64  # pairs share points: their sample spread is low by 1/64, and uncertain
    assert abs(K.mean() - limit) < FALSE_ALARM * K.std(ddof=1) / sqrt(10) + bias
    assert np.mean([rammal_toulouse_virasoro(d) for d in draws]) == pytest.approx(0.011, abs=5e-4)
    assert all(0.5 < tree_statistics(d).cophenetic < 0.7 for d in draws)


def test_points_dominated_by_their_norms_look_clustered_to_the_eye():
    generator, K = np.random.default_rng(33), []
    for _ in range(10):
        squares = 1 + 0.01 * generator.standard_normal(300)  # of orthogonal points
        K.append(hed_young_domany_k(np.sqrt(squares[:, None] + squares) * (1 - np.eye(300))))
    limit = NORMAL_GAP / sqrt(2)
    assert limit == pytest.approx(0.598, abs=5e-4)
    assert abs(np.mean(K) - limit) < FALSE_ALARM * np.std(K, ddof=1) / sqrt(10) + 3 * limit / 300
    noisy = [euclidean_distances(iid(64, 10_000, s, norm_spread=0.05)).numpy() for s in range(4)]
    cophenetic = [tree_statistics(d).cophenetic for d in noisy]
    assert np.abs(np.array(cophenetic) - 0.865).max() < FALSE_ALARM * 0.02


@pytest.mark.parametrize(
    ("size", "K", "spread"), [(100, 0.250, 0.030), (1000, 0.081, 0.005), (20_000, 0.018, 0.002)]
)
def test_a_tree_of_three_levels_has_the_k_of_its_dimension(size, K, spread):
    for seed in range(4):
        points = oracles.planted_tree((4, 4, 4), (1, 0.7, 0.5), size, seed=seed)
        found = hed_young_domany_k(euclidean_distances(points).numpy())
        assert abs(found - K) < FALSE_ALARM * spread


def test_the_jackknife_interval_covers_at_its_rate():
    distances = [euclidean_distances(iid(20, 50, seed=s)).numpy() for s in range(150)]
    found = [jackknife_k(d) for d in distances]
    assert [one.value for one in found[:3]] == [hed_young_domany_k(d) for d in distances[:3]]
    truth = np.mean([one.value for one in found])
    covered = np.mean([one.low <= truth <= one.high for one in found])
    assert abs(covered - 0.95) < FALSE_ALARM * sqrt(0.95 * 0.05 / len(found))


@pytest.mark.parametrize("linkage", LINKAGES)
def test_the_tree_is_scipys(linkage):
    points = iid(12, 5, seed=34)
    found = hierarchy(None, points, surrogates=2, seed=0, linkage=linkage)
    expected = scipy_trees.linkage(pdist(points.numpy()), linkage, optimal_ordering=True)
    np.testing.assert_allclose(found.linkage.values, expected, rtol=1e-12)
    assert (found.order.values == scipy_trees.leaves_list(expected)).all()
    np.testing.assert_allclose(found.distance.values, squareform(pdist(points.numpy())))


def test_permuted_copies_left_in_join_at_one_height():
    """Equidistant units: d² is twice the Hamming distance, and single linkage makes a comb."""
    points = torch.stack([torch.eye(4)[list(order)].flatten() for order in permutations(range(4))])
    tree = tree_of(euclidean_distances(points).numpy(), "single")
    np.testing.assert_allclose(tree[:, 2], 2)


def test_the_norm_matched_null_keeps_the_norms_of_every_unit():
    module, points, _ = small_nets()
    null = norm_matched(symmetries.of(module), points)
    surrogate = draw_surrogate(null, 3, seed=1)
    for net, drawn in zip(points, surrogate, strict=True):
        kept = oracles.balanced(module, net)
        pairs = zip(
            oracles.unit_norms(module, drawn), oracles.unit_norms(module, kept), strict=True
        )
        for ours, theirs in pairs:
            torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(drawn[-3:].norm(), kept[-3:].norm())
        assert abs(torch.cosine_similarity(drawn, kept, dim=0)) < 0.9


def test_the_star_null_keeps_the_mean_and_what_every_unit_has_beyond_it():
    module, points, _ = small_nets()
    null = star(symmetries.of(module), points)
    aligned = barycentre(symmetries.of(module), points)
    torch.testing.assert_close(null.centre, aligned.mean(0))
    surrogate = draw_surrogate(null, 3, seed=1)
    for net, drawn in zip(aligned, surrogate, strict=True):
        kept, ours = net - aligned.mean(0), drawn - null.centre
        torch.testing.assert_close(norms(module, ours), norms(module, kept))
        torch.testing.assert_close(ours[-3:].norm(), kept[-3:].norm())


def test_the_null_of_plain_points_keeps_their_norms_after_centring():
    points = iid(6, 30, seed=35) + 100
    drawn = draw_surrogate(star(None, points), 0, seed=1)
    torch.testing.assert_close(drawn.norm(dim=1), (points - points.mean(0)).norm(dim=1))


def test_the_barycentre_of_a_star_is_its_centre():
    noise, count = 0.05, 16
    module, points, common = small_nets(count, noise)
    aligned = barycentre(symmetries.of(module), points)
    x = iid(20, 4, seed=36)
    for net, moved in zip(points, aligned, strict=True):
        torch.testing.assert_close(
            oracles.run_point(module, moved, x), oracles.run_point(module, net, x)
        )
    centre = oracles.balanced(module, common)
    missed = oracles.nearest_by_enumeration(module, centre, aligned.mean(0), rescaled=False)
    spread = float((aligned - aligned.mean(0)).square().sum() / (count - 1))
    assert missed < 2 * sqrt(spread / count)  # what a mean of `count` misses by


def test_surrogates_depend_on_seed_and_number_alone():
    module, points, _ = small_nets(6)
    few = hierarchy(module, points, surrogates=7, seed=1)
    more = hierarchy(module, points, surrogates=12, seed=1)
    for name in ("K_null", "cophenetic_null", "mean_distance_null"):
        assert (few[name].values == more[name].values[:, :7]).all()
        assert len(np.unique(more[name])) == more[name].size
    other = hierarchy(module, points, surrogates=7, seed=2)
    assert (other.K_null.values != few.K_null.values).all()
    assert other.K == few.K
    assert few.surrogate_distance.values[0] == pytest.approx(
        squareform(squareform(few.surrogate_distance.values[0], checks=False))
    )


def test_two_workers_give_the_same_numbers_and_nothing_else_changes():
    module, points, _ = small_nets(6)
    kept, state = points.clone(), torch.get_rng_state()
    here = hierarchy(module, points, surrogates=12, seed=1)
    there = hierarchy(module, points, surrogates=12, seed=1, map=partial(parallel.map, workers=2))
    xr.testing.assert_allclose(there, here, rtol=1e-12)
    assert torch.equal(points, kept)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("value", "nulls", "verdict"),
    [
        (0.7, [[1.0] * 100], "supported"),  # both limits are included
        (0.7 + 1e-9, [[1.0] * 100], "undecided"),  # below all, but not by enough
        (0.7, [[0.7] + [1.1] * 99], "undecided"),  # by enough, but not below all: p = 2/101
        (0.95, [[0.9, *[1.0] * 99]], "not supported"),
        (0.5, [[1.0] * 99], "undecided"),  # p = .01 is not below .01
        (2.0, [[1.0] * 99], "undecided"),
        (0.5, [[1.0] * 100, [0.4] * 100], "not supported"),  # the star explains it
        (0.5, [[0.4] * 100, [1.0] * 100], "not supported"),
        (0.5, [[1.0] * 100, [0.6] * 100], "undecided"),
        (0.5, [[1.0] * 100, [0.9] * 100], "supported"),
    ],
)
def test_the_rule_at_its_limits(value, nulls, verdict):
    assert judge(value, np.array(nulls)) == verdict


def line_tree(*places):
    line = np.array(places, dtype=float)
    return tree_of(np.abs(line[:, None] - line))


def test_the_top_level_is_a_wide_gap_that_no_outlier_makes():
    two_and_an_outlier = line_tree(0, 1, 2.1, 10, 11, 12.1, 500)
    assert np.bincount(top_clusters(two_and_an_outlier, 3)).tolist() == [3, 3, 1]
    equal = 4.0 - 3.0 * np.kron(np.eye(4), np.ones((3, 3))) - np.eye(12)  # equal heights above
    assert np.bincount(top_clusters(tree_of(equal), 8)).tolist() == [3, 3, 3, 3]
    comb = np.maximum.outer(*[np.arange(1.0, 7)] * 2) * (1 - np.eye(6))
    assert np.bincount(top_clusters(tree_of(comb), 3)).tolist() == [5, 1]


def test_small_families_are_joined_where_a_level_says_so_not_where_chance_does():
    families = np.arange(8) // 2
    within = families[:, None] == families
    chance = np.where(within, 0.1, 10 + 0.1 * np.abs(families[:, None] - families))
    assert np.bincount(top_clusters(tree_of(chance), 4)).tolist() == [2, 2, 2, 2]
    level = np.where(within, 0.1, np.where(families[:, None] // 2 == families // 2, 6, 10))
    assert np.bincount(top_clusters(tree_of(level), 4)).tolist() == [4, 4]


def test_what_a_hierarchy_records():
    module, points, _ = small_nets(6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = hierarchy(module, xr.DataArray(points.numpy(), dims=("replica", "n")), seed=1)
        findings = hierarchy_findings(found)
    assert dict(found.sizes) | {"top": 0} == {
        **{"replica": 6, "other": 6, "merge": 5, "column": 4},
        **{"null": 2, "surrogate": 100, "quantile": 200, "top": 0},
    }
    assert found.null.values.tolist() == ["norm-matched", "star"]
    assert found.cluster_size.sum() == 6
    assert found.K_within.isnull().all()  # families of fewer than 8
    assert all(v.attrs["units"] and v.attrs["long_name"] for v in found.data_vars.values())
    assert {"seed", "arguments", "versions", "source", "rule"} <= set(found.attrs)
    assert [f.protocol for f in findings] == ["hierarchy"] * 3
    assert hierarchy(
        module, xr.Dataset({"point": (("replica", "n"), points.numpy())}), seed=1
    ).equals(found)


COPIES = small_nets(6, noise=0.0)
REFUSED = {
    "few": (
        {"points": iid(3, 43, 0)},
        r"^points: expected \[replica ≥ 4, n\], .* \(3, 43\)",
    ),
    "length": ({"points": iid(6, 40, 0)}, r"^points: of length 40, but the module has 43"),
    "finite": (
        {"points": iid(6, 43, 0).index_fill(0, torch.tensor([1, 4]), torch.nan)},
        r"^points: replicas \[1, 4\] are not finite",
    ),
    "copies": ({"points": COPIES[1]}, r"^points: all distances are .*copies of one another"),
    "float copies": (
        {"module": dense(4, 5, 3).float(), "points": COPIES[1].float()},
        r"^points: all",
    ),
    "equidistant": ({"module": None, "points": torch.eye(6)}, r"^points: all distances are 1.41"),
    "linkage": ({"linkage": "ward"}, r"^linkage: expected one of .* got 'ward'"),
    "surrogates": ({"surrogates": 0}, r"^surrogates: expected at least 1, got 0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_clustered_is_refused_by_name(case):
    changed, message = REFUSED[case]
    settings = {"module": COPIES[0], "points": iid(6, 43, 1), "surrogates": 2, "seed": 0}
    with pytest.raises(ValueError, match=message):
        hierarchy(**settings | changed)


def test_matrices_without_a_k_are_refused():
    with pytest.raises(ValueError, match=r"^distance: all 6 distances are 1"):
        hed_young_domany_k(1 - np.eye(4))
    for shape in ((2, 2), (3, 4)):
        with pytest.raises(ValueError, match=r"^distance: expected a square matrix"):
            hed_young_domany_k(np.ones(shape))
    with pytest.raises(ValueError, match=r"at least 4 replicas, got 3"):
        jackknife_k(matrices()[0])
