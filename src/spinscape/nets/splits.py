"""One classification task as three splits: what it is, and what makes it valid."""

import hashlib
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Num
from torch import Tensor

__all__ = ["REMAP", "Data", "Split", "as_split", "check"]

REMAP = "remap them with numpy.unique(y, return_inverse=True)[1]"


class Split(NamedTuple):
    """Inputs [sample, ...] and class labels [sample]; `x, y = data.train` takes it apart."""

    x: Tensor
    y: Tensor


@dataclass(frozen=True)
class Data:
    """Three splits of one classification task, checked when made.

    Attributes
    ----------
    train, validation, test : Split
        Inputs [sample, ...] and labels [sample], whole numbers in 0 .. classes - 1.
    name : str
        Short, for titles.
    classes : int
        Number of classes.
    description : str
        One line: where the data is from and how x is scaled.

    Raises
    ------
    ValueError
        A split does not pass `check`, or the samples of two splits differ in shape.
    """

    train: Split
    validation: Split
    test: Split
    name: str
    classes: int
    description: str = ""

    def __post_init__(self) -> None:
        for part, (x, y) in self.splits.items():
            check(x, y, f"{self.name}, {part}", classes=self.classes)
            if x.shape[1:] != self.train.x.shape[1:]:
                raise ValueError(
                    f"{self.name}: samples have shape {self.inputs} in train and "
                    f"{tuple(x.shape[1:])} in {part}; give them one shape"
                )

    @property
    def splits(self) -> dict[str, Split]:
        """The three splits by name: train, validation, test."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @property
    def inputs(self) -> tuple[int, ...]:
        """The shape of one sample, as `models.mlp` takes it."""
        return tuple(self.train.x.shape[1:])

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all values and shapes: equal for equal data, whatever it is called."""
        digest = hashlib.sha256()
        for values in (values for part in self.splits.values() for values in part):
            array = np.ascontiguousarray(values.detach().cpu().numpy())
            digest.update(f"{array.dtype.str} {array.shape}".encode())
            digest.update(array.data)
        return digest.hexdigest()


def check(
    x: Num[Tensor, "sample ..."],
    y: Num[Tensor, " sample"],
    name: str = "data",
    *,
    classes: int | None = None,
) -> None:
    """Refuse inputs and labels that no classifier could be judged on.

    Parameters
    ----------
    x : Tensor
        Inputs, [sample, ...].
    y : Tensor
        Labels, [sample].
    name : str
        What the message calls the data.
    classes : int, optional
        Number of classes; labels must then be smaller.

    Raises
    ------
    ValueError
        No samples; x and y differ in length; y is not one whole number a sample; a label is
        negative or not below `classes`; a value of x is not finite.
    """
    if y.ndim != 1:
        hint = "y.argmax(1)" if y.ndim == 2 and y.shape[1] > 1 else "y.reshape(-1)"
        raise ValueError(f"{name}: y has shape {tuple(y.shape)}, needs one label a sample: {hint}")
    if x.ndim == 0 or len(x) != len(y) or not x.numel():
        raise ValueError(
            f"{name}: x has shape {tuple(x.shape)} and y {tuple(y.shape)}; "
            "their first dimensions must be equal, and nothing empty"
        )
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise ValueError(f"{name}: y is {y.dtype}, needs whole numbers: y.long()")
    wrong = (y < 0) | (y >= classes) if classes is not None else y < 0
    if wrong.any():
        first = int(wrong.nonzero()[0])
        allowed = "at least 0" if classes is None else f"in 0 .. {classes - 1}"
        raise ValueError(
            f"{name}: labels out of range ({int(wrong.sum()):,} of {len(y):,}), the first "
            f"{int(y[first])} at index {first}; they must be {allowed}: {REMAP}"
        )
    _refuse_not_finite(x, name)


def _refuse_not_finite(x: Tensor, name: str) -> None:
    wrong = ~torch.isfinite(x)
    if wrong.any():
        first = np.unravel_index(int(wrong.flatten().int().argmax()), x.shape)
        raise ValueError(
            f"{name}: x holds values that are not finite in {x.dtype} ({int(wrong.sum()):,} of "
            f"{x.numel():,}), the first at index {tuple(map(int, first))}; "
            "remove or replace these samples"
        )


_FLOATS: dict[torch.dtype, type[np.floating[Any]]] = {
    torch.float32: np.float32,
    torch.float64: np.float64,
}


def as_split(x: Any, y: Any, name: str, *, dtype: torch.dtype, flatten: bool) -> Split:
    """Turn whatever holds numbers into checked tensors on the CPU.

    Parameters
    ----------
    x, y : array, Tensor or nested sequence
        Inputs [N, ...] and labels [N]. `uint8` inputs are images, divided by 255; labels stored
        as floats are taken if they are whole numbers.
    name : str
        What messages call the data.
    dtype : torch.dtype
        Of the inputs: `torch.float32` or `torch.float64`.
    flatten : bool
        Grey images [N, H, W] become [N, H·W]; if not, [N, 1, H, W]. Other shapes are kept.

    Returns
    -------
    Split
        x of `dtype`, y of int64.

    Raises
    ------
    ValueError
        As `check`; or x or y do not hold numbers; or x has no feature dimension.
    """
    if dtype not in _FLOATS:
        raise ValueError(f"dtype must be torch.float32 or torch.float64, got {dtype}")
    inputs, labels = _numbers(x, "x", name), _numbers(y, "y", name)
    if inputs.ndim == 1:
        raise ValueError(f"{name}: x has shape {inputs.shape}, needs [N, features]")
    if inputs.ndim == 3:
        n, height, width = inputs.shape
        inputs = inputs.reshape((n, height * width) if flatten else (n, 1, height, width))
    with np.errstate(over="ignore"):  # `check` counts what overflowed
        values = torch.from_numpy(inputs.astype(_FLOATS[dtype]))
    if inputs.dtype == np.uint8:
        values /= 255
    split = Split(values, torch.from_numpy(_whole(labels, name)))
    check(*split, name)
    return split


def _whole(labels: np.ndarray, name: str) -> np.ndarray:
    if labels.dtype.kind != "f":
        return labels.astype(np.int64)
    wrong = np.flatnonzero(~np.isfinite(labels) | (labels != np.round(labels)))
    if wrong.size:
        raise ValueError(
            f"{name}: labels must be whole numbers, "
            f"found {labels.flat[wrong[0]]} at index {wrong[0]}; {REMAP}"
        )
    return labels.astype(np.int64)


def _numbers(values: Any, role: str, name: str) -> np.ndarray:
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = values.float() if values.dtype == torch.bfloat16 else values
    try:
        array = np.asarray(values)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name}: {role} is not an array of numbers ({error})") from error
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name}: {role} holds {array.dtype}, needs real numbers")
    return array
