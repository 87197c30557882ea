"""Pairs of networks of one start: convex answers, planted relations, soups known by hand."""

import math

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.stats import spearmanr
from torch import nn

from spinscape import Landscape, datasets, models, points
from spinscape.merging.averages import greedy_soup, uniform_soup
from spinscape.merging.fusion import fuse_by_epoch, independent_signs
from spinscape.merging.fusion_findings import (
    gap_findings,
    rank_correlation,
    relation_findings,
    relations,
    soup_findings,
    unrelated_findings,
)
from spinscape.merging.starts import halves, other_task, part_of_classes, rotated

FEW = {"epochs": (1, 2), "pretraining_epochs": 1, "points": 3, "batch_size": 128}


@pytest.fixture(scope="module")
def data():
    return datasets.load("digits", seed=0, limit=800)


@pytest.fixture(scope="module")
def fused(data):
    module = models.mlp(64, [16], 10)
    return fuse_by_epoch(module, data, seeds=4, epochs=(1, 2, 8), pretraining_epochs=3, points=5)


def test_halves_are_disjoint_and_of_one_size():
    for count in (10, 11):
        first, second = halves(count, 0, 3)
        assert len(first) == len(second) == 5
        assert len({*first.tolist(), *second.tolist()}) == 10
        assert max(*first, *second) < count
    assert torch.equal(halves(10, 0, 3), halves(10, 0, 3))
    assert not torch.equal(halves(100, 0, 3), halves(100, 0, 4))
    with pytest.raises(ValueError, match="count=1"):
        halves(1, 0, 0)


def test_images_are_turned_whatever_their_form(data):
    turned = rotated(data)
    image = data.train.x[7].view(8, 8).numpy()
    assert np.array_equal(turned.train.x[7].view(8, 8).numpy(), np.rot90(image))
    assert torch.equal(turned.train.y, data.train.y)
    assert torch.equal(rotated(data, 4).test.x, data.test.x)
    square = datasets.load("digits", seed=0, limit=800, flatten=False)
    assert torch.equal(rotated(square).train.x.flatten(1), turned.train.x)


def test_a_part_of_the_classes_keeps_the_outputs(data):
    some = part_of_classes(data, 3)
    assert set(some.train.y.tolist()) == {0, 1, 2}
    assert some.classes == 10
    assert set(other_task(data, "classes").test.y.tolist()) == set(range(5))


def test_the_other_task_must_fit(data):
    rng = np.random.default_rng(0)
    plain = datasets.load((rng.normal(size=(90, 5)), np.arange(90) % 3))
    with pytest.raises(ValueError, match=r"no square images.*pretraining='classes'"):
        rotated(plain)
    with pytest.raises(ValueError, match="pretraining: data with samples of shape"):
        other_task(data, plain)
    with pytest.raises(ValueError, match="pretraining='mirrored'"):
        other_task(data, "mirrored")
    with pytest.raises(ValueError, match="count=11"):
        part_of_classes(data, 11)
    assert other_task(data, data) is data


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"seeds": 0}, "seeds="),
        ({"seeds": [1, 1]}, "seeds="),
        ({"epochs": (0, 1)}, "epochs="),
        ({"epochs": (2, 2)}, "epochs="),
        ({"points": 4}, "points=4"),
        ({"pretraining_epochs": 0}, "pretraining_epochs=0"),
        ({"batch_size": 500}, "batch_size=500"),
        ({"snapshots": 3}, "snapshots"),
        ({"stop_at": 0.1}, "stop_at"),
    ],
)
def test_settings_that_make_no_study_are_refused(data, given, told):
    with pytest.raises(ValueError, match=told) as caught:
        fuse_by_epoch(models.mlp(64, [4], 10), data, **{**FEW, "seeds": 2, **given})
    assert "\n" not in str(caught.value)


def test_a_convex_loss_is_never_higher_at_the_midpoint(data):
    """Logistic regression: the loss is convex in the weights, so no line has a barrier."""
    found = fuse_by_epoch(nn.Linear(64, 10).double(), data, seeds=3, **FEW)
    assert (found["loss_gap"] < 0).all()
    assert found["barrier"].values == pytest.approx(0, abs=1e-12)
    assert found.attrs["not_aligned"] == "no hidden units"
    assert "aligned_ssr" not in found


def test_networks_that_do_not_move_stay_their_start(data):
    still = fuse_by_epoch(models.mlp(64, [8], 10), data, seeds=2, learning_rate=0.0, **FEW)
    for name in ("gap", "best_gap", "loss_gap", "barrier"):
        assert still[name].values == pytest.approx(0, abs=1e-6)
    assert (still["ssr"] == 1).all()
    assert (still["distance"] == 0).all()
    assert (still["aligned_ssr"] == 1).all()
    assert np.array_equal(still["point"][0], still["point"][1])


