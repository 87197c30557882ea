"""`Run`: the directory in which a study keeps what it computed, part by part.

A part is there whole or not at all, so a killed run loses at most the pieces in flight, and
the same command goes on where it stopped.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

import tomli_w
import xarray as xr

from spinscape import parallel
from spinscape.clusters import WorkersLike
from spinscape.findings import Finding
from spinscape.store.commits import PARTIAL, committed, data_of, manifest_of, recovered
from spinscape.store.configuration import differences, plain
from spinscape.store.durable import RunError, locked, replaced, writing
from spinscape.store.manifest import opened

__all__ = ["Run"]

SCHEMA = 1
PART_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_=.,+-]*")
OWN_LEFTOVERS = {".lock", PARTIAL}


class Run:
    """A run directory: `Run.open` creates or resumes one, `Run.load` reads a finished one.

    `data.zarr` opens whole with ``xarray.open_datatree(run.path / "data.zarr",
    engine="zarr", consolidated=False)``; only leaf groups hold data. `run.toml` holds the
    study and its configuration, `findings.json` the findings, `manifests` the checksums.
    An open run is locked against other processes until it is closed, as by ``with``; a
    closed or loaded one can still be read.

    Attributes
    ----------
    path : Path
        The directory.
    study, version : str
        The study, and the version of spinscape that began it.
    config : dict
        The configuration, as TOML gives it back.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self.path = path
        self.study: str = header["study"]
        self.version: str = header["version"]
        self.config: dict[str, Any] = header["config"]
        self._lock: weakref.finalize | None = None

    @classmethod
    def open(cls, path: str | os.PathLike[str], config: Mapping[str, Any], *, study: str) -> Run:
        """Create a run directory, or resume the run of the same configuration in it.

        Parameters
        ----------
        path : path
            A new or empty directory, or that of a run.
        config : mapping
            What the results depend on, nested as TOML can hold it: strings, numbers, bools,
            lists, times. What does not change results (workers) does not belong here.
        study : str
            The name of the study.

        Raises
        ------
        RunError
            Another study or configuration (each difference is named), a directory that is
            no run or cannot be written, a run in use by another process, or one written in
            the format of a later version.
        ValueError, TypeError
            A configuration that TOML cannot hold.
        """
        directory = Path(path).absolute()
        settings = plain(config)
        with writing(directory):
            directory.mkdir(parents=True, exist_ok=True)
            _refuse_foreign(directory)
            lock = locked(directory)
        try:
            with writing(directory):
                (directory / PARTIAL).mkdir(exist_ok=True)
                if not (directory / "run.toml").exists():
                    header = {
                        "schema": SCHEMA,
                        "study": study,
                        "version": version("spinscape"),
                        "config": settings,
                    }
                    replaced(directory / "run.toml", tomli_w.dumps(header), directory / PARTIAL)
                run = cls(directory, _header(directory))
                run._refuse_other(study, settings)
                recovered(directory)
        except BaseException:
            os.close(lock)
            raise
        run._lock = weakref.finalize(run, os.close, lock)
        return run

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Run:
        """Open a run for reading; RunError if there is none or it is of a later format."""
        directory = Path(path).absolute()
        return cls(directory, _header(directory))

    def close(self) -> None:
        """Let other processes write to the run."""
        if self._lock is not None:
            self._lock()

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __contains__(self, name: str) -> bool:
        return manifest_of(self.path, name).is_file()

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, study={self.study!r}, parts={len(self.part_names())})"

    def part_names(self) -> list[str]:
        """Names of the finished parts, sorted."""
        manifests = self.path / "manifests"
        paths = (path.relative_to(manifests) for path in manifests.rglob("*.json"))
        return sorted(path.as_posix().removesuffix(".json") for path in paths)

    def dataset(self, name: str) -> xr.Dataset:
        """Read a finished part into memory, after verifying its checksums.

        Raises
        ------
        ValueError
            No part of that name.
        CorruptPart
            A file of the part is missing, altered or in excess.
        """
        if name not in self:
            raise ValueError(f"{self.path} has no part {name!r}; it has {self.part_names()}")
        return opened(data_of(self.path, name), manifest_of(self.path, name), name)

    def part(
        self, name: str, function: Callable[..., xr.Dataset], /, *args: Any, **kwargs: Any
    ) -> xr.Dataset:
        """Compute a part once, and read it ever after.

        Parameters
        ----------
        name : str
            Name of the part; slashes nest it: "walk/free".
        function : callable
            Called with the remaining arguments if the part is not there; returns a Dataset.

        Raises
        ------
        RunError
            The part cannot be stored (no space, closed run), or it is damaged.
        ValueError
            A name that cannot be one, or that is a folder of other parts.
        """
        return self.parts({name: partial(function, *args, **kwargs)})[name]

    def parts(
        self,
        cells: Mapping[str, Callable[[], xr.Dataset]],
        workers: WorkersLike = 1,
        progress: parallel.Progress | None = None,
    ) -> dict[str, xr.Dataset]:
        """Compute the missing ones of many parts, and store each as it arrives.

        Parameters
        ----------
        cells : mapping
            Functions of no arguments (`functools.partial`) by the names of their parts.
        workers : int, None or Workers
            As in `parallel.map`.
        progress : callable, optional
            Called with (parts done, parts in all), those found stored included.

        Returns
        -------
        dict
            All the parts, in the order of `cells`.

        Raises
        ------
        Exception
            As `part` does; what a function raises bears a note that names its part.
        """
        missing = [name for name in cells if name not in self]
        if missing:
            self._check_names(missing)
        done = len(cells) - len(missing)
        if progress is not None and done:
            progress(done, len(cells))
        work = [partial(_computed, name, cells[name]) for name in missing]
        with closing(parallel.arrivals(work, workers)) as arrivals:
            for number, dataset in arrivals:
                committed(self.path, missing[number], dataset)
                done += 1
                if progress is not None:
                    progress(done, len(cells))
        return {name: self.dataset(name) for name in cells}

    @property
    def findings(self) -> list[Finding]:
        """The findings of all protocols, in the order in which these were first added."""
        return [
            Finding.from_dict(record)
            for records in self._finding_records().values()
            for record in records
        ]

    def add_findings(self, protocol: str, findings: Iterable[Finding]) -> None:
        """Store the findings of a protocol, in place of those that it had.

        Raises
        ------
        ValueError
            A finding of another protocol.
        RunError
            A closed run, or no space.
        """
        self._require_open()
        records = [finding.to_dict() for finding in findings]
        for record in records:
            if record["protocol"] != protocol:
                raise ValueError(
                    f"a finding of protocol {record['protocol']!r} was added to {protocol!r}"
                )
        every = self._finding_records() | {protocol: records}
        text = json.dumps({"schema": SCHEMA, "findings": every}, indent=1, ensure_ascii=False)
        with writing(self.path / "findings.json"):
            replaced(self.path / "findings.json", text + "\n", self.path / PARTIAL)

    def _finding_records(self) -> dict[str, list[dict[str, Any]]]:
        path = self.path / "findings.json"
        if not path.exists():
            return {}
        try:
            return json.loads(path.read_text(encoding="utf-8"))["findings"]
        except (OSError, ValueError, KeyError) as error:
            raise RunError(
                f"{path} cannot be read ({error}); delete it and run the same command again"
            ) from error

    def _require_open(self) -> None:
        if self._lock is None or not self._lock.alive:
            raise RunError(f"{self.path} is not open for writing; open it with Run.open")

    def _check_names(self, names: Iterable[str]) -> None:
        self._require_open()
        known = {*self.part_names(), *names}
        folders = {folder.as_posix() for name in known for folder in Path(name).parents}
        for name in names:
            segments = name.split("/")
            if any(not PART_NAME.fullmatch(s) or s.endswith(".json") for s in segments):
                raise ValueError(
                    f"{name!r} cannot name a part: use letters, digits and any of _ = . , + - "
                    "with slashes between"
                )
            if name in folders or not known.isdisjoint(p.as_posix() for p in Path(name).parents):
                raise ValueError(f"{name!r} is, or lies in, another part: only leaves hold data")

    def _refuse_other(self, study: str, config: dict[str, Any]) -> None:
        found = differences({"study": self.study}, {"study": study})
        found += differences({"spinscape": self.version}, {"spinscape": version("spinscape")})
        found += differences(self.config, config)
        if found:
            raise RunError(
                f"{self.path} holds a run of another configuration: {'; '.join(found)}; choose "
                "another directory, or the settings of that run"
            )


