"""Tensors in checkpoint files, mapped into memory and checked before anything is read.

Nothing is run: safetensors are bytes behind a header, and what ``torch.save`` wrote is read with
``weights_only=True``. Values stay in the file until a part of a tensor is asked for.
"""

from __future__ import annotations

import json
import mmap
import re
import zipfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

__all__ = ["Stored", "stored_tensors"]

HEADER_BYTES = 100 * 10**6  # as the safetensors library bounds it
LEGACY_BYTES = 512 * 2**20  # of a file that cannot be mapped, and is read whole

_DTYPES: dict[str, torch.dtype] = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "U16": torch.uint16,
    "I16": torch.int16,
    "U32": torch.uint32,
    "I32": torch.int32,
    "U64": torch.uint64,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
}
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and of torch.compile


@dataclass(frozen=True)
class Stored:
    """A tensor in a file.

    Attributes
    ----------
    shape, dtype
        Of the tensor.
    data : array of bytes
        Where its values are mapped.
    strides : tuple of int, optional
        How many entries of `data` lie between neighbours along each axis, if they do not simply
        follow each other.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    data: UInt8[np.ndarray, "byte"]
    strides: tuple[int, ...] | None = None

    @property
    def size(self) -> int:
        """How many entries it has."""
        return prod(self.shape)

    def raw(self, start: int, stop: int) -> UInt8[np.ndarray, "byte"]:
        """Return the bytes of the entries from `start` to `stop`, in row-major order."""
        width = self.dtype.itemsize
        if self.strides is None:
            return self.data[start * width : stop * width]
        rest = np.arange(start, stop)
        places = np.zeros_like(rest)
        for length, stride in zip(self.shape[::-1], self.strides[::-1], strict=True):
            rest, along = np.divmod(rest, length)
            places += along * stride
        return self.data.view(f"V{width}")[places].view(np.uint8)


def stored_tensors(path: str | Path) -> dict[str, Stored]:
    """Find the tensors of a checkpoint, by name, without reading their values.

    Parameters
    ----------
    path : path
        A safetensors file; a folder of them or an index of them (``*.safetensors.index.json``);
        or a state dict saved by ``torch.save``, which may lie within another mapping
        (``{"state_dict": …, "epoch": …}``). A prefix that all names carry (``module.``) is cut.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, holds something else than tensors, or would have to be run.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"checkpoint {path}: no such file or folder")
    if path.is_dir():
        found = _of_folder(path)
    elif path.suffix == ".json":
        found = _of_index(path)
    elif path.stat().st_size == 0:
        _refuse(path, "is empty; copy or save it again")
    elif path.suffix == ".safetensors":
        found = _of_safetensors(path)
    else:
        found = _of_torch(path)
    if not found:
        _refuse(path, "holds no tensors")
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in found):
            found = {name.removeprefix(prefix): tensor for name, tensor in found.items()}
    return found


def _refuse(path: Path, why: str) -> NoReturn:
    raise ValueError(f"checkpoint {path}: {why}")


def _of_folder(folder: Path) -> dict[str, Stored]:
    indices = sorted(folder.glob("*.safetensors.index.json"))
    if len(indices) > 1:
        _refuse(folder, f"{len(indices)} indices ({indices[0].name}, …); pass the path of one")
    if indices:
        return _of_index(indices[0])
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        _refuse(folder, "a folder without *.safetensors; pass the path of the file")
    found: dict[str, Stored] = {}
    for file in files:
        part = _of_safetensors(file)
        twice = found.keys() & part.keys()
        if twice:
            _refuse(file, f"tensor {min(twice)!r} is in another file of the folder too; pass one")
        found |= part
    return found


def _of_index(path: Path) -> dict[str, Stored]:
    if path.stat().st_size > HEADER_BYTES:
        _refuse(path, f"an index of {path.stat().st_size:,} bytes; expected ≤ {HEADER_BYTES:,}")
    index = _parsed(path, path.read_bytes(), "the index")
    places = index.get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(v, str) for v in places.values()):
        _refuse(path, "the index has no 'weight_map' from names of tensors to names of files")
    found: dict[str, Stored] = {}
    for name in dict.fromkeys(places.values()):
        inside = PurePosixPath(name)
        if inside.is_absolute() or {"..", ""} & {*inside.parts} or "\\" in name or ":" in name:
            _refuse(path, f"the index names {name!r}, which lies outside its folder")
        shard = path.parent / name
        if not shard.is_file():
            _refuse(path, f"the index names {name!r}, and there is no such file beside it")
        part = _of_safetensors(shard)
        for tensor in (tensor for tensor, place in places.items() if place == name):
            if tensor not in part:
                _refuse(shard, f"tensor {tensor!r} is not in it, though {path.name} says so")
            found[tensor] = part[tensor]
    return found


