"""Curvature of many points at once, against dense Hessians, curvlinops and exact formulas."""

import numpy as np
import pytest
import torch
from curvlinops import GGNLinearOperator, HessianLinearOperator
from tests.oracles import dense_hessian, mean_loss, models_at, run_point, update_statistics
from torch import nn
from torch.func import hessian, jacrev

from spinscape import Landscape, models
from spinscape.landscape import curvature, krylov
from spinscape.nets.initialisation import initial_points

EXACT = 1e-6


@pytest.fixture(scope="module")
def small():
    module = models.mlp(6, [5], 3, activation="tanh").double()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 6, dtype=torch.float64, generator=generator)
    landscape = Landscape(module, x, torch.arange(40) % 3)
    points = initial_points(module, [0, 1, 2]).double() * torch.tensor([[1.0], [2.0], [4.0]])
    return landscape, points


def dense(landscape, point, matrix="hessian"):
    """By curvlinops, which knows nothing of our code."""
    (model,) = models_at(landscape.module, point[None])
    operator = {"hessian": HessianLinearOperator, "gauss_newton": GGNLinearOperator}[matrix]
    linear = operator(
        model,
        nn.CrossEntropyLoss(),
        list(model.parameters()),
        [(landscape.x, landscape.y)],
        progressbar=False,
    )
    return linear @ torch.eye(landscape.n, dtype=torch.float64)


@pytest.fixture(scope="module")
def matrices(small):
    landscape, points = small
    return {
        matrix: torch.stack([dense(landscape, point, matrix) for point in points])
        for matrix in ("hessian", "gauss_newton")
    }


@pytest.mark.parametrize("matrix", ["hessian", "gauss_newton"])
def test_products_against_curvlinops(small, matrices, matrix):
    landscape, points = small
    eye = torch.eye(landscape.n, dtype=torch.float64)
    found = landscape.hvp(points[:, None], eye, matrix)
    torch.testing.assert_close(found, matrices[matrix], rtol=EXACT, atol=1e-10)


def test_both_oracles_agree(small, matrices):
    landscape, points = small
    for point, matrix in zip(points, matrices["hessian"], strict=True):
        expected = dense_hessian(landscape.module, landscape.x, landscape.y, point)
        torch.testing.assert_close(matrix, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("matrix", ["hessian", "gauss_newton"])
def test_eigenpairs_of_many_points(small, matrices, matrix):
    landscape, points = small
    bottom = 2 if matrix == "hessian" else 1  # of repeated eigenvalues (0) one is found
    found = curvature.eigenpairs(
        landscape, points, top=4, bottom=bottom, matrix=matrix, tolerance=1e-9
    )
    values, _ = torch.linalg.eigh(matrices[matrix])
    expected = torch.cat([values.flip(1)[:, :4], values.flip(1)[:, -bottom:]], 1)
    np.testing.assert_allclose(found["eigenvalue"], expected, rtol=EXACT, atol=1e-9)
    vectors = torch.as_tensor(found["eigenvector"].values)
    images = vectors @ matrices[matrix]
    miss = (images - expected[..., None] * vectors).norm(dim=-1)
    assert float(miss.max()) < 1e-6 * float(values.abs().max())
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(3, 4 + bottom, dtype=torch.float64))


@pytest.mark.parametrize("tolerance", [1e-1, 1e-3])
def test_a_point_does_not_depend_on_the_others(small, tolerance):
    landscape, points = small
    for some in (points[:1], points[:2], points[[0, 2]]):
        pairs, traces, spread = (
            [make(given) for given in (points, some)]
            for make in (
                lambda p: curvature.eigenpairs(landscape, p, top=2, tolerance=tolerance),
                lambda p: curvature.trace(landscape, p, probes=9),
                lambda p: curvature.density(landscape, p, probes=3, steps=8),
            )
        )
        kept = 1 if torch.equal(some, points[[0, 2]]) else len(some)  # its place draws its vectors
        for (one, other), names in (
            (pairs, ("eigenvalue", "residual", "products")),
            (traces, ("trace", "square", "trace_error")),
            (spread, ("node", "weight", "negative")),
        ):
            for name in names:
                np.testing.assert_allclose(
                    one[name][:kept], other[name][:kept], rtol=1e-6, atol=1e-10
                )


