"""`spins` and `reproduce barney2024`: networks as spin glasses while they train.

Continuous (ReLU) and binarized networks of three hidden layers, several seeds of each; phases,
critical temperatures, TAP solutions, spectra and overlaps at checkpoints that resolve the first
steps one by one; and, for the paper's claims, networks at several output scales from lazy to rich.
The recipe is ours: of arXiv 2408.06421 neither widths nor learning rates are known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import xarray as xr
from torch import nn

from spinscape.glass.records import labelled, provenance
from spinscape.nets import losses
from spinscape.nets import models as networks
from spinscape.nets.initialisation import kaiming_normal
from spinscape.nets.training import train
from spinscape.nets.weightspace import points as points_of
from spinscape.spins import histories, phase_findings, solution_findings
from spinscape.spins.couplings import SpinModel
from spinscape.spins.laziness import kernel_change, weight_change
from spinscape.spins.phases import phase
from spinscape.spins.replica import critical_temperature
from spinscape.spins.spectra import spectrum
from spinscape.statistics import Finding
from spinscape.store import Run
from spinscape.studies.conducting import Conducted

__all__ = ["SPIN_PRESETS", "Barney2024", "SpinSettings", "SpinStudy", "along_replicas"]

NETS = {"relu": "ReLU", "binarized": "binarized"}
CHUNK = 4
"""Replicas trained as one piece; fixed, so that no number depends on the workers."""

KERNEL_SAMPLES = 32
LAZINESS = {
    "weight_change": "‖W − W₀‖/‖W₀‖",
    "kernel_change": "1 − cosine of tangent kernels",
    "excess": "T_c / T_null",
    "T_c": "critical temperature",
    "outliers": "eigenvalues beyond the null",
}
GAIN = 2.0
"""C of Kaiming's normal initialisation."""


@dataclass(frozen=True)
class SpinSettings:
    """Everything that decides the numbers of `spins` and `reproduce barney2024`."""

    width: int = 100
    depth: int = 3  # hidden layers
    replicas: int = 4  # seeds of each kind of network
    epochs: int = 40
    batch_size: int = 64
    relu_learning_rate: float = 0.03
    binarized_learning_rate: float = 0.005
    momentum: float = 0.9
    relu_accuracy: float = 0.94  # that the median must reach on the test split
    binarized_accuracy: float = 0.91
    sample_limit: int = 0  # samples kept of the data, stratified; 0 keeps all
    first_steps: int = 10  # looked at one by one
    checkpoints: int = 16  # beside these, log-spaced
    permutations: int = 4  # of the weights: the nulls of a phase
    tap_checkpoints: int = 2
    tap_networks: int = 4
    tap_starts: int = 8
    tap_heats: tuple[float, ...] = (0.9, 0.7)  # T / T_c
    spectrum_nulls: int = 8
    bootstraps: int = 50  # of the goodness of fit of tails
    overlap_networks: int = 4
    overlap_replicas: int = 8
    overlap_sweeps: int = 1000
    overlap_heats: tuple[float, ...] = (0.4, 0.52, 0.64, 0.76, 0.88, 1.0, 1.2, 1.5, 2.0)
    output_scales: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0, 8.0)
    lazy_replicas: int = 3
    lazy_epochs: int = 10


SPIN_PRESETS: dict[str, SpinSettings] = {
    "quick": SpinSettings(),
    "standard": SpinSettings(
        replicas=8,
        epochs=20,
        checkpoints=20,
        tap_checkpoints=4,
        tap_networks=4,
        tap_starts=20,
        tap_heats=(0.9, 0.7, 0.5),
        bootstraps=100,
        overlap_networks=4,
        overlap_sweeps=3000,
        lazy_replicas=4,
    ),
    "paper": SpinSettings(
        width=256,
        replicas=16,
        epochs=40,
        binarized_learning_rate=0.003,
        checkpoints=32,
        permutations=8,
        tap_checkpoints=8,
        tap_networks=8,
        tap_starts=60,
        tap_heats=(0.95, 0.9, 0.7, 0.5),
        spectrum_nulls=16,
        bootstraps=400,
        overlap_networks=8,
        overlap_replicas=16,
        overlap_sweeps=20_000,
        output_scales=(0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0),
        lazy_replicas=8,
        lazy_epochs=20,
    ),
}


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
        spaced = np.geomspace(max(first, 1), last, settings.checkpoints).round().astype(int)
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
            found += phase_findings.growth_findings(by_net[net], words, seed=seed)
        return [*found, phase_findings.alike_finding(by_net, NETS, seed=seed)]

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


