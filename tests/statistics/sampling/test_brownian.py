"""Brownian motion where its law is known: on spheres and in hyperbolic space."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from scoregeo import RESULTS, ConformalMetric, MatrixMetric, StackedSteinMetric, models
from scoregeo.statistics import brownian_motion

SPHERE, HALF_SPACE = models.Sphere(), models.HyperbolicHalfSpace()


def paths(metric, x, t, n, **settings):
    keys = jax.random.split(jax.random.key(1), n)
    return jax.jit(jax.vmap(lambda key: brownian_motion(metric, x, t, key, throw=False, **settings)))(keys)


@pytest.mark.slow
@pytest.mark.parametrize("d", [2, 3])
def test_cosine_on_the_sphere(d):
    """E[cos theta_t] = exp(-d t / 2): cos theta is an eigenfunction of the Laplacian. For d = 2 the drift is zero."""
    x, t, n = jnp.full(d, 0.3), 0.3, 40_000
    found = paths(SPHERE, x, t, n, steps=32)
    assert (found.result == RESULTS.successful).all()
    cosines = jax.vmap(lambda y: SPHERE.embed(y) @ SPHERE.embed(x))(found.end)
    error = np.std(cosines) / np.sqrt(n)
    # Without its drift, d = 3 is off by nine standard errors.
    assert abs(np.mean(cosines) - np.exp(-d * t / 2)) < 3 * error


@pytest.mark.slow
def test_height_in_hyperbolic_space():
    """log x[-1] is normal, exactly, with mean (1 - d) t / 2 and variance t."""
    x, t, n = jnp.array([0.5, 0.0, 2.0]), 0.3, 4000
    found = paths(HALF_SPACE, x, t, n, steps=64)
    z = (np.log(np.asarray(found.end[:, -1]) / 2.0) + t) / np.sqrt(t)
    assert stats.kstest(z, "norm").pvalue > 1e-3
    assert abs(np.mean(z)) < 3.5 / np.sqrt(n)
    assert abs(np.var(z) - 1) < 3.5 * np.sqrt(2 / n)


DISK = ConformalMetric(lambda x: 0.0 * x[0], domain=lambda x: 1 - x @ x)


def survival(t):
    """The probability that flat Brownian motion from the middle of the unit disk has not left it."""
    zeros = special.jn_zeros(0, 30)
    return np.sum(2 / (zeros * special.j1(zeros)) * np.exp(-(zeros**2) * t / 2))


@pytest.mark.slow
def test_exits_are_reported():
    """From the disk: flat Brownian motion, killed at the border."""
    n, steps = 1000, 64
    found = paths(DISK, jnp.zeros(2), 1.0, n, steps=steps, samples=4)
    left = np.asarray(found.result == RESULTS.outside_domain)
    # Looked at after each step only, the border is further out (Chernoff 1965; Siegmund).
    stays = survival(1 / (1 + 0.5826 * np.sqrt(1 / steps)) ** 2)
    assert abs(1 - left.mean() - stays) < 4 * np.sqrt(stays * (1 - stays) / n)
    assert (found.t_end[left] <= 1).all()
    assert (found.t_end[~left] == 1).all()
    assert jnp.isfinite(found.end).all()
    np.testing.assert_array_equal(jnp.isnan(found.points[:, :, 0]), found.ts[0] > found.t_end[:, None])
    np.testing.assert_array_equal(found.points[:, 0], 0)
    np.testing.assert_allclose(found.points[~left, -1], found.end[~left], atol=1e-12)


def test_outside_and_errors():
    key = jax.random.key(0)
    with pytest.raises(RuntimeError, match="leaves the domain"):
        brownian_motion(DISK, jnp.array([0.9, 0.0]), 4.0, key, steps=64, samples=4)
    outside = brownian_motion(DISK, jnp.array([2.0, 0.0]), 4.0, key, steps=64, samples=4, throw=False)
    assert outside.result == RESULTS.outside_domain
    assert outside.t_end == 0
    for settings, message in (
        ({"steps": 10, "samples": 3}, "`samples` must divide `steps` = 10"),
        ({"steps": 0}, "`steps` must be an integer of at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            brownian_motion(DISK, jnp.zeros(2), 1.0, key, **settings)
    with pytest.raises(ValueError, match="`t` must be positive"):
        brownian_motion(DISK, jnp.zeros(2), -1.0, key)
    with pytest.raises(ValueError, match="in 300 dimensions"):
        brownian_motion(StackedSteinMetric([lambda x: -x], [1.0]), jnp.zeros(300), 1.0, key)


@pytest.mark.slow
def test_what_is_not_finite_and_single_precision():
    spoilt = MatrixMetric(lambda x: jnp.where(x[0] > 0.5, jnp.nan, 1.0) * jnp.eye(2))
    found = paths(spoilt, jnp.zeros(2), 2.0, 20, steps=100)
    assert (found.result == RESULTS.metric_nonfinite).any()
    assert not (found.result == RESULTS.outside_domain).any()
    path = brownian_motion(DISK, jnp.zeros(2, jnp.float32), 0.01, jax.random.key(0), steps=8, samples=4)
    assert path.points.dtype == path.t_end.dtype == jnp.float32
    np.testing.assert_allclose(path.points[-1], path.end, atol=1e-6)
    # Inside a trace: NaN, where it left.
    kept = jax.vmap(lambda key: brownian_motion(DISK, jnp.zeros(2), 0.5, key, steps=20).end)(
        jax.random.split(jax.random.key(0), 50)
    )
    assert 0 < jnp.mean(jnp.isnan(kept[:, 0])) < 1
