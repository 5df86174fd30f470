"""Langevin diffusion in a metric, unadjusted and Metropolis-adjusted (Girolami & Calderhead 2011; Xifara et al. 2014).

    dx = 1/2 [G^-1 grad log pi + div G^-1] dt + G^{-1/2} dW                                              (1)

keeps pi, a density with respect to Lebesgue's measure, invariant. A step of Euler's over the time 2 h is

    y = m(x) + sqrt(2 h) G(x)^{-1/2} z,    m(x) = x + h [G^-1 grad log pi + div G^-1](x),    z ~ N(0, I)  (2)
    log q(y | x) = 1/2 log det G(x) - <y - m(x), y - m(x)>_G(x) / (4 h) + const                          (3)

and is accepted with probability ``min(1, pi(y) q(x | y) / (pi(x) q(y | x)))``. For G = I it is MALA.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import ArrayLike, PRNGKeyArray

from ..._checks import as_scalar
from ..._numerics import with_own_settings
from ..._traces import check_probes
from ..._types import Point, Scalar, Vector
from ...geodesics.initial_value import all_finite
from ...metrics import AbstractMetric
from ...scores import AbstractScore
from .base import AbstractSampler, Info, accept, check_start, inside_domain
from .divergence import Probes, divergence_of_inverse, draw_probes, exact_divergence_dim, logdet
from .targets import Target, as_density, as_target, density_and_score, knows_density

# Folded into the key of a step for its random directions; the key itself is split as in blackjax.
_PROBES = 2


class LangevinState(eqx.Module):
    """Where a Langevin chain is, and what the next step needs to know of it.

    **Fields**: ``position`` ``(d,)``; ``log_prob``, NaN where only a score is known; ``score``, its gradient;
    ``drift``, that of equation (2) without h.
    """

    position: Point
    log_prob: Scalar
    score: Vector
    drift: Vector


class Langevin(AbstractSampler):
    """Langevin dynamics in a metric: the metric says how far steps go in which direction.

    **Arguments**

    - ``metric``: the metric, in which noise and gradients are taken. Stein metrics cost O(d) besides the score.
    - ``log_prob``: the target density with respect to Lebesgue's measure, up to a constant: a function ``x -> log p``
      or a score with ``log_prob``. If not ``adjusted``, a score alone will do. For densities with respect to the volume
      of the metric see `with_volume`.
    - ``step_size``: h of equation (2), positive, traced; the variance of a step is 2 h in units of the metric. As in
      blackjax, whose MALA this is for the Euclidean metric, key by key.
    - ``adjusted``: accept or reject, so that the target is met exactly. Otherwise the error is of order h.
    - ``probes``: of metrics without a cheap divergence (`inverse_divergence`), estimate it from so many random
      directions, new ones in each step. The adjusted sampler stays exact.

    A step to where log p is minus infinity, or out of the domain of the metric, is not taken.

    >>> import equinox as eqx, jax, jax.numpy as jnp
    >>> from scoregeo import GaussianScore, SteinMetric
    >>> from scoregeo.statistics import Langevin
    >>> target = GaussianScore(jnp.zeros(2), jnp.eye(2))
    >>> sampler = Langevin(SteinMetric(target, 0.5), target, 0.3)
    >>> state, info = eqx.filter_jit(sampler.step)(jax.random.key(0), sampler.init(jnp.ones(2)))
    >>> state.position.shape
    (2,)
    """

    metric: AbstractMetric
    target: AbstractScore
    step_size: Scalar
    adjusted: bool = eqx.field(static=True)
    probes: int | None = eqx.field(static=True)

    def __init__(
        self,
        metric: AbstractMetric,
        log_prob: Target,
        step_size: ArrayLike,
        *,
        adjusted: bool = True,
        probes: int | None = None,
    ):
        self.metric = metric
        self.target = as_density(log_prob, "an adjusted Langevin sampler") if adjusted else as_target(log_prob)
        self.step_size = as_scalar(step_size, "step_size", positive=True)
        self.adjusted = bool(adjusted)
        self.probes = None if probes is None else check_probes(probes, "given in each step", 1)

    @with_own_settings
    def init(self, x: Point) -> LangevinState:
        """The state of a chain at ``x``, ``(d,)``; raises ``ValueError`` where the exact divergence is out of reach."""
        x = check_start(self.metric, x)
        limit = exact_divergence_dim(self.metric)
        if self.probes is None and limit is not None and x.size > limit:
            raise ValueError(
                f"`probes` must be given to a Langevin sampler in {x.size} dimensions: the divergence of the inverse "
                f"of a {type(self.metric).__name__} is computed exactly up to {limit}"
            )
        return self._state(x, None if self.probes is None else jnp.zeros((1, x.size), x.dtype))

    @with_own_settings
    def step(self, key: PRNGKeyArray, state: LangevinState) -> tuple[LangevinState, Info]:
        """One step of equation (2), accepted or not."""
        key_noise, key_accept = jax.random.split(key)
        x = state.position
        probes = draw_probes(self.probes, jax.random.fold_in(key, _PROBES), x)
        # Forward and back with the same directions: what they are has nothing to do with where the chain is.
        drift = state.drift if probes is None else self._drift(x, state.score, probes)
        h = self.step_size.astype(x.dtype)
        noise = jax.random.normal(key_noise, x.shape, x.dtype)
        here = self.metric.at(x)
        new = self._state(x + h * drift + jnp.sqrt(2 * h) * here.inv_sqrt_mv(noise), probes)
        finite = all_finite(new.position, new.drift) & ~(jnp.isnan(new.log_prob) & knows_density(self.target))
        if not self.adjusted:
            moves = finite & ~jnp.isneginf(new.log_prob)
            probability = moves.astype(x.dtype)
            chosen = jax.tree.map(lambda a, b: jnp.where(moves, a, b), new, state)
            return chosen, Info(probability, moves, ~finite)
        there = self.metric.at(new.position)
        back = there.squared_norm(x - new.position - h * new.drift) / (4 * h)
        log_ratio = new.log_prob - state.log_prob + (noise @ noise) / 2 - back
        log_ratio = log_ratio + (logdet(there, x) - logdet(here, x)) / 2
        chosen, probability, accepted = accept(key_accept, log_ratio, state, new)
        return chosen, Info(probability, accepted, ~finite)

    def _state(self, x: Point, probes: Probes) -> LangevinState:
        if knows_density(self.target):
            log_prob, score = density_and_score(self.target, x)
            log_prob = inside_domain(self.metric, x, log_prob)
        else:
            score = self.target(x).astype(x.dtype)
            log_prob = inside_domain(self.metric, x, jnp.asarray(jnp.nan, x.dtype))
        return LangevinState(x, log_prob, score, self._drift(x, score, probes))

    def _drift(self, x: Point, score: Vector, probes: Probes) -> Vector:
        return self.metric.at(x).solve(score) + divergence_of_inverse(self.metric, x, probes)
