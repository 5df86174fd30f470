"""What a metric adds to the drift of diffusions, against the derivatives of the matrix of G^-1."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import network_score

from scoregeo import (
    ConformalMetric,
    EuclideanMetric,
    GaussianScore,
    InverseSteinMetric,
    LandMetric,
    MatrixMetric,
    StackedSteinMetric,
    SteinMetric,
    models,
)
from scoregeo.statistics import Langevin, inverse_divergence


def by_definition(metric, x):
    """sum_j d/dx_j (G^-1)_ij from all derivatives of the inverse matrix, in float64."""
    derivative = jax.jacfwd(lambda y: jnp.linalg.inv(metric.at(y).matrix(y.size)))(x.astype(jnp.float64))
    return np.einsum("ijj->i", derivative)


@functools.cache
def point(d):
    return jnp.asarray(np.random.default_rng(d).normal(size=d))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
@pytest.mark.parametrize("d", [1, 2, 20])
def test_stein_with_curl(d, dtype):
    metric = SteinMetric(network_score(3, d, dtype), jnp.asarray(0.7, dtype))
    value = inverse_divergence(metric, point(d).astype(dtype))
    assert value.dtype == dtype
    exact = by_definition(SteinMetric(network_score(3, d, dtype), 0.7), point(d).astype(dtype))
    np.testing.assert_allclose(value, exact, atol=1e-12 if dtype == jnp.float64 else 2e-5)


CURL = network_score(3, 3)
METRICS = {
    "conformal": ConformalMetric(lambda x: 0.3 * jnp.sin(x[0]) + 0.2 * x[1] * x[2]),
    "inverse stein": InverseSteinMetric(CURL, 0.7),
    "scaled": 3.0 * SteinMetric(CURL, 0.7),
    "sum": SteinMetric(CURL, 0.7) + SteinMetric(lambda x: -x, 0.4),
    "sphere": models.Sphere(),
    "diagonal": LandMetric(np.random.default_rng(0).normal(size=(9, 3)), 1.0, 0.1),
    "matrix": MatrixMetric(lambda x: jnp.eye(3) * (2 + x[1] ** 2) + jnp.outer(jnp.sin(x), jnp.sin(x))),
    "stacked": StackedSteinMetric([CURL, lambda x: -(x**3)], [0.7, 0.2]),
    "euclid": EuclideanMetric(),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", METRICS)
def test_other_metrics(name):
    value = inverse_divergence(METRICS[name], point(3))
    np.testing.assert_allclose(value, by_definition(METRICS[name], point(3)), atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["scaled", "sum", "diagonal"])
def test_random_directions_are_unbiased(name):
    metric, x = METRICS[name], point(3)
    estimates = jax.vmap(lambda key: inverse_divergence(metric, x, probes=4, key=key))(
        jax.random.split(jax.random.key(0), 3000)
    )
    error = np.std(estimates, 0) / np.sqrt(3000)
    assert (np.abs(np.mean(estimates, 0) - by_definition(metric, x)) < 4 * error + 1e-12).all()


def test_too_many_dimensions():
    stacked = StackedSteinMetric([lambda x: -x], [1.0])
    with pytest.raises(ValueError, match="`probes` and `key` must be given in 257 dimensions"):
        inverse_divergence(stacked, jnp.zeros(257))
    inverse_divergence(stacked, jnp.zeros(257), probes=3, key=jax.random.key(0))
    with pytest.raises(ValueError, match="`probes` must be given to a Langevin sampler in 257 dimensions"):
        Langevin(stacked, lambda x: -x @ x, 0.1).init(jnp.zeros(257))
    with pytest.raises(ValueError, match="`x` must have shape"):
        inverse_divergence(stacked, jnp.zeros((2, 2)))
    with pytest.raises(TypeError, match="`metric` must be an AbstractMetric"):
        inverse_divergence(GaussianScore(jnp.zeros(2), jnp.eye(2)), jnp.zeros(2))
