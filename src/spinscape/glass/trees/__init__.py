"""Clustering of solutions, and whether it is more than chance would cluster."""
