"""Whatever befalls a run, its numbers are right or it says in one line what is wrong."""

import functools
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import xarray as xr

from small_runs import CONFIG, contents, finding, made, refuse, waited
from spinscape.store import CorruptPart, Run, RunError

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture
def run(tmp_path):
    with Run.open(tmp_path / "run", CONFIG, study="test") as opened:
        yield opened


# Damage


def delete(file: Path) -> None:
    file.unlink()


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def add(file: Path) -> None:
    shutil.copy(file, file.with_name("1"))


@pytest.mark.parametrize("harm", [delete, flip, truncate, add])
@pytest.mark.parametrize("victim", ["point/c/0/0", "point/zarr.json", "zarr.json"])
def test_every_damage_is_noticed_and_told_with_a_remedy(run, harm, victim):
    run.part("walk/free", made, 1)
    harm(run.path / "data.zarr" / "walk" / "free" / victim)
    with pytest.raises(CorruptPart) as told:
        Run.load(run.path).dataset("walk/free")
    message = str(told.value)
    damaged = str(Path(victim).with_name("1")) if harm is add else victim
    assert "part 'walk/free'" in message
    assert f"damaged: {damaged}" in message
    manifest = run.path / "manifests" / "walk" / "free.json"
    assert f"delete {manifest}" in message
    assert "\n" not in message
    with pytest.raises(CorruptPart):
        run.part("walk/free", refuse)
    manifest.unlink()
    xr.testing.assert_identical(run.part("walk/free", made, 1), made(1))


@pytest.mark.parametrize("harm", [flip, truncate])
def test_a_damaged_manifest_is_noticed(run, harm):
    run.part("walk", made, 1)
    harm(run.path / "manifests" / "walk.json")
    with pytest.raises(CorruptPart, match="part 'walk'"):
        run.dataset("walk")


def test_a_manifest_of_another_part_or_a_later_format_is_noticed(run):
    run.part("walk", made, 1)
    manifest = run.path / "manifests" / "walk.json"
    record = json.loads(manifest.read_text())
    shutil.copytree(run.path / "data.zarr" / "walk", run.path / "data.zarr" / "other")
    shutil.copy(manifest, manifest.with_name("other.json"))
    with pytest.raises(CorruptPart, match="its manifest is that of part 'walk'"):
        run.dataset("other")
    manifest.write_text(json.dumps(record | {"schema": 99}))
    with pytest.raises(CorruptPart, match="later spinscape"):
        run.dataset("walk")


def test_a_lost_folder_is_noticed(run):
    run.part("walk", made, 1)
    shutil.rmtree(run.path / "data.zarr" / "walk")
    with pytest.raises(CorruptPart, match="is missing"):
        run.dataset("walk")


# Directories that cannot be used


def test_a_foreign_directory_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match=r"not a run, and not empty \(it holds thesis\.tex\)"):
        Run.open(tmp_path, CONFIG, study="test")
    assert contents(tmp_path) == {"thesis.tex": b"years of work"}


def test_a_file_in_place_of_the_directory_is_refused(tmp_path):
    (tmp_path / "run").write_text("")
    for path in (tmp_path / "run", tmp_path / "run" / "inner"):
        with pytest.raises(RunError, match="choose a directory that can be written"):
            Run.open(path, CONFIG, study="test")
        with pytest.raises(RunError, match="holds no run"):
            Run.load(path)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no directory that refuses root")
def test_a_directory_that_cannot_be_written_is_refused():
    with pytest.raises(RunError, match=r"cannot write /proc/run: .*; choose a directory that can"):
        Run.open("/proc/run", CONFIG, study="test")


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


