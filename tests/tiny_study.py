"""An exploration small enough to be run many times: seconds, and no claim about anything."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tomli_w
import torch
import xarray as xr
from safetensors.torch import save_file

from spinscape import WeightSpace, explore, points, train
from spinscape.cli import main
from spinscape.nets import datasets
from spinscape.store import Run
from spinscape.studies.exploration import TRAINING

OWN: dict[str, Any] = {
    "replicas": 8,
    "epochs": 3,
    "walkers": 12,
    "walk_steps": 20,
    "pairs": 8,
    "resolution": 5,
    "surrogates": 8,
    "directions": 3,
    "hyper_replicas": 1,
    "hyper_epochs": 2,
    "stop_at": 2.4,  # reached at once: that a loss is not reached is tested apart
    "hyper_learning_rates": [0.1, 0.3],
    "hyper_weight_decays": [0.0],
    "hyper_batch_sizes": [64],
    "landscape_samples": 100,
    "sample_limit": 300,
}
"""Settings for a network of the user's own, which has its own width."""

GIVEN = {name: value for name, value in OWN.items() if name not in TRAINING}
"""Settings for networks that are given: nothing of training."""

TINY: dict[str, Any] = {**OWN, "width": 4, "hyper_widths": [4, 8]}
"""Settings for ours. Twelve walkers make two pieces of work, and two widths two more."""

FEW: dict[str, Any] = {
    **TINY,
    "hyper_optimizers": ["sgd", "adam"],
    "longer_walks": 2,
    "few_starts": 2,
    "few_walkers": 4,
    "young_walkers": 4,
    "unit_moves": 60,
    "quenched": 2,
    "quench_temperatures": [1.0],
    "quench_steps": [2, 8],
    "quench_epochs": 1,
    "copied": 3,
    "path_widths": [3, 4],
    "width_replicas": 3,
    "bent_pairs": 2,
    "bent_steps": 4,
    "swapped": 2,
    "sets": 2,
    "set_replicas": 4,
    "functional_samples": 30,
    "clone_ancestors": 2,
    "clone_children": 2,
    "clone_waiting": 2,
    "clone_epochs": 3,
    "family_branching": [2, 2, 2],
    "flattened_replicas": 3,
    "flattened_epochs": 8,
}
"""Settings for `reproduce liao2024`."""

SPINS: dict[str, Any] = {
    "width": 12,
    "depth": 2,
    "replicas": 4,
    "epochs": 2,
    "sample_limit": 300,
    "first_steps": 2,
    "spaced_steps": 3,
    "permutations": 2,
    "tap_networks": 2,
    "tap_starts": 2,
    "tap_iterations": 40,
    "spectrum_nulls": 2,
    "bootstraps": 2,
    "overlap_networks": 2,
    "overlap_replicas": 4,
    "overlap_sweeps": 40,
    "overlap_heats": [0.6, 0.9, 1.5],
    "output_scales": [0.5, 4.0],
    "lazy_replicas": 2,
    "lazy_epochs": 1,
}
"""Settings for `spins` and `reproduce barney2024`."""

MINING: dict[str, Any] = {
    "width": 8,
    "epochs": 3,
    "sample_limit": 300,
    "mined_samples": 100,
    "held_out_samples": 50,
    "noise_directions": 3,
    "seeds": 2,
    "steps": 4,
    "surface_seeds": 1,
    "surface_steps": 2,
    "side": 11,
    "noise_planes": 3,
    "probes": 6,
    "lanczos_steps": 6,
    "sweep_s": [0.5, 1.0],
    "sweep_weights": [0.5, 2.0],
    "sweep_seeds": 2,
}
"""Settings for `mine` and `reproduce li2024-mining`."""

ASYMMETRY: dict[str, Any] = {
    "width": 2,
    "replicas": 4,
    "epochs": 1,
    "sample_limit": 300,
    "samples": 20,
    "statistics_samples": 20,
    "noise_seeds": 2,
    "points": 3,
    "ratios": 3,
    "watched": 10,
    "variants": ["norm-gaussian", "small-batch", "large-batch", "tanh"],
}
"""Settings for `reproduce li2024-asymmetry`."""

PROTOCOLS = ["walk/free", "walk/thermal", "permutation", "hierarchy", "ruggedness"]

NETS = """
from torch import nn

def build():
    return nn.Sequential(nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 10))

def other():
    return nn.Sequential(nn.Linear(64, 4), nn.Tanh(), nn.Linear(4, 10))

def convolution():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 10))

def misfit():
    return nn.Sequential(nn.Linear(7, 4), nn.ReLU(), nn.Linear(4, 10))

def three():
    return nn.Linear(64, 3)

def word():
    return "a word"

class Picky(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x):
        if len(x) > 2:
            raise LookupError("no more than two")
        return self.layer(x)

picky = Picky
"""

DATA = """
import numpy as np

def load(seed):
    x = np.random.default_rng(seed).normal(size=(300, 6))
    return x, (x[:, 0] + x[:, 1] > 0).astype(int)
"""


def toml(folder: Path, **settings: Any) -> str:
    """Write settings into a file for --config; gives its path."""
    file = folder / "settings.toml"
    file.write_text(tomli_w.dumps(settings))
    return str(file)


def written(folder: Path, name: str, text: str) -> Path:
    """Write a file of the user's; gives its path."""
    file = folder / name
    file.write_text(text)
    return file


def archive(folder: Path, name: str = "data.npz", **arrays: Any) -> Path:
    """Write a small .npz with x [200, 6] and three classes, or with other arrays."""
    generator = np.random.default_rng(0)
    made = {"x": generator.normal(size=(200, 6)), "y": np.arange(200) % 3, **arrays}
    np.savez(folder / name, **{key: value for key, value in made.items() if value is not None})
    return folder / name


def checkpoints(folder: Path, count: int) -> str:
    """Train networks of `NETS`' build and save them; gives the pattern of their files."""
    module = torch.nn.Sequential(torch.nn.Linear(64, 4), torch.nn.ReLU(), torch.nn.Linear(4, 10))
    data = datasets.load("digits", seed=0, limit=300)
    space = WeightSpace(module)
    for index, point in enumerate(points(train(module, data, replicas=count, epochs=3, seed=0))):
        space.load(module, point)
        save_file(module.state_dict(), folder / f"{index}.safetensors")
    return str(folder / "*.safetensors")


def quick_run(path: Path) -> Run:
    """Explore the tiny study into `path`, without waiting for the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        return explore("digits", out=path, **TINY)


def tree(run: Run) -> xr.DataTree:
    """The whole hierarchy of a run, as anybody opens it, in memory."""
    path = run.path / "data.zarr"
    with xr.open_datatree(path, engine="zarr", consolidated=False) as stored:
        return stored.load()


def same_numbers(one: Run, other: Run) -> None:
    """Fail unless two runs hold the same parts, bit for bit, and the same findings."""
    assert one.part_names() == other.part_names()
    xr.testing.assert_identical(tree(one), tree(other))
    assert one.findings == other.findings


class Told(NamedTuple):
    """How a command ended and what it said."""

    status: int
    out: str
    err: str


def spoken(capsys: pytest.CaptureFixture[str], *words: object) -> Told:
    """Call the command line in this process."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    assert isinstance(ended.value.code, int)
    return Told(ended.value.code, *capsys.readouterr())


def one_line(told: Told, message: str, status: int = 2) -> None:
    """Fail unless a command was refused in exactly one line that holds `message`."""
    assert told.status == status
    assert told.out == ""
    assert re.fullmatch(r"spinscape: [^\n]+\n", told.err), told.err
    assert message in told.err
