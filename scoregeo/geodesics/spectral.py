"""Spectral Newton: geodesics between two points, for any metric, with an error estimate.

The path is a polynomial (see `basis`); its energy, over-integrated by Gauss quadrature at twice as many points as
coefficients, is minimised by Newton's method with a preconditioner fitted to the structure of the metric (`newton`,
`preconditioner`). The degree grows fourfold until the error estimate meets ``rtol``. Where a solve fails, it is
repeated along a continuation from Euclid to the metric.

Error of the length L at degree n, from one evaluation at the next degree n' (for the last one, at twice it):

    error = |L_n' - L_n| + (g^T P^-1 g) / (2 L_n')                                                         (1)

the quadrature error, and what a Newton step with n' coefficients expects to gain (dE / L).
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._results import RESULTS
from .._types import Point, Points, Scalar
from ..metrics import AbstractMetric
from ..metrics.inner_products import safe_sqrt
from .basis import Basis, evaluation_basis, gauss_basis, path_coefficients
from .boundary import AbstractBoundarySolver
from .geodesic import Geodesic, PolynomialCurve
from .newton import ACCEPTED, NONFINITE, RUNNING, STALLED, STATIONARY, Counts, NewtonState, conjugate_gradients, newton
from .path_energy import PathEnergy
from .preconditioner import BasisGrams, Coefficients

# Of the degree between levels. Doubling would fit problems more closely, but compiling a level costs about a second.
_GROWTH = 4


class Levels(NamedTuple):
    """Settings of a solve over increasing degrees; see `SpectralNewton` for their meaning."""

    degrees: tuple[int, ...]
    rtol: float
    path_rtol: float
    tolerance: float
    max_steps: int
    max_cg: int
    continuation: int


class LevelState(NamedTuple):
    """The best path so far: coefficients (padded to the highest degree), and what is known of it."""

    c: Coefficients
    energy: Scalar
    error: Scalar
    path_error: Scalar
    status: Array  # of the Newton iteration that produced `c`
    level: Array  # index into `degrees` of the discretisation in which `c` is stationary
    done: Array
    counts: Counts


def _level_basis(degree: int, dtype, after: Array) -> Basis:
    return gauss_basis(degree - 1, 2 * degree, dtype, after)


def solve_levels(problem: PathEnergy, start: Coefficients, levels: Levels) -> LevelState:
    """Minimise the path energy with increasing degree until the estimated error of the length meets ``rtol``.

    ``start`` holds the coefficients of the starting path, shape ``(max_degree - 1, d)``. Not differentiable (see
    `stationary_path`).
    """
    dtype = start.dtype
    zero = jnp.zeros((), jnp.int32)
    inf = jnp.asarray(jnp.inf, dtype)
    state = LevelState(start, inf, inf, inf, zero, zero, jnp.asarray(False), Counts(zero, zero, zero))
    for i, degree in enumerate(levels.degrees):
        state = _refine(problem, start, state, i, degree, levels)
    return _estimate(problem, state, levels)


def _refine(problem, start, state, index, degree, levels):
    """One level: accept the coarser path, or improve it by Newton's method, with continuation if that fails."""
    modes = degree - 1
    steps = levels.continuation

    def attempt(carry):
        k, state, _ = carry
        # Attempt 0 is the metric itself; attempts 1..steps lead from 1e-3 of it to all of it, from the starting path.
        direct = k == 0
        exponent = jnp.where(direct, 0.0, -3.0 * (steps - k) / max(steps - 1, 1))
        fraction = (10.0**exponent).astype(start.dtype)
        c = jnp.where(k == 1, start[:modes], state.c[:modes])
        coarse_length = jnp.where(direct & (state.status == STATIONARY), safe_sqrt(2 * state.energy), jnp.inf)
        tolerance = jnp.where(exponent == 0, levels.tolerance, max(levels.tolerance, 1e-3)).astype(start.dtype)
        result = newton(
            problem,
            _level_basis(degree, start.dtype, k),
            c,
            state.counts,
            fraction=fraction,
            tolerance=tolerance,
            max_steps=levels.max_steps,
            max_cg=levels.max_cg,
            coarse_length=coarse_length.astype(start.dtype),
            rtol=levels.rtol,
            path_rtol=levels.path_rtol,
        )
        accepted = direct & (result.status == ACCEPTED)
        result = result._replace(status=jnp.where(accepted, STATIONARY, result.status))
        level = jnp.where(accepted, state.level, index).astype(jnp.int32)
        padded = jnp.zeros_like(start).at[:modes].set(result.c)
        error = jnp.where(direct, result.error, jnp.inf)
        path_error = relative_path_error(result)
        state = LevelState(padded, result.energy, error, path_error, result.status, level, accepted, result.counts)
        return k + 1, state, (direct & (result.status == STATIONARY)) | (k >= steps)

    k = jnp.zeros((), jnp.int32)
    return jax.lax.while_loop(lambda carry: ~carry[2], attempt, (k, state, state.done))[1]


