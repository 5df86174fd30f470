"""The initial value problem: diffrax integrates the geodesic equation."""

import functools
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .._checks import as_point
from .._function import depends_on_argument
from .._numerics import by_precision, frozen, program, with_own_settings
from .._results import RESULTS, first_failure, no_host_checks, raise_if_failed
from .._types import Point, Points, Scalar, Vector
from ..metrics import AbstractMetric
from .certificate import PROBES, Measurement, measure_point, needs_probes, some_negative, speed_deviation
from .checks import Times, check_event, check_integration, check_metric, check_times
from .curves import AbstractCurve, IntegratedCurve
from .first_crossing import FirstCrossing
from .solution import Geodesic, raise_unless_successful

# An integration gives up at its least step. What stopped it lies within a few such steps ahead: look so far.
_LOOK_AHEAD = (0.0, 1.0, 10.0, 100.0, 1000.0)
# In place of times: the end point alone is asked for.
_ONLY_END = object()


def default_controller(dtype: Any, scale: Scalar | float = 1.0) -> diffrax.PIDController:
    """Adaptive steps with tolerances for ``dtype``; a vector field that turns NaN ends the solve at once.

    Without ``dtmin`` an integration into NaN would reject steps until ``max_steps`` is used up. ``scale`` multiplies
    the absolute tolerance.
    """
    rtol, atol, dtmin = by_precision(dtype, (1e-10, 1e-12, 1e-12), (1e-6, 1e-7, 1e-7))
    return diffrax.PIDController(rtol=rtol, atol=atol * scale, dtmin=dtmin, force_dtmin=False)


def times_ahead(stepsize_controller: diffrax.AbstractStepSizeController, dtype: Any) -> Float[Array, " k"]:
    """How far ahead of where an integration gave up to look for the reason, in multiples of its least step."""
    least = getattr(stepsize_controller, "dtmin", None)
    return jnp.asarray(_LOOK_AHEAD, dtype) * jnp.asarray(jnp.finfo(dtype).eps if least is None else least, dtype)


@runtime_checkable
class Accelerates(Protocol):
    """What can be integrated: a metric, or anything else that knows the acceleration of geodesics."""

    @property
    def acceleration(self) -> Callable[[Point, Vector], Vector]:
        """Of a geodesic through a point with a velocity."""
        ...


@with_own_settings
def geodesic_equation(t: Any, state: tuple[Point, Vector], metric: Accelerates) -> tuple[Vector, Vector]:
    """The right-hand side of ``(x, v)' = (v, metric.acceleration(x, v))``, as diffrax wants it."""
    del t
    x, v = state
    return v, metric.acceleration(x, v)


def integrate(
    metric: Accelerates,
    x: Point,
    v: Vector,
    t0: Scalar | float,
    t1: Scalar | float,
    *,
    saveat: diffrax.SaveAt,
    solver: diffrax.AbstractSolver,
    stepsize_controller: diffrax.AbstractStepSizeController,
    adjoint: diffrax.AbstractAdjoint,
    max_steps: int,
    event: diffrax.Event | None = None,
) -> diffrax.Solution:
    """diffrax's solution of the geodesic equation from ``(x, v)`` at ``t0`` to ``t1``. Never raises."""
    term = diffrax.ODETerm(geodesic_equation)
    with no_host_checks():
        return diffrax.diffeqsolve(
            term,
            solver,
            t0,
            t1,
            None,
            (x, v),
            args=metric,
            saveat=saveat,
            stepsize_controller=stepsize_controller,
            adjoint=adjoint,
            event=event,
            max_steps=max_steps,
            throw=False,
        )


def end_state(
    metric: Accelerates,
    x: Point,
    v: Vector,
    t0: Scalar,
    t1: Scalar,
    *,
    adjoint: diffrax.AbstractAdjoint,
    max_steps: int,
) -> tuple[tuple[Point, Vector], Bool[Array, ""]]:
    """Point and velocity at ``t1``, by Tsit5 at the default tolerances, and whether it got there."""
    solution = integrate(
        metric,
        x,
        v,
        t0,
        t1,
        saveat=diffrax.SaveAt(t1=True),
        solver=diffrax.Tsit5(),
        stepsize_controller=default_controller(x.dtype),
        adjoint=adjoint,
        max_steps=max_steps,
    )
    return jax.tree.map(lambda a: a[0], solution.ys), solution.result == diffrax.RESULTS.successful


