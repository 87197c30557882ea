"""Figures of clones, families and quenches, from small Datasets of the protocols themselves."""

import numpy as np
import pytest
import torch

from spinscape.glass.kin.clones import clone, family
from spinscape.glass.kin.lineages import kinship
from spinscape.glass.kin.quenches import displaced, quench
from spinscape.glass.kin.relatives import siblings
from spinscape.glass.kin.returns import quench_findings
from spinscape.landscape.energy import Landscape
from spinscape.nets.datasets import load
from spinscape.nets.models import mlp
from spinscape.nets.training import train
from spinscape.report import draw
from spinscape.report.claims import claims_of
from spinscape.report.figures.kin import draw_clones
from spinscape.report.figures.quenches import draw_quenches
from spinscape.report.panels import to_json


@pytest.fixture(scope="module")
def parts():
    data, module = load("digits", seed=0, limit=400), mlp(64, [4], 10)
    landscape = Landscape(module, *data.train)
    clones = clone(module, data, ancestors=3, children=2, waiting=[0, 4, 9], epochs=3)
    leaves = family(module, data, branching=(2, 2, 2), epochs=4)
    points = torch.from_numpy(train(module, data, replicas=3, epochs=3)["point"].values)
    starts = displaced(points, [1.0, 6.0], seed=0)
    heat = np.repeat([0.01, np.inf], 6)
    both = torch.from_numpy(np.tile(starts["point"].values, (2, 1)))
    origin = np.tile(starts["origin"].values, 2)
    return {
        "made": clones,
        "grown": leaves,
        "clones": siblings(landscape, clones),
        "clones_family": kinship(module, leaves, surrogates=4, relabellings=20),
        "walk/quenches": quench(
            landscape, data, points, both, origin=origin, temperature=heat, epochs=1
        ),
    }


@pytest.mark.parametrize("draw", [draw_clones, draw_quenches])
def test_every_panel_is_a_plotly_figure_with_words_and_a_table_beside_it(parts, draw):
    for drawing in draw(parts):
        assert drawing.caption.endswith(".")
        assert drawing.rows
        assert {len(row) for row in drawing.rows} == {len(drawing.columns)}
        assert len({panel.key for panel in drawing.panels}) == len(drawing.panels)
        for panel in drawing.panels:
            assert panel.alternative.endswith(".")
            assert "nan" not in panel.alternative
            assert "NaN" not in to_json(panel.as_dict())
            panel.figure()


def traces(panel):
    return {trace["name"]: trace for trace in panel.traces if trace.get("showlegend")}


def test_siblings_stand_beside_strangers_at_every_waiting_time(parts):
    drawing = draw_clones({"clones": parts["clones"]})[0]
    panels = {panel.key: panel for panel in drawing.panels}
    shown = traces(panels["clones-barrier"])
    data = parts["clones"]
    near = data["barrier"].mean(("ancestor", "pair"))
    np.testing.assert_allclose(shown["siblings"]["y"], near, rtol=1e-6)
    far = data["unrelated_barrier"].mean(("couple", "child"))
    np.testing.assert_allclose(shown["unrelated (null)"]["y"], far, rtol=1e-6)
    assert panels["clones-barrier"].layout["xaxis"]["ticktext"] == ["0", "4", "9"]
    assert [row[0] for row in drawing.rows] == ["0", "4", "9"]
    error = traces(panels["clones-error-barrier"])["siblings"]["y"]
    expected = 100 * data["error_barrier"].mean(("ancestor", "pair"))
    np.testing.assert_allclose(error, expected, rtol=1e-6)


def test_leaves_of_the_tree_carry_the_families_that_were_planted(parts):
    drawing = draw_clones({"clones_family": parts["clones_family"]})[0]
    found, *surrogates = drawing.panels
    assert len(surrogates) == 2
    shown = traces(found)
    order = parts["clones_family"]["order"].values
    for family_number in (0, 1):
        leaves = order[shown[f"family {family_number + 1}"]["x"].astype(int)]
        assert set(parts["clones_family"]["lineage"].values[0, leaves]) == {family_number}
    tree = found.traces[0]
    assert np.nanmax(tree["y"]) == pytest.approx(
        parts["clones_family"]["linkage"].values[:, 2].max()
    )
    assert drawing.rows[0][1] == f"{float(parts['clones_family']['rand'][0]):.2f}"


def test_returns_are_drawn_for_each_temperature_from_the_controls_on(parts):
    drawing = draw_quenches(parts)[0]
    data = parts["walk/quenches"]
    returned = [panel for panel in drawing.panels if "returned" in panel.key]
    assert ["T = 0.01" in returned[0].title, "free walks" in returned[1].title] == [True, True]
    shown = traces(returned[0])["back in its basin (no barrier)"]
    np.testing.assert_allclose(shown["x"], [0, 1, 6], rtol=1e-5)
    cold = data["returned"].sel(criterion="barrier").values[:6].reshape(2, 3).mean(1)
    np.testing.assert_allclose(shown["y"][1:], 100 * cold)
    assert len(drawing.rows) == 4
    single = draw_quenches({"walk/quenches": data.isel(quench=range(6))})[0]
    assert len(single.rows) == 2


def test_quenches_of_every_temperature_stand_beside_the_claim_of_walks(parts):
    (claim,) = (claim for claim in claims_of("liao2024") if claim.key == "walks")
    findings = quench_findings(parts["walk/quenches"])
    assert len(findings) == 4
    assert {f.question for f in claim.found(findings)} == {f.question for f in findings}


@pytest.mark.parametrize("made", ["made", "grown"])
def test_clones_and_families_are_drawn_as_networks(parts, made):
    (figure,) = draw(parts[made]).values()
    assert sum(figure.data[0].y) == parts[made]["test_error"].size
