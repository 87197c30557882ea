"""Intervals cover at their stated rate, p-values are valid, findings refuse what is not one."""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from spinscape.statistics import Finding, Interval, bootstrap, kendall, p_value, pair_bootstrap

FALSE_ALARM = 3.5  # standard errors: 1 in 2000 a bound, were the seed not fixed


def coverage(interval: Callable[[np.random.Generator], Interval], truth: float, trials: int):
    """Share of intervals that hold the truth, and the standard error of that share at 95 %."""
    generators = np.random.default_rng(20240729).spawn(trials)
    hits = [low <= truth <= high for _, low, high, _ in map(interval, generators)]
    return np.mean(hits), math.sqrt(0.95 * 0.05 / trials)


@pytest.mark.parametrize(
    ("statistic", "draw", "truth"),
    [
        ("mean", lambda g: g.standard_normal(100), 0.0),
        ("mean", lambda g: g.random(100), 0.5),
        ("median", lambda g: g.standard_normal(100), 0.0),
        (lambda v, axis: v.std(axis, ddof=1), lambda g: g.random(100), math.sqrt(1 / 12)),
    ],
    ids=["mean of normal", "mean of uniform", "median of normal", "deviation of uniform"],
)
def test_intervals_cover_at_their_stated_rate(statistic, draw, truth):
    rate, error = coverage(
        lambda g: bootstrap(draw(g), statistic, resamples=999, seed=1), truth, trials=400
    )
    assert abs(rate - 0.95) < FALSE_ALARM * error


def test_small_samples_cover_far_better_than_a_plain_bootstrap():
    def plain(generator: np.random.Generator) -> Interval:
        values = generator.standard_normal(6)
        bounds = scipy.stats.bootstrap((values,), np.mean, n_resamples=999, rng=1)
        return Interval(0, *bounds.confidence_interval, 0.95)

    rate, error = coverage(
        lambda g: bootstrap(g.standard_normal(6), resamples=999, seed=1), 0.0, trials=400
    )
    plain_rate, _ = coverage(plain, 0.0, trials=400)
    assert plain_rate < 0.88
    assert rate > 0.92 - FALSE_ALARM * error


def test_pairs_of_replicas_cover_where_a_bootstrap_over_pairs_does_not():
    pairs = np.array(list(combinations(range(20), 2)))

    def values(generator: np.random.Generator) -> np.ndarray:
        return generator.standard_normal(20)[pairs].sum(1) + generator.standard_normal(len(pairs))

    by_replica, error = coverage(
        lambda g: pair_bootstrap(values(g), pairs, resamples=999, seed=1), 0.0, trials=400
    )
    by_pair, _ = coverage(lambda g: bootstrap(values(g), resamples=999, seed=1), 0.0, trials=400)
    assert abs(by_replica - 0.95) < FALSE_ALARM * error
    assert by_pair < 0.6


def test_pair_statistics_agree_with_counting_every_drawn_pair():
    pairs = list(combinations("abcd", 2))
    values = np.arange(6.0) ** 2
    by_name = pair_bootstrap(values, pairs, "mean", seed=3)
    by_function = pair_bootstrap(values, pairs, lambda v: v.sum() / len(v), seed=3)
    assert by_name == pytest.approx(by_function)
    assert by_name.value == pytest.approx(values.mean())


def test_pairs_that_share_no_replica_are_independent():
    values = np.random.default_rng(0).standard_normal(20)
    pairs = np.arange(40).reshape(20, 2)
    assert pair_bootstrap(values, pairs, seed=4) == bootstrap(values, seed=4)


def test_kendall_of_shuffled_pairs_covers_zero_at_its_stated_rate():
    rate, error = coverage(
        lambda g: kendall(g.permutation(40), g.random(40), resamples=999, seed=1), 0.0, 400
    )
    assert 0.95 - FALSE_ALARM * error < rate < 0.97 + FALSE_ALARM * error


def test_kendall_of_correlated_normals_covers_the_exact_value():
    def interval(generator: np.random.Generator) -> Interval:
        x, noise = generator.standard_normal((2, 40))
        return kendall(x, 0.6 * x + 0.8 * noise, resamples=999, seed=1)

    rate, error = coverage(interval, 2 / math.pi * math.asin(0.6), 400)
    assert 0.95 - FALSE_ALARM * error < rate < 0.97 + FALSE_ALARM * error


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=3, max_size=30))
@settings(deadline=None, max_examples=40)
def test_kendall_agrees_with_scipy_with_ties(points):
    x, y = np.array(points, dtype=float).T
    assume(min(len(np.unique(x)), len(np.unique(y))) > 2)
    found = kendall(x, y, resamples=50, seed=0)
    assert found.value == pytest.approx(scipy.stats.kendalltau(x, y).statistic)
    assert -1 - 1e-12 <= found.low <= found.high <= 1 + 1e-12


def test_level_widens_and_seed_reproduces():
    values = np.random.default_rng(5).standard_normal(50)
    wide, narrow = (bootstrap(values, level=level, seed=2) for level in (0.99, 0.8))
    assert wide.low < narrow.low < narrow.value == wide.value < narrow.high < wide.high
    assert narrow == bootstrap(values, level=0.8, seed=2)
    assert narrow != bootstrap(values, level=0.8, seed=3)


