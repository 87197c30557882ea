"""Slices and local energy: known shapes, exact means, and what a rescaled copy must not change."""

import json
from math import pi, sqrt

import numpy as np
import pytest
import torch
import xarray as xr

import oracles
from spinscape.glass.rugged import along_slices
from spinscape.glass.rugged.along_slices import slices, total_variation
from spinscape.glass.rugged.roughness import local_energy, ruggedness
from spinscape.landscape.energy import Landscape
from spinscape.nets.models import cnn, mlp
from spinscape.nets.weightspace import WeightSpace

FALSE_ALARM = 4.0  # standard errors: once in 16 000 comparisons, were the seeds not fixed
MEASURES = ("total_variation", "roughness", "mean_total_variation", "local_energy")
FEW = {"directions": 3, "resolution": 9, "probes": 4}


def normal(*shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def small(*, seed=0, replicas=3, hidden=(6,)):
    module = mlp(4, list(hidden), 3).double()
    n = sum(parameter.numel() for parameter in module.parameters())
    y = torch.randint(3, (40,), generator=torch.Generator().manual_seed(seed))
    return Landscape(module, normal(40, 4, seed=seed), y), normal(replicas, n, seed=seed + 1)


# Total variation


def test_total_variation_of_known_shapes():
    lam = torch.linspace(-1, 1, 81, dtype=torch.float64)
    shapes = [3 - 2 * lam, lam.square(), torch.full_like(lam, 7.0), (lam + 1).square(), lam.abs()]
    found = total_variation(torch.stack(shapes))
    assert found.tolist() == pytest.approx([1, 2, 1, 1, 2])


@pytest.mark.parametrize("periods", [1, 2, 5])
def test_total_variation_of_a_sine_is_two_a_period(periods):
    lam = torch.linspace(0, 1, 40 * periods + 1, dtype=torch.float64)  # all extrema are places
    sine = 5 + 0.3 * torch.sin(2 * pi * periods * lam)
    assert float(total_variation(sine)) == pytest.approx(2 * periods)
    assert float(total_variation(sine.float())) == pytest.approx(2 * periods, rel=1e-5)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_losses_that_are_not_finite_are_not_taken_for_flat_ground(bad):
    loss = torch.tensor([[1.0, 2, 3], [1, bad, 3]])
    assert total_variation(loss).isnan().tolist() == [False, True]


# Roughness index


def test_an_isotropic_bowl_is_smooth_and_bumps_are_not():
    centre = normal(1, 12, seed=1)

    def bowl(points):
        return (points - centre).square().sum(-1) / 2

    def egg(points):
        return bowl(points) - 0.3 * torch.cos(15 * (points - centre)).sum(-1)

    smooth = ruggedness(bowl, centre, seed=2, directions=6)
    assert smooth.roughness.item() == pytest.approx(0, abs=1e-12)
    assert smooth.total_variation.values == pytest.approx(2)
    rough = ruggedness(egg, centre, seed=2, directions=6)
    assert rough.roughness.item() > 0.02
    assert rough.mean_total_variation.item() > 2.2


def test_the_index_is_the_spread_of_total_variation_in_units_of_its_mean():
    landscape, points = small()
    found = ruggedness(landscape, points, seed=3, **FEW)
    variation = found.total_variation.values
    assert found.mean_total_variation.values == pytest.approx(variation.mean(1))
    index = variation.std(1, ddof=1) / variation.mean(1)
    assert found.roughness.values == pytest.approx(index)
    loss = found.slice_loss.values
    by_hand = np.abs(np.diff(loss)).sum(-1) / np.ptp(loss, axis=-1)
    assert variation == pytest.approx(by_hand)
    middle = landscape.loss(points).numpy()
    assert found.slice_loss.sel(lam=0).values == pytest.approx(middle[:, None].repeat(3, 1))
    assert found.lam.values[[0, -1]].tolist() == [-0.5, 0.5]
    assert {"seed", "arguments", "versions", "source"} <= set(found.attrs)
    assert all(var.attrs["units"] and var.attrs["long_name"] for var in found.data_vars.values())


# Local energy


@pytest.mark.parametrize("slope", [0.0, 5.0])
def test_local_energy_of_a_quadratic_form_is_exact_within_its_standard_error(slope):
    h = torch.linspace(0.5, 3, 15, dtype=torch.float64)
    points, sigma, probes = normal(40, 15, seed=4), 0.2, 64

    def energy(w):  # both signs of a draw cancel the slope
        return (h * w.square()).sum(-1) / 2 + slope * w.sum(-1)

    rise, error = local_energy(energy, points, probes=probes, sigma=sigma, seed=5)
    terms = sigma**2 * h * points.square() / 2
    # A draw is Σ terms z²: its variance is 2 Σ terms², for z² has variance 2.
    exact = (2 * terms.square().sum(1) / probes).sqrt()
    away = (rise - terms.sum(1)) / exact
    assert (away.abs() < FALSE_ALARM).all()
    assert abs(away.mean()) < FALSE_ALARM / sqrt(len(points))
    # s² of draws with excess kurtosis below 12 (of one z²) has relative variance < (2 + 12)/probes.
    assert ((error / exact).square() - 1).abs().max() < FALSE_ALARM * sqrt(14 / probes)


def test_four_times_the_curvature_is_four_times_the_local_energy():
    h, point = torch.linspace(0.5, 3, 15, dtype=torch.float64), normal(1, 15, seed=6)
    minima = torch.cat([point, point])  # each with its own bowl, and with its own noise
    curvatures = torch.stack([h, 4 * h])

    def energy(points):
        return (curvatures * (points - 0.1).square()).sum(-1) / 2

    (low, high), (se_low, se_high) = local_energy(energy, minima, probes=400, sigma=0.2, seed=7)
    assert abs(high - 4 * low) < FALSE_ALARM * sqrt(se_high**2 + 16 * se_low**2)
    assert float(se_high / high) < 0.05
    (same,), _ = local_energy(lambda p: energy(p)[:1], point, probes=9, sigma=0.2, seed=7)
    (more,), _ = local_energy(lambda p: energy(p)[1:], point, probes=9, sigma=0.2, seed=7)
    assert float(more) == pytest.approx(4 * float(same))


# Symmetry


@pytest.mark.parametrize("hidden", [(6,), (6, 5)])
def test_a_rescaled_copy_measures_the_same(hidden):
    landscape, points = small(hidden=hidden)
    copies = torch.stack(
        [
            oracles.hidden_copy(landscape.module, p, seed=k, permute=False)[0]
            for k, p in enumerate(points)
        ]
    )
    assert ((copies - points).norm(dim=1) > 1).all()
    found = ruggedness(landscape, points, seed=8, **FEW)
    copied = ruggedness(landscape, copies, seed=8, **FEW)
    assert json.loads(found.attrs["arguments"])["balanced"] is True
    for name in (*MEASURES, "local_energy_se", "slice_loss"):
        assert copied[name].values == pytest.approx(found[name].values, rel=1e-8), name


def test_slices_of_unbalanced_copies_differ_and_local_energy_needs_no_balancing():
    """What the test above would see, were balancing lost: slices change, factors do not."""
    landscape, points = small()
    copies = torch.stack(
        [
            oracles.hidden_copy(landscape.module, p, seed=k, permute=False)[0]
            for k, p in enumerate(points)
        ]
    )
    filters = WeightSpace(landscape.module).filters
    lam = torch.linspace(-0.5, 0.5, 9, dtype=torch.float64)
    loss, other = (
        slices(landscape, p, lam, directions=3, filters=filters, seed=8) for p in (points, copies)
    )
    assert ((total_variation(loss) - total_variation(other)).abs() > 1e-3).any()
    raw = [
        ruggedness(lambda p: landscape.loss(p), points, seed=8, **FEW)
        for points in (points, copies)
    ]
    assert json.loads(raw[0].attrs["arguments"])["balanced"] is False
    assert not np.allclose(raw[0].roughness, raw[1].roughness, rtol=1e-3)
    # (1 + σz) multiplies a weight and its rescaled copy alike: the function stays the same.
    assert raw[0].local_energy.values == pytest.approx(raw[1].local_energy.values, rel=1e-8)


def test_every_filter_of_a_direction_has_the_norm_of_the_filter_and_biases_stay():
    landscape, points = small(hidden=(6, 5))
    seen, space = oracles.Seen(landscape), WeightSpace(landscape.module)
    filters, lam = space.filters, torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
    slices(seen, points, lam, directions=4, filters=filters, seed=9)
    ((origins, ends),) = seen.ends
    assert torch.equal(origins, points.repeat_interleave(4, 0))
    directions = ends - origins
    parts = [oracles.taken_apart(landscape.module, point) for point in origins]
    moved = [oracles.taken_apart(landscape.module, step) for step in directions]
    for own, step in zip(parts, moved, strict=True):
        for (weight, _), (change, bias) in zip(own, step, strict=True):
            torch.testing.assert_close(change.norm(dim=1), weight.norm(dim=1))
            assert not bias.any()
    cosines = torch.nn.functional.cosine_similarity(directions[:1], directions[1:])
    assert (cosines.abs() < 0.9).all()


def test_a_convolution_is_measured_as_it_is_and_says_so():
    module = cnn(1, 2, width=2).double()
    x, y = normal(12, 1, 5, 5, seed=10), torch.tensor([0, 1] * 6)
    landscape = Landscape(module, x, y)
    point = oracles.point_of(module)[None]
    found = ruggedness(landscape, point, seed=11, **FEW)
    assert json.loads(found.attrs["arguments"])["balanced"] is False
    assert np.isfinite(found.roughness).all()
    own = landscape.loss(point).numpy()
    assert found.slice_loss.sel(lam=0).values == pytest.approx(own[:, None].repeat(3, 1))


# Reproducibility


def test_the_numbers_of_a_point_depend_on_the_seed_and_its_place_alone(monkeypatch):
    landscape, points = small(replicas=5)
    state, before = torch.get_rng_state(), points.clone()
    whole = ruggedness(landscape, points, seed=12, **FEW)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(points, before)
    few = ruggedness(landscape, points[:2], seed=12, **FEW)
    xr.testing.assert_allclose(few, whole.isel(replica=slice(2)), rtol=1e-10)
    for elements in (1, 2 * 3 * points.shape[1]):
        monkeypatch.setattr(along_slices, "BLOCK_ELEMENTS", elements)
        blocks = ruggedness(landscape, points, seed=12, **FEW)
        xr.testing.assert_allclose(blocks, whole, rtol=1e-10)
    other = ruggedness(landscape, points, seed=13, **FEW)
    for name in ("total_variation", "local_energy"):
        assert not np.allclose(other[name], whole[name])
    assert len(np.unique(whole.slice_loss.isel(lam=0))) == 5 * FEW["directions"]


def test_stored_points_are_taken():
    landscape, points = small()
    stored = xr.DataArray(points.numpy(), dims=("replica", "n"))
    xr.testing.assert_identical(
        ruggedness(landscape, stored, seed=14, **FEW), ruggedness(landscape, points, seed=14, **FEW)
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"directions": 1},
        {"probes": 1},
        {"resolution": 8},
        {"resolution": 1},
        {"extent": 0.0},
        {"sigma": -1.0},
        {"sigma": float("nan")},
        {"extent": float("inf")},
    ],
)
def test_numbers_out_of_range_are_refused_by_name(wrong):
    landscape, points = small()
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=rf"^{name}={value}: expected"):
        ruggedness(landscape, points, seed=0, **wrong)


def test_slices_with_more_than_one_minimum_are_counted():
    points = torch.zeros(3, 4, dtype=torch.float64) + torch.tensor([1.0, 2, 3, 4]).double()
    bowl = ruggedness(lambda p: (p - points[0]).square().sum(-1), points, seed=0)
    assert bowl.rugged_slices.values.tolist() == [0, 0, 0]
    waves = ruggedness(lambda p: torch.sin(40 * p).sum(-1), points, seed=0)
    assert (waves.rugged_slices > 0.9).all()
