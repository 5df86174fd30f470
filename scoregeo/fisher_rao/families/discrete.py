"""Families of counts and categories. Samples are integers; of values that are not, the log probability is minus
infinity.

For one parameter the line is: ``2 arcsin sqrt(p)`` for a probability of success (times sqrt(n) for n trials),
``2 sqrt(rate)`` for Poisson, ``2 artanh sqrt(1 - p)`` for geometric distributions. These lines have ends, which are
distributions that are certain of their outcome; so has the simplex of probabilities, a part of a sphere of radius 2.
There the Fisher matrix is infinite, and `log` and `exp` are NaN: distances to such distributions are finite.
"""

import abc
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln, xlog1py, xlogy
from jaxtyping import Array, Bool, Int, Num, PRNGKeyArray

from ..._checks import check_count, is_concrete, plain
from ..._numerics import safe_sqrt
from ..._types import Point, Scalar, Vector
from ...metrics import DiagonalInnerProduct
from ..base import AbstractExponentialFamily
from ..exact import AbstractExactFamily
from ..supports import AbstractSupport, Positive, Simplex, UnitInterval
from .model_spaces import AbstractLineFamily, log_ratio, simplex_exp, simplex_path, simplex_squared_dist


def as_trials(n: Any) -> Int[Array, ""]:
    """``n`` as an integer array, so that it is traced; raises ``ValueError`` unless it is a positive integer that fits
    into one."""
    try:
        array = jnp.asarray(n)
    except OverflowError as error:
        most = jnp.iinfo(jnp.result_type(int)).max
        advice = "" if jax.config.jax_enable_x64 else " (larger with `jax.config.update('jax_enable_x64', True)`)"
        raise ValueError(f"`n` must be at most {most}{advice}, got {n!r}") from error
    if array.ndim != 0 or not jnp.issubdtype(array.dtype, jnp.integer) or (is_concrete(array) and int(array) < 1):
        raise ValueError(f"`n` must be a positive integer, got {n!r}")
    return array


def _count_times(log: Callable[[Array, Array], Array], count: Array, x: Array, neutral: float) -> Array:
    """``log(count, x)``, for `xlogy` or `xlog1py`; where the count is zero it does not depend on ``x``, whose
    derivative is zero there, also where the logarithm is infinite. ``neutral`` is where that is zero."""
    return log(count, jnp.where(count == 0, neutral, x))


def _is_count(x: Array, most: Array | float = math.inf) -> Array:
    return (x >= 0) & (x <= most) & (x == jnp.floor(x))


class AbstractTrials(AbstractLineFamily, AbstractExponentialFamily):
    """The number of successes in ``factor`` independent trials: ``theta = (probability,)``."""

    ends = (0.0, math.pi)
    sample_shape = ()

    @property
    def parameters(self) -> dict[str, AbstractSupport]:
        """``probability``, between 0 and 1."""
        return {"probability": UnitInterval()}

    def _trials(self, like: Array) -> Scalar:
        return jnp.asarray(self.factor, like.dtype)

    def log_prob(self, theta: Point, x: Num[Array, ""]) -> Scalar:
        """The log probability of ``x`` successes."""
        (p,), n = theta, self._trials(theta)
        x = jnp.asarray(x, theta.dtype)
        count = _is_count(x, n)
        x = jnp.where(count, x, 0)
        choices = gammaln(n + 1) - gammaln(x + 1) - gammaln(n - x + 1)
        logs = _count_times(xlogy, x, p, 1) + _count_times(xlog1py, n - x, -p, 0)
        return jnp.where(count, choices + logs, -jnp.inf)

    def inner_product(self, theta: Point) -> DiagonalInnerProduct:
        """``n / (p (1 - p))``."""
        return DiagonalInnerProduct(self._trials(theta) / (theta * (1 - theta)))

    def to_line(self, theta: Point) -> Scalar:
        """``2 arcsin sqrt(p)``."""
        return 2 * jnp.arctan2(safe_sqrt(theta[0]), safe_sqrt(1 - theta[0]))

    def from_line(self, u: Scalar) -> Point:
        """``sin(u / 2)^2``."""
        return (jnp.sin(u / 2) ** 2)[None]

    def gap(self, a: Point, b: Point) -> Scalar:
        """Twice the angle whose sine is ``sqrt(q (1 - p)) - sqrt(p (1 - q))``, a multiple of ``q - p``."""
        (p,), (q,) = a, b
        total = safe_sqrt(q * (1 - p)) + safe_sqrt(p * (1 - q))
        sine = (q - p) / jnp.where(total > 0, total, 1)
        return 2 * jnp.arctan2(sine, safe_sqrt(p * q) + safe_sqrt((1 - p) * (1 - q)))

    def sufficient_statistic(self, x: Num[Array, ""]) -> Vector:
        """``(x,)``."""
        return jnp.reshape(x, 1)

    def log_partition(self, eta: Vector) -> Scalar:
        """``n log(1 + exp(eta))``."""
        return self._trials(eta) * jax.nn.softplus(eta[0])

    def natural(self, theta: Point) -> Vector:
        """The logit of the probability."""
        return jax.scipy.special.logit(theta)

    def from_natural(self, eta: Vector) -> Point:
        """The logistic function."""
        return jax.nn.sigmoid(eta)

    def expectation(self, theta: Point) -> Vector:
        """``n p``."""
        return self._trials(theta) * theta


