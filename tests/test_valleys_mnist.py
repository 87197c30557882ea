"""Surfaces and lopsided valleys on 10,000 MNIST digits: what digits alone could not promise."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from spinscape import Landscape, datasets, models, points, train
from spinscape.valleys import asymmetry, constructions, mine, surfaces

pytestmark = pytest.mark.slow

MNIST = Path(__file__).parent / "data" / "mnist10k.npz"


@pytest.fixture(scope="module")
def data():
    return datasets.load(MNIST, seed=0)


@pytest.fixture(scope="module")
def dense(data):
    module = models.mlp(784, [64], 10)
    trained = train(module, data, replicas=2, epochs=10, seed=0, snapshots=[0])
    few = Landscape(module, data.train.x[:1000], data.train.y[:1000])
    judged = Landscape(module, data.test.x[:1000], data.test.y[:1000])
    start = points(trained["snapshot"].isel(snapshot=0))[0]
    return few, judged, points(trained), start


def test_a_saddle_and_a_wine_bottle_are_built_by_hand(dense):
    few, judged, (a, b), _ = dense
    for built in (constructions.saddle(few, a, b, seed=0), constructions.wine_bottle(few)):
        extent = 2.5 if built.label == "wine-bottle" else 2.0
        found = surfaces(judged, built.point, built.directions, ["a", "b"], extent=extent)
        assert found["label"].values.tolist() == [built.label]


@pytest.mark.parametrize("shape", ["saddle", "wine-bottle"])
def test_a_saddle_and_a_wine_bottle_are_mined_at_an_initialisation(dense, shape):
    few, judged, _, start = dense
    found = mine(few, start, shape, seeds=2, held_out=judged, s=3.0, steps=300, eigenvectors=0)
    assert found["success"].values.any()


def test_the_index_of_a_network_with_batch_norm_rises_with_the_share_of_signs(data):
    module = nn.Sequential(
        nn.Unflatten(1, (1, 28, 28)), models.vgg(1, 10, blocks=(1, 1, 1), width=8)
    )
    trained = train(module, data, replicas=1, epochs=4, seed=0, learning_rate=0.1, batch_size=64)
    assert float(trained["test_error"][0]) < 0.1
    x, y = data.test
    landscape = Landscape(module, x[:200], y[:200], statistics_samples=data.train.x[:256])
    found = asymmetry(
        landscape,
        points(trained)[0],
        noises=("gaussian",),
        specials=(),
        ratios=(0, 0.25, 0.5, 0.75, 1),
        seeds=5,
        lam=np.linspace(-1, 1, 9),
    )
    for metric in ("loss", "error"):
        assert float(found["ratio_correlation_low"].sel(metric=metric)) > 0
    assert torch.isfinite(torch.as_tensor(found["ratio_index"].values)).all()
