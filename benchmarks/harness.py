"""Timing of two functions in turn, so that both see the same machine."""

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median

__all__ = ["Case", "compare", "peak_megabytes"]


@dataclass(frozen=True)
class Case:
    """One row of the table: our time, the peer's, and how often ours goes into the peer's."""

    name: str
    ours: float
    ours_spread: float
    peer_name: str
    peer: float | None
    peer_spread: float | None
    ratio: float | None
    wanted: float | None
    note: str = ""
    memory: float | None = None

    def to_dict(self) -> dict[str, object]:
        """Return the row as plain data."""
        return asdict(self)


def compare(
    name: str,
    ours: Callable[[], object],
    peer: Callable[[], object] | None,
    peer_name: str,
    *,
    wanted: float | None = None,
    repeats: int = 7,
    ours_scale: float = 1.0,
    peer_scale: float = 1.0,
    note: str = "",
) -> Case:
    """Time `ours` and `peer` in turn after a warm-up; report the best and the median's excess.

    Parameters
    ----------
    ours_scale, peer_scale : float
        By which a time is multiplied, when one call does a share (or a multiple) of the work.
    """
    timings: dict[str, list[float]] = {"ours": [], "peer": []}
    ours()
    if peer is not None:
        peer()
    for _ in range(repeats):
        timings["ours"].append(_seconds(ours) * ours_scale)
        if peer is not None:
            timings["peer"].append(_seconds(peer) * peer_scale)
    best, spread = _best(timings["ours"])
    if peer is None:
        return Case(name, best, spread, peer_name, None, None, None, wanted, note)
    peer_best, peer_spread = _best(timings["peer"])
    return Case(
        name, best, spread, peer_name, peer_best, peer_spread, peer_best / best, wanted, note
    )


def missing(package: str) -> bool:
    """Whether a peer is not installed (`make bench` installs them)."""
    return importlib.util.find_spec(package) is None


def peak_megabytes(code: str) -> float:
    """Peak resident memory of a Python snippet in a process of its own, in MB."""
    tail = "\nimport resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    done = subprocess.run(
        [sys.executable, "-c", code + tail],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    return float(done.stdout.split()[-1])


def _seconds(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def _best(times: list[float]) -> tuple[float, float]:
    return min(times), median(times) / min(times) - 1