def test_what_does_not_fit_into_memory_is_done_in_parts(small, monkeypatch):
    landscape, points = small
    makes = (
        lambda: curvature.eigenpairs(landscape, points, top=2)["eigenvalue"],
        lambda: curvature.trace(landscape, points)["trace"],
        lambda: curvature.density(landscape, points, probes=3, steps=8)["density"],
    )
    whole = [make() for make in makes]
    monkeypatch.setattr(curvature, "MEMORY", 1)
    for make, expected in zip(makes, whole, strict=True):
        np.testing.assert_allclose(make(), expected, rtol=1e-7, atol=1e-10)


def test_eigenvalues_near_zero_converge_by_the_size_of_the_largest(small, matrices):
    landscape, points = small
    found = curvature.eigenpairs(
        landscape, points, top=0, bottom=1, matrix="gauss_newton", tolerance=1e-3
    )
    assert found["converged"].values.all()
    largest = torch.linalg.eigvalsh(matrices["gauss_newton"])[:, -1]
    assert (found["residual"].values[:, 0] <= 1e-3 * largest.numpy()).all()


def test_single_precision_does_not_claim_more_than_it_has(small):
    landscape, points = small
    single = Landscape(landscape.module.float(), landscape.x.float(), landscape.y)
    landscape.module.double()
    found = curvature.eigenpairs(single, points.float(), top=2, tolerance=1e-9, steps=60)
    assert not found["converged"].values.any()


def test_a_point_without_finite_curvature_leaves_the_others_alone(small):
    _, points = small
    module = models.mlp(6, [5], 3).double()
    x = torch.randn(40, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    landscape = Landscape(module, x, torch.arange(40) % 3)
    both = torch.stack([points[0], points[0] * 1e200])
    for make, names in (
        (curvature.eigenpairs, ("eigenvalue", "eigenvector", "residual")),
        (curvature.trace, ("trace", "square")),
        (curvature.density, ("density", "negative")),
    ):
        found, alone = make(landscape, both), make(landscape, both[:1])
        for name in names:
            np.testing.assert_allclose(found[name][0], alone[name][0], rtol=1e-6, atol=1e-10)
            assert np.isnan(found[name][1]).all(), name
    pairs = curvature.eigenpairs(landscape, both)
    assert not pairs["converged"][1].any()
    assert pairs["products"][1] <= pairs["products"][0]


def test_what_has_not_converged_says_so(small):
    landscape, points = small
    found = curvature.eigenpairs(landscape, points, top=3, bottom=3, tolerance=1e-12, steps=8)
    assert not found["converged"].values.all()
    assert (found["residual"].values[~found["converged"].values] > 0).all()


@pytest.mark.parametrize("method", ["hutch++", "hutchinson"])
def test_traces_within_their_errors(small, matrices, method):
    landscape, points = small
    found = curvature.trace(landscape, points, probes=60, method=method)
    expected = matrices["hessian"].diagonal(dim1=1, dim2=2).sum(1).numpy()
    miss = np.abs(found["trace"].values - expected)
    assert (miss <= 4.5 * found["trace_error"].values + 1e-9).all()  # three points, t-distributed
    squares = matrices["hessian"].square().sum((1, 2)).numpy()
    assert (np.abs(found["square"] - squares) <= 5 * found["square_error"]).all()


def test_traces_are_exact_where_the_sketch_spans_everything(small, matrices):
    landscape, points = small
    found = curvature.trace(landscape, points, probes=3 * landscape.n)
    expected = matrices["hessian"].diagonal(dim1=1, dim2=2).sum(1)
    np.testing.assert_allclose(found["trace"], expected, rtol=1e-6)


def test_hutch_plus_plus_errs_less_than_hutchinson_on_a_decaying_spectrum():
    size, repeats = 60, 40
    values = torch.arange(1, size + 1, dtype=torch.float64) ** -2.0
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64, generator=generator))[0]
    matrix = basis * values @ basis.T

    def operator(vectors):
        return vectors @ matrix

    signs = torch.randint(0, 2, (repeats, 30, size), generator=generator).double() * 2 - 1
    plain = krylov.hutchinson(operator, signs)[0].mean(1)
    inside, outside, _ = krylov.hutch_plus_plus(operator, signs[:, :10], signs[:, 10:20])
    better = inside + outside.mean(1)
    total = values.sum()
    assert (better - total).square().mean() < 0.1 * (plain - total).square().mean()


