"""Runs made up by formula, to the schemas of the protocols: the report is tested without physics.

The shapes resemble what real runs show, so that the page can be looked at, too:
`python tests/synthetic_run.py FOLDER` writes one, and into `FOLDER/given` one of given networks.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import scipy.cluster.hierarchy as sch
import xarray as xr
from scipy.spatial.distance import pdist, squareform

from spinscape.findings import Finding

N = 50


@dataclass
class SyntheticRun:
    """What the report asks of a run."""

    path: Path
    config: dict[str, Any]
    findings: list[Finding]
    parts: Mapping[str, xr.Dataset] = field(default_factory=dict)
    study: str = "explore"

    def part_names(self) -> list[str]:
        return list(self.parts)

    def dataset(self, name: str) -> xr.Dataset:
        return self.parts[name]


def synthetic_run(path: Path, *, replicas: int = 24, seed: int = 0) -> SyntheticRun:
    """A run with all parts and findings of every verdict."""
    config = {
        "preset": "quick",
        "data": "digits",
        "seed": seed,
        "model": "",
        "checkpoints": [],
        "left_out": {},
        "settings": {"width": 16, "replicas": replicas, "epochs": 40, "learning_rate": 0.1},
    }
    parts = {
        "population": population(replicas, seed),
        "walk/free": walk(seed, temperature=None),
        "walk/thermal": walk(seed + 1, temperature=1e-3),
        "permutation": permutation(seed),
        "hierarchy": hierarchy(replicas, seed),
        "ruggedness": ruggedness(seed),
    }
    return SyntheticRun(path, config, findings(), parts)


def given_run(path: Path, *, replicas: int = 24, seed: int = 0) -> SyntheticRun:
    """A run of networks that were trained elsewhere, of an architecture whose scale is unknown."""
    run = synthetic_run(path, replicas=replicas, seed=seed)
    run.config |= {
        "model": "nets.py:build",
        "checkpoints": {f"{k}.safetensors": f"{k:016x}" for k in range(replicas)},
        "left_out": {"generalisation": "these networks were trained elsewhere"},
    }
    trained = run.parts["population"]
    curves = [name for name in trained if str(name).startswith("curve")]
    files = ("replica", list(run.config["checkpoints"]), {"long_name": "file", "units": "1"})
    population = trained.drop_vars([*curves, "seed", "epochs_run", "epoch"])
    settings = ("learning_rate", "batch_size", "weight_decay", "width", "reached", "tau_roughness")
    measured = run.parts["ruggedness"].drop_vars(settings)
    measured["train_loss"] = measured["train_loss"] * np.linspace(1, 3, measured.sizes["replica"])
    run.parts = {
        **run.parts,
        "population": population.assign(checkpoint=files),
        "ruggedness": measured.assign_attrs(arguments='{"balanced": false}'),
    }
    run.findings = [finding for finding in run.findings if finding.protocol != "ruggedness"]
    return run


def population(
    replicas: int, seed: int, epochs: int = 40, evaluations: int | None = None
) -> xr.Dataset:
    """Replicas whose loss falls as a power of the epoch; one diverged, one stopped early."""
    generator = np.random.default_rng(seed)
    speed = generator.uniform(0.9, 1.3, (replicas, 1))
    times = evaluations or epochs
    epoch = np.arange(1, times + 1) * epochs / times
    train = 2.3 * epoch**-speed * np.exp(0.05 * generator.normal(size=(replicas, times)))
    wrong = 0.03 + 0.85 * epoch**-speed + 0.003 * generator.normal(size=(replicas, times))
    train[1, times // 2 :] = wrong[1, times // 2 :] = np.nan
    diverged = np.arange(replicas) == 0
    train[0, 5:] = np.nan
    test = 0.04 + 0.008 * generator.normal(size=replicas)
    variables = {
        "point": (("replica", "n"), generator.normal(size=(replicas, N)), "weights", "1"),
        "seed": (("replica",), np.arange(replicas), "seed", "1"),
        "epochs_run": (("replica",), np.full(replicas, epochs), "epochs run", "1"),
        "diverged": (("replica",), diverged, "loss ran away", "1"),
        "curve_train_loss": (("replica", "epoch"), train, "training loss", "nats"),
        "curve_validation_loss": (("replica", "epoch"), 1.2 * train, "validation loss", "nats"),
        "curve_validation_error": (("replica", "epoch"), wrong, "validation error", "1"),
        "train_loss": (("replica",), np.full(replicas, 0.02), "training loss", "nats"),
        "test_loss": (("replica",), np.full(replicas, 0.14), "test loss", "nats"),
        "train_error": (("replica",), 0.2 * test, "training error", "1"),
        "test_error": (("replica",), test, "test error", "1"),
    }
    return dataset(variables, protocol="population").assign_coords(epoch=epoch)


def walk(seed: int, temperature: float | None, walkers: int = 12, steps: int = 300) -> xr.Dataset:
    """Free walkers on steepening ground, or thermal ones that settle."""
    generator = np.random.default_rng(seed)
    step = np.arange(steps + 1)
    noise = generator.normal(size=(walkers, steps + 1)).cumsum(1) * 1e-4
    distance = 0.1 * np.sqrt(step) * (1 + 0.05 * generator.normal(size=(walkers, 1)))
    if temperature is None:
        energy = 0.02 + 1e-3 * step + 4e-6 * step**2 + np.abs(noise) * step / 30
    else:
        energy = 0.02 + 0.03 * (1 - np.exp(-step / 60)) + np.abs(noise)
        distance = distance / np.sqrt(1 + step / 80)
    variables = {
        "energy": (("walker", "step"), energy, "loss", "nats"),
        "displacement": (("walker", "step"), distance, "distance from the start", "1"),
        "overlap": (("walker", "step"), 1 / np.sqrt(1 + distance**2 / 9), "overlap", "1"),
        "acceptance": (("walker",), np.full(walkers, 0.6), "moves accepted", "1"),
        "point": (("walker", "n"), generator.normal(size=(walkers, N)), "weights", "1"),
    }
    if temperature is None:
        variables["quadratic_law"] = (("step",), 1e-3 * step, "rise foretold", "nats")
    found = dataset(variables, protocol="walk").assign_coords(step=step)
    return found if temperature is None else found.assign_attrs(temperature=temperature)


def permutation(seed: int, paths: int = 30) -> xr.Dataset:
    """Paths with a wall for copies and strangers and nearly none after alignment."""
    generator = np.random.default_rng(seed)
    kinds = ["own copy", "independent", "aligned"]
    lam = np.linspace(0, 1, 25)
    height = np.array([0.9, 1.0, 0.08])[:, None] * generator.gamma(12, 1 / 12, (3, paths))
    loss = 0.02 + height[..., None] * np.sin(np.pi * lam) ** 2
    variables = {
        "loss": (("kind", "path", "lam"), loss, "loss", "nats"),
        "error": (("kind", "path", "lam"), 0.02 + 0.5 * (loss - 0.02), "error", "1"),
        "barrier": (("kind", "path"), height, "barrier", "nats"),
        "distance": (("kind", "path"), 8 + height, "distance of the ends", "1"),
        "pair": (("kind", "path", "end"), np.zeros((3, paths, 2), int), "replicas", "1"),
    }
    return dataset(variables, protocol="permutation_paths").assign_coords(kind=kinds, lam=lam)


def hierarchy(replicas: int, seed: int, surrogates: int = 60) -> xr.Dataset:
    """Points without families, and surrogates of the same kind."""
    generator = np.random.default_rng(seed)
    sets = [generator.normal(size=(replicas, 400)) for _ in range(3)]
    distances, linkages, orders = zip(*(_clustered(points) for points in sets), strict=True)
    nulls = ["norm-matched", "star"]
    k_null = generator.normal([[0.70], [0.66]], 0.02, (2, surrogates))
    mean_null = generator.normal([[28.4], [27.9]], 0.05, (2, surrogates))
    square = ("null", "replica", "other")
    variables = {
        "distance": (("replica", "other"), distances[0], "distance after alignment", "1"),
        "linkage": (("merge", "column"), linkages[0], "linkage", "1"),
        "order": (("replica",), orders[0], "leaf order", "1"),
        "K": ((), 0.69, "K", "1"),
        "K_null": (("null", "surrogate"), k_null, "K of surrogates", "1"),
        "mean_distance": ((), 28.1, "mean distance", "1"),
        "mean_distance_null": (("null", "surrogate"), mean_null, "mean distance", "1"),
        "surrogate_distance": (square, np.stack(distances[1:]), "distance", "1"),
        "surrogate_linkage": (("null", "merge", "column"), np.stack(linkages[1:]), "linkage", "1"),
        "surrogate_order": (("null", "replica"), np.stack(orders[1:]), "leaf order", "1"),
        "cluster": (("replica",), np.arange(replicas) % 2, "top-level cluster", "1"),
    }
    return dataset(variables, protocol="hierarchy").assign_coords(null=nulls)


def _clustered(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    condensed = pdist(points)
    linkage = sch.linkage(condensed, "average")
    return squareform(condensed), linkage, sch.leaves_list(linkage)


def ruggedness(seed: int, replicas: int = 36, directions: int = 6) -> xr.Dataset:
    """Networks of three learning rates; the last two did not reach the loss aimed at."""
    generator = np.random.default_rng(seed)
    lam = np.linspace(-0.5, 0.5, 41)
    rough = generator.gamma(9, 1 / 9, replicas)
    curvature = rough[:, None, None] * generator.gamma(20, 1 / 20, (replicas, directions, 1))
    variation = curvature[..., 0] * 0.5
    test = 0.03 + 0.004 * rough + 0.003 * generator.normal(size=replicas)
    rates = np.resize([0.05, 0.1, 0.2], replicas)
    replica = ("replica",)
    lines = ("replica", "direction", "lam")
    variables = {
        "slice_loss": (lines, 0.05 + 4 * curvature * lam**2, "loss", "nats"),
        "total_variation": (("replica", "direction"), variation, "total variation", "1"),
        "roughness": (replica, variation.mean(1), "roughness", "1"),
        "rugged_slices": (replica, np.resize([0.0, 1 / 6, 1 / 6], replicas), "slices", "1"),
        "local_energy": (replica, 0.01 * rough**2, "local energy", "nats"),
        "test_error": (replica, test, "test error", "1"),
        "train_loss": (replica, np.full(replicas, 0.05), "training loss", "nats"),
        "learning_rate": (replica, rates, "learning rate", "1"),
        "batch_size": (replica, np.full(replicas, 64), "batch size", "1"),
        "weight_decay": (replica, np.resize([0.0, 1e-4], replicas), "weight decay", "1"),
        "width": (replica, np.full(replicas, 16), "width", "1"),
        "reached": (replica, np.arange(replicas) < replicas - 2, "reached the loss", "1"),
        "diverged": (replica, np.zeros(replicas, bool), "loss ran away", "1"),
        "tau_roughness": ((), 0.31, "Kendall τ of roughness and test error", "1"),
    }
    found = dataset(variables, protocol="ruggedness").assign_coords(lam=lam)
    return found.assign_attrs(arguments='{"balanced": true}')


def dataset(variables: Mapping[str, tuple], *, protocol: str) -> xr.Dataset:
    """Dataset from (dimensions, values, long name, units)."""
    return xr.Dataset(
        {
            name: (dims, values, {"long_name": words, "units": units})
            for name, (dims, values, words, units) in variables.items()
        },
        attrs={"protocol": protocol, "arguments": "{}", "seed": 0},
    )


def findings() -> list[Finding]:
    """One finding of each verdict and one for each protocol."""
    return [
        Finding(
            protocol="walk",
            question="Does the loss of a free walker rise as a smooth bowl foretells?",
            statement="The loss rises 2.3 times as fast as the curvature at the start foretells.",
            value=2.3,
            low=1.9,
            high=2.8,
            level=0.95,
            null="a quadratic bowl with the same curvature, ratio 1",
            null_value=1.0,
            rule="supported if the whole interval of the ratio lies above 1.",
            verdict="supported",
        ),
        Finding(
            protocol="permutation",
            question="Does matching hidden units remove the barrier between two solutions?",
            statement="Matching hidden units removes 92 % of the barrier.",
            value=0.92,
            low=0.9,
            high=0.94,
            level=0.95,
            null="a random matching removes nothing",
            null_value=0.0,
            p=0.001,
            rule="supported if at least half of the barrier goes and the interval excludes 0.",
            verdict="supported",
        ),
        Finding(
            protocol="hierarchy",
            question="Do the solutions form families within families?",
            statement="The solutions are no more tree-like than surrogates without any families.",
            value=0.69,
            null="norm-matched and star surrogates; the smaller of the two means is shown",
            null_value=0.66,
            p=0.83,
            rule="supported only if K is below both nulls (p < 0.01) and ≤ 0.7 × each mean.",
            verdict="not supported",
        ),
        Finding(
            protocol="ruggedness",
            question="Do networks on smoother ground make fewer mistakes on new data?",
            statement="Rougher networks tend to err more, but the interval includes no relation.",
            value=0.11,
            low=-0.13,
            high=0.33,
            level=0.95,
            null="no relation, τ = 0",
            null_value=0.0,
            rule="supported if the interval lies above 0, not supported if below.",
            verdict="undecided",
        ),
    ]


if __name__ == "__main__":
    from spinscape.report import page

    folder = Path(sys.argv[1])
    (folder / "given").mkdir(parents=True, exist_ok=True)
    for run in (synthetic_run(folder, replicas=64), given_run(folder / "given")):
        print(page.write(run))  # type: ignore[arg-type]
