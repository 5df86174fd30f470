"""Expectations over the distributions of a family, as points with weights.

An expectation is a set of points x_i with weights w_i: all outcomes with their probabilities (`ExactSum`), the nodes of
a quadrature rule with its weights times the density (`Quadrature`), or random samples with equal weights
(`MonteCarlo`).
"""

import abc
import functools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ..._checks import check_count, setting
from ..._types import Point
from ..base import AbstractFamily

# How far a double exponential rule reaches in t: to 1e25, where tails have nothing left; in float64, at ends of the
# interval, to 1e-120, for strong singularities.
_REACH, _REACH_END = 4.3, 5.8
_MOST_NODES = 2**20


class AbstractExpectation(eqx.Module):
    """How an expectation over the distributions of a family is computed."""

    @abc.abstractmethod
    def points(self, family: AbstractFamily, theta: Point) -> tuple[Array, Float[Array, " n"]]:
        """Points ``x``, shape ``(n, *sample_shape)``, and their weights, shape ``(n,)``; differentiable with respect
        to ``theta``."""


class ExactSum(AbstractExpectation):
    """The sum over a finite set of ``outcomes``, shape ``(n, *sample_shape)``, that has all probability (up to
    1e-6 in float64).

    Raises ``ValueError`` if there are none. For a distribution on infinitely many outcomes, give those that matter at
    all ``theta`` of interest.
    """

    outcomes: Array

    def __init__(self, outcomes: Any):
        self.outcomes = jnp.asarray(outcomes)
        if self.outcomes.ndim == 0 or len(self.outcomes) == 0:
            raise ValueError(f"`outcomes` must have shape (n, *sample_shape) with n >= 1, got {self.outcomes.shape}")

    def points(self, family: AbstractFamily, theta: Point) -> tuple[Array, Float[Array, " n"]]:
        """The outcomes and their probabilities."""
        return _weighted(family, theta, self.outcomes, jnp.zeros(len(self.outcomes), theta.dtype))


