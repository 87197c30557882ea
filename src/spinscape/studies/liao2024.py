"""`reproduce liao2024`: the claims of arXiv 2407.20724, each tested against its null.

The four protocols of `explore` on the same population, and what a referee would ask for beside
them: other rules, moves and starts of walks, and quenches; part copies, widths, curved paths and
REPAIR; independent sets of replicas, functional distances and untrained starts; clones, whose
family is known; more measures and optimisers, and minima that were flattened.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from typing import Any, ClassVar

import torch
import xarray as xr
from torch import Tensor

from spinscape import parallel
from spinscape.glass.kin import clones, lineages, partings, quenches, relatives, returns
from spinscape.glass.paths import (
    all_pairs,
    bends,
    curves,
    detours,
    interpolation,
    midpoints,
    own_copies,
    permutation_points,
    widths,
)
from spinscape.glass.rugged import flattening
from spinscape.glass.trees import clustering, overlaps, repeats
from spinscape.glass.walking import moves
from spinscape.glass.walking.langevin import Langevin
from spinscape.glass.walking.unit_moves import SingleUnit
from spinscape.landscape.energy import Landscape
from spinscape.nets.initialisation import initial_points
from spinscape.nets.training import train
from spinscape.nets.weightspace import WeightSpace
from spinscape.nets.weightspace import points as points_of
from spinscape.statistics import Finding
from spinscape.store import Run
from spinscape.studies.exploration import Study, Walkers
from spinscape.studies.presets import PRESETS, ExploreSettings
from spinscape.studies.sources import Source

__all__ = ["LIAO_PRESETS", "Liao2024", "LiaoSettings"]

RECORDS = 200
"""Times at which walkers of the further rules are looked at, enough to ask for equilibrium."""

CONSTANT = 1e-5
"""Outputs that vary by less than this share of themselves are those of a dead network."""

PIECE = 8
"""Replicas that are flattened as one piece; fixed, so that no number depends on the workers."""


@dataclass(frozen=True)
class LiaoSettings(ExploreSettings):
    """Everything that decides the numbers of `reproduce liao2024`, beside those of `explore`."""

    hyper_optimizers: tuple[str, ...] = ("sgd", "adam")
    rugged_measures: tuple[str, ...] = (
        "roughness",
        "local_energy",
        "walk_ruggedness",
        "adaptive_sharpness",
        "relative_flatness",
        "local_entropy",
        "learning_coefficient",
    )
    longer_walks: int = 5  # times walk_steps that threshold walkers make
    few_starts: int = 4  # solutions from which these start, several walkers from each
    few_walkers: int = 16
    young_walkers: int = 16  # from untrained points, and from points half-way through training
    unit_step: float = 0.01  # of single hidden units
    unit_moves: int = 20_000
    quenched: int = 8  # solutions that walkers leave
    quench_temperatures: tuple[float, ...] = (1.0, 30.0)  # times the temperature; and free
    quench_steps: tuple[int, ...] = (50, 200, 800)
    quench_epochs: int = 4
    copied: int = 16  # solutions whose part copies are looked at
    path_widths: tuple[int, ...] = (8, 16, 32, 64)
    width_replicas: int = 12
    bent_pairs: int = 24
    bent_steps: int = 200
    swapped: int = 16  # solutions two of whose units are exchanged
    sets: int = 4  # of independent replicas, each trained on a half of the data of its own
    set_replicas: int = 24
    functional_samples: int = 300  # held-out ones, on which functions are compared
    clone_ancestors: int = 4
    clone_children: int = 4
    clone_waiting: int = 6
    clone_epochs: int = 20
    family_branching: tuple[int, ...] = (3, 3, 3)
    flattened_replicas: int = 16
    flattened_epochs: int = 40


def _beyond(preset: str, **own: Any) -> LiaoSettings:
    """Settings of `explore`'s preset, what is always more here, and what is this preset's own."""
    more = {
        "hyper_optimizers": LiaoSettings.hyper_optimizers,
        "rugged_measures": LiaoSettings.rugged_measures,
    }
    return LiaoSettings(**asdict(PRESETS[preset]) | more | own)


LIAO_PRESETS: dict[str, LiaoSettings] = {
    "quick": LiaoSettings(),
    "standard": _beyond(
        "standard",
        hyper_replicas=3,
        longer_walks=2,
        set_replicas=20,
        path_widths=(16, 32, 64, 128),
        width_replicas=16,
        bent_pairs=32,
        clone_epochs=10,
    ),
    "paper": _beyond(
        "paper",
        hyper_optimizers=("sgd", "adam", "sam"),
        few_walkers=32,
        young_walkers=32,
        unit_moves=200_000,
        quenched=16,
        quench_steps=(100, 1000, 10_000),
        quench_epochs=10,
        copied=64,
        path_widths=(16, 32, 64, 128, 256, 512),
        width_replicas=32,
        bent_pairs=128,
        bent_steps=1000,
        swapped=64,
        sets=8,
        set_replicas=48,
        functional_samples=1000,
        clone_ancestors=8,
        clone_waiting=10,
        clone_epochs=60,
        family_branching=(4, 4, 4),
        flattened_replicas=32,
        flattened_epochs=60,
    ),
}


@dataclass
class Liao2024(Study):
    """The protocols of `explore` in full, and clones."""

    name: ClassVar[str] = "liao2024"
    presets: ClassVar[Mapping[str, ExploreSettings]] = LIAO_PRESETS

    settings: LiaoSettings

    @cached_property
    def held_out(self) -> Landscape:
        """The loss on the first test samples, which had no part in training or in bending."""
        x, y = self.source.data.test
        count = self.settings.landscape_samples
        return Landscape(self.module, x[:count].clone(), y[:count].clone())

    @property
    def protocols(self) -> dict[str, Callable[[Run], list[Finding]]]:
        """Those of `explore`, with clones before ruggedness."""
        every = super().protocols
        last = every.pop("ruggedness")
        return {**every, "clones": self.clones, "ruggedness": last}

    def walks(self, run: Run) -> dict[str, Walkers]:
        """Further rules and moves from a few solutions; free walks from younger points."""
        settings, heat = self.settings, self.temperature
        planned = super().walks(run)
        free = planned["free"].options
        solutions = self._starts(run)[: settings.few_starts]
        origin = torch.arange(settings.few_walkers) % len(solutions)
        start = solutions[origin]
        rules: dict[str, tuple[int, dict[str, Any]]] = {
            "threshold": (
                settings.longer_walks * settings.walk_steps,
                {
                    "rule": "threshold",
                    "threshold": self.landscape.loss(start) + settings.thermal_energy,
                    "move": free["move"],
                },
            ),
            "langevin": (
                settings.walk_steps,
                {"rule": "thermal", "temperature": heat, "move": Langevin(2 * heat**0.5)},
            ),
            "units": (
                settings.unit_moves,
                {
                    "rule": "thermal",
                    "temperature": heat,
                    "move": SingleUnit(settings.unit_step, ridge=settings.weight_decay),
                },
            ),
        }
        for name, (steps, options) in rules.items():
            times = {
                "steps": steps,
                "burn_in": steps // 4,
                "waiting": sorted({0, steps // 16, steps // 4}),
                "record": RECORDS,
            }
            planned[name] = Walkers(start, origin, {**options, **times})
        for name, points in self._younger(run).items():
            planned[name] = Walkers(points, torch.arange(len(points)), free)
        return planned

    def _younger(self, run: Run) -> dict[str, Tensor]:
        """Networks before training, and half-way through it."""
        count = min(self.settings.young_walkers, self.settings.replicas)
        recipe = self.recipe() | {"epochs": max(1, self.settings.epochs // 2)}
        halfway = run.part(
            "walk_pieces/halfway",
            train,
            self.module,
            self.source.data,
            replicas=count,
            **recipe,
        )
        kept = ~torch.from_numpy(halfway["diverged"].values)
        return {
            "free_untrained": self._untrained(run)[:count],
            "free_halfway": points_of(halfway)[kept],
        }

    def walk(self, run: Run) -> list[Finding]:
        """Walks, and whether gradient descent brings walkers back."""
        found = super().walk(run)
        settings = self.settings
        quenched = partial(
            _quenched,
            self.landscape,
            self.source,
            self._solutions(run, least=2)[: settings.quenched],
            settings,
            self.temperature,
            self.seed,
        )
        self._compute(run, "quenches", {"walk/quenches": quenched})
        back = returns.quench_findings(run.dataset("walk/quenches"), seed=self.seed)
        return [*found, *back]

    def permutation(self, run: Run) -> list[Finding]:
        """Straight and curved paths, part copies, widths, and networks half-way."""
        found = super().permutation(run)
        settings, seed = self.settings, self.seed
        solutions = self._solutions(run, least=2)
        bending = curves.Bending(
            steps=settings.bent_steps, learning_rate=0.003, samples_per_step=2, batch_size=128
        )
        lower: dict[str, Any] = {
            "bending": bending,
            "descent": Landscape(self.module, *self.source.data.train),
            "held_out": self.held_out,
            "seed": seed,
        }
        of_width = {
            f"permutation_pieces/width={width}": partial(
                _paths_of_width, self.source, settings, width, seed, self.recipe()
            )
            for width in settings.path_widths
        }
        cells: dict[str, Callable[[], xr.Dataset]] = {
            "permutation_bezier": partial(
                bends.bent_paths, self.landscape, solutions, pairs=settings.bent_pairs, **lower
            ),
            **of_width,
            "permutation_points": partial(
                permutation_points.permutation_point_paths,
                self.landscape,
                solutions[: settings.swapped],
                swaps=1,
                **lower,
            ),
            "permutation_copies": partial(
                own_copies.partial_copies,
                self.landscape,
                solutions[: settings.copied],
                resolution=settings.resolution,
                seed=seed,
            ),
            "permutation_pairs": partial(
                all_pairs.barriers_of_all_pairs, self.landscape, solutions, seed=seed
            ),
            "permutation_pairs_aligned": partial(
                all_pairs.barriers_of_all_pairs, self.landscape, solutions, aligned=True, seed=seed
            ),
            "permutation_repair": partial(
                midpoints.repaired_midpoints,
                self.landscape,
                solutions,
                pairs=settings.pairs,
                seed=seed,
            ),
        }
        self._compute(run, "further paths", cells)
        by_width = run.part("permutation_widths", _by_width, run, settings.path_widths)
        return [
            *found,
            *own_copies.copies_findings(run.dataset("permutation_copies"), seed=seed),
            *widths.width_findings(by_width, seed=seed),
            *detours.bent_findings(run.dataset("permutation_bezier"), seed=seed),
            *detours.permutation_point_findings(run.dataset("permutation_points"), seed=seed),
            *midpoints.repair_findings(run.dataset("permutation_repair"), seed=seed),
        ]

    def hierarchy(self, run: Run) -> list[Finding]:
        """Families by weights and by functions, in several sets, and before training."""
        found = super().hierarchy(run)
        settings = self.settings
        solutions = self._solutions(run, least=4)
        x, y = self.source.data.test
        count = settings.functional_samples
        unseen = Landscape(self.module, x[:count].clone(), y[:count].clone())
        cluster = partial(
            clustering.hierarchy, self.module, surrogates=settings.surrogates, seed=self.seed
        )
        names = [f"hierarchy_pieces/set={k}" for k in range(settings.sets)]
        cells: dict[str, Callable[[], xr.Dataset]] = {
            "hierarchy_untrained": partial(cluster, self._untrained(run)),
            "hierarchy_cka": partial(
                cluster, _responsive(unseen, solutions), distance="cka", landscape=unseen
            ),
            "hierarchy_agreement": partial(
                cluster, solutions, distance="agreement", landscape=unseen
            ),
        }
        for k, name in enumerate(names):
            cells[name] = partial(_tree_of_set, self.source, settings, k, self.seed, self.recipe())
        self._compute(run, "further trees", cells)
        tree = run.dataset("hierarchy")
        sets = run.part(
            "hierarchy_sets",
            lambda: repeats.hierarchy_of_sets([run.dataset(name) for name in names]),
        )
        of_sets = run.part("hierarchy_overlaps", overlaps.overlap_distribution, sets)
        return [
            *found,
            repeats.untrained_finding(tree, run.dataset("hierarchy_untrained")),
            *repeats.hierarchy_of_sets_findings(sets),
            *overlaps.overlap_findings(of_sets),
            *clustering.hierarchy_findings(run.dataset("hierarchy_agreement")),
            *clustering.hierarchy_findings(run.dataset("hierarchy_cka")),
        ]

    def clones(self, run: Run) -> list[Finding]:
        """Networks that part while they train, and the family tree that must be found again."""
        settings, seed = self.settings, self.seed
        recipe: dict[str, Any] = {
            "epochs": settings.clone_epochs,
            "seed": seed,
            "batch_size": settings.batch_size,
            "learning_rate": settings.learning_rate,
            "momentum": settings.momentum,
            "weight_decay": settings.weight_decay,
        }
        names = [f"clones_pieces/ancestor={k}" for k in range(settings.clone_ancestors)]
        family = "clones_pieces/family"
        cells: dict[str, Callable[[], xr.Dataset]] = {
            family: partial(
                clones.family,
                self.module,
                self.source.data,
                branching=settings.family_branching,
                **recipe,
            )
        }
        for k, name in enumerate(names):
            cells[name] = partial(
                clones.clone,
                self.module,
                self.source.data,
                ancestors=[k],
                children=settings.clone_children,
                waiting=settings.clone_waiting,
                **recipe,
            )
        self._compute(run, "clones", cells)
        apart = run.part("clones", _siblings, run, names, self.landscape, seed)
        kin = run.part(
            "clones_family",
            lineages.kinship,
            self.module,
            run.dataset(family),
            surrogates=settings.surrogates,
            seed=seed,
            map=partial(
                parallel.map,
                workers=self.workers,
                progress=partial(self._report, "planted family"),
            ),
        )
        return [*partings.clone_findings(apart, seed=seed), *lineages.family_findings(kin)]

    def ruggedness(self, run: Run) -> list[Finding]:
        """Whether rugged ground goes with errors, and whether flattening mends them."""
        found = super().ruggedness(run)
        settings = self.settings
        recipe = self.recipe()
        recipe["epochs"] = settings.flattened_epochs
        cells = {}
        for first in range(0, settings.flattened_replicas, PIECE):
            rows = range(first, min(first + PIECE, settings.flattened_replicas))
            cells[f"ruggedness_pieces/flattened={rows.start}-{rows.stop - 1}"] = partial(
                flattening.flattened,
                self.module,
                self.source.data,
                replicas=rows,
                walk_samples=settings.landscape_samples,
                samples=settings.landscape_samples,
                directions=settings.directions,
                **recipe,
            )
        self._compute(run, "flattened minima", cells)
        flat = run.part("ruggedness_flattened", _flattened, run, list(cells))
        return [*found, *flattening.flattening_findings(flat, seed=self.seed)]

    def _untrained(self, run: Run) -> Tensor:
        """Where the replicas that did not diverge began."""
        seeds = [int(seed) for seed in self._kept(run, least=1)["seed"].values]
        return initial_points(self.module, seeds, self.source.init)


def _quenched(
    landscape: Landscape,
    source: Source,
    solutions: Tensor,
    settings: LiaoSettings,
    temperature: float,
    seed: int,
) -> xr.Dataset:
    """Walk away from solutions, at several temperatures and free, and descend again."""
    filters = WeightSpace(landscape.module).filters
    heats = [temperature * times for times in settings.quench_temperatures]
    left = quenches.wandered(
        landscape,
        solutions,
        temperatures=[*heats, float("inf")],
        steps=settings.quench_steps,
        move=moves.FilterGaussian(settings.walk_step, filters),
        seed=seed,
    )
    return quenches.quench(
        landscape,
        source.data,
        solutions,
        left,
        epochs=settings.quench_epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        seed=seed,
    )


def _paths_of_width(
    source: Source, settings: LiaoSettings, width: int, seed: int, recipe: Mapping[str, Any]
) -> xr.Dataset:
    """Train solutions of one width, and look at the straight paths between them."""
    module = source.module(width)
    trained = train(module, source.data, replicas=settings.width_replicas, **recipe)
    kept = trained.isel(replica=~trained["diverged"].values)
    x, y = source.data.train
    count = settings.landscape_samples
    return interpolation.permutation_paths(
        Landscape(module, x[:count].clone(), y[:count].clone()),
        points_of(kept),
        pairs=settings.width_replicas * (settings.width_replicas - 1) // 2,
        resolution=settings.resolution,
        seed=seed,
    )


def _by_width(run: Run, path_widths: Sequence[int]) -> xr.Dataset:
    """Join the paths of all widths: as many of each, should replicas of some have diverged."""
    paths = {width: run.dataset(f"permutation_pieces/width={width}") for width in path_widths}
    fewest = min(part.sizes["path"] for part in paths.values())
    return widths.barriers_by_width(
        {width: part.isel(path=slice(fewest)) for width, part in paths.items()}
    )


def _responsive(landscape: Landscape, points: Tensor) -> Tensor:
    """Networks whose outputs depend on the sample: without, kernels cannot be aligned."""
    outputs = landscape.outputs(points).flatten(2)
    spread = (outputs - outputs.mean(1, keepdim=True)).abs().amax((1, 2))
    return points[spread > CONSTANT * outputs.abs().amax((1, 2))]


def _tree_of_set(
    source: Source, settings: LiaoSettings, number: int, seed: int, recipe: Mapping[str, Any]
) -> xr.Dataset:
    """Cluster a set of replicas that no other set holds, trained on its own half of the data."""
    module, samples = source.module(settings.width), len(source.data.train.x)
    stream = torch.Generator().manual_seed(_set_seed(seed, number))
    half = torch.randperm(samples, generator=stream)[: samples // 2].sort().values
    first = settings.replicas + number * settings.set_replicas
    trained = train(
        module,
        source.data,
        replicas=range(first, first + settings.set_replicas),
        indices=[half] * settings.set_replicas,
        **recipe,
    )
    kept = trained.isel(replica=~trained["diverged"].values)
    return clustering.hierarchy(
        module, points_of(kept), surrogates=settings.surrogates, seed=_set_seed(seed, number)
    )


def _set_seed(seed: int, number: int) -> int:
    """Seed of a set's half of the data and of its surrogates."""
    return seed * 1_000_003 + 1 + number


def _siblings(run: Run, names: Sequence[str], landscape: Landscape, seed: int) -> xr.Dataset:
    parts = [run.dataset(name) for name in names]
    grown = xr.concat(parts, "ancestor", combine_attrs="override")
    return relatives.siblings(landscape, grown, seed=seed)


def _flattened(run: Run, names: Sequence[str]) -> xr.Dataset:
    parts = [run.dataset(name) for name in names]
    return xr.concat(parts, "replica", data_vars="minimal", combine_attrs="override")
