"""Spectral Newton: geodesics between two points, for any metric, with an error estimate.

The path is a polynomial on each of a few elements (see `basis`); its energy, over-integrated by Gauss quadrature at
twice as many points as coefficients, is minimised by Newton's method with a preconditioner fitted to the structure of
the metric (`newton`, `preconditioner`). Elements grow in number, and are drawn to where the path turns, until the error
estimate meets ``rtol`` (`refinement`, `mesh`). Where a solve fails, it is repeated along a continuation from Euclid to
the metric.

Error of the length L on one level, from one evaluation on the next:

    error = |L' - L| + (g^T P^-1 g) / (2 L')                                                               (1)

the quadrature error, and what a Newton step with the other coefficients expects to gain (dE / L). For the last level,
the evaluation is on as many elements across; the best path with these is about as far from the geodesic as the one that
is judged, so that its error is twice (1), and no less than what going along it at constant speed would gain.
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._batching import over_rows
from ..._checks import check_counts, check_fractions, setting
from ..._numerics import by_precision
from ..._results import RESULTS
from ..._types import Point
from ...metrics import AbstractMetric, ScoreJacobianMetric
from ..base import AbstractBoundarySolver, default_solver
from ..certificate import measure_path
from ..curves import AbstractCurve
from ..solution import Geodesic
from ..starts import sideways_nudge
from .energy import PathEnergy
from .implicit import stationary
from .legendre import Coefficients, uniform_breaks
from .mesh import polynomial_curve
from .refinement import Refinement, accurate
from .settings import Settings

# The number of elements grows by this factor between levels, at most. Smaller steps would fit problems more closely,
# but every level takes more than a second to compile.
_GROWTH = 4


class SpectralNewton(AbstractBoundarySolver):
    """Newton's method for the energy of piecewise polynomial paths, with refinement. The default solver.

    **Arguments**

    - ``rtol``: relative accuracy of the length; default 1e-6 in float64, 1e-5 in float32. A solve that does not reach
      it says so.
    - ``path_rtol``: relative accuracy of the path (its velocity, in the mean over the path) that refinement aims at as
      far as ``max_elements`` allows; default 1e-6 in float64, 1e-4 in float32. The error of the length is about its
      square, so `dist` aims at no more than ``rtol``; `log` and pictures need the path.
    - ``degree``: of the polynomials. The first level is one polynomial for the whole path.
    - ``max_elements``: the number of polynomials not to exceed; it grows at most 4-fold from level to level (by default
      1, 4 and 12), and every level is compiled. One polynomial is judged by two.
    - ``quadrature``: quadrature points per coefficient. With as many points as coefficients (1), paths in a stiff
      metric cheat between the points; the error estimate checks that another rule gives the same length.
    - ``tolerance``: a level is solved when the preconditioned norm of the gradient is below this times that of the
      path. It bounds the relative error of the path; that of the length is its square. Default a thousandth of what
      ``path_rtol`` and the root of ``rtol`` ask for, but not below 1e-10 in float64, 1e-5 in float32.
    - ``max_steps``: Newton steps for one level (and for one step of the continuation).
    - ``max_cg``: conjugate gradient steps for one Newton step.
    - ``continuation``: how many steps lead from the Euclidean metric to this one where a direct solve fails, on the way
      that `scoregeo.metrics.relaxed` knows (of conformal metrics, in the exponent: the ratio of costs grows from 1 by
      the same factor with every step); 0 to fail at once. The first level is not repeated along them where another
      follows.
    - ``adaptations``: how often the elements of the last level are moved to where the path turned out to bend, as long
      as that helps; sharp bends need it.
    - ``max_evaluations``: points at which the metric may be evaluated, counting Hessian-vector products: what a solve
      costs at most, up to one Newton step more. Stiff metrics cost most: give training loops a bound that they can
      afford, and look at the codes.
    - ``batch_size``: at how many points of a path the metric is evaluated side by side; default all of them. For large
      networks, whose intermediate values for all points would not fit in memory.
    - ``checkpoint``: do not keep the intermediate values of the metric for its derivatives, but compute them again
      (`jax.checkpoint`): for networks, memory for time.

    The error estimate in `Geodesic.error` adds the change of the length in the quadrature of the next level to what a
    Newton step with its coefficients would gain (a hundred such steps, if the descent was stopped before its end, as
    kinks of the metric do); for the last level, it is twice that on elements across, and no less than what the path
    would gain at constant speed. Under ``jax.vmap`` lanes that have finished make room for others.
    """

    rtol: float | None = setting(None)
    path_rtol: float | None = setting(None)
    degree: int = setting(16)
    max_elements: int = setting(12)
    quadrature: int = setting(2)
    tolerance: float | None = setting(None)
    max_steps: int = setting(60)
    max_cg: int = setting(100)
    continuation: int = setting(13)
    adaptations: int = setting(4)
    max_evaluations: int = setting(1_000_000)
    batch_size: int | None = setting(None)
    checkpoint: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        check_counts(
            self,
            degree=2,
            max_elements=1,
            quadrature=1,
            max_steps=1,
            max_cg=1,
            continuation=0,
            adaptations=0,
            max_evaluations=1,
            batch_size=None if self.batch_size is None else 1,
        )
        check_fractions(self, "rtol", "path_rtol", "tolerance")

    def settings(self, dtype) -> Settings:
        """The settings with their defaults for ``dtype`` filled in."""
        elements = [1]
        while _GROWTH * elements[-1] < self.max_elements:
            elements.append(_GROWTH * elements[-1])
        rtol = self.rtol if self.rtol is not None else by_precision(dtype, 1e-6, 1e-5)
        path_rtol = self.path_rtol if self.path_rtol is not None else by_precision(dtype, 1e-6, 1e-4)
        # A path error of this size changes the length by its square: to solve tighter would be in vain.
        needed = 1e-3 * min(path_rtol, rtol**0.5)
        tolerance = self.tolerance if self.tolerance is not None else max(by_precision(dtype, 1e-10, 1e-5), needed)
        return Settings(
            self.degree,
            self.quadrature,
            (*elements, max(2, self.max_elements)),
            self.max_elements == 1,
            rtol,
            path_rtol,
            tolerance,
            self.max_steps,
            self.max_cg,
            self.continuation,
            self.adaptations,
            self.max_evaluations,
        )

    def solve(
        self,
        metric: AbstractMetric,
        x: Point,
        y: Point,
        init: AbstractCurve,
        ts: Float[Array, " n"],
        *,
        length_only: bool = False,
    ) -> Geodesic:
        """See `AbstractBoundarySolver.solve`."""
        settings = self.settings(x.dtype)
        problem = PathEnergy(metric, x, y, self.batch_size, self.checkpoint)
        start = starting_coefficients(init, x, y, settings)
        state = stationary(Refinement(settings), problem, jax.lax.stop_gradient(start), length_only=length_only)
        best = state.best

        basis = settings.basis(state.work.breaks)
        measure = functools.partial(
            measure_path,
            problem.frozen(),
            mean=2 * best.energy,
            finite=state.outcome != RESULTS.metric_nonfinite,
            visited=jax.lax.stop_gradient(basis.path(x, y, state.work.c)[0]),
        )
        return Geodesic.from_curve(
            polynomial_curve(x, y, best.path),
            ts,
            measure,
            ends=(x, y),
            energy=best.energy,
            error=best.error,
            failures=[
                (state.outcome != RESULTS.successful, state.outcome),
                (~accurate(best, settings), RESULTS.accuracy_not_reached),
            ],
            stats={
                "newton_steps": state.counts.newton,
                "cg_steps": state.counts.cg,
                "metric_evaluations": state.counts.metric,
                "path_error": jax.lax.stop_gradient(best.path_error),
                "elements": jnp.asarray(settings.elements)[best.level],
            },
        )

    def solve_length(
        self, metric: AbstractMetric, x: Point, y: Point, init: AbstractCurve, ts: Float[Array, " n"]
    ) -> Geodesic:
        """See `AbstractBoundarySolver.solve_length`."""
        return self.solve(metric, x, y, init, ts, length_only=True)


def starting_coefficients(init: AbstractCurve, x: Point, y: Point, settings: Settings) -> Coefficients:
    """``init`` on equal elements, as many as the last level has, bent by `sideways_nudge`."""
    basis = settings.basis(uniform_breaks(settings.elements[-1], x.dtype))
    _, velocities = over_rows(init, basis.times)
    # The derivative of a bow t (1 - t).
    bow = (1 - 2 * basis.times)[:, None] * sideways_nudge(x, y)
    return basis.project_velocity(velocities + bow, x, y)


@default_solver.register(AbstractMetric)
def _(metric: AbstractMetric, *, length_only: bool = False) -> SpectralNewton:
    # Distances need the length alone: no reason to refine the path beyond it.
    return SpectralNewton(path_rtol=1.0) if length_only else SpectralNewton()


@default_solver.register(ScoreJacobianMetric)
def _(metric: ScoreJacobianMetric, *, length_only: bool = False) -> SpectralNewton:
    # The direct preconditioner costs the cube of the degree: more elements of a lower one are twice as fast. Straight
    # starts far from the data fail more often than not, and four steps from Euclid were as good as thirteen.
    path_rtol = 1.0 if length_only else None
    return SpectralNewton(degree=8, max_elements=16, continuation=4, path_rtol=path_rtol)
