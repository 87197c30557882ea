"""The recipes of the presets solve their tasks: landscapes of untrained networks say nothing."""

from pathlib import Path

import numpy as np
import pytest

from spinscape.nets.populations import population
from spinscape.nets.training import train
from spinscape.studies.conducting import study_of
from spinscape.studies.exploration import Study

MNIST = Path(__file__).parent / "data" / "mnist10k.npz"


def median_test_error(data: str, preset: str, *, width: int, replicas: int) -> float:
    study = study_of(Study, data, preset=preset, width=width, seed=0)
    trained = train(study.module, study.source.data, replicas=replicas, **study.recipe())
    assert not trained["diverged"].any()
    return float(np.median(trained["test_error"]))


def test_digits_are_learned_at_width_32():
    assert median_test_error("digits", "quick", width=32, replicas=16) <= 0.05


@pytest.mark.slow
def test_ten_thousand_mnist_digits_are_learned_at_width_100():
    assert median_test_error(str(MNIST), "standard", width=100, replicas=8) <= 0.08


def test_sharpness_aware_training_learns_the_digits_too():
    study = study_of(Study, "digits", preset="quick", width=32, seed=0)
    recipe = study.recipe() | {"optimizer": "sam", "average_from": 0.75}
    trained = train(study.module, study.source.data, replicas=8, **recipe)
    assert float(np.median(trained["test_error"])) <= 0.05
    averaged = population(study.module, trained["average"], study.source.data)
    assert float(np.median(averaged["test_error"])) <= 0.05
