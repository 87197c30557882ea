"""What a run of chains goes on from: stored beside its results, and read again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from spinscape.glass.tempering import Exchange, Tempering
from spinscape.records import labelled
from spinscape.spins.chain_blocks import Plan
from spinscape.spins.couplings import SpinModel
from spinscape.spins.sweeps import Chains, sweeps_of

__all__ = ["kept_state", "resumed", "state_of"]


def resumed(plan: Plan, group: range, state: dict[str, Any]) -> tuple[Chains, Tempering]:
    """Chains of some replicas where a result left them, with their exchanges."""
    system = sweeps_of(plan.model)
    chains, exchange, generator = state["blocks"][group.start]
    tempering = Tempering(
        system, torch.from_numpy(1 / plan.temperatures), generator, plan.tempering
    )
    tempering.record = exchange
    return chains, tempering


def state_of(start: xr.Dataset, plan: Plan, replicas: int) -> dict[str, Any]:
    """Chains, exchanges and generators of a result, by the first replica of each block."""
    if "state_spins" not in start:
        raise ValueError("start: holds no state; make it with keep_state=True")
    same = (
        start.sizes["replica"] == replicas
        and start.sizes["state_spin"] == plan.model.n
        and np.array_equal(start["temperature"].values, plan.temperatures)
        and start.attrs["state_model"] == _digest(plan.model)
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
            [fields[rows, place].clone() for place in plan.model.places],
            start["state_streams"].values[rows].copy(),
            int(start.attrs["state_sweeps"]),
        )
        blocks[first] = (chains, exchange, generator)
    return {"blocks": blocks, "sweeps": start.attrs["state_sweeps"]}


def kept_state(blocks: Sequence[dict[str, Any]], plan: Plan) -> xr.Dataset:
    """The state of all chains, exchanges and generators.

    Raises
    ------
    ValueError
        If the chains are not on the CPU.
    """
    chains = [block["chains"] for block in blocks]
    records = [block["tempering"].record for block in blocks]
    if not isinstance(chains[0].streams, np.ndarray):
        raise ValueError(
            f"keep_state: chains on {plan.model.device} cannot be kept yet; move the model to the "
            "CPU with model.to(device='cpu')"
        )
    firsts = np.cumsum([0, *(len(record.chain) for record in records)])[:-1]
    stored: dict[str, Any] = {
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
    attrs = {
        "exchanges": records[0].steps,
        "state_sweeps": chains[0].sweeps,
        "state_model": _digest(plan.model),
    }
    return xr.Dataset(
        {
            name: labelled(dims, values, f"what the run goes on from: {name}")
            for name, (dims, values) in stored.items()
        },
        attrs=attrs,
    )


def _digest(model: SpinModel) -> str:
    """What tells one model from another: its couplings and fields."""
    found = hashlib.sha256(repr(model.widths).encode())
    for part in (*model.couplings, *(() if model.fields is None else (model.fields,))):
        found.update(part.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def _rows(parts: Sequence[Sequence[Tensor]]) -> Tensor:
    return torch.cat([torch.cat(list(part), 1) for part in parts])
