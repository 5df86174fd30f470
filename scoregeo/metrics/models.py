"""Model spaces in one chart, with closed forms: tests of the machinery, and tutorials."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._types import Point, Scalar
from .base import AbstractMetric
from .inner_products import DiagonalInnerProduct

Coordinates = Point | Float[np.ndarray, " d"]


class Sphere(AbstractMetric):
    """The unit sphere in stereographic coordinates: ``G(x) = 4 / (1 + |x|^2)^2 I``, curvature 1.

    The chart covers all but one point; shortest paths may leave it through infinity, so `dist` of the machinery agrees
    with the closed form for points well inside the unit ball (the lower hemisphere).

    >>> import jax.numpy as jnp
    >>> from scoregeo import models
    >>> sphere = models.Sphere()
    >>> round(float(sphere.closed_dist(jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0]))), 4)  # pi / 2
    1.5708
    """

    def at(self, x: Point) -> DiagonalInnerProduct:
        """The inner product at ``x``."""
        return DiagonalInnerProduct(jnp.broadcast_to(4 / (1 + x @ x) ** 2, x.shape))

    def embed(self, x: Coordinates) -> Float[Array, " d+1"]:
        """The point of the unit sphere in ``R^(d+1)`` with coordinates ``x``."""
        r2 = x @ x
        return jnp.append(2 * x, r2 - 1) / (1 + r2)

    def closed_dist(self, x: Coordinates, y: Coordinates) -> Scalar:
        """The great-circle distance, ``2 arcsin(chord / 2)``."""
        return 2 * jnp.arcsin(jnp.linalg.norm(self.embed(x) - self.embed(y)) / 2)


class HyperbolicHalfSpace(AbstractMetric):
    """Hyperbolic space as the half-space ``x[-1] > 0``: ``G(x) = I / x[-1]^2``, curvature -1.

    >>> import jax.numpy as jnp
    >>> from scoregeo import models
    >>> round(float(models.HyperbolicHalfSpace().closed_dist(jnp.array([0.0, 1.0]), jnp.array([0.0, 2.0]))), 4)  # log 2
    0.6931
    """

    def at(self, x: Point) -> DiagonalInnerProduct:
        """The inner product at ``x``."""
        return DiagonalInnerProduct(jnp.broadcast_to(1 / x[-1] ** 2, x.shape))

    def domain(self, x: Point) -> Scalar:
        """The height above the boundary, ``x[-1]``."""
        return x[-1]

    def closed_dist(self, x: Coordinates, y: Coordinates) -> Scalar:
        """The hyperbolic distance, ``2 arcsinh(|x - y| / (2 sqrt(x[-1] y[-1])))``."""
        return 2 * jnp.arcsinh(jnp.linalg.norm(x - y) / (2 * jnp.sqrt(x[-1] * y[-1])))
