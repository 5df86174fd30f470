"""Beta and Dirichlet distributions.

A Dirichlet distribution with concentrations a_1, ..., a_k has the Fisher matrix diag(psi1(a)) - psi1(a_1 + ... + a_k),
with the trigamma function psi1; a Beta distribution is one with k = 2. For large concentrations it is nearly singular,
and its entries are small differences where one of them is much larger than the others. With h = 1 / psi1, which is
superadditive, and

    H_j = h(a_1 + ... + a_k) - h(a_1) - ... - h(a_j)                                                        (1)

its elimination has pivots d_j = psi1(a_j) H_j / H_(j-1), and rows d_j, -1 / H_(j-1), ..., -1 / H_(j-1). H_k is a sum
of positive h(a + b) - h(a) - h(b), and H_j that plus h(a_(j+1)) + ... + h(a_k).

The mean logarithms t of samples say little about the sum of large concentrations, as much as they differ from the
logarithms of mean probabilities p, by about 1 / (2 a). With g(x) = log(x) - psi(x), the derivative of minus the log
likelihood is

    g(a_1 + ... + a_k) - g(a_i) + log(a_i / ((a_1 + ... + a_k) p_i)) - (t_i - log(p_i)),                     (2)

which has only such small terms.
"""

import abc
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ..._checks import check_count, plain
from ..._results import RESULTS, first_failure
from ..._types import Point, Scalar, Vector
from ..base import AbstractExponentialFamily
from ..factored import FactoredInnerProduct
from ..fitting import AbstractObjective, Model, all_equal, average, minimise
from ..supports import AbstractSupport, Positive, Simplex
from .polygamma import digamma_gap, log_ratio_excess, polygamma_change, superadditivity, trigamma_excess


def _others(theta: Point) -> Vector:
    """For each concentration the sum of the others."""
    return jnp.sum(jnp.where(jnp.eye(theta.size, dtype=bool), 0, theta), 1)


def _balanced(change: Vector, p: Vector) -> Vector:
    """Relative changes of probabilities ``p`` with the sum of the changes zero: it is, but for rounding, and what is
    left of that would count as much as all that (2) says of the sum of large concentrations."""
    return change - p @ change / jnp.sum(p)


class _Likelihood(AbstractObjective):
    """Minus the log likelihood of concentrations ``u``; ``args`` are ``p`` and ``t - log(p)`` of (2). The Fisher
    information is its second derivative and its metric."""

    def model(self, args: tuple[Vector, Vector], u: Vector) -> Model:
        p, excess = args
        total = jnp.sum(u)
        terms = jnp.append(gammaln(u) - u * (excess + jnp.log(p)), -gammaln(total))
        change = _balanced((u - total * p) / (total * p), p)
        ratio = log_ratio_excess(u, total * p, change) + change
        gradient = digamma_gap(total) - digamma_gap(u) + ratio - excess
        rounding = 4 * jnp.finfo(u.dtype).eps * jnp.sum(jnp.abs(terms))
        rest = jnp.sum(superadditivity(jnp.cumsum(u)[:-1], u[1:]))
        return Model(jnp.sum(terms), rounding, gradient, (1 / (1 / u + trigamma_excess(u)), rest))

    def solve(self, u: Vector, curvature: tuple[Vector, Scalar], damping: Scalar, covector: Vector) -> Vector:
        h, rest = curvature  # see (1): of the inverse of a diagonal matrix and one of rank one
        return (h * covector + h * (h @ covector) / rest) / (1 + damping)

    def move(self, u: Vector, v: Vector) -> Vector:
        """Newton's step in ``u`` where it goes up, in ``1 / u`` where it goes down: both stay positive, and with
        psi(u) about -1 / u the latter is exact for small ``u``."""
        up = jnp.maximum(v, 0)
        return (u + up) / (1 - (v - up) / u)


