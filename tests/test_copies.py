"""Own copies with some units moved: exact population losses, what is moved, planted exponents."""

from itertools import product
from math import factorial

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.stats import chi2

import oracles
from spinscape.glass.paths import own_copies
from spinscape.glass.paths.own_copies import COPIES, copies_findings, growth, partial_copies
from spinscape.landscape.energy import Landscape
from spinscape.nets import symmetry as symmetries
from spinscape.nets.models import cnn, mlp
from spinscape.nets.symmetry import HiddenLayer, Symmetry

FALSE_ALARM = 1 / 16_000


def normal(*shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def task(*sizes, samples=20, replicas=3, seed=0):
    module = mlp(sizes[0], list(sizes[1:-1]), sizes[-1]).double()
    n = sum(parameter.numel() for parameter in module.parameters())
    x = normal(samples, sizes[0], seed=seed)
    y = torch.randint(sizes[-1], (samples,), generator=torch.Generator().manual_seed(seed))
    return Landscape(module, x, y), normal(replicas, n, seed=seed + 1)


class Seen:
    """A landscape that keeps all ends; its loss may be another one."""

    def __init__(self, landscape, loss=None):
        self.landscape, self.module, self.energy, self.ends = landscape, landscape.module, loss, []

    def outputs(self, points):
        return self.landscape.outputs(points)

    def lines(self, origins, directions, lam):
        self.ends.append((origins.clone(), origins + directions))
        if self.energy is None:
            return self.landscape.lines(origins, directions, lam)
        at = origins[:, None] + lam.to(origins)[:, None] * directions[:, None]
        return self.energy(at), torch.full(at.shape[:2], torch.nan, dtype=at.dtype)

    def orders(self, module, layer=0):
        """Which unit stands where in each copy, found by comparing incoming weights."""
        origins, copies = (torch.cat(ends) for ends in zip(*self.ends, strict=True))
        units = symmetries.of(module).layers[layer]
        near, far = units.weights_in(origins), units.weights_in(copies)
        return torch.cdist(far, near).argmin(-1).numpy()


def test_swapped_orthonormal_units_have_their_exact_population_barriers():
    """Orthonormal ReLU teacher, output weights 1: one swap .0908451, two .2363035."""
    teacher = torch.eye(4, dtype=torch.float64)
    module = mlp(4, [4], 1, bias=False).double()
    landscape = Landscape(module, normal(5, 4, seed=1), torch.zeros(5, 1), loss="mse")

    def loss(points):
        return oracles.relu_population_loss(points[..., :16], teacher)

    point = torch.cat([teacher.flatten(), torch.ones(4, dtype=torch.float64)])
    found = partial_copies(Seen(landscape, loss), point, draws=3, kinds=["transpositions"])
    assert found.moved.values.tolist() == [2, 4]
    assert found.barrier.sel(moved=2).values == pytest.approx(0.0908451, abs=5e-8)
    assert found.barrier.sel(moved=4).values == pytest.approx(0.2363035, abs=5e-8)
    assert found.loss.sel(moved=2, lam=0.25).values == pytest.approx(0.0412869, abs=5e-8)
    assert found.loss.isel(lam=[0, -1]).values == pytest.approx(0, abs=1e-12)
    assert found.distance.sel(moved=2).values == pytest.approx(2)  # two rows of norm √2 apart
    assert found.overlap.sel(moved=2).values == pytest.approx((8 - 2) / 8)
    assert found.overlap.sel(moved=4).values == pytest.approx((8 - 4) / 8)


@pytest.mark.parametrize("layer", [0, 1])
def test_so_many_units_are_moved_as_is_said_and_in_the_way_that_is_said(layer):
    sizes, moved, draws = (4, 9, 10, 3), [2, 4, 8], 4
    landscape, points = task(*sizes)
    seen = Seen(landscape)
    found = partial_copies(seen, points, moved=moved, draws=draws, layer=layer, resolution=3)
    orders = seen.orders(landscape.module, layer)
    shape = len(COPIES), len(moved), len(points), draws
    orders = orders.reshape(*shape, -1)
    places = np.arange(sizes[1 + layer])
    for k, m, r, d in product(*map(range, shape)):
        order = orders[k, m, r, d]
        assert sorted(order) == places.tolist()
        assert (order != places).sum() == moved[m]
        cycles = cycle_lengths(order)
        if COPIES[k] == "transpositions":
            assert cycles == [2] * (moved[m] // 2)
        if COPIES[k] == "cycle":
            assert cycles == [moved[m]]
        here = set(np.flatnonzero(order != places))
        assert here == set(np.flatnonzero(orders[0, m, r, d] != places))  # by all kinds the same
        if m:
            assert here > set(np.flatnonzero(orders[k, m - 1, r, d] != places))
    square = points.square().sum(1).numpy()[:, None]
    assert found.distance.values**2 == pytest.approx(2 * square * (1 - found.overlap.values))


def cycle_lengths(order):
    left, lengths = set(np.flatnonzero(order != np.arange(len(order)))), []
    while left:
        start = at = left.pop()
        length = 1
        while (at := order[at]) != start:
            left.remove(at)
            length += 1
        lengths.append(length)
    return lengths


def test_random_copies_are_uniform_among_those_without_a_unit_left_in_place():
    landscape, points = task(3, 4, 2, replicas=1, samples=3)
    draws = 1800
    seen = Seen(landscape)
    partial_copies(seen, points, moved=[4], kinds=["random"], draws=draws, resolution=3)
    orders, counts = np.unique(seen.orders(landscape.module), axis=0, return_counts=True)
    derangements = round(factorial(4) / np.e)
    assert len(orders) == derangements == 9
    expected = draws / derangements
    assert ((counts - expected) ** 2 / expected).sum() < chi2.isf(FALSE_ALARM, derangements - 1)


@pytest.mark.parametrize("sizes", [(4, 6, 3), (4, 6, 5, 3)])
def test_copies_compute_what_their_solution_does_and_paths_what_each_network_does(sizes):
    landscape, points = task(*sizes)
    seen = Seen(landscape)
    found = partial_copies(seen, points, moved=[2, 6], draws=2, resolution=5)
    origins, copies = (torch.cat(ends) for ends in zip(*seen.ends, strict=True))
    outputs = (
        oracles.outputs_at(oracles.models_at(landscape.module, ends), landscape.x)
        for ends in (origins, copies)
    )
    torch.testing.assert_close(*outputs, rtol=1e-10, atol=1e-10)
    at = torch.linspace(0, 1, 5).double()[:, None]
    for path in (0, 7, len(origins) - 1):
        models = oracles.models_at(landscape.module, torch.lerp(origins[path], copies[path], at))
        losses = oracles.losses_at(models, landscape.x, landscape.y)
        assert found.loss.values.reshape(-1, 5)[path] == pytest.approx(losses.numpy())
        errors = oracles.errors_at(models, landscape.x, landscape.y)
        assert found.error.values.reshape(-1, 5)[path] == pytest.approx(errors.numpy())
    ends = found.loss.isel(lam=[0, -1]).mean("lam")
    height = found.loss.max("lam") - ends
    assert found.barrier.values == pytest.approx(height.values, abs=1e-10)
    assert found.barrier_mean.values == pytest.approx(height.values, abs=1e-10)
    assert all(var.attrs["units"] and var.attrs["long_name"] for var in found.data_vars.values())
    assert {"seed", "arguments", "versions", "source"} <= set(found.attrs)


def test_a_copy_depends_on_nothing_that_stands_beside_it(monkeypatch):
    landscape, points = task(4, 9, 3)
    state = torch.get_rng_state()
    whole = partial_copies(landscape, points, draws=3, resolution=5, seed=4)
    assert whole.moved.values.tolist() == [2, 4, 8]
    part = partial_copies(
        landscape, points[:2], moved=[4], kinds=["random", "cycle"], draws=2, resolution=5, seed=4
    )
    same = whole.sel(kind=["random", "cycle"], moved=[4])
    same = same.isel(replica=slice(2), draw=slice(2))
    xr.testing.assert_allclose(part, same, rtol=1e-9)
    monkeypatch.setattr(own_copies, "BLOCK_ELEMENTS", 2 * landscape.n)
    again = partial_copies(landscape, points, draws=3, resolution=5, seed=4)
    xr.testing.assert_allclose(again, whole, rtol=1e-9)
    other = partial_copies(landscape, points, draws=3, resolution=5, seed=5)
    assert not np.allclose(other.barrier, whole.barrier)
    assert torch.equal(torch.get_rng_state(), state)


def test_single_precision_copies_pass_as_the_same_function():
    module = mlp(50, [128], 10)
    n = sum(parameter.numel() for parameter in module.parameters())
    landscape = Landscape(module, normal(200, 50, seed=1).float(), torch.arange(200) % 10)
    found = partial_copies(landscape, normal(2, n, seed=2).float(), resolution=3, draws=1)
    assert found.barrier.dtype == np.float32
    assert found.moved.values.tolist() == [2, 4, 8, 16, 32, 64, 128]


# growth and its finding


def planted(power, *, spread=0.1, replicas=12, seed=3):
    generator = np.random.default_rng(seed)
    moved = np.array([2, 4, 8, 16, 32])
    shape = len(COPIES), len(moved), replicas, 2
    noise = np.exp(spread * generator.standard_normal(shape))
    height = 0.01 * moved[:, None, None] ** power * noise
    dims = ("kind", "moved", "replica", "draw")
    return xr.Dataset({"barrier": (dims, height)}, {"kind": list(COPIES), "moved": moved})


@pytest.mark.parametrize("power", [0.5, 1.7])
def test_growth_finds_a_planted_exponent(power):
    exact = growth(planted(power, spread=0))
    assert exact.value == pytest.approx(power)
    assert exact.low == pytest.approx(power)
    found = growth(planted(power), "cycle")
    assert abs(found.value - power) < found.high - found.low < 0.1  # about 4 standard errors


@pytest.mark.parametrize(
    ("power", "spread", "verdict"),
    [(1.5, 0.1, "supported"), (0.6, 0.1, "not supported"), (1.0, 0.5, "undecided")],
)
def test_growth_is_judged_by_its_rule(power, spread, verdict):
    (finding,) = copies_findings(planted(power, spread=spread))
    assert finding.verdict == verdict
    assert finding.null_value == 1
    assert finding.low < finding.value < finding.high
    assert "12 solutions" in finding.statement


def test_no_barrier_one_replica_and_one_number_leave_it_undecided():
    flat = planted(1)
    flat["barrier"] = 0 * flat.barrier
    for data in (flat, planted(1).isel(replica=[0]), planted(1).isel(moved=[0])):
        (finding,) = copies_findings(data)
        assert (finding.verdict, finding.value) == ("undecided", None)


# Refusals


def test_what_cannot_be_moved_is_refused_by_name():
    landscape, points = task(4, 6, 3)

    def refused(message, **options):
        with pytest.raises(ValueError, match=message):
            partial_copies(landscape, points, **options)

    refused(r"^moved=\[3\]: transpositions move an even number", moved=[3])
    refused(r"^moved=\[4, 2\]: expected rising numbers from 2 to 6", moved=[4, 2])
    refused(r"^moved=\[8\]: expected rising numbers from 2 to 6", moved=[8])
    refused(r"^moved=\[\]", moved=[])
    refused(r"^kinds=\['swap'\]: expected different ones of transpositions", kinds=["swap"])
    refused(r"^kinds=\['cycle', 'cycle'\]", kinds=["cycle", "cycle"])
    refused(r"^draws=0", draws=0)
    refused(r"^layer=1: the module has 1 hidden layers", layer=1)
    refused(r"^resolution=2", resolution=2)
    odd = partial_copies(landscape, points, moved=[3], kinds=["cycle", "random"], resolution=3)
    assert odd.moved.values.tolist() == [3]
    single = Landscape(mlp(4, [1], 3).double(), landscape.x, landscape.y)
    with pytest.raises(ValueError, match="one unit, and it takes two"):
        partial_copies(single, torch.zeros(single.n).double())
    image = Landscape(cnn(1, 2, width=2), torch.zeros(4, 1, 4, 4), torch.tensor([0, 1, 0, 1]))
    with pytest.raises(TypeError, match=r"Conv2d.*pass symmetry="):
        partial_copies(image, torch.zeros(image.n))


def test_a_symmetry_that_is_not_the_modules_is_found_out():
    landscape, points = task(4, 6, 3)
    (layer,) = symmetries.of(landscape.module).layers
    without_bias = HiddenLayer(
        layer.name, layer.incoming, None, layer.outgoing, layer.inputs, layer.width, layer.outputs,
        layer.rescalable,
    )  # fmt: skip
    wrong = Symmetry((without_bias,), landscape.n)
    with pytest.raises(ValueError, match=r"computes something else.*symmetry the module's"):
        partial_copies(landscape, points, symmetry=wrong)
