"""Labels of curves and surfaces, against analytic ones of every kind."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spinscape.valleys import classify, classify_surface
from spinscape.valleys.shapes import SHAPES

LAM = np.linspace(-1.5, 1.5, 61)

CURVES = {
    "v-basin": lambda x: 2 * x**2,
    "v-side": lambda x: -2 * x,
    "w-basin": lambda x: np.where(
        x < 0, 8 * x**2, 1 - np.cos(2 * np.pi * x) + np.maximum(x - 1, 0)
    ),
    "w-peak": lambda x: 2 * (x**2 - 1) ** 2,
    "vvv-basin": lambda x: 1 - np.cos(2 * np.pi * x) + x**4 / 8,
    "flat": lambda x: 0.01 * x,
    "other": lambda x: -2 * x**2,
}
SYMMETRIC = ("v-basin", "w-peak", "vvv-basin", "flat", "other")


def test_every_label_has_its_curve():
    assert set(CURVES) == set(SHAPES)


@given(
    label=st.sampled_from([name for name in SHAPES if name != "flat"]),
    height=st.floats(0.5, 20.0),
    base=st.floats(0.0, 3.0),
    shift=st.floats(-0.05, 0.05),
    noise=st.floats(0.0, 0.02),
    mirrored=st.booleans(),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=300, deadline=None)
def test_labels_hold_at_offsets_scales_and_noise(label, height, base, shift, noise, mirrored, seed):
    curve = height * CURVES[label](LAM - shift) + base
    curve += noise * height * np.random.default_rng(seed).standard_normal(len(LAM)).clip(-2, 2)
    found = classify(LAM, curve[::-1] if mirrored else curve)
    assert str(found) == label


@given(
    label=st.sampled_from(SYMMETRIC),
    height=st.floats(0.1, 50.0),
    noise=st.floats(0.0, 0.3),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=200, deadline=None)
def test_the_label_never_depends_on_the_sign_of_the_direction(label, height, noise, seed):
    curve = height * CURVES[label](LAM)
    curve += noise * height * np.random.default_rng(seed).standard_normal(len(LAM))
    one, other = classify(LAM, curve), classify(LAM, curve[::-1])
    assert str(one) == str(other)
    assert one.confidence == other.confidence
    assert one.minima == pytest.approx([-x for x in reversed(other.minima)])


def test_what_the_label_depends_on_stands_beside_it():
    found = classify(LAM, 2 * LAM**2)
    assert found.settings() == {
        "window": [-1.5, 1.5],
        "points": 61,
        "absolute": 0.1,
        "relative": 0.1,
        "tolerance": 0.1,
        "metric": "loss",
    }
    assert found.prominence == pytest.approx(0.45)
    assert found.confidence == 1


def test_confidence_falls_where_the_threshold_decides():
    shallow = 0.15 * CURVES["w-peak"](LAM) / 2  # a hump of .15 nats: kept at .1, lost at .2
    found = classify(LAM, shallow, relative=1e-9)
    assert str(found) == "w-peak"
    assert found.confidence == 0.5


def test_the_window_decides_between_side_and_basin():
    curve = (LAM - 1) ** 2 * 4
    assert str(classify(LAM, curve)) == "v-side"
    wide = np.linspace(-3, 3, 121)
    found = classify(wide, (wide - 1) ** 2 * 4)
    assert str(found) == "v-side"
    assert found.minima == pytest.approx([1.0])


def test_a_wall_on_one_side_does_not_hide_the_other():
    curve = np.where(LAM < 0, 60 * LAM**2, CURVES["w-basin"](LAM))
    assert str(classify(LAM, curve)) == "w-basin"


def test_holes_are_counted_and_never_bridged():
    curve = 2 * LAM**2
    curve[[3, 50]] = np.nan, np.inf
    found = classify(LAM, curve)
    assert (str(found), found.holes, found.confidence) == ("other", 2, 0.0)


def test_error_rates_have_their_own_threshold():
    curve = 0.06 * np.abs(LAM)
    assert str(classify(LAM, curve)) == "flat"
    assert str(classify(LAM, curve, metric="error")) == "v-basin"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((LAM, LAM[1:]), "two equal lists"),
        ((LAM[:20], LAM[:20]), "at least 41"),
        ((LAM[::-1], LAM), "increasing"),
        ((LAM + 2, LAM), "both sides of 0"),
    ],
)
def test_bad_curves_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        classify(*arguments)


def test_bad_thresholds_are_refused():
    with pytest.raises(ValueError, match="relative=0"):
        classify(LAM, LAM, relative=0)
    with pytest.raises(ValueError, match="metric='accuracy'"):
        classify(LAM, LAM, metric="accuracy")


# Surfaces

AXIS = np.linspace(-1.5, 1.5, 41)
A, B = np.meshgrid(AXIS, AXIS, indexing="ij")
R = np.hypot(A, B)

RELIEFS = {
    "bowl": 2 * A**2 + B**2,
    "saddle": A**2 - B**2,
    "wine-bottle": 2 * (R**2 - 1) ** 2,
    "valley": 3 * A**2 + 0 * B,
    "flat": 0.01 * A,
    "other": -(R**2),
}


@pytest.mark.parametrize("label", RELIEFS)
@pytest.mark.parametrize("height", [0.5, 3.0, 40.0])
@pytest.mark.parametrize("turned", [False, True])
def test_surfaces_get_their_labels(label, height, turned):
    relief = height * RELIEFS[label] if label != "flat" else RELIEFS[label]
    relief = relief.T[::-1] if turned else relief
    noise = 0.01 * height * np.random.default_rng(0).standard_normal(relief.shape)
    found = classify_surface(AXIS, AXIS, relief + (noise if label != "flat" else 0))
    assert str(found) == label


def test_a_saddle_at_any_angle():
    for angle in np.linspace(0, np.pi, 7):
        x, y = np.cos(angle) * A + np.sin(angle) * B, np.cos(angle) * B - np.sin(angle) * A
        assert str(classify_surface(AXIS, AXIS, x**2 - y**2)) == "saddle"


def test_holes_within_reach_make_a_surface_other_and_corners_do_not():
    relief = RELIEFS["bowl"].copy()
    relief[0, 0] = np.nan
    assert str(classify_surface(AXIS, AXIS, relief)) == "bowl"
    relief[20, 25] = np.nan
    found = classify_surface(AXIS, AXIS, relief)
    assert (str(found), found.holes) == ("other", 1)


def test_bad_surfaces_are_refused():
    with pytest.raises(ValueError, match="expected"):
        classify_surface(AXIS, AXIS, RELIEFS["bowl"][1:])
    with pytest.raises(ValueError, match="at least 9"):
        classify_surface(AXIS[:5], AXIS, RELIEFS["bowl"][:5])
    with pytest.raises(ValueError, match="both sides"):
        classify_surface(AXIS + 2, AXIS, RELIEFS["bowl"])
