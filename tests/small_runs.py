"""Runs of a few small parts, and what to do to them: shared by the tests of store and studies."""

import json
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import xarray as xr

from spinscape.statistics import Finding

CONFIG = {"width": 16, "data": {"name": "digits", "limit": 100}, "rates": [0.1, 0.01]}


def made(seed: int) -> xr.Dataset:
    generator = np.random.default_rng(seed)
    return xr.Dataset(
        {
            "point": (("replica", "n"), generator.standard_normal((8, 500)).astype(np.float32)),
            "diverged": ("replica", generator.random(8) > 0.5),
            "rule": ("kind", ["own copy", "unabhängig"]),
            "K": 0.25,
        },
        coords={"kind": ["a", "b"], "seed": ("replica", np.arange(8))},
        attrs={"protocol": "walk", "arguments": json.dumps({"steps": 3}), "seed": seed},
    )


def refuse() -> xr.Dataset:
    raise AssertionError("a stored part was computed again")


def finding(protocol: str, value: float = 0.5) -> Finding:
    return Finding(
        protocol=protocol,
        question="Is it so?",
        statement="It is not.",
        value=value,
        rule="supported if it is",
        verdict="not supported",
    )


def contents(path: Path) -> dict[str, bytes]:
    """Every file of a run by its name, but the name of the process that last wrote to it."""
    files = (file for file in path.rglob("*") if file.is_file() and file.name != ".lock")
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in files}


def finished(path: Path) -> int:
    """How many parts a run has."""
    return len(list((path / "manifests").rglob("*.json")))


def waited(process: subprocess.Popen, path: Path, kill: tuple[int, float] | None) -> None:
    """Wait for a process that computes a run; kill it after so many more parts, if asked."""
    if kill is not None:
        more, delay = kill
        target = finished(path) + more
        while process.poll() is None and finished(path) < target:
            time.sleep(0.001)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
    status = process.wait(timeout=300)
    assert status in ((0, -signal.SIGKILL) if kill is not None else (0,))
