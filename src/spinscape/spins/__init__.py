"""Spin models of networks: replica theory, TAP, phases, Monte Carlo, spectra."""

from spinscape.spins.couplings import SpinModel
from spinscape.spins.flips import SpinFlip, without_flip
from spinscape.spins.ground import ground_states
from spinscape.spins.mean_field import tap
from spinscape.spins.phases import phase
from spinscape.spins.readings import gaussian_identity, observables
from spinscape.spins.replica import critical_temperature, flip_stable_states, replica_symmetric
from spinscape.spins.sampling import ladder, sample
from spinscape.spins.settling import equilibration
from spinscape.spins.spectra import spectrum

__all__ = [
    "SpinFlip",
    "SpinModel",
    "critical_temperature",
    "equilibration",
    "flip_stable_states",
    "gaussian_identity",
    "ground_states",
    "ladder",
    "observables",
    "phase",
    "replica_symmetric",
    "sample",
    "spectrum",
    "tap",
    "without_flip",
]
