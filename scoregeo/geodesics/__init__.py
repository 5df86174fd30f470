"""How a metric G(x) becomes curves."""

from .anneal import Anneal
from .base import AbstractBoundarySolver
from .baselines import Denoised, Latent, NormCorrected, Spherical
from .curves import AbstractCurve, IntegratedCurve, PiecewisePolynomial, Polyline
from .initial_value import shoot
from .multistart import MultiStart
from .nodal.energy_descent import EnergyDescent
from .nodal.georce import Georce
from .refine import Refine
from .shooting.solver import Shooting
from .solution import Geodesic
from .solve import geodesic
from .spectral.history import SolveHistory, solve_history
from .spectral.solver import SpectralNewton
from .starts import AbstractStart, Bend, GraphInit, StraightLine
from .transport import PoleLadder, TransportODE, jacobi_field, parallel_transport
from .verification import verify

__all__ = [
    "AbstractBoundarySolver",
    "AbstractCurve",
    "AbstractStart",
    "Anneal",
    "Bend",
    "Denoised",
    "EnergyDescent",
    "Geodesic",
    "Georce",
    "GraphInit",
    "IntegratedCurve",
    "Latent",
    "MultiStart",
    "NormCorrected",
    "PiecewisePolynomial",
    "PoleLadder",
    "Polyline",
    "Refine",
    "Shooting",
    "SolveHistory",
    "SpectralNewton",
    "Spherical",
    "StraightLine",
    "TransportODE",
    "geodesic",
    "jacobi_field",
    "parallel_transport",
    "shoot",
    "solve_history",
    "verify",
]
