"""Directions: moments of noise, signs, norms, groups, and directions that mean something."""

import math

import pytest
import torch
from torch import nn

from spinscape import Landscape, WeightSpace
from spinscape.nets import models
from spinscape.valleys import directions as d

N = 40_000
SEEDS = range(3)
POINT = torch.randn(N, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

MOMENTS = {
    "gaussian": (0, 1),
    "uniform": (0, 1 / 3),
    "ternary": (0, 2 / 3),
    "shifted_gaussian": (1, 1),
    "unit_uniform": (0.5, 1 / 12),
    "binary": (0.5, 1 / 4),
    "ones": (1, 0),
}


@pytest.mark.parametrize("kind", d.NOISES)
def test_noise_has_its_moments(kind):
    mean, variance = MOMENTS[kind]
    drawn = d.noise(POINT, kind, SEEDS)
    assert drawn.shape == (3, N)
    assert drawn.dtype == POINT.dtype
    error = math.sqrt(variance / N)
    for row in drawn:  # five standard errors, 3 rows of 7 kinds: false alarm below 1e-4
        assert abs(float(row.mean()) - mean) <= 5 * error + 1e-12
        fourth = float(((row - mean) ** 4).mean())
        spread = math.sqrt(max(fourth - variance**2, 0) / N)
        assert abs(float(((row - mean) ** 2).mean()) - variance) <= 5 * spread + 1e-12


def test_values_of_discrete_noise():
    assert set(d.noise(POINT, "ternary", [0]).unique().tolist()) == {-1, 0, 1}
    assert set(d.noise(POINT, "binary", [0]).unique().tolist()) == {0, 1}
    assert set(d.noise(POINT, "ones", [0]).unique().tolist()) == {1}


@pytest.mark.parametrize("kind", d.NOISES)
def test_noise_depends_on_its_own_seed_alone(kind):
    state = torch.get_rng_state()
    together, alone = d.noise(POINT, kind, [4, 7]), d.noise(POINT, kind, [7])
    assert torch.equal(together[1], alone[0])
    assert kind == "ones" or not torch.equal(together[0], together[1])
    assert torch.equal(state, torch.get_rng_state())
    single = d.noise(POINT.float(), kind, [7])
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), alone, rtol=1e-6, atol=1e-6)


def test_special_directions_against_their_definitions():
    module = nn.Linear(3, 2)
    space = WeightSpace(module)
    point = torch.tensor([1.0, -2.0, 0.0, 3.0, -1.0, 5.0, 2.0, -4.0])
    assert d.special(point, "point", space).equal(point)
    assert d.special(point, "sign", space).tolist() == [1, -1, -1, 1, -1, 1, 1, -1]  # 0 is −
    assert d.special(point, "sgp", space).tolist() == [1, 0, 0, 1, 0, 1, 1, 0]
    centred = point - torch.tensor([1.0] * 6 + [-1.0] * 2)  # weight has mean 1, bias −1
    assert d.special(point, "sign_centred", space).tolist() == [
        1 if value > 0 else -1 for value in centred
    ]
    assert d.special(point, "sgp_centred", space).tolist() == [int(v > 0) for v in centred]
    start = torch.arange(8.0)
    assert d.special(point, "initial", space, start).equal(start)
    assert set(d.SPECIAL) == {"initial", "point", "sign", "sign_centred", "sgp", "sgp_centred"}


def test_sign_consistent_noise_keeps_sizes_and_takes_signs():
    noise = d.gaussian(POINT, SEEDS)
    given = d.sign_consistent(noise, POINT)
    assert torch.equal(given.abs(), noise.abs())
    assert bool((given * POINT >= 0).all())


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.5, 1.0])
def test_sign_ratio_gives_so_many_signs(ratio):
    noise = d.gaussian(POINT, SEEDS)
    mixed = d.sign_ratio(noise, POINT, ratio, SEEDS)
    assert torch.equal(mixed.abs(), noise.abs())
    agreement = (mixed.sign() == POINT.sign()).double().mean(1)
    expected = 0.5 + 0.5 * ratio
    error = 0.5 * math.sqrt((1 - ratio) / N)  # only the rest is left to chance
    assert (agreement - expected).abs().max() <= 5 * error + 1e-12
    less = d.sign_ratio(noise, POINT, ratio / 2, SEEDS)
    changed, before = mixed != noise, less != noise
    assert bool((changed | ~before).all())  # nested


