"""scoregeo: Riemannian geometry of score models in JAX.

Data becomes a score, a score becomes a metric, a metric becomes geodesics, and geodesics become distances and pictures.
Subpackages are attributes: after ``import scoregeo as sg``, ``sg.fisher_rao.Normal()`` and ``sg.plotting.geodesics``
need no import of their own. They and the names of this package are loaded when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

# What type checkers and editors read. At run time `__getattr__` below finds the same names, when they are first used.
if TYPE_CHECKING:
    from . import comparison as comparison
    from . import curvature as curvature
    from . import datasets as datasets
    from . import diffusion as diffusion
    from . import explore as explore
    from . import fisher_rao as fisher_rao
    from . import geodesics as geodesics
    from . import manifold as manifold
    from . import metrics as metrics
    from . import operations as operations
    from . import plotting as plotting
    from . import scores as scores
    from . import statistics as statistics
    from ._results import RESULTS
    from .curvature import ricci_curvature, scalar_curvature, sectional_curvature, volume_density
    from .geodesics import (
        AbstractBoundarySolver,
        AbstractStart,
        Anneal,
        Bend,
        Denoised,
        EnergyDescent,
        Geodesic,
        Georce,
        GraphInit,
        Latent,
        MultiStart,
        NormCorrected,
        PoleLadder,
        Refine,
        Shooting,
        SpectralNewton,
        Spherical,
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
        ConformalMetric,
        EuclideanMetric,
        GraphMetric,
        InverseSteinMetric,
        LandMetric,
        MatrixMetric,
        PullbackMetric,
        RbfMetric,
        ScoreJacobianMetric,
        StackedSteinMetric,
        SteinMetric,
        christoffels,
        models,
        recommend_strength,
    )
    from .operations import dist, exp, iter_pairwise_dist, log, pairwise_dist, squared_dist
    from .scores import (
        AbstractScore,
        DensityScore,
        FunctionScore,
        GaussianMixtureScore,
        GaussianScore,
        KernelDensityScore,
        NetworkScore,
        PredictionScore,
        VelocityScore,
    )

__version__ = "0.1.0"

__all__ = [
    "RESULTS",
    "AbstractBoundarySolver",
    "AbstractInnerProduct",
    "AbstractMetric",
    "AbstractScore",
    "AbstractStart",
    "Anneal",
    "Bend",
    "ConformalMetric",
    "Denoised",
    "DensityScore",
    "EnergyDescent",
    "EuclideanMetric",
    "FunctionScore",
    "GaussianMixtureScore",
    "GaussianScore",
    "Geodesic",
    "Georce",
    "GraphInit",
    "GraphMetric",
    "InverseSteinMetric",
    "KernelDensityScore",
    "LandMetric",
    "Latent",
    "MatrixMetric",
    "MultiStart",
    "NetworkScore",
    "NormCorrected",
    "PoleLadder",
    "PredictionScore",
    "PullbackMetric",
    "RbfMetric",
    "Refine",
    "ScoreJacobianMetric",
    "Shooting",
    "SpectralNewton",
    "Spherical",
    "StackedSteinMetric",
    "SteinMetric",
    "StraightLine",
    "TransportODE",
    "VelocityScore",
    "christoffels",
    "dist",
    "exp",
    "geodesic",
    "iter_pairwise_dist",
    "jacobi_field",
    "log",
    "models",
    "pairwise_dist",
    "parallel_transport",
    "recommend_strength",
    "ricci_curvature",
    "scalar_curvature",
    "sectional_curvature",
    "shoot",
    "squared_dist",
    "verify",
    "volume_density",
]

# The parts of the package that are attributes of it.
_SUBPACKAGES = (
    "comparison",
    "curvature",
    "datasets",
    "diffusion",
    "explore",
    "fisher_rao",
    "geodesics",
    "manifold",
    "metrics",
    "operations",
    "plotting",
    "scores",
    "statistics",
)
# Where the names in `__all__` come from, in the order in which they are looked for. Imports point left, so the search
# for a name loads nothing that its own module would not load.
_SOURCES = ("_results", "scores", "metrics", "geodesics", "operations", "curvature")

if not TYPE_CHECKING:  # a type checker that sees this function accepts any name

    def __getattr__(name: str) -> Any:
        if name in _SUBPACKAGES:
            return importlib.import_module(f".{name}", __name__)
        sources = _SOURCES if name in __all__ else ()
        for module in (importlib.import_module(f".{source}", __name__) for source in sources):
            if hasattr(module, name):
                return globals().setdefault(name, getattr(module, name))
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_SUBPACKAGES})
