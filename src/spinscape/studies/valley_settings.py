"""What the presets of the two studies of valleys mean, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = [
    "ASYMMETRY_PRESETS",
    "LIGHT",
    "MINING_PRESETS",
    "AsymmetrySettings",
    "MiningSettings",
]


@dataclass(frozen=True)
class MiningSettings:
    """Everything that decides the numbers of `mine` and `reproduce li2024-mining`."""

    width: int = 32
    solutions: int = 2  # the first is mined at, the second makes w-basins by hand
    epochs: int = 60
    batch_size: int = 64
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    sample_limit: int = 0  # samples kept of the data, stratified; 0 keeps all
    mined_samples: int = 1000  # of the training split; held-out ones are of the test split
    held_out_samples: int = 1000
    noise_directions: int = 100
    shapes: tuple[str, ...] = ("v-basin", "v-side", "w-basin", "vvv-basin")
    seeds: int = 10
    steps: int = 600
    s: float = 1.0  # length of mined directions in lengths of the solution
    initial_s: float = 3.0  # the same at the initialisation, which is shorter
    surface_seeds: int = 3
    surface_steps: int = 300
    side: int = 41  # points a side of a surface
    noise_planes: int = 6  # directions whose pairs are the null of surfaces
    probes: int = 32  # of traces and densities
    lanczos_steps: int = 40
    sweep_s: tuple[float, ...] = (0.5, 0.7, 1.0)
    sweep_weights: tuple[float, ...] = (0.5, 1.0, 2.0)
    sweep_seeds: int = 5


LIGHT: dict[str, Any] = {
    "mined_samples": 128,
    "held_out_samples": 256,
    "noise_directions": 20,
    "shapes": ("w-basin", "vvv-basin"),
    "seeds": 3,
    "steps": 80,
    "surface_seeds": 1,
    "surface_steps": 40,
    "side": 15,
    "noise_planes": 3,
    "probes": 9,
    "lanczos_steps": 16,
}
"""What the quick preset of `mine` takes for networks that are no stack of linear layers: each of
their evaluations costs a hundred times as much."""


MINING_PRESETS: dict[str, MiningSettings] = {
    "quick": MiningSettings(),
    "standard": MiningSettings(
        width=64,
        epochs=20,
        mined_samples=2000,
        held_out_samples=1000,
        noise_directions=100,
        surface_seeds=5,
        probes=64,
        lanczos_steps=60,
        sweep_seeds=4,
    ),
    "paper": MiningSettings(
        width=256,
        epochs=40,
        mined_samples=10_000,
        held_out_samples=10_000,
        noise_directions=400,
        seeds=40,
        steps=1500,
        surface_seeds=20,
        surface_steps=1000,
        side=101,
        probes=256,
        lanczos_steps=100,
        sweep_s=(0.3, 0.5, 0.7, 1.0, 1.5),
        sweep_weights=(0.25, 0.5, 1.0, 2.0, 4.0),
        sweep_seeds=20,
    ),
}


@dataclass(frozen=True)
class AsymmetrySettings:
    """Everything that decides the numbers of `reproduce li2024-asymmetry`."""

    width: int = 8  # channels of the first block
    blocks: tuple[int, ...] = (1, 1)  # convolutions a block
    deeper: tuple[int, ...] = (2, 2)
    replicas: int = 4  # networks of each variant
    epochs: int = 20
    batch_size: int = 64
    small_batch: int = 16
    large_batch: int = 256
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str = "cosine"
    sample_limit: int = 0
    samples: int = 256  # of the test split, on which curves are measured
    statistics_samples: int = 256  # of the training split, for batch normalisation
    noise_seeds: int = 3
    s: float = 1.0
    points: int = 15  # along each curve
    ratios: int = 6
    watched: int = 128  # samples on which units are watched
    variants: tuple[str, ...] = (
        "norm-uniform",
        "norm-gaussian",
        "slow",
        "fast",
        "small-batch",
        "large-batch",
        "no-decay",
        "more-decay",
        "deeper",
        "gelu",
        "tanh",
        "no-norm",
    )


ASYMMETRY_PRESETS: dict[str, AsymmetrySettings] = {
    "quick": AsymmetrySettings(),
    "standard": AsymmetrySettings(
        blocks=(1, 1, 1),
        deeper=(1, 2, 2),
        epochs=6,
        sample_limit=4000,
        points=11,
    ),
    "paper": AsymmetrySettings(
        width=64,
        blocks=(2, 2, 3, 3, 3),
        deeper=(3, 3, 4, 4, 4),
        replicas=5,
        epochs=200,
        batch_size=256,
        large_batch=2048,
        samples=10_000,
        statistics_samples=50_000,
        small_batch=32,
        learning_rate=0.03,
        noise_seeds=20,
        points=41,
        ratios=11,
        watched=1000,
    ),
}
