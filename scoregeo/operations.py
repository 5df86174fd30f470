"""The operations of Riemannian geometry, as short compositions of solves: metric first, base point next."""

import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from ._checks import as_points, check_count
from ._pairs.blocks import solve_pairs
from ._pairs.checkpoint import Block
from ._pairs.stream import Pairs, Problem, as_results, rows_in_order, solve_in_order
from ._results import RESULTS
from ._types import Point, Points, Vector
from .geodesics import AbstractBoundarySolver, AbstractStart, Geodesic
from .geodesics.base import default_solver
from .geodesics.checks import Start, check_metric, check_rule, check_solver
from .geodesics.initial_value import end_point
from .geodesics.solve import find
from .metrics import AbstractMetric

_ENDS = (0.0, 1.0)
# A solve keeps about this many numbers per dimension: a few paths of 256 coefficients.
_NUMBERS_PER_DIMENSION = 1024
_FEWEST_BATCHES = 50


def exp(metric: AbstractMetric, x: Point, v: Vector, **settings: Any) -> Point:
    """The exponential map: where the geodesic from ``x`` with initial velocity ``v`` is at time 1, shape ``(d,)``.

    Keyword arguments are those of `shoot` (``solver``, ``stepsize_controller``, ``adjoint``, ``max_steps``, ``event``,
    ``throw``). Reverse mode by default; for forward mode pass ``adjoint=diffrax.DirectAdjoint()``.

    >>> import jax.numpy as jnp
    >>> from scoregeo import EuclideanMetric, exp
    >>> exp(EuclideanMetric(), jnp.zeros(2), jnp.array([1.0, 2.0])).round(4).tolist()
    [1.0, 2.0]
    """
    return end_point(metric, x, v, **settings)


def log(
    metric: AbstractMetric,
    x: Point,
    y: Point,
    *,
    solver: AbstractBoundarySolver | None = None,
    init: Start | None = None,
    throw: bool = True,
    with_result: bool = False,
) -> Any:
    """The logarithmic map: the initial velocity at ``x`` of the geodesic to ``y``, shape ``(d,)``; ``exp(log) = y``.

    Arguments as in `dist`. Differentiable by the implicit function theorem. Its accuracy is that of the path, which
    for geodesics with sharp bends stays behind that of the length (`Geodesic.stats`, ``path_error``).
    """
    start = lambda found: found.velocities[0]  # noqa: E731
    return _of_geodesic(start, metric, x, y, solver, init, throw, with_result, length_only=False)


def dist(
    metric: AbstractMetric,
    x: Point,
    y: Point,
    *,
    solver: AbstractBoundarySolver | None = None,
    init: Start | None = None,
    throw: bool = True,
    with_result: bool = False,
) -> Any:
    """The length of the geodesic from ``x`` to ``y`` that the solver finds: symmetric, and non-negative.

    Its gradient is that of the envelope theorem, which needs no derivative of the solver; at coincident points it is
    zero (the distance has a kink there; `squared_dist` is smooth).

    **Arguments** as in `geodesic`, and

    - ``throw``: raise ``RuntimeError`` with advice if the solve fails; inside a trace (``jit``, ``vmap``, ``grad``) the
      value is NaN then, and its derivatives zero. With ``False``, the length of the best path found.
    - ``with_result``: return the pair of the value, as with ``throw=False``, and its `RESULTS` code, by which a loss
      can leave out the lanes that failed.

    >>> import jax.numpy as jnp
    >>> from scoregeo import RESULTS, EuclideanMetric, dist
    >>> round(float(dist(EuclideanMetric(), jnp.zeros(2), jnp.array([3.0, 4.0]))), 4)
    5.0
    >>> _, code = dist(EuclideanMetric(), jnp.zeros(2), jnp.ones(2), with_result=True)
    >>> bool(code == RESULTS.successful)
    True
    """
    return _of_geodesic(lambda found: found.length, metric, x, y, solver, init, throw, with_result, length_only=True)


