"""Pictures of several sets of solutions: P(q), K beside its nulls, and K of other distances."""

import numpy as np
import pytest
import torch

from spinscape.glass.trees.clustering import hierarchy
from spinscape.glass.trees.overlaps import overlap_distribution
from spinscape.glass.trees.repeats import hierarchy_of_sets
from spinscape.landscape.energy import Landscape
from spinscape.nets.models import mlp
from spinscape.report import draw
from spinscape.report.figures.sets import draw_sets
from spinscape.report.panels import to_json


@pytest.fixture(scope="module")
def parts():
    module = mlp(6, [5], 3)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 6, generator=generator)
    landscape = Landscape(module, x, x[:, :3].argmax(1))
    points = torch.randn(3, 7, landscape.n, generator=generator)
    trees = [hierarchy(module, one, surrogates=6, seed=k) for k, one in enumerate(points)]
    sets = hierarchy_of_sets(trees)
    by_function = {
        f"hierarchy_{distance}": hierarchy(
            module, points[0], distance=distance, landscape=landscape, surrogates=6, seed=0
        )
        for distance in ("agreement", "cka")
    }
    return {
        "hierarchy_overlaps": overlap_distribution(sets, bins=20),
        "hierarchy_sets": sets,
        **by_function,
        "hierarchy_untrained": trees[0],
    }


def test_every_panel_is_a_plotly_figure_with_words_and_a_table_beside_it(parts):
    drawn = draw_sets(parts)
    assert [drawing.key for drawing in drawn] == ["overlaps", "sets", "further-nulls"]
    for drawing in drawn:
        assert drawing.caption.endswith(".")
        assert {len(row) for row in drawing.rows} == {len(drawing.columns)}
        assert len({panel.key for panel in drawing.panels}) == len(drawing.panels)
        for panel in drawing.panels:
            assert len(panel.alternative) > 40
            assert panel.figure().data
            to_json(panel.as_dict())
            looks = [key.shape for key in panel.keys]
            assert len(looks) == len(set(looks)), panel.key
    assert draw_sets({}) == []


def test_densities_are_those_of_each_set_beside_their_nulls(parts):
    data = parts["hierarchy_overlaps"]
    thin, *nulls = draw_sets(parts)[0].panels[0].traces
    drawn = np.asarray(thin["y"]).reshape(3, -1)[:, :-1]
    np.testing.assert_allclose(drawn, data["density"])
    for trace in nulls:
        null = trace["name"].removeprefix("null: ")
        np.testing.assert_allclose(trace["y"], data["density_null"].sel(null=null).mean("set"))


def test_k_of_each_set_stands_in_units_of_each_null(parts):
    data = parts["hierarchy_sets"]
    drawing = draw_sets(parts)[1]
    traces = {trace["name"]: trace for trace in drawing.panels[0].traces}
    for null in ("norm-matched", "star"):
        expected = data["K"] / data["K_null"].sel(null=null).mean("surrogate")
        np.testing.assert_allclose(traces[f"null: {null}"]["y"], expected)
    assert set(traces["at most this for support"]["y"]) == {0.7}
    verdicts = [row[-2:] for row in drawing.rows]
    assert verdicts == list(zip(data["verdict"].values, data["verdict_within"].values, strict=True))


def test_k_of_other_distances_and_of_starts_is_told_as_theirs(parts):
    drawing = draw_sets(parts)[2]
    for panel, name in zip(drawing.panels, list(parts)[2:], strict=True):
        *bars, observed = panel.traces
        assert set(observed["x"]) == {float(parts[name]["K"])}
        assert len(bars) == parts[name].sizes["null"]
        told = "untrained starts" if name == "hierarchy_untrained" else "trained networks"
        assert observed["name"] == told
    assert "Untrained" in drawing.caption
    alone = draw_sets({"hierarchy_untrained": parts["hierarchy_untrained"]})[0]
    assert "function star" not in alone.caption
    assert len(alone.panels) == 1


@pytest.mark.parametrize("name", ["hierarchy_overlaps", "hierarchy_sets", "hierarchy_cka"])
def test_each_is_drawn_for_a_notebook(parts, name):
    assert all(figure.data for figure in draw(parts[name]).values())
