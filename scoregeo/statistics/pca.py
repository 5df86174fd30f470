"""Principal directions: of the tangent space at the mean, and of geodesics through it."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._checks import as_point, check_count
from .._numerics import program, safe_sqrt, with_own_settings
from .._results import RESULTS, first_failure, raise_if_failed
from .._types import Point, Points
from ..geodesics import AbstractBoundarySolver, AbstractStart
from ..metrics import AbstractInnerProduct, AbstractMetric
from ..operations import exp, log
from ._descent import descend
from ._fit import PrincipalObjective
from ._tangent import check_effort, check_sample, check_ways, failure, logs, starting_paths, weighted_sum
from .mean import FrechetMean, check_mean, frechet_mean


class TangentPCA(eqx.Module):
    """Principal components of logarithms at a mean; a pytree.

    **Fields**

    - ``mean`` ``(d,)``; ``axes`` ``(k, d)``: tangent vectors there, orthonormal in the metric, that of the largest
      variance first. Signs are such that the largest entry is positive; an axis without variance may be zero.
    - ``explained_variance`` ``(k,)``: of the sample's coordinates along the axes; ``explained_variance_ratio`` is that
      as a part of the whole variance.
    - ``result``: a `RESULTS` code, of the mean and of the geodesics to the sample.
    - ``metric``, ``solver``: what they were computed with.
    """

    mean: Point
    axes: Float[Array, "k d"]
    explained_variance: Float[Array, " k"]
    explained_variance_ratio: Float[Array, " k"]
    result: RESULTS
    metric: AbstractMetric
    solver: AbstractBoundarySolver

    @with_own_settings
    def transform(self, x: Point, *, throw: bool = True) -> Float[Array, " k"]:
        """The coordinates of ``log_mean(x)`` along the axes, shape ``(k,)``; for batches use ``jax.vmap``."""
        vector = log(self.metric, self.mean, x, solver=self.solver, throw=throw)
        return self.axes @ self.metric.at(self.mean).mv(vector)

    @with_own_settings
    def inverse_transform(self, coordinates: Float[Array, " k"], *, throw: bool = True) -> Point:
        """The point that has these coordinates, shape ``(d,)``: ``exp_mean`` of the combination of axes."""
        coordinates = as_point(coordinates, "coordinates", dim=self.axes.shape[0]).astype(self.axes.dtype)
        return exp(self.metric, self.mean, coordinates @ self.axes, throw=throw)


def tangent_pca(
    metric: AbstractMetric,
    xs: Points,
    k: int | None = None,
    *,
    mean: Point | FrechetMean | None = None,
    weights: Float[Array, " n"] | None = None,
    solver: AbstractBoundarySolver | None = None,
    start: AbstractStart | None = None,
    throw: bool = True,
) -> TangentPCA:
    """Principal component analysis of the logarithms of ``xs`` ``(n, d)`` at their mean, in the metric there.

    Axes maximise the variance of their coordinates among vectors that are orthonormal in the metric G at the mean: they
    are ``G^{-1/2}`` times eigenvectors of ``G^{1/2} S G^{1/2}``, S the covariance of the logarithms. Where there are
    fewer points than dimensions, or in more than 64 dimensions of fewer than 4096 points, the matrix of inner products
    of logarithms takes their place.

    **Arguments**

    - ``k``: how many axes; default all, ``min(n - 1, d)``.
    - ``mean``: a point or a `FrechetMean` (of the same sample); default `frechet_mean`.
    - ``weights``, ``solver``, ``start``, ``throw``: as of `frechet_mean`.

    Source: Fletcher, Lu, Pizer & Joshi, Principal geodesic analysis (2004).

    >>> import jax.numpy as jnp
    >>> from scoregeo.fisher_rao import FisherRaoMetric, Normal
    >>> from scoregeo.statistics import tangent_pca
    >>> normals = jnp.stack([Normal().pack(mean=0.0, sd=sd) for sd in (1.0, 2.0, 4.0)])
    >>> found = tangent_pca(FisherRaoMetric(Normal()), normals, 1)
    >>> [round(float(z), 3) for z in found.axes[0]], round(float(found.explained_variance_ratio[0]), 3)
    ([0.0, 1.414], 1.0)
    """
    xs, weights = check_sample(metric, xs, weights)
    n, d = xs.shape
    k = check_components(k, n, d)
    solver, start = check_ways(metric, d, solver, start)
    found, vectors = tangent_sample(metric, xs, weights, mean, solver, start)
    pca = _pca(metric, solver, vectors, weights, found, k)
    return raise_if_failed(pca, pca.result) if throw else pca


def check_components(k: Any, n: int, d: int, name: str = "k") -> int:
    """How many components there are to be of ``n`` points in ``d`` dimensions; all of them for ``None``. ``name`` is
    the argument's."""
    most = min(n - 1, d)
    if most == 0:
        raise ValueError("`xs` must have at least two points, of which one has a direction to the other, got 1")
    if k is None:
        return most
    k = check_count(name, k)
    if k > most:
        raise ValueError(f"`{name}` must be at most {most} for {n} points in {d} dimensions, got {k}")
    return k


