"""Curves that are no geodesics: closed forms of each, and that solvers start from them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scoregeo import (
    Denoised,
    EuclideanMetric,
    GaussianMixtureScore,
    GaussianScore,
    Latent,
    NormCorrected,
    Spherical,
    SteinMetric,
    geodesic,
)
from scoregeo.diffusion import EDM, VP, LatentFlow

METRIC = EuclideanMetric()


def along(start, x, y, n=65):
    curve = start(METRIC, x, y)
    return np.asarray(jax.vmap(lambda t: curve(t)[0])(jnp.linspace(0, 1, n)))


@pytest.mark.parametrize("dim", [2, 3, 50])
@pytest.mark.parametrize("seed", [0, 1])
def test_spherical_turns_at_a_constant_rate(dim, seed):
    center, a, b = jax.random.normal(jax.random.key(seed), (3, dim))
    b = b * jnp.linalg.norm(a) / jnp.linalg.norm(b)
    points = along(Spherical(center), center + a, center + b) - np.asarray(center)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), np.linalg.norm(a), rtol=1e-12)
    cosines = np.sum(points[1:] * points[:-1], 1) / np.linalg.norm(a) ** 2
    total = np.arccos(np.clip(a @ b / (a @ a), -1, 1))
    np.testing.assert_allclose(np.arccos(cosines), total / 64, rtol=1e-6)


def test_spherical_at_its_limits():
    x = jnp.array([1.0, 2.0])
    np.testing.assert_allclose(along(Spherical(), x, 3 * x)[32], 2 * x, rtol=1e-12)
    np.testing.assert_allclose(along(Spherical(), x, x)[32], x)
    np.testing.assert_allclose(along(Spherical(), 0 * x, x)[32], x / 2 * np.sqrt(2), rtol=1e-12)
    assert np.isnan(along(Spherical(), x, -2 * x)[32]).all()
    with pytest.raises(ValueError, match="`center`"):
        geodesic(METRIC, x, 2 * x, init=Spherical(jnp.zeros(3)))


def test_norm_corrected_keeps_the_norm_of_noise():
    x, y = jax.random.normal(jax.random.key(0), (2, 4000))
    points = along(NormCorrected(), x, y)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), np.sqrt(4000), rtol=0.05)
    np.testing.assert_allclose(points[32], (x + y) / np.sqrt(2), rtol=1e-12)


def test_denoised_is_the_posterior_mean():
    """Of normal data with covariance C and noise of variance v: m + C (C + v)^-1 (x - m)."""
    covariance, mean, sigma = jnp.array([[2.0, 0.3], [0.3, 0.5]]), jnp.array([1.0, -1.0]), 0.7
    noised = GaussianScore(mean, covariance + sigma**2 * jnp.eye(2))
    x, y = jnp.array([0.0, 1.0]), jnp.array([2.0, 0.5])
    shrink = covariance @ jnp.linalg.inv(covariance + sigma**2 * jnp.eye(2))
    found = along(Denoised(noised, sigma), x, y)
    np.testing.assert_allclose(found[20], mean + shrink @ (x + 20 / 64 * (y - x) - mean), rtol=1e-12)
    np.testing.assert_array_equal(found[[0, -1]], np.stack([x, y]))
    with pytest.raises(ValueError, match="`noise_level` is missing"):
        Denoised(noised)


@pytest.mark.slow
def test_latents_of_a_gaussian():
    """The flow of a normal distribution is linear: z = (x - m)/sqrt(C + t_min^2) up to the noise that is left."""
    mean, variance, schedule = jnp.array([1.0, -2.0]), jnp.array([4.0, 0.25]), EDM()

    def score(x, t):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        return -(x - alpha * mean) / (alpha**2 * variance + sigma**2)

    flow = LatentFlow(score, schedule, mean, 1.0)
    low, high = (float(schedule.noise_level(jnp.asarray(t))) for t in (schedule.t_min, schedule.t_max))
    x = jnp.array([2.5, -1.0])
    exact = (x - mean) / jnp.sqrt(variance + low**2) * jnp.sqrt((variance + high**2) / (1 + high**2))
    np.testing.assert_allclose(flow.encode(x), exact, atol=1e-4)
    np.testing.assert_allclose(jax.jit(jax.vmap(flow.decode))(flow.encode(x)[None])[0], x, atol=1e-3)
    curve = Latent(flow)(METRIC, x, mean + jnp.array([0.0, 1.0]))
    np.testing.assert_array_equal(curve(0.0)[0], x)


@pytest.mark.slow
def test_latents_there_and_back():
    schedule = VP()
    mixture = GaussianMixtureScore(
        jnp.array([0.4, 0.6]), jnp.array([[-2.0, 0.0], [1.0, 1.0]]), jnp.stack([jnp.eye(2) / 4] * 2)
    )
    score = lambda x, t: mixture.noised(schedule.alpha(t), schedule.sigma(t))(x)  # noqa: E731
    flow = LatentFlow(score, schedule, jnp.array([-0.2, 0.6]), 1.0)
    xs = mixture.sample(jax.random.key(0), 200)
    zs = jax.jit(jax.vmap(flow.encode))(xs)
    np.testing.assert_allclose(jax.jit(jax.vmap(flow.decode))(zs), xs, atol=2e-3)
    assert abs(float(jnp.mean(zs))) < 0.15
    assert abs(float(jnp.std(zs)) - 1) < 0.1


def test_a_latent_model_has_both_ways():
    with pytest.raises(TypeError, match="method `encode`"):
        Latent(lambda x: x)


@pytest.mark.slow
def test_solvers_start_from_them():
    score = GaussianMixtureScore(jnp.ones(2) / 2, jnp.array([[-1.0, 0.5], [1.0, 0.5]]), jnp.stack([jnp.eye(2) / 4] * 2))
    metric, x, y = SteinMetric(score, 1.0), jnp.array([-1.2, 0.3]), jnp.array([1.1, 0.4])
    straight = geodesic(metric, x, y)
    for init in (Spherical(jnp.array([0.0, -2.0])), Denoised(score, 0.2)):
        np.testing.assert_allclose(geodesic(metric, x, y, init=init).length, straight.length, rtol=1e-6)
