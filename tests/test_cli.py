"""Every command and option end to end; every error is one line on stderr and status 2."""

import io
import json
import os
import shutil
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import xarray as xr
from safetensors.torch import save_file

import spinscape as ss
from spinscape.studies import exploration
from tiny_study import (
    GIVEN,
    NETS,
    OWN,
    TINY,
    archive,
    checkpoints,
    one_line,
    quick_run,
    spoken,
    toml,
    written,
)


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch):
    """That data reach the disk is tested with the store; here it only takes time."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def population_only(monkeypatch):
    monkeypatch.setattr(exploration.Study, "protocols", {})


@pytest.fixture
def spin(capsys, tmp_path, monkeypatch):
    """The command line, called from an empty folder."""
    monkeypatch.chdir(tmp_path)

    return partial(spoken, capsys)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    return quick_run(tmp_path_factory.mktemp("cli") / "run").path


# What works


def test_explore_shows_a_table_and_says_where_the_page_is(spin, tmp_path):
    out = tmp_path / "run"
    told = spin("explore", "--config", toml(tmp_path, **TINY), "--out", out)
    assert told.status == 0
    assert told.err == ""
    assert f"page: {out / 'page.html'}" in told.out
    run = ss.Run.load(out)
    for finding in run.findings:
        assert finding.protocol in told.out
        assert finding.verdict in told.out
    assert run.config["settings"]["width"] == 4


@pytest.mark.parametrize("command", ["explore", "report"])
def test_json_is_one_document_with_all_findings(spin, tmp_path, finished, command):
    words = {
        "explore": ["--config", toml(tmp_path, **TINY), "--out", finished],
        "report": [finished],
    }
    told = spin(command, *words[command], "--json")
    assert (told.status, told.err) == (0, "")
    document = json.loads(told.out)
    assert document["run"] == str(finished)
    assert document["page"] == str(finished / "page.html")
    found = [ss.Finding.from_dict(record) for record in document["findings"]]
    assert found == ss.Run.load(finished).findings
    assert document["left_out"] == {}


def test_what_is_left_out_is_told_everywhere(spin, tmp_path, population_only):
    model = f"{written(tmp_path, 'nets.py', NETS)}:convolution"
    words = ["explore", "--config", toml(tmp_path, **OWN), "--model", model, "--out", "run"]
    told = {
        key: json.loads(spin(*words, *key, "--json").out)["left_out"]
        for key in ((), ("--dry-run",))
    }
    assert told[()] == told["--dry-run",] == ss.Run.load("run").config["left_out"]
    assert list(told[()]) == ["permutation", "hierarchy"]
    for more in ((), ("--dry-run",)):
        shown = spin(*words, *more).out.splitlines()
        for name, reason in told[()].items():
            assert f"left out: {name} ({reason})" in "\n".join(shown)


def test_report_draws_the_page_again(spin, finished):
    page = finished / "page.html"
    before = page.read_bytes()
    page.unlink()
    told = spin("report", finished)
    assert told.status == 0
    assert f"page: {page}" in told.out
    assert page.read_bytes() == before


def test_the_same_command_goes_on_with_another_number_of_workers(spin, tmp_path, finished):
    words = ["explore", "--config", toml(tmp_path, **TINY), "--out", finished, "--json"]
    assert spin(*words, "--workers", 2).out == spin(*words).out


@pytest.mark.parametrize("given", [[], ["--model"], ["--checkpoints"]])
def test_a_dry_run_plans_and_makes_nothing(spin, tmp_path, given):
    settings, words, replicas = TINY, [], 8
    if given:
        settings = OWN
        words = ["--model", f"{written(tmp_path, 'nets.py', NETS)}:build"]
    if given == ["--checkpoints"]:
        words += ["--checkpoints", checkpoints(tmp_path, 5)]
        settings, replicas = GIVEN, 5
    words = ["explore", "--config", toml(tmp_path, **settings), "--out", "run", *words]
    before = sorted(tmp_path.rglob("*.*"))
    told = spin(*words, "--dry-run", "--json")
    assert (told.status, told.err) == (0, "")
    plan = json.loads(told.out)
    rows = {row["part"]: row for row in plan["parts"]}
    assert list(rows) == ["population", "walk", "permutation", "hierarchy", "ruggedness"]
    assert f"{replicas} networks" in rows["population"]["work"]
    assert "8 paths of" in rows["permutation"]["work"]
    assert all(0 <= row["seconds"] < 60 and 0 < row["megabytes"] < 100 for row in plan["parts"])
    assert plan["seconds"] == pytest.approx(sum(row["seconds"] for row in plan["parts"]))
    assert 50 < plan["megabytes"] < 20_000  # this process, torch and all
    assert not Path("run").exists()
    assert not Path("runs").exists()
    table = spin(*words, "--dry-run").out
    assert all(part in table for part in rows)
    assert [p for p in sorted(tmp_path.rglob("*.*")) if "__pycache__" not in str(p)] == before


def test_a_plan_grows_with_the_work(spin, tmp_path):
    def planned(**changes):
        config = toml(tmp_path, **TINY | changes)
        return json.loads(spin("explore", "--config", config, "--dry-run", "--json").out)

    small, large = planned(), planned(walk_steps=20_000, replicas=4_000, pairs=20_000)
    for part in (0, 1, 2):
        assert large["parts"][part]["seconds"] > 10 * small["parts"][part]["seconds"]
    assert large["megabytes"] > small["megabytes"]


def test_the_command_line_goes_before_the_file_and_that_before_the_preset(
    spin, tmp_path, population_only
):
    file = toml(tmp_path, **TINY | {"seed": 5, "replicas": 6, "preset": "standard", "out": "a"})
    words = ["explore", "--config", file, "--replicas", 5, "--width", 3, "--out", "b"]
    assert spin(*words).status == 0
    config = ss.Run.load("b").config
    assert not Path("a").exists()
    assert (config["preset"], config["seed"]) == ("standard", 5)
    settings = config["settings"]
    assert (settings["replicas"], settings["width"], settings["epochs"]) == (5, 3, 3)
    assert (settings["walkers"], settings["walk_step"]) == (12, 0.02)
    assert spin("explore", "--config", file, "--seed", 6, "--preset", "quick").status == 0
    config = ss.Run.load("a").config
    assert (config["preset"], config["seed"], config["settings"]["replicas"]) == ("quick", 6, 6)


def test_data_of_a_file_are_explored(spin, tmp_path, population_only):
    told = spin("explore", "--config", toml(tmp_path, **TINY), "--data", archive(tmp_path))
    assert told.status == 0
    (folder,) = Path("runs").iterdir()
    assert folder.name.startswith("explore-data-quick-")
    assert ss.Run.load(folder).dataset("population").sizes["n"] == 6 * 4 + 4 + 4 * 3 + 3


@pytest.mark.parametrize("words", [[], ["--help"], ["explore", "--help"], ["report", "--help"]])
def test_help_is_shown(spin, words):
    told = spin(*words)
    assert (told.status, told.err) == (0, "")
    assert "Usage: " in told.out


def test_every_option_is_in_the_help(spin, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    told = spin("explore", "--help").out
    options = "data preset width replicas seed workers out config model checkpoints dry-run json"
    for option in options.split():
        assert f"--{option} " in told


class Terminal(io.StringIO):
    """A standard error that somebody looks at."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_progress(spin, tmp_path, finished, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    path = shutil.copytree(finished, tmp_path / "run")
    (path / "manifests" / "hierarchy.json").unlink()
    words = ["explore", "--config", toml(tmp_path, **TINY), "--out", path]
    assert spin(*words).status == 0
    for part in ("training", "walk", "hierarchy", "ruggedness"):
        assert part in terminal.getvalue()
    terminal.truncate(0)
    assert spin(*words, "--json").status == 0
    assert "training" not in terminal.getvalue()


