"""The page: what it holds, what it refuses to hold, and that numbers are written rightly."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
import xarray as xr

from spinscape import report
from spinscape.findings import Finding
from spinscape.report import page, verdicts
from spinscape.report.claims import RULE, Claim, claims_of
from spinscape.report.figures.traces import thinned
from spinscape.report.panels import Drawing, Panel, to_json
from spinscape.report.protocols import protocols_of
from spinscape.report.wording import number, plain, spread
from synthetic_run import SyntheticRun, findings, given_run, population, synthetic_run

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>&\"'"


PROTOCOL = {protocol.key: protocol for protocol in protocols_of("explore")}
EXPLORED = {"population", "walk/free", "walk/thermal", "permutation", "hierarchy", "ruggedness"}


class Page(HTMLParser):
    """Tags with attributes, the text outside scripts and styles, and the figures' JSON."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.figures: dict[str, dict[str, Any]] = {}
        self._inside = ""
        self._figure = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.tags.append((tag, found))
        if tag in ("script", "style"):
            self._inside, self._figure = tag, found.get("data-for", "")

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inside:
            self._inside = self._figure = ""

    def handle_data(self, data: str) -> None:
        if self._figure:
            self.figures[self._figure] = json.loads(data)
        elif not self._inside:
            self.text += data

    def section(self, key: str, text: str) -> str:
        return re.search(rf'<section id="{key}">.*?</section>', text, re.DOTALL)[0]  # type: ignore[index]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> SyntheticRun:
    return synthetic_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def text(run: SyntheticRun) -> str:
    return page.html(run)


def drawings(run: SyntheticRun) -> list[Drawing]:
    return [drawing for protocol in protocols_of("explore") for drawing in protocol.draw(run.parts)]


def panels(run: SyntheticRun) -> list[Panel]:
    return [panel for drawing in drawings(run) for panel in drawing.panels]


def test_the_page_is_written_whole_and_again(tmp_path: Path) -> None:
    run = synthetic_run(tmp_path)
    assert report.write(run) == tmp_path / "page.html"
    first = (tmp_path / "page.html").read_bytes()
    report.write(run)
    assert (tmp_path / "page.html").read_bytes() == first
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_a_failed_page_leaves_the_old_one(tmp_path: Path) -> None:
    run = synthetic_run(tmp_path)
    (tmp_path / "page.html").write_text("old")
    run.parts = {**run.parts, "hierarchy": run.parts["hierarchy"].drop_vars("linkage")}
    with pytest.raises(KeyError, match="linkage"):
        report.write(run)
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert (tmp_path / "page.html").read_text() == "old"


def test_the_page_is_of_a_sane_size(text: str) -> None:
    assert len(text.encode()) < 7_000_000


def test_many_replicas_and_long_walks_are_thinned(tmp_path: Path) -> None:
    run = synthetic_run(tmp_path, replicas=400)
    long = run.parts["walk/free"].interp(step=np.linspace(0, 300, 20_001))
    run.parts = {**run.parts, "walk/free": long.assign_coords(step=np.arange(20_001))}
    figures = sum(len(to_json(panel.as_dict())) for panel in panels(run))
    assert figures < 1_500_000


def test_nothing_is_loaded_from_anywhere(text: str) -> None:
    parsed = Page(text)
    for tag, attributes in parsed.tags:
        assert "src" not in attributes, tag
        address = attributes.get("href", "#")
        assert address.startswith("#") or address == "data:,", (tag, address)
    assert "default-src 'none'" in text


def test_every_figure_has_a_text_alternative(text: str, run: SyntheticRun) -> None:
    parsed = Page(text)
    plots = [found for _, found in parsed.tags if found.get("class") == "plot"]
    assert len(plots) == len(panels(run)) == len(parsed.figures)
    for plot in plots:
        assert plot["role"] == "img"
        assert len(plot["aria-label"]) > 40
        assert "nan" not in plot["aria-label"].split()
        assert plot["id"] in parsed.figures
    for drawing in drawings(run):
        assert len(drawing.caption) > 40
        assert drawing.rows
        assert all(len(row) == len(drawing.columns) for row in drawing.rows)


