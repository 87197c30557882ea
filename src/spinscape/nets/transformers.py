"""A small vision transformer, written so that it runs at many weights at once.

Attention is written out: fused kernels have no second derivatives.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from spinscape.nets.seeding import activation_of, refuse_below_one, seeded

__all__ = ["transformer"]


def transformer(
    channels: int,
    classes: int,
    *,
    size: int = 28,
    patch: int = 7,
    width: int = 32,
    depth: int = 2,
    heads: int = 4,
    activation: str = "gelu",
    seed: int = 0,
) -> nn.Sequential:
    """Build a small vision transformer (Dosovitskiy and others 2021), with the mean over patches.

    Parameters
    ----------
    channels, classes : int
        Channels of the images, and number of outputs.
    size, patch : int
        Side of the images, and of the square patches that they are cut into.
    width, depth, heads : int
        Length of a token, number of blocks, heads of attention.
    activation : str
        A key of `models.ACTIVATIONS`: what stands between the two linear layers of a block.
    seed : int
        Of the initial weights, drawn on the CPU; the global random state is left alone.

    Returns
    -------
    nn.Sequential
        Maps images [B, channels, size, size] to logits [B, classes]; refuses images of another
        number of patches.

    Raises
    ------
    ValueError
        A number below 1, patches that do not tile the image, heads that do not divide the width,
        or an unknown activation.
    """
    refuse_below_one(
        channels=[channels],
        classes=[classes],
        size=[size],
        patch=[patch],
        width=[width],
        depth=[depth],
        heads=[heads],
    )
    if size % patch:
        raise ValueError(f"patch={patch}: does not tile images of side {size}; choose a divisor")
    if width % heads:
        raise ValueError(f"heads={heads}: does not divide width={width}; choose a divisor")
    act = activation_of(activation)
    with seeded(seed):
        features = nn.Sequential(
            nn.Conv2d(channels, width, patch, stride=patch, device="cpu"),
            nn.Flatten(2),
            _Positions(width, (size // patch) ** 2),
            *(_Block(width, heads, act()) for _ in range(depth)),
            nn.LayerNorm(width, device="cpu"),
            _Mean(),
        )
        classifier = nn.Linear(width, classes, device="cpu")
    return nn.Sequential(OrderedDict(features=features, classifier=classifier))


class _Positions(nn.Module):
    """Tokens last to tokens first, and a learned vector for each position."""

    def __init__(self, width: int, tokens: int) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.empty(tokens, width, device="cpu"))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the positions anew."""
        nn.init.normal_(self.place, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, width, tokens] to [B, tokens, width]."""
        if x.shape[-1] != len(self.place):  # one token would be broadcast
            raise ValueError(
                f"images of {x.shape[-1]} patches: this transformer was built for "
                f"{len(self.place)}; build it with size= the side of the images"
            )
        return x.transpose(1, 2) + self.place


class _Block(nn.Module):
    """Attention and two linear layers, each after a normalisation and added to what came in."""

    def __init__(self, width: int, heads: int, act: nn.Module) -> None:
        super().__init__()
        self.heads = heads
        self.before = nn.LayerNorm(width, device="cpu")
        self.mixed = nn.Linear(width, 3 * width, device="cpu")
        self.joined = nn.Linear(width, width, device="cpu")
        self.between = nn.LayerNorm(width, device="cpu")
        self.inner = nn.Sequential(
            nn.Linear(width, 2 * width, device="cpu"),
            act,
            nn.Linear(2 * width, width, device="cpu"),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens [B, T, width] to tokens."""
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.mixed(self.before(x)).chunk(3, -1)
        )
        attention = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
        x = x + self.joined((attention @ v).transpose(1, 2).flatten(2))
        return x + self.inner(self.between(x))


class _Mean(nn.Module):
    """The mean over tokens."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, T, width] to [B, width]."""
        return x.mean(1)
