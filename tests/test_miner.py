"""Mining: constraints kept, seeds apart, failures told, and a 64-32-10 network on digits."""

import numpy as np
import pytest
import torch
from torch import nn

from spinscape import Landscape, datasets, models, points, train
from spinscape.valleys import Profile, constructions, mine, picture, refined_plane, scan, surfaces
from spinscape.valleys.profiles import PROFILES, profile_of
from spinscape.valleys.prospecting import MinerSettings, prospect, retract


class _Separable(nn.Module):
    """A network whose loss is a function of its weights alone."""

    def __init__(self, function, n):
        super().__init__()
        self.function = function
        self.w = nn.Parameter(torch.ones(n, dtype=torch.float64))

    def forward(self, x):
        return self.function(self.w).expand(len(x), 1)


def toy(function, n):
    x = torch.zeros(4, 1, dtype=torch.float64)
    return Landscape(_Separable(function, n), x, x[:, 0], loss=lambda out, y: out.mean())


def two_wells(w):
    """A hump at 0 in the first coordinate, a bowl in all others."""
    return 3 * (w[0] ** 2 - 1) ** 2 + w[1:].square().sum()


def test_a_w_peak_is_found_where_there_is_one():
    landscape = toy(two_wells, 6)
    origin = torch.full((6,), 1e-3, dtype=torch.float64)
    length = 1 / float(origin.norm())  # so that ‖d‖ = 1
    profile = Profile("w-peak", lower=((1.0,), (-1.0,)))
    found = prospect(landscape, origin, profile, MinerSettings(s=length, steps=500), range(4))
    assert float((found.frames[:, 0, 0].abs() - 1).abs().max()) < 1e-2
    assert not found.collapsed.any()


@pytest.mark.parametrize("axes", [1, 2])
def test_norm_and_orthogonality_are_kept_exactly(axes):
    landscape = toy(lambda w: (w**4).sum(), 12)
    point = torch.ones(12, dtype=torch.float64)
    profile = PROFILES["vvv-basin" if axes == 1 else "saddle"]
    found = prospect(landscape, point, profile, MinerSettings(s=0.7, steps=30), [0, 1, 2])
    gram = found.frames @ found.frames.mT
    expected = 0.49 * 12 * torch.eye(axes, dtype=torch.float64).expand(3, axes, axes)
    torch.testing.assert_close(gram, expected, rtol=1e-12, atol=1e-12)


def test_retraction_gives_the_nearest_frame():
    frame = torch.randn(1, 2, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    nearest = retract(frame, 1.0)
    own = torch.linalg.norm(frame / frame.norm(dim=-1).mean() - nearest)
    for seed in range(20):
        other = torch.linalg.qr(
            torch.randn(7, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        )[0].T
        assert own <= torch.linalg.norm(frame / frame.norm(dim=-1).mean() - other)
    assert torch.allclose(retract(nearest, 1.0), nearest)


def test_a_seed_ends_where_it_would_have_ended_alone():
    landscape = toy(lambda w: ((w[:3] ** 2 - 1) ** 2).sum() + (w[3:] ** 2).sum(), 8)
    point = torch.ones(8, dtype=torch.float64)
    settings = MinerSettings(steps=60)
    together = prospect(landscape, point, PROFILES["w-basin"], settings, [3, 5, 8])
    alone = prospect(landscape, point, PROFILES["w-basin"], settings, [5])
    torch.testing.assert_close(together.frames[1], alone.frames[0], rtol=1e-9, atol=1e-9)


def test_seeds_on_flat_ground_are_given_up_early_and_the_others_go_on():
    def ground(w):  # one steep coordinate in 30, the rest flat
        return 8 * w[0] ** 2

    landscape = toy(ground, 30)
    point = torch.ones(30, dtype=torch.float64) * torch.tensor([0.0] + [1.0] * 29)
    profile = Profile("v-basin", raised=((1.0,), (-1.0,)), weight=1e-9, cap=5.0)
    settings = MinerSettings(s=1 / float(point.norm()), steps=40, patience=10, learning_rate=1e-9)
    found = prospect(landscape, point, profile, settings, range(12))
    flat = (8 * found.start[:, 0, 0] ** 2 < settings.flat).tolist()
    assert 0 < sum(flat) < 12
    assert found.collapsed.tolist() == flat
    assert found.steps.tolist() == [10 if lost else 40 for lost in flat]
    assert bool(torch.isnan(found.objective[found.collapsed, 10:]).all())
    assert bool(torch.isfinite(found.objective[~found.collapsed]).all())


@pytest.mark.parametrize("axes", [1, 2])
def test_a_seed_whose_loss_is_not_finite_takes_no_other_along(axes):
    landscape = toy(lambda w: torch.where(w[0] > 1.2, torch.nan, w.square().sum()), 6)
    point = torch.ones(6, dtype=torch.float64)
    profile = PROFILES["v-basin" if axes == 1 else "saddle"]
    found = prospect(landscape, point, profile, MinerSettings(steps=5), range(8))
    lost = torch.isnan(found.objective).any(1)
    assert int(lost.sum()) > 0
    assert bool(torch.isfinite(found.frames).all())


def test_a_group_alone_moves():
    module = models.mlp(4, [5], 3).double()
    x = torch.randn(20, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    landscape = Landscape(module, x, torch.arange(20) % 3)
    point = landscape.space.point(module).detach()
    found = mine(landscape, point, "v-basin", seeds=2, group="classifier", steps=5, eigenvectors=0)
    moved = (found["direction"].values != 0).any((0, 1))
    assert moved[-18:].all()
    assert not moved[:-18].any()


def test_pictures():
    found = picture(["+-", "-+"], weight=3.0)
    assert set(found.raised) == {(-1.0, 1.0), (1.0, -1.0)}  # a, b: first row is the top
    assert set(found.lower) == {(1.0, 1.0), (-1.0, -1.0)}
    assert found.weight == 3.0
    centred = picture(np.array([[1, 0, 1], [0, -1, 0], [1, 0, 1]]))
    assert len(centred.raised) == 4
    assert not centred.lower  # the centre is the network itself
    for bad, words in ((["+", "x"], "characters"), ([[0, 0], [0, 0]], "asks for nothing")):
        with pytest.raises(ValueError, match=words):
            picture(bad)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Profile("x"), "expected points"),
        (lambda: Profile("x", lower=((1.0,), (1.0, 2.0))), "expected points"),
        (lambda: Profile("x", lower=((np.nan,),)), "finite"),
        (lambda: Profile("x", lower=((1.0,),), cap=0), "cap=0"),
        (lambda: profile_of("u-basin"), "shape='u-basin'"),
    ],
)
def test_bad_profiles_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


