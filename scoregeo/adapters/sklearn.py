"""scikit-learn: the statistics of `scoregeo.statistics` as its estimators, and matrices of distances for others.

Estimators have the metric as a parameter (default Euclid's), take and give NumPy arrays, and can be cloned, searched
and put into pipelines. They compute in the precision of JAX (float32 unless ``jax_enable_x64`` is set), and where a
statistic does not converge they warn with scikit-learn's ``ConvergenceWarning``, as its own do.

scikit-learn is imported when this module is, not before.
"""

from collections.abc import Callable
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from .. import statistics
from .._checks import is_number, warn
from .._numerics import with_own_settings
from .._results import RESULTS, status_name
from .._types import Point, Points
from ..geodesics import AbstractBoundarySolver, AbstractStart, StraightLine, geodesic
from ..geodesics.base import default_solver
from ..metrics import AbstractMetric, EuclideanMetric
from ..operations import exp, pairwise_dist
from ..statistics.pca import check_components

_ENDS = (0.0, 1.0)
# How many failed pairs or rows a message names.
_NAMED = 3


def geodesic_distances(
    metric: AbstractMetric,
    X: Points | np.ndarray,
    Y: Points | np.ndarray | None = None,
    *,
    fill: float | None = None,
    **settings: Any,
) -> Float[np.ndarray, "n m"]:
    """All distances from ``X`` ``(n, d)`` to ``Y`` ``(m, d)`` (default ``X``), for scikit-learn's
    ``metric="precomputed"``.

    **Arguments**: ``fill``, what stands for pairs that could not be solved, such as a number larger than all distances
    (scikit-learn takes no infinite ones); without it they are an error. ``**settings`` are those of `pairwise_dist`
    (``solver``, ``init``, ``batch_size``, ``progress``, ``checkpoint``, ...).

    Raises ``RuntimeError`` that names the first pairs that could not be solved, and how they ended.

    >>> import numpy as np
    >>> from sklearn.neighbors import KNeighborsClassifier
    >>> from scoregeo.adapters.sklearn import geodesic_distances
    >>> from scoregeo.fisher_rao import FisherRaoMetric, Normal
    >>> metric = FisherRaoMetric(Normal())
    >>> X, y = np.array([[0.0, 1.0], [0.0, 2.0], [0.0, 50.0]]), np.array([0, 0, 1])
    >>> classifier = KNeighborsClassifier(1, metric="precomputed").fit(geodesic_distances(metric, X), y)
    >>> classifier.predict(geodesic_distances(metric, np.array([[1.0, 30.0]]), X)).tolist()
    [1]
    """
    if fill is not None and not (is_number(fill) or fill == np.inf):
        raise ValueError(f"`fill` must be a number, got {fill!r}")
    xs, ys = cast(Points, X), cast(Points | None, Y)
    lengths, results = pairwise_dist(metric, xs, ys, **settings)
    failed = np.asarray(results != RESULTS.successful)
    matrix = np.array(lengths)
    if not failed.any():
        return matrix
    if fill is not None:
        matrix[failed] = fill
        return matrix
    names: Any = status_name(results)
    pairs = [f"({i}, {j}) {names[i, j]}" for i, j in np.argwhere(failed)[:_NAMED]]
    raise RuntimeError(
        f"{failed.sum()} of {failed.size} distances could not be solved, the first {', '.join(pairs)}: give a `solver` "
        "or `init` that suits the metric, or the number that stands for them as `fill`"
    )


