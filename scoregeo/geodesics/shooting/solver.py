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

import dataclasses
import functools
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..._checks import check_counts, check_fractions, setting
from ..._numerics import by_precision, frozen, safe_sqrt
from ..._results import RESULTS, first_failure
from ..._types import Point, Scalar
from ...metrics import AbstractMetric
from ..base import AbstractBoundarySolver
from ..certificate import measure_path, measure_point, some_negative
from ..curves import AbstractCurve
from ..solution import Geodesic
from .flow import Flow, FlowProblem
from .root import Root, SegmentStates, defects, matched_states, stationary_energy

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

    def for_precision(self, dtype: Any) -> "Shooting":
        """The same solver with its defaults for ``dtype`` filled in."""
        return dataclasses.replace(
            self,
            rtol=self.rtol if self.rtol is not None else by_precision(dtype, 1e-12, 1e-6),
            tolerance=self.tolerance if self.tolerance is not None else by_precision(dtype, 1e-10, 1e-5),
            integration_steps=self.integration_steps or max(256 // self.segments, 64),
        )

    def solve(
        self, metric: AbstractMetric, x: Point, y: Point, init: AbstractCurve, ts: Float[Array, " n"]
    ) -> Geodesic:
        """See `AbstractBoundarySolver.solve`."""
        settings = self.for_precision(x.dtype)
        problem = FlowProblem(metric, x, y)
        start = jax.lax.stop_gradient(_starting_states(init, x, y, self.segments))
        root, flow = matched_states(problem, start, settings)
        constant = frozen(problem)
        found = _measure_defects(constant, *frozen((root.states, flow)))
        energy = stationary_energy(found.energy, problem, flow.curve)
        length = safe_sqrt(2 * energy)
        path_error = root.correction + found.largest + found.drift
        share = path_error**2 / 2 + settings.rtol + 4 * jnp.finfo(x.dtype).eps
        error = found.error + jax.lax.stop_gradient(length) * share

        def measure(curve, points, velocities):
            finite = jnp.isfinite(found.drift + found.largest)
            measured = measure_path(constant, curve, points, velocities, mean=2 * found.energy, finite=finite)
            return measured._replace(residual=jnp.maximum(measured.residual, found.largest))

        assert settings.tolerance is not None  # `for_precision` has set both
        assert settings.rtol is not None
        accuracy = max(settings.tolerance, settings.rtol)
        return Geodesic.from_curve(
            flow.curve,
            ts,
            measure,
            ends=(x, y),
            energy=energy,
            length=length,
            error=error,
            causes=[*_causes(constant, init, root, flow), (found.outside, RESULTS.outside_domain)],
            failures=[
                (found.largest > 1e3 * accuracy, RESULTS.ends_missed),
                # Where the metric has a kink, a path that meets the geodesic equation on both sides may be no geodesic.
                (error > accuracy**0.5 * length, RESULTS.accuracy_not_reached),
            ],
            stats={
                "iterations": root.iterations,
                "integration_steps": flow.steps,
                "defect": found.largest,
                "path_error": jax.lax.stop_gradient(path_error),
            },
        )


def _starting_states(init: AbstractCurve, x: Point, y: Point, segments: int) -> SegmentStates:
    """States of ``init`` at the starts of the segments; at rest, if the end points are the same."""
    points, velocities = jax.vmap(init)(jnp.arange(segments, dtype=x.dtype) / segments)
    rest = jnp.all(x == y)
    points = jnp.where(rest, x, points.astype(x.dtype))
    return SegmentStates(points[1:], jnp.where(rest, 0, velocities.astype(x.dtype)))


def _causes(
    problem: FlowProblem, init: AbstractCurve, root: Root, flow: Flow
) -> list[tuple[Bool[Array, ""] | bool, RESULTS]]:
    """Why there is no path without defects, the first to be true: a start that already failed is inspected itself."""
    points, velocities = jax.vmap(init)(jnp.linspace(0, 1, _PROBES, dtype=problem.x.dtype))
    measure = functools.partial(measure_point, problem.inner_product)
    squared, indefinite = jax.vmap(measure)(points, velocities)
    start_finite = jnp.all(jnp.isfinite(squared))
    start_negative = some_negative(squared) | jnp.any(indefinite)
    ends_outside = problem.outside(jnp.stack([problem.x, problem.y]))
    too_long = root.result == RESULTS.max_steps_reached
    failed = first_failure([(root.result != RESULTS.successful, root.result), (True, flow.result)])
    return [
        (ends_outside | (too_long & problem.outside(points)), RESULTS.outside_domain),
        # Near points where the metric is not finite, the integrator's steps shrink, and there are too many.
        (too_long & ~start_finite, RESULTS.metric_nonfinite),
        ((failed != RESULTS.successful) & start_negative, RESULTS.metric_nonfinite),
        (failed == RESULTS.max_steps_reached, RESULTS.solver_steps_reached),
        (failed != RESULTS.successful, failed),
    ]


class _Defects(NamedTuple):
    """The energy of a shooting path, the first two terms of (2), and relative defects: the ``largest`` gap, and the
    ``drift`` of the speed. ``outside``: whether the integration left the domain."""

    energy: Scalar
    error: Scalar
    largest: Scalar
    drift: Scalar
    outside: Array


def _measure_defects(problem: FlowProblem, states: SegmentStates, flow: Flow) -> _Defects:
    starts = states.starts(problem.x)
    squared = jnp.append(
        problem.squared_speeds(starts, states.velocities), problem.squared_speeds(flow.points, flow.velocities)
    )
    mean = jnp.mean(squared)
    length = safe_sqrt(mean)
    unit = jnp.where(length > 0, length, 1)
    drift = jnp.max(jnp.abs(safe_sqrt(squared) - length)) / unit

    gaps, velocity_gaps = defects(problem.y, states, flow.points, flow.velocities)
    along = jax.vmap(lambda x, gap, v: problem.inner_product(x).inner(gap, v))(flow.points, gaps, flow.velocities)
    gaps = problem.squared_speeds(flow.points, gaps)
    velocity_gaps = problem.squared_speeds(flow.points[:-1], velocity_gaps)
    assert flow.curve is not None  # the last flow of a solve is integrated with dense output
    visited, taken = flow.curve.visited()
    domain = jax.vmap(problem.domain)(visited)
    return _Defects(
        energy=mean / 2,
        error=drift * length + jnp.sum(jnp.abs(along)) / unit,
        largest=safe_sqrt(jnp.max(jnp.append(gaps, velocity_gaps))) / unit,
        drift=drift,
        outside=jnp.any(taken & (domain <= 0)),
    )
