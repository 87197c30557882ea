"""Relative flatness of one layer: curvature of the loss in units of the layer's weights.

κ = Σ_{s,s'} ⟨w_s, w_s'⟩ tr H_{s,s'} (Petzka et al., arXiv 2001.00939): w_s is row s of the layer's
weight matrix W [d, m], what leads into its unit s, and H_{s,s'} [m, m] the block of the loss's
Hessian between the rows s and s'. A large κ is sharp, whatever the name. Rescaling a row
against what leads out of its unit leaves κ as it is; rescaling what leads *into* the layer unit by
unit does not (a column of W by 1/c scales ⟨w_s, w_s'⟩ and tr H_{s,s'} in other proportions than
1 : 1, unless all columns share one c). So κ of an output layer means something only at the
balanced representative of a network, which is where `ruggedness` takes it.

With V = WZ, Z [m, m] of independent random signs, E[V_sj V_s'j'] = ⟨w_s, w_s'⟩ δ_jj', hence
κ = E[⟨V, H V⟩]: one Hessian-vector product a probe, as in Hutchinson's trace.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from spinscape.glass.walking.moves import generators
from spinscape.nets.weightspace import WeightSpace

__all__ = ["relative_flatness"]


def relative_flatness(
    landscape: Any,
    points: Float[Tensor, "replica n"],
    *,
    layer: str | None = None,
    probes: int = 8,
    seed: int,
) -> tuple[Float[Tensor, "replica"], Float[Tensor, "replica"]]:
    """Relative flatness κ of a layer at every point (nats), and its standard error.

    Parameters
    ----------
    landscape : Landscape
        Anything with a ``module`` and ``hvp(points, vectors)`` that is its energy's curvature.
    points : [replica, n]
    layer : str, optional
        Name of a weight matrix among ``module.named_parameters()``; the last one if not given.
    probes : int
        Random matrices a point, at least 2.
    seed : int
        Point k's probes depend on it and on k alone.

    Raises
    ------
    TypeError
        If there is no module or no curvature of the energy.
    ValueError
        If there is no such matrix, or there are fewer than 2 probes.
    """
    module = getattr(landscape, "module", None)
    if module is None or not callable(getattr(landscape, "hvp", None)):
        raise TypeError(
            f"landscape: {type(landscape).__name__} has no module with layers, or no hvp; "
            "relative flatness needs both"
        )
    if getattr(landscape, "reestimates", False):
        raise TypeError(
            "landscape: its statistics of normalisation layers are re-estimated at every point, "
            "which hvp holds fixed: two different functions; use statistics='frozen'"
        )
    if probes < 2:
        raise ValueError(f"probes={probes}: expected 2 or more, for a standard error")
    place, shape = _matrix(module, layer)
    weights = points[:, place].unflatten(-1, shape)
    streams, drawn = generators((seed, 3), len(points)), []
    for _ in range(probes):
        vectors = torch.zeros_like(points)
        for row, stream in enumerate(streams):
            signs = torch.randint(0, 2, (shape[1], shape[1]), generator=stream)
            vectors[row, place] = (weights[row] @ (2 * signs - 1).to(points)).flatten()
        drawn.append((vectors * landscape.hvp(points, vectors)).sum(-1).double())
    forms = torch.stack(drawn)
    return forms.mean(0), forms.std(0) / probes**0.5


def _matrix(module: torch.nn.Module, layer: str | None) -> tuple[slice, tuple[int, int]]:
    """Place and shape of a weight matrix; a convolution's filters are its rows."""
    space = WeightSpace(module)
    shapes = {
        name: shape for name, shape in zip(space.names, space.shapes, strict=True) if len(shape) > 1
    }
    name = layer if layer is not None else next(reversed(shapes), "")
    if name not in shapes:
        raise ValueError(f"layer={layer!r}: expected a weight matrix, one of {', '.join(shapes)}")
    rows, *others = shapes[name]
    return space.slices[name], (rows, int(torch.tensor(others).prod()))
