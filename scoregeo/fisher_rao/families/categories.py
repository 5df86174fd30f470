"""Probabilities of k categories: categorical and multinomial distributions.

Samples are integers; the log probability of values that are not is minus infinity. The simplex of probabilities is a
part of a sphere of radius 2 (times sqrt(n) for n draws). On its boundary some probabilities are zero: distances to such
distributions are finite, but the Fisher matrix is infinite there, and `log` and `exp` are NaN.
"""

import abc
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln, xlogy
from jaxtyping import Array, Bool, Float, Int, Num, PRNGKeyArray

from ..._checks import check_count, is_concrete, plain
from ..._results import RESULTS, first_failure
from ..._types import Point, Scalar, Vector
from ...metrics import DiagonalInnerProduct
from ..base import AbstractExponentialFamily
from ..exact import AbstractExactFamily
from ..fitting import average
from ..supports import AbstractSupport, Simplex
from .counts import count_times, is_count
from .model_spaces import simplex_exp, simplex_path, simplex_squared_dist
from .trials import as_trials


class AbstractSimplexFamily(AbstractExactFamily, AbstractExponentialFamily):
    """``factor`` independent draws from k categories: ``theta`` is all k probabilities, of which k - 1 are free.

    The metric on vectors with positive entries, ``factor diag(1 / (p_i sum(p)))``, is Fisher's ``factor diag(1 / p)``
    on the simplex sum(p) = 1. With p = s q, q on the simplex, it is

        factor sum dp_i^2 / (p_i s) = factor sum dq_i^2 / q_i + factor (d log s)^2                       (1)

    a product: so the simplex is totally geodesic, and solvers, which know nothing of it, stay on it.

    Tangent vectors sum to zero. `exp` raises ``ValueError`` for one that does not, beyond rounding, which it removes.
    Probabilities may be zero in `dist` and `path`; at such points the Fisher matrix is infinite, and `log` and `exp` do
    not exist: they are NaN.
    """

    k: eqx.AbstractVar[int]

    @property
    @abc.abstractmethod
    def factor(self) -> float | Int[Array, ""]:
        """The number of draws."""

    @property
    def parameters(self) -> dict[str, AbstractSupport]:
        """``probabilities``, ``(k,)``, with sum one."""
        return {"probabilities": Simplex(self.k)}

    def _draws(self, like: Array) -> Scalar:
        return jnp.asarray(self.factor, like.dtype)

    def inner_product(self, theta: Point) -> DiagonalInnerProduct:
        """``n / p_i``, on the simplex; see (1)."""
        return DiagonalInnerProduct(self._draws(theta) / (theta * jnp.sum(theta)))

    def path(self, a: Point, b: Point, t: Scalar) -> Point:
        """The square of an arc of a great circle between the roots of the probabilities."""
        return simplex_path(a, b, t)

    def closed_squared_dist(self, a: Point, b: Point) -> Scalar:
        """The square of ``2 sqrt(n) arccos(sum sqrt(p_i q_i))``."""
        return self._draws(a) * simplex_squared_dist(a, b)

    def contains(self, theta: Point) -> Bool[Array, ""]:
        """Whether probabilities are not negative and sum to one up to rounding. (`domain` does not look at the sum,
        which solvers may leave for a while: see (1).)"""
        total = Simplex(self.k).rounding(theta.dtype)
        return (self.domain(theta) >= 0) & (jnp.abs(jnp.sum(theta) - 1) <= total)

    def closed_exp(self, theta: Point, v: Vector) -> Point:
        """The point along a great circle of the roots of the probabilities; NaN if one has become zero before."""
        if is_concrete(v):
            values = np.asarray(v)
            if abs(values.sum()) > np.finfo(values.dtype).eps ** 0.5 * np.abs(values).sum():
                raise ValueError(
                    f"`v` must sum to zero, as changes of probabilities do, but its sum is {values.sum():.3g}"
                )
        return simplex_exp(theta, v)

    @abc.abstractmethod
    def totals(self, samples: Float[Array, "n ..."], weights: Float[Array, " n"]) -> Vector:
        """How often each category occurs in all samples, up to a common factor, shape ``(k,)``."""

    def maximum_likelihood(self, samples: Float[Array, "n ..."], weights: Float[Array, " n"]) -> tuple[Point, RESULTS]:
        """The probabilities are the frequencies."""
        totals = self.totals(samples, weights)
        return totals / jnp.sum(totals), first_failure([(jnp.any(totals <= 0), RESULTS.on_boundary)])

    def log_partition(self, eta: Vector) -> Scalar:
        """``n log(1 + sum exp(eta))``."""
        return self._draws(eta) * jax.nn.logsumexp(jnp.append(eta, 0))

    def natural(self, theta: Point) -> Vector:
        """``log(p_i / p_k)`` for i < k."""
        return Simplex(self.k).to_unconstrained(theta)

    def from_natural(self, eta: Vector) -> Point:
        """The softmax of ``eta``, with zero appended as the last entry."""
        return Simplex(self.k).from_unconstrained(eta)

    def expectation(self, theta: Point) -> Vector:
        """``n p_i`` for i < k."""
        return self._draws(theta) * theta[:-1]


