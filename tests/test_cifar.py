"""CIFAR-10's binary version: what its records say, and what is refused."""

import pickle

import numpy as np
import pytest

from spinscape import models
from spinscape.nets import datasets, symmetry


def write(folder, batches=2, each=60):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batches + 1, each, 3, 32, 32), dtype=np.uint8)
    labels = np.tile(np.arange(10, dtype=np.uint8), (batches + 1, each // 10))
    names = [f"data_batch_{k + 1}.bin" for k in range(batches)] + ["test_batch.bin"]
    for name, x, y in zip(names, images, labels, strict=True):
        records = [bytes([label]) + image.tobytes() for image, label in zip(x, y, strict=True)]
        (folder / name).write_bytes(b"".join(records))
    return images, labels


def test_records_come_back_as_images_with_their_own_test_set(tmp_path):
    images, labels = write(tmp_path)
    data = datasets.load(tmp_path, seed=0)
    assert data.inputs == (3, 32, 32)
    assert len(data.test.x) == 60
    where = {x.tobytes(): y for x, y in zip(images[2], labels[2], strict=True)}
    for x, y in zip((255 * data.test.x).round().numpy().astype(np.uint8), data.test.y, strict=True):
        assert where[x.tobytes()] == y
    seen = len(data.train.x) + len(data.validation.x)
    assert seen == 120


def test_a_network_of_one_hidden_layer_takes_it(tmp_path):
    write(tmp_path)
    data = datasets.load(tmp_path, seed=0)
    module = models.mlp(data.inputs, [5], data.classes)
    assert module(data.train.x[:2]).shape == (2, 10)
    assert symmetry.of(module).widths == (5,)


def test_the_pickled_version_is_never_unpickled(tmp_path):
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps({"data": 1}))
    with pytest.raises(ValueError, match="never unpickled; take CIFAR-10's binary version"):
        datasets.load(tmp_path, seed=0)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda f: (f / "test_batch.bin").unlink(), "no test_batch.bin"),
        (lambda f: (f / "test_batch.bin").write_bytes(b"\0" * 3072), "no whole number of records"),
        (lambda f: (f / "data_batch_1.bin").write_bytes(b"\x0a" + b"\0" * 3072), "label 10"),
    ],
)
def test_damage_is_named(tmp_path, spoil, told):
    write(tmp_path)
    spoil(tmp_path)
    with pytest.raises(ValueError, match=told):
        datasets.load(tmp_path, seed=0)
