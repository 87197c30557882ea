"""One part on disk: a Dataset as a Zarr group, sealed by the checksums of its files.

Zarr reads a lost chunk as fill values in silence. A manifest names every file of a part with
its SHA-256, and every variable with its dimensions, shape and dtype, so that `opened` gives
back what `sealed` wrote, or says which file is not what it was.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Hashable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from spinscape.store.durable import RunError

__all__ = ["CorruptPart", "opened", "sealed", "storable"]

SCHEMA = 1
TEXT_KINDS = "OTU"
STORABLE_KINDS = "biufcMm" + TEXT_KINDS
# xarray takes an empty array of objects for numbers, unless told that it holds strings.
STORED_TEXT = np.dtype("O", metadata={"element_type": str})
VARIABLE_NAME = re.compile(r"(?!\.|__|zarr\.json$)[^/]+")


class CorruptPart(RunError):
    """A finished part that is no longer what was written."""


def storable(dataset: xr.Dataset) -> xr.Dataset:
    """Return the Dataset as it is stored: in memory, strings of any length, no encodings.

    Raises
    ------
    TypeError
        A variable that is no array of numbers, bools, strings or times.
    ValueError
        A variable whose name no Zarr array can bear.
    """
    plain = dataset.compute().drop_encoding()
    for name, variable in plain.variables.items():
        if not isinstance(name, str) or not VARIABLE_NAME.fullmatch(name):
            raise ValueError(f"variable {name!r} cannot be stored: rename it, without '/'")
        kind = variable.dtype.kind
        texts = kind != "O" or all(isinstance(value, str) for value in variable.values.flat)
        if kind not in STORABLE_KINDS or not texts:
            raise TypeError(
                f"variable {name!r} of dtype {variable.dtype} cannot be stored: use numbers, "
                "bools, strings or times"
            )
    return _rebuilt(plain, plain.variables, STORED_TEXT)


def sealed(dataset: xr.Dataset, root: Path, part: str) -> dict[str, Any]:
    """Write a storable Dataset as group `part` of a Zarr hierarchy, and return its manifest."""
    dataset.to_zarr(root, group=part, mode="w", consolidated=False, zarr_format=3)
    directory = root / part
    return {
        "schema": SCHEMA,
        "part": part,
        "spinscape": version("spinscape"),
        "variables": _described(dataset),
        "files": {
            name: {"sha256": _digest(directory / name), "bytes": (directory / name).stat().st_size}
            for name in _file_names(directory)
        },
    }


def opened(directory: Path, manifest: Path, part: str) -> xr.Dataset:
    """Read a part into memory after comparing each of its files with the manifest.

    Raises
    ------
    CorruptPart
        A file is missing, was changed or came in addition, or the manifest is damaged; the
        message names the part, the file and what to do.
    """
    try:
        record = json.loads(manifest.read_text(encoding="utf-8"))
        _check_header(record, part)
        _check_files(directory, record["files"])
        with xr.open_zarr(directory, consolidated=False, chunks=None) as stored:
            dataset = stored.load().drop_encoding()
        if _described(dataset) != record["variables"]:
            raise _Damage("its variables are not those that were written")
    except _Damage as damage:
        raise CorruptPart(_told(part, directory, manifest, damage)) from None
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        reason = f"cannot be read ({type(error).__name__}: {error})"
        raise CorruptPart(_told(part, directory, manifest, reason)) from error
    return _rebuilt(dataset, record["variables"], np.dtype(str))


class _Damage(Exception):
    """What is wrong with a part."""


def _told(part: str, directory: Path, manifest: Path, problem: object) -> str:
    return (
        f"part {part!r} in {directory} is damaged: {problem}; delete {manifest} and run the "
        "same command again, which computes this part alone anew"
    )


def _check_header(record: Mapping[str, Any], part: str) -> None:
    if record["schema"] > SCHEMA:
        raise _Damage(f"its format is that of a later spinscape ({record['spinscape']})")
    if record["part"] != part:
        raise _Damage(f"its manifest is that of part {record['part']!r}")


def _check_files(directory: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    present = _file_names(directory)
    for problem, names in (
        ("is missing", set(files) - set(present)),
        ("was not written by this run", set(present) - set(files)),
    ):
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise _Damage(f"{min(names)} {problem}{more}")
    for name, expected in files.items():
        path = directory / name
        if path.stat().st_size != expected["bytes"]:
            raise _Damage(f"{name} has {path.stat().st_size} bytes, not {expected['bytes']}")
        if _digest(path) != expected["sha256"]:
            raise _Damage(f"{name} has other contents than were written")


def _file_names(directory: Path) -> list[str]:
    return sorted(
        path.relative_to(directory).as_posix()
        for path in directory.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _described(dataset: xr.Dataset) -> dict[str, dict[str, Any]]:
    return {
        str(name): {
            "dimensions": [str(dimension) for dimension in variable.dims],
            "shape": list(variable.shape),
            "dtype": "string" if variable.dtype.kind in TEXT_KINDS else str(variable.dtype),
        }
        for name, variable in dataset.variables.items()
    }


def _rebuilt(dataset: xr.Dataset, order: Iterable[Hashable], text: np.dtype) -> xr.Dataset:
    """Return the Dataset with its variables in order and its strings as `text`."""
    variables = {name: _variable(dataset.variables[name], text) for name in order}
    return xr.Dataset(
        {name: found for name, found in variables.items() if name not in dataset.coords},
        coords={name: found for name, found in variables.items() if name in dataset.coords},
        attrs=dataset.attrs,
    )


def _variable(variable: xr.Variable, text: np.dtype) -> xr.Variable:
    if variable.dtype.kind not in TEXT_KINDS:
        return variable
    values: Any = np.asarray(variable.values.astype(object).astype(text))
    return xr.Variable(variable.dims, values, variable.attrs)
