"""Loss functions over a batch of points: outputs ``[P, B, C]`` become energies ``[P]``.

A loss is always a *mean over samples*, so that the value on all samples is the mean of the values
on chunks, weighted by their sizes. Cross-entropy and squared error carry the closed form of their
derivative; any callable of a single model's outputs joins through ``torch.vmap``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = [
    "CrossEntropy",
    "Custom",
    "Loss",
    "MeanSquare",
    "Scaled",
    "SquaredHinge",
    "are_labels",
    "error_rate",
    "judge",
    "loss_of",
]

LossFunction = Callable[[Tensor, Tensor], Tensor]


class Loss:
    """What every loss offers.

    The targets ``y`` are shared by all points (``[B, ...]``) or each point's own
    (``[P, B, ...]``); ``own=None`` reads this from the number of axes.
    """

    name: str
    units: str = "1"

    def value(
        self, outputs: Float[Tensor, "P B *output"], y: Tensor, *, own: bool | None = None
    ) -> Float[Tensor, "P"]:
        """Mean loss per sample of every point (differentiable)."""
        raise NotImplementedError

    def output_gradient(
        self, outputs: Float[Tensor, "P B *output"], y: Tensor, *, own: bool | None = None
    ) -> tuple[Float[Tensor, "P"], Float[Tensor, "P B *output"]]:
        """Value, and its derivative with respect to the outputs."""
        raise NotImplementedError

    def value_and_error(
        self, outputs: Float[Tensor, "P B C"], y: Tensor, *, own: bool | None = None
    ) -> tuple[Float[Tensor, "P"], Float[Tensor, "P"]]:
        """Value and :func:`error_rate`, sharing what they have in common."""
        return self.value(outputs, y, own=own), error_rate(outputs, y, own=own)


def loss_of(loss: str | LossFunction | Loss) -> Loss:
    """Return the loss that goes by a name, or wrap a callable.

    Parameters
    ----------
    loss
        ``"cross_entropy"`` (integer labels, in nats), ``"squared_hinge"`` (integer labels, squared
        multi-class), ``"mse"`` (the mean over samples and
        outputs of the squared difference, as ``torch.nn.functional.mse_loss``; integer labels
        become one-hot rows), or a callable ``f(outputs [B, ...], y [B, ...])`` that returns the
        mean over the samples as a scalar.

    Raises
    ------
    ValueError
        If the name is not known.
    TypeError
        If `loss` is neither a name nor a callable.
    """
    if isinstance(loss, Loss):
        return loss
    if isinstance(loss, str):
        if loss not in _NAMED:
            raise ValueError(f"loss={loss!r}: expected one of {sorted(_NAMED)} or a callable")
        return _NAMED[loss]()
    if callable(loss):
        return Custom(loss)
    raise TypeError(f"loss={loss!r}: expected a name or a callable f(outputs, y) -> scalar")


class CrossEntropy(Loss):
    """Mean negative log-probability of the label, in nats; classes stand on the last axis."""

    name = "cross_entropy"
    units = "nats"

    def value(self, outputs: Tensor, y: Tensor, *, own: bool | None = None) -> Tensor:
        """Mean loss per sample of every point (differentiable)."""
        place = _at_labels(outputs, y, own)
        return -_columns(outputs).log_softmax(1).flatten(1).gather(1, place).mean(1)

    def output_gradient(
        self, outputs: Tensor, y: Tensor, *, own: bool | None = None
    ) -> tuple[Tensor, Tensor]:
        """Value, and its derivative with respect to the outputs: softmax minus one-hot label."""
        place = _at_labels(outputs, y, own)
        logs = _columns(outputs).log_softmax(1)
        value = -logs.flatten(1).gather(1, place).mean(1)
        gradient = logs.exp_()
        gradient.flatten(1).scatter_add_(1, place, gradient.new_tensor(-1.0).expand(place.shape))
        gradient.div_(place.shape[1])
        return value, gradient.unflatten(2, outputs.shape[1:-1]).movedim(1, -1)

    def value_and_error(
        self, outputs: Tensor, y: Tensor, *, own: bool | None = None
    ) -> tuple[Tensor, Tensor]:
        """Value and error rate in one pass."""
        log_probability, error = _judge_labels(outputs, y, own)
        return -log_probability, error


class MeanSquare(Loss):
    """Mean over samples and outputs of the squared difference."""

    name = "mse"

    def value(self, outputs: Tensor, y: Tensor, *, own: bool | None = None) -> Tensor:
        """Mean loss per sample of every point (differentiable)."""
        return (outputs - _targets(outputs, y, own)).square().flatten(1).mean(1)

    def output_gradient(
        self, outputs: Tensor, y: Tensor, *, own: bool | None = None
    ) -> tuple[Tensor, Tensor]:
        """Value, and its derivative with respect to the outputs."""
        difference = outputs - _targets(outputs, y, own)
        value = difference.square().flatten(1).mean(1)
        return value, difference.mul_(2 / outputs[0].numel())


class SquaredHinge(Loss):
    """Mean over samples of Σ_{j≠y} max(0, 1 − ŷ_y + ŷ_j)², the squared multi-class hinge."""

    name = "squared_hinge"

    def value(self, outputs: Tensor, y: Tensor, *, own: bool | None = None) -> Tensor:
        """Mean loss per sample of every point (differentiable)."""
        return self._margins(outputs, y, own)[0].square().sum(1).mean(1)

    def output_gradient(
        self, outputs: Tensor, y: Tensor, *, own: bool | None = None
    ) -> tuple[Tensor, Tensor]:
        """Value, and its derivative with respect to the outputs."""
        margins, place = self._margins(outputs, y, own)
        value = margins.square().sum(1).mean(1)
        gradient = margins.mul_(2 / place.shape[1])
        gradient.flatten(1).scatter_(1, place, -gradient.sum(1))
        return value, gradient.unflatten(2, outputs.shape[1:-1]).movedim(1, -1)

    def _margins(
        self, outputs: Tensor, y: Tensor, own: bool | None
    ) -> tuple[Float[Tensor, "P C S"], Int[Tensor, "P S"]]:
        """max(0, 1 − ŷ_y + ŷ_j), zero at the label."""
        place = _at_labels(outputs, y, own)
        columns = _columns(outputs)
        at_label = columns.flatten(1).gather(1, place).unsqueeze(1)
        margins = (1 - at_label + columns).clamp(min=0)
        zeros = torch.zeros_like(place, dtype=margins.dtype)
        return margins.flatten(1).scatter(1, place, zeros).view(margins.shape), place


class Scaled(Loss):
    """Another loss of the outputs times a factor: large factors make learning lazy.

    Chizat, Oyallon and Bach 2019, arXiv 1812.07956; their learning rate is that over factor².
    """

    def __init__(self, loss: Loss, factor: float) -> None:
        self.loss, self.factor = loss, factor
        self.name = f"{loss.name} of {factor:g} × outputs"

    def value(self, outputs: Tensor, y: Tensor, *, own: bool | None = None) -> Tensor:
        """Mean loss per sample of every point (differentiable)."""
        return self.loss.value(outputs * self.factor, y, own=own)

    def output_gradient(
        self, outputs: Tensor, y: Tensor, *, own: bool | None = None
    ) -> tuple[Tensor, Tensor]:
        """Value, and its derivative with respect to the outputs."""
        value, gradient = self.loss.output_gradient(outputs * self.factor, y, own=own)
        return value, gradient.mul_(self.factor)

    def value_and_error(
        self, outputs: Tensor, y: Tensor, *, own: bool | None = None
    ) -> tuple[Tensor, Tensor]:
        """Value and error rate."""
        return self.loss.value_and_error(outputs * self.factor, y, own=own)


class Custom(Loss):
    """A callable ``f(outputs [B, ...], y [B, ...])`` of one model, for a batch of models."""

    def __init__(self, function: LossFunction) -> None:
        self.function = function
        self.name = getattr(function, "__name__", type(function).__name__)
        if self.name == CrossEntropy.name:  # PyTorch's own
            self.units = CrossEntropy.units

    def value(self, outputs: Tensor, y: Tensor, *, own: bool | None = None) -> Tensor:
        """Mean loss per sample of every point (differentiable)."""
        return torch.vmap(self._scalar, (0, self._axis(outputs, y, own)))(outputs, y)

    def output_gradient(
        self, outputs: Tensor, y: Tensor, *, own: bool | None = None
    ) -> tuple[Tensor, Tensor]:
        """Value, and its derivative with respect to the outputs."""
        both = torch.func.grad_and_value(self._scalar)
        gradient, value = torch.vmap(both, (0, self._axis(outputs, y, own)))(outputs, y)
        return value, gradient

    def _scalar(self, outputs: Tensor, y: Tensor) -> Tensor:
        value = self.function(outputs, y)
        if value.ndim:
            raise ValueError(
                f"loss {self.name} returned shape {tuple(value.shape)}: expected one number, "
                "the mean over samples (reduction='mean')"
            )
        return value

    @staticmethod
    def _axis(outputs: Tensor, y: Tensor, own: bool | None) -> int | None:
        if own is None:
            own = y.ndim > 1 and y.shape[:2] == outputs.shape[:2]
        return 0 if own else None


def error_rate(
    outputs: Float[Tensor, "P B C"], y: Tensor, *, own: bool | None = None
) -> Float[Tensor, "P"]:
    """Fraction of samples whose largest output is not at the label.

    Among equal outputs the first counts, as in ``argmax``. Not a number where an output is not.
    """
    return _judge_labels(outputs, y, own)[1]


def are_labels(y: Tensor, output_shape: Sequence[int]) -> bool:
    """Tell whether shared targets are labels of the classes on the last axis of the outputs.

    Parameters
    ----------
    y : [S, ...]
    output_shape
        Shape of one model's output for one sample.
    """
    *positions, classes = output_shape or (1,)
    if y.is_floating_point() or classes < 2 or list(y.shape[1:]) != positions:
        return False
    return bool(y.min() >= 0) and bool(y.max() < classes)


def judge(
    loss: Loss, outputs: Float[Tensor, "P B *output"], y: Tensor, labelled: bool
) -> Float[Tensor, "2 P"]:
    """Loss and error rate on shared targets; the error is not a number if they are no labels."""
    if labelled:
        return torch.stack(loss.value_and_error(outputs, y, own=False))
    value = loss.value(outputs, y, own=False)
    return torch.stack([value, torch.full_like(value, torch.nan)])


def _judge_labels(outputs: Tensor, y: Tensor, own: bool | None) -> tuple[Tensor, Tensor]:
    """Mean log-probability of the labels, and the error rate, of every point."""
    place = _at_labels(outputs, y, own)
    columns = _columns(outputs)
    logs = columns.log_softmax(1)
    at_label = logs.flatten(1).gather(1, place)
    # argmax over an axis that is not contiguous is 20 times slower on CPUs than the largest of the
    # others; it is needed only where that equals the label's.
    logs.flatten(1).scatter_(1, place, -torch.inf)
    others = logs.amax(1)
    wrong = (others > at_label).to(logs.dtype)
    point, sample = torch.nonzero(others == at_label, as_tuple=True)
    if len(point):
        first = columns[point, :, sample].argmax(1)
        labels = place[point, sample] // place.shape[1]
        wrong[point, sample] = (first != labels).to(wrong.dtype)
    mean = at_label.mean(1)
    return mean, torch.where(mean.isnan(), mean, wrong.mean(1))


def _columns(outputs: Tensor) -> Float[Tensor, "P C S"]:
    """Outputs ``[P, B, ..., C]`` with all samples as one contiguous last axis.

    A softmax over ten classes is ten times faster when the samples, not the classes, are
    contiguous. What a dense stack returns is so already, and is not copied.
    """
    return outputs.movedim(-1, 1).flatten(2).contiguous()


def _labels(outputs: Tensor, y: Tensor, own: bool | None) -> Tensor:
    """Class labels ``[P or 1, S]`` of all samples, given outputs ``[P, B, ..., C]``."""
    if y.is_floating_point():
        raise ValueError(f"y has dtype {y.dtype}: class labels are integers (loss='mse' regresses)")
    own = y.ndim == outputs.ndim - 1 if own is None else own
    labels = (y if own else y.unsqueeze(0)).long()
    wanted = outputs.shape[:-1] if own else (1, *outputs.shape[1:-1])
    if labels.shape != wanted:
        raise ValueError(
            f"y has shape {tuple(y.shape)} and the outputs {tuple(outputs.shape)} [point, sample, "
            "class]: expected one label per sample and the classes on the last axis"
        )
    return labels.flatten(1)


def _at_labels(outputs: Tensor, y: Tensor, own: bool | None) -> Int[Tensor, "P S"]:
    """Index of the labels into rows of C times S outputs; quicker than three axes."""
    labels = _labels(outputs, y, own)
    samples = labels.shape[1]
    index = labels * samples + torch.arange(samples, device=labels.device)
    return index.expand(len(outputs), -1)


def _targets(outputs: Tensor, y: Tensor, own: bool | None) -> Tensor:
    """Targets of the squared error, in the shape of the outputs (labels become one-hot)."""
    if not y.is_floating_point():
        labels = _labels(outputs, y, own).expand(len(outputs), -1).view(outputs.shape[:-1])
        return torch.zeros_like(outputs).scatter_(-1, labels.unsqueeze(-1), 1.0)
    own = y.ndim == outputs.ndim if own is None else own
    targets = y if own else y.unsqueeze(0)
    # Never broadcast silently: outputs [B, 1] against y [B] would compare all pairs of samples.
    if targets.shape[1:] != outputs.shape[1:]:
        raise ValueError(
            f"y has shape {tuple(y.shape)} and each model's outputs {tuple(outputs.shape[1:])}: "
            "expected the same shape (y.unsqueeze(-1) for a single output)"
        )
    return targets.to(outputs.dtype)


_NAMED: dict[str, type[Loss]] = {
    "cross_entropy": CrossEntropy,
    "mse": MeanSquare,
    "squared_hinge": SquaredHinge,
}
