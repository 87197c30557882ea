"""Is there a lower path than the straight one? Bent paths between solutions and their copies.

What a straight line meets is an upper bound of what lies between two networks. Bézier curves
(`bezier_paths`) look for less, between a solution and its own permuted copy, between independent
solutions, and between those after their hidden units were matched. `detours` judges them.
"""

import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from spinscape.glass.energies import batch_of
from spinscape.glass.matching.alignment import align_pairs
from spinscape.glass.paths.bezier import SOURCE, bezier_paths
from spinscape.glass.paths.curves import STANDARD, Bending
from spinscape.glass.paths.interpolation import balanced_pairs
from spinscape.glass.walking.moves import generators
from spinscape.landscape.energy import Landscape
from spinscape.nets import symmetry as symmetries
from spinscape.nets.symmetry import Symmetry
from spinscape.records import provenance

__all__ = ["KINDS", "bent_paths"]

KINDS = ("own copy", "independent", "aligned")


def bent_paths(
    landscape: Landscape,
    points: "Float[Tensor, 'replica n'] | xr.DataArray | xr.Dataset",
    *,
    pairs: int = 32,
    bends: int = 1,
    bending: Bending = STANDARD,
    resolution: int = 51,
    descent: Landscape | None = None,
    held_out: Landscape | None = None,
    seed: int = 0,
    symmetry: Symmetry | None = None,
) -> xr.Dataset:
    """Bend straight paths between solutions and copies of solutions, of three kinds.

    *own copy*: a solution and itself with all hidden units renumbered at random. *independent*: two
    solutions as trained. *aligned*: the same two, the ReLU scale removed and the units of the
    second matched to those of the first. With the same `seed`, pairs and renumberings are those of
    `permutation_paths`.

    Parameters
    ----------
    landscape : Landscape
        On which paths are looked at, and the best one kept.
    points : [replica, n]
        At least two solutions.
    pairs : int
        How many pairs of solutions, at most all of them; every replica is in equally many, or one
        more.
    bends, bending, resolution, descent, held_out
        As in `bezier_paths`.
    seed : int
        Of the pairs, the renumberings, and the positions and samples of every step.
    symmetry : Symmetry, optional
        For a module whose symmetry is not known.

    Returns
    -------
    Dataset
        That of `bezier_paths`, less the control points, over ``kind, path`` in the place of
        ``pair``; ``pair`` [path, end].

    Raises
    ------
    TypeError
        If the module's symmetry is not known.
    ValueError
        If there are fewer than two points, or a number is out of range.
    """
    states = batch_of(points)
    if len(states) < 2:
        raise ValueError(f"points: expected at least two solutions, got {len(states)}")
    if pairs < 1:
        raise ValueError(f"pairs={pairs}: expected 1 or more")
    found = symmetries.of(landscape.module, symmetry)
    chosen = balanced_pairs(len(states), pairs, seed)
    parts = []
    for kind in KINDS:
        ends = _ends(found, states, chosen, kind, seed)
        bent = bezier_paths(
            landscape,
            *ends,
            bends=bends,
            bending=bending,
            resolution=resolution,
            descent=descent,
            held_out=held_out,
            seed=seed,
        )
        parts.append(bent.drop_vars("bend").rename(pair="path"))
    result = xr.concat(parts, "kind", combine_attrs="override").assign_coords(kind=list(KINDS))
    result["pair"] = ("path", "end"), chosen.numpy(), {"long_name": "replicas at the ends"}
    result["pair"].attrs["units"] = "1"
    symmetric = {"pairs": len(chosen), "symmetry": found.describe()}
    bent_with = {"bends": bends, "resolution": resolution, **vars(bending)}
    result.attrs.update(provenance("bent_paths", SOURCE, seed, **symmetric, **bent_with))
    return result


def _ends(
    symmetry: Symmetry,
    points: Float[Tensor, "replica n"],
    pairs: Int[Tensor, "pair 2"],
    kind: str,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """Both ends of the paths of one kind."""
    a, b = (points[pairs[:, end].to(points.device)] for end in (0, 1))
    if kind == "independent":
        return a, b
    if kind == "aligned":
        return symmetry.balance(a), align_pairs(symmetry, points, pairs, seed=seed).points
    drawn = [symmetry.random_permutation(stream) for stream in generators(seed, len(pairs))]
    orders = [torch.stack(orders) for orders in zip(*drawn, strict=True)]
    return a, symmetry.permute(a, orders)
