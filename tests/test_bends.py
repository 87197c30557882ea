"""Pictures of bent paths and permutation points, of small Datasets that the protocols made."""

import numpy as np
import pytest
import torch
import xarray as xr

from spinscape.glass.paths.bends import KINDS, bent_paths
from spinscape.glass.paths.curves import Bending
from spinscape.glass.paths.permutation_points import ROUTES, permutation_point_paths
from spinscape.landscape.energy import Landscape
from spinscape.nets.models import mlp
from spinscape.report.figures.bends import draw_bends
from spinscape.report.panels import to_json


@pytest.fixture(scope="module")
def parts() -> dict[str, xr.Dataset]:
    generator = torch.Generator().manual_seed(0)
    x, held = torch.randn(2, 40, 4, generator=generator)
    module = mlp(4, [6], 3)
    landscape, unseen = (Landscape(module, some, some[:, :3].argmax(1)) for some in (x, held))
    points = torch.randn(4, landscape.n, generator=generator)
    bending = Bending(steps=4, learning_rate=0.05, checks=2)
    return {
        "permutation_bezier": bent_paths(
            landscape, points, pairs=5, bending=bending, resolution=9, held_out=unseen
        ),
        "permutation_points": permutation_point_paths(
            landscape, points, bending=bending, resolution=5
        ),
    }


def trace(panel, name, mode):
    (found,) = [t for t in panel.traces if t["name"] == name and t.get("mode", t["type"]) == mode]
    return found


def test_lines_are_medians_and_every_kind_has_its_straight_one(parts):
    bent, points = draw_bends(parts)
    data = parts["permutation_bezier"]
    assert [panel.key for panel in bent.panels] == [
        "bends-own-copy",
        "bends-independent",
        "bends-aligned",
        "bends-barriers",
    ]
    for panel, kind in zip(bent.panels, KINDS, strict=False):
        for name, variable in (("straight", "straight_loss"), ("bent", "loss")):
            own = data[variable].sel(kind=kind).values
            drawn = [t for t in panel.traces if t["name"] == name and "fill" not in t]
            assert len(drawn) == 1
            assert drawn[0]["y"] == pytest.approx(np.median(own, axis=0))
    data = parts["permutation_points"]
    for route in ROUTES:
        own = data.barrier.sel(route=route).values.ravel()
        assert sorted(trace(points.panels[1], route, "box")["y"]) == pytest.approx(sorted(own))
    straight = trace(bent.panels[3], "straight", "box")
    assert straight["x"] == [kind for kind in KINDS for _ in range(5)]


def test_panels_are_figures_with_words_and_tables_that_fit(parts):
    for drawing in draw_bends(parts):
        for panel in drawing.panels:
            assert panel.figure().data
            assert "nats" in panel.alternative
            assert len(panel.traces) >= 2
            to_json(panel.as_dict())
        assert {len(row) for row in drawing.rows} == {len(drawing.columns)}
    bent, points = draw_bends(parts)
    assert [row[0] for row in bent.rows] == list(KINDS)
    assert [row[0] for row in points.rows] == list(ROUTES)
    assert "Bent barrier, samples held out" in bent.columns
    assert len(points.columns) == 2


def test_what_is_not_stored_is_not_drawn_and_lost_paths_are_left_out(parts):
    assert draw_bends({}) == []
    (only,) = draw_bends({"permutation_points": parts["permutation_points"]})
    assert only.key == "permutation-points"
    lost = parts["permutation_bezier"].copy(deep=True)
    lost.loss[0] = np.nan
    lost.barrier[0] = np.nan
    (drawing,) = draw_bends({"permutation_bezier": lost})
    assert {t["name"] for t in drawing.panels[0].traces} == {"straight"}
    assert "own copy, bent –" in drawing.panels[3].alternative
    assert drawing.rows[0][2] == "– (–)"