def test_plotly_knows_every_property(run: SyntheticRun) -> None:
    for panel in panels(run):
        figure = panel.figure()
        assert isinstance(figure, go.Figure)
        go.Figure(json.loads(to_json(panel.as_dict())))


def test_axes_are_named_with_units_and_legends_by_more_than_colour(run: SyntheticRun) -> None:
    for panel in panels(run):
        looks = [(key.shape, key.name) for key in panel.keys]
        assert len(looks) == len(set(looks)), panel.key
        shapes = [key.shape for key in panel.keys if key.shape not in ("band", "thin")]
        assert len(shapes) == len(set(shapes)), panel.key
        if panel.key.startswith("matrix") or panel.key == "paths-barriers":
            continue
        for name in ("xaxis", "yaxis"):
            assert panel.layout[name]["title"]["text"], panel.key
    titles = {p.key: p.layout["yaxis"]["title"]["text"] for p in panels(run)}
    assert titles["walks-thermal"] == "Loss (nats)"


def test_every_finding_is_told_in_full(text: str, run: SyntheticRun) -> None:
    parsed = Page(text)
    for finding in run.findings:
        for words in (finding.statement, finding.rule, finding.question, finding.null):
            assert words in parsed.text
        assert finding.value is not None
        assert number(finding.value) in parsed.text
    glance = parsed.section("findings", text)
    for finding in run.findings:
        assert finding.statement in glance
    assert "4 findings: 2 supported, 1 not supported, 1 undecided." in glance


@pytest.mark.parametrize("protocol", protocols_of("explore"), ids=lambda protocol: protocol.key)
def test_a_protocol_has_question_method_data_and_snippet(protocol: Any, text: str) -> None:
    section = Page("").section(protocol.key, text)
    assert protocol.question in section
    assert 3 <= len(re.findall(r"[.!?](?:\s|$)", protocol.method)) <= 6
    stored = [part for part in protocol.parts if part in EXPLORED]
    assert stored
    for part in stored:
        assert f"data.zarr/{part}" in section
        assert f"group=&quot;{part}&quot;" in section
    own = [f for f in findings() if f.protocol == protocol.key]
    assert section.count('class="finding"') == len(own)


def test_missing_parts_are_named_with_their_reason(tmp_path: Path) -> None:
    run = synthetic_run(tmp_path)
    run.parts = {name: part for name, part in run.parts.items() if name == "population"}
    run.findings = []
    run.config["left_out"] = {"hierarchy": "needs 4 networks, got 3"}
    text = page.html(run)
    parsed = Page(text)
    assert "This run does not hold it. Reason: needs 4 networks, got 3." in parsed.text
    assert "This run does not hold it." in parsed.section("walk", text)
    assert "Families of solutions" in parsed.section("left-out", text)
    assert "This run holds no findings yet." in parsed.text


def test_an_empty_run_still_makes_a_page(tmp_path: Path) -> None:
    text = page.html(SyntheticRun(tmp_path, {}, []))
    assert Page(text).text.count("This run does not hold it.") == 2 * len(protocols_of("explore"))


@pytest.mark.parametrize("part", ["walk/free", "walk/thermal"])
def test_one_walk_of_two_is_drawn_and_the_other_missed(part: str, tmp_path: Path) -> None:
    run = synthetic_run(tmp_path)
    run.parts = {part: run.parts[part]}
    text = page.html(run)
    assert "In the folder of this page" in Page("").section("walk", text)


def test_checkpoints_without_training_curves_are_drawn(tmp_path: Path) -> None:
    run = synthetic_run(tmp_path)
    curves = [name for name in run.parts["population"] if str(name).startswith("curve")]
    bare = run.parts["population"].drop_vars([*curves, "epochs_run", "epoch"], errors="ignore")
    run.parts = {"population": bare}
    assert [panel.key for panel in panels_of_population(run)] == ["training-test-error"]


def panels_of_population(run: SyntheticRun) -> tuple[Panel, ...]:
    return PROTOCOL["population"].draw(run.parts)[0].panels


