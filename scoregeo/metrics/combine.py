"""Sums and scalings of metrics, ``metric + metric`` and ``0.5 * metric``, which keep the structure of their parts."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .._checks import as_float, check_finite, is_concrete
from .._types import Point, Scalar, Vector
from .base import AbstractMetric
from .inner_products import AbstractInnerProduct
from .structure import add, lifted, scale


class SumMetric(AbstractMetric):
    """``G(x) = left(x) + right(x)``: what ``left + right`` of two metrics is.

    Its inner products are joined by `add`: two Stein metrics make the identity, twice, plus a matrix of rank two. The
    domain is where both metrics are defined.

    >>> import jax.numpy as jnp
    >>> from scoregeo import EuclideanMetric, SteinMetric
    >>> metric = SteinMetric(lambda x: -x) + 3.0 * EuclideanMetric()
    >>> metric.at(jnp.array([1.0, 0.0])).mv(jnp.array([1.0, 1.0])).tolist()
    [5.0, 4.0]
    """

    left: AbstractMetric
    right: AbstractMetric

    def __check_init__(self):
        for name in ("left", "right"):
            if not isinstance(getattr(self, name), AbstractMetric):
                raise TypeError(f"`{name}` must be a metric, got {type(getattr(self, name)).__name__}")

    def at(self, x: Point) -> AbstractInnerProduct:
        """The sum of the two inner products at ``x``."""
        return add(self.left.at(x), self.right.at(x))

    def domain(self, x: Point) -> Scalar:
        """The smaller of the two: positive inside both domains."""
        return jnp.minimum(self.left.domain(x), self.right.domain(x))

    def check(self, x: Point) -> None:
        """Both checks."""
        self.left.check(x)
        self.right.check(x)


class ScaledMetric(AbstractMetric):
    """``factor * metric(x)``: lengths are multiplied by the root of ``factor``, geodesics stay what they are.

    ``factor`` is a positive scalar, traced: a new value does not compile again. Raises ``ValueError`` if it is not
    positive or not finite; a traced one becomes NaN.

    >>> import jax.numpy as jnp
    >>> from scoregeo import EuclideanMetric, dist
    >>> round(float(dist(4.0 * EuclideanMetric(), jnp.zeros(2), jnp.array([3.0, 4.0]))), 4)
    10.0
    """

    factor: Float[Array, ""]
    metric: AbstractMetric

    def __init__(self, factor: ArrayLike, metric: AbstractMetric):
        if not isinstance(metric, AbstractMetric):
            raise TypeError(f"`metric` must be a metric, got {type(metric).__name__}")
        factor = as_float(factor, "factor").astype(jnp.result_type(float))
        if factor.ndim != 0:
            raise ValueError(f"`factor` must be a scalar, got shape {factor.shape}")
        check_finite(factor, "factor")
        if is_concrete(factor) and not float(factor) > 0:
            raise ValueError(f"`factor` must be positive, got {float(factor)}")
        # A traced value cannot be looked at now; one that is not positive must not pass for a metric later.
        self.factor = jnp.where(factor > 0, factor, jnp.nan)
        self.metric = metric

    def at(self, x: Point) -> AbstractInnerProduct:
        """The inner product of the metric at ``x``, scaled."""
        return scale(self.metric.at(x), self.factor.astype(x.dtype))

    def acceleration(self, x: Point, v: Vector) -> Vector:
        """That of the metric: a constant factor does not change the geodesic equation."""
        return jnp.where(jnp.isnan(self.factor), jnp.nan, self.metric.acceleration(x, v))

    def domain(self, x: Point) -> Scalar:
        """That of the metric."""
        return self.metric.domain(x)

    def check(self, x: Point) -> None:
        """That of the metric."""
        self.metric.check(x)


@add.register
def _(left: AbstractMetric, right: AbstractMetric) -> SumMetric:
    return SumMetric(left, right)


@scale.register
def _(thing: AbstractMetric, factor: Any) -> ScaledMetric:
    return ScaledMetric(factor, thing)


@scale.register
def _(thing: ScaledMetric, factor: Any) -> ScaledMetric:
    return ScaledMetric(ScaledMetric(factor, thing.metric).factor * thing.factor, thing.metric)


@lifted.register
def _(metric: SumMetric, x: Point) -> Float[Array, " m"]:
    """Side by side: a speed is the hypotenuse of two, and no curve is shorter than that of the lengths."""
    return jnp.concatenate([lifted(metric.left, x), lifted(metric.right, x)])


@lifted.register
def _(metric: ScaledMetric, x: Point) -> Float[Array, " m"]:
    return jnp.sqrt(metric.factor.astype(x.dtype)) * lifted(metric.metric, x)
