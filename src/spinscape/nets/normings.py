"""Batch normalisation whose weights begin elsewhere than at one."""

from torch import nn

__all__ = ["NORM_WEIGHTS", "GaussianBatchNorm2d", "UniformBatchNorm2d"]


class UniformBatchNorm2d(nn.BatchNorm2d):
    """Weights that begin at U(0, 1)."""

    def reset_parameters(self) -> None:
        """Draw the weights anew, from the global generator as all layers do."""
        super().reset_parameters()
        nn.init.uniform_(self.weight)


class GaussianBatchNorm2d(nn.BatchNorm2d):
    """Weights that begin at G(0, 0.1)."""

    def reset_parameters(self) -> None:
        """Draw the weights anew, from the global generator as all layers do."""
        super().reset_parameters()
        nn.init.normal_(self.weight, std=0.1)


NORM_WEIGHTS: dict[str, type[nn.BatchNorm2d]] = {
    "ones": nn.BatchNorm2d,
    "uniform": UniformBatchNorm2d,
    "gaussian": GaussianBatchNorm2d,
}
"""Initialisations of batch-norm weights that arXiv 2405.12489 compares."""
