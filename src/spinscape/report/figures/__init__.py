"""Pictures, one module a protocol: stored Datasets in, drawings out; no physics, no files."""

from spinscape.report.figures.blends import draw_paths
from spinscape.report.figures.curves import draw_training
from spinscape.report.figures.families import draw_hierarchy
from spinscape.report.figures.slices import draw_ruggedness
from spinscape.report.figures.walkers import draw_walks

__all__ = ["draw_hierarchy", "draw_paths", "draw_ruggedness", "draw_training", "draw_walks"]
