"""Geodesics fitted to points: the objective behind regressions and principal geodesics.

Of a curve of points e_i(theta), each on a geodesic ``exp_p(t_i u)``, and data y_i with logarithms r_i = log_{e_i}(y_i),

    F = 1/2 sum w_i d(e_i, y_i)^2,       dF = - sum w_i <r_i, de_i>                                         (1)

so that the gradient is one transposed derivative of the exponential map, of covectors G r_i (Fletcher, Geodesic
regression and the theory of least squares on Riemannian manifolds, IJCV 2013).
"""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._batching import select
from .._numerics import safe_sqrt
from .._types import Points, Scalar, Vector
from ..geodesics import AbstractBoundarySolver, AbstractStart
from ..geodesics.shooting.flow import bare_end_point
from ..metrics import AbstractMetric
from ._descent import AbstractObjective, Evaluation
from ._tangent import all_known, kept_shorter, logs, moved, nothing, starting_paths, weighted_sum


class AbstractFit(AbstractObjective):
    """The loss (1). A subclass says where the points of the curve are, and how to raise its gradient."""

    metric: eqx.AbstractVar[AbstractMetric]
    ys: eqx.AbstractVar[Points]
    weights: eqx.AbstractVar[Float[Array, " n"]]
    solver: eqx.AbstractVar[AbstractBoundarySolver]
    start: eqx.AbstractVar[AbstractStart]
    gtol: eqx.AbstractVar[float]

    @abc.abstractmethod
    def points(self, variables: Vector) -> Points:
        """The points ``(n, d)`` of the curve that belong to the data."""

    @abc.abstractmethod
    def raised(self, variables: Vector, gradient: Vector) -> Vector:
        """A gradient as a vector, in the inner product of `product`."""

    @abc.abstractmethod
    def size(self, variables: Vector) -> Scalar:
        """The squared length that the curve spreads over."""

    def unknown(self, variables: Vector) -> Any:
        # The curve is not known yet: nothing starts from these.
        return nothing(self.ys, starting_paths(self.metric, self.ys, self.ys, self.solver, self.start))

    def evaluate(self, variables: Vector, known: Any, fresh: Bool[Array, ""], again: Bool[Array, ""]) -> Evaluation:
        points, transposed = jax.vjp(self.points, variables)
        anew = starting_paths(self.metric, points, self.ys, self.solver, self.start)
        at = logs(self.metric, points, self.ys, self.solver, select(fresh, anew, moved(known.paths, points)))
        at, surprise = kept_shorter(at, known, self.weights, again)
        covectors = jax.vmap(lambda e, r: self.metric.at(e).mv(r))(points, at.vectors)
        weights = self.weights[:, None]
        descent = self.raised(variables, transposed(jnp.where(weights > 0, weights * covectors, 0))[0])
        value = weighted_sum(self.weights, at.energies)
        norm = safe_sqrt(self.product(variables)(descent) @ descent)
        rounding = 8 * jnp.finfo(variables.dtype).eps
        goal = self.gtol * safe_sqrt(self.size(variables) + 2 * value) + rounding * self._rounding(variables)
        slack = weighted_sum(self.weights, at.errors * at.lengths)
        usable = jnp.isfinite(value) & jnp.isfinite(norm) & all_known(at, self.weights)
        slack = jnp.where(jnp.isfinite(slack), slack, 0)
        return Evaluation(value, descent, norm, goal, jnp.ones_like(value), slack, usable, surprise, at)

    def _rounding(self, variables: Vector) -> Scalar:
        p = self.ys[0]
        return self.metric.norm(p, p)


def ends(metric: AbstractMetric, p: Vector, u: Vector, ts: Float[Array, " n"]) -> Points:
    """``exp_p(t u)`` at all times: NaN where the geodesic leaves the domain."""
    return jax.vmap(lambda t: bare_end_point(metric, p, t * u))(ts)


class RegressionObjective(AbstractFit):
    """Variables are the point p where t = 0 and the velocity u there, of times whose mean is zero and mean square one:
    then (1) is about ``|dp|^2 + |du|^2``, whatever the data."""

    metric: AbstractMetric
    ts: Float[Array, " n"]
    ys: Points
    weights: Float[Array, " n"]
    solver: AbstractBoundarySolver
    start: AbstractStart
    gtol: float = eqx.field(static=True)

    def points(self, variables: Vector) -> Points:
        p, u = jnp.split(variables, 2)
        return ends(self.metric, p, u, self.ts)

    def product(self, variables: Vector) -> Callable[[Vector], Vector]:
        mv = self.metric.at(jnp.split(variables, 2)[0]).mv
        return lambda v: jnp.concatenate([mv(part) for part in jnp.split(v, 2)])

    def raised(self, variables: Vector, gradient: Vector) -> Vector:
        solve = self.metric.at(jnp.split(variables, 2)[0]).solve
        return jnp.concatenate([solve(part) for part in jnp.split(gradient, 2)])

    def size(self, variables: Vector) -> Scalar:
        return self.metric.at(jnp.split(variables, 2)[0]).squared_norm(jnp.split(variables, 2)[1])

    def domain(self, variables: Vector) -> Scalar:
        return self.metric.domain(jnp.split(variables, 2)[0])


class PrincipalObjective(AbstractFit):
    """Variables are a vector u at the mean, and a time for each point on the geodesic along it. Of u, what is
    orthogonal to ``earlier`` ``(k, d)``, orthonormal or zero, counts. ``unit``: the squared length of one time."""

    metric: AbstractMetric
    mean: Vector
    earlier: Float[Array, "k d"]
    unit: Scalar
    ys: Points
    weights: Float[Array, " n"]
    solver: AbstractBoundarySolver
    start: AbstractStart
    gtol: float = eqx.field(static=True)

    def split(self, variables: Vector) -> tuple[Vector, Float[Array, " n"]]:
        """The direction, orthogonal to earlier ones, and the times."""
        d = self.mean.size
        return self.orthogonal(variables[:d]), variables[d:]

    def orthogonal(self, u: Vector) -> Vector:
        """``u`` without its parts along earlier directions."""
        return u - self.earlier.T @ (self.earlier @ self.metric.at(self.mean).mv(u))

    def points(self, variables: Vector) -> Points:
        u, ts = self.split(variables)
        return ends(self.metric, self.mean, u, ts)

    def product(self, variables: Vector) -> Callable[[Vector], Vector]:
        d, mv = self.mean.size, self.metric.at(self.mean).mv
        return lambda v: jnp.concatenate([mv(v[:d]), self.unit * self.weights * v[d:]])

    def raised(self, variables: Vector, gradient: Vector) -> Vector:
        d = self.mean.size
        scale = self.unit * self.weights
        times = jnp.where(scale > 0, gradient[d:] / jnp.where(scale > 0, scale, 1), 0)
        return jnp.concatenate([self.orthogonal(self.metric.at(self.mean).solve(gradient[:d])), times])

    def size(self, variables: Vector) -> Scalar:
        u, ts = self.split(variables)
        return self.metric.at(self.mean).squared_norm(u) * jnp.sum(self.weights * ts**2)
