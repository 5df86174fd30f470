"""Principal directions: whitened by the metric, against geomstats on normals; principal geodesics lower residuals."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from scoregeo import RESULTS, EuclideanMetric, MatrixMetric
from scoregeo.fisher_rao import FisherRaoMetric, Normal
from scoregeo.metrics import DiagonalInnerProduct, IdentityPlusRankOne
from scoregeo.statistics import frechet_mean, principal_geodesics, tangent_pca
from scoregeo.statistics.pca import _by_gram, _by_whitening, _signs

NORMAL = Normal()
NORMALS = FisherRaoMetric(NORMAL)


def normals(seed=0, n=12, spread=1.0):
    rng = np.random.default_rng(seed)
    return jnp.stack([spread * rng.normal(size=n), np.exp(spread * rng.normal(size=n))], -1)


@pytest.fixture(scope="module")
def components():
    return jax.jit(lambda xs: tangent_pca(NORMALS, xs, throw=False))


@pytest.mark.slow
def test_axes_are_orthonormal_and_coordinates_have_their_variances(components):
    xs = normals()
    found = components(xs)
    assert found.result == RESULTS.successful
    product = NORMALS.at(found.mean)
    gram = found.axes @ jax.vmap(product.mv)(found.axes).T
    np.testing.assert_allclose(gram, np.eye(2), atol=1e-12)
    coordinates = jax.vmap(found.transform)(xs)
    np.testing.assert_allclose(np.cov(coordinates.T, bias=True), np.diag(found.explained_variance), atol=1e-10)
    np.testing.assert_allclose(found.explained_variance_ratio.sum(), 1, rtol=1e-12)
    np.testing.assert_allclose(jnp.sum(found.explained_variance), frechet_mean(NORMALS, xs).variance, rtol=1e-9)
    assert (jnp.max(found.axes, 1) == jnp.max(jnp.abs(found.axes), 1)).all()


@pytest.mark.slow
def test_inverse_transform(components):
    found = components(normals())
    coordinates = jnp.array([0.4, -0.7])
    x = found.inverse_transform(coordinates)
    np.testing.assert_allclose(x, NORMAL.exp(found.mean, coordinates @ found.axes), rtol=1e-8)
    np.testing.assert_allclose(found.transform(x), coordinates, atol=1e-8)


@pytest.mark.parametrize("method", [_by_gram, _by_whitening])
def test_the_order_of_axes_is_that_of_the_metric(method):
    """ds^2 = dx^2 + 1e4 dy^2: y varies a hundred times less in numbers, and ten times more in length."""
    rng = np.random.default_rng(0)
    rows = jnp.asarray(rng.normal(size=(40, 2)) * [1.0, 0.1])
    variances, axes = jax.jit(method, static_argnums=2)(DiagonalInnerProduct(jnp.array([1.0, 1e4])), rows, 2)
    values, vectors = np.linalg.eigh((rows * jnp.array([1, 100.0])).T @ (rows * jnp.array([1, 100.0])))
    np.testing.assert_allclose(variances, values[::-1], rtol=1e-10)
    expected = vectors.T[::-1] / [1, 100.0]
    np.testing.assert_allclose(axes * _signs(axes), expected * _signs(jnp.asarray(expected)), atol=1e-10)
    assert abs(axes[0, 1]) * 100 > 0.99


def test_both_ways_agree_beyond_the_dense_dimension():
    rng = np.random.default_rng(0)
    product = IdentityPlusRankOne(jnp.asarray(rng.normal(size=200)), jnp.asarray(3.0))
    rows = jnp.asarray(rng.normal(size=(10, 200)))
    one, other = (jax.jit(method, static_argnums=2)(product, rows, 9) for method in (_by_gram, _by_whitening))
    np.testing.assert_allclose(one[0], other[0], rtol=1e-10)
    np.testing.assert_allclose(one[1] * _signs(one[1]), other[1] * _signs(other[1]), atol=1e-10)


@pytest.mark.slow
def test_a_metric_that_is_not_euclidean_orders_axes():
    rng = np.random.default_rng(0)
    xs = jnp.asarray(rng.normal(size=(20, 2)) * [1.0, 0.1])
    metric = MatrixMetric(lambda x: jnp.diag(jnp.array([1.0, 1e4])))
    found = tangent_pca(metric, xs)
    np.testing.assert_allclose(found.mean, xs.mean(0), atol=1e-9)
    assert abs(found.axes[0, 1]) * 100 > 0.99
    assert found.explained_variance[0] > 50 * found.explained_variance[1]
    flat = tangent_pca(EuclideanMetric(), xs)
    assert abs(flat.axes[0, 0]) > 0.99


@pytest.mark.slow
def test_geomstats(components):
    import scoregeo.adapters.geomstats  # noqa: F401 (without it NumPy 2.4 cannot import geomstats 2.8.0)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from geomstats.information_geometry.normal import UnivariateNormalDistributions
        from geomstats.learning.frechet_mean import FrechetMean

    space, xs = UnivariateNormalDistributions(), normals(3)
    estimator = FrechetMean(space)
    estimator.set(epsilon=1e-26, max_iter=500)
    mean = estimator.fit(np.asarray(xs)).estimate_
    found = components(xs)
    np.testing.assert_allclose(found.mean, mean, atol=1e-8)
    # Their axes are those of the coordinates of logarithms; the variance in the metric is the same number for both.
    logs = space.metric.log(np.asarray(xs), mean)
    total = np.mean(space.metric.squared_norm(logs, mean))
    np.testing.assert_allclose(jnp.sum(found.explained_variance), total, rtol=1e-8)
    root = np.linalg.cholesky(space.metric.metric_matrix(mean))
    values = np.linalg.eigvalsh(np.cov((logs @ root).T, bias=True))
    np.testing.assert_allclose(found.explained_variance, values[::-1], rtol=1e-8)


@pytest.mark.slow
def test_principal_geodesics_of_normals():
    xs = normals(spread=1.5)
    tangent = tangent_pca(NORMALS, xs)
    found = principal_geodesics(NORMALS, xs, 2)
    assert jnp.all(found.result == RESULTS.successful)
    product = NORMALS.at(found.mean)
    gram = found.directions @ jax.vmap(product.mv)(found.directions).T
    np.testing.assert_allclose(gram, np.eye(2), atol=1e-9)

    def nearest(direction, x):
        at = jax.jit(lambda t: NORMAL.squared_dist(NORMAL.exp(found.mean, t * direction), x))
        return minimize_scalar(lambda t: float(at(t)), bracket=(-0.1, 0.1), tol=1e-9).fun

    def residual(direction):
        return np.mean([nearest(direction / product.norm(direction), x) for x in xs])

    np.testing.assert_allclose(found.residual_variance[0], residual(found.directions[0]), rtol=1e-7)
    assert found.residual_variance[0] < residual(tangent.axes[0]) - 1e-4
    for angle in (-1e-2, 1e-2):
        turned = np.cos(angle) * found.directions[0] + np.sin(angle) * found.directions[1]
        assert residual(turned) > found.residual_variance[0]


@pytest.mark.slow
def test_bad_input():
    xs = normals()
    with pytest.raises(ValueError, match="`k` must be at most 2 for 12 points in 2 dimensions, got 3"):
        tangent_pca(NORMALS, xs, 3)
    with pytest.raises(ValueError, match="`k` must be an integer of at least 1"):
        tangent_pca(NORMALS, xs, 0)
    with pytest.raises(ValueError, match="at least two points"):
        tangent_pca(NORMALS, xs[:1])
    with pytest.raises(ValueError, match=r"`mean` must have shape \(2,\)"):
        tangent_pca(NORMALS, xs, mean=jnp.zeros(3))
    with pytest.raises(ValueError, match="`gtol` must be a positive number"):
        principal_geodesics(NORMALS, xs, gtol=-1.0)
    with pytest.raises(ValueError, match=r"`coordinates` must have shape \(2,\)"):
        tangent_pca(NORMALS, xs).inverse_transform(jnp.zeros(3))
