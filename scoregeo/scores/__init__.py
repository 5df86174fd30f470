"""Where the score s(x) = grad log p(x) comes from."""

from .base import AbstractScore
from .density import DensityScore, FunctionScore
from .gaussian import GaussianScore
from .kernel import KernelDensityScore
from .line_integral import log_prob_along
from .mixture import GaussianMixtureScore
from .network import NetworkScore

__all__ = [
    "AbstractScore",
    "DensityScore",
    "FunctionScore",
    "GaussianMixtureScore",
    "GaussianScore",
    "KernelDensityScore",
    "NetworkScore",
    "log_prob_along",
]
