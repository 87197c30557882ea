"""Walks, alignment, hierarchy and ruggedness: for anything that has an energy."""
