"""Estimators for scikit-learn: its own checks of them, and agreement with the library's functions."""

import warnings
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

import scoregeo as sg
from scoregeo import statistics
from scoregeo.adapters import sklearn as adapter
from scoregeo.adapters.sklearn import FrechetMean, GeodesicKMeans, TangentPCA, geodesic_distances
from scoregeo.fisher_rao import FisherRaoMetric, Normal
from scoregeo.geodesics.base import AbstractBoundarySolver
from scoregeo.geodesics.certificate import Measurement
from scoregeo.geodesics.curves import Polyline
from scoregeo.statistics import frechet_mean, kmeans, tangent_pca

NORMALS = FisherRaoMetric(Normal())
XS = np.exp(np.random.default_rng(0).normal(size=(12, 2)))
BAD = sg.MatrixMetric(lambda x: jnp.where(x[0] > 2, jnp.nan, 1.0) * jnp.eye(2))


class Straight(AbstractBoundarySolver):
    """The geodesics of Euclid, which are quick to compile."""

    uses_init: ClassVar[bool] = False
    reach: float = np.inf  # beyond it a solve fails, with an energy that is too small

    def solve(self, metric, x, y, init, ts):
        measure = lambda *_: Measurement(jnp.zeros((), x.dtype))  # noqa: E731
        lost = jnp.sum((y - x) ** 2) > self.reach**2
        energy = jnp.where(lost, 1e-6, 1) * jnp.sum((y - x) ** 2) / 2
        curve, failures = Polyline(jnp.stack([x, y])), [(lost, sg.RESULTS.stalled)]
        return sg.Geodesic.from_curve(curve, ts, measure, ends=(x, y), energy=energy, stats={}, causes=failures)


@pytest.mark.slow
def test_means_of_normals():
    estimator = FrechetMean(NORMALS).fit(XS)
    expected = frechet_mean(NORMALS, XS)
    np.testing.assert_allclose(estimator.mean_, expected.point, rtol=1e-12)
    np.testing.assert_allclose(estimator.variance_, expected.variance, rtol=1e-12)
    coordinates = estimator.transform(XS)
    np.testing.assert_allclose(np.linalg.norm(coordinates, axis=1), expected.distances, rtol=1e-8)
    np.testing.assert_allclose(estimator.inverse_transform(coordinates), XS, rtol=1e-6)
    again = clone(estimator)
    assert not hasattr(again, "mean_")
    assert again.get_params()["max_iter"] == 100
    assert estimator.get_feature_names_out().tolist() == ["frechetmean0", "frechetmean1"]


@pytest.mark.slow
def test_directions_of_normals():
    estimator = TangentPCA(NORMALS, 1)
    coordinates = estimator.fit_transform(XS)
    expected = tangent_pca(NORMALS, XS, 1)
    np.testing.assert_allclose(coordinates, jax.vmap(expected.transform)(XS), rtol=1e-8)
    np.testing.assert_allclose(estimator.explained_variance_, np.mean(coordinates**2, 0), rtol=1e-8)
    ends = np.array([[-1.0], [0.5]])
    np.testing.assert_allclose(estimator.inverse_transform(ends), jax.vmap(expected.inverse_transform)(ends), rtol=1e-8)


@pytest.mark.slow
def test_clusters_of_normals_in_a_pipeline():
    estimator = GeodesicKMeans(NORMALS, 2, random_state=3, n_init=2)
    labels = make_pipeline(estimator).fit(XS).predict(XS)
    np.testing.assert_array_equal(labels, estimator.labels_)
    key = jax.random.key(np.random.RandomState(3).randint(np.iinfo(np.int32).max))
    np.testing.assert_array_equal(labels, kmeans(NORMALS, XS, 2, key, restarts=2).labels)
    np.testing.assert_allclose(estimator.score(XS), -estimator.inertia_, rtol=1e-6)
    np.testing.assert_array_equal(estimator.transform(XS).argmin(1), labels)