def test_strings_of_a_run_cannot_become_markup(tmp_path: Path) -> None:
    run = synthetic_run(tmp_path)
    run.config["data"] = EVIL
    run.config["settings"] = {EVIL: [EVIL]}
    run.config["left_out"] = {"ruggedness": EVIL}
    words = dict.fromkeys(("protocol", "question", "statement", "null", "rule"), EVIL)
    run.findings = [Finding(**words, value=None, verdict="undecided")]
    population = run.parts["population"].copy()
    population["curve_train_loss"].attrs["long_name"] = EVIL
    paths = run.parts["permutation"].assign_coords(kind=["own copy", EVIL, "</script>"])
    run.parts = {"population": population, "permutation": paths}
    text = page.html(run)
    parsed = Page(text)
    assert not [tag for tag, _ in parsed.tags if tag == "img"]
    assert not [found for _, found in parsed.tags if "onerror" in found]
    assert parsed.text.count("<script>alert(1)</script>") >= 8
    label = parsed.figures["panel-training-curve-train-loss"]["layout"]["yaxis"]["title"]["text"]
    assert "<script" not in label


@pytest.mark.parametrize("part", ["population", "walk/free", "walk/thermal", "hierarchy"])
def test_a_dataset_is_drawn_for_a_notebook(part: str, run: SyntheticRun) -> None:
    figures = report.draw(run.parts[part])
    assert figures
    assert all(isinstance(figure, go.Figure) for figure in figures.values())
    assert ("walks-thermal" in figures) == (part == "walk/thermal")


def test_a_foreign_dataset_is_refused() -> None:
    with pytest.raises(ValueError, match=r"variables \['temperature'\]"):
        report.draw(xr.Dataset({"temperature": 1.0}))


def test_findings_of_unknown_protocols_are_shown(tmp_path: Path) -> None:
    run = synthetic_run(tmp_path)
    words = dict.fromkeys(("protocol", "question", "statement", "rule"), "tunnelling")
    run.findings = [Finding(**words, value=1.0, verdict="undecided")]
    assert "tunnelling" in Page("").section("other", page.html(run))


def test_a_verdict_is_a_word_and_a_mark() -> None:
    shown = {verdict: verdicts.badge(verdict) for verdict in ("supported", "not supported")}
    for verdict, badge in shown.items():
        assert verdict in badge
    assert "✓" in shown["supported"]
    assert "✕" in shown["not supported"]


def test_values_that_do_not_exist_are_dashes() -> None:
    words = dict.fromkeys(("protocol", "question", "statement", "rule"), "words")
    shown = verdicts.card(Finding(**words, value=None, verdict="undecided"))
    assert "<strong>–</strong>" in shown
    assert "None" not in shown
    assert "<svg" not in shown


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0.0412869, "0.0413"),
        (-0.5, "−0.500"),
        (0.0, "0"),
        (0.99996, "1.00"),
        (12.345, "12.3"),
        (12345.6, "12,346"),
        (9_999_999.0, "1.00 × 10⁷"),
        (3.21e-5, "3.21 × 10⁻⁵"),
        (float("nan"), "–"),
        (float("-inf"), "−∞"),
    ],
)
def test_numbers_are_written_for_readers(value: float, written: str) -> None:
    assert number(value) == written


def test_settings_keep_their_digits() -> None:
    assert [plain(v) for v in (0.1, 1e-4, 16, -2.5)] == ["0.1", "0.0001", "16", "−2.5"]


def test_json_is_rounded_finite_and_harmless() -> None:
    values = np.array([np.pi, np.nan, np.inf, 0.0, 123456.7, -1e-7])
    text = to_json({"a": values, "b": "</script>", "c": np.float32(2.5), "d": np.arange(2)})
    assert "<" not in text
    assert json.loads(text) == {
        "a": [3.1416, None, None, 0.0, 123460.0, -1e-7],
        "b": "</script>",
        "c": 2.5,
        "d": [0, 1],
    }
    with pytest.raises(TypeError, match="cannot write object"):
        to_json({"a": object()})