def tangent_sample(
    metric: AbstractMetric,
    xs: Points,
    weights: Float[Array, " n"],
    mean: Any,
    solver: AbstractBoundarySolver,
    start: AbstractStart,
) -> tuple[tuple[Point, RESULTS], Points]:
    """The mean of a sample with its code, and the logarithms of the sample there."""
    if mean is None:
        mean = frechet_mean(metric, xs, weights, solver=solver, start=start, throw=False)
        return (mean.point, mean.result), mean.logs
    if isinstance(mean, FrechetMean):
        check_mean(mean, xs, "xs")
        return (mean.point, mean.result), mean.logs
    mean = as_point(mean, "mean", dim=xs.shape[1]).astype(xs.dtype)
    vectors, result = _logs(metric, mean, xs, weights, solver, start)
    return (mean, result), vectors


@program
def _logs(metric, mean, xs, weights, solver, start):
    at = logs(metric, mean, xs, solver, starting_paths(metric, mean, xs, solver, start))
    return at.vectors, failure(at.results, weights > 0)


@program
def _pca(metric, solver, vectors: Points, weights: Float[Array, " n"], found: tuple[Point, RESULTS], k: int):
    mean, result = found
    product = metric.at(mean)
    counted = jnp.where(weights[:, None] > 0, vectors, 0)
    centered = safe_sqrt(weights)[:, None] * (counted - weighted_sum(weights, counted))
    n, d = vectors.shape
    few = n <= d or (d > _MAX_WHITENED and n <= _MAX_GRAM)
    variances, axes = (_by_gram if few else _by_whitening)(product, centered, k)
    axes = axes * _signs(axes)
    total = jnp.sum(jax.vmap(product.squared_norm)(centered))
    unknown = ~(jnp.all(jnp.isfinite(axes)) & jnp.isfinite(total))
    code = first_failure([(result != RESULTS.successful, result), (unknown, RESULTS.metric_nonfinite)])
    ratio = variances / jnp.where(total > 0, total, 1)
    return TangentPCA(mean, axes, variances, ratio, code, metric, solver)


# Beyond so many dimensions nothing of their square is formed if there are no more than so many points.
_MAX_WHITENED, _MAX_GRAM = 64, 4096


def _by_gram(product: AbstractInnerProduct, rows: Points, k: int) -> tuple[Float[Array, " k"], Float[Array, "k d"]]:
    """Principal axes of ``rows`` by their inner products: combinations of them, that need no root of the metric."""
    gram = rows @ jax.vmap(product.mv)(rows).T
    values, vectors = _largest(gram, k)
    known = values > rows.shape[0] * jnp.finfo(rows.dtype).eps * values[0]
    axes = (vectors @ rows) * jnp.where(known, 1 / jnp.sqrt(jnp.where(known, values, 1)), 0)[:, None]
    return values, axes


def _by_whitening(
    product: AbstractInnerProduct, rows: Points, k: int
) -> tuple[Float[Array, " k"], Float[Array, "k d"]]:
    """Principal axes of ``rows`` in coordinates in which the metric is the identity."""
    white = jax.vmap(product.sqrt_mv)(rows)
    values, vectors = _largest(white.T @ white, k)
    return values, jax.vmap(product.inv_sqrt_mv)(vectors)


def _largest(matrix: Float[Array, "n n"], k: int) -> tuple[Float[Array, " k"], Float[Array, "k n"]]:
    values, vectors = jnp.linalg.eigh((matrix + matrix.T) / 2)
    return jnp.maximum(values[::-1][:k], 0), vectors[:, ::-1][:, :k].T


def _signs(axes: Float[Array, "k d"]) -> Float[Array, "k 1"]:
    """What makes the largest entry of each row positive."""
    largest = jnp.argmax(jnp.abs(axes), 1)
    return jnp.where(jnp.take_along_axis(axes, largest[:, None], 1) < 0, -1, 1).astype(axes.dtype)


class PrincipalGeodesics(eqx.Module):
    """Geodesics through a mean that fit a sample best, one after another; a pytree.

    **Fields**

    - ``mean`` ``(d,)``; ``directions`` ``(k, d)``: their velocities there, orthonormal in the metric, signs as of
      `TangentPCA`.
    - ``scores`` ``(k, n)``: where on the geodesics the points of the sample are nearest, in units of length.
    - ``residuals`` ``(k, n)``: how far from it they are there.
    - ``explained_variance`` ``(k,)``: the mean square of the scores; ``residual_variance`` ``(k,)``: of the residuals.
    - ``result`` ``(k,)``: a `RESULTS` code for each. ``steps`` ``(k,)``: evaluations of all distances.
    """

    mean: Point
    directions: Float[Array, "k d"]
    scores: Float[Array, "k n"]
    residuals: Float[Array, "k n"]
    explained_variance: Float[Array, " k"]
    residual_variance: Float[Array, " k"]
    result: RESULTS
    steps: Int[Array, " k"]