def test_aligned_noise_has_its_cosine():
    noise = d.aligned_noise(d.gaussian(POINT, SEEDS), POINT, 0.6)
    torch.testing.assert_close(noise.norm(dim=1), torch.ones(3, dtype=noise.dtype))
    torch.testing.assert_close(noise @ POINT / POINT.norm(), torch.full_like(noise[:, 0], 0.6))


@pytest.fixture(scope="module")
def net():
    module = nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))
    return module.double()


@pytest.mark.parametrize("s", [0.2, 1.0, 2.0])
@pytest.mark.parametrize("scaling", d.SCALINGS)
def test_scalings_set_the_norms_that_they_name(net, scaling, s):
    space = WeightSpace(net)
    point = space.point(net).detach()
    noise = d.gaussian(point, SEEDS)
    found = d.scaled(noise, point, space, scaling, s)
    if scaling == "none":
        assert torch.equal(found, s * noise)
    elif scaling == "norm":
        torch.testing.assert_close(found.norm(dim=1), s * point.norm().expand(3))
        torch.testing.assert_close(torch.cosine_similarity(found, noise), noise.new_ones(3))
    elif scaling == "layer":
        for place in space.slices.values():
            torch.testing.assert_close(
                found[:, place].norm(dim=1), s * point[place].norm().expand(3)
            )
    else:
        for rows in space.filters:
            torch.testing.assert_close(found[:, rows].norm(dim=1), s * point[rows].norm().expand(3))
        bias = space.slices["0.bias"]
        torch.testing.assert_close(found[:, bias].norm(dim=1), s * point[bias].norm().expand(3))


def test_filters_without_weight_stay_without(net):
    space = WeightSpace(net)
    point = space.point(net).detach().clone()
    point[space.filters[0]] = 0
    found = d.scaled(d.gaussian(point, [0]), point, space, "filter")
    assert float(found[0, space.filters[0]].abs().max()) == 0
    assert bool(torch.isfinite(found).all())


def test_groups(net):
    module = models.cnn(1, 3)
    space = WeightSpace(module)

    def names(group):
        chosen = d.members(module, group)
        return {name for name, place in space.slices.items() if bool(chosen[place].all())}

    assert names("all") == set(space.names)
    assert names("classifier") == {"9.weight", "9.bias"}
    assert names("features") == set(space.names) - {"9.weight", "9.bias"}
    assert names("first block") == {"0.weight", "1.weight", "1.bias"}
    assert names("convolutions") == {"0.weight", "4.weight"}
    assert names("normalisation") == {"1.weight", "1.bias", "5.weight", "5.bias"}
    assert names("*.bias") == {"1.bias", "5.bias", "9.bias"}
    assert names("4") == {"4.weight"}
    with pytest.raises(ValueError, match="no such parameters"):
        d.members(net, "normalisation")
    noise = d.gaussian(space.point(module).detach(), SEEDS)
    kept = d.restricted(noise, d.members(module, "classifier"))
    assert int((kept != 0).sum()) == 3 * (16 * 3 + 3)


def test_a_named_head_is_the_classifier():
    module = nn.ModuleDict({"classifier": nn.Linear(2, 2), "neck": nn.Linear(3, 2)})
    assert d.members(module, "classifier").tolist() == [True] * 6 + [False] * 8


