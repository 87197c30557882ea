"""Statistics of normalisation layers, for every point of a batch.

The running mean and variance of a batch-norm layer belong to one point: between two trained
networks, or after a step of a walk, they are stale, and the loss with stale statistics shows a
barrier where there is none. They are therefore re-estimated at each point: a forward pass over
fixed consecutive batches of samples in the layers' training mode, averaged with equal weights
(what ``torch.optim.swa_utils.update_bn`` does for one model). Everything else, dropout included,
stays in evaluation mode.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from spinscape.nets.chunks import pieces

if TYPE_CHECKING:
    from spinscape.nets.template import Template

__all__ = ["reestimate", "statistics_batches", "track", "tracking_layers", "untrack"]


def tracking_layers(module: nn.Module) -> dict[str, _NormBase]:
    """Layers that normalise by running statistics when evaluated, by name."""
    return {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(layer, _NormBase) and layer.running_mean is not None
    }


def track(module: nn.Module) -> bool:
    """Give batch-norm layers without running statistics some, in place; True if there were any.

    Without them such a layer normalises by the batch it is given even in evaluation, so that the
    energy of a point would depend on how the samples are cut into chunks.
    """
    bare = [
        layer
        for layer in module.modules()
        if isinstance(layer, _BatchNorm) and layer.running_mean is None
    ]
    for layer in bare:
        layer.track_running_stats = True
        layer.running_mean = torch.zeros(layer.num_features)
        layer.running_var = torch.ones(layer.num_features)
        layer.num_batches_tracked = torch.zeros((), dtype=torch.long)
    return bool(bare)


def untrack(module: nn.Module) -> None:
    """Drop running statistics in place: the layers then normalise by the batch, as in training."""
    for layer in tracking_layers(module).values():
        layer.track_running_stats = False
        layer.running_mean = layer.running_var = layer.num_batches_tracked = None


def statistics_batches(samples: int, batch: int) -> list[slice]:
    """Cut samples into fixed consecutive batches; a last one of a single sample is joined.

    Raises
    ------
    ValueError
        If there is no batch of two samples.
    """
    if batch < 2:
        raise ValueError(f"statistics_batch={batch}: expected at least 2 samples a batch")
    if samples < 2:
        raise ValueError(f"statistics_samples: {samples} sample(s), expected at least 2")
    found = list(pieces(samples, batch))
    if found[-1].stop - found[-1].start == 1 and len(found) > 1:
        found[-2:] = [slice(found[-2].start, samples)]
    return found


def reestimate(
    template: Template, points: Float[Tensor, "P n"], x: Float[Tensor, "S *input"], batch: int
) -> dict[str, Tensor]:
    """Re-estimate the running statistics of every point, as buffers ``[P, ...]`` by name.

    Parameters
    ----------
    template : Template
        The module's private copy.
    points : [P, n]
    x : [S, ...]
        The samples whose statistics are taken.
    batch : int
        Samples a batch.
    """
    layers = tracking_layers(template.module)
    stacked = _fresh(layers, points)
    with torch.no_grad(), _collecting(layers.values()):
        for k, piece in enumerate(statistics_batches(len(x), batch)):
            for layer in layers.values():
                layer.momentum = 1 / (k + 1)
            few = x[piece].to(points.dtype) if x.is_floating_point() else x[piece]
            template.outputs(points, few, buffers=stacked, phase="statistics")
    return stacked


def _fresh(layers: dict[str, _NormBase], points: Tensor) -> dict[str, Tensor]:
    stacked = {}
    for name, layer in layers.items():
        prefix = f"{name}." if name else ""
        shape = (len(points), layer.num_features)
        stacked[f"{prefix}running_mean"] = points.new_zeros(shape)
        stacked[f"{prefix}running_var"] = points.new_ones(shape)
        if layer.num_batches_tracked is not None:
            zeros = points.new_zeros(len(points), dtype=torch.long)
            stacked[f"{prefix}num_batches_tracked"] = zeros
    return stacked


@contextmanager
def _collecting(layers: Iterable[_NormBase]) -> Iterator[None]:
    """Put the layers into training mode; a cumulative average needs its momentum set by hand.

    ``momentum=None`` would make the layer read its own batch count, which ``vmap`` forbids.
    """
    kept = [(layer, layer.momentum) for layer in layers]
    try:
        for layer, _ in kept:
            layer.train()
        yield
    finally:
        for layer, momentum in kept:
            layer.eval()
            layer.momentum = momentum
