"""Shooting: geodesics between two points by integrating the geodesic equation and aiming.

The time interval is cut into N segments. Unknowns are the states at their starts, u = (x_1 .. x_{N-1}, v_0 .. v_{N-1});
x_0 = x. With phi_i the flow of the geodesic equation over segment i, computed by diffrax, the defects are

    r_i = phi_i(x_i, v_i) - (x_{i+1}, v_{i+1}),    i < N-1;        r_{N-1} = x-part of phi_{N-1} - y              (1)

(Stoer & Bulirsch, Introduction to Numerical Analysis, 7.3.5; N = 1 is single shooting.) In Euclidean space the
derivative of (1) in u has an inverse P^-1 of two cumulative sums. Newton's method runs on F(u) = P^-1 r(u), damped so
that |F| falls: F is the error of the states that the defects amount to if the metric is nearly flat, and its derivative
is the identity plus what the curvature of the metric adds, on which GMRES is quick.

Length, from the speeds at both ends of every segment, q_i = |v|_G^2:  energy = 1/2 mean(q),  length = sqrt(mean(q)).
A path without gaps is stationary for the energy, so the error of its energy is of second order in the defect of the
geodesic equation along it; what is left of first order shows as speed that is not constant, and as gaps:

    error = max_i |sqrt(q_i) - length| + sum_i |<gap_i, v>_G| / length + (path_error^2 / 2 + rtol) length         (2)

where rtol, of the integration, stands for gaps that it left along the path.

Derivatives: of the energy by the envelope theorem, of the states by the implicit function theorem on (1), both through
a replay of the steps that diffrax took, which JAX differentiates in both modes, to any order.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jaxtyping import Array, Float

from .._results import RESULTS
from .._types import Matrix, Point, Points, Scalar, Vector
from ..metrics import AbstractMetric
from ..metrics.inner_products import safe_sqrt
from .boundary import AbstractBoundarySolver
from .curves import AbstractCurve
from .geodesic import Geodesic
from .initial import geodesic_equation, integrate

_RUNNING, _CONVERGED, _MISSED, _NONFINITE, _OUTSIDE, _TOO_LONG = range(6)
# Where the defects do not fall, the step is divided by this, at most so many times.
_BACKTRACK, _MAX_BACKTRACKS = 3.0, 10
# A step of length s must lower the defects by this times s.
_DECREASE = 0.1
# GMRES keeps so many vectors.
_RESTART = 40
# Points at which a start that failed is inspected.
_PROBES = 65
# Quadrature points on a step of the integrator, for the derivative of the energy.
_GAUSS = 4


class ShootingCurve(AbstractCurve):
    """The dense solutions of all segments, of equal width, as one curve.

    ``knots`` ``(N, m + 1)`` are the times of the integrator's steps, filled up with the end of the segment; ``infos``
    what its interpolation needs to know of each of them, leaves ``(N, m, ...)``.
    """

    knots: Float[Array, "N m_plus_1"]
    infos: dict[str, Any]
    interpolation: Callable = eqx.field(static=True)
    backwards: bool = eqx.field(static=True, default=False)

    def __call__(self, t: Scalar) -> tuple[Point, Vector]:
        t = 1 - t if self.backwards else t
        segments = self.knots.shape[0]
        i = jnp.clip(jnp.floor(t * segments).astype(jnp.int32), 0, segments - 1)
        t = jnp.clip(t, self.knots[i, 0], self.knots[i, -1])
        j = jnp.sum(self.knots[i, 1:-1] < t)
        x, v = self._step(self.knots[i, j], self.knots[i, j + 1], jax.tree.map(lambda a: a[i, j], self.infos), t)
        return x, -v if self.backwards else v

    def _step(self, t0, t1, info, t):
        return self.interpolation(t0=t0, t1=t1, **info).evaluate(t)

    def reverse(self) -> "ShootingCurve":
        return ShootingCurve(self.knots, self.infos, self.interpolation, not self.backwards)

    def visited(self) -> tuple[Points, Array]:
        """The points at which steps start, ``(N m, d)``, and which of them were taken."""
        start, _ = self.infos["y0"]
        return start.reshape(-1, start.shape[-1]), (self.knots[:, 1:] > self.knots[:, :-1]).reshape(-1)

    def step_nodes(self, step: Array) -> tuple[Points, Points, Float[Array, " n"]]:
        """Points, velocities and weights of a quadrature over step number ``step`` of every segment."""
        nodes, weights = np.polynomial.legendre.leggauss(_GAUSS)
        dtype = self.knots.dtype
        nodes, weights = jnp.asarray((nodes + 1) / 2, dtype), jnp.asarray(weights / 2, dtype)

        def on_segment(knots, infos):
            t0, t1 = knots[step], knots[step + 1]
            info = jax.tree.map(lambda a: a[step], infos)
            used = t1 > t0
            # A step that was never taken has no values: the segment's start stands in for them, with weight zero.
            t1_safe = jnp.where(used, t1, t0 + 1)
            x, v = jax.vmap(lambda u: self._step(t0, t1_safe, info, t0 + u * (t1_safe - t0)))(nodes)
            start = jax.tree.map(lambda a: a[0], infos)
            x0, v0 = self._step(knots[0], knots[1], start, knots[0])
            return jnp.where(used, x, x0), jnp.where(used, v, v0), weights * (t1 - t0)

        nodes = jax.vmap(on_segment)(self.knots, self.infos)
        return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), nodes)


class _Problem(eqx.Module):
    """Ends and metric. The metric's functions are closed expressions: see `PathEnergy`, which does the same."""

    x: Point
    y: Point
    inner_product: Callable
    acceleration: Callable
    domain: Callable

    def __init__(self, metric: AbstractMetric, x: Point, y: Point):
        self.x, self.y = x, y
        self.inner_product = eqx.filter_closure_convert(metric.at, x)
        self.acceleration = eqx.filter_closure_convert(metric.acceleration, x, x)
        self.domain = eqx.filter_closure_convert(metric.domain, x)

    def squared_speeds(self, points: Points, velocities: Points) -> Float[Array, " n"]:
        return jax.vmap(lambda x, v: self.inner_product(x).squared_norm(v))(points, velocities)

    def outside(self, points: Points) -> Array:
        """Whether any of the points is outside the domain; points that are NaN are not."""
        return jnp.any(jax.vmap(self.domain)(points) <= 0)


