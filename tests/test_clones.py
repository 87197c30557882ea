"""Clones share what they should and nothing else; what they remember; planted family trees."""

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.stats import kendalltau

import oracles
from spinscape.glass.kin import partings
from spinscape.glass.kin.clones import clone, disguised, family
from spinscape.glass.kin.lineages import family_findings, kinship
from spinscape.glass.kin.partings import clone_findings
from spinscape.glass.kin.relatives import siblings
from spinscape.glass.trees.clustering import hierarchy, hierarchy_findings
from spinscape.landscape.energy import Landscape
from spinscape.nets import datasets, symmetry
from spinscape.nets.models import cnn, mlp
from spinscape.nets.training import train

DATA = datasets.load("digits", seed=0, limit=240, dtype=torch.float64)
MODULE = mlp(64, [4], 10).double()
STEPS_AN_EPOCH = 3  # 156 samples in batches of 64
RATE = 0.01


def flat_loss(outputs, y):
    """A loss that no weight changes."""
    return 0 * outputs.mean()


def downhill(points):
    """A slope of one in every direction."""
    return points.sum(1)


def drifting(**settings):
    return {"loss": flat_loss, "penalty": downhill, "momentum": 0.0, "learning_rate": RATE}


def initial(count, seed=0):
    still = {"learning_rate": 0.0, "steps": 1, "replicas": count, "seed": seed}
    return train(MODULE, DATA, **still)["point"].values


# Training that is shared for a while


def test_all_clones_make_the_same_number_of_steps_whenever_they_part():
    found = clone(MODULE, DATA, ancestors=2, children=2, waiting=[0, 1, 5], epochs=2, **drifting())
    moved = found["point"].values - initial(2)[None, :, None]
    np.testing.assert_allclose(moved, -RATE * 2 * STEPS_AN_EPOCH, rtol=1e-10)
    assert found.attrs["steps"] == 2 * STEPS_AN_EPOCH
    assert found["waiting"].values.tolist() == [0, 1, 5]
    leaves = family(
        MODULE, DATA, branching=(2, 2, 2), parting=(1, 4), epochs=2, disguise=False, **drifting()
    )
    moved = leaves["point"].values - initial(2).repeat(4, axis=0)
    np.testing.assert_allclose(moved, -RATE * 2 * STEPS_AN_EPOCH, rtol=1e-10)


def test_siblings_are_one_network_up_to_their_last_steps():
    settings = {"momentum": 0.0, "learning_rate": RATE, "seed": 3}
    found = clone(MODULE, DATA, ancestors=2, children=3, waiting=[0, 5], epochs=2, **settings)
    shared = train(MODULE, DATA, replicas=2, snapshots=[5], epochs=2, **settings)["snapshot"][0]
    last = found["point"].sel(waiting=5).values - shared.values[:, None]
    apart = np.abs(last[:, :, None] - last[:, None]).max(axis=-1)
    assert ((apart > 0).sum((1, 2)) == 6).all()  # each has a batch of its own,
    gradients = oracles.gradients_at(
        oracles.models_at(MODULE, torch.from_numpy(shared.values)), *DATA.train
    )  # and one step along gradients that are those of all samples on average
    mean = -RATE * gradients.numpy()
    errors = np.linalg.norm(last.mean(1) - mean, axis=1) / np.linalg.norm(mean, axis=1)
    assert (errors < 0.5).all()
    assert np.linalg.norm(last, axis=-1).max() < 2 * np.linalg.norm(mean, axis=1).max()


def test_a_clone_is_the_same_whoever_else_is_made():
    settings = {"children": 2, "epochs": 2, "seed": 5}
    whole = clone(MODULE, DATA, ancestors=3, waiting=[0, 2, 4], **settings)
    for part in ({"ancestors": [1], "waiting": [0, 2, 4]}, {"ancestors": 3, "waiting": [2]}):
        alone = clone(MODULE, DATA, **part, **settings)
        same = whole.sel(ancestor=alone["ancestor"], waiting=alone["waiting"])
        np.testing.assert_allclose(alone["point"], same["point"], rtol=1e-9, atol=1e-12)
    fewer = clone(MODULE, DATA, ancestors=1, waiting=[2], **{**settings, "children": 3})
    first = fewer["point"].isel(child=[0, 1])
    np.testing.assert_allclose(
        first, whole["point"].sel(waiting=[2], ancestor=[0]), rtol=1e-9, atol=1e-12
    )