@pytest.mark.slow
def test_neighbours_by_a_matrix():
    labels = XS[:, 1] > 1
    matrix = geodesic_distances(NORMALS, XS)
    np.testing.assert_allclose(matrix[2, 5], sg.dist(NORMALS, XS[2], XS[5]), rtol=1e-9)
    classifier = KNeighborsClassifier(1, metric="precomputed").fit(matrix, labels)
    queries = XS * [1.0, 1.01]
    np.testing.assert_array_equal(classifier.predict(geodesic_distances(NORMALS, queries, XS)), labels)


@pytest.mark.slow
def test_failed_solves():
    points, solver = np.array([[0.0, 1.0], [1.0, 0.0], [3.0, 0.0]]), sg.SpectralNewton(max_elements=1, continuation=0)
    with pytest.raises(RuntimeError, match=r"4 of 9 distances .* \(0, 2\) metric_nonfinite"):
        geodesic_distances(BAD, points, solver=solver)
    filled = geodesic_distances(BAD, points, solver=solver, fill=100.0)
    assert filled[0, 2] == filled[2, 1] == 100
    np.testing.assert_allclose(filled[0, 1], 2**0.5, rtol=1e-6)
    estimator = FrechetMean(BAD, solver=solver).fit(points, sample_weight=[1.0, 1.0, 0.0])
    with pytest.raises(RuntimeError, match="1 of 3 rows could not be solved, the first 2 metric_nonfinite"):
        estimator.transform(points)
    with pytest.warns(ConvergenceWarning, match="FrechetMean: The metric returned NaN"):
        estimator.fit(points, sample_weight=[1.0, 1.0, 1.0])


def test_single_precision_is_kept():
    estimator = FrechetMean(solver=Straight()).fit(XS.astype(np.float32))
    assert estimator.mean_.dtype == estimator.transform(XS.astype(np.float32)).dtype == np.float32
    np.testing.assert_allclose(estimator.mean_, XS.mean(0), rtol=1e-6)


def test_more_components_than_directions():
    with pytest.raises(ValueError, match="`n_components` must be at most 2 for 6 points in 2 dimensions, got 5"):
        TangentPCA(n_components=5).fit(np.random.default_rng(0).normal(size=(6, 2)))


def test_coordinates_of_any_type():
    """Whole numbers are not cut off, widths are checked, and ends that are not finite are said."""
    mean, pca = FrechetMean(), TangentPCA()
    mean.mean_, mean.n_features_in_ = np.array([0.25, 0.5]), 2
    pca.mean_, pca.components_, pca.n_components_ = mean.mean_, np.array([[1.0, 0.0]]), 1
    found = mean.inverse_transform([[1, 2]])
    np.testing.assert_allclose(found, [[1.25, 2.5]])
    assert found.dtype == np.float64
    np.testing.assert_allclose(pca.inverse_transform(np.array([[3]])), [[3.25, 0.5]])
    assert pca.inverse_transform(np.array([[3]], np.float32)).dtype == np.float32
    with pytest.raises(ValueError, match=r"X has 2 coordinates, but TangentPCA.inverse_transform is expecting 1"):
        pca.inverse_transform([[1.0, 2.0]])
    with pytest.raises(ValueError, match="contains NaN"):
        mean.inverse_transform([[np.nan, 2.0]])
    mean.mean_ = np.array([np.inf, 0.0])
    with pytest.warns(ConvergenceWarning, match=r"1 of 1 rows could not be followed .* the first 0"):
        mean.inverse_transform([[1.0, 2.0]])


def test_failed_distances_to_centers():
    """They are infinite and counted; a row that reaches no center is an error."""
    estimator = GeodesicKMeans(n_clusters=2, solver=Straight(reach=5.0))
    estimator.n_features_in_, estimator.labels_ = 1, np.zeros(2, np.int32)
    estimator.cluster_centers_ = np.array([[0.0], [10.0]])
    xs = np.array([[1.0], [5.0], [8.0]])
    with pytest.warns(ConvergenceWarning, match="2 of 6 distances to centers could not be solved"):
        np.testing.assert_allclose(estimator.transform(xs), [[1, np.inf], [5, 5], [np.inf, 2]])
    with pytest.warns(ConvergenceWarning, match="2 of 6"):
        np.testing.assert_array_equal(estimator.predict(xs), [0, 0, 1])
    with pytest.raises(RuntimeError, match="1 of 3 rows could not be solved to any center, the first 2 stalled"):
        estimator.predict([[1.0], [5.0], [28.0]])


