"""The user's own code by name: `module:function` or `path/to/file.py:function`.

Running it is the user's explicit act: nothing is imported but the module that was named.
"""

import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["call", "find", "is_spelled_like_code"]


def is_spelled_like_code(source: str) -> bool:
    """Whether `source` reads `module:function` or `file.py:function`."""
    place, _, name = source.rpartition(":")
    dotted = all(part.isidentifier() for part in place.split("."))
    return name.isidentifier() and (dotted or place.endswith(".py"))


def find(source: str) -> Callable[..., Any]:
    """Import the function that `source` names.

    Parameters
    ----------
    source : str
        `module:function`, with modules of the current folder found too (it joins `sys.path`, at
        its end, and stays there: worker processes import the same module), or
        `path/to/file.py:function`.

    Returns
    -------
    callable
        The function, not called.

    Raises
    ------
    ValueError
        No such module, file or function, or importing it failed.
    """
    if not is_spelled_like_code(source):
        raise ValueError(f"{source!r} is not of the form module:function or file.py:function")
    place, _, name = source.rpartition(":")
    try:
        module = _run_file(Path(place)) if place.endswith(".py") else _import(place)
    except Exception as error:
        raise ValueError(f"{source}: importing {place} failed: {_told(error)}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise ValueError(f"{source}: {place} has no function {name!r}")
    return function


def call(source: str, *, seed: int) -> Any:
    """Call the function that `source` names, with `seed` if it takes one.

    Parameters
    ----------
    source : str
        As for `find`.
    seed : int
        Passed by keyword to a function with a parameter of that name.

    Returns
    -------
    object
        Whatever the function returns.

    Raises
    ------
    ValueError
        As for `find`; or the function wants other arguments; or it raised.
    """
    function = find(source)
    parameters = inspect.signature(function).parameters
    given = {"seed": seed} if "seed" in parameters else {}
    try:
        inspect.signature(function).bind(**given)
    except TypeError as error:
        raise ValueError(
            f"{source}: it is called with no arguments, or with seed alone, but has a "
            f"{error}; give its parameters defaults"
        ) from error
    try:
        return function(**given)
    except Exception as error:
        raise ValueError(f"{source}: calling it raised {_told(error)}") from error


def _import(name: str) -> ModuleType:
    # Last on the path: a file here called random.py must not stand in for the standard library's.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    importlib.invalidate_caches()
    return importlib.import_module(name)


def _run_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    spec = importlib.util.spec_from_file_location(f"_usercode_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot import {path}")
    module = importlib.util.module_from_spec(spec)
    # Known by name while it runs, as dataclasses need; unknown after, so that its classes reach
    # worker processes by value: these could not import it.
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[spec.name]
    return module


def _told(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