class _Concentrations(AbstractExponentialFamily):
    """Families whose parameters ``theta``, all positive, are concentrations, and the natural parameters."""

    degenerate: ClassVar[str] = "all samples are equal, and the concentrations would be infinite"

    @abc.abstractmethod
    def mean_logs(self, samples: Float[Array, "n ..."], weights: Float[Array, " n"]) -> tuple[Vector, Vector]:
        """``p``, numbers near the mean probabilities, and ``t - log(p)`` of (2), both ``(k,)``."""

    def maximum_likelihood(self, samples: Float[Array, "n ..."], weights: Float[Array, " n"]) -> tuple[Point, RESULTS]:
        """By Newton's method (Minka 2000), from the sum that is right if all concentrations are large, and right up to
        a factor of two if they are small."""
        p, excess = self.mean_logs(samples, weights)
        gap = -jax.lax.stop_gradient(p @ excess)
        varies = ~jnp.all(all_equal(samples, weights)) & (gap > 0)
        excess = jnp.where(varies, excess, -1)
        start = (self.size - 1) / 2 / jnp.where(varies, gap, 1) * p
        theta, result = minimise(_Likelihood(), start, (p, excess))
        return theta, first_failure([(~varies, RESULTS.no_maximum), (True, result)])

    def inner_product(self, theta: Point) -> FactoredInnerProduct:
        """The Fisher information ``diag(psi1(theta)) - psi1(sum(theta))``."""
        arguments = jnp.append(theta, jnp.sum(theta))
        trigammas = 1 / arguments + trigamma_excess(arguments)
        information, total = trigammas[:-1], trigammas[-1]
        own = jnp.eye(theta.size, dtype=bool)
        array = jnp.where(own, polygamma_change(1, theta, _others(theta)), -total)

        h = 1 / information
        rest = jnp.sum(superadditivity(jnp.cumsum(theta)[:-1], theta[1:]))
        after = rest + jnp.append(jnp.cumsum(h[:0:-1])[::-1], 0)  # H_1, ..., H_k
        before = jnp.concatenate([1 / total[None], after[:-1]])
        root = jnp.sqrt(information * after / before)
        factor = jnp.where(own, root[:, None], jnp.triu(jnp.broadcast_to((-1 / before / root)[:, None], own.shape)))
        return FactoredInnerProduct(factor, array)

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
        return -polygamma_change(0, theta, _others(theta))


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

    sample_bound = "above 0 and below 1"

    def in_support(self, x: Scalar) -> Bool[Array, ""]:
        """Whether ``x`` is between 0 and 1, neither of them."""
        return (x > 0) & (x < 1)

    def mean_logs(self, samples: Float[Array, " n"], weights: Float[Array, " n"]) -> tuple[Vector, Vector]:
        """Of ``x`` and ``1 - x``, whose changes are known to the digits of those of ``x``."""
        p = jax.lax.stop_gradient(average(samples, weights))
        q = jnp.maximum(1 - p, jnp.finfo(p.dtype).tiny)
        both = jnp.stack([p, q])
        change = jnp.stack([(samples - p) / p, ((1 - q - p) - (samples - p)) / q], 1)
        excess = log_ratio_excess(jnp.stack([samples, 1 - samples], 1), both, change)
        return both, average(excess, weights) + _balanced(average(change, weights), both)

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

    @property
    def sample_bound(self) -> str:
        """What samples must be, in words."""
        return f"{self.k} positive numbers that sum to one"

    def in_support(self, x: Float[Array, " k"]) -> Bool[Array, ""]:
        """Whether ``x`` is positive and sums to one, up to the rounding of files: more than `log_prob` lets pass."""
        return jnp.all(x > 0) & (jnp.abs(jnp.sum(x) - 1) <= Simplex(self.k).rounding(x.dtype))

    def mean_logs(self, samples: Float[Array, "n k"], weights: Float[Array, " n"]) -> tuple[Vector, Vector]:
        """Of the probabilities, made to sum to one."""
        samples = samples / jnp.sum(samples, 1, keepdims=True)
        p = jax.lax.stop_gradient(average(samples, weights))
        change = (samples - p) / p
        excess = log_ratio_excess(samples, p, change)
        return p, average(excess, weights) + _balanced(average(change, weights), p)

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
