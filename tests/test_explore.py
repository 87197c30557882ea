"""`explore` from data to page, on settings so small that nothing is claimed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import spinscape as ss
from small_runs import waited
from spinscape.studies import exploration
from tiny_study import (
    PROTOCOLS,
    TINY,
    quick_run,
    same_numbers,
    toml,
    tree,
)


@pytest.fixture(scope="module", autouse=True)
def _quick_disk():
    """That data reach the disk is tested with the store; here it only takes time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return quick_run(tmp_path_factory.mktemp("explore") / "run")


@pytest.fixture
def population_only(monkeypatch):
    monkeypatch.setattr(exploration.Study, "protocols", {})


def refuse(*_args, **_options):
    raise AssertionError("a stored part was computed again")


# A whole run


def test_all_parts_findings_and_the_page_are_there(run):
    pieces = {
        "training/replicas=0-7",
        *(f"ruggedness_pieces/width={w},batch_size=64" for w in (4, 8)),
    }
    pieces |= {
        f"walk_pieces/{rule},walkers={w}" for rule in ("free", "thermal") for w in ("0-7", "8-11")
    }
    assert set(run.part_names()) == {"population", *PROTOCOLS, *pieces}
    assert {finding.protocol for finding in run.findings} == {
        "walk",
        "permutation",
        "hierarchy",
        "ruggedness",
    }
    page = (run.path / "page.html").read_text()
    for finding in run.findings:
        assert finding.rule.split(";")[0][:40] in page
    assert not list((run.path / ".partial").iterdir())


def test_sizes_are_those_of_the_settings(run):
    found = {name: dict(run.dataset(name).sizes) for name in ["population", *PROTOCOLS]}
    assert found["population"]["replica"] == 8
    assert found["population"]["n"] == 64 * 4 + 4 + 4 * 10 + 10
    assert found["population"]["epoch"] == 3
    for rule in ("free", "thermal"):
        assert (found[f"walk/{rule}"]["walker"], found[f"walk/{rule}"]["step"]) == (12, 21)
    assert (found["permutation"]["path"], found["permutation"]["lam"]) == (8, 5)
    assert (found["hierarchy"]["replica"], found["hierarchy"]["surrogate"]) == (8, 8)
    assert (found["ruggedness"]["replica"], found["ruggedness"]["direction"]) == (4, 3)


def test_the_tree_opens_whole_and_says_what_its_variables_are(run):
    opened = tree(run)
    stored = {leaf.path.strip("/"): leaf.to_dataset() for leaf in opened.leaves}
    assert set(stored) == set(run.part_names())
    for name, dataset in stored.items():
        for variable in dataset.data_vars.values():
            assert variable.attrs.get("long_name"), (name, variable.name)
            assert variable.attrs.get("units"), (name, variable.name)


@pytest.mark.parametrize("name", ["population", *PROTOCOLS])
def test_attributes_reproduce_a_protocol(run, name):
    attributes = run.dataset(name).attrs
    assert attributes["seed"] == 0
    assert isinstance(json.loads(attributes["arguments"]), dict)
    assert json.loads(attributes["versions"])["torch"] == torch.__version__
    assert len(attributes["source"]) > 10


def test_the_configuration_holds_what_the_user_did_not_set(run):
    assert run.config["settings"]["width"] == 4
    assert run.config["settings"]["momentum"] == 0.9
    assert (run.config["preset"], run.config["seed"], run.config["data"]) == ("quick", 0, "digits")
    assert "workers" not in str(run.config)


def test_replica_k_is_the_network_of_a_training_of_its_own(run):
    data = ss.datasets.load("digits", seed=0, limit=300)
    module = ss.models.mlp(64, [4], 10)
    alone = ss.train(module, data, replicas=[5], epochs=3, weight_decay=1e-4, seed=0)
    torch.testing.assert_close(
        ss.points(run.dataset("population"))[5], ss.points(alone)[0], rtol=1e-4, atol=1e-5
    )


