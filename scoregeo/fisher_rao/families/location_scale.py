"""Families that are the hyperbolic half-plane as `Normal` is: Laplace, Cauchy, Weibull.

Every location-scale family of densities ``f((x - m) / s) / s`` has ``ds^2 = (a dm^2 + 2 b dm ds + c ds^2) / s^2`` with
constants a, b, c of f. For symmetric f, b = 0. With the square completed,

    ds^2 = (c - b^2 / a) (dX^2 + dY^2) / Y^2,   Y = s,   X = (m + (b / a) s) / sqrt((c - b^2 / a) / a)    (1)

Laplace has a = c = 1, Cauchy a = c = 1/2. The logarithm of a Weibull variable with shape k and scale l has location
m = log(l) and scale s = 1 / k, and a = 1, b = 1 - g, c = pi^2 / 6 + (1 - g)^2, with Euler's constant g.
"""

import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import xlogy
from jaxtyping import Array, Bool, Float, Num, PRNGKeyArray

from ..._cholesky import solve_positive
from ..._results import RESULTS, first_failure
from ..._types import Point, Scalar, Vector
from ...metrics import DenseInnerProduct, DiagonalInnerProduct
from ..fitting import (
    NOT_LEVEL,
    AbstractObjective,
    Model,
    all_equal,
    average,
    average_and_deviation,
    increasing_root,
    largest_atom,
    minimise,
    weighted_median,
)
from ..supports import AbstractSupport, Positive, Real
from .model_spaces import AbstractHalfPlaneFamily, log_ratio


class AbstractLocationScale(AbstractHalfPlaneFamily):
    """A symmetric location-scale family with a = c in (1): ``theta = (location, scale)``."""

    sample_shape: ClassVar[tuple[int, ...]] = ()

    @property
    def parameters(self) -> dict[str, AbstractSupport]:
        """``location``, real; ``scale``, positive."""
        return {"location": Real(), "scale": Positive()}

    def inner_product(self, theta: Point) -> DiagonalInnerProduct:
        """``c / scale^2`` for both."""
        return DiagonalInnerProduct(jnp.broadcast_to(self.factor / theta[1] ** 2, (2,)))

    def to_half_planes(self, theta: Point) -> Float[Array, "1 2"]:
        """``theta`` itself."""
        return theta[None]

    def from_half_planes(self, points: Float[Array, "1 2"]) -> Point:
        """The point itself."""
        return points[0]

    def gap(self, a: Point, b: Point) -> Float[Array, "1 2"]:
        """``b - a``."""
        return (b - a)[None]


class Laplace(AbstractLocationScale):
    """Laplace distributions: ``theta = (location, scale)``, density ``exp(-|x - location| / scale) / (2 scale)``.

    The hyperbolic plane of curvature -1.

    >>> from scoregeo.fisher_rao import Laplace
    >>> family = Laplace()
    >>> round(float(family.dist(family.pack(0.0, 1.0), family.pack(0.0, 2.0))), 4)  # log 2
    0.6931
    """

    factor: ClassVar[float] = 1.0
    degenerate: ClassVar[str] = "all samples are equal, and the scale would be zero"

    def maximum_likelihood(self, samples: Float[Array, " n"], weights: Float[Array, " n"]) -> tuple[Point, RESULTS]:
        """The location is the median, of several the middle one; the scale the mean deviation from it."""
        location = weighted_median(samples, weights)
        scale = average(jnp.abs(samples - location), weights)
        equal = all_equal(samples, weights) | ~(scale > 0)
        return jnp.stack([location, scale]), first_failure([(equal, RESULTS.no_maximum)])

    def log_prob(self, theta: Point, x: Num[Array, ""]) -> Scalar:
        """The log density at ``x``."""
        location, scale = theta
        return -jnp.abs(jnp.asarray(x, theta.dtype) - location) / scale - jnp.log(2 * scale)

    def sample(self, key: PRNGKeyArray, theta: Point, n: int) -> Float[Array, " n"]:
        """``n`` samples."""
        return theta[0] + theta[1] * jax.random.laplace(key, (n,), theta.dtype)


