"""Federated methods: what a client adds to the gradient of its loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from spinscape.merging.signs import Reduction, check_reduction, fedsign_weights

__all__ = ["FEDAVG", "Method", "Pull"]


@dataclass(frozen=True)
class Method:
    """A federated method: FedAvg, plus γ times FedSign's penalty, plus FedProx's μ/2 ‖θ − θ_t‖².

    Attributes
    ----------
    gamma : float
        Strength of `signs.fedsign_penalty`; 0 is none.
    mu : float
        Strength of the proximal term (arXiv 1812.06127); 0 is none.
    reduction : {"sum", "mean", "tensor_mean"}
        Of FedSign's penalty.
    disagreeing : bool
        Ours: the penalty acts only where the local sign is not the received one.
    """

    gamma: float = 0.0
    mu: float = 0.0
    reduction: Reduction = "sum"
    disagreeing: bool = False

    def __post_init__(self) -> None:
        for name in ("gamma", "mu"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name}={value!r}: expected a number, 0 or more")
        check_reduction(self.reduction)

    def __str__(self) -> str:
        parts = [f"FedProx μ={self.mu:g}"] if self.mu else []
        if self.gamma:
            kind = "FedSign (disagreeing)" if self.disagreeing else "FedSign"
            reduction = "" if self.reduction == "sum" else f" {self.reduction}"
            parts.append(f"{kind}{reduction} γ={self.gamma:g}")
        return " + ".join(parts) or "FedAvg"


FEDAVG = Method()


class Pull:
    """The gradients of several methods' penalties, each at its own batch of clients' points."""

    def __init__(self, methods: tuple[Method, ...], sizes: tuple[int, ...], like: Tensor) -> None:
        self.methods = methods
        self.weights = [
            method.gamma * fedsign_weights(sizes, method.reduction).to(like) for method in methods
        ]

    def add_(
        self,
        gradient: Float[Tensor, "method client n"],
        points: Float[Tensor, "method client n"],
        received: Float[Tensor, "method n"],
    ) -> None:
        """Add them in place; a method without a penalty leaves its gradient bit for bit."""
        for k, method in enumerate(self.methods):
            if method.mu:
                gradient[k].add_(points[k] - received[k], alpha=method.mu)
            if method.gamma:
                towards = received[k].sign() * self.weights[k]
                local = torch.sigmoid(points[k])
                pull = towards * local * (1 - local)
                if method.disagreeing:
                    pull = pull * ((points[k] > 0) != (received[k] > 0))
                gradient[k].sub_(pull)
