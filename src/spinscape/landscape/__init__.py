"""The energy of points on data: chunks, lines, planes, subspaces, paths."""
