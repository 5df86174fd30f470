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
from jaxtyping import Array, Float, Num, PRNGKeyArray

from ..._types import Point, Scalar
from ...metrics import DenseInnerProduct, DiagonalInnerProduct
from ..supports import AbstractSupport, Positive, Real
from .model_spaces import AbstractHalfPlaneFamily


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


class Laplace(AbstractLocationScale):
    """Laplace distributions: ``theta = (location, scale)``, density ``exp(-|x - location| / scale) / (2 scale)``.

    The hyperbolic plane of curvature -1.

    >>> from scoregeo.fisher_rao import Laplace
    >>> family = Laplace()
    >>> round(float(family.dist(family.pack(0.0, 1.0), family.pack(0.0, 2.0))), 4)  # log 2
    0.6931
    """

    factor: ClassVar[float] = 1.0

    def log_prob(self, theta: Point, x: Num[Array, ""]) -> Scalar:
        """The log density at ``x``."""
        location, scale = theta
        return -jnp.abs(jnp.asarray(x, theta.dtype) - location) / scale - jnp.log(2 * scale)

    def sample(self, key: PRNGKeyArray, theta: Point, n: int) -> Float[Array, " n"]:
        """``n`` samples."""
        return theta[0] + theta[1] * jax.random.laplace(key, (n,), theta.dtype)


class Cauchy(AbstractLocationScale):
    """Cauchy distributions: ``theta = (location, scale)``; half of the probability is within ``scale`` of ``location``.

    The hyperbolic plane of curvature -2.
    """

    factor: ClassVar[float] = 0.5

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


class Weibull(AbstractHalfPlaneFamily):
    """Weibull distributions: ``theta = (shape, scale)``; ``P(X > x) = exp(-(x / scale)^shape)`` for x >= 0.

    The hyperbolic plane of curvature -6 / pi^2, in other coordinates; see (1).
    """

    factor: ClassVar[float] = _WEIBULL
    sample_shape: ClassVar[tuple[int, ...]] = ()

    @property
    def parameters(self) -> dict[str, AbstractSupport]:
        """``shape`` and ``scale``, positive."""
        return {"shape": Positive(), "scale": Positive()}

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

    def from_half_planes(self, points: Float[Array, "1 2"]) -> Point:
        """The inverse of (1)."""
        x, y = points[0]
        return jnp.stack([1 / y, jnp.exp(math.sqrt(_WEIBULL) * x - _SHIFT * y)])
