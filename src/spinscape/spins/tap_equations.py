"""The TAP free energy, its equations and its stability, for a batch of magnetisations.

F = −½ Σ J_ij m_i m_j − Σ h_i m_i − (β/4) Σ J_ij² (1−m_i²)(1−m_j²)
    + T Σ [(1+m_i)/2 ln (1+m_i)/2 + (1−m_i)/2 ln (1−m_i)/2]
(Thouless, Anderson and Palmer 1977; sums over all ordered pairs i ≠ j).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from spinscape.spins.couplings import SpinModel
from spinscape.spins.lanczos import extreme

__all__ = ["TapEquations"]

EDGE = 1 - 1e-15


@dataclass(frozen=True)
class TapEquations:
    """The equations of a model at one temperature, in float64.

    Parameters
    ----------
    model : SpinModel
        In float64.
    temperature : float
        In units of the couplings.
    """

    model: SpinModel
    temperature: float

    @property
    def beta(self) -> float:
        """1 / T."""
        return 1 / self.temperature

    def reaction(self, m: Float[Tensor, "*batch N"]) -> Float[Tensor, "*batch N"]:
        """Onsager's Σ_j J_ij² (1 − m_j²)."""
        return self.model.squares.product(1 - m.square())

    def cavity(
        self, m: Float[Tensor, "*batch N"], before: Float[Tensor, "*batch N"] | None = None
    ) -> Float[Tensor, "*batch N"]:
        """β(h + Jm) − β² m Σ J²(1 − m²); the m that stands alone may be that of a step before."""
        lagged = m if before is None else before
        return self.beta * self.model.local_fields(m) - self.beta**2 * lagged * self.reaction(m)

    def residual(self, m: Float[Tensor, "*batch N"]) -> Float[Tensor, "*batch"]:
        """Largest |m_i − tanh(cavity_i)|."""
        return (m - torch.tanh(self.cavity(m))).abs().amax(-1)

    def free_energy(self, m: Float[Tensor, "*batch N"]) -> Float[Tensor, "*batch"]:
        """F of every magnetisation."""
        model, beta = self.model, self.beta
        loose = 1 - m.square()
        bonds = -(m * model.product(m)).sum(-1) / 2
        if model.fields is not None:
            bonds = bonds - m @ model.fields
        onsager = -beta / 4 * (loose * model.squares.product(loose)).sum(-1)
        up, down = (1 + m) / 2, (1 - m) / 2
        entropy = torch.special.entr(up).sum(-1) + torch.special.entr(down).sum(-1)
        return bonds + onsager - self.temperature * entropy

    def gradient(self, m: Float[Tensor, "*batch N"]) -> Float[Tensor, "*batch N"]:
        """∂F/∂m = T (atanh m − cavity)."""
        return self.temperature * (torch.atanh(m.clamp(-EDGE, EDGE)) - self.cavity(m))

    def hessian_product(
        self, m: Float[Tensor, "N"], v: Float[Tensor, "N"], reaction: Float[Tensor, "N"]
    ) -> Float[Tensor, "N"]:
        """H v: H_ij = −J_ij − 2β J_ij² m_i m_j, H_ii = T/(1 − m_i²) + β Σ_j J_ij² (1 − m_j²)."""
        own = self.temperature / (1 - m.square()).clamp(min=1e-300) + self.beta * reaction
        paired = 2 * self.beta * m * self.model.squares.product(m * v)
        return own * v - self.model.product(v) - paired

    def least_curvature(self, m: Float[Tensor, "N"]) -> float:
        """Smallest eigenvalue of D^½ H D^½ with D = (1 − m²)/T, of the sign of that of H.

        The scaling leaves the sign and takes the walls at |m| = 1 out of the spectrum.
        """
        scale = ((1 - m.square()).clamp(min=1e-300) / self.temperature).sqrt()
        reaction = self.reaction(m)

        def product(x: np.ndarray) -> np.ndarray:
            v = torch.from_numpy(np.ascontiguousarray(x))
            return (scale * self.hessian_product(m, scale * v, reaction)).numpy()

        return extreme(product, len(m), "smallest")[0]

    def plefka(self, m: Float[Tensor, "N"]) -> float:
        """1 − β² ρ(J_ij² (1−m_i²)(1−m_j²)): the expansion holds where it is not negative."""
        loose = 1 - m.square()

        def product(x: np.ndarray) -> np.ndarray:
            v = torch.from_numpy(np.ascontiguousarray(x))
            return -(loose * self.model.squares.product(loose * v)).numpy()

        return 1 + self.beta**2 * extreme(product, len(m), "smallest")[0]
