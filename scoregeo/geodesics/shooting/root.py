"""Newton's method for the states at which the segments of a shooting path match, and their derivatives.

See `shooting` for the equations.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array

from ..._numerics import safe_sqrt
from ..._types import Matrix, Point, Points, Scalar, Vector
from ..spectral.implicit import linearisation
from .flow import (
    CONVERGED,
    MISSED,
    NONFINITE,
    RUNNING,
    Flow,
    FlowProblem,
    ShootingCurve,
    ShootingSettings,
    flow_segments,
    mean_speed,
    replayed,
)

# Where the defects do not fall, the step is divided by this, at most so many times.
_BACKTRACK, _MAX_BACKTRACKS = 3.0, 10
# A step of length s must lower the defects by this times s.
_DECREASE = 0.1
# GMRES keeps so many vectors.
_RESTART = 40


class SegmentStates(NamedTuple):
    """Unknowns, and anything of their shape: inner ``(N - 1, d)`` points and ``(N, d)`` velocities."""

    points: Points
    velocities: Points

    def starts(self, x: Point) -> Points:
        return jnp.concatenate([x[None], self.points])


class Root(NamedTuple):
    """Where the root find ended; ``correction`` is the relative size of its last step."""

    states: SegmentStates
    correction: Scalar
    iterations: Array
    status: Array


def defects(y: Point, states: SegmentStates, ends: Points, end_velocities: Points) -> tuple[Points, Points]:
    """Equation (1): gaps in position ``(N, d)`` and in velocity ``(N - 1, d)``."""
    following = jnp.concatenate([states.points, y[None]])
    return ends - following, end_velocities[:-1] - states.velocities[1:]


def _flattened(gaps: Points, kinks: Points) -> SegmentStates:
    """``P^-1`` of the defects: the change of states that closes them in Euclidean space, with the sign of (1)."""
    n = gaps.shape[0]
    # States move on by dx_{i+1} = dx_i + dv_i / n - gap_i, dv_{i+1} = dv_i - kink_i, from dx_0 = 0 to dx_n = 0.
    kinks = jnp.concatenate([jnp.zeros_like(gaps[:1]), jnp.cumsum(kinks, 0)])
    velocities = jnp.sum(gaps, 0) + jnp.mean(kinks, 0) - kinks
    points = jnp.cumsum(velocities / n - gaps, 0)[:-1]
    return SegmentStates(points, velocities)


class _Aim(NamedTuple):
    """The linear algebra of Newton's method, on flattened `SegmentStates` of ``n`` segments in d dimensions."""

    n: int
    d: int

    @property
    def size(self) -> int:
        return (2 * self.n - 1) * self.d

    def states(self, u: Vector) -> SegmentStates:
        split = (self.n - 1) * self.d
        return SegmentStates(u[:split].reshape(-1, self.d), u[split:].reshape(-1, self.d))

    def residual(self, y: Point, u: Vector, ends: Points, end_velocities: Points) -> Vector:
        """F(u), given the ends that the states flow to; linear in everything together."""
        return _flat(_flattened(*defects(y, self.states(u), ends, end_velocities)))

    def directional(self, pushforward: Callable, direction: Vector) -> Vector:
        """The derivative of F, given that of the ends in the starts."""
        states, zero = self.states(direction), jnp.zeros(self.d, direction.dtype)
        return self.residual(zero, direction, *pushforward(states.starts(zero), states.velocities))

    def matrix(self, pushforward: Callable, dtype: Any) -> tuple[Matrix, Any]:
        """The derivative of F as a matrix, from one pushforward for every component of a state, because segments do not
        interact before they meet; and what the pushforward returns besides, which must not depend on the direction."""

        def column(unit):
            unit = jnp.broadcast_to(unit, (self.n, 2 * self.d))
            ends, other = pushforward(unit[:, : self.d], unit[:, self.d :])
            return jnp.concatenate(ends, -1), other

        blocks, other = jax.vmap(column, out_axes=(-1, None))(jnp.eye(2 * self.d, dtype=dtype))

        def flow(starts, velocities):
            ends = jnp.einsum("nij,nj->ni", blocks, jnp.concatenate([starts, velocities], -1))
            return ends[:, : self.d], ends[:, self.d :]

        return jax.vmap(lambda e: self.directional(flow, e), out_axes=1)(jnp.eye(self.size, dtype=dtype)), other


