"""Parallel transport and Jacobi fields along a geodesic.

Both are linear equations along a curve gamma that is already known. With a(x, v) = -Gamma(x)(v, v) the acceleration of
geodesics, which is quadratic in v, no Christoffel symbol is needed:

    transport:       w' = -Gamma(gamma)(gamma', w) = 1/2 (da/dv)(gamma, gamma') w              one JVP      (1)
    Jacobi field:    J'' = da(gamma, gamma')[J, J'],      D_t J = J' - 1/2 (da/dv)(gamma, gamma') J         (2)

(do Carmo, Riemannian Geometry, ch. 2 and 5; (2) is the linearised geodesic equation in coordinates, curvature and all.)
For a conservative score in the Stein metric (1) is -lam (gamma'^T H w) s / L, in the notation of `stein`.

(2) is integrated along the curve, and not found as the derivative of the geodesic flow: where geodesics are unstable,
the flow from the rounded initial velocity ends somewhere else, and its derivative belongs to that other geodesic.
"""

import abc
from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._checks import as_point, check_counts, setting
from .._numerics import program, with_own_settings
from .._results import RESULTS, first_failure, no_host_checks, raise_if_failed
from .._types import Point, Points, Scalar, Vector
from ..metrics import AbstractMetric
from .checks import Times, check_metric, check_times
from .curves import AbstractCurve
from .initial_value import all_finite, default_controller, successful_at_event, times_ahead
from .solution import Geodesic

Rate = Callable[[Point, Vector, PyTree], PyTree]


def transport_rate(metric: AbstractMetric, x: Point, v: Vector, w: Vector) -> Vector:
    """``-Gamma(x)(v, w)``, shape ``(d,)``: dw/dt for ``w`` transported along a curve through ``x`` with velocity ``v``.

    One JVP of the acceleration: its derivative in the direction ``w``, halved.
    """
    return jax.jvp(lambda u: metric.acceleration(x, u), (v,), (w,))[1] / 2


def jacobi_rate(metric: AbstractMetric, x: Point, v: Vector, state: tuple[Vector, Vector]) -> tuple[Vector, Vector]:
    """``(J, J')' = (J', da(x, v)[J, J'])``: the geodesic equation, linearised. One JVP of the acceleration."""
    return state[1], jax.jvp(metric.acceleration, (x, v), state)[1]


class AbstractTransport(eqx.Module):
    """How to transport a vector along a curve. Settings are fields."""

    @abc.abstractmethod
    def transport(
        self, metric: AbstractMetric, curve: AbstractCurve, w: Vector, ts: Float[Array, " n"], t_end: Scalar
    ) -> tuple[Points, RESULTS]:
        """``w`` at time 0 of ``curve``, transported to the times ``ts``: shape ``(n, d)``, NaN after ``t_end``.

        Arguments have been checked. Never raises: how it ended is in the result code.
        """