def principal_geodesics(
    metric: AbstractMetric,
    xs: Points,
    k: int = 1,
    *,
    mean: Point | FrechetMean | None = None,
    weights: Float[Array, " n"] | None = None,
    solver: AbstractBoundarySolver | None = None,
    start: AbstractStart | None = None,
    gtol: float | None = None,
    max_steps: int = 200,
    throw: bool = True,
) -> PrincipalGeodesics:
    """The geodesics through the mean of ``xs`` ``(n, d)`` to which the sample is nearest: the first minimises the
    weighted sum of squared distances to it, each next one does among those orthogonal at the mean to all before.

    `tangent_pca` minimises distances of logarithms instead, which curvature distorts: it is where this starts.

    **Arguments**: ``k``, how many, at most ``min(n - 1, d)``; ``mean`` as of `tangent_pca`; ``gtol``, of the gradient
    relative to the spread, default 1e-8 in float64, 1e-4 in float32; the others as of `frechet_mean`. Coordinates must
    have no constraints: of families of distributions take ``FisherRaoMetric(family, unconstrained=True)`` where points
    have more numbers than dimensions.

    The derivative of the loss is that of the exponential map; the result is not differentiated. Sources: Fletcher et
    al. (2004); Sommer, Lauze & Nielsen, Optimization over geodesics for exact principal geodesic analysis (2014).

    >>> import jax.numpy as jnp
    >>> from scoregeo.fisher_rao import FisherRaoMetric, Normal
    >>> from scoregeo.statistics import principal_geodesics
    >>> normals = jnp.stack([Normal().pack(mean=0.0, sd=sd) for sd in (1.0, 2.0, 4.0)])
    >>> found = principal_geodesics(FisherRaoMetric(Normal()), normals)  # doctest: +SKIP
    >>> bool(found.residual_variance[0] < 1e-6)  # doctest: +SKIP
    True
    """
    xs, weights = check_sample(metric, xs, weights)
    n, d = xs.shape
    k = check_components(k, n, d)
    solver, start = check_ways(metric, d, solver, start)
    gtol, max_steps = check_effort(gtol, max_steps, xs.dtype, (1e-8, 1e-4))
    (point, result), vectors = tangent_sample(metric, xs, weights, mean, solver, start)
    first = _pca(metric, solver, vectors, weights, (point, result), k)
    found = _principal(first, vectors, xs, weights, start, gtol, max_steps)
    return raise_if_failed(found, failure(found.result, jnp.ones(k, bool))) if throw else found


@program
def _principal(first: TangentPCA, vectors, xs, weights, start, gtol: float, max_steps: int) -> PrincipalGeodesics:
    metric, mean, product = first.metric, first.mean, first.metric.at(first.mean)
    k, d = first.axes.shape
    n = xs.shape[0]
    vectors = jnp.where(weights[:, None] > 0, vectors, 0)

    def one(earlier, i):
        axis = first.axes[i] - earlier.T @ (earlier @ product.mv(first.axes[i]))
        deviation = safe_sqrt(first.explained_variance[i])
        deviation = jnp.where(deviation > 0, deviation, 1)
        objective = PrincipalObjective(
            metric=metric,
            mean=mean,
            earlier=earlier,
            unit=deviation**2,
            ys=xs,
            weights=weights,
            solver=first.solver,
            start=start,
            gtol=gtol,
        )
        ts = vectors @ product.mv(axis) / deviation
        init = jnp.concatenate([deviation * axis, ts])
        ended = descend(objective, init, n, max_steps, 16 * xs.size)
        u, ts = objective.split(ended.variables)
        length = product.norm(u)
        direction = u / jnp.where(length > 0, length, 1)
        sign = _signs(direction[None])[0, 0]
        failed = failure(ended.at.known.results, weights > 0)
        result = first_failure(
            [
                (first.result != RESULTS.successful, first.result),
                (failed != RESULTS.successful, failed),
                (~ended.converged, RESULTS.not_converged),
            ]
        )
        direction, scores = sign * direction, sign * length * ts
        residuals = ended.at.known.lengths
        return earlier.at[i].set(direction), (direction, scores, residuals, result, ended.steps)

    _, (directions, scores, residuals, results, steps) = jax.lax.scan(one, jnp.zeros((k, d), xs.dtype), jnp.arange(k))
    of = jax.vmap(lambda rows: weighted_sum(weights, rows**2))
    return PrincipalGeodesics(mean, directions, scores, residuals, of(scores), of(residuals), results, steps)