@pytest.mark.parametrize("logarithmic", [False, True])
@pytest.mark.parametrize("length", [1, 2, 200, 201, 100_000])
def test_thinning_keeps_both_ends(length: int, logarithmic: bool) -> None:
    kept = thinned(length, 200, logarithmic=logarithmic)
    assert kept[0] == 0
    assert kept[-1] == length - 1
    assert len(kept) <= 200
    assert (np.diff(kept) > 0).all()


def test_the_tree_is_drawn_at_its_merging_distances(tmp_path: Path) -> None:
    run = synthetic_run(tmp_path, replicas=9)
    tree = PROTOCOL["hierarchy"].draw(run.parts)[0].panels[0].traces[1]
    bars = np.asarray(tree["y"]).reshape(-1, 5)[:, 1]
    np.testing.assert_allclose(bars, run.parts["hierarchy"]["linkage"][:, 2])
    leaves = np.asarray(tree["x"])[np.asarray(tree["y"]) == 0]
    assert sorted(leaves) == list(range(9))


def test_networks_that_do_not_count_are_marked(tmp_path: Path) -> None:
    run = synthetic_run(tmp_path)
    scatter = PROTOCOL["ruggedness"].draw(run.parts)[1].panels[0]
    marks = {trace["name"]: len(trace["x"]) for trace in scatter.traces}
    assert marks.pop("not counted") == 2
    assert sum(marks.values()) == 34


def test_constant_and_tiny_data_are_drawn(tmp_path: Path) -> None:
    run = synthetic_run(tmp_path, replicas=4)
    flat = xr.zeros_like(run.parts["permutation"]).assign_coords(run.parts["permutation"].coords)
    nulls = run.parts["hierarchy"].copy()
    nulls["K_null"][:] = nulls["K"]
    one = run.parts["walk/free"].isel(walker=[0], step=[0, 1])
    rough = run.parts["ruggedness"].isel(replica=[0, 1])
    run.parts = {"permutation": flat, "hierarchy": nulls, "walk/free": one, "ruggedness": rough}
    assert "NaN" not in page.html(run).partition("plotly.js")[0]


# What is said is true of the run at hand


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> str:
    return page.html(given_run(tmp_path_factory.mktemp("given")))


UNKNOWN_OF_GIVEN = (
    "play no part in training",
    "the seed of each fixes",
    "random start",
    "trained on the same data",
    "networks trained on digits",
    "trained networks ·",
    "independently trained",
    "same training loss (",
    "Kendall",
)


def test_given_networks_are_not_said_to_be_trained_here(given: str, text: str) -> None:
    told, own = " ".join(Page(given).text.split()), " ".join(Page(text).text.split())
    for words in UNKNOWN_OF_GIVEN:
        assert words not in told, words
        assert words in own, words
    assert "The loss landscape of given networks on digits" in told
    assert "24 given networks" in told
    assert "if the networks were trained on these samples, what is called test error is no" in told
    assert "as given; their training losses run from 0.0500 to 0.150 nats" in told
    assert "Nothing was trained: settings of training play no part either." in told
    assert "trained elsewhere" not in own


def test_a_given_network_alone_is_one(tmp_path: Path) -> None:
    run = given_run(tmp_path)
    run.parts = {"population": run.parts["population"].isel(replica=[1])}
    assert "· 1 given network ·" in page.html(run)


def test_networks_to_equal_loss_are_said_to_be(text: str) -> None:
    told = Page("").section("ruggedness", text)
    assert "about the same training loss (0.0500 to 0.0500 nats)" in told
    assert "2 networks that diverged or did not end near that loss are hollow" in told


def test_a_width_is_that_of_our_network_only(tmp_path: Path) -> None:
    run = synthetic_run(tmp_path)
    assert " · width 16 · " in page.html(run)
    run.config["model"] = "nets.py:build"
    assert " · width 16 · " not in page.html(run)
    rough = run.parts["ruggedness"].copy()
    rough["width"][:] = 0
    scatter = PROTOCOL["ruggedness"].draw({"ruggedness": rough})[1].panels[-1]
    notes = [note for trace in scatter.traces for note in trace["text"]]
    assert notes
    assert not [note for note in notes if "width" in note]