@dataclass
class Barney2024(SpinStudy):
    """The same, and networks from lazy to rich."""

    name: ClassVar[str] = "barney2024"

    @property
    def protocols(self) -> dict[str, Callable[[Run], list[Finding]]]:
        """Those of `spins`, and laziness."""
        return {**super().protocols, "laziness": self.laziness}

    def laziness(self, run: Run) -> list[Finding]:
        """ReLU networks whose outputs are multiplied by a factor before the loss."""
        settings = self.settings
        cells = {
            f"laziness_pieces/scale={scale:g}": partial(
                _at_scale,
                self.module("relu"),
                self.source.data,
                scale,
                settings,
                self.recipe("relu"),
            )
            for scale in settings.output_scales
        }
        self._compute(run, "rich and lazy", cells)
        sweep = run.part("laziness", _along_scales, run, list(cells))
        return phase_findings.lazy_findings(sweep, seed=self.seed)


def _at_scale(
    module: nn.Module, data: Any, scale: float, settings: SpinSettings, recipe: Mapping[str, Any]
) -> xr.Dataset:
    """Train at an output scale α, the learning rate over α², and compare end with start."""
    own = {
        **recipe,
        "loss": losses.Scaled(losses.CrossEntropy(), scale),
        "learning_rate": recipe["learning_rate"] / scale**2,
        "epochs": settings.lazy_epochs,
    }
    trained = train(module, data, replicas=settings.lazy_replicas, snapshots=[0], **own)
    starts = points_of(trained["snapshot"].isel(snapshot=0))
    ends = points_of(trained)
    rows: dict[str, list[float]] = {}
    x = data.train.x[:KERNEL_SAMPLES]
    for start, end, lost in zip(starts, ends, trained["diverged"].values, strict=True):
        found = dict.fromkeys(
            ("weight_change", "kernel_change", "excess", "T_c", "outliers"), np.nan
        )
        if not lost:
            model = SpinModel.from_point(module, end)
            one = phase(model, permutations=settings.permutations, seed=recipe["seed"])
            spread = spectrum(
                model, nulls=settings.spectrum_nulls, bootstraps=0, seed=recipe["seed"]
            )
            found = {
                "weight_change": float(weight_change(start, end)),
                "kernel_change": kernel_change(module, start, end, x),
                "excess": float(one["T_c"] / one["T_null"].mean()),
                "T_c": float(one["T_c"]),
                "outliers": float(spread["outliers"]),
            }
        for name, value in found.items():
            rows.setdefault(name, []).append(value)
    variables = {
        name: labelled("replica", values, LAZINESS[name], "weights" if name == "T_c" else "1")
        for name, values in rows.items()
    }
    variables["test_error"] = labelled("replica", trained["test_error"].values, "test error")
    variables["train_loss"] = labelled("replica", trained["train_loss"].values, "training loss")
    return xr.Dataset(
        variables, {"scale": scale}, provenance("laziness", "ours", recipe["seed"], scale=scale)
    )


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


def _along_scales(run: Run, names: Sequence[str]) -> xr.Dataset:
    """Join the pieces of the sweep; networks that diverged at any scale are left out, visibly."""
    parts = [run.dataset(name) for name in names]
    joined = xr.concat(parts, "scale", combine_attrs="override")
    lost = joined["excess"].isnull().any("scale").values
    if lost.all():
        raise ValueError("laziness: networks of every seed diverged; narrow output_scales")
    kept = joined.isel(replica=np.flatnonzero(~lost))
    return kept.assign_attrs(diverged=int(lost.sum()))
