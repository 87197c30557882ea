"""Step sizes tuned to a target acceptance in a burn-in, walker by walker, then frozen.

Robbins and Monro (1951) on the logarithm of a walker's step size: after step t of the burn-in it
changes by γ_t (a_t − a*), where a_t is whether that step was accepted and γ_t = 2 t^(−0.6); the
frozen size is the average over the second half of the burn-in (Polyak & Juditsky 1992). A tuned
walk is no Markov chain, so it is frozen before anything is recorded. Targets: .234 for Gaussian
steps (Roberts, Gelman & Gilks 1997), .574 for Langevin's (Roberts & Rosenthal 1998).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from spinscape.glass.walking.rules import Rule

__all__ = ["target_of", "tuned"]

GAIN, DECAY = 2.0, 0.6
LARGEST = 1e6  # flat ground accepts everything: a scale between 1/LARGEST and LARGEST


def target_of(move: Any, rule: Rule, burn_in: int, target: float | None) -> float | None:
    """Find the acceptance to tune to, or None where nothing is tuned.

    Raises
    ------
    ValueError
        If the burn-in is negative, the walk is free, the target is no fraction, there is none,
        or there is one and no burn-in.
    """
    if burn_in < 0:
        raise ValueError(f"burn_in={burn_in}: expected 0 or more steps")
    if burn_in == 0:
        if target is not None:
            raise ValueError(f"target={target}: nothing is tuned without burn_in; give its steps")
        return None
    if rule.needs is None:
        raise ValueError(
            f"burn_in={burn_in}: a free walk accepts every step, so that there is nothing to "
            "tune; use burn_in=0"
        )
    aim = getattr(move, "target", None) if target is None else target
    if aim is None:
        raise ValueError(f"target: {type(move).__name__} has no usual acceptance; give one")
    if not 0 < aim < 1:
        raise ValueError(f"target={aim}: expected a fraction between 0 and 1")
    return float(aim)


def tuned(
    walker: Any, state: Any, streams: Sequence[torch.Generator], burn_in: int, target: float
) -> Any:
    """Make the steps of the burn-in and return the state with each walker's scale frozen."""
    log_scale: Tensor = state.scale.log()
    total, half = torch.zeros_like(log_scale), burn_in // 2
    bound = torch.tensor(LARGEST, dtype=log_scale.dtype).log().item()
    for time in range(1, burn_in + 1):
        state, info = walker.step(state._replace(scale=log_scale.exp()), streams)
        change = GAIN * time**-DECAY * (info.accepted.to(log_scale) - target)
        log_scale = (log_scale + change).clamp(-bound, bound)
        if time > half:
            total += log_scale
    return state._replace(scale=(total / (burn_in - half)).exp())
