"""The flow of the geodesic equation over the segments of a path, side by side, as differentiable functions."""

from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._numerics import by_precision, safe_sqrt
from ..._results import RESULTS, first_failure
from ..._types import Point, Points, Scalar, Vector
from ...metrics import AbstractMetric
from ..curves import AbstractCurve
from ..initial_value import end_state, geodesic_equation, integrate

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


class FlowProblem(eqx.Module):
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

    def over_points(self, function: Callable, *arrays: Array) -> Any:
        """``function`` of one point each, over the points of a path."""
        return jax.vmap(function)(*arrays)

    def squared_speeds(self, points: Points, velocities: Points) -> Float[Array, " n"]:
        """``<v, v>_G`` of every velocity at its point."""
        return jax.vmap(lambda x, v: self.inner_product(x).squared_norm(v))(points, velocities)

    def outside(self, points: Points) -> Array:
        """Whether any of the points is outside the domain; points that are NaN are not."""
        return jnp.any(jax.vmap(self.domain)(points) <= 0)


def mean_speed(velocities: Points) -> Scalar:
    """The root mean square of the Euclidean speeds."""
    return safe_sqrt(jnp.sum(velocities**2) / velocities.shape[0])


class Flow(NamedTuple):
    """All segments integrated: their ends, ``(N, d)`` each, how it went, and the steps taken.

    ``result`` is ``successful``, ``outside_domain``, ``max_steps_reached`` (by the integrator) or ``metric_nonfinite``.
    """

    points: Points
    velocities: Points
    result: RESULTS
    steps: Array
    curve: ShootingCurve | None


def flow_segments(problem: FlowProblem, starts: Points, velocities: Points, settings: Any, dense: bool) -> Flow:
    """Integrate all segments side by side; differentiable in forward mode alone. ``settings`` is a `Shooting` whose
    defaults are filled in."""
    dtype, n = starts.dtype, settings.segments
    # Absolute tolerances follow the size of the problem, so that units do not matter; that size is zero for a point.
    size = jax.lax.stop_gradient(mean_speed(velocities))
    atol = settings.rtol * jnp.where((size > 0) & jnp.isfinite(size), size, 1)
    controller = diffrax.PIDController(
        rtol=settings.rtol, atol=atol, dtmin=by_precision(dtype, 1e-12, 1e-7), force_dtmin=False
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
            # Newton's method needs derivatives in forward mode, which diffrax's default adjoint does not give.
            adjoint=diffrax.ForwardMode(),
            max_steps=settings.integration_steps,
        )
        end_x, end_v = jax.tree.map(lambda a: a[-1], solution.ys)
        finite = jnp.all(jnp.isfinite(end_x)) & jnp.all(jnp.isfinite(end_v))
        too_long = solution.result == diffrax.RESULTS.max_steps_reached
        good = (solution.result == diffrax.RESULTS.successful) & finite
        knots = infos = None
        if dense:
            interpolation = solution.interpolation
            assert interpolation is not None  # asked for by `saveat`
            used = jnp.arange(settings.integration_steps) < interpolation.ts_size - 1
            knots = jnp.append(t0, jnp.where(used, interpolation.ts[1:], t1))
            infos = jax.tree.map(lambda a: jnp.where(used.reshape(-1, *(1,) * (a.ndim - 1)), a, 0), interpolation.infos)
        return end_x, end_v, (too_long, ~good), solution.stats["num_accepted_steps"], knots, infos

    times = jnp.arange(n + 1, dtype=dtype) / n
    ends, end_velocities, failed, steps, knots, infos = jax.vmap(one)(times[:-1], times[1:], starts, velocities)
    curve = None
    if knots is not None and infos is not None:
        curve = ShootingCurve(knots, infos, settings.solver.interpolation_cls)
    too_long, bad = map(jnp.any, failed)
    result = first_failure(
        [
            (problem.outside(starts) | problem.outside(ends), RESULTS.outside_domain),
            # equinox makes inherited codes members of the subclass, which its types do not say.
            (too_long, RESULTS.max_steps_reached),  # pyright: ignore[reportArgumentType]
            (bad, RESULTS.metric_nonfinite),
        ]
    )
    return Flow(ends, end_velocities, result, jnp.sum(steps), curve)


def replayed(
    problem: FlowProblem, starts: Points, velocities: Points, knots: Array, solver: Any
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


def bare_end_point(metric: AbstractMetric, x: Point, v: Vector, max_steps: int = 1024) -> Point:
    """`end_point` for what is differentiated and compiled many times over: no checks, no events, and NaN for an
    integration that fails or ends outside of the domain."""
    # Of the type of the point: diffrax would promote it to that of the times.
    t0, t1 = jnp.asarray([0, 1], x.dtype)
    adjoint = diffrax.RecursiveCheckpointAdjoint()
    (end, _), solved = end_state(metric, x, v, t0, t1, adjoint=adjoint, max_steps=max_steps)
    return jnp.where(solved & (metric.domain(end) > 0), end, jnp.nan)
