"""Clients of federated learning: who has which samples, who takes part, in what order."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from spinscape.nets.orders import generator

__all__ = ["client_batches", "dirichlet_clients", "sampled_clients"]

_PARTITION, _SAMPLING, _ORDER = 11, 12, 13


def dirichlet_clients(
    y: Int[Tensor, "sample"], clients: int, alpha: float, *, seed: int = 0, least: int = 2
) -> list[Tensor]:
    """Deal samples out to clients, every class in proportions drawn from Dirichlet(α, …, α).

    As in Hsu, Qi and Brown 2019 (arXiv 1909.06335) by class. Afterwards clients with fewer than
    `least` samples take some from the largest one, one by one.

    Parameters
    ----------
    y : LongTensor [sample]
        Class labels.
    clients : int
    alpha : float
        Small: a client has few classes; large: all clients have nearly the mixture of all.
    seed : int
        The partition depends on it, on `y` and on the arguments alone.
    least : int
        Samples that every client has at least.

    Returns
    -------
    list of LongTensor
        Sorted sample indices of each client; together every sample once.

    Raises
    ------
    ValueError
        If α is not positive, or there are too few samples for so many clients.
    """
    if not alpha > 0 or not np.isfinite(alpha):
        raise ValueError(f"alpha={alpha!r}: expected a positive number, as 10, 1 or .5")
    if clients < 1 or least < 1 or clients * least > len(y):
        raise ValueError(
            f"clients={clients!r}: {len(y)} samples do not give each of them {least}; "
            "expected 1 or more, and fewer clients than that"
        )
    rng = np.random.default_rng(np.random.SeedSequence([seed, _PARTITION]))
    labels = y.cpu().numpy()
    parts: list[list[int]] = [[] for _ in range(clients)]
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        shares = rng.dirichlet(np.full(clients, alpha))
        cuts = np.round(np.cumsum(shares)[:-1] * len(members)).astype(int)
        for client, piece in enumerate(np.split(members, cuts)):
            parts[client].extend(piece.tolist())
    while min(map(len, parts)) < least:
        largest = max(range(clients), key=lambda k: len(parts[k]))
        smallest = min(range(clients), key=lambda k: len(parts[k]))
        parts[smallest].append(parts[largest].pop(int(rng.integers(len(parts[largest])))))
    return [torch.as_tensor(sorted(part)) for part in parts]


def sampled_clients(clients: int, count: int, *, seed: int, round: int) -> list[int]:
    """Draw the clients of a round, sorted, from the seed and the round's number alone."""
    if not 1 <= count <= clients:
        raise ValueError(f"sampled={count!r}: expected 1 to {clients}, the number of clients")
    drawn = torch.randperm(clients, generator=generator(seed, _SAMPLING, round))
    return sorted(drawn[:count].tolist())


def client_batches(
    samples: int, *, epochs: int, batch_size: int, seed: int, client: int, round: int
) -> list[Tensor]:
    """Positions among a client's own samples, batch by batch; the last of an epoch may be short."""
    rng = generator(seed, _ORDER, client, round)
    batches: list[Tensor] = []
    for _ in range(epochs):
        batches.extend(torch.randperm(samples, generator=rng).split(batch_size))
    return batches
