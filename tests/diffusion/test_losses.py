"""Denoising score matching: the weighted denoising error, and the exact denoiser as its minimiser."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from scoregeo.diffusion import MLP, Denoiser, denoising_loss


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [0.01, 0.3, 20.0])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_loss_is_the_weighted_error_of_the_denoiser(sigma, dtype, mlp):
    data, mean = 0.7, jnp.array([0.3, -1.0, 2.0], dtype)
    denoiser = Denoiser(mlp(dtype=dtype), data, mean)
    x, noise = (jax.random.normal(jax.random.key(i), (3,), dtype) for i in (1, 2))
    loss = denoising_loss(denoiser, x, noise, jnp.asarray(sigma, dtype))
    weight = (sigma**2 + data**2) / (sigma * data) ** 2
    error = denoiser.denoise(x + jnp.asarray(sigma, dtype) * noise, jnp.asarray(sigma, dtype)) - x
    assert loss.dtype == dtype
    np.testing.assert_allclose(loss, weight * jnp.mean(error**2), rtol=1e-10 if dtype == "float64" else 2e-3)


class Linear(nnx.Module):
    """The network that is exact for data N(0, diag(variances)) at every noise level, plus an error."""

    dim = 2

    def __init__(self, variances, error):
        self.variances = nnx.Variable(jnp.asarray(variances))
        self.error = nnx.Variable(jnp.asarray(error))

    def __call__(self, u, c_noise):
        sigma, variances = jnp.exp(4 * c_noise), self.variances[...]
        data = jnp.mean(variances)
        total = sigma**2 + data
        x = u * jnp.sqrt(total)
        denoised = variances / (variances + sigma**2) * x
        return (denoised - data / total * x) / jnp.sqrt(sigma**2 * data / total) + self.error[...] @ u


def test_the_exact_score_has_the_smallest_loss():
    """Excess loss of a wrong network is its mean squared error to the exact one (Pythagoras), in closed form."""
    variances, sigma, n = jnp.array([1.5, 0.5]), jnp.array(0.6), 200_000
    x = jax.random.normal(jax.random.key(0), (n, 2)) * jnp.sqrt(variances)
    noise = jax.random.normal(jax.random.key(1), (n, 2))
    error = jnp.array([[0.3, -0.1], [0.2, 0.4]])

    def mean_loss(error):
        denoiser = Denoiser(Linear(variances, error), 1.0)
        return jnp.mean(jax.vmap(denoising_loss, in_axes=(None, 0, 0, None))(denoiser, x, noise, sigma))

    spread = jnp.diag((variances + sigma**2) / (1 + sigma**2))
    expected = jnp.trace(error @ spread @ error.T) / 2
    for sign in (1, -1):
        np.testing.assert_allclose(mean_loss(sign * error) - mean_loss(0 * error), expected, atol=0.01)
    assert expected > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [0.02, 0.5, 40.0])
def test_a_network_of_zeros_has_loss_one(sigma):
    """The target has unit variance at every noise level, whatever the data."""
    data = jax.random.uniform(jax.random.key(0), (100_000, 2)) * jnp.array([1.0, 3.0]) + 2
    spread = jnp.sqrt(jnp.mean((data - data.mean(0)) ** 2))
    denoiser = Denoiser(MLP(2, key=jax.random.key(0)), spread, data.mean(0))
    noise = jax.random.normal(jax.random.key(1), data.shape)
    loss = jnp.mean(jax.vmap(denoising_loss, in_axes=(None, 0, 0, None))(denoiser, data, noise, jnp.array(sigma)))
    np.testing.assert_allclose(loss, 1.0, atol=0.02)
