"""Cells give the same numbers on one worker or many, in order, and fail by name."""

import os
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest
import torch

from spinscape import parallel

CORES = len(os.sched_getaffinity(0))


def draw(seed: int, weights: np.ndarray) -> tuple[torch.Tensor, float]:
    generator = torch.Generator().manual_seed(seed)
    weights[0] = seed  # a cell may write into what it was given
    return torch.randn(300, generator=generator, dtype=torch.float64).cumsum(0), weights.sum()


def slowest_first(number: int) -> tuple[int, int]:
    time.sleep(0.3 if number == 0 else 0.0)
    return number, os.getpid()


def threads() -> tuple[int, str | None]:
    time.sleep(0.1)
    return torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")


def fail(error: Exception) -> None:
    raise error


def die() -> None:
    os._exit(9)


def test_one_worker_and_many_give_the_same_numbers():
    weights = np.ones(200_000)  # large enough for joblib to map it read-only, were it let
    cells = [partial(draw, seed, weights) for seed in range(5)]
    alone = list(parallel.map(cells, 1))
    together = list(parallel.map(cells, 2))
    for (one, one_sum), (other, other_sum) in zip(alone, together, strict=True):
        assert torch.equal(one, other)
        assert one_sum == other_sum


def test_results_come_in_the_order_of_cells_and_arrive_in_their_own():
    cells = [partial(slowest_first, number) for number in range(4)]
    assert [number for number, _ in parallel.map(cells, 2)] == [0, 1, 2, 3]
    arrived = list(parallel.arrivals(cells, 2))
    assert all(index == number for index, (number, _) in arrived)
    assert sorted(index for index, _ in arrived) == [0, 1, 2, 3]
    assert arrived[0][0] != 0


def test_one_worker_is_this_process_and_lazy():
    begun = []
    results = parallel.map([partial(begun.append, number) for number in range(3)], 1)
    next(results)
    assert begun == [0]
    assert {pid for _, pid in parallel.map([partial(slowest_first, 1)] * 2, 1)} == {os.getpid()}


def test_several_workers_share_the_cores_and_leave_ours_alone():
    before = torch.get_num_threads()
    share = max(1, CORES // 2)
    assert set(parallel.map([threads] * 4, 2)) == {(share, str(share))}
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("workers", [1, 2])
def test_progress_counts_every_cell(workers):
    seen = []
    list(parallel.map([int] * 3, workers, progress=lambda *counts: seen.append(counts)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failing_cell_is_named_and_keeps_its_type(workers):
    cells = [int, partial(fail, KeyError("lost")), int]
    with pytest.raises(KeyError, match="lost") as failure:
        list(parallel.map(cells, workers))
    assert failure.value.__notes__ == ["in cell 1 of 3 (counted from 0)"]


def test_a_killed_worker_is_told_with_a_remedy_and_the_next_call_works():
    with pytest.raises(RuntimeError, match="use fewer workers"):
        list(parallel.map([die, int], 2))
    assert list(parallel.map([int, int], 2)) == [0, 0]


@pytest.mark.filterwarnings("error")
def test_stopping_early_gives_up_the_rest_quietly():
    results = parallel.map([partial(time.sleep, 0.05)] * 50, 2)
    next(results)
    begin = time.perf_counter()
    results.close()
    assert time.perf_counter() - begin < 1


@pytest.mark.parametrize(
    ("workers", "error", "message"),
    [
        (0, ValueError, "workers must be at least 1, got 0; None takes all cores"),
        (-1, ValueError, "at least 1"),
        (1.5, TypeError, "workers must be an integer or None"),
        (True, TypeError, "workers must be an integer or None"),
    ],
)
def test_workers_are_checked_before_anything_runs(workers, error, message):
    with pytest.raises(error, match=message):
        parallel.map([die], workers)


def test_a_cell_that_is_no_function_is_refused():
    with pytest.raises(TypeError, match=r"cell 1 is a int, not a function.*functools\.partial"):
        parallel.map([int, 0])


def test_no_cells_and_all_cores():
    assert list(parallel.map([], None)) == []
    assert list(parallel.map([int, int], None)) == [0, 0]


def test_functions_defined_in_a_script_run_on_workers():
    script = (
        "from spinscape import parallel\n"
        "if __name__ == '__main__':\n"
        "    print(list(parallel.map([lambda: 3, lambda: 4], 2)))\n"
    )
    command = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("[3, 4]\n", "")