class Stops(eqx.Module):
    """What ends a geodesic before t = 1, as one condition for diffrax: positive at the start, zero where it stops.

    One condition, the smaller of two, and not diffrax's list of them: of two that happen in one step, diffrax takes the
    first in the list, not the first in time.
    """

    event: Callable[[Point, Vector], Scalar] | None
    sign: Scalar | None
    watch_domain: bool = eqx.field(static=True)

    def __init__(self, metric: AbstractMetric, x: Point, v: Vector, event: Callable[[Point, Vector], Scalar] | None):
        self.event = event
        self.watch_domain = depends_on_argument(metric.domain, x)
        self.sign = None
        if event is not None:
            # On the zero set itself, the side of the start is where the geodesic goes first.
            value, slope = jax.jvp(event, (x, v), geodesic_equation(None, (x, v), metric))
            self.sign = jax.lax.stop_gradient(jnp.where(jnp.where(value == 0, slope, value) < 0, -1, 1).astype(x.dtype))

    def values(self, metric: AbstractMetric, x: Point, v: Vector) -> tuple[Scalar, Scalar]:
        """The values of event and domain; infinite for one that is not watched."""
        never = jnp.asarray(jnp.inf, x.dtype)
        event = never
        if self.event is not None:
            assert self.sign is not None  # set with the event
            event = self.sign * self.event(x, v).astype(x.dtype)
        return event, metric.domain(x).astype(x.dtype) if self.watch_domain else never

    def __call__(self, t: Scalar, y: tuple[Point, Vector], args: AbstractMetric, **kwargs: Any) -> Scalar:
        """The condition as diffrax calls it."""
        # diffrax takes the default precision for granted here.
        return jnp.minimum(*self.values(args, *y)).astype(jnp.result_type(float))

    def diffrax_event(self) -> diffrax.Event | None:
        """The event for `diffrax.diffeqsolve`, none where nothing is watched."""
        if self.event is None and not self.watch_domain:
            return None
        return diffrax.Event(self, root_finder=FirstCrossing(), direction=False)

    def starts_inside(self, metric: AbstractMetric, x: Point) -> Bool[Array, ""]:
        """Whether ``x`` is in the domain of the metric."""
        return metric.domain(x) > 0 if self.watch_domain else jnp.asarray(True)


class StoppedCurve(AbstractCurve):
    """A curve that is known up to time ``t_end``: NaN later."""

    curve: AbstractCurve
    t_end: Scalar
    backwards: bool = eqx.field(static=True, default=False)

    def __call__(self, t: Scalar) -> tuple[Point, Vector]:
        """Point and velocity at time ``t``."""
        t = 1 - t if self.backwards else t
        # The curve is not evaluated later than that: there it may be infinite, and derivatives NaN even if unused.
        state = self.curve(jnp.minimum(t, jax.lax.stop_gradient(self.t_end)))
        x, v = jax.tree.map(lambda a: jnp.where(t <= self.t_end, a, jnp.nan), state)
        return x, -v if self.backwards else v

    def reverse(self) -> "StoppedCurve":
        """The same curve walked backwards."""
        return StoppedCurve(self.curve, self.t_end, not self.backwards)


