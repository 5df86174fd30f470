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
    Geodesic,
    GraphInit,
    MultiStart,
    SpectralNewton,
    StraightLine,
    geodesic,
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
    "EuclideanMetric",
    "FunctionScore",
    "GaussianMixtureScore",
    "GaussianScore",
    "Geodesic",
    "GraphInit",
    "KernelDensityScore",
    "MatrixMetric",
    "MultiStart",
    "NetworkScore",
    "SpectralNewton",
    "SteinMetric",
    "StraightLine",
    "christoffels",
    "dist",
    "exp",
    "geodesic",
    "log",
    "models",
    "pairwise_dist",
    "shoot",
    "squared_dist",
    "verify",
]
