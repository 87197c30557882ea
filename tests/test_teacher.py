"""Losses of ReLU students known exactly: by quadrature, by sampling, by symmetry."""

import numpy as np
import pytest
import torch
from scipy import integrate

import oracles
from spinscape.glass.paths.barriers import barrier
from spinscape.glass.paths.teacher import ReluTeacher, relu_kernel
from spinscape.glass.walking.moves import Gaussian
from spinscape.glass.walking.walks import walk
from spinscape.landscape.energy import Landscape

STANDARD_ERRORS = 3
SWAPS = {"one": [1, 0, 2, 3], "two": [1, 0, 3, 2]}
EXACT = {("one", 0.25): 0.0412869, ("one", 0.5): 0.0908451, ("two", 0.5): 0.2363035}
ORTHONORMAL = ReluTeacher(torch.eye(4, dtype=torch.float64))


def normal(*shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def copy_of(swap):
    incoming = torch.eye(4, dtype=torch.float64)[SWAPS[swap]]
    return torch.cat([incoming.flatten(), torch.ones(4, dtype=torch.float64)])


@pytest.mark.parametrize("angle", [0, 1e-9, 1e-4, 0.3, np.pi / 2, 2.5, np.pi])
def test_the_kernel_is_the_integral_over_the_plane_of_both_vectors(angle):
    u = torch.tensor([[1.5, 0, 0]], dtype=torch.float64)
    v = 0.7 * torch.tensor([[np.cos(angle), np.sin(angle), 0]])
    # In polar coordinates the radius gives ∫ r³ exp(−r²/2) dr = 2, the angle the rest.
    around, _ = integrate.quad(
        lambda t: max(np.cos(t), 0) * max(np.cos(t - angle), 0),
        angle - np.pi / 2,
        np.pi / 2,
        epsabs=1e-13,
    )
    expected = 1.5 * 0.7 * 2 * around / (2 * np.pi)
    assert relu_kernel(u, v).item() == pytest.approx(expected, abs=1e-13)


@pytest.mark.parametrize(("swap", "at"), EXACT)
def test_exchanged_units_of_an_orthonormal_teacher_have_their_exact_loss(swap, at):
    found = barrier(ORTHONORMAL, ORTHONORMAL.point, copy_of(swap), resolution=5)
    assert float(found.loss.sel(lam=at)) == pytest.approx(EXACT[swap, at], abs=5e-8)
    assert float(found.barrier) == pytest.approx(EXACT[swap, 0.5], abs=5e-8)
    assert found.loss.isel(lam=[0, -1]).values == pytest.approx(0, abs=1e-14)


@pytest.mark.parametrize(("swap", "at"), EXACT)
def test_a_landscape_of_gaussian_samples_agrees_within_three_standard_errors(swap, at):
    x = normal(20_000, 4, seed=2)
    answers = x.clamp(min=0).sum(1, keepdim=True)
    sampled = Landscape(ORTHONORMAL.module, x, answers, loss="mse")
    point = torch.lerp(ORTHONORMAL.point, copy_of(swap), at)
    half = float(sampled.loss(point)) / 2  # "mse" is the mean square, without the ½
    squares = (sampled.outputs(point) - answers).square() / 2
    error = float(squares.std()) / len(x) ** 0.5
    assert abs(half - float(ORTHONORMAL.energy(point))) < STANDARD_ERRORS * error < 0.1 * half


@pytest.mark.parametrize("units", [1, 3, 5])
def test_any_student_of_any_teacher_agrees_with_sampling(units):
    teacher = ReluTeacher(normal(3, 6, seed=3), normal(3, seed=4), units=units)
    points = normal(2, 4, teacher.n, seed=5)
    assert teacher.energy(points).shape == (2, 4)
    x = normal(40_000, 6, seed=6)
    answers = (x @ teacher.weights.T).clamp(min=0) @ teacher.outputs
    for point, exact in zip(points.flatten(0, 1), teacher.energy(points).flatten(), strict=True):
        outputs = oracles.run_point(teacher.module, point, x)[:, 0]
        squares = (outputs - answers).square() / 2
        error = float(squares.std()) / len(x) ** 0.5
        # eight comparisons, three times: one in 15 misses three errors by chance
        assert abs(float(squares.mean() - exact)) < (STANDARD_ERRORS + 1) * error < 0.1 * exact


def test_the_gradient_is_that_of_finite_differences_and_finite_where_units_are_parallel():
    teacher = ReluTeacher(normal(3, 5, seed=7), normal(3, seed=8), units=4)
    points = normal(3, teacher.n, seed=9).requires_grad_()
    assert torch.autograd.gradcheck(teacher.energy, points)
    (slope,) = torch.autograd.grad(teacher.energy(points).sum(), points)
    torch.testing.assert_close(teacher.gradient(points), slope)
    assert teacher.gradient(teacher.point).abs().max() < 1e-7
    assert (teacher.gradient(torch.zeros(2, teacher.n)) == 0).all()
    opposite = torch.cat([-teacher.weights.flatten(), -teacher.outputs])
    same = ReluTeacher(teacher.weights, teacher.outputs)
    assert same.gradient(opposite).isfinite().all()


def test_single_precision_loses_no_more_than_its_rounding():
    point = torch.lerp(ORTHONORMAL.point, copy_of("one"), 1e-3)
    exact = float(ORTHONORMAL.energy(point))
    assert exact == pytest.approx(float(oracles_loss(point)), rel=1e-9)
    rounded = ORTHONORMAL.energy(point.float())
    assert rounded.dtype == torch.float32
    assert float(rounded) == pytest.approx(exact, rel=1e-4)
    assert float(ORTHONORMAL.energy(ORTHONORMAL.point.float())) == 0


def oracles_loss(point):
    return oracles.relu_population_loss(point[:16], torch.eye(4, dtype=torch.float64))


def test_spare_units_are_silent_and_walks_take_it_for_an_energy():
    wide = ReluTeacher(torch.eye(3, dtype=torch.float64), units=5)
    assert float(wide.energy(wide.point)) == pytest.approx(0, abs=1e-15)
    found = walk(wide, wide.point.expand(3, -1), move=Gaussian(0.01), steps=20)
    assert (found.energy.isel(step=-1) > 0).all()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ReluTeacher(torch.ones(3)), r"^weights \(3,\)"),
        (lambda: ReluTeacher(torch.ones(3, 2), torch.ones(2)), r"outputs \(2,\)"),
        (lambda: ReluTeacher(torch.full((3, 2), torch.nan)), "not finite"),
        (lambda: ReluTeacher(torch.ones(3, 2), units=0), "^units=0"),
        (lambda: ReluTeacher(torch.ones(3, 2), units=2).point, "a student of 2 units cannot"),
        (lambda: ORTHONORMAL.energy(torch.zeros(3, 19)), "expected last axis 20"),
    ],
)
def test_what_fits_no_teacher_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