def all_finite(*arrays: Array) -> Bool[Array, ""]:
    """Whether no entry is NaN or infinite."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(a)) for a in arrays]))


def reason(
    metric: AbstractMetric, stops: Stops, result: RESULTS, x: Point, v: Vector, ahead: Float[Array, " k"]
) -> RESULTS:
    """diffrax's ``result`` for an integration that ended at ``(x, v)``, with its causes told apart.

    An event is one of the user's or the border of the domain, whichever was crossed. A step size that shrank to
    nothing is the border of the domain or NaN if that is what lies ``ahead``, else it stays ``dt_min_reached``.
    """
    event, inside = stops.values(metric, x, v)
    left = (result == RESULTS.event_occurred) & (inside <= event)
    points = x + ahead[:, None] * v
    accelerations = jax.vmap(metric.acceleration, (0, None))(points, v)
    stuck = result == RESULTS.dt_min_reached
    if stops.watch_domain:
        left |= stuck & jnp.any(jax.vmap(metric.domain)(points) <= 0)
    unknown = (result == RESULTS.successful) & ~all_finite(x, v) | stuck & ~all_finite(x, v, accelerations)
    return first_failure([(left, RESULTS.outside_domain), (unknown, RESULTS.metric_nonfinite), (True, result)])


@program
def _shoot(metric, x, v, ts, dense, solver, stepsize_controller, adjoint, max_steps, event):
    stops = Stops(metric, x, v, event)
    inside = stops.starts_inside(metric, x)
    # A metric is not to be integrated outside of its domain, and diffrax refuses times after the last.
    t1, times = (jnp.where(inside, t, 0) for t in (1.0, ts)) if stops.watch_domain else (1.0, ts)
    solution = integrate(
        metric,
        x,
        v,
        0.0,
        t1,
        saveat=diffrax.SaveAt(subs=[diffrax.SubSaveAt(ts=times), diffrax.SubSaveAt(t1=True)], dense=dense),
        solver=solver,
        stepsize_controller=stepsize_controller,
        adjoint=adjoint,
        max_steps=max_steps,
        event=stops.diffrax_event(),
    )
    assert solution.ts is not None  # asked for by `saveat`
    assert solution.ys is not None
    end: tuple[Point, Vector] = jax.tree.map(lambda a: a[0], solution.ys[1])
    t_end = solution.ts[1][0].astype(x.dtype)
    # diffrax marks what it did not reach as infinite.
    reached = (ts <= t_end) & jnp.isfinite(solution.ts[0])
    samples = jax.tree.map(lambda a: jnp.where(reached[:, None], a, jnp.nan), solution.ys[0])
    inner_product = metric.at(x)
    squared_speed = inner_product.squared_norm(v)

    ahead = times_ahead(stepsize_controller, x.dtype)
    result = reason(metric, stops, RESULTS.promote(solution.result), *end, ahead)
    curve = None
    if dense:
        assert solution.interpolation is not None  # asked for by `saveat`
        curve = StoppedCurve(IntegratedCurve(solution.interpolation), t_end)
    geodesic = Geodesic.from_curve(
        curve,
        ts,
        functools.partial(_measure, *frozen((metric, (x, v), end, t_end, reached))),
        ends=None,
        energy=squared_speed * t_end / 2,
        length=inner_product.norm(v) * t_end,
        samples=samples,
        causes=[
            (~inside, RESULTS.outside_domain),
            (successful_at_event(result) != RESULTS.successful, result),
        ],
        failures=[(True, result)],
        stats={
            "steps": solution.stats["num_steps"],
            "rejected_steps": solution.stats["num_rejected_steps"],
            "t_end": t_end,
        },
    )
    return geodesic, end[0]


def _measure(
    metric: AbstractMetric,
    start: tuple[Point, Vector],
    end: tuple[Point, Vector],
    t_end: Scalar,
    reached: Bool[Array, " n"],
    curve: AbstractCurve | None,
    points: Points,
    velocities: Points,
) -> Measurement:
    """The squared speed at the samples that were ``reached`` and at the end, compared with that at the start."""
    # Samples after the end are NaN, which says nothing of the metric: the start stands in for them.
    samples = jax.tree.map(lambda a, b: jnp.where(reached[:, None], a, b), (points, velocities), start)
    places = [samples, jax.tree.map(lambda a: a[None], end)]
    known = reached.size + 1
    if curve is not None and needs_probes(metric.at, start[0], reached.size):
        places.append(jax.vmap(curve)(jnp.asarray(PROBES, t_end.dtype) * t_end))
    where, along = map(jnp.concatenate, zip(*places, strict=True))
    squared, indefinite = jax.vmap(functools.partial(measure_point, metric.at))(where, along)
    speed, _ = measure_point(metric.at, *start)
    residual = speed_deviation(squared[:known], speed)
    moves = jnp.sum(start[1] ** 2) > 0
    return Measurement(
        residual=residual,
        finite=all_finite(speed, residual, squared),
        positive=~moves | (speed > 0) & ~some_negative(squared) & ~jnp.any(indefinite),
    )


def shoot(
    metric: AbstractMetric,
    x: Point,
    v: Vector,
    *,
    ts: Times | None = None,
    event: Callable[[Point, Vector], Scalar] | None = None,
    dense: bool = True,
    solver: diffrax.AbstractSolver | None = None,
    stepsize_controller: diffrax.AbstractStepSizeController | None = None,
    adjoint: diffrax.AbstractAdjoint | None = None,
    max_steps: int = 1024,
    throw: bool = True,
) -> Geodesic:
    """The geodesic from ``x`` with initial velocity ``v``, over t in [0, 1] or up to an event.

    **Arguments**

    - ``metric``: the metric; ``x``, ``v``: point and tangent vector, shape ``(d,)``. ``|v|_G`` is the length.
    - ``ts``: times in [0, 1] at which the result is sampled; default 65 equally spaced ones.
    - ``event``: a function ``(x, v) -> scalar`` of point and velocity; where it changes sign the geodesic ends, with
      ``RESULTS.event_occurred``, which is no failure. A start where it is zero does not count. The crossing is located
      to rounding on the integrator's dense output; two crossings within one step cancel out. As for any function under
      ``jit``, a new one compiles again: values that change belong in a ``jax.tree_util.Partial`` or equinox module.
    - ``dense``: keep diffrax's dense output, so that ``evaluate`` works at any time. It holds ``max_steps`` steps: for
      d in the thousands pass ``False`` or fewer steps.
    - ``solver``, ``stepsize_controller``, ``adjoint``, ``max_steps``: diffrax's; default ``Tsit5`` with adaptive steps
      (rtol 1e-10 in float64, 1e-6 in float32) and ``RecursiveCheckpointAdjoint``, which is for reverse mode: for
      forward mode pass ``diffrax.DirectAdjoint()``.
    - ``throw``: raise ``RuntimeError`` with advice if the integration fails. With ``False`` read ``result``.

    **Returns** a `Geodesic`; its ``residual`` is the largest relative drift of the squared speed, which is constant
    along an exact geodesic. ``stats["t_end"]`` is the time reached: 1, or less after an event or a failure; samples
    later than that are NaN, ``length`` and ``energy`` those of the part up to it. Failures are
    ``RESULTS.outside_domain`` (``metric.domain`` reached zero, or was not positive at ``x``), ``metric_nonfinite``,
    ``dt_min_reached`` (too stiff for the smallest step, though finite) and ``max_steps_reached``.

    Source: do Carmo, Riemannian Geometry, ch. 3.

    >>> import jax.numpy as jnp
    >>> from scoregeo import EuclideanMetric, shoot
    >>> shoot(EuclideanMetric(), jnp.zeros(2), jnp.array([1.0, 2.0])).evaluate(0.5).round(4).tolist()
    [0.5, 1.0]
    >>> unit_circle = lambda x, v: x @ x - 1
    >>> stopped = shoot(EuclideanMetric(), jnp.zeros(2), jnp.array([4.0, 0.0]), event=unit_circle)
    >>> round(float(stopped.stats["t_end"]), 4), round(float(stopped.length), 4)
    (0.25, 1.0)
    """
    return _checked_shoot(metric, x, v, ts, dense, solver, stepsize_controller, adjoint, max_steps, event, throw)[0]


def end_point(
    metric: AbstractMetric, x: Point, v: Vector, *, max_steps: int = 4096, throw: bool = True, **settings: Any
) -> Point:
    """The end point of `shoot`, without dense output: what `exp` is. With an ``event``, the point where it happens."""
    settings = {"solver": None, "stepsize_controller": None, "adjoint": None, "event": None} | settings
    geodesic, end = _checked_shoot(metric, x, v, _ONLY_END, False, max_steps=max_steps, throw=False, **settings)
    return raise_if_failed(end, successful_at_event(geodesic.result)) if throw else end


def successful_at_event(result: RESULTS) -> RESULTS:
    """``result``, with ``successful`` for an event: geodesics that end at one are as good as any other."""
    return first_failure([(result != RESULTS.event_occurred, result)])


def _checked_shoot(metric, x, v, ts, dense, solver, stepsize_controller, adjoint, max_steps, event, throw):
    x = as_point(x, "x")
    v = as_point(v, "v", dim=x.size)
    dtype = jnp.result_type(x, v)
    x, v = x.astype(dtype), v.astype(dtype)
    check_metric(metric, x)
    check_event(event, x, v)
    check_integration(solver, stepsize_controller, max_steps)
    if ts is _ONLY_END:
        ts = np.append(PROBES, 1.0) if needs_probes(metric.at, x, 1) else np.ones(1)
    geodesic, end = _shoot(
        metric,
        x,
        v,
        check_times(ts, dtype),
        dense,
        diffrax.Tsit5() if solver is None else solver,
        default_controller(dtype) if stepsize_controller is None else stepsize_controller,
        diffrax.RecursiveCheckpointAdjoint() if adjoint is None else adjoint,
        max_steps,
        event,
    )
    return (raise_unless_successful(geodesic, successful_at_event(geodesic.result)) if throw else geodesic), end
