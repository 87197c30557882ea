"""What a landscape refuses: data that does not fit together, at the door and with a remedy."""

from typing import Any

import torch
from torch import Tensor

from spinscape.nets.losses import Custom, Loss

__all__ = [
    "check_data",
    "check_device",
    "check_finite",
    "check_labels",
    "check_mean",
    "few_samples",
]

FEW = 16


def check_data(x: Any, y: Any) -> tuple[Tensor, Tensor]:
    """Return inputs and targets as tensors.

    Raises
    ------
    ValueError
        If they are empty, of unequal lengths, on different devices, or not finite.
    """
    x, y = torch.as_tensor(x), torch.as_tensor(y)
    if x.ndim == 0 or y.ndim == 0 or len(x) == 0:
        raise ValueError(
            f"x has shape {tuple(x.shape)} and y {tuple(y.shape)}: expected one row a sample, "
            "at least one"
        )
    if len(x) != len(y):
        raise ValueError(f"x has {len(x):,} samples and y {len(y):,}: expected as many")
    if x.device != y.device:
        raise ValueError(f"x is on {x.device} and y on {y.device}: move one with .to(device)")
    for name, values in (("x", x), ("y", y)):
        check_finite(values, name)
    return x, y


def check_finite(values: Tensor, name: str) -> None:
    """Refuse values that are not finite.

    Raises
    ------
    ValueError
        Naming the argument and how many there are.
    """
    if values.is_floating_point() and not torch.isfinite(values).all():
        count = int((~torch.isfinite(values)).sum())
        raise ValueError(
            f"{name} holds {count:,} values that are NaN or infinite: "
            "remove or replace those samples first"
        )


def few_samples(y: Tensor) -> Tensor:
    """Return indices of a few samples, of different classes where `y` tells them apart."""
    first = torch.arange(min(2, len(y)), device=y.device)
    if y.is_floating_point() or y.ndim != 1:
        return first
    classes, label = y.unique(return_inverse=True)
    if len(classes) < 2:
        return first
    place = torch.full((len(classes),), len(y), device=y.device)
    place.scatter_reduce_(0, label, torch.arange(len(y), device=y.device), "amin")
    return place[:FEW]


def check_device(points: Tensor, x: Tensor) -> None:
    """Refuse points that are not where the data is.

    Raises
    ------
    ValueError
        Naming both devices.
    """
    if points.device != x.device:
        raise ValueError(
            f"points are on {points.device} and the landscape's data on {x.device}: "
            "move the points, or x and y, with .to(device)"
        )


def check_labels(y: Tensor, outputs: Tensor, loss: Loss) -> None:
    """Refuse class labels outside of the classes that a model's outputs ``[B, ..., C]`` have.

    Raises
    ------
    ValueError
        Naming the label and the number of classes.
    """
    if y.is_floating_point() or isinstance(loss, Custom):
        return
    classes = outputs.shape[-1]
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= classes:
        wrong = low if low < 0 else high
        raise ValueError(
            f"y holds the label {wrong}: the module has {classes} outputs, so labels are "
            f"0..{classes - 1}"
        )


def check_mean(loss: Loss, outputs: Tensor, y: Tensor) -> None:
    """Refuse a loss that is not a mean over samples: how samples are cut would change it.

    Raises
    ------
    ValueError
        If the loss of some samples is not the mean of their losses.
    """
    # The second time with each output at another class: a module that makes no error has losses of
    # nearly 0, which are their own sum and mean.
    for tried in (outputs, outputs.roll(1, -1)):
        parts = [loss.value(tried[:, k : k + 1], y[k : k + 1], own=False) for k in range(len(y))]
        whole, mean = loss.value(tried, y, own=False), torch.stack(parts).mean(0)
        if not torch.allclose(whole, mean, rtol=1e-3, atol=1e-5, equal_nan=True):
            raise ValueError(
                f"loss {loss.name!r}: {float(whole[0]):.6g} on {len(y)} samples, but "
                f"{float(mean[0]):.6g} as the mean of each: expected a mean over samples "
                "(reduction='mean', no class weights)"
            )
