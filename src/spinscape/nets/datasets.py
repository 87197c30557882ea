"""Data by name: what is built in, files, and functions of the user's own.

Whatever `load` returns has been checked; nobody further on needs to look for NaN in the inputs
or for labels out of range.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from spinscape.nets import cifar, datafiles, openml, usercode
from spinscape.nets.cutting import cut
from spinscape.nets.splits import Data, Split, as_split, check

__all__ = ["Data", "Split", "check", "load", "teacher_student"]

_SOURCES = (
    "'digits', an .npz file, a folder of IDX files or of CIFAR-10's, openml:NAME, module:function "
    "or file.py:function"
)
OPENML = "openml:"


class _Source(NamedTuple):
    """One, two or three pairs (x, y), not looked into yet."""

    sets: list[tuple[Any, Any]]
    name: str
    description: str
    classes: int | None = None


def load(
    source: str | os.PathLike[str] | tuple[Any, Any],
    *,
    seed: int = 0,
    validation: float = 0.15,
    test: float = 0.2,
    limit: int | None = None,
    dtype: torch.dtype = torch.float32,
    flatten: bool = True,
) -> Data:
    """Read data, check it and split it.

    The split is stratified: every part, and every beginning of a part, holds each class in its
    proportion, to a sample or two. It depends on the data and `seed` alone; the global random
    state is not touched. `uint8` inputs are taken for images and divided by 255, other numbers
    are taken as they are.

    Parameters
    ----------
    source : str, path or (x, y)
        - `"digits"`: 1,797 handwritten digits of 8×8 pixels that come with scikit-learn, divided
          by 16 to lie in [0, 1]; a 64-32-10 ReLU network errs on about 3 % of the test set;
        - an `.npz` file with arrays `x` [N, ...] and `y` [N];
        - a folder of IDX files as MNIST and Fashion-MNIST are distributed, gzipped or not;
        - a folder of CIFAR-10's binary version (`data_batch_1.bin`, …);
        - `"openml:NAME"`, `"openml:NAME:VERSION"` or `"openml:ID"`: a table of numbers of OpenML,
          fetched and cached by scikit-learn: the only thing here that reaches for the network;
        - `"module:function"` or `"path/to/file.py:function"`: your function, called with no
          arguments or with `seed` if it takes one. It returns (x, y); or ((x, y), (x, y)) to
          train and to test on; or three pairs: train, validation, test; or a mapping with these
          names; or a `Data`;
        - arrays or tensors (x, y) themselves.
    seed : int
        Of the split, and of the subset where `limit` asks for one.
    validation, test : float
        Fractions of all samples. A test set that the source brings along is kept, and
        `validation` is then a fraction of the rest; so is a validation set.
    limit : int, optional
        At most so many samples altogether, stratified; a source's own sets shrink in proportion.
    dtype : torch.dtype
        Of the inputs: `torch.float32` or `torch.float64`.
    flatten : bool
        Grey images [N, H, W] become vectors [N, H·W]; if not, they become [N, 1, H, W], as
        convolutions want them. Inputs of any other shape are kept as they are.

    Returns
    -------
    Data
        Three splits on the CPU.

    Raises
    ------
    ValueError
        The source is none of these or cannot be read; a value is not finite; labels are not
        0 .. C - 1; a class is too rare to be split; a fraction is out of range. One line that
        names the source and says what to do.

    Examples
    --------
    >>> data = load("digits", seed=0)
    >>> x, y = data.train
    >>> x.shape, data.classes
    (torch.Size([1168, 64]), 10)
    """
    sets, name, description, classes = _read(source, seed)
    called = "data" if isinstance(source, tuple) else os.fspath(source)
    parts = [as_split(x, y, called, dtype=dtype, flatten=flatten) for x, y in sets]
    return cut(
        parts,
        name=name,
        description=description,
        seed=seed,
        validation=validation,
        test=test,
        limit=limit,
        classes=classes,
    )


def _read(source: str | os.PathLike[str] | tuple[Any, Any], seed: int) -> _Source:
    if isinstance(source, tuple):
        return _given(source, "data", "arrays handed over in Python")
    text = os.fspath(source)
    if text == "digits":
        return _digits()
    if text.startswith(OPENML):
        x, y = openml.fetch(text.removeprefix(OPENML))
        return _Source([(x, y)], text, f"{text.removeprefix(OPENML)}, a data set of OpenML")
    path = Path(text)
    if text and path.is_dir() and cifar.is_cifar(path):
        sets = list(cifar.read_cifar_folder(path))
        return _Source(sets, path.resolve().name, f"CIFAR-10: {path}")
    if text and path.is_dir():
        return _Source(list(datafiles.read_idx_folder(path)), path.resolve().name, f"IDX: {path}")
    if path.suffix == ".npz" and path.exists():
        return _Source([datafiles.read_npz(path)], path.stem, f"x and y of {path}")
    if text and path.exists():
        raise ValueError(f"{text}: cannot read this kind of file; data is {_SOURCES}")
    if usercode.is_spelled_like_code(text):
        return _given(usercode.call(text, seed=seed), text, f"made by {text}")
    raise ValueError(f"{text!r}: no such file or folder; data is {_SOURCES}")


def _digits() -> _Source:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    description = "1,797 handwritten digits of 8×8 pixels from scikit-learn, in [0, 1]"
    return _Source([(bunch.images / 16, bunch.target)], "digits", description)


def _given(value: Any, name: str, description: str) -> _Source:
    if isinstance(value, Data):
        sets = [(part.x, part.y) for part in value.splits.values()]
        return _Source(sets, value.name, value.description or description, value.classes)
    if isinstance(value, Mapping):
        names = [part for part in ("train", "validation", "test") if part in value]
        value = tuple(value[part] for part in names) if names != ["train"] else value["train"]
    if isinstance(value, tuple | list):
        if len(value) == 2 and not any(isinstance(part, tuple) for part in value):
            return _Source([(value[0], value[1])], name, description)
        if len(value) in {2, 3} and all(_is_pair(part) for part in value):
            return _Source([(x, y) for x, y in value], name, description)
    raise ValueError(
        f"{name}: cannot use this {type(value).__name__}; needs (x, y), or pairs for train, "
        "validation and test, or a mapping with these names, or a Data"
    )


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2


def teacher_student(
    inputs: int = 20,
    hidden: int = 4,
    classes: int = 2,
    samples: int = 2000,
    *,
    noise: float = 0.0,
    seed: int = 0,
) -> Data:
    """Gaussian inputs labelled by a random one-hidden-layer ReLU network, the teacher.

    The teacher's weights are N(0, 1 / fan-in). Each of its outputs is brought to mean 0 and
    variance 1 over the samples, so that no class is rare; the largest one is the label.

    Parameters
    ----------
    inputs, hidden, classes : int
        Widths of the teacher.
    samples : int
        Number of samples: 15 % of them validate, 20 % test.
    noise : float
        Fraction of labels that are replaced, by one drawn evenly from all classes: a network that
        knows the teacher still errs on noise · (1 - 1/classes) of the samples, on average.
    seed : int
        Of the teacher, the inputs, the noise and the split.

    Returns
    -------
    Data
        x [sample, inputs] ~ N(0, 1).

    Raises
    ------
    ValueError
        A width or `samples` below 1, fewer than two classes, `noise` outside [0, 1], or too few
        samples of a class.
    """
    if min(inputs, hidden, samples) < 1 or classes < 2 or not 0 <= noise <= 1:
        raise ValueError(
            "teacher_student needs inputs, hidden and samples of at least 1, two classes or more "
            f"and noise in [0, 1]; got {inputs}, {hidden}, {samples}, {classes} and {noise}"
        )
    random = np.random.default_rng(seed)
    first = random.normal(scale=inputs**-0.5, size=(inputs, hidden))
    second = random.normal(scale=hidden**-0.5, size=(hidden, classes))
    x = random.normal(size=(samples, inputs))
    outputs = np.maximum(x @ first, 0) @ second
    taught = ((outputs - outputs.mean(0)) / (outputs.std(0) + 1e-12)).argmax(1)
    drawn = random.integers(classes, size=samples)
    y = np.where(random.random(samples) < noise, drawn, taught)
    shape = f"{inputs}-{hidden}-{classes}"
    data = load((x, y), seed=seed)
    return Data(
        data.train,
        data.validation,
        data.test,
        name=f"teacher {shape}",
        classes=classes,
        description=f"labels of a random {shape} ReLU network, {noise:.0%} of them redrawn",
    )
