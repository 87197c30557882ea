"""The picture of flattened minima: every number in it is the Dataset's, and the null is drawn."""

import numpy as np
import pytest

from spinscape.glass.rugged.flattening import KINDS, flattened
from spinscape.nets import datasets, models
from spinscape.report.figures.flattening import draw_flattening
from spinscape.report.panels import to_json


@pytest.fixture(scope="module")
def measured():
    data = datasets.load("digits", seed=0)
    few = {"probes": 2, "directions": 2, "samples": 200}
    return flattened(models.mlp(64, [8], 10), data, replicas=5, seed=0, epochs=20, **few)


def test_gains_are_those_of_each_seed_beside_the_null(measured):
    (drawing,) = draw_flattening({"ruggedness_flattened": measured})
    gain, _ = drawing.panels
    *boxes, null = gain.traces
    assert [box["name"] for box in boxes] == list(KINDS[1:])
    plain = measured.test_error.sel(kind="plain")
    for box in boxes:
        expected = 100 * (plain - measured.test_error.sel(kind=box["name"]))
        np.testing.assert_allclose(np.sort(box["x"]), np.sort(expected), atol=1e-5)
    assert set(null["x"]) == {0}
    assert list(null["y"]) == list(KINDS[1:])
    assert "null" in null["name"]


def test_every_minimum_is_a_mark(measured):
    (drawing,) = draw_flattening({"ruggedness_flattened": measured})
    scatter = drawing.panels[1]
    assert [trace["name"] for trace in scatter.traces] == list(KINDS)
    assert len({trace["marker"]["symbol"] for trace in scatter.traces}) == len(KINDS)
    for trace in scatter.traces:
        one = measured.sel(kind=trace["name"])
        np.testing.assert_allclose(trace["x"], one.local_energy)
        np.testing.assert_allclose(trace["y"], 100 * one.test_error, rtol=1e-6)


def test_it_is_a_picture_with_words_and_a_table(measured):
    (drawing,) = draw_flattening({"ruggedness_flattened": measured})
    for panel in drawing.panels:
        assert panel.alternative
        panel.figure()
        to_json(panel.as_dict())
    assert len(drawing.rows) == len(KINDS)
    assert all(len(row) == len(drawing.columns) for row in drawing.rows)
    assert drawing.rows[0][-1] == "–"
    assert "5 seeds" in drawing.caption


def test_diverged_networks_are_left_out(measured):
    lost = measured.copy(deep=True)
    for name in ("test_error", "local_energy", "train_loss", "test_loss"):
        lost[name][2, 1] = np.nan
    (drawing,) = draw_flattening({"ruggedness_flattened": lost})
    gain, scatter = drawing.panels
    assert [len(box["x"]) for box in gain.traces[:-1]] == [5, 4, 5]
    assert [len(trace["x"]) for trace in scatter.traces] == [5, 5, 4, 5]
