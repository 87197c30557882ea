"""The local learning coefficient: how fast the volume around a solution shrinks with its loss.

λ̂ = nβ(E[L] − L(w*)) at β = 1/ln n, with w drawn from exp(−nβL(w) − γ|w − w*|²/2) around the
solution w* (Lau et al., arXiv 2308.12108, section 3). It is half the number of dimensions in a
regular minimum and less in a singular one, ¼ for w⁴. Where w* is no minimum (training stopped
before) the sampler finds lower loss, and λ̂ may be negative.

The sampler is the Crank-Nicolson Langevin proposal of Cotter, Roberts, Stuart & White (2013, Stat.
Sci. 28, 424, section 4.3) with Metropolis' acceptance: it keeps the Gaussian of the ridge exactly,
so that its step does not shrink with the number of weights, as that of plain Langevin steps does.
Chains start from that Gaussian, wider than what they sample, and choose their step while they
settle.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import log
from typing import Any, NamedTuple

import numpy as np
import torch
from arviz_stats.base import array_stats
from jaxtyping import Float
from torch import Tensor

from spinscape.glass.energies import energy_function
from spinscape.glass.walking.moves import generators, noise

__all__ = ["LearningCoefficient", "RidgeLangevin", "learning_coefficient"]

TARGET = 0.6
"""Acceptance aimed at while chains settle; that of Langevin steps is best near 0.57."""


class LearningCoefficient(NamedTuple):
    """What was estimated, for every point."""

    value: Float[Tensor, "replica"]
    error: Float[Tensor, "replica"]
    """Standard error, from the spread and the effective number of draws of all chains."""
    rhat: Float[Tensor, "replica"]
    """R-hat of the loss (Vehtari et al., arXiv 1903.08008): above 1.05, chains have not settled."""
    acceptance: Float[Tensor, "replica"]


class State(NamedTuple):
    """Where chains are, relative to their centres, with what the next step needs."""

    away: Float[Tensor, "chain n"]
    potential: Float[Tensor, "chain"]  # nβL
    slope: Float[Tensor, "chain n"]  # and its gradient
    delta: Float[Tensor, "chain"]  # size of a step in time, below 2: then all memory is lost


@dataclass(frozen=True)
class RidgeLangevin:
    """Sampler of exp(−Φ(c + v) − γ|v|²/2) over v, a chain for each centre c.

    Attributes
    ----------
    potential, slope : callable
        Φ and its gradient, of points.
    centres : [chain, n]
    gamma : [chain]
    """

    potential: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    centres: Float[Tensor, "chain n"]
    gamma: Float[Tensor, "chain"]

    def init(self, streams: list[torch.Generator], delta: float = 0.5) -> State:
        """Draw every chain from the Gaussian of its ridge."""
        away = noise(self.centres, streams) * self.gamma.rsqrt()[:, None]
        return self._at(away, torch.full_like(self.gamma, delta))

    def step(
        self, state: State, streams: list[torch.Generator]
    ) -> tuple[State, Float[Tensor, "chain"]]:
        """Move every chain once; also returns the probabilities of acceptance."""
        delta, gamma = state.delta[:, None], self.gamma[:, None]
        kick = (8 * delta / gamma).sqrt() * noise(state.away, streams)
        pull = (2 - delta) * state.away - 2 * delta / gamma * self._drift(state)
        proposed = self._at((pull + kick) / (2 + delta), state.delta)
        chance = self._log_ratio(state, proposed).exp().nan_to_num(0.0).clamp(max=1.0)
        u = torch.stack([torch.rand((), generator=s, dtype=torch.float64) for s in streams])
        taken = u.to(chance.device) < chance
        kept = [
            torch.where(taken.view(-1, *[1] * (new.ndim - 1)), new, old)
            for new, old in zip(proposed, state, strict=True)
        ]
        return State(*kept), chance

    def _at(self, away: Tensor, delta: Tensor) -> State:
        points = self.centres + away
        return State(away, self.potential(points).double(), self.slope(points), delta)

    def _drift(self, state: State) -> Float[Tensor, "chain n"]:
        """Slope, cut where it would move a chain further than its noise does.

        Uncut, chains stick where the potential is steeper than a parabola (Roberts & Tweedie 1996,
        Bernoulli 2, 341).
        """
        longest = (2 * self.gamma * state.away.shape[-1] / state.delta).sqrt()
        length = torch.linalg.vector_norm(state.slope, dim=-1)
        return state.slope * (longest / length).clamp(max=1.0)[:, None]

    def _log_ratio(self, old: State, new: State) -> Float[Tensor, "chain"]:
        """Log of the target's ratio times that of the proposals' densities.

        All that belongs to the ridge alone cancels exactly and is never computed, for it grows
        with the number of weights.
        """
        delta, before, after = old.delta.double(), self._drift(old), self._drift(new)

        def toward(start: State, end: State, drift: Tensor) -> Tensor:
            along, across = (_dot(state.away, drift) for state in (end, start))
            return (2 + delta) / 4 * along - (2 - delta) / 4 * across

        change = old.potential - new.potential
        change = change + toward(old, new, before) - toward(new, old, after)
        squares = _dot(before, before) - _dot(after, after)
        return change + delta / (4 * self.gamma.double()) * squares


def learning_coefficient(
    landscape: Any,
    points: Float[Tensor, "replica n"],
    *,
    gamma: float | Float[Tensor, "replica"],
    samples: int | None = None,
    chains: int = 3,
    settle: int = 15,
    steps: int = 20,
    seed: int,
) -> LearningCoefficient:
    """Local learning coefficient of every point, with its error and whether chains agree.

    Parameters
    ----------
    landscape : Landscape
        Anything with ``gradient(points)`` beside its energy, a mean loss per sample in nats.
    points : [replica, n]
    gamma : float or one a point
        Stiffness of the ridge that holds chains near the point.
    samples : int, optional
        The n of nβ = n/ln n; that of the landscape if not given.
    chains, settle, steps : int
        Chains a point, at least 2; steps while they settle, which do not count, and steps after
        that, at least 4.
    seed : int
        Point k's chains depend on it and on k alone.

    Raises
    ------
    TypeError
        If the landscape has no gradient.
    ValueError
        If a number is out of range, or `samples` is not known.
    """
    if not callable(getattr(landscape, "gradient", None)):
        raise TypeError(
            f"landscape: {type(landscape).__name__} has no gradient, which the sampler of "
            "learning_coefficient follows"
        )
    strength = _strength(landscape, samples)
    for name, count, least in (("chains", chains, 2), ("settle", settle, 0), ("steps", steps, 4)):
        if count < least:
            raise ValueError(f"{name}={count}: expected {least} or more")
    stiffness = torch.as_tensor(gamma, dtype=points.dtype, device=points.device)
    if not bool(((stiffness > 0) & stiffness.isfinite()).all()):
        raise ValueError(f"gamma={stiffness.tolist()}: expected positive numbers")
    call = energy_function(landscape)
    sampler = RidgeLangevin(
        lambda p: strength * call(p),
        lambda p: strength * landscape.gradient(p),
        points.repeat_interleave(chains, 0),
        stiffness.expand(len(points)).repeat_interleave(chains, 0),
    )
    seen, chances = _sampled(sampler, generators((seed, 5), len(sampler.centres)), settle, steps)
    rises = (seen - strength * call(points).double().repeat_interleave(chains)).unflatten(
        -1, (-1, chains)
    )
    error, rhat = (found.to(points.device) for found in _diagnosed(rises))
    accepted = chances.mean(0).unflatten(-1, (-1, chains)).mean(-1)
    return LearningCoefficient(rises.mean((0, 2)), error, rhat, accepted)


def _sampled(
    sampler: RidgeLangevin, streams: list[torch.Generator], settle: int, steps: int
) -> tuple[Float[Tensor, "step chain"], Float[Tensor, "step chain"]]:
    """Potentials and acceptances after the chains have settled."""
    state = sampler.init(streams)
    seen, chances = [], []
    for time in range(settle + steps):
        state, chance = sampler.step(state, streams)
        if time < settle:  # Robbins & Monro's rule, in the logarithm of the step
            gain = (chance - TARGET) / (1 + time) ** 0.6
            delta = state.delta * gain.exp().to(state.delta)
            state = state._replace(delta=delta.clamp(max=2.0))
        else:
            seen.append(state.potential)
            chances.append(chance)
    return torch.stack(seen), torch.stack(chances)


def _diagnosed(rises: Float[Tensor, "step replica chain"]) -> tuple[Tensor, Tensor]:
    """Standard error of the mean over all chains, and R-hat (NaN where nothing varies)."""
    draws, axes = rises.permute(1, 2, 0).cpu().numpy(), {"chain_axis": 1, "draw_axis": 2}
    with np.errstate(invalid="ignore", divide="ignore"):
        error = array_stats.mcse(draws, method="mean", **axes)
        rhat = array_stats.rhat(draws, **axes)
    return torch.from_numpy(np.asarray(error)), torch.from_numpy(np.asarray(rhat))


def _strength(landscape: Any, samples: int | None) -> float:
    if samples is None:
        inputs = getattr(landscape, "x", None)
        if inputs is None:
            raise ValueError(
                f"samples: {type(landscape).__name__} does not say how many it is a mean over; "
                "give their number"
            )
        samples = len(inputs)
    if samples < 2:
        raise ValueError(f"samples={samples}: expected 2 or more")
    return samples / log(samples)


def _dot(first: Tensor, second: Tensor) -> Float[Tensor, "chain"]:
    return torch.linalg.vecdot(first, second).double()