class _MetricEstimator(BaseEstimator):
    """What the estimators share: their points, their metric, and how they say that something did not converge."""

    metric: AbstractMetric | None
    solver: AbstractBoundarySolver | None
    start: AbstractStart | None
    mean_: np.ndarray

    def _read(self, X: Any, *, reset: bool = False, least: int = 1) -> Any:
        return validate_data(self, X, reset=reset, dtype=[np.float64, np.float32], ensure_min_samples=least)

    def _weights(self, X: np.ndarray, sample_weight: Any) -> Any:
        return None if sample_weight is None else _check_sample_weight(sample_weight, X, ensure_non_negative=True)

    def _metric(self) -> AbstractMetric:
        return EuclideanMetric() if self.metric is None else self.metric

    def _warn(self, result: RESULTS) -> None:
        if not bool(result == RESULTS.successful):
            warn(f"{type(self).__name__}: {RESULTS[result]}", ConvergenceWarning)

    def _to_tangent(self, X: Any) -> tuple[Float[Array, "n d"], np.dtype]:
        """The logarithms of points at ``mean_``; raises ``RuntimeError`` for those that cannot be solved."""
        check_is_fitted(self)
        X = self._read(X)
        metric = self._metric()
        solver = default_solver(metric) if self.solver is None else self.solver
        start = StraightLine() if self.start is None else self.start
        points = jnp.asarray(X)
        vectors, results = _logs(metric, solver, start, jnp.asarray(self.mean_, points.dtype), points)
        failed = np.asarray(results != RESULTS.successful)
        if failed.any():
            rows = np.flatnonzero(failed)
            names: Any = status_name(results)
            first = ", ".join(f"{row} {names[row]}" for row in rows[:_NAMED])
            raise RuntimeError(
                f"the geodesics from the mean to {len(rows)} of {len(X)} rows could not be solved, the first {first}: "
                "give a `solver` or `start` that suits the metric, or leave these rows out"
            )
        return vectors, X.dtype

    def _from_tangent(self, X: Any, to_vectors: Callable[[Point, Points], Points], width: int) -> np.ndarray:
        """The points at the ends of tangent vectors at ``mean_``, made by ``to_vectors`` of ``width`` coordinates."""
        floats: Any = [np.float64, np.float32]
        X = check_array(X, dtype=floats, estimator=self)
        if X.shape[1] != width:
            raise ValueError(
                f"X has {X.shape[1]} coordinates, but {type(self).__name__}.inverse_transform is expecting {width}"
            )
        coordinates = jnp.asarray(X)
        dtype = jnp.result_type(coordinates, jnp.asarray(self.mean_))
        mean, coordinates = jnp.asarray(self.mean_, dtype), coordinates.astype(dtype)
        points = np.asarray(_exps(self._metric(), mean, to_vectors(mean, coordinates)), X.dtype)
        lost = np.flatnonzero(~np.isfinite(points).all(1))
        if lost.size:
            rows = ", ".join(str(row) for row in lost[:_NAMED])
            warn(
                f"{type(self).__name__}: the geodesics of {lost.size} of {len(X)} rows could not be followed to their "
                f"ends, which are not finite, the first {rows}: give coordinates closer to zero",
                ConvergenceWarning,
            )
        return points


@eqx.filter_jit
@with_own_settings
def _logs(metric: AbstractMetric, solver: AbstractBoundarySolver, start: AbstractStart, mean: Point, xs: Points):
    def one(x):
        found = geodesic(metric, mean, x, solver=solver, init=start, ts=_ENDS, throw=False)
        return found.velocities[0], found.result

    return jax.vmap(one)(xs)


@eqx.filter_jit
@with_own_settings
def _exps(metric: AbstractMetric, mean: Point, vectors: Points) -> Points:
    return jax.vmap(lambda v: exp(metric, mean, v))(vectors)


@eqx.filter_jit
@with_own_settings
def _scaled(metric: AbstractMetric, mean: Point, vectors: Points, inverse: bool) -> Points:
    """Tangent vectors at the mean in coordinates that are orthonormal there, or back."""
    product = metric.at(mean)
    return jax.vmap(product.inv_sqrt_mv if inverse else product.sqrt_mv)(vectors)


