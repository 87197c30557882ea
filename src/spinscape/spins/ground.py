"""Ground states, by parallel tempering with quenches."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike

from spinscape.records import labelled, provenance
from spinscape.spins.arguments import check_model, check_whole, temperatures_of
from spinscape.spins.chain_blocks import Plan, begun, field_scale
from spinscape.spins.couplings import SpinModel
from spinscape.spins.sweeps import sweeps_of

__all__ = ["ground_states"]

SOURCE = "parallel tempering (Hukushima and Nemoto 1996) with quenches"


def ground_states(
    model: SpinModel,
    *,
    temperatures: ArrayLike,
    replicas: int = 4,
    sweeps: int = 1000,
    every: int = 10,
    seed: int = 0,
) -> xr.Dataset:
    """Lowest energies that parallel tempering finds, each configuration met quenched first.

    Every `every` sweeps a copy of all chains is cooled at zero temperature until no flip helps.
    A ground state is never certain: that several replicas find the same lowest energy is all the
    evidence there is (`agreement`).

    Parameters
    ----------
    model : SpinModel
    temperatures : array [temperature]
        Of the exchanging chains; up to about 1.5 T_c, so that they forget.
    replicas, sweeps, every, seed : int
        As in `sample`.

    Returns
    -------
    Dataset
        ``energy [replica]``, total; ``point [replica, n]``; ``agreement``, the share of the
        replicas at the lowest of these energies.

    Raises
    ------
    TypeError, ValueError
        As `sample`.
    """
    check_model(model)
    check_whole(replicas=replicas, sweeps=sweeps, every=every)
    heats = np.sort(temperatures_of(temperatures))
    sweeper = sweeps_of(model)
    chains, tempering = begun(Plan(model, heats, sweeps, 0, 1, True, 0, seed), range(replicas))
    count = len(heats)
    best = torch.full((replicas,), torch.inf, dtype=torch.float64)
    found = torch.zeros(replicas, model.n)
    frozen = torch.full((replicas * count,), 1e6 / field_scale(model), dtype=torch.float64)
    (own,) = np.random.SeedSequence((seed, 1_000_003)).spawn(1)
    for step in range(0, sweeps, every):
        tempering.step(chains, min(every, sweeps - step))
        copies = sweeper.begin(chains.configurations(), own.spawn(1)[0])
        before = None
        while before is None or bool((sweeper.energy(copies) < before - 1e-6).any()):
            before = sweeper.energy(copies)
            for _ in range(3):
                sweeper.sweep(copies, frozen)
        energies = sweeper.energy(copies).cpu().view(replicas, count)
        lowest, at = energies.min(1)
        better = lowest < best - 1e-9
        rows = torch.arange(replicas) * count + at
        found[better] = copies.configurations()[rows[better]].cpu().float()
        best = torch.where(better, lowest, best)
    agreement = float((best < best.min() + 1e-5 * best.min().abs()).double().mean())
    return xr.Dataset(
        {
            "energy": labelled("replica", best, "lowest total energy", "weights"),
            "point": labelled(("replica", "n"), found, "configuration of lowest energy"),
            "agreement": labelled((), agreement, "share of replicas at the lowest energy"),
        },
        attrs=provenance(
            "ground_states",
            SOURCE,
            seed,
            temperatures=heats.tolist(),
            replicas=replicas,
            sweeps=sweeps,
            every=every,
            widths=list(model.widths),
        ),
    )
