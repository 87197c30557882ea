"""Activations that PyTorch has no module for."""

import torch
from torch import Tensor, nn

__all__ = ["Sign", "straight_through_sign"]


class Sign(nn.Module):
    """The sign of every input, +1 at zero, with a straight-through gradient.

    Backwards it is taken for the hard tanh: the gradient passes where |z| < 1 (Hubara, Courbariaux,
    Soudry, El-Yaniv and Bengio 2016, arXiv 1602.02830).
    """

    def forward(self, z: Tensor) -> Tensor:
        """Return ±1 in the shape of `z`."""
        return straight_through_sign(z)


def straight_through_sign(z: Tensor) -> Tensor:
    """The sign of `z`, +1 at zero, whose derivatives are those of the hard tanh."""
    soft = nn.functional.hardtanh(z)
    sign = torch.where(z >= 0, 1.0, -1.0).to(z.dtype)
    return sign + (soft - soft.detach())  # exactly ±1: what is added is 0
