"""What a landscape refuses: data that does not fit together, at the door and with a remedy."""

from typing import Any

import torch
from torch import Tensor

from spinscape.nets.losses import Custom, Loss

__all__ = ["check_data", "check_device", "check_labels", "check_mean"]


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
        if values.is_floating_point() and not torch.isfinite(values).all():
            count = int((~torch.isfinite(values)).sum())
            raise ValueError(
                f"{name} holds {count:,} values that are NaN or infinite: "
                "remove or replace those samples first"
            )
    return x, y


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
        If the loss of two samples is not the mean of their losses.
    """
    if len(y) < 2:
        return
    parts = [loss.value(outputs[:, k : k + 1], y[k : k + 1], own=False) for k in range(2)]
    whole = loss.value(outputs[:, :2], y[:2], own=False)
    mean = (parts[0] + parts[1]) / 2
    if not torch.allclose(whole, mean, rtol=1e-3, atol=1e-5, equal_nan=True):
        raise ValueError(
            f"loss {loss.name!r}: {float(whole[0]):.6g} on two samples, but {float(mean[0]):.6g} "
            "as the mean of each: expected a mean over samples (reduction='mean', no class weights)"
        )
