"""Bent paths between points: Bézier curves along which the loss is low.

The ends stay, the control points between them move (Garipov et al., arXiv 1802.10026, section 3).
Every curve begins as the straight line and the best one met is kept, so that its barrier is never
above the straight one on the landscape that it was chosen by.
"""

from dataclasses import asdict

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from spinscape.glass.energies import EnergyLike, batch_of
from spinscape.glass.paths.barriers import positions
from spinscape.glass.paths.curves import STANDARD, Bending, Bent, along_curve, bend, curve_length
from spinscape.landscape.paths import path_barrier
from spinscape.nets.chunks import pieces
from spinscape.records import labelled, provenance

__all__ = ["bezier_paths"]

SOURCE = "Bézier curves: Garipov et al., arXiv 1802.10026, section 3"
BLOCK_ELEMENTS = 2**24
"""Numbers in one block of control points: 64 MiB in single precision."""


def bezier_paths(
    landscape: EnergyLike,
    a: "Float[Tensor, '*pair n'] | xr.DataArray | xr.Dataset",
    b: "Float[Tensor, '*pair n'] | xr.DataArray | xr.Dataset",
    *,
    bends: int = 1,
    bending: Bending = STANDARD,
    resolution: int = 51,
    descent: EnergyLike | None = None,
    held_out: EnergyLike | None = None,
    seed: int = 0,
) -> xr.Dataset:
    """Bend the straight paths from a to b until the loss along them is low.

    Parameters
    ----------
    landscape : Landscape, Energy or callable
        On which curves are looked at, and the best one kept. Where the gradient is taken of an
        energy without ``gradient``, autograd must be able to follow it.
    a, b : [n] or [pair, n]
        Ends.
    bends : int
        Control points between the ends; one makes a parabola.
    bending : Bending
        Settings of the optimiser.
    resolution : int
        Points on each path, ends included, at which its barrier is read.
    descent : Landscape, Energy or callable, optional
        What the gradient is taken of, if not of `landscape`: all training samples, say, where
        `landscape` holds some. A curve bent on few samples fits these.
    held_out : Landscape, Energy or callable, optional
        A landscape of samples that had no part in bending.
    seed : int
        Of the positions and samples of every step.

    Returns
    -------
    Dataset
        Over ``pair, lam``: ``loss`` and ``straight_loss``, ``error`` and ``straight_error``; over
        ``pair``: ``barrier`` ≤ ``straight_barrier`` (above the line between the ends' losses),
        ``distance`` of the ends and ``length`` of the curve; ``bend`` [pair, bend, n];
        ``objective`` [pair, check], the mean loss along the curve as it was being bent, and the
        same losses, errors and barriers with ``held_`` before their names.

    Raises
    ------
    ValueError
        If a number is out of range, or a and b differ in shape, type or device.
    """
    first, last = batch_of(a, "a"), batch_of(b, "b")
    if first.shape != last.shape or first.dtype != last.dtype or first.device != last.device:
        raise ValueError(
            f"a is {first.dtype} {tuple(first.shape)} on {first.device}, b is {last.dtype} "
            f"{tuple(last.shape)} on {last.device}: expected two alike"
        )
    if bends < 1:
        raise ValueError(f"bends={bends}: expected 1 or more control points between the ends")
    lam = positions(resolution)
    blocks = []
    for rows in pieces(len(first), max(1, BLOCK_ELEMENTS // ((bends + 2) * first.shape[1]))):
        straight = _straight(first[rows], last[rows], bends)
        bent = bend(
            landscape,
            straight,
            slice(1, -1),
            lam,
            path_barrier,
            bending=bending,
            seed=seed,
            descent=descent,
        )
        blocks.append(_measured(bent, straight, lam, held_out))
    found = xr.concat(blocks, "pair") if len(blocks) > 1 else blocks[0]
    arguments = {"bends": bends, "resolution": resolution, **asdict(bending)}
    found.attrs.update(provenance("bezier_paths", SOURCE, seed, **arguments))
    return found


def _straight(
    a: Float[Tensor, "pair n"], b: Float[Tensor, "pair n"], bends: int
) -> Float[Tensor, "pair control n"]:
    """Control points, equally spaced, of the curves that are straight lines."""
    at = torch.linspace(0, 1, bends + 2, dtype=a.dtype, device=a.device)
    return torch.lerp(a[:, None], b[:, None], at[:, None])


def _measured(
    bent: Bent,
    straight: Float[Tensor, "pair control n"],
    lam: Float[Tensor, "lam"],
    held_out: EnergyLike | None,
) -> xr.Dataset:
    """Write down curves and straight lines on the landscape and on the one held out."""
    ends = (straight[:, -1] - straight[:, 0]).double()
    found = xr.Dataset(
        {
            "distance": labelled("pair", torch.linalg.vector_norm(ends, dim=-1), "distance"),
            "length": labelled("pair", curve_length(bent.controls, lam), "length of the curve"),
            "bend": labelled(("pair", "bend", "n"), bent.controls[:, 1:-1], "control points"),
            "objective": labelled(
                ("pair", "check"), bent.objective, "mean loss along the curve", "nats"
            ),
        },
        {"lam": ("lam", lam.numpy(), {"long_name": "position on the path", "units": "1"})},
    )
    curves = {
        "": (bent.loss, bent.error),
        "straight_": (bent.start_loss, bent.start_error),
    }
    if held_out is not None:
        curves["held_"] = along_curve(held_out, bent.controls, lam)
        curves["held_straight_"] = along_curve(held_out, straight, lam)
    for name, (loss, error) in curves.items():
        where = (", straight" if "straight" in name else "") + (", held out" * ("held" in name))
        found[f"{name}loss"] = labelled(("pair", "lam"), loss, f"loss{where}", "nats")
        if not bool(error.isnan().all()):
            found[f"{name}error"] = labelled(("pair", "lam"), error, f"error rate{where}")
        height = path_barrier(loss)
        found[f"{name}barrier"] = labelled("pair", height, f"barrier{where}", "nats")
    return found
