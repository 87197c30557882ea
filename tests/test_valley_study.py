"""`mine` and both studies of valleys: parts, findings, claims, pages, own networks, resumption."""

import json

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import save_file

import spinscape as ss
from spinscape import report
from spinscape.report.claims import claims_of
from spinscape.studies.mining_study import prospect_around
from spinscape.valleys import asymmetry_findings, mining_findings
from tiny_study import ASYMMETRY, MINING, NETS, spoken, toml, written

MINED = ("v-basin", "v-side", "w-basin", "vvv-basin", "w-peak", "saddle", "wine-bottle")


@pytest.fixture(scope="module")
def mined(tmp_path_factory):
    path = tmp_path_factory.mktemp("mined") / "run"
    return ss.reproduce("li2024-mining", seed=0, out=path, **MINING)


@pytest.fixture(scope="module")
def lopsided(tmp_path_factory):
    path = tmp_path_factory.mktemp("lopsided") / "run"
    return ss.reproduce("li2024-asymmetry", seed=0, out=path, **ASYMMETRY)


def test_a_run_of_mining_holds_what_every_protocol_found(mined):
    names = set(mined.part_names())
    assert names >= {"population", "sweep", "surfaces/pairs", "surfaces/noise"}
    assert names >= {f"mined/{shape}" for shape in MINED}
    for name in ("curves/solution", "mined/saddle", "curvature/initial", "sweep"):
        part = mined.dataset(name)
        assert part.attrs["source"], name
        for variable in part.data_vars.values():
            assert {"units", "long_name"} <= set(variable.attrs), (name, variable.name)


def test_a_run_of_asymmetry_holds_what_every_protocol_found(lopsided):
    names = set(lopsided.part_names())
    assert names >= {"population", "line", "mechanism", "asymmetry/base", "asymmetry/tanh"}
    base = lopsided.dataset("asymmetry/base")
    assert base.sizes["replica"] == 4
    assert set(base["special"].values) == set(ss.valleys.directions.SPECIAL)
    assert base["test_error"].dims == ("replica",)


@pytest.mark.parametrize("study", ["mined", "lopsided"])
def test_every_finding_that_a_claim_names_was_made(study, request):
    run = request.getfixturevalue(study)
    asked = {finding.question for finding in run.findings}
    for claim in claims_of(run.study):
        assert claim.deciding, claim.key
        missing = set(claim.deciding) - asked
        assert not missing, claim.key
        assert claim.verdict(list(run.findings)) in ("supported", "not supported", "undecided")


@pytest.mark.parametrize("study", ["mined", "lopsided"])
def test_the_page_has_every_section_and_no_empty_one(study, request):
    run = request.getfixturevalue(study)
    page = (run.path / "page.html").read_text()
    keys = {
        "mined": ("training", "curves", "mining", "surfaces", "curvature", "sweep"),
        "lopsided": ("training", "signs", "controls", "line", "mechanism"),
    }[study]
    for key in keys:
        assert f'<section id="{key}">' in page
    assert "This run does not hold it" not in page
    assert "Nothing: all protocols were run." in page
    assert "nan" not in page.split("<script")[0].lower().replace("finan", "")


def test_mined_pages_show_reliefs_that_can_be_turned(mined):
    page = (mined.path / "page.html").read_text()
    assert page.count('"type":"surface"') == page.count('"type":"contour"')
    assert page.count('"type":"surface"') >= 6
    assert "labelled bowl" in page


@pytest.mark.parametrize(
    "name", ["curves/solution", "mined/vvv-basin", "mined/saddle", "surfaces/pairs", "sweep"]
)
def test_every_part_of_mining_can_be_drawn_alone(mined, name):
    figures = report.draw(mined.dataset(name))
    assert figures
    assert all(len(figure.data) for figure in figures.values())


@pytest.mark.parametrize("name", ["asymmetry/base", "line", "mechanism", "population"])
def test_every_part_of_asymmetry_can_be_drawn_alone(lopsided, name):
    figures = report.draw(lopsided.dataset(name))
    assert figures
    assert all(len(figure.data) for figure in figures.values())


def test_lines_planes_and_eigenvalues_can_be_drawn(mined):
    module = ss.models.mlp(64, [8], 10)
    data = ss.datasets.load("digits", seed=0, limit=300)
    landscape = ss.Landscape(module, *data.train)
    point = landscape.space.point(module).detach()
    rows = ss.valleys.directions.gaussian(point, [0, 1])
    for found in (
        landscape.line(point, rows[0]),
        landscape.plane(point, *rows, [-1.0, 0.0, 1.0], [-1.0, 0.0, 1.0]),
        ss.valleys.scan(landscape, point, rows),
        ss.valleys.refined_plane(landscape, point, *rows, levels=1),
        ss.landscape.curvature.eigenpairs(landscape, point, top=2),
    ):
        figures = report.draw(found)
        assert figures
        assert all(len(figure.data) for figure in figures.values())


def test_resumed_and_parallel_runs_have_the_same_numbers(mined, tmp_path):
    again = ss.reproduce("li2024-mining", seed=0, out=tmp_path / "run", workers=2, **MINING)
    assert again.part_names() == mined.part_names()
    for name in mined.part_names():  # workers have one thread each, which adds in another order
        xr.testing.assert_allclose(mined.dataset(name), again.dataset(name), rtol=1e-3, atol=1e-4)
    assert [f.verdict for f in again.findings] == [f.verdict for f in mined.findings]
    before = (again.path / "run.toml").stat().st_mtime_ns
    resumed = ss.reproduce("li2024-mining", seed=0, out=tmp_path / "run", **MINING)
    assert resumed.findings == again.findings
    assert (again.path / "run.toml").stat().st_mtime_ns == before


