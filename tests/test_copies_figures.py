"""Pictures of copies, widths, pairs and REPAIR: what they show is what was stored."""

import numpy as np
import pytest

from spinscape import report
from spinscape.glass.paths.all_pairs import barriers_of_all_pairs
from spinscape.glass.paths.interpolation import permutation_paths
from spinscape.glass.paths.midpoints import repaired_midpoints
from spinscape.glass.paths.own_copies import partial_copies
from spinscape.glass.paths.widths import barriers_by_width
from spinscape.landscape.energy import Landscape
from spinscape.nets.datasets import load
from spinscape.nets.models import mlp
from spinscape.nets.training import train
from spinscape.nets.weightspace import points as points_of
from spinscape.report.figures.blends import draw_paths
from spinscape.report.figures.copies import draw_copies


@pytest.fixture(scope="module")
def parts():
    data = load("digits", seed=0, limit=500)
    solved = {}
    for width in (4, 8, 16):
        module = mlp(64, [width], 10)
        points = points_of(train(module, data, replicas=6, epochs=6, learning_rate=0.1, seed=0))
        solved[width] = Landscape(module, *data.train), points
    paths = {w: permutation_paths(*both, pairs=6, resolution=7) for w, both in solved.items()}
    one = solved[8]
    return {
        "permutation": paths[8],
        "permutation_copies": partial_copies(*one, draws=1, resolution=7),
        "permutation_widths": barriers_by_width(paths),
        "permutation_pairs": barriers_of_all_pairs(*one, resolution=5),
        "permutation_pairs_aligned": barriers_of_all_pairs(*one, aligned=True, resolution=5),
        "permutation_repair": repaired_midpoints(*one, pairs=6),
    }


def test_each_part_is_a_figure_that_plotly_takes_with_words_and_a_table(parts):
    drawn = draw_copies(parts)
    assert [drawing.key for drawing in drawn] == ["copies", "widths", "pairs", "repair"]
    for drawing in drawn:
        assert drawing.caption
        assert drawing.rows
        assert all(len(row) == len(drawing.columns) for row in drawing.rows)
        for panel in drawing.panels:
            assert panel.figure().data  # checks every property
            assert len(panel.alternative) > 40
    assert draw_copies({}) == []
    assert [d.key for d in draw_copies({"permutation_repair": parts["permutation_repair"]})] == [
        "repair"
    ]


def test_barriers_are_drawn_at_the_units_moved_beside_what_is_in_proportion(parts):
    drawing = draw_copies(parts)[0]
    data = parts["permutation_copies"]
    traces = {t["name"]: t for t in drawing.panels[0].traces if not t.get("fill")}
    mean = data.barrier.mean(("replica", "draw"))
    for kind in ("transpositions", "cycle", "random"):
        assert traces[kind]["y"] == pytest.approx(mean.sel(kind=kind).values)
        assert traces[kind]["x"].tolist() == [2, 4, 8]
    null = traces["in proportion"]["y"]
    assert null / null[0] == pytest.approx([1, 2, 4])
    cloud = {t["name"]: t for t in drawing.panels[1].traces}
    apart = 1 - data.overlap.sel(kind="cycle").values.ravel()
    assert cloud["cycle"]["x"] == pytest.approx(apart)


def test_widths_are_drawn_beside_both_guides(parts):
    drawing = draw_copies(parts)[1]
    data = parts["permutation_widths"]
    traces = {t["name"]: t for t in drawing.panels[0].traces if not t.get("fill")}
    for kind in ("own copy", "independent", "aligned", "aligned by activations"):
        mean = data.barrier.sel(kind=kind).mean("path").values
        assert traces[kind]["y"] == pytest.approx(mean)
    half = traces["width to the power −½"]["y"]
    assert half / half[0] == pytest.approx([1, 2**-0.5, 0.5])
    assert np.ptp(traces["no dependence"]["y"]) == 0


def test_matrices_share_their_order_and_their_scale(parts):
    raw, aligned = (panel.traces[0] for panel in draw_copies(parts)[2].panels)
    assert (raw["zmin"], raw["zmax"]) == (aligned["zmin"], aligned["zmax"])
    barrier = parts["permutation_pairs"].barrier.values
    order = np.argsort(barrier.mean(1), kind="stable")
    for trace, name in ((raw, "permutation_pairs"), (aligned, "permutation_pairs_aligned")):
        expected = parts[name].barrier.values[np.ix_(order, order)].astype(float)
        np.fill_diagonal(expected, np.nan)
        np.testing.assert_allclose(trace["z"], expected)


def test_repair_shows_every_path_and_the_law_of_variances(parts):
    boxes, variances = draw_copies(parts)[3].panels
    data = parts["permutation_repair"]
    for trace in boxes.traces:
        assert trace["y"] == pytest.approx(data.excess.sel(state=trace["name"]).values)
    assert {trace["name"] for trace in boxes.traces} == {"plain", "repaired"}
    marks, law = variances.traces
    assert marks["y"] == pytest.approx(data.variance.values[0])
    assert law["y"] == pytest.approx((1 + law["x"]) / 2)


def test_paths_by_activations_have_a_look_of_their_own(parts):
    (drawing,) = draw_paths(parts)
    boxes = {trace["name"]: trace for trace in drawing.panels[-1].traces}
    looks = [(box["marker"]["color"], box["marker"]["symbol"]) for box in boxes.values()]
    assert len(set(looks)) == len(boxes) == 5


def test_values_that_a_logarithm_cannot_show_are_left_out(parts):
    flat = {name: part.copy(deep=True) for name, part in parts.items()}
    flat["permutation_copies"]["barrier"] *= 0
    flat["permutation_widths"]["barrier"] *= 0
    for drawing in draw_copies(flat)[:2]:
        for panel in drawing.panels:
            assert panel.figure().data


@pytest.mark.parametrize(
    ("part", "key"),
    [
        ("permutation_pairs", "pairs-as-trained"),
        ("permutation_pairs_aligned", "pairs-after-alignment"),
    ],
)
def test_pairs_drawn_alone_are_named_after_what_was_done_to_them(parts, part, key):
    assert list(report.draw(parts[part])) == [key]