def test_reasons_for_less_than_a_protocol_are_listed(given: str, text: str, tmp_path: Path) -> None:
    told = Page("").section("left-out", given)
    assert "Generalisation" in told
    assert "Left out. Reason: these networks were trained elsewhere." in told
    assert "Nothing: all four" not in told
    assert "Nothing: all protocols were run." in Page("").section("left-out", text)
    run = given_run(tmp_path)
    run.config["left_out"] |= {"permutation": "no symmetry.", "hierarchy": "no symmetry."}
    run.parts = {n: p for n, p in run.parts.items() if n not in ("permutation", "hierarchy")}
    told = Page("").section("left-out", page.html(run))
    assert told.count("<dt>") == 3
    assert "symmetry.." not in told
    assert "Not all of it could be asked here" in page.html(run)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ('{"balanced": true}', "so that a rescaled copy gives the same slices."),
        ('{"balanced": false}', "a rescaled copy may give other slices."),
        ("{}", "relative to the size of the weights."),
    ],
)
def test_slices_are_said_to_ignore_scale_where_they_do(
    arguments: str, words: str, tmp_path: Path
) -> None:
    run = synthetic_run(tmp_path)
    rough = run.parts["ruggedness"].assign_attrs(arguments=arguments)
    caption = PROTOCOL["ruggedness"].draw({"ruggedness": rough})[0].caption
    assert caption.endswith(words)


def test_rugged_slices_are_counted_where_they_are_stored(run: SyntheticRun) -> None:
    rough = run.parts["ruggedness"]
    rows = dict(PROTOCOL["ruggedness"].draw({"ruggedness": rough})[1].rows)
    name = "slices with more than one minimum (T above 2)"
    assert rows[name] == "16.7 % (0.0 % to 16.7 %)"
    assert rows["test error"].count("%") == 3
    bare = PROTOCOL["ruggedness"].draw({"ruggedness": rough.drop_vars("rugged_slices")})[1].rows
    assert name not in dict(bare)


def test_curves_stand_at_their_epochs_and_errors_are_in_percent() -> None:
    often = population(6, 0, epochs=4, evaluations=28)
    loss, error, _ = PROTOCOL["population"].draw({"population": often})[0].panels
    np.testing.assert_allclose(loss.traces[1]["x"], np.arange(1, 29) / 7)
    assert error.layout["yaxis"]["title"]["text"] == "Validation error (%)"
    middle = error.traces[1]["y"]
    expected = 100 * often["curve_validation_error"][1:, 0].median()
    assert middle[0] == pytest.approx(float(expected))
    assert error.alternative.endswith("%.")
    bare = PROTOCOL["population"].draw({"population": often.drop_vars("epoch")})[0].panels[0]
    np.testing.assert_array_equal(bare.traces[1]["x"], np.arange(1, 29))


def test_captions_count_the_curves_that_are_drawn() -> None:
    few, many = (
        PROTOCOL["population"].draw({"population": population(count, 0)})[0].caption
        for count in (24, 400)
    )
    assert few.startswith("One thin line for each of 23 replicas;")
    assert "1 of 24 replicas diverged and is left out" in few
    assert many.startswith("One thin line for 128 of 399 replicas;")


def test_spreads_are_of_what_is_there() -> None:
    assert spread([1.0, np.nan, 2.0, 3.0]) == ("2.00", "1.20 to 2.80")
    assert spread([]) == spread([np.nan]) == ("–", "–")


def test_rank_correlations_come_with_their_intervals(run: SyntheticRun) -> None:
    measures = {"measure": ["roughness", "local_energy"]}
    values = {"tau": [0.31, np.nan], "tau_low": [0.1, np.nan], "tau_high": [0.5, np.nan]}
    words = {"long_name": "Kendall τ"}
    taus = {name: ("measure", column, words) for name, column in values.items()}
    rough = run.parts["ruggedness"].drop_vars("tau_roughness").assign(taus).assign_coords(measures)
    rows = dict(PROTOCOL["ruggedness"].draw({"ruggedness": rough})[1].rows)
    assert rows["Kendall τ, roughness index"] == "0.310, 0.100 to 0.500 (95 %)"
    assert rows["Kendall τ, local energy"] == "–"
    assert not [name for name in rows if "bound" in name or "_" in name]


# The page of a paper's study


