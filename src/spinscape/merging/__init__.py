"""Merging: checkpoints compared, solutions fused, sign-aligned federated learning."""

from typing import TYPE_CHECKING, Any

from spinscape.merging.averages import Soup, greedy_soup, uniform_soup
from spinscape.merging.fusion import fuse_by_epoch, independent_signs
from spinscape.merging.fusion_findings import relations
from spinscape.merging.methods import FEDAVG, Method
from spinscape.merging.partitions import dirichlet_clients
from spinscape.merging.rounds import LocalTraining, federate
from spinscape.merging.signs import fedsign_penalty, sign_consistency

if TYPE_CHECKING:
    from spinscape.merging.flower_strategy import FedSign

__all__ = [
    "FEDAVG",
    "FedSign",
    "LocalTraining",
    "Method",
    "Soup",
    "dirichlet_clients",
    "federate",
    "fedsign_penalty",
    "fuse_by_epoch",
    "greedy_soup",
    "independent_signs",
    "relations",
    "sign_consistency",
    "uniform_soup",
]


def __getattr__(name: str) -> Any:
    """Import the strategy when it is asked for: it needs Flower."""
    if name == "FedSign":
        from spinscape.merging.flower_strategy import FedSign

        return FedSign
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
