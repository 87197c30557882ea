"""Sweeps of many spin configurations at once: block by block in layered models, else one by one.

A layered model has two colours: given the odd layers, the spins of the even ones do not see one
another, so a whole colour is drawn at once (heat bath), with one matrix product a layer of
couplings for all chains at all temperatures. In a dense model spins are visited one by one, and a
flip brings the fields of all others up to date.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from spinscape.spins.couplings import SpinModel
from spinscape.spins.kernels import settle_block, settle_one_by_one, streams

__all__ = ["PRECISIONS", "Chains", "DenseSweeps", "LayeredSweeps", "products_in", "sweeps_of"]

PRECISIONS = ("as given", "bfloat16")
REFRESH = 64
"""Sweeps after which fields that are kept up to date are computed anew."""


@dataclass
class Chains:
    """Configurations of many chains, layer by layer, and the random numbers that move them.

    Attributes
    ----------
    spins : list of Tensor
        ±1, one ``[chain, N_k]`` a layer (one for all of a dense model).
    fields : list of Tensor
        Local fields as last computed; of a layered model those of the odd layers are current.
    streams : uint32 array [chain, 4, 16] or torch.Generator
        On the CPU one set of streams a chain; on other devices one generator.
    sweeps : int
        Made so far.
    """

    spins: list[Tensor]
    fields: list[Tensor]
    streams: np.ndarray | torch.Generator
    sweeps: int = 0
    arrays: list[tuple[np.ndarray, np.ndarray]] = field(init=False)

    def __post_init__(self) -> None:
        """Fields and spins as arrays of the same memory, which the compiled kernels take."""
        compiled = isinstance(self.streams, np.ndarray)
        pairs = zip(self.fields, self.spins, strict=True) if compiled else ()
        self.arrays = [(fields.numpy(), spins.numpy()) for fields, spins in pairs]

    def configurations(self) -> Float[Tensor, "chain N"]:
        """All spins, layer after layer."""
        return torch.cat(self.spins, dim=1)


class Sweeps:
    """What both kinds of sweep share: how chains begin."""

    def __init__(self, model: SpinModel) -> None:
        self.model = model
        self.places = model.places

    def begin(self, start: Float[Tensor, "chain N"], seed: np.random.SeedSequence) -> Chains:
        """Chains at given configurations, with streams of their own."""
        model = self.model
        given = start.to(model.device, model.dtype)
        spins = [given[:, place].clone() for place in self.places]
        random: np.ndarray | torch.Generator
        if _on_cpu(model):
            random = streams(seed, len(given))
        else:
            random = torch.Generator(model.device).manual_seed(
                int(seed.generate_state(1, np.uint64)[0] >> 1)
            )
        return Chains(spins, [torch.empty_like(s) for s in spins], random)


class LayeredSweeps(Sweeps):
    """Two-colour block heat bath."""

    def __init__(self, model: SpinModel) -> None:
        super().__init__(model)
        self._layers = model.layers
        self._last = len(model.widths) - 1
        self._external = [None if model.fields is None else model.fields[p] for p in self.places]

    def begin(self, start: Float[Tensor, "chain N"], seed: np.random.SeedSequence) -> Chains:
        """Chains at given configurations; their energies are known at once."""
        chains = super().begin(start, seed)
        for k in range(1, self._last + 1, 2):
            self._field(chains, k)
        return chains

    def sweep(self, chains: Chains, beta: Float[Tensor, "chain"]) -> None:
        """Draw all even layers, then all odd ones."""
        doubled = (2 * beta).to(self.model.device, self.model.dtype)
        array = doubled.numpy() if isinstance(chains.streams, np.ndarray) else None
        for colour in (0, 1):
            for k in range(colour, self._last + 1, 2):
                self._field(chains, k)
                if isinstance(chains.streams, np.ndarray):
                    settle_block(chains.arrays[k][0], array, chains.arrays[k][1], chains.streams)
                else:
                    pull = doubled[:, None] * chains.fields[k]
                    chains.spins[k].copy_(_signs(pull + _noise(pull, chains.streams)))
        chains.sweeps += 1

    def energy(self, chains: Chains) -> Float[Tensor, "chain"]:
        """Total energies: all bonds end in an odd layer, whose fields are current."""
        total = torch.zeros(len(chains.spins[0]), dtype=torch.float64, device=self.model.device)
        for k, external in enumerate(self._external):
            if k % 2:
                total -= (chains.spins[k] * chains.fields[k]).sum(1).double()
            elif external is not None:
                total -= (chains.spins[k] @ external).double()
        return total

    def _field(self, chains: Chains, k: int) -> None:
        spins, out = chains.spins, chains.fields[k]
        if k > 0:
            torch.mm(spins[k - 1], self._layers[k - 1], out=out)
        if k < self._last and k > 0:
            torch.addmm(out, spins[k + 1], self._layers[k].mT, out=out)
        elif k < self._last:
            torch.mm(spins[1], self._layers[0].mT, out=out)
        external = self._external[k]
        if external is not None:
            out += external


class DenseSweeps(Sweeps):
    """Single-spin heat bath in the order of the spins, fields kept up to date."""

    def __init__(self, model: SpinModel) -> None:
        super().__init__(model)
        assert model.matrix is not None
        self._matrix = model.matrix.contiguous()
        self._external = model.fields

    def begin(self, start: Float[Tensor, "chain N"], seed: np.random.SeedSequence) -> Chains:
        """Chains at given configurations, with their fields."""
        chains = super().begin(start, seed)
        self._refresh(chains)
        return chains

    def sweep(self, chains: Chains, beta: Float[Tensor, "chain"]) -> None:
        """Draw every spin once."""
        doubled = (2 * beta).to(self.model.device, self.model.dtype)
        spins, fields = chains.spins[0], chains.fields[0]
        if isinstance(chains.streams, np.ndarray):
            settle_one_by_one(
                self._matrix.numpy(), fields.numpy(), doubled.numpy(), spins.numpy(), chains.streams
            )
        else:
            self._sweep_elsewhere(spins, fields, doubled, chains.streams)
        chains.sweeps += 1
        if chains.sweeps % REFRESH == 0:
            self._refresh(chains)

    def energy(self, chains: Chains) -> Float[Tensor, "chain"]:
        """Total energies from the fields."""
        spins, fields = chains.spins[0], chains.fields[0]
        if self._external is None:
            return -(spins * fields).sum(1).double() / 2
        return -(spins * (fields + self._external)).sum(1).double() / 2

    def _refresh(self, chains: Chains) -> None:
        torch.mm(chains.spins[0], self._matrix, out=chains.fields[0])
        if self._external is not None:
            chains.fields[0] += self._external

    def _sweep_elsewhere(
        self, spins: Tensor, fields: Tensor, doubled: Tensor, generator: torch.Generator
    ) -> None:
        """The same on a device without compiled kernels: a rank-one update a spin."""
        noise = _noise(spins, generator)
        for i in range(self.model.n):
            drawn = _signs(doubled * fields[:, i] + noise[:, i])
            change = drawn - spins[:, i]
            spins[:, i] = drawn
            fields.addr_(change, self._matrix[i])


def sweeps_of(model: SpinModel) -> LayeredSweeps | DenseSweeps:
    """The sweep that fits a model."""
    return LayeredSweeps(model) if model.matrix is None else DenseSweeps(model)


@contextmanager
def products_in(precision: str) -> Iterator[None]:
    """Let float32 products run in bfloat16 with float32 sums.

    That is exact for ±1 and couplings that are bfloat16 numbers. The setting of the process is put
    back.
    """
    before = torch.get_float32_matmul_precision()
    try:
        if precision == "bfloat16":
            torch.set_float32_matmul_precision("medium")
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _noise(like: Tensor, generator: torch.Generator) -> Tensor:
    """Logistic numbers of a device's own generator."""
    uniform = torch.rand(like.shape, generator=generator, device=like.device, dtype=torch.float64)
    return torch.logit(uniform.clamp(min=1e-15)).to(like.dtype)


def _signs(pull: Tensor) -> Tensor:
    return torch.where(pull > 0, 1.0, -1.0).to(pull.dtype)


def _on_cpu(model: SpinModel) -> bool:
    return model.device.type == "cpu" and model.dtype in (torch.float32, torch.float64)