def test_quadrature_has_the_moments_of_the_spectrum(small, matrices):
    landscape, points = small
    found = curvature.density(landscape, points, probes=200, steps=landscape.n)
    node, weight = found["node"].values, found["weight"].values
    np.testing.assert_allclose(weight.sum(2), 1, rtol=1e-9)
    values = torch.linalg.eigvalsh(matrices["hessian"]).numpy()
    for power in (1, 2, 3):
        each = (weight * node**power).sum(2)
        error = each.std(1, ddof=1) / np.sqrt(each.shape[1])
        assert (np.abs(each.mean(1) - (values**power).mean(1)) <= 4 * error).all()
    below = (values < -0.01 * np.abs(values).max(1, keepdims=True)).mean(1)
    miss = np.abs(found["negative"] - below)
    assert (miss <= 4 * found["negative_error"]).all()
    area = found["density"].sum("value") * float(found["value"][1] - found["value"][0])
    np.testing.assert_allclose(area, 1, rtol=0.02)


def test_lanczos_of_a_small_matrix_is_exact_beyond_an_invariant_subspace():
    values = torch.tensor([[3.0, 3.0, 1.0, 1.0, -2.0, 0.0]], dtype=torch.float64)
    start = torch.ones(1, 6, dtype=torch.float64)
    fresh = torch.randn(1, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    run = krylov.lanczos(lambda v: v * values[:, None], start, 6, fresh)
    found = torch.linalg.eigvalsh(run.tridiagonal())
    torch.testing.assert_close(found, values.sort(1).values, rtol=0, atol=1e-9)
    gram = run.basis @ run.basis.mT
    torch.testing.assert_close(gram, torch.eye(6, dtype=torch.float64)[None], rtol=0, atol=1e-9)
    nodes, weights = krylov.quadrature(run)
    exact = values.mean(1)  # the start has equal parts of all
    torch.testing.assert_close((nodes * weights).sum(1), exact)


@pytest.mark.parametrize("values", [[1.0] * 6, [0.0] * 6, [5.0, 4.0, 3.0, 2.0, 1.0, 0.0]])
def test_lanczos_leaves_an_invariant_axis(values):
    values = torch.tensor([values], dtype=torch.float64)
    start = torch.eye(6, dtype=torch.float64)[:1]
    run = krylov.lanczos(lambda v: v * values[:, None], start, 6)
    found = torch.linalg.eigvalsh(run.tridiagonal())
    torch.testing.assert_close(found, values.sort(1).values, rtol=0, atol=1e-12)
    gram = run.basis @ run.basis.mT
    torch.testing.assert_close(gram, torch.eye(6, dtype=torch.float64)[None], rtol=0, atol=1e-12)


def test_going_on_with_those_left_alone_changes_nothing():
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(9, 40, 40, dtype=torch.float64, generator=generator)
    matrix = matrix @ matrix.mT + torch.linspace(0, 200, 9)[:, None, None] * torch.eye(40)
    start, fresh = torch.randn(2, 9, 40, dtype=torch.float64, generator=generator)
    sizes = []

    def narrowed(left):
        sizes.append(len(left))
        return lambda vectors: vectors @ matrix[left]

    arguments = (start, fresh, 2, 1)
    found, expected = (
        krylov.extreme_eigenpairs(
            lambda v: v @ matrix, *arguments, tolerance=1e-3, steps=40, narrowed=given
        )
        for given in (narrowed, None)
    )
    assert sizes
    assert sizes == sorted(sizes, reverse=True)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)
    assert len(found.steps.unique()) > 1
    images = (found.vectors @ matrix - found.values[..., None] * found.vectors).norm(dim=-1)
    torch.testing.assert_close(images, found.residuals, rtol=1e-6, atol=1e-8)


