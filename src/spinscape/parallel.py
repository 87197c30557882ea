"""Independent cells of work, on one worker or many: `map`, and `arrivals` for any order.

A cell is a function of no arguments (`functools.partial`) that carries its own seed, so its
result does not depend on where or beside what it runs. Scheduling is joblib's: processes of this
machine (loky), or a dask or ray cluster (`clusters.Workers`).
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeAlias, TypeVar

import cloudpickle
import joblib

from spinscape.clusters import Connection, Workers, WorkersLike, connected, workers_of

__all__ = ["arrivals", "map"]

# Loky replaces a worker whose memory has grown, and repeats nothing: no news for a user.
warnings.filterwarnings("ignore", message="A worker stopped while some jobs", category=UserWarning)

T = TypeVar("T")
Progress: TypeAlias = Callable[[int, int], object]


def map(
    cells: Iterable[Callable[[], T]],
    workers: WorkersLike = 1,
    *,
    progress: Progress | None = None,
) -> Iterator[T]:
    """Compute every cell and give the results in the order of the cells, each when it is there.

    Parameters
    ----------
    cells : iterable of callables without arguments
        With more than one worker they and their results travel between processes, so they
        must be picklable (by cloudpickle).
    workers : int, None or Workers
        Processes at work. 1 stays in this process; None takes all cores. Each of several
        gets an equal share of the cores for its threads. `clusters.Workers` names a cluster.
    progress : callable, optional
        Called with (cells done, cells in all) whenever one is done.

    Raises
    ------
    ValueError
        `workers` below 1.
    TypeError
        `workers` not an integer, or a cell that cannot be called.
    Exception
        What a cell raises, with a note that names the cell; the cells that have not begun
        are given up.
    RuntimeError
        A worker was killed, most often for lack of memory.
    """
    return _in_order(arrivals(cells, workers, progress=progress))


def arrivals(
    cells: Iterable[Callable[[], T]],
    workers: WorkersLike = 1,
    *,
    progress: Progress | None = None,
) -> Generator[tuple[int, T], None, None]:
    """Compute every cell and give (index of the cell, result) as they arrive.

    Parameters and errors are those of `map`. Closing the generator gives up the rest.
    """
    jobs = tuple(cells)
    for number, cell in enumerate(jobs):
        if not callable(cell):
            raise TypeError(
                f"cell {number} is a {type(cell).__name__}, not a function of no arguments; "
                "use functools.partial"
            )
    where = workers_of(workers)
    alone = where.is_here and (len(jobs) < 2 or where.count == 1)
    results = _here(jobs) if alone or not jobs else _on_workers(jobs, where)
    return _reported(results, len(jobs), progress)


def _here(cells: Sequence[Callable[[], T]]) -> Iterator[tuple[int, T]]:
    for number, cell in enumerate(cells):
        yield number, _result(number, len(cells), cell)


def _on_workers(cells: Sequence[Callable[[], T]], workers: Workers) -> Iterator[tuple[int, T]]:
    with connected(workers, len(cells)) as connection:
        calls = [
            _call(workers, number, len(cells), cell, connection.threads)
            for number, cell in enumerate(cells)
        ]
        try:
            if connection.streams:
                yield from _streamed(calls, connection)
            else:
                yield from _in_rounds(calls, connection)
        except BrokenProcessPool as error:
            raise RuntimeError(
                f"one of {connection.processes} workers was killed, most often for lack of memory; "
                "use fewer workers or smaller cells"
            ) from error


def _streamed(calls: Sequence[Any], connection: Connection) -> Iterator[tuple[int, Any]]:
    """Give results one by one; no more cells are on their way than there are workers."""
    results = _pool(connection, return_as="generator_unordered")(calls)
    try:
        # Not `yield from`, which would hand an early end to joblib, which warns of it.
        for result in results:  # noqa: UP028
            yield result
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            results.close()


def _in_rounds(calls: Sequence[Any], connection: Connection) -> Iterator[tuple[int, Any]]:
    """Give results round by round: a backend that returns all at once loses one round at most."""
    with _pool(connection, return_as="list") as pool:  # the same processes for all rounds
        for first in range(0, len(calls), connection.processes):
            yield from pool(calls[first : first + connection.processes])


def _pool(connection: Connection, return_as: str) -> joblib.Parallel:
    with joblib.parallel_config(**connection.config):
        # No memory maps: a cell would find its arrays read-only on workers alone.
        return joblib.Parallel(
            connection.processes,
            return_as=return_as,
            batch_size=1,
            pre_dispatch=connection.processes,
            max_nbytes=None,
        )


def _call(workers: Workers, *cell: Any) -> Any:
    if workers.is_here:
        return joblib.delayed(_on_worker)(*cell)
    # A cluster's workers do not know where the caller finds modules, nor do all libraries pickle
    # alike what has no module.
    return joblib.delayed(_on_cluster)(cloudpickle.dumps(cell), tuple(sys.path))


def _on_cluster(pickled: bytes, path: Sequence[str]) -> tuple[int, Any]:
    sys.path.extend(place for place in path if place not in sys.path)
    return _on_worker(*cloudpickle.loads(pickled))


def _on_worker(number: int, total: int, cell: Callable[[], T], threads: int) -> tuple[int, T]:
    # The environment of a worker limits libraries that it has yet to load, not a loaded torch.
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(threads)
    return number, _result(number, total, cell)


def _result(number: int, total: int, cell: Callable[[], T]) -> T:
    try:
        return cell()
    except Exception as error:
        error.add_note(f"in cell {number} of {total} (counted from 0)")
        raise


def _reported(
    results: Iterator[tuple[int, T]], total: int, progress: Progress | None
) -> Generator[tuple[int, T], None, None]:
    for done, result in enumerate(results, start=1):
        if progress is not None:
            progress(done, total)
        yield result


def _in_order(results: Iterator[tuple[int, T]]) -> Iterator[T]:
    early: dict[int, T] = {}
    following = 0
    for number, result in results:
        early[number] = result
        while following in early:
            yield early.pop(following)
            following += 1
