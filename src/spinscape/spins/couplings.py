"""`SpinModel`: Ising spins coupled layer by layer, as the weights of a network, or all to all.

H = −½ Σ_ij J_ij σ_i σ_j − Σ_i h_i σ_i with σ_i = ±1 and k_B = 1. A network's neurons, inputs and
outputs included, are the spins, and its weights the couplings (arXiv 2408.06421): layers 0..L of
widths N_0..N_L, H = −Σ_k Σ_ij J^(k)_ij σ_i^(k−1) σ_j^(k), with J^(k) the transpose of
``nn.Linear.weight``. Nothing is rescaled, so that temperatures are in units of the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from scipy.sparse.linalg import LinearOperator
from torch import Tensor, nn

from spinscape.spins import ensembles, networks

__all__ = ["SpinModel"]

DENSE_SPINS = 20_000
"""Most spins whose N × N bond matrix is made on demand: 3.2 GB in float64."""


class SpinModel:
    """Ising spins with couplings between neighbouring layers, or between all pairs.

    A model has no temperature: that is an argument of what is asked of it.

    Parameters
    ----------
    layers : sequence of Tensor
        J^(k) of shape [N_{k−1}, N_k], k = 1..L, all of one floating dtype and device.
    fields : Tensor, optional
        External fields [N], layer after layer (a network's biases, for instance).

    Attributes
    ----------
    layers : tuple of Tensor
        As given; empty for a model made by `from_matrix`.
    matrix : Tensor or None
        The N × N couplings of a model made by `from_matrix`.
    widths : tuple of int
        Spins of each layer; of a dense model, (N,).

    Raises
    ------
    TypeError, ValueError
        If couplings or fields are no finite floating tensors, or neighbouring layers do not fit;
        the message names the layer.

    Examples
    --------
    >>> model = SpinModel.layered([30, 20, 10], C=1.0, seed=0)
    >>> model.n, model.energy(torch.ones(5, 60)).shape
    (60, torch.Size([5]))
    """

    def __init__(self, layers: Sequence[Tensor], *, fields: Tensor | None = None) -> None:
        self.layers = _checked_layers(layers)
        self.matrix: Tensor | None = None
        self.widths = (
            self.layers[0].shape[0],
            *(int(coupling.shape[1]) for coupling in self.layers),
        )
        self.fields = self._checked_fields(fields)

    @classmethod
    def from_matrix(cls, matrix: Tensor, *, fields: Tensor | None = None) -> SpinModel:
        """Couple all pairs: a symmetric N × N matrix with zero diagonal.

        Raises
        ------
        TypeError, ValueError
            If the matrix is not square, finite, symmetric and zero on its diagonal.
        """
        _check_coupling(matrix, "matrix")
        if matrix.shape[0] != matrix.shape[1]:
            raise ValueError(f"matrix: expected N × N, got shape {tuple(matrix.shape)}")
        scale = float(matrix.abs().max())
        if float((matrix - matrix.mT).abs().max()) > 1e-6 * scale:
            raise ValueError("matrix: not symmetric; pass (J + J.T) / 2")
        if float(matrix.diagonal().abs().max()) > 1e-6 * scale:
            raise ValueError("matrix: a spin is coupled to itself; set the diagonal to zero")
        model = cls.__new__(cls)
        model.layers, model.matrix, model.widths = (), matrix.detach(), (len(matrix),)
        model.fields = model._checked_fields(fields)
        return model

    @classmethod
    def sk(
        cls, n: int, seed: int = 0, J0: float = 0.0, *, dtype: torch.dtype = torch.float32
    ) -> SpinModel:
        """Sherrington-Kirkpatrick: couplings of all pairs from N(J0/n, 1/n); T_c = 1 at J0 ≤ 1."""
        return cls.from_matrix(ensembles.sk(n, seed, J0).to(dtype))

    @classmethod
    def mattis(cls, n: int, seed: int = 0, *, dtype: torch.dtype = torch.float32) -> SpinModel:
        """Mattis ferromagnet: J_ij = ξ_i ξ_j / n with random signs ξ; ordered below T = 1."""
        return cls.from_matrix(ensembles.mattis(n, seed).to(dtype))

    @classmethod
    def layered(
        cls,
        widths: Sequence[int],
        C: float | Sequence[float] = 1.0,
        seed: int = 0,
        spike: float | Sequence[float] = 0.0,
        *,
        dtype: torch.dtype = torch.float32,
    ) -> SpinModel:
        """Layered Sherrington-Kirkpatrick model, with or without a planted order.

        Parameters
        ----------
        widths : sequence of int
            N_0..N_L.
        C : float or one per layer of couplings
            J^(k)_ij ~ N(0, C_k / N_{k−1}); 1/3 is PyTorch's default initialisation, 2 is He's.
        seed : int
            Of couplings and directions.
        spike : float or one per layer of couplings
            θ_k of the order θ_k u_{k−1} u_kᵀ that is added, along random unit vectors u_k that
            neighbouring layers of couplings share.
        dtype : torch.dtype
            Of the couplings.
        """
        return cls([layer.to(dtype) for layer in ensembles.layered(widths, C, seed, spike)])

    @classmethod
    def bipartite(
        cls, first: int, second: int, C: float = 1.0, seed: int = 0, spike: float = 0.0
    ) -> SpinModel:
        """Two layers: couplings from N(0, C / first)."""
        return cls.layered([first, second], C, seed, spike)

    @classmethod
    def from_module(cls, module: nn.Module, *, biases: bool = False) -> SpinModel:
        """Read the couplings of a network of linear layers.

        Activations, Flatten and Dropout are skipped.

        Parameters
        ----------
        module : nn.Module
            Linear layers applied one after another.
        biases : bool
            Take biases for external fields; arXiv 2408.06421 leaves them out.

        Raises
        ------
        TypeError
            If it has a convolution, a normalisation or attention, which is named, or its layers
            cannot be followed.
        ValueError
            If a weight is not finite.
        """
        weights, fields = networks.of_module(module, biases=biases)
        return cls([weight.mT for weight in weights], fields=fields)

    @classmethod
    def from_point(
        cls, module: nn.Module, point: Tensor | xr.DataArray, *, biases: bool = False
    ) -> SpinModel:
        """Read the couplings of a network at a point ``[n]`` of its weight space."""
        weights, fields = networks.of_point(module, point, biases=biases)
        return cls([weight.mT for weight in weights], fields=fields)

    @classmethod
    def from_checkpoint(cls, path: str | Path, module: nn.Module | None = None) -> SpinModel:
        """Read the couplings of a checkpoint; without a module, of its weight matrices in order.

        Raises
        ------
        ValueError
            If the file cannot be read, holds no weight matrix, one of another kind of layer, or
            matrices that do not follow one another.
        """
        weights = networks.of_checkpoint(Path(path), module)
        return cls([weight.mT for weight in weights])

    def __repr__(self) -> str:
        kind = "dense" if self.matrix is not None else "layered"
        return f"SpinModel({kind}, widths={'-'.join(map(str, self.widths))})"

    @property
    def n(self) -> int:
        """Number of spins."""
        return sum(self.widths)

    @property
    def couplings(self) -> tuple[Tensor, ...]:
        """The layers, or the one matrix of a dense model."""
        return self.layers if self.matrix is None else (self.matrix,)

    @property
    def dtype(self) -> torch.dtype:
        """Of the couplings."""
        return self.couplings[0].dtype

    @property
    def device(self) -> torch.device:
        """Of the couplings."""
        return self.couplings[0].device

    @property
    def places(self) -> tuple[slice, ...]:
        """Where each layer's spins stand in a configuration."""
        ends = np.cumsum((0, *self.widths))
        return tuple(slice(int(a), int(b)) for a, b in pairwise(ends))

    @cached_property
    def squares(self) -> SpinModel:
        """The model whose couplings are the squares of these, without fields."""
        return self._mapped(torch.square, fields=False)

    def to(
        self, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> SpinModel:
        """The same model in another precision or place."""
        return self._mapped(lambda tensor: tensor.to(device=device, dtype=dtype))

    def permuted(self, seed: int) -> SpinModel:
        """The null of a network: entries permuted at random within each layer, no fields."""
        if self.matrix is not None:
            return SpinModel.from_matrix(ensembles.permuted_pairs(self.matrix, seed))
        return SpinModel(ensembles.permuted(self.layers, seed))

    def product(self, x: Float[Tensor, "*batch N"]) -> Float[Tensor, "*batch N"]:
        """J x of a batch of vectors, layer by layer."""
        if self.matrix is not None:
            return x @ self.matrix
        parts = x.split(self.widths, dim=-1)
        result = torch.zeros_like(x)
        for k, (coupling, before, after) in enumerate(
            zip(self.layers, self.places[:-1], self.places[1:], strict=True)
        ):
            result[..., after] += parts[k] @ coupling
            result[..., before] += parts[k + 1] @ coupling.mT
        return result

    def local_fields(self, spins: Float[Tensor, "*batch N"]) -> Float[Tensor, "*batch N"]:
        """Σ_j J_ij σ_j + h_i of every spin."""
        configurations = self._checked_spins(spins)
        found = self.product(configurations)
        return found if self.fields is None else found + self.fields

    def energy(self, spins: Float[Tensor, "*batch N"]) -> Float[Tensor, "*batch"]:
        """Total energy H of every configuration; a configuration is any N real numbers.

        Raises
        ------
        TypeError, ValueError
            If `spins` is no tensor whose last axis has one entry a spin.
        """
        configurations = self._checked_spins(spins)
        bonds = -(configurations * self.product(configurations)).sum(-1) / 2
        return bonds if self.fields is None else bonds - configurations @ self.fields

    def configurations(self) -> Float[Tensor, "states N"]:
        """All 2^N configurations of a model of at most 20 spins.

        Raises
        ------
        ValueError
            If there are more.
        """
        if self.n > 20:
            raise ValueError(f"{self!r} has {self.n} spins: only 20 or fewer are enumerated")
        bits = torch.arange(2**self.n)[:, None] >> torch.arange(self.n)
        return (2 * (bits & 1) - 1).to(self.device, self.dtype)

    def bond_matrix(self) -> LinearOperator:
        """The symmetric N × N matrix of all couplings as an operator, in float64 on the host.

        The layers stay as they are: a product costs two operations a weight. Multiply it with an
        identity matrix, or ask `dense_bonds`, for the matrix itself.
        """
        host = self.to(torch.float64, "cpu")

        def product(x: np.ndarray) -> np.ndarray:
            return host.product(torch.from_numpy(np.ascontiguousarray(x.T, float))).numpy().T

        makes: Any = LinearOperator
        every = dict.fromkeys(("matvec", "rmatvec", "matmat", "rmatmat"), product)
        return makes((self.n, self.n), dtype=float, **every)

    def dense_bonds(self) -> Float[Tensor, "N N"]:
        """The same as a tensor of N² numbers.

        Raises
        ------
        ValueError
            If there are more than 20,000 spins.
        """
        if self.n > DENSE_SPINS:
            raise ValueError(
                f"{self!r} has {self.n:,} spins: a dense bond matrix of more than "
                f"{DENSE_SPINS:,} is refused; use bond_matrix()"
            )
        if self.matrix is not None:
            return self.matrix.clone()
        bonds = torch.zeros(self.n, self.n, dtype=self.dtype, device=self.device)
        for coupling, before, after in zip(
            self.layers, self.places[:-1], self.places[1:], strict=True
        ):
            bonds[before, after] = coupling
            bonds[after, before] = coupling.mT
        return bonds

    def _mapped(self, call: Callable[[Tensor], Tensor], *, fields: bool = True) -> SpinModel:
        model = SpinModel.__new__(SpinModel)
        model.layers = tuple(call(layer) for layer in self.layers)
        model.matrix = None if self.matrix is None else call(self.matrix)
        model.widths = self.widths
        model.fields = call(self.fields) if fields and self.fields is not None else None
        return model

    def _checked_fields(self, fields: Tensor | None) -> Tensor | None:
        if fields is None:
            return None
        if not isinstance(fields, Tensor) or fields.shape != (self.n,):
            given = tuple(fields.shape) if isinstance(fields, Tensor) else type(fields).__name__
            raise ValueError(f"fields: expected a tensor of {self.n} numbers, got {given}")
        if not bool(torch.isfinite(fields).all()):
            raise ValueError("fields: not all finite; leave a diverged network out")
        return fields.detach().to(self.device, self.dtype)

    def _checked_spins(self, spins: Tensor) -> Tensor:
        if not isinstance(spins, Tensor):
            raise TypeError(f"spins: expected a tensor [..., N], got {type(spins).__name__}")
        if spins.ndim == 0 or spins.shape[-1] != self.n:
            raise ValueError(
                f"spins: expected configurations of {self.n} spins on the last axis, got shape "
                f"{tuple(spins.shape)}"
            )
        if spins.device != self.device:
            raise ValueError(f"spins: on {spins.device}, the couplings on {self.device}")
        return spins.to(self.dtype)


def _checked_layers(layers: Sequence[Tensor]) -> tuple[Tensor, ...]:
    if isinstance(layers, Tensor) or not len(layers):
        raise ValueError(
            "layers: expected a list of at least one coupling matrix [N_{k-1}, N_k]; a dense "
            "matrix goes to SpinModel.from_matrix"
        )
    for k, layer in enumerate(layers):
        _check_coupling(layer, f"layers[{k}]")
    first = layers[0]
    for k in range(1, len(layers)):
        if layers[k].shape[0] != layers[k - 1].shape[1]:
            raise ValueError(
                f"layers[{k}]: of shape {tuple(layers[k].shape)}, but layers[{k - 1}] ends with "
                f"{layers[k - 1].shape[1]} spins; couplings are [N_{{k-1}}, N_k]"
            )
        if layers[k].dtype != first.dtype or layers[k].device != first.device:
            raise ValueError(
                f"layers[{k}]: {layers[k].dtype} on {layers[k].device}, but layers[0] is "
                f"{first.dtype} on {first.device}; use one for all"
            )
    return tuple(layer.detach() for layer in layers)


def _check_coupling(coupling: Tensor, name: str) -> None:
    if not isinstance(coupling, Tensor) or not coupling.is_floating_point():
        kind = coupling.dtype if isinstance(coupling, Tensor) else type(coupling).__name__
        raise TypeError(f"{name}: expected a floating tensor, got {kind}")
    if coupling.ndim != 2 or not coupling.numel():
        raise ValueError(f"{name}: expected a matrix, got shape {tuple(coupling.shape)}")
    bad = int((~torch.isfinite(coupling)).sum())
    if bad:
        raise ValueError(
            f"{name}: {bad} of {coupling.numel():,} couplings are not finite; leave a diverged "
            "network out"
        )
