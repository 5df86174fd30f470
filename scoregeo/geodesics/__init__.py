"""How a metric G(x) becomes curves."""

from .boundary import AbstractBoundarySolver, geodesic
from .curves import AbstractCurve, IntegratedCurve, PiecewisePolynomial, Polyline
from .geodesic import Geodesic
from .initial import shoot
from .multistart import MultiStart
from .spectral import SpectralNewton
from .starts import AbstractStart, Bend, GraphInit, StraightLine
from .verification import verify

__all__ = [
    "AbstractBoundarySolver",
    "AbstractCurve",
    "AbstractStart",
    "Bend",
    "Geodesic",
    "GraphInit",
    "IntegratedCurve",
    "MultiStart",
    "PiecewisePolynomial",
    "Polyline",
    "SpectralNewton",
    "StraightLine",
    "geodesic",
    "shoot",
    "verify",
]
