"""Signs that two solutions have in common, and the penalty that rewards them (arXiv 2405.12489)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

__all__ = ["REDUCTIONS", "fedsign_penalty", "fedsign_weights", "sgp", "sign_consistency"]

Reduction = Literal["sum", "mean", "tensor_mean"]

REDUCTIONS: tuple[Reduction, ...] = ("sum", "mean", "tensor_mean")


def sgp(x: Tensor) -> Tensor:
    """Return 1 where x > 0, else 0, in the dtype of x: the paper's two-valued sign."""
    return (x > 0).to(x.dtype)


def sign_consistency(a: Tensor | Mapping[str, Tensor], b: Tensor | Mapping[str, Tensor]) -> Tensor:
    """Return the sign consistency ratio (SSR): the fraction of parameters of equal sign.

    The sign is two-valued, as in the paper: an exact zero counts as negative.

    Parameters
    ----------
    a, b : Tensor [..., n] or dict of Tensor
        Points, whose leading axes broadcast; or parameters by name (all of them count, tensors that
        are not floating are left out).

    Returns
    -------
    Tensor
        ``[...]`` in float64; a scalar for dicts.

    Raises
    ------
    ValueError
        If names or shapes differ, or nothing is left to compare.

    References
    ----------
    arXiv 2405.12489, section 3.

    Examples
    --------
    >>> float(sign_consistency(torch.tensor([1.0, -1.0]), torch.tensor([2.0, 3.0])))
    0.5
    """
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        _check_names(a, b, "a", "b")
        pairs = [(a[name], b[name]) for name in a if a[name].is_floating_point()]
        if not pairs:
            raise ValueError("a: no floating tensors to compare; give the parameters of a network")
        a, b = (torch.cat([pair[side].flatten() for pair in pairs]) for side in (0, 1))
    if isinstance(a, Mapping) or isinstance(b, Mapping):
        raise ValueError("a, b: one is a dict and one a tensor; give both in one form")
    if not a.ndim or not b.ndim or a.shape[-1] != b.shape[-1] or not a.shape[-1]:
        raise ValueError(
            f"a, b: shapes {tuple(a.shape)} and {tuple(b.shape)}; expected points of one length n"
        )
    return ((a > 0) == (b > 0)).double().mean(-1)


def fedsign_penalty(
    local: Mapping[str, Tensor],
    received: Mapping[str, Tensor],
    reduction: Reduction = "sum",
    *,
    disagreeing: bool = False,
) -> Tensor:
    """Return the FedSign penalty, to be added γ times to a client's loss.

    −Σ [sgp(θ_t) σ(θ) + sgp(−θ_t) σ(−θ)], with θ_t the received weights, held constant, θ the local
    ones and σ the logistic function. Its gradient −sign(θ_t) σ'(θ) acts on agreeing coordinates
    too, and on none where θ_t = 0.

    Parameters
    ----------
    local, received : dict of Tensor
        Parameters by name; those not in `local` (buffers, say) are ignored. Tensors in `local` that
        are not floating are left out.
    reduction : {"sum", "mean", "tensor_mean"}
        The paper leaves it open and it decides how strong γ is. "sum" over all parameters; "mean"
        over all parameters; "tensor_mean": the mean within each tensor, summed over tensors.
    disagreeing : bool
        Ours, not the paper's: only coordinates whose sign is not the received one count.

    Returns
    -------
    Tensor
        A differentiable scalar, ≤ 0.

    Raises
    ------
    ValueError
        If the reduction is not known, or a parameter is missing or has another shape in `received`.

    References
    ----------
    arXiv 2405.12489, section 5 (FedSign).
    """
    check_reduction(reduction)
    local = {name: value for name, value in local.items() if value.is_floating_point()}
    missing = [name for name in local if name not in received]
    if missing:
        raise ValueError(f"received: lacks {missing[0]!r}; send all parameters of the client")
    _check_names(local, {name: received[name] for name in local}, "local", "received")
    if not local:
        raise ValueError("local: no floating parameters; give those of a network by name")
    count = sum(value.numel() for value in local.values())
    total: Tensor | float = 0.0
    for name, value in local.items():
        towards = received[name].detach().to(value).sign()
        if disagreeing:
            towards = towards * ((value > 0) != (towards > 0))
        reward = (towards.abs() * torch.sigmoid(towards * value)).sum()
        total = total - reward * _share(reduction, value.numel(), count)
    assert isinstance(total, Tensor)
    return total


def fedsign_weights(sizes: tuple[int, ...], reduction: Reduction) -> Tensor:
    """Return what each coordinate of a point counts in the penalty ``[n]``, in float64."""
    check_reduction(reduction)
    count = sum(sizes)
    shares = [_share(reduction, size, count) for size in sizes]
    return torch.tensor(shares, dtype=torch.float64).repeat_interleave(torch.tensor(sizes))


def check_reduction(reduction: str) -> None:
    """Refuse a reduction that is not known."""
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction={reduction!r}: expected one of {', '.join(REDUCTIONS)}")


def _share(reduction: Reduction, size: int, count: int) -> float:
    return {"sum": 1.0, "mean": 1 / count, "tensor_mean": 1 / size}[reduction]


def _check_names(a: Mapping[str, Tensor], b: Mapping[str, Tensor], first: str, second: str) -> None:
    for name in sorted({*a, *b}):
        if name not in a or name not in b:
            lacking = first if name not in a else second
            raise ValueError(f"{lacking}: lacks {name!r}; both need the same parameters")
        if a[name].shape != b[name].shape:
            raise ValueError(
                f"{second}: {name!r} has shape {tuple(b[name].shape)}, but {tuple(a[name].shape)} "
                f"in {first}"
            )
