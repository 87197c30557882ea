"""Arguments that several functions of this room take, checked at the boundary."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from spinscape.spins.couplings import SpinModel

__all__ = ["check_model", "check_whole", "temperatures_of"]


def check_model(model: object) -> None:
    """Refuse what is no spin model.

    Raises
    ------
    TypeError
        If it is something else.
    """
    if not isinstance(model, SpinModel):
        raise TypeError(
            f"model: expected a SpinModel, got {type(model).__name__}; "
            "SpinModel.from_module(module) reads a network"
        )


def check_whole(least: int = 1, **numbers: int | None) -> None:
    """Refuse numbers that are not whole, or below the least; None passes.

    Raises
    ------
    ValueError
        If one is; the message names it.
    """
    for name, number in numbers.items():
        if number is None:
            continue
        if isinstance(number, bool) or not isinstance(number, int) or number < least:
            raise ValueError(f"{name}={number!r}: expected a whole number, {least} or more")


def temperatures_of(
    temperatures: ArrayLike | Sequence[float], *, ordered: bool = False
) -> Float[np.ndarray, "temperature"]:
    """Positive temperatures as an array.

    Raises
    ------
    ValueError
        If there is none, one is not positive and finite, or, if `ordered`, they neither rise nor
        fall throughout.
    """
    heats = np.atleast_1d(np.asarray(temperatures, dtype=float))
    bad = heats[~((heats > 0) & np.isfinite(heats))]
    if heats.ndim != 1 or not len(heats) or len(bad):
        told = f"got {bad[0]}" if len(bad) else f"got shape {heats.shape}"
        raise ValueError(f"temperatures: expected positive numbers, {told}")
    moved = np.diff(heats)
    if ordered and not ((moved > 0).all() or (moved < 0).all()):
        raise ValueError(
            f"temperatures={heats.tolist()}: expected in rising or falling order, each once"
        )
    return heats
