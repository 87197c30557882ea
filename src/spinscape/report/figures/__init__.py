"""Pictures, one module a subject: stored Datasets in, drawings out; no physics, no files."""

from spinscape.report.figures.bends import draw_bends
from spinscape.report.figures.blends import draw_paths
from spinscape.report.figures.copies import draw_copies
from spinscape.report.figures.curves import draw_training
from spinscape.report.figures.families import draw_hierarchy
from spinscape.report.figures.flattening import draw_flattening
from spinscape.report.figures.kin import draw_clones
from spinscape.report.figures.quenches import draw_quenches
from spinscape.report.figures.sets import draw_sets
from spinscape.report.figures.slices import draw_ruggedness
from spinscape.report.figures.walkers import draw_walks

__all__ = [
    "draw_bends",
    "draw_clones",
    "draw_copies",
    "draw_flattening",
    "draw_hierarchy",
    "draw_paths",
    "draw_quenches",
    "draw_ruggedness",
    "draw_sets",
    "draw_training",
    "draw_walks",
]
