"""Fresh points of a module, each from its own seed."""

import copy
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spinscape.nets.weightspace import WeightSpace

__all__ = ["initial_points", "kaiming_normal"]


def initial_points(
    module: nn.Module,
    seeds: Sequence[int],
    init: Callable[[nn.Module, torch.Generator], None] | None = None,
) -> Float[Tensor, "replica n"]:
    """Initialise one copy of the module a seed, on the CPU; neither module nor RNG is touched.

    Parameters
    ----------
    module : nn.Module
        The template; its parts are initialised by their own ``reset_parameters``.
    seeds : sequence of int
        One a point.
    init : callable, optional
        ``init(module, generator)``, in place of ``reset_parameters``.

    Raises
    ------
    TypeError
        If a part has parameters and no ``reset_parameters``, and `init` is not given.
    """
    template = copy.deepcopy(module).cpu()
    space = WeightSpace(template)
    if init is None:
        _refuse_uninitialisable(template)
    points = torch.empty(len(seeds), space.n, dtype=space.dtype)
    with torch.random.fork_rng(devices=[]):
        for k, seed in enumerate(seeds):
            # Not torch.manual_seed: that would reseed accelerators, whose state is not forked.
            generator = torch.default_generator.manual_seed(seed)
            if init is None:
                template.apply(_reset)
            else:
                init(template, generator)
            points[k] = space.point(template).detach()
    return points


def kaiming_normal(module: nn.Module, generator: torch.Generator) -> None:
    """Weights from N(0, 2 / fan-in), biases zero: an `init` for `initial_points` and `train`.

    He, Zhang, Ren and Sun 2015, arXiv 1502.01852.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu", generator=generator)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def _reset(part: nn.Module) -> None:
    if list(part.parameters(recurse=False)):
        part.reset_parameters()  # type: ignore[operator]


def _refuse_uninitialisable(module: nn.Module) -> None:
    for name, part in module.named_modules():
        if list(part.parameters(recurse=False)) and not hasattr(part, "reset_parameters"):
            raise TypeError(
                f"module: part {name or 'itself'!r} ({type(part).__name__}) cannot initialise its "
                "own parameters; pass start= (points) or init= (a function of module and generator)"
            )
