"""Copies are found again, the nearest of all permutations is the nearest, distances are norms."""

from itertools import pairwise

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import oracles
from spinscape.glass.matching import activation_matching, hidden_units
from spinscape.glass.matching.activation_matching import activation_correlations
from spinscape.glass.matching.alignment import METHODS, align, align_pairs, solve_assignments
from spinscape.glass.matching.hidden_units import hidden_units_of
from spinscape.glass.matching.orbits import euclidean_distances, orbit_distances
from spinscape.nets import symmetry as symmetries

DTYPES = [torch.float32, torch.float64]


def dense(*sizes, activation=nn.ReLU, dtype=torch.float64):
    layers = [
        part
        for first, second in pairwise(sizes)
        for part in (nn.Linear(first, second), activation())
    ]
    return nn.Sequential(*layers[:-1]).to(dtype)


def random_points(module, count, seed):
    generator = torch.Generator().manual_seed(seed)
    shape = count, sum(parameter.numel() for parameter in module.parameters())
    return torch.randn(shape, generator=generator, dtype=next(module.parameters()).dtype)


def rounding(points):
    """Distances below this are rounding: a few units in the last place of a point's norm."""
    return 16 * torch.finfo(points.dtype).eps * float(points.norm(dim=-1).max())


def samples(count, inputs, seed=0):
    return torch.randn(count, inputs, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [(6, 12, 4), (6, 10, 8, 4), (6, 10, 8, 9, 4)])
def test_permuted_and_rescaled_copies_are_recovered(sizes, dtype, method):
    module = dense(*sizes, dtype=dtype)
    points = random_points(module, 3, seed=1)
    for k, point in enumerate(points):
        copy, orders = oracles.hidden_copy(module, point, seed=k)
        assert (copy - point).norm() > 1
        found = align(module, point, copy, method=method, x=samples(200, 6))
        assert float(found.distance) < 10 * rounding(points)
        undone = torch.from_numpy(found.permutation.values).split(list(sizes[1:-1]))
        for order, back in zip(orders, undone, strict=True):
            assert torch.equal(order[back], torch.arange(len(order)))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("dtype", "least"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
@pytest.mark.parametrize("hidden", [(64,), (512,), (64, 128)])
def test_wide_copies_are_recovered_to_rounding(hidden, dtype, least, method):
    module = dense(32, *hidden, 10, dtype=dtype)
    point = random_points(module, 1, seed=13)[0]
    copy, orders = oracles.hidden_copy(module, point, seed=14)
    found = align(module, point, copy, method=method, x=samples(600, 32))
    size = torch.from_numpy(found.reference.values).norm()
    assert float(found.distance) < least * float(size)
    undone = torch.from_numpy(found.permutation.values).split(list(hidden))
    for order, back in zip(orders, undone, strict=True):
        assert torch.equal(order[back], torch.arange(len(order)))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(1, 7), min_size=1, max_size=3),
    st.integers(0, 10**6),
    st.sampled_from([nn.ReLU, nn.Tanh]),
    st.floats(-3, 3),
)
def test_matching_by_weights_never_increases_the_distance(hidden, seed, activation, tilt):
    module = dense(3, *hidden, 2, activation=activation)
    a, b = random_points(module, 2, seed=seed)
    b = b + tilt * a  # from unrelated to nearly the same, so that staying put may be best
    ends = symmetries.of(module).balance(torch.stack([a, b]))
    before = float((ends[0] - ends[1]).norm())
    assert float(align(module, a, b).distance) <= before * (1 + 1e-12) + 1e-12


@pytest.mark.parametrize("activation", [nn.ReLU, nn.LeakyReLU, nn.Tanh])
@pytest.mark.parametrize("width", [1, 3, 5])
def test_no_permutation_is_nearer_than_the_one_found(width, activation):
    module = dense(4, width, 3, activation=activation)
    points = random_points(module, 6, seed=width)
    rescaled = activation is not nn.Tanh
    for a, b in zip(points[:3], points[3:], strict=True):
        nearest = oracles.nearest_by_enumeration(module, a, b, rescaled=rescaled)
        assert float(align(module, a, b).distance) == pytest.approx(nearest, rel=1e-12)