def test_a_run_made_read_only_can_be_read_and_not_resumed():
    with TemporaryDirectory() as folder, Run.open(folder, CONFIG, study="test") as run:
        xr.testing.assert_identical(run.part("walk", made, 1), made(1))
        run.close()
        for path in [*run.path.rglob("*"), run.path]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        with bound_by_permissions():
            xr.testing.assert_identical(Run.load(folder).dataset("walk"), made(1))
            with pytest.raises(RunError, match="Permission denied; choose a directory"):
                Run.open(folder, CONFIG, study="test")
            with pytest.raises(RunError, match="Permission denied; choose a directory"):
                Run.open(run.path / "inner", CONFIG, study="test")
        for path in [run.path, *run.path.rglob("*")]:
            path.chmod(0o755)


def test_a_later_format_is_refused_with_the_version_that_wrote_it(run):
    run.close()
    header = (run.path / "run.toml").read_text()
    later = header.replace("schema = 1", "schema = 2").replace(run.version, "9.1")
    (run.path / "run.toml").write_text(later)
    for opened in (partial(Run.load), partial(Run.open, config=CONFIG, study="test")):
        with pytest.raises(RunError, match=r"written by spinscape 9\.1, in a later format"):
            opened(run.path)


def test_a_damaged_configuration_is_told(run):
    (run.path / "run.toml").write_text("study = ")
    with pytest.raises(RunError, match=r"run\.toml cannot be read \(TOMLDecodeError"):
        Run.load(run.path)


# Who may write


def test_an_open_run_is_refused_to_others_until_it_is_closed(tmp_path):
    script = (
        "import sys\n"
        "from spinscape.store import Run, RunError\n"
        "try:\n"
        "    Run.open(sys.argv[1], {}, study='test')\n"
        "except RunError as error:\n"
        "    print(error)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "run")]
    with Run.open(tmp_path / "run", {}, study="test") as run:
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert f"{run.path} is in use by process {os.getpid()}; wait" in told
        with pytest.raises(RunError, match="in use"):
            Run.open(run.path, {}, study="test")
    Run.open(run.path, {}, study="test").close()


def test_closed_and_loaded_runs_read_and_do_not_write(run):
    run.part("walk", made, 1)
    run.close()
    for reader in (run, Run.load(run.path)):
        xr.testing.assert_identical(reader.part("walk", refuse), made(1))
        with pytest.raises(RunError, match=r"not open for writing; open it with Run\.open"):
            reader.part("new", made, 1)
        with pytest.raises(RunError, match="not open for writing"):
            reader.add_findings("walk", [])


def test_a_forgotten_run_gives_its_lock_back(tmp_path):
    Run.open(tmp_path / "run", {}, study="test")
    Run.open(tmp_path / "run", {}, study="test").close()


# A full disk


def test_a_full_disk_is_told_and_what_is_finished_is_kept(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Run.open(tmp_path / "run", CONFIG, study="test") as run:
        run.part("small", made, 1)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, limits[1]))
        try:
            with pytest.raises(RunError, match=r"cannot write .*large: .*finished parts are kept"):
                run.part("large", made, 2)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert not list((run.path / ".partial").iterdir())
        assert run.part_names() == ["small"]
        xr.testing.assert_identical(run.part("large", made, 2), made(2))


# Kills


class Killed(BaseException):
    """Stands for a SIGKILL: nothing reaches the disk after it, no handler's work either."""


