"""Paths between solutions: exact population losses, symmetry at both ends, planted verdicts."""

from itertools import product

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import oracles
from spinscape.glass.matching.alignment import align
from spinscape.glass.paths import interpolation
from spinscape.glass.paths.barriers import barrier
from spinscape.glass.paths.interpolation import KINDS, permutation_findings, permutation_paths
from spinscape.glass.paths.pairings import balanced_pairs
from spinscape.landscape.energy import Landscape
from spinscape.nets import symmetry as symmetries
from spinscape.nets.models import cnn, mlp

FALSE_ALARM = 4.0  # standard errors: once in 16 000 comparisons, were the seeds not fixed
SWAPS = {"one": [1, 0, 2, 3], "two": [1, 0, 3, 2]}
EXACT = {("one", 0.25): 0.0412869, ("one", 0.5): 0.0908451, ("two", 0.5): 0.2363035}


def normal(*shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def small(*, seed=0, replicas=5, sizes=(4, 6, 3)):
    """A landscape of random samples and random solutions, in double precision."""
    module = mlp(sizes[0], list(sizes[1:-1]), sizes[-1]).double()
    n = sum(parameter.numel() for parameter in module.parameters())
    x = normal(40, sizes[0], seed=seed)
    y = torch.randint(sizes[-1], (40,), generator=torch.Generator().manual_seed(seed))
    return Landscape(module, x, y), normal(replicas, n, seed=seed + 1)


def swapped(name):
    teacher = torch.eye(4, dtype=torch.float64)
    return teacher, teacher[SWAPS[name]]


# barrier


@pytest.mark.parametrize(("swap", "at"), EXACT)
def test_swapped_orthonormal_units_have_their_exact_population_loss(swap, at):
    teacher, copy = swapped(swap)

    def energy(points):
        return oracles.relu_population_loss(points, teacher)

    found = barrier(energy, teacher.flatten(), copy.flatten(), resolution=5)
    assert float(found.loss.sel(lam=at)) == pytest.approx(EXACT[swap, at], abs=5e-8)
    assert float(found.loss.sel(lam=1 - at)) == pytest.approx(EXACT[swap, at], abs=5e-8)
    assert float(found.barrier) == pytest.approx(EXACT[swap, 0.5], abs=5e-8)
    # acos near 1 keeps half the digits, sin and pi − acos cancel all but its third power.
    assert found.loss.isel(lam=[0, -1]).values == pytest.approx(0, abs=1e-12)
    assert float(found.distance) == pytest.approx({"one": 2, "two": 8**0.5}[swap])


@pytest.mark.parametrize(("swap", "at"), EXACT)
def test_a_landscape_of_gaussian_samples_finds_the_same_within_standard_errors(swap, at):
    teacher, copy = swapped(swap)
    module = mlp(4, [4], 1, bias=False).double()
    x = normal(20_000, 4, seed=2)
    answers = x.clamp(min=0).sum(1)
    ends = [torch.cat([units.flatten(), torch.ones(4).double()]) for units in (teacher, copy)]
    found = barrier(Landscape(module, x, answers[:, None], loss="mse"), *ends, resolution=5)
    units = (1 - at) * teacher + at * copy
    squares = ((x @ units.T).clamp(min=0).sum(1) - answers).square() / 2
    error = float(squares.std()) / len(x) ** 0.5
    half = found.loss.sel(lam=at).item() / 2  # the loss is the mean square, without the ½
    assert abs(half - EXACT[swap, at]) < FALSE_ALARM * error < 0.1 * half
    assert found.loss.isel(lam=[0, -1]).values == pytest.approx(0, abs=1e-12)
    assert "error" not in found


def test_both_definitions_of_a_barrier_between_unequal_ends():
    def energy(points):
        w = points[..., 0]
        return w + 3 * w * (1 - w)  # above the line by 3w(1−w), above the mean by w + 3w(1−w) − ½

    ends = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    line = barrier(energy, *ends, resolution=61)
    mean = barrier(energy, *ends, definition="mean", resolution=61)
    assert float(line.barrier) == pytest.approx(3 / 4)
    assert float(mean.barrier) == pytest.approx(4 / 3 - 1 / 2)
    slope = barrier(lambda points: points[..., 0], *ends, definition="mean")
    assert float(slope.barrier) == pytest.approx(1 / 2)
    assert float(barrier(lambda points: points[..., 0], *ends).barrier) == pytest.approx(0)


def test_single_points_batches_and_stored_points_give_the_same():
    landscape, points = small()
    many = barrier(landscape, points[:2], points[2:4], resolution=7)
    assert dict(many.sizes) == {"lam": 7, "pair": 2}
    stored = (xr.DataArray(p.numpy(), dims=("pair", "n")) for p in (points[:2], points[2:4]))
    xr.testing.assert_identical(barrier(landscape, *stored, resolution=7), many)
    for k in range(2):
        single = barrier(landscape, points[k], points[k + 2], resolution=7)
        assert set(single.sizes) == {"lam"}
        xr.testing.assert_allclose(single, many.isel(pair=k), rtol=1e-10)


def test_losses_along_a_path_are_those_of_each_network_on_it():
    landscape, (a, b, *_) = small()
    found = barrier(landscape, a, b, resolution=5)
    at = torch.tensor([0, 0.25, 0.5, 0.75, 1], dtype=torch.float64)[:, None]
    models = oracles.models_at(landscape.module, (1 - at) * a + at * b)
    expected = oracles.losses_at(models, landscape.x, landscape.y)
    assert found.loss.values == pytest.approx(expected.numpy(), rel=1e-10)
    errors = oracles.errors_at(models, landscape.x, landscape.y)
    assert found.error.values == pytest.approx(errors.numpy(), abs=1e-12)
    assert all(var.attrs["units"] and var.attrs["long_name"] for var in found.data_vars.values())


# permutation_paths


@pytest.mark.parametrize("sizes", [(4, 6, 3), (4, 6, 5, 3)])
def test_all_ends_compute_the_functions_of_the_replicas_they_stand_for(sizes):
    landscape, points = small(sizes=sizes)
    seen = oracles.Seen(landscape)
    seen.x = landscape.x
    found = permutation_paths(seen, points, pairs=6, resolution=3, seed=3)
    outputs = oracles.outputs_at(oracles.models_at(landscape.module, points), landscape.x)
    first, second = found.pair.values.T
    for kind, ends in zip(KINDS, seen.ends, strict=True):
        for end, expected in zip(
            ends, (first, first if kind == "own copy" else second), strict=True
        ):
            models = oracles.models_at(landscape.module, end)
            computed = oracles.outputs_at(models, landscape.x)
            torch.testing.assert_close(computed, outputs[expected], rtol=1e-9, atol=1e-9)
    own = found.sel(kind="own copy")
    for name in ("loss", "error"):
        ends = own[name].isel(lam=0).values, own[name].isel(lam=-1).values
        assert ends[0] == pytest.approx(ends[1], abs=1e-10)
    assert own.barrier.values == pytest.approx(own.barrier_mean.values, abs=1e-10)
    assert (own.distance > 1).any()
    both = seen.ends[0]  # the multiset of weights stays, their places do not
    torch.testing.assert_close(both[0].sort(1).values, both[1].sort(1).values)


def test_aligned_paths_are_as_long_as_align_says_and_random_ones_no_shorter():
    landscape, points = small(replicas=6, sizes=(4, 7, 3))
    found = permutation_paths(landscape, points, pairs=15, resolution=3)
    distance = found.distance
    for path, (i, j) in enumerate(found.pair.values):
        alone = align(landscape.module, points[i], points[j])
        assert float(distance.sel(kind="aligned")[path]) == pytest.approx(float(alone.distance))
        by_data = align(landscape.module, points[i], points[j], method="activations", x=landscape.x)
        length = float(distance.sel(kind="aligned by activations")[path])
        assert length == pytest.approx(float(by_data.distance))
        assert length >= float(alone.distance) - 1e-12
        plain = float((points[i] - points[j]).norm())
        assert float(distance.sel(kind="independent")[path]) == pytest.approx(plain)
    longer = distance.sel(kind="random matching") - distance.sel(kind="aligned")
    assert (longer >= -1e-12).all()
    assert (longer > 1e-3).any()


def test_barriers_are_heights_above_the_ends_by_both_definitions():
    landscape, points = small()
    found = permutation_paths(landscape, points, pairs=4, resolution=9)
    loss, lam = found.loss.values, found.lam.values
    ends = loss[..., :1], loss[..., -1:]
    line = (loss - (1 - lam) * ends[0] - lam * ends[1]).max(-1)
    assert found.barrier.values == pytest.approx(line, abs=1e-12)
    mean = (loss - (ends[0] + ends[1]) / 2).max(-1)
    assert found.barrier_mean.values == pytest.approx(mean, abs=1e-12)
    assert {"seed", "arguments", "versions", "source"} <= set(found.attrs)
    assert all(var.attrs["units"] and var.attrs["long_name"] for var in found.data_vars.values())


@pytest.mark.parametrize("sizes", [(4, 6, 3), (4, 6, 5, 3)])
def test_a_path_depends_neither_on_the_number_of_pairs_nor_on_blocks(sizes, monkeypatch):
    landscape, points = small(sizes=sizes)
    whole = permutation_paths(landscape, points, pairs=7, resolution=5, seed=4)
    few = permutation_paths(landscape, points, pairs=3, resolution=5, seed=4)
    xr.testing.assert_allclose(few, whole.isel(path=slice(3)), rtol=1e-10)
    assert np.array_equal(few.pair, whole.pair[:3])
    monkeypatch.setattr(interpolation, "BLOCK_ELEMENTS", 2 * points.shape[1])
    xr.testing.assert_allclose(
        permutation_paths(landscape, points, pairs=7, resolution=5, seed=4), whole, rtol=1e-10
    )
    other = permutation_paths(landscape, points, pairs=7, resolution=5, seed=5)
    assert not np.allclose(other.barrier.sel(kind="own copy"), whole.barrier.sel(kind="own copy"))


def test_a_copy_of_a_solution_is_behind_a_barrier_until_it_is_aligned():
    landscape, points = small()
    copy, _ = oracles.hidden_copy(landscape.module, points[0], seed=5)
    state, before = torch.get_rng_state(), points.clone()
    found = permutation_paths(landscape, torch.stack([points[0], copy]), pairs=9)
    height = found.barrier.isel(path=0)
    assert found.sizes["path"] == 1
    assert float(height.sel(kind="independent")) > 0.01
    for kind in ("aligned", "aligned by activations"):
        assert float(height.sel(kind=kind)) == pytest.approx(0, abs=1e-10)
        assert float(found.distance.sel(kind=kind, path=0)) == pytest.approx(0, abs=1e-10)
    assert {finding.verdict for finding in permutation_findings(found)} == {"undecided"}
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(points, before)


@pytest.mark.parametrize("replicas", range(2, 12))
def test_pairs_differ_and_use_every_replica_equally_often(replicas):
    every = balanced_pairs(replicas, 10**6, seed=6)
    assert len(every) == replicas * (replicas - 1) // 2
    assert len({frozenset(pair) for pair in every.tolist()}) == len(every)
    assert (every[:, 0] != every[:, 1]).all()
    counts = np.zeros(replicas, int)
    for pairs, (i, j) in enumerate(every.tolist(), start=1):
        counts[[i, j]] += 1
        assert np.ptp(counts) <= 1
        assert torch.equal(balanced_pairs(replicas, pairs, seed=6), every[:pairs])


def test_the_seed_chooses_the_pairs():
    first, again, other = (balanced_pairs(20, 30, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


# permutation_findings


def planted(aligned, own, *, matched=0.9, spread=0.05, replicas=16, count=40, seed=7):
    """Barriers of independent pairs near 1, and of other kinds near the given heights."""
    heights = {"own copy": own, "independent": 1, "random matching": matched, "aligned": aligned}
    heights["aligned by activations"] = aligned
    generator = np.random.default_rng(seed)
    pairs = balanced_pairs(replicas, count, seed).numpy()
    height = [
        heights[kind] * (1 + spread * generator.standard_normal(len(pairs))) for kind in KINDS
    ]
    return xr.Dataset(
        {"barrier": (("kind", "path"), height), "pair": (("path", "end"), pairs)},
        {"kind": list(KINDS)},
    )


@pytest.mark.parametrize(
    ("aligned", "matched", "spread", "verdict"),
    [
        (0.1, 0.9, 0.05, "supported"),
        (0.8, 0.9, 0.05, "not supported"),
        (0.3, 0.1, 0.05, "not supported"),  # it makes matters worse
        (0.5, 0.9, 1.0, "undecided"),
    ],
)
def test_matching_removes_barriers_by_its_rule(aligned, matched, spread, verdict):
    paths = planted(aligned, 1, matched=matched, spread=spread)
    by_weights, _, by_activations = permutation_findings(paths)
    mean = paths.barrier.mean("path")
    for finding, kind in ((by_weights, "aligned"), (by_activations, "aligned by activations")):
        assert finding.verdict == verdict
        removed = 1 - float(mean.sel(kind=kind) / mean.sel(kind="random matching"))
        assert (finding.value, finding.null_value) == pytest.approx((removed, 0))
        assert finding.low < finding.value < finding.high
        assert "40 pairs" in finding.statement
    assert len({finding.question for finding in permutation_findings(paths)}) == 3
    assert permutation_findings(paths.isel(kind=slice(4))) == permutation_findings(paths)[:2]


@pytest.mark.parametrize(
    ("own", "spread", "verdict"),
    [
        (1.0, 0.05, "supported"),
        (0.5, 0.05, "not supported"),
        (2.0, 0.05, "not supported"),
        (1.25, 0.3, "undecided"),
    ],
)
def test_own_copies_are_alike_by_their_rule(own, spread, verdict):
    paths = planted(0.1, own, spread=spread)
    _, finding, _ = permutation_findings(paths)
    assert finding.verdict == verdict
    mean = paths.barrier.mean("path")
    ratio = float(mean.sel(kind="own copy") / mean.sel(kind="independent"))
    assert finding.value == pytest.approx(ratio)
    assert finding.low < finding.value < finding.high


def test_no_barrier_few_pairs_and_infinite_losses_leave_it_undecided():
    flat = planted(0.1, 1)
    flat["barrier"] = 0 * flat.barrier
    few = planted(0.1, 1).isel(path=[0])
    for finding in permutation_findings(flat) + permutation_findings(few):
        assert (finding.verdict, finding.value) == ("undecided", None)
    for kind, bad in product(KINDS, (np.nan, np.inf)):
        lost = planted(0.1, 1)
        lost.barrier[KINDS.index(kind), 3] = bad
        removed, alike, by_data = permutation_findings(lost)
        told = removed.statement + alike.statement + by_data.statement
        assert "on 1 of them the loss is not finite" in told
        both = ("independent", "random matching")
        assert (removed.verdict == "undecided") == (kind in (*both, "aligned"))
        assert (by_data.verdict == "undecided") == (kind in (*both, "aligned by activations"))
        assert (alike.verdict == "undecided") == (kind in ("own copy", "independent"))


# Refusals


def test_what_is_no_path_is_refused_by_name():
    landscape, points = small()
    a, b = points[:2]
    with pytest.raises(ValueError, match=r"^definition='top': expected 'line' or 'mean'"):
        barrier(landscape, a, b, definition="top")
    with pytest.raises(ValueError, match=r"^resolution=2"):
        barrier(landscape, a, b, resolution=2)
    with pytest.raises(ValueError, match=r"^a is \(1, 51\).*b is \(5, 51\)"):
        barrier(landscape, a, points)
    with pytest.raises(ValueError, match=r"^b: expected floating points"):
        barrier(landscape, a, b.long())
    with pytest.raises(ValueError, match=r"^points: expected at least two solutions, got 1"):
        permutation_paths(landscape, a)
    with pytest.raises(ValueError, match=r"^pairs=0"):
        permutation_paths(landscape, points, pairs=0)
    with pytest.raises(ValueError, match=r"^resolution=1"):
        permutation_paths(landscape, points, resolution=1)


def test_a_module_of_unknown_symmetry_is_refused_and_named():
    module = cnn(1, 2, width=2)
    image = Landscape(module, torch.zeros(4, 1, 4, 4), torch.tensor([0, 1, 0, 1]))
    with pytest.raises(TypeError, match=r"Conv2d.*pass symmetry="):
        permutation_paths(image, torch.zeros(2, image.n))
    plain = nn.Linear(3, 2).double()
    landscape = Landscape(plain, normal(5, 3, seed=8), torch.tensor([0, 1, 0, 1, 1]))
    found = permutation_paths(landscape, normal(3, 8, seed=9))
    assert float(found.distance.sel(kind="own copy").max()) == 0  # no hidden unit to renumber


def test_paths_by_activations_are_left_out_where_activations_are_not_known():
    class Other(nn.Module):
        """A chain, and something beside it that is none."""

        def __init__(self):
            super().__init__()
            self.chain = mlp(4, [6], 3).double()

        def forward(self, x):
            return self.chain(x) + x.sum(1, keepdim=True)

    plain, points = small()
    landscape = Landscape(Other(), plain.x, plain.y)
    known = symmetries.of(plain.module)
    found = permutation_paths(landscape, points, pairs=4, resolution=5, symmetry=known)
    assert found.kind.values.tolist() == list(KINDS[:-1])
    assert len(permutation_findings(found)) == 2
