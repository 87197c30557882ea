"""`mine`: curve types and surfaces around a network, and the directions that show them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from spinscape.clusters import Workers
from spinscape.landscape import curvature
from spinscape.landscape.energy import Landscape
from spinscape.nets import models as networks
from spinscape.nets import populations
from spinscape.nets.training import train
from spinscape.nets.weightspace import points as points_of
from spinscape.statistics import Finding
from spinscape.store import Run
from spinscape.studies.conducting import Conducted, Progress, conduct, study_of
from spinscape.studies.mining_parts import built_curves, built_surfaces, curvature_at, swept
from spinscape.studies.sources import DataLike
from spinscape.studies.valley_settings import LIGHT, MINING_PRESETS, MiningSettings
from spinscape.valleys import constructions, mining_findings
from spinscape.valleys.curves import scan
from spinscape.valleys.directions import gaussian, scaled
from spinscape.valleys.mining import mine
from spinscape.valleys.planes import surfaces
from spinscape.valleys.profiles import PROFILES

__all__ = ["Li2024Mining", "MiningStudy", "prospect_around"]

SURFACES = ("saddle", "wine-bottle")
AT = {"solution": "a trained network", "initial": "an initialisation"}


def prospect_around(
    data: DataLike = "digits",
    *,
    model: str | nn.Module | None = None,
    checkpoint: str | Path | Sequence[str | Path] | None = None,
    preset: str = "quick",
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    workers: int | None = 1,
    backend: str = "loky",
    address: str | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Run:
    """Search curves and surfaces around a network, trained here or brought along.

    Parameters
    ----------
    data : str, path, (x, y) or Data
        As in `explore`.
    model : str or nn.Module, optional
        ``module:function`` that returns the network, or the network.
    checkpoint : str, path or sequence of paths, optional
        Trained weights of `model`, or a pattern of files: nothing is trained then, and the first is
        mined around.
    preset, seed, out, workers, backend, address, progress
        As in `explore`.
    **settings
        Any field of `valley_settings.MiningSettings`. For networks that are no stack of linear
        layers, the quick preset searches less (`valley_settings.LIGHT`).

    Returns
    -------
    Run
        Its findings, and the page at ``run.path / "page.html"``.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit, or `out` holds a run of another configuration.
    """
    files = [checkpoint] if isinstance(checkpoint, Path) else checkpoint
    study = study_of(
        MiningStudy, data, preset=preset, seed=seed, model=model, checkpoints=files, **settings
    )
    if preset == "quick" and study.landscape.engine != "dense":
        lighter = {name: value for name, value in LIGHT.items() if name not in settings}
        study = replace(study, settings=replace(study.settings, **lighter))
    study.workers, study.progress = Workers(workers, backend, address), progress
    return conduct(study, preset, out)


@dataclass
class MiningStudy(Conducted):
    """Curves, mined directions, surfaces and curvature around one network."""

    name: ClassVar[str] = "mine"
    presets: ClassVar[Mapping[str, MiningSettings]] = MINING_PRESETS

    settings: MiningSettings

    def __post_init__(self) -> None:
        for shape in self.settings.shapes:
            if shape not in PROFILES or PROFILES[shape].axes != 1:
                known = ", ".join(name for name, one in PROFILES.items() if one.axes == 1)
                raise ValueError(f"shapes: {shape!r} is no curve type; expected some of {known}")

    @property
    def protocols(self) -> dict[str, Callable[[Run], list[Finding]]]:
        """Curves first: how often a label comes unmined is the null of mining."""
        return {
            "curves": self.curves,
            "mining": self.mining,
            "surfaces": self.surfaces,
            "curvature": self.curvature,
        }

    @cached_property
    def left_out(self) -> dict[str, str]:
        """What needs networks that were not given."""
        files = len(self.source.checkpoints)
        if not files:
            return {}
        reasons = {
            "initialisation": "where training began is not known of given networks, so nothing is "
            "mined there"
        }
        if files < 2:
            reasons["constructions between solutions"] = f"needs 2 networks, got {files}"
        return reasons

    @cached_property
    def module(self) -> nn.Module:
        """The network."""
        return self.source.module(self.settings.width)

    @cached_property
    def landscape(self) -> Landscape:
        """The loss on training samples, which is mined."""
        x, y = self.source.data.train
        count = self.settings.mined_samples
        return Landscape(self.module, x[:count].clone(), y[:count].clone())

    @cached_property
    def held_out(self) -> Landscape:
        """The loss on test samples, which judges; statistics are taken on training samples."""
        x, y = self.source.data.test
        count = self.settings.held_out_samples
        return Landscape(
            self.module, x[:count].clone(), y[:count].clone(), statistics_samples=self.landscape.x
        )

    def population(self, run: Run) -> xr.Dataset:
        """Train the solutions, their initialisations kept, or read those that were given."""
        if self.source.checkpoints:
            files = self.source.checkpoints
            return run.part(
                "population", populations.population, self.module, files, self.source.data
            )
        names = ("epochs", "batch_size", "learning_rate", "momentum", "weight_decay")
        recipe = {name: getattr(self.settings, name) for name in names}
        cell = partial(
            train,
            self.module,
            self.source.data,
            replicas=max(2, self.settings.solutions),
            seed=self.seed,
            init=self.source.init,
            snapshots=[0],
            **recipe,
        )
        self._compute(run, "training", {"population": cell})
        return run.dataset("population")

    def curves(self, run: Run) -> list[Finding]:
        """Noise around the network, and directions built by hand."""
        settings = self.settings
        cells = {}
        for where, point in self._centres(run).items():
            seeds = range(settings.noise_directions)
            length = settings.initial_s if where == "initial" else settings.s
            noise = scaled(gaussian(point, seeds), point, self.landscape.space, s=length)
            cells[f"curves/{where}"] = partial(scan, self.held_out, point, noise)
        cells["curves/constructed"] = partial(built_curves, self.held_out, self._by_hand(run))
        self._compute(run, "curves", cells)
        found = {name.split("/")[1]: run.dataset(name) for name in cells}
        return [
            mining_findings.noise_finding(found["solution"], found.get("initial")),
            mining_findings.construction_finding(found["constructed"]),
        ]

    def mining(self, run: Run) -> list[Finding]:
        """Every curve type at the solution, and a w-peak at the initialisation."""
        settings = self.settings
        centres = self._centres(run)
        cells = {
            f"mined/{shape}": self._miner(centres["solution"], shape, settings.s)
            for shape in settings.shapes
        }
        if "initial" in centres:
            cells["mined/w-peak"] = self._miner(centres["initial"], "w-peak", settings.initial_s)
        self._compute(run, "mining curves", cells)
        found = []
        for name in cells:
            mined = run.dataset(name)
            where = "initial" if name.endswith("w-peak") else "solution"
            noise = run.dataset(f"curves/{where}")
            found.append(mining_findings.existence_finding(mined, noise, AT[where]))
            if where == "solution":
                beside = mining_findings.along_hessian_finding(mined, self.seed)
                found += [] if beside is None else [beside]
        return found

    def surfaces(self, run: Run) -> list[Finding]:
        """Planes of mined directions, of constructions, and mined planes."""
        settings = self.settings
        centres = self._centres(run)
        cells: dict[str, Callable[[], xr.Dataset]] = {
            "surfaces/pairs": partial(
                surfaces, self.held_out, centres["solution"], *self._named(run), side=settings.side
            ),
            "surfaces/constructed": partial(
                built_surfaces, self._planes_by_hand(run), settings.side
            ),
        }
        centre, s = centres["solution"], settings.s
        kinds: Sequence[str] = ("bowl",)
        if "initial" in centres:
            centre, s, kinds = centres["initial"], settings.initial_s, SURFACES
        for kind in kinds:
            cells[f"mined/{kind}"] = self._miner(
                centre,
                kind,
                s,
                seeds=settings.surface_seeds,
                steps=settings.surface_steps,
                side=settings.side,
            )
        numbers = range(settings.noise_planes)
        noise = scaled(gaussian(centre, numbers), centre, self.landscape.space, s=s)
        names = [f"noise {k}" for k in numbers]
        cells["surfaces/noise"] = partial(
            surfaces, self.held_out, centre, noise, names, extent=1.25, side=min(21, settings.side)
        )
        self._compute(run, "surfaces", cells)
        where = AT["initial" if "initial" in centres else "solution"]
        return [
            mining_findings.construction_finding(run.dataset("surfaces/constructed")),
            *(
                mining_findings.existence_finding(
                    run.dataset(f"mined/{kind}"), run.dataset("surfaces/noise"), where
                )
                for kind in kinds
            ),
        ]

    def curvature(self, run: Run) -> list[Finding]:
        """Eigenvalues, trace and density, and what they foretell of curves along noise."""
        settings = self.settings
        cells = {
            f"curvature/{where}": partial(
                curvature_at,
                self.landscape,
                point,
                self.seed,
                settings.probes,
                settings.lanczos_steps,
            )
            for where, point in self._centres(run).items()
        }
        self._compute(run, "curvature", cells)
        found = []
        for where, point in self._centres(run).items():
            seeds = range(settings.noise_directions)
            noise = scaled(gaussian(point, seeds), point, self.landscape.space)
            measured = curvature.along(self.landscape, point, noise)
            data = run.dataset(f"curvature/{where}").isel(point=0)
            found.append(
                mining_findings.curvature_finding(
                    np.asarray(measured["curvature"].values, dtype=float).ravel(),
                    data,
                    AT[where],
                    self.seed,
                )
            )
        return found

    def _centres(self, run: Run) -> dict[str, Tensor]:
        """The solution that is looked at, and where its training began."""
        return {name: points[0] for name, points in self._points(run).items()}

    def _points(self, run: Run) -> dict[str, Tensor]:
        """Solutions that did not diverge, and their initialisations where these are known."""
        trained = run.dataset("population")
        kept = trained.isel(replica=np.flatnonzero(~trained["diverged"].values))
        if not kept.sizes["replica"]:
            raise ValueError("population: every network diverged; lower learning_rate")
        found = {"solution": points_of(kept)}
        if "snapshot" in kept:
            found["initial"] = points_of(kept["snapshot"].isel(snapshot=0))
        return found

    def _miner(
        self, point: Tensor, shape: str, s: float, **options: Any
    ) -> Callable[[], xr.Dataset]:
        given = {"seeds": self.settings.seeds, "steps": self.settings.steps, **options}
        numbers = [self.seed * 100_003 + k for k in range(given.pop("seeds"))]
        return partial(
            mine, self.landscape, point, shape, seeds=numbers, held_out=self.held_out, s=s, **given
        )

    def _by_hand(self, run: Run) -> list[constructions.Construction]:
        points = self._points(run)
        solutions = points["solution"]
        built = [constructions.v_basin(self.landscape, solutions[0], self.seed)]
        if "initial" in points:
            built.append(constructions.v_side(points["initial"][0], solutions[0]))
        if len(solutions) > 1:
            built.append(constructions.w_basin(solutions[0], solutions[1]))
            built.append(constructions.w_peak(solutions[0], solutions[1]))
        return built

    def _planes_by_hand(self, run: Run) -> list[tuple[Landscape, constructions.Construction]]:
        """Planes, and the landscapes that judge them."""
        solutions = self._points(run)["solution"]
        built = [constructions.bowl(self.landscape, solutions[0], self.seed)]
        if len(solutions) > 1:
            built.append(
                constructions.saddle(self.landscape, solutions[0], solutions[1], self.seed)
            )
        judged = [(self.held_out, each) for each in built]
        return judged + ([] if self.source.model is not None else [self._bottle()])

    def _bottle(self) -> tuple[Landscape, constructions.Construction]:
        """The wine bottle, in a network that is wide enough for it: nothing in it is trained."""
        data = self.source.data
        module = networks.mlp(data.inputs, [4 * data.classes], data.classes)
        own, held_out = (Landscape(module, one.x, one.y) for one in (self.landscape, self.held_out))
        return held_out, constructions.wine_bottle(own)

    def _named(self, run: Run) -> tuple[Tensor, list[str]]:
        """Directions whose pairs are drawn: noise, the steepest way to bend, and the mined ones."""
        point = self._centres(run)["solution"]
        names = ["noise"]
        rows = [scaled(gaussian(point, [self.seed]), point, self.landscape.space)[0]]
        for shape in self.settings.shapes:
            if shape == "v-basin":  # along which noise goes already
                continue
            mined = run.dataset(f"mined/{shape}")
            best = np.flatnonzero(mined["success"].values)
            if len(best):
                rows.append(torch.as_tensor(mined["direction"].values[best[0], 0]).to(point))
                names.append(shape)
        top = curvature.eigenpairs(self.landscape, point, top=1, bottom=0, seed=self.seed)
        row = torch.as_tensor(top["eigenvector"].values).reshape(1, -1).to(point)
        rows.append(scaled(row, point, self.landscape.space)[0])
        return torch.stack(rows), [*names, "top of the Hessian"]


@dataclass
class Li2024Mining(MiningStudy):
    """The same, and how mining depends on length and weight."""

    name: ClassVar[str] = "li2024-mining"

    @property
    def protocols(self) -> dict[str, Callable[[Run], list[Finding]]]:
        """Those of `mine`, and the sweep."""
        return {**super().protocols, "sweep": self.sweep}

    def sweep(self, run: Run) -> list[Finding]:
        """vvv-basins at several lengths and weights, and which collapse."""
        settings = self.settings
        point = self._centres(run)["solution"]
        cells = {
            f"sweep_pieces/s={s:g},weight={weight:g}": self._miner(
                point, "vvv-basin", s, weight=weight, seeds=settings.sweep_seeds, eigenvectors=0
            )
            for s in settings.sweep_s
            for weight in settings.sweep_weights
        }
        self._compute(run, "lengths and weights", cells)
        found = run.part("sweep", swept, run, settings)
        return [mining_findings.collapse_finding(found)]
