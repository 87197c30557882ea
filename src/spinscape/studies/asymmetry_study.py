"""`reproduce li2024-asymmetry`: lopsided valleys, and what makes them so (arXiv 2405.12489)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from spinscape.landscape.energy import Landscape
from spinscape.nets import models as networks
from spinscape.nets.training import train
from spinscape.nets.weightspace import points as points_of
from spinscape.records import labelled
from spinscape.statistics import Finding
from spinscape.store import Run
from spinscape.studies.conducting import Conducted
from spinscape.studies.valley_settings import ASYMMETRY_PRESETS, AsymmetrySettings
from spinscape.valleys import asymmetry_findings as findings
from spinscape.valleys.directions import (
    SPECIAL,
    gaussian,
    members,
    restricted,
    scaled,
    sign,
    sign_consistent,
)
from spinscape.valleys.explanations import mechanism
from spinscape.valleys.groups import GROUPS
from spinscape.valleys.lopsided import asymmetry, lopsidedness

__all__ = ["Li2024Asymmetry"]

FEW = ("gaussian", "unit_uniform")
"""Kinds of noise that the variants are put to: centred at 0, and not."""

HYPER = ("base", "slow", "fast", "small-batch", "large-batch", "no-decay", "more-decay")


@dataclass
class Li2024Asymmetry(Conducted):
    """A convolutional network with batch normalisation, and variants that differ in one thing."""

    name: ClassVar[str] = "li2024-asymmetry"
    presets: ClassVar[Mapping[str, AsymmetrySettings]] = ASYMMETRY_PRESETS

    settings: AsymmetrySettings

    def __post_init__(self) -> None:
        known = AsymmetrySettings().variants
        for variant in self.settings.variants:
            if variant not in known:
                raise ValueError(
                    f"variants: {variant!r} is not known; expected some of {', '.join(known)}"
                )
        _image(self.source.data.inputs)

    @property
    def protocols(self) -> dict[str, Callable[[Run], list[Finding]]]:
        """Signs first, then what might explain them."""
        return {
            "signs": self.signs,
            "controls": self.controls,
            "line": self.line,
            "mechanism": self.mechanism,
        }

    def module(self, variant: str = "base") -> nn.Module:
        """Return the network of a variant; samples may come as vectors."""
        settings = self.settings
        norm = {"norm-uniform": "uniform", "norm-gaussian": "gaussian"}.get(variant, "ones")
        channels, side = _image(self.source.data.inputs)
        network = networks.vgg(
            channels,
            self.source.data.classes,
            blocks=settings.deeper if variant == "deeper" else settings.blocks,
            width=settings.width,
            batch_norm=variant != "no-norm",
            norm_weight=norm,
            activation=variant if variant in ("gelu", "tanh") else "relu",
        )
        return nn.Sequential(nn.Flatten(), nn.Unflatten(1, (channels, side, side)), network)

    def recipe(self, variant: str = "base") -> dict[str, Any]:
        """How a variant is trained."""
        settings = self.settings
        names = ("epochs", "batch_size", "learning_rate", "momentum", "weight_decay", "schedule")
        recipe = {name: getattr(settings, name) for name in names}
        changed: dict[str, dict[str, Any]] = {
            "slow": {"learning_rate": settings.learning_rate / 3},
            "fast": {"learning_rate": settings.learning_rate * 3},
            "small-batch": {"batch_size": settings.small_batch},
            "large-batch": {"batch_size": settings.large_batch},
            "no-decay": {"weight_decay": 0.0},
            "more-decay": {"weight_decay": settings.weight_decay * 4},
        }
        return {"seed": self.seed, **recipe, **changed.get(variant, {})}

    @property
    def variants(self) -> tuple[str, ...]:
        """The base and all others."""
        return ("base", *self.settings.variants)

    @cached_property
    def samples(self) -> tuple[Tensor, Tensor, Tensor]:
        """Test samples for the curves, and inputs on which statistics are re-estimated."""
        data, settings = self.source.data, self.settings
        x, y = data.test
        count = settings.samples
        inputs = data.train.x[: settings.statistics_samples]
        return x[:count].clone(), y[:count].clone(), inputs.clone()

    def landscape(self, variant: str = "base") -> Landscape:
        """The loss of a variant on held-out samples."""
        x, y, inputs = self.samples
        return Landscape(self.module(variant), x, y, statistics_samples=inputs)

    def population(self, run: Run) -> xr.Dataset:
        """Train the networks of all variants; they have seeds in common."""
        cells = {
            _trained(variant): partial(
                train,
                self.module(variant),
                self.source.data,
                replicas=self.settings.replicas,
                snapshots=[0],
                **self.recipe(variant),
            )
            for variant in self.variants
        }
        self._compute(run, "training", cells)
        return run.dataset("population")

    def signs(self, run: Run) -> list[Finding]:
        """All kinds of noise and all special directions, at the base."""
        self._measure(run, ["base"])
        base = run.dataset("asymmetry/base")
        learned = findings.learned_finding(base["test_error"].values, self.seed)
        found = [
            *findings.consistent_findings(base, self.seed),
            findings.ratio_finding(base, self.seed),
            *findings.special_findings(base, self.seed),
            findings.aligned_finding(base, self.seed),
        ]
        return [learned, *findings.withheld(found, learned)]

    def controls(self, run: Run) -> list[Finding]:
        """Two kinds of noise at every variant."""
        self._measure(run, self.settings.variants)
        found = {variant: run.dataset(f"asymmetry/{variant}") for variant in self.variants}
        told = []
        if "norm-gaussian" in found:
            told.append(findings.norm_finding(found, self.seed))
        told.append(findings.hyper_finding(found, HYPER, self.seed))
        return [*told, *findings.activation_finding(found, self.seed)]

    def line(self, run: Run) -> list[Finding]:
        """The line from small-batch to large-batch solutions of the same seeds."""
        if not {"small-batch", "large-batch"} <= set(self.settings.variants):
            return []
        small, large = (
            points_of(run.dataset(_trained(f"{size}-batch"))["point"])
            for size in ("small", "large")
        )
        cell = partial(_line, self.landscape("small-batch"), small, large)
        self._compute(run, "line", {"line": cell})
        return [findings.line_finding(run.dataset("line"), self.seed)]

    def mechanism(self, run: Run) -> list[Finding]:
        """Units, margins and traces along noise, at the base."""
        landscape = self.landscape()
        cells = {
            f"mechanism_pieces/replica={k}": partial(
                _mechanism, landscape, point, self.seed, self.settings.watched
            )
            for k, point in self._solutions(run, "base")
        }
        self._compute(run, "mechanism", cells)
        found = run.part("mechanism", _along_replicas, run, list(cells))
        told = [
            findings.relu_finding(found, self.seed),
            findings.softmax_finding(found, self.seed),
        ]
        errors = run.dataset("asymmetry/base")["test_error"].values
        return findings.withheld(told, findings.learned_finding(errors, self.seed))

    def _solutions(self, run: Run, variant: str) -> list[tuple[int, Tensor]]:
        """Networks that did not diverge, with their numbers."""
        trained = run.dataset(_trained(variant))
        kept = [int(k) for k in np.flatnonzero(~trained["diverged"].values)]
        if len(kept) < 2:
            raise ValueError(
                f"{variant}: {len(kept)} of {trained.sizes['replica']} networks did not diverge, "
                "needs 2; lower learning_rate"
            )
        points = points_of(trained)
        return [(k, points[k]) for k in kept]

    def _measure(self, run: Run, variants: Sequence[str]) -> None:
        """Curves of every network of the variants, one piece a network."""
        settings = self.settings
        cells = {}
        for variant in variants:
            landscape = self.landscape(variant)
            trained = run.dataset(_trained(variant))
            starts = points_of(trained["snapshot"].isel(snapshot=0))
            errors = trained["test_error"].values
            few: dict[str, Any] = {"noises": FEW, "specials": (), "ratios": (0.0, 0.5, 1.0)}
            if variant == "base":
                ratios = np.linspace(0, 1, settings.ratios).round(2).tolist()
                few = {"specials": SPECIAL, "ratios": ratios}
            for k, point in self._solutions(run, variant):
                cells[_piece(variant, k)] = partial(
                    _measured,
                    landscape,
                    point,
                    float(errors[k]),
                    initial=starts[k],
                    seeds=[self.seed * 100_003 + j for j in range(settings.noise_seeds)],
                    s=settings.s,
                    lam=np.linspace(-1, 1, settings.points),
                    seed=self.seed,
                    **few,
                )
        self._compute(run, "signs" if "base" in variants else "controls", cells)
        for variant in variants:
            names = [_piece(variant, k) for k, _ in self._solutions(run, variant)]
            run.part(f"asymmetry/{variant}", _along_replicas, run, names)


def _trained(variant: str) -> str:
    return "population" if variant == "base" else f"training_pieces/{variant}"


def _piece(variant: str, replica: int) -> str:
    return f"asymmetry_pieces/{variant},replica={replica}"


def _image(inputs: Sequence[int]) -> tuple[int, int]:
    """Channels and side of square images, that may come as vectors."""
    if len(inputs) == 3:
        return inputs[0], inputs[1]
    count = int(np.prod(inputs))
    for channels in (1, 3):
        side = round((count / channels) ** 0.5)
        if channels * side**2 == count:
            return channels, side
    raise ValueError(
        f"data: samples of shape {tuple(inputs)} are no square images of one or three channels, "
        "which the convolutional networks of this study need"
    )


def _along_replicas(run: Run, names: Sequence[str]) -> xr.Dataset:
    parts = [run.dataset(name) for name in names]
    return xr.concat(parts, "replica", combine_attrs="override")


def _measured(landscape: Landscape, point: Tensor, test_error: float, **options: Any) -> xr.Dataset:
    """Curves of one network, its test error, and how many batch-norm weights are positive."""
    found = asymmetry(landscape, point, **options)
    norms = [
        place
        for name, part in landscape.module.named_modules()
        if isinstance(part, nn.modules.batchnorm._NormBase)
        for place in [landscape.space.slices[f"{name}.weight"]]
    ]
    positive = (
        torch.cat([point[place] for place in norms]).gt(0).double().mean() if norms else torch.nan
    )
    return found.assign(
        norm_positive=labelled((), float(positive), "share of positive batch-norm weights"),
        test_error=labelled((), test_error, "test error of the network"),
    )


def _line(
    landscape: Landscape, small: Tensor, large: Tensor, reach: float = 0.5, points: int = 41
) -> xr.Dataset:
    """Loss on the lines between solutions, and beyond; λ = 0 is small, 1 is large."""
    ways = large - small
    lam = np.linspace(-reach, 1 + reach, points)
    loss, error = landscape.lines(small, ways, torch.as_tensor(lam))
    around = np.linspace(-reach, reach, 21)
    known = [(name, _group(landscape.module, name)) for name in GROUPS]
    groups = {name: chosen for name, chosen in known if chosen is not None}
    rises, indices, agreements = [], [], []
    for ends, towards in ((small, ways), (large, -ways)):
        near, _ = landscape.lines(ends, towards, torch.as_tensor(around))
        curve = near.double().cpu().numpy()
        above = np.maximum(curve - curve[:, 10:11], 0)
        plus, minus, index = lopsidedness(around / reach, above)
        rises.append(0.5 * (plus + minus))
        indices.append(index)
        same = (sign(ends) == sign(towards)).double()
        agreements.append(
            torch.stack([same[:, chosen].mean(1) for chosen in groups.values()], 1).cpu().numpy()
        )
    ends_dims = ("replica", "end")
    dims = ("replica", "lam")
    return xr.Dataset(
        {
            "loss": labelled(dims, loss, "loss", "nats"),
            "error": labelled(dims, error, "error rate"),
            "rise": labelled(ends_dims, np.stack(rises, 1), "mean rise around an end", "nats"),
            "index": labelled(ends_dims, np.stack(indices, 1), "index of the rise"),
            "agreement": labelled(
                (*ends_dims, "group"), np.stack(agreements, 1), "share of signs equal to the way's"
            ),
        },
        {"lam": lam, "end": ["small-batch", "large-batch"], "group": list(groups)},
    )


def _group(module: nn.Module, name: str) -> Tensor | None:
    """Members of a group, or None if the module has no such parameters."""
    try:
        return members(module, name)
    except ValueError:
        return None


def _mechanism(landscape: Landscape, point: Tensor, seed: int, samples: int) -> xr.Dataset:
    """Explanations along ordinary noise, noise with the signs of θ, and that in the classifier."""
    noise = gaussian(point, [seed])
    consistent = sign_consistent(noise, point)
    group = members(landscape.module, "classifier")
    space = landscape.space
    rows = [
        scaled(noise, point, space),
        scaled(consistent, point, space),
        scaled(restricted(consistent, group), point * group.to(point), space),
    ]
    lam = np.linspace(-1, 1, 11)
    names = ["ordinary", "consistent", "classifier"]
    return mechanism(landscape, point, torch.cat(rows), lam, samples=samples, names=names)
