"""Adaptive sharpness and relative flatness: eigenvalues, exact Hessians, rescaled copies."""

import json
from math import sqrt

import numpy as np
import pytest
import scipy.linalg
import torch
from scipy.optimize import brentq
from torch import nn

import oracles
from spinscape.glass.rugged.flatness import relative_flatness
from spinscape.glass.rugged.roughness import ruggedness
from spinscape.glass.rugged.sharpness import adaptive_sharpness
from spinscape.landscape.energy import Landscape
from spinscape.nets.models import mlp

FALSE_ALARM = 4.0  # standard errors: once in 16 000 comparisons, were the seeds not fixed


def normal(*shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


class Quadratic:
    """½(w − c)ᵀH(w − c), one H for all points."""

    def __init__(self, hessian, centre):
        self.hessian, self.centre = hessian, centre

    def energy(self, points):
        away = points - self.centre
        return ((away @ self.hessian) * away).sum(-1) / 2

    def gradient(self, points):
        return (points - self.centre) @ self.hessian


def quadratic(*, seed, n=8):
    root = normal(n, n, seed=seed)
    return Quadratic(root @ root.T / n, normal(n, seed=seed + 1))


def small(*, seed=0, replicas=3, hidden=(6,)):
    module = mlp(4, list(hidden), 3).double()
    n = sum(parameter.numel() for parameter in module.parameters())
    y = torch.randint(3, (40,), generator=torch.Generator().manual_seed(seed))
    return Landscape(module, normal(40, 4, seed=seed), y), normal(replicas, n, seed=seed + 1)


def copies_of(landscape, points, *, permute):
    return torch.stack(
        [
            oracles.hidden_copy(landscape.module, point, seed=k, permute=permute)[0]
            for k, point in enumerate(points)
        ]
    )


# Adaptive sharpness


def highest(bowl, point, rho):
    """Maximum over the ellipsoid, from the equations of Lagrange's multiplier in its axes."""
    sizes = np.abs(point.numpy())
    values, axes = np.linalg.eigh(sizes[:, None] * bowl.hessian.numpy() * sizes)
    slope = axes.T @ (sizes * bowl.gradient(point[None])[0].numpy())

    def length(multiplier):
        return np.linalg.norm(slope / (multiplier - values)) - rho

    low = values.max() + 1e-9 * values.max()
    move = slope / (brentq(length, low, values.max() + 10 * np.linalg.norm(slope) / rho) - values)
    return slope @ move + values @ move**2 / 2


@pytest.mark.parametrize("rho", [0.1, 2.0])
def test_in_a_minimum_it_is_half_the_largest_generalised_eigenvalue(rho):
    bowl = quadratic(seed=1)
    point = bowl.centre
    metric = np.diag(point.numpy() ** -2.0)
    largest = scipy.linalg.eigh(bowl.hessian.numpy(), metric, eigvals_only=True)[-1]
    (found,) = adaptive_sharpness(bowl, point[None], rho=rho, steps=300, seed=0)
    assert float(found) == pytest.approx(rho**2 * largest / 2, rel=1e-9)


def test_on_a_slope_it_is_the_maximum_over_the_ellipsoid_and_never_above():
    bowl, points = quadratic(seed=3), normal(20, 8, seed=5)
    exact = np.array([highest(bowl, point, 0.5) for point in points])
    found = adaptive_sharpness(bowl, points, rho=0.5, steps=300, seed=0).numpy()
    few = adaptive_sharpness(bowl, points, rho=0.5, steps=2, seed=0).numpy()
    assert found == pytest.approx(exact, rel=1e-7)
    assert (few <= exact * (1 + 1e-9)).all()
    assert (few <= found).all()
    assert few.mean() > 0.9 * exact.mean()


def test_four_times_the_curvature_is_four_times_as_sharp():
    bowl = quadratic(seed=6)
    steep = Quadratic(4 * bowl.hessian, bowl.centre)
    low, high = (adaptive_sharpness(e, bowl.centre[None], seed=0) for e in (bowl, steep))
    assert float(high) == pytest.approx(4 * float(low))


def test_level_ground_is_not_sharp():
    level = Quadratic(torch.zeros(4, 4).double(), torch.zeros(4).double())
    assert adaptive_sharpness(level, normal(2, 4, seed=0), seed=0).tolist() == [0, 0]


def test_a_rescaled_copy_is_as_sharp_without_any_balancing():
    landscape, points = small()
    copies = copies_of(landscape, points, permute=False)
    found, copied = (adaptive_sharpness(landscape, p, seed=1) for p in (points, copies))
    torch.testing.assert_close(copied, found, rtol=1e-8, atol=0)


def test_a_point_climbs_alike_whoever_is_beside_it():
    landscape, points = small(replicas=4)
    whole = adaptive_sharpness(landscape, points, seed=2)
    torch.testing.assert_close(adaptive_sharpness(landscape, points[:2], seed=2), whole[:2])


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"rho": 0.0}, {"rho": float("nan")}])
def test_numbers_out_of_range_are_refused_by_name(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=rf"^{name}={value}: expected"):
        adaptive_sharpness(quadratic(seed=0), normal(2, 8, seed=0), seed=0, **wrong)


