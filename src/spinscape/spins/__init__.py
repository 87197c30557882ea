"""Spin models of networks: replica theory, TAP, phases, Monte Carlo, spectra."""

from spinscape.spins.couplings import SpinModel
from spinscape.spins.flips import SpinFlip, without_flip
from spinscape.spins.ground import ground_states
from spinscape.spins.growth_laws import growth
from spinscape.spins.mean_field import tap
from spinscape.spins.phases import phase
from spinscape.spins.readings import gaussian_identity, observables
from spinscape.spins.replica import critical_temperature, flip_stable_states, replica_symmetric
from spinscape.spins.sampling import ladder, sample
from spinscape.spins.settling import equilibration
from spinscape.spins.spectra import spectrum
from spinscape.spins.tails import power_law_tail

__all__ = [
    "SpinFlip",
    "SpinModel",
    "critical_temperature",
    "equilibration",
    "flip_stable_states",
    "gaussian_identity",
    "ground_states",
    "growth",
    "ladder",
    "observables",
    "phase",
    "power_law_tail",
    "replica_symmetric",
    "sample",
    "spectrum",
    "tap",
    "without_flip",
]
