"""`explore`: train a population and put the four questions of arXiv 2407.20724 to it."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
import xarray as xr
from torch import Tensor, nn

from spinscape import parallel
from spinscape.glass import clustering, interpolation, moves, roughness, walks
from spinscape.landscape.energy import Landscape
from spinscape.nets import populations, symmetry
from spinscape.nets.datasets import Data
from spinscape.nets.training import train
from spinscape.nets.weightspace import WeightSpace
from spinscape.nets.weightspace import points as points_of
from spinscape.statistics import Finding
from spinscape.store import Run
from spinscape.studies.presets import ExploreSettings, settings_of
from spinscape.studies.sources import Source, fingerprint, source_of

__all__ = ["explore"]

CHUNK = 32  # replicas trained as one piece; fixed, so that no number depends on the workers

Progress = Callable[[str, int, int], None]


def explore(
    data: str | Data = "digits",
    *,
    preset: str = "quick",
    seed: int = 0,
    model: str | None = None,
    checkpoints: str | None = None,
    out: str | Path | None = None,
    workers: int = 1,
    progress: Progress | None = None,
    **settings: Any,
) -> Run:
    """Train copies of a network and read its landscape as a glass.

    Parameters
    ----------
    data : str or Data
        ``"digits"``, a path (.npz with x and y, or a folder of IDX files), ``module:function``, or
        data already loaded.
    preset : {"quick", "standard", "paper"}
        Starting values of all settings.
    seed : int
        Fixes every random number.
    model, checkpoints : str, optional
        ``module:function`` that returns your own network, and a file pattern of its trained
        weights: nothing is trained then, and what needs training is left out and named.
    out : path, optional
        Directory of the run; by default a name made of data, preset and configuration under
        ``runs``. The same call finds what is there and does only what is missing.
    workers : int
        Processes. Changes no number.
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
    from spinscape.report.page import write

    chosen = settings_of(preset, **settings)
    source = source_of(data, seed, chosen.sample_limit, model, checkpoints)
    study = Study(source, chosen, seed, workers, progress)
    configuration = study.configuration(preset, data)
    path = Path(out) if out is not None else _default_path(source, preset, configuration)
    with Run.open(path, configuration, study="explore") as run:
        study.population(run)
        for protocol, part in study.protocols.items():
            run.add_findings(protocol, part(run))
        write(run)
    return run


def _default_path(source: Source, preset: str, configuration: dict[str, Any]) -> Path:
    key = fingerprint(torch.frombuffer(bytearray(repr(configuration).encode()), dtype=torch.uint8))
    return Path("runs") / f"explore-{source.data.name}-{preset}-{key[:8]}"


