"""Geodesics as nodes at equal times: what the solvers `Georce` and `EnergyDescent` share.

A path is a chain of T straight segments. It is the piecewise polynomial of `basis` with one coefficient for each
segment, so that its discrete energy is `PathEnergy` with a rule of a few points on each segment,

    E_h(c) = h sum_t sum_q w_q 1/2 <V_t, V_t>_G(x_t + u_q h V_t),     h = 1 / T,                               (1)

and the Hessian of its Euclidean part, a discrete Laplacian in the nodes, is the identity in ``c``: what converges
slowly in nodes (the number of steps of gradient descent grows with T^2) does not in these coefficients.

What is returned is the C1 cubic through the nodes, with slopes from differences of fourth order. The nodes that
minimise (1) are off by O(h^2) if the rule is exact to second order, and by O(h) for the rule at the start of each
segment; the length of a smooth curve through them is off by the square of that, because a geodesic is stationary.
"""

import abc
import functools
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._checks import check_counts, check_fractions
from ..._numerics import safe_sqrt
from ..._results import RESULTS
from ..._types import Point, Scalar
from ...metrics import AbstractMetric
from ..base import AbstractBoundarySolver
from ..certificate import measure_path
from ..curves import AbstractCurve
from ..solution import Geodesic
from ..spectral.energy import PathEnergy
from ..spectral.estimate import estimate_error
from ..spectral.implicit import AbstractMinimiser, Linearisation, stationary
from ..spectral.legendre import Basis, Coefficients, uniform_breaks
from ..spectral.mesh import Path, polynomial_curve
from ..starts import sideways_nudge

_MAX_CG = 1000


class Minimum(NamedTuple):
    """Where a minimiser of (1) ended.

    Coefficients ``c`` ``(T, 1, d)``; the norm of the gradient there, preconditioned and relative to the norm of the
    path: an estimate of the relative error of the velocities; and the number of steps taken.
    """

    c: Coefficients
    gradient: Scalar
    steps: Array


class AbstractNodalSolver(AbstractBoundarySolver, AbstractMinimiser):
    """A boundary solver that minimises a discrete energy over nodes: a subclass says which one and how.

    Not differentiated: derivatives of the nodes are those of the equation "the gradient of (1) is zero".
    """

    nodes: eqx.AbstractVar[int]
    max_steps: eqx.AbstractVar[int]
    tolerance: eqx.AbstractVar[float | None]
    rtol: eqx.AbstractVar[float]

    @abc.abstractmethod
    def basis(self, dtype) -> Basis:
        """The segments, and the rule of the discrete energy on them."""

    @abc.abstractmethod
    def default_tolerance(self, dtype) -> float:
        """``tolerance`` where it is ``None``."""

    @abc.abstractmethod
    def minimise(self, problem: PathEnergy, start: Coefficients) -> Minimum:
        """Lower the discrete energy of ``problem`` from ``start``, for at most ``max_steps`` steps."""

    def tangent(self, found: Minimum, problem: Linearisation, zeros: Minimum, length_only: bool) -> Minimum:
        """Of the nodes, which are those of the equation "the gradient of (1) is zero". The length, which is that of a
        smooth path through them, needs theirs too."""
        dtype = found.c.dtype
        accuracy = 1e2 * jnp.finfo(dtype).eps
        return zeros._replace(c=problem.coefficients_tangent(self.basis(dtype), found.c, accuracy, _MAX_CG))

    def __check_init__(self):
        check_counts(self, nodes=5, max_steps=1)
        check_fractions(self, "tolerance", "rtol")

    def gradient_tolerance(self, dtype) -> float:
        """``tolerance`` with its default filled in."""
        return self.default_tolerance(dtype) if self.tolerance is None else self.tolerance

    def solve(
        self, metric: AbstractMetric, x: Point, y: Point, init: AbstractCurve, ts: Float[Array, " n"]
    ) -> Geodesic:
        """See `AbstractBoundarySolver.solve`."""
        problem = PathEnergy(metric, x, y)
        start = starting_segments(init, x, y, self.nodes - 1)
        found = stationary(self, problem, jax.lax.stop_gradient(start), length_only=False)

        basis, c = smooth_path(x, y, found.c)
        energy = problem(basis, c)
        curve = polynomial_curve(x, y, Path(c, basis.breaks))
        length = safe_sqrt(2 * energy)
        error, path_error = estimate_error(problem, curve, length)
        converged = found.gradient <= self.gradient_tolerance(x.dtype)
        measure = functools.partial(
            measure_path,
            problem.frozen(),
            finite=jnp.isfinite(energy),
            visited=jax.lax.stop_gradient(basis.path(x, y, c)[0]),
        )
        return Geodesic.from_curve(
            curve,
            ts,
            measure,
            ends=(x, y),
            energy=energy,
            length=length,
            error=error,
            failures=[
                (~converged & (found.steps >= self.max_steps), RESULTS.solver_steps_reached),
                (~converged, RESULTS.stalled),
                (~(error <= self.rtol * length), RESULTS.accuracy_not_reached),
            ],
            stats={"iterations": found.steps, "path_error": path_error},
        )


