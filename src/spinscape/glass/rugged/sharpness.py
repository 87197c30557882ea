"""Adaptive sharpness: the highest loss within a neighbourhood that scales with the weights.

max of L(w + ε) − L(w) over ‖ε/|w|‖ ≤ ρ (Kwon et al., arXiv 2102.11600, definition 2). Every weight
is moved in units of itself, so a network with rescaled units has the same neighbourhood of
functions; plain sharpness is arbitrary in this respect (Dinh et al., arXiv 1703.04933).
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from spinscape.glass.energies import energy_function
from spinscape.glass.walking.moves import generators, noise

__all__ = ["adaptive_sharpness"]


def adaptive_sharpness(
    landscape: Any,
    points: Float[Tensor, "replica n"],
    *,
    rho: float = 0.5,
    steps: int = 10,
    seed: int,
) -> Float[Tensor, "replica"]:
    """Highest rise of the loss that gradient ascent finds around every point, in nats.

    With ε = |w|u the ascent is u ← ρ·g/‖g‖, g = |w|∇L(w + |w|u), from a random u on the sphere
    ‖u‖ = ρ. Where the loss is convex every step goes up (the generalised power method; Journée et
    al. 2010, J. Mach. Learn. Res. 11, 517), and in a quadratic minimum it tends to ½ρ²λ, λ the
    largest eigenvalue of diag|w| H diag|w|. The highest loss on the way counts, and is a lower
    bound of the maximum.

    Parameters
    ----------
    landscape : Landscape
        Anything with ``gradient(points)`` beside its energy.
    points : [replica, n]
    rho : float
        Radius of the neighbourhood; 0.5 is the paper's for small images.
    steps : int
        Gradients a point.
    seed : int
        Point k's start depends on it and on k alone.

    Raises
    ------
    TypeError
        If the landscape has no gradient.
    ValueError
        If a number is out of range.
    """
    if not callable(getattr(landscape, "gradient", None)):
        raise TypeError(
            f"landscape: {type(landscape).__name__} has no gradient for adaptive_sharpness"
        )
    if steps < 1:
        raise ValueError(f"steps={steps}: expected 1 or more")
    if not 0 < rho < float("inf"):
        raise ValueError(f"rho={rho}: expected a positive number")
    call, sizes = energy_function(landscape), points.abs()
    here = call(points).double()
    start = noise(points, generators((seed, 2), len(points)))
    moved = points + sizes * _on_sphere(start, rho)
    highest = call(moved).double()
    for _ in range(steps):
        slope = sizes * landscape.gradient(moved)
        moved = points + sizes * _on_sphere(slope, rho)
        highest = torch.maximum(highest, call(moved).double())
    return highest - here


def _on_sphere(vectors: Float[Tensor, "replica n"], rho: float) -> Float[Tensor, "replica n"]:
    """Vectors of length ρ; one without a length (level ground) stays 0."""
    length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return (rho / length).where(length > 0, 0.0) * vectors