def test_what_is_told_is_that_of_the_points(fused, data):
    """Everything at the last epoch, from the points alone."""
    module = models.mlp(64, [16], 10)
    judge = Landscape(module, *data.test)
    ends = points(fused["point"])  # [start, seed, net, n]
    start, a, b = ends.unbind(2)
    last = fused.isel(epoch=-1)
    errors = judge.error(torch.stack([a, (a + b) / 2, b], -2))
    assert np.allclose(last["error"].values[..., [0, 2, 4]], errors, atol=1e-6)
    gap = errors[..., [0, 2]].mean(-1) - errors[..., 1]
    assert np.allclose(last["gap"], gap, atol=1e-6)
    assert np.allclose(last["best_gap"], errors[..., [0, 2]].amin(-1) - errors[..., 1], atol=1e-6)
    for pair, (one, two) in {"IA": (start, a), "IB": (start, b), "AB": (a, b)}.items():
        same = ((one > 0) == (two > 0)).double().mean(-1)
        assert np.allclose(last["ssr"].sel(pair=pair), same)
        assert np.allclose(last["distance"].sel(pair=pair), (one - two).norm(dim=-1), rtol=1e-5)
    merged = last["merged_error"]
    assert np.allclose(merged.sel(merged=["a", "midpoint", "b"]), errors, atol=1e-6)
    bias = torch.cat([torch.zeros(1024), torch.ones(16), torch.zeros(160), torch.ones(10)]).bool()
    same = ((a > 0) == (b > 0))[..., bias].double().mean(-1)
    assert np.allclose(last["group_ssr"].sel(pair="AB", group="bias"), same)


def test_only_the_start_differs(fused):
    """Both kinds of start see the same halves in the same order, from starts that differ."""
    initial = fused["point"].sel(net="I")
    assert (initial[0] != initial[1]).any()
    for name, values in fused.data_vars.items():
        assert values.attrs["units"], name
        assert values.attrs["long_name"], name
    assert fused.attrs["protocol"] == "fusion"


def test_a_seed_is_the_same_alone_and_in_company_and_again(data):
    module = models.mlp(64, [6], 10).double()
    state = torch.get_rng_state()
    together, alone, again = (
        fuse_by_epoch(module, data, seeds=seeds, seed=5, **FEW) for seeds in (3, [2], 3)
    )
    assert together.identical(again)
    assert torch.equal(state, torch.get_rng_state())
    for name in together:
        one, other = together[name].sel(seed=[2]), alone[name]
        xr.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-9)
    other = fuse_by_epoch(module, data, seeds=[2], seed=6, **FEW)
    assert not np.allclose(other["point"], alone["point"])


@pytest.fixture(scope="module")
def normalised():
    data = datasets.load("digits", seed=0, limit=300)
    module = nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(144, 10),
    )
    few = {**FEW, "epochs": (1,), "batch_size": 64, "seeds": 2, "statistics_samples": 128}
    return module, data, fuse_by_epoch(module, data, **few)


def test_normalisation_is_left_out_of_signs_and_estimated_anew(normalised):
    module, data, found = normalised
    assert "Unflatten" in found.attrs["not_aligned"]
    a, b = points(found["point"].sel(net="A")), points(found["point"].sel(net="B"))
    outside = torch.cat([torch.ones(40), torch.zeros(8), torch.ones(1450)]).bool()
    same = ((a > 0) == (b > 0)).double()
    ssr = found.isel(epoch=-1).sel(pair="AB")
    assert np.allclose(ssr["ssr"], same[..., outside].mean(-1))
    assert np.allclose(ssr["group_ssr"].sel(group="all"), same.mean(-1))
    judge = Landscape(module, *data.test, statistics_samples=data.train.x[:128])
    assert np.allclose(judge.error((a + b) / 2), ssr["error"].sel(lam=0.5), atol=1e-6)
    apart = independent_signs(module, found)
    assert apart["weights"] == 1490
    assert "aligned_ssr" not in apart
    assert len(unrelated_findings(apart, 0)) == 1


def _planted_points(rows: torch.Tensor) -> xr.Dataset:
    """Points [net, seed, n] as `fuse_by_epoch` keeps them, the same for both starts."""
    ends = rows.transpose(0, 1).expand(2, *rows.transpose(0, 1).shape)
    found = xr.Dataset(
        {"point": (("start", "seed", "net", "n"), ends.numpy())},
        {"start": ["random", "pre-trained"], "net": ["I", "A"]},
    )
    return found.assign_attrs(seed=0)


