"""Independent cells of work, on one worker or many: `map`, and `arrivals` for any order.

A cell is a function of no arguments (`functools.partial`) that carries its own seed, so its
result does not depend on where or beside what it runs. Scheduling is joblib's (loky).
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from operator import index as as_integer
from typing import TypeAlias, TypeVar

import joblib

__all__ = ["arrivals", "map"]

T = TypeVar("T")
Progress: TypeAlias = Callable[[int, int], object]


def map(
    cells: Iterable[Callable[[], T]],
    workers: int | None = 1,
    *,
    progress: Progress | None = None,
) -> Iterator[T]:
    """Compute every cell and give the results in the order of the cells, each when it is there.

    Parameters
    ----------
    cells : iterable of callables without arguments
        With more than one worker they and their results travel between processes, so they
        must be picklable (by cloudpickle).
    workers : int or None
        Processes at work. 1 stays in this process; None takes all cores. Each of several
        gets an equal share of the cores for its threads.
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
    workers: int | None = 1,
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
    processes = min(_checked(workers), len(jobs))
    results = _here(jobs) if processes <= 1 else _on_workers(jobs, processes)
    return _reported(results, len(jobs), progress)


def _checked(workers: int | None) -> int:
    if workers is None:
        return joblib.cpu_count()
    if isinstance(workers, bool) or not hasattr(workers, "__index__"):
        raise TypeError(f"workers must be an integer or None, got {workers!r}")
    number = as_integer(workers)
    if number < 1:
        raise ValueError(f"workers must be at least 1, got {number}; None takes all cores")
    return number


def _here(cells: Sequence[Callable[[], T]]) -> Iterator[tuple[int, T]]:
    for number, cell in enumerate(cells):
        yield number, _result(number, len(cells), cell)


def _on_workers(cells: Sequence[Callable[[], T]], workers: int) -> Iterator[tuple[int, T]]:
    threads = max(1, joblib.cpu_count() // workers)
    with joblib.parallel_config(backend="loky", inner_max_num_threads=threads):
        # No memory maps: a cell would find its arrays read-only on workers alone.
        pool = joblib.Parallel(
            workers,
            return_as="generator_unordered",
            batch_size=1,
            pre_dispatch=workers,
            max_nbytes=None,
        )
    jobs = (
        joblib.delayed(_on_worker)(number, len(cells), cell, threads)
        for number, cell in enumerate(cells)
    )
    results = pool(jobs)
    try:
        # Not `yield from`, which would hand an early end to joblib, which warns of it.
        for result in results:  # noqa: UP028
            yield result
    except BrokenProcessPool as error:
        raise RuntimeError(
            f"one of {workers} workers was killed, most often for lack of memory; "
            "use fewer workers or smaller cells"
        ) from error
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            results.close()


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
