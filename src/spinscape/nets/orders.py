"""Which samples each replica sees at each step, drawn from its own seed alone."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

__all__ = ["Order", "generator", "replica_seeds", "word"]

_BATCHES = 1  # second word of the seed sequence: 0 initialises, 1 orders the data


def replica_seeds(seed: int, replicas: Sequence[int]) -> list[int]:
    """One 63-bit seed for each replica index, the same whoever else is asked for."""
    return [word(seed, replica) for replica in replicas]


def generator(*words: int) -> torch.Generator:
    """A CPU generator seeded from any number of integers."""
    return torch.Generator().manual_seed(word(*words))


def word(*words: int) -> int:
    """Hash any number of integers into one of 63 bits, as a seed that no other words have."""
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> np.uint64(1))


class Order:
    """Endless mini-batches: each replica's samples in one random permutation after another.

    Batches are cut from the concatenation of the permutations, so none is ever short and sets of
    unequal lengths can run side by side; a batch as large as the set is the set itself.

    Parameters
    ----------
    seeds : sequence of int
        One a replica, or a single one when all replicas share their batches.
    indices : sequence of LongTensor
        The samples of each replica, one entry a seed.
    batch_size : int
        Samples a step; cut down to the smallest set.
    position : int
        Number of steps already made, for a continued training.
    sizes : sequence of int, optional
        Lengths that fix batch size and epoch, whatever the sets of single replicas are.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        indices: Sequence[Tensor],
        batch_size: int,
        position: int = 0,
        sizes: Sequence[int] | None = None,
    ) -> None:
        sizes = [len(samples) for samples in indices] if sizes is None else sizes
        self.batch_size = min(batch_size, *sizes)
        self.steps_per_epoch = math.ceil(max(sizes) / self.batch_size)
        self._indices = list(indices)
        self._generators = [generator(seed, _BATCHES) for seed in seeds]
        self._rest = [
            self._skip(k, position * self.batch_size) for k in range(len(self._generators))
        ]
        self._block = torch.empty(len(seeds), 0, dtype=torch.long)

    def next(self) -> Int[Tensor, "replica batch"]:
        """Sample indices of the next step, one row a replica."""
        if self._block.shape[1] == 0:
            self._block = self._draw(self.steps_per_epoch * self.batch_size)
        batch = self._block[:, : self.batch_size]
        self._block = self._block[:, self.batch_size :]
        return batch

    def keep(self, rows: Tensor) -> None:
        """Go on with some of the replicas only."""
        kept = rows.tolist()
        self._block = self._block[rows]
        for name in ("_indices", "_generators", "_rest"):
            setattr(self, name, [getattr(self, name)[k] for k in kept])

    def _draw(self, length: int) -> Tensor:
        return torch.stack([self._take(k, length) for k in range(len(self._generators))])

    def _take(self, k: int, length: int) -> Tensor:
        samples = self._indices[k]
        if len(samples) == self.batch_size:
            return samples.repeat(math.ceil(length / len(samples)))[:length]
        pieces, have = [self._rest[k]], len(self._rest[k])
        while have < length:
            pieces.append(self._permutation(k))
            have += len(samples)
        joined = torch.cat(pieces)
        self._rest[k] = joined[length:]
        return joined[:length]

    def _skip(self, k: int, length: int) -> Tensor:
        passed, within = divmod(length, len(self._indices[k]))
        if len(self._indices[k]) == self.batch_size or length == 0:
            return torch.empty(0, dtype=torch.long)
        for _ in range(passed):
            self._permutation(k)
        return self._permutation(k)[within:]

    def _permutation(self, k: int) -> Tensor:
        return self._indices[k][
            torch.randperm(len(self._indices[k]), generator=self._generators[k])
        ]