def test_lanczos_goes_on_where_it_ended():
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(2, 30, 30, dtype=torch.float64, generator=generator)
    matrix = matrix + matrix.mT
    start, fresh = torch.randn(2, 2, 30, dtype=torch.float64, generator=generator)

    def operator(vectors):
        return vectors @ matrix

    whole = krylov.lanczos(operator, start, 20, fresh)
    first = krylov.lanczos(operator, start, 8, fresh)
    rest = krylov.lanczos(operator, start, 20, fresh, first)
    for one, other in zip(whole, rest, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


class _Quadratic(nn.Module):
    """½ wᵀ A w, whatever the input."""

    def __init__(self, matrix):
        super().__init__()
        self.register_buffer("matrix", matrix)
        self.w = nn.Parameter(torch.zeros(len(matrix), dtype=matrix.dtype))

    def forward(self, x):
        return (0.5 * self.w @ self.matrix @ self.w).expand(len(x), 1)


def test_an_analytic_quadratic():
    values = torch.tensor([9.0, 4.0, 1.0, 0.5, 0.0, -1.0, -3.0], dtype=torch.float64)
    generator = torch.Generator().manual_seed(3)
    basis = torch.linalg.qr(torch.randn(7, 7, dtype=torch.float64, generator=generator))[0]
    x = torch.zeros(3, 1, dtype=torch.float64)
    module = _Quadratic(basis * values @ basis.T)
    landscape = Landscape(module, x, x[:, 0], loss=lambda out, y: out.mean())
    points = torch.randn(4, 7, dtype=torch.float64, generator=generator)
    found = curvature.eigenpairs(landscape, points, top=3, bottom=2, tolerance=1e-10)
    expected = np.tile([9.0, 4.0, 1.0, -1.0, -3.0], (4, 1))
    np.testing.assert_allclose(found["eigenvalue"], expected, rtol=1e-8)
    cosine = (torch.as_tensor(found["eigenvector"].values) @ basis)[:, 0, 0].abs()
    torch.testing.assert_close(cosine, torch.ones(4, dtype=torch.float64))
    along = curvature.along(landscape, points, basis.T[:2] * 2)
    np.testing.assert_allclose(along["curvature"], np.tile([36.0, 16.0], (4, 1)))
    traces = curvature.trace(landscape, points, probes=30)
    np.testing.assert_allclose(traces["trace"], 10.5, atol=1e-9)
    squares = (values**2).sum().item()
    assert (np.abs(traces["square"] - squares) <= 5 * traces["square_error"] + 1e-9).all()


@pytest.mark.parametrize("matrix", ["hessian", "gauss_newton"])
def test_curvature_along_directions_shared_or_own(small, matrices, matrix):
    landscape, points = small
    generator = torch.Generator().manual_seed(2)
    own = torch.randn(3, 4, landscape.n, dtype=torch.float64, generator=generator)
    expected = torch.einsum("pkn,pnm,pkm->pk", own, matrices[matrix], own)
    found = curvature.along(landscape, points, own, matrix=matrix)
    np.testing.assert_allclose(found["curvature"], expected, rtol=EXACT, atol=1e-10)
    np.testing.assert_allclose(found["length"], own.norm(dim=-1))
    shared = curvature.along(landscape, points, own[1], matrix=matrix)
    assert shared["length"].dims == ("direction",)
    np.testing.assert_allclose(shared["curvature"][1], expected[1], rtol=EXACT, atol=1e-10)
    nested = curvature.along(landscape, points[None], own[None], matrix=matrix)
    np.testing.assert_allclose(nested["curvature"], expected, rtol=EXACT, atol=1e-10)


def test_foretold_curvature_along_isotropic_directions(small, matrices):
    landscape, points = small
    generator = torch.Generator().manual_seed(5)
    directions = torch.randn(2000, landscape.n, dtype=torch.float64, generator=generator)
    directions = 3 * directions / directions.norm(dim=1, keepdim=True)
    measured = curvature.along(landscape, points, directions)["curvature"].values
    moments = curvature.trace(landscape, points, probes=3 * landscape.n)
    squares = matrices["hessian"].square().sum((1, 2)).numpy()
    moments["square"].values[:] = squares
    found = curvature.predicted(moments, length=3.0)
    error = measured.std(1, ddof=1) / np.sqrt(2000)
    assert (np.abs(measured.mean(1) - found["foretold"]) <= 4 * error).all()
    deviation = measured.std(1, ddof=1)
    fourth = ((measured - measured.mean(1, keepdims=True)) ** 4).mean(1)
    spread_error = np.sqrt((fourth - deviation**4) / 2000) / (2 * deviation)
    expected = found["foretold_spread"] * np.abs(found["foretold"])
    assert (np.abs(deviation - expected) <= 4 * spread_error).all()


def test_nothing_is_foretold_of_a_matrix_of_zeros():
    x = torch.zeros(3, 1, dtype=torch.float64)
    module = _Quadratic(torch.zeros(4, 4, dtype=torch.float64))
    landscape = Landscape(module, x, x[:, 0], loss=lambda out, y: out.mean())
    point = torch.ones(4, dtype=torch.float64)
    moments = curvature.trace(landscape, point)
    assert not moments["square"].values.any()
    assert np.isnan(curvature.predicted(moments)["foretold_spread"]).all()
    pairs = curvature.eigenpairs(landscape, point, top=2, bottom=1)
    assert not pairs["eigenvalue"].values.any()
    assert np.isfinite(curvature.density(landscape, point)["density"]).all()


@pytest.mark.parametrize("group", ["0", "2.weight"])
def test_blocks_of_groups(small, matrices, group):
    landscape, points = small
    index = landscape.space.groups[group]
    block = matrices["hessian"][:, index][:, :, index]
    found = curvature.eigenpairs(landscape, points, top=2, bottom=1, group=group, tolerance=1e-9)
    values = torch.linalg.eigvalsh(block).flip(1)
    expected = torch.cat([values[:, :2], values[:, -1:]], 1)
    np.testing.assert_allclose(found["eigenvalue"], expected, rtol=1e-6, atol=1e-10)
    outside = np.ones(landscape.n, dtype=bool)
    outside[index] = False
    assert not found["eigenvector"].values[..., outside].any()
    trace = curvature.trace(landscape, points, probes=3 * len(index), group=index)
    np.testing.assert_allclose(trace["trace"], block.diagonal(dim1=1, dim2=2).sum(1), rtol=1e-6)


@pytest.mark.parametrize("loss", ["mse", lambda outputs, y: (outputs - y).pow(4).mean()])
def test_the_gauss_newton_matrix_of_any_loss(loss):
    module = models.mlp(4, [3], 2, activation="tanh").double()
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.randn(20, k, dtype=torch.float64, generator=generator) for k in (4, 2))
    landscape = Landscape(module, x, y, loss=loss)
    point = landscape.space.point(module).detach()

    def judged(flat):
        return mean_loss(flat.view(20, 2), y, loss)

    jacobian = jacrev(lambda w: run_point(module, w, x).flatten())(point)
    outer = hessian(judged)(run_point(module, point, x).flatten())
    expected = jacobian.T @ outer @ jacobian
    found = landscape.hvp(point, torch.eye(landscape.n, dtype=torch.float64), "gauss_newton")
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    top = curvature.eigenpairs(landscape, point, top=1, bottom=0, matrix="gauss_newton")
    largest = torch.linalg.eigvalsh(expected)[-1]
    assert float(top["eigenvalue"].squeeze()) == pytest.approx(float(largest), rel=1e-6)


