"""Means and medians: the points from which a sample is least far."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._checks import as_float, check_finite, is_concrete
from .._numerics import frozen, program, safe_sqrt
from .._results import RESULTS, raise_if_failed
from .._types import Point, Points, Scalar
from ..geodesics import AbstractBoundarySolver, AbstractStart
from ..metrics import AbstractMetric
from ._center import MEAN, MEDIAN, CenterObjective, Found, Loss, center
from ._tangent import check_effort, check_sample, check_ways, weighted_sum

# Two centers are the same if they are closer than this part of the spread.
_SAME = 1e-3


class FrechetMean(eqx.Module):
    """A Frechet mean or median; a pytree, so a batch of them is one with leading axes.

    **Fields**

    - ``point`` ``(d,)``: the mean.
    - ``variance``: ``sum w_i d(point, x_i)^2`` with weights that sum to one.
    - ``distances`` ``(n,)``, ``logs`` ``(n, d)``: to the sample, from the mean.
    - ``gradient_norm``: the length, in the metric at ``point``, of ``sum w_i log(x_i)``; of a median, of
      ``sum w_i log(x_i) / d_i``, less the weight of points of the sample that are there.
    - ``steps``: evaluations of all distances. ``minima``: how many distinct centers the starts converged to.
    - ``result``: a `RESULTS` code. ``xs`` ``(n, d)``: the sample.
    """

    point: Point
    variance: Scalar
    distances: Float[Array, " n"]
    logs: Points
    gradient_norm: Scalar
    steps: Int[Array, ""]
    minima: Int[Array, ""]
    result: RESULTS
    xs: Points


def frechet_mean(
    metric: AbstractMetric,
    xs: Points,
    weights: Float[Array, " n"] | None = None,
    *,
    solver: AbstractBoundarySolver | None = None,
    start: AbstractStart | None = None,
    init: Point | Float[Array, "k d"] | None = None,
    gtol: float | None = None,
    max_steps: int = 100,
    throw: bool = True,
) -> FrechetMean:
    """The Frechet mean: the point that minimises the weighted sum of squared distances to ``xs``.

    **Arguments**

    - ``metric``: the metric; ``xs`` ``(n, d)``, the sample; ``weights`` ``(n,)``, not negative, default equal.
    - ``solver``: of the geodesics from the mean to the sample; default that of the metric. Metrics with closed forms
      use them. ``start``: the rule that gives the curves to start from; default `StraightLine`.
    - ``init``: where to start, a point ``(d,)``; or several ``(k, d)``, of which the best center is returned: in
      curved spaces a widely spread sample may have several local means. Default the Euclidean mean, or the point of the
      sample that is nearest to it where that is outside the domain.
    - ``gtol``: how small the gradient is to be, as a part of the spread (the root of the variance); default 1e-10 in
      float64, 1e-4 in float32.
    - ``max_steps``: evaluations of all distances, at most.
    - ``throw``: raise ``RuntimeError`` with advice if it did not converge, or if a geodesic to a point that has weight
      failed (its code is the result's); inside a trace all numbers are NaN then. With ``False``, the best point found.

    **Returns** a `FrechetMean`. It is differentiable in both modes with respect to ``xs``, ``weights`` and everything
    in the metric, by the implicit function theorem.

    Quasi-Newton steps, each from the geodesics of the one before; where these end, all geodesics are solved once more
    from ``start``, in case that a shorter one has appeared. Sources: Karcher, Riemannian center of mass and mollifier
    smoothing (1977); Pennec, Intrinsic statistics on Riemannian manifolds (2006).

    >>> import jax.numpy as jnp
    >>> from scoregeo.fisher_rao import FisherRaoMetric, Normal
    >>> from scoregeo.statistics import frechet_mean
    >>> normals = jnp.stack([Normal().pack(mean=0.0, sd=1.0), Normal().pack(mean=0.0, sd=4.0)])
    >>> mean = frechet_mean(FisherRaoMetric(Normal()), normals)
    >>> [round(float(z), 2) for z in mean.point], bool(mean.gradient_norm < 1e-3)
    ([0.0, 2.0], True)
    """
    return _center(MEAN, metric, xs, weights, solver, start, init, gtol, max_steps, throw)


def frechet_median(
    metric: AbstractMetric,
    xs: Points,
    weights: Float[Array, " n"] | None = None,
    *,
    solver: AbstractBoundarySolver | None = None,
    start: AbstractStart | None = None,
    init: Point | Float[Array, "k d"] | None = None,
    gtol: float | None = None,
    max_steps: int = 200,
    throw: bool = True,
) -> FrechetMean:
    """The Frechet median: the point that minimises the weighted sum of distances to ``xs``, which few outliers move.

    Arguments and result as of `frechet_mean`; ``gtol`` bounds the length of the sum of unit vectors, which weights
    that sum to one keep below one. A median may be a point of the sample: then it is that point exactly.

    Quasi-Newton steps scaled as Weiszfeld's. Sources: Fletcher, Venkatasubramanian & Joshi, The geometric median on
    Riemannian manifolds (2009); Vardi & Zhang, The multivariate L1-median and associated data depth (2000).

    >>> import jax.numpy as jnp
    >>> from scoregeo.fisher_rao import FisherRaoMetric, Normal
    >>> from scoregeo.statistics import frechet_median
    >>> normals = jnp.stack([Normal().pack(mean=0.0, sd=sd) for sd in (1.0, 2.0, 100.0)])
    >>> [round(float(z), 2) for z in frechet_median(FisherRaoMetric(Normal()), normals).point]
    [0.0, 2.0]
    """
    return _center(MEDIAN, metric, xs, weights, solver, start, init, gtol, max_steps, throw)


def _center(loss: Loss, metric, xs, weights, solver, start, init, gtol, max_steps, throw: bool) -> FrechetMean:
    xs, weights = check_sample(metric, xs, weights)
    d = xs.shape[1]
    solver, start = check_ways(metric, d, solver, start)
    gtol, max_steps = check_effort(gtol, max_steps, xs.dtype, (1e-10, 1e-4))
    objective = CenterObjective(metric, xs, weights, solver, start, loss, gtol)
    found = _search(max_steps, objective, _check_init(init, xs))
    return raise_if_failed(found, found.result) if throw else found


def _check_init(init: Any, xs: Points) -> Float[Array, "k d"] | None:
    """The starting points ``(k, d)``, if there are such."""
    if init is None:
        return None
    init = as_float(init, "init").astype(xs.dtype)
    if init.ndim not in (1, 2) or init.shape[-1] != xs.shape[1] or init.size == 0:
        raise ValueError(f"`init` must have shape ({xs.shape[1]},) or (k, {xs.shape[1]}), got {init.shape}")
    check_finite(init, "init")
    return jnp.atleast_2d(init)


@program
def _search(max_steps: int, objective: CenterObjective, init: Float[Array, "k d"] | None) -> FrechetMean:
    if init is None:
        found = center(max_steps, objective, _first(objective))
        minima = (found.result == RESULTS.successful).astype(jnp.int32)
    else:
        found, minima = _best(objective, jax.vmap(lambda x: center(max_steps, objective, x))(init))
    return FrechetMean(
        point=found.point,
        variance=2 * weighted_sum(objective.weights, found.at.energies),
        distances=found.at.lengths,
        logs=found.at.vectors,
        gradient_norm=found.gradient_norm,
        steps=found.steps,
        minima=minima,
        result=found.result,
        xs=objective.xs,
    )


def check_mean(mean: FrechetMean, xs: Points, name: str) -> FrechetMean:
    """``mean`` itself; raises ``ValueError`` if it is of another sample than ``xs``, as far as values are known."""
    if mean.xs.shape != xs.shape:
        raise ValueError(f"`mean` must be that of `{name}`, of shape {xs.shape}, but is of a sample {mean.xs.shape}")
    if is_concrete(mean.xs) and is_concrete(xs):
        own, given = np.asarray(mean.xs), np.asarray(xs.astype(mean.xs.dtype))
        other = (own != given).any(1)
        if other.any():
            i = int(np.argmax(other))
            raise ValueError(
                f"`mean` must be that of `{name}`, but is of another sample of this shape: `{name}[{i}]` is "
                f"{given[i]}, that of the mean {own[i]}"
            )
    return mean


def _first(objective: CenterObjective) -> Point:
    """The Euclidean mean; the point of the sample that is nearest to it where that is outside the domain."""
    metric, xs, weights = frozen((objective.metric, objective.xs, objective.weights))
    # From the first point, so that a mean of equal points is that point.
    mean = xs[0] + weights @ (xs - xs[0])
    nearest = jnp.argmin(jnp.where(weights > 0, jnp.sum((xs - mean) ** 2, 1), jnp.inf))
    usable = (metric.domain(mean) > 0) & jnp.isfinite(metric.norm(mean, mean))
    return jnp.where(usable, mean, xs[nearest])


def _best(objective: CenterObjective, found: Found) -> tuple[Found, Int[Array, ""]]:
    """The best of several centers, and how many distinct ones have converged."""
    weights = objective.weights
    value = jax.vmap(lambda at: objective.loss.descend(weights, at)[0])(found.at)
    good = found.result == RESULTS.successful
    order = jnp.where(good | (~jnp.any(good) & jnp.isfinite(value)), value, jnp.inf)
    k = jnp.argmin(order)
    best = jax.tree.map(lambda leaf: leaf[k], found)
    product, spread = objective.metric.at(best.point), safe_sqrt(2 * weighted_sum(weights, best.at.energies))
    gaps = jax.vmap(lambda a: jax.vmap(lambda b: product.norm(a - b))(found.point))(found.point)
    repeated = jnp.any(jnp.tril(jnp.ones_like(gaps, bool), -1) & good & (gaps <= _SAME * spread), 1)
    return best, jax.lax.stop_gradient(jnp.sum(good & ~repeated))
