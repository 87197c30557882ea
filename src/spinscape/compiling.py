"""Kernels compiled by numba, kept on disk where there is a place to keep them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numba

__all__ = ["compiled"]


def compiled(function: Callable[..., Any]) -> Any:
    """Compile without the interpreter's lock."""
    kernel = partial(numba.njit, nogil=True, error_model="numpy", fastmath={"contract", "nsz"})
    try:
        return kernel(cache=True)(function)
    except RuntimeError:  # no folder can be written: compiled again in every process
        return kernel()(function)
