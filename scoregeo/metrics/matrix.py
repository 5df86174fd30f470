"""Metrics given as matrices: the Euclidean one, and any function x -> G(x)."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from .._function import TracedFunction, as_arguments
from .._types import Matrix, Point, Scalar, Vector
from .base import AbstractMetric
from .inner_products import DenseInnerProduct
from .low_rank import LowRankUpdate


class EuclideanMetric(AbstractMetric):
    """``G(x) = I``: straight lines, the baseline of every comparison.

    >>> import jax.numpy as jnp
    >>> from scoregeo import EuclideanMetric
    >>> float(EuclideanMetric().norm(jnp.zeros(2), jnp.array([3.0, 4.0])))
    5.0
    """

    def at(self, x: Point) -> LowRankUpdate:
        """The inner product at ``x``: the identity, plus nothing."""
        return LowRankUpdate(jnp.zeros((0, x.size), x.dtype), jnp.zeros(0, x.dtype))

    def acceleration(self, x: Point, v: Vector) -> Vector:
        """Zero."""
        return jnp.zeros_like(v)


class MatrixMetric(AbstractMetric):
    """Any metric, given as a function ``fn(x, *args) -> G(x)`` of shape ``(d, d)``, symmetric positive definite.

    ``*args`` are arrays or pytrees of arrays passed on to ``fn``; they are traced. ``domain``, a function of a point,
    is positive where the metric is defined, and continuous; default everywhere. For small dimensions. A matrix that is
    not symmetric at an end point is refused with a ``ValueError`` outside of ``jit``.

    >>> import jax.numpy as jnp
    >>> from scoregeo import MatrixMetric, dist
    >>> half_plane = MatrixMetric(lambda x: jnp.eye(2) / x[1] ** 2)
    >>> round(float(dist(half_plane, jnp.array([0.0, 1.0]), jnp.array([0.0, 2.0]))), 4)  # log 2
    0.6931
    """

    function: TracedFunction
    args: tuple
    boundary: TracedFunction | None

    def __init__(self, fn: Callable[..., Matrix], *args: Any, domain: Callable[[Point], Scalar] | None = None):
        self.function = TracedFunction(fn, "fn")
        self.args = as_arguments(args, "args")
        self.boundary = None if domain is None else TracedFunction(domain, "domain")

    def at(self, x: Point) -> DenseInnerProduct:
        """The inner product at ``x``."""
        array = jnp.asarray(self.function(x, *self.args))
        if array.shape != (x.size, x.size):
            raise ValueError(
                f"`fn` must return shape {(x.size, x.size)} for a point of shape {x.shape}, got {array.shape}"
            )
        return DenseInnerProduct(array.astype(x.dtype))

    def domain(self, x: Point) -> Scalar:
        """The function given as ``domain``."""
        return super().domain(x) if self.boundary is None else jnp.asarray(self.boundary(x), x.dtype)
