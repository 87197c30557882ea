"""Two hidden units that change places: through a point where they are one, or with one to spare."""

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.optimize import minimize, minimize_scalar

import oracles
from spinscape.glass.paths import permutation_points
from spinscape.glass.paths.barriers import barrier
from spinscape.glass.paths.curves import Bending
from spinscape.glass.paths.detours import permutation_point_findings
from spinscape.glass.paths.extra_neuron import corners, extra_neuron_path, widened
from spinscape.glass.paths.permutation_points import ROUTES, permutation_point_paths
from spinscape.glass.paths.teacher import ReluTeacher
from spinscape.glass.paths.unit_pairs import draw_units, merged, traded, transposed
from spinscape.landscape.energy import Landscape
from spinscape.nets import symmetry
from spinscape.nets.models import mlp

FEW = Bending(steps=6, learning_rate=0.02, checks=3)
SWAP = torch.tensor([[0, 1]])


def normal(*shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def small(*, seed=0, samples=40, replicas=3, sizes=(4, 6, 3)):
    """Networks that answer as the first of them does, or nearly."""
    module = mlp(sizes[0], list(sizes[1:-1]), sizes[-1]).double()
    n = sum(parameter.numel() for parameter in module.parameters())
    x, point = normal(samples, sizes[0], seed=seed), 2 * normal(n, seed=12)
    y = oracles.run_point(module, point, x).argmax(1)
    return Landscape(module, x, y), point + 0.1 * normal(replicas, n, seed=seed + 1)


# unit_pairs


@pytest.mark.parametrize("layer", [0, 1])
def test_units_are_merged_traded_and_transposed_in_their_layer(layer):
    landscape, points = small(sizes=(4, 6, 5, 3))
    hidden = symmetry.of(landscape.module).layers[layer]
    units = torch.tensor([[0, 3], [4, 1], [2, 3]])
    whole = transposed(hidden, points, units)
    one, said = merged(hidden, points, units), traded(hidden, points, units)
    for k, (i, j) in enumerate(units.tolist()):
        orders = [torch.arange(6), torch.arange(5)]
        orders[layer][[i, j]] = orders[layer][[j, i]]
        expected = oracles.permuted(landscape.module, points[k], orders)
        assert torch.equal(whole[k], expected)
        parts = oracles.taken_apart(landscape.module, points[k])
        parts[layer + 1][0][:, [i, j]] = parts[layer + 1][0][:, [j, i]]
        assert torch.equal(said[k], oracles.put_together(parts))
        parts = oracles.taken_apart(landscape.module, points[k])
        for values in parts[layer]:
            values[[i, j]] = values[[i, j]].mean(0)
        torch.testing.assert_close(one[k], oracles.put_together(parts), rtol=1e-14, atol=0)
    torch.testing.assert_close(landscape.loss(whole), landscape.loss(points))
    torch.testing.assert_close(landscape.loss(traded(hidden, one, units)), landscape.loss(one))


def test_drawn_units_differ_and_every_pair_may_come():
    stream = torch.Generator().manual_seed(0)
    every = draw_units(5, 10, stream)
    assert len({tuple(pair) for pair in every.tolist()}) == 10
    assert (every[:, 0] < every[:, 1]).all()
    with pytest.raises(ValueError, match=r"^swaps=11: a layer of 5 units has 1 to 10 pairs"):
        draw_units(5, 11, stream)


# permutation_point_paths


def lowest_merged(teacher):
    """Population loss of the best network of one unit, its direction given by one angle."""

    def loss(angle):
        w = torch.tensor([np.cos(angle), np.sin(angle)])
        points = torch.cat([w, torch.zeros(2)]).double()
        slope = -_of_length(points, teacher, 1) + _of_length(points, teacher, 0)
        # ½(B²/2 − 2B·c + C), so c = C/2 + ¼ − L(1) and the least is at B = 2c
        c = slope + 0.25
        return float(_of_length(points, teacher, 0) - c**2)

    return minimize_scalar(loss, bounds=(0, np.pi / 2), method="bounded").fun


def _of_length(points, teacher, length):
    return oracles.relu_population_loss(length * points, teacher)


def test_two_orthonormal_units_pass_through_the_best_single_unit():
    teacher = ReluTeacher(torch.eye(2, dtype=torch.float64))
    exact = lowest_merged(torch.eye(2, dtype=torch.float64))
    cosine = 2**-0.5  # half-way between both: ½C − s², s the sum of its kernels with them
    kernels = 2 * cosine * (1 + 3 * np.pi / 4) / (2 * np.pi)
    assert exact == pytest.approx(0.5 + 0.5 / np.pi - kernels**2, abs=1e-9)
    found = permutation_point_paths(
        teacher, teacher.point, units=SWAP, bending=Bending(200, 0.003, checks=20), seed=1
    ).isel(replica=0, swap=0)
    height = found.barrier
    assert float(height.sel(route="straight")) == pytest.approx(0.0908451, abs=5e-8)
    assert float(height.sel(route="merged")) == pytest.approx(0.0908451, abs=5e-8)
    assert exact - 1e-9 <= float(height.sel(route="lowered")) < exact + 2e-4
    assert (found.exchange.sel(route=["merged", "lowered"]) < 1e-12).all()


def test_four_units_pass_through_the_best_three():
    teacher = ReluTeacher(torch.eye(4, dtype=torch.float64))
    three = ReluTeacher(teacher.weights, units=3)

    def value(point):
        at = torch.from_numpy(point)
        return float(three.energy(at)), three.gradient(at).numpy()

    merge = torch.cat([torch.eye(4)[[0, 2, 3]].flatten(), torch.tensor([2.0, 1, 1])]).double()
    merge[1] = 1.0
    exact = minimize(value, merge.numpy(), jac=True, method="BFGS").fun
    found = permutation_point_paths(
        teacher, teacher.point, units=SWAP, bending=Bending(120, 0.01, checks=12), seed=1
    ).isel(replica=0, swap=0)
    height = found.barrier
    assert exact - 1e-9 <= float(height.sel(route="lowered")) < 1.02 * exact
    assert float(height.sel(route="lowered")) < 0.8 * float(height.sel(route="straight"))
    assert float(height.sel(route="bent")) < 0.8 * float(height.sel(route="straight"))


def test_merged_routes_are_the_losses_of_their_points():
    landscape, points = small()
    other, _ = small(seed=5)
    units = torch.tensor([[[0, 1], [2, 5]], [[3, 1], [0, 5]], [[4, 5], [1, 2]]])
    found = permutation_point_paths(
        landscape, points, units=units, bending=FEW, resolution=4, held_out=other
    )
    hidden = symmetry.of(landscape.module).layers[0]
    for energy, name in ((landscape, "loss"), (other, "held_loss")):
        for k, s in np.ndindex(3, 2):
            pair, start = units[k, s], points[k]
            middle = merged(hidden, start, pair)
            across = traded(hidden, middle, pair)
            end = transposed(hidden, start, pair)
            legs = zip((start, middle, across), (middle, across, end), strict=True)
            losses = [barrier(energy, a, b, resolution=4).loss.values for a, b in legs]
            expected = np.concatenate([losses[0], losses[1][1:], losses[2][1:]])
            along = found[name].sel(route="merged")[k, s]
            assert along.values == pytest.approx(expected, rel=1e-9)
            line = barrier(energy, start, end, resolution=10).loss.values
            assert found[name].sel(route="straight")[k, s].values == pytest.approx(line, rel=1e-9)
    assert (found.exchange.sel(route=["merged", "lowered"]) < 1e-12).all()
    assert found.exchange.sel(route=["straight", "bent"]).isnull().all()
    assert all(var.attrs["units"] and var.attrs["long_name"] for var in found.data_vars.values())


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rate", [0.001, 0.1, 10])
def test_no_route_is_above_the_one_it_was_lowered_from(seed, rate):
    landscape, points = small(seed=seed, sizes=(4, 5, 6, 3))
    bending = Bending(5, rate, 1, 10, 2)
    found = permutation_point_paths(
        landscape, points, swaps=3, layer=seed % 2, bending=bending, resolution=4, seed=seed
    )
    height = {route: found.barrier.sel(route=route).values for route in ROUTES}
    assert (height["bent"] <= height["straight"]).all()
    assert (height["lowered"] <= height["merged"]).all()
    assert (found.exchange.sel(route="lowered") < 1e-9).all()


def test_routes_depend_neither_on_the_other_solutions_nor_on_blocks(monkeypatch):
    landscape, points = small()
    options = {"bending": Bending(6, 0.02, 2, 16, 2), "resolution": 5, "seed": 3}
    whole = permutation_point_paths(landscape, points, **options)
    few = permutation_point_paths(landscape, points[:1], **options)
    xr.testing.assert_allclose(few, whole.isel(replica=[0]), rtol=1e-7, atol=1e-12)
    monkeypatch.setattr(permutation_points, "BLOCK_ELEMENTS", 1)
    blocks = permutation_point_paths(landscape, points, **options)
    xr.testing.assert_allclose(blocks, whole, rtol=1e-7, atol=1e-12)


# extra_neuron_path


@pytest.mark.parametrize("bias", [True, False])
def test_with_an_extra_unit_the_loss_never_changes(bias):
    x, y = normal(50, 4, seed=0), torch.arange(50) % 3
    narrow, wide = (Landscape(mlp(4, [width], 3, bias=bias).double(), x, y) for width in (6, 7))
    points, units = normal(3, narrow.n, seed=1), torch.tensor([[0, 1], [5, 2], [3, 4]])
    before = points.clone()
    found = extra_neuron_path(narrow, wide, points, units)
    assert found.sizes["lam"] == 7 * 4 + 1
    assert found.loss.values == pytest.approx(
        np.repeat(narrow.loss(points).numpy()[:, None], 29, 1), rel=1e-12
    )
    assert (found.rise < 1e-12).all()
    assert (found.straight_barrier > 0.1).any()
    assert torch.equal(points, before)
    symmetries = symmetry.of(narrow.module), symmetry.of(wide.module)
    hidden = symmetries[0].layers[0]
    way = corners(symmetries[1].layers[0], widened(*symmetries, points), units)
    copies = widened(*symmetries, transposed(hidden, points, units))
    assert torch.equal(way[:, 0], widened(*symmetries, points))
    assert torch.equal(way[:, -1], copies)
    outputs = wide.outputs(way)
    torch.testing.assert_close(outputs, outputs[:, :1].expand_as(outputs), rtol=0, atol=1e-12)
    assert (way.diff(dim=1).norm(dim=-1) > 0).all()


def test_a_teachers_exact_landscape_is_as_flat():
    teacher = torch.eye(4, dtype=torch.float64)
    narrow, wide = ReluTeacher(teacher), ReluTeacher(teacher, units=5)
    found = extra_neuron_path(narrow, wide, narrow.point, torch.tensor([0, 1]))
    assert float(found.rise[0]) < 1e-14
    assert float(found.straight_barrier[0]) == pytest.approx(0.0908451, abs=5e-8)


# Findings


def planted(lowered, *, held=None, spread=0.05, replicas=12, seed=9):
    generator = np.random.default_rng(seed)
    heights = {"straight": 1, "bent": lowered / 2, "merged": 1, "lowered": lowered}
    dims = ("route", "replica", "swap")

    def near(values):
        return dims, [v * np.exp(spread * generator.standard_normal((replicas, 3))) for v in values]

    found = {"barrier": near(heights.values())}
    if held is not None:
        found["held_barrier"] = near({**heights, "lowered": held}.values())
    return xr.Dataset(found, {"route": list(ROUTES)})


@pytest.mark.parametrize(
    ("lowered", "held", "spread", "verdict"),
    [
        (0.2, None, 0.05, "supported"),
        (0.2, 0.4, 0.05, "supported"),
        (0.2, 2.0, 0.05, "not supported"),
        (0.9, None, 0.05, "not supported"),
        (0.5, None, 1.0, "undecided"),
        (0.2, 1.0, 0.5, "undecided"),
        (0.0, None, 0.05, "supported"),
    ],
)
def test_permutation_points_are_judged_by_their_rule(lowered, held, spread, verdict):
    paths = planted(lowered, held=held, spread=spread)
    (finding,) = permutation_point_findings(paths)
    assert finding.verdict == verdict
    total = paths.barrier.sum(("replica", "swap"))
    ratio = float(total.sel(route="lowered") / total.sel(route="straight"))
    assert (finding.value, finding.null_value) == pytest.approx((ratio, 1))
    assert finding.low <= finding.value <= finding.high
    assert ("own samples alone" in finding.statement) == (held == 2.0)


def test_without_a_barrier_it_is_undecided():
    flat, single, lost = planted(0.2), planted(0.2).isel(replica=[0]), planted(0.2)
    flat["barrier"] = 0 * flat.barrier
    lost.barrier[3, 0, 0] = np.inf
    for paths in (flat, single, lost):
        (finding,) = permutation_point_findings(paths)
        assert (finding.verdict, finding.value) == ("undecided", None)


# Refusals


def test_what_are_no_units_is_refused_by_name():
    landscape, points = small()
    for units, message in (
        (torch.tensor([0, 1]), r"^units has shape \(2,\)"),
        (torch.zeros(2, 1, 2), r"expected \[swap, 2\] or \[3, swap, 2\]"),
        (torch.tensor([[0, 6]]), "^units: expected pairs of different units from 0 to 5"),
        (torch.tensor([[1, 1]]), "^units: expected pairs"),
    ):
        with pytest.raises(ValueError, match=message):
            permutation_point_paths(landscape, points, units=units)
    with pytest.raises(ValueError, match=r"^layer=1: the module has 1 hidden"):
        permutation_point_paths(landscape, points, layer=1)
    with pytest.raises(ValueError, match=r"^swaps=16"):
        permutation_point_paths(landscape, points, swaps=16)
    wide = Landscape(mlp(4, [7], 3).double(), landscape.x, landscape.y)
    with pytest.raises(ValueError, match=r"^units: expected pairs"):
        extra_neuron_path(landscape, wide, points, torch.tensor([0, 6]))
    with pytest.raises(ValueError, match=r"^wide: hidden widths"):
        extra_neuron_path(landscape, landscape, points, torch.tensor([0, 1]))
    other = Landscape(wide.module, landscape.x, (landscape.y + 1) % 3)
    with pytest.raises(ValueError, match=r"^wide: another loss"):
        extra_neuron_path(landscape, other, points, torch.tensor([0, 1]))
