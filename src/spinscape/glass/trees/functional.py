"""How alike two networks compute, whatever their weights: overlaps of predictions and of features.

*Agreement* is the share of samples that both give to the same class. *CKA* is the linear centred
kernel alignment of what their last hidden units, or their outputs, do on the samples (Kornblith et
al., arXiv 1905.00414, eq. 3-5). Both are inner products of unit vectors, one a network: its one-hot
predictions, or its centred kernel matrix. Neither changes when hidden units are permuted; linear
CKA does change when they are rescaled, so networks whose scale is known to be free are balanced.
"""

from contextlib import suppress
from typing import Literal, TypeAlias

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from spinscape.landscape.energy import Landscape
from spinscape.nets import symmetry as symmetries
from spinscape.nets.chunks import pieces
from spinscape.nets.dense import ACTIVATIONS, DenseStack, stack_of
from spinscape.nets.weightspace import points as points_of
from spinscape.records import labelled, provenance

__all__ = ["FUNCTIONAL", "Functional", "agreement", "functional_distances", "functional_overlaps"]

SOURCE = "agreement; linear CKA: Kornblith et al., arXiv 1905.00414"

Functional: TypeAlias = Literal["agreement", "cka", "cka_outputs"]
FUNCTIONAL: dict[str, str] = {
    "agreement": "share of samples classified differently",
    "cka": "1 − linear CKA of the last hidden units",
    "cka_outputs": "1 − linear CKA of the outputs",
}
PIECE_ELEMENTS = 2**22
"""Numbers in a piece of hidden activations or of kernel rows: 16 MiB in float32."""


def functional_distances(
    landscape: Landscape,
    points: Float[Tensor, "replica n"] | xr.DataArray | xr.Dataset,
    *,
    kind: Functional = "agreement",
) -> xr.Dataset:
    """Return how differently every two networks compute on the landscape's samples.

    Parameters
    ----------
    landscape : Landscape
        Network and samples; held-out samples tell more than those that all have learned.
    points : [replica, n], or a Dataset with ``point``
    kind : {"agreement", "cka", "cka_outputs"}
        1 − the share of samples of equal prediction; 1 − linear CKA of the last hidden units, or
        of the outputs.

    Returns
    -------
    Dataset
        ``distance`` and ``overlap`` = 1 − distance, both [replica, other].

    Raises
    ------
    ValueError
        If the kind is unknown, the points do not fit, outputs are not finite or all the same, or
        hidden units are asked for of a module that is no chain of linear layers.

    Notes
    -----
    Outputs of all replicas [replica, S, C] (or hidden activations [replica, S, units]) are in
    memory at once, kernel matrices in pieces of 16 MiB. Products are taken in the dtype of the
    points and added up in float64: CKA is good to about 1e-6 in float32.
    """
    overlap = functional_overlaps(landscape, points_of(points), kind)
    arguments = {"kind": kind, "samples": len(landscape.x), "module": landscape.space.kind}
    both = ("replica", "other")
    return xr.Dataset(
        {
            "distance": labelled(both, 1 - overlap, FUNCTIONAL[kind]),
            "overlap": labelled(both, overlap, "functional overlap"),
        },
        attrs=provenance("functional_distances", SOURCE, 0, **arguments),
    )


def functional_overlaps(
    landscape: Landscape, points: Float[Tensor, "replica n"], kind: str
) -> Float[Tensor, "replica replica"]:
    """Return agreement or CKA of all pairs in float64 on the CPU, exactly 1 on the diagonal."""
    if kind not in FUNCTIONAL:
        raise ValueError(f"kind={kind!r}: expected one of {', '.join(FUNCTIONAL)}")
    if points.ndim != 2:
        raise ValueError(f"points: expected [replica, n], got shape {tuple(points.shape)}")
    points = points.detach()
    if kind == "cka":
        overlap = _cka(_hidden(landscape, points))
    else:
        outputs = _checked(landscape.outputs(points))
        overlap = agreement(outputs) if kind == "agreement" else _cka(outputs)
    overlap = ((overlap + overlap.T) / 2).cpu()
    return overlap.fill_diagonal_(1.0)