def squared_dist(
    metric: AbstractMetric,
    x: Point,
    y: Point,
    *,
    solver: AbstractBoundarySolver | None = None,
    init: Start | None = None,
    throw: bool = True,
    with_result: bool = False,
) -> Any:
    """The squared distance, smooth at coincident points (value and gradient zero). Arguments as in `dist`."""
    square = lambda found: 2 * found.energy  # noqa: E731
    return _of_geodesic(square, metric, x, y, solver, init, throw, with_result, length_only=True)


def _of_geodesic(
    value: Callable[[Geodesic], Array],
    metric: Any,
    x: Any,
    y: Any,
    solver: Any,
    init: Any,
    throw: bool,
    with_result: bool,
    *,
    length_only: bool,
) -> Any:
    """``value`` of the geodesic, which is sampled at its ends alone; with its code, or an error where it is none."""
    found = find(metric, x, y, solver, init, _ENDS, throw and not with_result, length_only=length_only)
    return (value(found), found.result) if with_result else value(found)


def pairwise_dist(
    metric: AbstractMetric,
    xs: Points,
    ys: Points | None = None,
    *,
    solver: AbstractBoundarySolver | None = None,
    init: AbstractStart | None = None,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
    progress: bool = False,
    checkpoint: str | os.PathLike | None = None,
) -> tuple[Float[Array, "n m"], RESULTS]:
    """All distances from ``xs`` ``(n, d)`` to ``ys`` ``(m, d)``, and the result code of each solve.

    Without ``ys``, the symmetric matrix among ``xs``: each pair is solved once and the diagonal not at all. Never
    raises for a failed solve: a pair whose code is not ``RESULTS.successful`` holds the length of the best path found,
    or NaN. (``results == RESULTS.successful`` is an array; ``jax.tree.map(lambda r: r[i, j], results)`` one code.)

    **Arguments**

    - ``solver``: default `SpectralNewton`, aiming at the length alone.
    - ``init``: the rule that gives each solve a curve to start from; default `StraightLine`.
    - ``batch_size``: how many pairs are solved side by side on one device, which bounds the memory; default as many as
      have their paths in about 256 MiB with `SpectralNewton`; other solvers may need more for a pair. Within a batch,
      pairs that are solved make room for others.
    - ``mesh``: a `jax.sharding.Mesh` with one axis, as of ``jax.make_mesh((8,), ("pairs",))``: pairs are divided among
      its devices. After ``jax.distributed.initialize`` these may belong to several processes: each calls this function
      with the same arguments and gets the whole matrix.
    - ``progress``: show a progress bar with rate and remaining time on standard error (not under ``jit``).
    - ``checkpoint``: a folder in which every batch is kept as soon as it is solved. The same call goes on from there,
      however the process ended, and gives the same bits as one that was never interrupted; damaged files are noticed
      and solved again. Raises ``ValueError`` where the folder belongs to other points, metric, solver, start or batch
      size, and says which; ``OSError`` where it cannot be written (what was solved is kept); ``TypeError`` under
      ``jit``, or where a part of these cannot be compared, as an open file. Of several processes, one reads and
      writes it.

    >>> import jax.numpy as jnp
    >>> from scoregeo import EuclideanMetric, pairwise_dist
    >>> matrix, results = pairwise_dist(EuclideanMetric(), jnp.array([[0.0, 0.0], [3.0, 4.0]]))
    >>> matrix.round(4).tolist()
    [[0.0, 5.0], [5.0, 0.0]]
    """
    problem, asked, size = _as_problem(metric, xs, ys, solver, init, batch_size, mesh)
    pairs, dtype = problem.pairs, problem.xs.dtype
    if checkpoint is not None:
        rows = _rows(problem, asked, size, progress, checkpoint)
        lengths, codes = (np.stack(parts) for parts in zip(*rows, strict=True))
        return jnp.asarray(lengths), as_results(codes)
    n, m = pairs.n, pairs.m
    rows, columns = pairs.indices(np.arange(pairs.count))
    how, xs, ys = problem.how, problem.xs, problem.ys
    lengths, results = solve_pairs(how, xs, ys, rows, columns, size, mesh, progress)
    codes = jax.tree.map(lambda code: jnp.zeros((n, m), code.dtype).at[rows, columns].set(code), results)
    matrix = jnp.zeros((n, m), dtype).at[rows, columns].set(lengths)
    if pairs.symmetric:
        matrix = matrix + matrix.T
        codes = jax.tree.map(lambda code: code + code.T, codes)
    return matrix, codes