class Categorical(AbstractSimplexFamily):
    """One of k categories: ``theta`` is their probabilities, all k; samples are 0, ..., k - 1.

    Distance ``2 arccos(sum sqrt(p_i q_i))``: the simplex is a part of the sphere of radius 2. Natural parameters
    ``log(p_i / p_k)``, i < k, for the indicators of the first k - 1 categories. On tangent vectors, zero
    probabilities, and the metric beside the simplex see `AbstractSimplexFamily`.

    **Arguments**

    - ``k``: the number of categories, an integer of at least 2; raises ``ValueError`` for anything else.

    >>> import jax.numpy as jnp
    >>> from scoregeo.fisher_rao import Categorical
    >>> family = Categorical(3)
    >>> a = family.pack(probabilities=jnp.array([1.0, 0.0, 0.0]))
    >>> b = family.pack(probabilities=jnp.array([0.25, 0.5, 0.25]))
    >>> round(float(family.dist(a, b)), 4)  # 2 pi / 3
    2.0944
    """

    k: int = eqx.field(static=True, converter=plain)
    factor: ClassVar[float] = 1.0
    sample_shape: ClassVar[tuple[int, ...]] = ()

    def __check_init__(self):
        check_count("k", self.k, 2)

    def log_prob(self, theta: Point, x: Num[Array, ""]) -> Scalar:
        """The log probability of category ``x``."""
        x = jnp.asarray(x)
        valid = is_count(x, self.k - 1)
        return jnp.where(valid, jnp.log(theta[jnp.where(valid, x, 0).astype(int)]), -jnp.inf)

    @property
    def sample_bound(self) -> str:
        """What samples must be, in words."""
        return f"categories 0, ..., {self.k - 1}"

    def in_support(self, x: Num[Array, ""]) -> Bool[Array, ""]:
        """Whether ``x`` is a category."""
        return is_count(x, self.k - 1)

    def totals(self, samples: Float[Array, " n"], weights: Float[Array, " n"]) -> Vector:
        """The weight of each category."""
        return jnp.zeros(self.k, weights.dtype).at[samples.astype(int)].add(weights)

    def sample(self, key: PRNGKeyArray, theta: Point, n: int) -> Int[Array, " n"]:
        """``n`` samples, categories."""
        return jax.random.categorical(key, jnp.log(theta), shape=(n,)).astype(int)

    def sufficient_statistic(self, x: Num[Array, ""]) -> Vector:
        """The indicators of the first k - 1 categories."""
        return jnp.where(jnp.arange(self.k - 1) == x, 1.0, 0.0)


class Multinomial(AbstractSimplexFamily):
    """Counts of k categories in n draws: ``theta`` is the probabilities, all k; samples are counts ``(k,)``.

    The geometry of `Categorical` with distances times ``sqrt(n)``; natural parameters are the same, for the counts of
    the first k - 1 categories.

    **Arguments**

    - ``n``: the number of draws, known; a positive integer, traced: another number does not compile again.
    - ``k``: the number of categories, an integer of at least 2.

    Raises ``ValueError`` for anything else.
    """

    n: Int[Array, ""] = eqx.field(converter=as_trials)
    k: int = eqx.field(static=True, converter=plain)

    def __check_init__(self):
        check_count("k", self.k, 2)

    @property
    def factor(self) -> Int[Array, ""]:
        """``n``."""
        return self.n

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """``(k,)``."""
        return (self.k,)

    def log_prob(self, theta: Point, x: Num[Array, " k"]) -> Scalar:
        """The log probability of the counts ``x``."""
        x, n = jnp.asarray(x, theta.dtype), self._draws(theta)
        valid = jnp.all(is_count(x)) & (jnp.sum(x) == n)
        x = jnp.where(valid, x, 0)
        logs = count_times(xlogy, x, theta, 1)
        return jnp.where(valid, gammaln(n + 1) + jnp.sum(logs - gammaln(x + 1)), -jnp.inf)

    @property
    def sample_bound(self) -> str:
        """What samples must be, in words."""
        return f"{self.k} counts with the sum {int(self.n)}"

    def in_support(self, x: Num[Array, " k"]) -> Bool[Array, ""]:
        """Whether ``x`` are counts of as many as there are draws."""
        return jnp.all(is_count(x)) & (jnp.sum(x) == self._draws(x))

    def totals(self, samples: Float[Array, "n k"], weights: Float[Array, " n"]) -> Vector:
        """The mean counts."""
        return average(samples, weights)

    def sample(self, key: PRNGKeyArray, theta: Point, n: int) -> Int[Array, "n k"]:
        """``n`` samples, counts."""
        return jax.random.multinomial(key, self._draws(theta), theta, shape=(n, self.k)).astype(int)

    def sufficient_statistic(self, x: Num[Array, " k"]) -> Vector:
        """The counts of the first k - 1 categories."""
        return jnp.asarray(x)[:-1]
