"""Walks, alignment, paths, hierarchy and ruggedness: for anything that has an energy."""

from spinscape.glass.energies import Energy
from spinscape.glass.kin.clones import clone, family
from spinscape.glass.kin.lineages import family_findings, kinship
from spinscape.glass.kin.partings import clone_findings
from spinscape.glass.kin.quenches import displaced, quench
from spinscape.glass.kin.relatives import siblings
from spinscape.glass.kin.returns import quench_findings
from spinscape.glass.matching.alignment import align
from spinscape.glass.paths.all_pairs import barriers_of_all_pairs
from spinscape.glass.paths.barriers import barrier
from spinscape.glass.paths.bends import bent_paths
from spinscape.glass.paths.bezier import bezier_paths
from spinscape.glass.paths.curves import Bending
from spinscape.glass.paths.detours import bent_findings, permutation_point_findings
from spinscape.glass.paths.extra_neuron import extra_neuron_path
from spinscape.glass.paths.interpolation import permutation_findings, permutation_paths
from spinscape.glass.paths.midpoints import repair, repair_findings, repaired_midpoints
from spinscape.glass.paths.own_copies import copies_findings, partial_copies
from spinscape.glass.paths.permutation_points import permutation_point_paths
from spinscape.glass.paths.teacher import ReluTeacher
from spinscape.glass.paths.widths import barriers_by_width, width_findings
from spinscape.glass.rugged.correlations import generalisation, generalisation_findings
from spinscape.glass.rugged.flattening import flattened, flattening_findings
from spinscape.glass.rugged.flattening_walks import thermal_average
from spinscape.glass.rugged.roughness import ruggedness
from spinscape.glass.trees.clustering import hierarchy, hierarchy_findings
from spinscape.glass.trees.functional import functional_distances
from spinscape.glass.trees.overlaps import overlap_distribution, overlap_findings
from spinscape.glass.trees.repeats import (
    hierarchy_of_sets,
    hierarchy_of_sets_findings,
    untrained_finding,
)
from spinscape.glass.walking.ageing import ageing_finding, relaxation
from spinscape.glass.walking.convergence import equilibrium
from spinscape.glass.walking.diagnostics import diagnosed
from spinscape.glass.walking.langevin import Langevin
from spinscape.glass.walking.memory import autocorrelation, correlation_finding
from spinscape.glass.walking.moves import FilterGaussian, Gaussian
from spinscape.glass.walking.quadratic import excess, quadratic_law
from spinscape.glass.walking.recording import join_walks
from spinscape.glass.walking.sublevel import dimension_finding, effective_dimension
from spinscape.glass.walking.unit_moves import SingleUnit
from spinscape.glass.walking.walks import walk
from spinscape.glass.walking.wandering import diffusion, walk_findings

__all__ = [
    "Bending",
    "Energy",
    "FilterGaussian",
    "Gaussian",
    "Langevin",
    "ReluTeacher",
    "SingleUnit",
    "ageing_finding",
    "align",
    "autocorrelation",
    "barrier",
    "barriers_by_width",
    "barriers_of_all_pairs",
    "bent_findings",
    "bent_paths",
    "bezier_paths",
    "clone",
    "clone_findings",
    "copies_findings",
    "correlation_finding",
    "diagnosed",
    "diffusion",
    "dimension_finding",
    "displaced",
    "effective_dimension",
    "equilibrium",
    "excess",
    "extra_neuron_path",
    "family",
    "family_findings",
    "flattened",
    "flattening_findings",
    "functional_distances",
    "generalisation",
    "generalisation_findings",
    "hierarchy",
    "hierarchy_findings",
    "hierarchy_of_sets",
    "hierarchy_of_sets_findings",
    "join_walks",
    "kinship",
    "overlap_distribution",
    "overlap_findings",
    "partial_copies",
    "permutation_findings",
    "permutation_paths",
    "permutation_point_findings",
    "permutation_point_paths",
    "quadratic_law",
    "quench",
    "quench_findings",
    "relaxation",
    "repair",
    "repair_findings",
    "repaired_midpoints",
    "ruggedness",
    "siblings",
    "thermal_average",
    "untrained_finding",
    "walk",
    "walk_findings",
    "width_findings",
]