# The same numbers


def test_two_workers_give_the_numbers_of_one(run, tmp_path):
    same_numbers(run, ss.explore("digits", out=tmp_path / "two", workers=2, **TINY))


def test_another_seed_gives_other_numbers(run, tmp_path):
    other = ss.explore("digits", out=tmp_path / "other", seed=1, **TINY)
    for name in ["population", *PROTOCOLS]:
        assert not run.dataset(name).equals(other.dataset(name)), name


def test_a_finished_run_is_read_not_computed(run, monkeypatch):
    before = tree(run), run.findings
    monkeypatch.setattr("spinscape.store.runs._computed", refuse)
    monkeypatch.setattr(exploration, "train", refuse)
    again = ss.explore("digits", out=run.path, **TINY)
    xr.testing.assert_identical(tree(again), before[0])
    assert again.findings == before[1]


def test_only_a_missing_part_is_computed(run, tmp_path, monkeypatch):
    path = shutil.copytree(run.path, tmp_path / "run")
    (path / "manifests" / "hierarchy.json").unlink()
    computed = []

    def noted(name, function):
        computed.append(name)
        return function()

    monkeypatch.setattr("spinscape.store.runs._computed", noted)
    same_numbers(run, ss.explore("digits", out=path, **TINY))
    assert computed == ["hierarchy"]


def test_without_out_the_name_is_made_of_what_is_asked(tmp_path, monkeypatch, population_only):
    monkeypatch.chdir(tmp_path)
    one = ss.explore("digits", **TINY)
    assert one.path.parent == tmp_path / "runs"
    assert one.path.name.startswith("explore-digits-quick-")
    assert ss.explore("digits", **TINY).path == one.path
    assert ss.explore("digits", **TINY | {"pairs": 9}).path != one.path


# Another configuration


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"width": 5}, "settings.width is 4 there, 5 here"),
        ({"seed": 7}, "seed is 0 there, 7 here"),
        ({"preset": "standard"}, "preset is 'quick' there, 'standard' here"),
        ({"thermal_energy": 0.7}, "settings.thermal_energy is 0.5 there, 0.7 here"),
        ({"sample_limit": 299}, "data_fingerprint is"),
    ],
)
def test_another_configuration_is_refused_by_name(run, change, told):
    with pytest.raises(ValueError, match="another configuration") as refused:
        ss.explore("digits", out=run.path, **TINY | change)
    assert told in str(refused.value)


def test_other_data_of_the_same_name_are_refused(tmp_path, population_only):
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(200, 5)), np.arange(200) % 2
    ss.explore((x, y), out=tmp_path / "run", **TINY)
    x[7, 2] += 1
    with pytest.raises(ValueError, match="data_fingerprint is"):
        ss.explore((x, y), out=tmp_path / "run", **TINY)


# Kills


def explored(path: Path, config: str, kill: tuple[int, float] | None = None) -> None:
    """Run the real command; kill it so many seconds after so many more parts are there."""
    command = [sys.executable, "-m", "spinscape", "explore", "--config", config, "--out", str(path)]
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(command, env=os.environ | threads, stdout=subprocess.DEVNULL)
    waited(process, path, kill)


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_moments_it_ends_with_the_numbers_of_an_undisturbed_run(
    run, tmp_path, kills
):
    config = toml(tmp_path, **TINY)
    generator = np.random.default_rng(20240729)
    cut_short = 0
    for kill in range(kills):
        path = tmp_path / str(kill // 3)  # up to three kills of the same run
        moment = int(generator.integers(0, 4)), generator.uniform(0, 0.2)
        explored(path, config, moment)
        cut_short += not (path / "page.html").exists()
    for path in {tmp_path / str(kill // 3) for kill in range(kills)}:
        explored(path, config)
        same_numbers(run, ss.Run.load(path))
        assert not list((path / ".partial").iterdir())
    assert cut_short > kills / 2, "the kills came too late to test anything"
