"""Timing of two functions in turn, so that both see the same machine."""

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

__all__ = ["Case", "Duel", "compare", "missing", "peak_megabytes", "run"]

Work = Callable[[], object]


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


@dataclass(frozen=True)
class Duel:
    """The same work done by us and by a peer, each prepared when its turn comes.

    Parameters
    ----------
    ours, peer : callable
        Prepare the work, untimed, and return a function that does it.
    agree : callable
        Called before anything is timed; fails if the two do not give the same numbers.
    package : str, optional
        The peer's import name; a row without it says so.
    ours_scale, peer_scale, wanted, repeats, note
        As in `compare`; a note that has to be measured is a function.
    """

    name: str
    peer_name: str
    ours: Callable[[], Work]
    peer: Callable[[], Work]
    agree: Callable[[], None]
    wanted: float | None = None
    package: str | None = None
    repeats: int = 7
    ours_scale: float = 1.0
    peer_scale: float = 1.0
    note: str | Callable[[], str] = ""


def run(duel: Duel) -> Case:
    """Check that both agree, then time them."""
    lost = duel.package is not None and missing(duel.package)
    note = f"{duel.package} does not import; make bench installs it"
    if not lost:
        duel.agree()
        note = duel.note if isinstance(duel.note, str) else duel.note()
    return compare(
        duel.name,
        duel.ours(),
        None if lost else duel.peer(),
        duel.peer_name,
        wanted=duel.wanted,
        repeats=duel.repeats,
        ours_scale=duel.ours_scale,
        peer_scale=duel.peer_scale,
        note=note,
    )


def compare(
    name: str,
    ours: Work,
    peer: Work | None,
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
    case = Case(name, best, spread, peer_name, None, None, None, wanted, note)
    if peer is None:
        return case
    peer_best, peer_spread = _best(timings["peer"])
    return replace(case, peer=peer_best, peer_spread=peer_spread, ratio=peer_best / best)


def missing(package: str) -> bool:
    """Whether a peer cannot be imported (`make bench` installs them)."""
    if importlib.util.find_spec(package) is None:
        return True
    try:
        importlib.import_module(package)
    except Exception as reason:  # a peer may break on its own dependencies in any way
        print(f"{package}: {type(reason).__name__}: {reason}", file=sys.stderr)
        return True
    return False


_PEAK = """
import pathlib, re, resource, sys
status = pathlib.Path("/proc/self/status")
if status.exists():  # where getrusage would begin with what the parent process holds
    kilobytes = re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1]
    print(int(kilobytes) * 1024)
else:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_megabytes(code: str) -> float:
    """Peak resident memory of a Python snippet in a process of its own, in MB."""
    root = str(Path(__file__).parents[1])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-c", code + _PEAK],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    return float(done.stdout.split()[-1]) / 1e6


def _seconds(function: Work) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def _best(times: list[float]) -> tuple[float, float]:
    return min(times), median(times) / min(times) - 1
