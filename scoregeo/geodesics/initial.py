"""The initial value problem: diffrax integrates the geodesic equation."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._results import RESULTS
from .._types import Point, Scalar, Vector, as_point
from ..metrics import AbstractMetric
from .boundary import check_metric, check_times, raise_if_failed, raise_unless_successful
from .curves import IntegratedCurve
from .geodesic import Geodesic


def default_controller(dtype: Any) -> diffrax.PIDController:
    """Adaptive steps with tolerances for ``dtype``; a vector field that turns NaN ends the solve at once.

    Without ``dtmin`` an integration into NaN would reject steps until ``max_steps`` is used up.
    """
    rtol, atol, dtmin = (1e-10, 1e-12, 1e-12) if jnp.finfo(dtype).bits >= 64 else (1e-6, 1e-7, 1e-7)
    return diffrax.PIDController(rtol=rtol, atol=atol, dtmin=dtmin, force_dtmin=False)


def geodesic_equation(t: Scalar, state: tuple[Point, Vector], metric: AbstractMetric) -> tuple[Vector, Vector]:
    """The right-hand side of ``(x, v)' = (v, metric.acceleration(x, v))``, as diffrax wants it."""
    del t
    x, v = state
    return v, metric.acceleration(x, v)


def integrate(
    metric: AbstractMetric,
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
) -> diffrax.Solution:
    """diffrax's solution of the geodesic equation from ``(x, v)`` at ``t0`` to ``t1``. Never raises."""
    term = diffrax.ODETerm(geodesic_equation)
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
        max_steps=max_steps,
        throw=False,
    )


def promote_result(result: diffrax.RESULTS, *final: Array) -> RESULTS:
    """diffrax's code as ours; a step size that shrank to nothing on a non-finite path is `metric_nonfinite`."""
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(a)) for a in final]))
    result = RESULTS.promote(result)
    bad = (result == RESULTS.dt_min_reached) | ((result == RESULTS.successful) & ~finite)
    return RESULTS.where(bad, RESULTS.metric_nonfinite, result)


@eqx.filter_jit
def _shoot(metric, x, v, ts, dense, solver, stepsize_controller, adjoint, max_steps):
    saveat = diffrax.SaveAt(ts=ts, t1=True, dense=dense)
    solution = integrate(
        metric,
        x,
        v,
        0.0,
        1.0,
        saveat=saveat,
        solver=solver,
        stepsize_controller=stepsize_controller,
        adjoint=adjoint,
        max_steps=max_steps,
    )
    points, velocities = jax.tree.map(lambda a: a[:-1], solution.ys)
    end_point, end_velocity = jax.tree.map(lambda a: a[-1], solution.ys)
    inner_product = metric.at(x)
    squared_speed = inner_product.squared_norm(v)
    squared_speeds = jax.vmap(lambda p, w: metric.at(p).squared_norm(w))(points, velocities)
    last = metric.at(end_point).squared_norm(end_velocity)
    drift = jnp.max(jnp.abs(jnp.append(squared_speeds, last) - squared_speed))
    residual = drift / jnp.where(squared_speed > 0, squared_speed, 1)
    length = inner_product.norm(v)
    stats = {"steps": solution.stats["num_steps"], "rejected_steps": solution.stats["num_rejected_steps"]}
    geodesic = Geodesic(
        ts=ts,
        points=points,
        velocities=velocities,
        length=length,
        energy=squared_speed / 2,
        error=residual * length / 2,
        residual=residual,
        result=promote_result(solution.result, end_point, end_velocity),
        stats=stats,
        curve=IntegratedCurve(solution.interpolation) if dense else None,
    )
    return geodesic, end_point


def shoot(
    metric: AbstractMetric,
    x: Point,
    v: Vector,
    *,
    ts: Float[Array, " n"] | None = None,
    dense: bool = True,
    solver: diffrax.AbstractSolver | None = None,
    stepsize_controller: diffrax.AbstractStepSizeController | None = None,
    adjoint: diffrax.AbstractAdjoint | None = None,
    max_steps: int = 1024,
    throw: bool = True,
) -> Geodesic:
    """The geodesic from ``x`` with initial velocity ``v``, over t in [0, 1].

    **Arguments**

    - ``metric``: the metric; ``x``, ``v``: point and tangent vector, shape ``(d,)``. ``|v|_G`` is the length.
    - ``ts``: times in [0, 1] at which the result is sampled; default 65 equally spaced ones.
    - ``dense``: keep diffrax's dense output, so that ``evaluate`` works at any time. It holds ``max_steps`` steps: for
      d in the thousands pass ``False`` or fewer steps.
    - ``solver``, ``stepsize_controller``, ``adjoint``, ``max_steps``: diffrax's; default ``Tsit5`` with adaptive steps
      (rtol 1e-10 in float64, 1e-6 in float32) and ``RecursiveCheckpointAdjoint``, which is for reverse mode: for
      forward mode pass ``diffrax.DirectAdjoint()``.
    - ``throw``: raise ``RuntimeError`` with advice if the integration fails. With ``False`` read ``result``.

    **Returns** a `Geodesic`; its ``residual`` is the largest relative drift of the squared speed, which is constant
    along an exact geodesic. Source: MATH 2 (do Carmo, Riemannian Geometry, ch. 3).

    >>> import jax.numpy as jnp
    >>> from scoregeo import EuclideanMetric, shoot
    >>> shoot(EuclideanMetric(), jnp.zeros(2), jnp.array([1.0, 2.0])).evaluate(0.5).tolist()
    [0.5, 1.0]
    """
    return _checked_shoot(metric, x, v, ts, dense, solver, stepsize_controller, adjoint, max_steps, throw)[0]


def end_point(
    metric: AbstractMetric, x: Point, v: Vector, *, max_steps: int = 4096, throw: bool = True, **settings: Any
) -> Point:
    """The end point of `shoot`, without dense output: what `exp` is."""
    settings = {"solver": None, "stepsize_controller": None, "adjoint": None} | settings
    ts = jnp.ones((1,), jnp.result_type(float))
    geodesic, end = _checked_shoot(metric, x, v, ts, False, max_steps=max_steps, throw=False, **settings)
    return raise_if_failed(end, geodesic.result) if throw else end


def _checked_shoot(metric, x, v, ts, dense, solver, stepsize_controller, adjoint, max_steps, throw):
    x = as_point(x, "x")
    v = as_point(v, "v", dim=x.size)
    dtype = jnp.result_type(x, v)
    x, v = x.astype(dtype), v.astype(dtype)
    check_metric(metric, x)
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
    )
    return (raise_unless_successful(geodesic) if throw else geodesic), end
