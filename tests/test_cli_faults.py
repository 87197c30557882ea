"""Data, files, disks and interruptions that a command meets: one line, status, and a remedy."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch

import spinscape as ss
from spinscape.studies import exploration
from tiny_study import NETS, OWN, TINY, archive, one_line, quick_run, spoken, toml, written


@pytest.fixture
def quick_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def spin(capsys, tmp_path, monkeypatch):
    """The command line, called from an empty folder."""
    monkeypatch.chdir(tmp_path)
    return partial(spoken, capsys)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    return quick_run(tmp_path_factory.mktemp("cli") / "run").path


# Data


X = np.random.default_rng(0).normal(size=(200, 6))
LABELS = np.arange(200) % 3


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"x": np.where(np.arange(6) == 2, np.nan, X)},
            "not finite in torch.float32 (200 of 1,200)",
        ),
        ({"x": np.where(X > 2, np.inf, X)}, "not finite"),
        ({"y": LABELS - 1}, "labels out of range (67 of 200), the first -1 at index 0"),
        ({"y": LABELS * 4}, "3 different labels from 0 to 8, needs 0 .. 2"),
        ({"y": LABELS * 0}, "all labels are 0; there is nothing to tell apart"),
        ({"y": LABELS[:-1]}, "199"),
        ({"y": None}, "needs arrays named x and y, holds x"),
        ({"x": np.array(["a"] * 200)}, "data.npz: "),
    ],
)
def test_unsound_data(spin, tmp_path, arrays, message):
    archive(tmp_path, **arrays)
    one_line(spin("explore", "--data", "data.npz", "--out", "run"), message)
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("foreign.npz", "foreign.npz: not an .npz archive"),
        ("foreign.csv", "foreign.csv: cannot read this kind of file; data is 'digits'"),
        ("empty", "empty"),
    ],
)
def test_foreign_data(spin, tmp_path, name, message):
    written(tmp_path, "foreign.npz", "no archive")
    written(tmp_path, "foreign.csv", "1,2,3")
    (tmp_path / "empty").mkdir()
    one_line(spin("explore", "--data", name, "--out", "run"), message)
    assert not Path("run").exists()


@contextmanager
def bound_by_permissions() -> Iterator[None]:
    """Root passes every permission, so be nobody for a while."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_unreadable_files(spin):
    with TemporaryDirectory() as folder:
        data, config = archive(Path(folder)), toml(Path(folder), **TINY)
        os.chmod(folder, 0o755)
        for path in (data, config):
            os.chmod(path, 0)
        with bound_by_permissions():
            one_line(spin("explore", "--data", data), "Permission denied")
            told = spin("explore", "--config", config)
        one_line(told, f"config {config}: cannot be read (Permission denied)")


# Places


def test_places_that_cannot_be_written(spin, tmp_path):
    with TemporaryDirectory() as folder:
        words = ["explore", "--data", archive(Path(folder)), "--config", toml(Path(folder), **TINY)]
        told = spin(*words, "--out", folder)  # loads what nobody could not
        one_line(told, "is not a run, and not empty (it holds data.npz); choose a new or empty")
        told = spin(*words, "--out", f"{folder}/data.npz/run")
        one_line(told, "Not a directory; choose a directory that can be written")
        os.chmod(folder, 0o555)
        with bound_by_permissions():
            told = spin(*words, "--out", f"{folder}/run")
        one_line(told, f"cannot write {folder}/run: Permission denied; choose a directory that can")


def test_a_run_of_another_configuration(spin, tmp_path, finished):
    words = ["explore", "--config", toml(tmp_path, **TINY), "--out", finished]
    message = "holds a run of another configuration: settings.width is 4 there, 5 here; choose"
    one_line(spin(*words, "--width", 5), message)


def test_report_of_what_is_no_run(spin, tmp_path):
    one_line(spin("report", "nowhere"), "nowhere holds no run: there is no run.toml")
    one_line(spin("report", tmp_path), "holds no run")


