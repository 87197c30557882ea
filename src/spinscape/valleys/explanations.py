"""Why a valley may be lopsided: what units, margins and the last layer's curvature do along λ.

The explanations of arXiv 2405.12489, section 5. ReLU: noise with the signs of θ keeps active units
active. Softmax: for one sample the Hessian of the last layer is (diag p − p pᵀ) ⊗ h hᵀ, whose trace
Σ_c p_c (1 − p_c) ‖h‖² falls where p goes to one-hot and ‖h‖ stays.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import Tensor, nn

from spinscape.landscape.energy import Landscape
from spinscape.nets.weightspace import points as points_of
from spinscape.records import labelled, provenance

__all__ = ["mechanism"]

SOURCE = "arXiv 2405.12489, section 5"
ACTIVE = (nn.ReLU, nn.GELU, nn.Tanh, nn.LeakyReLU, nn.Sigmoid)
MOST_UNITS = 512
"""Units of each activation that are watched, evenly spaced."""


def mechanism(
    landscape: Landscape,
    point: Float[Tensor, "n"],
    directions: Float[Tensor, "direction n"],
    lam: ArrayLike,
    *,
    samples: int = 256,
    names: Sequence[str] | None = None,
) -> xr.Dataset:
    """Measure activations, logits and the trace of the last layer's Hessian along directions.

    Parameters
    ----------
    landscape : Landscape
        Of a classifier (cross-entropy and class labels) whose last layer with parameters is
        linear, with activations that are modules.
    point : [n]
    directions : [direction, n]
    lam : [k]
    samples : int
        How many of the landscape's samples are looked at.
    names : sequence of str, optional
        One a direction.

    Returns
    -------
    Dataset
        [direction, lam] each: ``agreement`` (share of units and samples with the state, above 0 or
        not, that they have at λ = 0), ``active`` (share above 0), ``trace`` (tr H of the last
        layer, per sample), ``feature_norm`` (root mean square of ‖h‖), ``margin`` (mean of the
        label's logit minus the largest other) and ``logit_scale`` (mean standard deviation of the
        logits).

    Raises
    ------
    ValueError
        If the targets are no class labels, or the module has no linear last layer.
    """
    point, directions = points_of(point).detach(), points_of(directions).detach()
    landscape.space.check(directions, "directions", ndim=2)
    if landscape.y.is_floating_point() or landscape.y.ndim != 1:
        raise ValueError("landscape: mechanism needs one class label a sample")
    probe = _Probe(landscape.module)
    few = slice(0, min(samples, len(landscape.x)))
    watched = Landscape(
        probe,
        landscape.x[few],
        landscape.y[few],
        loss=_of_logits(probe.classes),
        statistics_samples=landscape.x[few] if landscape.reestimates else None,
        statistics="reestimate" if landscape.reestimates else "frozen",
    )
    at = torch.as_tensor(np.asarray(lam, dtype=float)).to(point)
    labels = landscape.y[few]
    base = probe.read(watched.outputs(point[None]))
    rows = []
    for direction in directions:
        places = torch.addcmul(point, at[:, None], direction)
        rows.append(_measured(probe.read(watched.outputs(places)), base, labels, probe.biased))
    stacked = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    found = xr.Dataset(
        {
            name: labelled(("direction", "lam"), values, _WORDS[name])
            for name, values in stacked.items()
        },
        {"lam": ("lam", np.asarray(lam, dtype=float))},
        provenance("mechanism", SOURCE, 0, samples=few.stop),
    )
    return found if names is None else found.assign_coords(direction=list(names))


_WORDS = {
    "agreement": "share of units in the state that they have at λ = 0",
    "active": "share of units above 0",
    "trace": "trace of the last layer's Hessian per sample",
    "feature_norm": "root mean square of the last layer's input norm",
    "margin": "mean of the label's logit minus the largest other",
    "logit_scale": "mean standard deviation of the logits",
}


class _Probe(nn.Module):
    """A module whose outputs carry the last layer's inputs and its activations along.

    Its parameters have the order of the module's own, so that points stay what they are.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.inner = copy.deepcopy(module)
        owners = [part for part in self.inner.modules() if list(part.parameters(recurse=False))]
        if not owners or not isinstance(owners[-1], nn.Linear):
            raise ValueError(
                f"module {type(module).__name__!r}: its last layer with parameters is "
                f"{type(owners[-1]).__name__ if owners else 'missing'}, expected nn.Linear"
            )
        self.classes, self.width = owners[-1].out_features, owners[-1].in_features
        self.biased = owners[-1].bias is not None
        self._seen: list[Tensor] = []
        self._features: list[Tensor] = []
        owners[-1].register_forward_pre_hook(self._feature)
        for part in self.inner.modules():
            if isinstance(part, ACTIVE):
                part.register_forward_hook(self._unit)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, inputs of the last layer and activations, side by side."""
        self._seen.clear()
        self._features.clear()
        logits = self.inner(x)
        found = torch.cat([logits, self._features[-1].flatten(1), *self._seen], 1)
        self._seen.clear()
        self._features.clear()
        return found

    def read(self, outputs: Float[Tensor, "P S all"]) -> tuple[Tensor, Tensor, Tensor]:
        """Take outputs apart into logits, features and activations."""
        ends = [self.classes, self.width, outputs.shape[-1] - self.classes - self.width]
        logits, features, units = outputs.split(ends, -1)
        return logits, features, units

    def _feature(self, part: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._features.append(inputs[0])

    def _unit(self, part: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        flat = output.flatten(1)
        stride = -(-flat.shape[1] // MOST_UNITS)
        self._seen.append(flat[:, ::stride])


def _of_logits(classes: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Cross-entropy of the first columns, whatever stands behind them."""

    def loss(outputs: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs[:, :classes], y)

    return loss


def _measured(
    seen: tuple[Tensor, Tensor, Tensor],
    base: tuple[Tensor, Tensor, Tensor],
    labels: Tensor,
    biased: bool,
) -> dict[str, np.ndarray]:
    logits, features, units = seen
    p = logits.softmax(-1)
    spread = (p * (1 - p)).sum(-1)
    square = features.square().sum(-1) + float(biased)
    own = logits.gather(-1, labels.expand(logits.shape[:-1])[..., None])[..., 0]
    place = nn.functional.one_hot(labels, logits.shape[-1]).bool()
    other = logits.masked_fill(place, -torch.inf).amax(-1)
    active = units > 0
    found = {
        "agreement": (active == (base[2] > 0)).double().mean((1, 2)),
        "active": active.double().mean((1, 2)),
        "trace": (spread * square).mean(-1),
        "feature_norm": features.square().sum(-1).mean(-1).sqrt(),
        "margin": (own - other).mean(-1),
        "logit_scale": logits.std(-1).mean(-1),
    }
    return {name: values.double().cpu().numpy() for name, values in found.items()}
