"""The weight matrices of a network: from a module, from a point, or from a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import torch
import xarray as xr
from torch import Tensor, nn

from spinscape.nets.chains import NotAChain, read_chain
from spinscape.nets.weightspace import WeightSpace, read_checkpoint
from spinscape.nets.weightspace import points as points_of

__all__ = ["of_checkpoint", "of_module", "of_point"]

OTHERS = {
    "in_proj_weight": "attention",
    "running_mean": "a normalisation layer",
    "weight_ih_l0": "a recurrent layer",
}
SIZES = {1: "a normalisation layer or a diagonal", 3: "a convolution", 4: "a convolution"}


def of_module(module: nn.Module, *, biases: bool) -> tuple[list[Tensor], Tensor | None]:
    """Weights [out, in] of the linear layers, and biases as fields if asked for."""
    linear = _linear_layers(module)
    weights = [layer.weight.detach().clone() for layer in linear]
    own = [None if layer.bias is None else layer.bias.detach() for layer in linear]
    return weights, _fields(weights, own) if biases else None


def of_point(
    module: nn.Module, point: Tensor | xr.DataArray, *, biases: bool
) -> tuple[list[Tensor], Tensor | None]:
    """The same at a point of the module's weight space."""
    linear = _linear_layers(module)
    space = WeightSpace(module)
    where = points_of(point)
    space.check(where, "point", ndim=1)
    values = space.unflatten(where)
    name = {id(parameter): key for key, parameter in module.named_parameters()}
    weights = [values[name[id(layer.weight)]] for layer in linear]
    own = [None if layer.bias is None else values[name[id(layer.bias)]] for layer in linear]
    return weights, _fields(weights, own) if biases else None


def of_checkpoint(path: Path, module: nn.Module | None) -> list[Tensor]:
    """The weights in a file: those of a module's layers, or all matrices in their order."""
    if module is not None:
        return of_point(module, WeightSpace(module).read(path), biases=False)[0]
    found = _matrices(_unwrapped(read_checkpoint(path)), path)
    for (before, first), (after, second) in pairwise(found):
        if second.shape[1] != first.shape[0]:
            raise ValueError(
                f"checkpoint {path}: {after!r} takes {second.shape[1]} inputs, but {before!r} has "
                f"{first.shape[0]} units; pass the module that was saved"
            )
    return [weight for _, weight in found]


def _linear_layers(module: nn.Module) -> list[nn.Linear]:
    if not isinstance(module, nn.Module):
        raise TypeError(f"module: expected an nn.Module, got {type(module).__name__}")
    for name, part in module.named_modules():
        kind = _foreign(part)
        if kind:
            raise TypeError(
                f"module: layer {name or 'module'!r} is {kind} ({type(part).__name__}); a spin "
                "model is made of linear layers, activations, Flatten and Dropout"
            )
    try:
        chain = read_chain(module)
    except NotAChain as error:
        raise TypeError(f"module: {error}; a spin model needs a chain of linear layers") from None
    linear = [layer for _, layer in chain if isinstance(layer, nn.Linear)]
    if not linear:
        raise TypeError("module: no linear layer, so that there are no couplings")
    return linear


def _foreign(part: nn.Module) -> str:
    kind = type(part).__name__
    if isinstance(part, nn.modules.conv._ConvNd):
        return "a convolution"
    if "Norm" in kind:
        return "a normalisation"
    if isinstance(part, nn.MultiheadAttention | nn.Transformer) or "Attention" in kind:
        return "attention"
    return ""


def _fields(weights: list[Tensor], biases: Sequence[Tensor | None]) -> Tensor:
    inputs = weights[0].new_zeros(weights[0].shape[1])
    rest = [w.new_zeros(len(w)) if b is None else b for w, b in zip(weights, biases, strict=True)]
    return torch.cat([inputs, *rest])


def _unwrapped(found: Mapping[str, object]) -> Mapping[str, object]:
    """The mapping of tensors within others: ``{"state_dict": …, "epoch": …}``."""
    inner = [value for value in found.values() if isinstance(value, Mapping)]
    has_tensors = any(isinstance(value, Tensor) for value in found.values())
    return inner[0] if len(inner) == 1 and not has_tensors else found


def _matrices(found: Mapping[str, object], path: Path) -> list[tuple[str, Tensor]]:
    tensors = {key: value for key, value in found.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ValueError(f"checkpoint {path}: holds no tensors, so that there are no couplings")
    kept = []
    for name in sorted(tensors, key=_natural):
        value, last = tensors[name], name.rpartition(".")[2]
        kind = next((told for key, told in OTHERS.items() if last.startswith(key)), "")
        if not kind and last.startswith("weight") and value.ndim != 2:
            kind = SIZES.get(value.ndim, "no linear layer")
        if kind:
            raise ValueError(
                f"checkpoint {path}: {name!r} of shape {tuple(value.shape)} belongs to {kind}; "
                "a spin model is made of linear layers only"
            )
        if value.ndim == 2:
            if not value.is_floating_point():
                raise ValueError(f"checkpoint {path}: {name!r} is {value.dtype}, expected floats")
            kept.append((name, value.float() if value.dtype.itemsize < 4 else value))
    if not kept:
        raise ValueError(f"checkpoint {path}: holds no weight matrix, only {', '.join(tensors)}")
    return kept


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key in which layer 10 comes after layer 9."""
    return [(int(p), "") if p.isdigit() else (-1, p) for p in re.split(r"(\d+)", name)]
