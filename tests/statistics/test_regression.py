"""Geodesic regression: points on a geodesic give it back; otherwise the residuals are the least there are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from scoregeo import RESULTS
from scoregeo.fisher_rao import FisherRaoMetric, Normal
from scoregeo.statistics import geodesic_regression

NORMAL = Normal()
NORMALS = FisherRaoMetric(NORMAL)
P, V = jnp.array([0.3, 0.8]), jnp.array([0.4, 0.2])
TS = jnp.asarray(np.random.default_rng(0).normal(size=9) + 1)


@pytest.fixture(scope="module")
def regression():
    """Called twice, it is compiled once."""
    return lambda ts, ys, weights=None: geodesic_regression(NORMALS, ts, ys, weights, throw=False)


def on_geodesic(ts):
    return jax.vmap(lambda t: NORMAL.exp(P, t * V))(ts)


def noisy():
    ys = on_geodesic(TS)
    return ys + 0.2 * np.random.default_rng(1).normal(size=ys.shape) * ys[:, 1:]


@pytest.mark.slow
def test_points_on_a_geodesic_give_it_back(regression):
    found = regression(TS, on_geodesic(TS))
    assert found.result == RESULTS.successful
    np.testing.assert_allclose(found.intercept, P, atol=1e-8)
    np.testing.assert_allclose(found.slope, V, atol=1e-8)
    np.testing.assert_allclose(found.r_squared, 1, atol=1e-10)
    np.testing.assert_allclose(found.predict(2.5), NORMAL.exp(P, 2.5 * V), atol=1e-8)


@pytest.mark.slow
def test_residuals_are_the_least(regression):
    ys, weights = noisy(), np.linspace(1, 2, 9)
    found = regression(TS, ys, weights)
    assert found.result == RESULTS.successful

    @jax.jit
    def loss(theta):
        p, v = jnp.array([theta[0], jnp.exp(theta[1])]), theta[2:]
        return weights @ jax.vmap(lambda t, y: NORMAL.squared_dist(NORMAL.exp(p, t * v), y))(TS, ys)

    theta = np.concatenate([found.intercept[:1], jnp.log(found.intercept[1:]), found.slope])
    best = minimize(loss, theta + 0.05, jac=jax.jit(jax.grad(loss)), tol=1e-12).x
    np.testing.assert_allclose(theta, best, atol=1e-6)
    np.testing.assert_allclose(weights @ found.residuals**2, loss(theta), rtol=1e-8)
    assert 0 < found.r_squared < 1


@pytest.mark.slow
def test_times_about_zero(regression):
    """The slope at the mean time itself, and next to it, agree."""
    ts = TS - TS.mean()
    ys = on_geodesic(TS)
    slopes = [regression(ts + offset, ys).slope for offset in (0.0, 1e-6, 1e-3)]
    np.testing.assert_allclose(slopes[0], slopes[1], atol=1e-5)
    np.testing.assert_allclose(slopes[0], slopes[2], atol=1e-2)


def test_bad_input():
    ys = on_geodesic(TS)
    with pytest.raises(ValueError, match=r"`ts` must have shape \(9,\)"):
        geodesic_regression(NORMALS, TS[:3], ys)
    with pytest.raises(ValueError, match="`ts` must have at least two different numbers"):
        geodesic_regression(NORMALS, jnp.ones(9), ys)
    with pytest.raises(ValueError, match="`ts` must be finite"):
        geodesic_regression(NORMALS, TS.at[0].set(jnp.nan), ys)
    with pytest.raises(ValueError, match=r"`ys` must have shape \(n, d\)"):
        geodesic_regression(NORMALS, TS, ys[0])
    with pytest.raises(ValueError, match="`mean` must be the FrechetMean"):
        geodesic_regression(NORMALS, TS, ys, mean=ys[0])


@pytest.mark.slow
def test_too_few_steps_are_reported():
    with pytest.raises(RuntimeError, match="did not converge"):
        geodesic_regression(NORMALS, TS, noisy(), max_steps=2)
