"""How high the loss rises along a path."""

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["BARRIERS", "path_barrier"]

BARRIERS = ("line", "mean")


def path_barrier(
    loss: Float[Tensor, "*batch lam"],
    lam: Float[Tensor, "lam"] | None = None,
    *,
    definition: str = "line",
) -> Float[Tensor, "*batch"]:
    """Height of the barrier along paths whose losses are given.

    Parameters
    ----------
    loss : [..., lam]
        Losses along each path, end points first and last.
    lam : [lam], optional
        Where on the path they were taken, from 0 to 1; equally spaced if not given.
    definition : "line" or "mean"
        ``"line"``: max over λ of L(λ) − [(1−λ) L(0) + λ L(1)] (Entezari et al., arXiv 2110.06296,
        definition 2.1). ``"mean"``: max over λ of L(λ) − ½ [L(0) + L(1)] (Frankle et al., arXiv
        1912.05671), which is above 0 between unequal end points even where the loss never rises
        above the line between them. Neither is ever negative.

    Returns
    -------
    Tensor
        One barrier a path, in the units of the loss; not a number where a loss is not.

    Raises
    ------
    ValueError
        If the definition is unknown, a path has fewer than two points, or `lam` does not rise
        from 0 to 1 with as many values.
    """
    if definition not in BARRIERS:
        raise ValueError(f"definition={definition!r}: expected 'line' or 'mean'")
    loss = torch.as_tensor(loss)
    if loss.ndim == 0 or loss.shape[-1] < 2:
        raise ValueError(f"loss has shape {tuple(loss.shape)}: expected two or more along lam")
    first, last = loss[..., :1], loss[..., -1:]
    if definition == "mean":
        return (loss - (first + last) / 2).amax(-1)
    return (loss - torch.lerp(first, last, _places(lam, loss))).amax(-1)


def _places(lam: Tensor | None, loss: Tensor) -> Tensor:
    count = loss.shape[-1]
    if lam is None:
        return torch.linspace(0, 1, count, dtype=loss.dtype, device=loss.device)
    place = torch.as_tensor(lam, dtype=loss.dtype, device=loss.device)
    ends = place.shape == (count,) and float(place[0]) == 0 and float(place[-1]) == 1
    if not ends or not bool((place.diff() > 0).all()):
        raise ValueError(
            f"lam: expected {count} rising values from 0 to 1, got shape {tuple(place.shape)}"
        )
    return place
