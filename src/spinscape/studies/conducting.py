"""What all studies share: how one is made of arguments, run part by part, and recorded."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import xarray as xr
from torch import nn

from spinscape.clusters import Workers
from spinscape.statistics import Finding
from spinscape.store import Run
from spinscape.store.durable import writing
from spinscape.studies.presets import settings_of
from spinscape.studies.sources import DataLike, Source, source_of

__all__ = ["TRAINING", "Conducted", "Progress", "conduct", "study_of"]

TRAINING = ("replicas", "epochs", "batch_size", "learning_rate", "momentum", "weight_decay")
"""Settings that mean nothing where networks are given."""

Progress = Callable[[str, int, int], None]


@dataclass
class Conducted:
    """A study: its source, its settings, and how its pieces are computed."""

    name: ClassVar[str]
    presets: ClassVar[Mapping[str, Any]]

    source: Source
    settings: Any
    seed: int
    workers: Workers = field(default_factory=Workers)
    progress: Progress | None = None

    @property
    def protocols(self) -> dict[str, Callable[[Run], list[Finding]]]:
        """The protocols that can be run on this source, in their order."""
        raise NotImplementedError

    @property
    def left_out(self) -> dict[str, str]:
        """The protocols that cannot be run, and why."""
        return {}

    def population(self, run: Run) -> xr.Dataset:
        """Train the networks, or read those that were given."""
        raise NotImplementedError

    def configuration(self, preset: str) -> dict[str, Any]:
        """Everything that decides the numbers, for the run's configuration."""
        return {
            "preset": preset,
            "seed": self.seed,
            **self.source.configuration(),
            "left_out": self.left_out,
            "settings": asdict(self.settings),
        }

    def _compute(self, run: Run, name: str, cells: Mapping[str, Callable[[], xr.Dataset]]) -> None:
        self._report(name, 0, len(cells))  # so that the first piece, which may be long, is seen
        run.parts(
            cells, workers=self.workers, progress=lambda done, all_: self._report(name, done, all_)
        )

    def _report(self, name: str, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(name, done, total)


S = TypeVar("S", bound=Conducted)


def conduct(study: Conducted, preset: str, out: str | os.PathLike[str] | None) -> Run:
    """Run all parts of a study that are not there yet, and draw its page."""
    from spinscape.report.page import write

    configuration = study.configuration(preset)
    path = Path(out) if out is not None else _default_path(study.name, configuration)
    with Run.open(path, configuration, study=study.name) as run:
        study.population(run)
        for protocol, part in study.protocols.items():
            run.add_findings(protocol, part(run))
        with writing(run.path / "page.html"):
            write(run)
    return run


def study_of(
    kind: type[S],
    data: DataLike = "digits",
    *,
    preset: str = "quick",
    seed: int = 0,
    model: str | nn.Module | None = None,
    checkpoints: str | Sequence[str | Path] | None = None,
    **settings: Any,
) -> S:
    """Check the arguments of a study, load data and network, and compute nothing."""
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed={seed!r}: expected a whole number, 0 or more")
    for name in ("width", "hyper_widths"):
        if model is not None and settings.get(name) is not None:
            raise ValueError(f"{name}={settings[name]!r}: the model given has its own width")
    for name in TRAINING if checkpoints is not None else ():
        if settings.get(name) is not None:
            raise ValueError(
                f"{name}={settings[name]!r}: nothing is trained, checkpoints are given"
            )
    chosen = settings_of(preset, kind.presets, **settings)
    source = source_of(
        data, seed=seed, limit=chosen.sample_limit or None, model=model, checkpoints=checkpoints
    )
    return kind(source, chosen, seed)


def _default_path(study: str, configuration: dict[str, Any]) -> Path:
    key = hashlib.sha256(repr(configuration).encode()).hexdigest()[:8]
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", configuration["data"]).strip("-.") or "data"
    return Path("runs") / f"{study}-{name}-{configuration['preset']}-{key}"