class FrechetMean(ClassNamePrefixFeaturesOutMixin, TransformerMixin, _MetricEstimator):
    """`scoregeo.statistics.frechet_mean`, and points as tangent vectors there: the flat picture of a sample, in which
    linear models can work.

    **Parameters** ``metric``, ``solver``, ``start``, ``gtol``: as of `frechet_mean`; ``max_iter``, its ``max_steps``.

    After ``fit``: ``mean_`` ``(d,)``, ``variance_``, ``n_iter_``. ``transform`` gives ``G(mean)^(1/2) log_mean(x)``,
    coordinates that are orthonormal in the metric: their norm is the geodesic distance from the mean.
    ``inverse_transform`` leads back.
    """

    def __init__(self, metric=None, *, solver=None, start=None, gtol=None, max_iter=100):
        self.metric = metric
        self.solver = solver
        self.start = start
        self.gtol = gtol
        self.max_iter = max_iter

    def fit(self, X, y=None, sample_weight=None):
        """The mean of the rows of ``X`` ``(n, d)``."""
        X = self._read(X, reset=True)
        weights = self._weights(X, sample_weight)
        settings = {"solver": self.solver, "start": self.start, "gtol": self.gtol, "max_steps": self.max_iter}
        found = statistics.frechet_mean(self._metric(), X, weights, throw=False, **settings)
        self._warn(found.result)
        self.mean_ = np.asarray(found.point, X.dtype)
        self.variance_ = float(found.variance)
        self.n_iter_ = int(found.steps)
        self._n_features_out = X.shape[1]
        return self

    def transform(self, X):
        """Coordinates ``(n, d)`` of the rows of ``X`` in the tangent space."""
        vectors, dtype = self._to_tangent(X)
        return np.asarray(_scaled(self._metric(), jnp.asarray(self.mean_, vectors.dtype), vectors, False), dtype)

    def inverse_transform(self, X):
        """The points that have these coordinates; not finite, with a warning, where there are none."""
        check_is_fitted(self)
        return self._from_tangent(X, lambda mean, z: _scaled(self._metric(), mean, z, True), len(self.mean_))


class TangentPCA(ClassNamePrefixFeaturesOutMixin, TransformerMixin, _MetricEstimator):
    """`scoregeo.statistics.tangent_pca`.

    **Parameters** ``metric``, ``n_components`` (default all), ``solver``, ``start``: as of `tangent_pca`.

    After ``fit``: ``mean_`` ``(d,)``, ``components_`` ``(k, d)`` (tangent vectors, orthonormal in the metric at the
    mean), ``explained_variance_``, ``explained_variance_ratio_`` ``(k,)``, ``n_components_``. ``transform`` gives the
    coordinates of ``log_mean(x)`` along the components, and ``inverse_transform`` the points that have them.
    """

    def __init__(self, metric=None, n_components=None, *, solver=None, start=None):
        self.metric = metric
        self.n_components = n_components
        self.solver = solver
        self.start = start

    def fit(self, X, y=None, sample_weight=None):
        """The mean of the rows of ``X`` ``(n, d)`` and the principal directions there."""
        X = self._read(X, reset=True, least=2)
        weights = self._weights(X, sample_weight)
        k = check_components(self.n_components, *X.shape, name="n_components")
        settings = {"weights": weights, "solver": self.solver, "start": self.start}
        found = statistics.tangent_pca(self._metric(), X, k, throw=False, **settings)
        self._warn(found.result)
        self.mean_ = np.asarray(found.mean, X.dtype)
        self.components_ = np.asarray(found.axes, X.dtype)
        self.explained_variance_ = np.asarray(found.explained_variance, X.dtype)
        self.explained_variance_ratio_ = np.asarray(found.explained_variance_ratio, X.dtype)
        self.n_components_ = len(self.components_)
        self._n_features_out = self.n_components_
        return self

    def transform(self, X):
        """Coordinates ``(n, k)`` of the rows of ``X`` along the components."""
        vectors, dtype = self._to_tangent(X)
        axes, mean = (jnp.asarray(values, vectors.dtype) for values in (self.components_, self.mean_))
        return np.asarray(_along(self._metric(), mean, axes, vectors), dtype)

    def inverse_transform(self, X):
        """The points that have these coordinates; not finite, with a warning, where there are none."""
        check_is_fitted(self)
        return self._from_tangent(X, lambda mean, z: z @ jnp.asarray(self.components_, z.dtype), self.n_components_)


@eqx.filter_jit
@with_own_settings
def _along(metric: AbstractMetric, mean: Point, axes: Float[Array, "k d"], vectors: Points) -> Float[Array, "n k"]:
    """Inner products of tangent vectors with axes."""
    return vectors @ jax.vmap(metric.at(mean).mv)(axes).T


