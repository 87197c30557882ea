"""The energy of points on data: chunks, lines, planes, subspaces, paths, curvature."""

from spinscape.landscape import curvature

__all__ = ["curvature"]
