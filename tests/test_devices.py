"""Every protocol takes the device from the points, and gives there what it gives on the CPU.

Needs an accelerator; without one these tests are skipped, but for the one that runs the cases on
the CPU, so that they do not rot.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

import spinscape as ss
from spinscape import glass
from spinscape.nets import datasets
from spinscape.nets.datasets import Data, Split

WIDTH = 6
BENDING = glass.Bending(steps=3, learning_rate=0.003, samples_per_step=2, batch_size=16, checks=2)


def filters(landscape):
    return landscape.space.filters


def walked(landscape, points, move, **options):
    return glass.walk(landscape, points, move=move, steps=8, record=4, seed=1, **options)


def quenched(landscape, points):
    data = data_on(landscape.x.device)
    left = glass.displaced(points[:2], [0.1, 0.2], seed=0)
    return glass.quench(landscape, data, points[:2], left, epochs=1, seed=0)


CASES = {
    "free": lambda e, p: walked(e, p, glass.Gaussian(0.02), probes=4, errors=True, waiting=[0, 2]),
    "thermal": lambda e, p: walked(
        e, p, glass.FilterGaussian(0.1, filters(e)), rule="thermal", temperature=0.01, burn_in=4
    ),
    "threshold": lambda e, p: walked(
        e, p, glass.Gaussian(0.02), rule="threshold", threshold=(e.loss(p) + 0.1).tolist()
    ),
    "langevin": lambda e, p: walked(
        e, p, glass.Langevin(0.02), rule="thermal", temperature=0.01, partners=True
    ),
    "single units": lambda e, p: walked(
        e, p, glass.SingleUnit(0.05, ridge=1e-3), rule="thermal", temperature=0.01
    ),
    "align": lambda e, p: glass.align(e.module, p[0], p[1]),
    "align by activations": lambda e, p: glass.align(
        e.module, p[0], p[1], method="activations", x=e.x
    ),
    "barrier": lambda e, p: glass.barrier(e, p[0], p[1], resolution=5),
    "paths": lambda e, p: glass.permutation_paths(e, p, pairs=4, resolution=5),
    "copies": lambda e, p: glass.partial_copies(e, p, resolution=5),
    "all pairs": lambda e, p: glass.barriers_of_all_pairs(e, p, aligned=True, resolution=5),
    "repair": lambda e, p: glass.repaired_midpoints(e, p, pairs=4),
    "bent": lambda e, p: glass.bent_paths(e, p, pairs=3, bending=BENDING, resolution=5),
    "permutation points": lambda e, p: glass.permutation_point_paths(
        e, p, swaps=1, bending=BENDING, resolution=5
    ),
    "hierarchy": lambda e, p: glass.hierarchy(e.module, p, surrogates=3, seed=0),
    "agreement": lambda e, p: glass.hierarchy(
        e.module, p, distance="agreement", landscape=e, surrogates=3, seed=0
    ),
    "cka": lambda e, p: glass.hierarchy(
        e.module, p, distance="cka", landscape=e, surrogates=3, seed=0
    ),
    "ruggedness": lambda e, p: glass.ruggedness(
        e,
        p,
        directions=3,
        measures=(
            "roughness",
            "local_energy",
            "walk_ruggedness",
            "adaptive_sharpness",
            "relative_flatness",
            "hessian_trace",
            "local_entropy",
            "learning_coefficient",
        ),
        options={"learning_coefficient": {"settle": 1, "steps": 4}},
        seed=0,
    ),
    "quenches": quenched,
    "clones": lambda e, p: glass.siblings(
        e,
        glass.clone(e.module, data_on(p.device), ancestors=2, children=2, waiting=[0, 2], epochs=1),
        resolution=5,
    ),
    "trained": lambda e, p: ss.train(
        e.module,
        data_on(p.device),
        replicas=3,
        epochs=6,
        batch_size=16,
        learning_rate=[0.1, 0.2, 0.3],
        stop_at=0.5,
        patience=3,
        snapshots=2,
        average_from=0.5,
        indices=[torch.arange(100)] * 3,
        keep_state=True,
    ),
    "adam": lambda e, p: ss.train(e.module, data_on(p.device), optimizer="adam", epochs=2),
    "population": lambda e, p: ss.population(e.module, p, data_on(p.device)),
    "thermal average": lambda e, p: glass.thermal_average(
        e, p, temperature=0.01, move=glass.Langevin(0.02), steps=4, seed=0
    ),
    "flattened": lambda e, p: glass.flattened(
        e.module,
        data_on(p.device),
        replicas=2,
        seed=0,
        epochs=8,
        batch_size=16,
        directions=2,
        walk_samples=40,
    ),
}
WANDER = {"langevin", "single units", "bent", "permutation points", "quenches", "clones"}
WANDER |= {"flattened", "ruggedness", "trained", "adam", "thermal average"}
"""Long chains of rounding: of these only kinds, shapes and finiteness are compared."""


def data_on(device):
    """Digits on a device."""
    data = datasets.load("digits", seed=0, limit=200)
    splits = (data.train, data.validation, data.test)
    moved = [Split(split.x.to(device), split.y.to(device)) for split in splits]
    return Data(*moved, data.name, data.classes)


def result(case, device):
    """What a protocol gives for a few trained networks in double precision on a device."""
    data = datasets.load("digits", seed=0, limit=200)
    module = ss.models.mlp(64, [WIDTH], 10)
    trained = ss.train(module, data, replicas=6, epochs=4, batch_size=16, seed=0)
    points = ss.points(trained).double().to(device)
    x, y = (values[:60].to(device) for values in data.train)
    return CASES[case](ss.Landscape(module, x, y), points)


@pytest.mark.parametrize("case", CASES)
def test_cases_run_on_the_cpu(case):
    assert result(case, "cpu").attrs["source"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no accelerator")
@pytest.mark.parametrize("case", CASES)
def test_an_accelerator_gives_what_the_cpu_gives(case):
    here, there = result(case, "cpu"), result(case, "cuda")
    assert dict(here.sizes) == dict(there.sizes)
    for name in here.variables:
        one, two = here[name].values, there[name].values
        assert one.dtype == two.dtype, name
        if not np.issubdtype(one.dtype, np.floating):
            continue
        np.testing.assert_array_equal(np.isfinite(one), np.isfinite(two), err_msg=name)
        if case not in WANDER:
            np.testing.assert_allclose(one, two, rtol=1e-6, atol=1e-9, err_msg=name)