@pytest.mark.parametrize(
    ("matrix", "oracle"),
    [("hessian", HessianLinearOperator), ("gauss_newton", GGNLinearOperator)],
)
def test_batch_norm_holds_its_statistics_fixed(matrix, oracle):
    module = models.cnn(1, 3, width=2).double()
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(24, 1, 6, 6, dtype=torch.float64, generator=generator)
    y = torch.arange(24) % 3
    landscape = Landscape(module, x, y)
    point = landscape.space.point(module).detach()
    model = update_statistics(models_at(module, point[None])[0], x, 256)
    linear = oracle(
        model, nn.CrossEntropyLoss(), list(model.parameters()), [(x, y)], progressbar=False
    )
    expected = linear @ torch.eye(landscape.n, dtype=torch.float64)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state = torch.get_rng_state()
    found = curvature.eigenpairs(landscape, point, top=2, bottom=1, tolerance=1e-8, matrix=matrix)
    curvature.trace(landscape, point, probes=6, matrix=matrix)
    curvature.density(landscape, point, probes=2, steps=4, matrix=matrix)
    values = torch.linalg.eigvalsh(expected).flip(0)
    np.testing.assert_allclose(
        found["eigenvalue"][0], torch.cat([values[:2], values[-1:]]), rtol=1e-6, atol=1e-10
    )
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


