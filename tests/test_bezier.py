"""Bent paths: a ring whose lowest path is known, an exact teacher, and never above the line."""

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import oracles
from spinscape.glass.paths import bezier
from spinscape.glass.paths.barriers import barrier
from spinscape.glass.paths.bends import KINDS, bent_paths
from spinscape.glass.paths.bezier import bezier_paths
from spinscape.glass.paths.curves import Bending, along_curve, bernstein, curve_length
from spinscape.glass.paths.detours import bent_findings
from spinscape.glass.paths.interpolation import balanced_pairs, permutation_paths
from spinscape.glass.paths.teacher import ReluTeacher
from spinscape.landscape.energy import Landscape
from spinscape.nets.models import mlp

FEW = Bending(steps=6, learning_rate=0.02, checks=3)


def normal(*shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def small(*, seed=0, samples=40, replicas=6, sizes=(4, 6, 3)):
    """Networks of one function, their hidden units in different orders, behind barriers."""
    module = mlp(sizes[0], list(sizes[1:-1]), sizes[-1]).double()
    n = sum(parameter.numel() for parameter in module.parameters())
    x, point = normal(samples, sizes[0], seed=seed), 2 * normal(n, seed=12)
    y = oracles.run_point(module, point, x).argmax(1)
    copies = [oracles.hidden_copy(module, point, seed=k, scales=[1.0])[0] for k in range(replicas)]
    return Landscape(module, x, y), torch.stack(copies)


def ring(points):
    """A gutter of radius 1 with two minima, at (1, 0) and (−1, 0): on it the height is y²/10."""
    radius = points.square().sum(-1)
    return (radius - 1).square() + points[..., 1].square() / 10


ENDS = torch.tensor([[1.0, 0.0]]).double(), torch.tensor([[-1.0, 0.0]]).double()


# curves


def test_a_curve_is_de_casteljaus():
    controls = normal(3, 5, 2, seed=0)
    for t, weights in zip([0, 0.3, 1], bernstein(torch.tensor([0, 0.3, 1.0]), 4), strict=True):
        level = controls
        while level.shape[1] > 1:
            level = (1 - t) * level[:, :-1] + t * level[:, 1:]
        found = torch.einsum("c,pcn->pn", weights.double(), controls)
        torch.testing.assert_close(found, level[:, 0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_losses_along_a_curve_are_those_of_its_points(count):
    landscape, points = small(replicas=2 * count)
    controls = points.view(2, count, -1)
    lam = torch.linspace(0, 1, 9, dtype=torch.float64)
    on_it = torch.einsum("lc,pcn->pln", bernstein(lam, count - 1), controls)
    loss, error = along_curve(landscape, controls, lam)
    torch.testing.assert_close(loss, landscape.loss(on_it))
    torch.testing.assert_close(error, landscape.error(on_it))
    alone, nothing = along_curve(landscape.loss, controls, lam)
    torch.testing.assert_close(alone, loss)
    assert nothing.isnan().all()
    chords = on_it.diff(dim=1).norm(dim=-1).sum(-1)
    torch.testing.assert_close(curve_length(controls, lam), chords)


def test_a_parabolas_length_is_its_integral():
    controls = torch.tensor([[[0.0, 0.0], [0.5, 1.0], [1.0, 0.0]]]).double()  # y = 2x(1 − x)
    exact = np.sqrt(5) / 2 + np.arcsinh(2) / 4
    found = curve_length(controls, torch.linspace(0, 1, 2001, dtype=torch.float64))
    assert float(found) == pytest.approx(exact, abs=1e-6)


# bezier_paths


def test_on_a_ring_the_bent_path_goes_round():
    start = (ENDS[0] + torch.tensor([0.0, 0.01]), ENDS[1] + torch.tensor([0.0, 0.01]))
    found = bezier_paths(
        ring, *start, bends=3, bending=Bending(600, 0.02, 4, checks=20), seed=1, resolution=101
    ).isel(pair=0)
    assert float(found.straight_barrier) == pytest.approx(1, abs=1e-3)
    assert float(found.barrier) < 0.15  # the ring's own height at its top is .1
    length = float(found.length)
    assert length == pytest.approx(np.pi, rel=0.05)
    assert found.objective.values[-1] < 0.2 * found.objective.values[0]


def test_between_exchanged_units_there_is_a_lower_path_than_the_straight_one():
    teacher = ReluTeacher(torch.eye(4, dtype=torch.float64))
    end = torch.cat([torch.eye(4).double()[[1, 0, 2, 3]].flatten(), torch.ones(4).double()])
    found = bezier_paths(
        teacher, teacher.point[None], end[None], bending=Bending(150, 0.01), seed=2
    )
    assert found.straight_barrier.item() == pytest.approx(0.0908451, abs=5e-8)
    assert 0.06 < found.barrier.item() < 0.075
    control = torch.tensor(found.bend.values)
    controls = torch.cat([teacher.point[None, None], control, end[None, None]], 1)
    fine, _ = along_curve(teacher, controls, torch.linspace(0, 1, 1001, dtype=torch.float64))
    assert float(fine.max()) < 0.075  # nothing hides between the points looked at


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    rate=st.floats(1e-4, 100),
    steps=st.integers(0, 8),
    bends=st.integers(1, 3),
    batch_size=st.sampled_from([None, 1, 7]),
)
def test_a_bent_path_is_never_above_the_straight_one(seed, rate, steps, bends, batch_size):
    landscape, points = small(seed=seed % 1000, replicas=4)
    bending = Bending(steps, rate, 1, batch_size, 3)
    found = bezier_paths(
        landscape, points[:2], points[2:], bends=bends, bending=bending, resolution=7, seed=seed
    )
    assert (found.barrier <= found.straight_barrier).all()
    straight = barrier(landscape, points[:2], points[2:], resolution=7)
    assert found.straight_loss.values == pytest.approx(straight.loss.values, rel=1e-9)
    assert found.loss.isel(lam=[0, -1]).values == pytest.approx(
        straight.loss.isel(lam=[0, -1]).values, rel=1e-9
    )
    assert (found.length >= found.distance * (1 - 1e-9)).all()
    assert (found.straight_barrier > 0.01).any()
    if steps == 0:
        assert (found.barrier == found.straight_barrier).all()


def test_a_path_depends_neither_on_those_beside_it_nor_on_blocks(monkeypatch):
    landscape, points = small(replicas=6)
    bending = Bending(10, 0.02, 2, 16, 2)

    def bent(rows):
        return bezier_paths(landscape, points[:3][rows], points[3:][rows], bending=bending, seed=3)

    whole = bent(slice(None))
    xr.testing.assert_allclose(bent(slice(1, 2)), whole.isel(pair=[1]), rtol=1e-7)
    monkeypatch.setattr(bezier, "BLOCK_ELEMENTS", 3 * points.shape[1])
    xr.testing.assert_allclose(bent(slice(None)), whole, rtol=1e-7)
    other = bezier_paths(landscape, points[:3], points[3:], bending=bending, seed=4)
    assert not np.allclose(other.bend, whole.bend)


def test_the_gradient_followed_is_that_of_the_mean_along_the_curve():
    landscape, (a, b, *_) = small()
    middle, rate = (a + b) / 2, 1e-3
    found = bezier_paths(landscape, a, b, bending=Bending(1, rate, 64, checks=1), seed=5)
    control = middle.clone().requires_grad_()
    t = torch.linspace(0, 1, 1001, dtype=torch.float64)[:, None]
    curve = (1 - t) ** 2 * a + 2 * t * (1 - t) * control + t**2 * b
    (slope,) = torch.autograd.grad(landscape.loss(curve).mean(), control)
    step = torch.tensor(found.bend.values)[0, 0] - middle
    clear = slope.abs() > 0.02 * slope.abs().max()  # Adam's first step is the gradient's sign
    assert clear.sum() > 30
    torch.testing.assert_close(step[clear], -rate * slope[clear].sign(), rtol=1e-4, atol=0)


def test_samples_held_out_and_descended_on_are_those_given():
    landscape, points = small(seed=6)
    other, _ = small(seed=7, samples=60)
    a, b = points[:2], points[2:4]
    plain = bezier_paths(landscape, a, b, bending=FEW, held_out=other)
    controls = torch.cat([a[:, None], torch.tensor(plain.bend.values), b[:, None]], 1)
    lam = torch.tensor(plain.lam.values)
    assert plain.held_loss.values == pytest.approx(along_curve(other, controls, lam)[0].numpy())
    straight = barrier(other, a, b, resolution=51)
    assert plain.held_straight_barrier.values == pytest.approx(straight.barrier.values)
    elsewhere = bezier_paths(landscape, a, b, bending=FEW, descent=other)
    assert not np.allclose(elsewhere.bend, plain.bend)
    by_hand = bezier_paths(landscape, a, b, bending=FEW, descent=landscape.loss)
    assert by_hand.bend.values == pytest.approx(plain.bend.values, rel=1e-9)
    assert all(var.attrs["units"] and var.attrs["long_name"] for var in plain.data_vars.values())


def test_the_module_and_the_random_state_are_left_alone():
    landscape, points = small()
    before = landscape.space.point(landscape.module).clone()
    state, given_points, samples = torch.get_rng_state(), points.clone(), landscape.x
    bezier_paths(landscape, points[:2], points[2:4], bending=Bending(4, 0.1, 1, 8, 2))
    assert torch.equal(landscape.space.point(landscape.module), before)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(points, given_points)
    assert landscape.x is samples


def test_what_cannot_be_bent_is_refused_by_name():
    landscape, points = small()
    a, b = points[:2]
    for settings_, message in (
        ({"steps": -1}, "^steps=-1"),
        ({"checks": 0}, "^checks=0"),
        ({"samples_per_step": 0}, "^samples_per_step=0"),
        ({"learning_rate": 0.0}, r"^learning_rate=0\.0"),
        ({"batch_size": 0}, "^batch_size=0"),
    ):
        with pytest.raises(ValueError, match=message):
            Bending(**settings_)
    with pytest.raises(ValueError, match=r"^bends=0"):
        bezier_paths(landscape, a, b, bends=0)
    with pytest.raises(ValueError, match=r"^resolution=2"):
        bezier_paths(landscape, a, b, resolution=2)
    with pytest.raises(ValueError, match=r"^a is .* expected two alike"):
        bezier_paths(landscape, a, b.float())
    with pytest.raises(ValueError, match=r"^batch_size=4: function has no samples"):
        bezier_paths(ring, *ENDS, bending=Bending(batch_size=4))
    with pytest.raises(ValueError, match=r"^points: expected at least two"):
        bent_paths(landscape, a)
    with pytest.raises(ValueError, match=r"^pairs=0"):
        bent_paths(landscape, points, pairs=0)


# bent_paths and what they say


def test_straight_paths_of_each_kind_are_those_of_permutation_paths():
    landscape, points = small()
    bent = bent_paths(landscape, points, pairs=5, bending=FEW, resolution=9, seed=8)
    straight = permutation_paths(landscape, points, pairs=5, resolution=9, seed=8)
    assert bent.kind.values.tolist() == list(KINDS)
    assert np.array_equal(bent.pair, straight.pair)
    same = straight.sel(kind=list(KINDS))
    assert bent.straight_loss.values == pytest.approx(same.loss.values, rel=1e-9)
    assert bent.distance.values == pytest.approx(same.distance.values, rel=1e-9)
    assert (bent.barrier <= bent.straight_barrier).all()
    assert (bent.barrier < bent.straight_barrier).any()
    assert "bend" not in bent


def planted(left, *, held=None, spread=0.05, replicas=12, count=24, seed=9):
    """Barriers near 1 on straight paths, and near `left` and `held` on bent ones."""
    generator = np.random.default_rng(seed)
    pairs = balanced_pairs(replicas, count, seed).numpy()
    both = ("kind", "path")

    def near(height):
        noise = spread * generator.standard_normal((len(KINDS), len(pairs)))
        return both, height * np.exp(noise)

    heights = {"barrier": left, "straight_barrier": 1}
    if held is not None:
        heights |= {"held_barrier": held, "held_straight_barrier": 1}
    return xr.Dataset(
        {
            **{name: near(height) for name, height in heights.items()},
            "length": near(2),
            "distance": near(1),
            "pair": (("path", "end"), pairs),
        },
        {"kind": list(KINDS)},
    )


@pytest.mark.parametrize(
    ("left", "held", "spread", "verdict"),
    [
        (0.1, None, 0.05, "supported"),
        (0.1, 0.3, 0.05, "supported"),
        (0.1, 1.5, 0.05, "not supported"),  # it fits the samples that it was bent on
        (0.8, None, 0.05, "not supported"),
        (0.5, 0.3, 1.0, "undecided"),
        (0.1, 1.0, 0.3, "undecided"),
        (0.1, 0.0, 0.05, "supported"),
    ],
)
def test_bent_paths_are_judged_by_their_rule(left, held, spread, verdict):
    bent = planted(left, held=held, spread=spread)
    findings = bent_findings(bent)
    assert [finding.verdict for finding in findings] == [verdict] * 3
    for finding, kind in zip(findings, KINDS, strict=True):
        own = bent.sel(kind=kind)
        ratio = float(own.barrier.sum() / own.straight_barrier.sum())
        assert (finding.value, finding.null_value) == pytest.approx((ratio, 1))
        assert finding.low < finding.value < finding.high
        assert ("own samples alone" in finding.statement) == (held == 1.5)


def test_no_barrier_and_losses_that_are_not_finite_leave_it_undecided():
    flat, lost = planted(0.1), planted(0.1)
    flat["straight_barrier"] = 0 * flat.straight_barrier
    lost.barrier[0, 3] = np.nan
    unseen = planted(0.1, held=0.1)
    unseen["held_straight_barrier"] = 0 * unseen.straight_barrier
    assert [f.value for f in bent_findings(flat)] == [None] * 3
    assert [f.verdict for f in bent_findings(lost)] == ["undecided", "supported", "supported"]
    assert [f.verdict for f in bent_findings(unseen)] == ["undecided"] * 3
