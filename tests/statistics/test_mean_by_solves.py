"""Frechet means where no geodesic is known in closed form: scores with curl, many dimensions, model spaces."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import network_score, tanh_metric, three_modes

import scoregeo as sg
from scoregeo import RESULTS, SteinMetric, models
from scoregeo.statistics import frechet_mean, kmeans

pytestmark = pytest.mark.slow

W = jnp.array([[0.5, 1.2], [-0.9, 0.4]])  # not symmetric: a field with curl
# One element: a mean of what it solves is as much a test, and compiles in a fraction of the time.
QUICK = sg.SpectralNewton(max_elements=1, continuation=0, rtol=1e-3, path_rtol=0.1, tolerance=1e-10)
CURLED = sg.SpectralNewton(degree=12, max_elements=1, continuation=0, rtol=1e-4, path_rtol=0.1, tolerance=1e-10)


@eqx.filter_jit
def mean(metric, xs, weights=None, init=None, solver=None):
    return frechet_mean(metric, xs, weights, init=init, solver=solver, throw=False)


def exact_mean(closed_dist, xs, m):
    """Newton's method on a closed distance."""

    def loss(m):
        return jnp.mean(jax.vmap(lambda x: closed_dist(m, x) ** 2)(xs)) / 2

    for _ in range(6):
        m = m - jnp.linalg.solve(jax.hessian(loss)(m), jax.grad(loss)(m))
    return m


@pytest.mark.parametrize("dim", [1, 3])
def test_sphere(dim):
    metric, xs = models.Sphere(), jnp.asarray(np.random.default_rng(0).normal(size=(12, dim)) * 0.3)
    found = mean(metric, xs)
    assert found.result == RESULTS.successful
    assert found.gradient_norm <= 1e-10
    np.testing.assert_allclose(found.point, exact_mean(metric.closed_dist, xs, found.point), atol=1e-8)


def test_half_space():
    rng = np.random.default_rng(0)
    metric = models.HyperbolicHalfSpace()
    xs = jnp.asarray(np.stack([*rng.normal(size=(2, 12)), np.exp(rng.normal(size=12))], -1))
    found = mean(metric, xs)
    assert found.result == RESULTS.successful
    np.testing.assert_allclose(found.point, exact_mean(metric.closed_dist, xs, found.point), atol=1e-8)
    # Scaling about the origin and translations of the boundary are isometries.
    move = lambda x: 3 * x + jnp.array([1.0, -2.0, 0.0])  # noqa: E731
    np.testing.assert_allclose(mean(metric, move(xs)).point, move(found.point), atol=1e-7)


def test_a_score_with_curl_and_its_derivatives():
    """Points, weights, strength and the weights of the field, against central differences."""
    rng = np.random.default_rng(1)
    xs, weights = jnp.asarray(rng.normal(size=(6, 2))), jnp.linspace(0.5, 1.5, 6)

    @jax.jit
    def point(xs, weights, strength, w):
        return frechet_mean(tanh_metric(strength, w), xs, weights, solver=QUICK).point

    arguments = (xs, weights, jnp.asarray(2.0), W)
    assert jnp.isfinite(point(*arguments)).all()
    covector = jnp.array([0.7, -0.4])
    gradients = jax.jit(jax.grad(lambda *a: point(*a) @ covector, (0, 1, 2, 3)))(*arguments)
    for i, gradient in enumerate(gradients):
        step = jnp.asarray(rng.normal(size=arguments[i].shape))

        def moved(h, i=i, step=step):
            return point(*arguments[:i], arguments[i] + h * step, *arguments[i + 1 :]) @ covector

        numeric = (moved(1e-4) - moved(-1e-4)) / 2e-4
        np.testing.assert_allclose(jnp.sum(gradient * step), numeric, atol=1e-6)
    tangents = (jnp.asarray(rng.normal(size=(6, 2))), jnp.zeros(6), jnp.zeros(()), jnp.zeros((2, 2)))
    _, forward = jax.jvp(point, arguments, tangents)
    np.testing.assert_allclose(forward @ covector, jnp.sum(gradients[0] * tangents[0]), atol=1e-9)


def test_the_mean_of_a_mixture_is_stationary_for_the_public_logarithm():
    metric = three_modes()
    xs = jnp.asarray(np.random.default_rng(0).normal(size=(10, 2)))
    found = mean(metric, xs)
    assert found.result == RESULTS.successful
    logs = jax.jit(jax.vmap(lambda x: sg.log(metric, found.point, x)))(xs)
    assert metric.norm(found.point, logs.mean(0)) < 1e-6
    # No point nearby is better.
    for step in 0.05 * np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]):
        squares = jax.vmap(lambda x, step=step: sg.squared_dist(metric, found.point + step, x, throw=False))(xs)
        assert jnp.mean(squares) > found.variance


@pytest.mark.parametrize("dim", [1, 20, 200])
def test_dimensions(dim):
    metric = SteinMetric(network_score(0, dim), 1.0)
    xs = jnp.asarray(np.random.default_rng(0).normal(size=(5, dim)))
    found = mean(metric, xs, solver=QUICK)
    assert found.result == RESULTS.successful
    assert found.gradient_norm <= 1e-9 * jnp.sqrt(found.variance)


def test_single_precision_of_a_learned_score():
    xs = np.random.default_rng(0).normal(size=(5, 3))
    double = mean(SteinMetric(network_score(0, 3), 1.0), jnp.asarray(xs))
    metric = jax.tree.map(lambda a: a.astype(jnp.float32), SteinMetric(network_score(0, 3), 1.0))
    single = mean(metric, jnp.asarray(xs, jnp.float32))
    assert single.point.dtype == jnp.float32
    assert single.result == RESULTS.successful
    np.testing.assert_allclose(single.point, double.point, atol=2e-3)


def test_clusters_of_a_score_with_curl_in_twenty_dimensions():
    """Logarithms whose geodesics, integrated, lead to the points, sum to nothing at each center."""
    rng = np.random.default_rng(0)
    middles = np.stack([np.full(20, -1.0), np.full(20, 1.0)])
    labels = np.array([0, 1] * 4)
    xs = jnp.asarray(middles[labels] + 0.4 * rng.normal(size=(8, 20)))
    metric = SteinMetric(network_score(3, 20), 1.0)
    assert not metric.score.conservative
    found = kmeans(metric, xs, 2, jax.random.key(0), solver=CURLED, gtol=1e-7)
    assert found.result == RESULTS.successful
    assert len(set(zip(found.labels.tolist(), labels.tolist(), strict=True))) == 2

    @jax.jit
    def logarithms(m, points):
        logs = jax.vmap(lambda x: sg.log(metric, m, x, solver=CURLED, throw=False))(points)
        return logs, jax.vmap(lambda v: sg.exp(metric, m, v, throw=False))(logs)

    for c, center in enumerate(found.centers):
        mine = xs[found.labels == c]
        logs, ends = logarithms(center, mine)
        np.testing.assert_allclose(ends, mine, atol=2e-3)
        assert metric.norm(center, jnp.mean(logs, 0)) < 1e-3 * np.sqrt(found.distortion)
        straight = np.asarray(mine - center)
        assert np.linalg.norm(logs - straight) > 0.02 * np.linalg.norm(straight)  # the metric matters
