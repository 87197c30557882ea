"""A small population of hyper-parameters, trained to equal loss and measured for ruggedness."""

from collections.abc import Callable
from functools import partial

import xarray as xr

from spinscape.glass.rugged import roughness
from spinscape.landscape.energy import Landscape
from spinscape.nets.training import train
from spinscape.nets.weightspace import points as points_of
from spinscape.studies.presets import ExploreSettings
from spinscape.studies.sources import Source

__all__ = ["grid", "rugged_cells"]

CHECKS_PER_EPOCH = 8
"""How often the training loss is compared with the one aimed at."""

RATES = {"adam": 0.01}
"""Learning rates of an optimiser in units of those of the settings, where it needs its own scale:
Adam moves every weight by about its rate, whatever the gradient."""

LEAST_SHARE = 0.85
"""Networks that ended below this share of the loss aimed at do not count as of equal loss."""


def rugged_cells(
    source: Source, settings: ExploreSettings, seed: int
) -> dict[str, Callable[[], xr.Dataset]]:
    """Return one cell of work for every width, batch size and optimiser, by name.

    Learning rates, weight decays and seeds of a cell are one batch of replicas. A network of the
    user's has one width, 0.
    """
    widths = settings.hyper_widths if source.model is None else (0,)
    return {
        f"ruggedness_pieces/width={width},batch_size={size}{_suffix(optimizer)}": partial(
            _rugged_cell, source, settings, width, size, optimizer, seed
        )
        for width in widths
        for size in settings.hyper_batch_sizes
        for optimizer in settings.hyper_optimizers
    }


def _suffix(optimizer: str) -> str:
    return "" if optimizer == "sgd" else f",optimizer={optimizer}"


def grid(settings: ExploreSettings) -> list[tuple[float, float]]:
    """Learning rate and weight decay of every replica of a cell."""
    return [
        (rate, decay)
        for rate in settings.hyper_learning_rates
        for decay in settings.hyper_weight_decays
        for _ in range(settings.hyper_replicas)
    ]


def _rugged_cell(
    source: Source,
    settings: ExploreSettings,
    width: int,
    batch_size: int,
    optimizer: str,
    seed: int,
) -> xr.Dataset:
    """Train one cell to equal training loss and measure its ruggedness."""
    replicas, unit = grid(settings), RATES.get(optimizer, 1.0)
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
        optimizer=optimizer,
        learning_rate=[unit * rate for rate, _ in replicas],
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
        measures=settings.rugged_measures,
        seed=seed,
    )
    losses = trained["train_loss"].values
    names = settings.hyper_optimizers
    columns = {
        "learning_rate": [rate for rate, _ in replicas],
        "weight_decay": [decay for _, decay in replicas],
        "batch_size": [batch_size] * len(replicas),
        "width": [width] * len(replicas),
        "optimizer": [names.index(optimizer)] * len(replicas),
        "reached": (losses <= settings.stop_at) & (losses >= LEAST_SHARE * settings.stop_at),
    }
    for name, values in columns.items():
        measured[name] = ("replica", values, {"long_name": name.replace("_", " "), "units": "1"})
    measured["optimizer"].attrs.update(long_name="optimiser, by its number", words=list(names))
    scale = ", ".join(f"{name} {RATES[name]:g}" for name in names if name in RATES)
    if scale:  # one name for what is compared between optimisers at equal settings
        measured["learning_rate"].attrs["in_units_of"] = f"1, but {scale}"
    for name in ("train_loss", "train_error", "test_loss", "test_error", "diverged"):
        measured[name] = ("replica", trained[name].values, trained[name].attrs)
    for kind, units in (("loss", "nats"), ("error", "1")):
        gap = trained[f"test_{kind}"].values - trained[f"train_{kind}"].values
        words = {"long_name": f"test {kind} less training {kind}", "units": units}
        measured[f"gap_{kind}"] = ("replica", gap, words)
    return measured
