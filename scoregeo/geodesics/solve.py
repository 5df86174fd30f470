"""The boundary value problem: the interface of its solvers, and the driver `geodesic`."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._results import RESULTS
from .._types import Point, Points, as_float, as_point, as_points, check_finite, is_concrete
from ..metrics import AbstractMetric
from .curves import AbstractCurve, Polyline
from .solution import Geodesic
from .starts import AbstractStart, StraightLine


class AbstractBoundarySolver(eqx.Module):
    """Finds a geodesic between two points. Settings are fields; a solver holds no state."""

    @abc.abstractmethod
    def solve(
        self, metric: AbstractMetric, x: Point, y: Point, init: AbstractCurve, ts: Float[Array, " n"]
    ) -> Geodesic:
        """The geodesic from ``x`` to ``y``, sampled at ``ts``, starting from the curve ``init`` between them.

        Arguments have been checked. Never raises: how it ended is in ``result``.
        """


def check_end_points(metric: AbstractMetric, x: Any, y: Any) -> tuple[Point, Point]:
    """``x`` and ``y`` as points of the same dimension and dtype, on which ``metric`` can be evaluated."""
    x = as_point(x, "x")
    y = as_point(y, "y", dim=x.size)
    dtype = jnp.result_type(x, y)
    x, y = x.astype(dtype), y.astype(dtype)
    check_metric(metric, x)
    if is_concrete(y):
        metric.check(y)
    return x, y


def check_solver(solver: Any) -> None:
    """Raise ``TypeError`` unless ``solver`` is a boundary solver."""
    if not isinstance(solver, AbstractBoundarySolver):
        raise TypeError(f"`solver` must be a boundary solver such as SpectralNewton(), got {type(solver).__name__}")


def check_fractions(solver: AbstractBoundarySolver, *names: str) -> None:
    """Raise ``ValueError`` unless the named settings of ``solver`` are ``None``, or positive and at most 1."""
    for name in names:
        value = getattr(solver, name)
        if value is not None and not 0 < value <= 1:
            raise ValueError(f"`{name}` must be positive and at most 1, got {value!r}")


def check_metric(metric: Any, x: Point) -> None:
    """Evaluate the shapes of ``metric`` at ``x``, so that a mismatch is reported as such before anything is solved; and
    let it check its values there, where ``x`` has one."""
    if not isinstance(metric, AbstractMetric):
        raise TypeError(f"`metric` must be an AbstractMetric such as SteinMetric(score), got {type(metric).__name__}")
    try:
        jax.eval_shape(lambda m, z: m.at(z).mv(z), metric, x)
    except (TypeError, ValueError) as error:
        # Not `type(error)`: JAX's errors are subclasses of these that want other arguments.
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"`metric` cannot be evaluated at a point of shape {x.shape}: {error}") from error
    if is_concrete(x):
        metric.check(x)


def check_rule(init: Any, dim: int) -> AbstractStart:
    """``init`` as a starting rule for points of dimension ``dim``; raises ``TypeError`` for anything else."""
    if init is None:
        return StraightLine()
    if not isinstance(init, AbstractStart):
        raise TypeError(f"`init` must be a starting rule such as StraightLine(), got {type(init).__name__}")
    init.check(dim)
    return init


def check_start(init: Any, x: Point, y: Point) -> AbstractStart | AbstractCurve:
    """``init`` as a starting rule or a curve from ``x`` to ``y``; raises ``ValueError`` if its ends are elsewhere."""
    if init is None or isinstance(init, AbstractStart):
        return check_rule(init, x.size)
    if isinstance(init, Geodesic):
        if init.points.shape[-1] != x.size or init.ts.ndim != 1:
            raise ValueError(f"`init` must be one geodesic between points of shape {x.shape}, not a batch of them")
        init = init.points if init.curve is None else init.curve
    if not isinstance(init, AbstractCurve):
        nodes = as_points(init, "init", dim=x.size).astype(x.dtype)
        if nodes.shape[0] < 2:
            raise ValueError(f"`init` must have shape (k, {x.size}) with k >= 2, got {nodes.shape}")
        init = Polyline(nodes)
    path, ends = jnp.stack([init(jnp.asarray(t, x.dtype))[0] for t in (0, 1)]), jnp.stack([x, y])
    if all(map(is_concrete, (path, ends))):
        gaps = np.linalg.norm(np.asarray(path) - np.asarray(ends), axis=-1)
        allowed = 1e-3 * np.linalg.norm(np.asarray(y) - np.asarray(x)) + 1e-6
        for name, gap in zip(("start", "end"), gaps, strict=True):
            if not gap <= allowed:
                raise ValueError(f"`init` must {name} where the geodesic does, but is {gap:.3g} away from it")
    init = jax.tree.map(lambda a: a.astype(x.dtype) if eqx.is_inexact_array(a) else a, init)
    if isinstance(init, Polyline):
        return Polyline(init.nodes.at[0].set(x).at[-1].set(y))
    return init


def check_times(ts: Any, dtype: Any) -> Float[Array, " n"]:
    """``ts`` as increasing times in [0, 1]; ``None`` gives 65 equally spaced ones."""
    if ts is None:
        return jnp.asarray(np.linspace(0, 1, 65), dtype)
    ts = as_float(ts, "ts").astype(dtype)
    if ts.ndim != 1 or ts.size == 0:
        raise ValueError(f"`ts` must have shape (n,) with n >= 1, got {ts.shape}")
    check_finite(ts, "ts")
    if is_concrete(ts):
        values = np.asarray(ts)
        if values.min() < 0 or values.max() > 1 or (np.diff(values) <= 0).any():
            raise ValueError(f"`ts` must increase within [0, 1], got values from {values.min():g} to {values.max():g}")
    return ts


def raise_if_failed(value: Any, result: RESULTS) -> Any:
    """``value`` itself, raising ``RuntimeError`` with the advice of ``result`` if that is a failure.

    A concrete failure is raised here, plainly; a traced one by equinox when the compiled program runs.
    """
    failed = result != RESULTS.successful
    if is_concrete(failed):
        if bool(jnp.any(failed)):
            raise RuntimeError(RESULTS[result])
        return value
    return result.error_if(value, failed)


def raise_unless_successful(geodesic: Geodesic) -> Geodesic:
    """``geodesic`` itself, raising an error with advice (also under ``jit``) if its solve failed."""
    return raise_if_failed(geodesic, geodesic.result)


@eqx.filter_jit
def _solve(solver, metric, x, y, init, ts):
    curve = init(metric, x, y) if isinstance(init, AbstractStart) else init
    return solver.solve(metric, x, y, curve, ts)


def geodesic(
    metric: AbstractMetric,
    x: Point,
    y: Point,
    *,
    solver: AbstractBoundarySolver | None = None,
    init: AbstractStart | Geodesic | Points | None = None,
    ts: Float[Array, " n"] | None = None,
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
    - ``throw``: raise ``RuntimeError`` with advice if the solve fails. With ``False`` read ``result``.

    **Returns** a `Geodesic`. It is differentiable in forward and reverse mode with respect to the end points and
    everything in the metric: ``length`` and ``energy`` by the envelope theorem, the path by the implicit function
    theorem.

    >>> import jax.numpy as jnp
    >>> from scoregeo import GaussianScore, SteinMetric, geodesic
    >>> metric = SteinMetric(GaussianScore(jnp.zeros(2), jnp.eye(2)))
    >>> round(float(geodesic(metric, jnp.array([-1.0, 0.5]), jnp.array([1.0, 0.7])).length), 4)
    2.2213
    """
    from .spectral.solver import SpectralNewton

    solver = SpectralNewton() if solver is None else solver
    check_solver(solver)
    x, y = check_end_points(metric, x, y)
    result = _solve(solver, metric, x, y, check_start(init, x, y), check_times(ts, x.dtype))
    return raise_unless_successful(result) if throw else result
