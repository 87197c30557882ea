"""Folders of CIFAR-10's binary version: colour images of 32×32 pixels, one byte a channel."""

from pathlib import Path

import numpy as np

__all__ = ["is_cifar", "read_cifar_folder"]

IMAGE = (3, 32, 32)
RECORD = 1 + 3 * 32 * 32
TRAINING = tuple(f"data_batch_{number}" for number in range(1, 6))


def is_cifar(folder: Path) -> bool:
    """Whether a folder holds the training batches of CIFAR-10, in either version."""
    return any((folder / name).exists() or (folder / f"{name}.bin").exists() for name in TRAINING)


def read_cifar_folder(
    folder: Path,
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Read the training and the test set of a folder of CIFAR-10's binary version.

    Parameters
    ----------
    folder : Path
        Holds `data_batch_1.bin` to `data_batch_5.bin` (or the first few of them) and
        `test_batch.bin`: records of one label byte and 3072 bytes of red, green and blue.

    Returns
    -------
    tuple of pairs of numpy.ndarray
        (x [sample, 3, 32, 32], y [sample]) to train on, and to test on.

    Raises
    ------
    ValueError
        A file is missing, holds no whole number of records or a label above 9; or the folder
        holds the Python version, which is pickled and therefore not read.
    """
    training = [folder / f"{name}.bin" for name in TRAINING if (folder / f"{name}.bin").is_file()]
    test = folder / "test_batch.bin"
    if not training:
        raise ValueError(
            f"{folder}: the batches there are pickled Python objects, which are never unpickled; "
            "take CIFAR-10's binary version (data_batch_1.bin, …)"
        )
    if not test.is_file():
        raise ValueError(f"{folder}: no test_batch.bin beside data_batch_1.bin")
    parts = [_batch(path) for path in training]
    x, y = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return (x, y), _batch(test)


def _batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    size = path.stat().st_size
    if not size or size % RECORD:
        raise ValueError(f"{path}: {size:,} bytes are no whole number of records of {RECORD}")
    records = np.fromfile(path, np.uint8).reshape(-1, RECORD)
    labels = records[:, 0]
    if labels.max() > 9:
        raise ValueError(f"{path}: label {labels.max()} is above 9; not a file of CIFAR-10")
    return records[:, 1:].reshape(-1, *IMAGE), labels