def _computed(name: str, function: Callable[[], xr.Dataset]) -> xr.Dataset:
    try:
        dataset = function()
    except Exception as error:
        error.add_note(f"while computing part {name!r}")
        raise
    if not isinstance(dataset, xr.Dataset):
        raise TypeError(f"part {name!r} must be a Dataset, got a {type(dataset).__name__}")
    return dataset


def _refuse_foreign(directory: Path) -> None:
    held = {entry.name for entry in directory.iterdir()}
    if "run.toml" not in held and held - OWN_LEFTOVERS:
        raise RunError(
            f"{directory} is not a run, and not empty (it holds {min(held - OWN_LEFTOVERS)}); "
            "choose a new or empty directory"
        )


def _header(directory: Path) -> dict[str, Any]:
    path = directory / "run.toml"
    try:
        header = tomllib.loads(path.read_text(encoding="utf-8"))
        if header["schema"] > SCHEMA:
            raise RunError(
                f"{directory} was written by spinscape {header['version']}, in a later format; "
                "install that version, or choose another directory"
            )
        return {key: header[key] for key in ("study", "version", "config")}
    except (FileNotFoundError, NotADirectoryError):
        raise RunError(f"{directory} holds no run: there is no run.toml") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise RunError(
            f"{path} cannot be read ({type(error).__name__}: {error}); choose another directory"
        ) from error
