"""Runs: what a study computed, kept part by part, verified whenever it is read."""

from spinscape.store.durable import RunError
from spinscape.store.manifest import CorruptPart
from spinscape.store.runs import Run

__all__ = ["CorruptPart", "Run", "RunError"]
