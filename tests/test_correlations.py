"""Rank correlations over settings: planted relations, chance, confounders, networks left out."""

from functools import partial
from itertools import product
from math import sqrt

import numpy as np
import pytest
import scipy.stats
import xarray as xr

from spinscape.glass.rugged import correlations, rank_relations
from spinscape.glass.rugged.correlations import generalisation, generalisation_findings
from spinscape.statistics import kendall, p_value, pair_bootstrap

FALSE_ALARM = 4.0  # standard errors: once in 16 000 comparisons, were the seeds not fixed
AXES = ("learning_rate", "weight_decay", "batch_size", "width")
GRID = np.array(list(product([0.03, 0.1, 0.3], [0, 1e-3], [32, 128], [16, 32])))
RATE, DECAY, BATCH, WIDTH = (np.unique(column, return_inverse=True)[1] for column in GRID.T)


def table(measure, error, settings=GRID, **others):
    columns = dict(zip(AXES, np.asarray(settings).T, strict=True))
    columns |= {"roughness": measure, "test_error": error, **others}
    return xr.Dataset({name: ("replica", values) for name, values in columns.items()})


def judged(measured, **options):
    found = generalisation(measured, measures=["roughness"], seed=0, **options)
    return found.isel(measure=0), generalisation_findings(found)[0]


@pytest.fixture
def cheap(monkeypatch):
    monkeypatch.setattr(rank_relations, "SHUFFLES", 99)
    fewer = {"resamples": 199}
    monkeypatch.setattr(rank_relations, "pair_bootstrap", partial(pair_bootstrap, **fewer))
    monkeypatch.setattr(correlations, "kendall", partial(kendall, **fewer))


# Planted relations


def test_a_monotone_relation_is_supported_and_its_reverse_is_not():
    quality = RATE + 3.1 * DECAY + 6.3 * BATCH + 12.7 * WIDTH
    found, finding = judged(table(quality, np.exp(quality / 9)))
    assert (float(found.tau), float(found.tau_all)) == pytest.approx((1, 1))
    assert found.tau_axis.values == pytest.approx(1)
    assert finding.verdict == "supported"
    assert finding.p == 1 / (1 + rank_relations.SHUFFLES)
    found, finding = judged(table(-quality, np.exp(quality / 9)))
    assert float(found.tau) == pytest.approx(-1)
    assert finding.verdict == "not supported"
    assert finding.p == 1
    assert "24 of 24 networks, in 24 settings" in finding.statement


def test_tau_is_the_agreement_of_cells_that_differ_in_one_setting():
    generator = np.random.default_rng(1)
    measure, error = generator.random((2, len(GRID)))
    found, _ = judged(table(measure, error))
    signs = {axis: [] for axis in AXES}
    for i, j in product(range(len(GRID)), repeat=2):
        differs = np.flatnonzero(GRID[i] != GRID[j])
        if i < j and len(differs) == 1:
            same = (measure[i] < measure[j]) == (error[i] < error[j])
            signs[AXES[differs[0]]].append(1 if same else -1)
    assert [len(signs[axis]) for axis in AXES] == [24, 12, 12, 12]
    assert float(found.tau) == pytest.approx(np.mean([np.mean(signs[axis]) for axis in AXES]))
    assert found.tau_axis.values == pytest.approx([np.mean(signs[axis]) for axis in AXES])
    assert float(found.tau_low) < float(found.tau) < float(found.tau_high)
    assert float(found.tau_all) == pytest.approx(scipy.stats.kendalltau(measure, error).statistic)


def test_equal_errors_are_ties_in_tau_all():
    generator = np.random.default_rng(2)
    measure, error = generator.integers(5, size=24), generator.integers(4, size=24) / 10
    found, _ = judged(table(measure.astype(float), error))
    assert float(found.tau_all) == pytest.approx(scipy.stats.kendalltau(measure, error).statistic)


def test_cells_are_means_of_their_replicas_whatever_their_number():
    generator = np.random.default_rng(3)
    member = np.concatenate([np.arange(24), generator.integers(24, size=40)])
    generator.shuffle(member)
    measure, error = generator.random((2, len(member)))
    means = [[v[member == k].mean() for k in range(24)] for v in (measure, error)]
    found, _ = judged(table(measure, error, GRID[member]))
    alone, _ = judged(table(*means))
    assert found.attrs["cells"] == 24
    assert found.attrs["used"] == 64
    for name in found.data_vars:
        assert found[name].values == pytest.approx(alone[name].values), name


