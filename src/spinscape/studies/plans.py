"""What `explore` would do, how long and how large: measured on a little of each kind of work."""

import math
import resource
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from spinscape.clusters import Workers
from spinscape.glass.matching.orbits import orbit_distances
from spinscape.glass.paths.interpolation import KINDS, permutation_paths
from spinscape.glass.walking import moves
from spinscape.glass.walking.walks import walk
from spinscape.landscape.energy import Landscape
from spinscape.nets import symmetry
from spinscape.nets.datasets import Data, Split
from spinscape.nets.initialisation import initial_points
from spinscape.nets.training import train
from spinscape.nets.weightspace import WeightSpace
from spinscape.studies.conducting import study_of
from spinscape.studies.exploration import CHUNK, WALKERS, Study
from spinscape.studies.hyper import CHECKS_PER_EPOCH, grid, rugged_cells

__all__ = ["PlannedPart", "plan"]

STEPS = 6
"""Steps that are timed of a training and of a walk."""

SAMPLE = 12
"""Networks among which distances are timed."""


class PlannedPart(NamedTuple):
    """One row of a plan."""

    part: str
    work: str
    seconds: float
    megabytes: float


def plan(
    *args: Any,
    workers: int | None = 1,
    backend: str = "loky",
    address: str | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Say what `exploration.explore` would do with the same arguments, without doing it.

    A few training steps, energies and distances are timed on networks of the planned size; training
    that stops at a loss counts in full, so the whole is rather too long than too short.

    Returns
    -------
    dict
        ``parts``: a list of rows (`PlannedPart` as dict); ``seconds``, ``megabytes`` (the largest)
        and ``left_out`` of the whole.
    """
    study = study_of(Study, *args, **options)
    Workers(workers, backend, address)  # refuses what cannot be
    rows = [_population(study)]
    planners: dict[str, Callable[[Study], PlannedPart]] = {
        "walk": _walk,
        "permutation": _permutation,
        "hierarchy": _hierarchy,
        "ruggedness": _ruggedness,
    }
    rows += [planners[name](study) for name in study.protocols]
    shared = max(1, workers or torch.get_num_threads())
    return {
        "parts": [row._asdict() for row in rows],
        "seconds": sum(row.seconds for row in rows),
        "megabytes": _resident() + shared * max(row.megabytes for row in rows),
        "left_out": study.left_out,
    }


def _population(study: Study) -> PlannedPart:
    if study.source.checkpoints:
        count = len(study.source.checkpoints)
        points = _points(study, count=min(count, SAMPLE))
        seconds = _timed(lambda: study.landscape.evaluate(points)) * count / len(points)
        return PlannedPart("population", f"read {count} networks", seconds, _bytes(points, count))
    settings = study.settings
    steps = settings.epochs * _steps(study, settings.batch_size)
    rows = min(CHUNK, settings.replicas)
    seconds = _step_seconds(study, study.settings.width, rows, settings.batch_size) * steps
    seconds += settings.epochs * _evaluation_seconds(study, study.settings.width, rows)
    work = f"train {settings.replicas} networks, {settings.epochs} epochs"
    # Points, gradients and the optimiser's memory of a piece, and all points at the end.
    megabytes = _bytes(_points(study, count=1), 6 * rows + 3 * settings.replicas)
    return PlannedPart("population", work, seconds * settings.replicas / rows, megabytes)


def _walk(study: Study) -> PlannedPart:
    settings = study.settings
    points = _points(study, count=min(WALKERS, settings.walkers))
    move = moves.FilterGaussian(settings.walk_step, WeightSpace(study.module).filters)

    def seconds(rule: str, **options: Any) -> float:
        few = _timed(lambda: walk(study.landscape, points, rule=rule, move=move, **options))
        return few * settings.walkers / len(points)

    thermal = {"temperature": study.temperature, "steps": STEPS, "record": 2}
    total = settings.walk_steps * seconds("thermal", **thermal) / STEPS
    total += settings.walk_steps * seconds("free", steps=STEPS, record=2) / STEPS
    total += seconds("free", steps=1, record=2, probes=2) * settings.probes / 2
    work = f"{settings.walkers} walkers free and thermal, {settings.walk_steps} steps each"
    return PlannedPart("walk", work, total, _bytes(points, 6 * len(points)))


def _permutation(study: Study) -> PlannedPart:
    settings = study.settings
    points = _points(study, count=SAMPLE)

    def few() -> object:
        return permutation_paths(
            study.landscape, points, pairs=SAMPLE, resolution=settings.resolution
        )

    replicas = len(study.source.checkpoints) or settings.replicas
    pairs = min(settings.pairs, replicas * (replicas - 1) // 2)
    work = f"{pairs} paths of {len(KINDS)} kinds, {settings.resolution} points each"
    return PlannedPart("permutation", work, _timed(few) * pairs / SAMPLE, _bytes(points, 8 * pairs))


def _hierarchy(study: Study) -> PlannedPart:
    replicas = len(study.source.checkpoints) or study.settings.replicas
    points = _points(study, count=SAMPLE)
    found = symmetry.of(study.module)
    few = _timed(lambda: orbit_distances(found, points)) / (SAMPLE * (SAMPLE - 1))
    sets = 2 * study.settings.surrogates + 4
    work = f"distances of {replicas} networks and of {sets - 4} surrogate sets"
    seconds = few * replicas * (replicas - 1) * sets
    return PlannedPart("hierarchy", work, seconds, _bytes(points, 6 * replicas))


def _ruggedness(study: Study) -> PlannedPart:
    settings = study.settings
    if study.source.checkpoints:
        count = len(study.source.checkpoints)
        seconds = _slices_seconds(study, settings.width) * count
        points = _points(study, count=1)
        work = f"slices and local energy of {count} networks"
        return PlannedPart("ruggedness", work, seconds, _bytes(points, 3 * count))
    rows = len(grid(settings))
    widths = settings.hyper_widths if study.source.model is None else (settings.width,)
    seconds = 0.0
    for width in widths:
        seconds += len(settings.hyper_batch_sizes) * rows * _slices_seconds(study, width)
        for size in settings.hyper_batch_sizes:
            steps = settings.hyper_epochs * _steps(study, size)
            seconds += steps * _step_seconds(study, width, rows, size)
            checks = settings.hyper_epochs * CHECKS_PER_EPOCH
            seconds += checks * _evaluation_seconds(study, width, rows)
    cells = len(rugged_cells(study.source, settings, study.seed))
    work = f"train {cells * rows} networks to equal loss, at most {settings.hyper_epochs} epochs"
    points = _points(study, max(widths), 1)
    return PlannedPart(
        "ruggedness", work, seconds, _bytes(points, (6 + settings.directions) * rows)
    )


def _slices_seconds(study: Study, width: int) -> float:
    """Seconds for the energies that one network's slices and local energy take."""
    points = _points(study, width, SAMPLE)
    x, y = study.source.data.train
    count = study.settings.landscape_samples
    landscape = Landscape(study.source.module(width), x[:count], y[:count])
    energies = 41 * study.settings.directions + 64
    return _timed(lambda: landscape.loss(points)) * energies / SAMPLE


def _step_seconds(study: Study, width: int, replicas: int, batch_size: int) -> float:
    data = study.source.data
    few = Split(*(values[: STEPS * batch_size] for values in data.train))
    first = Split(*(values[:2] for values in data.train))
    small = Data(few, first, first, "timing", data.classes)

    def run(epochs: int) -> object:
        return train(
            study.source.module(width),
            small,
            replicas=replicas,
            epochs=epochs,
            batch_size=batch_size,
            evaluate_every=sys.maxsize,
        )

    more = _timed(lambda: run(4)) - _timed(lambda: run(1))
    return max(more, 0.0) / 3 / math.ceil(len(few.x) / batch_size)


def _evaluation_seconds(study: Study, width: int, replicas: int) -> float:
    points = _points(study, width, min(replicas, SAMPLE))
    data = study.source.data
    landscape = Landscape(study.source.module(width), *data.train)
    share = replicas / len(points) * (1 + len(data.validation.x) / len(data.train.x))
    return _timed(lambda: landscape.evaluate(points)) * share


def _points(study: Study, width: int | None = None, count: int = SAMPLE) -> Tensor:
    module = study.source.module(study.settings.width if width is None else width)
    point = WeightSpace(module).point(module)
    if study.source.model is None:
        return initial_points(module, range(count))
    generator = torch.Generator().manual_seed(0)
    return point + 0.01 * torch.randn(count, len(point), generator=generator, dtype=point.dtype)


def _steps(study: Study, batch_size: int) -> int:
    return math.ceil(len(study.source.data.train.x) / batch_size)


def _bytes(points: Tensor, count: float) -> float:
    """Megabytes of so many points."""
    return count * points.shape[-1] * points.element_size() / 2**20


def _resident() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _timed(function: Callable[[], object]) -> float:
    """Seconds of the second of two calls: the first warms up."""
    function()
    began = time.perf_counter()
    function()
    return time.perf_counter() - began