# Digits, 64-32-10


@pytest.fixture(scope="module")
def digits():
    data = datasets.load("digits", seed=0)
    module = models.mlp(64, [32], 10)
    trained = train(module, data, replicas=2, epochs=60, seed=0, snapshots=[0])
    return {
        "solutions": points(trained),
        "initial": points(trained["snapshot"].isel(snapshot=0))[0],
        "mined": Landscape(module, *data.train),
        "held_out": Landscape(module, *data.test),
    }


def test_constructions_give_their_labels(digits):
    a, b = digits["solutions"]
    built = [
        constructions.v_basin(digits["mined"], a),
        constructions.v_side(digits["initial"], a),
        constructions.w_basin(a, b),
        constructions.w_peak(a, b),
    ]
    found = scan(
        digits["held_out"],
        torch.stack([each.point for each in built]),
        torch.cat([each.directions for each in built]),
    )
    assert found["label"].values.tolist() == [each.label for each in built]


def test_vvv_basins_are_mined_on_held_out_data(digits):
    found = mine(
        digits["mined"],
        digits["solutions"][0],
        "vvv-basin",
        seeds=10,
        held_out=digits["held_out"],
        s=1.0,
        weight=2.0,
        cap=2.0,
        steps=300,
    )
    assert int(found["success"].sum()) >= 8
    assert found.attrs["success_rate"] == found["success"].values.mean()
    length = digits["solutions"][0].norm()
    lengths = torch.as_tensor(found["direction"].values).norm(dim=-1)
    torch.testing.assert_close(lengths, length.expand(10, 1))
    assert {"noise", "gradient", "sign", "point", "Hessian 1", "lowest"} <= set(
        found["reference"].values.tolist()
    )
    noise = np.abs(found["overlap"].sel(reference="noise").values)
    assert noise.max() < 6 * float(found["overlap_null"])


def test_flat_collapse_is_told_as_failure(digits):
    found = mine(
        digits["mined"],
        digits["solutions"][0],
        "vvv-basin",
        seeds=6,
        held_out=digits["held_out"],
        s=0.5,
        weight=0.5,
        steps=300,
        patience=200,
        eigenvectors=0,
    )
    lost = found["collapsed"].values
    assert lost.any()
    assert not found["success"].values[lost].any()
    assert (found["steps"].values[lost] < 300).all()


def test_a_w_peak_is_mined_at_the_initialisation(digits):
    found = mine(
        digits["mined"],
        digits["initial"],
        "w-peak",
        seeds=4,
        held_out=digits["held_out"],
        s=3.0,
        steps=200,
        eigenvectors=0,
    )
    assert found["success"].values.all()


def test_a_v_side_at_a_minimum_is_a_failure(digits):
    found = mine(
        digits["mined"], digits["solutions"][0], "v-side", seeds=2, steps=50, eigenvectors=0
    )
    assert not found["success"].values.any()


def test_surfaces_by_hand_and_their_labels(digits):
    a, b = digits["solutions"]
    bowl = constructions.bowl(digits["mined"], a)
    saddle = constructions.saddle(digits["mined"], a, b, seed=1)
    for built in (bowl, saddle):
        found = surfaces(digits["held_out"], built.point, built.directions, ["d1", "d2"], side=21)
        assert found["label"].values.tolist() == [built.label]


