"""geomstats' algorithms on metrics of this library, and its spaces as metrics here."""

import logging
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import poincare_ball

from scoregeo import RESULTS, SpectralNewton, SteinMetric, dist, exp, geodesic, models, shoot
from scoregeo.adapters import geomstats as adapter
from scoregeo.adapters.geomstats import from_geomstats, to_geomstats
from scoregeo.datasets import three_modes
from scoregeo.metrics import christoffels

pytestmark = pytest.mark.slow

SOLVER = SpectralNewton(rtol=1e-6, path_rtol=1e-4)
RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def stein():
    return SteinMetric(three_modes(jax.random.key(0), 4).score, 1.0)


@pytest.fixture(scope="module")
def space(stein):
    return to_geomstats(stein, 2, solver=SOLVER).space


def test_values_are_those_of_the_library(space, stein):
    metric = space.metric
    xs, ys, vs = RANDOM.normal(size=(3, 4, 2))
    vs *= 0.5
    np.testing.assert_allclose(metric.metric_matrix(xs)[1], stein.at(jnp.asarray(xs[1])).matrix(2), rtol=1e-12)
    np.testing.assert_allclose(metric.christoffels(xs)[2], christoffels(stein, jnp.asarray(xs[2])), rtol=1e-10)
    np.testing.assert_allclose(
        metric.inner_product(vs, ys, xs[0])[3], stein.inner(*map(jnp.asarray, (xs[0], vs[3], ys[3])))
    )
    # Solved paths against diffrax: the logarithm leads to the other point, and is as long as the distance.
    lengths = metric.dist(xs, ys)
    np.testing.assert_allclose(metric.squared_dist(xs, ys), lengths**2, rtol=1e-12)
    np.testing.assert_allclose(metric.exp(metric.log(ys, xs), xs), ys, atol=2e-3)
    np.testing.assert_allclose(metric.dist(ys, xs), lengths, rtol=1e-5)
    np.testing.assert_allclose(metric.norm(metric.log(ys, xs), xs), lengths, rtol=1e-3)
    np.testing.assert_allclose(metric.exp(vs, xs)[1], exp(stein, *map(jnp.asarray, (xs[1], vs[1]))), rtol=1e-8)


def test_shapes_broadcast_as_in_geomstats(space):
    """Every combination of one and many, against geomstats' own Euclidean metric for shapes."""
    from geomstats.geometry.euclidean import Euclidean

    flat, metric = Euclidean(2).metric, space.metric
    one, many = np.array([0.1, 0.2]), RANDOM.normal(size=(3, 2)) * 0.3
    for a in (one, many):
        for b in (one, many):
            assert metric.dist(a, b).shape == flat.dist(a, b).shape
            assert metric.log(a, b).shape == flat.log(a, b).shape
            assert metric.exp(a, b).shape == flat.exp(a, b).shape
            times = np.linspace(0, 1, 5)
            for settings in ({"end_point": b}, {"initial_tangent_vec": b}):
                path = metric.geodesic(a, **settings)(times)
                assert path.shape == flat.geodesic(a, **settings)(times).shape
                start = np.broadcast_to(a, np.broadcast_shapes(a.shape, b.shape))
                np.testing.assert_allclose(path[..., 0, :], start, atol=1e-12)
                if "end_point" in settings:
                    np.testing.assert_allclose(path[..., -1, :], np.broadcast_to(b, start.shape), atol=1e-12)
    assert metric.metric_matrix(one).shape == (2, 2)
    assert metric.dist(one, one) == 0
    result = metric.log(many, one)
    result -= 1.0  # geomstats writes into what it gets
    assert result.dtype == np.float64


def test_learning_on_a_stein_metric(space, caplog):
    """geomstats' Fréchet mean, tangent PCA and k-means, each with what defines its result."""
    from geomstats.learning.frechet_mean import FrechetMean
    from geomstats.learning.kmeans import RiemannianKMeans
    from geomstats.learning.pca import TangentPCA

    points = np.array([-1.5, 0.0]) + 0.3 * RANDOM.normal(size=(6, 2))
    with caplog.at_level(logging.WARNING):
        estimator = FrechetMean(space)
        estimator.set(epsilon=1e-10, max_iter=60)
        mean = estimator.fit(points).estimate_
        # The mean is where the logarithms cancel, and nearer than the Euclidean mean.
        np.testing.assert_allclose(space.metric.log(points, mean).mean(0), 0, atol=2e-4)
        spread = [np.mean(space.metric.squared_dist(centre, points)) for centre in (mean, points.mean(0))]
        assert spread[0] < spread[1]

        pca = TangentPCA(space, n_components=1)
        coordinates = pca.fit_transform(points, base_point=mean)
        logs = space.metric.log(points, mean)
        _, scales, axes = np.linalg.svd(logs - logs.mean(0))
        np.testing.assert_allclose(np.abs(coordinates[:, 0]), np.abs((logs - logs.mean(0)) @ axes[0]), atol=1e-3)
        np.testing.assert_allclose(pca.singular_values_[0], scales[0], rtol=1e-3)
        assert pca.inverse_transform(coordinates).shape == points.shape

        clusters = np.concatenate([points[:3], points[:4] + np.array([3.0, 0.0])])
        kmeans = RiemannianKMeans(space, n_clusters=2, init=clusters[[0, 3]].copy())
        labels = kmeans.fit(clusters).labels_
        np.testing.assert_array_equal(labels, [0] * 3 + [1] * 4)
        np.testing.assert_array_equal(kmeans.predict(clusters), labels)
    assert not [record for record in caplog.records if "may be inaccurate" in record.message]


