"""REPAIR: variances halfway by their law, statistics restored to rounding, planted verdicts."""

from itertools import pairwise

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import oracles
from spinscape.glass.matching import hidden_units
from spinscape.glass.matching.alignment import align
from spinscape.glass.paths import midpoints
from spinscape.glass.paths.midpoints import STATES, repair, repair_findings, repaired_midpoints
from spinscape.glass.paths.pairings import balanced_pairs
from spinscape.landscape.energy import Landscape
from spinscape.nets.models import cnn, mlp

FALSE_ALARM = 4.0  # standard errors: once in 16 000 comparisons, were the seeds not fixed


def normal(*shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def task(*sizes, samples=60, replicas=5, seed=0, activation="relu"):
    module = mlp(sizes[0], list(sizes[1:-1]), sizes[-1], activation=activation).double()
    n = sum(parameter.numel() for parameter in module.parameters())
    y = torch.randint(sizes[-1], (samples,), generator=torch.Generator().manual_seed(seed))
    x = normal(samples, sizes[0], seed=seed)
    return Landscape(module, x, y), normal(replicas, n, seed=seed + 1)


def pre_activations(module, point, x):
    """Of all hidden layers, one unit a column, from a module that was given the weights."""
    model, found = oracles.loaded(module, point), []
    linear = [part for part in model if isinstance(part, nn.Linear)][:-1]
    hooks = [
        part.register_forward_hook(lambda _module, _inputs, out: found.append(out))
        for part in linear
    ]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("lam", [0.5, 0.3])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("sizes", [(5, 7, 3), (5, 7, 6, 3), (5, 7, 6, 8, 3)])
def test_repaired_units_have_the_interpolated_mean_and_spread_to_rounding(sizes, activation, lam):
    landscape, (a, b, *_) = task(*sizes, activation=activation)
    found = repair(landscape, a, b, lam=lam)
    point = torch.from_numpy(found.point.values)
    near, far, now = (pre_activations(landscape.module, end, landscape.x) for end in (a, b, point))
    for first, second, layer in zip(near, far, now, strict=True):
        for statistic in (lambda z: z.mean(0), lambda z: z.std(0, correction=0)):
            goal = (1 - lam) * statistic(first) + lam * statistic(second)
            torch.testing.assert_close(statistic(layer), goal, rtol=1e-11, atol=1e-11)
    plain = torch.lerp(a, b, lam)
    models = oracles.models_at(landscape.module, [plain, point])
    expected = oracles.losses_at(models, landscape.x, landscape.y)
    assert found.loss.sel(state=["plain", "repaired"]).values == pytest.approx(expected.numpy())
    errors = oracles.errors_at(models, landscape.x, landscape.y)
    assert found.error.values == pytest.approx(errors.numpy())
    tail = slice(-sizes[-1] * (sizes[-2] + 1), None)  # only what leads into hidden units changes
    assert torch.equal(point[tail], plain[tail])


def test_nothing_is_to_be_repaired_at_the_ends_or_between_equals():
    landscape, (a, b, *_) = task(5, 7, 6, 3)
    for lam, end in ((0, a), (1, b)):
        point = torch.from_numpy(repair(landscape, a, b, lam=lam).point.values)
        torch.testing.assert_close(point, end, rtol=1e-10, atol=1e-10)
    point = torch.from_numpy(repair(landscape, a, a).point.values)
    torch.testing.assert_close(point, a, rtol=1e-10, atol=1e-10)


def test_pairs_are_repaired_alike_alone_together_and_in_blocks(monkeypatch):
    landscape, points = task(5, 7, 6, 3)
    before = points.clone()
    many = repair(landscape, points[:2], points[2:4])
    assert dict(many.point.sizes) == {"pair": 2, "n": landscape.n}
    monkeypatch.setattr(midpoints, "BLOCK_ELEMENTS", 1)
    xr.testing.assert_allclose(repair(landscape, points[:2], points[2:4]), many, rtol=1e-10)
    monkeypatch.setattr(hidden_units, "SAMPLES", 7)
    xr.testing.assert_allclose(repair(landscape, points[:2], points[2:4]), many, rtol=1e-10)
    for k in range(2):
        alone = repair(landscape, points[k], points[k + 2])
        assert set(alone.point.sizes) == {"n"}
        xr.testing.assert_allclose(alone, many.isel(pair=k), rtol=1e-10)
    assert torch.equal(points, before)


def test_a_unit_that_cancels_halfway_is_left_flat():
    landscape, (a, *_) = task(5, 7, 3)
    b = a.clone()
    b[:5] *= -1  # the weights into the first unit
    point = torch.from_numpy(repair(landscape, a, b).point.values)
    assert bool(torch.isfinite(point).all())
    assert not point[:5].any()


@pytest.mark.parametrize("rho", [0.0, 0.4, 0.9])
def test_variance_halfway_obeys_its_law_for_correlated_gaussian_units(rho):
    """σ²(1 + ρ)/2 for standard normal inputs, where ρ is the cosine of the incoming weights."""
    inputs, width, samples = 200, 8, 4000
    landscape, _ = task(inputs, width, 3, samples=samples, seed=3)
    basis = torch.linalg.qr(normal(inputs, 2 * width, seed=4)).Q.T
    rows, others = basis[:width], basis[width:]
    rest = torch.cat(
        [torch.zeros(width).double(), normal(3 * width, seed=5).abs() * 2, torch.zeros(3)]
    )
    ends = [
        torch.cat([3 * weights.flatten(), rest])
        for weights in (rows, rho * rows + (1 - rho**2) ** 0.5 * others)
    ]
    found = repaired_midpoints(landscape, torch.stack(ends), pairs=1)
    # A sample variance of a normal variable has relative standard error √(2/S); units are
    # independent, and both ends' errors enter.
    error = (2 / samples / width) ** 0.5
    assert abs(found.variance.item() - (1 + rho) / 2) < FALSE_ALARM * error
    assert found.variance.item() == pytest.approx(found.variance_law.item(), rel=1e-9)
    assert abs(found.correlation.item() - rho) < FALSE_ALARM / (samples * width) ** 0.5


@pytest.mark.parametrize("sizes", [(5, 7, 3), (5, 7, 6, 3)])
def test_what_is_measured_halfway_is_what_each_pair_gives_alone(sizes):
    landscape, points = task(*sizes)
    found = repaired_midpoints(landscape, points, pairs=4, seed=2)
    assert found.variance.dims == ("layer", "path")
    own = oracles.losses_at(
        oracles.models_at(landscape.module, points), landscape.x, landscape.y
    ).numpy()
    for path, (i, j) in enumerate(found.pair.values):
        pair = align(landscape.module, points[i], points[j])
        ends = [torch.from_numpy(pair[name].values) for name in ("reference", "point")]
        alone = repair(landscape, *ends)
        for state in ("plain", "repaired"):
            here = found.isel(path=path).sel(state=state)
            assert float(here.loss) == pytest.approx(float(alone.loss.sel(state=state)))
            assert float(here.error) == pytest.approx(float(alone.error.sel(state=state)))
            excess = float(here.loss) - (own[i] + own[j]) / 2
            assert float(here.excess) == pytest.approx(excess)
        layers = zip(
            *(pre_activations(landscape.module, end, landscape.x) for end in ends),
            pre_activations(landscape.module, (ends[0] + ends[1]) / 2, landscape.x),
            strict=True,
        )
        for k, (near, far, middle) in enumerate(layers):
            both = zip(near.T.numpy(), far.T.numpy(), strict=True)
            tables = [np.cov(u, v) for u, v in both]
            cosine = sum(t[0, 1] for t in tables) / sum((t[0, 0] * t[1, 1]) ** 0.5 for t in tables)
            assert float(found.correlation[k, path]) == pytest.approx(cosine)
            whole = (near.std(0, correction=0) + far.std(0, correction=0)).square().sum() / 4
            ratio = middle.var(0, correction=0).sum() / whole
            assert float(found.variance[k, path]) == pytest.approx(float(ratio))
            if k == 0:
                assert float(found.variance_law[k, path]) == pytest.approx(float(ratio))
    assert all(var.attrs["units"] and var.attrs["long_name"] for var in found.data_vars.values())
    assert {"seed", "arguments", "versions", "source"} <= set(found.attrs)


def test_midpoints_depend_neither_on_the_number_of_pairs_nor_on_blocks(monkeypatch):
    landscape, points = task(5, 7, 3)
    whole = repaired_midpoints(landscape, points, pairs=7, seed=4)
    few = repaired_midpoints(landscape, points, pairs=3, seed=4)
    xr.testing.assert_allclose(few, whole.isel(path=slice(3)), rtol=1e-9)
    monkeypatch.setattr(midpoints, "BLOCK_ELEMENTS", 2 * landscape.n)
    again = repaired_midpoints(landscape, points, pairs=7, seed=4)
    xr.testing.assert_allclose(again, whole, rtol=1e-9)
    other = repaired_midpoints(landscape, points[whole.pair[0].values], pairs=1, seed=5)
    assert not np.isclose(*(float(d.loss[2, 0]) for d in (other, whole)))


def test_repair_restores_what_averaging_flattens_in_a_deep_network():
    """Wide random networks: halfway the signal fades layer by layer, after repair it does not."""
    sizes = (50, *[60] * 4, 3)
    landscape, points = task(*sizes, replicas=2, samples=300, seed=6)
    scaled = []
    for point in points:
        parts = oracles.taken_apart(landscape.module, point)
        for (weight, bias), (inputs, _) in zip(parts, pairwise(sizes), strict=True):
            weight.mul_((2 / inputs) ** 0.5)
            bias.zero_()
        scaled.append(oracles.put_together(parts))
    found = repair(landscape, *scaled)
    spreads = [
        [float(layer.var(0).mean()) for layer in pre_activations(landscape.module, at, landscape.x)]
        for at in (scaled[0], sum(scaled) / 2, torch.from_numpy(found.point.values))
    ]
    end, plain, repaired = map(np.array, spreads)
    assert (np.diff(plain / end) < 0).all()
    assert (plain / end)[-1] < 0.2
    assert (np.abs(repaired / end - 1) < 0.3).all()


# repair_findings


def planted(left, permuted=20.0, *, spread=0.05, replicas=16, count=40, seed=7):
    """Midpoints in excess by about 1, of which a fraction is left."""
    generator = np.random.default_rng(seed)
    pairs = balanced_pairs(replicas, count, seed).numpy()
    noise = 1 + spread * generator.standard_normal((3, count))
    ones = np.full((1, count), 0.8)
    return xr.Dataset(
        {
            "excess": (("state", "path"), noise * np.array([1, left, permuted])[:, None]),
            "pair": (("path", "end"), pairs),
            "variance": (("layer", "path"), ones),
            "correlation": (("layer", "path"), 0.75 * ones),
        },
        {"state": list(STATES)},
    )


@pytest.mark.parametrize(
    ("left", "permuted", "spread", "verdict"),
    [
        (0.4, 20, 0.05, "supported"),
        (1.5, 20, 0.05, "not supported"),
        (0.4, 0.2, 0.05, "not supported"),  # any rescaling would have been better
        (0.95, 20, 0.5, "undecided"),
    ],
)
def test_repair_is_judged_by_its_rule(left, permuted, spread, verdict):
    data = planted(left, permuted, spread=spread)
    (finding,) = repair_findings(data)
    assert finding.verdict == verdict
    median = data.excess.median("path")
    share = 1 - float(median.sel(state="repaired") / median.sel(state="plain"))
    assert (finding.value, finding.null_value) == pytest.approx((share, 0))
    assert finding.low < finding.value < finding.high
    assert "40 aligned pairs" in finding.statement


def test_no_excess_few_pairs_and_infinite_losses_leave_it_undecided():
    flat, lost = planted(0.4), planted(0.4)
    flat["excess"] = -flat.excess
    lost.excess[1, 3] = np.inf
    for data in (flat, lost, planted(0.4).isel(path=[0])):
        (finding,) = repair_findings(data)
        assert (finding.verdict, finding.value) == ("undecided", None)


# Refusals


def test_what_cannot_be_repaired_is_refused_by_name():
    landscape, points = task(5, 7, 3)
    with pytest.raises(ValueError, match=r"^a is \(1, 66\).*b is \(5, 66\)"):
        repair(landscape, points[0], points)
    with pytest.raises(ValueError, match=r"^points: expected at least two solutions, got 1"):
        repaired_midpoints(landscape, points[0])
    with pytest.raises(ValueError, match=r"^pairs=0"):
        repaired_midpoints(landscape, points, pairs=0)
    bare = Landscape(mlp(5, [7], 3, bias=False).double(), landscape.x, landscape.y)
    with pytest.raises(ValueError, match="hidden layer '0' has no bias"):
        repair(bare, torch.zeros(bare.n).double(), torch.zeros(bare.n).double())
    linear = Landscape(mlp(5, [], 3).double(), landscape.x, landscape.y)
    with pytest.raises(ValueError, match="no hidden units"):
        repaired_midpoints(linear, torch.zeros(2, linear.n).double())
    image = Landscape(cnn(1, 2, width=2), torch.zeros(4, 1, 4, 4), torch.tensor([0, 1, 0, 1]))
    with pytest.raises(TypeError, match=r"Conv2d.*activations"):
        repair(image, torch.zeros(image.n), torch.zeros(image.n))
