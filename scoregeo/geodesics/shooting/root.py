"""Newton's method for the states at which the segments of a shooting path match, and their derivatives.

See `solver` for the equations.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float

from ..._batching import compacted_while_loop
from ..._numerics import by_precision, safe_sqrt
from ..._results import RESULTS, first_failure
from ..._types import Matrix, Point, Points, Scalar, Vector
from ..spectral.implicit import linearisation
from .flow import Flow, FlowProblem, ShootingCurve, flow_segments, mean_speed, replayed

# Where the defects do not fall, the step is divided by this, at most so many times.
_BACKTRACK, _MAX_BACKTRACKS = 3.0, 10
# A step of length s must lower the defects by this times s.
_DECREASE = 0.1
# GMRES keeps so many vectors.
_RESTART = 40
# Within this many tolerances of the root, a step that no longer helps is rounding, not failure.
_CLOSE = 1e3


class SegmentStates(NamedTuple):
    """Unknowns, and anything of their shape: inner ``(N - 1, d)`` points and ``(N, d)`` velocities."""

    points: Points
    velocities: Points

    def starts(self, x: Point) -> Points:
        """The points at which all segments start, ``(N, d)``."""
        return jnp.concatenate([x[None], self.points])


class Root(NamedTuple):
    """Where the root find ended; ``correction`` is the relative size of its last step.

    ``result`` is ``successful``, ``ends_missed``, ``solver_steps_reached``, or what stopped the first integration.
    """

    states: SegmentStates
    correction: Scalar
    iterations: Array
    result: RESULTS


def defects(
    y: Point, states: SegmentStates, ends: Points, end_velocities: Points
) -> tuple[Points, Float[Array, "n-1 d"]]:
    """Equation (1): gaps in position ``(N, d)`` and in velocity ``(N - 1, d)``."""
    following = jnp.concatenate([states.points, y[None]])
    return ends - following, end_velocities[:-1] - states.velocities[1:]


def _closing_change(gaps: Points, velocity_gaps: Float[Array, "n-1 d"]) -> SegmentStates:
    """``P^-1`` of the defects: the change of states that closes them in Euclidean space, with the sign of (1)."""
    n = gaps.shape[0]
    # States move on by dx_{i+1} = dx_i + dv_i / n - gap_i, dv_{i+1} = dv_i - velocity_gap_i, from dx_0 = 0 to dx_n = 0.
    lost = jnp.concatenate([jnp.zeros_like(gaps[:1]), jnp.cumsum(velocity_gaps, 0)])
    velocities = jnp.sum(gaps, 0) + jnp.mean(lost, 0) - lost
    points = jnp.cumsum(velocities / n - gaps, 0)[:-1]
    return SegmentStates(points, velocities)


class _DefectAlgebra(NamedTuple):
    """The linear algebra of Newton's method, on raveled `SegmentStates` of ``n`` segments in d dimensions."""

    n: int
    d: int

    @property
    def size(self) -> int:
        """The number of unknowns."""
        return (2 * self.n - 1) * self.d

    def states(self, u: Vector) -> SegmentStates:
        """The states that ``u`` holds."""
        split = (self.n - 1) * self.d
        return SegmentStates(u[:split].reshape(-1, self.d), u[split:].reshape(-1, self.d))

    def residual(self, y: Point, u: Float[Array, " m"], ends: Points, end_velocities: Points) -> Float[Array, " m"]:
        """F(u), given the ends that the states flow to; linear in everything together."""
        return _raveled(_closing_change(*defects(y, self.states(u), ends, end_velocities)))

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


def _raveled(states: SegmentStates) -> Vector:
    return jnp.concatenate([states.points.reshape(-1), states.velocities.reshape(-1)])


