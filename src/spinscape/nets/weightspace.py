"""A module's parameters as points: flat vectors whose last axis has length `n`."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["WeightSpace", "points"]


class WeightSpace:
    """The weight space of a module: names, shapes and places of its parameters in a point.

    The order is that of ``module.named_parameters()``; tied weights appear once; buffers are not
    part of a point. The module itself is never changed, except by :meth:`load`.

    Parameters
    ----------
    module : nn.Module
        Any module with at least one parameter, all of one floating dtype.

    Attributes
    ----------
    names, shapes, offsets : tuple
        One entry a parameter.
    n : int
        Length of a point.
    dtype : torch.dtype
        Of the module's parameters.
    groups : dict of str to LongTensor
        Indices of each parameter, and of each submodule that owns parameters, by name.
    filters : tuple of LongTensor
        Indices of the incoming weights of each output unit (a row of a linear layer, a filter of a
        convolution), for every parameter with two or more axes.

    Raises
    ------
    ValueError
        If the module has no parameters, lazy ones, or parameters of several dtypes or of one that
        arrays cannot hold (bfloat16).

    Examples
    --------
    >>> space = WeightSpace(torch.nn.Linear(3, 2))
    >>> space.n, space.names
    (8, ('weight', 'bias'))
    """

    def __init__(self, module: nn.Module) -> None:
        parameters = dict(module.named_parameters())
        if not parameters:
            raise ValueError(f"module {type(module).__name__!r} has no parameters to walk among")
        for name, parameter in parameters.items():
            if isinstance(parameter, nn.parameter.UninitializedParameter):
                raise ValueError(
                    f"module: parameter {name!r} is lazy; pass one sample through the module first"
                )
        dtypes = {parameter.dtype for parameter in parameters.values()}
        if len(dtypes) > 1 or not next(iter(dtypes)).is_floating_point:
            raise ValueError(
                f"module: parameters must share one floating dtype, got {sorted(map(str, dtypes))};"
                " convert it with module.to(dtype)"
            )
        self.kind = type(module).__name__
        self.dtype = dtypes.pop()
        if not _is_storable(self.dtype):
            raise ValueError(
                f"module {self.kind!r}: parameters are {self.dtype}, which stored points cannot "
                "hold; convert it with module.float()"
            )
        self.names = tuple(parameters)
        self.shapes = tuple(tuple(parameter.shape) for parameter in parameters.values())
        sizes = [parameter.numel() for parameter in parameters.values()]
        self.offsets = tuple(sum(sizes[:i]) for i in range(len(sizes)))
        self.n = sum(sizes)
        self._sizes = tuple(sizes)
        self._aliases = _aliases(module)
        self._buffers = {name for name, _ in module.named_buffers(remove_duplicate=False)}

    def __repr__(self) -> str:
        return f"WeightSpace({self.kind}, n={self.n}, parameters={len(self.names)})"

    @property
    def slices(self) -> dict[str, slice]:
        """The place of each parameter in a point."""
        return {
            name: slice(offset, offset + size)
            for name, offset, size in zip(self.names, self.offsets, self._sizes, strict=True)
        }

    @property
    def groups(self) -> dict[str, Tensor]:
        """Indices of each parameter and of each submodule that owns parameters, by name."""
        found: dict[str, list[Tensor]] = {}
        for name, place in self.slices.items():
            indices = torch.arange(place.start, place.stop)
            parts = name.split(".")
            for depth in range(1, len(parts) + 1):
                found.setdefault(".".join(parts[:depth]), []).append(indices)
        return {name: torch.cat(parts) for name, parts in found.items()}

    @property
    def filters(self) -> tuple[Tensor, ...]:
        """Indices of the incoming weights of each output unit of every matrix-like parameter."""
        found: list[Tensor] = []
        for place, shape in zip(self.slices.values(), self.shapes, strict=True):
            if len(shape) > 1:
                found += torch.arange(place.start, place.stop).reshape(shape[0], -1).unbind()
        return tuple(found)

    def point(self, module: nn.Module) -> Float[Tensor, "n"]:
        """Return the module's parameters as a new flat vector.

        Raises
        ------
        ValueError
            If the module's parameters differ in name or shape from this space's.
        """
        parameters = dict(module.named_parameters())
        self._refuse_others(parameters, type(module).__name__)
        return self._gather(parameters, type(module).__name__)

    def load(self, module: nn.Module, point: Float[Tensor, "n"]) -> None:
        """Write a point into a module, in place.

        Raises
        ------
        ValueError
            If the point has another length, or the module other parameters.
        """
        self.check(point, "point", ndim=1)
        parameters = dict(module.named_parameters())
        kind = type(module).__name__
        self._refuse_others(parameters, kind)
        self._compare({name: tuple(p.shape) for name, p in parameters.items()}, kind)
        with torch.no_grad():
            for name, value in self.unflatten(point).items():
                parameters[name].copy_(value)

    def unflatten(self, points: Float[Tensor, "*batch n"]) -> dict[str, Tensor]:
        """Views of the parameters in ``points``, each of shape ``[*batch, *shape]``; no copy."""
        self.check(points, "points")
        batch = points.shape[:-1]
        return {
            name: points[..., place].view((*batch, *shape))
            for (name, place), shape in zip(self.slices.items(), self.shapes, strict=True)
        }

    def flatten(self, parameters: Mapping[str, Tensor]) -> Float[Tensor, "*batch n"]:
        """Join parameters of shape ``[*batch, *shape]`` into points; inverse of `unflatten`.

        Raises
        ------
        ValueError
            If a parameter is missing or has another shape.
        """
        own = {
            name: tuple(parameters[name].shape[max(0, parameters[name].ndim - len(shape)) :])
            for name, shape in zip(self.names, self.shapes, strict=True)
            if name in parameters
        }
        self._compare(own, "parameters")
        pieces = []
        for name, shape in zip(self.names, self.shapes, strict=True):
            value = parameters[name]
            pieces.append(value.reshape(*value.shape[: value.ndim - len(shape)], -1))
        return torch.cat(pieces, dim=-1)

    def state_dict(self, point: Float[Tensor, "n"]) -> dict[str, Tensor]:
        """Return a point as a state dict of copies (parameters only; tied weights once)."""
        self.check(point, "point", ndim=1)
        return {name: value.clone() for name, value in self.unflatten(point).items()}

    def read(self, source: "str | Path | Mapping[str, Tensor]") -> Float[Tensor, "n"]:
        """Return the point of a checkpoint.

        Parameters
        ----------
        source : path or mapping
            A safetensors file, a state dict saved by ``torch.save`` (read with
            ``weights_only=True``: nothing is unpickled), or a state dict. One that lies within
            another mapping (``{"state_dict": …, "epoch": …}``) or whose names all carry one prefix
            (``module.``) is found there.

        Raises
        ------
        ValueError
            If the file is unreadable, a tensor is missing or has another shape or kind, or one is
            neither a parameter nor a buffer of the module.
        """
        if isinstance(source, Mapping):
            found, origin = source, "the state dict"
        else:
            found, origin = read_checkpoint(Path(source)), str(source)
        found = self._unwrapped(found)
        point = self._gather(found, origin)
        self._refuse_strays(found, origin)
        return point

    def check(self, points: Tensor, name: str = "points", ndim: int | None = None) -> None:
        """Refuse a tensor that is not a batch of points of this space.

        Raises
        ------
        TypeError
            If it is not a floating tensor.
        ValueError
            If its last axis is not `n`, or it has not `ndim` axes.
        """
        if not isinstance(points, Tensor) or not points.is_floating_point():
            kind = points.dtype if isinstance(points, Tensor) else type(points).__name__
            raise TypeError(f"{name}: expected a floating tensor, got {kind}; see spinscape.points")
        if points.ndim == 0 or points.shape[-1] != self.n:
            raise ValueError(
                f"{name}: expected points of length {self.n:,} (module {self.kind!r}), got "
                f"shape {tuple(points.shape)}; did you mean WeightSpace.point(module)?"
            )
        if ndim is not None and points.ndim != ndim:
            raise ValueError(f"{name}: expected {ndim} axes, got shape {tuple(points.shape)}")

    def _gather(self, tensors: Mapping[str, Any], origin: str) -> Tensor:
        tensors = self._untied(tensors, origin)
        for name in self.names:
            if name in tensors and not isinstance(tensors[name], Tensor):
                kind = type(tensors[name]).__name__
                raise ValueError(f"{origin}: {name!r} is {kind}, expected a tensor")
        found = {name: tuple(tensors[name].shape) for name in self.names if name in tensors}
        self._compare(found, origin)
        for name in self.names:
            if not tensors[name].is_floating_point():
                raise ValueError(f"{origin}: {name!r} is {tensors[name].dtype}, expected floats")
        pieces = [tensors[name].detach().reshape(-1).to(self.dtype) for name in self.names]
        return torch.cat(pieces)

    def _unwrapped(self, tensors: Mapping[str, Any]) -> Mapping[str, Any]:
        """Find the one mapping in which all parameters are named, whatever it is wrapped in."""
        nested = [value for value in tensors.values() if isinstance(value, Mapping)]
        found = []
        for mapping in (tensors, *nested):
            keys = [key for key in mapping if isinstance(key, str)]
            for prefix in {
                key[: -len(self.names[0])] for key in keys if key.endswith(self.names[0])
            }:
                whole = prefix == "" or prefix.endswith(".")  # layer 10 is no prefix of layer 0
                if whole and all(prefix + name in mapping for name in self.names):
                    under = [key for key in keys if key.startswith(prefix)]
                    found.append({key.removeprefix(prefix): mapping[key] for key in under})
        return found[0] if len(found) == 1 else tensors

    def _untied(self, tensors: Mapping[str, Any], origin: str) -> dict[str, Any]:
        """Tensors under the first names of tied parameters, which must then agree."""
        found = {name: value for name, value in tensors.items() if name not in self._aliases}
        for name, kept in self._aliases.items():
            if name not in tensors:
                continue
            value = found.setdefault(kept, tensors[name])
            if value is not tensors[name] and not _same(value, tensors[name]):
                raise ValueError(
                    f"{origin}: {name!r} differs from {kept!r}, which are one parameter here"
                )
        return found

    def _refuse_others(self, parameters: Mapping[str, Any], origin: str) -> None:
        for name in parameters:
            if name not in self.names:
                raise ValueError(
                    f"{origin}: parameter {name!r} is not part of this space (module {self.kind!r})"
                )

    def _refuse_strays(self, tensors: Mapping[str, Any], origin: str) -> None:
        known = {*self.names, *self._aliases, *self._buffers}
        for name, value in tensors.items():
            if isinstance(value, Tensor) and name not in known:
                raise ValueError(
                    f"{origin}: tensor {name!r} of shape {tuple(value.shape)} is neither a "
                    f"parameter nor a buffer of module {self.kind!r}; pass the module that was "
                    "saved, or leave the tensor out of the file"
                )

    def _compare(self, shapes: Mapping[str, tuple[int, ...]], origin: str) -> None:
        for name, shape in zip(self.names, self.shapes, strict=True):
            if name not in shapes:
                raise ValueError(f"{origin}: parameter {name!r} of shape {shape} is missing")
            if shapes[name] != shape:
                raise ValueError(
                    f"{origin}: parameter {name!r} has shape {shapes[name]}, expected {shape}"
                )


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)


def _is_storable(dtype: torch.dtype) -> bool:
    try:
        torch.empty(0, dtype=dtype).numpy()
    except TypeError:  # numpy has no such type
        return False
    return True


def _aliases(module: nn.Module) -> dict[str, str]:
    """Map every other name of a tied parameter to its first name."""
    first: dict[int, str] = {}
    aliases = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        kept = first.setdefault(id(parameter), name)
        if kept != name:
            aliases[name] = kept
    return aliases


def read_checkpoint(path: Path) -> Mapping[str, Tensor]:
    """Return the state dict in a file, without unpickling anything.

    Raises
    ------
    ValueError
        If the file does not exist, is unreadable or holds something else than named tensors.
    """
    if not path.is_file():
        raise ValueError(f"checkpoint {path}: no such file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as reason:  # each reader raises its own kinds; all mean the same to a user
        raise ValueError(
            f"checkpoint {path}: cannot be read as weights ({_in_one_line(reason)})"
        ) from reason
    if not isinstance(loaded, Mapping):
        raise ValueError(f"checkpoint {path}: holds {type(loaded).__name__}, not a state dict")
    return loaded


def _in_one_line(reason: Exception) -> str:
    """Say why a file could not be read, without what PyTorch adds on how to run its code."""
    told = str(reason)
    refused = re.search(r"Unsupported global: GLOBAL (\S+)", told)
    if refused:
        return (
            f"it holds a pickled module or other object, {refused[1]}, which is never run: save "
            "model.state_dict() instead"
        )
    _, _, inner = told.rpartition("WeightsUnpickler error:")
    return next(
        (line.strip() for line in inner.splitlines() if line.strip()), type(reason).__name__
    )


def points(
    data: "Tensor | xr.DataArray | xr.Dataset",
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Float[Tensor, "*batch n"]:
    """Turn stored points into a tensor with the point axis last.

    Parameters
    ----------
    data : Tensor, DataArray or Dataset
        A tensor is passed on; of a DataArray the dimension ``n`` becomes the last axis; of a
        Dataset the variable ``point`` is taken.
    device, dtype : optional
        Where and as what; by default as stored, on the CPU.

    Raises
    ------
    TypeError
        If `data` is something else.
    ValueError
        If a Dataset has no variable ``point``, or an array no dimension ``n``.
    """
    if isinstance(data, xr.Dataset):
        if "point" not in data:
            raise ValueError(f"data: a Dataset without 'point' (it has {sorted(map(str, data))})")
        data = data["point"]
    if isinstance(data, xr.DataArray):
        if "n" not in data.dims:
            raise ValueError(f"data: expected a dimension 'n', got {data.dims}")
        data = torch.from_numpy(data.transpose(..., "n").values.copy())
    if not isinstance(data, Tensor):
        raise TypeError(f"data: expected Tensor, DataArray or Dataset, got {type(data).__name__}")
    return data.to(device=device, dtype=dtype)
