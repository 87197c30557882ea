"""All measures of `ruggedness`: none sees the order or the scale of hidden units."""

import json

import numpy as np
import pytest
import torch
import xarray as xr

import oracles
from spinscape.glass.rugged.correlations import MEASURES
from spinscape.glass.rugged.roughness import _representatives, ruggedness
from spinscape.landscape.energy import Landscape
from spinscape.nets.models import mlp

FEW = {"directions": 3, "resolution": 9, "probes": 4}
OPTIONS = {
    "walk_ruggedness": {"steps": 12, "walkers": 2},
    "adaptive_sharpness": {"steps": 4},
    "relative_flatness": {"probes": 3},
    "hessian_trace": {"probes": 3},
    "local_entropy": {"probes": 4},
    "learning_coefficient": {"chains": 2, "settle": 3, "steps": 4},
}
NOT_FOR_ALL = {"adaptive_sharpness", "relative_flatness", "hessian_trace", "learning_coefficient"}


def small(*, hidden=(6,), activation="relu", replicas=3, seed=0):
    module = mlp(4, list(hidden), 3, activation=activation).double()
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(40, 4, generator=generator, dtype=torch.float64)
    y = torch.randint(3, (40,), generator=generator)
    n = sum(parameter.numel() for parameter in module.parameters())
    return Landscape(module, x, y), torch.randn(replicas, n, generator=generator).double()


def copies_of(landscape, points, **given):
    return torch.stack(
        [
            oracles.hidden_copy(landscape.module, point, seed=k, **given)[0]
            for k, point in enumerate(points)
        ]
    )


def all_of(landscape, points, *, seed=8):
    return ruggedness(landscape, points, measures=list(MEASURES), options=OPTIONS, seed=seed, **FEW)


@pytest.mark.parametrize("hidden", [(6,), (6, 5)])
def test_a_permuted_and_rescaled_copy_measures_the_same(hidden):
    """To 1e-7: the same function at the same representative, up to rounding in float64."""
    landscape, points = small(hidden=hidden)
    copies = copies_of(landscape, points)
    assert ((copies - points).norm(dim=1) > 1).all()
    found, copied = all_of(landscape, points), all_of(landscape, copies)
    assert set(MEASURES) < set(found.data_vars)
    for name in found.data_vars:
        assert copied[name].values == pytest.approx(found[name].values, rel=1e-7, abs=1e-10), name
    for name in MEASURES:  # and they tell one network from another
        assert len(np.unique(found[name].values.round(9))) == len(points), name


def test_where_rescaling_is_none_of_the_symmetries_order_still_is():
    landscape, points = small(activation="tanh")
    copies = copies_of(landscape, points, scales=[1.0])
    found, copied = all_of(landscape, points), all_of(landscape, copies)
    for name in MEASURES:
        assert copied[name].values == pytest.approx(found[name].values, rel=1e-7), name


def test_raw_copies_would_measure_otherwise():
    """What the tests above would see, were the representative lost."""
    landscape, points = small()
    copies = copies_of(landscape, points)

    class Raw:
        """The same energy without a module whose symmetry could be known."""

        energy, gradient, hvp = landscape.loss, landscape.gradient, landscape.hvp
        x = landscape.x

    some = [name for name in MEASURES if name != "relative_flatness"]
    options = {name: given for name, given in OPTIONS.items() if name in some}
    given = {"measures": some, "options": options, "seed": 8, **FEW}
    found, copied = (ruggedness(Raw(), p, **given) for p in (points, copies))
    assert json.loads(found.attrs["arguments"])["balanced"] is False
    for name in some:
        assert not np.allclose(found[name], copied[name], rtol=1e-4), name


def test_units_stand_in_the_order_of_their_norms_and_compute_the_same():
    landscape, points = small(hidden=(6, 5))
    states, _, balanced = _representatives(landscape, points, None)
    assert balanced
    for state in states:
        for incoming, outgoing in oracles.unit_norms(landscape.module, state):
            torch.testing.assert_close(incoming, outgoing)
            assert (incoming.diff() >= 0).all()
    torch.testing.assert_close(landscape.outputs(states), landscape.outputs(points))


