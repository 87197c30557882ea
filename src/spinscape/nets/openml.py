"""Tables of OpenML by name, through scikit-learn: the only thing here that uses the network."""

from typing import Any
from urllib.error import URLError

import numpy as np
from sklearn.datasets import fetch_openml

__all__ = ["fetch"]

HELP = "expected openml:NAME, openml:NAME:VERSION or openml:ID"


def fetch(address: str) -> tuple[np.ndarray, np.ndarray]:
    """Fetch a table of numbers with its classes, or read it from scikit-learn's cache.

    Whole numbers from 0 to 255 throughout are taken for grey values and come as ``uint8``; the
    columns of any other table are standardised (mean 0, standard deviation 1 over all rows), and
    constant ones left out, for they come in any unit.

    Parameters
    ----------
    address : str
        ``NAME`` (its active version), ``NAME:VERSION``, or the number of a data set.

    Returns
    -------
    x : array [sample, feature]
    y : array [sample]
        Classes 0 .. C − 1 in the order of their sorted names.

    Raises
    ------
    ValueError
        If there is no such table, it holds gaps, or its target is no class.
    OSError
        If the network cannot be reached.
    """
    table = _table(address)
    x, y = np.asarray(table.data), table.target
    try:
        x = x.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"openml:{address}: holds columns that are no numbers ({error})"
        ) from error
    gaps = int((~np.isfinite(x)).any(axis=1).sum())
    if gaps:
        raise ValueError(f"openml:{address}: {gaps} rows have gaps; clean it and pass arrays x, y")
    if y is None or np.asarray(y).ndim != 1 or np.asarray(y).dtype.kind == "f":
        raise ValueError(f"openml:{address}: its target is no class; classification is needed")
    _, labels = np.unique(np.asarray(y).astype(str), return_inverse=True)
    return _scaled(x), labels


def _table(address: str) -> Any:
    name, _, version = address.partition(":")
    known: dict[str, Any] = {"data_id": int(name)} if name.isdecimal() else {"name": name}
    if version:
        known["version"] = int(version) if version.isdecimal() else version
    if not name or (version and (not version.isdecimal() or name.isdecimal())):
        raise ValueError(f"openml:{address}: {HELP}")
    try:
        return fetch_openml(**known, as_frame=False)
    except URLError as error:
        reason = getattr(error, "reason", error)
        if getattr(error, "code", None) in (404, 412):
            raise ValueError(f"openml:{address}: no such data set ({reason})") from error
        raise OSError(f"openml:{address}: OpenML cannot be reached ({reason})") from error
    except ValueError as error:
        told = " ".join(str(error).split())
        raise ValueError(f"openml:{address}: cannot be used ({told})") from error


def _scaled(x: np.ndarray) -> np.ndarray:
    if x.min() >= 0 and x.max() == 255 and bool((x == np.round(x)).all()):
        return x.astype(np.uint8)
    spread = x.std(axis=0)
    moving = spread > 0
    return (x[:, moving] - x[:, moving].mean(axis=0)) / spread[moving]