def test_waiting_times_are_spread_from_the_start_on():
    found = clone(MODULE, DATA, ancestors=1, children=2, waiting=4, epochs=40, learning_rate=0.0)
    times = found["waiting"].values
    assert times[0] == 0
    assert times[1] == 1
    assert times[-1] == 90
    np.testing.assert_allclose(times[2] / times[1], times[3] / times[2], rtol=0.1)


@pytest.mark.parametrize(
    ("setting", "error", "words"),
    [
        ({"batch_size": 156}, ValueError, "would not part"),
        ({"batches": "shared"}, ValueError, "batches='shared'"),
        ({"schedule": "cosine"}, ValueError, "schedule='cosine'"),
        ({"stop_at": 0.1}, TypeError, "stop_at"),
        ({"steps": 3}, TypeError, "steps"),
        ({"children": 1}, ValueError, "children=1"),
        ({"ancestors": 0}, ValueError, "ancestors=0"),
        ({"waiting": [0, 6]}, ValueError, "from 0 to 5"),
        ({"waiting": 1}, ValueError, "waiting=1"),
    ],
)
def test_what_makes_no_clones_is_refused(setting, error, words):
    with pytest.raises(error, match=words):
        clone(MODULE, DATA, **{"waiting": [0], "epochs": 2, **setting})


@pytest.mark.parametrize("parting", [(1,), (3, 2), (0, 6)])
def test_a_family_parts_at_rising_steps_one_less_than_it_branches(parting):
    with pytest.raises(ValueError, match="rising steps"):
        family(MODULE, DATA, branching=(2, 2, 2), parting=parting, epochs=2)


# What siblings have in common


def by_hand(points):
    shape = ("waiting", "ancestor", "child", "n")
    coords = {"waiting": [0, 9], "ancestor": [4, 7, 8]}
    return xr.Dataset({"point": (shape, points.numpy())}, coords=coords)


def test_siblings_and_strangers_are_compared_as_one_pair_at_a_time_would_be():
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(2, 3, 2, 310, generator=generator, dtype=torch.float64)
    landscape = Landscape(MODULE, *DATA.train)
    found = siblings(landscape, by_hand(points), resolution=5)
    assert found["ancestors"].values.tolist() == [[4, 7], [4, 8], [7, 8]]
    pairs = {
        "": (points[1, 2, 0], points[1, 2, 1], {"waiting": 1, "ancestor": 2, "pair": 0}),
        "unrelated_": (points[0, 0, 1], points[0, 2, 1], {"waiting": 0, "couple": 1, "child": 1}),
    }
    for name, (a, b, place) in pairs.items():
        here = {
            key.removeprefix(name): float(found[key].isel(place))
            for key in found
            if key.startswith(name) and set(found[key].dims) == set(place)
        }
        path = [a + lam * (b - a) for lam in (0, 0.25, 0.5, 0.75, 1)]
        models = oracles.models_at(MODULE, path)
        loss = oracles.losses_at(models, *DATA.train)
        error = oracles.errors_at(models, *DATA.train)
        line = torch.linspace(0, 1, 5).double()
        expected = {
            "distance": (a - b).norm(),
            "aligned_distance": oracles.nearest_by_enumeration(MODULE, a, b, rescaled=True),
            "overlap": a @ b / a.norm() / b.norm(),
            "barrier": (loss - (1 - line) * loss[0] - line * loss[-1]).max(),
            "error_barrier": (error - (error[0] + error[-1]) / 2).max(),
            "disagreement": (
                oracles.outputs_at([models[0]], DATA.train.x).argmax(-1)
                != oracles.outputs_at([models[-1]], DATA.train.x).argmax(-1)
            )
            .double()
            .mean(),
        }
        assert here == pytest.approx({k: float(v) for k, v in expected.items()}, rel=1e-9)


def test_a_network_of_unknown_symmetry_is_compared_as_it_stands():
    module = cnn(1, 10, width=2)
    data = datasets.load("digits", seed=0, limit=240, flatten=False)
    found = clone(module, data, ancestors=2, children=2, waiting=[0], epochs=1)
    compared = siblings(Landscape(module, *data.train), found)
    assert "aligned_distance" not in compared
    assert compared["distance"].min() > 0
    assert clone_findings(compared)[2].value < 1


# What is concluded