class TransportODE(AbstractTransport):
    """Integrate with diffrax, with adaptive steps: to the accuracy of the curve itself. The default.

    **Arguments**

    - ``solver``, ``stepsize_controller``, ``adjoint``, ``max_steps``: diffrax's; default ``Tsit5`` with adaptive steps
      (rtol 1e-10 in float64, 1e-6 in float32, and absolute tolerances in proportion to the vector) and
      ``RecursiveCheckpointAdjoint``, which is for reverse mode: for forward mode pass ``diffrax.DirectAdjoint()``.

    A step costs six JVPs of the acceleration.

    >>> import jax.numpy as jnp
    >>> from scoregeo import EuclideanMetric, TransportODE, geodesic, parallel_transport
    >>> straight = geodesic(EuclideanMetric(), jnp.zeros(2), jnp.ones(2))
    >>> method = TransportODE(max_steps=256)
    >>> parallel_transport(EuclideanMetric(), straight, jnp.array([1.0, 2.0]), method=method).tolist()
    [1.0, 2.0]
    """

    solver: diffrax.AbstractSolver | None = None
    stepsize_controller: diffrax.AbstractStepSizeController | None = None
    adjoint: diffrax.AbstractAdjoint | None = None
    max_steps: int = setting(4096)

    def transport(
        self, metric: AbstractMetric, curve: AbstractCurve, w: Vector, ts: Float[Array, " n"], t_end: Scalar
    ) -> tuple[Points, RESULTS]:
        """See `AbstractTransport.transport`."""
        return self.integrate(transport_rate, metric, curve, w, ts, t_end)

    def integrate(
        self,
        rate: Callable[[AbstractMetric, Point, Vector, PyTree], PyTree],
        metric: AbstractMetric,
        curve: AbstractCurve,
        start: PyTree,
        ts: Float[Array, " n"],
        t_end: Scalar,
    ) -> tuple[PyTree, RESULTS]:
        """The linear equation ``y' = rate(metric, gamma, gamma', y)`` from ``start`` at time 0: ``y`` at ``ts``."""

        @with_own_settings
        def equation(t, y, args):
            metric, curve, t_end = args
            # Rounding may put a stage of the last step after the end, where the curve is NaN.
            x, v = curve(jnp.minimum(t.astype(ts.dtype), t_end))
            return rate(metric, x, v, y)

        args = metric, curve, t_end

        leaves = [jnp.abs(leaf) for leaf in jax.tree.leaves(start)]
        size = jax.lax.stop_gradient(jnp.max(jnp.stack([jnp.max(leaf, initial=0) for leaf in leaves])))
        controller = self.stepsize_controller
        if controller is None:
            # The equation is linear: twice the vector must take the same steps.
            controller = default_controller(ts.dtype, jnp.where((size > 0) & jnp.isfinite(size), size, 1))
        with no_host_checks():
            solution = diffrax.diffeqsolve(
                diffrax.ODETerm(equation),
                diffrax.Tsit5() if self.solver is None else self.solver,
                0.0,
                t_end,
                None,
                start,
                args=args,
                # diffrax refuses times after the end; those are dropped below.
                saveat=diffrax.SaveAt(subs=[diffrax.SubSaveAt(ts=jnp.minimum(ts, t_end)), diffrax.SubSaveAt(t1=True)]),
                stepsize_controller=controller,
                adjoint=diffrax.RecursiveCheckpointAdjoint() if self.adjoint is None else self.adjoint,
                max_steps=self.max_steps,
                throw=False,
            )
        assert solution.ts is not None  # asked for by `saveat`
        assert solution.ys is not None
        # diffrax marks what it did not reach as infinite.
        reached = (ts <= t_end) & jnp.isfinite(solution.ts[0])
        values, last = solution.ys[0], jax.tree.map(lambda a: a[0], solution.ys[1])
        values = jax.tree.map(lambda a: jnp.where(reached[:, None], a, jnp.nan), values)

        stopped = solution.ts[1][0].astype(ts.dtype)
        ahead = jnp.minimum(stopped + times_ahead(controller, ts.dtype), t_end)
        slopes = jax.vmap(lambda t: equation(t, last, args))(ahead)
        finite = all_finite(*jax.tree.leaves(last))
        result = RESULTS.promote(solution.result)
        stuck = (result == RESULTS.dt_min_reached) & ~(finite & all_finite(*jax.tree.leaves(slopes)))
        bad = stuck | (result == RESULTS.successful) & ~finite
        return values, first_failure([(bad, RESULTS.metric_nonfinite), (True, result)])


