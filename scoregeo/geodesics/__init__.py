"""How a metric G(x) becomes curves."""

from .boundary import AbstractBoundarySolver, geodesic
from .geodesic import AbstractCurve, Geodesic, IntegratedCurve, PolynomialCurve
from .initial import shoot
from .spectral import SpectralNewton
from .verification import verify

__all__ = [
    "AbstractBoundarySolver",
    "AbstractCurve",
    "Geodesic",
    "IntegratedCurve",
    "PolynomialCurve",
    "SpectralNewton",
    "geodesic",
    "shoot",
    "verify",
]
