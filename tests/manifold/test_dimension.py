"""Dimensions of data: closed forms, averages that are known for any density, and spheres."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import ive

from scoregeo import FunctionScore, GaussianMixtureScore, GaussianScore, KernelDensityScore
from scoregeo.manifold import denoising_dimension, intrinsic_dimension, normal_bundle_dimension, participation_rank


def sphere_score(k, sigma):
    """The exact score of the uniform distribution on the unit sphere S^k, in the first k + 1 coordinates, with noise.

    ``(E[x0 | x] - x) / sigma^2``, where the mean over the sphere has length I_{nu+1}(r/sigma^2) / I_nu(r/sigma^2) with
    nu = (k - 1)/2 (Mardia & Jupp 2000, section 9.3.2), by the recurrence of Bessel functions, backwards from a bound.
    """
    nu, terms = (k - 1) / 2, 200

    def ratio(kappa):
        last = nu + terms + 1
        start = kappa / (last + jnp.sqrt(last**2 + kappa**2))
        return jax.lax.fori_loop(0, terms, lambda i, a: 1 / (2 * (nu + terms - i) / kappa + a), start)

    def score(x, sigma):
        y = x[: k + 1]
        r = jnp.linalg.norm(y)
        return (-x.at[: k + 1].add(-ratio(r / sigma**2) / r * y)) / sigma**2

    return FunctionScore(score, sigma, conservative=True)


def on_sphere(k, d, seed=0):
    y = np.random.default_rng(seed).normal(size=k + 1)
    return jnp.zeros(d).at[: k + 1].set(y / np.linalg.norm(y))


def test_score_of_the_sphere():
    x, sigma = 1.1 * on_sphere(10, 20), 0.2
    kappa = 1.1 / sigma**2
    expected = (ive(5.5, kappa) / ive(4.5, kappa) - 1.1) / sigma**2
    np.testing.assert_allclose(sphere_score(10, sigma)(x) @ x / 1.1, expected, rtol=1e-10)


@pytest.mark.parametrize("seed", [0, 1])
def test_gaussian(seed):
    """At a point, and over clean points: the mean is sum l/(l + sigma^2) + sigma^2 l/(l + sigma^2)^2."""
    rng, d, sigma = np.random.default_rng(seed), 5, 0.3
    values = np.exp(rng.normal(size=d) * 2)
    axes = np.linalg.qr(rng.normal(size=(d, d)))[0]
    score = GaussianScore(np.zeros(d), axes @ np.diag(values + sigma**2) @ axes.T)
    # The dimension is quadratic in x: this rule has the covariance of the clean points, and is exact.
    along = (np.sqrt(d * values) * axes).T
    clean = np.concatenate([along, -along])
    found = jax.vmap(lambda x: intrinsic_dimension(score, x, sigma))(jnp.asarray(clean))
    expected = np.sum(values / (values + sigma**2) + sigma**2 * values / (values + sigma**2) ** 2)
    np.testing.assert_allclose(np.mean(found), expected, rtol=1e-10)
    x = rng.normal(size=d)
    s = -axes @ ((axes.T @ x) / (values + sigma**2))
    at_point = d + sigma**2 * (s @ s - np.sum(1 / (values + sigma**2)))
    np.testing.assert_allclose(intrinsic_dimension(score, x, sigma), at_point, rtol=1e-10)
    p = values / (values + sigma**2)
    np.testing.assert_allclose(participation_rank(score, x, sigma), p.sum() ** 2 / np.sum(p**2), rtol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("d", [1, 6])
def test_mean_over_noisy_points(d):
    """It is d for any density (integration by parts), here random mixtures."""
    rng, sigma = np.random.default_rng(d), 0.4
    factors = rng.normal(size=(4, d, d))
    clean = GaussianMixtureScore(rng.dirichlet(np.ones(4)), rng.normal(size=(4, d)), factors @ factors.mT)
    score = clean.noised(1.0, sigma)
    points = score.sample(jax.random.key(d), 20_000)
    found = jax.jit(jax.vmap(lambda x: intrinsic_dimension(score, x, sigma)))(points)
    error = np.std(found) / np.sqrt(found.size)
    assert error < 0.05
    assert abs(np.mean(found) - d) < 3 * error


@pytest.mark.slow
@pytest.mark.parametrize(("k", "sigma"), [(10, 0.1), (50, 0.03)])
def test_spheres(k, sigma):
    """In R^100, from the exact score: within 10% by every estimate, and so by random directions."""
    score, x = sphere_score(k, sigma), on_sphere(k, 100)
    exact = intrinsic_dimension(score, x, sigma)
    np.testing.assert_allclose(exact, k, rtol=0.1)
    np.testing.assert_allclose(participation_rank(score, x, sigma), k, rtol=0.1)
    value, error = intrinsic_dimension(score, x, sigma, probes=60, key=jax.random.key(0), with_error=True)
    assert 0 < error < 0.05 * k
    assert abs(value - exact) < 3 * error
    rank, error = participation_rank(score, x, sigma, probes=60, key=jax.random.key(1), with_error=True)
    assert 0 < error < 0.1 * k
    assert abs(rank - participation_rank(score, x, sigma)) < 3 * error


def test_what_denoising_leaves():
    """Over clean points of a Gaussian sum l/(l + sigma^2); on spheres their dimension."""
    values, sigma = np.array([4.0, 1.0, 0.3, 0.01, 0.0]), 0.4
    score = GaussianScore(np.zeros(5), np.diag(values + sigma**2))
    clean = jax.random.normal(jax.random.key(0), (4000, 5)) * np.sqrt(values)

    @jax.jit
    @jax.vmap
    def dimension(x, key):
        return denoising_dimension(score, x, sigma, key, samples=8)

    found = dimension(clean, jax.random.split(jax.random.key(1), 4000))
    error = np.std(found) / np.sqrt(4000)
    assert abs(np.mean(found) - np.sum(values / (values + sigma**2))) < 3 * error
    value, error = denoising_dimension(score, np.zeros(5), sigma, jax.random.key(2), samples=4000, with_error=True)
    spread = denoising_dimension(score, np.zeros(5), sigma, jax.random.key(3), samples=40, with_error=True)[1]
    np.testing.assert_allclose(spread, 10 * error, rtol=0.5)
    for k in (10, 50):
        score, settings = sphere_score(k, 0.03), {"samples": 200, "with_error": True}
        value, error = denoising_dimension(score, on_sphere(k, 100), 0.03, jax.random.key(k), **settings)
        assert abs(value - k) < 0.03 * k + 3 * error


def test_normal_bundle():
    for k in (1, 10):
        assert normal_bundle_dimension(sphere_score(k, 0.05), on_sphere(k, 20), 0.05, jax.random.key(k)) == k
    plane = np.concatenate([np.random.default_rng(0).normal(size=(3000, 2)), np.zeros((3000, 2))], 1)
    score = KernelDensityScore(plane, 0.2)
    found = normal_bundle_dimension(score, jnp.zeros(4), 0.2, jax.random.key(0), samples=50)
    assert found == 2
    assert found.shape == ()
    with pytest.raises(ValueError, match="`samples` must be an integer of at least 4, got 3"):
        normal_bundle_dimension(score, np.zeros(4), 0.2, jax.random.key(0), samples=3)
    with pytest.raises(ValueError, match="`x` must have at least 2 dimensions"):
        normal_bundle_dimension(lambda x: -x, np.zeros(1), 0.2, jax.random.key(0))


def test_wrong_probes():
    score = GaussianScore(np.zeros(2), np.eye(2))
    with pytest.raises(ValueError, match="`key` must be given with probes=5"):
        intrinsic_dimension(score, np.zeros(2), 0.1, probes=5)
    with pytest.raises(ValueError, match="`probes` and `key` must be given in 2000 dimensions"):
        participation_rank(lambda x: -x, np.zeros(2000), 0.1)
