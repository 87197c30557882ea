"""A null in the space of functions: replicas that are one common function and noise, no tree.

Surrogate weights compute something else than the replicas do, and random networks fall into
families by the class that each favours, so the nulls of weight space are none for functions.
Networks that learned the same data differ on the same few samples, and where one errs on a sample
it errs on those like it. Differences of functions thus have few effective dimensions, in which K is
small by itself (.55 for Gaussian points on a line, .65 in five dimensions, .73 in many): a null
that draws every sample anew would call that a tree.

So what the replicas have beyond their mean is mixed by a random rotation *over the replicas* that
leaves the mean alone, and each gets back the norm of what it has beyond the mean. Were replicas
independent draws of one Gaussian, whatever its mean and covariance over samples, the rotation would
change nothing but which is which; families are spread evenly over all replicas. Measured on such
replicas of few and of many effective dimensions, K is .95 to 1 times that of their surrogates: p
alone is a little too small, and the factor in the rule is needed.

For agreement, outputs are mixed (less their mean over classes, which decides nothing) and predict
anew. For CKA, whose units have no common order, the centred kernel matrices are mixed: of those,
inner products are all that is needed.
"""

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Float
from torch import Tensor

from spinscape.glass.trees.functional import agreement, functional_overlaps
from spinscape.landscape.energy import Landscape

__all__ = ["FunctionStar", "draw_overlaps", "function_star"]

Matrix = Float[np.ndarray, "replica replica"]


@dataclass(frozen=True)
class FunctionStar:
    """Functions whose deviations from their mean are mixed anew.

    Attributes
    ----------
    name : str
    stream : tuple of int
        Which stream of random numbers its surrogates take.
    outputs : [replica, S, C] or None
        What is mixed for agreement.
    overlap : [replica, replica] or None
        Inner products of the unit vectors that are mixed for CKA.
    """

    name: str
    stream: tuple[int, ...]
    outputs: Float[Tensor, "replica S C"] | None
    overlap: Matrix | None


def function_star(
    landscape: Landscape,
    points: Float[Tensor, "replica n"],
    kind: str,
    *,
    stream: tuple[int, ...] = (3,),
) -> FunctionStar:
    """Return the function star of replicas for a kind of `functional.FUNCTIONAL`."""
    if kind == "agreement":
        outputs = landscape.outputs(points)
        return FunctionStar(
            "function star", stream, outputs - outputs.mean(2, keepdim=True), overlap=None
        )
    overlap = functional_overlaps(landscape, points, kind).numpy()
    return FunctionStar("function star", stream, outputs=None, overlap=overlap)


def draw_overlaps(null: FunctionStar, index: int, *, seed: int) -> Matrix:
    """Draw the overlaps of the surrogate with this index, decided by it and the seed alone."""
    sequence = np.random.SeedSequence(seed, spawn_key=(*null.stream, index))
    generator = np.random.default_rng(sequence)
    if null.outputs is not None:
        mixing = _mixing(len(null.outputs), generator)
        overlap = agreement(_mixed_vectors(null.outputs, mixing)).cpu().numpy()
    else:
        assert null.overlap is not None
        overlap = _mixed_products(null.overlap, _mixing(len(null.overlap), generator))
    np.fill_diagonal(overlap, 1.0)
    return (overlap + overlap.T) / 2


def _mixing(count: int, generator: np.random.Generator) -> Matrix:
    """Draw a rotation of deviations from the mean, uniform among all; it takes the mean to 0."""
    across = scipy.linalg.helmert(count)
    rotation, triangle = np.linalg.qr(generator.standard_normal((count - 1, count - 1)))
    rotation *= np.sign(np.diag(triangle))  # uniform among all, which the factor alone is not
    return across.T @ rotation @ across


def _mixed_vectors(
    vectors: Float[Tensor, "replica S C"], mixing: Matrix
) -> Float[Tensor, "replica S C"]:
    rows = vectors.flatten(1)
    centre = rows.double().mean(0).to(rows.dtype)
    beyond = rows - centre
    drawn = torch.from_numpy(mixing).to(rows) @ beyond
    norm, found = (torch.linalg.vector_norm(v, dim=1, keepdim=True) for v in (beyond, drawn))
    return (centre + drawn * (norm / found)).view_as(vectors)


def _mixed_products(overlap: Matrix, mixing: Matrix) -> Matrix:
    """As `_mixed_vectors`, made to unit length again, on inner products alone."""
    with_mean = overlap.mean(1)
    beyond = overlap - with_mean - with_mean[:, None] + with_mean.mean()
    drawn = mixing @ beyond @ mixing.T
    scale = np.sqrt(np.clip(np.diag(beyond), 0, None) / np.diag(drawn))
    toward = scale * (mixing @ with_mean)
    product = with_mean.mean() + toward + toward[:, None] + scale * scale[:, None] * drawn
    norm = np.sqrt(np.diag(product))
    return product / (norm * norm[:, None])
