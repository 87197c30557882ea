"""The networks that the protocols are first tried on; any `nn.Module` of yours does as well."""

import math
from collections.abc import Sequence
from itertools import pairwise
from numbers import Integral

from torch import nn

from spinscape.nets.seeding import ACTIVATIONS, activation_of, refuse_below_one, seeded
from spinscape.nets.transformers import transformer
from spinscape.nets.vision import lenet, resnet, vgg

__all__ = ["ACTIVATIONS", "cnn", "lenet", "mlp", "resnet", "transformer", "vgg"]


def mlp(
    inputs: int | Sequence[int],
    hidden: Sequence[int],
    outputs: int,
    *,
    activation: str = "relu",
    bias: bool = True,
    seed: int = 0,
) -> nn.Sequential:
    """Build a stack of linear layers with an activation after every hidden one.

    Parameters
    ----------
    inputs : int or sequence of int
        Number of features, or the shape of one sample (`data.inputs`); with more than one
        dimension the network begins by flattening.
    hidden : sequence of int
        Width of every hidden layer, first to last; `[]` is a linear model.
    outputs : int
        Number of outputs: one logit a class.
    activation : {"relu", "leaky_relu", "tanh", "gelu", "sigmoid", "sign", "identity"}
        The keys of `ACTIVATIONS`.
    bias : bool
        Whether every linear layer has a bias.
    seed : int
        Of the initial weights (PyTorch's default initialisation, drawn on the CPU); the global
        random state is left alone.

    Returns
    -------
    nn.Sequential
        Maps [B, *inputs] to logits [B, outputs].

    Raises
    ------
    TypeError
        `hidden` is not a sequence.
    ValueError
        A width below 1, or an unknown activation.

    Examples
    --------
    >>> sum(p.numel() for p in mlp(64, [16], 10).parameters())
    1210
    """
    if isinstance(hidden, Integral | str):
        raise TypeError(f"hidden must be a sequence of widths, got {hidden!r}; say [{hidden}]")
    shape = list(inputs) if isinstance(inputs, Sequence) else [inputs]
    refuse_below_one(inputs=shape, hidden=hidden, outputs=[outputs])
    act = activation_of(activation)
    sizes = [math.prod(shape), *hidden]
    layers: list[nn.Module] = [nn.Flatten()] if len(shape) > 1 else []
    with seeded(seed):
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after, bias, device="cpu"), act()]
        layers.append(nn.Linear(sizes[-1], outputs, bias, device="cpu"))
    return nn.Sequential(*layers)


def cnn(channels: int, classes: int, *, width: int = 8, seed: int = 0) -> nn.Sequential:
    """Build a small convolutional network with batch normalisation, for images of any size.

    Two blocks of 3×3 convolution, batch normalisation and ReLU, of `width` and 2 `width`
    channels, with 2×2 pooling between; the mean over all positions; one linear layer.

    Parameters
    ----------
    channels : int
        Channels of the images: 1 for grey, 3 for colour.
    classes : int
        Number of outputs: one logit a class.
    width : int
        Channels of the first block.
    seed : int
        Of the initial weights, drawn on the CPU; the global random state is left alone.

    Returns
    -------
    nn.Sequential
        Maps images [B, channels, H, W], H and W at least 2, to logits [B, classes].

    Raises
    ------
    ValueError
        A number below 1.
    """
    refuse_below_one(channels=[channels], classes=[classes], width=[width])
    with seeded(seed):
        return nn.Sequential(
            *_block(channels, width),
            nn.MaxPool2d(2),
            *_block(width, 2 * width),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(2 * width, classes, device="cpu"),
        )


def _block(channels: int, width: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(channels, width, 3, padding=1, bias=False, device="cpu")
    return convolution, nn.BatchNorm2d(width, device="cpu"), nn.ReLU()
