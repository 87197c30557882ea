"""`spins`: networks as spin glasses while they train.

Continuous (ReLU) and binarized networks of three hidden layers, several seeds of each; phases,
critical temperatures, TAP solutions, spectra and overlaps at checkpoints that resolve the first
steps one by one. The recipe is ours: neither widths nor learning rates of arXiv 2408.06421 are
known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import xarray as xr
from torch import nn

from spinscape.nets import models as networks
from spinscape.nets.initialisation import kaiming_normal
from spinscape.nets.training import train
from spinscape.nets.weightspace import points as points_of
from spinscape.spins import histories, phase_findings, solution_findings, training_findings
from spinscape.spins.couplings import SpinModel
from spinscape.spins.replica import critical_temperature
from spinscape.statistics import Finding
from spinscape.store import Run
from spinscape.studies.conducting import Conducted
from spinscape.studies.spin_settings import SPIN_PRESETS, SpinSettings

__all__ = ["SpinStudy", "along_replicas"]

NETS = {"relu": "ReLU", "binarized": "binarized"}
CHUNK = 4
"""Replicas trained as one piece; fixed, so that no number depends on the workers."""

GAIN = 2.0
"""C of Kaiming's normal initialisation."""


@dataclass
class SpinStudy(Conducted):
    """Both kinds of network, followed through training."""

    name: ClassVar[str] = "spins"
    presets: ClassVar[Mapping[str, SpinSettings]] = SPIN_PRESETS

    settings: SpinSettings

    @property
    def protocols(self) -> dict[str, Callable[[Run], list[Finding]]]:
        """Phases first: the temperatures of the others are shares of T_c."""
        return {
            "phases": self.phases,
            "tap": self.taps,
            "spectra": self.spectra,
            "overlaps": self.overlaps,
        }

    def module(self, net: str) -> nn.Module:
        """Return the template of one kind of network; no biases, which would be fields."""
        settings, data = self.settings, self.source.data
        return networks.mlp(
            data.inputs,
            [settings.width] * settings.depth,
            data.classes,
            activation="relu" if net == "relu" else "sign",
            bias=False,
        )

    @property
    def widths(self) -> list[int]:
        """Spins of each layer, inputs and outputs included."""
        return list(SpinModel.from_module(self.module("relu")).widths)

    @property
    def steps(self) -> list[int]:
        """Training steps at which the networks are looked at."""
        settings, samples = self.settings, len(self.source.data.train.x)
        last = settings.epochs * -(-samples // min(settings.batch_size, samples))
        first = min(settings.first_steps, last)
        spaced = np.geomspace(max(first, 1), last, settings.spaced_steps).round().astype(int)
        return sorted({*range(first + 1), *spaced.tolist()})

    def recipe(self, net: str) -> dict[str, Any]:
        """How one kind of network is trained."""
        settings = self.settings
        relu = net == "relu"
        return {
            "seed": self.seed,
            "init": kaiming_normal,
            "loss": "cross_entropy" if relu else "squared_hinge",
            "batch_size": settings.batch_size,
            "learning_rate": (
                settings.relu_learning_rate if relu else settings.binarized_learning_rate
            ),
            "momentum": settings.momentum,
            "epochs": settings.epochs,
        }

    def population(self, run: Run) -> xr.Dataset:
        """Train the replicas of both kinds in fixed chunks, and keep their checkpoints."""
        chunks = [
            range(k, min(k + CHUNK, self.settings.replicas))
            for k in range(0, self.settings.replicas, CHUNK)
        ]
        cells = {
            _piece(net, rows): partial(
                train,
                self.module(net),
                self.source.data,
                replicas=rows,
                snapshots=self.steps,
                **self.recipe(net),
            )
            for net in NETS
            for rows in chunks
        }
        self._compute(run, "training", cells)
        for net in NETS:
            names = [_piece(net, rows) for rows in chunks]
            name = "population" if net == "relu" else "population_binarized"
            found = run.part(name, _populations, run, names)
        return found

    def phases(self, run: Run) -> list[Finding]:
        """T_c and class of every checkpoint of every network."""
        settings, seed = self.settings, self.seed
        cells = {
            f"phases_pieces/{net},replica={k}": partial(
                histories.phase_history,
                models,
                self.steps,
                permutations=settings.permutations,
                seed=seed,
            )
            for net in NETS
            for k, models in self._checkpoints(run, net).items()
        }
        self._compute(run, "phases", cells)
        found = []
        untrained = {}
        by_net = {}
        for net, words in NETS.items():
            names = [name for name in cells if f"/{net}," in name]
            by_net[net] = run.part(f"phases/{net}", along_replicas, run, names)
            untrained[net] = by_net[net].isel(step=0)
            wanted = settings.relu_accuracy if net == "relu" else settings.binarized_accuracy
            trained = run.dataset("population" if net == "relu" else "population_binarized")
            found.append(
                phase_findings.accuracy_finding(
                    trained["test_error"].values.tolist(), wanted, words, seed=seed
                )
            )
        theory = critical_temperature(self.widths, GAIN)
        found.append(phase_findings.glass_finding(untrained, theory, seed=seed))
        for net, words in NETS.items():
            found += phase_findings.order_findings(by_net[net], words, seed=seed)
            found += training_findings.growth_findings(by_net[net], words, seed=seed)
        return [*found, training_findings.alike_finding(by_net, NETS, seed=seed)]

    def taps(self, run: Run) -> list[Finding]:
        """TAP solutions of a few networks at a few checkpoints."""
        settings = self.settings
        cells: dict[str, Callable[[], xr.Dataset]] = {}
        for net in NETS:
            heats = run.dataset(f"phases/{net}")["T_c"]
            for k, models in list(self._checkpoints(run, net).items())[: settings.tap_networks]:
                at = self._some(settings.tap_checkpoints)
                cells[f"tap_pieces/{net},replica={k}"] = partial(
                    histories.tap_history,
                    [models[i] for i in at],
                    [self.steps[i] for i in at],
                    heats.sel(replica=k).values[at].tolist(),
                    heats=settings.tap_heats,
                    starts=settings.tap_starts,
                    iterations=settings.tap_iterations,
                    seed=self.seed,
                )
        self._compute(run, "TAP solutions", cells)
        found = []
        for net, words in NETS.items():
            names = [name for name in cells if f"/{net}," in name]
            taps = run.part(f"tap/{net}", along_replicas, run, names)
            found += solution_findings.tap_findings(taps, words, seed=self.seed)
        return found

    def spectra(self, run: Run) -> list[Finding]:
        """Spectra before, early in and after training."""
        settings = self.settings
        at = self._some(3)
        cells = {
            f"spectra_pieces/{net},replica={k}": partial(
                histories.spectrum_history,
                [models[i] for i in at],
                [self.steps[i] for i in at],
                nulls=settings.spectrum_nulls,
                bootstraps=settings.bootstraps,
                seed=self.seed,
            )
            for net in NETS
            for k, models in self._checkpoints(run, net).items()
        }
        self._compute(run, "spectra", cells)
        found = []
        for net, words in NETS.items():
            names = [name for name in cells if f"/{net}," in name]
            spectra = run.part(f"spectra/{net}", along_replicas, run, names)
            found.append(solution_findings.spectrum_finding(spectra, words, seed=self.seed))
        return found

    def overlaps(self, run: Run) -> list[Finding]:
        """Overlaps of sampled spins before and after training, against permuted weights."""
        settings = self.settings
        at = [0, len(self.steps) - 1]
        cells: dict[str, Callable[[], xr.Dataset]] = {}
        for net in NETS:
            heats = run.dataset(f"phases/{net}")["T_c"]
            for k, models in list(self._checkpoints(run, net).items())[: settings.overlap_networks]:
                cells[f"overlaps_pieces/{net},replica={k}"] = partial(
                    histories.overlap_history,
                    [models[i] for i in at],
                    [self.steps[i] for i in at],
                    heats.sel(replica=k).values[at].tolist(),
                    heats=settings.overlap_heats,
                    replicas=settings.overlap_replicas,
                    sweeps=settings.overlap_sweeps,
                    seed=_seed_of(self.seed, k),
                )
        self._compute(run, "overlaps", cells)
        found, untrained = [], []
        for net, words in NETS.items():
            names = [name for name in cells if f"/{net}," in name]
            overlaps = run.part(f"overlaps/{net}", along_replicas, run, names)
            found.append(solution_findings.descriptor_finding(overlaps, words, seed=self.seed))
            untrained.append(overlaps.isel(step=0).sel(weights="as trained"))
        return [*found, solution_findings.sampler_finding(*self._identity(untrained[0]))]

    def _identity(self, untrained: xr.Dataset) -> tuple[np.ndarray, float]:
        """Energy per spin less what overlaps foretell, averaged over temperatures above T_c/2."""
        sizes = np.array(self.widths, float)
        some = untrained.sel(heat=[h for h in untrained["heat"].values if h > 0.5])
        beta = 1 / some["T"]
        both = some["layer_correlation"].transpose("replica", "heat", "bond")
        foreseen = -beta * (both * 0 + 1 - both).dot(
            xr.DataArray(GAIN * sizes[1:], dims="bond"), dim="bond"
        )
        energy = some["energy_per_spin"]
        gap = (energy - foreseen / sizes.sum()).mean("heat")
        return gap.values, float(abs(energy).mean())

    def _checkpoints(self, run: Run, net: str) -> dict[int, list[SpinModel]]:
        """Spin models of the replicas that did not diverge, step by step, by their numbers."""
        found: dict[int, list[SpinModel]] = {}
        module = self.module(net)
        for first in range(0, self.settings.replicas, CHUNK):
            rows = range(first, min(first + CHUNK, self.settings.replicas))
            part = run.dataset(_piece(net, rows))
            for row, number in enumerate(rows):
                if not bool(part["diverged"][row]):
                    snapshots = part["snapshot"].isel(replica=row)
                    points = points_of(snapshots.transpose("snapshot", "n"))
                    found[number] = [SpinModel.from_point(module, point) for point in points]
        if len(found) < 2:
            raise ValueError(
                f"{len(found)} of {self.settings.replicas} {NETS[net]} networks did not diverge, "
                f"and 2 are needed; lower {net}_learning_rate"
            )
        return found

    def _some(self, count: int) -> list[int]:
        """Places of checkpoints that lie evenly among all, the first and the last included."""
        return sorted({int(k) for k in np.linspace(0, len(self.steps) - 1, count).round()})


def _piece(net: str, rows: range) -> str:
    return f"training/{net},replicas={rows.start}-{rows.stop - 1}"


def _seed_of(seed: int, number: int) -> int:
    return seed * 1_000_003 + number


def _populations(run: Run, names: Sequence[str]) -> xr.Dataset:
    """Join the chunks of one kind of network, without their checkpoints."""
    parts = [run.dataset(name).drop_dims("snapshot") for name in names]
    joined = xr.concat(parts, "replica", join="outer", combine_attrs="override")
    return joined.assign_coords(replica=range(joined.sizes["replica"]))


def along_replicas(run: Run, names: Sequence[str]) -> xr.Dataset:
    """Join the pieces of the networks of one kind, which may differ in how many ends they have."""
    parts = [run.dataset(name) for name in names]
    numbers = [int(name.rpartition("=")[2]) for name in names]
    for dimension in ("end", "other"):
        if dimension in parts[0].dims:
            most = max(part.sizes[dimension] for part in parts)
            parts = [
                part.pad({dimension: (0, most - part.sizes[dimension])}, constant_values=np.nan)
                if "ends_overlap" in part
                else part
                for part in parts
            ]
    joined = xr.concat(parts, "replica", combine_attrs="override")
    return joined.assign_coords(replica=numbers)
