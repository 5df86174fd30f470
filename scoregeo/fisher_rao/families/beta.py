"""Beta and Dirichlet distributions.

A Dirichlet distribution with concentrations a_1, ..., a_k has the Fisher matrix diag(psi1(a)) - psi1(a_1 + ... + a_k),
with the trigamma function psi1; a Beta distribution is one with k = 2.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import digamma, gammaln
from jaxtyping import Array, Float, PRNGKeyArray

from ..._checks import check_count, plain
from ..._types import Point, Scalar, Vector
from ...metrics.inner_products import DenseInnerProduct
from ..base import AbstractExponentialFamily
from ..supports import AbstractSupport, Positive
from .gamma import trigamma_excess


class _Concentrations(AbstractExponentialFamily):
    """Families whose parameters ``theta``, all positive, are concentrations, and the natural parameters."""

    def inner_product(self, theta: Point) -> DenseInnerProduct:
        """The Fisher information ``diag(psi1(theta)) - psi1(sum(theta))``."""
        total = jnp.sum(theta)
        return DenseInnerProduct(jnp.diag(1 / theta + trigamma_excess(theta)) - (1 / total + trigamma_excess(total)))

    def log_partition(self, eta: Vector) -> Scalar:
        """The logarithm of the multivariate beta function."""
        return jnp.sum(gammaln(eta)) - gammaln(jnp.sum(eta))

    def natural(self, theta: Point) -> Vector:
        """``theta`` itself."""
        return theta

    def from_natural(self, eta: Vector) -> Point:
        """``eta`` itself."""
        return eta

    def expectation(self, theta: Point) -> Vector:
        """The expectations of the logarithms of the probabilities."""
        return digamma(theta) - digamma(jnp.sum(theta))


class Beta(_Concentrations):
    """Beta distributions on (0, 1): ``theta = (alpha, beta)``, the two shapes, both positive.

    They are the natural parameters for the statistic ``(log x, log(1 - x))``, with respect to ``dx / (x (1 - x))``.
    Geodesics have no closed form. Between shapes that differ by orders of magnitude they are found in fewer steps with
    ``FisherRaoMetric(Beta(), unconstrained=True)``, whose coordinates are logarithms.
    """

    @property
    def parameters(self) -> dict[str, AbstractSupport]:
        """``alpha`` and ``beta``."""
        return {"alpha": Positive(), "beta": Positive()}

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Univariate."""
        return ()

    def log_prob(self, theta: Point, x: Scalar) -> Scalar:
        """The log density at ``x``; minus infinity outside (0, 1)."""
        inside = (x > 0) & (x < 1)
        x = jnp.where(inside, x, 0.5)
        value = (theta[0] - 1) * jnp.log(x) + (theta[1] - 1) * jnp.log1p(-x) - self.log_partition(theta)
        return jnp.where(inside, value, -jnp.inf)

    def sample(self, key: PRNGKeyArray, theta: Point, n: int) -> Float[Array, " n"]:
        """``n`` independent samples, shape ``(n,)``; differentiable with respect to ``theta``."""
        return jax.random.beta(key, theta[0], theta[1], (n,), theta.dtype)

    def sufficient_statistic(self, x: Scalar) -> Vector:
        """``(log x, log(1 - x))``."""
        return jnp.stack([jnp.log(x), jnp.log1p(-x)])


class Dirichlet(_Concentrations):
    """Dirichlet distributions of ``k`` probabilities: ``theta = (concentration_1, ..., concentration_k)``.

    The concentrations, all positive, are the natural parameters for the statistic ``log x``, with respect to
    ``dx / prod(x)``. Geodesics have no closed form. Between concentrations that differ by orders of magnitude they are
    found in fewer steps with ``FisherRaoMetric(Dirichlet(k), unconstrained=True)``, whose coordinates are
    logarithms.
    """

    k: int = eqx.field(static=True, converter=plain)

    def __check_init__(self):
        check_count("k", self.k, 2)

    @property
    def parameters(self) -> dict[str, AbstractSupport]:
        """``concentration``, shape ``(k,)``."""
        return {"concentration": Positive((self.k,))}

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """``(k,)``."""
        return (self.k,)

    def log_prob(self, theta: Point, x: Float[Array, " k"]) -> Scalar:
        """The log density of the probabilities ``x``, with respect to the first ``k - 1`` of them; minus infinity
        where they are not positive or do not sum to one (up to rounding).
        """
        off = jnp.abs(jnp.sum(x) - 1)
        inside = jnp.all(x > 0) & (off <= 100 * self.k * jnp.finfo(x.dtype).eps)
        x = jnp.where(inside, x, 1 / self.k)
        return jnp.where(inside, jnp.sum((theta - 1) * jnp.log(x)) - self.log_partition(theta), -jnp.inf)

    def sample(self, key: PRNGKeyArray, theta: Point, n: int) -> Float[Array, "n k"]:
        """``n`` independent samples, shape ``(n, k)``; differentiable with respect to ``theta``."""
        return jax.random.dirichlet(key, theta, (n,), theta.dtype)

    def sufficient_statistic(self, x: Float[Array, " k"]) -> Vector:
        """``log x``."""
        return jnp.log(x)
