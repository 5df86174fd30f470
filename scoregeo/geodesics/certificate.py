"""What makes a path a geodesic that can be relied on: measured and judged here, for every solver.

A path is measured in the metric at its samples, at both end points and, where samples are few and the structure of the
metric does not make it positive, at times in between that no symmetry of a problem singles out. What cannot be, such as
a negative squared speed, fails the solve, whatever the solver says.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .._numerics import by_precision, frozen
from .._results import RESULTS, first_failure
from .._types import Matrix, Point, Points, Scalar, Vector
from ..metrics import AbstractInnerProduct, IdentityPlusRankOne, as_dense, as_diagonal, at_least_identity

_T = TypeVar("_T")

# Times at which a metric that may be indefinite is looked at besides few samples: multiples of the golden ratio, modulo
# one, leave no large gap and meet no simple fraction.
PROBES = np.sort(np.arange(1, 65) * (np.sqrt(5) - 1) / 2 % 1)
# Dimension up to which dense matrices are eliminated to see whether they are indefinite.
_MAX_ELIMINATED = 64
# End points closer than this many units of rounding may have an energy that rounds to zero.
_ROUNDING = 100


@runtime_checkable
class PathProblem(Protocol):
    """A boundary value problem, as solvers hold it: end points, metric, and how to evaluate it along a path."""

    x: Point
    y: Point
    inner_product: Callable[[Point], AbstractInnerProduct]
    domain: Callable[[Point], Scalar]

    def over_points(self, function: Callable, *arrays: Array) -> Any:
        """``function`` of one point each, over the points of a path."""
        ...


class Measurement(NamedTuple):
    """What the metric says of a path: the ``residual`` of its squared speed, and whether all that was seen of it is in
    the domain, finite, and positive; ``least_length`` is what no path between its ends falls below."""

    residual: Scalar
    inside: Bool[Array, ""] | bool = True
    finite: Bool[Array, ""] | bool = True
    positive: Bool[Array, ""] | bool = True
    least_length: Scalar | float = 0.0


def speed_deviation(squared: Float[Array, " n"], mean: Scalar, where: Bool[Array, " n"] | None = None) -> Scalar:
    """The ``residual``: how far values ``squared`` of the squared speed, or of a multiple of it, are from their
    ``mean``, at most and relative to it. Absolute, if that is not positive."""
    return jnp.max(jnp.abs(squared - mean), where=where, initial=0) / jnp.where(mean > 0, mean, 1)


def isolated(tree: _T) -> _T:
    """``tree`` as a constant that the compiler does not share with what made it.

    Otherwise what is measured after a solve would change how the solve is fused, and so its last digits.
    """
    arrays, static = eqx.partition(frozen(tree), eqx.is_array)
    return eqx.combine(jax.lax.optimization_barrier(arrays), static)


def measure_path(
    problem: PathProblem,
    curve: Callable[[Scalar], tuple[Point, Vector]],
    points: Points,
    velocities: Points,
    *,
    mean: Scalar | None = None,
    finite: Bool[Array, ""] | bool = True,
    visited: Float[Array, "k d"] | None = None,
) -> Measurement:
    """Measure a path from ``problem.x`` to ``problem.y`` at its samples ``points`` and ``velocities``, ``(n, d)``.

    **Arguments**

    - ``problem``: frozen by the caller, as everything else here: a measurement has no derivative.
    - ``curve``: the path, evaluated at `PROBES` where there are few samples and the metric may be indefinite.
    - ``mean``: what the squared speeds at the samples are compared with; default their mean.
    - ``finite``: whether all that the solver itself computed was finite.
    - ``visited``: points where the solver evaluated the metric. Where something is not finite and one of these is
      outside the domain, that is the reason.
    """
    problem = isolated(problem)
    x, y = problem.x, problem.y
    places = [(points, velocities), (jnp.stack([x, y]), jnp.broadcast_to(y - x, (2, x.size)))]
    if needs_probes(problem.inner_product, x, points.shape[0]):
        places.append(jax.vmap(curve)(jnp.asarray(PROBES, x.dtype)))
    where, along = map(jnp.concatenate, zip(*places, strict=True))
    measure = functools.partial(measure_point, problem.inner_product)
    squared, indefinite = problem.over_points(measure, where, along)

    samples = squared[: points.shape[0]]
    residual = speed_deviation(samples, jnp.mean(samples) if mean is None else mean)
    finite = finite & jnp.isfinite(residual) & jnp.all(jnp.isfinite(squared))
    inside = _all_inside(problem, where)
    if visited is not None:
        inside = inside & (finite | _all_inside(problem, visited))
    return Measurement(
        residual=residual,
        inside=inside,
        finite=finite,
        # Rounding may give a path from a point to itself any sign, and any metric the distance zero.
        positive=jnp.all(x == y) | ~(some_negative(squared) | jnp.any(indefinite)),
        least_length=jnp.linalg.norm(y - x) * above_euclid(problem.inner_product, x),
    )


def _all_inside(problem: PathProblem, points: Points) -> Bool[Array, ""]:
    return jnp.all(jax.vmap(lambda point: problem.domain(point) > 0)(points))


def measure_point(
    inner_product: Callable[[Point], AbstractInnerProduct], point: Point, velocity: Vector
) -> tuple[Scalar, Bool[Array, ""]]:
    """The squared speed at ``point``, and whether the metric there is found to be indefinite."""
    product = inner_product(point)
    return product.squared_norm(velocity), is_indefinite(product)


def some_negative(squared: Float[Array, " n"]) -> Bool[Array, ""]:
    """Whether one of the squared speeds of a path is negative by more than rounding."""
    largest = jnp.max(jnp.abs(squared))
    return jnp.any(squared < -(jnp.finfo(squared.dtype).eps ** 0.5) * largest)


def above_euclid(inner_product: Callable[[Point], AbstractInnerProduct], x: Point) -> bool:
    """Whether the structure of a metric makes it Euclid's plus something positive: no length is below the straight
    line's, and no vector has a negative square."""
    return at_least_identity(jax.eval_shape(inner_product, x))