def test_align_returns_both_networks_and_what_was_exchanged():
    module = dense(5, 7, 6, 3)
    a, b = random_points(module, 2, seed=2)
    found = align(module, a, b)
    reference, point = (torch.from_numpy(found[name].values) for name in ("reference", "point"))
    x = torch.randn(20, 5, generator=torch.Generator().manual_seed(0), dtype=a.dtype)
    for original, kept in ((a, reference), (b, point)):
        torch.testing.assert_close(
            oracles.run_point(module, kept, x), oracles.run_point(module, original, x)
        )
        for incoming, outgoing in oracles.unit_norms(module, kept):
            torch.testing.assert_close(incoming, outgoing)
    assert float(found.distance) == pytest.approx(float((reference - point).norm()), rel=1e-12)
    assert found.layer.values.tolist() == [0] * 7 + [1] * 6
    balanced = oracles.balanced(module, b)
    exchanged = torch.from_numpy(found.permutation.values).split([7, 6])
    torch.testing.assert_close(oracles.permuted(module, balanced, exchanged), point)
    assert all(var.attrs["units"] and var.attrs["long_name"] for var in found.data_vars.values())
    assert {"seed", "arguments", "versions", "source"} <= set(found.attrs)


def test_one_hidden_layer_needs_no_gain_above_rounding():
    """Two units 1 % apart are told apart in float32, by `align` as by `orbit_distances`."""
    module = dense(64, 64, 10, dtype=torch.float32)
    point = random_points(module, 1, seed=3)[0]
    pair = torch.tensor([1, 0, *range(2, 64)])
    twin = oracles.permuted(module, point, [torch.tensor([0, 0, *range(2, 64)])])
    twin[64:128] *= 1.01
    swapped = oracles.permuted(module, twin, [pair])
    assert float(align(module, twin, swapped).distance) == 0
    symmetry = symmetries.of(module)
    assert float(orbit_distances(symmetry, torch.stack([twin, swapped]))[0, 1]) == 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [(6, 12, 4), (6, 10, 8, 4)])
def test_orbit_distances_are_those_of_align_whoever_is_permuted_or_rescaled(sizes, dtype):
    module = dense(*sizes, dtype=dtype)
    symmetry = symmetries.of(module)
    points = random_points(module, 5, seed=4)
    found = orbit_distances(symmetry, points)
    assert found.dtype == torch.float64
    assert torch.equal(found, found.T)
    assert not found.diagonal().any()
    for i in range(5):
        for j in range(i + 1, 5):
            alone = float(align(module, points[i], points[j]).distance)
            assert alone == pytest.approx(float(found[i, j]), abs=rounding(points))
    copies = torch.stack([oracles.hidden_copy(module, p, seed=k)[0] for k, p in enumerate(points)])
    if len(sizes) == 3:  # deeper ones find a local optimum, which depends on where they begin
        torch.testing.assert_close(orbit_distances(symmetry, copies), found, rtol=1e-5, atol=0)
    rescaled = oracles.hidden_copy(module, points[0], seed=9, permute=False)[0]
    again = orbit_distances(symmetry, torch.stack([rescaled, *points[1:]]))
    torch.testing.assert_close(again, found, rtol=1e-5, atol=0)


def test_deep_alignment_is_no_farther_than_the_balanced_points():
    module = dense(6, 10, 8, 4)
    points = random_points(module, 6, seed=5)
    symmetry = symmetries.of(module)
    balanced = torch.stack([oracles.balanced(module, point) for point in points])
    assert (orbit_distances(symmetry, points) <= torch.cdist(balanced, balanced) + 1e-12).all()


