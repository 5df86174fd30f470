"""The preconditioned denoiser: its three forms agree, Gaussian data are exact, small noise keeps its digits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from scoregeo.diffusion import MLP, Denoiser, Potential
from scoregeo.scores import GaussianScore

MEAN = jnp.array([0.3, -1.0, 2.0])
X = jnp.array([0.4, -0.7, 1.1])
SIGMAS = [1e-4, 0.05, 0.5, 30.0]


@pytest.mark.slow
@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("wrap", [lambda net: net, Potential])
def test_tweedie(wrap, sigma, mlp):
    """s = (D - x)/sigma^2, in float64 where the difference has digits to spare."""
    denoiser = Denoiser(wrap(mlp()), 0.8, MEAN)
    expected = (denoiser.denoise(X, jnp.array(sigma)) - X) / sigma**2
    np.testing.assert_allclose(denoiser.score(X, jnp.array(sigma)), expected, rtol=1e-15 / sigma**2 + 1e-10)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_denoiser_is_that_of_karras(sigma, mlp):
    net, data = mlp(), 0.8
    total = sigma**2 + data**2
    skip, out, scale = data**2 / total, sigma * data / total**0.5, 1 / total**0.5
    expected = skip * X + out * net(scale * X, jnp.log(sigma) / 4)
    np.testing.assert_allclose(Denoiser(net, data).denoise(X, jnp.array(sigma)), expected, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("sigma", SIGMAS)
def test_a_network_of_zeros_is_exact_for_isotropic_gaussian_data(sigma):
    denoiser = Denoiser(MLP(3, key=jax.random.key(0)), 0.8, MEAN)
    exact = GaussianScore(MEAN, (0.8**2 + sigma**2) * jnp.eye(3))
    np.testing.assert_allclose(denoiser.score(X, jnp.array(sigma)), exact(X), rtol=1e-12)
    tuned = Denoiser(Potential(MLP(3, key=jax.random.key(0))), 0.8, MEAN)
    difference = tuned.log_prob(X, jnp.array(sigma)) - tuned.log_prob(MEAN, jnp.array(sigma))
    np.testing.assert_allclose(difference, exact.log_prob(X) - exact.log_prob(MEAN), rtol=1e-9)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_score_is_the_gradient_of_log_prob(sigma, mlp):
    denoiser = Denoiser(Potential(mlp()), 0.8, MEAN)
    np.testing.assert_allclose(
        denoiser.score(X, jnp.array(sigma)), jax.grad(denoiser.log_prob)(X, jnp.array(sigma)), rtol=1e-10
    )
    h = 1e-6
    differences = [
        (denoiser.log_prob(X + h * e, jnp.array(sigma)) - denoiser.log_prob(X - h * e, jnp.array(sigma))) / (2 * h)
        for e in jnp.eye(3)
    ]
    np.testing.assert_allclose(denoiser.score(X, jnp.array(sigma)), differences, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_small_noise_keeps_its_digits_in_float32(mlp):
    """(D - x)/sigma^2 as written loses all digits here; the score loses none."""
    sigma, x = jnp.float32(1e-6), X.astype("float32")
    # The same weights in both types, so that only arithmetic differs.
    single = Denoiser(mlp(dtype=jnp.float32), jnp.float32(0.8), MEAN.astype("float32"))
    exact = Denoiser(mlp(dtype=jnp.float32), np.float64(np.float32(0.8)), MEAN.astype("float32").astype("float64"))
    expected = exact.score(x.astype("float64"), sigma.astype("float64"))
    error = np.abs(single.score(x, sigma) - expected).max() / np.abs(expected).max()
    naive = np.abs((single.denoise(x, sigma) - x) / sigma**2 - expected).max() / np.abs(expected).max()
    assert single.score(x, sigma).dtype == jnp.float32
    assert error < 2e-6
    assert naive > 1e-3  # the test can tell the difference


def test_moving_the_data_moves_the_score(mlp):
    here, there = Denoiser(mlp(), 0.8, MEAN), Denoiser(mlp(), 0.8, MEAN + 5)
    np.testing.assert_allclose(there.score(X + 5, jnp.array(0.1)), here.score(X, jnp.array(0.1)), rtol=1e-10)


def test_the_call_of_0_1_0_is_the_score_and_warns(mlp):
    denoiser = Denoiser(mlp(), 0.8, MEAN)
    with pytest.warns(DeprecationWarning, match="use `score` for the score, or `denoise` for the denoised point"):
        called = denoiser(X, jnp.array(0.1))
    np.testing.assert_array_equal(called, denoiser.score(X, jnp.array(0.1)))


def test_conservative_and_log_prob_follow_the_network(mlp):
    assert Denoiser(Potential(mlp()), 1.0).conservative
    free = Denoiser(mlp(), 1.0)
    assert not free.conservative
    with pytest.raises(TypeError, match="`log_prob` needs a network that is a gradient; MLP is not"):
        free.log_prob(X, jnp.array(0.1))


@pytest.mark.parametrize("sigma", [0.05, 2.0])
def test_every_method_passes_the_condition_on(sigma):
    """Against the formulas with a network that has the condition built in."""
    told = _WithCondition(jnp.array([0.2, -0.5, 1.5]))
    built_in = _WithCondition(told.scale[...], 0.7)
    denoiser, fixed = (Denoiser(Potential(net), 0.8, MEAN) for net in (told, built_in))
    sigma, condition = jnp.array(sigma), jnp.array(0.7)
    for name in ("network_output", "score", "denoise", "log_prob"):
        with_condition, without = (getattr(denoiser, name)(X, sigma, *c) for c in ((condition,), ()))
        np.testing.assert_allclose(with_condition, getattr(fixed, name)(X, sigma), rtol=1e-13)
        assert not np.allclose(with_condition, without)


def test_a_network_that_knows_no_conditions_is_not_given_one():
    class Plain(nnx.Module):
        dim = 3

        def __call__(self, x, c_noise):
            return x * c_noise

    for net in (Plain(), Potential(Plain())):
        denoiser = Denoiser(net, 0.8, MEAN)
        assert np.isfinite(denoiser.score(X, jnp.array(0.3))).all()
        with pytest.raises(TypeError, match="positional argument"):
            denoiser.score(X, jnp.array(0.3), 1)


class _WithCondition(nnx.Module):
    dim = 3

    def __init__(self, scale, default=0.0):
        self.scale, self.default = nnx.Param(scale), default

    def __call__(self, x, c_noise, condition=None):
        condition = self.default if condition is None else condition
        return jnp.sin(self.scale[...] * x + c_noise + condition)


def test_bad_mean_is_named(mlp):
    with pytest.raises(ValueError, match=r"`mean` must have shape \(3,\), got \(2,\)"):
        Denoiser(mlp(), 1.0, jnp.zeros(2))
