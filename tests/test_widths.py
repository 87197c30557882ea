"""Barriers and widths: planted exponents, and real digits against standard errors."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from spinscape.glass.paths.interpolation import permutation_paths
from spinscape.glass.paths.pairings import balanced_pairs
from spinscape.glass.paths.widths import barriers_by_width, decay, width_findings
from spinscape.landscape.energy import Landscape
from spinscape.nets.datasets import load
from spinscape.nets.models import mlp
from spinscape.nets.training import train
from spinscape.nets.weightspace import points as points_of

MNIST = Path(__file__).parent / "data" / "mnist10k.npz"
KINDS = ("independent", "aligned")


def planted(powers, *, spread=0.1, replicas=8, pairs=20, seed=1, widths=(8, 16, 32, 64, 128)):
    """Barriers ∝ width^power times a factor of each replica."""
    generator = np.random.default_rng(seed)
    found = {}
    for width in widths:
        chosen = balanced_pairs(replicas, pairs, seed=width).numpy()
        factor = np.exp(spread * generator.standard_normal(replicas))
        height = [width**power * factor[chosen].prod(1) for power in powers]
        both = ("kind", "path")
        found[width] = xr.Dataset(
            {
                "barrier": (both, height),
                "barrier_mean": (both, height),
                "distance": (both, height),
                "pair": (("path", "end"), chosen),
            },
            {"kind": list(KINDS)},
        )
    return found


@pytest.mark.parametrize("power", [-1.2, 0.4])
def test_decay_finds_a_planted_exponent(power):
    exact = decay(barriers_by_width(planted((0, power), spread=0)))
    assert (exact.value, exact.low, exact.high) == pytest.approx((power, power, power))
    found = decay(barriers_by_width(planted((0, power))))
    assert abs(found.value - power) < found.high - found.low < 0.3  # about 4 standard errors


def test_the_interval_is_as_wide_as_the_spread_over_repetitions():
    """Redrawn replicas, not pairs: what many independent sets of replicas give."""
    found = [
        decay(barriers_by_width(planted((0, -1), spread=0.3, seed=seed)), level=0.9)
        for seed in range(40)
    ]
    inside = np.mean([low < -1 < high for _, low, high, _ in found])
    assert inside > 0.9 - 4 * (0.9 * 0.1 / len(found)) ** 0.5
    spread = np.std([interval.value for interval in found])
    half = np.median([(interval.high - interval.low) / 2 for interval in found])
    assert half < 2 * 1.65 * spread


@pytest.mark.parametrize(
    ("power", "spread", "verdict"),
    [(-0.5, 0.1, "supported"), (0.5, 0.1, "not supported"), (0.0, 0.5, "undecided")],
)
def test_a_fall_is_judged_by_its_rule(power, spread, verdict):
    barriers = barriers_by_width(planted((power, power), spread=spread))
    for finding, kind in zip(width_findings(barriers), KINDS, strict=True):
        assert finding.verdict == verdict
        means = barriers.barrier.sel(kind=kind).mean("path").values
        slope = np.polyfit(np.log(barriers.width), np.log(means), 1)[0]
        assert (finding.value, finding.null_value) == pytest.approx((slope, 0))
        assert finding.low < finding.value < finding.high
        assert "over 5 widths" in finding.statement


def test_widths_are_joined_in_order_and_nothing_is_lost():
    given = planted((0, -1))
    joined = barriers_by_width(dict(reversed(given.items())))
    assert joined.width.values.tolist() == sorted(given)
    for width, part in given.items():
        for name in ("barrier", "barrier_mean", "distance", "pair"):
            assert np.array_equal(joined[name].sel(width=width), part[name])
    assert {"seed", "arguments", "versions", "source"} <= set(joined.attrs)


def test_no_barrier_or_infinite_losses_leave_it_undecided():
    flat, lost = (barriers_by_width(planted((0, -1))) for _ in range(2))
    flat["barrier"] = 0 * flat.barrier
    lost.barrier[2, :, 3] = np.inf
    for finding in width_findings(flat) + width_findings(lost):
        assert (finding.verdict, finding.value) == ("undecided", None)


def test_what_cannot_be_joined_is_refused_by_name():
    given = planted((0, -1))
    with pytest.raises(ValueError, match=r"^paths: of widths \[8\], expected two or more"):
        barriers_by_width({8: given[8]})
    with pytest.raises(ValueError, match="kinds and numbers of paths differ"):
        barriers_by_width({**given, 16: given[16].isel(path=slice(3))})
    with pytest.raises(ValueError, match="kinds and numbers of paths differ"):
        barriers_by_width({**given, 16: given[16].isel(kind=[0])})


# Real digits


def at_widths(data, widths, *, replicas, epochs):
    found = {}
    for width in widths:
        module = mlp(data.inputs, [width], data.classes)
        points = points_of(
            train(module, data, replicas=replicas, epochs=epochs, learning_rate=0.1, seed=0)
        )
        landscape = Landscape(module, data.train.x[:1000], data.train.y[:1000])
        pairs = replicas * (replicas - 1) // 2
        found[width] = permutation_paths(landscape, points, pairs=pairs, resolution=11)
    return barriers_by_width(found)


def mean_of_pairs(barriers):
    """Mean over all pairs, and its jackknife standard error: replicas, not pairs, are left out."""
    values, pairs = barriers.barrier.values.astype(float), barriers.pair.values
    count = 1 + pairs.max()
    assert len(pairs) == count * (count - 1) // 2
    without = np.array([values[(pairs != replica).all(1)].mean() for replica in range(count)])
    error = ((count - 1) * without.var()) ** 0.5
    return values.mean(), error


def assert_aligned_below_raw_and_both_falling(barriers, standard_errors):
    means, errors = {}, {}
    kinds, widths = ("independent", "aligned", "aligned by activations"), barriers.width.values
    for kind in kinds:
        for width in widths:
            found = mean_of_pairs(barriers.sel(width=width, kind=kind))
            means[kind, width], errors[kind, width] = found
    for kind in kinds[1:]:
        for width in widths:
            gap = means["independent", width] - means[kind, width]
            error = np.hypot(errors["independent", width], errors[kind, width])
            assert gap > standard_errors * error, (kind, width)
    narrow, *_, wide = widths
    for kind in kinds:
        gap = means[kind, narrow] - means[kind, wide]
        error = np.hypot(errors[kind, narrow], errors[kind, wide])
        assert gap > standard_errors * error, kind
        assert all(means[kind, one] > means[kind, next_] for one, next_ in pairwise(widths)), kind


def test_on_digits_alignment_lowers_barriers_and_width_does():
    barriers = at_widths(load("digits", seed=0), (8, 32, 128), replicas=10, epochs=25)
    assert_aligned_below_raw_and_both_falling(barriers, 3)
    assert [finding.verdict for finding in width_findings(barriers)] == ["supported"] * 2


@pytest.mark.slow
def test_on_mnist_alignment_lowers_barriers_and_width_does():
    barriers = at_widths(load(MNIST, seed=0), (8, 32, 128, 512), replicas=12, epochs=6)
    assert_aligned_below_raw_and_both_falling(barriers, 3)
    assert [finding.verdict for finding in width_findings(barriers)] == ["supported"] * 2
