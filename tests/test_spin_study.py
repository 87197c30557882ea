"""`spins` and `reproduce barney2024`: parts, findings, claims, pages, checkpoints, resumption."""

import json

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import save_file

import spinscape as ss
from spinscape import report
from spinscape.report.claims import claims_of
from spinscape.spins import phase_findings
from spinscape.store import Run, runs
from spinscape.studies.spin_runs import follow
from spinscape.studies.spin_settings import SPIN_PRESETS
from tiny_study import DATA, NETS, SPINS, spoken, toml, written

FOLLOWED = [
    f"{part}/{net}"
    for part in ("phases", "tap", "spectra", "overlaps")
    for net in ("relu", "binarized")
]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("followed") / "run"


@pytest.fixture(scope="module")
def run(path):
    return ss.reproduce("barney2024", seed=0, out=path, **SPINS)


@pytest.fixture(scope="module")
def page(run):
    return (run.path / "page.html").read_text()


@pytest.fixture
def saved(tmp_path):
    for seed in (0, 1):
        module = ss.models.mlp(64, [12, 9], 10, seed=seed)
        save_file(module.state_dict(), tmp_path / f"{'ab'[seed]}.safetensors")
    return tmp_path


def test_a_run_holds_what_every_protocol_found(run):
    names = set(run.part_names())
    assert names >= {"population", "population_binarized", "laziness", *FOLLOWED}
    for name in (*FOLLOWED, "laziness"):
        part = run.dataset(name)
        assert part.attrs["source"], name
        assert "seed" in part.attrs, name
        for variable in part.data_vars.values():
            assert {"units", "long_name"} <= set(variable.attrs), (name, variable.name)


def test_the_first_steps_are_looked_at_one_by_one(run):
    for net in ("relu", "binarized"):
        steps = run.dataset(f"phases/{net}")["step"].values.tolist()
        assert steps[:3] == [0, 1, 2]
        trained = run.dataset("population" if net == "relu" else "population_binarized")
        last = round(float(trained["epochs_run"][0]) * steps[-1] / SPINS["epochs"])
        assert steps[-1] == last


def test_phases_are_those_of_the_checkpoints(run):
    pieces = run.dataset("training/relu,replicas=0-3")
    module = ss.models.mlp(64, [12, 12], 10, bias=False)
    history = run.dataset("phases/relu")
    for replica in (0, 1):
        point = torch.from_numpy(pieces["snapshot"].isel(replica=replica, snapshot=-1).values)
        found = ss.spins.phase(ss.spins.SpinModel.from_point(module, point), permutations=2, seed=0)
        stored = history.isel(replica=replica, step=-1)
        assert float(stored["T_c"]) == pytest.approx(float(found.T_c), rel=1e-6)
        assert str(stored["kind"].values) == str(found.kind.values)
        first = torch.from_numpy(pieces["snapshot"].isel(replica=replica, snapshot=0).values)
        change = float((point - first).norm() / first.norm())
        assert float(stored["weight_change"]) == pytest.approx(change, rel=1e-5)


def test_every_finding_that_a_claim_names_was_made(run):
    asked = {finding.question for finding in run.findings}
    for claim in claims_of("barney2024"):
        assert claim.deciding, claim.key
        assert not set(claim.deciding) - asked
        assert not set(claim.beside) - asked
        assert claim.verdict(list(run.findings)) in ("supported", "not supported", "undecided")


@pytest.mark.parametrize("name", ["population", "laziness", *FOLLOWED])
def test_every_part_can_be_drawn_alone(run, name):
    figures = report.draw(run.dataset(name))
    assert figures
    for key, figure in figures.items():
        assert len(figure.data) > 0, key


def test_what_one_model_gives_can_be_drawn():
    model = ss.spins.SpinModel.layered([20, 15, 10], seed=0, spike=3.0)
    for found in (
        ss.spins.phase(model, permutations=2),
        ss.spins.spectrum(model, nulls=2, bootstraps=2),
        ss.spins.tap(model, 1.5, starts=3),
    ):
        for key, figure in report.draw(found).items():
            assert len(figure.data) > 0, key


def test_the_page_has_every_section_and_says_what_is_not_in_equilibrium(page):
    for section in ("phases", "tap", "spectra", "overlaps", "laziness", "claims"):
        assert f'<section id="{section}">' in page
    assert "NOT" in page  # forty sweeps are far too few
    assert "no temperature of training" in page or "not a temperature of training" in page


def test_it_goes_on_and_repeats_nothing(run, path, monkeypatch):
    def never(*_):
        raise AssertionError("computed again")

    monkeypatch.setattr(runs, "_computed", never)
    again = ss.reproduce("barney2024", seed=0, out=path, **SPINS)
    assert [finding.to_dict() for finding in again.findings] == [
        finding.to_dict() for finding in run.findings
    ]


def test_two_workers_give_the_same_numbers(run, tmp_path):
    other = ss.reproduce("barney2024", seed=0, out=tmp_path / "run", workers=2, **SPINS)
    for name in (*FOLLOWED, "laziness"):
        one, two = run.dataset(name), other.dataset(name)
        for variable in one.variables:
            a, b = one[variable].values, two[variable].values
            if np.issubdtype(a.dtype, np.floating):
                np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5, err_msg=f"{name} {variable}")