def relative_path_error(result: NewtonState) -> Scalar:
    """What a Newton step expects to change the path by, relative to it, in the norm of the energy."""
    positive = result.energy > 0
    return jnp.where(positive, safe_sqrt(result.gradient / jnp.where(positive, 2 * result.energy, 1)), 0)


def _estimate(problem, state, levels):
    """Judge the path of the highest degree by one evaluation at twice that degree."""
    degree = 2 * levels.degrees[-1]
    c = jnp.pad(state.c, ((0, degree - 1 - state.c.shape[0]), (0, 0)))
    coarse_length = jnp.where(state.status == STATIONARY, safe_sqrt(2 * state.energy), jnp.inf)

    def evaluate(carry):
        state, judged = carry
        result = newton(
            problem,
            _level_basis(degree, c.dtype, judged),
            c,
            state.counts,
            tolerance=0.0,
            max_steps=0,
            max_cg=0,
            coarse_length=coarse_length,
            rtol=levels.rtol,
        )
        done = (result.status == ACCEPTED) & (state.status == STATIONARY)
        state = state._replace(
            energy=result.energy,
            error=result.error,
            path_error=relative_path_error(result),
            done=done,
            counts=result.counts,
        )
        return state, jnp.asarray(True)

    # A loop of at most one step rather than `cond`: under `vmap`, `cond` would evaluate for lanes that have no need of
    # it.
    return jax.lax.while_loop(lambda carry: ~carry[1], evaluate, (state, state.done))[0]


@eqx.filter_custom_jvp
def stationary_path(problem: PathEnergy, start: Coefficients, levels: Levels) -> LevelState:
    """`solve_levels`, differentiable with respect to everything in ``problem``.

    The energy by the envelope theorem, dE = (dE/dtheta) at the fixed path; the coefficients by the implicit function
    theorem on dE/dc = 0, that is dc = -H^-1 d(dE/dc)/dtheta, solved by the same preconditioned conjugate gradients.
    ``error`` and counts have derivative zero.
    """
    return solve_levels(problem, start, levels)


@stationary_path.def_jvp
def _stationary_path_jvp(primals, tangents):
    problem, start, levels = primals
    dproblem = tangents[0]
    state = stationary_path(problem, start, levels)
    dynamic, static = eqx.partition(problem, eqx.is_inexact_array)
    dynamic_tangent = jax.tree.map(
        lambda p, t: jnp.zeros_like(p) if t is None and p is not None else t,
        dynamic,
        dproblem,
        is_leaf=lambda leaf: leaf is None,
    )

    def tangent(degree, c, dynamic, dynamic_tangent):
        basis = _level_basis(degree, c.dtype, state.level)
        c = c[: degree - 1]

        def energy(dynamic, c):
            return eqx.combine(dynamic, static)(basis, c)

        def gradient(c):
            return jax.grad(energy, argnums=1)(dynamic, c)

        _, de = jax.jvp(lambda p: energy(p, c), (dynamic,), (dynamic_tangent,))
        _, dg = jax.jvp(lambda p: jax.grad(energy, argnums=1)(p, c), (dynamic,), (dynamic_tangent,))
        hessian = jax.linearize(gradient, c)[1]
        problem = eqx.combine(dynamic, static).frozen()
        preconditioner = problem.preconditioner(basis, BasisGrams.of(basis), c)

        def solve(matvec, b):
            z = preconditioner.solve(b)
            size = jnp.sum(b * z)
            return conjugate_gradients(
                matvec, preconditioner.solve, -b, z, size, levels.tolerance**2 * size, 4 * levels.max_cg
            )[0]

        dc = jax.lax.custom_linear_solve(hessian, -dg, solve, symmetric=True)
        return jnp.zeros_like(state.c).at[: degree - 1].set(dc), de

    branches = [lambda *args, degree=degree: tangent(degree, *args) for degree in levels.degrees]
    dc, de = jax.lax.switch(state.level, branches, state.c, dynamic, dynamic_tangent)
    zeros = jax.tree.map(lambda leaf: jnp.zeros_like(leaf) if eqx.is_inexact_array(leaf) else None, state)
    return state, zeros._replace(c=dc, energy=de)


