"""Where the score s(x) = grad log p(x) comes from."""

import importlib
from typing import TYPE_CHECKING, Any

from .base import AbstractScore, at_noise_level
from .density import DensityScore, FunctionScore
from .gaussian import GaussianScore
from .kernel import KernelDensityScore
from .line_integral import LineIntegralScore, log_prob_along, with_log_prob
from .mixture import GaussianMixtureScore
from .prediction import PredictionScore, VelocityScore

if TYPE_CHECKING:
    from .network import NetworkScore

__all__ = [
    "AbstractScore",
    "DensityScore",
    "FunctionScore",
    "GaussianMixtureScore",
    "GaussianScore",
    "KernelDensityScore",
    "LineIntegralScore",
    "NetworkScore",
    "PredictionScore",
    "VelocityScore",
    "at_noise_level",
    "log_prob_along",
    "with_log_prob",
]

if not TYPE_CHECKING:  # a type checker that sees this function accepts any name

    def __getattr__(name: str) -> Any:
        # flax takes longer to load than the rest of scoregeo, and only networks need it.
        if name == "NetworkScore":
            return importlib.import_module(".network", __name__).NetworkScore
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
