"""Families of counts without an upper bound: Poisson and geometric distributions.

Samples are integers; the log probability of values that are not is minus infinity. The line is ``2 sqrt(rate)`` for
Poisson, ``2 artanh sqrt(1 - p)`` for geometric distributions. The end p = 1 of the latter is a distribution that is
certain of its outcome: distances to it are finite, but the Fisher matrix is infinite there, and `log` and `exp` are
NaN.
"""

import math
from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln, xlog1py, xlogy
from jaxtyping import Array, Bool, Float, Int, Num, PRNGKeyArray

from ..._numerics import safe_sqrt
from ..._results import RESULTS, first_failure
from ..._types import Point, Scalar, Vector
from ...metrics import DiagonalInnerProduct
from ..base import AbstractExponentialFamily
from ..fitting import average
from ..supports import AbstractSupport, Positive, UnitInterval
from .model_spaces import AbstractLineFamily, log_ratio


def count_times(log: Callable[[Array, Array], Array], count: Array, x: Array, neutral: float) -> Array:
    """``log(count, x)``, for `xlogy` or `xlog1py`; where the count is zero it does not depend on ``x``, whose
    derivative is zero there, also where the logarithm is infinite. ``neutral`` is where that is zero."""
    return log(count, jnp.where(count == 0, neutral, x))


def is_count(x: Array, most: Array | float = math.inf) -> Array:
    return (x >= 0) & (x <= most) & (x == jnp.floor(x))


class Poisson(AbstractLineFamily, AbstractExponentialFamily):
    """Poisson distributions: ``theta = (rate,)``, the mean count. Distance ``2 |sqrt(a) - sqrt(b)|``.

    Natural parameter ``log(rate)`` for the statistic ``x``.

    >>> from scoregeo.fisher_rao import Poisson
    >>> family = Poisson()
    >>> float(family.dist(family.pack(rate=1.0), family.pack(rate=4.0)))
    2.0
    """

    factor: ClassVar[float] = 1.0
    ends: ClassVar[tuple[float, float]] = (0.0, math.inf)
    sample_shape: ClassVar[tuple[int, ...]] = ()

    @property
    def parameters(self) -> dict[str, AbstractSupport]:
        """``rate``, positive."""
        return {"rate": Positive()}

    def log_prob(self, theta: Point, x: Num[Array, ""]) -> Scalar:
        """The log probability of the count ``x``."""
        (rate,) = theta
        x = jnp.asarray(x, theta.dtype)
        count = is_count(x)
        x = jnp.where(count, x, 0)
        return jnp.where(count, xlogy(x, rate) - rate - gammaln(x + 1), -jnp.inf)

    sample_bound = "counts 0, 1, 2, ..."
    degenerate: ClassVar[str] = "all samples are zero, and so would the rate be"

    def in_support(self, x: Num[Array, ""]) -> Bool[Array, ""]:
        """Whether ``x`` is a count."""
        return is_count(x) & jnp.isfinite(x)

    def maximum_likelihood(self, samples: Float[Array, " n"], weights: Float[Array, " n"]) -> tuple[Point, RESULTS]:
        """The rate is the mean."""
        rate = average(samples, weights)
        return rate[None], first_failure([(~(rate > 0), RESULTS.no_maximum)])

    def sample(self, key: PRNGKeyArray, theta: Point, n: int) -> Int[Array, " n"]:
        """``n`` samples, counts; at most the largest of JAX's default integers (without float64, 2^31 - 1)."""
        return jax.random.poisson(key, theta[0], (n,), int)

    def inner_product(self, theta: Point) -> DiagonalInnerProduct:
        """``1 / rate``."""
        return DiagonalInnerProduct(1 / theta)

    def to_line(self, theta: Point) -> Scalar:
        """``2 sqrt(rate)``."""
        return 2 * jnp.sqrt(theta[0])

    def from_line(self, u: Scalar) -> Point:
        """``(u / 2)^2``."""
        return ((u / 2) ** 2)[None]

    def gap(self, a: Point, b: Point) -> Scalar:
        """``2 (b - a) / (sqrt(a) + sqrt(b))``."""
        return 2 * (b[0] - a[0]) / (jnp.sqrt(a[0]) + jnp.sqrt(b[0]))

    def sufficient_statistic(self, x: Num[Array, ""]) -> Vector:
        """``(x,)``."""
        return jnp.reshape(jnp.asarray(x), 1)

    def log_partition(self, eta: Vector) -> Scalar:
        """``exp(eta)``."""
        return jnp.exp(eta[0])

    def natural(self, theta: Point) -> Vector:
        """``(log(rate),)``."""
        return jnp.log(theta)

    def from_natural(self, eta: Vector) -> Point:
        """``(exp(eta),)``."""
        return jnp.exp(eta)

    def expectation(self, theta: Point) -> Vector:
        """``(rate,)``."""
        return theta


