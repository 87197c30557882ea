"""The quadratic law: how fast the energy of a free walk rises if the landscape is its own bowl.

What exceeds it is the ruggedness of a free walk.
"""

from typing import Any

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from spinscape.glass.energies import batch_of
from spinscape.glass.walking.moves import Move, generators
from spinscape.records import labelled, provenance

__all__ = ["excess", "quadratic_law"]


def quadratic_law(
    landscape: Any,
    points: "Float[Tensor, '*point n'] | xr.DataArray | xr.Dataset",
    *,
    move: Move,
    probes: int = 32,
    seed: int = 0,
) -> xr.Dataset:
    """Rise of the energy per step of a free walk that the curvature at its start foretells.

    Steps of standard deviations S raise the energy of a quadratic form by ½ tr(S H S) each on
    average, whatever the gradient. The trace is Hutchinson's (1990): the mean over random signs z
    of (Sz)·H(Sz), which is unbiased; its standard error comes from the spread over `probes`.

    Parameters
    ----------
    landscape
        Anything with ``hvp(points, vectors)``.
    points : Tensor, DataArray or Dataset
        Points ``[point, n]`` or ``[n]``.
    move : Move
        Whose steps; its ``init`` gives S.
    probes : int
        Random vectors a point, at least 2.
    seed : int
        Point k's probes depend on the seed and k alone.

    Returns
    -------
    Dataset
        ``rise`` and its standard error ``rise_se`` (nats a step), ``trace`` and ``trace_se``
        (2·rise/step²: of H itself for isotropic steps), all over ``point``.

    Raises
    ------
    TypeError
        If there is no ``hvp``, or it is not the curvature of the energy, as where normalisation
        layers are re-estimated.
    ValueError
        If there are fewer than 2 probes.
    """
    if not callable(getattr(landscape, "hvp", None)):
        raise TypeError(
            f"landscape: {type(landscape).__name__} has no hvp; the law needs curvature"
        )
    if getattr(landscape, "reestimates", False):
        raise TypeError(
            "landscape: its statistics of normalisation layers are re-estimated at every point, "
            "which hvp holds fixed: two different functions; use statistics='frozen'"
        )
    if probes < 2:
        raise ValueError(f"probes={probes}: expected 2 or more, for a standard error")
    start = batch_of(points)
    scale, drawn = move.init(start), []
    streams = generators(seed, len(start))
    for _ in range(probes):
        vectors = scale * _signs(start, streams)
        drawn.append((vectors * landscape.hvp(start, vectors)).sum(-1).double())
    forms = torch.stack(drawn)
    rise, error = forms.mean(0) / 2, forms.std(0) / 2 / probes**0.5
    unit = 2 / move.step**2
    result = xr.Dataset()
    result["rise"] = labelled("point", rise, "rise of the energy per free step", "nats")
    result["rise_se"] = labelled("point", error, "its standard error", "nats")
    result["trace"] = labelled("point", unit * rise, "trace of the curvature", "nats")
    result["trace_se"] = labelled("point", unit * error, "its standard error", "nats")
    result.attrs.update(
        provenance("quadratic_law", "Hutchinson 1990", seed, probes=probes, step=move.step)
    )
    return result


def excess(walk: xr.Dataset) -> xr.DataArray:
    """What the energy of a free walk rises above the quadratic law, ``[walker, step]``.

    Parameters
    ----------
    walk : Dataset
        Of ``walk(…, probes=…)``; rises count from its first recorded step.

    Raises
    ------
    ValueError
        If the walk has no ``quadratic_law``, or is not free (the law is of free steps).
    """
    if "quadratic_law" not in walk:
        raise ValueError("walk: it has no quadratic_law; give walk(…, probes=16)")
    if {"temperature", "threshold"} & set(walk.variables):
        raise ValueError("walk: the quadratic law is that of free steps; give a free walk")
    law, energy = walk["quadratic_law"], walk["energy"]
    rise = (energy - energy.isel(step=0)) - (law - law.isel(step=0))
    name = "rise of the energy above the quadratic law"
    found = rise.transpose("walker", "step").rename("excess")
    return found.assign_attrs(long_name=name, units="nats")


def _signs(like: Tensor, streams: list[torch.Generator]) -> Float[Tensor, "point n"]:
    drawn = [torch.randint(0, 2, like.shape[-1:], generator=stream) for stream in streams]
    return (2 * torch.stack(drawn) - 1).to(like)