class Fate:
    """Lets so many of our operations on the file system pass, and none after them.

    Zarr's own, in threads of its own, pass: random kills reach those.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 10**9
        for owner, name in (
            *((os, name) for name in ("rename", "replace", "fsync")),
            *((Path, name) for name in ("mkdir", "unlink", "open")),
            (shutil, "rmtree"),
        ):
            monkeypatch.setattr(owner, name, self._limited(getattr(owner, name)))

    def _limited(self, operation):
        @functools.wraps(operation)
        def limited(*args, **kwargs):
            if threading.current_thread() is threading.main_thread():
                self.left -= 1
                if self.left < 0:
                    raise Killed
            return operation(*args, **kwargs)

        return limited


def small_study(path: Path) -> None:
    with Run.open(path, CONFIG, study="test") as run:
        tiny = xr.Dataset({"energy": ("walker", np.arange(3.0))})
        run.part("cell/1", lambda: tiny)
        run.part("cell/2", lambda: tiny + 1)
        run.add_findings("walk", [finding("walk")])


def test_a_kill_between_any_two_operations_leaves_a_run_that_resumes(tmp_path, monkeypatch):
    small_study(tmp_path / "undisturbed")
    expected = contents(tmp_path / "undisturbed")
    fate = Fate(monkeypatch)
    for survived in range(1000):
        path = tmp_path / str(survived)
        fate.left = survived
        try:
            small_study(path)
        except Killed:
            pass
        else:
            break
        finally:
            fate.left = 10**9
        if (path / "data.zarr").exists():
            xr.open_datatree(path / "data.zarr", engine="zarr", consolidated=False).close()
        small_study(path)
        assert contents(path) == expected, f"after {survived} operations"
    assert survived > 50  # about twenty a part


def test_a_commit_cut_short_between_its_renames_is_finished_not_repeated(tmp_path, monkeypatch):
    with Run.open(tmp_path / "run", CONFIG, study="test") as run:
        monkeypatch.setattr("spinscape.store.commits._move_manifest", lambda *_: die())
        with pytest.raises(Killed):
            run.part("walk/free", made, 1)
        assert "walk/free" not in run
    monkeypatch.undo()
    with Run.open(tmp_path / "run", CONFIG, study="test") as run:
        xr.testing.assert_identical(run.part("walk/free", refuse), made(1))
        assert not list((run.path / ".partial").iterdir())


def die() -> None:
    raise Killed


STUDY = """
import sys, time
from functools import partial
import numpy as np, xarray as xr
from spinscape.statistics import Finding
from spinscape.store import Run

def cell(seed):
    time.sleep(0.01)
    values = np.random.default_rng(seed).standard_normal((16, 2000))
    return xr.Dataset({"point": (("replica", "n"), values)}, attrs={"seed": seed})

if __name__ == "__main__":
    print("ready", flush=True)
    with Run.open(sys.argv[1], {"seeds": 8}, study="test") as run:
        cells = {f"training/seed={seed}": partial(cell, seed) for seed in range(8)}
        parts = run.parts(cells, workers=int(sys.argv[2]))
        joined = run.part("population", xr.concat, parts.values(), "chunk", combine_attrs="drop")
        run.add_findings("walk", [Finding(
            protocol="walk", question="?", statement=".", value=float(joined.point.mean()),
            rule="none", verdict="undecided",
        )])
"""


def studied(path: Path, *, workers: int, kill: tuple[int, float] | None = None) -> None:
    """Run the study; kill it so many seconds after so many more parts are there, if asked."""
    command = [sys.executable, "-c", STUDY, str(path), str(workers)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as output:
        assert output.readline() == "ready\n"
        waited(process, path, kill)


@pytest.mark.parametrize(
    ("kills", "workers"), [(3, 1), pytest.param(20, 2, marks=pytest.mark.slow)]
)
def test_killed_at_random_moments_it_ends_with_the_numbers_of_an_undisturbed_run(
    tmp_path, kills, workers
):
    studied(tmp_path / "undisturbed", workers=workers)
    expected = contents(tmp_path / "undisturbed")
    generator = np.random.default_rng(20240729)
    cut_short = 0
    for kill in range(kills):
        path = tmp_path / str(kill // 3)  # up to three kills of the same run
        moment = int(generator.integers(0, 4)), generator.uniform(0, 0.03)
        studied(path, workers=workers, kill=moment)
        cut_short += not (path / "findings.json").exists()
    for path in {tmp_path / str(kill // 3) for kill in range(kills)}:
        studied(path, workers=workers)
        assert contents(path) == expected
    assert cut_short > kills / 2, "the kills came too late to test anything"