def test_replicas_that_diverged_or_did_not_get_there_do_not_count():
    generator = np.random.default_rng(4)
    measure, error = generator.random((2, len(GRID)))
    expected, _ = judged(table(measure, error))
    bad = {"measure": [1e9, -1e9, 0.5, np.nan, 0.5], "error": [0.0, 1.0, np.nan, 0.5, 0.7]}
    rows = [5, 6, 7, 8, 9]
    found, finding = judged(
        table(
            np.concatenate([measure, bad["measure"]]),
            np.concatenate([error, bad["error"]]),
            np.concatenate([GRID, GRID[rows]]),
            reached=np.array([True] * 25 + [False] + [True] * 2 + [False]),
            diverged=np.array([False] * 24 + [True] + [False] * 3 + [True]),
        )
    )
    assert (found.attrs["used"], found.attrs["cells"]) == (24, 24)
    assert "24 of 29 networks, in 24 settings" in finding.statement
    for name in found.data_vars:
        assert found[name].values == pytest.approx(expected[name].values), name


# Chance


def test_independent_noise_is_covered_and_its_p_values_are_uniform(cheap):
    trials, tau, tau_all, p, null, supported = 200, [], [], [], [], []
    for generator in np.random.default_rng(5).spawn(trials):
        found, finding = judged(table(*generator.standard_normal((2, len(GRID)))))
        tau.append(float(found.tau_low) <= 0 <= float(found.tau_high))
        tau_all.append(float(found.tau_all_low) <= 0 <= float(found.tau_all_high))
        p.append(p_value(float(found.tau), found.tau_null.values, "greater"))
        null.append(found.tau_null.values.round(9))
        assert finding.p == p[-1]
        supported.append(finding.verdict == "supported")
    error = sqrt(0.95 * 0.05 / trials)
    # Redrawn cells are wider than stated where a cell is in few pairs (see `pair_bootstrap`).
    assert np.mean(tau) > 0.95 - FALSE_ALARM * error
    assert np.mean(supported) < 0.05 + FALSE_ALARM * error
    assert 0.95 - FALSE_ALARM * error < np.mean(tau_all) < 0.98 + FALSE_ALARM * error
    # τ has steps, and ties with the null count against it: p is above uniform by a step at most.
    step = np.unique(null, return_counts=True)[1].max() / np.size(null)
    for rate in (0.05, 0.2, 0.5, 0.8):
        slack = FALSE_ALARM * sqrt(rate * (1 - rate) / trials)
        assert rate - step - slack < np.mean(np.array(p) <= rate) < rate + slack


def test_shuffled_errors_have_no_correlation_on_average():
    measure, error = np.random.default_rng(12).standard_normal((2, len(GRID)))
    found, finding = judged(table(measure, error))
    assert finding.null_value == 0
    assert abs(found.tau_null.mean()) < FALSE_ALARM * float(found.tau_null.std()) / sqrt(999)


def test_settings_that_move_measure_and_error_apart_are_not_supported(cheap):
    supported = []
    for generator in np.random.default_rng(6).spawn(40):
        first, second = generator.standard_normal((2, len(GRID)))
        _, finding = judged(table(50 * RATE + first, 50 * WIDTH + second))
        supported.append(finding.verdict == "supported")
    assert np.mean(supported) < 0.05 + FALSE_ALARM * sqrt(0.05 * 0.95 / 40)


# Confounders


def test_what_two_settings_do_together_is_not_seen_one_at_a_time():
    """The learning rate follows the batch size, so that no pair of cells differs in one of them."""
    generator = np.random.default_rng(7)
    grid = np.array([(r, d, 320 * r, w) for r, d, w in product(range(1, 6), (0, 1), (16, 32, 64))])
    confounder = 50 * grid[:, 0]
    measure, error = confounder + generator.standard_normal((2, len(grid)))
    found, finding = judged(table(measure, error, grid))
    assert float(found.tau_all) > 0.7
    assert finding.verdict != "supported"
    assert finding.low < 0 < finding.high
    assert found.tau_axis.isnull().values.tolist() == [True, False, True, False]


def test_a_setting_that_moves_both_shows_along_its_axis_and_is_not_enough(cheap):
    along, supported, beyond_chance, trials = [], [], [], 40
    for generator in np.random.default_rng(8).spawn(trials):
        measure, error = 50 * RATE + generator.standard_normal((2, len(GRID)))
        found, finding = judged(table(measure, error))
        along.append(found.tau_axis.values)
        beyond_chance.append(finding.p < correlations.LEVEL)
        supported.append(finding.verdict == "supported")
    rate, *others = np.mean(along, axis=0)
    assert rate == 1
    assert any(beyond_chance)  # one axis alone passes the shuffles, but not if it is left out
    assert np.mean(supported) < 0.05 + FALSE_ALARM * sqrt(0.05 * 0.95 / trials)
    # Along each other axis there are 12 pairs without a cell in common: independent signs.
    assert np.abs(others).max() < FALSE_ALARM / sqrt(12 * trials)