def relatives(barrier, error=None, *, ancestors=4, far=0.6, spread=0.0):
    """Siblings of planted barriers at rising waiting times, each ancestor's a little different."""
    times = len(barrier)
    factor = 1 + spread * np.linspace(-1, 1, ancestors)
    near = np.multiply.outer(barrier, factor)[..., None].repeat(3, axis=2)
    couples = np.array([[i, j] for i in range(ancestors) for j in range(i)]).reshape(-1, 2)
    dims, strange = ("waiting", "ancestor", "pair"), ("waiting", "couple", "child")
    ones = np.ones((times, len(couples), 2))
    found = xr.Dataset(
        {
            "barrier": (dims, near),
            "unrelated_barrier": (strange, far * ones),
            "distance": (dims, np.ones_like(near)),
            "unrelated_distance": (strange, 5 * ones),
            "ancestors": (("couple", "end"), couples),
        },
        coords={
            "waiting": [0, *np.geomspace(1, 10 ** (times - 2), times - 1)],
            "ancestor": range(ancestors),
        },
    )
    if error is not None:
        found["error_barrier"] = dims, np.multiply.outer(error, np.ones((ancestors, 3)))
    return found


FALLING = [0.6, 0.55, 0.4, 0.2, 0.0]


@pytest.mark.parametrize(
    ("planted", "verdict"),
    [
        (relatives(FALLING, [0.2, 0.2, 0.1, 0.05, 0.0]), "supported"),
        (relatives(FALLING), "supported"),
        (relatives(FALLING, [0.2, 0.2, 0.1, 0.05, 0.04]), "not supported"),  # never connected
        (relatives(FALLING, [0.01, 0.01, 0.01, 0.0, 0.0]), "not supported"),  # always connected
        (relatives([0.0] * 5, [0.0] * 5), "not supported"),
        (relatives([0.6] * 5, [0.2] * 5), "not supported"),
        (relatives(FALLING, ancestors=1), "undecided"),
    ],
)
def test_connectivity_of_late_and_not_of_early_siblings_is_judged_by_its_rule(planted, verdict):
    finding = clone_findings(planted)[0]
    assert finding.verdict == verdict
    if verdict == "supported":
        assert finding.value == pytest.approx(1.0)
        assert finding.low > 0.5


@pytest.mark.parametrize(
    ("barrier", "verdict", "tau"),
    [
        (FALLING, "supported", -1),
        (FALLING[::-1], "not supported", 1),
        ([0] * 5, "not supported", 0),
    ],
)
def test_a_fall_of_the_barrier_is_told_from_a_rise_and_from_none(barrier, verdict, tau):
    finding = clone_findings(relatives(barrier))[1]
    assert finding.verdict == verdict
    assert finding.value == pytest.approx(tau)
    assert (finding.p < 0.01) == (tau < 0)


def test_rank_correlations_of_shuffled_times_have_the_variance_of_kendall():
    generator = np.random.default_rng(0)
    barrier, count = generator.normal(size=(7, 4)), partings.PERMUTATIONS
    drawn = partings._shuffled_taus(barrier, seed=1)
    variance = 2 * (2 * 7 + 5) / (9 * 7 * 6) / 4
    assert abs(drawn.mean()) < 3 * (variance / count) ** 0.5
    assert abs(drawn.var() / variance - 1) < 3 * (2 / count) ** 0.5
    tied = np.array([0.0, 0.0, 1.0, 1.0, 2.0, 3.0, 3.0])
    drawn = partings._shuffled_taus(tied[:, None], seed=1)
    possible = {round(kendalltau(generator.permutation(7), tied).statistic, 9) for _ in range(3000)}
    assert {round(value, 9) for value in drawn} >= possible


def test_half_of_the_strangers_barrier_is_reached_between_the_times_around_it():
    # 0.4 after 10 steps and 0.2 after 100, of 0.6: half-way in the logarithm of the time
    statement = clone_findings(relatives(FALLING))[1].statement
    assert "half of that between unrelated networks after 32.3 steps" in statement  # √(11·101) − 1
    assert "from the first" in clone_findings(relatives([0.1, 0.1, 0.1]))[1].statement
    assert "stays above half" in clone_findings(relatives([0.5, 0.5, 0.4]))[1].statement


