"""Pictures of ruggedness: what is drawn is what was correlated, beside its null."""

import json

import numpy as np
import pytest
import torch
import xarray as xr

from spinscape.glass.rugged.correlations import AXES, MEASURES, generalisation
from spinscape.glass.rugged.roughness import ruggedness
from spinscape.landscape.energy import Landscape
from spinscape.nets.models import mlp
from spinscape.report.figures import ranks
from spinscape.report.figures.ranks import draw_ranks
from spinscape.report.figures.slices import draw_ruggedness
from spinscape.report.panels import to_json

NAMES = ("roughness", "local_energy", "adaptive_sharpness", "relative_flatness")


@pytest.fixture(scope="module")
def data():
    """Networks of two optimisers, rates and widths, measured and correlated."""
    module = mlp(4, [5], 3).double()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(30, 4, generator=generator, dtype=torch.float64)
    y = torch.randint(3, (30,), generator=generator)
    n = sum(parameter.numel() for parameter in module.parameters())
    points = torch.randn(16, n, generator=generator, dtype=torch.float64)
    given = {"directions": 2, "resolution": 5, "probes": 2, "measures": NAMES}
    measured = ruggedness(Landscape(module, x, y), points, **given, seed=0)
    code = np.arange(16)
    columns = {
        "optimizer": code % 2,
        "learning_rate": np.where(code // 2 % 2, 0.3, 0.1),
        "width": np.where(code // 4 % 2, 32, 16),
        "batch_size": np.where(code // 8, 128, 32),
        "weight_decay": 0.0 * code,
    }
    numbers = np.random.default_rng(1).random((4, 16))
    kinds = ("test_error", "train_error", "test_loss", "train_loss")
    columns |= {name: values for name, values in zip(kinds, numbers, strict=True)}
    for name, values in columns.items():
        measured[name] = ("replica", values, {"long_name": name, "units": "1"})
    measured["optimizer"].attrs["words"] = ["sgd", "sam"]
    found = generalisation(measured, seed=0)
    return measured.merge(found).assign_attrs(found.attrs | measured.attrs)


def drawn(data):
    return {drawing.key: drawing for drawing in draw_ruggedness({"ruggedness": data})}


def test_every_target_has_a_panel_with_all_measures_beside_their_null(data):
    figure = drawn(data)["ranks"]
    assert [panel.key for panel in figure.panels] == [
        "ranks-test-error",
        "ranks-gap-error",
        "ranks-gap-loss",
    ]
    for panel, target in zip(figure.panels, data.target.values, strict=True):
        one, (bars, zero, marks) = data.sel(target=target), panel.traces
        np.testing.assert_allclose(marks["x"], one.tau_of)
        np.testing.assert_allclose(marks["x"] + marks["error_x"]["array"], one.tau_of_high)
        np.testing.assert_allclose(marks["x"] - marks["error_x"]["arrayminus"], one.tau_of_low)
        np.testing.assert_allclose(bars["x"][::3], one.tau_of_null_low)
        np.testing.assert_allclose(bars["x"][1::3], one.tau_of_null_high)
        np.testing.assert_array_equal(bars["y"][::3], marks["y"])
        assert zero["x"].tolist() == [0, 0]
        low, high = panel.layout["yaxis"]["range"]
        assert ((low < marks["y"]) & (marks["y"] < high)).all()
        for name in NAMES:
            assert MEASURES[name] in panel.alternative
        assert {key.name for key in panel.keys} == {"95% of shuffles", "τ"}
        panel.figure()  # plotly checks every property
        assert "NaN" not in to_json(panel.as_dict())


def test_the_table_has_every_tau_its_interval_and_the_corrected_p(data):
    figure = drawn(data)["ranks"]
    assert [row[0] for row in figure.rows] == [MEASURES[name] for name in NAMES]
    assert all(len(row) == len(figure.columns) == 5 for row in figure.rows)
    first = data.isel(measure=0, target=0)
    assert figure.rows[0][1].startswith(f"{float(first.tau_of):.3g}"[:4].replace("-", "−"))
    assert figure.rows[0][1].endswith("(95 %)")
    assert float(figure.rows[0][4]) == pytest.approx(float(first.p_holm), rel=0.01)


def test_every_measure_stands_against_the_test_error_coloured_by_the_optimiser(data):
    figure = drawn(data)["generalisation"]
    keys = [f"generalisation-{name.replace('_', '-')}" for name in NAMES]
    assert [panel.key for panel in figure.panels] == keys
    for panel in figure.panels:
        assert {trace["name"] for trace in panel.traces} == {"optimizer sgd", "optimizer sam"}
        assert sum(len(trace["x"]) for trace in panel.traces) == 16
        assert any("optimizer sam" in note for note in panel.traces[1]["text"])
        panel.figure()
    names = [row[0] for row in figure.rows]
    assert MEASURES["adaptive_sharpness"] in names
    assert not [name for name in names if "bound" in name or "_" in name]


def test_measures_are_named_in_report_as_in_glass():
    assert ranks.MEASURES == MEASURES
    assert "optimizer" in AXES


def test_without_correlations_there_is_no_such_figure(data):
    bare = data.drop_dims("target")
    assert draw_ranks(bare) is None
    assert "ranks" not in drawn(bare)
    assert draw_ranks(xr.full_like(data, np.nan, dtype=float)) is None
    assert json.loads(data.attrs["arguments"])["measures"] == list(NAMES)


def test_a_measure_without_a_number_leaves_a_dash_and_the_others_stay(data):
    some = data.copy(deep=True)
    for name in ("tau_of", "tau_of_low", "tau_of_high", "tau_of_null_low", "tau_of_null_high"):
        some[name][0] = np.nan
    some["p_holm"][0] = np.nan
    figure = draw_ranks(some)
    assert figure.rows[0][1:] == ("–", "–", "–", "–")
    assert "–" not in figure.rows[1]
    assert "NaN" not in to_json(figure.panels[0].as_dict())
