"""The operations of Riemannian geometry, as short compositions of solves: metric first, base point next."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._results import RESULTS
from ._types import Point, Points, Scalar, Vector, as_points
from .geodesics import AbstractBoundarySolver, SpectralNewton, geodesic
from .geodesics.boundary import check_metric, check_solver
from .geodesics.initial import end_point
from .metrics import AbstractMetric

_ENDS = (0.0, 1.0)
# Distances need the length, whose error is the square of the path's: no reason to refine the path beyond it.
_LENGTH_ONLY = SpectralNewton(path_rtol=1.0)


def exp(metric: AbstractMetric, x: Point, v: Vector, **settings: Any) -> Point:
    """The exponential map: where the geodesic from ``x`` with initial velocity ``v`` is at time 1, shape ``(d,)``.

    Keyword arguments are those of `shoot` (``solver``, ``stepsize_controller``, ``adjoint``, ``max_steps``, ``throw``).
    Reverse mode by default; for forward mode pass ``adjoint=diffrax.DirectAdjoint()``.

    >>> import jax.numpy as jnp
    >>> from scoregeo import EuclideanMetric, exp
    >>> exp(EuclideanMetric(), jnp.zeros(2), jnp.array([1.0, 2.0])).tolist()
    [1.0, 2.0]
    """
    return end_point(metric, x, v, **settings)


def log(
    metric: AbstractMetric,
    x: Point,
    y: Point,
    *,
    solver: AbstractBoundarySolver | None = None,
    init: Points | None = None,
    throw: bool = True,
) -> Vector:
    """The logarithmic map: the initial velocity at ``x`` of the geodesic to ``y``, shape ``(d,)``; ``exp(log) = y``.

    Arguments as in `geodesic`. Differentiable by the implicit function theorem. Its accuracy is that of the path, which
    for geodesics with sharp bends stays behind that of the length (`Geodesic.stats`, ``path_error``).
    """
    return geodesic(metric, x, y, solver=solver, init=init, ts=_ENDS, throw=throw).velocities[0]


def dist(
    metric: AbstractMetric,
    x: Point,
    y: Point,
    *,
    solver: AbstractBoundarySolver | None = None,
    init: Points | None = None,
    throw: bool = True,
) -> Scalar:
    """The length of the geodesic from ``x`` to ``y`` that the solver finds: symmetric, and non-negative.

    Arguments as in `geodesic`. Its gradient is that of the envelope theorem, which needs no derivative of the solver;
    at coincident points it is zero (the distance has a kink there; `squared_dist` is smooth).

    >>> import jax.numpy as jnp
    >>> from scoregeo import EuclideanMetric, dist
    >>> float(dist(EuclideanMetric(), jnp.zeros(2), jnp.array([3.0, 4.0])))
    5.0
    """
    solver = _LENGTH_ONLY if solver is None else solver
    return geodesic(metric, x, y, solver=solver, init=init, ts=_ENDS, throw=throw).length


def squared_dist(
    metric: AbstractMetric,
    x: Point,
    y: Point,
    *,
    solver: AbstractBoundarySolver | None = None,
    init: Points | None = None,
    throw: bool = True,
) -> Scalar:
    """The squared distance, smooth at coincident points (value and gradient zero). Arguments as in `geodesic`."""
    solver = _LENGTH_ONLY if solver is None else solver
    return 2 * geodesic(metric, x, y, solver=solver, init=init, ts=_ENDS, throw=throw).energy


def pairwise_dist(
    metric: AbstractMetric,
    xs: Points,
    ys: Points | None = None,
    *,
    solver: AbstractBoundarySolver | None = None,
    batch_size: int = 64,
) -> tuple[Float[Array, "n m"], RESULTS]:
    """All distances from ``xs`` ``(n, d)`` to ``ys`` ``(m, d)``, and the result code of each solve.

    Without ``ys``, the symmetric matrix among ``xs``: each pair is solved once and the diagonal not at all.
    ``batch_size`` pairs are solved side by side; it bounds the memory. Never raises for a failed solve: a pair whose
    code is not ``RESULTS.successful`` holds the length of the best path found, or NaN.
    """
    xs = as_points(xs, "xs")
    symmetric = ys is None
    ys = xs if symmetric else as_points(ys, "ys", dim=xs.shape[1])
    dtype = jnp.result_type(xs, ys)
    xs, ys = xs.astype(dtype), ys.astype(dtype)
    if not isinstance(batch_size, int | np.integer) or isinstance(batch_size, bool) or batch_size < 1:
        raise ValueError(f"`batch_size` must be a positive integer, got {batch_size!r}")
    check_metric(metric, xs[0])
    solver = _LENGTH_ONLY if solver is None else solver
    check_solver(solver)
    return _pairwise_dist(metric, xs, ys, solver, symmetric, int(batch_size))


@eqx.filter_jit
def _pairwise_dist(metric, xs, ys, solver, symmetric, batch_size):
    n, m = xs.shape[0], ys.shape[0]
    rows, columns = jnp.triu_indices(n, 1) if symmetric else (a.reshape(-1) for a in jnp.indices((n, m)))

    def solve(pair):
        i, j = pair
        result = solver.solve(metric, xs[i], ys[j], None, jnp.asarray(_ENDS, xs.dtype))
        return result.length, result.result

    lengths, results = jax.lax.map(solve, (rows, columns), batch_size=batch_size)
    codes = jax.tree.map(lambda code: jnp.zeros((n, m), code.dtype).at[rows, columns].set(code), results)
    matrix = jnp.zeros((n, m), lengths.dtype).at[rows, columns].set(lengths)
    if symmetric:
        matrix = matrix + matrix.T
        codes = jax.tree.map(lambda code: code + code.T, codes)
    return matrix, codes
