"""How a score becomes a metric tensor field G(x)."""

from . import models
from .base import AbstractMetric
from .inner_products import AbstractInnerProduct, DenseInnerProduct, DiagonalInnerProduct, IdentityPlusRankOne
from .lagrangian import christoffels, lagrangian_acceleration
from .matrix import EuclideanMetric, MatrixMetric
from .stein import SteinMetric

__all__ = [
    "AbstractInnerProduct",
    "AbstractMetric",
    "DenseInnerProduct",
    "DiagonalInnerProduct",
    "EuclideanMetric",
    "IdentityPlusRankOne",
    "MatrixMetric",
    "SteinMetric",
    "christoffels",
    "lagrangian_acceleration",
    "models",
]