class Bernoulli(AbstractTrials):
    """One trial: ``theta = (probability,)`` of 1 rather than 0. Distance ``2 |arcsin sqrt(p) - arcsin sqrt(q)|``.

    Natural parameter: the logit, for the statistic ``x``.

    >>> from scoregeo.fisher_rao import Bernoulli
    >>> family = Bernoulli()
    >>> round(float(family.dist(family.pack(probability=0.0), family.pack(probability=1.0))), 4)
    3.1416
    """

    factor = 1.0

    def sample(self, key: PRNGKeyArray, theta: Point, n: int) -> Int[Array, " n"]:
        """``n`` samples, 0 or 1."""
        return jax.random.bernoulli(key, theta[0], (n,)).astype(int)


class Binomial(AbstractTrials):
    """``n`` trials: ``theta = (probability,)``. Distance ``2 sqrt(n) |arcsin sqrt(p) - arcsin sqrt(q)|``.

    Natural parameter: the logit, for the statistic ``x``.

    **Arguments**

    - ``n``: the number of trials, known; a positive integer, traced: another number does not compile again. Raises
      ``ValueError`` for anything else.
    """

    n: Int[Array, ""] = eqx.field(converter=as_trials)

    @property
    def factor(self) -> Scalar:
        """``n``."""
        return self.n

    def sample(self, key: PRNGKeyArray, theta: Point, n: int) -> Int[Array, " n"]:
        """``n`` samples, numbers of successes."""
        return jax.random.binomial(key, self._trials(theta), theta[0], (n,)).astype(int)


class Poisson(AbstractLineFamily, AbstractExponentialFamily):
    """Poisson distributions: ``theta = (rate,)``, the mean count. Distance ``2 |sqrt(a) - sqrt(b)|``.

    Natural parameter ``log(rate)`` for the statistic ``x``.

    >>> from scoregeo.fisher_rao import Poisson
    >>> family = Poisson()
    >>> float(family.dist(family.pack(rate=1.0), family.pack(rate=4.0)))
    2.0
    """

    factor = 1.0
    ends = (0.0, math.inf)
    sample_shape = ()

    @property
    def parameters(self) -> dict[str, AbstractSupport]:
        """``rate``, positive."""
        return {"rate": Positive()}

    def log_prob(self, theta: Point, x: Num[Array, ""]) -> Scalar:
        """The log probability of the count ``x``."""
        (rate,) = theta
        x = jnp.asarray(x, theta.dtype)
        count = _is_count(x)
        x = jnp.where(count, x, 0)
        return jnp.where(count, xlogy(x, rate) - rate - gammaln(x + 1), -jnp.inf)

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
        return jnp.reshape(x, 1)

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

    factor = 1.0
    ends = (0.0, math.inf)
    sample_shape = ()

    @property
    def parameters(self) -> dict[str, AbstractSupport]:
        """``probability``, above 0 and at most 1."""
        return {"probability": UnitInterval(zero=False)}

    def log_prob(self, theta: Point, x: Num[Array, ""]) -> Scalar:
        """The log probability that the first success is in trial ``x``."""
        (p,) = theta
        x = jnp.asarray(x, theta.dtype)
        count = _is_count(x - 1)
        failures = _count_times(xlog1py, jnp.where(count, x - 1, 0), -p, 0)
        return jnp.where(count, jnp.log(p) + failures, -jnp.inf)

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
        return jnp.reshape(x, 1)

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
    def factor(self) -> float | Scalar:
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
        """Along a great circle of the roots of the probabilities; NaN where one has become zero before."""
        if is_concrete(v):
            values = np.asarray(v)
            if abs(values.sum()) > np.finfo(values.dtype).eps ** 0.5 * np.abs(values).sum():
                raise ValueError(
                    f"`v` must sum to zero, as changes of probabilities do, but its sum is {values.sum():.3g}"
                )
        return simplex_exp(theta, v)

    def log_partition(self, eta: Vector) -> Scalar:
        """``n log(1 + sum exp(eta))``."""
        return self._draws(eta) * jax.nn.logsumexp(jnp.append(eta, 0))

    def natural(self, theta: Point) -> Vector:
        """``log(p_i / p_k)`` for i < k."""
        return Simplex(self.k).to_unconstrained(theta)

    def from_natural(self, eta: Vector) -> Point:
        """Their softmax, with zero for the last."""
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
    factor = 1.0
    sample_shape = ()

    def __check_init__(self):
        check_count("k", self.k, 2)

    def log_prob(self, theta: Point, x: Num[Array, ""]) -> Scalar:
        """The log probability of category ``x``."""
        x = jnp.asarray(x)
        valid = _is_count(x, self.k - 1)
        return jnp.where(valid, jnp.log(theta[jnp.where(valid, x, 0).astype(int)]), -jnp.inf)

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
    def factor(self) -> Scalar:
        """``n``."""
        return self.n

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """``(k,)``."""
        return (self.k,)

    def log_prob(self, theta: Point, x: Num[Array, " k"]) -> Scalar:
        """The log probability of the counts ``x``."""
        x, n = jnp.asarray(x, theta.dtype), self._draws(theta)
        valid = jnp.all(_is_count(x)) & (jnp.sum(x) == n)
        x = jnp.where(valid, x, 0)
        logs = _count_times(xlogy, x, theta, 1)
        return jnp.where(valid, gammaln(n + 1) + jnp.sum(logs - gammaln(x + 1)), -jnp.inf)

    def sample(self, key: PRNGKeyArray, theta: Point, n: int) -> Int[Array, "n k"]:
        """``n`` samples, counts."""
        return jax.random.multinomial(key, self._draws(theta), theta, shape=(n, self.k)).astype(int)

    def sufficient_statistic(self, x: Num[Array, " k"]) -> Vector:
        """The counts of the first k - 1 categories."""
        return jnp.asarray(x)[:-1]