def _flat(states: SegmentStates) -> Vector:
    return jnp.concatenate([states.points.reshape(-1), states.velocities.reshape(-1)])


def _gmres(matvec: Callable, b: Vector, rtol: float, settings: ShootingSettings) -> Vector:
    operator = lx.FunctionLinearOperator(matvec, jax.ShapeDtypeStruct(b.shape, b.dtype))
    solver = lx.GMRES(
        rtol=rtol, atol=0.0, max_steps=settings.max_gmres, restart=min(_RESTART, b.size), norm=lx.internal.two_norm
    )
    return lx.linear_solve(operator, b, solver, throw=False).value


def _dense_solve(matrix: Array, b: Vector) -> Vector:
    return lx.linear_solve(lx.MatrixLinearOperator(matrix), b, lx.LU(), throw=False).value


class _Newton(NamedTuple):
    """Of the root find: the last good states with the Newton step from there, and the part of it to try next."""

    states: Vector
    size: Scalar
    direction: Vector
    step: Scalar
    tries: Array
    correction: Scalar
    iterations: Array
    status: Array


def _newton(problem: FlowProblem, start: SegmentStates, settings: ShootingSettings) -> Root:
    """States without defects, by damped Newton steps from ``start``."""
    flat, aim = _flat(start), _Aim(*start.velocities.shape)
    dtype, tolerance = flat.dtype, settings.tolerance
    forcing = 1e-6 if jnp.finfo(dtype).bits >= 64 else 1e-3

    def ends(starts, velocities):
        flow = flow_segments(problem, starts, velocities, settings, dense=False)
        return (flow.points, flow.velocities), flow.status

    def cond(root):
        return (root.status == RUNNING) & (root.iterations < settings.max_steps)

    def body(root):
        trial = root.states + root.step * root.direction
        starts, velocities = aim.states(trial).starts(problem.x), aim.states(trial).velocities

        def pushforward(dx, dv):
            reached, tangents, status = jax.jvp(ends, (starts, velocities), (dx, dv), has_aux=True)
            return tangents, (reached, status)

        if aim.size <= settings.max_dense:
            # Defects and their derivative from one loop of the integrator. A step that is refused costs a derivative
            # that is not needed; but these are few, and a second loop takes seconds to compile.
            matrix, (reached, status) = aim.matrix(pushforward, dtype)
        else:
            reached, status = ends(starts, velocities)
        residual = aim.residual(problem.y, trial, *reached)
        first = jnp.isinf(root.size)
        size = _norm(residual, settings)
        good = (status == RUNNING) & jnp.isfinite(size)
        accepted = good & (first | (size <= (1 - _DECREASE * root.step) * root.size))
        b = jnp.where(accepted, -residual, 0)
        if aim.size <= settings.max_dense:
            direction = _dense_solve(matrix, b)
        else:
            direction = _gmres(lambda d: aim.directional(lambda *u: pushforward(*u)[0], d), b, forcing, settings)

        states = jnp.where(accepted, trial, root.states)
        direction = jnp.where(accepted, direction, root.direction)
        speed = mean_speed(aim.states(states).velocities)
        correction = _norm(direction, settings) / jnp.where(speed > 0, speed, 1)
        solvable = jnp.isfinite(correction)
        converged = solvable & (correction <= tolerance)
        # Close to the root the defects are the errors of the integration, and may not fall any further.
        tries = jnp.where(accepted, 0, root.tries + 1)
        stuck = ~solvable | (tries > _MAX_BACKTRACKS) | (~accepted & (root.correction <= 1e3 * tolerance))
        close = solvable & (correction <= 1e3 * tolerance)
        end = jnp.where(converged | (stuck & close), CONVERGED, jnp.where(stuck, MISSED, RUNNING))
        end = jnp.where(first & ~good, jnp.where(status == RUNNING, NONFINITE, status), end)
        return _Newton(
            # The last step is taken without looking.
            states=jnp.where(converged, states + direction, states),
            size=jnp.where(accepted, size, root.size),
            direction=direction,
            step=jnp.where(accepted, 1, root.step / _BACKTRACK),
            tries=tries,
            correction=jnp.where(solvable, correction, jnp.inf),
            iterations=root.iterations + 1,
            status=end.astype(jnp.int32),
        )

    zero, one = jnp.zeros((), jnp.int32), jnp.ones((), dtype)
    begin = _Newton(flat, one * jnp.inf, jnp.zeros_like(flat), one, zero, one * jnp.inf, zero, zero + RUNNING)
    root = jax.lax.while_loop(cond, body, begin)
    return Root(aim.states(root.states), root.correction, root.iterations, root.status)


