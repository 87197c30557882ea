"""Planted families, trees, stars and noise are told apart, as networks and as plain points.

Networks of 64-16-10 are permuted and rescaled at random. What has no family is called so unless
chance puts it below both nulls' one per cent *and* below .7 of their means, which in each of these
cases is many standard errors away.
"""

import numpy as np
import pytest
import torch
from torch import nn

import oracles
from spinscape.glass.trees.clustering import hierarchy, hierarchy_findings
from spinscape.nets import symmetry as symmetries

MODULE = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)).double()
SIZE = 1210
FLOOR = 1 / 101  # of p, at 100 surrogates


def noise(count, size=SIZE, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, size, generator=generator, dtype=torch.float64)


def shuffled(points, seed=1000):
    return torch.stack(
        [oracles.hidden_copy(MODULE, net, seed=seed + k)[0] for k, net in enumerate(points)]
    )


def found_in(points, kind, surrogates=100):
    plain = kind == "points"
    module, points = (None, points) if plain else (MODULE, shuffled(points))
    dataset = hierarchy(module, points, surrogates=surrogates, seed=5)
    return dataset, hierarchy_findings(dataset)


WITHOUT_FAMILIES = {
    "star": lambda: noise(1, seed=1) + 0.5 * noise(20, seed=2),
    "shared start": lambda: noise(1, seed=3) + 0.1 * noise(20, seed=4),
    "independent": lambda: noise(20, seed=5),
    "norms spread by 5 %": lambda: noise(20, seed=6) * (1 + 0.05 * noise(20, 1, seed=7)),
}


@pytest.mark.parametrize("kind", ["networks", "points"])
@pytest.mark.parametrize("case", WITHOUT_FAMILIES)
def test_what_has_no_families_is_not_said_to(case, kind):
    dataset, (families, within, *alike) = found_in(WITHOUT_FAMILIES[case](), kind)
    assert (families.verdict, within.verdict) == ("not supported", "not supported")
    assert float(dataset.K) > 0.85 * float(dataset.K_null.sel(null="star").mean())
    assert dataset.K_within_null.isnull().all()
    if kind == "networks":  # solutions that share anything are nearer than their norms say
        shared = case in ("star", "shared start")
        assert alike[0].verdict == ("supported" if shared else "not supported")


@pytest.mark.parametrize("kind", ["networks", "points"])
def test_one_level_of_families_is_families_and_no_hierarchy(kind):
    tree = oracles.planted_tree((3, 8), (1, 0.5), SIZE, seed=0)
    dataset, (families, within, *_) = found_in(tree, kind)
    assert (families.verdict, within.verdict) == ("supported", "not supported")
    assert dataset.cluster_size.values.tolist() == [8, 8, 8]
    assert dataset.cluster.values.reshape(3, 8).std(axis=1).max() == 0
    assert families.p == pytest.approx(FLOOR)
    assert float(dataset.K) < 0.45 * float(dataset.K_null.mean("surrogate").min())


@pytest.mark.parametrize(
    ("sizes", "kind"),
    [((6, 6, 6, 6), "networks"), ((6, 6, 6, 6), "points"), ((10, 7, 7), "points")],
)
def test_families_too_small_to_be_tested_are_not_joined_into_a_hierarchy(sizes, kind):
    centres = noise(len(sizes), seed=8).repeat_interleave(torch.tensor(sizes), dim=0)
    points = centres + 0.5 * noise(sum(sizes), seed=10)
    dataset, (families, within, *_) = found_in(points, kind)
    assert families.verdict == "supported"
    assert dataset.cluster_size.values.tolist() == list(sizes)
    assert within.verdict == ("undecided" if max(sizes) < 8 else "not supported")
    assert (within.value is None) == (max(sizes) < 8)


@pytest.mark.parametrize("kind", ["networks", "points"])
def test_families_within_families_are_a_hierarchy(kind):
    tree = oracles.planted_tree((3, 3, 3), (1, 0.7, 0.5), SIZE, seed=0)
    dataset, (families, within, *_) = found_in(tree, kind)
    assert (families.verdict, within.verdict) == ("supported", "supported")
    assert dataset.cluster_size.values.tolist() == [9, 9, 9]
    assert families.p == within.p == pytest.approx(FLOOR)
    for one in dataset.K_within_null.mean("surrogate").values:
        assert (dataset.K_within.values < 0.45 * one).all()


def test_fewer_than_a_hundred_surrogates_decide_nothing():
    tree = oracles.planted_tree((3, 3, 3), (1, 0.7, 0.5), 200, seed=0)
    _, (families, within) = found_in(tree, "points", surrogates=99)
    assert (families.verdict, within.verdict) == ("undecided", "undecided")
    assert families.p == pytest.approx(1 / 100)
    assert within.value < 0.5


def test_a_ferromagnet_with_its_reflection_left_in_shows_two_families_and_no_more():
    generator = torch.Generator().manual_seed(9)
    flips = torch.rand(32, 500, generator=generator) < 0.2
    spins = torch.where(flips, -1, 1)
    signs = torch.tensor([1, -1]).repeat(16)[:, None]
    left_in, (families, within) = found_in(signs * spins, "points")
    assert (families.verdict, within.verdict) == ("supported", "not supported")
    assert left_in.cluster_size.values.tolist() == [16, 16]
    assert (left_in.cluster.values[::2] != left_in.cluster.values[1::2]).all()
    _, (families, _) = found_in(spins, "points")
    assert families.verdict == "not supported"


def test_a_network_without_hidden_units_has_the_null_of_points():
    tree = oracles.planted_tree((3, 8), (1, 0.5), 33, seed=0)
    assert not symmetries.of(nn.Linear(10, 3)).layers
    dataset = hierarchy(nn.Linear(10, 3).double(), tree, surrogates=3, seed=0)
    assert dataset.null.values.tolist() == ["star"]
    np.testing.assert_array_equal(
        dataset.K_null, hierarchy(None, tree, surrogates=3, seed=0).K_null
    )


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_sixty_four_networks_in_a_tree_of_three_levels(seed):
    tree = oracles.planted_tree((4, 4, 4), (1, 0.7, 0.5), SIZE, seed=seed)
    dataset, findings = found_in(tree, "networks")
    assert [finding.verdict for finding in findings] == ["supported"] * 3
    assert dataset.cluster_size.values.tolist() == [16] * 4
    assert float(dataset.K) < 0.45 * float(dataset.K_null.mean("surrogate").min())


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_deeper_networks_are_told_apart_too(seed):
    module = nn.Sequential(
        *(nn.Linear(16, 10), nn.ReLU(), nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 4))
    ).double()
    size = symmetries.of(module).n
    shapes = {"star": ((1, 20), (1, 0.2)), "families": ((2, 10), (1, 0.2))}
    shape, scales = shapes["star" if seed % 2 else "families"]
    nets = oracles.planted_tree(shape, scales, size, seed=seed)
    nets = [oracles.hidden_copy(module, net, seed=k)[0] for k, net in enumerate(nets)]
    families, within, _ = hierarchy_findings(hierarchy(module, torch.stack(nets), seed=1))
    assert families.verdict == ("not supported" if seed % 2 else "supported")
    assert within.verdict == "not supported"
