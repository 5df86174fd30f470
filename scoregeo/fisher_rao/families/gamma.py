"""Gamma distributions.

With shape k and rate b, p(x) = b^k x^{k-1} e^{-b x} / Gamma(k). In the coordinates (k, mean m = k / b) the Fisher
matrix is diag(psi1(k) - 1/k, k / m^2), with the trigamma function psi1; for large k the difference is about
1 / (2 k^2), which the subtraction would lose. In the coordinates (k, b) it is what the determinant of the matrix is
relative to its entries, 1 / (2 k), which a factor of the matrix keeps where the entries have lost it.

The most likely mean is that of the samples, and log(k) - psi(k) what the logarithm of their mean is above the mean of
their logarithms: about 1 / (2 k), which is computed from the deviations.
"""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ..._results import RESULTS, first_failure
from ..._types import Point, Scalar, Vector
from ..base import AbstractExponentialFamily
from ..factored import FactoredInnerProduct
from ..fitting import NOT_LEVEL, all_equal, average, increasing_root
from ..supports import AbstractSupport, Positive
from .polygamma import digamma_gap, log1p_excess, log_ratio_excess, trigamma_excess


def _level(log_gap: Scalar, log_shape: Scalar) -> Scalar:
    """Zero where ``log(k) - psi(k)`` is what it should be; almost a straight line of slope one."""
    return log_gap - jnp.log(digamma_gap(jnp.exp(log_shape)))


class Gamma(AbstractExponentialFamily):
    """Gamma distributions: ``theta = (shape, rate)``, both positive; the mean is ``shape / rate``.

    Natural parameters are ``(shape, -rate)`` for the statistic ``(log x, x)``, with respect to ``dx / x``. Geodesics
    have no closed form. The larger the shape, the closer the matrix to a singular one: in float32, shapes are at most
    about 1e5. Between shapes that differ by orders of magnitude they are found in a fraction of the steps
    with ``FisherRaoMetric(Gamma(), unconstrained=True)``, whose coordinates are logarithms.

    >>> from scoregeo import dist
    >>> from scoregeo.fisher_rao import FisherRaoMetric, Gamma
    >>> a, b = Gamma().pack(shape=1.0, rate=1.0), Gamma().pack(shape=3.0, rate=2.0)
    >>> round(float(dist(FisherRaoMetric(Gamma()), a, b)), 4)
    0.9915
    """

    @property
    def parameters(self) -> dict[str, AbstractSupport]:
        """``shape`` and ``rate``."""
        return {"shape": Positive(), "rate": Positive()}

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Univariate."""
        return ()

    def log_prob(self, theta: Point, x: Scalar) -> Scalar:
        """The log density at ``x``; minus infinity for ``x <= 0``."""
        shape, rate = theta
        inside = x > 0
        x = jnp.where(inside, x, 1)
        value = shape * jnp.log(rate * x) - jnp.log(x) - rate * x - jax.scipy.special.gammaln(shape)
        return jnp.where(inside, value, -jnp.inf)

    sample_bound = "finite and positive"
    degenerate: ClassVar[str] = "all samples are equal, and the shape would be infinite"

    def in_support(self, x: Scalar) -> Bool[Array, ""]:
        """Whether ``x`` is positive."""
        return (x > 0) & jnp.isfinite(x)

    def maximum_likelihood(self, samples: Float[Array, " n"], weights: Float[Array, " n"]) -> tuple[Point, RESULTS]:
        """The mean is that of the samples, and the shape from the mean logarithm by Newton's method, from the formula
        of Minka (2002)."""
        mean = average(samples, weights)
        center = jax.lax.stop_gradient(mean)
        change = (samples - center) / center
        gap = log1p_excess(average(change, weights)) - average(log_ratio_excess(samples, center, change), weights)
        varies = ~all_equal(samples, weights) & (gap > 0)
        gap = jnp.where(varies, gap, 1)
        start = (3 - gap + jnp.hypot(gap - 3, jnp.sqrt(24 * gap))) / (12 * gap)
        log_shape, found = increasing_root(_level, jax.lax.stop_gradient(jnp.log(start)), jnp.log(gap))
        shape = jnp.exp(log_shape)
        result = first_failure([(~varies, RESULTS.no_maximum), (~found, NOT_LEVEL)])
        return jnp.stack([shape, shape / mean]), result

    def sample(self, key: PRNGKeyArray, theta: Point, n: int) -> Float[Array, " n"]:
        """``n`` independent samples, shape ``(n,)``; differentiable with respect to ``theta``."""
        return jax.random.gamma(key, theta[0], (n,), theta.dtype) / theta[1]

    def inner_product(self, theta: Point) -> FactoredInnerProduct:
        """The Fisher information ``[[psi1(k), -1/b], [-1/b, k/b^2]]``."""
        shape, rate = theta
        excess, off = trigamma_excess(shape), -1 / rate
        first = jnp.sqrt(1 / shape + excess)
        rows = [[1 / shape + excess, off], [off, shape / rate**2]]
        factor = [[first, off / first], [jnp.zeros_like(shape), jnp.sqrt(shape * excess) / rate / first]]
        return FactoredInnerProduct(*(jnp.stack([jnp.stack(row) for row in matrix]) for matrix in (factor, rows)))

    def sufficient_statistic(self, x: Scalar) -> Vector:
        """``(log x, x)``."""
        return jnp.stack([jnp.log(x), x])

    def log_partition(self, eta: Vector) -> Scalar:
        """``log Gamma(eta_0) - eta_0 log(-eta_1)``."""
        return jax.scipy.special.gammaln(eta[0]) - eta[0] * jnp.log(-eta[1])

    def natural(self, theta: Point) -> Vector:
        """``(shape, -rate)``."""
        return jnp.stack([theta[0], -theta[1]])

    def from_natural(self, eta: Vector) -> Point:
        """The inverse of `natural`."""
        return jnp.stack([eta[0], -eta[1]])

    def expectation(self, theta: Point) -> Vector:
        """``E[log x] = psi(shape) - log(rate)`` and ``E[x] = shape / rate``."""
        shape, rate = theta
        return jnp.stack([jax.scipy.special.digamma(shape) - jnp.log(rate), shape / rate])