class _CauchyLikelihood(AbstractObjective):
    """Minus the mean log likelihood of Cauchy distributions; ``args`` are samples and weights.

    It is a mean of Busemann functions of the hyperbolic plane, one for each sample: with z = tan(t / 2) the sample in
    units of the point, and the coordinates (dm / s, ds / s), its gradient is the mean of unit vectors
    u = (-sin t, cos t), and its second derivative along geodesics the identity minus the mean of u u^T, never negative.
    """

    def model(self, args: tuple[Array, Array], u: Point) -> Model:
        samples, weights = args
        location, scale = u
        weights = weights / jnp.sum(weights)
        z = (samples - location) / scale
        unit = jnp.maximum(jnp.abs(z), 1)
        one, z = 1 / unit, z / unit
        squares = one**2 + z**2
        values = jnp.log(scale) + jnp.log(squares) + 2 * jnp.log(unit)
        units = jnp.stack([-2 * one * z, (one - z) * (one + z)], 1) / squares[:, None]
        rounding = 4 * jnp.finfo(u.dtype).eps * (weights @ jnp.abs(values) + jnp.abs(jnp.log(scale)))
        hessian = jnp.eye(2, dtype=u.dtype) - (weights[:, None] * units).T @ units
        return Model(weights @ values, rounding, weights @ units / scale, hessian)

    def solve(self, u: Point, curvature: Array, damping: Scalar, covector: Vector) -> Vector:
        return u[1] * solve_positive(curvature + damping * jnp.eye(2, dtype=u.dtype), u[1] * covector)

    def move(self, u: Point, v: Vector) -> Point:
        return Cauchy().closed_exp(u, v)


class Cauchy(AbstractLocationScale):
    """Cauchy distributions: ``theta = (location, scale)``; half of the probability is within ``scale`` of ``location``.

    The hyperbolic plane of curvature -2.
    """

    factor: ClassVar[float] = 0.5
    degenerate: ClassVar[str] = "half of the samples or more are equal, and the scale would be zero"

    def maximum_likelihood(self, samples: Float[Array, " n"], weights: Float[Array, " n"]) -> tuple[Point, RESULTS]:
        """By Newton's method in the hyperbolic plane, where minus the log likelihood is convex, from the medians of
        samples and of their deviations. There is one maximum unless half of the weight is on one value (Copas 1975)."""
        atom, rounding = largest_atom(*jax.lax.stop_gradient((samples, weights)))
        spread = atom < 0.5 - rounding
        samples = jnp.where(spread, samples, jnp.arange(len(samples)))
        location = weighted_median(samples, weights)
        scale = weighted_median(jnp.abs(samples - location), weights)
        start = jnp.stack([location, jnp.where(scale > 0, scale, 1)])
        theta, result = minimise(_CauchyLikelihood(), jax.lax.stop_gradient(start), (samples, weights))
        return theta, first_failure([(~spread, RESULTS.no_maximum), (True, result)])

    def log_prob(self, theta: Point, x: Num[Array, ""]) -> Scalar:
        """The log density at ``x``."""
        location, scale = theta
        z = jnp.asarray(x, theta.dtype) - location
        # scale / (z^2 + scale^2), whose squares may overflow, in units in which the larger one is 1.
        unit = jax.lax.stop_gradient(jnp.maximum(jnp.abs(z), scale))
        squares = (z / unit) ** 2 + (scale / unit) ** 2
        return jnp.log(scale) - 2 * jnp.log(unit) - jnp.log(squares) - math.log(math.pi)

    def sample(self, key: PRNGKeyArray, theta: Point, n: int) -> Float[Array, " n"]:
        """``n`` samples."""
        return theta[0] + theta[1] * jax.random.cauchy(key, (n,), theta.dtype)


_SHIFT = 1 - float(np.euler_gamma)
_WEIBULL = math.pi**2 / 6


def _weibull_level(args: tuple[Array, Array], log_shape: Scalar) -> Scalar:
    """Zero at the most likely shape k: the logarithm of k (E[y] - mean(y)), with y the logarithms of the samples, given
    about their mean, and E the mean by the weights times exp(k y)."""
    y, weights = args
    power = _tilted(y, weights, jnp.exp(log_shape))[0]
    return log_shape + jnp.log(jnp.sum(power * y) / jnp.sum(power))


def _tilted(y: Array, weights: Array, shape: Scalar) -> tuple[Array, Scalar]:
    """``weights exp(shape y)``, divided by the exponential of a number that is the other result."""
    top = jax.lax.stop_gradient(jnp.max(jnp.where(weights > 0, shape * y, -jnp.inf)))
    return weights * jnp.exp(jnp.minimum(shape * y - top, 80)), top