def test_distances_of_near_copies_keep_their_digits_in_float32():
    module = dense(64, 32, 10, dtype=torch.float32)
    point = oracles.balanced(module, random_points(module, 1, seed=6)[0])
    near = point + 1e-5 * random_points(module, 1, seed=7)[0]
    expected = (oracles.balanced(module, near.double()) - point.double()).norm().item()
    gram = point @ point + near @ near - 2 * point @ near
    assert abs(float(gram.clamp(min=0).sqrt()) / expected - 1) > 0.1
    copy, _ = oracles.hidden_copy(module, near, seed=1, scales=(0.5, 2.0))  # exact in binary
    both = torch.stack([point, copy])
    # Balancing rounds each weight by less than two units in its last place.
    tolerance = 2 * torch.finfo(torch.float32).eps * float(point.norm())
    assert tolerance < 0.05 * expected
    for measured in (
        float(align(module, point, copy).distance),
        float(orbit_distances(symmetries.of(module), both)[0, 1]),
    ):
        assert measured == pytest.approx(expected, abs=tolerance)
    plain = float(euclidean_distances(torch.stack([point, near]))[0, 1])
    assert plain == pytest.approx(float((near.double() - point.double()).norm()), rel=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_pairs_are_aligned_alike_alone_and_together(method, monkeypatch):
    module = dense(6, 12, 4)
    points = random_points(module, 4, seed=8)
    pairs = torch.tensor([[0, 1], [3, 2], [0, 2]])
    options = {"method": method, "x": samples(50, 6)}
    monkeypatch.setattr(activation_matching, "BLOCK_ELEMENTS", 1)
    found = align_pairs(symmetries.of(module), points, pairs, module=module, **options)
    monkeypatch.undo()
    for k, (i, j) in enumerate(pairs.tolist()):
        alone = align(module, points[i], points[j], **options)
        assert torch.equal(found.permutations[0][k], torch.from_numpy(alone.permutation.values))
        assert float(found.distance[k]) == pytest.approx(float(alone.distance), rel=1e-12)


def hidden_activations(module, point, x):
    """Activations of every hidden layer, from the module's own parts."""
    model, found = oracles.loaded(module, point), []
    with torch.no_grad():
        for part in list(model)[:-1]:
            x = part(x)
            if not isinstance(part, nn.Linear):
                found.append(x)
    return found


def correlations(near, far):
    with np.errstate(invalid="ignore"):  # units that are silent have none
        return np.nan_to_num(np.corrcoef(near, far)[: len(near), len(near) :])


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.Softplus])
def test_correlations_are_those_of_the_activations_whatever_the_blocks(activation, monkeypatch):
    module = dense(5, 6, 4, 3, activation=activation)
    a, b = random_points(module, 4, seed=15).split(2)
    x = samples(90, 5)
    units = hidden_units_of(module)
    whole = activation_correlations(units, x, a, b)
    monkeypatch.setattr(hidden_units, "SAMPLES", 16)
    pieces = activation_correlations(units, x, a, b)
    for k in range(2):
        torch.testing.assert_close(pieces[k], whole[k], rtol=1e-12, atol=1e-12)
        for pair in range(2):
            near, far = (hidden_activations(module, p[pair], x)[k].T for p in (a, b))
            expected = correlations(near, far)
            assert whole[k][pair].numpy() == pytest.approx(expected, abs=1e-12)


def test_the_units_matched_by_activations_are_the_most_correlated_of_all_assignments():
    module = dense(5, 5, 4, 3)
    x = samples(300, 5)
    for seed in range(5):
        a, b = random_points(module, 2, seed=seed)
        found = align(module, a, b, method="activations", x=x)
        orders = np.split(found.permutation.values, [5])
        for k, order in enumerate(orders):
            near, far = (hidden_activations(module, p, x)[k].T for p in (a, b))
            table = correlations(near, far)
            matched = table[np.arange(len(order)), order].sum()
            # the cosines of weights, which decide between equals, may cost 1e-4 a unit at most
            assert matched >= oracles.best_assignment(table) - 2e-4 * len(order)


def test_units_that_are_silent_on_all_samples_are_told_apart_by_their_weights():
    module = dense(5, 8, 3)
    point = random_points(module, 1, seed=16)[0]
    point[40:44] = -100  # biases that no input overcomes
    x = samples(100, 5)
    assert not hidden_activations(module, point, x)[0][:, :4].any()
    copy, _ = oracles.hidden_copy(module, point, seed=17)
    found = align(module, point, copy, method="activations", x=x)
    assert float(found.distance) < rounding(point)


