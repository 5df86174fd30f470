"""Gamma distributions.

With shape k and rate b, p(x) = b^k x^{k-1} e^{-b x} / Gamma(k). In the coordinates (k, mean m = k / b) the Fisher
matrix is diag(psi1(k) - 1/k, k / m^2), with the trigamma function psi1; for large k the difference is about
1 / (2 k^2), which the subtraction would lose. In the coordinates (k, b) it is what the determinant of the dense matrix
is relative to its entries, 1 / (2 k): so up to shapes of about 1e5 in float32 and 1e13 in float64 something is left of
it.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ..._types import Point, Scalar, Vector
from ...metrics.inner_products import DenseInnerProduct
from ..base import AbstractExponentialFamily
from ..supports import AbstractSupport, Positive

# Bernoulli numbers B_2, B_4, ...: psi1(x) = 1/x + 1/(2 x^2) + sum_k B_2k / x^(2k+1), exact up to rounding from x = 16.
_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66)
_SHIFTS = np.arange(16.0)


def trigamma_excess(x: Array) -> Array:
    """``psi1(x) - 1/x`` for positive ``x``, without cancellation: accurate to rounding for small and large ``x``.

    The recurrence ``e(x) = e(x + 1) + 1 / (x^2 (x + 1))``, whose terms are all positive, leads to where the asymptotic
    series is exact.
    """
    shifted = x + _SHIFTS.size
    inverse = 1 / shifted**2
    series = jnp.zeros_like(x)
    for number in reversed(_BERNOULLI):
        series = (series + number) * inverse
    steps = x[..., None] + _SHIFTS.astype(x.dtype)
    return jnp.sum(1 / (steps**2 * (steps + 1)), -1) + 0.5 * inverse + series / shifted


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

    def sample(self, key: PRNGKeyArray, theta: Point, n: int) -> Float[Array, " n"]:
        """``n`` independent samples, shape ``(n,)``; differentiable with respect to ``theta``."""
        return jax.random.gamma(key, theta[0], (n,), theta.dtype) / theta[1]

    def inner_product(self, theta: Point) -> DenseInnerProduct:
        """The Fisher information ``[[psi1(k), -1/b], [-1/b, k/b^2]]``."""
        shape, rate = theta
        off = -1 / rate
        rows = [[1 / shape + trigamma_excess(shape), off], [off, shape / rate**2]]
        return DenseInnerProduct(jnp.stack([jnp.stack(row) for row in rows]))

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