def _gmres(matvec: Callable, b: Vector, rtol: float, settings: Any) -> Vector:
    operator = lx.FunctionLinearOperator(matvec, jax.ShapeDtypeStruct(b.shape, b.dtype))
    solver = lx.GMRES(
        rtol=rtol, atol=0.0, max_steps=settings.max_gmres, restart=min(_RESTART, b.size), norm=lx.internal.two_norm
    )
    return lx.linear_solve(operator, b, solver, throw=False).value


def _dense_solve(matrix: Array, b: Vector) -> Vector:
    return lx.linear_solve(lx.MatrixLinearOperator(matrix), b, lx.LU(), throw=False).value


class _NewtonState(NamedTuple):
    """The last good states with the Newton step from there, and the part of it to try next.

    ``size`` is the norm of the defects, infinite before the first evaluation; ``result`` is ``solver_steps_reached``
    until the iteration ends by itself.
    """

    states: Vector
    size: Scalar
    direction: Vector
    step: Scalar
    tries: Array
    correction: Scalar
    iterations: Array
    result: RESULTS


class _Trial(NamedTuple):
    """F at a trial, the code of the integration, and the solution of ``F' d = b`` as a function of ``b``."""

    residual: Vector
    result: RESULTS
    solve: Callable[[Vector], Vector]


def _evaluate(problem: FlowProblem, algebra: _DefectAlgebra, trial: Vector, settings: Any) -> _Trial:
    """Integrate the segments from the states ``trial``."""
    states = algebra.states(trial)
    starts, velocities = states.starts(problem.x), states.velocities

    def ends(starts, velocities):
        flow = flow_segments(problem, starts, velocities, settings, dense=False)
        return (flow.points, flow.velocities), flow.result

    def pushforward(dx, dv):
        reached, tangents, result = jax.jvp(ends, (starts, velocities), (dx, dv), has_aux=True)
        return tangents, (reached, result)

    if algebra.size <= settings.max_dense:
        # Defects and their derivative come from one loop of the integrator. A step that is refused costs a derivative
        # that is not needed; but these are few, and a second loop takes seconds to compile.
        matrix, (reached, result) = algebra.matrix(pushforward, trial.dtype)

        def solve(b):
            return _dense_solve(matrix, b)

    else:
        reached, result = ends(starts, velocities)
        forcing = by_precision(trial.dtype, 1e-6, 1e-3)

        def solve(b):
            return _gmres(lambda d: algebra.directional(lambda *u: pushforward(*u)[0], d), b, forcing, settings)

    return _Trial(algebra.residual(problem.y, trial, *reached), result, solve)


def _newton_step(problem: FlowProblem, algebra: _DefectAlgebra, settings: Any, state: _NewtonState) -> _NewtonState:
    """Try the current part of the current step: accept it and find the next step, or divide it."""
    trial = state.states + state.step * state.direction
    at = _evaluate(problem, algebra, trial, settings)
    first = jnp.isinf(state.size)
    size = _norm(at.residual, settings)
    good = (at.result == RESULTS.successful) & jnp.isfinite(size)
    accepted = good & (first | (size <= (1 - _DECREASE * state.step) * state.size))
    direction = at.solve(jnp.where(accepted, -at.residual, 0))

    states = jnp.where(accepted, trial, state.states)
    direction = jnp.where(accepted, direction, state.direction)
    speed = mean_speed(algebra.states(states).velocities)
    correction = _norm(direction, settings) / jnp.where(speed > 0, speed, 1)
    solvable = jnp.isfinite(correction)
    converged = solvable & (correction <= settings.tolerance)
    close = solvable & (correction <= _CLOSE * settings.tolerance)
    # Close to the root the defects are the errors of the integration, and may not fall any further.
    tries = jnp.where(accepted, 0, state.tries + 1)
    stuck = ~solvable | (tries > _MAX_BACKTRACKS) | (~accepted & (state.correction <= _CLOSE * settings.tolerance))
    result = first_failure(
        [
            (first & ~good & (at.result != RESULTS.successful), at.result),
            (first & ~good, RESULTS.metric_nonfinite),
            (stuck & ~close, RESULTS.ends_missed),
            (~stuck & ~converged, RESULTS.solver_steps_reached),
        ]
    )
    return _NewtonState(
        # A step as small as the tolerance is taken without evaluating the defects at its end: it is the last.
        states=jnp.where(converged, states + direction, states),
        size=jnp.where(accepted, size, state.size),
        direction=direction,
        step=jnp.where(accepted, 1, state.step / _BACKTRACK),
        tries=tries,
        correction=jnp.where(solvable, correction, jnp.inf),
        iterations=state.iterations + 1,
        result=result,
    )


