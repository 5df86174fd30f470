"""Frechet medians: against closed forms in one dimension, SciPy, and the condition of a kink at a data point."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from scoregeo import RESULTS
from scoregeo.fisher_rao import Exponential, FisherRaoMetric, Normal
from scoregeo.statistics import frechet_mean, frechet_median

NORMALS = FisherRaoMetric(Normal())


def normals(seed, n=9):
    rng = np.random.default_rng(seed)
    return jnp.stack([rng.normal(size=n), np.exp(rng.normal(size=n))], -1)


@pytest.fixture(scope="module")
def median():
    return jax.jit(lambda xs, weights: frechet_median(NORMALS, xs, weights, throw=False))


def normal_dist(a, b):
    squared = (a[0] - b[0]) ** 2 / 2 + (a[1] - b[1]) ** 2
    return 2 * 2**0.5 * np.arcsinh(np.sqrt(squared / (4 * a[1] * b[1])))


@pytest.mark.slow
def test_median_of_normals(median):
    xs, weights = normals(0), np.linspace(1, 2, 9)
    found = median(xs, weights)
    assert found.result == RESULTS.successful

    def loss(m):
        return weights @ [normal_dist((m[0], np.exp(m[1])), x) for x in np.asarray(xs)]

    start = [found.point[0] + 0.1, np.log(found.point[1]) - 0.1]
    best = minimize(loss, start, method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-13}).x
    np.testing.assert_allclose(found.point, [best[0], np.exp(best[1])], atol=1e-6)
    np.testing.assert_allclose(found.distances, [normal_dist(found.point, x) for x in xs], rtol=1e-9)


def test_a_median_that_is_a_data_point_is_that_point(median):
    xs = normals(1)
    # A weight of more than half holds it.
    found = median(xs, jnp.ones(9).at[3].set(9.0))
    np.testing.assert_array_equal(found.point, xs[3])
    assert found.result == RESULTS.successful
    assert found.gradient_norm == 0
    # Less does not, though the point is tried: the forces of the others say so.
    found = median(xs, jnp.ones(9).at[3].set(0.5))
    away = found.distances > 0
    forces = jnp.where(away[:, None], found.logs / jnp.where(away, found.distances, 1)[:, None], 0)
    weights = jnp.ones(9).at[3].set(0.5) / 8.5
    pull = NORMALS.norm(found.point, weights @ forces)
    assert pull <= jnp.sum(jnp.where(away, 0, weights)) + 1e-9


def test_equal_points(median):
    x = jnp.array([0.3, 0.7])
    found = median(jnp.stack([x] * 9), jnp.ones(9))
    np.testing.assert_array_equal(found.point, x)
    assert found.result == RESULTS.successful


@pytest.mark.slow
def test_outliers_move_the_mean_but_not_the_median():
    metric = FisherRaoMetric(Exponential())
    rates = jnp.array([[1.0], [1.1], [1.2], [1.3], [1e6]])
    found = frechet_median(metric, rates)
    np.testing.assert_array_equal(found.point, [1.2])
    np.testing.assert_allclose(frechet_mean(metric, rates).point, [np.exp(np.mean(np.log(rates)))], rtol=1e-9)


@pytest.mark.slow
def test_implicit_derivatives():
    xs, weights = normals(0), jnp.linspace(1, 2, 9)
    step = jax.random.normal(jax.random.key(0), xs.shape)
    median = jax.jit(lambda xs: frechet_median(NORMALS, xs, weights).point)
    numeric = (median(xs + 1e-5 * step) - median(xs - 1e-5 * step)) / 2e-5
    np.testing.assert_allclose(jax.jvp(median, (xs,), (step,))[1], numeric, atol=1e-8)
    covector = jnp.array([0.3, -1.0])
    gradient = jax.grad(lambda xs: median(xs) @ covector)(xs)
    np.testing.assert_allclose(jnp.sum(gradient * step), numeric @ covector, atol=1e-8)
    # One that is a data point moves with it.
    held = jnp.ones(9).at[3].set(9.0)
    moved = jax.jvp(lambda xs: frechet_median(NORMALS, xs, held).point, (xs,), (step,))[1]
    np.testing.assert_array_equal(moved, step[3])