def test_activations_in_place_and_images_give_what_copies_and_vectors_do():
    plain = dense(12, 6, 3)
    placed = nn.Sequential(nn.Flatten(), plain[0], nn.ReLU(inplace=True), plain[2])
    a, b = random_points(plain, 2, seed=18)
    x = samples(40, 12)
    before = x.clone()
    expected = align(plain, a, b, method="activations", x=x)
    found = align(placed, a, b, method="activations", x=x.view(40, 3, 4))
    assert np.array_equal(found.permutation, expected.permutation)
    assert torch.equal(x, before)
    assert placed[2].inplace


@pytest.mark.parametrize("dtype", DTYPES)
def test_assignments_are_the_best_and_leave_the_scores_alone(dtype):
    scores = torch.randn(7, 5, 5, generator=torch.Generator().manual_seed(9), dtype=dtype)
    before = scores.clone()
    solved = solve_assignments(scores)
    assert torch.equal(scores, before)
    for matrix, order in zip(scores, solved, strict=True):
        value = float(matrix[torch.arange(5), order].sum())
        assert value == pytest.approx(oracles.best_assignment(matrix), rel=1e-6)
    assert solve_assignments(torch.empty(0, 5, 5)).shape == (0, 5)


def test_stored_points_are_taken_and_the_inputs_left_alone():
    module = dense(4, 5, 3)
    a, b = random_points(module, 2, seed=10)
    before = a.clone(), b.clone(), [p.clone() for p in module.parameters()]
    state = torch.get_rng_state()
    stored = [xr.DataArray(p.numpy(), dims="n") for p in (a, b)]
    assert align(module, *stored).identical(align(module, a, b))
    assert torch.equal(a, before[0])
    assert torch.equal(b, before[1])
    assert all(map(torch.equal, module.parameters(), before[2]))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_network_without_hidden_units_has_its_plain_distance():
    module = nn.Linear(4, 3).double()
    a, b = random_points(module, 2, seed=11)
    found = align(module, a, b)
    assert float(found.distance) == pytest.approx(float((a - b).norm()))
    assert found.sizes["unit"] == 0
    assert align(module, a, b, method="activations", x=samples(7, 4)).sizes["unit"] == 0
    assert torch.equal(torch.from_numpy(found.point.values), b)


def test_what_cannot_be_aligned_is_refused_by_name():
    module = dense(4, 5, 3)
    a, b = random_points(module, 2, seed=12)
    with pytest.raises(ValueError, match=r"^b: expected one point of length 43"):
        align(module, a, b[:-1])
    with pytest.raises(ValueError, match=r"^a: expected one point"):
        align(module, torch.stack([a, b]), b)
    with pytest.raises(ValueError, match=r"^b: holds values that are not finite"):
        align(module, a, torch.full_like(b, torch.nan))
    with pytest.raises(ValueError, match=r"float64.*float32.*make equal"):
        align(module, a, b.float())
    with pytest.raises(ValueError, match=r"^method='best': expected 'weights' or 'activations'"):
        align(module, a, b, method="best")
    with pytest.raises(ValueError, match=r"^x: method='activations' needs samples"):
        align(module, a, b, method="activations")
    with pytest.raises(ValueError, match=r"^x: expected samples of 4 inputs, got shape \(7, 3\)"):
        align(module, a, b, method="activations", x=samples(7, 3))
    other = symmetries.of(dense(4, 5, 3))
    part = type(other)(other.layers[:0], other.n)
    with pytest.raises(ValueError, match=r"^symmetry: of widths \(\), not that of the module"):
        align(module, a, b, method="activations", x=samples(7, 4), symmetry=part)
    normed = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5, affine=False), nn.Linear(5, 3))
    with pytest.raises(TypeError, match=r"BatchNorm1d.*activations of its hidden units"):
        align(normed, a, b, method="activations", x=samples(7, 4), symmetry=other)
    with pytest.raises(TypeError, match=r"'1' is a BatchNorm1d"):
        align(nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)), a, b)
    with pytest.raises(ValueError, match=r"^symmetry: of points of length"):
        align(module, a, b, symmetry=symmetries.of(dense(4, 6, 3)))