# Too little


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_too_few_cells_are_undecided(kept):
    measured = table(np.arange(24.0), np.arange(24.0), reached=np.arange(24) < kept)
    found, finding = judged(measured)
    assert found.attrs["cells"] == kept
    assert found.tau.isnull()
    assert found.tau_all.isnull()
    assert found.tau_null.isnull().all()
    assert (finding.verdict, finding.value, finding.low) == ("undecided", None, None)


def test_cells_that_always_differ_in_two_settings_are_undecided():
    diagonal = np.array([(k, k, 0, 0) for k in range(6)])
    found, finding = judged(table(np.arange(6.0), np.arange(6.0), diagonal))
    assert found.tau.isnull()
    assert (finding.verdict, finding.value) == ("undecided", None)


@pytest.mark.parametrize("constant", ["measure", "error"])
def test_a_measure_or_an_error_that_never_varies_decides_nothing(constant):
    varied, same = np.random.default_rng(9).random(24), np.full(24, 0.5)
    pair = (same, varied) if constant == "measure" else (varied, same)
    found, finding = judged(table(*pair))
    assert found.tau.isnull()
    assert (finding.verdict, finding.value) == ("undecided", None)


def test_four_cells_in_perfect_order_are_too_few_for_the_shuffles():
    quality = np.arange(4.0)
    _, finding = judged(table(quality, quality, [(r, 0, b, 0) for r in (1, 2) for b in (1, 2)]))
    assert finding.value == 1
    assert finding.verdict == "undecided"


# Records


def test_measures_are_judged_one_by_one_and_the_seed_reproduces():
    generator = np.random.default_rng(10)
    rough, local, error = generator.random((3, 24))
    measured = table(rough, error, local_energy=local)
    state = np.random.get_state()[1].copy()  # noqa: NPY002  the global state is what is compared
    found = generalisation(measured, seed=3)
    assert np.array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    xr.testing.assert_identical(found, generalisation(measured, seed=3))
    assert not generalisation(measured, seed=4).tau_null.equals(found.tau_null)
    questions = [finding.question for finding in generalisation_findings(found)]
    assert ["roughness index" in question for question in questions] == [True, False]
    assert ["local energy" in question for question in questions] == [False, True]
    for name, values in {"roughness": rough, "local_energy": local}.items():
        exact = scipy.stats.kendalltau(values, error).statistic
        assert float(found.tau_all.sel(measure=name)) == pytest.approx(exact)
    assert {"seed", "arguments", "versions", "source", "level"} <= set(found.attrs)
    assert all(var.attrs["units"] and var.attrs["long_name"] for var in found.data_vars.values())


def test_the_level_widens_the_interval():
    measure, error = np.random.default_rng(11).random((2, 24))
    (_, narrow), (_, wide) = (judged(table(measure, error), level=level) for level in (0.8, 0.99))
    assert wide.low < narrow.low < narrow.value == wide.value < narrow.high < wide.high
    assert (narrow.level, wide.level) == (0.8, 0.99)


def test_unequal_training_losses_and_smooth_slices_are_told():
    generator = np.random.default_rng(13)
    loss = generator.random(24)
    found, finding = judged(
        table(generator.random(24), -loss, train_loss=loss, rugged_slices=0 * loss)
    )
    assert found.attrs["tau_train_loss"] == -1
    assert f"training losses from {loss.min():.3g} to {loss.max():.3g} nats" in finding.statement
    assert "whose own τ with the test error is -1" in finding.statement
    assert "0.0% of the slices have more than one minimum" in finding.statement


# Other targets, other axes, several measures


def with_losses(seed):
    generator = np.random.default_rng(seed)
    columns = ("train_error", "train_loss", "test_loss")
    rough, error, *others = generator.random((5, len(GRID)))
    return table(rough, error, **dict(zip(columns, others, strict=True)))


def test_gaps_are_test_less_training_and_stand_beside_the_test_error():
    measured = with_losses(14)
    found, finding = judged(measured)
    assert found.target.values.tolist() == ["test_error", "gap_error", "gap_loss"]
    assert float(found.tau_of.sel(target="test_error")) == float(found.tau)
    for kind in ("error", "loss"):
        gap = measured[f"test_{kind}"] - measured[f"train_{kind}"]
        alone, _ = judged(table(measured["roughness"].values, gap.values))
        beside = found.sel(target=f"gap_{kind}")
        for name in ("tau", "tau_low", "tau_high"):
            own = float(beside[name.replace("tau", "tau_of")])
            assert own == pytest.approx(float(alone[name]))
        assert f"with the gap between test and training {kind} τ = " in finding.statement
        judge, other = judged(measured, target=f"gap_{kind}")
        assert float(judge.tau) == float(alone.tau)
        assert f"a lower gap between test and training {kind}" in other.statement
        assert float(beside.tau_of_null_low) < 0 < float(beside.tau_of_null_high)
    stored = measured.assign(gap_loss=("replica", np.arange(24.0)))
    changed, _ = judged(stored)
    assert float(changed.tau_of.sel(target="gap_loss")) != float(
        found.tau_of.sel(target="gap_loss")
    )