def needs_probes(inner_product: Callable[[Point], AbstractInnerProduct], x: Point, samples: int) -> bool:
    """Whether a path with so many samples is to be looked at between them: a metric might not be positive there."""
    return samples < PROBES.size and not above_euclid(inner_product, x)


@functools.singledispatch
def is_indefinite(product: AbstractInnerProduct) -> Bool[Array, ""]:
    """Whether ``product`` has a vector of negative square, by more than rounding, as far as its structure tells.

    False for a structure that is not known, of which only the squared speeds of a path are looked at, and for updates
    of low rank, whose negative weights are NaN.
    """
    diagonal, array = as_diagonal(product), as_dense(product)
    if diagonal is not None:
        return jnp.any(diagonal < 0)
    if array is None:
        return jnp.asarray(False)
    if array.shape[0] > _MAX_ELIMINATED:
        return jnp.any(jnp.diagonal(array) < 0)
    return _has_negative_pivot(array)


@is_indefinite.register
def _(product: IdentityPlusRankOne) -> Bool[Array, ""]:
    return product.strength * (product.vector @ product.vector) < -1


def _has_negative_pivot(matrix: Matrix) -> Bool[Array, ""]:
    """Sylvester's law of inertia: elimination with the largest pivots first leaves nothing of a positive matrix, and
    something negative, or off the diagonal, of an indefinite one.

    By hand, because batched factorisations of LAPACK may wait for one another forever (jaxlib 0.10).
    """
    d, diagonal = matrix.shape[0], jnp.diagonal(matrix)
    # In units in which a positive diagonal is one, so that components of any size count alike.
    unit = jnp.where(diagonal > 0, diagonal, jnp.max(jnp.abs(diagonal)))
    unit = jnp.sqrt(jnp.where(unit > 0, unit, 1))
    rest = (matrix + matrix.T) / 2 / unit[:, None] / unit
    slack = 64 * d * jnp.finfo(matrix.dtype).eps

    def eliminate(_, carry):
        rest, negative = carry
        pivots = jnp.diagonal(rest)
        k = jnp.argmax(pivots)
        usable = pivots[k] > slack
        factor = jnp.where(usable, 1 / jnp.where(usable, pivots[k], 1), 0)
        return rest - factor * jnp.outer(rest[k], rest[k]), negative | jnp.any(pivots < -slack)

    rest, negative = jax.lax.fori_loop(0, d, eliminate, (rest, jnp.asarray(False)))
    return negative | jnp.any(jnp.abs(rest) > slack)


def impossible(
    measurement: Measurement, ends: tuple[Point, Point] | None, length: Scalar, energy: Scalar, error: Scalar
) -> Bool[Array, ""]:
    """Whether no Riemannian metric has such a geodesic.

    Its metric is not positive, its estimated error is negative, it is shorter than its ends allow or, between different
    ``ends``, its energy is not positive.
    """
    shortest = (1 - by_precision(length.dtype, 1e-6, 1e-4)) * measurement.least_length
    wrong = ~jnp.asarray(measurement.positive) | (error < 0) | (length < shortest)
    if ends is None:
        return wrong
    x, y = isolated(ends)
    eps, tiny = jnp.finfo(x.dtype).eps, jnp.finfo(x.dtype).tiny
    gap, size = jnp.max(jnp.abs(y - x)), jnp.maximum(jnp.max(jnp.abs(x)), jnp.max(jnp.abs(y)))
    apart = (gap > _ROUNDING * eps * size) & (jnp.sum((y - x) ** 2) > tiny / eps)
    return wrong | (energy < 0) & (gap > 0) | (energy == 0) & apart


def judge(
    measurement: Measurement,
    cannot_be: Bool[Array, ""],
    causes: Sequence[tuple[Bool[Array, ""] | bool, RESULTS]],
    failures: Sequence[tuple[Bool[Array, ""] | bool, RESULTS]],
) -> RESULTS:
    """The code of a solve. The first failure counts: ``causes``, which the solver knows to have spoilt the path; then
    what every path is judged by; then ``failures``, the solver's own verdict on a path that is one of the metric. With
    a squared speed that is somewhere off by more than its mean, a path is no success though its solver be content."""
    return first_failure(
        [
            *causes,
            (~jnp.asarray(measurement.inside), RESULTS.outside_domain),
            (~jnp.asarray(measurement.finite), RESULTS.metric_nonfinite),
            (cannot_be, RESULTS.metric_nonfinite),
            *failures,
            (~(measurement.residual <= 1), RESULTS.accuracy_not_reached),
        ]
    )
