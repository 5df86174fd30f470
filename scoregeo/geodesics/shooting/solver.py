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

from typing import NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._checks import check_counts, check_fractions, setting
from ..._numerics import frozen, safe_sqrt
from ..._results import RESULTS
from ..._types import Point, Points, Scalar
from ...metrics import AbstractMetric
from ..base import AbstractBoundarySolver
from ..curves import AbstractCurve
from ..solution import Geodesic, speed_deviation
from .flow import (
    CONVERGED,
    INACCURATE,
    MISSED,
    NONFINITE,
    OUTSIDE,
    RUNNING,
    TOO_LONG,
    Flow,
    FlowProblem,
    ShootingSettings,
)
from .root import SegmentStates, defects, matched_states, stationary_energy

# Points at which a start that failed is inspected.
_PROBES = 65


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
    integration ``integration_steps``), ``accuracy_not_reached`` (the error is above the root of the tolerances, as
    where the metric has a kink, that the geodesic equation does not see), ``metric_nonfinite`` or ``outside_domain``.

    >>> import jax.numpy as jnp
    >>> from scoregeo import GaussianScore, Shooting, SteinMetric, geodesic
    >>> metric = SteinMetric(GaussianScore(jnp.zeros(2), jnp.eye(2)))
    >>> x, y = jnp.array([-1.0, 0.5]), jnp.array([1.0, 0.7])
    >>> round(float(geodesic(metric, x, y, solver=Shooting(segments=4)).length), 4)
    2.2213
    """

    segments: int = setting(8)
    rtol: float | None = setting(None)
    tolerance: float | None = setting(None)
    max_steps: int = setting(40)
    integration_steps: int | None = setting(None)
    solver: diffrax.AbstractERK = eqx.field(default_factory=diffrax.Dopri8)
    max_dense: int = setting(512)
    max_gmres: int = setting(200)

    def __check_init__(self):
        least = None if self.integration_steps is None else 2
        check_counts(self, segments=1, max_steps=1, integration_steps=least, max_dense=0, max_gmres=1)
        check_fractions(self, "rtol", "tolerance")
        if not isinstance(self.solver, diffrax.AbstractERK):
            raise TypeError(
                f"`solver` must be an explicit Runge-Kutta method such as diffrax.Dopri8(), got {self.solver!r}"
            )

    def _settings(self, dtype) -> ShootingSettings:
        double = jnp.finfo(dtype).bits >= 64
        return ShootingSettings(
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
        problem = FlowProblem(metric, x, y)
        start = jax.lax.stop_gradient(_starting_states(init, x, y, self.segments))
        root, flow = matched_states(problem, start, settings)
        curve = flow.curve
        points, velocities = jax.vmap(curve)(ts)

        constant = frozen(problem)
        certificate = _certificate(constant, *frozen((root.states, flow, points, velocities)))
        energy = stationary_energy(certificate.energy, problem, curve)
        path_error = root.correction + certificate.defect + certificate.drift
        length = safe_sqrt(2 * energy)
        eps = jnp.finfo(x.dtype).eps
        error = certificate.error + jax.lax.stop_gradient(length) * (path_error**2 / 2 + settings.rtol + 4 * eps)

        # The first of these that is true says how it ended.
        ends_outside, path_outside, path_finite = _inspect(constant, init)
        too_long = root.status == TOO_LONG
        status = jnp.select(
            [
                ends_outside | (too_long & path_outside),
                # Near points where the metric is not finite, the integrator's steps shrink, and there are too many.
                too_long & ~path_finite,
                root.status != CONVERGED,
                flow.status != RUNNING,
                certificate.outside,
                ~certificate.finite,
                certificate.defect > 1e3 * max(settings.tolerance, settings.rtol),
                # Where the metric has a kink, the geodesic equation is met on both sides of it, by no geodesic.
                error > max(settings.tolerance, settings.rtol) ** 0.5 * length,
            ],
            [
                jnp.asarray(code, jnp.int32)
                for code in (OUTSIDE, NONFINITE, root.status, flow.status, OUTSIDE, NONFINITE, MISSED, INACCURATE)
            ],
            CONVERGED,
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


def _starting_states(init: AbstractCurve, x: Point, y: Point, segments: int) -> SegmentStates:
    """States of ``init`` at the starts of the segments; at rest, if the end points are the same."""
    points, velocities = jax.vmap(init)(jnp.arange(segments, dtype=x.dtype) / segments)
    rest = jnp.all(x == y)
    points = jnp.where(rest, x, points.astype(x.dtype))
    return SegmentStates(points[1:], jnp.where(rest, 0, velocities.astype(x.dtype)))


def _inspect(problem: FlowProblem, init: AbstractCurve) -> tuple[Array, Array, Array]:
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


def _certificate(
    problem: FlowProblem, states: SegmentStates, flow: Flow, points: Points, velocities: Points
) -> _Certificate:
    starts = states.starts(problem.x)
    squared = jnp.append(
        problem.squared_speeds(starts, states.velocities), problem.squared_speeds(flow.points, flow.velocities)
    )
    mean = jnp.mean(squared)
    length = safe_sqrt(mean)
    unit = jnp.where(length > 0, length, 1)
    drift = jnp.max(jnp.abs(safe_sqrt(squared) - length)) / unit

    gaps, kinks = defects(problem.y, states, flow.points, flow.velocities)
    along = jax.vmap(lambda x, gap, v: problem.inner_product(x).inner(gap, v))(flow.points, gaps, flow.velocities)
    gaps = problem.squared_speeds(flow.points, gaps)
    kinks = problem.squared_speeds(flow.points[:-1], kinks)
    defect = safe_sqrt(jnp.max(jnp.append(gaps, kinks))) / unit
    samples = problem.squared_speeds(points, velocities)
    deviation = speed_deviation(samples, mean)
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
    result = RESULTS.where(status == CONVERGED, RESULTS.successful, RESULTS.solver_steps_reached)
    result = RESULTS.where(status == MISSED, RESULTS.ends_missed, result)
    result = RESULTS.where(status == INACCURATE, RESULTS.accuracy_not_reached, result)
    result = RESULTS.where(status == NONFINITE, RESULTS.metric_nonfinite, result)
    return RESULTS.where(status == OUTSIDE, RESULTS.outside_domain, result)
