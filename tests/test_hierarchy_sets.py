"""Families that come back in independent sets, and those that untrained starts show as well."""

from itertools import count
from math import sqrt

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

import oracles
from spinscape.glass.trees.clustering import hierarchy, hierarchy_findings
from spinscape.glass.trees.repeats import (
    hierarchy_of_sets,
    hierarchy_of_sets_findings,
    untrained_finding,
)
from spinscape.nets import datasets, models
from spinscape.nets.training import train
from spinscape.nets.weightspace import points as points_of

FALSE_ALARM = 4.0  # standard errors
SIZE = 60


def star_of(replicas=12, size=SIZE, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(replicas, size, generator=generator, dtype=torch.float64)


def tree_of(seed, shape=(3, 3, 3)):
    return oracles.planted_tree(shape, (1, 0.7, 0.3), 400, seed=seed)


def trees_of(points, surrogates=100, **settings):
    return [
        hierarchy(None, one, surrogates=surrogates, seed=k, **settings)
        for k, one in enumerate(points)
    ]


HIERARCHIES = trees_of([tree_of(seed) for seed in range(3)])
STARS = trees_of([star_of(seed=seed) for seed in range(4)])


def test_the_sets_stand_side_by_side():
    points = [star_of(10, seed=1), star_of(14, seed=2)]
    trees = trees_of(points, surrogates=5)
    found = hierarchy_of_sets(trees)
    for k, tree in enumerate(trees):
        one = found.isel(set=k)
        for name in ("K", "K_null", "cophenetic", "overlap_width_null", "K_error"):
            np.testing.assert_array_equal(one[name], tree[name])
        below = (tree.K_null.values <= float(tree.K)).sum(1)
        np.testing.assert_allclose(one.p, (1 + below) / 6)
    assert found.replicas.values.tolist() == [10, 14]
    assert found.verdict.values.tolist() == ["undecided"] * 2
    assert all(v.attrs["units"] and v.attrs["long_name"] for v in found.data_vars.values())
    assert {"seed", "arguments", "versions", "source", "distance"} <= set(found.attrs)


@pytest.mark.parametrize(
    ("trees", "families", "within", "supported"),
    [
        (HIERARCHIES, "supported", "supported", 3),
        (HIERARCHIES + STARS[:2], "supported", "supported", 3),
        (HIERARCHIES[:2] + STARS[:2], "not supported", "not supported", 2),  # half is not most
        (HIERARCHIES[:1] + STARS, "not supported", "not supported", 1),
        (STARS, "not supported", "not supported", 0),
        (HIERARCHIES[:2], "undecided", "undecided", 2),  # two sets are too few
    ],
    ids=["all", "most", "half", "one", "none", "two sets"],
)
def test_the_rule_over_sets(trees, families, within, supported):
    dataset = hierarchy_of_sets(trees)
    first, second = hierarchy_of_sets_findings(dataset)
    assert (first.verdict, second.verdict) == (families, within)
    assert first.value == second.value == supported
    assert first.null_value == pytest.approx(0.01 * len(trees))
    statistic = -2 * np.log(dataset.p.sel(null="star").values).sum()
    assert first.p == pytest.approx(scipy.stats.chi2.sf(statistic, 2 * len(trees)))
    chance = scipy.stats.binom.sf(supported - 1, len(trees), 0.01)
    assert second.p == pytest.approx(chance)


def test_one_level_of_families_in_all_sets_is_no_hierarchy_in_any():
    points = [oracles.planted_tree((3, 8), (1, 0.3), 400, seed=seed) for seed in range(3)]
    dataset = hierarchy_of_sets(trees_of(points))
    first, second = hierarchy_of_sets_findings(dataset)
    assert (first.verdict, second.verdict) == ("supported", "not supported")
    assert dataset.families.values.tolist() == [3, 3, 3]


def test_few_surrogates_decide_nothing():
    dataset = hierarchy_of_sets(trees_of([tree_of(seed) for seed in range(3)], surrogates=99))
    assert [f.verdict for f in hierarchy_of_sets_findings(dataset)] == ["undecided"] * 2


def test_sets_without_families_are_supported_no_more_often_than_stated():
    """Sixty stars at p < .01, which takes K ≤ .7 of its null's mean besides.

    p itself is uniform but for its steps: shares of .05 and .5 within four binomial errors.
    """
    repeats = 60
    trees = [hierarchy(None, star_of(12, 30, seed=200 + k), seed=k) for k in range(repeats)]
    found = hierarchy_of_sets(trees)
    p = found.p.sel(null="star").values
    for rate in (0.05, 0.5):
        assert abs(np.mean(p <= rate) - rate) < FALSE_ALARM * sqrt(rate * (1 - rate) / repeats)
    assert (found.verdict == "supported").sum() == 0
    shares = hierarchy_of_sets_findings(found)[0]
    assert (shares.verdict, shares.value) == ("not supported", 0)


@pytest.mark.slow
def test_networks_without_families_are_supported_no_more_often_than_stated():
    """Fifty stars of networks, permuted and rescaled: at most .01 · 50 within four errors: 3."""
    module = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 5)).double()
    size, fresh, verdicts = 181, count(1000), []
    for seed in range(50):
        nets = star_of(1, size, seed=seed) + 0.4 * star_of(12, size, seed=500 + seed)
        nets = [oracles.hidden_copy(module, net, seed=next(fresh))[0] for net in nets]
        found = hierarchy(module, torch.stack(nets), seed=seed)
        verdicts.append(hierarchy_findings(found)[0].verdict)
    rate = 0.01
    assert verdicts.count("supported") <= 50 * rate + FALSE_ALARM * sqrt(50 * rate * (1 - rate))