# Seeds are drawn from the points, so that repeating a point is not the same as its weight, as for scikit-learn's own.
EXPECTED = {
    TangentPCA: {
        "check_sample_weight_equivalence_on_dense_data": "by default as many components as rows, less one, allow",
    },
    GeodesicKMeans: {
        "check_sample_weight_equivalence_on_dense_data": "seeds depend on how often a point is repeated",
    },
}


def grown(values, *shape):
    """With zeros behind."""
    values = np.asarray(values)
    return np.pad(values, [(0, size - own) for own, size in zip(values.shape, shape, strict=True)])


@pytest.fixture
def one_shape(monkeypatch):
    """Samples of dozens of shapes are computed within one of 160 x 32, of which the rest has no weight: what is
    compiled for each of them takes ten times as long as the checks."""
    wide, functions = (160, 32), {}

    def replace(module, name):
        def wrap(function):
            functions[name] = getattr(module, name)
            monkeypatch.setattr(module, name, function)

        return wrap

    def sample(X, weights):
        return grown(X, *wide), grown(np.ones(len(X)) if weights is None else weights, wide[0])

    @replace(statistics, "kmeans")
    def _(metric, X, k, key, *, weights, **settings):
        xs, weights = sample(X, weights)
        found = functions["kmeans"](metric, xs, k, key, weights=weights, **settings)
        inside = (found.centers[:, : X.shape[1]], found.labels[: len(X)])
        return eqx.tree_at(lambda found: (found.centers, found.labels), found, inside)

    @replace(statistics, "frechet_mean")
    def _(metric, X, weights, **settings):
        found = functions["frechet_mean"](metric, *sample(X, weights), **settings)
        return eqx.tree_at(lambda found: found.point, found, found.point[: X.shape[1]])

    @replace(statistics, "tangent_pca")
    def _(metric, X, k, *, weights, **settings):
        xs, weights = sample(X, weights)
        found = functions["tangent_pca"](metric, xs, wide[1], weights=weights, **settings)
        fields = lambda f: (f.mean, f.axes, f.explained_variance, f.explained_variance_ratio)  # noqa: E731
        d, ratio = X.shape[1], found.explained_variance_ratio[:k]
        return eqx.tree_at(fields, found, (found.mean[:d], found.axes[:k, :d], found.explained_variance[:k], ratio))

    @replace(adapter, "pairwise_dist")
    def _(metric, X, Y, **settings):
        found = functions["pairwise_dist"](metric, grown(X, *wide), grown(Y, 8, wide[1]), **settings)
        return jax.tree.map(lambda matrix: matrix[: len(X), : len(Y)], found)

    @replace(adapter, "_logs")
    def _(metric, solver, start, mean, xs):
        vectors, results = functions["_logs"](metric, solver, start, grown(mean, wide[1]), grown(xs, *wide))
        return vectors[: len(xs), : xs.shape[1]], jax.tree.map(lambda codes: codes[: len(xs)], results)

    @replace(adapter, "_scaled")
    def _(metric, mean, vectors, inverse):
        scaled = functions["_scaled"](metric, grown(mean, wide[1]), grown(vectors, *wide), inverse)
        return scaled[: len(vectors), : vectors.shape[1]]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [FrechetMean, TangentPCA, GeodesicKMeans])
def test_scikit_learns_checks(kind, one_shape):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done = check_estimator(kind(solver=Straight()), expected_failed_checks=EXPECTED.get(kind, {}), on_fail=None)
    failed = {check["check_name"]: repr(check["exception"])[:300] for check in done if check["status"] == "failed"}
    assert not failed, failed
    assert sum(check["status"] == "passed" for check in done) > 40