class _States(NamedTuple):
    """Unknowns, and anything of their shape: inner ``(N - 1, d)`` points and ``(N, d)`` velocities."""

    points: Points
    velocities: Points

    def starts(self, x: Point) -> Points:
        return jnp.concatenate([x[None], self.points])


def _speed(velocities: Points) -> Scalar:
    return safe_sqrt(jnp.sum(velocities**2) / velocities.shape[0])


class _Flow(NamedTuple):
    """All segments integrated: their ends, ``(N, d)`` each, the steps taken, and how it went."""

    points: Points
    velocities: Points
    status: Array  # _RUNNING if all is well
    steps: Array
    curve: ShootingCurve | None


class _Root(NamedTuple):
    """Where the root find ended; ``correction`` is the relative size of its last step."""

    states: _States
    correction: Scalar
    iterations: Array
    status: Array


class _Settings(NamedTuple):
    """Settings of a solve with their defaults filled in; see `Shooting`."""

    segments: int
    rtol: float
    tolerance: float
    max_steps: int
    integration_steps: int
    solver: diffrax.AbstractSolver
    max_dense: int
    max_gmres: int


def _flow(problem: _Problem, starts: Points, velocities: Points, settings: _Settings, dense: bool) -> _Flow:
    """Integrate all segments side by side; differentiable in forward mode alone."""
    dtype, n = starts.dtype, settings.segments
    bits64 = jnp.finfo(dtype).bits >= 64
    # Absolute tolerances follow the size of the problem, so that units do not matter; it is zero for a point.
    size = jax.lax.stop_gradient(_speed(velocities))
    atol = settings.rtol * jnp.where((size > 0) & jnp.isfinite(size), size, 1)
    controller = diffrax.PIDController(
        rtol=settings.rtol, atol=atol, dtmin=1e-12 if bits64 else 1e-7, force_dtmin=False
    )

    def one(t0, t1, x, v):
        solution = integrate(
            problem,
            x,
            v,
            t0,
            t1,
            saveat=diffrax.SaveAt(t1=True, dense=dense),
            solver=settings.solver,
            stepsize_controller=controller,
            # Forward mode: diffrax's default has no derivative in forward mode, which Newton's method needs.
            adjoint=diffrax.ForwardMode(),
            max_steps=settings.integration_steps,
        )
        end_x, end_v = jax.tree.map(lambda a: a[-1], solution.ys)
        finite = jnp.all(jnp.isfinite(end_x)) & jnp.all(jnp.isfinite(end_v))
        too_long = solution.result == diffrax.RESULTS.max_steps_reached
        good = (solution.result == diffrax.RESULTS.successful) & finite
        status = jnp.where(good, _RUNNING, jnp.where(too_long, _TOO_LONG, _NONFINITE)).astype(jnp.int32)
        knots = infos = None
        if dense:
            interpolation = solution.interpolation
            used = jnp.arange(settings.integration_steps) < interpolation.ts_size - 1
            knots = jnp.append(t0, jnp.where(used, interpolation.ts[1:], t1))
            infos = jax.tree.map(lambda a: jnp.where(used.reshape(-1, *(1,) * (a.ndim - 1)), a, 0), interpolation.infos)
        return end_x, end_v, status, solution.stats["num_accepted_steps"], knots, infos

    times = jnp.arange(n + 1, dtype=dtype) / n
    ends, end_velocities, status, steps, knots, infos = jax.vmap(one)(times[:-1], times[1:], starts, velocities)
    curve = ShootingCurve(knots, infos, settings.solver.interpolation_cls) if dense else None
    status = jnp.where(problem.outside(starts) | problem.outside(ends), _OUTSIDE, jnp.max(status))
    return _Flow(ends, end_velocities, status.astype(jnp.int32), jnp.sum(steps), curve)


