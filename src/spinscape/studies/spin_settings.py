"""What the presets of the spin studies mean, as data."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SPIN_PRESETS", "SpinSettings"]


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
    spaced_steps: int = 16  # beside these, log-spaced
    permutations: int = 4  # of the weights: the nulls of a phase
    tap_checkpoints: int = 2
    tap_networks: int = 4
    tap_starts: int = 8
    tap_iterations: int = 1500  # after which a solver gives up
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
        spaced_steps=20,
        tap_checkpoints=3,
        tap_starts=12,
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
        spaced_steps=32,
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