def test_the_global_random_state_is_untouched():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    bootstrap(np.arange(9.0), seed=0)
    kendall(np.arange(9.0), np.arange(9.0) % 4, seed=0)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_constant_values_have_an_interval_of_no_width():
    assert bootstrap([3.0] * 5, seed=0) == Interval(3.0, 3.0, 3.0, 0.95)


def test_two_values_bound_their_mean_by_themselves_only():
    assert bootstrap([1.0, 2.0], seed=0)[:3] == (1.5, 1.0, 2.0)


def test_paired_samples_are_drawn_together():
    first = np.random.default_rng(6).standard_normal(30)
    together = bootstrap((first + 1, first), paired=True, seed=0)
    apart = bootstrap((first + 1, first), paired=False, seed=0)
    assert together[:3] == pytest.approx((1.0, 1.0, 1.0))
    assert apart.low < 0.8
    assert apart.high > 1.2
    ratio = bootstrap((2 * first**2 + 1, first**2), lambda a, b: a.sum() / b.sum(), seed=0)
    assert ratio.low < ratio.value < ratio.high


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap([1.0, np.nan, 2.0], seed=0), "values must be finite, got nan at 1"),
        (lambda: bootstrap([1.0], seed=0), "at least 2 entries"),
        (lambda: bootstrap(np.ones((2, 2)), seed=0), "one-dimensional"),
        (lambda: bootstrap([1.0, 2.0], level=95, seed=0), "level must lie between 0 and 1"),
        (lambda: bootstrap([1.0, 2.0], resamples=0, seed=0), "resamples"),
        (lambda: bootstrap([1.0, 2.0], "mode", seed=0), "'mode' of 1 samples is not known"),
        (lambda: bootstrap(([1.0, 2], [1.0, 2, 3]), paired=True, seed=0), "equal lengths"),
        (lambda: bootstrap([1.0, 2.0], lambda v: np.nan, seed=0), "statistic is nan"),
        (lambda: pair_bootstrap([1.0, 2.0], [(0, 1)], seed=0), r"shape \(2, 2\)"),
        (lambda: pair_bootstrap([1.0, 2.0], [(0, 1), (2, 2)], seed=0), "with itself"),
        (lambda: kendall([1, 2, 3], [1, 2, 3, 4], seed=0), "one length"),
        (lambda: kendall([1, 1, 1], [1, 2, 3], seed=0), "x is constant"),
        (lambda: p_value(np.nan, [1.0]), "observed must be finite"),
        (lambda: p_value(1.0, []), "null must be one-dimensional"),
        (lambda: p_value(1.0, [1.0], "lower"), "alternative"),
    ],
)
def test_what_cannot_be_bounded_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_p_value_counts_itself_and_never_falls_below_its_floor():
    null = np.arange(99.0)
    assert p_value(-1, null) == 1 / 100
    assert p_value(0, null) == 2 / 100
    assert p_value(-1, null, "greater") == 1.0
    assert p_value(1000, null, "greater") == 1 / 100
    assert p_value(1000, null, "two-sided") == 2 / 100
    assert p_value(49, null, "two-sided") == 1.0


def test_p_values_under_the_null_are_uniform_on_their_grid():
    draws = np.random.default_rng(7).standard_normal((4000, 20))
    found = np.array([p_value(row[0], row[1:]) for row in draws])
    counts = np.bincount(np.rint(found * 20).astype(int), minlength=21)[1:]
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


FINDING = Finding(
    protocol="hierarchy",
    question="Do the solutions form a tree?",
    statement="They do not.",
    value=0.7,
    low=0.65,
    high=0.75,
    level=0.95,
    null="norm-matched",
    null_value=0.69,
    p=0.4,
    rule="supported if p < .01",
    verdict="not supported",
)


def test_a_finding_survives_its_dictionary():
    assert Finding.from_dict(FINDING.to_dict()) == FINDING
    bare = replace(FINDING, value=None, low=None, high=None, level=None, p=None, null="")
    assert Finding.from_dict(bare.to_dict()) == bare


def test_a_finding_takes_numpy_numbers_as_plain_floats():
    finding = replace(FINDING, value=np.float32(0.5), p=np.array(0.25))
    assert type(finding.value) is float
    assert finding.p == 0.25


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"verdict": "proven"}, ValueError, "verdict must be one of"),
        ({"value": math.nan}, ValueError, "value must be finite"),
        ({"null_value": math.inf}, ValueError, "null_value must be finite"),
        ({"value": "0.7"}, TypeError, "value must be a number"),
        ({"value": True}, TypeError, "value must be a number"),
        ({"p": 0.0}, ValueError, "p must lie"),
        ({"low": 0.8}, ValueError, "low must not exceed high"),
        ({"level": None}, ValueError, "go together"),
        ({"level": 95}, ValueError, "level must lie"),
        ({"rule": " "}, ValueError, "rule must not be empty"),
        ({"null": None}, TypeError, "null must be a string"),
        ({"verdict": "supported", "value": None}, ValueError, "needs a value"),
    ],
)
def test_what_is_no_finding_is_refused(change, error, message):
    with pytest.raises(error, match=message):
        replace(FINDING, **change)


def test_a_bare_number_supports_nothing():
    with pytest.raises(ValueError, match="an interval or a p"):
        replace(FINDING, verdict="supported", low=None, high=None, level=None, p=None)


def test_a_record_with_other_keys_is_no_finding():
    record = FINDING.to_dict() | {"colour": "red"}
    del record["rule"]
    with pytest.raises(ValueError, match=r"missing \['rule'\], unknown \['colour'\]"):
        Finding.from_dict(record)