# What is refused: usage


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["explore", "--nope"], "No such option"),
        (["explore", "--width", "wide"], "Invalid value for '--width'"),
        (["explore", "--seed", "1.5"], "Invalid value for '--seed'"),
        (["explore", "--width"], "'--width' requires an argument"),
        (["explore", "digits"], "unexpected extra argument"),
        (["report"], "Missing argument"),
        (["report", "a", "b"], "unexpected extra argument"),
        (["explain"], "No such command 'explain'"),
        (["--nope"], "No such option"),
    ],
)
def test_wrong_usage(spin, words, message):
    one_line(spin(*words), message)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--preset", "huge"], "preset='huge': expected one of quick, standard, paper"),
        (["--replicas", 3], "replicas=3: expected 4 or more"),
        (["--width", 0], "width=0: expected 1 or more"),
        (["--seed", -1], "seed=-1: expected a whole number, 0 or more"),
        (["--workers", 0], "workers must be at least 1, got 0"),
        (["--checkpoints", "*.pt"], "checkpoints: need model='module:function'"),
        (["--data", "missing.npz"], "'missing.npz': no such file or folder; data is 'digits', an"),
        (["--data", "missing:load"], "missing:load: importing missing failed"),
        (["--data", ""], "'': no such file or folder"),
        (["--config", "none.toml"], "config none.toml: cannot be read (No such file"),
        (["--config", "."], "config .: cannot be read (Is a directory)"),
    ],
)
def test_values_that_cannot_be(spin, words, message):
    one_line(spin("explore", *words), message)
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("depth = 3", "depth: no such setting; there are width, replicas, epochs"),
        ("[settings]\nwidth = 3", "settings: no such setting"),
        ("progress = 1", "progress: no such setting"),
        ("width = 4.5", "width=4.5: expected a whole number"),
        ("width = 'wide'", "width='wide': expected a whole number"),
        ("width = true", "width=True: expected a whole number"),
        ("seed = 'a'", "seed='a': expected a whole number"),
        ("data = 3", "data=3: expected a word"),
        ("model = 3", "model=3: expected a word"),
        ("checkpoints = 3", "checkpoints=3: expected a pattern"),
        ("out = 3", "out=3: expected a path"),
        ("workers = 'two'", "workers='two': expected a whole number"),
        ("preset = 3", "preset=3: expected one of quick"),
        ("learning_rate = nan", "learning_rate=nan: expected 0 or more"),
        ("learning_rate = inf", "learning_rate=inf: expected 0 or more"),
        ("momentum = -0.5", "momentum=-0.5: expected 0 or more"),
        ("thermal_energy = 0.0", "thermal_energy=0.0: expected more than 0"),
        ("walk_step = 0", "walk_step=0: expected more than 0"),
        ("directions = 1", "directions=1: expected 2 or more"),
        ("probes = 1", "probes=1: expected 2 or more"),
        ("schedule = 'zigzag'", "schedule='zigzag': expected one of constant, linear, cosine"),
        ("hyper_widths = []", "hyper_widths: expected at least one value"),
        ("hyper_batch_sizes = [64, 0]", "hyper_batch_sizes=0: expected 1 or more"),
        ("width = ", "config settings.toml: not TOML"),
        ("width = 4\nwidth = 5", "config settings.toml: not TOML"),
    ],
)
def test_a_settings_file_that_cannot_be(spin, tmp_path, setting, message):
    written(tmp_path, "settings.toml", setting)
    one_line(spin("explore", "--config", "settings.toml"), message)
    assert not Path("runs").exists()


