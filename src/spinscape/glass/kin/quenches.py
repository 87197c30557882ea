"""Quenches: whether gradient descent falls back into the solution that a walker left.

A quench starts from a point that was walked to and trains on, at zero temperature but for the noise
of mini-batches. Training moves a solution itself, so each solution is trained on as well, several
times with different data orders: the first copy is the *reference* that its quenches are compared
with, the others are the *controls*, quenches from distance zero. What other solutions are to the
reference is the null. All comparisons are made with the symmetry of hidden units removed: a walker
that falls into a permuted copy has returned. Inherent structures of a glass are found in this way
(Stillinger & Weber, Phys. Rev. A 25, 978 (1982)); the question is that of arXiv 2407.20724, the
method is ours.
"""

from collections.abc import Sequence
from itertools import product
from math import isfinite
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from spinscape.glass.energies import batch_of
from spinscape.glass.matching.alignment import match_weights
from spinscape.glass.paths.barriers import along, positions
from spinscape.glass.walking.moves import Move, filter_scale, generators, noise
from spinscape.glass.walking.walks import walk
from spinscape.landscape.energy import Landscape
from spinscape.landscape.paths import path_barrier
from spinscape.nets import symmetry as symmetries
from spinscape.nets.chunks import pieces
from spinscape.nets.datasets import Data
from spinscape.nets.symmetry import Symmetry
from spinscape.nets.training import train
from spinscape.nets.weightspace import points as points_of
from spinscape.records import labelled, provenance

__all__ = ["CRITERIA", "displaced", "quench", "wandered"]

SOURCE = "inherent structures of walks of arXiv 2407.20724; method ours"
BLOCK_ELEMENTS = 2**24
OTHERS = 3
"""Each solution is compared with so many others on either side of it."""
STRIDE = 2**8
"""Copies of one solution at most; their random numbers do not depend on how many there are."""

CRITERIA = ("distance", "barrier")
LEAST = {"distance": 0.02, "barrier": 0.001}
"""What counts as the same at least: part of the reference's norm, and nats."""

RULE = (
    "Returned by distance: no farther from the reference than twice the mean of the controls, or "
    "2 % of its norm. By barrier: behind one no higher than half-way from the controls' to that of "
    "other solutions, or .001 nats"
)
COMPARED = {
    "end_distance": ("distance from the reference, symmetry removed", "1"),
    "raw_end_distance": ("distance from the reference as it is", "1"),
    "barrier": ("barrier to the reference, symmetry removed", "nats"),
    "error_barrier": ("rise of the error on that path", "1"),
    "disagreement": ("fraction of samples classified differently", "1"),
}


def displaced(
    solutions: "Float[Tensor, 'solution n'] | xr.DataArray | xr.Dataset",
    distances: Sequence[float],
    *,
    filters: Sequence[Tensor] | None = None,
    seed: int = 0,
) -> xr.Dataset:
    """Points at given distances from every solution, each in a random direction of its own.

    Parameters
    ----------
    solutions : [solution, n]
    distances : sequence of float
        Positive lengths in weight space.
    filters : sequence of LongTensor, optional
        Directions are then in proportion to the norm of each filter, as in
        `moves.FilterGaussian`; by default they are isotropic.
    seed : int

    Returns
    -------
    Dataset
        ``point [quench, n]``, ``origin [quench]``, as `quench` takes them.
    """
    states = batch_of(solutions, "solutions")
    lengths = [float(r) for r in distances]
    if not lengths or not all(0 < r < float("inf") for r in lengths):
        raise ValueError(f"distances={list(distances)}: expected positive lengths")
    shape = 1.0 if filters is None else filter_scale(states, filters)
    moved = []
    for place, length in enumerate(lengths):
        step = shape * noise(states, generators([seed, place], len(states)))
        moved.append(states + length * step / torch.linalg.vector_norm(step, dim=1, keepdim=True))
    origin = np.tile(np.arange(len(states)), len(lengths))
    result = xr.Dataset(attrs=provenance("displaced", SOURCE, seed, distances=lengths))
    result["point"] = labelled(("quench", "n"), torch.cat(moved), "weights")
    result["origin"] = labelled("quench", origin, "solution that was left")
    return result


