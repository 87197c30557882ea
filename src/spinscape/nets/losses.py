"""Loss functions over a batch of points: outputs ``[P, B, C]`` become energies ``[P]``.

A loss is always a *mean over samples*, so that the value on all samples is the mean of the values
on chunks, weighted by their sizes. Cross-entropy and squared error carry the closed form of their
derivative; any callable of a single model's outputs joins through ``torch.vmap``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = [
    "CrossEntropy",
    "Custom",
    "Loss",
    "MeanSquare",
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
        ``"cross_entropy"`` (integer labels, in nats), ``"mse"`` (the mean over samples and
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

    # Written out because torch.log_softmax over a short last axis is four times slower on CPUs.
    # With d = outputs - top, loss = log Σ exp d - d[label], and the label is right where d is 0.

    name = "cross_entropy"

    def value(self, outputs: Tensor, y: Tensor, *, own: bool | None = None) -> Tensor:
        """Mean loss per sample of every point (differentiable)."""
        below = outputs - outputs.detach().amax(-1, keepdim=True)
        at_label = _at(below, _labels(outputs, y, own))
        return _mean(below.exp_().sum(-1).log_() - at_label)

    def output_gradient(
        self, outputs: Tensor, y: Tensor, *, own: bool | None = None
    ) -> tuple[Tensor, Tensor]:
        """Value, and its derivative with respect to the outputs: softmax minus one-hot label."""
        labels = _labels(outputs, y, own)
        samples = labels[0].numel()
        below = outputs - outputs.amax(-1, keepdim=True)
        at_label = _at(below, labels)
        gradient = below.exp_()
        total = gradient.sum(-1, keepdim=True)
        value = _mean(total.log().squeeze(-1) - at_label)
        gradient.mul_((1 / samples) / total)
        _add_at(gradient, labels, -1 / samples)
        return value, gradient

    def value_and_error(
        self, outputs: Tensor, y: Tensor, *, own: bool | None = None
    ) -> tuple[Tensor, Tensor]:
        """Value and error rate in one pass."""
        labels = _labels(outputs, y, own)
        below = outputs - outputs.amax(-1, keepdim=True)
        at_label = _at(below, labels)
        wrong = _wrong(below, at_label, labels)
        return _mean(below.exp_().sum(-1).log_() - at_label), wrong


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


class Custom(Loss):
    """A callable ``f(outputs [B, ...], y [B, ...])`` of one model, for a batch of models."""

    def __init__(self, function: LossFunction) -> None:
        self.function = function
        self.name = getattr(function, "__name__", type(function).__name__)

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
    labels = _labels(outputs, y, own)
    below = outputs - outputs.amax(-1, keepdim=True)
    return _wrong(below, _at(below, labels), labels)


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


def _wrong(below: Tensor, at_label: Tensor, labels: Tensor) -> Tensor:
    """Error rate, given outputs below their largest one, all of them and at the label."""
    # argmax over an axis that is not contiguous is 20 times slower on CPUs than this; it is needed
    # only where two outputs are equal.
    if below.numel() - torch.count_nonzero(below) > labels.numel():
        wrong = (below == 0).to(torch.uint8).argmax(-1) != labels
        return _mean(wrong.to(below.dtype))
    return -_mean(at_label.sign())


def _mean(values: Tensor) -> Tensor:
    return values.flatten(1).mean(1)


def _labels(outputs: Tensor, y: Tensor, own: bool | None) -> Tensor:
    """Class labels ``[P, B, ...]`` as an index into the last axis of the outputs."""
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
    return labels.expand(outputs.shape[:-1])


def _at(values: Tensor, labels: Tensor) -> Tensor:
    """Values ``[P, B, ..., C]`` at the labels ``[P, B, ...]``."""
    if not _samples_last(values):
        return values.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    return values.transpose(1, 2).flatten(1).gather(1, _flat_index(labels))


def _add_at(values: Tensor, labels: Tensor, amount: float) -> None:
    """Add an amount to values ``[P, B, ..., C]`` at the labels, in place."""
    added = values.new_tensor(amount).expand(labels.shape)
    if not _samples_last(values):
        values.scatter_add_(-1, labels.unsqueeze(-1), added.unsqueeze(-1))
    else:
        values.transpose(1, 2).flatten(1).scatter_add_(1, _flat_index(labels), added)


def _samples_last(values: Tensor) -> bool:
    """Whether the samples, not the classes, are contiguous, as in what a dense stack returns."""
    return values.ndim == 3 and values.transpose(1, 2).is_contiguous()


def _flat_index(labels: Tensor) -> Tensor:
    """Index of the labels ``[P, B]`` into rows of C times B values; quicker than three axes."""
    samples = labels.shape[1]
    row = labels[:1] if labels.stride(0) == 0 else labels
    index = row * samples + torch.arange(samples, device=labels.device)
    return index.expand(labels.shape)


def _targets(outputs: Tensor, y: Tensor, own: bool | None) -> Tensor:
    """Targets of the squared error, in the shape of the outputs (labels become one-hot)."""
    if not y.is_floating_point():
        labels = _labels(outputs, y, own)
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


_NAMED: dict[str, type[Loss]] = {"cross_entropy": CrossEntropy, "mse": MeanSquare}
