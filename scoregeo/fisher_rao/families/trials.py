"""Numbers of successes in independent trials: Bernoulli and binomial distributions.

Samples are integers; the log probability of values that are not is minus infinity. The line is ``2 arcsin sqrt(p)``,
times sqrt(n) for n trials. Its ends are distributions that are certain of their outcome: distances to them are finite,
but the Fisher matrix is infinite there, and `log` and `exp` are NaN.
"""

import math
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln, xlog1py, xlogy
from jaxtyping import Array, Bool, Float, Int, Num, PRNGKeyArray

from ..._checks import is_concrete
from ..._numerics import safe_sqrt
from ..._results import RESULTS, first_failure
from ..._types import Point, Scalar, Vector
from ...metrics import DiagonalInnerProduct
from ..base import AbstractExponentialFamily
from ..fitting import average
from ..supports import AbstractSupport, UnitInterval
from .counts import count_times, is_count
from .model_spaces import AbstractLineFamily


def as_trials(n: Any) -> Int[Array, ""]:
    """``n`` as an integer array, so that it is traced; raises ``ValueError`` unless it is a positive integer that fits
    into one."""
    try:
        array = jnp.asarray(n)
    except OverflowError as error:
        most = jnp.iinfo(jnp.result_type(int)).max
        # The types of jax leave its flags out.
        large = jax.config.jax_enable_x64  # pyright: ignore[reportAttributeAccessIssue]
        advice = "" if large else " (larger with `jax.config.update('jax_enable_x64', True)`)"
        raise ValueError(f"`n` must be at most {most}{advice}, got {n!r}") from error
    if array.ndim != 0 or not jnp.issubdtype(array.dtype, jnp.integer) or (is_concrete(array) and int(array) < 1):
        raise ValueError(f"`n` must be a positive integer, got {n!r}")
    return array


class AbstractTrials(AbstractLineFamily, AbstractExponentialFamily):
    """The number of successes in ``factor`` independent trials: ``theta = (probability,)``."""

    ends: ClassVar[tuple[float, float]] = (0.0, math.pi)
    sample_shape: ClassVar[tuple[int, ...]] = ()

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
        count = is_count(x, n)
        x = jnp.where(count, x, 0)
        choices = gammaln(n + 1) - gammaln(x + 1) - gammaln(n - x + 1)
        logs = count_times(xlogy, x, p, 1) + count_times(xlog1py, n - x, -p, 0)
        return jnp.where(count, choices + logs, -jnp.inf)

    @property
    def sample_bound(self) -> str:
        """What samples must be, in words."""
        return f"numbers of successes from 0 to {int(self.factor)}"

    def in_support(self, x: Num[Array, ""]) -> Bool[Array, ""]:
        """Whether ``x`` is a count of at most as many as there are trials."""
        return is_count(x, self._trials(x))

    def maximum_likelihood(self, samples: Float[Array, " n"], weights: Float[Array, " n"]) -> tuple[Point, RESULTS]:
        """The probability is the mean of ``x / n``."""
        p = average(samples / self._trials(samples), weights)
        return p[None], first_failure([((p <= 0) | (p >= 1), RESULTS.on_boundary)])

    def inner_product(self, theta: Point) -> DiagonalInnerProduct:
        """``n / (p (1 - p))``."""
        return DiagonalInnerProduct(self._trials(theta) / (theta * (1 - theta)))

    def to_line(self, theta: Point) -> Scalar:
        """``2 arcsin sqrt(p)``."""
        return 2 * jnp.arctan2(safe_sqrt(theta[0]), safe_sqrt(1 - theta[0]))

    def from_line(self, u: Scalar) -> Point:
        """``sin(u / 2)^2``."""
        return (jnp.sin(u / 2) ** 2)[None]

    def shifted(self, theta: Point, step: Scalar) -> Point:
        """``(sqrt(p) cos(step / 2) + sqrt(1 - p) sin(step / 2))^2``; ``u`` has lost the digits that 1 - p has."""
        root, other = safe_sqrt(theta), safe_sqrt(1 - theta)
        return (root * jnp.cos(step / 2) + other * jnp.sin(step / 2)) ** 2

    def gap(self, a: Point, b: Point) -> Scalar:
        """Twice the angle whose sine is ``sqrt(q (1 - p)) - sqrt(p (1 - q))``, a multiple of ``q - p``."""
        (p,), (q,) = a, b
        total = safe_sqrt(q * (1 - p)) + safe_sqrt(p * (1 - q))
        sine = (q - p) / jnp.where(total > 0, total, 1)
        return 2 * jnp.arctan2(sine, safe_sqrt(p * q) + safe_sqrt((1 - p) * (1 - q)))

    def sufficient_statistic(self, x: Num[Array, ""]) -> Vector:
        """``(x,)``."""
        return jnp.reshape(jnp.asarray(x), 1)

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

    factor: ClassVar[float] = 1.0

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
    def factor(self) -> Int[Array, ""]:
        """``n``."""
        return self.n

    def sample(self, key: PRNGKeyArray, theta: Point, n: int) -> Int[Array, " n"]:
        """``n`` samples, numbers of successes."""
        return jax.random.binomial(key, self._trials(theta), theta[0], (n,)).astype(int)