def wandered(
    landscape: Landscape,
    solutions: "Float[Tensor, 'solution n'] | xr.DataArray | xr.Dataset",
    *,
    temperatures: Sequence[float],
    steps: Sequence[int],
    move: Move,
    seed: int = 0,
) -> xr.Dataset:
    """Points where walkers from every solution are after given numbers of steps.

    Parameters
    ----------
    landscape : Landscape
        Where they walk.
    solutions : [solution, n]
    temperatures : sequence of float
        One walker of each solution at each, in nats; infinite for a free walk.
    steps : sequence of int
        Every number of steps ends a walk of its own.
    move : Move
    seed : int

    Returns
    -------
    Dataset
        ``point [quench, n]``, ``origin``, ``temperature`` and ``steps`` over ``quench``, as
        `quench` takes them.

    Raises
    ------
    ValueError
        If there is no temperature or number of steps, or one is out of range.
    """
    states = batch_of(solutions, "solutions")
    heats, lengths = [float(T) for T in temperatures], [int(t) for t in steps]
    if not heats or not all(T > 0 for T in heats):
        raise ValueError(f"temperatures={list(temperatures)}: expected positive numbers of nats")
    if not lengths or min(lengths) < 1:
        raise ValueError(f"steps={list(steps)}: expected numbers of steps, 1 or more")
    points, rows = [], []
    for place, (heat, length) in enumerate(product(heats, lengths)):
        rule: dict[str, Any] = {"rule": "free"}
        if isfinite(heat):
            rule = {"rule": "thermal", "temperature": heat}
        stream = int(np.random.SeedSequence([seed, place]).generate_state(1)[0])
        ended = walk(
            landscape, states, move=move, steps=length, record=[length], seed=stream, **rule
        )
        points.append(points_of(ended))
        rows += [(origin, heat, length) for origin in range(len(states))]
    origin, temperature, walked = (np.array(column) for column in zip(*rows, strict=True))
    result = xr.Dataset(attrs=provenance("wandered", SOURCE, seed, steps=lengths))
    result["point"] = labelled(("quench", "n"), torch.cat(points), "weights")
    result["origin"] = labelled("quench", origin, "solution that was left")
    result["temperature"] = labelled("quench", temperature, "temperature of the walk", "nats")
    result["steps"] = labelled("quench", walked, "steps walked")
    return result


