"""Exponential distributions. Fisher information ``1 / rate^2``: log(rate) is a length, and the line is complete."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num, PRNGKeyArray

from ..._results import RESULTS, first_failure
from ..._types import Point, Scalar, Vector
from ...metrics import DiagonalInnerProduct
from ..base import AbstractExponentialFamily
from ..fitting import average
from ..supports import AbstractSupport, Positive
from .model_spaces import AbstractLineFamily, log_ratio


class Exponential(AbstractLineFamily, AbstractExponentialFamily):
    """Exponential distributions: ``theta = (rate,)``, density ``rate exp(-rate x)`` on x >= 0.

    Distance ``|log(b / a)|``. Natural parameter ``-rate`` for the statistic ``x``.

    >>> from scoregeo.fisher_rao import Exponential
    >>> family = Exponential()
    >>> round(float(family.dist(family.pack(rate=1.0), family.pack(rate=2.0))), 4)
    0.6931
    """

    factor: ClassVar[float] = 1.0
    ends: ClassVar[tuple[float, float]] = (-jnp.inf, jnp.inf)
    sample_shape: ClassVar[tuple[int, ...]] = ()

    @property
    def parameters(self) -> dict[str, AbstractSupport]:
        """``rate``, positive."""
        return {"rate": Positive()}

    def log_prob(self, theta: Point, x: Num[Array, ""]) -> Scalar:
        """The log density at ``x``."""
        (rate,) = theta
        x = jnp.asarray(x, theta.dtype)
        return jnp.where(x >= 0, jnp.log(rate) - rate * x, -jnp.inf)

    sample_bound = "finite and not negative"
    degenerate: ClassVar[str] = "all samples are zero, and the rate would be infinite"

    def in_support(self, x: Num[Array, ""]) -> Bool[Array, ""]:
        """Whether ``x`` is not negative."""
        return (x >= 0) & jnp.isfinite(x)

    def maximum_likelihood(self, samples: Float[Array, " n"], weights: Float[Array, " n"]) -> tuple[Point, RESULTS]:
        """The rate is one over the mean."""
        mean = average(samples, weights)
        positive = mean > 0
        return (1 / jnp.where(positive, mean, 1))[None], first_failure([(~positive, RESULTS.no_maximum)])

    def sample(self, key: PRNGKeyArray, theta: Point, n: int) -> Float[Array, " n"]:
        """``n`` samples."""
        return jax.random.exponential(key, (n,), theta.dtype) / theta[0]

    def inner_product(self, theta: Point) -> DiagonalInnerProduct:
        """``1 / rate^2``."""
        return DiagonalInnerProduct(1 / theta**2)

    def to_line(self, theta: Point) -> Scalar:
        """``log(rate)``."""
        return jnp.log(theta[0])

    def from_line(self, u: Scalar) -> Point:
        """``exp(u)``."""
        return jnp.exp(u)[None]

    def gap(self, a: Point, b: Point) -> Scalar:
        """``log(b / a)``."""
        return log_ratio(a[0], b[0])

    def sufficient_statistic(self, x: Num[Array, ""]) -> Vector:
        """``(x,)``."""
        return jnp.reshape(jnp.asarray(x), 1)

    def log_partition(self, eta: Vector) -> Scalar:
        """``-log(-eta)``."""
        return -jnp.log(-eta[0])

    def natural(self, theta: Point) -> Vector:
        """``(-rate,)``."""
        return -theta

    def from_natural(self, eta: Vector) -> Point:
        """``(-eta,)``."""
        return -eta

    def expectation(self, theta: Point) -> Vector:
        """``(1 / rate,)``."""
        return 1 / theta
