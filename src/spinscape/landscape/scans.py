"""Lines and planes as Datasets: axes in units of the direction, with what reproduces them."""

import json
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from spinscape.nets.losses import Loss
from spinscape.origins import versions

__all__ = ["coordinates", "scan_dataset"]


def coordinates(values: Any, name: str, device: torch.device) -> Tensor:
    """Return positions along an axis in double precision; 51 from −1 to 1 if none are given.

    Raises
    ------
    ValueError
        If they are not a list of finite numbers.
    """
    if values is None:
        return torch.arange(-25, 26, dtype=torch.float64, device=device) / 25  # 0 is exact
    found = torch.as_tensor(values, dtype=torch.float64, device=device)
    if found.ndim != 1 or not len(found) or not torch.isfinite(found).all():
        raise ValueError(f"{name}: expected a list of finite numbers, got {values!r}")
    return found


def scan_dataset(
    protocol: str,
    axes: dict[str, Tensor],
    directions: Tensor,
    loss: Tensor,
    error: Tensor,
    criterion: Loss,
    arguments: dict[str, Any],
) -> xr.Dataset:
    """Return the Dataset of a line or a plane.

    Parameters
    ----------
    protocol
        Its name.
    axes
        Coordinates by name, in units of the directions.
    directions : [k, n]
        One for each axis.
    loss, error : [*axes]
        An error that is not a number anywhere is left out: the targets are no class labels.
    criterion, arguments
        What was measured, and how.
    """
    found = {
        "loss": (f"{criterion.name} loss", criterion.units, loss),
        "error": ("error rate", "1", error),
    }
    if bool(torch.isnan(error).all()):
        del found["error"]
    result = xr.Dataset(
        {
            name: (tuple(axes), _host(values), {"long_name": long_name, "units": unit})
            for name, (long_name, unit, values) in found.items()
        },
        coords={name: (name, _host(values)) for name, values in axes.items()},
    )
    for name, direction in zip(axes, directions, strict=True):
        result[name].attrs.update(
            long_name=f"displacement along direction {name}",
            units="direction lengths",
            direction_length=float(torch.linalg.vector_norm(direction.double())),
        )
    result.attrs.update(
        protocol=protocol,
        arguments=json.dumps(arguments),
        versions=versions(),
        source="losses at points of an affine subspace of weight space",
    )
    return result


def _host(values: Tensor) -> np.ndarray:
    return values.detach().cpu().numpy()
