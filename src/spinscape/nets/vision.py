"""Convolutional networks of the kinds that the field measures: LeNet, VGG, ResNet.

All have the parts ``features`` and ``classifier``, take images of 8 × 8 pixels and more, and run at
many weights at once.
"""

from collections import OrderedDict
from collections.abc import Sequence
from numbers import Integral

from torch import Tensor, nn
from torch.nn import functional

from spinscape.nets.normings import NORM_WEIGHTS
from spinscape.nets.seeding import activation_of, refuse_below_one, seeded

__all__ = ["lenet", "resnet", "vgg"]


def lenet(
    channels: int,
    classes: int,
    *,
    size: int = 28,
    width: int = 6,
    activation: str = "relu",
    seed: int = 0,
) -> nn.Sequential:
    """Build a LeNet-5 (LeCun and others 1998) without batch normalisation.

    Parameters
    ----------
    channels, classes : int
        Channels of the images, and number of outputs.
    size : int
        Height and width of the images, at least 8.
    width : int
        Channels of the first convolution; the other layers keep their proportion to it (of 16,
        120 and 84 to 6).
    activation : str
        A key of `models.ACTIVATIONS`.
    seed : int
        Of the initial weights, drawn on the CPU; the global random state is left alone.

    Returns
    -------
    nn.Sequential
        Maps images [B, channels, size, size] to logits [B, classes].

    Raises
    ------
    ValueError
        A number that is too small, or an unknown activation.
    """
    refuse_below_one(channels=[channels], classes=[classes], size=[size], width=[width])
    if size < 8:
        raise ValueError(f"size must be at least 8, got {size}; enlarge the images")
    act = activation_of(activation)
    second, third, fourth = 8 * width // 3, 20 * width, 14 * width
    with seeded(seed):
        features = nn.Sequential(
            nn.Conv2d(channels, width, 5, padding=2, device="cpu"),
            act(),
            nn.AvgPool2d(2),
            nn.Conv2d(width, second, 5, padding=2 if size < 20 else 0, device="cpu"),
            act(),
            nn.AvgPool2d(2),
            nn.Flatten(),
        )
        side = size // 4 if size < 20 else (size // 2 - 4) // 2
        classifier = nn.Sequential(
            nn.Linear(second * side**2, third, device="cpu"),
            act(),
            nn.Linear(third, fourth, device="cpu"),
            act(),
            nn.Linear(fourth, classes, device="cpu"),
        )
    return _joined(features, classifier)


def vgg(
    channels: int,
    classes: int,
    *,
    blocks: Sequence[int] = (1, 1, 2),
    width: int = 16,
    batch_norm: bool = True,
    norm_weight: str = "ones",
    activation: str = "relu",
    seed: int = 0,
) -> nn.Sequential:
    """Build a network like VGG (Simonyan and Zisserman 2015): blocks of 3 × 3 convolutions.

    Parameters
    ----------
    channels, classes : int
        Channels of the images, and number of outputs.
    blocks : sequence of int
        Convolutions in each block; between blocks the channels are doubled, and the sides halved,
        down to 1.
    width : int
        Channels of the first block.
    batch_norm : bool
        Whether batch normalisation stands between convolution and activation.
    norm_weight : {"ones", "uniform", "gaussian"}
        Where its weights begin: 1, U(0, 1) or G(0, 0.1).
    activation : str
        A key of `models.ACTIVATIONS`.
    seed : int
        Of the initial weights, drawn on the CPU; the global random state is left alone.

    Returns
    -------
    nn.Sequential
        Maps images [B, channels, H, W] to logits [B, classes].

    Raises
    ------
    TypeError
        `blocks` is not a sequence.
    ValueError
        A number below 1, no blocks, or an unknown activation or initialisation.
    """
    _check_blocks(blocks)
    refuse_below_one(channels=[channels], classes=[classes], width=[width], blocks=blocks)
    act, norm = activation_of(activation), _norm_of(norm_weight)
    layers: list[nn.Module] = []
    with seeded(seed):
        before = channels
        for level, count in enumerate(blocks):
            if level:
                layers.append(_Halving(2))
            after = width * 2**level
            for _ in range(count):
                layers.append(
                    nn.Conv2d(before, after, 3, padding=1, bias=not batch_norm, device="cpu")
                )
                layers += [norm(after, device="cpu")] if batch_norm else []
                layers.append(act())
                before = after
        features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        classifier = nn.Linear(before, classes, device="cpu")
    return _joined(features, classifier)


