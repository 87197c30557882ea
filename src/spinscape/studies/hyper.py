"""A small population of hyper-parameters, trained to equal loss and measured for ruggedness."""

from collections.abc import Callable
from functools import partial

import xarray as xr

from spinscape.glass import roughness
from spinscape.landscape.energy import Landscape
from spinscape.nets.training import train
from spinscape.nets.weightspace import points as points_of
from spinscape.studies.presets import ExploreSettings
from spinscape.studies.sources import Source

__all__ = ["grid", "rugged_cells"]

CHECKS_PER_EPOCH = 8
"""How often the training loss is compared with the one aimed at."""


LEAST_SHARE = 0.85
"""Networks that ended below this share of the loss aimed at do not count as of equal loss."""


def rugged_cells(
    source: Source, settings: ExploreSettings, seed: int
) -> dict[str, Callable[[], xr.Dataset]]:
    """Return one cell of work for every width and batch size, by name.

    Learning rates, weight decays and seeds of a cell are one batch of replicas. A network of the
    user's has one width, 0.
    """
    widths = settings.hyper_widths if source.model is None else (0,)
    return {
        f"ruggedness_pieces/width={width},batch_size={size}": partial(
            _rugged_cell, source, settings, width, size, seed
        )
        for width in widths
        for size in settings.hyper_batch_sizes
    }


def grid(settings: ExploreSettings) -> list[tuple[float, float]]:
    """Learning rate and weight decay of every replica of a cell."""
    return [
        (rate, decay)
        for rate in settings.hyper_learning_rates
        for decay in settings.hyper_weight_decays
        for _ in range(settings.hyper_replicas)
    ]


def _rugged_cell(
    source: Source, settings: ExploreSettings, width: int, batch_size: int, seed: int
) -> xr.Dataset:
    """Train one cell to equal training loss and measure its ruggedness."""
    replicas = grid(settings)
    module = source.module(width)
    x, y = source.data.train
    trained = train(
        module,
        source.data,
        replicas=len(replicas),
        seed=seed,
        init=source.init,
        epochs=settings.hyper_epochs,
        batch_size=batch_size,
        learning_rate=[rate for rate, _ in replicas],
        weight_decay=[decay for _, decay in replicas],
        momentum=settings.momentum,
        stop_at=settings.stop_at,
        evaluate_every=max(1, len(x) // batch_size // CHECKS_PER_EPOCH),
    )
    count = settings.landscape_samples
    measured = roughness.ruggedness(
        Landscape(module, x[:count].clone(), y[:count].clone()),
        points_of(trained),
        directions=settings.directions,
        seed=seed,
    )
    losses = trained["train_loss"].values
    columns = {
        "learning_rate": [rate for rate, _ in replicas],
        "weight_decay": [decay for _, decay in replicas],
        "batch_size": [batch_size] * len(replicas),
        "width": [width] * len(replicas),
        "reached": (losses <= settings.stop_at) & (losses >= LEAST_SHARE * settings.stop_at),
    }
    for name, values in columns.items():
        measured[name] = ("replica", values, {"long_name": name.replace("_", " "), "units": "1"})
    for name in ("train_loss", "train_error", "test_loss", "test_error", "diverged"):
        measured[name] = ("replica", trained[name].values, trained[name].attrs)
    return measured
