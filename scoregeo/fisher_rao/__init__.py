"""Fisher-Rao geometry: points are the parameters of distributions, the metric is Fisher information."""

import importlib
from typing import Any

from .._checks import warn
from .base import AbstractExponentialFamily, AbstractFamily
from .bridge import location_fisher, location_fisher_trace, marginal_dist, marginal_length
from .exact import AbstractExactFamily, ClosedForm
from .families.beta import Beta, Dirichlet
from .families.categories import Categorical, Multinomial
from .families.counts import Geometric, Poisson
from .families.expectations import AbstractExpectation, ExactSum, MonteCarlo, Quadrature
from .families.exponential import Exponential
from .families.gamma import Gamma
from .families.location_scale import Cauchy, Laplace, Weibull
from .families.normal import CenteredNormal, DiagonalNormal, Normal
from .families.parametric import ParametricFamily, empirical_fisher
from .families.trials import Bernoulli, Binomial
from .families.von_mises import VonMises
from .metric import FisherRaoMetric
from .multivariate_normal.family import FibreSolver, MultivariateNormal
from .network import (
    AbstractLikelihood,
    BernoulliLogits,
    CategoricalLogits,
    NaturalGradient,
    NetworkFisher,
    NormalMeans,
    PoissonLogRates,
)
from .normal_distances import calvo_oller, hellinger, jeffreys, kullback_leibler, sqrt_jeffreys, wasserstein
from .parameter_space import AbstractParameterSpace
from .spacetime.descent import (
    FlatPriorStart,
    SpacetimeDescent,
    diffusion_edit_distance,
    jeffreys_divergences,
    spacetime_energy,
)
from .spacetime.metric import SpacetimeMetric
from .supports import AbstractSupport, Positive, PositiveDefinite, Real, Simplex, UnitInterval

__all__ = [
    "AbstractExactFamily",
    "AbstractExpectation",
    "AbstractExponentialFamily",
    "AbstractFamily",
    "AbstractLikelihood",
    "AbstractParameterSpace",
    "AbstractSupport",
    "Bernoulli",
    "BernoulliLogits",
    "Beta",
    "Binomial",
    "Categorical",
    "CategoricalLogits",
    "Cauchy",
    "CenteredNormal",
    "ClosedForm",
    "DiagonalNormal",
    "Dirichlet",
    "ExactSum",
    "Exponential",
    "FibreSolver",
    "FisherRaoMetric",
    "FlatPriorStart",
    "Gamma",
    "Geometric",
    "Laplace",
    "MonteCarlo",
    "Multinomial",
    "MultivariateNormal",
    "NaturalGradient",
    "NetworkFisher",
    "Normal",
    "NormalMeans",
    "ParametricFamily",
    "Poisson",
    "PoissonLogRates",
    "Positive",
    "PositiveDefinite",
    "Quadrature",
    "Real",
    "Simplex",
    "SpacetimeDescent",
    "SpacetimeMetric",
    "UnitInterval",
    "VonMises",
    "Weibull",
    "calvo_oller",
    "diffusion_edit_distance",
    "empirical_fisher",
    "hellinger",
    "jeffreys",
    "jeffreys_divergences",
    "kullback_leibler",
    "location_fisher",
    "location_fisher_trace",
    "marginal_dist",
    "marginal_length",
    "spacetime_energy",
    "sqrt_jeffreys",
    "wasserstein",
]

# What stood here in 0.1.0 and has nothing of Fisher-Rao about it.
_IN_COMPARISON = {"Comparison", "Correlations", "Entry", "compare"}


def __getattr__(name: str) -> Any:
    if name not in _IN_COMPARISON:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    message = f"{name} has moved: import it from scoregeo.comparison instead of scoregeo.fisher_rao"
    warn(message, DeprecationWarning)
    return getattr(importlib.import_module("scoregeo.comparison"), name)
