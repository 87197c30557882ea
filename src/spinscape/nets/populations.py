"""Populations: points of replicas with what they reach on the three splits."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor, nn

from spinscape.nets.datasets import Data
from spinscape.nets.engine import PointEvaluator
from spinscape.nets.losses import Loss, LossFunction, loss_of
from spinscape.nets.weightspace import WeightSpace
from spinscape.nets.weightspace import points as points_of
from spinscape.origins import versions

__all__ = ["Evaluator", "describe", "population"]

SPLITS = ("train", "validation", "test")


class Evaluator:
    """Loss and error of points on a split, in chunks; normalisation is re-estimated on training."""

    def __init__(self, module: nn.Module, data: Data, loss: Loss) -> None:
        self.data = data
        self._evaluate = PointEvaluator(module, loss, statistics=data.train.x)

    def __call__(
        self, points: Float[Tensor, "P n"], split: str
    ) -> tuple[Float[Tensor, "P"], Float[Tensor, "P"]]:
        """Loss and error of every point on one split."""
        x, y = getattr(self.data, split)
        return self._evaluate(points, x, y)


def describe(
    space: WeightSpace,
    points: Float[Tensor, "replica n"],
    evaluate: Callable[[Tensor, str], tuple[Tensor, Tensor]],
    replicas: Sequence[int],
    diverged: Tensor | None = None,
) -> xr.Dataset:
    """Return the Dataset of a population: its points and their losses and errors."""
    result = xr.Dataset(coords={"replica": np.asarray(replicas)})
    result["point"] = (
        ("replica", "n"),
        points.detach().cpu().numpy(),
        {"long_name": "weights", "units": "1"},
    )
    for split in SPLITS:
        loss, error = evaluate(points, split)
        result[f"{split}_loss"] = ("replica", loss.cpu().numpy(), _attrs(f"{split} loss", "nats"))
        result[f"{split}_error"] = ("replica", error.cpu().numpy(), _attrs(f"{split} error", "1"))
    if diverged is None:
        diverged = ~torch.isfinite(torch.from_numpy(result["train_loss"].values))
    result["diverged"] = (
        "replica",
        diverged.cpu().numpy(),
        _attrs("training loss became non-finite", "1"),
    )
    result.attrs.update(
        protocol="population",
        parameters=json.dumps(dict(zip(space.names, space.shapes, strict=True))),
        versions=versions(),
    )
    return result


def _attrs(long_name: str, units: str) -> dict[str, str]:
    return {"long_name": long_name, "units": units}


def population(
    module: nn.Module,
    points_or_checkpoints: "Tensor | xr.DataArray | xr.Dataset | Sequence[str | Path]",
    data: Data,
    *,
    loss: str | LossFunction = "cross_entropy",
) -> xr.Dataset:
    """Make the Dataset of a population from networks that were trained elsewhere.

    Parameters
    ----------
    module : nn.Module
        The architecture; its own weights do not matter.
    points_or_checkpoints : Tensor, DataArray, Dataset or sequence of paths
        Points ``[replica, n]``, or checkpoints (safetensors, or state dicts of ``torch.save``).
    data : Data
        On which they are evaluated.
    loss : str or callable
        As in `losses.loss_of`.

    Returns
    -------
    Dataset
        As that of `train`, without seeds and curves; with ``checkpoint [replica]`` for paths.

    Raises
    ------
    ValueError
        If there is nothing to read, or a checkpoint or the points do not fit the module.
    """
    space = WeightSpace(module)
    paths: list[str] = []
    if isinstance(points_or_checkpoints, Tensor | xr.DataArray | xr.Dataset):
        points = torch.atleast_2d(points_of(points_or_checkpoints))
    else:
        paths = [str(path) for path in points_or_checkpoints]
        if not paths:
            raise ValueError("points_or_checkpoints: no checkpoint given")
        points = torch.stack([space.read(path) for path in paths])
    space.check(points, "points_or_checkpoints", ndim=2)
    evaluate = Evaluator(module, data, loss_of(loss))
    result = describe(space, points, evaluate, range(len(points)))
    arguments = {"networks": len(points), "data": data.name}
    result.attrs.update(arguments=json.dumps(arguments), source="networks trained elsewhere")
    if paths:
        result["checkpoint"] = ("replica", np.array(paths), _attrs("file", "1"))
    return result