def test_the_constructed_wine_bottle_is_exactly_round():
    data = datasets.load("digits", seed=0)
    module = models.mlp(64, [40], 10).double()
    landscape = Landscape(module, data.train.x.double(), data.train.y)
    built = constructions.wine_bottle(landscape)
    angles = torch.linspace(0, 2 * torch.pi, 9, dtype=torch.float64)
    for radius in (0.5, 1.0, 1.7):
        ring = radius * torch.stack([angles.cos(), angles.sin()], 1)
        loss, _ = landscape.subspace(built.point, built.directions, ring)
        torch.testing.assert_close(loss, loss[:1].expand(9), rtol=1e-9, atol=1e-9)
    centre = float(landscape.loss(built.point))
    assert centre == pytest.approx(np.log(10))
    trough, _ = landscape.lines(
        built.point[None], built.directions[:1], torch.tensor([0.95, 1.0, 1.05])
    )
    assert int(trough.argmin()) == 1  # the classifier's best scale


def test_wine_bottles_need_a_wide_hidden_layer():
    module = models.mlp(64, [16], 10)
    landscape = Landscape(module, torch.rand(20, 64), torch.arange(20) % 10)
    with pytest.raises(ValueError, match="at least four a class"):
        constructions.wine_bottle(landscape)


def test_refined_planes_show_the_same_with_fewer_evaluations(digits):
    built = constructions.bowl(digits["mined"], digits["solutions"][0])
    directions = 0.5 * built.directions
    found = refined_plane(digits["mined"], built.point, *directions, tolerance=0.02)
    axis = found["a"].values
    whole = digits["mined"].plane(built.point, *directions, axis, axis)["loss"].values
    exact = found["evaluated"].values
    np.testing.assert_allclose(found["loss"].values[exact], whole[exact], rtol=1e-4)
    assert np.abs(found["loss"].values / whole - 1).max() < 0.06
    assert found.attrs["share_evaluated"] < 0.6
    assert found.attrs["share_evaluated"] == exact.mean()


def test_refined_planes_never_bridge_a_hole():
    def holed(w):
        return torch.where(w[0] > 0.5, torch.nan, w.square().sum())

    landscape = toy(holed, 3)
    origin = torch.zeros(3, dtype=torch.float64)
    d1, d2 = torch.eye(3, dtype=torch.float64)[:2]
    found = refined_plane(landscape, origin, d1, d2, extent=1.0)
    hole = found["a"].values > 0.5
    assert np.isnan(found["loss"].values[hole]).all()
    assert np.isfinite(found["loss"].values[~hole]).all()


def test_scans_draw_holes_and_count_them(digits):
    point = digits["solutions"][0]
    lam = np.linspace(-1, 1, 41)
    huge = torch.stack([torch.ones_like(point), torch.full_like(point, 3e38)])
    found = scan(digits["mined"], point, huge, lam, curvature=False)
    assert found["holes"].values[0] == 0
    assert found["holes"].values[1] > 0
    assert str(found["label"].values[1]) == "other"


def test_the_parabola_is_second_order():
    module = models.mlp(8, [6], 3, activation="tanh").double()  # ReLU has kinks at any distance
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(50, 8, dtype=torch.float64, generator=generator)
    landscape = Landscape(module, x, torch.arange(50) % 3)
    point = landscape.space.point(module).detach()
    direction = torch.randn(3, landscape.n, dtype=torch.float64, generator=generator)
    lam = np.linspace(-1e-3, 1e-3, 41)
    found = scan(landscape, point, direction, lam)
    miss = np.abs(found["parabola"].values - found["loss"].values)
    scale = np.abs(found["curvature"].values)[:, None] * lam**2 / 2
    assert (miss <= 0.01 * scale + 1e-13).all()


def test_mining_leaves_a_module_as_it_was():
    module = models.cnn(1, 3).train()
    x = torch.rand(12, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    module(x)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state = torch.get_rng_state()
    landscape = Landscape(module, x, torch.arange(12) % 3)
    point = landscape.space.point(module).detach()
    mine(landscape, point, "w-basin", seeds=2, steps=3, eigenvectors=0)
    scan(landscape, point, torch.randn(2, landscape.n, generator=torch.Generator().manual_seed(0)))
    assert module.training
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])
    assert torch.equal(state, torch.get_rng_state())


REFUSED = [
    ({"seeds": []}, "seeds"),
    ({"s": 0}, "s=0"),
    ({"steps": 0}, "steps=0"),
    ({"group": "tail"}, "group='tail'"),
    ({"shape": "u"}, "shape='u'"),
]


@pytest.mark.parametrize(("changed", "words"), REFUSED)
def test_bad_arguments_are_refused_in_one_line(digits, changed, words):
    with pytest.raises(ValueError, match=words) as told:
        mine(digits["mined"], digits["solutions"][0], **changed)
    assert "\n" not in str(told.value)


def test_points_and_directions_must_fit(digits):
    point = digits["solutions"][0]
    with pytest.raises(ValueError, match="length"):
        mine(digits["mined"], point[1:])
    with pytest.raises(ValueError, match="not finite"):
        mine(digits["mined"], point * torch.nan)
    with pytest.raises(ValueError, match="zero norm"):
        scan(digits["mined"], point, torch.zeros(1, len(point)))
    with pytest.raises(ValueError, match="length"):
        scan(digits["mined"], point, point[None, 1:])