def test_hessian_eigenvectors_and_gradient_of_a_quadratic():
    curvatures = torch.tensor([5.0, 3.0, 1.0, -2.0], dtype=torch.float64)
    landscape = _quadratic(curvatures)
    point = torch.tensor([1.0, 1.0, 1.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(d.gradient(landscape, point), curvatures)
    found = d.hessian_eigenvectors(landscape, point, top=2, bottom=1)
    expected = torch.eye(4, dtype=torch.float64)[[0, 1, 3]]
    torch.testing.assert_close(found.abs(), expected, rtol=0, atol=1e-6)


class _Quadratic(nn.Module):
    def __init__(self, curvatures):
        super().__init__()
        self.register_buffer("curvatures", curvatures)
        self.w = nn.Parameter(torch.zeros_like(curvatures))

    def forward(self, x):
        return (0.5 * self.curvatures * self.w**2).sum().expand(len(x), 1)


def _quadratic(curvatures):
    x = torch.zeros(4, 1, dtype=curvatures.dtype)
    return Landscape(_Quadratic(curvatures), x, x[:, 0], loss=lambda out, y: out.mean())


def test_principal_components_of_a_planar_trajectory():
    generator = torch.Generator().manual_seed(1)
    plane = torch.linalg.qr(torch.randn(50, 2, generator=generator, dtype=torch.float64))[0].T
    steps = torch.randn(30, 2, generator=generator, dtype=torch.float64) * torch.tensor([4.0, 1.0])
    found, shares = d.principal_components(steps @ plane + 3, 2)
    torch.testing.assert_close(float(shares.sum()), 1.0)
    torch.testing.assert_close(found @ found.T, torch.eye(2, dtype=torch.float64))
    torch.testing.assert_close(found @ plane.T @ plane, found)


def test_orthogonal_keeps_length():
    rows = d.gaussian(POINT, SEEDS)
    found = d.orthogonal(rows[0], rows[1:])
    assert float((rows[1:] @ found).abs().max()) < 1e-8 * N
    torch.testing.assert_close(found.norm(), rows[0].norm())


REFUSED = [
    (lambda: d.noise(POINT, "pink", [0]), "kind='pink'"),
    (lambda: d.noise(POINT[None], "ones", [0]), "one point"),
    (lambda: d.special(POINT, "initial", None), "initial="),
    (lambda: d.special(POINT, "upside", None), "expected one of"),
    (lambda: d.sign_ratio(POINT[None], POINT, 1.5, [0]), "ratio=1.5"),
    (lambda: d.sign_ratio(POINT[None], POINT, 0.5, [0, 1]), "one row for each"),
    (lambda: d.aligned_noise(POINT[None], POINT, 2.0), "share=2.0"),
    (lambda: d.between(POINT, POINT), "zero norm"),
    (lambda: d.between(POINT, POINT[1:]), "expected the same"),
    (lambda: d.principal_components(POINT[:6].view(2, 3), 2), "count=2"),
    (lambda: d.principal_components(torch.ones(4, 3), 2), "same"),
    (lambda: d.orthogonal(POINT, POINT[None]), "nothing of it"),
    (lambda: d.restricted(POINT, torch.zeros(N, dtype=torch.bool)), "zero norm"),
    (lambda: d.restricted(POINT, torch.zeros(3, dtype=torch.bool)), "group"),
]


@pytest.mark.parametrize(("call", "words"), REFUSED)
def test_bad_arguments_are_refused_in_one_line(call, words):
    with pytest.raises(ValueError, match=words) as told:
        call()
    assert "\n" not in str(told.value)


def test_scaling_refuses_what_it_cannot_scale(net):
    space = WeightSpace(net)
    point = space.point(net).detach()
    with pytest.raises(ValueError, match="zero norm"):
        d.scaled(torch.zeros_like(point), point, space)
    with pytest.raises(ValueError, match="length"):
        d.scaled(point[1:], point, space)
    with pytest.raises(ValueError, match="scaling='row'"):
        d.scaled(point, point, space, "row")
    with pytest.raises(ValueError, match="norm nan"):
        d.scaled(point * torch.nan, point, space)
