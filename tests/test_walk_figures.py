"""Figures of walks by every rule, from real Datasets of small walks."""

import json

import numpy as np
import plotly.graph_objects as go
import pytest
import torch

import oracles
from spinscape.glass.walking.diagnostics import diagnosed
from spinscape.glass.walking.langevin import Langevin
from spinscape.glass.walking.moves import Gaussian
from spinscape.glass.walking.walks import walk
from spinscape.report.figures.walkers import draw_walks
from spinscape.report.panels import to_json


class Bowl(oracles.Bowl):
    """Energy ½ Σ h w², with its gradient."""

    def gradient(self, points):
        return self.curvatures * points


@pytest.fixture(scope="module")
def parts():
    bowl, start = Bowl(np.linspace(0.5, 2, 12)), torch.full((12, 12), 1e-6, dtype=torch.float64)
    at = {"rule": "thermal", "temperature": 0.5, "waiting": [0, 40, 150]}
    options = {"steps": 400, "record": 201}
    free = {"move": Gaussian(0.1), "steps": 100, "record": 51, "probes": 2}
    found = {
        "walk/free": walk(bowl, start, **free),
        "walk/thermal": walk(bowl, start, move=Gaussian(0.3), **at, **options),
        "walk/threshold": walk(
            bowl, start, rule="threshold", threshold=2.0, move=Gaussian(0.3), **options
        ),
        "walk/langevin": walk(bowl, start, move=Langevin(0.3), **at, **options),
        "walk/units": walk(bowl, start, move=Gaussian(0.1), **at, **options),
        "walk/free_untrained": walk(bowl, start + 2, **free),
        "walk/free_halfway": walk(bowl, start + 1, **free),
    }
    return {name: diagnosed(data) for name, data in found.items()}


def panels_of(parts):
    return {panel.key: panel for drawing in draw_walks(parts) for panel in drawing.panels}


def test_every_walk_is_drawn_with_words_and_properties_that_plotly_knows(parts):
    drawings = draw_walks(parts)
    assert [drawing.key for drawing in drawings] == ["walks", "walks-relaxation", "walks-memory"]
    panels = panels_of(parts)
    assert set(panels) == {
        "walks-free",
        "walks-thermal",
        "walks-threshold",
        "walks-displacement",
        "walks-overlap",
        "walks-stages",
        "walks-two-time-thermal",
        "walks-two-time-langevin",
        "walks-two-time-single-unit",
        "walks-memory-free",
        "walks-memory-free-untrained",
        "walks-memory-free-halfway",
    }
    for panel in panels.values():
        assert len(panel.alternative) > 40
        assert "nan" not in panel.alternative
        shapes = [key.shape for key in panel.keys if key.shape not in ("band", "thin")]
        assert len(shapes) == len(set(shapes)), panel.key
        assert isinstance(panel.figure(), go.Figure)
        go.Figure(json.loads(to_json(panel.as_dict())))
    for drawing in drawings:
        assert drawing.rows
        assert all(len(row) == len(drawing.columns) for row in drawing.rows)


def test_what_is_drawn_is_what_was_stored(parts):
    panels, thermal = panels_of(parts), parts["walk/thermal"]
    curve = panels["walks-two-time-thermal"].traces[1]
    assert curve["name"].startswith("after 40 steps: slope ")
    moved = thermal.two_time.sel(waiting=40).mean("walker")
    np.testing.assert_allclose(curve["y"], moved.sel(step=40 + curve["x"]))
    law = panels["walks-two-time-thermal"].traces[-1]
    np.testing.assert_allclose(np.diff(np.log(law["y"])), np.diff(np.log(law["x"])))
    below = panels["walks-threshold"]
    middle = next(trace for trace in below.traces if trace["name"] == "median, threshold")
    exact = (parts["walk/threshold"].energy / 2.0).median("walker")
    np.testing.assert_allclose(middle["y"][[0, -1]], exact.values[[0, -1]], atol=1e-10)
    assert max(middle["y"]) <= 1
    memory = {trace["name"]: trace for trace in panels["walks-memory-free"].traces}
    np.testing.assert_allclose(
        memory["free walkers"]["y"], parts["walk/free"].correlation_mean.values
    )
    assert "surrogates: signs at random" in memory
    rows = {row[0]: row[1:] for row in draw_walks(parts)[1].rows}
    passed = int(thermal.equilibrated.sum())
    assert rows["thermal: starts in equilibrium"][0] == f"{passed} of 12"
    slope = rows["thermal: slope after waiting 40 steps"]
    assert float(slope[0].replace("−", "-")) == pytest.approx(float(thermal.exponent[1]), abs=0.01)


@pytest.mark.parametrize("kept", ["walk/free", "walk/units", "walk/threshold", "walk/langevin"])
def test_a_part_alone_is_drawn_and_missing_ones_are_not(parts, kept):
    panels = panels_of({kept: parts[kept]})
    assert panels or kept == "walk/units"
    assert not any("stages" in key for key in panels)
    assert ("walks-free" in panels) == (kept == "walk/free")


def test_walks_without_diagnostics_are_drawn_as_they_are(parts):
    bare = parts["walk/thermal"].drop_vars(["exponent", "rhat", "ess_bulk", "ess_tail"])
    panel = panels_of({"walk/thermal": bare})["walks-two-time-thermal"]
    assert [trace["name"] for trace in panel.traces[:3]] == [
        "after 0 steps",
        "after 40 steps",
        "after 150 steps",
    ]
    old = bare.drop_vars(["two_time", "start_energy"])
    assert set(panels_of({"walk/thermal": old})) == {
        "walks-thermal",
        "walks-displacement",
        "walks-overlap",
    }
