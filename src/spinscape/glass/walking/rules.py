"""Rules of a walk: whether a proposed step is made.

*free* accepts every step and asks for no energy. *thermal* accepts a change of energy ΔE with
probability min(1, exp(−ΔE/T)) (Metropolis et al. 1953), times the ratio of the move's proposal
densities where that is not 1 (Hastings 1970); k_B = 1. *threshold* accepts while the energy is at
most L*: a uniform walk in the sublevel set {E ≤ L*}. Proposals whose energy is not finite are
refused by both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["RULES", "Info", "Rule", "finite_start", "levels", "log_uniform", "rule_of"]


class Info(NamedTuple):
    """What a step did."""

    accepted: Bool[Tensor, "walker"]
    finite: Bool[Tensor, "walker"]  # the proposal's energy, where the rule asked for it


@dataclass(frozen=True)
class Rule:
    """A rule by name, and the number it needs: "temperature", "threshold" or none."""

    name: str
    needs: str | None

    def accept(
        self,
        energy: Float[Tensor, "walker"],
        proposed: Float[Tensor, "walker"],
        log_u: Float[Tensor, "walker"],
        *,
        temperature: Float[Tensor, "walker"] | None = None,
        threshold: Float[Tensor, "walker"] | None = None,
        log_ratio: Float[Tensor, "walker"] | None = None,
    ) -> Bool[Tensor, "walker"]:
        """Whether each walker makes its step.

        Parameters
        ----------
        energy, proposed : Tensor [walker]
            Energy where the walker is, and of its proposal.
        log_u : Tensor [walker]
            Logarithm of a uniform random number (`log_uniform`); only a thermal walk looks at it.
        temperature, threshold : Tensor [walker], optional
            What the rule needs, in units of the energy.
        log_ratio : Tensor [walker], optional
            log q(here | proposal) − log q(proposal | here) of a move that is not symmetric.
        """
        if self.needs is None:
            return torch.ones_like(proposed, dtype=torch.bool)
        if self.needs == "threshold":
            assert threshold is not None
            return proposed.isfinite() & (proposed.double() <= threshold)
        assert temperature is not None
        gain = (energy - proposed).double() / temperature
        return proposed.isfinite() & (log_u < (gain if log_ratio is None else gain + log_ratio))


RULES = {
    "free": Rule("free", None),
    "thermal": Rule("thermal", "temperature"),
    "threshold": Rule("threshold", "threshold"),
}


def rule_of(name: str) -> Rule:
    """Look a rule up by its name; ValueError if there is none."""
    if name not in RULES:
        raise ValueError(f"rule={name!r}: expected one of {', '.join(RULES)}")
    return RULES[name]


def levels(
    rule: Rule, name: str, given: float | Sequence[float] | None, start: Float[Tensor, "walker n"]
) -> Float[Tensor, "walker"] | None:
    """Spread a temperature or threshold over the walkers, or None where the rule has none.

    Raises
    ------
    ValueError
        If the rule needs the number and it is missing, does not and it is given, or it is neither
        one finite number (positive, for a temperature) nor one a walker.
    """
    if rule.needs != name:
        if given is not None:
            owner = next(other.name for other in RULES.values() if other.needs == name)
            raise ValueError(f"{name}={given}: a {rule.name} walk has none; use rule={owner!r}")
        return None
    if given is None:
        raise ValueError(f"{name}: a {rule.name} walk needs one, in units of the energy (nats)")
    values = torch.as_tensor(given, dtype=torch.float64, device=start.device)
    if values.ndim > 1 or (values.ndim == 1 and len(values) != len(start)):
        raise ValueError(
            f"{name}: expected one number or one for each of {len(start)} walkers, "
            f"got shape {tuple(values.shape)}"
        )
    if not bool(values.isfinite().all()):
        raise ValueError(f"{name}={given}: expected finite numbers; rule='free' has no bound")
    if name == "temperature" and not bool((values > 0).all()):
        raise ValueError(f"{name}={given}: expected positive numbers; free walks are T→∞")
    return values.expand(len(start))


def finite_start(energy: Float[Tensor, "walker"]) -> Float[Tensor, "walker"]:
    """Return the energies at the start; ValueError where they are not finite."""
    bad = (~energy.isfinite()).nonzero().flatten().tolist()
    if bad:
        raise ValueError(
            f"points: the energy of walkers {bad[:8]} is not finite at the start; "
            "leave diverged replicas out"
        )
    return energy


def log_uniform(generators: Sequence[torch.Generator]) -> Float[Tensor, "walker"]:
    """Logarithms of uniform random numbers, each walker's from its own generator."""
    drawn = [torch.rand((), generator=g, dtype=torch.float64) for g in generators]
    return torch.stack(drawn).log()