# Two checkpoints


@pytest.fixture
def three(tmp_path):
    """Two networks and what they have in common, one with a tensor more."""
    generator = torch.Generator().manual_seed(0)
    paths = []
    for name in ("a", "b", "base"):
        tensors = {"0.weight": torch.randn(4, 3, generator=generator)}
        if name == "b":
            tensors["more"] = torch.ones(2)
        paths.append(tmp_path / f"{name}.safetensors")
        save_file(tensors, paths[-1])
    return paths


def test_compare_prints_parameters_and_task_vectors(spin, three, tmp_path):
    a, b, base = three
    spoken = spin("compare", a, b, "--base", base, "--out", tmp_path / "all.nc")
    assert spoken.status == 0
    for words in ("Parameters", "Task vectors", "only in B: more", "1 of 2 tensors compared"):
        assert words in spoken.out
    assert "task_overlap" in xr.open_dataset(tmp_path / "all.nc", engine="scipy")


def test_compare_tells_programs(spin, three):
    told = json.loads(spin("compare", three[0], three[0], "--json").out)
    assert told["whole_overlap"] == told["whole_ssr"] == told["whole_norm_ratio"] == 1.0


def test_compare_refuses_what_is_no_checkpoint(spin, tmp_path):
    one_line(spin("compare", tmp_path / "a.pt", tmp_path / "b.pt"), "no such file")
