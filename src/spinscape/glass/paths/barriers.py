"""The straight line between two points: how the energy runs along it, how high it rises."""

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from spinscape.glass.energies import EnergyLike, batch_of, energies_along
from spinscape.landscape.paths import BARRIERS, path_barrier
from spinscape.nets.weightspace import points as points_of
from spinscape.records import labelled, provenance

__all__ = ["along", "barrier", "positions"]

SOURCE = "permutation-interpolation, a protocol of arXiv 2407.20724; method ours"


def barrier(
    landscape: EnergyLike,
    a: "Float[Tensor, '*pair n'] | xr.DataArray | xr.Dataset",
    b: "Float[Tensor, '*pair n'] | xr.DataArray | xr.Dataset",
    *,
    definition: str = "line",
    resolution: int = 51,
) -> xr.Dataset:
    """Loss along the straight line from a to b, and how high it rises.

    Parameters
    ----------
    landscape : Landscape, Energy or callable
        Whose energy is taken; a `Landscape` gives the error rate, too.
    a, b : [n] or [pair, n]
        Ends of the path, or of many paths at once.
    definition : {"line", "mean"}
        Height above the straight line between the ends' losses, or above their mean
        (`landscape.paths.path_barrier`).
    resolution : int
        Points on each path, ends included.

    Returns
    -------
    Dataset
        ``loss``, ``error`` [lam] or [pair, lam], ``barrier``, ``distance`` = ‖b − a‖.

    Raises
    ------
    ValueError
        If the definition is unknown, the resolution is below 3, or a and b differ in shape.
    """
    if definition not in BARRIERS:
        raise ValueError(f"definition={definition!r}: expected 'line' or 'mean'")
    lam = positions(resolution)
    first, second = batch_of(a, "a"), batch_of(b, "b")
    if first.shape != second.shape or first.device != second.device:
        raise ValueError(
            f"a is {tuple(first.shape)} on {first.device}, b is {tuple(second.shape)} on "
            f"{second.device}: expected as many points of one length on one device"
        )
    loss, error, distance = along(landscape, first, second, lam)
    result = xr.Dataset(coords={"lam": ("lam", lam.numpy(), {"long_name": "position on the path"})})
    result["loss"] = labelled(("pair", "lam"), loss, "loss", "nats")
    if not bool(error.isnan().all()):
        result["error"] = labelled(("pair", "lam"), error, "error rate")
    height = path_barrier(loss, definition=definition)
    result["barrier"] = labelled("pair", height, f"barrier above the {definition}", "nats")
    result["distance"] = labelled("pair", distance, "distance of the ends")
    arguments = {"definition": definition, "resolution": resolution}
    result.attrs.update(provenance("barrier", SOURCE, 0, **arguments))
    return result.isel(pair=0) if points_of(a).ndim == 1 else result


def positions(resolution: int) -> Float[Tensor, "lam"]:
    """Equally spaced positions on a path, ends included; ValueError for fewer than three."""
    if resolution < 3:
        raise ValueError(f"resolution={resolution}: expected 3 or more points on a path")
    return torch.linspace(0, 1, resolution, dtype=torch.float64)


def along(
    energy: EnergyLike,
    a: Float[Tensor, "path n"],
    b: Float[Tensor, "path n"],
    lam: Float[Tensor, "lam"],
) -> tuple[Float[Tensor, "path lam"], Float[Tensor, "path lam"], Float[Tensor, "path"]]:
    """Loss, error (not a number where there is none) and length of straight paths."""
    direction = b - a
    loss, error = energies_along(energy, a, direction, lam.to(a.device))
    distance = torch.linalg.vector_norm(direction, dim=-1, dtype=torch.float64)
    return loss, torch.full_like(loss, torch.nan) if error is None else error, distance
