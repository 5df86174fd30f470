"""The interface of a sampler, and the step that all of them end with: accept or stay."""

import abc
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PRNGKeyArray

from ..._checks import as_point, is_concrete
from ..._types import Point, Scalar
from ...geodesics.checks import check_metric
from ...metrics import AbstractMetric

_State = TypeVar("_State")
# An error of the energy beyond this one is no rounding and no step that is a little long (as in Stan and blackjax).
DIVERGED = 1000.0


class Info(eqx.Module):
    """What a step of a sampler did.

    **Fields**: ``acceptance_rate``, the probability with which its proposal was accepted; ``accepted``, whether it was;
    ``diverged``, whether something was not finite there, or the energy off by more than 1000: the step was too long.
    """

    acceptance_rate: Scalar
    accepted: Bool[Array, ""]
    diverged: Bool[Array, ""]


class AbstractSampler(eqx.Module):
    """A Markov chain in a metric, as in blackjax: ``init(x) -> state`` and ``step(key, state) -> (state, info)``.

    Samplers, states (with a field ``position``) and `Info` are pytrees, so that ``jax.lax.scan`` makes a chain and
    ``jax.vmap`` several. Metric and target are traced: new values do not compile again. `sample` runs chains.
    """

    metric: eqx.AbstractVar[AbstractMetric]

    @abc.abstractmethod
    def init(self, x: Point) -> Any:
        """The state of a chain that starts at ``x``, shape ``(d,)``."""

    @abc.abstractmethod
    def step(self, key: PRNGKeyArray, state: Any) -> tuple[Any, Info]:
        """The next state, and what happened."""


def check_start(metric: AbstractMetric, x: Any) -> Point:
    """``x`` as a point on which ``metric`` can be evaluated, and inside its domain where that can be seen now."""
    x = as_point(x, "x")
    check_metric(metric, x)
    inside = metric.domain(x) > 0
    if is_concrete(inside) and not bool(inside):
        raise ValueError(f"`x` must be inside the domain of the metric, got domain(x) = {float(metric.domain(x)):.4g}")
    return x


def inside_domain(metric: AbstractMetric, x: Point, log_density: Scalar) -> Scalar:
    """``log_density``, with minus infinity outside the domain of ``metric``, where there is nothing."""
    return jnp.where(metric.domain(x) > 0, log_density, -jnp.inf)


def accept(key: PRNGKeyArray, log_ratio: Scalar, old: _State, new: _State) -> tuple[_State, Scalar, Bool[Array, ""]]:
    """``new`` with probability ``min(1, exp(log_ratio))``, else ``old``; the probability, and whether it is the new.

    A ratio that is NaN counts as zero.
    """
    probability = jnp.exp(jnp.minimum(jnp.where(jnp.isnan(log_ratio), -jnp.inf, log_ratio), 0))
    accepted = jax.random.bernoulli(key, probability)
    return jax.tree.map(lambda a, b: jnp.where(accepted, a, b), new, old), probability, accepted