def resnet(
    channels: int,
    classes: int,
    *,
    blocks: Sequence[int] = (1, 1, 1),
    width: int = 16,
    norm_weight: str = "ones",
    activation: str = "relu",
    seed: int = 0,
) -> nn.Sequential:
    """Build a residual network as for CIFAR (He, Zhang, Ren and Sun 2016), with batch norm.

    Parameters
    ----------
    channels, classes : int
        Channels of the images, and number of outputs.
    blocks : sequence of int
        Residual blocks of two convolutions at each width; (3, 3, 3) is ResNet-20.
    width : int
        Channels of the first; each further one doubles them and halves the sides.
    norm_weight : {"ones", "uniform", "gaussian"}
        Where batch-norm weights begin: 1, U(0, 1) or G(0, 0.1).
    activation : str
        A key of `models.ACTIVATIONS`.
    seed : int
        Of the initial weights, drawn on the CPU; the global random state is left alone.

    Returns
    -------
    nn.Sequential
        Maps images [B, channels, H, W] to logits [B, classes].

    Raises
    ------
    TypeError
        `blocks` is not a sequence.
    ValueError
        A number below 1, no blocks, or an unknown activation or initialisation.
    """
    _check_blocks(blocks)
    refuse_below_one(channels=[channels], classes=[classes], width=[width], blocks=blocks)
    act, norm = activation_of(activation), _norm_of(norm_weight)
    with seeded(seed):
        layers: list[nn.Module] = [
            nn.Conv2d(channels, width, 3, padding=1, bias=False, device="cpu"),
            norm(width, device="cpu"),
            act(),
        ]
        before = width
        for level, count in enumerate(blocks):
            after = width * 2**level
            for number in range(count):
                stride = 2 if level and not number else 1
                layers.append(_Residual(before, after, stride, norm, act()))
                before = after
        features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        classifier = nn.Linear(before, classes, device="cpu")
    return _joined(features, classifier)


class _Halving(nn.MaxPool2d):
    """Pooling that leaves a side of 1 as it is."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to [B, C, H // 2, W // 2], no side below 1."""
        return functional.max_pool2d(x, [min(2, side) for side in x.shape[-2:]])


class _Residual(nn.Module):
    """Two convolutions and a way past them."""

    def __init__(
        self, before: int, after: int, stride: int, norm: type[nn.BatchNorm2d], act: nn.Module
    ) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride, 1, bias=False, device="cpu")
        self.first_norm = norm(after, device="cpu")
        self.second = nn.Conv2d(after, after, 3, padding=1, bias=False, device="cpu")
        self.second_norm = norm(after, device="cpu")
        self.past: nn.Module = nn.Identity()
        if stride > 1 or before != after:
            self.past = nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False, device="cpu"),
                norm(after, device="cpu"),
            )
        self.act, self.last = act, type(act)()

    def forward(self, x: Tensor) -> Tensor:
        """Add what the convolutions make of x to x."""
        inner = self.act(self.first_norm(self.first(x)))
        return self.last(self.second_norm(self.second(inner)) + self.past(x))


def _check_blocks(blocks: Sequence[int]) -> None:
    if isinstance(blocks, Integral | str):
        raise TypeError(f"blocks must be a sequence of counts, got {blocks!r}; say ({blocks},)")
    if len(blocks) == 0:
        raise ValueError(f"blocks is empty, got {blocks!r}; say (1, 1) for two of one convolution")


def _norm_of(name: str) -> type[nn.BatchNorm2d]:
    if name not in NORM_WEIGHTS:
        raise ValueError(f"norm_weight={name!r}: expected one of {', '.join(NORM_WEIGHTS)}")
    return NORM_WEIGHTS[name]


def _joined(features: nn.Module, classifier: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(features=features, classifier=classifier))