class PoleLadder(AbstractTransport):
    """Geodesic parallelograms on a fixed number of rungs: cheap, of known cost, and linear in the vector.

    The reflection in a point m, ``S(exp_m(z)) = exp_m(-z)``, takes the start of a rung to its end if m is its middle,
    and ``-dS`` takes vectors there along (Lorenzi & Pennec 2014; Guigui & Pennec 2022, Numerical Accuracy of Ladder
    Schemes for Parallel Transport on Manifolds). In terms of the exponential map, with xi half of the rung as a vector
    at m, that is

        w -> D exp_m(xi) eta       where       D exp_m(-xi) eta = w                                        (3)

    the ladder for infinitely short vectors: there is no vector length to choose, and transport is linear, as it should
    be. The inverse in (3) is a few fixed-point steps, which rungs that are short compared to the scale on which
    the metric changes make exact.

    **Arguments**

    - ``rungs``: into how many the geodesic is divided.
    - ``order``: of the approximation of exp: 2, its Taylor polynomial (then (3) is an implicit midpoint rule), or 4, a
      step of the classical Runge-Kutta method.

    The error falls like ``rungs^-2``. Only in symmetric spaces (spheres, hyperbolic spaces), where (3) is exact, does
    ``order=4`` pay: there the error falls like ``rungs^-4``. A rung costs one linearisation of the acceleration and
    three applications of it for ``order=2``, six and fifteen for ``order=4``; values at ``ts`` cost one more
    rung each. There is no error estimate: compare with twice the rungs.

    Raises ``ValueError`` for ``rungs`` that is no positive integer, or another ``order``.

    >>> import jax.numpy as jnp
    >>> from scoregeo import EuclideanMetric, PoleLadder, geodesic, parallel_transport
    >>> straight = geodesic(EuclideanMetric(), jnp.zeros(2), jnp.ones(2))
    >>> parallel_transport(EuclideanMetric(), straight, jnp.array([1.0, 2.0]), method=PoleLadder(8)).tolist()
    [1.0, 2.0]
    """

    rungs: int = setting(64)
    order: int = setting(2)

    def __check_init__(self):
        check_counts(self, rungs=1)
        if self.order not in (2, 4):
            raise ValueError(f"`order` must be 2 or 4, got {self.order!r}")

    def transport(
        self, metric: AbstractMetric, curve: AbstractCurve, w: Vector, ts: Float[Array, " n"], t_end: Scalar
    ) -> tuple[Points, RESULTS]:
        """See `AbstractTransport.transport`."""
        knots = jnp.arange(self.rungs, dtype=ts.dtype) / self.rungs * t_end

        def climb(w, ends):
            return self.rung(metric, curve, w, *ends), w

        last, starts = jax.lax.scan(climb, w, (knots[:-1], knots[1:]))
        starts = jnp.concatenate([starts, last[None]])
        # A time in the middle of a rung is reached by a shorter rung from the same start.
        i = jnp.sum(knots[1:] <= ts[:, None], axis=-1)
        # The curve is not evaluated beyond the end: it may be NaN there, and derivatives would see it although values
        # are masked.
        seen = jnp.minimum(ts, t_end)
        values = jax.vmap(lambda w, t0, t1: self.rung(metric, curve, w, t0, t1))(starts[i], knots[i], seen)
        values = jnp.where((ts <= t_end)[:, None], values, jnp.nan)
        finite = all_finite(jnp.where((ts <= t_end)[:, None], values, 0), last)
        return values, first_failure([(~finite, RESULTS.metric_nonfinite)])

    def rung(self, metric: AbstractMetric, curve: AbstractCurve, w: Vector, t0: Scalar, t1: Scalar) -> Vector:
        """Equation (3): ``w`` at time ``t0``, transported to ``t1``."""
        middle, velocity = curve((t0 + t1) / 2)
        xi = (t1 - t0) / 2 * velocity
        if self.order == 2:
            # exp_m(z) = m + z + a(m, z) / 2, and the derivative of a is odd in z: one linearisation serves both ways.
            _, rate = jax.linearize(lambda z: metric.acceleration(middle, z) / 2, xi)

            def back(eta):
                return eta - rate(eta)

            def forth(eta):
                return eta + rate(eta)
        else:
            _, back = jax.linearize(lambda z: runge_kutta_exp(metric, middle, z), -xi)
            _, forth = jax.linearize(lambda z: runge_kutta_exp(metric, middle, z), xi)
        eta = w
        # Every correction makes the error smaller by a factor of the length of the rung: so many reach the order of
        # the rest of the scheme.
        for _ in range(self.order):
            eta = eta + (w - back(eta))
        return forth(eta)


