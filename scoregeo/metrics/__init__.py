"""How a score becomes a metric tensor field G(x)."""

from . import models
from .base import AbstractMetric
from .combine import ScaledMetric, SumMetric
from .inner_products import AbstractInnerProduct, DenseInnerProduct, DiagonalInnerProduct, IdentityPlusRankOne
from .lagrangian import christoffels, lagrangian_acceleration
from .low_rank import LowRankUpdate
from .matrix import EuclideanMetric, MatrixMetric
from .stein import SteinMetric
from .structure import Scaled, Sum, add, as_dense, as_diagonal, as_low_rank_update, at_least_identity, scale

__all__ = [
    "AbstractInnerProduct",
    "AbstractMetric",
    "DenseInnerProduct",
    "DiagonalInnerProduct",
    "EuclideanMetric",
    "IdentityPlusRankOne",
    "LowRankUpdate",
    "MatrixMetric",
    "Scaled",
    "ScaledMetric",
    "SteinMetric",
    "Sum",
    "SumMetric",
    "add",
    "as_dense",
    "as_diagonal",
    "as_low_rank_update",
    "at_least_identity",
    "christoffels",
    "lagrangian_acceleration",
    "models",
    "scale",
]