def test_signs_of_unrelated_networks_are_a_coin_and_those_of_permuted_copies_align():
    module = models.mlp(30, [40], 10)
    n = sum(p.numel() for p in module.parameters())
    noise = torch.randn(2, 6, n, generator=torch.Generator().manual_seed(0))
    found = independent_signs(module, _planted_points(noise))
    few = 4 * 0.5 / math.sqrt(n)
    assert np.abs(found["ssr"] - 0.5).max() < few
    assert float(found["aligned_ssr"].mean()) > 0.5 + few  # matching adds to what is chance
    coin, aligned = unrelated_findings(found, 0)
    assert coin.verdict == "supported"
    assert coin.low < coin.value < coin.high
    assert coin.high - coin.low == pytest.approx(2 * 1.96 * 0.5 / math.sqrt(3 * n), rel=0.01)
    assert aligned.verdict == "undecided"

    from spinscape.nets import symmetry

    known = symmetry.of(module)
    generator = torch.Generator().manual_seed(1)
    copies = [known.permute(noise[1, 0], known.random_permutation(generator)) for _ in range(6)]
    found = independent_signs(module, _planted_points(torch.stack([noise[0], torch.stack(copies)])))
    assert (found["aligned_ssr"].sel(net="A") == 1).all()
    assert unrelated_findings(found, 0)[1].verdict == "supported"


def test_one_seed_has_no_other(fused):
    with pytest.raises(ValueError, match="seeds=2"):
        independent_signs(models.mlp(64, [16], 10), fused.isel(seed=[0]))


def test_partial_correlation_is_that_of_residuals_of_ranks():
    rng = np.random.default_rng(0)
    z = rng.normal(size=300)
    x, y = z + rng.normal(size=300), np.exp(z) + rng.normal(size=300)
    assert rank_correlation(x, y) == pytest.approx(spearmanr(x, y).statistic, abs=1e-12)
    ranks = [np.argsort(np.argsort(each)).astype(float) for each in (x, y, z)]
    design = np.stack([np.ones(300), ranks[2]], 1)
    rest = [r - design @ np.linalg.lstsq(design, r, rcond=None)[0] for r in ranks[:2]]
    oracle = np.corrcoef(*rest)[0, 1]
    assert rank_correlation(x, y, z) == pytest.approx(oracle, abs=1e-12)
    assert np.isnan(rank_correlation(x, y, x))
    assert np.isnan(rank_correlation(np.ones(4), np.arange(4)))


def _planted(own: float, seeds: int = 30, epochs: int = 4) -> xr.Dataset:
    """SSR and the gap follow the distance; the gap follows what is SSR's own as well."""
    rng = np.random.default_rng(1)
    shape, dims = (2, seeds, epochs), ("start", "seed", "epoch")
    far, extra, noise = (rng.normal(size=shape) for _ in range(3))
    pairs = {"pair": ["IA", "IB", "AB"]}

    def of_pairs(values: np.ndarray) -> tuple:
        return (*dims, "pair"), np.repeat(values[..., None], 3, -1)

    return xr.Dataset(
        {
            "gap": (dims, -far + own * extra + 0.3 * noise),
            "ssr": of_pairs(-far + 0.3 * extra),
            "distance": of_pairs(far),
            "relative_distance": of_pairs(far),
        },
        {"start": ["random", "pre-trained"], **pairs},
    )


def test_a_relation_through_the_distance_alone_vanishes_given_it():
    found = relations(_planted(0.0), 0)
    assert (found["correlation"].sel(given="nothing") > 0.8).all()
    error = 1 / math.sqrt(2 * 30 * 4 - 3)  # of a partial correlation that is 0
    assert abs(found["correlation"].sel(scope="both", given="distance")).max() < 3 * error
    assert (found["low"] <= found["correlation"]).all()
    told = relation_findings(found)
    assert [finding.verdict for finding in told[::2]] == ["supported"] * 3
    assert told[5].verdict == "undecided"


def test_a_relation_beyond_the_distance_is_found():
    told = relation_findings(relations(_planted(1.0), 0))
    assert [finding.verdict for finding in told] == ["supported"] * 6


def test_numbers_that_are_all_alike_or_not_finite_have_no_relation():
    planted = _planted(0.0, seeds=4)
    planted["gap"][0] = 0.0
    planted["gap"][1, 2, 0] = np.nan
    found = relations(planted, 0)
    assert found["seeds"].values.tolist() == [4, 3, 3]
    assert found["correlation"].sel(scope="random").isnull().all()
    told = relation_findings(found)
    assert told[0].verdict == "undecided"
    assert told[0].value is None
    assert told[2].value is not None


