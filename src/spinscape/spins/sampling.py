"""Monte Carlo of a spin model: heat bath at many temperatures, with exchanges between them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import Tensor

from spinscape.glass.records import labelled, provenance
from spinscape.glass.tempering import Exchange, Tempering, ladder_of
from spinscape.spins.couplings import SpinModel
from spinscape.spins.equilibration import FEWEST, equilibration
from spinscape.spins.sweeps import PRECISIONS, Chains, products_in, sweeps_of

__all__ = ["ground_states", "ladder", "sample"]

SOURCE = "parallel tempering (Hukushima and Nemoto 1996) over two-colour or single-spin heat bath"
CHAINS = 128
"""Chains that one block moves together; fixed, so that no number depends on the threads."""

MEASUREMENTS = 1000
QUENCHES = 50
"""Sweeps at zero temperature that make a cold start."""

_precision_lock = threading.Lock()


@dataclass(frozen=True)
class _Plan:
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
    _check_numbers(model, replicas=replicas, sweeps=sweeps, keep=keep, every=every)
    heats = _heats(temperatures)
    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision!r}: expected one of {', '.join(PRECISIONS)}")
    begun = 0 if start is not None else sweeps // 3
    left_out = begun if burn_in is None else burn_in
    if not 0 <= left_out < sweeps:
        raise ValueError(f"burn_in={left_out}: expected 0 or more, below sweeps={sweeps}")
    sampled = _rounded(model) if precision == "bfloat16" else model
    apart = every or max(1, (sweeps - left_out) // MEASUREMENTS)
    plan = _Plan(sampled, heats, sweeps, left_out, apart, tempering, keep, seed)
    if not len(plan.measured):
        raise ValueError(f"every={every}: no measurement within {sweeps - left_out} sweeps")
    each = max(2, 2 * (CHAINS // (2 * len(heats))))
    groups = [range(k, min(k + each, replicas)) for k in range(0, replicas, each)]
    state = None if start is None else _state_of(start, plan, replicas)
    cells = [
        partial(_block, plan, group, state, progress if number == 0 else None)
        for number, group in enumerate(groups)
    ]
    with _precision_lock, products_in(precision):
        blocks = _across_threads(cells, threads or torch.get_num_threads())
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
    _check_numbers(model, replicas=replicas, sweeps=sweeps, every=every)
    heats = np.sort(_heats(temperatures))
    sweeper = sweeps_of(model)
    chains, tempering = _begun(_Plan(model, heats, sweeps, 0, 1, True, 0, seed), range(replicas))
    count = len(heats)
    best = torch.full((replicas,), torch.inf, dtype=torch.float64)
    found = torch.zeros(replicas, model.n)
    frozen = torch.full((replicas * count,), 1e6 / _scale(model), dtype=torch.float64)
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


def _block(
    plan: _Plan,
    group: range,
    state: dict[str, Any] | None,
    progress: Callable[[int, int], None] | None,
) -> dict[str, Any]:
    """Move the chains of some replicas, and measure them."""
    chains, tempering = _begun(plan, group) if state is None else _resumed(plan, group, state)
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


def _overlaps(
    chains: Chains, rows: Tensor, pairs: int
) -> Float[Tensor, "pair temperature layer"]:
    first, second = rows[0 : 2 * pairs : 2], rows[1 : 2 * pairs : 2]
    return torch.stack(
        [(spins[first] * spins[second]).mean(-1).double() for spins in chains.spins], -1
    ).cpu()


def _begun(plan: _Plan, group: range) -> tuple[Chains, Tempering]:
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
    frozen = torch.full((len(start),), 1e6 / _scale(model), dtype=torch.float64)
    for _ in range(QUENCHES):
        system.sweep(chains, frozen)
    return chains.configurations().double().cpu()


def _scale(model: SpinModel) -> float:
    """Root mean square local field of a random configuration: a temperature to call hot."""
    ones = torch.ones(model.n, dtype=model.dtype, device=model.device)
    found = float(model.squares.product(ones).mean().sqrt())
    return found or 1.0


def _resumed(plan: _Plan, group: range, state: dict[str, Any]) -> tuple[Chains, Tempering]:
    system = sweeps_of(plan.model)
    chains, exchange, generator = state["blocks"][group.start]
    tempering = Tempering(
        system, torch.from_numpy(1 / plan.temperatures), generator, plan.tempering
    )
    tempering.record = exchange
    return chains, tempering


def _state_of(start: xr.Dataset, plan: _Plan, replicas: int) -> dict[str, Any]:
    """Chains, exchanges and generators of a result, by the first replica of each block."""
    if "state_spins" not in start:
        raise ValueError("start: holds no state; make it with keep_state=True")
    same = (
        start.sizes["replica"] == replicas
        and start.sizes["state_spin"] == plan.model.n
        and np.array_equal(start["temperature"].values, plan.temperatures)
    )
    if not same or start.attrs["seed"] != plan.seed:
        raise ValueError(
            f"start: of {start.sizes['replica']} replicas, {start.sizes['state_spin']} spins, "
            f"seed {start.attrs['seed']} at {start.sizes['temperature']} temperatures; expected "
            "the same model, temperatures, replicas and seed"
        )
    count, blocks = len(plan.temperatures), {}
    firsts = start["state_block"].values.tolist()
    spins = torch.from_numpy(start["state_spins"].values).to(plan.model.device, plan.model.dtype)
    fields = torch.from_numpy(start["state_fields"].values).to(plan.model.device, plan.model.dtype)
    for number, first in enumerate(firsts):
        last = firsts[number + 1] if number + 1 < len(firsts) else replicas
        rows = slice(first * count, last * count)
        named = {}
        for name in ("chain", "going", "trips"):
            named[name] = torch.from_numpy(start[f"state_{name}"].values[first:last])
        gaps = torch.zeros(max(count - 1, 0), dtype=torch.float64)
        exchange = Exchange(
            named["chain"].clone(),
            gaps,
            gaps.clone(),
            named["going"].clone(),
            named["trips"].clone(),
            int(start.attrs["exchanges"]),
        )
        generator = torch.Generator()
        generator.set_state(torch.from_numpy(start["state_generator"].values[number].copy()))
        chains = Chains(
            [spins[rows, place].contiguous() for place in plan.model.places],
            [fields[rows, place].contiguous() for place in plan.model.places],
            start["state_streams"].values[rows].copy(),
            int(start.attrs["state_sweeps"]),
        )
        blocks[first] = (chains, exchange, generator)
    return {"blocks": blocks, "sweeps": start.attrs["state_sweeps"]}


def _joined(
    blocks: Sequence[dict[str, Any]], plan: _Plan, replicas: int, keep_state: bool
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
    return found.merge(_kept_state(blocks, plan), combine_attrs="no_conflicts")


def _kept_state(blocks: Sequence[dict[str, Any]], plan: _Plan) -> xr.Dataset:
    chains = [block["chains"] for block in blocks]
    records = [block["tempering"].record for block in blocks]
    if not isinstance(chains[0].streams, np.ndarray):
        raise ValueError(
            f"keep_state: chains on {plan.model.device} cannot be kept yet; move the model to the "
            "CPU with model.to(device='cpu')"
        )
    firsts = np.cumsum([0, *(len(record.chain) for record in records)])[:-1]
    stored = {
        "state_spins": (("chain", "state_spin"), _rows([c.spins for c in chains]).char()),
        "state_fields": (("chain", "state_spin"), _rows([c.fields for c in chains])),
        "state_streams": (
            ("chain", "word", "lane"),
            np.concatenate([np.asarray(c.streams) for c in chains]),
        ),
        "state_generator": (
            ("block", "byte"),
            torch.stack([block["tempering"].generator.get_state() for block in blocks]),
        ),
        "state_block": ("block", firsts),
    }
    for name in ("chain", "going", "trips"):
        rows = torch.cat([getattr(record, name) for record in records])
        stored[f"state_{name}"] = (("replica", "temperature"), rows)
    attrs = {"exchanges": records[0].steps, "state_sweeps": chains[0].sweeps}
    return xr.Dataset(
        {name: labelled(*value, f"what the run goes on from: {name}") for name, value in stored.items()},
        attrs=attrs,
    )


def _rows(parts: Sequence[Sequence[Tensor]]) -> Tensor:
    return torch.cat([torch.cat(list(part), 1) for part in parts])


def _across_threads(cells: Sequence[Callable[[], Any]], threads: int) -> list[Any]:
    """Results of all cells; each of several threads gives its products one core."""
    if threads < 1:
        raise ValueError(f"threads={threads}: expected 1 or more")
    before = torch.get_num_threads()
    if threads == 1 or len(cells) == 1:
        return [cell() for cell in cells]
    try:
        with ThreadPoolExecutor(
            min(threads, len(cells)), initializer=torch.set_num_threads, initargs=(1,)
        ) as pool:
            return [done.result() for done in [pool.submit(cell) for cell in cells]]
    finally:
        torch.set_num_threads(before)


def _rounded(model: SpinModel) -> SpinModel:
    if model.dtype != torch.float32:
        raise ValueError(
            f"precision='bfloat16': of a float32 model, got {model.dtype}; convert it with "
            "model.to(torch.float32)"
        )
    return model.to(torch.bfloat16).to(torch.float32)


def _heats(temperatures: ArrayLike) -> Float[np.ndarray, "temperature"]:
    heats = np.atleast_1d(np.asarray(temperatures, dtype=float))
    bad = heats[~((heats > 0) & np.isfinite(heats))]
    if heats.ndim != 1 or not len(heats) or len(bad):
        told = f"got {bad[0]}" if len(bad) else f"got shape {heats.shape}"
        raise ValueError(f"temperatures: expected positive numbers, {told}")
    moved = np.diff(heats)
    if len(heats) > 1 and not ((moved > 0).all() or (moved < 0).all()):
        raise ValueError(
            f"temperatures={heats.tolist()}: expected in rising or falling order, each once"
        )
    return heats


def _check_numbers(model: SpinModel, **numbers: int | None) -> None:
    if not isinstance(model, SpinModel):
        raise TypeError(
            f"model: expected a SpinModel, got {type(model).__name__}; "
            "SpinModel.from_module(module) reads a network"
        )
    for name, number in numbers.items():
        least = 0 if name == "keep" else 1
        if number is None:
            continue
        if isinstance(number, bool) or not isinstance(number, int) or number < least:
            raise ValueError(f"{name}={number!r}: expected a whole number, {least} or more")
