"""Dimensions of spheres in R^30 from scores that a network learned."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scoregeo.diffusion import FitConfig, fit
from scoregeo.manifold import denoising_dimension, intrinsic_dimension, normal_bundle_dimension


@pytest.mark.slow
@pytest.mark.parametrize("k", [4, 20])
def test_spheres(k):
    """Within 10%; by derivatives of the network at clean points only where few directions are normal: with k = 4 these
    gave 0.7."""
    rng, sigma = np.random.default_rng(k), 0.15
    axes = np.linalg.qr(rng.normal(size=(30, 30)))[0][: k + 1]
    points = rng.normal(size=(20_000, k + 1))
    points = (np.sqrt(k + 1) * points / np.linalg.norm(points, axis=1, keepdims=True) @ axes).astype(np.float32)
    settings = FitConfig(steps=800, batch_size=128, width=64, depth=3)
    score = fit(points[40:], settings, progress=False).score_at(sigma)
    held_out, keys = jnp.asarray(points[:40]), jax.random.split(jax.random.key(0), 40)
    found, errors = jax.vmap(lambda x, key: denoising_dimension(score, x, None, key, with_error=True))(held_out, keys)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(np.mean(found), k, rtol=0.1)
    assert np.std(found) < 2 * np.mean(errors)
    bundle = jax.vmap(lambda x, key: normal_bundle_dimension(score, x, None, key))(held_out[:8], keys[:8])
    np.testing.assert_allclose(np.median(bundle), k)
    if k == 20:
        by_derivatives = jax.vmap(lambda x: intrinsic_dimension(score, x))(held_out)
        np.testing.assert_allclose(np.mean(by_derivatives), k, rtol=0.1)
