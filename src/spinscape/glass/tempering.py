"""Parallel tempering of anything that has a sweep at an inverse temperature and an energy.

Chains at neighbouring temperatures exchange their temperatures with probability
min(1, exp((β_i − β_j)(E_i − E_j))) (Hukushima and Nemoto 1996), in the deterministic order of even
and odd pairs, whose round trips do not slow down as temperatures are added (Syed, Bouchard-Côté,
Deligiannidis and Doucet 2021, arXiv 1905.02939).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike
from scipy.interpolate import PchipInterpolator
from torch import Tensor

__all__ = ["Exchange", "Tempered", "Tempering", "even_ladder", "ladder_of"]


class Tempered(Protocol):
    """What can be tempered: a state of many chains, one row each."""

    def sweep(self, state: Any, beta: Float[Tensor, "chain"]) -> None:
        """Move every chain once at its inverse temperature, in place."""

    def energy(self, state: Any) -> Float[Tensor, "chain"]:
        """Total energies, float64, in units of the temperature."""


@dataclass
class Exchange:
    """Which chain holds which temperature, and how the exchanges went.

    Attributes
    ----------
    chain : [ensemble, temperature]
        Number of the chain, within its ensemble, that is at a temperature.
    accepted, tried : [temperature − 1]
        Exchanges between neighbours, summed over ensembles.
    going : [ensemble, chain]
        1 for a chain that was last at the hottest end, −1 at the coldest after the hottest, 0 for
        one that has not been at the hottest yet.
    trips : [ensemble, chain]
        Times a chain came back to the hottest end by way of the coldest.
    steps : int
        Rounds of exchanges made.
    """

    chain: Int[Tensor, "ensemble temperature"]
    accepted: Float[Tensor, "gap"]
    tried: Float[Tensor, "gap"]
    going: Int[Tensor, "ensemble temperature"]
    trips: Int[Tensor, "ensemble temperature"]
    steps: int = 0

    @classmethod
    def begin(cls, ensembles: int, temperatures: int) -> Exchange:
        """Every chain at the temperature of its own number."""
        order = torch.arange(temperatures).repeat(ensembles, 1)
        gaps = torch.zeros(max(temperatures - 1, 0), dtype=torch.float64)
        none = torch.zeros(ensembles, temperatures, dtype=torch.long)
        return cls(order, gaps, gaps.clone(), none, none.clone())

    def forget(self) -> None:
        """Count exchanges and round trips anew."""
        self.accepted.zero_()
        self.tried.zero_()
        self.trips.zero_()

    def to_dict(self) -> dict[str, Tensor]:
        """Return the fields as tensors, for a checkpoint."""
        named = ("chain", "accepted", "tried", "going", "trips")
        return {name: getattr(self, name) for name in named} | {"steps": torch.tensor(self.steps)}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Tensor]) -> Exchange:
        """Make what `to_dict` took apart."""
        named = {name: value.clone() for name, value in stored.items() if name != "steps"}
        return cls(**named, steps=int(stored["steps"]))


@dataclass
class Tempering:
    """Ensembles of chains, each with one chain at every temperature, moved together.

    Row ``e · K + c`` of the state is chain c of ensemble e; chains keep their rows and exchange
    their temperatures.

    Parameters
    ----------
    system : Tempered
        What moves.
    beta : Tensor [temperature]
        Inverse temperatures, float64, falling or rising.
    generator : torch.Generator
        Of the exchanges, on the CPU.
    exchanging : bool
        Without, chains keep their temperatures.
    """

    system: Tempered
    beta: Float[Tensor, "temperature"]
    generator: torch.Generator
    exchanging: bool = True
    record: Exchange = field(init=False)

    def begin(self, ensembles: int) -> None:
        """Start with every chain at its own temperature."""
        self.record = Exchange.begin(ensembles, len(self.beta))

    def chain_beta(self) -> Float[Tensor, "chain"]:
        """Inverse temperature of every row."""
        found = torch.empty(self.record.chain.shape, dtype=torch.float64)
        found.scatter_(1, self.record.chain, self.beta.expand_as(found))
        return found.reshape(-1)

    def rows(self) -> Int[Tensor, "ensemble temperature"]:
        """The row of the state at each temperature of each ensemble."""
        ensembles, count = self.record.chain.shape
        return self.record.chain + count * torch.arange(ensembles)[:, None]

    def step(self, state: Any, sweeps: int = 1) -> Float[Tensor, "ensemble temperature"]:
        """Sweep all chains, exchange after each sweep; return the energies by temperature."""
        exchanging = self.exchanging and len(self.beta) > 1
        beta = self.chain_beta()
        for _ in range(sweeps):
            self.system.sweep(state, beta)
            if exchanging:
                self._exchange(self._energy(state))
                beta = self.chain_beta()
        return self._energy(state).gather(1, self.record.chain)

    def _energy(self, state: Any) -> Float[Tensor, "ensemble chain"]:
        return self.system.energy(state).cpu().reshape(self.record.chain.shape)

    def _exchange(self, energy: Float[Tensor, "ensemble chain"]) -> None:
        record = self.record
        first = record.steps % 2
        left = torch.arange(first, len(self.beta) - 1, 2)
        record.steps += 1
        if not len(left):
            return
        at = energy.gather(1, record.chain)
        gain = (self.beta[left] - self.beta[left + 1]) * (at[:, left] - at[:, left + 1])
        draws = torch.rand(gain.shape, generator=self.generator, dtype=torch.float64)
        accepted = draws.log() < gain
        self._swap(left, accepted)
        record.accepted[left] += accepted.sum(0)
        record.tried[left] += len(accepted)
        self._count_trips()

    def _swap(self, left: Int[Tensor, "pair"], accepted: Bool[Tensor, "ensemble pair"]) -> None:
        low, high = self.record.chain[:, left], self.record.chain[:, left + 1]
        self.record.chain[:, left] = torch.where(accepted, high, low)
        self.record.chain[:, left + 1] = torch.where(accepted, low, high)

    def _count_trips(self) -> None:
        record = self.record
        hottest, coldest = (0, -1) if self.beta[0] < self.beta[-1] else (-1, 0)
        top, bottom = record.chain[:, hottest, None], record.chain[:, coldest, None]
        came = record.going.gather(1, top) == -1
        record.trips.scatter_add_(1, top, came.long())
        record.going.scatter_(1, top, torch.ones_like(top))
        visited = record.going.gather(1, bottom) != 0
        record.going.scatter_(1, bottom, torch.where(visited, -torch.ones_like(bottom), 0))


def even_ladder(
    temperatures: ArrayLike, acceptance: ArrayLike, count: int | None = None
) -> Float[np.ndarray, "temperature"]:
    """Temperatures between which exchanges are refused equally often.

    The refusals between neighbours add up to a barrier Λ(β) that hardly depends on the ladder; the
    new one divides it evenly (arXiv 1905.02939, algorithm 4).

    Parameters
    ----------
    temperatures : array [temperature]
        Those at which the exchanges were made, in order.
    acceptance : array [temperature − 1]
        Between neighbours.
    count : int, optional
        Of the new ladder; as many as before by default. Its ends stay.

    Raises
    ------
    ValueError
        Fewer than three temperatures, or another number of acceptances.
    """
    heats, accepted = np.asarray(temperatures, float), np.asarray(acceptance, float)
    if len(heats) < 3 or len(accepted) != len(heats) - 1:
        raise ValueError(
            f"temperatures: {len(heats)} with {len(accepted)} acceptances; expected three or more, "
            "and one acceptance fewer"
        )
    beta = 1 / heats
    order = np.argsort(beta)
    refused = np.maximum(1 - (accepted if order[0] == 0 else accepted[::-1]), 1e-3)
    barrier = np.concatenate([[0.0], np.cumsum(refused)])
    even = np.linspace(0, barrier[-1], count or len(heats))
    found = PchipInterpolator(barrier, beta[order])(even)
    found[0], found[-1] = beta[order][0], beta[order][-1]
    return 1 / (found if order[0] == 0 else found[::-1])


def ladder_of(
    acceptances: Callable[[Float[np.ndarray, "temperature"]], ArrayLike],
    coldest: float,
    hottest: float,
    count: int,
    *,
    rounds: int = 5,
) -> Float[np.ndarray, "temperature"]:
    """Tune a ladder of temperatures to a uniform acceptance of exchanges.

    Parameters
    ----------
    acceptances : callable
        Makes exchanges on a ladder and says how many neighbours accepted.
    coldest, hottest : float
        Its ends.
    count : int
        Of temperatures, at least 3.
    rounds : int
        Times that the ladder is made again.

    Raises
    ------
    ValueError
        If the ends are not positive and in order, or `count` is below 3.
    """
    if not 0 < coldest < hottest < np.inf:
        raise ValueError(f"coldest={coldest}, hottest={hottest}: expected 0 < coldest < hottest")
    if count < 3:
        raise ValueError(f"count={count}: expected 3 temperatures or more")
    ladder = np.geomspace(coldest, hottest, count)
    for _ in range(rounds):
        ladder = even_ladder(ladder, acceptances(ladder))
    return ladder