def _find_root(problem: FlowProblem, start: SegmentStates, settings: Any) -> Root:
    """States without defects, by damped Newton steps from ``start``."""
    algebra, u = _DefectAlgebra(*start.velocities.shape), _raveled(start)
    zero, one = jnp.zeros((), jnp.int32), jnp.ones((), u.dtype)
    unfinished = RESULTS.solver_steps_reached
    state = _NewtonState(u, one * jnp.inf, jnp.zeros_like(u), one, zero, one * jnp.inf, zero, unfinished)

    def more(state):
        return (state.result == unfinished) & (state.iterations < settings.max_steps)

    def body(problem, state):
        return _newton_step(problem, algebra, settings, state)

    state = compacted_while_loop(more, body, state, problem, numbers_per_lane=u.size)
    return Root(algebra.states(state.states), state.correction, state.iterations, state.result)


def _norm(u: Vector, settings: Any) -> Scalar:
    """The norm of raveled `SegmentStates`: root mean square over the segments."""
    return safe_sqrt(jnp.sum(u**2) / settings.segments)


@eqx.filter_custom_jvp
def matched_states(problem: FlowProblem, start: SegmentStates, settings: Any) -> tuple[Root, Flow]:
    """States without defects, and the flow from them with its dense solution. ``settings`` is a `Shooting` whose
    defaults are filled in.

    Differentiable with respect to everything in ``problem``, by the implicit function theorem: du = -(dF/du)^-1 dF.
    """
    root = _find_root(problem, start, settings)
    return root, flow_segments(problem, root.states.starts(problem.x), root.states.velocities, settings, dense=True)


@matched_states.def_jvp
def _matched_jvp(primals, tangents):
    problem, start, settings = primals
    root, flow = out = matched_states(problem, start, settings)
    algebra = _DefectAlgebra(*start.velocities.shape)
    starts, velocities = root.states.starts(problem.x), root.states.velocities
    knots = jax.lax.stop_gradient(flow.curve.knots)
    dynamic, static, dots = linearisation(problem, tangents[0])

    def replay(dynamic, starts, velocities):
        return replayed(eqx.combine(dynamic, static), starts, velocities, knots, settings.solver)

    _, linear = jax.linearize(replay, dynamic, starts, velocities)
    # The first segment starts in x and moves with it, while the unknowns are fixed.
    still = SegmentStates(jnp.zeros_like(root.states.points), jnp.zeros_like(velocities))
    x_dot, v_dot, _ = linear(dots, still.starts(dots.x), still.velocities)
    b = -algebra.residual(dots.y, jnp.zeros(algebra.size, starts.dtype), x_dot, v_dot)
    no = jax.tree.map(jnp.zeros_like, dynamic)

    def pushforward(dx, dv):
        return linear(no, dx, dv)[:2]

    if algebra.size <= settings.max_dense:
        du = _dense_solve(algebra.matrix(lambda *u: (pushforward(*u), None), b.dtype)[0], b)
    else:
        accuracy = by_precision(b.dtype, 1e-10, 1e-5)

        def solve(matvec, b):
            return _gmres(matvec, b, accuracy, settings)

        matvec = lambda direction: algebra.directional(pushforward, direction)  # noqa: E731
        du = jax.lax.custom_linear_solve(matvec, b, solve, transpose_solve=solve)
    states = algebra.states(du)
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