def test_siblings_of_digits_remember_their_start_and_are_nearer_the_later_they_part():
    module = mlp(64, [16], 10)
    data = datasets.load("digits", seed=0)
    found = clone(module, data, ancestors=4, children=2, waiting=[0, 10, 60, 120], epochs=8)
    compared = siblings(Landscape(module, *data.train), found)
    distance = compared["aligned_distance"].mean(("ancestor", "pair")).values
    assert (np.diff(distance[1:]) < 0).all()
    strange = compared["unrelated_aligned_distance"].values
    assert distance.max() < 0.5 * strange.min()
    assert clone_findings(compared)[2].verdict == "not supported"  # not forgotten


# Family trees


@pytest.fixture(scope="module")
def digits():
    return mlp(64, [16], 10), datasets.load("digits", seed=0)


def test_a_trained_tree_is_found_again_and_its_two_levels_are_supported(digits):
    module, data = digits
    leaves = family(module, data, branching=(2, 3, 3), epochs=10, seed=1)
    assert leaves["lineage"].values.tolist() == [
        [0] * 9 + [1] * 9,
        np.repeat(np.arange(6), 3).tolist(),
    ]
    kin = kinship(module, leaves, surrogates=100, relabellings=199)
    found, top, within = family_findings(kin)
    assert [finding.verdict for finding in (found, top, within)] == ["supported"] * 3
    assert kin["rand"].values.tolist() == [1, 1]
    assert (float(kin["rand_top"]), int(kin["top_level"])) == (1, 0)
    assert float(kin["likeness"]) > 0.9
    assert {finding.protocol for finding in (found, top, within)} == {"clones"}


def test_one_trained_level_is_families_but_no_hierarchy(digits):
    module, data = digits
    leaves = family(module, data, branching=(2, 9), parting=(50,), epochs=10, seed=1)
    kin = kinship(module, leaves, surrogates=100, relabellings=199)
    found, top, within = family_findings(kin)
    assert (found.verdict, top.verdict, within.verdict) == (
        "supported",
        "supported",
        "not supported",
    )
    assert "where none were planted" in within.question


def test_networks_trained_from_one_start_are_no_family_tree(digits):
    module, data = digits
    star = family(module, data, branching=(1, 20), parting=(0,), epochs=10, seed=1)
    families, within, _ = hierarchy_findings(hierarchy(module, star["point"], seed=0))
    assert (families.verdict, within.verdict) == ("not supported", "not supported")
    with pytest.raises(ValueError, match="use hierarchy"):
        kinship(module, star)
    loose = family(module, data, branching=(4,), epochs=1)
    assert loose.sizes["level"] == 0
    with pytest.raises(ValueError, match="use hierarchy"):
        kinship(module, loose)


def test_trees_of_plain_points_are_found_and_relabelled_ones_are_not():
    points = oracles.planted_tree((3, 3, 3), (1, 0.7, 0.5), 2000, seed=0).numpy()
    place = np.arange(27)
    lineage = np.array([place // 9, place // 3])
    planted = xr.Dataset(
        {"point": (("replica", "n"), points), "lineage": (("level", "replica"), lineage)}
    )
    kin = kinship(None, planted, surrogates=3, relabellings=200)
    assert kin["rand"].values.tolist() == [1, 1]
    null = kin["rand_null"].values  # whose expectation is 0 by definition
    assert (np.abs(null.mean(1)) < 3 * null.std(1) / 200**0.5).all()
    assert abs(kin["likeness_null"].mean()) < 3 * kin["likeness_null"].std() / 200**0.5
    mixed = np.random.default_rng(0).permutation(27)
    false = planted.assign(lineage=(("level", "replica"), lineage[:, mixed]))
    finding = family_findings(kinship(None, false, surrogates=3, relabellings=200))[0]
    assert finding.verdict == "not supported"
    assert finding.p > 0.01


@pytest.mark.parametrize("hidden", [[4], [5, 3]])
def test_a_disguise_changes_weights_and_no_function(hidden):
    module = mlp(6, hidden, 3).double()
    n = sum(parameter.numel() for parameter in module.parameters())
    points = torch.randn(4, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    moved = disguised(symmetry.of(module), points, seed=1)
    x = torch.randn(7, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    before, after = (oracles.outputs_at(oracles.models_at(module, p), x) for p in (points, moved))
    torch.testing.assert_close(before, after, rtol=1e-9, atol=1e-10)
    assert ((points - moved).norm(dim=1) > 0.1).all()
    torch.testing.assert_close(moved[:2], disguised(symmetry.of(module), points[:2], seed=1))