def test_an_energy_without_gradient_is_refused():
    with pytest.raises(TypeError, match="has no gradient"):
        adaptive_sharpness(oracles.Bowl([1.0]), normal(2, 1, seed=0), seed=0)


# Relative flatness


def kappa(landscape, point, layer):
    """Σ ⟨w_s, w_s'⟩ tr H_ss' of a layer, block by block, from the whole Hessian."""
    shapes = [(name, tuple(p.shape)) for name, p in landscape.module.named_parameters()]
    hessian = oracles.dense_hessian(landscape.module, landscape.x, landscape.y, point)
    start = 0
    for name, shape in shapes:
        size = int(np.prod(shape))
        if name == layer:
            weights = point[start : start + size].view(shape)
            block = hessian[start : start + size, start : start + size].view(*shape, *shape)
            break
        start += size
    total = 0.0
    for s in range(shape[0]):
        for other in range(shape[0]):
            total += float(weights[s] @ weights[other] * block[s, :, other, :].trace())
    return total


def names_of(module):
    return [name for name, p in module.named_parameters() if p.ndim > 1]


@pytest.mark.parametrize("which", [0, 1])
def test_it_is_that_of_the_exact_hessian_within_its_standard_error(which):
    landscape, points = small(seed=7, replicas=6)
    layer = names_of(landscape.module)[which]
    exact = torch.tensor([kappa(landscape, point, layer) for point in points]).double()
    value, error = relative_flatness(landscape, points, layer=layer, probes=400, seed=0)
    assert ((value - exact).abs() < FALSE_ALARM * error).all()
    assert ((value - exact) / error).square().mean() < 1 + FALSE_ALARM * sqrt(2 / len(points))
    assert float((error / exact.abs()).median()) < 0.2


def test_of_the_output_layer_it_has_a_closed_form():
    """The Hessian of cross-entropy in the last weights is (diag p − ppᵀ) ⊗ φφᵀ."""
    landscape, points = small(seed=8, replicas=2)
    first, last = oracles.taken_apart(landscape.module, points[0])
    features = (landscape.x @ first[0].T + first[1]).relu()
    p = (features @ last[0].T + last[1]).softmax(-1)
    gram = last[0] @ last[0].T
    form = (p * gram.diag()).sum(-1) - ((p @ gram) * p).sum(-1)
    exact = (form * features.square().sum(-1)).mean()
    value, error = relative_flatness(landscape, points[:1], probes=400, seed=1)
    assert abs(float(value - exact)) < FALSE_ALARM * float(error)
    last_name = names_of(landscape.module)[-1]
    assert kappa(landscape, points[0], last_name) == pytest.approx(float(exact))


def test_rows_may_be_rescaled_and_columns_may_not():
    """Why an output layer is measured in a balanced network: its columns are rescaled."""
    landscape, points = small(seed=9)
    copies = copies_of(landscape, points, permute=True)
    hidden, output = names_of(landscape.module)
    for point, copy in zip(points, copies, strict=True):
        first, second = (kappa(landscape, at, hidden) for at in (point, copy))
        assert second == pytest.approx(first)
        first, second = (kappa(landscape, at, output) for at in (point, copy))
        assert abs(second - first) > 0.05 * abs(first)


def test_in_ruggedness_a_copy_is_as_flat_in_either_layer():
    landscape, points = small(seed=9)
    copies = copies_of(landscape, points, permute=True)
    for layer in names_of(landscape.module):
        options = {"relative_flatness": {"layer": layer, "probes": 3}}
        found, copied = (
            ruggedness(landscape, p, measures=["relative_flatness"], options=options, seed=3)
            for p in (points, copies)
        )
        assert copied.relative_flatness.values == pytest.approx(found.relative_flatness.values)
        assert json.loads(found.attrs["arguments"])["options"] == options


def test_filters_of_a_convolution_are_rows():
    layers = nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(18, 2)
    module = nn.Sequential(*layers).double()
    landscape = Landscape(module, normal(12, 1, 5, 5, seed=10), torch.tensor([0, 1] * 6))
    layer, point = names_of(module)[0], oracles.point_of(module)
    weights = dict(module.named_parameters())[layer]
    size, rows = weights.numel(), weights.shape[0]
    vectors, total = torch.eye(size, len(point)).double(), 0.0
    block = landscape.hvp(point, vectors)[:, :size]  # the first parameter's
    gram = weights.detach().flatten(1) @ weights.detach().flatten(1).T
    for s in range(rows):
        for other in range(rows):
            step = size // rows
            part = block[s * step : (s + 1) * step, other * step : (other + 1) * step]
            total += float(gram[s, other] * part.trace())
    value, error = relative_flatness(landscape, point[None], layer=layer, probes=200, seed=0)
    assert abs(float(value) - total) < FALSE_ALARM * float(error)


def test_what_it_cannot_measure_is_refused():
    landscape, points = small()
    with pytest.raises(ValueError, match=r"^layer='head': expected a weight matrix, one of"):
        relative_flatness(landscape, points, layer="head", seed=0)
    with pytest.raises(ValueError, match=r"^probes=1: expected 2 or more"):
        relative_flatness(landscape, points, probes=1, seed=0)
    with pytest.raises(TypeError, match="no module with layers"):
        relative_flatness(oracles.Bowl([1.0]), normal(2, 1, seed=0), seed=0)