def runge_kutta_exp(metric: AbstractMetric, x: Point, v: Vector) -> Point:
    """The exponential map by one step of the classical Runge-Kutta method: error ``O(|v|^5)``. Three accelerations:
    the method's fourth is that of the velocity at the end, which is not wanted."""
    acceleration = metric.acceleration
    a1 = acceleration(x, v)
    v2 = v + a1 / 2
    a2 = acceleration(x + v / 2, v2)
    v3 = v + a2 / 2
    a3 = acceleration(x + v2 / 2, v3)
    return x + v + (a1 + a2 + a3) / 6


def _checked(metric: Any, geodesic: Any, ts: Any, **vectors: Any):
    """The arguments of an equation along ``geodesic``, checked: its curve, times, the last of these, and vectors."""
    if not isinstance(geodesic, Geodesic):
        raise TypeError(f"`geodesic` must be a Geodesic, as of `geodesic` or `shoot`, got {type(geodesic).__name__}")
    if geodesic.ts.ndim != 1:
        raise ValueError("`geodesic` must be a single one: use jax.vmap for a batch")
    if geodesic.curve is None:
        raise ValueError("`geodesic` was solved with `dense=False`: it knows only points, and no curve between them")
    dim, dtype = geodesic.points.shape[-1], geodesic.points.dtype
    check_metric(metric, geodesic.points[0])
    tangents = [as_point(vector, name, dim=dim).astype(dtype) for name, vector in vectors.items()]
    # A geodesic that `shoot` stopped at an event ends there.
    t_end = jnp.asarray(geodesic.stats.get("t_end", 1), dtype)
    times = t_end[None] if ts is None else check_times(ts, dtype)
    return geodesic.curve, times, t_end, tangents


def _raise(values: Any, geodesic: Geodesic, result: RESULTS) -> Any:
    """``values``, or an error if the geodesic is none, or the equation along it failed."""
    along = successful_at_event(geodesic.result)
    return raise_if_failed(values, first_failure([(along != RESULTS.successful, along), (True, result)]))


@program
def _transport(method, metric, curve, w, ts, t_end):
    return method.transport(metric, curve, w, ts, t_end)


def parallel_transport(
    metric: AbstractMetric,
    geodesic: Geodesic,
    w: Vector,
    *,
    ts: Times | None = None,
    method: AbstractTransport | None = None,
    throw: bool = True,
) -> Float[Array, "*n d"]:
    """The tangent vector ``w`` at the start of ``geodesic``, parallel transported to its end: shape ``(d,)``.

    **Arguments**

    - ``metric``: the metric; ``geodesic``: a geodesic of it, from `geodesic` or `shoot` (not with ``dense=False``). For
      transport from its end to its start, ``geodesic.reverse()``; for a batch of them, ``jax.vmap``.
    - ``w``: shape ``(d,)``.
    - ``ts``: times in [0, 1], such as ``geodesic.ts``, at which to return the transported vector: then the result has
      shape ``(n, d)``. A geodesic that stopped at an event ends there; vectors later than that are NaN.
    - ``method``: default `TransportODE()`; `PoleLadder` costs less.
    - ``throw``: raise ``RuntimeError`` with advice if the transport fails or the geodesic did. ``False``: no error, and
      NaN where the transport did not arrive.

    Inner products are preserved: transport is an isometry between the tangent spaces. Differentiable with respect to
    ``w``, the geodesic and everything in the metric, in reverse mode by default. Raises ``ValueError`` for wrong
    shapes, naming the argument. Source: do Carmo, Riemannian Geometry, ch. 2; equation (1) of this module.

    >>> import jax.numpy as jnp
    >>> from scoregeo import geodesic, models, parallel_transport
    >>> metric = models.HyperbolicHalfSpace()
    >>> up = geodesic(metric, jnp.array([0.0, 1.0]), jnp.array([0.0, 2.0]))
    >>> parallel_transport(metric, up, jnp.array([0.5, 1.0])).round(4).tolist()
    [1.0, 2.0]
    """
    method = TransportODE() if method is None else method
    if not isinstance(method, AbstractTransport):
        raise TypeError(f"`method` must be a transport such as TransportODE(), got {type(method).__name__}")
    curve, times, t_end, (w,) = _checked(metric, geodesic, ts, w=w)
    values, result = _transport(method, metric, curve, w, times, t_end)
    values = values[0] if ts is None else values
    return _raise(values, geodesic, result) if throw else values