def test_a_damaged_part_is_told_with_what_to_do(spin, tmp_path, finished, quick_disk):
    path = shutil.copytree(finished, tmp_path / "run")
    with (path / "data.zarr" / "hierarchy" / "K" / "c").open("ab") as file:
        file.write(b"1")
    manifest = path / "manifests" / "hierarchy.json"
    words = ["explore", "--config", toml(tmp_path, **TINY), "--out", path]
    for told in (spin("report", path), spin(*words)):
        one_line(told, f"delete {manifest} and run the same command again")
    manifest.unlink()
    assert spin(*words).status == 0


@contextmanager
def full_beyond(size: int) -> Iterator[None]:
    """A disk that takes no file larger than so many bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_is_told_and_the_same_command_goes_on(spin, tmp_path, finished, quick_disk):
    words = ["explore", "--config", toml(tmp_path, **TINY), "--out", tmp_path / "run"]
    with full_beyond(4_000):  # the points of the first part are larger
        told = spin(*words)
    one_line(told, "free some space and run the same command again: finished parts are kept")
    with full_beyond(1_000_000):  # all but the page, which carries its drawing library
        told = spin(*words)
    one_line(told, f"cannot write {tmp_path}/run/page.html: File too large; free some space")
    run = ss.Run.load(tmp_path / "run")
    assert run.part_names() == ss.Run.load(finished).part_names()
    assert not (run.path / "page.html").exists()
    assert spin(*words).status == 0
    assert (run.path / "page.html").exists()
    assert run.findings == ss.Run.load(finished).findings
    with full_beyond(1_000_000):
        one_line(spin("report", run.path), "page.html: File too large; free some space")


# Errors of others, and where they came from


@pytest.mark.parametrize("words", [["--seed", "-1"], ["--data", "missing.npz"]])
def test_traceback_shows_where_an_error_came_from(spin, words):
    plain = spin("explore", *words)
    for order in (["--traceback", "explore", *words], ["explore", *words, "--traceback"]):
        told = spin(*order)
        assert told.status == 2
        assert told.err.startswith("Traceback (most recent call last):\n")
        assert told.err.endswith("\n" + plain.err)
        assert "exploration.py" in told.err


def test_an_error_in_the_users_network_is_one_line_that_leads_on(spin, tmp_path):
    written(tmp_path, "nets.py", NETS)
    words = ["explore", "--model", "nets.py:picky", "--config", toml(tmp_path, **OWN)]
    one_line(spin(*words), "LookupError: no more than two; --traceback shows where it came from")
    assert "nets.py" in spin(*words, "--traceback").err


def test_all_diverged_is_told(spin, tmp_path):
    config = toml(tmp_path, **TINY | {"learning_rate": 1e9})
    one_line(
        spin("explore", "--config", config), "of 8 replicas 0 did not diverge, and 1 are needed"
    )


# Interruptions


def test_an_interruption_gives_130_and_a_hint(spin, tmp_path, monkeypatch, quick_disk):
    def interrupt(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(exploration.Study, "walk", interrupt)
    words = ["explore", "--config", toml(tmp_path, **TINY), "--out", tmp_path / "run"]
    told = spin(*words)
    one_line(told, "interrupted; the same command goes on where it stopped", status=130)
    assert "population" in ss.Run.load(tmp_path / "run").part_names()


def test_ctrl_c_ends_the_real_command_and_its_workers_and_it_goes_on(finished, spin, tmp_path):
    path = tmp_path / "run"
    words = ["explore", "--config", toml(tmp_path, **TINY), "--out", str(path)]
    command = [sys.executable, "-m", "spinscape", *words, "--workers", "2"]
    process = subprocess.Popen(
        command,
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # as a terminal does, the signal goes to all its processes
    )
    deadline = time.monotonic() + 120
    while not (path / "manifests" / "population.json").exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert out == ""
    assert err.splitlines()[-1].startswith("spinscape: interrupted; the same command goes on")
    assert "Traceback" not in err
    assert spin(*words).status == 0
    again, whole = (ss.Run.load(each).findings for each in (path, finished))
    assert [found.question for found in again] == [found.question for found in whole]
    # Workers add in another order, which moves the last digits.
    told = [[each.value for each in run if each.value is not None] for run in (again, whole)]
    assert told[0] == pytest.approx(told[1], rel=1e-3)