def test_checkpoints_are_read_without_training(saved):
    found = follow(
        checkpoint=str(saved / "*.safetensors"),
        out=saved / "run",
        **{name: value for name, value in SPINS.items() if name.startswith(("tap", "over", "per"))},
    )
    phases = found.dataset("phases/given")
    assert phases["replica"].values.tolist() == ["a", "b"]
    own = ss.spins.phase(
        ss.spins.SpinModel.from_checkpoint(saved / "b.safetensors"), permutations=2, seed=0
    )
    assert float(phases["T_c"].sel(replica="b").item()) == pytest.approx(float(own.T_c), rel=1e-6)
    assert len(found.findings) == 2
    assert "trained elsewhere" in (found.path / "page.html").read_text()
    assert Run.load(found.path).config["checkpoints"]


def test_the_command_reads_checkpoints_and_prints_json(saved, capsys):
    settings = {k: v for k, v in SPINS.items() if k.startswith(("tap", "over", "per"))}
    told = spoken(
        capsys,
        "spins",
        "--checkpoint",
        str(saved / "a.safetensors"),
        "--out",
        str(saved / "run"),
        "--config",
        toml(saved, **settings),
        "--json",
    )
    assert told.status == 0, told.err
    (finding,) = json.loads(told.out)["findings"]
    assert finding["protocol"] == "phases"
    assert finding["verdict"] in ("supported", "not supported", "undecided")


def test_the_command_trains_on_data_of_the_users(tmp_path, capsys):
    written(tmp_path, "mine.py", DATA)
    told = spoken(
        capsys,
        "spins",
        "--data",
        f"{tmp_path / 'mine.py'}:load",
        "--out",
        str(tmp_path / "run"),
        "--config",
        toml(tmp_path, **SPINS),
    )
    assert told.status == 0, told.err
    assert "Findings" in told.out
    assert "claim" not in told.out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"checkpoint": "none.safetensors"}, "no such file"),
        ({"checkpoint": "*.nothing"}, "no file matches"),
        ({"checkpoint": [], "seed": 0}, "at least one"),
        ({"model": "x:y"}, "only with checkpoint="),
        ({"checkpoint": "a.safetensors", "data": "digits"}, "nothing is trained"),
        ({"checkpoint": "a.safetensors", "replicas": 3}, "nothing is trained"),
        ({"checkpoint": "a.safetensors", "seed": -1}, "0 or more"),
        ({"preset": "fast"}, "expected one of quick"),
        ({"tap_heats": [-1.0]}, "expected 0 or more"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, told, saved, monkeypatch):
    monkeypatch.chdir(saved)
    with pytest.raises(ValueError, match=told):
        follow(**arguments)


def test_a_checkpoint_of_another_kind_of_layer_is_refused_in_one_line(saved, capsys):
    save_file(ss.models.cnn(1, 10).state_dict(), saved / "conv.safetensors")
    told = spoken(capsys, "spins", "--checkpoint", str(saved / "conv.safetensors"))
    assert told.status == 2
    assert "convolution" in told.err
    assert told.err.count("\n") == 1
    written(saved, "net.py", NETS)
    told = spoken(
        capsys,
        "spins",
        "--checkpoint",
        str(saved / "conv.safetensors"),
        "--model",
        f"{saved / 'net.py'}:build",
    )
    assert told.status == 2
    assert told.err.count("\n") == 1


def test_networks_that_did_not_learn_are_not_said_to_have_learned():
    finding = phase_findings.accuracy_finding([0.2, 0.3, 0.25], 0.94, "ReLU", seed=0)
    assert finding.verdict == "not supported"
    assert finding.value == pytest.approx(0.75)


def test_a_glass_of_the_wrong_temperature_is_no_support():
    phases = xr.Dataset(
        {"kind": ("replica", ["glass"] * 4), "T_c": ("replica", [1.3, 1.31, 1.29, 1.3])}
    )
    found = phase_findings.glass_finding({"a": phases}, 1.0, seed=0)
    assert found.verdict == "not supported"
    right = phases.assign(T_c=("replica", [1.01, 1.03, 1.02, 1.0]))
    assert phase_findings.glass_finding({"a": right}, 1.0, seed=0).verdict == "supported"


def test_standard_and_paper_ask_for_more():
    quick, standard, paper = (SPIN_PRESETS[name] for name in ("quick", "standard", "paper"))
    assert quick.replicas < standard.replicas < paper.replicas
    assert quick.spaced_steps < standard.spaced_steps < paper.spaced_steps


@pytest.mark.slow
def test_the_recipe_reaches_its_promise_on_digits_and_sees_the_order(tmp_path):
    found = follow(out=tmp_path / "run", workers=2)
    by_question = {finding.question: finding for finding in found.findings}
    for net in ("ReLU", "binarized"):
        for question in (
            "Did the networks learn the task? ({})",
            "Does training quickly destroy the glass? ({})",
            "Is there an order that the norms of the weights do not explain? ({})",
        ):
            assert by_question[question.format(net)].verdict == "supported", question
    untrained = by_question["Is an untrained network a layered Sherrington-Kirkpatrick glass?"]
    assert untrained.verdict == "supported"
