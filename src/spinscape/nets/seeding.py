"""Building networks from a seed, and refusing sizes that make none."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral

import torch
from torch import nn

from spinscape.nets.activations import Sign

__all__ = ["ACTIVATIONS", "activation_of", "refuse_below_one", "seeded"]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "sigmoid": nn.Sigmoid,
    "sign": Sign,
    "identity": nn.Identity,
}


def activation_of(name: str) -> Callable[[], nn.Module]:
    """Return what makes the activation of a name.

    Raises
    ------
    ValueError
        If the name is not known.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"activation {name!r} is unknown; known: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the CPU's generator within a block, and put it back as it was."""
    # Not torch.manual_seed: that would reseed the accelerators too, whose state is not forked.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def refuse_below_one(**sizes: Sequence[int]) -> None:
    """Refuse sizes that are no whole numbers of at least 1.

    Raises
    ------
    ValueError
        Naming the size.
    """
    for name, values in sizes.items():
        for value in values:
            if not isinstance(value, Integral) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