def test_failures_are_raised(space):
    metric, far = space.metric, np.array([[0.1, 0.0], [1e200, 0.0]])
    with pytest.raises(RuntimeError, match=r"1 of 2 geodesics failed \(first number 1\): The metric returned NaN"):
        metric.dist(far, np.array([0.5, 1.0]))
    with pytest.raises(RuntimeError, match=r"1 of 2 geodesics failed"):
        metric.log(far, np.array([0.5, 1.0]))
    with pytest.raises(RuntimeError, match=r"1 of 2 integrations failed \(first number 1\)"):
        metric.exp(far, np.array([0.5, 1.0]))
    with pytest.raises(ValueError, match=r"must have at least one point, got shape \(0, 2\)"):
        metric.dist(np.zeros((0, 2)), np.zeros(2))
    with pytest.raises(ValueError, match="`base_point` must be given"):
        metric.norm(np.ones(2))
    with pytest.raises(ValueError, match=r"must have shape \(..., 2\), got \(3,\)"):
        metric.dist(np.zeros(3), np.zeros(3))
    with pytest.raises(ValueError, match=r"`t` must be in \[0, 1\]"):
        metric.geodesic(np.array([0.0, 1.0]), np.array([0.5, 1.0]))(1.5)
    with pytest.raises(TypeError, match="`metric` must be an AbstractMetric"):
        to_geomstats(3, 2)
    with pytest.raises(ValueError, match="`dim` must be an integer of at least 1, got 0"):
        to_geomstats(models.HyperbolicHalfSpace(), 0)


def test_many_batches(space, monkeypatch):
    """More points than are solved side by side: failures are counted over all of them; a path is solved once."""
    monkeypatch.setattr(adapter, "_NUMBERS_PER_BATCH", 3 * 2 * adapter._NUMBERS_PER_DIMENSION)
    xs = 0.3 * RANDOM.normal(size=(7, 2))
    lengths = space.metric.dist(xs, xs[0])
    np.testing.assert_allclose(lengths, [space.metric.dist(x, xs[0]) for x in xs], rtol=1e-9)
    path = space.metric.geodesic(xs, xs[0])
    monkeypatch.setattr(adapter, "_geodesics", None)
    np.testing.assert_allclose(
        path(np.array([0.0, 1.0])), np.stack([xs, np.broadcast_to(xs[0], xs.shape)], 1), atol=1e-12
    )
    assert path(0.5).shape == (7, 1, 2)
    monkeypatch.undo()
    monkeypatch.setattr(adapter, "_NUMBERS_PER_BATCH", 3 * 2 * adapter._NUMBERS_PER_DIMENSION)
    xs[[2, 5, 6], 0] = 1e200
    with pytest.raises(RuntimeError, match=r"3 of 7 geodesics failed \(first number 2\)"):
        space.metric.dist(xs, np.zeros(2))


def test_a_space_of_geomstats_in_a_chart():
    """The Poincaré ball: our solvers on geomstats' matrices give the closed forms, which are geomstats' own too."""
    from geomstats.geometry.poincare_ball import PoincareBall

    metric = from_geomstats(PoincareBall(2))
    xs, ys = 0.5 * RANDOM.uniform(-1, 1, size=(2, 3, 2))
    closed = poincare_ball(xs, ys)
    np.testing.assert_allclose(jax.jit(jax.vmap(metric.dist))(xs, ys), closed, rtol=1e-10)
    paths = jax.vmap(lambda x, y: geodesic(metric, x, y, solver=SOLVER, ts=(0.0, 1.0), throw=False))(xs, ys)
    assert bool((paths.result == RESULTS.successful).all())
    np.testing.assert_allclose(paths.length, closed, rtol=1e-6)
    np.testing.assert_allclose(paths.velocities[:, 0], jax.vmap(metric.log)(xs, ys), rtol=1e-3, atol=1e-4)
    shot = shoot(metric, jnp.asarray(xs[0]), metric.log(jnp.asarray(xs[0]), jnp.asarray(ys[0])))
    np.testing.assert_allclose(shot.points[-1], ys[0], atol=1e-8)
    np.testing.assert_allclose(metric.exp(jnp.asarray(xs[0]), shot.velocities[0]), ys[0], atol=1e-10)
    single = from_geomstats(PoincareBall(2)).dist(jnp.float32(xs[0]), jnp.float32(ys[0]))
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, closed[0], rtol=1e-5)