class Quadrature(AbstractExpectation):
    """Double exponential quadrature (Takahasi & Mori 1974) over the interval from ``low`` to ``high``, each finite or
    infinite, with ``nodes`` points.

    For samples that are vectors ``(d,)``, the product of such rules: over the same interval in every coordinate, or
    ``low`` and ``high`` are tuples of d. It has ``nodes^d`` points, of which a million are allowed.

    Accurate to many digits for densities that are smooth inside the interval, also where they have heavy tails or are
    infinite at its ends (at an end other than 0, floating-point numbers do not come close enough for strong
    singularities). On an infinite interval the nodes are close together near 0 (near ``low`` or ``high``, if one of
    them is finite) and further apart away from there: a narrow density far away needs more of them, which is reported
    (its integral must be one, up to 1e-6 in float64).
    """

    low: float | tuple[float, ...] = eqx.field(static=True, default=-math.inf)
    high: float | tuple[float, ...] = eqx.field(static=True, default=math.inf)
    nodes: int = setting(400)

    def __check_init__(self):
        check_count("nodes", self.nodes, 3)
        try:
            below = np.less(self.low, self.high)
        except (TypeError, ValueError):
            below = np.asarray(False)
        if below.ndim > 1 or not below.all():
            raise ValueError(f"`low` must be below `high`, numbers or tuples, got {self.low!r} and {self.high!r}")

    def points(self, family: AbstractFamily, theta: Point) -> tuple[Array, Float[Array, " n"]]:
        """The nodes, and the weights of the rule times the density."""
        shape = family.sample_shape
        d = math.prod(shape)
        ends = np.broadcast_arrays(self.low, self.high)
        if len(shape) > 1 or ends[0].size not in (1, d):
            raise ValueError(
                f"`Quadrature` is for numbers or for vectors with an interval for each coordinate, got sample_shape "
                f"{shape} and {ends[0].size} intervals"
            )
        if self.nodes**d > _MOST_NODES:
            raise ValueError(
                f"`Quadrature` would take {self.nodes}^{d} nodes for sample_shape {shape}: give it fewer `nodes`, or "
                "use MonteCarlo"
            )
        intervals = np.broadcast_to(np.stack(ends, -1), (d, 2)).tolist()
        rules = [self._rule(low, high, theta.dtype) for low, high in intervals]
        nodes, log_weights = zip(*rules, strict=True)
        x = np.stack(np.meshgrid(*nodes, indexing="ij"), -1).reshape(-1, *shape)
        log_weights = functools.reduce(np.add.outer, log_weights).reshape(-1)
        return _weighted(family, theta, jnp.asarray(x), jnp.asarray(log_weights))

    def _rule(self, low: float, high: float, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
        x, log_weights = (rule.astype(dtype) for rule in self._transformed(low, high, jnp.finfo(dtype).bits))
        # Nodes that were rounded to an end are left out, and subnormal ones, which processors take for zero.
        good = (x > low) & (x < high) & ((x == 0) | (np.abs(x) >= jnp.finfo(dtype).tiny))
        return x, np.where(good, log_weights, -np.inf)

    def _transformed(self, low: float, high: float, bits: int) -> tuple[np.ndarray, np.ndarray]:
        bounded = math.isfinite(low) or math.isfinite(high)
        reach = _REACH if bits < 64 or not bounded else _REACH_END
        t = np.linspace(-reach, reach, self.nodes)
        y, log_dy = np.pi / 2 * np.sinh(t), np.log(np.pi / 2 * np.cosh(t) * (t[1] - t[0]))
        if math.isfinite(low) and math.isfinite(high):
            width = high - low
            # Distances from the nearer end, so that they stay positive next to an end at zero.
            gap = width / (1 + np.exp(2 * np.abs(y)))
            x = np.where(y < 0, low + gap, high - gap)
            log_weights = log_dy + np.log(2 * width) - 2 * np.abs(y) - 2 * np.log1p(np.exp(-2 * np.abs(y)))
        elif math.isfinite(low):
            x, log_weights = low + np.exp(y), log_dy + y
        elif math.isfinite(high):
            x, log_weights = high - np.exp(-y), log_dy - y
        else:
            x, log_weights = np.sinh(y), log_dy + np.logaddexp(y, -y) - np.log(2)
        return x, log_weights


class MonteCarlo(AbstractExpectation):
    """The mean over ``samples`` random samples, always from the same ``key``: a deterministic function of ``theta``.

    It is a smooth one, with the right derivatives, as geodesics need, if the family's ``sample`` is a smooth function
    of ``theta`` for a fixed key (reparameterised), as for continuous distributions of ``jax.random``. Samplers of one's
    own that compare a random number with a threshold are not. For discrete distributions, whose samples jump, the
    Fisher matrix can be computed but not differentiated, which raises ``TypeError``: use `ExactSum`.
    """

    key: PRNGKeyArray
    samples: int = eqx.field(static=True)

    def __init__(self, samples: int = 10_000, key: PRNGKeyArray | None = None):
        check_count("samples", samples, 2)
        self.samples = samples
        self.key = jax.random.key(0) if key is None else key

    def points(self, family: AbstractFamily, theta: Point) -> tuple[Array, Float[Array, " n"]]:
        """The samples, and equal weights."""

        def draw(theta):
            return family.sample(self.key, theta, self.samples)

        discrete = not jnp.issubdtype(jax.eval_shape(draw, theta).dtype, jnp.inexact)
        x = draw(_without_derivative(theta) if discrete else theta)
        return x, jnp.full(self.samples, 1 / self.samples, theta.dtype)


@jax.custom_jvp
def _without_derivative(theta: Point) -> Point:
    return theta


@_without_derivative.defjvp
def _refuse_derivative(primals, tangents):
    raise TypeError(
        "a Monte Carlo estimate with discrete samples is not a smooth function of theta, so it has no geodesics: use "
        "ExactSum as `expectation`"
    )


def _weighted(family, theta, x, log_weights):
    """``x`` with the weights ``exp(log_weights) p(x)``. Where these vanish, ``x`` is replaced by the likeliest point: a
    log density of minus infinity has no derivative, and zero times that is not zero."""
    log_prob = jax.lax.stop_gradient(jax.vmap(lambda x: family.log_prob(theta, x))(x))
    keep = log_prob + log_weights > jnp.log(jnp.finfo(theta.dtype).tiny)  # False also for NaN
    best = jnp.argmax(jnp.where(keep, log_prob, -jnp.inf))
    x = jnp.where(keep.reshape(-1, *(1,) * (x.ndim - 1)), x, x[best])
    log_prob = jax.vmap(lambda x: family.log_prob(theta, x))(x)
    return x, jnp.where(keep, jnp.exp(log_prob + jnp.where(keep, log_weights, 0)), 0)
