"""Scores of images: a convolutional network on (h, w, c), memory-bounded, in float32 and with a bfloat16 network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scoregeo import RESULTS, FunctionScore, SpectralNewton, SteinMetric, dist, geodesic, log

pytestmark = pytest.mark.slow

SHAPE = (8, 8, 3)
SIZE = 8 * 8 * 3
SETTINGS = {"rtol": 1e-4, "path_rtol": 1.0, "max_elements": 1, "degree": 8}


def unet(image, weights):
    """A small U-Net: down, up and a skip, with group norm and smooth activations; not a gradient field."""
    down, middle, up, out = weights
    h = convolve(jax.nn.silu(image), down)
    low = jax.nn.silu(normalised(convolve(average(h), middle)))
    h = h + jnp.repeat(jnp.repeat(low, 2, 0), 2, 1)
    return convolve(jax.nn.silu(normalised(convolve(h, up))), out) - image


def convolve(x, kernel):
    return jax.lax.conv_general_dilated(x[None], kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))[0]


def average(x):
    h, w, c = x.shape
    return x.reshape(h // 2, 2, w // 2, 2, c).mean((1, 3))


def normalised(x, groups=2):
    grouped = x.reshape(*x.shape[:2], groups, -1)
    mean, variance = grouped.mean((0, 1, 3), keepdims=True), grouped.var((0, 1, 3), keepdims=True)
    return ((grouped - mean) / jnp.sqrt(variance + 1e-3)).reshape(x.shape)


def random_weights(dtype, width=4):
    shapes = ((3, 3, 3, width), (3, 3, width, width), (3, 3, width, width), (3, 3, width, 3))
    keys = jax.random.split(jax.random.key(0), 4)
    return [jax.random.normal(k, s, dtype) / (9 * s[2]) ** 0.5 for k, s in zip(keys, shapes, strict=True)]


def images(dtype):
    a, b = 0.5 * jax.random.normal(jax.random.key(1), (2, SIZE), dtype)
    return a, b


@pytest.fixture(scope="module")
def solved():
    metric = SteinMetric(FunctionScore(unet, random_weights(jnp.float32), shape=SHAPE), 0.5)
    return metric, geodesic(metric, *images(jnp.float32), solver=SpectralNewton(**SETTINGS))


def test_one_reshape_at_the_door(solved):
    """Flattening by hand gives the same score, and the metric sees flat points alone."""
    metric, result = solved
    x, _ = images(jnp.float32)
    by_hand = unet(x.reshape(SHAPE), random_weights(jnp.float32)).reshape(-1)
    np.testing.assert_allclose(metric.score(x), by_hand, atol=1e-6)
    assert result.points.shape == (65, SIZE)
    assert result.points.dtype == jnp.float32
    assert result.result == RESULTS.successful
    assert float(result.length) > 1.01 * float(jnp.linalg.norm(result.points[-1] - result.points[0]))


@pytest.mark.parametrize("settings", [{"batch_size": 3}, {"checkpoint": True}], ids=["batch_size", "checkpoint"])
def test_memory_settings_change_nothing(solved, settings):
    metric, result = solved
    other = dist(metric, *images(jnp.float32), solver=SpectralNewton(**SETTINGS, **settings))
    np.testing.assert_allclose(other, result.length, rtol=2e-5)


def test_batch_size_bounds_the_memory():
    """Fewer points side by side, and recomputation, need less: read from the compiled program."""
    metric = SteinMetric(FunctionScore(unet, random_weights(jnp.float32, width=16), shape=SHAPE), 0.5)

    def megabytes(**settings):
        solver = SpectralNewton(**SETTINGS, continuation=0, **settings)
        solve = jax.jit(lambda m, x, y: dist(m, x, y, solver=solver, throw=False))
        return solve.lower(metric, *images(jnp.float32)).compile().memory_analysis().temp_size_in_bytes / 2**20

    assert megabytes(batch_size=2, checkpoint=True) < 0.7 * megabytes()


def test_bfloat16_network():
    """The network computes in bfloat16, the geometry in float32: the length is right to the network's precision."""
    weights = [w.astype(jnp.bfloat16) for w in random_weights(jnp.float32)]
    coarse = SteinMetric(FunctionScore(unet, weights, shape=SHAPE, dtype=jnp.bfloat16), 0.5)
    fine = SteinMetric(FunctionScore(unet, random_weights(jnp.float32), shape=SHAPE), 0.5)
    solver = SpectralNewton(rtol=2e-2, path_rtol=1.0, tolerance=3e-2, max_elements=1, degree=8)
    ends = images(jnp.float32)
    length = dist(coarse, *ends, solver=solver)
    assert length.dtype == jnp.float32
    np.testing.assert_allclose(length, dist(fine, *ends, solver=solver), rtol=1e-2)


def test_gradient_with_respect_to_the_weights():
    x, y = images(jnp.float32)

    def length(scale):
        weights = [w * scale for w in random_weights(jnp.float32)]
        score = FunctionScore(lambda image: unet(image, weights), shape=SHAPE)
        return dist(SteinMetric(score, 0.5), x, y, solver=SpectralNewton(**SETTINGS, checkpoint=True))

    both, h = jax.jit(jax.value_and_grad(length)), 1e-2
    slope = (both(1.0 + h)[0] - both(1.0 - h)[0]) / (2 * h)
    np.testing.assert_allclose(both(1.0)[1], slope, rtol=2e-2)


def test_bad_shapes():
    with pytest.raises(ValueError, match=r"`x` must have 192 entries for `shape` \(8, 8, 3\), got shape \(4,\)"):
        log(SteinMetric(FunctionScore(lambda x: -x, shape=SHAPE)), jnp.zeros(4), jnp.ones(4))
    with pytest.raises(
        ValueError, match=r"`score` must return shape \(2, 2\) for a point of shape \(2, 2\), got \(4,\)"
    ):
        FunctionScore(lambda x: x.reshape(-1), shape=(2, 2))(jnp.ones(4))
    with pytest.raises(ValueError, match="`shape` must be a tuple of positive integers"):
        FunctionScore(lambda x: x, shape=(2, -1))
    with pytest.raises(TypeError, match="`dtype` must be a floating-point type"):
        FunctionScore(lambda x: x, dtype=jnp.int32)