def agreement(outputs: Float[Tensor, "replica S C"]) -> Float[Tensor, "replica replica"]:
    """Share of samples whose largest output is the same, for all pairs."""
    count, samples, classes = outputs.shape
    if classes < 2:
        raise ValueError(f"kind='agreement': needs two outputs or more, got {classes}; use 'cka'")
    predicted = outputs.argmax(2)
    equal = torch.zeros(count, count, dtype=torch.float64, device=outputs.device)
    for some in pieces(samples, max(1, PIECE_ELEMENTS // (count * classes))):
        marks = torch.nn.functional.one_hot(predicted[:, some], classes).flatten(1).float()
        equal += (marks @ marks.T).double()  # counts below 2²⁴ are exact
    return equal / samples


def _cka(features: Float[Tensor, "replica S H"]) -> Float[Tensor, "replica replica"]:
    """⟨K_i, K_j⟩ / (‖K_i‖ ‖K_j‖) of the centred linear kernels K = F Fᵀ, some rows at a time."""
    count, samples, _ = features.shape
    centred = features - features.mean(1, keepdim=True)
    size = torch.linalg.vector_norm(centred, dim=(1, 2), keepdim=True)
    still = (size <= 4 * torch.finfo(size.dtype).eps * _size(features)).flatten().nonzero()
    if len(still):
        raise ValueError(
            f"points: what network {int(still[0])} does is the same on all samples "
            f"({len(still)} such), so its CKA is undefined; leave it out"
        )
    centred /= size
    product = torch.zeros(count, count, dtype=torch.float64, device=features.device)
    for some in pieces(samples, max(1, PIECE_ELEMENTS // (count * samples))):
        rows = (centred[:, some] @ centred.mT).flatten(1)
        product += (rows @ rows.T).double()
    norms = product.diagonal().sqrt()
    return product / (norms[:, None] * norms)


def _size(features: Tensor) -> Tensor:
    return torch.linalg.vector_norm(features, dim=(1, 2), keepdim=True)


def _hidden(
    landscape: Landscape, points: Float[Tensor, "replica n"]
) -> Float[Tensor, "replica S H"]:
    """Activations of the last hidden layer of balanced networks, some replicas at a time."""
    stack = stack_of(landscape.module)
    if stack is None or len(stack.layers) < 2:
        raise ValueError(
            f"kind='cka': hidden units are known here of chains of Linear layers and activations, "
            f"which {landscape.space.kind!r} is not; use kind='cka_outputs'"
        )
    landscape.space.check(points, "points")
    with suppress(TypeError):  # of a network whose symmetry is not known
        points = symmetries.of(landscape.module).balance(points)
    width = max(layer.outputs for layer in stack.layers)
    size = max(1, PIECE_ELEMENTS // (width * len(landscape.x)))
    inputs = stack.inputs(landscape.x.to(points.dtype))
    parts = [_last_hidden(stack, points[some], inputs) for some in pieces(len(points), size)]
    return _checked(torch.cat(parts))


def _last_hidden(
    stack: DenseStack, points: Float[Tensor, "replica n"], x: Float[Tensor, "S d"]
) -> Float[Tensor, "replica S H"]:
    columns = ACTIVATIONS[stack.activations[0]].value(stack.first(points, x))
    for layer, name in zip(stack.layers[1:-1], stack.activations[1:], strict=True):
        before = layer.weights(points) @ columns
        if layer.bias is not None:
            before += points[:, layer.bias, None]
        columns = ACTIVATIONS[name].value(before)
    return columns.transpose(1, 2)


def _checked(features: Tensor) -> Float[Tensor, "replica S H"]:
    bad = (~torch.isfinite(features).flatten(1).all(1)).nonzero().flatten().tolist()
    if bad:
        raise ValueError(f"points: outputs of networks {bad} are not finite; leave them out")
    return features.flatten(2) if features.ndim > 2 else features[..., None]
