"""Regression on a geodesic: how points depend on a number."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._checks import as_float, check_finite, is_concrete
from .._numerics import program, safe_sqrt, with_own_settings
from .._results import RESULTS, first_failure, raise_if_failed
from .._types import Point, Points, Scalar, Vector
from ..geodesics import AbstractBoundarySolver, AbstractStart, shoot
from ..metrics import AbstractMetric
from ..operations import exp
from ._descent import descend
from ._fit import RegressionObjective
from ._tangent import check_effort, check_sample, check_ways, failure, weighted_sum
from .mean import FrechetMean, check_mean, frechet_mean

# Closer to the mean time than this part of the spread of times, slopes are carried by the acceleration alone.
_CLOSE = 1e-4


class GeodesicRegression(eqx.Module):
    """A geodesic as a function of a number; a pytree.

    **Fields**

    - ``intercept`` ``(d,)``, ``slope`` ``(d,)``: the point at t = 0 and the velocity there. Where the geodesic cannot
      be followed back to t = 0 both are NaN; `predict` does not need them.
    - ``r_squared``: the part of the variance about the Frechet mean that the geodesic explains, 1 for a perfect fit.
    - ``residuals`` ``(n,)``: distances from predictions to data. ``gradient_norm``: of half their mean square, for
      times of unit variance. ``steps``: evaluations of all distances.
    - ``center``, ``center_velocity``, ``center_time``: the geodesic at the mean time, from where `predict` follows it.
    - ``result``: a `RESULTS` code. ``metric``: that it was fitted in.
    """

    intercept: Point
    slope: Vector
    r_squared: Scalar
    residuals: Float[Array, " n"]
    gradient_norm: Scalar
    steps: Int[Array, ""]
    center: Point
    center_velocity: Vector
    center_time: Scalar
    result: RESULTS
    metric: AbstractMetric

    @with_own_settings
    def predict(self, t: Any, *, throw: bool = True) -> Point:
        """The point at ``t``, a scalar, shape ``(d,)``; for many use ``jax.vmap``."""
        t = as_float(t, "t").astype(self.center.dtype)
        if t.ndim != 0:
            raise ValueError(f"`t` must be a scalar, got shape {t.shape}; use jax.vmap for many")
        return exp(self.metric, self.center, (t - self.center_time) * self.center_velocity, throw=throw)


def geodesic_regression(
    metric: AbstractMetric,
    ts: Float[Array, " n"],
    ys: Points,
    weights: Float[Array, " n"] | None = None,
    *,
    mean: FrechetMean | None = None,
    solver: AbstractBoundarySolver | None = None,
    start: AbstractStart | None = None,
    gtol: float | None = None,
    max_steps: int = 200,
    throw: bool = True,
) -> GeodesicRegression:
    """The geodesic ``exp_p(t v)`` that minimises the weighted sum of squared distances to ``ys`` at times ``ts``.

    **Arguments**

    - ``ts`` ``(n,)``: the numbers; ``ys`` ``(n, d)``, the points. ``weights`` ``(n,)``, not negative, default equal.
    - ``mean``: the `FrechetMean` of ``ys``, if it is known; default `frechet_mean`. It is where the search starts.
    - ``gtol``: how small the gradient is to be relative to the spread; default 1e-8 in float64, 1e-4 in float32.
    - ``solver``, ``start``, ``max_steps``, ``throw``: as of `frechet_mean`. Coordinates must have no constraints: of
      families of distributions take ``FisherRaoMetric(family, unconstrained=True)`` where points have more numbers than
      dimensions.

    The search starts from the linear regression of logarithms at the mean. Derivatives of its loss are those of the
    exponential map; the result is not differentiated. Source: Fletcher, Geodesic regression and the theory of least
    squares on Riemannian manifolds (IJCV 2013).

    >>> import jax.numpy as jnp
    >>> from scoregeo.fisher_rao import FisherRaoMetric, Normal
    >>> from scoregeo.statistics import geodesic_regression
    >>> normals = jnp.stack([Normal().pack(mean=0.0, sd=sd) for sd in (1.0, 2.0, 4.0)])
    >>> found = geodesic_regression(FisherRaoMetric(Normal()), jnp.arange(3.0), normals)
    >>> [round(float(z), 3) for z in found.predict(3.0)], round(float(found.r_squared), 3)
    ([0.0, 8.0], 1.0)
    """
    ys, weights = check_sample(metric, ys, weights, "ys")
    ts = _check_numbers(ts, ys, weights)
    solver, start = check_ways(metric, ys.shape[1], solver, start)
    gtol, max_steps = check_effort(gtol, max_steps, ys.dtype, (1e-8, 1e-4))
    if mean is None:
        mean = frechet_mean(metric, ys, weights, solver=solver, start=start, throw=False)
    elif not isinstance(mean, FrechetMean):
        raise ValueError(f"`mean` must be the FrechetMean of `ys`, got {type(mean).__name__}")
    else:
        check_mean(mean, ys, "ys")
    ended = _regress(metric, ts, ys, weights, mean, solver, start, gtol, max_steps)
    found = _followed(metric, *ended)
    return raise_if_failed(found, found.result) if throw else found


def _check_numbers(ts: Any, ys: Points, weights: Float[Array, " n"]) -> Float[Array, " n"]:
    """``ts`` as finite numbers, one for each point, of which those with weight are not all the same."""
    ts = as_float(ts, "ts").astype(ys.dtype)
    if ts.shape != ys.shape[:1]:
        raise ValueError(f"`ts` must have shape {ys.shape[:1]}, one for each of `ys`, got {ts.shape}")
    check_finite(ts, "ts")
    if is_concrete(ts) and is_concrete(weights):
        used = np.asarray(ts)[np.asarray(weights) > 0]
        if used.size and used.min() == used.max():
            raise ValueError(f"`ts` must have at least two different numbers, but all are {used[0]:.6g}")
    return ts


@program
def _regress(metric, ts, ys, weights, mean: FrechetMean, solver, start, gtol: float, max_steps: int):
    """The geodesic at the mean time, and how the search for it ended."""
    center = weights @ ts
    spread = safe_sqrt(weights @ (ts - center) ** 2)
    times = (ts - center) / spread
    objective = RegressionObjective(
        metric=metric, ts=times, ys=ys, weights=weights, solver=solver, start=start, gtol=gtol
    )
    init = jnp.concatenate([mean.point, weighted_sum(weights * times, mean.logs)])
    ended = descend(objective, init, ys.shape[0], max_steps, 16 * ys.size)
    p, u = jnp.split(ended.variables, 2)
    failed = failure(ended.at.known.results, weights > 0)
    result = first_failure(
        [
            (mean.result != RESULTS.successful, mean.result),
            (failed != RESULTS.successful, failed),
            (~ended.converged, RESULTS.not_converged),
        ]
    )
    lengths = ended.at.known.lengths
    left = weighted_sum(weights, lengths**2)
    r_squared = 1 - left / jnp.where(mean.variance > 0, mean.variance, 1)
    return p, u, center, spread, r_squared, lengths, ended.at.norm, ended.steps, result


@program
def _followed(metric, p, u, center, spread, r_squared, lengths, norm, steps, result) -> GeodesicRegression:
    """The geodesic, followed back from the mean time to zero."""
    back = -center / spread
    path = shoot(metric, p, back * u, ts=(0.0, 1.0), dense=False, max_steps=4096, throw=False)
    close = jnp.abs(back) < _CLOSE
    carried = path.velocities[-1] / jnp.where(close, 1, back)
    nearby = u + back * metric.acceleration(p, u)
    slope = jnp.where(close, nearby, carried) / spread
    return GeodesicRegression(
        path.points[-1], slope, r_squared, lengths, norm, steps, p, u / spread, center, result, metric
    )
