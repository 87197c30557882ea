"""Clones: networks that share a training until some step and part afterwards by their noise.

Copies of one ancestor are made after `waiting` steps, and each goes on with a data order of its
own: instability analysis (Frankle et al., arXiv 1912.05671, section 2), the clones and damage
spreading of spin glasses. Parting more than once makes a family whose tree is known, the positive
control of `glass.trees.clustering.hierarchy`. What parted networks remember of each other is
measured by `glass.kin.relatives` and `glass.kin.lineages`.

The optimiser's memory starts from zero at every parting, which for momentum .9 is forgotten in some
ten steps, and all networks make the same number of steps altogether.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import ceil, prod
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor, nn

from spinscape.glass.walking.moves import generators
from spinscape.nets import symmetry as symmetries
from spinscape.nets.datasets import Data
from spinscape.nets.orders import word
from spinscape.nets.symmetry import Symmetry
from spinscape.nets.training import train
from spinscape.nets.weightspace import points as points_of
from spinscape.records import labelled, provenance

__all__ = ["clone", "disguised", "family"]

SOURCE = "instability analysis: Frankle et al., arXiv 1912.05671, section 2"
OWN = ("start", "replicas", "steps", "snapshots", "keep_state", "evaluate_every")
UNEQUAL = ("stop_at", "patience")
STRIDE = 2**12
"""A child's index is its parent's times this plus its own place: others do not enter."""
SPREAD = 0.5
"""Standard deviation of the logarithm of the factors by which `disguised` rescales units."""


class Course(NamedTuple):
    """How long a training is."""

    steps: int
    epoch: int  # steps of one


def clone(
    module: nn.Module,
    data: Data,
    *,
    ancestors: int | Sequence[int] = 4,
    children: int = 4,
    waiting: int | Sequence[int] = 6,
    epochs: int = 10,
    seed: int = 0,
    **recipe: Any,
) -> xr.Dataset:
    """Train ancestors, and after each waiting time children of theirs that part by data order.

    Parameters
    ----------
    module : nn.Module
        The template, as for `train`.
    data : Data
    ancestors : int or sequence of int
        Independent trainings, or the indices of those; ancestor k is the same in any set.
    children : int
        Of each ancestor at each waiting time; two or more.
    waiting : int or sequence of int
        Steps that are shared; a number asks for so many, 0 and log-spaced ones up to three
        quarters of the training. At 0 children share their initialisation alone. Each waiting
        time is the same whichever others there are, so that they can be computed apart.
    epochs : int
        Length of the whole training, shared steps included.
    seed : int
        Fixes everything, with the indices of ancestor and child and with the waiting time.
    **recipe
        As for `train`: batch size, optimiser, learning rate and so on. The learning rate is
        constant, the batches are each network's own.

    Returns
    -------
    Dataset
        ``point [waiting, ancestor, child, n]``, loss and error on the three splits and
        ``diverged`` over ``waiting, ancestor, child``; coordinate ``waiting`` in steps.

    Raises
    ------
    ValueError, TypeError
        If a number is out of range, or the recipe leaves no noise to part by, stops at unequal
        times or changes the learning rate.
    """
    course = _course(data, epochs, recipe)
    chosen = _indices(ancestors)
    _check_count("children", children, least=2)
    times = _times(waiting, course.steps)
    recipe = {**recipe, "epochs": epochs}
    shared = _ancestors(module, data, chosen, times, seed, recipe)
    grown = [
        _parted(module, data, points, chosen, children, time, course.steps, seed, recipe)[0]
        for time, points in zip(times, shared, strict=True)
    ]
    shape = {"ancestor": chosen, "child": list(range(children))}
    result = xr.concat([_folded(part, shape) for part in grown], "waiting")
    result = result.assign_coords(waiting=labelled("waiting", times, "steps shared", "steps"))
    arguments = {"ancestors": chosen, "children": children, "waiting": times, "epochs": epochs}
    result.attrs = _attrs("clone", module, seed, course, recipe, arguments)
    return result


def family(
    module: nn.Module,
    data: Data,
    *,
    branching: Sequence[int] = (4, 3, 3),
    parting: Sequence[int] | None = None,
    epochs: int = 10,
    seed: int = 0,
    disguise: bool = True,
    symmetry: Symmetry | None = None,
    **recipe: Any,
) -> xr.Dataset:
    """Train a family of networks whose tree is known: they part at given steps.

    Parameters
    ----------
    module : nn.Module
    data : Data
    branching : sequence of int
        How many ancestors, and into how many each network parts at each step of `parting`:
        ``(4, 3, 3)`` is 36 networks in 4 families of 3 branches. ``(1, 24)`` parting at 0 is a
        star, networks from one start; ``(24,)`` parting never are independent networks.
    parting : sequence of int, optional
        Rising steps; by default geometric, the first after 2 % and the last after half of the
        training.
    epochs, seed, **recipe
        As for `clone`.
    disguise : bool
        Permute and rescale each network's hidden units at random, so that its kin must be
        recognised with the symmetry removed.
    symmetry : Symmetry, optional
        For a module whose symmetry is not known.

    Returns
    -------
    Dataset
        ``point [replica, n]``, loss, error and ``diverged`` over ``replica``; ``lineage [level,
        replica]``, the number of the ancestor, branch and so on that a network descends from.

    Raises
    ------
    ValueError, TypeError
        As `clone`, or if the module's symmetry is not known and a disguise is asked for.
    """
    course = _course(data, epochs, recipe)
    recipe = {**recipe, "epochs": epochs}
    counts = [_check_count("branching", count, least=1) for count in branching]
    times = _partings(parting, len(counts) - 1, course.steps)
    found = symmetries.of(module, symmetry) if disguise else None
    ids = list(range(counts[0])) if counts else []
    if prod(counts) < 2:
        raise ValueError(f"branching={tuple(branching)}: expected two networks or more")
    if times:
        points = _ancestors(module, data, ids, times[:1], seed, recipe)[0]
        ends = [*times[1:], course.steps]
        for count, start, stop in zip(counts[1:], times, ends, strict=True):
            grown, ids = _parted(module, data, points, ids, count, start, stop, seed, recipe)
            points = points_of(grown)
    else:
        grown = train(module, data, replicas=ids, seed=seed, **recipe)
    grown = _described(grown).assign_coords(replica=np.arange(prod(counts)))
    if found is not None:
        grown["point"].values[:] = disguised(found, points_of(grown), seed=seed).cpu().numpy()
    place = np.arange(prod(counts))
    lineage = [place // prod(counts[level + 1 :]) for level in range(len(times))]
    table = np.array(lineage, dtype=int).reshape(len(times), len(place))
    grown["lineage"] = labelled(("level", "replica"), table, "number of the forefather at a level")
    arguments = {"branching": counts, "parting": times, "epochs": epochs, "disguise": disguise}
    grown.attrs = _attrs("family", module, seed, course, recipe, arguments)
    return grown


def disguised(
    symmetry: Symmetry, points: Float[Tensor, "replica n"], *, seed: int
) -> Float[Tensor, "replica n"]:
    """Networks of the same functions, all hidden units permuted and rescaled at random."""
    streams = generators([seed, 2], len(points))
    drawn = [symmetry.random_permutation(stream) for stream in streams]
    moved = symmetry.permute(points, [torch.stack(layer) for layer in zip(*drawn, strict=True)])
    factors = [
        torch.stack([torch.randn(layer.width, generator=s, dtype=torch.float64) for s in streams])
        for layer in symmetry.layers
        if layer.rescalable
    ]
    return symmetry.rescale(moved, [(SPREAD * factor).exp() for factor in factors])


def _ancestors(
    module: nn.Module,
    data: Data,
    chosen: Sequence[int],
    times: Sequence[int],
    seed: int,
    recipe: dict[str, Any],
) -> Float[Tensor, "time ancestor n"]:
    """Points of the ancestors at some of their steps."""
    steps = max(1, *times)
    settings = {**recipe, "steps": steps, "evaluate_every": steps}
    kept = train(module, data, replicas=chosen, seed=seed, snapshots=times, **settings)["snapshot"]
    return points_of(kept).to(data.train.x.device)


def _parted(
    module: nn.Module,
    data: Data,
    parents: Float[Tensor, "parent n"],
    ids: Sequence[int],
    count: int,
    start: int,
    stop: int,
    seed: int,
    recipe: dict[str, Any],
) -> tuple[xr.Dataset, list[int]]:
    """Train children of every parent from one step to another, each with its own data order."""
    own = [parent * STRIDE + child for parent in ids for child in range(count)]
    grown = train(
        module,
        data,
        replicas=own,
        seed=word(seed, 1, start),
        start=parents.repeat_interleave(count, dim=0),
        **{**recipe, "steps": stop - start, "evaluate_every": stop - start},
    )
    return grown, own


def _described(trained: xr.Dataset) -> xr.Dataset:
    """What a network is and reaches, without the curves of its last stretch."""
    kept = [name for name, values in trained.items() if not {"epoch", "snapshot"} & {*values.dims}]
    dropped = {"epochs_run", "seed"}
    return trained[[name for name in kept if name not in dropped]]


def _folded(trained: xr.Dataset, shape: dict[str, list[int]]) -> xr.Dataset:
    """One dimension of replicas made into several."""
    described = _described(trained).drop_vars("replica")
    sizes = [len(values) for values in shape.values()]
    folded = {
        name: ((*shape, *values.dims[1:]), values.values.reshape(*sizes, *values.shape[1:]))
        for name, values in described.items()
    }
    result = xr.Dataset(folded, coords=shape)
    for name, values in described.items():
        result[name].attrs.update(values.attrs)
    return result


def _attrs(
    protocol: str,
    module: nn.Module,
    seed: int,
    course: Course,
    recipe: dict[str, Any],
    arguments: dict[str, Any],
) -> dict[str, Any]:
    plain = {k: v for k, v in recipe.items() if isinstance(v, str | int | float | bool)}
    words = {**arguments, "module": type(module).__name__, "recipe": plain}
    record = provenance(protocol, SOURCE, seed, **words)
    return {**record, "steps": course.steps, "steps_per_epoch": course.epoch}


def _course(data: Data, epochs: int, recipe: dict[str, Any]) -> Course:
    """Check that children have noise to part by and equal times, and count the steps."""
    for name in (*OWN, *UNEQUAL):
        if recipe.get(name) is not None:
            why = "all make equally many steps" if name in UNEQUAL else "it is set here"
            raise TypeError(f"{name}: no setting of a family of networks, for {why}; leave it out")
    for name, needed in (("schedule", "constant"), ("batches", "own")):
        if recipe.get(name, needed) != needed:
            raise ValueError(f"{name}={recipe[name]!r}: networks that part need {needed!r}")
    samples, batch = len(data.train.x), int(recipe.get("batch_size", 64))
    _check_count("epochs", epochs, least=1)
    if batch >= samples:
        raise ValueError(
            f"batch_size={batch}: with all {samples} samples in every batch children would not "
            "part; take a smaller one"
        )
    return Course(epochs * ceil(samples / batch), ceil(samples / batch))


def _times(waiting: int | Sequence[int], steps: int) -> list[int]:
    if isinstance(waiting, int):
        _check_count("waiting", waiting, least=2)
        spaced = np.geomspace(1, max(2, 0.75 * steps), waiting - 1).round().astype(int)
        return sorted({0, *spaced.tolist()})
    times = sorted({int(time) for time in waiting})
    if not times or times[0] < 0 or times[-1] >= steps:
        raise ValueError(f"waiting={list(waiting)}: expected steps from 0 to {steps - 1}")
    return times


def _partings(parting: Sequence[int] | None, levels: int, steps: int) -> list[int]:
    first = [0.02] if levels == 1 else np.geomspace(0.02, 0.5, levels).tolist()
    given = [share * steps for share in first] if parting is None else parting
    times = [int(time) for time in given]
    rising = all(a < b for a, b in pairwise(times))
    if len(times) != levels or not rising or (times and not 0 <= times[0] <= times[-1] < steps):
        raise ValueError(
            f"parting={times}: expected {levels} rising steps from 0 to {steps - 1}, one less than "
            "branching has numbers"
        )
    return times


def _indices(ancestors: int | Sequence[int]) -> list[int]:
    if isinstance(ancestors, int):
        return list(range(_check_count("ancestors", ancestors, least=1)))
    return [int(k) for k in ancestors]


def _check_count(name: str, value: Any, *, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < STRIDE:
        raise ValueError(f"{name}={value!r}: expected a whole number from {least} to {STRIDE - 1}")
    return value