@dataclass
class Study:
    """One exploration: which parts there are, how each is computed, and what it found."""

    source: Source
    settings: ExploreSettings
    seed: int
    workers: int = 1
    progress: Progress | None = None

    @cached_property
    def module(self) -> nn.Module:
        """The network whose landscape is explored."""
        return self.source.module(self.settings.width)

    @cached_property
    def symmetric(self) -> str | None:
        """Why hidden units cannot be permuted, or None if they can."""
        try:
            symmetry.of(self.module)
        except TypeError as reason:
            return str(reason)
        return None

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
        if self.symmetric is not None:
            reasons["permutation"] = self.symmetric
        if self.source.model is not None:
            reasons["ruggedness"] = (
                "compares networks trained with several hyper-parameters to equal loss; "
                "it trains networks of its own, and the model was given"
            )
        if self.source.checkpoints and len(self.source.checkpoints) < 4:
            reasons["hierarchy"] = f"needs 4 networks, got {len(self.source.checkpoints)}"
            if len(self.source.checkpoints) < 2:
                reasons["permutation"] = "needs 2 networks, got 1"
        return reasons

    def configuration(self, preset: str, data: str | Data) -> dict[str, Any]:
        """Everything that decides the numbers, for the run's configuration."""
        splits = self.source.data
        return {
            "preset": preset,
            "data": data if isinstance(data, str) else splits.name,
            "data_fingerprint": fingerprint(*splits.train, *splits.validation, *splits.test),
            "seed": self.seed,
            "model": self.source.model or "",
            "checkpoints": list(self.source.checkpoints),
            "left_out": self.left_out,
            "settings": {
                name: list(value) if isinstance(value, tuple) else value
                for name, value in asdict(self.settings).items()
            },
        }

    def population(self, run: Run) -> xr.Dataset:
        """Train the replicas in fixed chunks, or read those that were given."""
        if self.source.checkpoints:
            return run.part(
                "population",
                populations.population,
                self.module,
                self.source.checkpoints,
                self.source.data,
            )
        chunks = [
            range(k, min(k + CHUNK, self.settings.replicas))
            for k in range(0, self.settings.replicas, CHUNK)
        ]
        cells = {
            f"training/replicas={chunk.start}-{chunk.stop - 1}": partial(
                train, self.module, self.source.data, replicas=chunk, **self._recipe()
            )
            for chunk in chunks
        }
        parts = run.parts(cells, workers=self.workers, progress=self._progress("training"))
        return run.part("population", _joined, list(parts.values()))

    def walk(self, run: Run) -> list[Finding]:
        """How far walkers get: free ones against the quadratic law, thermal ones against free."""
        settings = self.settings
        start = self._solutions(run)
        start = start[torch.arange(settings.walkers) % len(start)]
        move = moves.FilterGaussian(settings.walk_step, WeightSpace(self.module).filters)
        common = {"move": move, "steps": settings.walk_steps, "seed": self.seed}
        cells = {
            "walk/free": partial(
                walks.walk, self._landscape, start, rule="free", **common
            ),
            "walk/thermal": partial(
                walks.walk,
                self._landscape,
                start,
                rule="thermal",
                temperature=settings.temperature,
                **common,
            ),
        }
        found = run.parts(cells, workers=self.workers, progress=self._progress("walk"))
        return walks.walk_findings(found["walk/free"], found["walk/thermal"])

    def permutation(self, run: Run) -> list[Finding]:
        """What joins a network with its permuted copy, and with other networks."""
        paths = run.part(
            "permutation",
            interpolation.permutation_paths,
            self._landscape,
            self._solutions(run),
            pairs=self.settings.pairs,
            resolution=self.settings.resolution,
            seed=self.seed,
        )
        return interpolation.permutation_findings(paths)

    def hierarchy(self, run: Run) -> list[Finding]:
        """Whether solutions cluster beyond both nulls."""
        tree = run.part(
            "hierarchy",
            clustering.hierarchy,
            None if self.symmetric else self.module,
            self._solutions(run),
            surrogates=self.settings.surrogates,
            seed=self.seed,
            map=partial(parallel.map, workers=self.workers, progress=self._progress("hierarchy")),
        )
        return clustering.hierarchy_findings(tree)

    def ruggedness(self, run: Run) -> list[Finding]:
        """Whether smoother minima of equal training loss generalise better."""
        settings = self.settings
        cells = {
            f"ruggedness_cells/width={width},batch_size={batch_size}": partial(
                _rugged_cell, self.source, settings, width, batch_size, self.seed
            )
            for width in settings.hyper_widths
            for batch_size in settings.hyper_batch_sizes
        }
        parts = run.parts(cells, workers=self.workers, progress=self._progress("ruggedness"))
        joined = run.part("ruggedness", _joined, list(parts.values()))
        return roughness.generalisation_findings(joined, seed=self.seed)

    @cached_property
    def _landscape(self) -> Landscape:
        return _landscape(self.module, self.source.data, self.settings)

    def _solutions(self, run: Run) -> Tensor:
        """Points of the replicas that did not diverge."""
        found = run.dataset("population")
        kept = found.isel(replica=~found.diverged.values)
        if kept.sizes["replica"] < 2:
            raise ValueError(
                f"{found.sizes['replica']} replicas trained and all but "
                f"{kept.sizes['replica']} diverged; lower learning_rate"
            )
        return points_of(kept)

    def _recipe(self) -> dict[str, Any]:
        names = ("epochs", "batch_size", "learning_rate", "momentum", "weight_decay")
        return {"seed": self.seed, **{name: getattr(self.settings, name) for name in names}}

    def _progress(self, part: str) -> Callable[[int, int], None] | None:
        return None if self.progress is None else partial(self.progress, part)


def _landscape(module: nn.Module, data: Data, settings: ExploreSettings) -> Landscape:
    count = settings.landscape_samples
    return Landscape(module, data.train.x[:count], data.train.y[:count])


def _joined(parts: list[xr.Dataset]) -> xr.Dataset:
    """Join pieces along the replicas, in the order of the pieces."""
    joined = xr.concat(parts, "replica", join="outer", combine_attrs="override")
    return joined.assign_coords(replica=range(joined.sizes["replica"]))


def _rugged_cell(
    source: Source, settings: ExploreSettings, width: int, batch_size: int, seed: int
) -> xr.Dataset:
    """Train one cell of hyper-parameters to equal training loss and measure its ruggedness."""
    grid = [
        (rate, decay)
        for rate in settings.hyper_learning_rates
        for decay in settings.hyper_weight_decays
        for _ in range(settings.hyper_replicas)
    ]
    module = source.module(width)
    trained = train(
        module,
        source.data,
        replicas=len(grid),
        seed=seed,
        epochs=settings.hyper_epochs,
        batch_size=batch_size,
        learning_rate=[rate for rate, _ in grid],
        weight_decay=[decay for _, decay in grid],
        momentum=settings.momentum,
        stop_at=settings.stop_at,
        evaluate_every=max(1, len(source.data.train.x) // batch_size // 4),
    )
    landscape = _landscape(module, source.data, settings)
    measured = roughness.ruggedness(
        landscape, points_of(trained), directions=settings.directions, seed=seed
    )
    columns = {
        "learning_rate": [rate for rate, _ in grid],
        "weight_decay": [decay for _, decay in grid],
        "batch_size": [batch_size] * len(grid),
        "width": [width] * len(grid),
    }
    for name, values in columns.items():
        measured[name] = ("replica", values, {"long_name": name.replace("_", " "), "units": "1"})
    for name in ("train_loss", "train_error", "test_loss", "test_error", "diverged"):
        measured[name] = trained[name]
    reached = trained["train_loss"].values <= settings.stop_at
    measured["reached"] = (
        "replica", reached, {"long_name": "reached the training loss aimed at", "units": "1"}
    )
    return measured