def test_networks_trained_from_one_shared_start_are_no_families():
    data = datasets.load("digits", seed=0)
    module = models.mlp(64, [16], 10)
    start = train(module, data, replicas=1, epochs=1, seed=0)
    nets = train(
        module, data, replicas=12, epochs=6, learning_rate=0.1, seed=1, start=points_of(start)[0]
    )
    families, within, alike = hierarchy_findings(hierarchy(module, points_of(nets), seed=0))
    assert (families.verdict, within.verdict) == ("not supported", "not supported")
    assert alike.verdict == "supported"


def test_a_tree_among_solutions_of_starts_without_one():
    starts = trees_of([star_of(27, 400, seed=3)], surrogates=100)[0]
    finding = untrained_finding(HIERARCHIES[0], starts)
    relative = [float(t.K / t.K_null.mean()) for t in (HIERARCHIES[0], starts)]
    assert finding.value == pytest.approx(relative[0] / relative[1])
    assert finding.verdict == "supported"
    assert finding.high < 1
    reversed_ = untrained_finding(starts, HIERARCHIES[0])
    assert reversed_.verdict == "not supported"
    assert reversed_.value == pytest.approx(1 / finding.value)


def test_solutions_as_tree_like_as_their_starts_are_not_more_so():
    same = untrained_finding(HIERARCHIES[0], HIERARCHIES[0])
    assert (same.value, same.low, same.high) == pytest.approx((1, 1, 1))
    assert same.verdict == "not supported"
    other = untrained_finding(STARS[0], STARS[1])
    assert other.verdict == "not supported"
    assert other.low < 1 < other.high


def test_the_interval_of_the_ratio_covers_one_for_like_starts():
    repeats = 80
    trees = [hierarchy(None, star_of(12, 30, seed=k), surrogates=40, seed=0) for k in range(160)]
    found = [untrained_finding(a, b) for a, b in zip(trees[::2], trees[1::2], strict=True)]
    covered = np.mean([one.low <= 1 <= one.high for one in found])
    assert covered > 0.95 - FALSE_ALARM * sqrt(0.95 * 0.05 / repeats)
    assert not any(one.verdict == "supported" for one in found)


def test_starts_that_are_an_exact_tree_leave_nothing_to_compare_with():
    labels = np.arange(8)
    exact = np.array([[int(a ^ b).bit_length() for b in labels] for a in labels], dtype=float)
    starts = STARS[0].isel(replica=slice(8), other=slice(8)).copy()
    starts["distance"] = ("replica", "other"), exact
    starts["K"] = 0.0
    finding = untrained_finding(STARS[1].isel(replica=slice(8), other=slice(8)), starts)
    assert (finding.verdict, finding.value) == ("undecided", None)


def test_what_is_not_alike_is_refused():
    few = trees_of([star_of(6)], surrogates=3)
    raw = trees_of([star_of(6)], surrogates=3, distance="weights")
    with pytest.raises(ValueError, match=r"^trees: expected at least one"):
        hierarchy_of_sets([])
    with pytest.raises(ValueError, match=r"^trees: number 1 has 100 surrogates, the first 3"):
        hierarchy_of_sets(few + STARS)
    with pytest.raises(ValueError, match=r"^trees: number 1 is by distance 'weights'"):
        hierarchy_of_sets(few + raw)
    nets = hierarchy(nn.Linear(4, 3).double(), star_of(6, 15), surrogates=3, seed=0)
    hierarchy_of_sets([*few, nets])
    nets = nets.assign_coords(null=["another"])
    with pytest.raises(ValueError, match=r"^trees: number 1 has other nulls than the first"):
        hierarchy_of_sets([*few, nets])
    with pytest.raises(ValueError, match=r"^trained, untrained: of 12 and 27 replicas"):
        untrained_finding(STARS[0], HIERARCHIES[0])