def quench(
    landscape: Landscape,
    data: Data,
    solutions: "Float[Tensor, 'solution n'] | xr.DataArray | xr.Dataset",
    points: "Float[Tensor, 'quench n'] | xr.DataArray | xr.Dataset",
    *,
    origin: "Sequence[int] | np.ndarray | None" = None,
    temperature: "Sequence[float] | np.ndarray | None" = None,
    controls: int = 2,
    epochs: int = 5,
    resolution: int = 11,
    seed: int = 0,
    symmetry: Symmetry | None = None,
    **recipe: Any,
) -> xr.Dataset:
    """Train from points near solutions, and compare where they end with the solutions.

    Parameters
    ----------
    landscape : Landscape
        Where barriers and agreement are measured; its module is trained.
    data : Data
        To train on.
    solutions : [solution, n]
        Two or more.
    points : [quench, n]
        Where quenches start: the ends of walks (`wandered`), or of `displaced`.
    origin : [quench]
        Index of the solution that each left; not needed of a Dataset of these two.
    temperature : [quench], optional
        At which it was left; infinite for a free walk. Judged one by one.
    controls : int
        Quenches of every solution from distance zero, beside the reference.
    epochs, **recipe
        As for `train`: stochastic gradient descent with momentum unless told otherwise, each
        quench with a data order of its own; ``batch_size=len(data.train.x)`` and ``momentum=0``
        make it plain gradient descent.
    resolution : int
        Points on the paths on which barriers are measured.
    seed : int
        Of the data orders; the same for a quench whichever others come after it.
    symmetry : Symmetry, optional
        For a module whose symmetry is not known.

    Returns
    -------
    Dataset
        Over ``quench``: ``origin``, ``distance`` (walked), ``stage`` (its rank among those of one
        solution at one temperature), ``temperature`` if given, ``loss_before``, ``loss_after``
        (training loss), ``diverged``, ``end_distance``, ``raw_end_distance``, ``barrier``,
        ``disagreement``, ``error_barrier`` against the reference, and ``returned [criterion,
        quench]`` by the rule in the attrs. The same comparisons as ``control_… [solution,
        control]`` and ``other_… [couple]``, with ``others [couple, end]``; ``bound [criterion,
        solution]``; the final ``point [quench, n]``.

    Raises
    ------
    TypeError
        If the module's symmetry is not known.
    ValueError
        If there are fewer than two solutions, an origin is missing or none of them, or a number
        is out of range.
    """
    found = symmetries.of(landscape.module, symmetry)
    states = batch_of(solutions, "solutions")
    starts = batch_of(points).to(states.device)
    if origin is None and isinstance(points, xr.Dataset) and "origin" in points:
        origin = points["origin"].values
    if temperature is None and isinstance(points, xr.Dataset) and "temperature" in points:
        temperature = points["temperature"].values
    left = _checked(origin, states, starts, controls)
    heat = np.full(len(left), np.inf) if temperature is None else np.array(temperature, float)
    if heat.shape != left.shape:
        raise ValueError(f"temperature: shape {heat.shape} for {len(left)} points; give one each")
    copies = states.repeat_interleave(controls + 1, dim=0)
    ids = [2 * q for q in range(len(starts))]
    ids += [2 * (s * STRIDE + c) + 1 for s in range(len(states)) for c in range(controls + 1)]
    trained = train(
        landscape.module,
        data,
        start=torch.cat([starts, copies]),
        **{"replicas": ids, "seed": seed, "epochs": epochs, **recipe},
    )
    ends = points_of(trained).to(starts.device)
    after, zero = ends[: len(starts)], ends[len(starts) :].unflatten(0, (len(states), -1))
    reference = zero[:, 0]
    if not bool(zero.isfinite().all()):
        raise ValueError("solutions: trained on, some diverged; lower learning_rate")
    couple = _couples(len(states))
    sides = {
        "": (reference[left], after),
        "control_": (reference.repeat_interleave(controls, dim=0), zero[:, 1:].flatten(0, 1)),
        "other_": (reference[couple[:, 0]], reference[couple[:, 1]]),
    }
    compared = {
        name: _compare(landscape, found, *pair, resolution, seed) for name, pair in sides.items()
    }
    result = _walked(states, starts, left, heat, temperature is not None)
    result["loss_before"] = labelled("quench", _losses(landscape, starts), "loss before", "nats")
    result["loss_after"] = labelled("quench", _losses(landscape, after), "loss after", "nats")
    result["diverged"] = labelled("quench", ~after.isfinite().all(1), "became non-finite")
    result["point"] = labelled(("quench", "n"), after, "weights after the quench")
    result["others"] = labelled(("couple", "end"), couple, "solutions compared, the null")
    for name, (long_name, units) in COMPARED.items():
        if name not in compared[""]:
            continue
        controlled = compared["control_"][name].reshape(len(states), controls)
        result[name] = labelled("quench", compared[""][name], long_name, units)
        words = ("solution", "control"), controlled, f"{long_name}, controls", units
        result[f"control_{name}"] = labelled(*words)
        other = compared["other_"][name]
        result[f"other_{name}"] = labelled("couple", other, f"{long_name}, other solutions", units)
    _judge(result, torch.linalg.vector_norm(reference, dim=1).double().cpu().numpy())
    plain = {k: v for k, v in recipe.items() if isinstance(v, str | int | float | bool)}
    arguments = {"controls": controls, "epochs": epochs, "resolution": resolution, "recipe": plain}
    arguments["symmetry"] = found.describe()
    result.attrs = {**provenance("quench", SOURCE, seed, **arguments), "rule": RULE}
    return result


def _judge(result: xr.Dataset, norms: Float[np.ndarray, "solution"]) -> None:
    """Add the bounds, and who returned by them: quenches, controls, other solutions."""
    couple, left = result["others"].values, result["origin"].values
    strange = result["other_barrier"].values
    means = np.array([strange[(couple == s).any(1)].mean() for s in range(len(norms))])
    near = 2 * result["control_end_distance"].values.mean(1)
    low = (result["control_barrier"].values.mean(1) + means) / 2
    bounds = {
        "end_distance": np.maximum(near, LEAST["distance"] * norms),
        "barrier": np.maximum(low, LEAST["barrier"]),
    }
    returned = [result[name].values <= bound[left] for name, bound in bounds.items()]
    control = [result[f"control_{k}"].values <= bound[:, None] for k, bound in bounds.items()]
    other = [result[f"other_{k}"].values <= bound[couple].mean(1) for k, bound in bounds.items()]
    result.coords["criterion"] = list(CRITERIA)
    words = "whether it returned"
    result["bound"] = labelled(("criterion", "solution"), np.stack(list(bounds.values())), "bound")
    result["returned"] = labelled(("criterion", "quench"), np.stack(returned), words)
    dims = ("criterion", "solution", "control")
    result["control_returned"] = labelled(dims, np.stack(control), f"{words}, controls")
    result["other_returned"] = labelled(("criterion", "couple"), np.stack(other), f"{words}, null")


