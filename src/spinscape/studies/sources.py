"""What a study is pointed at: data, and a network of its own or of the user's."""

import copy
import glob
import hashlib
import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import nn

from spinscape.nets import datasets, models, usercode
from spinscape.nets.datasets import Data
from spinscape.nets.weightspace import WeightSpace

__all__ = ["DataLike", "Source", "source_of"]

DataLike: TypeAlias = str | os.PathLike[str] | tuple[Any, Any] | Data


@dataclass(frozen=True)
class Source:
    """The data, and either a network to train or networks that exist already."""

    data: Data
    model: nn.Module | None
    model_name: str
    checkpoints: tuple[str, ...]
    init: Callable[[nn.Module, torch.Generator], None] | None = None
    """How replicas of the user's network begin; None for ``reset_parameters`` of its layers."""

    def module(self, width: int) -> nn.Module:
        """Return the network: the user's, or one hidden layer of `width` ReLU units."""
        if self.model is not None:
            return self.model
        return models.mlp(self.data.inputs, [width], self.data.classes)

    def configuration(self) -> dict[str, Any]:
        """Return what identifies data and networks, by contents rather than by name."""
        contents = {path: _digest(Path(path).read_bytes()) for path in self.checkpoints}
        layers = {} if self.model is None else {"model_fingerprint": _architecture(self.model)}
        return {
            "data": self.data.name,
            "data_fingerprint": self.data.fingerprint[:16],
            "model": self.model_name,
            **layers,
            "checkpoints": contents,
        }


def source_of(
    data: DataLike,
    *,
    seed: int,
    limit: int | None = None,
    model: str | nn.Module | None = None,
    checkpoints: str | Sequence[str | Path] | None = None,
) -> Source:
    """Load the data, build the model and find the checkpoints.

    Parameters
    ----------
    data : str, path, (x, y) or Data
        As in `datasets.load`. Grey images come as vectors, or as images where the model takes only
        those.
    seed : int
        Of the split; handed to the user's functions that take one.
    limit : int, optional
        At most so many samples.
    model : str or nn.Module, optional
        ``module:function`` that returns the network, or the network.
    checkpoints : str or sequence of paths, optional
        A file pattern, or files.

    Raises
    ------
    ValueError
        If the data cannot be read or does not fit the model, no file matches, or checkpoints come
        without a model.
    TypeError
        If the model is no nn.Module.
    """
    if checkpoints is not None and model is None:
        raise ValueError("checkpoints: need model='module:function', the network they belong to")
    files = _files(checkpoints)
    network = _built(model, seed) if isinstance(model, str) else model
    if network is not None and not isinstance(network, nn.Module):
        raise TypeError(f"model={model!r}: gives {type(network).__name__}, expected a nn.Module")
    name = "" if network is None else model if isinstance(model, str) else type(network).__name__

    def loaded(flatten: bool) -> Data:
        if isinstance(data, Data):
            return data
        return datasets.load(data, seed=seed, limit=limit, flatten=flatten)

    if network is not None and files:
        _check_networks(network, files)
    fitting = _fitting(loaded, network, name)
    init = _initialiser(model, seed) if isinstance(model, str) and not files else None
    return Source(fitting, network, str(name), files, init)


def _built(model: str, seed: int) -> Any:
    # Layers draw their first weights, which nothing here depends on.
    with torch.random.fork_rng(devices=[]):
        return usercode.call(model, seed=seed)


def _initialiser(model: str, seed: int) -> Callable[[nn.Module, torch.Generator], None] | None:
    """Initialise replicas by the user's function, if it draws other weights at every call."""
    again = []
    for draw in (seed, seed + 1):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(draw)
            again.append(usercode.call(model, seed=draw).state_dict())
    drawn = any(not torch.equal(again[0][name], again[1][name]) for name in again[0])
    return partial(_begin, model) if drawn else None


def _begin(model: str, module: nn.Module, generator: torch.Generator) -> None:
    """Give a module the weights of one more call of the user's function."""
    built = usercode.call(model, seed=generator.initial_seed() % 2**31)
    module.load_state_dict(built.state_dict())


def _check_networks(network: nn.Module, files: tuple[str, ...]) -> None:
    """Refuse at once, by name, what would end or falsify a run later."""
    space, seen = WeightSpace(network), dict[str, str]()
    for path in files:
        point = space.read(path)
        if not bool(torch.isfinite(point).all()):
            raise ValueError(f"checkpoint {path}: holds weights that are not finite; leave it out")
        digest = _digest(point.contiguous().view(torch.uint8).numpy().tobytes())
        if digest in seen:
            raise ValueError(
                f"checkpoints {seen[digest]} and {path} hold the same weights, which would count "
                "as two solutions; leave one out"
            )
        seen[digest] = path


def _files(checkpoints: str | Sequence[str | Path] | None) -> tuple[str, ...]:
    if checkpoints is None:
        return ()
    if not isinstance(checkpoints, str):
        found = [str(path) for path in checkpoints]
    else:
        found = sorted(glob.glob(checkpoints, recursive=True))
    if not found:
        raise ValueError(f"checkpoints={checkpoints!r}: no file matches")
    for path in found:
        if not Path(path).is_file():
            raise ValueError(f"checkpoints: {path} is not a file")
    return tuple(found)


def _fitting(load: Callable[[bool], Data], module: nn.Module | None, name: str) -> Data:
    """Load the data in the shape that the module takes: vectors, or else images."""
    first = load(True)
    if module is None:
        return first
    reason = _refusal(module, first)
    if reason is None:
        return first
    second = load(False)
    if second.inputs == first.inputs or _refusal(module, second) is not None:
        raise ValueError(f"model {name}: cannot take samples of shape {first.inputs} ({reason})")
    return second


def _refusal(module: nn.Module, data: Data) -> str | None:
    """Why the module cannot classify these samples, or None if it can."""
    like = next(module.parameters(), torch.empty(0))
    try:
        with torch.no_grad():
            outputs = copy.deepcopy(module).eval()(data.train.x[:2].to(like))
    except Exception as error:  # whatever the user's code raises means the same here
        return " ".join(f"{type(error).__name__}: {error}".split())
    if getattr(outputs, "ndim", 0) != 2 or outputs.shape[1] < data.classes:
        shape = tuple(getattr(outputs, "shape", ()))
        return f"two samples give outputs of shape {shape}, expected [2, {data.classes}]"
    return None


def _architecture(module: nn.Module) -> str:
    """Digest of a network's layers, shapes and code; its weights do not matter to a study."""
    shapes = [(name, tuple(value.shape)) for name, value in module.state_dict().items()]
    kinds = {type(part) for part in module.modules()}
    own = sorted((kind for kind in kinds if not kind.__module__.startswith("torch.")), key=repr)
    code = [_source_code(kind) for kind in own]
    return _digest(f"{module!r}{shapes}{code}".encode())


def _source_code(kind: type) -> str:
    try:
        return inspect.getsource(kind.forward)  # type: ignore[attr-defined]
    except (OSError, TypeError):  # typed at a prompt, or compiled
        return kind.__qualname__


def _digest(contents: bytes) -> str:
    return hashlib.sha256(contents).hexdigest()[:16]