@program
def _jacobi(method, metric, curve: AbstractCurve, j0, dj0, ts, t_end):
    start = curve(jnp.zeros((), ts.dtype))
    # D_t J = J' + Gamma(gamma', J), at the start and, backwards, at the samples.
    state = j0, dj0 + transport_rate(metric, *start, j0)
    (values, slopes), result = method.integrate(jacobi_rate, metric, curve, state, ts, t_end)
    # The curve is not evaluated beyond the end: it may be NaN there, and derivatives would see it.
    points, velocities = jax.vmap(curve)(jnp.minimum(ts, t_end))
    reached = (ts <= t_end)[:, None]
    known = jnp.where(reached, values, 0)
    derivatives = slopes - jax.vmap(transport_rate, (None, 0, 0, 0))(metric, points, velocities, known)
    return (values, jnp.where(reached, derivatives, jnp.nan)), result


def jacobi_field(
    metric: AbstractMetric,
    geodesic: Geodesic,
    j0: Vector,
    dj0: Vector,
    *,
    ts: Times | None = None,
    method: TransportODE | None = None,
    throw: bool = True,
) -> tuple[Points, Points]:
    """The Jacobi field J along ``geodesic`` with ``J(0) = j0`` and ``(D_t J)(0) = dj0``: how neighbours separate.

    **Arguments**

    - ``metric``: the metric; ``geodesic``: a geodesic of it, from `geodesic` or `shoot` (not with ``dense=False``).
    - ``j0``, ``dj0``: the field and its covariant derivative at the start, both ``(d,)``. With ``j0 = 0``, ``J(1)`` is
      the derivative of `exp` in the direction ``dj0``.
    - ``ts``: times in [0, 1] at which the field is returned; default ``geodesic.ts``.
    - ``method``: the settings of the integration, default `TransportODE()`.
    - ``throw``: raise ``RuntimeError`` with advice if the integration fails or the geodesic did. ``False``: no error,
      and NaN where it did not arrive.

    **Returns** ``J`` and its covariant derivative ``D_t J`` at ``ts``, both ``(n, d)``; NaN after the end of a geodesic
    that stopped at an event. Its accuracy is that of the path: where geodesics are unstable, J grows, and so does the
    effect of errors. One JVP of the acceleration for an evaluation; no curvature tensor is formed. Raises
    ``ValueError`` for wrong shapes, naming the argument. Source: do Carmo, Riemannian Geometry, ch. 5; equation (2) of
    this module.

    >>> import jax.numpy as jnp
    >>> from scoregeo import EuclideanMetric, geodesic, jacobi_field
    >>> straight = geodesic(EuclideanMetric(), jnp.zeros(2), jnp.array([1.0, 0.0]))
    >>> values, derivatives = jacobi_field(EuclideanMetric(), straight, [1.0, 0.0], [0.0, 2.0], ts=[0.0, 1.0])
    >>> values.round(4).tolist(), derivatives.round(4).tolist()
    ([[1.0, 0.0], [1.0, 2.0]], [[0.0, 2.0], [0.0, 2.0]])
    """
    method = TransportODE() if method is None else method
    if not isinstance(method, TransportODE):
        raise TypeError(f"`method` must be a TransportODE, got {type(method).__name__}")
    curve, times, t_end, (j0, dj0) = _checked(metric, geodesic, geodesic.ts if ts is None else ts, j0=j0, dj0=dj0)
    values, result = _jacobi(method, metric, curve, j0, dj0, times, t_end)
    return _raise(values, geodesic, result) if throw else values