def test_matrices_from_inner_products():
    """Where geomstats has no metric matrix: the half-space, normal laws with independent components, rotations."""
    from geomstats.geometry.hypersphere import Hypersphere
    from geomstats.geometry.poincare_half_space import PoincareHalfSpace
    from geomstats.geometry.special_orthogonal import SpecialOrthogonal
    from geomstats.information_geometry.normal import DiagonalNormalDistributions

    np.random.seed(0)  # noqa: NPY002
    expected = np.random.normal()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    half_space = from_geomstats(PoincareHalfSpace(2))
    assert np.random.normal() == expected  # noqa: NPY002
    xs = jnp.array([[0.3, 2.0], [-0.7, 0.5]])
    np.testing.assert_allclose(jax.vmap(lambda x: half_space.at(x).matrix(2))(xs), [np.eye(2) / 4, 4 * np.eye(2)])
    np.testing.assert_allclose(dist(half_space, *xs, solver=SOLVER), half_space.dist(*xs), rtol=1e-6)
    normal = from_geomstats(DiagonalNormalDistributions(2))
    matrix = normal.at(jnp.array([0.0, 1.0, 1.0, 4.0])).matrix(4)  # at variances 1 and 4, but of changes of the sd
    np.testing.assert_allclose(matrix, np.diag([1, 1 / 4, 2, 1 / 2]), atol=1e-12)
    rotations = from_geomstats(SpecialOrthogonal(3, point_type="vector"))
    x, v = jnp.array([0.1, 0.2, 0.3]), jnp.array([1e-5, -2e-5, 1e-5])
    np.testing.assert_allclose(rotations.at(x).norm(v), rotations.dist(x - v / 2, x + v / 2), rtol=1e-6)

    with pytest.raises(ValueError, match=r"of Hypersphere geomstats cannot .* has shape \(3, 3\), not \(2, 2\)"):
        from_geomstats(Hypersphere(2, intrinsic=True))


def test_differences_replace_derivatives():
    """Christoffel symbols from differences, and second derivatives from differences of these, on gamma laws."""
    from geomstats.information_geometry.gamma import GammaDistributions

    space = GammaDistributions()
    metric, x = from_geomstats(space), jnp.array([1.3, 0.7])
    np.testing.assert_allclose(christoffels(metric, x), space.metric.christoffels(np.asarray(x)), atol=1e-9)
    polygamma = jax.scipy.special.polygamma

    def exact(x):
        return jnp.diag(jnp.stack([polygamma(1, x[0]) - 1 / x[0], x[0] / x[1] ** 2]))

    def matrix(x):
        return metric.at(x).matrix(2)

    np.testing.assert_allclose(matrix(x), exact(x), rtol=1e-10)
    np.testing.assert_allclose(jax.jacrev(matrix)(x), jax.jacfwd(exact)(x), atol=1e-9)
    np.testing.assert_allclose(jax.jacfwd(jax.jacrev(matrix))(x), jax.jacfwd(jax.jacfwd(exact))(x), atol=1e-6)


def test_a_space_of_geomstats_in_an_embedding():
    """The sphere of geomstats lives in R^3: distances agree with ours in its chart; as a tensor field it is refused."""
    from geomstats.geometry.hypersphere import Hypersphere
    from geomstats.geometry.spd_matrices import SPDMatrices

    metric, sphere = from_geomstats(Hypersphere(2)), models.Sphere()
    xs, ys = jnp.asarray(0.5 * RANDOM.normal(size=(2, 5, 2)))
    embedded = jax.vmap(sphere.embed)(xs), jax.vmap(sphere.embed)(ys)
    np.testing.assert_allclose(jax.vmap(metric.dist)(*embedded), jax.vmap(sphere.closed_dist)(xs, ys), rtol=1e-7)
    tangents = jax.vmap(metric.log)(*embedded)
    np.testing.assert_allclose(jax.vmap(metric.exp)(embedded[0], tangents), embedded[1], atol=1e-9)
    with pytest.raises(ValueError, match=r"points of Hypersphere have shape \(3,\) in dimension 2"):
        metric.at(embedded[0][0])
    with pytest.raises(ValueError, match=r"`space` must have points of shape \(d,\), got \(2, 2\)"):
        from_geomstats(SPDMatrices(2))
    with pytest.raises(ValueError, match="`space` must be equipped"):
        from_geomstats(Hypersphere(2, equip=False))
    with pytest.raises(ValueError, match="`step` must be a positive number"):
        from_geomstats(Hypersphere(2), step=0.0)


def test_import_on_demand_and_numpy_left_as_it_was():
    program = """
import sys, warnings
warnings.simplefilter("error")
import numpy as np
before = hasattr(np, "trapz")
import scoregeo, scoregeo.adapters
assert "geomstats" not in sys.modules
import scoregeo.adapters.geomstats
assert "geomstats" in sys.modules
assert hasattr(np, "trapz") == before
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_only_on_numpy(monkeypatch):
    monkeypatch.setenv("GEOMSTATS_BACKEND", "autograd")
    with pytest.raises(RuntimeError, match="GEOMSTATS_BACKEND is 'autograd'"):
        to_geomstats(models.Sphere(), 2)
