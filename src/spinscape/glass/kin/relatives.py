"""What clones remember of each other: distances, agreement and the paths between siblings.

Siblings that part late stay in one basin, where the straight path between them shows no barrier
(linear mode connectivity, Frankle et al., arXiv 1912.05671); those that part early may not.
Networks of different ancestors, treated alike, say what a barrier between strangers is.
"""

from itertools import combinations

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from spinscape.glass.energies import batch_of
from spinscape.glass.matching.alignment import align_pairs
from spinscape.glass.paths.barriers import along, positions
from spinscape.landscape.energy import Landscape
from spinscape.landscape.paths import path_barrier
from spinscape.nets import symmetry as symmetries
from spinscape.nets.chunks import pieces
from spinscape.nets.symmetry import Symmetry
from spinscape.nets.weightspace import points as points_of
from spinscape.records import labelled, provenance

__all__ = ["MEASURES", "between", "siblings"]

SOURCE = "linear mode connectivity: Frankle et al., arXiv 1912.05671, section 2"
BLOCK_ELEMENTS = 2**24

MEASURES = {
    "distance": ("distance", "1"),
    "aligned_distance": ("distance after alignment", "1"),
    "overlap": ("overlap", "1"),
    "barrier": ("barrier above the straight line", "nats"),
    "error_barrier": ("rise of the error above the ends' mean", "1"),
    "disagreement": ("fraction of samples classified differently", "1"),
}


def siblings(
    landscape: Landscape,
    clones: xr.Dataset,
    *,
    resolution: int = 11,
    seed: int = 0,
    symmetry: Symmetry | None = None,
) -> xr.Dataset:
    """Compare siblings at every waiting time, and children of different ancestors beside them.

    Parameters
    ----------
    landscape : Landscape
    clones : Dataset
        Of `clones.clone`, with ``point [waiting, ancestor, child, n]``.
    resolution : int
        Points on each path, ends included.
    seed : int
        Of the alignment of deeper networks.
    symmetry : Symmetry, optional
        For a module whose symmetry is not known; without one, distances after alignment are left
        out.

    Returns
    -------
    Dataset
        Over ``waiting, ancestor, pair`` (all pairs of siblings) ``distance``,
        ``aligned_distance``, ``overlap``, ``barrier`` of the loss above the straight line between
        the ends, and, where targets are labels, ``error_barrier`` (highest error on the path
        above the mean of the ends', as Frankle et al.) and ``disagreement``; the same of unrelated
        networks as ``unrelated_…`` over ``waiting, couple, child``, for every couple of ancestors
        their children of equal number. ``ancestors [couple, end]``.

    Raises
    ------
    ValueError
        If there are fewer than two children, or a clone diverged.
    """
    states = points_of(clones["point"].transpose("waiting", "ancestor", "child", "n"))
    times, ancestors, children = states.shape[:3]
    if children < 2:
        raise ValueError(f"clones: {children} child of each ancestor, expected two or more")
    flat = batch_of(states.flatten(0, 2), "clones").to(landscape.x.device)
    number = np.arange(len(flat)).reshape(times, ancestors, children)
    kin = np.array(list(combinations(range(children), 2)))
    couples = np.array(list(combinations(range(ancestors), 2)), dtype=int).reshape(-1, 2)
    related = number[:, :, kin]  # waiting, ancestor, pair, end
    strangers = np.stack([number[:, couples[:, end]] for end in (0, 1)], axis=-1)
    pairs = np.concatenate([related.reshape(-1, 2), strangers.reshape(-1, 2)])
    found = _known(landscape, symmetry)
    measured = between(landscape, flat, torch.from_numpy(pairs), resolution, found, seed)
    result = xr.Dataset(coords={name: clones[name] for name in ("waiting", "ancestor")})
    cut, dims = related.size // 2, ("waiting", "couple", "child")
    for name, values in measured.items():
        long_name, units = MEASURES[name]
        near, far = values[:cut].reshape(related.shape[:-1]), values[cut:]
        result[name] = labelled(("waiting", "ancestor", "pair"), near, long_name, units)
        far = far.reshape(strangers.shape[:-1])
        result[f"unrelated_{name}"] = labelled(dims, far, f"{long_name}, unrelated", units)
    names = np.asarray(clones["ancestor"].values)[couples]
    result["ancestors"] = labelled(("couple", "end"), names, "ancestors of the unrelated")
    arguments = {
        "resolution": resolution,
        "symmetry": "not known" if found is None else found.describe(),
        "clones": clones.attrs.get("arguments", ""),
    }
    result.attrs = provenance("siblings", SOURCE, seed, **arguments)
    return result.assign_attrs({k: v for k, v in clones.attrs.items() if k.startswith("steps")})


def between(
    landscape: Landscape,
    points: Float[Tensor, "point n"],
    pairs: Int[Tensor, "pair 2"],
    resolution: int,
    symmetry: Symmetry | None,
    seed: int,
) -> dict[str, Float[np.ndarray, "pair"]]:
    """Measure how near two points are to each other, for many pairs: see `MEASURES`."""
    lam = positions(resolution)
    parts: list[dict[str, Tensor]] = []
    for rows in pieces(len(pairs), max(1, BLOCK_ELEMENTS // points.shape[1])):
        some = pairs[rows].to(points.device)
        a, b = points[some[:, 0]], points[some[:, 1]]
        loss, error, distance = along(landscape, a, b, lam)
        part = {"distance": distance}
        if symmetry is not None:
            part["aligned_distance"] = align_pairs(symmetry, points, some, seed=seed).distance
        part["overlap"] = torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=1)
        part["barrier"] = path_barrier(loss)
        if not bool(error.isnan().all()):
            part["error_barrier"] = path_barrier(error, definition="mean")
        parts.append(part)
    found = {name: torch.cat([part[name].cpu() for part in parts]) for name in parts[0]}
    if "error_barrier" in found:
        found["disagreement"] = _disagreement(landscape, points, pairs)
    return {name: values.double().numpy() for name, values in found.items()}


def _disagreement(landscape: Landscape, points: Tensor, pairs: Tensor) -> Tensor:
    size = max(1, BLOCK_ELEMENTS // (10 * len(landscape.x)))
    answers = torch.cat(
        [landscape.outputs(points[rows]).argmax(-1) for rows in pieces(len(points), size)]
    )
    differ = [
        (answers[pairs[rows, 0]] != answers[pairs[rows, 1]]).double().flatten(1).mean(1)
        for rows in pieces(len(pairs), size)
    ]
    return torch.cat(differ).cpu()


def _known(landscape: Landscape, symmetry: Symmetry | None) -> Symmetry | None:
    try:
        return symmetries.of(landscape.module, symmetry)
    except TypeError:
        return None
