"""Lagrangian Monte Carlo: Hamiltonian Monte Carlo in a metric, by an explicit integrator (Lan et al. 2015).

Positions and velocities have the density of ``exp(-E)``, and move along Lagrange's equation,

    E(x, v) = - log pi(x) - 1/2 log det G(x) + 1/2 <v, v>                                                (1)
    x' = v,      v' = - Gamma(v, v) - f,      f = G^-1 grad( - log pi + 1/2 log det G)                   (2)

A step of size h is half a kick, a move ``x + h v``, and half a kick, which is reversible and explicit:

    v* + h/2 Gamma(v, v*) = v - h/2 f,     dv*/dv = (I + h/2 Omega(v))^-1 (I - h/2 Omega(v*))             (3)

with the linear map ``Omega(v) = Gamma(v, .)``. Volume is not kept, so that the determinants of (3) are part of the
probability of acceptance. For G = I this is the leapfrog method of Hamiltonian Monte Carlo. For metrics I + lam s s^T
see also Hartmann, Girolami & Klami 2022 (arXiv 2202.00755).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import ArrayLike, PRNGKeyArray

from ..._checks import as_scalar, check_count
from ..._numerics import with_own_settings
from ..._types import Point, Scalar, Vector
from ...metrics import AbstractMetric
from ...scores import AbstractScore
from .base import DIVERGED, AbstractSampler, Info, accept, check_start, inside_domain
from .connection import Connection, connection
from .divergence import logdet_and_gradient
from .targets import Target, as_density, density_and_score


class LagrangianState(eqx.Module):
    """Where a chain is: ``position`` ``(d,)``, ``log_prob``, ``logdet`` of the metric, and ``force``, f of (2)."""

    position: Point
    log_prob: Scalar
    logdet: Scalar
    force: Vector


class LagrangianMonteCarlo(AbstractSampler):
    """Trajectories of a particle whose mass depends on place and direction, accepted or rejected as a whole.

    **Arguments**

    - ``metric``: the metric, which is the mass. Euclidean, conformal and Stein metrics of conservative scores cost
      O(d) besides the score; any other has matrices of its connection made, up to d = 64. Beyond that, Stein metrics of
      scores with curl cost O(d) too, by trajectories that are no geodesics but keep the energy (`connection`, (3)).
    - ``log_prob``: the target density with respect to Lebesgue's measure, up to a constant: a function ``x -> log p``
      or a score with ``log_prob``. See `with_volume` for densities with respect to the volume of the metric.
    - ``step_size``: h of equation (3), positive, traced. ``steps``: how many make a trajectory, static.

    For the Euclidean metric this is Hamiltonian Monte Carlo, blackjax's key by key. ``info.diverged`` says that the
    energy (1) was off by more than 1000 at the end, or not finite.

    >>> import equinox as eqx, jax, jax.numpy as jnp
    >>> from scoregeo import GaussianScore, SteinMetric
    >>> from scoregeo.statistics import LagrangianMonteCarlo
    >>> target = GaussianScore(jnp.zeros(2), jnp.eye(2))
    >>> sampler = LagrangianMonteCarlo(SteinMetric(target, 0.5), target, 0.3, steps=5)
    >>> state, info = eqx.filter_jit(sampler.step)(jax.random.key(0), sampler.init(jnp.ones(2)))
    >>> bool(info.acceptance_rate > 0.8)
    True
    """

    metric: AbstractMetric
    target: AbstractScore
    step_size: Scalar
    steps: int = eqx.field(static=True)

    def __init__(self, metric: AbstractMetric, log_prob: Target, step_size: ArrayLike, steps: int = 10):
        self.metric = metric
        self.target = as_density(log_prob, "LagrangianMonteCarlo")
        self.step_size = as_scalar(step_size, "step_size", positive=True)
        self.steps = check_count("steps", steps)

    @with_own_settings
    def init(self, x: Point) -> LagrangianState:
        """The state of a chain at ``x``, ``(d,)``; raises ``ValueError`` where the metric has no connection that can be
        inverted in so many dimensions."""
        x = check_start(self.metric, x)
        jax.eval_shape(lambda y: connection(self.metric, y)(y), x)
        return self._state(x)

    @with_own_settings
    def step(self, key: PRNGKeyArray, state: LagrangianState) -> tuple[LagrangianState, Info]:
        """A trajectory with a new velocity, accepted or not."""
        key_velocity, key_accept = jax.random.split(key)
        x = state.position
        noise = jax.random.normal(key_velocity, x.shape, x.dtype)
        velocity = self.metric.at(x).inv_sqrt_mv(noise)
        new, velocity, log_jacobian = self._trajectory(state, velocity)
        kinetic = self.metric.at(new.position).squared_norm(velocity) / 2
        log_ratio = _log_joint(new, kinetic) - _log_joint(state, noise @ noise / 2) + log_jacobian
        chosen, probability, accepted = accept(key_accept, log_ratio, state, new)
        outside = jnp.isneginf(new.log_prob)
        return chosen, Info(probability, accepted, ~outside & ~(log_ratio > -DIVERGED))

    def _state(self, x: Point) -> LagrangianState:
        log_prob, score = density_and_score(self.target, x)
        volume, gradient = logdet_and_gradient(self.metric, x)
        force = self.metric.at(x).solve(gradient / 2 - score)
        return LagrangianState(x, inside_domain(self.metric, x, log_prob), volume, force)

    def _trajectory(self, state: LagrangianState, velocity: Vector) -> tuple[LagrangianState, Vector, Scalar]:
        """The state and the velocity after all steps, and the log determinant of the map from the first to the last.

        The second kick of a step and the first of the next one are at the same point, whose connection is asked once:
        after the last step there is a kick too many, which does not count.
        """
        h = self.step_size.astype(velocity.dtype)

        def step(_, carry):
            here, kicked, _, _, total = carry
            here = self._state(here.position + h * kicked)
            gamma = connection(self.metric, here.position)
            velocity, change = _kick(gamma, here.force, h / 2, kicked)
            kicked, further = _kick(gamma, here.force, h / 2, velocity)
            return here, kicked, velocity, total + change, total + change + further

        kicked, total = _kick(connection(self.metric, state.position), state.force, h / 2, velocity)

        end, _, velocity, total, _ = jax.lax.fori_loop(0, self.steps, step, (state, kicked, velocity, total, total))
        return end, velocity, total


def _kick(gamma: Connection, force: Vector, c: Scalar, v: Vector) -> tuple[Vector, Scalar]:
    """Equation (3) with c for h/2: the new velocity, and the log determinant of its derivative."""
    kicked, below = gamma(v).solve_shifted(c, v - c * force)
    _, above = gamma(kicked).solve_shifted(-c, kicked)
    return kicked, above - below


def _log_joint(state: LagrangianState, kinetic: Scalar) -> Scalar:
    """Minus the energy (1)."""
    return state.log_prob + state.logdet / 2 - kinetic
