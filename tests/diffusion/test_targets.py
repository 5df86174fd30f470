"""Targets from a reference set: against the kernel density score of that set, its autodiff, and the dense Jacobian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from scoregeo.diffusion import MLP, Denoiser, Potential, denoising_loss
from scoregeo.diffusion.training.losses import (
    asymmetry_penalty,
    second_order_loss,
    second_order_target,
    stable_loss,
    stable_target,
)
from scoregeo.diffusion.training.targets import Posterior
from scoregeo.scores import KernelDensityScore

DATA, MEAN = 0.7, jnp.array([0.3, -1.0, 2.0])
REFERENCE = MEAN + DATA * jax.random.normal(jax.random.key(0), (40, 3))


class Output(nnx.Module):
    """A network that returns what it was given."""

    dim = 3

    def __init__(self, value):
        self.value = nnx.Param(value)

    def __call__(self, x, c_noise):
        return self.value[...]


def posterior(sigma, seed=0, dtype="float64", reference=REFERENCE):
    """Of a noisy point that was made from one of the reference points."""
    noise = jax.random.normal(jax.random.key(seed), (3,), dtype)
    reference, sigma = reference.astype(dtype), jnp.asarray(sigma, dtype)
    return Posterior(reference, reference[seed] + sigma * noise, sigma)


def direction(seed=0, dtype="float64"):
    return jax.random.normal(jax.random.key(100 + seed), (3,), dtype)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("sigma", [0.05, 0.4, 3.0, 50.0])
class TestTheTargetIsTheScoreOfTheReferenceSet:
    @pytest.mark.slow
    def test_posterior(self, sigma, seed):
        """Mean and covariance from weights written out."""
        p = posterior(sigma, seed)
        weights = np.exp(-0.5 * np.sum((REFERENCE - p.noisy) ** 2, -1) / sigma**2)
        weights /= weights.sum()
        np.testing.assert_allclose(p.weights, weights, rtol=1e-9, atol=1e-300)
        np.testing.assert_allclose(p.mean(), np.average(REFERENCE, axis=0, weights=weights), rtol=1e-9)
        covariance = np.cov(REFERENCE.T, aweights=weights, ddof=0)
        np.testing.assert_allclose(p.covariance_mv(direction(seed)), covariance @ direction(seed), atol=1e-12)
        np.testing.assert_allclose(p.effective_size(), 1 / np.sum(weights**2), rtol=1e-9)

    @pytest.mark.slow
    def test_first_order(self, sigma, seed):
        """A network that returns the target has the exact score."""
        p, score = posterior(sigma, seed), KernelDensityScore(REFERENCE, sigma)
        target = stable_target(Denoiser(MLP(3, key=jax.random.key(0)), DATA, MEAN), p)
        learned = Denoiser(Output(target), DATA, MEAN)
        np.testing.assert_allclose(learned.score(p.noisy, p.sigma), score(p.noisy), rtol=1e-7, atol=1e-12)

    @pytest.mark.slow
    def test_second_order(self, sigma, seed):
        """It is the derivative of the first-order target along ``sigma v``, and gives the Jacobian of the score."""
        p, v = posterior(sigma, seed), direction(seed)
        denoiser = Denoiser(MLP(3, key=jax.random.key(0)), DATA, MEAN)
        target = second_order_target(denoiser, p, v)
        _, derivative = jax.jvp(
            lambda y: stable_target(denoiser, Posterior(REFERENCE, y, p.sigma)), (p.noisy,), (sigma * v,)
        )
        np.testing.assert_allclose(target, derivative, rtol=1e-7, atol=1e-9)
        # In terms of the score: s = -u/S^2 + c/(r S) F, and F moves by the target along sigma v.
        total = np.sqrt(sigma**2 + DATA**2)
        jv = (-sigma * v / total**2 + DATA / (sigma * total) * target) / sigma
        _, exact = jax.jvp(KernelDensityScore(REFERENCE, sigma), (p.noisy,), (v,))
        np.testing.assert_allclose(jv, exact, rtol=1e-6, atol=1e-9)

    @pytest.mark.slow
    def test_losses(self, sigma, seed, mlp):
        """The squared errors of score and Jacobian, in the units that losses.py states."""
        p, v, score = posterior(sigma, seed), direction(seed), KernelDensityScore(REFERENCE, sigma)
        denoiser = Denoiser(mlp(), DATA, MEAN)
        units = sigma * np.sqrt(sigma**2 + DATA**2) / DATA
        (value, jv), (exact, exact_jv) = (
            jax.jvp(f, (p.noisy,), (v,)) for f in (lambda x: denoiser.score(x, p.sigma), score)
        )
        np.testing.assert_allclose(stable_loss(denoiser, p), jnp.mean((units * (value - exact)) ** 2), rtol=1e-8)
        trust = max(0, 1 - 20 * float(jnp.sum(p.weights**2)))
        expected = trust * jnp.mean((units * sigma * (jv - exact_jv)) ** 2)
        np.testing.assert_allclose(second_order_loss(denoiser, p, v), expected, rtol=1e-8)


@pytest.mark.slow
def test_the_gate():
    """Shut up to an effective size of 20, then 1 - 20/size: equal weights make the size that of the set."""
    for n, expected in ((1, 0), (19, 0), (20, 0), (25, 0.2), (80, 0.75)):
        p = Posterior(jnp.ones((n, 2)), jnp.zeros(2), jnp.array(0.3))
        np.testing.assert_allclose(p.effective_size(), n, rtol=1e-12)
        np.testing.assert_allclose(p.reliability(), expected, atol=1e-12)
    # Two of 100 points matter.
    far = jnp.concatenate([jnp.zeros((2, 2)), 10 + jnp.arange(196.0).reshape(98, 2)])
    p = Posterior(far, jnp.zeros(2), jnp.array(0.3))
    np.testing.assert_allclose(p.effective_size(), 2, rtol=1e-12)
    assert p.reliability() == 0


def test_one_reference_point_is_plain_denoising(mlp):
    """With the clean point alone in the reference set, the target is that of denoising score matching."""
    denoiser, noise = Denoiser(mlp(), DATA, MEAN), direction()
    for sigma in (0.01, 0.5, 30.0):
        p = Posterior(REFERENCE[:1], REFERENCE[0] + sigma * noise, jnp.array(sigma))
        np.testing.assert_allclose(
            stable_loss(denoiser, p), denoising_loss(denoiser, REFERENCE[0], noise, jnp.array(sigma)), rtol=1e-9
        )


@pytest.mark.slow
def test_more_reference_points_vary_less_about_the_same_mean():
    """Targets at one noisy point of N(0, I) data, whose posterior mean is y/(1 + sigma^2).

    The clean point is drawn from its own posterior given the noisy point, as in training.
    """
    sigma, y = 0.8, jnp.array([0.5, -1.0])
    denoiser = Denoiser(MLP(2, key=jax.random.key(0)), 1.0)
    variance = sigma**2 / (1 + sigma**2)

    def target(key, n):
        own, others = jax.random.split(key)
        clean = y / (1 + sigma**2) + jnp.sqrt(variance) * jax.random.normal(own, (1, 2))
        reference = jnp.concatenate([clean, jax.random.normal(others, (n - 1, 2))])
        return stable_target(denoiser, Posterior(reference, y, jnp.array(sigma)))

    keys = jax.random.split(jax.random.key(1), 20_000)
    # The exact score of N(0, I) is that of a network that returns zero.
    spreads = []
    for n in (1, 8, 64):
        values = jax.vmap(lambda key, n=n: target(key, n))(keys)
        np.testing.assert_allclose(values.mean(0), 0, atol=0.03)
        spreads.append(float(jnp.sqrt(jnp.mean(values**2))))
    np.testing.assert_allclose(spreads[0], 1.0, rtol=0.02)
    assert spreads[1] < 0.7 * spreads[0]
    assert spreads[2] < 0.5 * spreads[1]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sigma", [1e-25, 1e-6, 1e-3, 1e3, 1e6])
def test_never_nan_at_extreme_noise(sigma, dtype, mlp):
    """Losses and their gradients in the weights of the network."""
    p, v = posterior(sigma, 1, dtype), direction(1, dtype)
    assert p.weights.dtype == dtype
    np.testing.assert_allclose(p.weights.sum(), 1, rtol=1e-5)
    if sigma == 1e-3:
        assert p.weights[1] == 1
    if sigma == 1e6:
        np.testing.assert_allclose(p.weights, 1 / 40, rtol=1e-4)
    graphdef, weights, rest = nnx.split(Denoiser(Potential(mlp(dtype=dtype)), DATA, MEAN.astype(dtype)), nnx.Param, ...)

    def loss(weights):
        denoiser = nnx.merge(graphdef, weights, rest)
        return jnp.stack(
            [
                stable_loss(denoiser, p),
                second_order_loss(denoiser, p, v),
                asymmetry_penalty(denoiser, p.noisy, p.sigma, v),
            ]
        )

    if sigma == 1e-25:  # the noise is lost in the noisy point: only the weights and the mean are defined
        assert jnp.isfinite(p.mean()).all()
        return
    value, slopes = loss(weights), jax.jacrev(loss)(weights)
    assert value.dtype == dtype
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves((value, slopes)))


def test_no_points_nearby_takes_the_nearest():
    """Far outside the data every density underflows; the log-sum-exp does not."""
    for dtype in ("float32", "float64"):
        p = Posterior(jnp.eye(3, dtype=dtype), jnp.array([1e4, 0, 0], dtype), jnp.asarray(0.1, dtype))
        np.testing.assert_array_equal(p.weights, [1, 0, 0])
        np.testing.assert_array_equal(p.mean(), [1, 0, 0])
    # And where even the exponents overflow, all are equally likely.
    p = Posterior(jnp.eye(3, dtype="float32"), jnp.array([1e4, 0, 0], "float32"), jnp.float32(1e-25))
    np.testing.assert_allclose(p.weights, 1 / 3, rtol=1e-6)


def test_float32_covariance_keeps_its_digits_at_small_noise_far_from_zero():
    """1000 points within 1e-3 of each other at 1: E[x x^T] - m m^T would have no digit left."""
    points = 1 + 1e-3 * jax.random.normal(jax.random.key(0), (1000, 2))
    exact = Posterior(points, points[0], jnp.array(1e-3))
    single = Posterior(points.astype("float32"), points[0].astype("float32"), jnp.float32(1e-3))
    v = jnp.array([1.0, -0.5])
    np.testing.assert_allclose(
        single.covariance_mv(v.astype("float32")), exact.covariance_mv(v), atol=5e-3 * float(exact.covariance_mv(v)[0])
    )


class TestAsymmetry:
    @pytest.mark.slow
    @pytest.mark.parametrize("sigma", [0.05, 1.0, 20.0])
    def test_it_estimates_the_norm_of_the_dense_asymmetric_part(self, sigma, mlp):
        """Exactly for the coordinate directions (their sum is the trace), and on average for random ones."""
        denoiser, x, sigma = Denoiser(mlp(), DATA, MEAN), direction(), jnp.array(sigma)
        jacobian = jax.jacfwd(lambda y: denoiser.network_output(y, sigma))(x) * sigma
        asymmetric = jacobian - jacobian.T
        expected = jnp.sum(asymmetric**2) / 3
        penalty = jax.vmap(lambda v: asymmetry_penalty(denoiser, x, sigma, v))
        assert expected > 1e-7
        np.testing.assert_allclose(penalty(jnp.eye(3)).sum(), expected, rtol=1e-10)
        draws = penalty(jax.random.normal(jax.random.key(1), (50_000, 3)))
        np.testing.assert_allclose(draws.mean(), expected, rtol=0.03)
        # The same in terms of the score, in the units that losses.py states.
        score = jax.jacfwd(lambda y: denoiser.score(y, sigma))(x)
        units = sigma**2 * jnp.sqrt(sigma**2 + DATA**2) / DATA
        np.testing.assert_allclose(jnp.sum((units * (score - score.T)) ** 2) / 3, expected, rtol=1e-8)

    def test_a_gradient_field_has_none(self, mlp):
        denoiser = Denoiser(Potential(mlp()), DATA, MEAN)
        assert asymmetry_penalty(denoiser, direction(), jnp.array(0.3), direction(1)) < 1e-25
