"""Valleys: directions and noise, curve types, mining, surfaces, asymmetry."""

from spinscape.valleys import constructions, directions
from spinscape.valleys.curves import scan
from spinscape.valleys.explanations import mechanism
from spinscape.valleys.lopsided import asymmetry
from spinscape.valleys.mining import mine
from spinscape.valleys.planes import refined_plane, surfaces
from spinscape.valleys.profiles import Profile, picture
from spinscape.valleys.shapes import CurveShape, classify
from spinscape.valleys.surface_shapes import SurfaceShape, classify_surface

__all__ = [
    "CurveShape",
    "Profile",
    "SurfaceShape",
    "asymmetry",
    "classify",
    "classify_surface",
    "constructions",
    "directions",
    "mechanism",
    "mine",
    "picture",
    "refined_plane",
    "scan",
    "surfaces",
]