class Geometric(AbstractLineFamily, AbstractExponentialFamily):
    """The number of trials up to and with the first success, 1, 2, ...: ``theta = (probability,)`` of success.

    Fisher information ``1 / (p^2 (1 - p))``; distance ``2 |artanh sqrt(1 - p) - artanh sqrt(1 - q)|``. Natural
    parameter ``log(1 - p)`` for the statistic ``x``.

    >>> from scoregeo.fisher_rao import Geometric
    >>> family = Geometric()
    >>> round(float(family.dist(family.pack(probability=0.36), family.pack(probability=0.64))), 4)  # log(9 / 4)
    0.8109
    """

    factor: ClassVar[float] = 1.0
    ends: ClassVar[tuple[float, float]] = (0.0, math.inf)
    sample_shape: ClassVar[tuple[int, ...]] = ()

    @property
    def parameters(self) -> dict[str, AbstractSupport]:
        """``probability``, above 0 and at most 1."""
        return {"probability": UnitInterval(zero=False)}

    def log_prob(self, theta: Point, x: Num[Array, ""]) -> Scalar:
        """The log probability that the first success is in trial ``x``."""
        (p,) = theta
        x = jnp.asarray(x, theta.dtype)
        count = is_count(x - 1)
        failures = count_times(xlog1py, jnp.where(count, x - 1, 0), -p, 0)
        return jnp.where(count, jnp.log(p) + failures, -jnp.inf)

    sample_bound = "numbers of trials 1, 2, ..."

    def in_support(self, x: Num[Array, ""]) -> Bool[Array, ""]:
        """Whether ``x`` is a number of trials, at least one."""
        return is_count(x - 1) & jnp.isfinite(x)

    def maximum_likelihood(self, samples: Float[Array, " n"], weights: Float[Array, " n"]) -> tuple[Point, RESULTS]:
        """The probability is one over the mean."""
        p = 1 / average(samples, weights)
        return p[None], first_failure([(p >= 1, RESULTS.on_boundary)])

    def sample(self, key: PRNGKeyArray, theta: Point, n: int) -> Int[Array, " n"]:
        """``n`` samples, numbers of trials; at most the largest of JAX's default integers (without float64,
        2^31 - 1)."""
        return jax.random.geometric(key, theta[0], (n,), int)

    def inner_product(self, theta: Point) -> DiagonalInnerProduct:
        """``1 / (p^2 (1 - p))``."""
        return DiagonalInnerProduct(1 / (theta**2 * (1 - theta)))

    def to_line(self, theta: Point) -> Scalar:
        """``2 artanh sqrt(1 - p)``, as ``2 log(1 + sqrt(1 - p)) - log(p)``."""
        return 2 * jnp.log1p(safe_sqrt(1 - theta[0])) - jnp.log(theta[0])

    def from_line(self, u: Scalar) -> Point:
        """``1 / cosh(u / 2)^2``."""
        return (1 / jnp.cosh(u / 2) ** 2)[None]

    def gap(self, a: Point, b: Point) -> Scalar:
        """``log(p / q) + 2 log((1 + sqrt(1 - q)) / (1 + sqrt(1 - p)))``, two terms of the same sign."""
        (p,), (q,) = a, b
        total = safe_sqrt(1 - p) + safe_sqrt(1 - q)
        return log_ratio(q, p) + 4 * jnp.arctanh((p - q) / jnp.where(total > 0, total, 1) / (2 + total))

    def sufficient_statistic(self, x: Num[Array, ""]) -> Vector:
        """``(x,)``."""
        return jnp.reshape(jnp.asarray(x), 1)

    def log_partition(self, eta: Vector) -> Scalar:
        """``eta - log(1 - exp(eta))``."""
        return eta[0] - jnp.log(-jnp.expm1(eta[0]))

    def natural(self, theta: Point) -> Vector:
        """``(log(1 - p),)``."""
        return jnp.log1p(-theta)

    def from_natural(self, eta: Vector) -> Point:
        """``(1 - exp(eta),)``."""
        return -jnp.expm1(eta)

    def expectation(self, theta: Point) -> Vector:
        """``(1 / p,)``."""
        return 1 / theta
