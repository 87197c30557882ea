"""A walk with what can be said of it: relaxation, autocorrelation, equilibrium."""

import json
from collections.abc import Callable
from functools import partial

import xarray as xr

from spinscape.glass.walking.ageing import relaxation
from spinscape.glass.walking.convergence import equilibrium
from spinscape.glass.walking.memory import autocorrelation

__all__ = ["diagnosed"]


def diagnosed(walk: xr.Dataset, *, level: float = 0.95, seed: int = 0) -> xr.Dataset:
    """Return the walk with its `relaxation`, `autocorrelation` and `equilibrium` beside it.

    Relaxation needs waiting times. Equilibrium is judged of walks with a temperature or threshold;
    the surrogates of the autocorrelation are those of free walks, and are left out of others.
    What the record is too short for is left out, with the reason in the attribute ``left_out``
    (JSON: the function's name and why).
    """
    free = not {"temperature", "threshold"} & set(walk.variables)
    wanted: dict[str, Callable[[], xr.Dataset]] = {
        "autocorrelation": partial(
            autocorrelation, walk, surrogates=199 if free else 0, level=level, seed=seed
        )
    }
    if "two_time" in walk:
        wanted["relaxation"] = partial(relaxation, walk, level=level, seed=seed)
    if not free:
        wanted["equilibrium"] = partial(equilibrium, walk)
    found, left_out = walk, {}
    for name, make in wanted.items():
        try:
            found = found.merge(make(), combine_attrs="override")
        except ValueError as reason:
            left_out[name] = str(reason)
    return found.assign_attrs(walk.attrs | {"level": level, "left_out": json.dumps(left_out)})