class GeodesicKMeans(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, _MetricEstimator):
    """`scoregeo.statistics.kmeans`.

    **Parameters** ``metric``, ``n_clusters``, ``n_init`` (its ``restarts``), ``solver``, ``start``, ``gtol``,
    ``max_iter`` (its ``max_steps``); ``random_state``, as everywhere in scikit-learn.

    After ``fit``: ``cluster_centers_`` ``(k, d)``, ``labels_`` ``(n,)``, ``inertia_`` (the weighted sum of squared
    distances), ``n_iter_``. ``predict`` gives the nearest center, ``transform`` the distances to all of them. Distances
    that cannot be solved are infinite, with a ``ConvergenceWarning``; rows that reach no center are a ``RuntimeError``.
    """

    def __init__(
        self,
        metric=None,
        n_clusters=8,
        *,
        n_init=1,
        solver=None,
        start=None,
        gtol=None,
        max_iter=100,
        random_state=None,
    ):
        self.metric = metric
        self.n_clusters = n_clusters
        self.n_init = n_init
        self.solver = solver
        self.start = start
        self.gtol = gtol
        self.max_iter = max_iter
        self.random_state = random_state

    def fit(self, X, y=None, sample_weight=None):
        """The clusters of the rows of ``X`` ``(n, d)``."""
        X = self._read(X, reset=True)
        if len(X) < self.n_clusters:
            raise ValueError(f"n_samples={len(X)} should be >= n_clusters={self.n_clusters}")
        weights = self._weights(X, sample_weight)
        key = jax.random.key(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        found = statistics.kmeans(
            self._metric(),
            X,
            self.n_clusters,
            key,
            weights=weights,
            restarts=self.n_init,
            solver=self.solver,
            start=self.start,
            gtol=self.gtol,
            max_steps=self.max_iter,
            throw=False,
        )
        self._warn(found.result)
        self.cluster_centers_ = np.asarray(found.centers, X.dtype)
        self.labels_ = np.asarray(found.labels)
        self.inertia_ = float(found.distortion) * (len(X) if weights is None else float(weights.sum()))
        self.n_iter_ = int(found.steps)
        self._n_features_out = self.n_clusters
        return self

    def transform(self, X):
        """Distances ``(n, k)`` from the rows of ``X`` to the centers, infinite where no geodesic was found."""
        check_is_fitted(self)
        X = self._read(X)
        return self._distances(X).astype(X.dtype)

    def predict(self, X):
        """The nearest center of every row of ``X``."""
        check_is_fitted(self)
        return self._distances(self._read(X)).argmin(1).astype(self.labels_.dtype)

    def score(self, X, y=None, sample_weight=None):
        """Minus the weighted sum of squared distances to the nearest centers."""
        check_is_fitted(self)
        X = self._read(X)
        weights = self._weights(X, sample_weight)
        squares = self._distances(X).min(1) ** 2
        return -float(np.sum(squares if weights is None else weights * squares))

    def _distances(self, X: Any) -> Float[np.ndarray, "n k"]:
        settings = {"solver": self.solver, "init": self.start}
        centers = cast(Any, self.cluster_centers_.astype(X.dtype))
        lengths, results = pairwise_dist(self._metric(), X, centers, **settings)
        known = (results == RESULTS.successful) | (results == RESULTS.accuracy_not_reached)
        failed = np.asarray(~known | ~jnp.isfinite(lengths))
        advice = "give a `solver` or `start` that suits the metric"
        lost = np.flatnonzero(failed.all(1))
        if lost.size:
            names: Any = status_name(results)
            first = ", ".join(f"{row} {names[row, 0]}" for row in lost[:_NAMED])
            raise RuntimeError(
                f"the distances of {len(lost)} of {len(X)} rows could not be solved to any center, the first {first}: "
                f"{advice}, or leave these rows out"
            )
        if failed.any():
            message = f"{failed.sum()} of {failed.size} distances to centers could not be solved and count as infinite"
            warn(f"{type(self).__name__}: {message}: {advice}", ConvergenceWarning)
        return np.where(failed, np.inf, np.asarray(lengths))
