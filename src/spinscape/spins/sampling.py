"""Monte Carlo of a spin model: heat bath at many temperatures, with exchanges between them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from numpy.typing import ArrayLike

from spinscape.glass.tempering import ladder_of
from spinscape.records import labelled, provenance
from spinscape.spins.arguments import check_model, check_whole, temperatures_of
from spinscape.spins.chain_blocks import Plan, across_threads, block
from spinscape.spins.couplings import SpinModel
from spinscape.spins.resuming import kept_state, resumed, state_of
from spinscape.spins.settling import FEWEST, equilibration
from spinscape.spins.sweeps import PRECISIONS, products_in

__all__ = ["ladder", "sample"]

SOURCE = "parallel tempering (Hukushima and Nemoto 1996) over two-colour or single-spin heat bath"
CHAINS = 128
"""Chains that one block moves together; fixed, so that no number depends on the threads."""

MEASUREMENTS = 1000
_precision_lock = threading.Lock()


def sample(
    model: SpinModel,
    temperatures: ArrayLike,
    replicas: int = 4,
    sweeps: int = 1000,
    seed: int = 0,
    *,
    burn_in: int | None = None,
    every: int | None = None,
    tempering: bool = True,
    keep: int = 0,
    precision: str = "as given",
    start: xr.Dataset | None = None,
    keep_state: bool = False,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> xr.Dataset:
    """Sample the Boltzmann distribution of a spin model at all temperatures at once.

    Every replica is an ensemble of its own, with one chain at each temperature. Replicas 2p and
    2p + 1 are a pair whose overlaps are measured. Pairs 0, 2, 4 … start *hot*, each replica at
    random; pairs 1, 3 … start *cold*, both at one and the same quenched configuration, so that
    their overlap comes down while that of hot pairs goes up: they agree in equilibrium.

    Parameters
    ----------
    model : SpinModel
        Layered models are drawn layer by layer, dense ones spin by spin.
    temperatures : array [temperature]
        Positive, in units of the couplings, in any order; `ladder` tunes them.
    replicas : int
        Independent ensembles; 4 or more let hot and cold starts be compared.
    sweeps : int
        Of every chain, the burn-in included.
    seed : int
        Of starts, updates and exchanges. Results do not depend on `threads`.
    burn_in : int, optional
        Sweeps left out at the beginning; a third by default (none if `start` is given).
    every : int, optional
        Sweeps between measurements; by default at most 1000 measurements are made.
    tempering : bool
        Exchange temperatures between neighbouring chains of an ensemble.
    keep : int
        Configurations kept, at equal distances, as points for the tools of `glass`.
    precision : {"as given", "bfloat16"}
        "bfloat16" rounds the couplings to bfloat16 and samples the rounded model, whose energies
        are given: faster where a matrix unit has that type. Fields are still summed in float32.
    start : Dataset, optional
        A result with ``keep_state=True`` of the same model, temperatures and seed; goes on where it
        ended, as an unbroken run would have.
    keep_state : bool
        Keep what a run needs to go on.
    threads : int, optional
        Over which blocks of 128 chains are spread; by default as many as PyTorch uses.
    progress : callable, optional
        Called with sweeps done and planned (of the first block).

    Returns
    -------
    Dataset
        ``energy [temperature, replica, measurement]``, total; ``overlap [temperature, pair,
        measurement]``, per layer ``layer_overlap [temperature, pair, layer, measurement]``;
        ``exchange [gap]``, accepted between neighbours; ``round_trips [replica]`` of all its
        chains; with `keep` ``point [temperature, replica, kept, n]``; and of `equilibration`
        ``rhat``, ``ess``, ``hot_minus_cold``, ``energy_bins``, ``equilibrated [temperature]``,
        summed up in the attribute ``equilibrated``.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it, its value and the remedy.

    Examples
    --------
    >>> found = sample(SpinModel.sk(16, seed=1), [0.5, 1.0, 2.0], replicas=4, sweeps=60, seed=0)
    >>> found.energy.dims
    ('temperature', 'replica', 'measurement')
    """
    check_model(model)
    check_whole(replicas=replicas, sweeps=sweeps, every=every, threads=threads)
    check_whole(0, keep=keep, burn_in=burn_in)
    heats = temperatures_of(temperatures, ordered=True)
    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision!r}: expected one of {', '.join(PRECISIONS)}")
    begun = 0 if start is not None else sweeps // 3
    left_out = begun if burn_in is None else burn_in
    if not 0 <= left_out < sweeps:
        raise ValueError(f"burn_in={left_out}: expected 0 or more, below sweeps={sweeps}")
    sampled = _rounded(model) if precision == "bfloat16" else model
    apart = every or max(1, (sweeps - left_out) // MEASUREMENTS)
    plan = Plan(sampled, heats, sweeps, left_out, apart, tempering, keep, seed)
    if not len(plan.measured):
        raise ValueError(f"every={every}: no measurement within {sweeps - left_out} sweeps")
    if keep > len(plan.measured):
        raise ValueError(
            f"keep={keep}: of only {len(plan.measured)} measurements; raise sweeps, or lower every"
        )
    each = max(2, 2 * (CHAINS // (2 * len(heats))))
    groups = [range(k, min(k + each, replicas)) for k in range(0, replicas, each)]
    state = None if start is None else state_of(start, plan, replicas)
    cells = [
        partial(
            block,
            plan,
            group,
            None if state is None else resumed(plan, group, state),
            progress if number == 0 else None,
        )
        for number, group in enumerate(groups)
    ]
    with _precision_lock, products_in(precision):
        blocks = across_threads(cells, threads or torch.get_num_threads())
    found = _joined(blocks, plan, replicas, keep_state)
    found.attrs |= provenance(
        "sample",
        SOURCE,
        seed,
        temperatures=heats.tolist(),
        widths=list(model.widths),
        replicas=replicas,
        sweeps=sweeps,
        burn_in=left_out,
        every=apart,
        tempering=tempering,
        precision=precision,
        chains_per_block=each * len(heats),
    ) | {"sweeps_before": 0 if state is None else int(state["sweeps"])}
    if found.sizes["measurement"] >= FEWEST:
        return equilibration(found)
    told = f"unknown: {found.sizes['measurement']} measurements, expected {FEWEST} or more"
    return found.assign_attrs(equilibrated=told)


def ladder(
    model: SpinModel,
    coldest: float,
    hottest: float,
    count: int,
    *,
    sweeps: int = 200,
    rounds: int = 5,
    replicas: int = 4,
    seed: int = 0,
) -> Float[np.ndarray, "temperature"]:
    """Temperatures between two ends whose chains exchange equally often.

    Parameters
    ----------
    model : SpinModel
    coldest, hottest : float
        The ends.
    count : int
        Of temperatures, at least 3.
    sweeps, rounds, replicas : int
        Of each of the short runs after which the ladder is evened out
        (`glass.tempering.even_ladder`).
    seed : int

    Raises
    ------
    ValueError
        If the ends are not positive and in order, or a number is too small.
    """
    numbers = iter(range(rounds))

    def acceptances(heats: np.ndarray) -> np.ndarray:
        own = int(np.random.SeedSequence((seed, next(numbers))).generate_state(1)[0])
        return sample(model, heats, replicas, sweeps, own)["exchange"].values

    return ladder_of(acceptances, coldest, hottest, count, rounds=rounds)


def _joined(
    blocks: Sequence[dict[str, Any]], plan: Plan, replicas: int, keep_state: bool
) -> xr.Dataset:
    """One Dataset of all blocks."""
    energy = torch.cat([block["energy"] for block in blocks], 1)
    overlap = torch.cat([block["overlap"] for block in blocks], 1)
    records = [block["tempering"].record for block in blocks]
    tried = torch.stack([record.tried for record in records]).sum(0)
    accepted = torch.stack([record.accepted for record in records]).sum(0)
    sizes = torch.tensor(plan.model.widths, dtype=torch.float64)
    whole = (overlap * sizes).sum(-1) / sizes.sum()
    at = plan.temperatures
    variables = {
        "energy": labelled(
            ("temperature", "replica", "measurement"), energy.permute(2, 1, 0), "energy", "weights"
        ),
        "exchange": labelled("gap", accepted / tried, "accepted exchanges between neighbours"),
        "round_trips": labelled(
            "replica", torch.cat([r.trips.sum(1) for r in records]), "round trips of all chains"
        ),
    }
    if overlap.shape[1]:
        variables["overlap"] = labelled(
            ("temperature", "pair", "measurement"), whole.permute(2, 1, 0), "overlap q"
        )
        variables["layer_overlap"] = labelled(
            ("temperature", "pair", "layer", "measurement"),
            overlap.permute(2, 1, 3, 0),
            "overlap q_k of a layer",
        )
    if plan.keep:
        kept = torch.cat([block["kept"] for block in blocks], 1)
        variables["point"] = labelled(
            ("temperature", "replica", "kept", "n"), kept.permute(2, 1, 0, 3), "configuration"
        )
    found = xr.Dataset(
        variables,
        {
            "temperature": ("temperature", at, {"units": "weights"}),
            "sweep": ("measurement", np.array(plan.measured), {"units": "sweeps"}),
            "width": ("layer", np.array(plan.model.widths), {"long_name": "spins of a layer"}),
            "cold": ("pair", np.arange(overlap.shape[1]) % 2 == 1, {"long_name": "cold start"}),
        },
    )
    if not keep_state:
        return found
    return found.merge(kept_state(blocks, plan), combine_attrs="no_conflicts")


def _rounded(model: SpinModel) -> SpinModel:
    if model.dtype != torch.float32:
        raise ValueError(
            f"precision='bfloat16': of a float32 model, got {model.dtype}; convert it with "
            "model.to(torch.float32)"
        )
    return model.to(torch.bfloat16).to(torch.float32)
