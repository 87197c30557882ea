"""Blocks of chains: how they begin, move, and are measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from spinscape.glass.tempering import Tempering
from spinscape.spins.couplings import SpinModel
from spinscape.spins.sweeps import Chains, sweeps_of

__all__ = [
    "Plan",
    "across_threads",
    "begun",
    "block",
    "field_scale",
]

QUENCHES = 50
"""Sweeps at zero temperature that make a cold start."""


@dataclass(frozen=True)
class Plan:
    """What every block of chains does."""

    model: SpinModel
    temperatures: Float[np.ndarray, "temperature"]
    sweeps: int
    burn_in: int
    every: int
    tempering: bool
    keep: int
    seed: int

    @property
    def measured(self) -> range:
        """Sweeps after which the chains are looked at, counted from the first of this call."""
        return range(self.burn_in + self.every, self.sweeps + 1, self.every)


def block(
    plan: Plan,
    group: range,
    start: tuple[Chains, Tempering] | None,
    progress: Callable[[int, int], None] | None,
) -> dict[str, Any]:
    """Move the chains of some replicas, from their own start or from one given; measure them."""
    chains, tempering = start or begun(plan, group)
    model, measured = plan.model, plan.measured
    pairs = len(group) // 2
    shape = (len(group), len(plan.temperatures))
    energy = torch.empty(len(measured), *shape, dtype=torch.float64)
    overlap = torch.empty(len(measured), pairs, shape[1], len(model.widths), dtype=torch.float64)
    kept_at = set(np.linspace(0, len(measured) - 1, plan.keep).round().astype(int).tolist())
    kept = []
    made = 0
    tempering.record.forget()
    for number, at in enumerate(measured):
        while made < at:
            count = min(at - made, plan.burn_in - made if made < plan.burn_in else at - made)
            energies = tempering.step(chains, count)
            made += count
            if made == plan.burn_in:
                tempering.record.forget()
        energy[number] = energies
        rows = tempering.rows().to(model.device)
        if pairs:
            overlap[number] = _overlaps(chains, rows, pairs)
        if number in kept_at:
            kept.append(chains.configurations()[rows].float().cpu())
        if progress is not None:
            progress(made, plan.sweeps)
    if made < plan.sweeps:
        tempering.step(chains, plan.sweeps - made)
    return {
        "energy": energy,
        "overlap": overlap,
        "kept": torch.stack(kept) if kept else None,
        "chains": chains,
        "tempering": tempering,
    }


def _overlaps(chains: Chains, rows: Tensor, pairs: int) -> Float[Tensor, "pair temperature layer"]:
    first, second = rows[0 : 2 * pairs : 2], rows[1 : 2 * pairs : 2]
    return torch.stack(
        [(spins[first] * spins[second]).mean(-1).double() for spins in chains.spins], -1
    ).cpu()


def begun(plan: Plan, group: range) -> tuple[Chains, Tempering]:
    """Chains at their hot and cold starts; each block has streams of its own."""
    model, count = plan.model, len(plan.temperatures)
    seeds = np.random.SeedSequence((plan.seed, group.start)).spawn(4)
    hot = torch.from_numpy(
        np.random.default_rng(seeds[0]).choice([-1.0, 1.0], (len(group), count, model.n))
    )
    cold = [k for k in group[:-1:2] if k // 2 % 2]
    if cold:
        rows = torch.tensor(cold) - group.start
        hot[rows] = hot[rows + 1] = _quenched(model, hot[rows, 0], seeds[1])[:, None]
    system = sweeps_of(model)
    chains = system.begin(hot.flatten(0, 1), seeds[2])
    generator = torch.Generator().manual_seed(int(seeds[3].generate_state(1, np.uint64)[0] >> 1))
    beta = torch.from_numpy(1 / plan.temperatures)
    tempering = Tempering(system, beta, generator, plan.tempering)
    tempering.begin(len(group))
    return chains, tempering


def _quenched(
    model: SpinModel, start: Float[Tensor, "chain N"], seed: np.random.SeedSequence
) -> Float[Tensor, "chain N"]:
    system = sweeps_of(model)
    chains = system.begin(start, seed)
    frozen = torch.full((len(start),), 1e6 / field_scale(model), dtype=torch.float64)
    for _ in range(QUENCHES):
        system.sweep(chains, frozen)
    return chains.configurations().double().cpu()


def field_scale(model: SpinModel) -> float:
    """Root mean square local field of a random configuration: a temperature to call hot."""
    ones = torch.ones(model.n, dtype=model.dtype, device=model.device)
    found = float(model.squares.product(ones).mean().sqrt())
    return found or 1.0


def across_threads(cells: Sequence[Callable[[], Any]], threads: int) -> list[Any]:
    """Results of all cells; products take one core each, so that threads change no rounding."""
    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(
            min(threads, len(cells)), initializer=torch.set_num_threads, initargs=(1,)
        ) as pool:
            return [done.result() for done in [pool.submit(cell) for cell in cells]]
    finally:
        torch.set_num_threads(before)
