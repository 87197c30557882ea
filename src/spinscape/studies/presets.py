"""What the presets of a study mean, as data."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from spinscape.nets.recipes import SCHEDULES

__all__ = ["PRESETS", "ExploreSettings", "settings_of"]

Settings = TypeVar("Settings")


@dataclass(frozen=True)
class ExploreSettings:
    """Everything that decides the numbers of `explore`; written into the run's configuration.

    The recipe reaches ≤ 5 % test error on digits at width 32 and ≤ 8 % on 10,000 MNIST digits at
    width 100.
    """

    width: int = 16
    replicas: int = 64
    epochs: int = 60
    batch_size: int = 64
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    schedule: str = "constant"
    sample_limit: int = 0  # samples kept of the data, stratified; 0 keeps all
    landscape_samples: int = 1000
    walkers: int = 32
    walk_steps: int = 400
    walk_step: float = 0.02  # proposal in units of a filter's norm
    thermal_energy: float = 0.5  # nats that a bowl of n dimensions would hold, n·T/2: gives T
    probes: int = 16  # of the curvature that the quadratic law needs
    pairs: int = 96
    resolution: int = 25
    surrogates: int = 100
    directions: int = 12
    hyper_replicas: int = 4
    hyper_epochs: int = 200
    stop_at: float = 0.1  # training loss, nats
    hyper_learning_rates: tuple[float, ...] = (0.03, 0.1, 0.3)
    hyper_weight_decays: tuple[float, ...] = (0.0, 1e-3)
    hyper_batch_sizes: tuple[int, ...] = (32, 128)
    hyper_widths: tuple[int, ...] = (16, 32)
    hyper_optimizers: tuple[str, ...] = ("sgd",)
    rugged_measures: tuple[str, ...] = ("roughness", "local_energy")


PRESETS: dict[str, ExploreSettings] = {
    "quick": ExploreSettings(),
    "standard": ExploreSettings(
        width=100,
        epochs=20,
        walkers=32,
        walk_steps=600,
        pairs=256,
        hyper_epochs=40,
        hyper_widths=(32, 100),
    ),
    "paper": ExploreSettings(
        width=100,
        replicas=128,
        epochs=60,
        walkers=64,
        walk_steps=5000,
        pairs=1024,
        resolution=51,
        surrogates=400,
        directions=32,
        landscape_samples=2000,
        hyper_replicas=8,
        hyper_epochs=100,
        hyper_learning_rates=(0.01, 0.03, 0.1, 0.3),
        hyper_weight_decays=(0.0, 1e-4, 1e-3),
        hyper_batch_sizes=(16, 64, 256),
        hyper_widths=(32, 100, 300),
    ),
}


def settings_of(preset: str, presets: Mapping[str, Settings], **changes: Any) -> Settings:
    """Return a preset with some of its settings changed (None leaves a setting as it is).

    Raises
    ------
    ValueError
        If the preset or a setting is unknown, or a value is of the wrong kind or out of range.
    """
    if preset not in presets:
        raise ValueError(f"preset={preset!r}: expected one of {', '.join(presets)}")
    base = presets[preset]
    known = {field.name: getattr(base, field.name) for field in fields(base)}  # type: ignore[arg-type]
    given = {name: value for name, value in changes.items() if value is not None}
    for name, value in given.items():
        if name not in known:
            raise ValueError(f"{name}: no such setting; there are {', '.join(known)}")
        given[name] = _like(name, value, known[name])
    return replace(base, **given)  # type: ignore[type-var]


_AT_LEAST = {"sample_limit": 0, "resolution": 3}
_AT_LEAST |= dict.fromkeys(("replicas", "set_replicas"), 4)
_AT_LEAST |= dict.fromkeys(("directions", "probes", "clone_ancestors", "clone_children"), 2)
_POSITIVE = {"walk_step", "thermal_energy"}


def _like(name: str, value: Any, model: Any) -> Any:
    """The value as the kind of the preset's, or a ValueError."""
    if isinstance(model, tuple):
        items = value if isinstance(value, list | tuple) else [value]
        if not items:
            raise ValueError(f"{name}: expected at least one value")
        return tuple(_like(name, item, model[0]) for item in items)
    if isinstance(model, str):
        if not isinstance(value, str):
            raise ValueError(f"{name}={value!r}: expected a word such as {model!r}")
        if name == "schedule" and value not in SCHEDULES:
            raise ValueError(f"schedule={value!r}: expected one of {', '.join(SCHEDULES)}")
        return value
    whole = isinstance(model, int)
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        raise ValueError(f"{name}={value!r}: expected a {'whole ' if whole else ''}number")
    least = _AT_LEAST.get(name, 1) if whole else 0
    if not least <= value < math.inf:
        raise ValueError(f"{name}={value!r}: expected {least} or more")
    if name in _POSITIVE and value == 0:
        raise ValueError(f"{name}={value!r}: expected more than 0")
    return value if whole else float(value)
