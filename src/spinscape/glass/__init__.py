"""Walks, alignment, hierarchy and ruggedness: for anything that has an energy."""

from spinscape.glass.alignment import align
from spinscape.glass.barriers import barrier
from spinscape.glass.clustering import hierarchy, hierarchy_findings
from spinscape.glass.correlations import generalisation, generalisation_findings
from spinscape.glass.energies import Energy
from spinscape.glass.interpolation import permutation_findings, permutation_paths
from spinscape.glass.moves import FilterGaussian, Gaussian
from spinscape.glass.quadratic import quadratic_law
from spinscape.glass.roughness import ruggedness
from spinscape.glass.walks import walk
from spinscape.glass.wandering import diffusion, walk_findings

__all__ = [
    "Energy",
    "FilterGaussian",
    "Gaussian",
    "align",
    "barrier",
    "diffusion",
    "generalisation",
    "generalisation_findings",
    "hierarchy",
    "hierarchy_findings",
    "permutation_findings",
    "permutation_paths",
    "quadratic_law",
    "ruggedness",
    "walk",
    "walk_findings",
]
