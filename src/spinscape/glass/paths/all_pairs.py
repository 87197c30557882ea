"""Barriers between all pairs of solutions at once, as they were trained or after alignment."""

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from spinscape.glass.energies import batch_of
from spinscape.glass.matching.weight_matching import match_weights
from spinscape.glass.paths.barriers import SOURCE, along, positions
from spinscape.landscape.energy import Landscape
from spinscape.landscape.paths import BARRIERS, path_barrier
from spinscape.nets import symmetry as symmetries
from spinscape.nets.symmetry import Symmetry
from spinscape.records import labelled, provenance

__all__ = ["barriers_of_all_pairs"]

MEMORY = 2**28
"""Bytes of the ends and directions of the paths of one block."""


def barriers_of_all_pairs(
    landscape: Landscape,
    points: "Float[Tensor, 'replica n'] | xr.DataArray | xr.Dataset",
    *,
    aligned: bool = False,
    definition: str = "line",
    resolution: int = 11,
    seed: int = 0,
    symmetry: Symmetry | None = None,
    memory: int = MEMORY,
) -> xr.Dataset:
    """Height of the barrier on the straight line between every two solutions.

    Parameters
    ----------
    landscape : Landscape
    points : [replica, n]
        At least two solutions.
    aligned : bool
        Remove the ReLU scale and match the later one's units to the earlier one's by their weights
        (`weight_matching`), or leave both as trained.
    definition : {"line", "mean"}
        Height above the straight line between the ends' losses, or above their mean.
    resolution : int
        Points on each path, ends included; odd, so that one is halfway.
    seed : int
        Of the sweep order in the alignment of deeper networks.
    symmetry : Symmetry, optional
        For a module whose symmetry is not known.
    memory : int
        Bytes that the ends and directions of the paths may take; results do not depend on it.

    Returns
    -------
    Dataset
        Symmetric over ``replica, other``: ``barrier``, ``distance`` of the ends, ``midpoint`` and
        ``midpoint_error``, loss and error halfway; their diagonals hold 0, 0 and the solution's
        own. ``loss`` [replica].

    Raises
    ------
    TypeError
        If the module's symmetry is not known, and `aligned`.
    ValueError
        If there are fewer than two points, the resolution is even or below 3, or the definition is
        unknown.
    """
    states = batch_of(points)
    count = len(states)
    if count < 2:
        raise ValueError(f"points: expected at least two solutions, got {count}")
    if resolution % 2 == 0:
        raise ValueError(f"resolution={resolution}: expected an odd number, one point is halfway")
    if definition not in BARRIERS:
        raise ValueError(f"definition={definition!r}: expected 'line' or 'mean'")
    if memory < 1:
        raise ValueError(f"memory={memory}: expected a positive number of bytes")
    lam = positions(resolution)
    found = symmetries.of(landscape.module, symmetry) if aligned else None
    own = landscape.evaluate(states)
    ends = states if found is None else found.balance(states)
    pairs = torch.triu_indices(count, count, offset=1).T
    blocks = []
    for block in pairs.split(max(1, memory // (4 * states.itemsize * states.shape[1]))):
        near, far = ends[block[:, 0].to(ends.device)], ends[block[:, 1].to(ends.device)]
        if found is not None:
            far = match_weights(found, near, far, seed=seed).points
        loss, error, distance = along(landscape, near, far, lam)
        height = path_barrier(loss, definition=definition)
        middle = resolution // 2
        blocks.append((height, distance, loss[:, middle], error[:, middle]))
    barrier, distance, midpoint, wrong = (torch.cat(parts) for parts in zip(*blocks, strict=True))
    zero = torch.zeros(count)
    both = ("replica", "other")
    arguments = {
        "aligned": aligned,
        "definition": definition,
        "resolution": resolution,
        **({} if found is None else {"symmetry": found.describe()}),
    }
    return xr.Dataset(
        {
            "barrier": labelled(
                both, _square(barrier, zero), f"barrier above the {definition}", "nats"
            ),
            "distance": labelled(both, _square(distance, zero), "distance of the ends"),
            "midpoint": labelled(both, _square(midpoint, own[0]), "loss halfway", "nats"),
            "midpoint_error": labelled(both, _square(wrong, own[1]), "error rate halfway"),
            "loss": labelled("replica", own[0], "loss", "nats"),
        },
        attrs=provenance("barriers_of_all_pairs", SOURCE, seed, **arguments),
    )


def _square(
    values: Float[Tensor, "pair"], diagonal: Float[Tensor, "replica"]
) -> Float[Tensor, "replica replica"]:
    """Values of all pairs i < j as a symmetric matrix with the given diagonal."""
    count = len(diagonal)
    matrix = torch.diag(diagonal.to(values))
    row, column = torch.triu_indices(count, count, offset=1, device=values.device)
    matrix[row, column] = matrix[column, row] = values
    return matrix
