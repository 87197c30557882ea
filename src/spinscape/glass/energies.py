"""What a walk, a path or a slice is taken over: anything with an energy."""

from collections.abc import Callable
from typing import Protocol, TypeAlias, runtime_checkable

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from spinscape.nets.weightspace import points as points_of

__all__ = ["Energy", "EnergyLike", "batch_of", "energies_along", "energy_function"]


@runtime_checkable
class Energy(Protocol):
    """Anything that turns points into energies: a `Landscape`, a spin model, a test function."""

    def energy(self, points: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
        """Energy of every point, in units of the temperature (a network's: nats per sample)."""


EnergyLike: TypeAlias = Energy | Callable[[Tensor], Tensor]


def energy_function(energy: EnergyLike) -> Callable[[Tensor], Tensor]:
    """Return the energy as a function that checks the shape of what it returns.

    Parameters
    ----------
    energy : Energy or callable
        An object with ``.energy(points)`` or ``.loss(points)``, or a function of points
        ``[..., n]``.

    Raises
    ------
    TypeError
        If it is neither; when called, if it returns something else than a tensor.
    ValueError
        When called, if it does not return one number a point.
    """
    name = type(energy).__name__
    call = getattr(energy, "energy", None) or getattr(energy, "loss", None) or energy
    if not callable(call):
        raise TypeError(
            f"energy: expected an object with .energy(points) or a function of points, got {name}"
        )

    def checked(points: Tensor) -> Tensor:
        with torch.no_grad():
            values = call(points)
        if not isinstance(values, Tensor):
            raise TypeError(f"energy: {name} returned {type(values).__name__}, expected a Tensor")
        if values.shape != points.shape[:-1]:
            raise ValueError(
                f"energy: {name} returned shape {tuple(values.shape)} for points of shape "
                f"{tuple(points.shape)}; expected one number a point, {tuple(points.shape[:-1])}"
            )
        return values

    return checked


def energies_along(
    energy: EnergyLike,
    origins: Float[Tensor, "line n"],
    directions: Float[Tensor, "line n"],
    lam: Float[Tensor, "lam"],
) -> tuple[Float[Tensor, "line lam"], Float[Tensor, "line lam"] | None]:
    """Energy, and error where there is one, at ``origins + lam · directions``.

    An energy with a method ``lines`` is asked for all lines at once (a `Landscape` evaluates a
    first layer only twice a line); any other is given one batch of points for each value of `lam`.
    """
    lines = getattr(energy, "lines", None)
    if lines is not None:
        return lines(origins, directions, lam)
    call = energy_function(energy)
    return torch.stack([call(origins + at * directions) for at in lam], dim=-1), None


def batch_of(
    points: "Float[Tensor, '*batch n'] | xr.DataArray | xr.Dataset", name: str = "points"
) -> Float[Tensor, "batch n"]:
    """Points as a batch ``[batch, n]``; a single point is a batch of one.

    Raises
    ------
    ValueError
        If there are no points, some are not finite, or there is more than one leading axis.
    """
    batch = torch.atleast_2d(points_of(points)).detach()
    if batch.ndim != 2 or not batch.numel():
        raise ValueError(
            f"{name}: expected points [n] or [batch, n], got shape {tuple(batch.shape)}; "
            "flatten the leading axes"
        )
    bad = (~torch.isfinite(batch).all(1)).nonzero().flatten().tolist()
    if bad:
        raise ValueError(f"{name}: {bad[:8]} are not finite; leave diverged networks out, visibly")
    if not batch.is_floating_point():
        raise ValueError(f"{name}: expected floating points, got {batch.dtype}")
    return batch
