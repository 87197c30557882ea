"""`spins`: networks followed through training, or networks that you bring, as spin models."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import xarray as xr
from torch import nn

from spinscape.clusters import Workers
from spinscape.nets import usercode
from spinscape.spins import histories, phase_findings
from spinscape.spins.couplings import SpinModel
from spinscape.statistics import Finding
from spinscape.store import Run
from spinscape.studies.conducting import Conducted, Progress, conduct, study_of
from spinscape.studies.presets import settings_of
from spinscape.studies.sources import DataLike
from spinscape.studies.spin_settings import SPIN_PRESETS, SpinSettings
from spinscape.studies.spin_study import SpinStudy, along_replicas

__all__ = ["SpinsOfCheckpoints", "follow"]

TRAINED = ("data", "width", "depth", "replicas", "epochs", "batch_size", "momentum")
"""Arguments that mean nothing where networks are given."""


def follow(
    data: DataLike | None = None,
    *,
    checkpoint: str | Path | Sequence[str | Path] | None = None,
    model: str | nn.Module | None = None,
    preset: str = "quick",
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    workers: int | None = 1,
    backend: str = "loky",
    address: str | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Run:
    """Train networks and follow their phases as spin models, or read those of checkpoints.

    Parameters
    ----------
    data : str, path, (x, y) or Data, optional
        As in `explore`; "digits" by default. Not with `checkpoint`.
    checkpoint : str, path or sequence of paths, optional
        Trained weights (safetensors, or a state dict saved by PyTorch), or a pattern of such
        files: nothing is trained then.
    model : str or nn.Module, optional
        ``module:function`` that returns the network of the checkpoints, or the network; without,
        their weight matrices are taken in their order.
    preset, seed, out, workers, backend, address, progress
        As in `explore`.
    **settings
        Any field of `spin_settings.SpinSettings`.

    Returns
    -------
    Run
        Its findings, and the page at ``run.path / "page.html"``.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit, a checkpoint cannot be read as a stack of linear layers, or
        `out` holds a run of another configuration.
    """
    study: Conducted
    if checkpoint is None:
        if model is not None:
            raise ValueError("model: only with checkpoint=, whose network it is")
        study = study_of(
            SpinStudy, "digits" if data is None else data, preset=preset, seed=seed, **settings
        )
    else:
        for name in TRAINED:
            given = data if name == "data" else settings.get(name)
            if given is not None:
                raise ValueError(f"{name}={given!r}: nothing is trained, checkpoints are given")
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise ValueError(f"seed={seed!r}: expected a whole number, 0 or more")
        chosen = settings_of(preset, SPIN_PRESETS, **settings)
        study = SpinsOfCheckpoints(_brought(checkpoint, model), chosen, seed)
    study.workers, study.progress = Workers(workers, backend, address), progress
    return conduct(study, preset, out)


@dataclass(frozen=True)
class Brought:
    """Networks that somebody else trained, as spin models by their names."""

    models: Mapping[str, SpinModel]
    digests: Mapping[str, str]
    model_name: str

    def configuration(self) -> dict[str, Any]:
        """Return what identifies them, by contents rather than by name."""
        return {
            "data": "-".join(list(self.models)[:2]),
            "model": self.model_name,
            "checkpoints": dict(self.digests),
        }


@dataclass
class SpinsOfCheckpoints(Conducted):
    """The protocols of `spins` on networks that are given."""

    name: ClassVar[str] = "spins"
    presets: ClassVar[Mapping[str, SpinSettings]] = SPIN_PRESETS

    source: Any
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

    @property
    def left_out(self) -> dict[str, str]:
        """Nothing is trained."""
        return {
            "population": "these networks were trained elsewhere",
            "training": "phases are followed through training only of networks trained here",
        }

    def population(self, run: Run) -> xr.Dataset:
        """Nothing is trained."""
        return xr.Dataset()

    def phases(self, run: Run) -> list[Finding]:
        """T_c and class of every network, against its nulls."""
        permutations = max(2, self.settings.permutations)
        phases = self._each(
            run, "phases", histories.phase_history, permutations=permutations, seed=self.seed
        )
        return phase_findings.given_findings(phases.isel(step=0))

    def taps(self, run: Run) -> list[Finding]:
        """TAP solutions below T_c; the page shows them, and nothing is judged."""
        settings = self.settings
        self._each(
            run,
            "tap",
            histories.tap_history,
            heated=True,
            heats=settings.tap_heats,
            starts=settings.tap_starts,
            iterations=settings.tap_iterations,
            seed=self.seed,
        )
        return []

    def spectra(self, run: Run) -> list[Finding]:
        """Spectra on those of permuted weights."""
        settings = self.settings
        self._each(
            run,
            "spectra",
            histories.spectrum_history,
            nulls=settings.spectrum_nulls,
            bootstraps=settings.bootstraps,
            seed=self.seed,
        )
        return []

    def overlaps(self, run: Run) -> list[Finding]:
        """Overlaps of sampled spins, against permuted weights."""
        settings = self.settings
        self._each(
            run,
            "overlaps",
            histories.overlap_history,
            heated=True,
            heats=settings.overlap_heats,
            replicas=settings.overlap_replicas,
            sweeps=settings.overlap_sweeps,
            seed=self.seed,
        )
        return []

    def _each(
        self,
        run: Run,
        protocol: str,
        history: Callable[..., xr.Dataset],
        *,
        heated: bool = False,
        **options: Any,
    ) -> xr.Dataset:
        """Apply a history to every network, as one of a single step."""
        models = self.source.models
        cells = {}
        for number, (name, model) in enumerate(models.items()):
            heats = (
                {"T_c": run.dataset("phases/given")["T_c"].sel(replica=name).values.tolist()}
                if heated
                else {}
            )
            cells[f"{protocol}_pieces/given,replica={number}"] = partial(
                history, [model], [0], **heats, **options
            )
        self._compute(run, protocol, cells)
        return run.part(f"{protocol}/given", _named, run, list(cells), list(models))


def _named(run: Run, pieces: Sequence[str], names: Sequence[str]) -> xr.Dataset:
    return along_replicas(run, pieces).assign_coords(replica=list(names))


def _brought(
    checkpoint: str | Path | Sequence[str | Path], model: str | nn.Module | None
) -> Brought:
    """Read the networks; files are named without their folder, where that is enough."""
    given = [checkpoint] if isinstance(checkpoint, str | Path) else list(checkpoint)
    paths: list[str] = []
    for each in map(str, given):
        matched = sorted(glob.glob(each)) if glob.has_magic(each) else [each]
        if not matched:
            raise ValueError(f"checkpoint={each!r}: no file matches")
        paths += matched
    if not paths:
        raise ValueError("checkpoint: expected at least one file")
    module = usercode.call(model, seed=0) if isinstance(model, str) else model
    stems = [Path(path).stem for path in paths]
    names = stems if len(set(stems)) == len(stems) else paths
    models, digests = {}, {}
    for name, path in zip(names, paths, strict=True):
        models[name] = SpinModel.from_checkpoint(path, module)
        digests[path] = hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]
    told = model if isinstance(model, str) else type(module).__name__ if module else ""
    return Brought(models, digests, told)
