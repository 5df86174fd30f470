"""How a score becomes a metric tensor field G(x)."""

from . import models
from .base import AbstractMetric, metric_at_noise_level
from .calibration import Contrast, contrast, recommend_strength, strength_rule
from .combine import ScaledMetric, SumMetric
from .conformal import (
    AbstractLogFactor,
    ConformalInnerProduct,
    ConformalMetric,
    EnergyFactor,
    PowerFactor,
    ScoreNormFactor,
)
from .data import AbstractDataMetric, LandMetric, RbfMetric
from .graph import AbstractGraphMetric, GraphInnerProduct, GraphMetric, ScoreJacobianMetric
from .inner_products import AbstractInnerProduct, DenseInnerProduct, DiagonalInnerProduct, IdentityPlusRankOne
from .inverse_stein import InverseInnerProduct, InverseSteinMetric
from .lagrangian import christoffels, lagrangian_acceleration
from .low_rank import LowRankUpdate
from .matrix import EuclideanMetric, MatrixMetric
from .pullback import PullbackMetric
from .stein import StackedSteinMetric, SteinMetric
from .structure import (
    Relaxed,
    Scaled,
    Sum,
    add,
    as_dense,
    as_diagonal,
    as_low_rank_update,
    at_least_identity,
    lifted,
    lower_bound,
    relaxed,
    scale,
)

__all__ = [
    "AbstractDataMetric",
    "AbstractGraphMetric",
    "AbstractInnerProduct",
    "AbstractLogFactor",
    "AbstractMetric",
    "ConformalInnerProduct",
    "ConformalMetric",
    "Contrast",
    "DenseInnerProduct",
    "DiagonalInnerProduct",
    "EnergyFactor",
    "EuclideanMetric",
    "GraphInnerProduct",
    "GraphMetric",
    "IdentityPlusRankOne",
    "InverseInnerProduct",
    "InverseSteinMetric",
    "LandMetric",
    "LowRankUpdate",
    "MatrixMetric",
    "PowerFactor",
    "PullbackMetric",
    "RbfMetric",
    "Relaxed",
    "Scaled",
    "ScaledMetric",
    "ScoreJacobianMetric",
    "ScoreNormFactor",
    "StackedSteinMetric",
    "SteinMetric",
    "Sum",
    "SumMetric",
    "add",
    "as_dense",
    "as_diagonal",
    "as_low_rank_update",
    "at_least_identity",
    "christoffels",
    "contrast",
    "lagrangian_acceleration",
    "lifted",
    "lower_bound",
    "metric_at_noise_level",
    "models",
    "recommend_strength",
    "relaxed",
    "scale",
    "strength_rule",
]