def _replay(
    problem: _Problem, starts: Points, velocities: Points, knots: Array, solver: Any
) -> tuple[Points, Points, Any]:
    """The steps at ``knots`` once more, as a scan: ends and interpolation of all segments, differentiable at will.

    diffrax's own step loops over its stages in a way that has a derivative in forward or in reverse mode, not in both.
    """
    tableau, dtype = solver.tableau, knots.dtype
    stages = tableau.b_sol.size
    lower = np.zeros((stages, stages))
    for i, row in enumerate(tableau.a_lower):
        lower[i + 1, : i + 1] = row
    lower, last = jnp.asarray(lower, dtype), jnp.asarray(tableau.b_sol, dtype)

    @jax.checkpoint
    def step(state, interval):
        width = interval[1] - interval[0]

        def stage(k, numbered):
            i, row = numbered
            at = jax.tree.map(lambda y, k: y + jnp.tensordot(row, k, 1), state, k)
            slope = geodesic_equation(interval[0], at, problem)
            return jax.tree.map(lambda k, f: k.at[i].set(width * f), k, slope), None

        k = jax.tree.map(lambda y: jnp.zeros((stages, *y.shape), dtype), state)
        k, _ = jax.lax.scan(stage, k, (jnp.arange(stages), lower))
        new = jax.tree.map(lambda y, k: y + jnp.tensordot(last, k, 1), state, k)
        return new, {"y0": state, "y1": new, "k": k}

    def one(x, v, knots):
        (x, v), infos = jax.lax.scan(step, (x, v), (knots[:-1], knots[1:]))
        return x, v, infos

    return jax.vmap(one)(starts, velocities, knots)


def _dynamic(tree: Any, tangent: Any) -> tuple[Any, Any, Any]:
    """The differentiable leaves of ``tree``, the others, and ``tangent`` with zeros where it has none."""
    dynamic, static = eqx.partition(tree, eqx.is_inexact_array)
    dots = jax.tree.map(
        lambda p, t: jnp.zeros_like(p) if t is None and p is not None else t,
        dynamic,
        tangent,
        is_leaf=lambda leaf: leaf is None,
    )
    return dynamic, static, dots