def starting_segments(init: AbstractCurve, x: Point, y: Point, segments: int) -> Coefficients:
    """``init`` sampled at the nodes, as coefficients ``(segments, 1, d)``, imperceptibly bent sideways.

    The bend lets the solver see the way down from a line that is stationary, but no minimum: see `sideways_nudge`.
    """
    ts = uniform_breaks(segments, x.dtype)
    nodes, _ = jax.vmap(init)(ts)
    nodes = nodes + (ts * (1 - ts))[:, None] * sideways_nudge(x, y)
    # Velocities of the segments less that of the straight path. Without their mean, the path ends at y.
    deviation = segments * jnp.diff(nodes, axis=0) - (y - x)
    return ((deviation - jnp.mean(deviation, 0)) / jnp.sqrt(segments))[:, None]


def smooth_path(x: Point, y: Point, c: Float[Array, "k 1 d"]) -> tuple[Basis, Float[Array, "k 3 d"]]:
    """The C1 cubic through the nodes of the segments ``c`` ``(T, 1, d)``, as coefficients ``(T, 3, d)`` of a basis.

    Slopes at the nodes are exact for polynomials of degree 4; three Gauss points on each segment.
    """
    segments = c.shape[0]
    fine = Basis(uniform_breaks(segments, c.dtype), 3, 3)
    # All velocities are deviations from the straight path: differences of nodes would lose digits in float32.
    v = jnp.sqrt(segments) * (c[:, 0] - jnp.mean(c[:, 0], 0))
    inner = (7 * (v[1:-2] + v[2:-1]) - v[:-3] - v[3:]) / 12
    ends = jnp.asarray([[25, -23, 13, -3], [3, 13, -5, 1]], v.dtype) / 12
    slopes = jnp.concatenate([ends @ v[:4], inner, (ends @ v[:-5:-1])[::-1]])
    # Coefficients of the orthonormal Legendre polynomials, which are +-sqrt(3) and sqrt(5) at the ends.
    first = (slopes[1:] - slopes[:-1]) / (2 * 3**0.5)
    second = ((slopes[1:] + slopes[:-1]) / 2 - v) / 5**0.5
    return fine, jnp.stack([v, first, second], 1) / jnp.sqrt(segments).astype(v.dtype)


def relative_gradient(squared_decrement: Scalar, energy: Scalar) -> Scalar:
    """The preconditioned norm of the gradient, that is the root of ``squared_decrement``, relative to that of the path;
    0 for a single point."""
    positive = energy > 0
    ratio = safe_sqrt(squared_decrement / jnp.where(positive, 2 * energy, 1))
    # A path that does not move is stationary; an infinite energy is no minimum, whatever its gradient.
    return jnp.where(positive, jnp.where(jnp.isfinite(energy), ratio, jnp.inf), jnp.where(energy == 0, 0, jnp.nan))