def test_a_target_that_is_not_there_is_refused_and_so_is_a_measure():
    measured = table(np.arange(24.0), np.arange(24.0))
    with pytest.raises(ValueError, match="target='gap_loss': expected one of those there are"):
        generalisation(measured, target="gap_loss", seed=0)
    with pytest.raises(ValueError, match=r"measures=.*among the variables of measured"):
        generalisation(measured, measures=["sharpness"], seed=0)
    with pytest.raises(ValueError, match=r"measures=.*none among the variables"):
        generalisation(measured.drop_vars("roughness"), seed=0)


@pytest.mark.parametrize("words", [True, False])
def test_an_optimiser_is_an_axis_by_its_number_or_its_name(words):
    names = np.array(["sgd", "adam", "sam"])
    grid = np.array(list(product(range(3), [0.03, 0.1, 0.3], [32, 128])))
    code = grid[:, 0].astype(int)
    measured = xr.Dataset(
        {
            "learning_rate": ("replica", grid[:, 1]),
            "batch_size": ("replica", grid[:, 2]),
            "optimizer": ("replica", names[code] if words else code),
            "roughness": ("replica", 10.0 * code + grid[:, 1]),
            "test_error": ("replica", 10.0 * code - grid[:, 1]),
        }
    )
    found, finding = judged(measured)
    assert found.axis.values.tolist() == ["learning_rate", "batch_size", "optimizer"]
    along = dict(zip(found.axis.values.tolist(), found.tau_axis.values.tolist(), strict=True))
    assert along == {"learning_rate": -1, "batch_size": 0, "optimizer": 1}
    assert "optimizer 1" in finding.statement
    assert found.attrs["cells"] == 18


def test_p_values_are_corrected_by_holm_for_the_number_of_measures():
    generator = np.random.default_rng(15)
    quality = RATE + 3.1 * DECAY + 6.3 * BATCH + 12.7 * WIDTH
    names = ("roughness", "local_energy", "hessian_trace", "local_entropy")
    noises = {"local_energy": 8.0, "hessian_trace": 15.0, "local_entropy": 1e9}
    columns = {k: quality + s * generator.standard_normal(24) for k, s in noises.items()}
    found = generalisation(table(quality, quality, **columns), seed=0)
    assert found.measure.values.tolist() == list(names)
    p, corrected = found.p.values, found.p_holm.values
    by_hand = np.empty(4)
    highest = 0.0
    for rank, k in enumerate(np.argsort(p, kind="stable")):
        highest = max(highest, min(1.0, (4 - rank) * p[k]))
        by_hand[k] = highest
    assert corrected == pytest.approx(by_hand)
    assert corrected[0] == pytest.approx(4 * p[0])
    assert (found.p_without_holm >= found.p_without).all()
    for finding, value in zip(generalisation_findings(found), corrected, strict=True):
        assert finding.p == pytest.approx(value)
        assert "corrected by Holm" in finding.rule
    alone, _ = judged(table(quality, quality))
    assert float(alone.p_holm) == float(alone.p)


def test_among_many_unrelated_measures_rarely_any_is_supported(cheap, monkeypatch):
    monkeypatch.setattr(rank_relations, "SHUFFLES", 399)  # so that a corrected p may be 0.01
    names = list(correlations.MEASURES)[:4]
    trials, any_supported, any_plain = 40, [], []
    for generator in np.random.default_rng(16).spawn(trials):
        error, *columns = generator.standard_normal((1 + len(names), len(GRID)))
        measured = table(columns[0], error, **dict(zip(names, columns, strict=True)))
        found = generalisation(measured, seed=0)
        any_plain.append(bool((found.p < correlations.LEVEL).any()))
        verdicts = [finding.verdict for finding in generalisation_findings(found)]
        any_supported.append("supported" in verdicts)
    assert np.mean(any_supported) < 0.05 + FALSE_ALARM * sqrt(0.05 * 0.95 / trials)
    assert np.mean(any_supported) < np.mean(any_plain)


def test_a_reverse_relation_is_said_to_be_one():
    quality = RATE + 3.1 * DECAY + 6.3 * BATCH + 12.7 * WIDTH
    _, finding = judged(table(-quality, quality))
    assert finding.verdict == "not supported"
    assert "do not go together, but opposite ways" in finding.statement