def test_only_what_is_asked_for_is_measured_and_recorded():
    landscape, points = small()
    plain = ruggedness(landscape, points, seed=1, **FEW)
    assert {"roughness", "local_energy"} == set(MEASURES) & set(plain.data_vars)
    assert "measures" not in json.loads(plain.attrs["arguments"])
    options = {"hessian_trace": {"probes": 5}}
    given = {"measures": ["hessian_trace"], "options": options, "seed": 1}
    found = ruggedness(landscape, points, **given)
    assert set(found.data_vars) == {"hessian_trace", "hessian_trace_se"}
    arguments = json.loads(found.attrs["arguments"])
    assert (arguments["measures"], arguments["options"]) == (["hessian_trace"], options)
    whole = all_of(landscape, points, seed=1)
    for name in ("roughness", "local_energy"):
        xr.testing.assert_identical(whole[name], plain[name])
    assert all(var.attrs["units"] and var.attrs["long_name"] for var in whole.data_vars.values())
    for name in set(MEASURES) - {"roughness", "adaptive_sharpness"}:
        assert (whole[f"{name}_se"] > 0).all(), name


def test_the_numbers_of_a_point_depend_on_the_seed_and_its_place_alone():
    landscape, points = small(replicas=4)
    state, before = torch.get_rng_state(), points.clone()
    whole, few = all_of(landscape, points), all_of(landscape, points[:2])
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(points, before)
    xr.testing.assert_allclose(few, whole.isel(replica=slice(2)), rtol=1e-8)
    other = all_of(landscape, points, seed=9)
    for name in set(MEASURES) - {"adaptive_sharpness"}:  # whose ascent may end at one top
        assert not np.allclose(other[name], whole[name]), name


def test_four_times_the_curvature_measures_four_times():
    """At equal loss: traces, local energy and sharpness by four, the coefficient hardly at all."""
    h, point = torch.linspace(0.5, 3, 8).double(), torch.linspace(1, 2, 8).double()[None]

    class Bowl:
        def __init__(self, factor):
            self.factor = factor

        def energy(self, points):
            return 0.1 + self.factor * (h * (points - point[0]).square()).sum(-1) / 2

        def gradient(self, points):
            return self.factor * h * (points - point[0])

        def hvp(self, points, vectors):
            return self.factor * h * vectors

    names = ["hessian_trace", "adaptive_sharpness", "local_energy"]
    low, high = (
        ruggedness(Bowl(factor), point, measures=names, seed=2, probes=8) for factor in (1, 4)
    )
    for name in names:
        assert high[name].values == pytest.approx(4 * low[name].values), name
    assert low.hessian_trace.item() == pytest.approx(float(h.sum()))  # exact: H is diagonal


def test_the_spread_sets_the_ridge_in_units_of_the_weights():
    def energy(points):
        return (points - 2).square().sum(-1)

    points = torch.full((2, 5), 2.0, dtype=torch.float64)
    given = {"measures": ["local_entropy"], "seed": 3}
    wide, narrow = (
        ruggedness(energy, points, options={"local_entropy": {"spread": s, "probes": 400}}, **given)
        for s in (0.1, 0.05)
    )
    for found, width in ((wide, 0.2), (narrow, 0.1)):  # quadratic of curvature 2, γ = 1/width²
        exact = 5 / 2 * np.log1p(2 * width**2)
        away = np.abs(found.local_entropy.values - exact)
        assert (away < 4 * found.local_entropy_se.values).all()
        assert (found.local_entropy_se.values < 0.1 * exact).all()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"measures": ["sharpness"]}, "measures: 'sharpness' is none of roughness, local_energy"),
        ({"measures": []}, "expected at least one, each once"),
        ({"measures": ["roughness", "roughness"]}, "expected at least one, each once"),
        ({"options": {"hessian_trace": {}}}, "options: 'hessian_trace' takes none here"),
        ({"options": {"roughness": {}}}, "options: 'roughness' takes none here"),
        (
            {"measures": ["local_entropy"], "options": {"local_entropy": {"spread": 0.0}}},
            "spread=0.0: expected a positive number",
        ),
    ],
)
def test_measures_and_options_that_do_not_exist_are_refused(given, words):
    landscape, points = small()
    with pytest.raises(ValueError, match=words):
        ruggedness(landscape, points, seed=0, **given)


@pytest.mark.parametrize("name", sorted(NOT_FOR_ALL))
def test_a_bare_energy_is_told_what_it_lacks(name):
    points = torch.ones(2, 3, dtype=torch.float64)
    with pytest.raises(TypeError, match="has no"):
        ruggedness(lambda p: p.square().sum(-1), points, measures=[name], seed=0)