def _of_safetensors(path: Path) -> dict[str, Stored]:
    size = path.stat().st_size
    if size < 8:
        _refuse(path, f"{size} bytes are no safetensors file; copy or save it again")
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(HEADER_BYTES, size - 8):
            _refuse(
                path,
                f"claims a header of {length:,} bytes in a file of {size:,}: truncated, or no "
                "safetensors file",
            )
        header = _parsed(path, file.read(length), "the header")
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if hasattr(mmap, "MADV_SEQUENTIAL"):
        mapped.madvise(mmap.MADV_SEQUENTIAL)
    data = np.frombuffer(mapped, dtype=np.uint8)[8 + length :]
    header.pop("__metadata__", None)
    found: dict[str, Stored] = {}
    taken: list[tuple[int, int, str]] = []
    for name, entry in header.items():
        dtype, shape, start, stop = _entry(path, name, entry)
        if stop > len(data):
            _refuse(
                path,
                f"tensor {name!r} ends at byte {stop:,} of {len(data):,}: truncated; copy it again",
            )
        found[name] = Stored(shape, dtype, data[start:stop])
        taken.append((start, stop, name))
    taken.sort()
    for (_, end, before), (start, _, name) in pairwise(taken):
        if start < end:
            _refuse(path, f"tensors {before!r} and {name!r} overlap in the file")
    return found


def _entry(path: Path, name: str, entry: Any) -> tuple[torch.dtype, tuple[int, ...], int, int]:
    """Check what a header says of one tensor: its type, shape and place."""
    fields: dict[str, Any] = entry if isinstance(entry, dict) else {}
    dtype, shape, place = (fields.get(key, "") for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        _refuse(path, f"tensor {name!r} is of type {dtype!r}; known are {', '.join(_DTYPES)}")
    if not _naturals(shape) or not _naturals(place) or len(place) != 2 or place[0] > place[1]:
        _refuse(path, f"tensor {name!r} has shape {shape} at bytes {place}; expected sizes ≥ 0")
    start, stop = place
    needed = prod(shape) * _DTYPES[dtype].itemsize
    if stop - start != needed:
        _refuse(
            path,
            f"tensor {name!r}, {dtype} of shape {tuple(shape)}, takes {needed:,} bytes, and has "
            f"{stop - start:,}",
        )
    return _DTYPES[dtype], tuple(shape), start, stop


def _naturals(values: Any) -> bool:
    return isinstance(values, list) and all(type(v) is int and 0 <= v < 2**63 for v in values)


def _parsed(path: Path, text: bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as reason:
        told = str(reason).splitlines()[0]
        raise ValueError(
            f"checkpoint {path}: {what} is no JSON that can be read ({told})"
        ) from None
    if not isinstance(found, dict):
        _refuse(path, f"{what} is no JSON object of names")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        [(name, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{name!r} is named twice")
    return found


def _of_torch(path: Path) -> dict[str, Stored]:
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"
    size = path.stat().st_size
    if not zipped and size > LEGACY_BYTES:
        _refuse(
            path,
            f"{size:,} bytes in torch.save's old format, which can only be read whole; save it "
            "again with torch.save of today, or as safetensors",
        )
    try:
        if zipped and any(entry.compress_type for entry in zipfile.ZipFile(path).infolist()):
            raise ValueError("it is compressed, which torch.save never does")
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as reason:  # each reader raises its own kinds; all mean the same to a user
        raise ValueError(
            f"checkpoint {path}: cannot be read as weights ({_in_one_line(reason)})"
        ) from None
    if not isinstance(loaded, Mapping):
        _refuse(path, f"holds {type(loaded).__name__}, not a state dict; save model.state_dict()")
    return {name: _of_tensor(path, name, value) for name, value in _unwrapped(path, loaded).items()}


def _in_one_line(reason: Exception) -> str:
    """Say why a file could not be read, without what PyTorch adds on how to run its code."""
    told = str(reason)
    refused = re.search(r"nsupported (?:global: )?GLOBAL (\S+)", told)
    if refused:
        return f"it holds {refused[1]}, which is never run: save model.state_dict() instead"
    lines = told.rpartition("WeightsUnpickler error:")[2].strip().splitlines()
    advice = not lines or lines[0].startswith("Weights only load failed")
    return type(reason).__name__ if advice else lines[0][:200]


def _unwrapped(path: Path, loaded: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Tensors of a mapping, or of the one within it that has any or is named as a wrapper."""
    nested = {str(key): tensors for key, value in loaded.items() if (tensors := _tensors(value))}
    chosen = [key for key in _WRAPPERS if key in nested]
    own = _tensors(loaded)
    if not chosen and (own or not nested):
        return own
    chosen = chosen or list(nested)
    if len(chosen) > 1:
        _refuse(path, f"state dicts under {', '.join(chosen)}; save the one meant alone")
    return nested[chosen[0]]


def _tensors(value: Any) -> dict[str, Tensor]:
    pairs = value.items() if isinstance(value, Mapping) else ()
    return {key: v for key, v in pairs if isinstance(key, str) and isinstance(v, Tensor)}


def _of_tensor(path: Path, name: str, tensor: Tensor) -> Stored:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        _refuse(path, f"tensor {name!r} is sparse, quantised or without values; save it dense")
    if tensor.dtype.is_floating_point and tensor.dtype not in _DTYPES.values():
        _refuse(path, f"tensor {name!r} is {tensor.dtype}, which is not known; save it as another")
    shape, strides = tuple(tensor.shape), None
    flat = tensor.detach()
    if not flat.is_contiguous():
        strides = flat.stride()
        reach = 1 + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
        flat = flat.as_strided((reach,), (1,))
    return Stored(shape, tensor.dtype, flat.reshape(-1).view(torch.uint8).numpy(), strides)
