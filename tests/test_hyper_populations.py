"""Populations of hyper-parameters: every optimiser a cell of its own, to equal loss."""

from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

from spinscape.glass.rugged.correlations import MEASURES, generalisation
from spinscape.nets import datasets
from spinscape.nets.models import mlp
from spinscape.studies.hyper import RATES, grid, rugged_cells
from spinscape.studies.presets import ExploreSettings

FEW = {
    "hyper_replicas": 1,
    "hyper_epochs": 120,
    "hyper_learning_rates": (0.1, 0.2),
    "hyper_weight_decays": (0.0,),
    "hyper_batch_sizes": (64,),
    "hyper_widths": (8,),
    "stop_at": 0.5,
    "landscape_samples": 100,
    "directions": 2,
}


def settings(**others):
    return ExploreSettings(**FEW | others)


@pytest.fixture(scope="module")
def source():
    data = datasets.load("digits", seed=0)
    return SimpleNamespace(
        model=None, init=None, data=data, module=lambda width: mlp(64, [width], 10)
    )


def test_plain_descent_keeps_the_names_of_its_cells(source):
    plain = settings(hyper_optimizers=("sgd",))
    name = "ruggedness_pieces/width=8,batch_size=64"
    assert list(rugged_cells(source, plain, 0)) == [name]
    several = settings(hyper_optimizers=("sgd", "adam", "sam"))
    assert list(rugged_cells(source, several, 0)) == [
        name,
        f"{name},optimizer=adam",
        f"{name},optimizer=sam",
    ]


def test_cells_of_all_optimisers_are_correlated_over_that_axis(source):
    chosen = ("sgd", "adam", "sam")
    given = settings(
        hyper_optimizers=chosen,
        rugged_measures=("local_energy", "adaptive_sharpness"),
    )
    parts = [cell() for cell in rugged_cells(source, given, 0).values()]
    for number, part in enumerate(parts):
        assert part["optimizer"].values.tolist() == [number, number]
        assert part["optimizer"].attrs["words"] == list(chosen)
        assert part["learning_rate"].values.tolist() == [rate for rate, _ in grid(given)]
        assert {"local_energy", "adaptive_sharpness"} == set(MEASURES) & set(part.data_vars)
        assert (part["train_loss"] <= given.stop_at).all(), chosen[number]
        for kind in ("error", "loss"):
            gap = part[f"test_{kind}"].values - part[f"train_{kind}"].values
            np.testing.assert_array_equal(part[f"gap_{kind}"].values, gap)
            assert part[f"gap_{kind}"].attrs["units"] == part[f"test_{kind}"].attrs["units"]
    assert parts[0]["learning_rate"].attrs["in_units_of"] == f"1, but adam {RATES['adam']:g}"
    losses = [part["train_loss"].values for part in parts]
    assert not np.allclose(losses[0], losses[1])
    assert not np.allclose(losses[0], losses[2])
    found = generalisation(xr.concat(parts, "replica", combine_attrs="override"), seed=0)
    assert found.attrs["cells"] == 6
    along = found.tau_axis.sel(axis="optimizer")
    assert along.notnull().all()
    assert found.target.values.tolist() == ["test_error", "gap_error", "gap_loss"]