def _norm(u: Vector, settings: ShootingSettings) -> Scalar:
    """Of flattened `SegmentStates`: root mean square over the segments."""
    return safe_sqrt(jnp.sum(u**2) / settings.segments)


@eqx.filter_custom_jvp
def matched_states(problem: FlowProblem, start: SegmentStates, settings: ShootingSettings) -> tuple[Root, Flow]:
    """States without defects, and the flow from them with its dense solution.

    Differentiable with respect to everything in ``problem``, by the implicit function theorem: du = -(dF/du)^-1 dF.
    """
    root = _newton(problem, start, settings)
    return root, flow_segments(problem, root.states.starts(problem.x), root.states.velocities, settings, dense=True)


@matched_states.def_jvp
def _matched_jvp(primals, tangents):
    problem, start, settings = primals
    root, flow = out = matched_states(problem, start, settings)
    aim = _Aim(*start.velocities.shape)
    starts, velocities = root.states.starts(problem.x), root.states.velocities
    knots = jax.lax.stop_gradient(flow.curve.knots)
    dynamic, static, dots = linearisation(problem, tangents[0])

    def replay(dynamic, starts, velocities):
        return replayed(eqx.combine(dynamic, static), starts, velocities, knots, settings.solver)

    _, linear = jax.linearize(replay, dynamic, starts, velocities)
    # With the unknowns fixed, the first segment still starts in x, wherever that moves.
    still = SegmentStates(jnp.zeros_like(root.states.points), jnp.zeros_like(velocities))
    x_dot, v_dot, _ = linear(dots, still.starts(dots.x), still.velocities)
    b = -aim.residual(dots.y, jnp.zeros(aim.size, starts.dtype), x_dot, v_dot)
    no = jax.tree.map(jnp.zeros_like, dynamic)

    def pushforward(dx, dv):
        return linear(no, dx, dv)[:2]

    if aim.size <= settings.max_dense:
        du = _dense_solve(aim.matrix(lambda *u: (pushforward(*u), None), b.dtype)[0], b)
    else:
        accuracy = 1e-10 if jnp.finfo(b.dtype).bits >= 64 else 1e-5

        def solve(matvec, b):
            return _gmres(matvec, b, accuracy, settings)

        matvec = lambda direction: aim.directional(pushforward, direction)  # noqa: E731
        du = jax.lax.custom_linear_solve(matvec, b, solve, transpose_solve=solve)
    states = aim.states(du)
    x_dot, v_dot, infos = linear(dots, states.starts(dots.x), states.velocities)
    root, flow = jax.tree.map(lambda leaf: jnp.zeros_like(leaf) if eqx.is_inexact_array(leaf) else None, out)
    curve = eqx.tree_at(lambda c: c.infos, flow.curve, infos)
    return out, (root._replace(states=states), flow._replace(points=x_dot, velocities=v_dot, curve=curve))


@eqx.filter_custom_jvp
def stationary_energy(energy: Scalar, problem: FlowProblem, curve: ShootingCurve) -> Scalar:
    """``energy``, with the derivative that the envelope theorem gives it:

    dE = <v(1), dy>_G - <v(0), dx>_G + (derivative of the metric along the fixed path) (do Carmo, ch. 9, prop. 2.4).
    """
    return energy


@stationary_energy.def_jvp
def _stationary_jvp(primals, tangents):
    energy, problem, curve = primals
    dynamic, static, dots = linearisation(problem, tangents[1])

    def along(dynamic):
        problem = eqx.combine(dynamic, static)

        @jax.checkpoint
        def over_step(step):
            points, velocities, weights = curve.step_nodes(step)
            return weights @ problem.squared_speeds(points, velocities)

        return jnp.sum(jax.lax.map(over_step, jnp.arange(curve.knots.shape[1] - 1))) / 2

    denergy = jax.jvp(along, (dynamic,), (dots,))[1]
    for t, sign in ((0.0, -1), (1.0, 1)):
        point, velocity = curve(jnp.asarray(t, problem.x.dtype))
        denergy += sign * (problem.inner_product(point).mv(velocity) @ (dots.y if t else dots.x))
    return stationary_energy(energy, problem, curve), denergy