REFUSED = [
    (lambda l, p: curvature.eigenpairs(l, p, top=60), "top=60"),
    (lambda l, p: curvature.eigenpairs(l, p, top=-1), "top=-1"),
    (lambda l, p: curvature.eigenpairs(l, p, tolerance=0), "tolerance=0"),
    (lambda l, p: curvature.eigenpairs(l, p, steps=0), "steps=0"),
    (lambda l, p: curvature.eigenpairs(l, p[:0]), "points: there are none"),
    (lambda l, p: curvature.trace(l, p[:0]), "points: there are none"),
    (lambda l, p: curvature.density(l, p[:0]), "points: there are none"),
    (lambda l, p: curvature.eigenpairs(l, p * torch.nan), "NaN or infinite"),
    (lambda l, p: curvature.eigenpairs(l, p[:, 1:]), "length"),
    (lambda l, p: curvature.eigenpairs(l, p, group="9"), "group='9'"),
    (lambda l, p: curvature.eigenpairs(l, p, group=torch.tensor([99])), "indices from"),
    (lambda l, p: curvature.eigenpairs(l, p, matrix="fisher"), "matrix='fisher'"),
    (lambda l, p: curvature.trace(l, p, probes=3), "probes=3"),
    (lambda l, p: curvature.trace(l, p, method="exact"), "method='exact'"),
    (lambda l, p: curvature.density(l, p, steps=1), "steps=1"),
    (lambda l, p: curvature.along(l, p, p[:, 1:]), "length"),
    (lambda l, p: curvature.along(l, p, p[0]), "expected .k, "),
    (lambda l, p: curvature.along(l, p, p[:2, None]), "for each"),
    (lambda l, p: curvature.along(l, p, 0 * p), "norm 0"),
    (lambda l, p: curvature.along(l, p, p[:, None] * torch.inf), "norm"),
    (lambda l, p: curvature.predicted(curvature.trace(l, p), 0), "length=0"),
]


@pytest.mark.parametrize(("call", "words"), REFUSED)
def test_bad_arguments_are_refused_in_one_line(small, call, words):
    with pytest.raises(ValueError, match=words) as told:
        call(*small)
    assert "\n" not in str(told.value)