def answered(claims: tuple[Claim, ...]) -> list[Finding]:
    """A supported finding for every question that a claim names, and one of each stem."""
    questions = [q for claim in claims for q in (*claim.deciding, *claim.beside)]
    stems = [f"{stem} = 0.1 nats)" for claim in claims for stem in claim.stems]
    return [
        Finding(
            protocol="walk",
            question=question,
            statement=f"Statement {k}.",
            value=1000.0 + k,
            low=900.0,
            high=2000.0,
            level=0.95,
            null=f"null {k}",
            null_value=500.0 + k,
            rule=f"rule {k}.",
            verdict="supported",
        )
        for k, question in enumerate([*questions, *stems])
    ]


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> SyntheticRun:
    run = synthetic_run(tmp_path_factory.mktemp("reproduced"))
    run.study, run.findings = "liao2024", answered(claims_of("liao2024"))
    return run


def test_the_page_of_a_paper_begins_with_its_claims(reproduced: SyntheticRun, text: str) -> None:
    told = page.html(reproduced)
    sections = re.findall(r'<section id="([a-z-]*)"', told)
    assert sections[:2] == ["claims", "findings"]
    assert sections.index("hierarchy") + 1 == sections.index("clones")
    assert 'id="claims"' not in text
    assert 'id="clones"' not in text
    section = Page(Page("").section("claims", told)).text
    assert RULE in section
    for claim in claims_of("liao2024"):
        assert [words in section for words in (claim.text, claim.known, claim.ours)] == [True] * 3
    for finding in reproduced.findings:
        shown = (finding.question, finding.statement, finding.null, finding.rule)
        assert not [words for words in shown if words not in section]
        assert number(finding.value or 0) in section
        assert number(finding.null_value or 0) in section
    assert section.count("900 to 2000 (95 %)") == len(reproduced.findings)


def test_only_a_paper_is_said_to_go_further(reproduced: SyntheticRun, text: str) -> None:
    told = page.html(reproduced)
    for protocol in protocols_of("liao2024"):
        if protocol.further:
            assert protocol.further in Page(told).text
            assert protocol.further not in Page(text).text


def test_a_claim_stands_by_its_deciding_findings_alone() -> None:
    claim = Claim("key", "text", "known", "ours", ("first?", "second?"), ("third?",), ("fourth",))

    def found(**verdicts: str) -> list[Finding]:
        words = dict.fromkeys(("protocol", "statement", "rule"), "words")
        return [
            Finding(**words, question=f"{name}?", value=1.0, p=0.5, verdict=verdict)
            for name, verdict in verdicts.items()
        ]

    yes, no = "supported", "not supported"
    assert claim.verdict(found(first=yes, second=yes, third=no)) == "supported"
    assert claim.verdict(found(first=yes, second=no)) == "not supported"
    assert claim.verdict(found(first=yes)) == "undecided"
    assert claim.verdict(found(first=yes, second="undecided", third=yes)) == "undecided"
    order = [
        f.question for f in claim.found(found(fourth_at_T=yes, third=yes, second=yes, fifth=no))
    ]
    assert order == ["second?", "third?", "fourth_at_T?"]


def test_every_question_belongs_to_one_claim() -> None:
    named = [q for claim in claims_of("liao2024") for q in (*claim.deciding, *claim.beside)]
    assert len(named) == len(set(named))
    assert claims_of("explore") == ()


def test_every_part_is_drawn_in_one_section() -> None:
    parts = [part for protocol in protocols_of("liao2024") for part in protocol.parts]
    assert len(parts) == len(set(parts))
    assert set(parts) >= EXPLORED


@pytest.mark.parametrize(
    "foreign",
    [
        xr.Dataset({"straight_barrier": ("pair", [0.1]), "loss": ("pair", [0.1])}),
        xr.Dataset({"loss": ("lam", [0.1]), "barrier": ((), 0.1)}),
    ],
    ids=["bezier_paths", "barrier"],
)
def test_a_measurement_that_is_no_protocol_is_refused(foreign: xr.Dataset) -> None:
    with pytest.raises(ValueError, match="no picture is known"):
        report.draw(foreign)
