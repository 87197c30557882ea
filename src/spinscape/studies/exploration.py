"""`explore`: train a population and put the four questions of arXiv 2407.20724 to it."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
import xarray as xr
from torch import Tensor, nn

from spinscape import parallel
from spinscape.clusters import Workers
from spinscape.glass.paths import interpolation
from spinscape.glass.rugged import correlations, roughness
from spinscape.glass.trees import clustering
from spinscape.glass.walking import moves, walks, wandering
from spinscape.glass.walking.diagnostics import diagnosed
from spinscape.glass.walking.recording import join_walks
from spinscape.landscape.energy import Landscape
from spinscape.nets import populations, symmetry
from spinscape.nets.training import train
from spinscape.nets.weightspace import WeightSpace
from spinscape.nets.weightspace import points as points_of
from spinscape.statistics import Finding
from spinscape.store import Run
from spinscape.studies.conducting import TRAINING, Conducted, Progress, conduct, study_of
from spinscape.studies.hyper import rugged_cells
from spinscape.studies.presets import PRESETS, ExploreSettings
from spinscape.studies.sources import DataLike

__all__ = ["CHUNK", "TRAINING", "WALKERS", "Study", "Walkers", "explore"]

CHUNK = 32
"""Replicas trained as one piece; fixed, so that no number depends on the workers."""

WALKERS = 8
"""Walkers in one piece; likewise."""

LEAST_ROUNDINGS = 50
"""Temperatures below so many rounding errors of the loss are walked in double precision."""


def explore(
    data: DataLike = "digits",
    *,
    preset: str = "quick",
    seed: int = 0,
    model: str | nn.Module | None = None,
    checkpoints: str | Sequence[str | Path] | None = None,
    out: str | os.PathLike[str] | None = None,
    workers: int | None = 1,
    backend: str = "loky",
    address: str | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Run:
    """Train copies of a network and read its landscape as a glass.

    Parameters
    ----------
    data : str, path, (x, y) or Data
        ``"digits"``, a path (.npz with x and y, or a folder of IDX files), ``module:function``, or
        data in memory.
    preset : {"quick", "standard", "paper"}
        Starting values of all settings.
    seed : int
        Fixes every random number.
    model : str or nn.Module, optional
        ``module:function`` that returns your own network, or the network; a template, copies of
        which are trained.
    checkpoints : str or sequence of paths, optional
        A file pattern of trained weights of `model`, or their files: nothing is trained then, and
        what needs training is left out and named.
    out : path, optional
        Directory of the run; by default a name made of data, preset and configuration under
        ``runs``. The same call finds what is there and does only what is missing.
    workers : int or None
        Processes; None takes all cores, or all that a cluster has. Changes no number.
    backend : {"loky", "dask", "ray"}
        Where the workers are: processes of this machine, or a cluster that runs at `address`.
    address : str, optional
        Of the cluster's scheduler or head.
    progress : callable, optional
        Called with a part's name, pieces done and pieces planned.
    **settings
        Any field of `presets.ExploreSettings`, such as ``width=32`` or ``replicas=128``.

    Returns
    -------
    Run
        ``run.findings``, ``run.dataset(name)``, and the page at ``run.path / "page.html"``.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit, or `out` holds a run of another configuration.
    """
    study = study_of(
        Study, data, preset=preset, seed=seed, model=model, checkpoints=checkpoints, **settings
    )
    study.workers, study.progress = Workers(workers, backend, address), progress
    return conduct(study, preset, out)


class Walkers(NamedTuple):
    """Walkers of one kind: where each starts, at which solution that is, and how they walk."""

    start: Tensor
    origin: Tensor
    options: dict[str, Any]
    """Of `walk`; a tensor holds one value a walker."""

    def piece(self, rows: range) -> dict[str, Any]:
        """Arguments of `walk` for some of the walkers."""
        some = slice(rows.start, rows.stop)
        own = {
            name: value[some].tolist() if isinstance(value, Tensor) else value
            for name, value in self.options.items()
        }
        return {"points": self.start[some].clone(), **own}


@dataclass
class Study(Conducted):
    """One exploration: which parts there are, how each is computed, and what it found."""

    name: ClassVar[str] = "explore"
    presets: ClassVar[Mapping[str, ExploreSettings]] = PRESETS

    settings: ExploreSettings

    @cached_property
    def module(self) -> nn.Module:
        """The network whose landscape is explored."""
        return self.source.module(self.settings.width)

    @cached_property
    def landscape(self) -> Landscape:
        """The loss on the first training samples, as a function of the weights."""
        x, y = self.source.data.train
        count = self.settings.landscape_samples
        # Clones, because a view takes all that it views along to a worker.
        return Landscape(self.module, x[:count].clone(), y[:count].clone())

    @property
    def temperature(self) -> float:
        """Temperature at which a bowl of n dimensions would hold the thermal energy n·T/2."""
        return 2 * self.settings.thermal_energy / self.landscape.n

    @property
    def protocols(self) -> dict[str, Callable[[Run], list[Finding]]]:
        """The protocols that can be run on this source."""
        every = {
            "walk": self.walk,
            "permutation": self.permutation,
            "hierarchy": self.hierarchy,
            "ruggedness": self.ruggedness,
        }
        return {name: part for name, part in every.items() if name not in self.left_out}

    @cached_property
    def left_out(self) -> dict[str, str]:
        """The protocols that cannot be run, and why."""
        reasons = {}
        files = len(self.source.checkpoints)
        if files:
            reasons["generalisation"] = (
                "whether smoother networks generalise better is asked of networks that were "
                "trained to equal loss, and these were trained elsewhere"
            )
        for name, least in (("permutation", 2), ("hierarchy", 4)):
            if files and files < least:
                reasons[name] = f"needs {least} networks, got {files}"
        try:
            symmetry.of(self.module)
        except TypeError as reason:
            unknown = str(reason).removesuffix(", or pass symmetry=")
            reasons |= dict.fromkeys(
                ("permutation", "hierarchy"),
                f"which hidden units may be exchanged is not known here: {unknown}",
            )
        return reasons

    def recipe(self) -> dict[str, Any]:
        """How the population is trained."""
        names = ("epochs", "batch_size", "learning_rate", "momentum", "weight_decay", "schedule")
        settings = {name: getattr(self.settings, name) for name in names}
        return {"seed": self.seed, "init": self.source.init, **settings}

    def population(self, run: Run) -> xr.Dataset:
        """Train the replicas in fixed chunks, or read those that were given."""
        if self.source.checkpoints:
            files = self.source.checkpoints
            return run.part(
                "population", populations.population, self.module, files, self.source.data
            )
        cells = {
            f"training/replicas={rows.start}-{rows.stop - 1}": partial(
                train, self.module, self.source.data, replicas=rows, **self.recipe()
            )
            for rows in _chunks(self.settings.replicas, CHUNK)
        }
        self._compute(run, "training", cells)
        return run.part("population", _joined, run, list(cells), "replica")

    def walk(self, run: Run) -> list[Finding]:
        """How far walkers get: free ones against the quadratic law, thermal ones against free."""
        planned = self.walks(run)
        cells = {
            f"walk_pieces/{name},walkers={rows.start}-{rows.stop - 1}": partial(
                walks.walk,
                self.landscape,
                errors=True,
                seed=_seed_of(self.seed, rows.start),
                **walkers.piece(rows),
            )
            for name, walkers in planned.items()
            for rows in _chunks(len(walkers.start), WALKERS)
        }
        self._compute(run, "walk", cells)
        pieces = {name: [cell for cell in cells if f"/{name}," in cell] for name in planned}
        joined = {
            name: run.part(f"walk/{name}", _walked, run, pieces[name], walkers.origin.tolist())
            for name, walkers in planned.items()
        }
        return wandering.walk_findings(
            joined["free"], joined["thermal"], joined.get("threshold"), seed=self.seed
        )

    def walks(self, run: Run) -> dict[str, "Walkers"]:
        """Who walks from where, and how."""
        settings = self.settings
        solutions = self._starts(run)
        origin = torch.arange(settings.walkers) % len(solutions)
        common = {
            "move": moves.FilterGaussian(settings.walk_step, WeightSpace(self.module).filters),
            "steps": settings.walk_steps,
        }
        probes = 0 if self.landscape.reestimates else settings.probes
        waiting = sorted({0, settings.walk_steps // 16, settings.walk_steps // 4})
        return {
            "free": Walkers(
                solutions[origin], origin, {"rule": "free", "probes": probes, **common}
            ),
            "thermal": Walkers(
                solutions[origin],
                origin,
                {"rule": "thermal", "temperature": self.temperature, "waiting": waiting, **common},
            ),
        }

    def _starts(self, run: Run) -> Tensor:
        """Where walks start: solutions, balanced where that is known, precise enough for T."""
        found = self._solutions(run)
        with suppress(TypeError):  # of a network whose symmetry is not known
            found = symmetry.of(self.module).balance(found)
        rounding = torch.finfo(found.dtype).eps * float(self.landscape.loss(found).max())
        return found.double() if self.temperature < LEAST_ROUNDINGS * rounding else found

    def permutation(self, run: Run) -> list[Finding]:
        """What joins a network with its permuted copy, and with other networks."""
        self._report("permutation", 0, 1)
        paths = run.part(
            "permutation",
            interpolation.permutation_paths,
            self.landscape,
            self._solutions(run),
            pairs=self.settings.pairs,
            resolution=self.settings.resolution,
            seed=self.seed,
        )
        self._report("permutation", 1, 1)
        return interpolation.permutation_findings(paths, seed=self.seed)

    def hierarchy(self, run: Run) -> list[Finding]:
        """Whether solutions cluster beyond both nulls."""
        progress = partial(self._report, "hierarchy")
        tree = run.part(
            "hierarchy",
            clustering.hierarchy,
            self.module,
            self._solutions(run, least=4),
            surrogates=self.settings.surrogates,
            seed=self.seed,
            map=partial(parallel.map, workers=self.workers, progress=progress),
        )
        return clustering.hierarchy_findings(tree)

    def ruggedness(self, run: Run) -> list[Finding]:
        """Whether smoother minima of equal training loss generalise better."""
        if self.source.checkpoints:
            return self._given_ruggedness(run)
        cells = rugged_cells(self.source, self.settings, self.seed)
        self._compute(run, "ruggedness", cells)
        measured = run.part("ruggedness", _correlated, run, list(cells), self.seed)
        return correlations.generalisation_findings(measured)

    def _given_ruggedness(self, run: Run) -> list[Finding]:
        """Measure given networks; what they were trained to differs, so nothing is judged."""
        measured = run.part("ruggedness", self._measured, run)
        low, high = (float(f(measured["train_loss"])) for f in (min, max))
        return [
            Finding(
                protocol="ruggedness",
                question="Do smoother solutions generalise better?",
                statement=(
                    f"The ground around {measured.sizes['replica']} given networks was measured; "
                    f"their training losses run from {low:.3g} to {high:.3g} nats, and only "
                    "networks trained to equal loss can be compared"
                ),
                value=None,
                rule="Judged only between networks trained to equal loss by one study",
                verdict="undecided",
            )
        ]

    def _measured(self, run: Run) -> xr.Dataset:
        kept = self._kept(run, least=1)
        measured = roughness.ruggedness(
            self.landscape, points_of(kept), directions=self.settings.directions, seed=self.seed
        )
        for name in ("train_loss", "test_loss", "test_error", "diverged"):
            measured[name] = ("replica", kept[name].values, kept[name].attrs)
        return measured

    def _solutions(self, run: Run, least: int = 1) -> Tensor:
        return points_of(self._kept(run, least))

    def _kept(self, run: Run, least: int) -> xr.Dataset:
        """Replicas that did not diverge."""
        found = run.dataset("population")
        kept = found.isel(replica=~found["diverged"].values)
        if kept.sizes["replica"] < least:
            raise ValueError(
                f"of {found.sizes['replica']} replicas {kept.sizes['replica']} did not diverge, "
                f"and {least} are needed; lower learning_rate or raise replicas"
            )
        return kept


def _chunks(count: int, size: int) -> list[range]:
    return [range(k, min(k + size, count)) for k in range(0, count, size)]


def _seed_of(seed: int, block: int) -> int:
    """Seed of a block of walkers: the walk numbers its own from 0."""
    return seed * 1_000_003 + block


def _joined(run: Run, names: Sequence[str], along: str) -> xr.Dataset:
    """Join pieces along the replicas or walkers, in the order of the pieces."""
    parts = [run.dataset(name) for name in names]
    joined = xr.concat(parts, along, join="outer", combine_attrs="override")
    joined = joined.assign_coords({along: range(joined.sizes[along])})
    joined[along].attrs.update(long_name=f"number of the {along}", units="1")
    return joined.assign_attrs(_seeds(run, names, parts))


def _seeds(run: Run, names: Sequence[str], parts: Sequence[xr.Dataset]) -> dict[str, Any]:
    """Seed of the study, and those that its pieces had."""
    seeds = {name: part.attrs["seed"] for name, part in zip(names, parts, strict=True)}
    return {"seed": run.config["seed"], "piece_seeds": json.dumps(seeds)}


def _walked(run: Run, names: Sequence[str], starts: Sequence[int]) -> xr.Dataset:
    """Join the pieces of a walk, say where each walker started, and what the walk amounts to."""
    parts = [run.dataset(name) for name in names]
    joined = join_walks(parts).assign_attrs(_seeds(run, names, parts))
    words = {"long_name": "solution that the walker started from", "units": "1"}
    started = joined.assign(start=("walker", list(starts), words))
    return diagnosed(started, seed=run.config["seed"])


def _correlated(run: Run, names: Sequence[str], seed: int) -> xr.Dataset:
    """Join the measured cells and correlate their ruggedness with their test error."""
    measured = _joined(run, names, "replica")
    found = correlations.generalisation(measured, seed=seed)
    return measured.merge(found).assign_attrs(found.attrs | measured.attrs)