def _defects(y: Point, states: _States, ends: Points, end_velocities: Points) -> tuple[Points, Points]:
    """Equation (1): gaps in position ``(N, d)`` and in velocity ``(N - 1, d)``."""
    following = jnp.concatenate([states.points, y[None]])
    return ends - following, end_velocities[:-1] - states.velocities[1:]


def _flattened(gaps: Points, kinks: Points) -> _States:
    """``P^-1`` of the defects: the change of states that closes them in Euclidean space, with the sign of (1)."""
    n = gaps.shape[0]
    # States move on by dx_{i+1} = dx_i + dv_i / n - gap_i, dv_{i+1} = dv_i - kink_i, from dx_0 = 0 to dx_n = 0.
    kinks = jnp.concatenate([jnp.zeros_like(gaps[:1]), jnp.cumsum(kinks, 0)])
    velocities = jnp.sum(gaps, 0) + jnp.mean(kinks, 0) - kinks
    points = jnp.cumsum(velocities / n - gaps, 0)[:-1]
    return _States(points, velocities)


class _Aim(NamedTuple):
    """The linear algebra of Newton's method: flattened `_States` of ``n`` segments, in ``(d,)``-dimensional space."""

    n: int
    d: int

    @property
    def size(self) -> int:
        return (2 * self.n - 1) * self.d

    def states(self, u: Vector) -> _States:
        split = (self.n - 1) * self.d
        return _States(u[:split].reshape(-1, self.d), u[split:].reshape(-1, self.d))

    def residual(self, y: Point, u: Vector, ends: Points, end_velocities: Points) -> Vector:
        """F(u), given the ends that the states flow to; linear in everything together."""
        return _flat(_flattened(*_defects(y, self.states(u), ends, end_velocities)))

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


def _flat(states: _States) -> Vector:
    return jnp.concatenate([states.points.reshape(-1), states.velocities.reshape(-1)])


def _gmres(matvec: Callable, b: Vector, rtol: float, settings: _Settings) -> Vector:
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


def _newton(problem: _Problem, start: _States, settings: _Settings) -> _Root:
    """States without defects, by damped Newton steps from ``start``."""
    flat, aim = _flat(start), _Aim(*start.velocities.shape)
    dtype, tolerance = flat.dtype, settings.tolerance
    forcing = 1e-6 if jnp.finfo(dtype).bits >= 64 else 1e-3

    def ends(starts, velocities):
        flow = _flow(problem, starts, velocities, settings, dense=False)
        return (flow.points, flow.velocities), flow.status

    def cond(root):
        return (root.status == _RUNNING) & (root.iterations < settings.max_steps)

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
        good = (status == _RUNNING) & jnp.isfinite(size)
        accepted = good & (first | (size <= (1 - _DECREASE * root.step) * root.size))
        b = jnp.where(accepted, -residual, 0)
        if aim.size <= settings.max_dense:
            direction = _dense_solve(matrix, b)
        else:
            direction = _gmres(lambda d: aim.directional(lambda *u: pushforward(*u)[0], d), b, forcing, settings)

        states = jnp.where(accepted, trial, root.states)
        direction = jnp.where(accepted, direction, root.direction)
        speed = _speed(aim.states(states).velocities)
        correction = _norm(direction, settings) / jnp.where(speed > 0, speed, 1)
        solvable = jnp.isfinite(correction)
        converged = solvable & (correction <= tolerance)
        # Close to the root the defects are the errors of the integration, and may not fall any further.
        tries = jnp.where(accepted, 0, root.tries + 1)
        stuck = ~solvable | (tries > _MAX_BACKTRACKS) | (~accepted & (root.correction <= 1e3 * tolerance))
        close = solvable & (correction <= 1e3 * tolerance)
        end = jnp.where(converged | (stuck & close), _CONVERGED, jnp.where(stuck, _MISSED, _RUNNING))
        end = jnp.where(first & ~good, jnp.where(status == _RUNNING, _NONFINITE, status), end)
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
    begin = _Newton(flat, one * jnp.inf, jnp.zeros_like(flat), one, zero, one * jnp.inf, zero, zero + _RUNNING)
    root = jax.lax.while_loop(cond, body, begin)
    return _Root(aim.states(root.states), root.correction, root.iterations, root.status)


