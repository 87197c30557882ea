"""Merging: checkpoints compared, solutions fused, sign-aligned federated learning."""

from spinscape.merging.averages import Soup, greedy_soup, uniform_soup
from spinscape.merging.fusion import fuse_by_epoch, independent_signs
from spinscape.merging.fusion_findings import relations
from spinscape.merging.methods import FEDAVG, Method
from spinscape.merging.partitions import dirichlet_clients
from spinscape.merging.rounds import LocalTraining, federate
from spinscape.merging.signs import fedsign_penalty, sign_consistency

__all__ = [
    "FEDAVG",
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
