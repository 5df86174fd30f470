"""Checks of what boundary problems are given: metrics, end points, solvers, starts and times."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._checks import as_float, as_point, as_points, check_count, check_finite, is_concrete
from .._types import Point, Points, Vector
from ..metrics import AbstractMetric
from .base import AbstractBoundarySolver
from .curves import AbstractCurve, Polyline
from .solution import Geodesic
from .starts import AbstractStart, StraightLine

# What `check_start` makes a starting rule or a curve of, and `check_times` an array.
Start: TypeAlias = AbstractStart | AbstractCurve | Geodesic | Points
Times: TypeAlias = Float[Array, " n"] | Float[np.ndarray, " n"] | Sequence[float]


def check_end_points(metric: Any, x: Any, y: Any) -> tuple[Point, Point]:
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


def check_event(event: Any, x: Point, v: Vector) -> None:
    """Raise unless ``event`` is a function of a point and a velocity that returns a real number."""
    if event is None:
        return
    if not callable(event):
        raise TypeError(f"`event` must be a function (x, v) -> scalar, got {type(event).__name__}")
    value = eqx.filter_eval_shape(event, x, v)
    if getattr(value, "shape", None) != () or not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(f"`event` must return a real scalar that changes sign at the event, got {value}")


def check_integration(solver: Any, stepsize_controller: Any, max_steps: Any) -> None:
    """Raise unless these are settings that diffrax can integrate with."""
    if solver is not None and not isinstance(solver, diffrax.AbstractSolver):
        raise TypeError(f"`solver` must be a diffrax solver such as diffrax.Tsit5(), got {solver!r}")
    if stepsize_controller is not None and not isinstance(stepsize_controller, diffrax.AbstractStepSizeController):
        raise TypeError(
            "`stepsize_controller` must be one of diffrax, such as diffrax.PIDController(rtol=1e-8, atol=1e-8), got "
            f"{stepsize_controller!r}"
        )
    if isinstance(stepsize_controller, diffrax.ConstantStepSize):
        raise ValueError(
            "`stepsize_controller` must know its steps, which diffrax.ConstantStepSize() does not: use "
            "diffrax.StepTo(jnp.linspace(0, 1, steps + 1))"
        )
    check_count("max_steps", max_steps, 1)
