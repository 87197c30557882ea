"""How work on many points and many samples is cut into pieces that fit."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

__all__ = ["CACHE", "MEMORY", "Plan", "pieces", "plan"]

MEMORY = 1 << 30
"""Bytes of intermediate results where nothing else is asked for."""

CACHE = 8 << 20
"""Bytes of intermediate results that stay in a CPU's cache: larger pieces wait for memory, smaller
ones for the start of the next operation. Of two machines with two cores, one was flat within 5 %
from 1 to 4 MiB, the other, with a larger cache, a third faster at 8 MiB than at 2."""


@dataclass(frozen=True)
class Plan:
    """The most points and samples to work on at once."""

    points: int
    samples: int


def plan(
    points: int, samples: int, pair: float, device: torch.device, memory: int, cache: int = CACHE
) -> Plan:
    """Cut `points` times `samples` into pieces, samples last.

    Parameters
    ----------
    points, samples
        How many there are.
    pair
        Bytes of intermediate results for one point and one sample.
    device
        Where the work is done; on a CPU pieces stay within `cache`, too.
    memory
        Bytes that a piece may take. A single point and sample is always taken.
    """
    budget = min(memory, cache) if device.type == "cpu" else memory
    pairs = max(1, int(budget // max(pair, 1)))
    samples_at_once = _even(samples, pairs)
    return Plan(_even(points, max(1, pairs // samples_at_once)), samples_at_once)


def pieces(count: int, size: int) -> Iterator[slice]:
    """Consecutive slices of at most `size` that cover `count`."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def _even(count: int, most: int) -> int:
    """Size of equal pieces, none above `most`: a short last piece costs as much as a long one."""
    if count <= most:
        return max(count, 1)
    return -(-count // -(-count // most))
