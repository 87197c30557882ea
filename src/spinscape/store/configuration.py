"""Configurations of runs: what TOML can hold, and in what two of them differ."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from datetime import date, time
from pathlib import PurePath
from typing import Any

import numpy as np
import tomli_w

__all__ = ["differences", "plain"]

MISSING = object()


def plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration as it comes back from a TOML file.

    Tuples become lists, paths strings, NumPy numbers Python numbers.

    Raises
    ------
    ValueError
        A value of None, which TOML cannot hold.
    TypeError
        A key that is no string, or a value of another type that TOML cannot hold.
    """
    return tomllib.loads(tomli_w.dumps(_plain(config, "config")))


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Say key by key in what two configurations differ: "width is 16 there, 32 here"."""
    old, new = dict(_flat(there)), dict(_flat(here))
    return [
        f"{key} is {_shown(old.get(key, MISSING))} there, {_shown(new.get(key, MISSING))} here"
        for key in old | new
        if not _same(old.get(key, MISSING), new.get(key, MISSING))
    ]


def _plain(value: Any, key: str) -> Any:
    match value:
        case Mapping():
            for name in value:
                if not isinstance(name, str):
                    raise TypeError(f"{key} has the key {name!r}; keys must be strings")
            return {name: _plain(inner, f"{key}.{name}") for name, inner in value.items()}
        case list() | tuple() | range():
            return [_plain(inner, f"{key}[{place}]") for place, inner in enumerate(value)]
        case np.generic():
            return _plain(value.item(), key)
        case PurePath():
            return str(value)
        case bool() | int() | float() | str() | date() | time():
            return value
        case None:
            raise ValueError(f"{key} is None, which TOML cannot hold; leave the key out")
    raise TypeError(
        f"{key} is a {type(value).__name__}, which TOML cannot hold; use numbers, strings, bools, "
        "lists or times"
    )


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _same(old: Any, new: Any) -> bool:
    # NaN differs from itself, and True equals 1, but not as settings.
    kinds_agree = isinstance(old, bool) == isinstance(new, bool)
    return (old == new and kinds_agree) or repr(old) == repr(new)


def _shown(value: Any) -> str:
    return "not set" if value is MISSING else repr(value)