def iter_pairwise_dist(
    metric: AbstractMetric,
    xs: Points,
    ys: Points | None = None,
    *,
    solver: AbstractBoundarySolver | None = None,
    init: AbstractStart | None = None,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
    progress: bool = False,
    checkpoint: str | os.PathLike | None = None,
) -> Iterator[tuple[Float[np.ndarray, " m"], RESULTS]]:
    """The rows of `pairwise_dist`, one after the other, each as soon as it is solved: lengths ``(m,)`` and their codes.

    Arguments and errors as for `pairwise_dist`, whose ``checkpoint`` it shares. With ``ys`` no more than a row and a
    batch are in memory. Without, the host keeps the matrix, because a row begins with what earlier ones found: where
    that does not fit, give the points as ``ys`` too, and everything is solved twice.

    >>> import jax.numpy as jnp
    >>> from scoregeo import EuclideanMetric, iter_pairwise_dist
    >>> for row, results in iter_pairwise_dist(EuclideanMetric(), jnp.array([[0.0, 0.0], [3.0, 4.0]])):
    ...     print(row.round(4).tolist())
    [0.0, 5.0]
    [5.0, 0.0]
    """
    problem, asked, size = _as_problem(metric, xs, ys, solver, init, batch_size, mesh)
    # Arguments are checked by the call, not when the first row is asked for.
    rows = _rows(problem, asked, size, progress, checkpoint)
    return ((lengths, as_results(codes)) for lengths, codes in rows)


def _as_problem(metric, xs, ys, solver, init, batch_size, mesh) -> tuple[Problem, int | None, int]:
    """The arguments of `pairwise_dist`, checked; the pairs of a batch on all devices, if that was given; and in any
    case."""
    xs = as_points(xs, "xs")
    symmetric = ys is None
    ys = xs if symmetric else as_points(ys, "ys", dim=xs.shape[1])
    dtype = jnp.result_type(xs, ys)
    xs, ys = xs.astype(dtype), ys.astype(dtype)
    asked = None if batch_size is None else check_count("batch_size", batch_size)
    size = max(1, 2**28 // (_NUMBERS_PER_DIMENSION * xs.shape[1] * dtype.itemsize)) if asked is None else asked
    if mesh is not None and not (isinstance(mesh, Mesh) and len(mesh.axis_names) == 1):
        raise ValueError(f"`mesh` must be a jax.sharding.Mesh with one axis, got {mesh!r}")
    check_metric(metric, xs[0])
    solver = default_solver(metric, length_only=True) if solver is None else solver
    check_solver(solver)
    init = check_rule(init, xs.shape[1])
    pairs = Pairs(xs.shape[0], ys.shape[0], symmetric)
    return Problem((metric, solver, init), xs, ys, pairs, mesh), asked, size


def _rows(problem: Problem, asked: int | None, size: int, progress: bool, checkpoint: Any) -> Iterator[Block]:
    """Rows of the matrix in order; the batches are those of a checkpoint, if there is one."""
    # At least some tens of batches, so that no more than a few percent are lost, and a bar moves.
    few = max(1, -(-problem.pairs.count // (_FEWEST_BATCHES * problem.devices)))
    batch = size if asked is not None else min(size, few)
    if not isinstance(checkpoint, str | os.PathLike | None):
        raise TypeError(f"`checkpoint` must be the path of a folder, got {checkpoint!r}")
    folder = None if checkpoint is None else pathlib.Path(checkpoint)
    blocks = solve_in_order(problem, batch, asked is not None, folder, progress)
    return rows_in_order(blocks, problem.pairs, problem.xs.dtype)
