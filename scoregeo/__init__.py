"""scoregeo: Riemannian geometry of score models in JAX.

Data becomes a score, a score becomes a metric, a metric becomes geodesics, and geodesics become distances and pictures.
The pieces that only some programs need are imported by name: `scoregeo.diffusion`, `scoregeo.datasets`,
`scoregeo.plotting`.
"""

from ._results import RESULTS
from .geodesics import (
    AbstractBoundarySolver,
    AbstractStart,
    Bend,
    EnergyDescent,
    Geodesic,
    Georce,
    GraphInit,
    MultiStart,
    PoleLadder,
    Refine,
    Shooting,
    SpectralNewton,
    StraightLine,
    TransportODE,
    geodesic,
    jacobi_field,
    parallel_transport,
    shoot,
    verify,
)
from .metrics import (
    AbstractInnerProduct,
    AbstractMetric,
    EuclideanMetric,
    MatrixMetric,
    SteinMetric,
    christoffels,
    models,
)
from .operations import dist, exp, log, pairwise_dist, squared_dist
from .scores import (
    AbstractScore,
    DensityScore,
    FunctionScore,
    GaussianMixtureScore,
    GaussianScore,
    KernelDensityScore,
    NetworkScore,
)

__version__ = "0.1.0"

__all__ = [
    "RESULTS",
    "AbstractBoundarySolver",
    "AbstractInnerProduct",
    "AbstractMetric",
    "AbstractScore",
    "AbstractStart",
    "Bend",
    "DensityScore",
    "EnergyDescent",
    "EuclideanMetric",
    "FunctionScore",
    "GaussianMixtureScore",
    "GaussianScore",
    "Geodesic",
    "Georce",
    "GraphInit",
    "KernelDensityScore",
    "MatrixMetric",
    "MultiStart",
    "NetworkScore",
    "PoleLadder",
    "Refine",
    "Shooting",
    "SpectralNewton",
    "SteinMetric",
    "StraightLine",
    "TransportODE",
    "christoffels",
    "dist",
    "exp",
    "geodesic",
    "jacobi_field",
    "log",
    "models",
    "pairwise_dist",
    "parallel_transport",
    "shoot",
    "squared_dist",
    "verify",
]