class Weibull(AbstractHalfPlaneFamily):
    """Weibull distributions: ``theta = (shape, scale)``; ``P(X > x) = exp(-(x / scale)^shape)`` for x >= 0.

    The hyperbolic plane of curvature -6 / pi^2, in other coordinates; see (1).
    """

    factor: ClassVar[float] = _WEIBULL
    sample_bound = "finite and positive"
    degenerate: ClassVar[str] = "all samples are equal, and the shape would be infinite"
    sample_shape: ClassVar[tuple[int, ...]] = ()

    @property
    def parameters(self) -> dict[str, AbstractSupport]:
        """``shape`` and ``scale``, positive."""
        return {"shape": Positive(), "scale": Positive()}

    def in_support(self, x: Num[Array, ""]) -> Bool[Array, ""]:
        """Whether ``x`` is positive: at zero, shapes below one have infinite densities."""
        return (x > 0) & jnp.isfinite(x)

    def maximum_likelihood(self, samples: Float[Array, " n"], weights: Float[Array, " n"]) -> tuple[Point, RESULTS]:
        """The shape by Newton's method for one number, from the deviation of the logarithms; the scale from it."""
        unit = jax.lax.stop_gradient(average(samples, weights))
        change = (samples - unit) / unit
        near = jnp.abs(change) < 0.5
        far = jnp.log(jnp.where(near, 1, samples)) - jnp.log(unit)
        y = jnp.where(near, jnp.log1p(jnp.where(near, change, 0)), far)
        center, deviation = average_and_deviation(y, weights)
        varies = ~all_equal(samples, weights) & (deviation > 0)
        y = jnp.where(varies, y - center, jnp.arange(len(y)))
        start = math.log(math.sqrt(_WEIBULL)) - jnp.log(jnp.where(varies, deviation, 1))
        log_shape, found = increasing_root(_weibull_level, jax.lax.stop_gradient(start), (y, weights))
        shape = jnp.exp(log_shape)
        power, top = _tilted(y, weights, shape)
        mean = jnp.log(jnp.sum(power) / jnp.sum(weights)) + top
        theta = jnp.stack([shape, unit * jnp.exp(center + mean / shape)])
        return theta, first_failure([(~varies, RESULTS.no_maximum), (~found, NOT_LEVEL)])

    def log_prob(self, theta: Point, x: Num[Array, ""]) -> Scalar:
        """The log density at ``x``."""
        shape, scale = theta
        x = jnp.asarray(x, theta.dtype)
        x, inside = jnp.where(x >= 0, x, 1), x >= 0
        # The logarithms of x and scale are apart, because that of x / scale has no derivative in the scale at x = 0.
        power = xlogy(shape - 1, x) - (shape - 1) * jnp.log(scale)
        return jnp.where(inside, jnp.log(shape / scale) + power - (x / scale) ** shape, -jnp.inf)

    def sample(self, key: PRNGKeyArray, theta: Point, n: int) -> Float[Array, " n"]:
        """``n`` samples."""
        return theta[1] * jax.random.exponential(key, (n,), theta.dtype) ** (1 / theta[0])

    def inner_product(self, theta: Point) -> DenseInnerProduct:
        """``(pi^2 / 6 + (1 - g)^2) / k^2``, ``-(1 - g) / l`` beside the diagonal, ``k^2 / l^2``."""
        shape, scale = theta
        cross = -_SHIFT / scale
        rows = [(_WEIBULL + _SHIFT**2) / shape**2, cross], [cross, (shape / scale) ** 2]
        return DenseInnerProduct(jnp.stack([jnp.stack(row) for row in rows]))

    def to_half_planes(self, theta: Point) -> Float[Array, "1 2"]:
        """(1) with m = log(scale) and s = 1 / shape."""
        shape, scale = theta
        return jnp.stack([(jnp.log(scale) + _SHIFT / shape) / math.sqrt(_WEIBULL), 1 / shape])[None]

    def gap(self, a: Point, b: Point) -> Float[Array, "1 2"]:
        """The differences in (1), from those of scales and shapes."""
        rise = (a[0] - b[0]) / a[0] / b[0]
        return jnp.stack([(log_ratio(a[1], b[1]) + _SHIFT * rise) / math.sqrt(_WEIBULL), rise])[None]

    def from_half_planes(self, points: Float[Array, "1 2"]) -> Point:
        """The inverse of (1)."""
        x, y = points[0]
        return jnp.stack([1 / y, jnp.exp(math.sqrt(_WEIBULL) * x - _SHIFT * y)])
