"""Which solutions are paired: different pairs, in which all of them take part equally often."""

from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

__all__ = ["balanced_pairs"]


def balanced_pairs(replicas: int, pairs: int, seed: int) -> Int[Tensor, "pair 2"]:
    """Choose different pairs of replicas, each replica in equally many of them (or one more).

    All replicas but one stand on a circle, in random order, and the circle is turned: the pairs
    across it are a round in which everybody has a partner. If their number is odd, a turn is a
    tour through all of them (Walecki's), of which every other pair is taken first.
    """
    ring = np.random.default_rng(np.random.SeedSequence(seed)).permutation(replicas)
    circle, odd = replicas - 1, replicas % 2
    zigzag = [(k + 1) // 2 * (1 if k % 2 else -1) for k in range(circle)]

    def every() -> Iterator[tuple[int, int]]:
        for turn in range(circle // (1 + odd)):
            tour = [circle, *((turn + place) % circle for place in zigzag)]
            for k in (*range(0, replicas, 2), *(range(1, replicas, 2) if odd else ())):
                pair = int(ring[tour[k]]), int(ring[tour[(k + 1) % replicas]])
                yield pair[::-1] if turn % 2 else pair

    return torch.tensor(list(islice(every(), pairs)))
