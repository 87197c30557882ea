"""Which unit goes with which: exact assignments for batches of scores, and what comes of them."""

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

__all__ = ["PairAlignment", "distance_of", "solve_assignments"]

THREADED_WIDTH = 48
REDUCTION_CHUNK = 2**18


class PairAlignment(NamedTuple):
    """Second points of pairs, balanced and permuted towards the balanced first ones."""

    permutations: tuple[Int[Tensor, "pair width"], ...]
    points: Float[Tensor, "pair n"]
    distance: Float[Tensor, "pair"]


def solve_assignments(scores: Float[Tensor, "pair k k"]) -> Int[Tensor, "pair k"]:
    """Solve max_P Σ_k scores[k, P(k)] exactly for every matrix of a batch, on the CPU.

    Rows and columns are reduced first, which leaves the solution and saves scipy a third of its
    time. Scipy releases the interpreter's lock while it solves, so large problems share the cores.
    """
    count, width = scores.shape[:2]
    if not count:
        return torch.empty(0, width).long()
    chunks = scores.detach().cpu().split(max(1, REDUCTION_CHUNK // max(1, width * width)))
    if width >= THREADED_WIDTH and torch.get_num_threads() > 1 and len(chunks) > 1:
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            solved = list(pool.map(_solve_chunk, chunks))
    else:
        solved = [_solve_chunk(chunk) for chunk in chunks]
    return torch.from_numpy(np.concatenate(solved))


def _solve_chunk(scores: Tensor) -> np.ndarray:
    costs = -scores.double()
    costs -= costs.amin(2, keepdim=True)
    costs -= costs.amin(1, keepdim=True)
    return np.stack([linear_sum_assignment(matrix)[1] for matrix in costs.numpy()])


def distance_of(a: Float[Tensor, "pair n"], b: Float[Tensor, "pair n"]) -> Float[Tensor, "pair"]:
    """Norms of differences, in float64 on the CPU."""
    return torch.linalg.vector_norm(a - b, dim=-1, dtype=torch.float64).cpu()