class SpectralNewton(AbstractBoundarySolver):
    """Newton's method for the energy of polynomial paths, with degree refinement. The default solver.

    **Arguments**

    - ``rtol``: relative accuracy of the length; default 1e-8 in float64, 1e-5 in float32. A solve that does not reach
      it says so.
    - ``path_rtol``: relative accuracy of the path (its velocity, in the mean over the path) that refinement aims at as
      far as ``max_degree`` allows; default 1e-8 in float64, 1e-5 in float32. The error of the length is about its
      square, so `dist` aims at no more than ``rtol``; `log` and pictures need the path.
    - ``degree``, ``max_degree``: first degree of the polynomial, and the one not to exceed; it grows fourfold in
      between, and every degree is compiled.
    - ``tolerance``: a degree is solved when the preconditioned norm of the gradient is below this times that of the
      path; default 1e-10 in float64, 1e-5 in float32. It bounds the relative error of the path; that of the length is
      its square.
    - ``max_steps``: Newton steps for one degree (and for one step of the continuation).
    - ``max_cg``: conjugate gradient steps for one Newton step.
    - ``continuation``: how many steps lead from the Euclidean metric to this one where a direct solve fails; 0 to fail
      at once.

    The error estimate in `Geodesic.error` adds the change of the length in the quadrature of the next degree to what a
    Newton step with its coefficients would gain.
    """

    rtol: float | None = eqx.field(static=True, default=None)
    path_rtol: float | None = eqx.field(static=True, default=None)
    degree: int = eqx.field(static=True, default=16)
    max_degree: int = eqx.field(static=True, default=256)
    tolerance: float | None = eqx.field(static=True, default=None)
    max_steps: int = eqx.field(static=True, default=60)
    max_cg: int = eqx.field(static=True, default=100)
    continuation: int = eqx.field(static=True, default=13)

    def __check_init__(self):
        for name, least in (
            ("degree", 2),
            ("max_degree", self.degree),
            ("max_steps", 1),
            ("max_cg", 1),
            ("continuation", 0),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ValueError(f"`{name}` must be an integer of at least {least}, got {value!r}")
        for name in ("rtol", "path_rtol", "tolerance"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise ValueError(f"`{name}` must be positive and at most 1, got {value!r}")

    def levels(self, dtype) -> Levels:
        """The settings with their defaults for ``dtype`` filled in."""
        degrees = [self.degree]
        while _GROWTH * degrees[-1] <= self.max_degree:
            degrees.append(_GROWTH * degrees[-1])
        double = jnp.finfo(dtype).bits >= 64
        rtol = self.rtol if self.rtol is not None else (1e-8 if double else 1e-5)
        path_rtol = self.path_rtol if self.path_rtol is not None else (1e-8 if double else 1e-5)
        tolerance = self.tolerance if self.tolerance is not None else (1e-10 if double else 1e-5)
        return Levels(tuple(degrees), rtol, path_rtol, tolerance, self.max_steps, self.max_cg, self.continuation)

    def solve(
        self, metric: AbstractMetric, x: Point, y: Point, init: Points | None, ts: Float[Array, " n"]
    ) -> Geodesic:
        """See `AbstractBoundarySolver.solve`."""
        levels = self.levels(x.dtype)
        modes = levels.degrees[-1] - 1
        start = _bow(x, y, modes) + (0 if init is None else path_coefficients(init, modes))
        problem = PathEnergy(metric, x, y)
        state = stationary_path(problem, jax.lax.stop_gradient(start), levels)

        basis = evaluation_basis(modes, ts)
        points, velocities = basis.path(x, y, state.c)
        densities = problem.frozen().densities(basis, jax.lax.stop_gradient(state.c))
        residual = jnp.max(jnp.abs(densities - state.energy)) / jnp.where(state.energy > 0, state.energy, 1)
        stats = {
            "newton_steps": state.counts.newton,
            "cg_steps": state.counts.cg,
            "metric_evaluations": state.counts.metric,
            "path_error": jax.lax.stop_gradient(state.path_error),
            "degree": jnp.asarray(levels.degrees)[state.level],
        }
        return Geodesic(
            ts=ts,
            points=points,
            velocities=velocities,
            length=safe_sqrt(2 * state.energy),
            energy=state.energy,
            error=state.error,
            residual=jax.lax.stop_gradient(residual),
            # Quadrature never looks at the ends; the samples do.
            result=RESULTS.where(jnp.isfinite(residual), _result(state), RESULTS.metric_nonfinite),
            stats=stats,
            curve=PolynomialCurve(x, y, state.c),
        )


def _bow(x: Point, y: Point, modes: int) -> Coefficients:
    """What is added to the starting path: an imperceptible bend sideways.

    Where the problem is symmetric about the line, the line is stationary even if it is no minimum (between opposite
    points of a Gaussian, beyond its conjugate points); off it, the solver sees the way down. The first coefficient
    alone is bent, because that is the same for the path walked backwards: distances stay symmetric.
    """
    direction = jax.random.normal(jax.random.key(0), x.shape, x.dtype)
    size = jnp.finfo(x.dtype).eps ** (1 / 3) * safe_sqrt(jnp.sum((y - x) ** 2) / jnp.sum(direction**2))
    return jnp.zeros((modes, x.size), x.dtype).at[0].set(size * direction)


def _result(state: LevelState) -> RESULTS:
    """The result code of a final state: of the Newton iteration if it failed, else of the accuracy."""
    result = RESULTS.where(state.done, RESULTS.successful, RESULTS.accuracy_not_reached)
    result = RESULTS.where(state.status == RUNNING, RESULTS.newton_steps_reached, result)
    result = RESULTS.where(state.status == STALLED, RESULTS.stalled, result)
    return RESULTS.where(state.status == NONFINITE, RESULTS.metric_nonfinite, result)
