"""What the pieces of the mining study compute, each from plain arguments."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from spinscape.landscape import curvature
from spinscape.landscape.energy import Landscape
from spinscape.records import labelled
from spinscape.store import Run
from spinscape.studies.valley_settings import MiningSettings
from spinscape.valleys import constructions
from spinscape.valleys.curves import scan
from spinscape.valleys.planes import surfaces

__all__ = ["built_curves", "built_surfaces", "curvature_at", "swept"]

WIDE = np.linspace(-2, 2, 81)
"""Window of curves built by hand: from a midpoint it ends half a distance beyond the solutions."""


def built_curves(landscape: Landscape, built: Sequence[constructions.Construction]) -> xr.Dataset:
    """Scan the curves of constructions, with the labels that they should get."""
    names = [each.label for each in built]
    points = torch.stack([each.point for each in built])
    directions = torch.cat([each.directions for each in built])
    found = scan(landscape, points, directions, WIDE, names=names)
    return found.assign(expected=labelled("direction", names, "curve type it should be"))


def built_surfaces(
    built: Sequence[tuple[Landscape, constructions.Construction]], side: int
) -> xr.Dataset:
    """Scan the planes of constructions, each on the landscape that judges it."""
    planes = []
    for landscape, each in built:
        extent = 2.5 if each.label == "wine-bottle" else 2.0
        plane = surfaces(
            landscape, each.point, each.directions, ["a", "b"], extent=extent, side=side
        )
        steps = np.linspace(-1, 1, side)
        plane = plane.assign_coords(a=steps, b=steps, extent=("pair", [extent]))
        planes.append(
            plane.assign_coords(first=("pair", [each.label]), second=("pair", ["by hand"]))
        )
    joined = xr.concat(planes, "pair", combine_attrs="override")
    names = [each.label for _, each in built]
    return joined.assign(expected=labelled("pair", names, "kind of surface it should be"))


def curvature_at(
    landscape: Landscape, point: Tensor, seed: int, probes: int, steps: int
) -> xr.Dataset:
    """Eigenvalues, trace and density at one point, and what they foretell along noise."""
    pairs = curvature.eigenpairs(landscape, point, top=10, bottom=3, seed=seed)
    moments = curvature.trace(landscape, point, probes=probes, seed=seed)
    spread = curvature.density(landscape, point, probes=min(probes, 16), steps=steps, seed=seed)
    norm = float(torch.linalg.vector_norm(point))
    foretold = curvature.predicted(moments, norm)
    return xr.merge([pairs.drop_vars("eigenvector"), moments, spread, foretold])


def swept(run: Run, settings: MiningSettings) -> xr.Dataset:
    """Success and collapse at each length and weight."""
    shape = (len(settings.sweep_s), len(settings.sweep_weights), settings.sweep_seeds)
    success, flat = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    for i, s in enumerate(settings.sweep_s):
        for j, weight in enumerate(settings.sweep_weights):
            mined = run.dataset(f"sweep_pieces/s={s:g},weight={weight:g}")
            success[i, j] = mined["success"].values
            flat[i, j] = mined["collapsed"].values | (mined["label"].values == "flat")
    dims = ("s", "weight", "seed")
    return xr.Dataset(
        {
            "success": labelled(dims, success, "whether a vvv-basin was found"),
            "flat": labelled(dims, flat, "given up as flat, or flat at the end"),
        },
        {"s": list(settings.sweep_s), "weight": list(settings.sweep_weights)},
        run.dataset(
            f"sweep_pieces/s={settings.sweep_s[0]:g},weight={settings.sweep_weights[0]:g}"
        ).attrs,
    )
