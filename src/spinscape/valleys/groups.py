"""Parameter groups: which weights of a module a direction may move."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from spinscape.nets.weightspace import WeightSpace

__all__ = ["GROUPS", "members"]

GROUPS = ("all", "classifier", "features", "first block", "convolutions", "normalisation")
"""Groups that go by a name of their own; any glob of parameter names is one as well."""

_HEADS = ("classifier", "head", "fc")
_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm)


def members(module: nn.Module, group: str) -> Bool[Tensor, "n"]:
    """Tell which entries of a point belong to a group of parameters.

    The classifier is the child named ``classifier``, ``head`` or ``fc``, or else the last layer
    with parameters; the features are all the rest; the first block is the first layer with
    parameters and the normalisation layers right behind it.

    Parameters
    ----------
    module : nn.Module
    group : str
        One of `GROUPS`, the name of a parameter or of a part of the module, or a glob of parameter
        names (``"*.bias"``).

    Raises
    ------
    ValueError
        If the module has no such group.

    Examples
    --------
    >>> members(nn.Linear(2, 1), "bias").tolist()
    [False, False, True]
    """
    space = WeightSpace(module)
    chosen = _parameters(module, space, group)
    found = torch.zeros(space.n, dtype=torch.bool)
    for name, place in space.slices.items():
        found[place] = name in chosen
    if not found.any():
        known = ", ".join(dict.fromkeys(name.split(".")[0] for name in space.names))
        raise ValueError(
            f"group={group!r}: module {space.kind!r} has no such parameters; expected one of "
            f"{', '.join(GROUPS)}, or a glob of names such as {space.names[0]!r} (parts: {known})"
        )
    return found


def _parameters(module: nn.Module, space: WeightSpace, group: str) -> set[str]:
    """Names of the parameters in a group."""
    if group == "all":
        return set(space.names)
    if group == "classifier":
        return _classifier(module)
    if group == "features":
        return set(space.names) - _classifier(module)
    if group == "first block":
        return _first_block(module)
    if group in ("convolutions", "normalisation"):
        kinds = (_ConvNd,) if group == "convolutions" else _NORMS
        return {
            name for part, names in _leaves(module) if isinstance(part, kinds) for name in names
        }
    return {
        name for name in space.names if fnmatchcase(name, group) or name.startswith(f"{group}.")
    }


def _leaves(module: nn.Module) -> Iterator[tuple[nn.Module, list[str]]]:
    """Parts that own parameters, in their order, with the names of these."""
    for path, part in module.named_modules():
        names = [name for name, _ in part.named_parameters(recurse=False)]
        if names:
            yield part, [f"{path}.{name}".lstrip(".") for name in names]


def _classifier(module: nn.Module) -> set[str]:
    for head in _HEADS:
        if head in dict(module.named_children()):
            return {name for name, _ in module.named_parameters() if name.startswith(f"{head}.")}
    return set(list(_leaves(module))[-1][1])


def _first_block(module: nn.Module) -> set[str]:
    leaves = list(_leaves(module))
    found = set(leaves[0][1])
    for part, names in leaves[1:]:
        if not isinstance(part, _NORMS):
            break
        found |= set(names)
    return found
