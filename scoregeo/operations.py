"""The operations of Riemannian geometry, as short compositions of solves: metric first, base point next."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from ._checks import as_points, check_count, is_concrete
from ._results import RESULTS
from ._types import Point, Points, Scalar, Vector
from .geodesics import AbstractBoundarySolver, AbstractStart, Geodesic, geodesic
from .geodesics.base import default_solver
from .geodesics.checks import check_metric, check_rule, check_solver
from .geodesics.initial_value import end_point
from .metrics import AbstractMetric

_ENDS = (0.0, 1.0)
# A solve keeps about this many numbers per dimension: a few paths of 256 coefficients.
_NUMBERS_PER_DIMENSION = 1024
_PROGRESS_STEPS = 50


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
    init: AbstractStart | Geodesic | Points | None = None,
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
    init: AbstractStart | Geodesic | Points | None = None,
    throw: bool = True,
) -> Scalar:
    """The length of the geodesic from ``x`` to ``y`` that the solver finds: symmetric, and non-negative.

    Arguments as in `geodesic`. Its gradient is that of the envelope theorem, which needs no derivative of the solver;
    at coincident points it is zero (the distance has a kink there; `squared_dist` is smooth).

    >>> import jax.numpy as jnp
    >>> from scoregeo import EuclideanMetric, dist
    >>> round(float(dist(EuclideanMetric(), jnp.zeros(2), jnp.array([3.0, 4.0]))), 4)
    5.0
    """
    solver = default_solver(metric, length_only=True) if solver is None else solver
    return geodesic(metric, x, y, solver=solver, init=init, ts=_ENDS, throw=throw).length


def squared_dist(
    metric: AbstractMetric,
    x: Point,
    y: Point,
    *,
    solver: AbstractBoundarySolver | None = None,
    init: AbstractStart | Geodesic | Points | None = None,
    throw: bool = True,
) -> Scalar:
    """The squared distance, smooth at coincident points (value and gradient zero). Arguments as in `geodesic`."""
    solver = default_solver(metric, length_only=True) if solver is None else solver
    return 2 * geodesic(metric, x, y, solver=solver, init=init, ts=_ENDS, throw=throw).energy


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
    - ``progress``: show a progress bar on standard error (not under ``jit``).

    >>> import jax.numpy as jnp
    >>> from scoregeo import EuclideanMetric, pairwise_dist
    >>> matrix, results = pairwise_dist(EuclideanMetric(), jnp.array([[0.0, 0.0], [3.0, 4.0]]))
    >>> matrix.round(4).tolist()
    [[0.0, 5.0], [5.0, 0.0]]
    """
    xs = as_points(xs, "xs")
    symmetric = ys is None
    ys = xs if symmetric else as_points(ys, "ys", dim=xs.shape[1])
    dtype = jnp.result_type(xs, ys)
    xs, ys = xs.astype(dtype), ys.astype(dtype)
    if batch_size is None:
        batch_size = max(1, 2**28 // (_NUMBERS_PER_DIMENSION * xs.shape[1] * dtype.itemsize))
    batch_size = check_count("batch_size", batch_size)
    if mesh is not None and not (isinstance(mesh, Mesh) and len(mesh.axis_names) == 1):
        raise ValueError(f"`mesh` must be a jax.sharding.Mesh with one axis, got {mesh!r}")
    check_metric(metric, xs[0])
    solver = default_solver(metric, length_only=True) if solver is None else solver
    check_solver(solver)
    init = check_rule(init, xs.shape[1])

    n, m = xs.shape[0], ys.shape[0]
    rows, columns = np.triu_indices(n, 1) if symmetric else (a.reshape(-1) for a in np.indices((n, m)))
    lengths, results = _solve_pairs((metric, solver, init), xs, ys, rows, columns, int(batch_size), mesh, progress)
    codes = jax.tree.map(lambda code: jnp.zeros((n, m), code.dtype).at[rows, columns].set(code), results)
    matrix = jnp.zeros((n, m), dtype).at[rows, columns].set(lengths)
    if symmetric:
        matrix = matrix + matrix.T
        codes = jax.tree.map(lambda code: code + code.T, codes)
    return matrix, codes


def _solve_pairs(how, xs, ys, rows, columns, batch_size, mesh, progress):
    """Lengths and results of the pairs ``(xs[rows], ys[columns])``, in blocks of equal shape: compiled once. ``how`` is
    metric, solver and starting rule."""
    pairs = len(rows)
    if pairs == 0:
        return jnp.zeros(0, xs.dtype), jax.tree.map(lambda code: jnp.zeros(0, code.dtype), RESULTS.successful)
    devices = 1 if mesh is None else mesh.size
    blocks = -(-pairs // (batch_size * devices))
    if progress:
        blocks = min(max(blocks, _PROGRESS_STEPS), pairs)
    size = -(-pairs // (blocks * devices)) * devices
    blocks = -(-pairs // size)
    # Strided, so that neighbours, which are similarly hard, are spread over blocks and devices.
    order = np.resize(np.arange(pairs), (size, blocks)).T
    arrays, static = eqx.partition(how, eqx.is_array)
    indices = np.stack([rows[order], columns[order]], 1)
    if all(map(is_concrete, jax.tree.leaves((arrays, xs, ys)))):
        data: tuple[Any, Points, Points] = _replicated((arrays, xs, ys), mesh)
        bar = _with_progress(indices) if progress else indices
        solved = []
        for block in bar:
            solved.append(_solve_block(*data, _replicated(block, mesh), static, mesh))
            if progress:
                jax.block_until_ready(solved[-1])  # or the bar would show what has been asked for, not what is done
        solved = jax.tree.map(lambda *parts: jnp.stack(parts), *solved)
    else:
        solved = jax.lax.map(lambda block: _solve_block(arrays, xs, ys, block, static, mesh), jnp.asarray(indices))
    inverse = np.zeros(pairs, int)
    inverse[order.reshape(-1)] = np.arange(order.size)
    return jax.tree.map(lambda leaf: leaf.reshape(-1)[inverse], solved)


def _with_progress(blocks):
    from rich.console import Console
    from rich.progress import track

    return track(blocks, description="distances", console=Console(stderr=True))


def _replicated(tree, mesh):
    """``tree`` on every device of ``mesh``, also where these belong to several processes."""
    if mesh is None:
        return tree
    return jax.device_put(jax.tree.map(np.asarray, tree), NamedSharding(mesh, PartitionSpec()))


@eqx.filter_jit
def _solve_block(arrays, xs, ys, pairs, static, mesh):
    def solve(arrays, xs, ys, pairs):
        metric, solver, init = eqx.combine(arrays, static)
        xs, ys = xs[pairs[0]], ys[pairs[1]]
        result = jax.vmap(lambda x, y: solver.solve(metric, x, y, init(metric, x, y), _ends(x)))(xs, ys)
        return result.length, result.result

    if mesh is None:
        return solve(arrays, xs, ys, pairs)
    (axis,) = mesh.axis_names
    everywhere, divided = PartitionSpec(), PartitionSpec(axis)
    # Loops run on each device until its own pairs are solved, so nothing may be communicated inside them.
    sharded = jax.shard_map(
        solve,
        mesh=mesh,
        in_specs=(everywhere, everywhere, everywhere, PartitionSpec(None, axis)),
        out_specs=divided,
        check_vma=False,
    )
    return jax.lax.with_sharding_constraint(sharded(arrays, xs, ys, pairs), NamedSharding(mesh, everywhere))


def _ends(x: Point) -> Float[Array, "2"]:
    return jnp.asarray(_ENDS, x.dtype)
