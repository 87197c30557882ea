"""How protocols write down what they measured."""

import json
from typing import Any

import numpy as np
from torch import Tensor

from spinscape.origins import versions

__all__ = ["labelled", "provenance"]


def labelled(
    dims: str | tuple[str, ...], values: Any, long_name: str, units: str = "1"
) -> tuple[str | tuple[str, ...], np.ndarray, dict[str, str]]:
    """Return a variable as xarray takes it: dimensions, values on the host, name and units."""
    host = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    return dims, host, {"long_name": long_name, "units": units}


def provenance(protocol: str, source: str, seed: int, **arguments: Any) -> dict[str, Any]:
    """Return the attributes that reproduce a Dataset: arguments, seed, versions, source."""
    return {
        "protocol": protocol,
        "source": source,
        "seed": seed,
        "arguments": json.dumps(arguments),
        "versions": versions(),
    }