def _norm(u: Vector, settings: _Settings) -> Scalar:
    """Of flattened `_States`: root mean square over the segments."""
    return safe_sqrt(jnp.sum(u**2) / settings.segments)


@eqx.filter_custom_jvp
def _matched(problem: _Problem, start: _States, settings: _Settings) -> tuple[_Root, _Flow]:
    """States without defects, and the flow from them with its dense solution.

    Differentiable with respect to everything in ``problem``, by the implicit function theorem: du = -(dF/du)^-1 dF.
    """
    root = _newton(problem, start, settings)
    return root, _flow(problem, root.states.starts(problem.x), root.states.velocities, settings, dense=True)


@_matched.def_jvp
def _matched_jvp(primals, tangents):
    problem, start, settings = primals
    root, flow = out = _matched(problem, start, settings)
    aim = _Aim(*start.velocities.shape)
    starts, velocities = root.states.starts(problem.x), root.states.velocities
    knots = jax.lax.stop_gradient(flow.curve.knots)
    dynamic, static, dots = _dynamic(problem, tangents[0])

    def replay(dynamic, starts, velocities):
        return _replay(eqx.combine(dynamic, static), starts, velocities, knots, settings.solver)

    _, linear = jax.linearize(replay, dynamic, starts, velocities)
    # With the unknowns fixed, the first segment still starts in x, wherever that moves.
    still = _States(jnp.zeros_like(root.states.points), jnp.zeros_like(velocities))
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
def _stationary(energy: Scalar, problem: _Problem, curve: ShootingCurve) -> Scalar:
    """``energy``, with the derivative that the envelope theorem gives it:

    dE = <v(1), dy>_G - <v(0), dx>_G + (derivative of the metric along the fixed path) (do Carmo, ch. 9, prop. 2.4).
    """
    return energy


@_stationary.def_jvp
def _stationary_jvp(primals, tangents):
    energy, problem, curve = primals
    dynamic, static, dots = _dynamic(problem, tangents[1])

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
    return _stationary(energy, problem, curve), denergy


