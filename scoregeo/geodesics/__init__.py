"""How a metric G(x) becomes curves."""

from .boundary import AbstractBoundarySolver, geodesic
from .curves import AbstractCurve, IntegratedCurve, PiecewisePolynomial, Polyline
from .energy_descent import EnergyDescent
from .geodesic import Geodesic
from .georce import Georce
from .initial import shoot
from .multistart import MultiStart
from .refine import Refine
from .shooting import Shooting
from .spectral import SpectralNewton
from .starts import AbstractStart, Bend, GraphInit, StraightLine
from .transport import PoleLadder, TransportODE, jacobi_field, parallel_transport
from .verification import verify

__all__ = [
    "AbstractBoundarySolver",
    "AbstractCurve",
    "AbstractStart",
    "Bend",
    "EnergyDescent",
    "Geodesic",
    "Georce",
    "GraphInit",
    "IntegratedCurve",
    "MultiStart",
    "PiecewisePolynomial",
    "PoleLadder",
    "Polyline",
    "Refine",
    "Shooting",
    "SpectralNewton",
    "StraightLine",
    "TransportODE",
    "geodesic",
    "jacobi_field",
    "parallel_transport",
    "shoot",
    "verify",
]
