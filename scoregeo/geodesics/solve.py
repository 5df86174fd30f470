"""The boundary value problem: `geodesic`, which checks what it is given and calls a solver."""

from typing import Any

from .._numerics import program
from .._types import Point
from ..metrics import AbstractMetric
from .base import AbstractBoundarySolver, default_solver
from .checks import Start, Times, check_end_points, check_solver, check_start, check_times
from .solution import Geodesic, raise_unless_successful
from .starts import AbstractStart


@program
def _solve(solver, metric, x, y, init, ts, length_only):
    curve = init(metric, x, y) if isinstance(init, AbstractStart) else init
    return (solver.solve_length if length_only else solver.solve)(metric, x, y, curve, ts)


def find(metric: Any, x: Any, y: Any, solver: Any, init: Any, ts: Any, throw: bool, *, length_only: bool) -> Geodesic:
    """`geodesic`, which checks its arguments here; where ``length_only``, only length and energy have derivatives."""
    x, y = check_end_points(metric, x, y)
    solver = default_solver(metric, length_only=length_only) if solver is None else solver
    check_solver(solver)
    result = _solve(solver, metric, x, y, check_start(init, x, y), check_times(ts, x.dtype), length_only)
    return raise_unless_successful(result) if throw else result


def geodesic(
    metric: AbstractMetric,
    x: Point,
    y: Point,
    *,
    solver: AbstractBoundarySolver | None = None,
    init: Start | None = None,
    ts: Times | None = None,
    throw: bool = True,
) -> Geodesic:
    """The geodesic of ``metric`` from ``x`` to ``y``.

    **Arguments**

    - ``metric``: the metric; a traced pytree, so new weights or strengths do not compile again.
    - ``x``, ``y``: end points, shape ``(d,)``. For batches use ``jax.vmap``, or `pairwise_dist`.
    - ``solver``: how to solve; default ``SpectralNewton()``.
    - ``init``: where to start: ``(k, d)`` points at equally spaced times from ``x`` to ``y``, another `Geodesic`, or a
      rule such as ``GraphInit(points)`` or ``Bend(offset)``; default the straight line. Several local geodesics may
      connect two points: the solver descends from here.
    - ``ts``: times in [0, 1] at which the result is sampled; default 65 equally spaced ones.
    - ``throw``: raise ``RuntimeError`` with advice if the solve fails. Inside a trace (``jit``, ``vmap``, ``grad``)
      nothing is raised: samples, length, energy and error are NaN then, and ``result`` is the code. With ``False`` they
      are those of the best path found; read ``result``.

    **Returns** a `Geodesic`. It is differentiable in forward and reverse mode with respect to the end points and
    everything in the metric: ``length`` and ``energy`` by the envelope theorem, the path by the implicit function
    theorem.

    >>> import jax.numpy as jnp
    >>> from scoregeo import GaussianScore, SteinMetric, geodesic
    >>> metric = SteinMetric(GaussianScore(jnp.zeros(2), jnp.eye(2)))
    >>> round(float(geodesic(metric, jnp.array([-1.0, 0.5]), jnp.array([1.0, 0.7])).length), 4)
    2.2213
    """
    return find(metric, x, y, solver, init, ts, throw, length_only=False)