def _walked(
    states: Tensor, starts: Tensor, left: Int[np.ndarray, "quench"], heat: np.ndarray, given: bool
) -> xr.Dataset:
    """Where the quenches start: how far from which solution, and at which temperature it was."""
    gone = torch.linalg.vector_norm(starts - states[left], dim=1, dtype=torch.float64)
    distance = gone.cpu().numpy()
    stage = np.zeros(len(left), dtype=int)
    for rows in {
        (o, t): (left == o) & (heat == t) for o, t in zip(left, heat, strict=True)
    }.values():
        stage[rows] = np.argsort(np.argsort(distance[rows], kind="stable"), kind="stable")
    result = xr.Dataset()
    result["origin"] = labelled("quench", left, "solution that was left")
    result["distance"] = labelled("quench", distance, "distance walked from the solution")
    result["stage"] = labelled("quench", stage, "rank of the distance from this solution")
    if given:
        result["temperature"] = labelled("quench", heat, "temperature of the walk", "nats")
    return result


def _compare(
    landscape: Landscape, symmetry: Symmetry, a: Tensor, b: Tensor, resolution: int, seed: int
) -> dict[str, Float[np.ndarray, "pair"]]:
    """Compare networks with their references; NaN where one is not finite."""
    fine = torch.isfinite(b).all(1)
    lam, parts = positions(resolution), []
    for rows in pieces(int(fine.sum()), max(1, BLOCK_ELEMENTS // a.shape[1])):
        first, second = a[fine][rows], b[fine][rows]
        plain = symmetry.balance(first)
        matched = match_weights(symmetry, plain, symmetry.balance(second), seed=seed).points
        loss, error, distance = along(landscape, plain, matched, lam)
        raw = torch.linalg.vector_norm(first - second, dim=1, dtype=torch.float64)
        part = {"end_distance": distance, "raw_end_distance": raw, "barrier": path_barrier(loss)}
        if not bool(error.isnan().all()):
            part["error_barrier"] = path_barrier(error, definition="mean")
            answers = [landscape.outputs(side).argmax(-1) for side in (first, second)]
            part["disagreement"] = (answers[0] != answers[1]).double().flatten(1).mean(1)
        parts.append(part)
    result = {}
    for name in parts[0] if parts else ("end_distance", "raw_end_distance", "barrier"):
        values = np.full(len(a), np.nan)
        joined = [part[name].double().cpu() for part in parts]
        values[fine.cpu().numpy()] = torch.cat(joined).numpy() if joined else []
        result[name] = values
    return result


def _losses(landscape: Landscape, points: Tensor) -> Tensor:
    return landscape.loss(points).detach()


def _couples(count: int) -> Int[np.ndarray, "couple 2"]:
    """Each solution with its next few on a ring, every couple once."""
    near = [
        (s, (s + k) % count) for k in range(1, min(OTHERS, count // 2) + 1) for s in range(count)
    ]
    return np.array(sorted({(min(pair), max(pair)) for pair in near}))


def _checked(
    origin: "Sequence[int] | np.ndarray | None", states: Tensor, starts: Tensor, controls: int
) -> Int[np.ndarray, "quench"]:
    if len(states) < 2:
        raise ValueError(f"solutions: got {len(states)}, expected two or more, for the null")
    if origin is None:
        raise ValueError("origin: not given; say which solution each point comes from")
    left = np.asarray(origin)
    whole = left.dtype.kind in "iu" and left.shape == (len(starts),)
    if not whole or left.min() < 0 or left.max() >= len(states):
        raise ValueError(
            f"origin: expected one index among 0..{len(states) - 1} for each of {len(starts)} "
            f"points, got {left.dtype} of shape {left.shape}"
        )
    if not 1 <= controls < STRIDE:
        raise ValueError(f"controls={controls}: expected 1 to {STRIDE - 1}")
    if starts.shape[1] != states.shape[1]:
        raise ValueError(
            f"points: of length {starts.shape[1]:,}, but solutions of {states.shape[1]:,}"
        )
    return left
