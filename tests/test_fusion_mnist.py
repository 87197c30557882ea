"""Pairs of networks of one start on 10,000 MNIST digits."""

from pathlib import Path

import numpy as np
import pytest
from torch import nn

from spinscape import datasets, models
from spinscape.merging.fusion import fuse_by_epoch, independent_signs
from spinscape.merging.fusion_findings import gap_findings, unrelated_findings

pytestmark = pytest.mark.slow

MNIST = Path(__file__).parent / "data" / "mnist10k.npz"


@pytest.fixture(scope="module")
def data():
    return datasets.load(MNIST, seed=0)


def test_a_wide_network_averages_well_from_a_random_start(data):
    """As arXiv 1912.05671 found: networks this small have no barrier from their initialisation."""
    module = models.mlp(784, [100], 10)
    found = fuse_by_epoch(module, data, seeds=4, epochs=(1, 5, 20))
    random = found.sel(start="random")
    assert (random["loss_gap"] < 0).all()
    assert float(random["gap"].mean()) > 0
    assert (np.diff(random["ssr"].sel(pair="AB").mean("seed")) < 0).all()
    assert gap_findings(found, 0)[0].verdict == "supported"  # they have learned
    coin, aligned = unrelated_findings(independent_signs(module, found), 0)
    assert coin.verdict == aligned.verdict == "supported"


def test_a_network_with_batch_normalisation_is_fused_without_alignment(data):
    channels = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU())
    more = nn.Sequential(nn.Conv2d(8, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU())
    head = nn.Sequential(nn.Flatten(), nn.Linear(16 * 36, 10))
    module = nn.Sequential(nn.Unflatten(1, (1, 28, 28)), channels, more, head)
    few = {"seeds": 2, "epochs": (1, 4), "pretraining_epochs": 1, "points": 5}
    found = fuse_by_epoch(module, data, statistics_samples=512, **few)
    assert "aligned_ssr" not in found
    assert found.attrs["not_aligned"]
    assert gap_findings(found, 0)[0].verdict == "supported"
    ends = found["merged_error"].sel(merged=["a", "b", "whole"])
    assert float(ends.max()) < 0.15
    # Weights of normalisation layers begin at 1: with them more signs are equal.
    ssr = found["ssr"].sel(pair="AB")
    assert (found["group_ssr"].sel(pair="AB", group="all") >= ssr - 0.01).all()
    apart = independent_signs(module, found)["ssr"].sel(start="random")
    assert np.abs(apart - 0.5).max() < 0.05
