"""Points that minimise a sum of losses of distances: the one search behind means and medians.

With logarithms l_i = log_m(x_i) and distances d_i, the losses (1) of the mean and (2) of the median descend along V:

    F(m) = sum w_i d_i^2 / 2      V = sum w_i l_i                                                         (1)
    F(m) = sum w_i d_i            V = sum w_i l_i / d_i  over d_i > 0, shortened by the weight at m       (2)

(Karcher 1977; Fletcher, Venkatasubramanian & Joshi 2009 for (2), Vardi & Zhang 2000 for the care at data points.) V is
minus the Riemannian gradient. At its zero, with A = -DV, the implicit function theorem gives dm = A^-1 dV at fixed m. A
is self-adjoint in the inner product of the metric there and close to the identity, for which conjugate gradients take a
few steps in any dimension.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .._batching import select
from .._numerics import frozen, safe_sqrt, with_own_settings
from .._results import RESULTS, first_failure
from .._types import Point, Points, Scalar, Vector
from ..geodesics import AbstractBoundarySolver, AbstractStart
from ..metrics import AbstractInnerProduct, AbstractMetric
from ._descent import AbstractObjective, Evaluation, descend
from ._tangent import Logs, all_known, failure, kept_shorter, logs, moved, nothing, starting_paths, weighted_sum

# A median near a data point tries that point: when it is nearer than this part of the mean distance.
_NEAR = 0.1


class Loss(NamedTuple):
    """What is to be least: ``value`` and descent direction ``V`` by ``descend(weights, logs)``, with the step along V
    to try first. ``sharp``: it has a kink at data points."""

    descend: Callable[[Float[Array, " n"], Logs], tuple[Scalar, Vector, Scalar]]
    sharp: bool


def _squares(weights: Float[Array, " n"], at: Logs) -> tuple[Scalar, Vector, Scalar]:
    one = jnp.ones((), weights.dtype)
    return weighted_sum(weights, at.energies), weighted_sum(weights, at.vectors), one


def _distances(weights: Float[Array, " n"], at: Logs) -> tuple[Scalar, Vector, Scalar]:
    away = at.lengths > 0
    pull = jnp.where(away, weights / jnp.where(away, at.lengths, 1), 0)
    total = jnp.sum(pull)
    first = jnp.where(total > 0, 1 / jnp.where(total > 0, total, 1), 1)
    return weighted_sum(weights, at.lengths), weighted_sum(pull, at.vectors), first


MEAN, MEDIAN = Loss(_squares, False), Loss(_distances, True)


class CenterObjective(AbstractObjective):
    """The loss of a point ``m``. ``gtol``: how long V may be relative to the spread; of directions, to one."""

    metric: AbstractMetric
    xs: Points
    weights: Float[Array, " n"]
    solver: AbstractBoundarySolver
    start: AbstractStart
    loss: Loss = eqx.field(static=True)
    gtol: float = eqx.field(static=True)

    def unknown(self, variables: Point) -> Logs:
        return nothing(self.xs, starting_paths(self.metric, variables, self.xs, self.solver, self.start))

    def product(self, variables: Point) -> Callable[[Vector], Vector]:
        return self.metric.at(variables).mv

    def domain(self, variables: Point) -> Scalar:
        return self.metric.domain(variables)

    def evaluate(self, variables: Point, known: Logs, fresh: Bool[Array, ""], again: Bool[Array, ""]) -> Evaluation:
        m, sharp = variables, self.loss.sharp
        before = select(fresh, starting_paths(self.metric, m, self.xs, self.solver, self.start), moved(known.paths, m))
        at = logs(self.metric, m, self.xs, self.solver, before)
        if sharp:
            at = at._replace(lengths=jnp.where(jnp.all(self.xs == m, 1), 0, at.lengths))
        at, surprise = kept_shorter(at, known, self.weights, again)
        value, descent, first = self.loss.descend(self.weights, at)
        norm = self.metric.norm(m, descent)
        rounding = 8 * jnp.finfo(m.dtype).eps
        if sharp:
            # Vardi & Zhang: a data point holds a median with its weight.
            held = jnp.sum(jnp.where(at.lengths > 0, 0, self.weights))
            left = jnp.maximum(norm - held, 0)
            descent, norm = descent * (left / jnp.where(norm > 0, norm, 1)), left
            goal, slack = self.gtol + rounding * jnp.ones_like(norm), weighted_sum(self.weights, at.errors)
        else:
            spread = safe_sqrt(2 * weighted_sum(self.weights, at.energies))
            goal = self.gtol * spread + rounding * self.metric.norm(m, m)
            slack = weighted_sum(self.weights, at.errors * at.lengths)
        usable = jnp.isfinite(value) & jnp.isfinite(norm) & all_known(at, self.weights)
        slack = jnp.where(jnp.isfinite(slack), slack, 0)
        return Evaluation(value, descent, norm, goal, first, slack, usable, surprise, at)

    def jump(
        self, variables: Point, at: Evaluation, tried: Bool[Array, " n"]
    ) -> tuple[Bool[Array, ""], Point, Bool[Array, " n"]]:
        """To the nearest data point: a kink bends V at all distances, so no step towards it is as good."""
        if not self.loss.sharp:
            return super().jump(variables, at, tried)
        lengths = at.known.lengths
        nearest = jnp.argmin(jnp.where((self.weights > 0) & ~tried, lengths, jnp.inf))
        near = ~tried[nearest] & (lengths[nearest] <= _NEAR * at.value) & (lengths[nearest] > 0)
        return near, self.xs[nearest], tried.at[nearest].set(True)


class Found(NamedTuple):
    """A center: the point, the logarithms and so on there, the length of V, the code and the number of evaluations."""

    point: Point
    at: Logs
    gradient_norm: Scalar
    result: RESULTS
    steps: Int[Array, ""]


@eqx.filter_custom_jvp
def center(max_steps: int, objective: CenterObjective, init: Point) -> Found:
    """The center that the search from ``init`` ends in, differentiable with respect to everything in ``objective`` in
    both modes. ``init`` has no influence on where a center is, so its tangent is ignored."""
    xs = objective.xs
    ended = descend(objective, init, xs.shape[0], max_steps, 16 * xs.size)  # paths of 16 numbers
    at = ended.at.known
    result = first_failure(
        [
            (objective.metric.domain(ended.variables) <= 0, RESULTS.outside_domain),
            (jnp.any(jnp.isnan(objective.weights)), RESULTS.metric_nonfinite),
            (True, failure(at.results, objective.weights > 0)),
        ]
    )
    unfinished = (result == RESULTS.successful) & ~ended.converged
    result = RESULTS.where(unfinished, RESULTS.not_converged, result)
    return Found(ended.variables, at, ended.at.norm, result, ended.steps)


@center.def_jvp
@with_own_settings
def _center_jvp(primals, tangents):
    max_steps, objective, init = primals
    found = center(max_steps, objective, init)
    dynamic, static = eqx.partition(objective, eqx.is_inexact_array)
    dots = jax.tree.map(
        lambda p, t: jnp.zeros_like(p) if t is None and p is not None else t,
        dynamic,
        tangents[1],
        is_leaf=lambda leaf: leaf is None,
    )
    paths = frozen(found.at.paths)

    def evaluate(m, dynamic):
        own = eqx.combine(dynamic, static)
        at = logs(own.metric, m, own.xs, own.solver, moved(paths, jax.lax.stop_gradient(m)))
        return own.loss.descend(own.weights, at)[1], (at.vectors, at.energies, at.lengths)

    _, linear = jax.linearize(evaluate, found.point, dynamic)
    still, fixed = jnp.zeros_like(found.point), jax.tree.map(jnp.zeros_like, dynamic)
    product = frozen(objective.metric).at(jax.lax.stop_gradient(found.point))

    def back(matvec, b):
        # The transpose of A is G A G^-1.
        def adjoint(v):
            return product.solve(matvec(product.mv(v)))

        return product.mv(_conjugate_gradients(adjoint, product, product.solve(b)))

    dot = jax.lax.custom_linear_solve(
        lambda v: -linear(v, fixed)[0],
        linear(still, dots)[0],
        lambda matvec, b: _conjugate_gradients(matvec, product, b),
        transpose_solve=back,
    )
    if objective.loss.sharp:
        # A median that is a data point moves with it.
        held = jnp.all(objective.xs == found.point, 1)
        dot = jnp.where(jnp.any(held), dots.xs[jnp.argmax(held)], dot)
    vectors, energies, lengths = linear(dot, dots)[1]
    zeros = jax.tree.map(lambda leaf: jnp.zeros_like(leaf) if eqx.is_inexact_array(leaf) else None, found)
    at = zeros.at._replace(vectors=vectors, energies=energies, lengths=lengths)
    return found, zeros._replace(point=dot, at=at)


def _conjugate_gradients(matvec: Callable[[Vector], Vector], product: AbstractInnerProduct, b: Vector) -> Vector:
    """``A^-1 b`` for an A that is self-adjoint and positive in ``product``, and close to the identity."""
    goal = (10 * jnp.finfo(b.dtype).eps) ** 2 * product.squared_norm(b)

    def going(state):
        _, _, _, size, k = state
        return (size > goal) & (k < 2 * b.size + 10)

    def step(state):
        x, r, p, size, k = state
        image = matvec(p)
        curvature = product.inner(p, image)
        alpha = size / jnp.where(curvature == 0, 1, curvature)
        x, r = x + alpha * p, r - alpha * image
        new = product.squared_norm(r)
        return x, r, r + new / size * p, new, k + 1

    return jax.lax.while_loop(going, step, (jnp.zeros_like(b), b, b, product.squared_norm(b), 0))[0]