def test_findings_know_their_rule(fused):
    told = [*gap_findings(fused, 0), *soup_findings(fused, 0)]
    assert len(told) == 9
    for finding in told:
        assert "interval" in finding.rule or "median" in finding.rule
        assert "nan" not in finding.statement
    gap = fused["gap"].isel(epoch=-1)
    apart = gap.sel(start="pre-trained") - gap.sel(start="random")
    assert told[4].value == pytest.approx(float(apart.mean()))


@pytest.mark.parametrize(("gap", "verdict"), [(-0.1, "supported"), (0.1, "not supported")])
def test_a_planted_gap_is_judged(fused, gap, verdict):
    planted = fused.copy(deep=True)
    planted["gap"].loc[{"start": "random"}] = gap * np.arange(1, 4)
    planted["merged_error"][:] = 0.05
    told = gap_findings(planted, 0)
    assert [finding.verdict for finding in told[1:3]] == [verdict] * 2
    planted["merged_error"][:] = 0.5
    assert {finding.verdict for finding in gap_findings(planted, 0)[1:]} == {"undecided"}


def test_networks_that_diverge_are_marked_and_judged_by_nothing(data):
    found = fuse_by_epoch(models.mlp(64, [4], 10), data, seeds=2, learning_rate=1e30, **FEW)
    assert found["diverged"].all()
    last = found.isel(epoch=-1)
    for name in ("gap", "ssr", "aligned_ssr"):
        values = last[name].sel(pair="AB") if name == "ssr" else last[name]
        assert values.isnull().all(), name
    apart = independent_signs(models.mlp(64, [4], 10), found)
    told = [*gap_findings(found, 0), *soup_findings(found, 0), *unrelated_findings(apart, 0)]
    told += relation_findings(relations(found, 0))
    assert {finding.verdict for finding in told} <= {"undecided", "not supported"}


@pytest.fixture(scope="module")
def two_samples():
    """Label 1 where w·x > 0: a is right on one sample, b on the other, their mean on both."""
    x, y = torch.tensor([[1.0, -0.5], [-0.5, 1.0]]), torch.tensor([1, 1])
    a, b, c = ([0.0, 0.0, *w] for w in ([1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]))
    return Landscape(nn.Linear(2, 2, bias=False), x, y), torch.tensor([c, a, b])


def test_soups_known_by_hand(two_samples):
    landscape, pool = two_samples
    assert landscape.error(pool).tolist() == [1.0, 0.5, 0.5]
    soup = greedy_soup(landscape, pool)
    assert soup.members.tolist() == [False, True, True]
    assert soup.point.tolist() == [0, 0, 0.5, 0.5]
    assert float(soup.error) == 0
    assert landscape.error(uniform_soup(pool)) == 1
    pool = torch.cat([pool, torch.full((1, 4), math.nan)])
    assert greedy_soup(landscape, pool).members.tolist() == [False, True, True, False]
    assert greedy_soup(landscape, pool[:1]).members.tolist() == [True]


def test_greedy_soups_of_many_pools_are_those_of_each(data):
    """Against the recipe as Wortsman et al. write it, one pool after another."""
    module = models.mlp(64, [3], 10)
    landscape = Landscape(module, *data.validation)
    generator = torch.Generator().manual_seed(0)
    pools = torch.randn(2, 3, 6, landscape.n, generator=generator)
    soups = greedy_soup(landscape, pools)
    sizes = soups.members.sum(-1).flatten().tolist()
    assert len(set(sizes)) > 1
    for pool, members, point in zip(
        pools.flatten(0, 1), soups.members.flatten(0, 1), soups.point.flatten(0, 1), strict=True
    ):
        errors = landscape.error(pool)
        chosen: list[int] = []
        for k in np.argsort(errors.numpy(), kind="stable"):
            trial = [*chosen, int(k)]
            before = landscape.error(pool[chosen].mean(0)) if chosen else math.inf
            if landscape.error(pool[trial].mean(0)) <= before:
                chosen = trial
        assert sorted(chosen) == members.nonzero().flatten().tolist()
        assert torch.allclose(point, pool[chosen].mean(0), atol=1e-6)


def test_soups_need_pools_and_labels(two_samples):
    _, pool = two_samples
    with pytest.raises(ValueError, match="points: expected pools"):
        uniform_soup(pool[0])
    numbers = Landscape(nn.Linear(2, 2), torch.ones(4, 2), torch.ones(4, 2), "mse")
    with pytest.raises(ValueError, match="landscape: its targets"):
        greedy_soup(numbers, torch.ones(3, 6))
