"""Derivatives of distances (envelope theorem) and of logs and paths (implicit function theorem), against
differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import CURL, X, Y, central_differences, tanh_field, tanh_metric

from scoregeo import SpectralNewton, SteinMetric, dist, geodesic, log, squared_dist

SOLVER = SpectralNewton(degree=32, max_elements=1, path_rtol=1e-8)
X, Y, W = jnp.asarray(X), jnp.asarray(Y), jnp.asarray(CURL)
STRENGTH = jnp.asarray(0.7)


@jax.jit
def distance(x, y, strength, w):
    return dist(tanh_metric(strength, w), x, y, solver=SOLVER)


@jax.jit
def logarithm(x, y, strength, w):
    return log(tanh_metric(strength, w), x, y, solver=SOLVER)


ARGS = (X, Y, STRENGTH, W)


@pytest.fixture(scope="module")
def gradients():
    return jax.jit(jax.grad(distance, argnums=(0, 1, 2, 3)))(*ARGS)


@pytest.mark.slow
@pytest.mark.parametrize("argnum", range(4), ids=["x", "y", "strength", "weights"])
def test_dist(gradients, argnum):
    np.testing.assert_allclose(gradients[argnum], central_differences(distance, ARGS, argnum), atol=1e-7)


@pytest.mark.slow
def test_dist_envelope_formula(gradients):
    """The gradient at the end points is -G v(0) / length and G v(1) / length."""
    metric = tanh_metric(STRENGTH, W)
    result = geodesic(metric, X, Y, solver=SOLVER)
    np.testing.assert_allclose(gradients[0], -metric.at(X).mv(result.velocities[0]) / result.length, atol=1e-6)
    np.testing.assert_allclose(gradients[1], metric.at(Y).mv(result.velocities[-1]) / result.length, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("jacobian", [jax.jacfwd, jax.jacrev])
def test_log(jacobian):
    actual = jax.jit(jacobian(logarithm, argnums=(0, 1, 2, 3)))(*ARGS)
    for argnum in range(4):
        np.testing.assert_allclose(actual[argnum], central_differences(logarithm, ARGS, argnum), atol=1e-6)


@pytest.mark.slow
def test_path_points():
    @jax.jit
    def middle(x, y, strength, w):
        return geodesic(tanh_metric(strength, w), x, y, solver=SOLVER).evaluate(0.4)

    actual = jax.jacrev(middle, argnums=2)(*ARGS)
    np.testing.assert_allclose(actual, central_differences(middle, ARGS, 2), atol=1e-7)
    assert float(jnp.abs(actual).max()) > 1e-3


@pytest.mark.slow
def test_second_derivative():
    """The Hessian of the squared distance: the envelope gradient, differentiated through the path."""
    gradient = jax.jit(jax.grad(lambda x: squared_dist(tanh_metric(STRENGTH, W), x, Y, solver=SOLVER)))
    hessian = jax.jacfwd(gradient)(X)
    np.testing.assert_allclose(hessian, central_differences(gradient, (X,), 0), atol=1e-6)
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-7)


@pytest.mark.slow
def test_batched_gradient(gradients):
    xs = jnp.stack([X, X + 0.1, Y - 0.3])
    batched = jax.jit(jax.vmap(jax.grad(distance), in_axes=(0, None, None, None)))(xs, Y, STRENGTH, W)
    np.testing.assert_allclose(batched[0], gradients[0], atol=1e-9)
    assert batched.shape == (3, 2)


@pytest.mark.slow
def test_coincident_points():
    metric = tanh_metric(STRENGTH, W)
    for f in (dist, squared_dist):
        value, slope = jax.value_and_grad(lambda x, f=f: f(metric, x, X, solver=SOLVER))(X)
        assert float(value) == 0
        np.testing.assert_array_equal(slope, 0)


@pytest.mark.slow
def test_closure_over_traced_weights(gradients):
    """A score that closes over the weights differentiates like one that is given them as arguments."""

    def loss(w):
        return dist(SteinMetric(lambda x: tanh_field(x, w), STRENGTH), X, Y, solver=SOLVER)

    np.testing.assert_allclose(jax.grad(loss)(W), gradients[3], atol=1e-12)
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(W), gradients[3], atol=1e-12)


@pytest.mark.slow
def test_float32():
    args = tuple(a.astype(jnp.float32) for a in ARGS)
    solver = SpectralNewton(degree=16, max_elements=1)

    def f(x, y, strength, w):
        return dist(tanh_metric(strength, w), x, y, solver=solver)

    for argnum, (single, double) in enumerate(
        zip(jax.grad(f, argnums=(0, 1, 2, 3))(*args), jax.grad(distance, argnums=(0, 1, 2, 3))(*ARGS), strict=True)
    ):
        assert single.dtype == jnp.float32 or argnum == 2
        np.testing.assert_allclose(single, double, atol=1e-4)
