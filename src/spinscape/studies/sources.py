"""What a study is pointed at: data, and a network of its own or of the user's."""

import glob
import hashlib
import importlib
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spinscape.nets import datasets, models
from spinscape.nets.datasets import Data

__all__ = ["Source", "call", "fingerprint", "source_of"]


@dataclass(frozen=True)
class Source:
    """The data, and either a network to train or networks that exist already."""

    data: Data
    model: str | None
    checkpoints: tuple[str, ...]

    @property
    def inputs(self) -> int:
        """Length of a flattened sample."""
        return self.data.train.x[0].numel()

    def module(self, width: int) -> nn.Module:
        """The network: the user's, or one hidden layer of `width` ReLU units."""
        if self.model is not None:
            built = call("model", self.model)
            if not isinstance(built, nn.Module):
                raise TypeError(f"model={self.model!r}: returned {type(built).__name__}, no Module")
            return built
        return models.mlp(self.inputs, [width], self.data.classes)


def source_of(
    data: str | Data,
    seed: int,
    limit: int,
    model: str | None = None,
    checkpoints: str | None = None,
) -> Source:
    """Load the data and find the checkpoints.

    Raises
    ------
    ValueError
        If the data cannot be read, no file matches, or checkpoints come without a model.
    """
    if checkpoints is not None and model is None:
        raise ValueError("checkpoints: need model='module:function', the network they belong to")
    files = tuple(sorted(glob.glob(checkpoints, recursive=True))) if checkpoints else ()
    if checkpoints is not None and not files:
        raise ValueError(f"checkpoints={checkpoints!r}: no file matches")
    loaded = data if isinstance(data, Data) else datasets.load(data, seed=seed, limit=limit or None)
    return Source(loaded, model, files)


def call(name: str, reference: str) -> Any:
    """Call the function that ``module:function`` or ``path/file.py:function`` names.

    Raises
    ------
    ValueError
        If there is no such module or function.
    """
    place, _, function = reference.rpartition(":")
    if not place or not function:
        raise ValueError(f"{name}={reference!r}: expected module:function")
    if place.endswith(".py"):
        found = importlib.util.spec_from_file_location(Path(place).stem, place)
        if found is None or found.loader is None or not Path(place).is_file():
            raise ValueError(f"{name}={reference!r}: no such file {place!r}")
        module = importlib.util.module_from_spec(found)
        found.loader.exec_module(module)
    else:
        if "" not in sys.path:
            sys.path.insert(0, "")
        try:
            module = importlib.import_module(place)
        except ImportError as reason:
            raise ValueError(f"{name}={reference!r}: cannot import it ({reason})") from reason
    if not callable(getattr(module, function, None)):
        raise ValueError(f"{name}={reference!r}: {place!r} has no function {function!r}")
    return getattr(module, function)()


def fingerprint(*tensors: Tensor) -> str:
    """Twelve hex digits that change when a tensor does."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(str((tuple(tensor.shape), tensor.dtype)).encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12]