class Shooting(AbstractBoundarySolver):
    """Newton's method on the geodesic equation, integrated by diffrax: single (``segments=1``) or multiple shooting.

    Quadratic convergence, and a path as accurate as the integration; but from far away it may go to a geodesic that is
    not the shortest, or fail. It is at its best after another solver: ``Refine(SpectralNewton(), Shooting())``.

    **Arguments**

    - ``segments``: in how many pieces the path is integrated, side by side. More make the problem less sensitive to
      initial velocities, and its linear systems larger.
    - ``rtol``: relative tolerance of the integration; default 1e-12 in float64, 1e-6 in float32.
    - ``tolerance``: a Newton step no larger than this, relative to the speed, is the last; default 1e-10 in float64,
      1e-5 in float32.
    - ``max_steps``: Newton steps.
    - ``integration_steps``: steps of the integrator for one segment, which fails where it wants more; default
      ``max(256 // segments, 64)``. The dense solution has room for all of them, and derivatives walk through them all.
    - ``solver``: diffrax's explicit Runge-Kutta method.
    - ``max_dense``: the number of unknowns, ``(2 segments - 1) d``, up to which Newton's linear systems are solved by
      a dense LU factorisation; above, by GMRES, which needs no matrix.
    - ``max_gmres``: GMRES steps for one linear system.

    **Returns** (`solve`) a `Geodesic` whose ``error`` is (2) of the module's docstring; ``residual`` the largest defect
    where segments meet, or deviation of the squared speed at ``ts`` from its mean, both relative; ``stats``: Newton
    ``iterations``, ``integration_steps`` in total, ``defect``, ``path_error``. ``result`` is ``successful``,
    ``ends_missed`` (Newton's method got stuck), ``solver_steps_reached`` (it used ``max_steps``, or the first
    integration ``integration_steps``), ``metric_nonfinite`` or ``outside_domain``.

    >>> import jax.numpy as jnp
    >>> from scoregeo import GaussianScore, SteinMetric, geodesic
    >>> from scoregeo.geodesics.shooting import Shooting
    >>> metric = SteinMetric(GaussianScore(jnp.zeros(2), jnp.eye(2)))
    >>> x, y = jnp.array([-1.0, 0.5]), jnp.array([1.0, 0.7])
    >>> round(float(geodesic(metric, x, y, solver=Shooting(segments=4)).length), 4)
    2.2213
    """

    segments: int = eqx.field(static=True, default=8)
    rtol: float | None = eqx.field(static=True, default=None)
    tolerance: float | None = eqx.field(static=True, default=None)
    max_steps: int = eqx.field(static=True, default=40)
    integration_steps: int | None = eqx.field(static=True, default=None)
    solver: diffrax.AbstractERK = eqx.field(default_factory=diffrax.Dopri8)
    max_dense: int = eqx.field(static=True, default=512)
    max_gmres: int = eqx.field(static=True, default=200)

    def __check_init__(self):
        for name, least in (
            ("segments", 1),
            ("max_steps", 1),
            ("integration_steps", 2),
            ("max_dense", 0),
            ("max_gmres", 1),
        ):
            value = getattr(self, name)
            if name == "integration_steps" and value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"`{name}` must be an integer of at least {least}, got {value!r}")
        for name in ("rtol", "tolerance"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise ValueError(f"`{name}` must be positive and at most 1, got {value!r}")
        if not isinstance(self.solver, diffrax.AbstractERK):
            raise TypeError(
                f"`solver` must be an explicit Runge-Kutta method such as diffrax.Dopri8(), got {self.solver!r}"
            )

    def _settings(self, dtype) -> _Settings:
        double = jnp.finfo(dtype).bits >= 64
        return _Settings(
            self.segments,
            self.rtol if self.rtol is not None else (1e-12 if double else 1e-6),
            self.tolerance if self.tolerance is not None else (1e-10 if double else 1e-5),
            self.max_steps,
            self.integration_steps or max(256 // self.segments, 64),
            self.solver,
            self.max_dense,
            self.max_gmres,
        )

    def solve(
        self, metric: AbstractMetric, x: Point, y: Point, init: AbstractCurve, ts: Float[Array, " n"]
    ) -> Geodesic:
        """See `AbstractBoundarySolver.solve`."""
        settings = self._settings(x.dtype)
        problem = _Problem(metric, x, y)
        start = jax.lax.stop_gradient(_starting_states(init, x, y, self.segments))
        root, flow = _matched(problem, start, settings)
        curve = flow.curve
        points, velocities = jax.vmap(curve)(ts)

        frozen, fixed = jax.lax.stop_gradient(
            (eqx.filter(problem, eqx.is_array), (root.states, flow, points, velocities))
        )
        frozen = eqx.combine(frozen, problem)
        certificate = _certificate(frozen, *fixed)
        energy = _stationary(certificate.energy, problem, curve)
        path_error = root.correction + certificate.defect + certificate.drift
        length = safe_sqrt(2 * energy)
        eps = jnp.finfo(x.dtype).eps
        error = certificate.error + jax.lax.stop_gradient(length) * (path_error**2 / 2 + settings.rtol + 4 * eps)

        # The first of these that is true says how it ended.
        ends_outside, path_outside, path_finite = _inspect(frozen, init)
        too_long = root.status == _TOO_LONG
        status = jnp.select(
            [
                ends_outside | (too_long & path_outside),
                # Near points where the metric is not finite, the integrator's steps shrink, and there are too many.
                too_long & ~path_finite,
                root.status != _CONVERGED,
                flow.status != _RUNNING,
                certificate.outside,
                ~certificate.finite,
                certificate.defect > 1e3 * max(settings.tolerance, settings.rtol),
            ],
            [
                jnp.asarray(code, jnp.int32)
                for code in (_OUTSIDE, _NONFINITE, root.status, flow.status, _OUTSIDE, _NONFINITE, _MISSED)
            ],
            _CONVERGED,
        )
        return Geodesic(
            ts=ts,
            points=points,
            velocities=velocities,
            length=length,
            energy=energy,
            error=error,
            residual=certificate.residual,
            result=_result(status),
            stats={
                "iterations": root.iterations,
                "integration_steps": flow.steps,
                "defect": certificate.defect,
                "path_error": jax.lax.stop_gradient(path_error),
            },
            curve=curve,
        )


def _starting_states(init: AbstractCurve, x: Point, y: Point, segments: int) -> _States:
    """States of ``init`` at the starts of the segments; at rest, if the end points are the same."""
    points, velocities = jax.vmap(init)(jnp.arange(segments, dtype=x.dtype) / segments)
    rest = jnp.all(x == y)
    points = jnp.where(rest, x, points.astype(x.dtype))
    return _States(points[1:], jnp.where(rest, 0, velocities.astype(x.dtype)))


def _inspect(problem: _Problem, init: AbstractCurve) -> tuple[Array, Array, Array]:
    """Whether an end point is outside the domain; whether ``init`` is anywhere; and whether the metric along it is
    finite."""
    points, velocities = jax.vmap(init)(jnp.linspace(0, 1, _PROBES, dtype=problem.x.dtype))
    finite = jnp.all(jnp.isfinite(problem.squared_speeds(points, velocities)))
    return problem.outside(jnp.stack([problem.x, problem.y])), problem.outside(points), finite


class _Certificate(NamedTuple):
    """Energy, and what is known of the path: the first parts of (2), relative defects, and whether it is a path of the
    metric at all."""

    energy: Scalar
    error: Scalar
    defect: Scalar
    drift: Scalar
    residual: Scalar
    outside: Array
    finite: Array


def _certificate(problem: _Problem, states: _States, flow: _Flow, points: Points, velocities: Points) -> _Certificate:
    starts = states.starts(problem.x)
    squared = jnp.append(
        problem.squared_speeds(starts, states.velocities), problem.squared_speeds(flow.points, flow.velocities)
    )
    mean = jnp.mean(squared)
    length = safe_sqrt(mean)
    unit = jnp.where(length > 0, length, 1)
    drift = jnp.max(jnp.abs(safe_sqrt(squared) - length)) / unit

    gaps, kinks = _defects(problem.y, states, flow.points, flow.velocities)
    along = jax.vmap(lambda x, gap, v: problem.inner_product(x).inner(gap, v))(flow.points, gaps, flow.velocities)
    gaps = problem.squared_speeds(flow.points, gaps)
    kinks = problem.squared_speeds(flow.points[:-1], kinks)
    defect = safe_sqrt(jnp.max(jnp.append(gaps, kinks))) / unit
    samples = problem.squared_speeds(points, velocities)
    deviation = jnp.max(jnp.abs(samples - mean)) / jnp.where(mean > 0, mean, 1)
    # The integration ends near y, which is not y: a metric that is not finite there would pass unnoticed.
    at_end = problem.squared_speeds(problem.y[None], flow.velocities[-1:])
    visited, taken = flow.curve.visited()
    domain = jax.vmap(problem.domain)(visited)
    return _Certificate(
        energy=mean / 2,
        error=drift * length + jnp.sum(jnp.abs(along)) / unit,
        defect=defect,
        drift=drift,
        residual=jnp.maximum(deviation, defect),
        outside=problem.outside(points) | jnp.any(taken & (domain <= 0)),
        finite=jnp.isfinite(drift + deviation + defect + at_end[0]),
    )


def _result(status: Array) -> RESULTS:
    result = RESULTS.where(status == _CONVERGED, RESULTS.successful, RESULTS.solver_steps_reached)
    result = RESULTS.where(status == _MISSED, RESULTS.ends_missed, result)
    result = RESULTS.where(status == _NONFINITE, RESULTS.metric_nonfinite, result)
    return RESULTS.where(status == _OUTSIDE, RESULTS.outside_domain, result)
