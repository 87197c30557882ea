"""Mining: directions and planes on which a network's loss has a wanted shape.

A mined shape is evidence that it exists, not that it is typical: networks that are deep and wide
contain every smooth pattern of few dimensions (Czarnecki and others 2019, arXiv 1912.07559). What
is mined is therefore judged on held-out data, failures are counted, and each direction's overlap
with ordinary ones stands beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from spinscape.landscape.energy import Landscape
from spinscape.nets.weightspace import points as points_of
from spinscape.records import labelled, provenance
from spinscape.statistics import share
from spinscape.valleys.curves import LAM, scan
from spinscape.valleys.directions import gaussian, hessian_eigenvectors, members, sign
from spinscape.valleys.planes import surface_labels
from spinscape.valleys.profiles import PROFILES, Profile, profile_of
from spinscape.valleys.prospecting import Mined, MinerSettings, prospect
from spinscape.valleys.surface_shapes import classify_surface

__all__ = ["mine", "references"]

REFERENCE = 2**40
"""Seed of the noise that directions are compared with: not one that they start from."""

SOURCE = "curve types named after arXiv 2405.12493; objectives and miner ours"


def mine(
    landscape: Landscape,
    point: Float[Tensor, "n"],
    shape: str | Profile = "vvv-basin",
    *,
    seeds: int | Sequence[int] = 10,
    held_out: Landscape | None = None,
    group: str = "all",
    weight: float | None = None,
    cap: float | None = None,
    s: float = 1.0,
    steps: int = 600,
    learning_rate: float = 1e-2,
    patience: int = 250,
    eigenvectors: int = 3,
    side: int = 41,
) -> xr.Dataset:
    """Search directions, or planes, on which the loss around a point has a shape.

    All seeds are optimised as one batch, the point frozen: d is kept at ‖d‖ = s‖θ‖ (two of them
    orthogonal as well) by a retraction after each step of Adam. A seed on whose targets the loss
    stays flat for `patience` steps is given up and counts as a failure.

    Parameters
    ----------
    landscape : Landscape
        What is optimised.
    point : [n]
        θ.
    shape : str or Profile
        A curve type ("v-basin", "v-side", "w-basin", "w-peak", "vvv-basin"), a surface ("bowl",
        "saddle", "wine-bottle"), or a profile of your own (`profiles.Profile`,
        `profiles.picture`).
    seeds : int or sequence of int
        Of the directions at the start.
    held_out : Landscape, optional
        On whose data the verdict is made; without it, on the data mined, which ``attrs`` says.
    group : str
        Parameters that may move (`directions.members`).
    weight, cap : float, optional
        Of raised points, in place of the profile's.
    s : float
        Length of the directions in lengths of θ.
    steps, learning_rate, patience
        Of the optimisation.
    eigenvectors : int
        Top eigenvectors of the Hessian with which directions are compared; 0 saves the time.
    side : int
        Points a side of a plane, for surfaces.

    Returns
    -------
    Dataset
        For curves ``loss [seed, lam]`` (held out) and ``mined_loss``, ``slope``, ``curvature``,
        ``parabola``; for surfaces ``loss [seed, a, b]``. Always ``label``, ``confidence``,
        ``success``, ``collapsed``, ``steps`` [seed], ``objective [seed, step]``,
        ``direction [seed, axis, n]``, ``overlap [seed, axis, reference]`` (cosines) and
        ``overlap_null`` (the standard deviation of the cosine of a random direction, n^(−½)). In
        ``attrs`` the success rate with its 95 % interval (Wilson 1927).

    Raises
    ------
    ValueError
        If a setting is out of range, the shape or group unknown, the point not one of the
        landscape or not finite.
    """
    point = points_of(point).detach()
    landscape.space.check(point, "point", ndim=1)
    numbers = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    _check(point, numbers, s=s, steps=steps, learning_rate=learning_rate, patience=patience)
    profile = profile_of(shape, weight, cap)
    settings = MinerSettings(s, steps, learning_rate, patience=patience)
    allowed = None if group == "all" else members(landscape.module, group).to(point.device)
    found = prospect(landscape, point, profile, settings, numbers, allowed)
    judged = landscape if held_out is None else held_out
    judge = _judged_curves if profile.axes == 1 else _judged_planes
    result = judge(landscape, judged, point, found.frames, profile, side)
    result = result.assign_coords(seed=("seed", numbers)).assign(_records(found))
    names, vectors = references(landscape, point, eigenvectors)
    cosines = _cosines(found.frames, vectors)
    result = result.assign(
        overlap=labelled(("seed", "axis", "reference"), cosines, "cosine with the reference"),
        overlap_null=labelled((), landscape.n**-0.5, "standard deviation of a random cosine"),
    ).assign_coords(reference=("reference", names))
    success = result["label"].values == profile.name
    if profile.name not in PROFILES:
        success = result["apart"].values
    success = success & ~result["collapsed"].values
    result["success"] = labelled("seed", success, "whether the shape was found")
    arguments: dict[str, Any] = {
        "shape": profile.name,
        "group": group,
        "weight": profile.weight,
        "cap": profile.cap,
        **{name: getattr(settings, name) for name in ("s", "steps", "learning_rate", "patience")},
        "flat": settings.flat,
        "samples": len(landscape.x),
        "held_out_samples": 0 if held_out is None else len(held_out.x),
    }
    return result.assign_attrs(
        {
            **provenance("mine", SOURCE, numbers[0], **arguments),
            **_rate(success),
            "shape": profile.name,
        }
    )


def references(
    landscape: Landscape, point: Float[Tensor, "n"], eigenvectors: int = 3
) -> tuple[list[str], Float[Tensor, "reference n"]]:
    """Return unit directions that a mined one may be compared with, and their names."""
    vectors = {
        "noise": gaussian(point, [REFERENCE])[0],
        "gradient": landscape.gradient(point),
        "sign": sign(point),
        "point": point,
    }
    if eigenvectors:
        rows = hessian_eigenvectors(landscape, point, top=eigenvectors, bottom=1)
        for k, row in enumerate(rows):
            vectors["lowest" if k == eigenvectors else f"Hessian {k + 1}"] = row
    units = [v / torch.linalg.vector_norm(v).clamp(min=1e-30) for v in vectors.values()]
    return list(vectors), torch.stack(units)


def _judged_curves(
    landscape: Landscape,
    judged: Landscape,
    point: Tensor,
    frames: Float[Tensor, "seed axis n"],
    profile: Profile,
    side: int,
) -> xr.Dataset:
    """Dense curves of the mined directions, labelled on the data that judges."""
    directions = frames[:, 0]
    result = scan(judged, point, directions).rename(direction="seed").drop_vars("length")
    result["loss"].attrs["long_name"] = "loss of held-out data"
    origins = point.expand(len(directions), -1)
    mined, _ = landscape.lines(origins, directions, torch.as_tensor(LAM))
    units = landscape.criterion.units
    result = result.assign(_apart(judged, point, frames, profile))
    return result.assign(
        mined_loss=labelled(("seed", "lam"), mined, "loss of the data mined", units),
        target=labelled("target", profile.coordinates[:, 0], "targets", "direction lengths"),
        raised=labelled("target", _raised(profile), "whether a target is raised"),
    )


def _judged_planes(
    landscape: Landscape,
    judged: Landscape,
    point: Tensor,
    frames: Float[Tensor, "seed axis n"],
    profile: Profile,
    side: int,
) -> xr.Dataset:
    """Dense planes of the mined frames, labelled on the data that judges."""
    extent = 1.25 * float(np.abs(profile.coordinates).max())
    axis = np.linspace(-extent, extent, side)
    planes = [judged.plane(point, frame[0], frame[1], axis, axis) for frame in frames]
    found = [classify_surface(axis, axis, plane["loss"].values) for plane in planes]
    loss = np.stack([plane["loss"].values for plane in planes])
    places = labelled(("target", "plane_axis"), profile.coordinates, "targets", "direction lengths")
    result = xr.Dataset(
        {
            "loss": labelled(
                ("seed", "a", "b"), loss, "loss of held-out data", landscape.criterion.units
            ),
            **surface_labels(found, "seed"),
            "target": places,
            "raised": labelled("target", _raised(profile), "whether a target is raised"),
        },
        {
            name: (name, axis, {"long_name": name, "units": "direction lengths"})
            for name in ("a", "b")
        },
    )
    return result.assign(_apart(judged, point, frames, profile))


def _raised(profile: Profile) -> np.ndarray:
    return np.arange(len(profile.coordinates)) >= len(profile.lower)


def _apart(
    judged: Landscape, point: Tensor, frames: Float[Tensor, "seed axis n"], profile: Profile
) -> dict[str, tuple]:
    """Held-out losses at the targets, and whether all raised lie above all lowered ones."""
    targets = torch.as_tensor(profile.coordinates).to(point)
    losses = judged.loss(point + torch.einsum("ta,san->stn", targets, frames))
    host = losses.cpu().numpy()
    low, high = host[:, : len(profile.lower)], host[:, len(profile.lower) :]
    split = np.ones(len(host), dtype=bool)
    if low.shape[1] and high.shape[1]:
        split = low.max(1) < high.min(1)
    return {
        "target_loss": labelled(("seed", "target"), host, "held-out loss at the targets"),
        "apart": labelled("seed", split, "whether raised targets lie above lowered ones"),
    }


def _records(found: Mined) -> dict[str, tuple]:
    return {
        "direction": labelled(("seed", "axis", "n"), found.frames, "mined direction", "weights"),
        "objective": labelled(("seed", "step"), found.objective, "objective"),
        "collapsed": labelled("seed", found.collapsed, "given up as flat"),
        "steps": labelled("seed", found.steps, "steps taken"),
        "start_overlap": labelled(
            ("seed", "axis"),
            torch.nn.functional.cosine_similarity(found.frames, found.start, dim=-1),
            "cosine with the direction at the start",
        ),
    }


def _cosines(
    frames: Float[Tensor, "seed axis n"], vectors: Float[Tensor, "reference n"]
) -> Float[Tensor, "seed axis reference"]:
    units = frames / torch.linalg.vector_norm(frames, dim=-1, keepdim=True)
    return units @ vectors.mT


def _rate(success: np.ndarray) -> dict[str, float]:
    found = share(success)
    return {
        "success_rate": found.value,
        "success_low": found.low,
        "success_high": found.high,
        "level": found.level,
    }


def _check(point: Tensor, seeds: list[int], **settings: float) -> None:
    if not bool(torch.isfinite(point).all()):
        raise ValueError("point: holds weights that are not finite")
    if not seeds:
        raise ValueError("seeds: expected at least one")
    for name, value in settings.items():
        if not value > 0:
            raise ValueError(f"{name}={value!r}: expected a number above 0")
