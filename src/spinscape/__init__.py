"""Loss landscapes of neural networks through the lens of spin-glass physics.

A network is a point in weight space, and the unit of work is a batch of points:

>>> import spinscape as ss
>>> data = ss.datasets.load("digits", seed=0)
>>> module = ss.models.mlp(64, [16], 10)
>>> solutions = ss.train(module, data, replicas=2, epochs=1, seed=0)
>>> landscape = ss.Landscape(module, *data.train)
>>> landscape.loss(ss.points(solutions)).shape
torch.Size([2])
"""

from importlib.metadata import version

from spinscape import glass, landscape, merging, spins, valleys
from spinscape.landscape.energy import Landscape
from spinscape.merging.comparing import compare
from spinscape.nets import datasets, models, symmetry
from spinscape.nets.populations import population
from spinscape.nets.training import train
from spinscape.nets.weightspace import WeightSpace, points
from spinscape.statistics import Finding
from spinscape.store import Run
from spinscape.studies.exploration import explore
from spinscape.studies.papers import reproduce

__version__ = version("spinscape")

__all__ = [
    "Finding",
    "Landscape",
    "Run",
    "WeightSpace",
    "compare",
    "datasets",
    "explore",
    "glass",
    "landscape",
    "merging",
    "models",
    "points",
    "population",
    "reproduce",
    "spins",
    "symmetry",
    "train",
    "valleys",
]
