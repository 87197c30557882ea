"""Paths between solutions: straight, bent, and through points where hidden units coincide."""