@pytest.fixture
def nets(tmp_path, monkeypatch):
    written(tmp_path, "my_nets.py", NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


GIVEN = {name: value for name, value in MINING.items() if name not in ("width", "epochs")} | {
    "sweep_seeds": 2
}


def test_a_network_of_ones_own_is_mined_from_its_checkpoint(nets, capsys):
    module = torch.nn.Sequential(torch.nn.Linear(64, 4), torch.nn.ReLU(), torch.nn.Linear(4, 10))
    save_file(module.state_dict(), nets / "mine.safetensors")
    told = spoken(
        capsys,
        "mine",
        "--model",
        "my_nets:build",
        "--checkpoint",
        "mine.safetensors",
        "--config",
        toml(nets, **GIVEN),
        "--out",
        "run",
        "--json",
    )
    found = json.loads(told.out)
    assert "initialisation" in found["left_out"]
    run = ss.Run.load(nets / "run")
    assert "mined/bowl" in run.part_names()
    assert "mined/w-peak" not in run.part_names()
    page = (nets / "run" / "page.html").read_text()
    assert "a given network" in page


def test_a_convolutional_network_is_trained_and_mined(nets):
    few = {**GIVEN, "epochs": 1, "shapes": ("w-basin",), "steps": 2}
    run = prospect_around("digits", model="my_nets:convolution", out=nets / "run", **few)
    assert "wine-bottle" not in run.dataset("surfaces/constructed")["expected"].values


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"preset": "slow"}, "preset"),
        ({"checkpoint": "nothing.pt"}, "model"),
        ({"seed": -1}, "seed=-1"),
        ({"width": 8, "model": torch.nn.Linear(64, 10)}, "width"),
        ({"shapes": ("u-basin",)}, "u-basin"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(arguments, words, tmp_path):
    with pytest.raises(ValueError, match=words) as told:
        prospect_around(out=tmp_path / "run", **{**GIVEN, **arguments})
    assert "\n" not in str(told.value)


# Verdicts, on numbers made for them


def test_noise_that_is_a_v_basin_by_ninety_percent_decides():
    def labels(*counts):
        return _labelled(np.repeat(["v-basin", "v-side"], counts))

    many, few, half = labels(100, 0), labels(9, 1), labels(50, 50)
    assert mining_findings.noise_finding(many, None).verdict == "supported"
    assert mining_findings.noise_finding(few, None).verdict == "undecided"
    assert mining_findings.noise_finding(half, many).verdict == "not supported"
    assert mining_findings.noise_finding(half, many).null_value == 1


def _labelled(names):
    return xr.Dataset({"label": ("direction", names)})


def _mined(successes, total, shape="w-basin", dim="lam"):
    success = np.arange(total) < successes
    return xr.Dataset(
        {
            "success": ("seed", success),
            "collapsed": ("seed", ~success),
            "label": ("seed", np.where(success, shape, "flat")),
            "loss": (("seed", dim), np.zeros((total, 2))),
        },
        attrs={"shape": shape},
    )


def test_existence_is_judged_against_chance():
    none, all_ = _labelled(np.array(["v-basin"] * 20)), _labelled(np.array(["w-basin"] * 20))
    third = _labelled(np.array(["w-basin"] * 7 + ["v-basin"] * 13))
    judge = mining_findings.existence_finding
    assert judge(_mined(8, 10), none, "here").verdict == "supported"
    assert judge(_mined(0, 10), none, "here").verdict == "not supported"
    assert judge(_mined(3, 10), third, "here").verdict == "undecided"
    assert judge(_mined(10, 10), all_, "here").verdict == "supported"  # noise shows it itself
    assert judge(_mined(2, 2, "bowl", "a"), none, "here").protocol == "surfaces"


def test_unknown_variants_and_data_that_are_no_images_are_refused(tmp_path):
    with pytest.raises(ValueError, match="'swish' is not known"):
        ss.reproduce("li2024-asymmetry", out=tmp_path / "run", variants=("swish",))
    x, y = torch.rand(60, 7), torch.arange(60) % 3
    with pytest.raises(ValueError, match="no square images"):
        ss.reproduce("li2024-asymmetry", (x, y), out=tmp_path / "run")


def test_a_variant_that_has_not_learned_is_not_judged(lopsided):
    found = {
        name: lopsided.dataset(f"asymmetry/{name}") for name in ("base", "tanh", "norm-gaussian")
    }
    lost = {
        name: data.assign(test_error=data["test_error"] * 0 + 0.8) for name, data in found.items()
    }
    for finding in (
        *asymmetry_findings.activation_finding(lost, 0),
        asymmetry_findings.norm_finding(lost, 0),
        asymmetry_findings.hyper_finding(lost, ("base",), 0),
    ):
        assert finding.verdict == "undecided"
    failed = asymmetry_findings.learned_finding(np.array([0.5, 0.6, 0.7]), 0)
    assert failed.verdict == "not supported"
    supported = asymmetry_findings.learned_finding(np.array([0.05, 0.06, 0.04]), 0)
    (kept,) = asymmetry_findings.withheld([supported], failed)
    assert kept.verdict == "undecided"
    assert asymmetry_findings.withheld([supported], supported) == [supported]


def test_findings_without_finite_numbers_are_undecided_and_say_so(lopsided):
    base = lopsided.dataset("asymmetry/base")
    lost = base.map(lambda values: values * np.nan if values.dtype.kind == "f" else values)
    for finding in (
        *asymmetry_findings.consistent_findings(lost, 0),
        asymmetry_findings.ratio_finding(lost, 0),
        *asymmetry_findings.special_findings(lost, 0),
        asymmetry_findings.aligned_finding(lost, 0),
    ):
        assert finding.verdict == "undecided"
        assert finding.value is None
        assert "finite" in finding.statement
