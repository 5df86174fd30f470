"""The U-Net against NumPy and SciPy, its settings, and that it learns."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from oracles import randomised
from scipy.signal import correlate2d
from scipy.special import expit, softmax

from scoregeo.diffusion import Denoiser, denoising_loss
from scoregeo.diffusion.networks.conditioning import noise_features
from scoregeo.diffusion.networks.unet import UNet, _group_norm

# The oracle: the same network from its description in the docstring, with NumPy and SciPy. `w` are named weights.


def silu(x):
    return x * expit(x)


def linear(w, x):
    return x @ w["kernel"] + w.get("bias", 0)


def convolve(w, x):
    kernel = w["kernel"]
    return w["bias"] + np.stack(
        [
            sum(correlate2d(x[..., i], kernel[:, :, i, o], mode="same") for i in range(kernel.shape[2]))
            for o in range(kernel.shape[3])
        ],
        -1,
    )


def group_norm(w, x, groups):
    parts = [(p - p.mean()) / np.sqrt(p.var() + 1e-5) for p in np.split(x, groups, -1)]
    return np.concatenate(parts, -1) * w["scale"] + w["bias"]


def attention(w, tokens, heads):
    queries, keys, values = np.split(linear(w["inputs"], tokens), 3, -1)
    result = []
    for q, k, v in zip(*(np.split(part, heads, -1) for part in (queries, keys, values)), strict=True):
        q = q / np.sqrt((q**2).mean(-1, keepdims=True) + 1e-6) * w["query_norm"]["scale"]
        k = k / np.sqrt((k**2).mean(-1, keepdims=True) + 1e-6) * w["key_norm"]["scale"]
        result.append(softmax(q @ k.T / np.sqrt(q.shape[1]), axis=1) @ v)
    return linear(w["outputs"], np.concatenate(result, -1))


def block(w, x, level, groups, heads):
    """``groups(channels)`` is the number of groups of the normalisation."""
    scale, shift = np.split(linear(w["level"], level), 2)
    h = convolve(w["first"], silu(group_norm(w["first_norm"], x, groups(x.shape[-1]))))
    h = group_norm(w["second_norm"], h, groups(h.shape[-1])) * (1 + scale) + shift
    h = convolve(w["second"], silu(h))
    h = ((convolve(w["skip"], x) if "skip" in w else x) + h) / np.sqrt(2)
    if "attention" in w:
        tokens = group_norm(w["attention_norm"], h, groups(h.shape[-1])).reshape(-1, h.shape[-1])
        h = (h + attention(w["attention"], tokens, heads).reshape(h.shape)) / np.sqrt(2)
    return h


def two_levels(w, x, c_noise, heads):
    """Shape (4, 6, 2), width 4, multipliers (1, 2), one block for each resolution."""

    def groups(channels):
        return {4: 1, 8: 2, 12: 3, 16: 4}[channels]

    features = np.asarray(noise_features(jnp.array(c_noise)))
    level = silu(linear(w["embedding"]["second"], silu(linear(w["embedding"]["first"], features))))
    stem = convolve(w["stem"], x.reshape(4, 6, 2))
    first = block(w["down"][0], stem, level, groups, heads)
    means = (first[::2, ::2] + first[1::2, ::2] + first[::2, 1::2] + first[1::2, 1::2]) / 4
    halved = convolve(w["down"][1]["convolution"], means)
    second = block(w["down"][2], halved, level, groups, heads)
    h = block(w["middle"][1], block(w["middle"][0], second, level, groups, heads), level, groups, heads)
    h = block(w["up"][0], np.concatenate([h, second], -1), level, groups, heads)
    h = block(w["up"][1], np.concatenate([h, halved], -1), level, groups, heads)
    h = convolve(w["up"][2]["convolution"], np.kron(h, np.ones((2, 2, 1))))
    h = block(w["up"][3], np.concatenate([h, first], -1), level, groups, heads)
    h = block(w["up"][4], np.concatenate([h, stem], -1), level, groups, heads)
    return convolve(w["head"], silu(group_norm(w["norm"], h, groups(4)))).reshape(-1)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
@pytest.mark.parametrize("dtype", [pytest.param(jnp.float32, marks=pytest.mark.slow), jnp.float64])
def test_the_network_is_that_of_its_docstring(seed, dtype):
    net = UNet((4, 6, 2), 4, (1, 2), 1, attention=(4,), heads=2, key=jax.random.key(seed), dtype=dtype)
    net = randomised(net, seed)
    weights = jax.tree.map(lambda a: np.asarray(a, np.float64), nnx.to_pure_dict(nnx.state(net)))
    x = np.random.default_rng(seed).normal(size=48)
    expected = two_levels(weights, x.astype(dtype).astype(float), np.asarray(0.3 + seed, dtype).astype(float), 2)
    value = jax.jit(net)(jnp.asarray(x, dtype), jnp.asarray(0.3 + seed, dtype))
    tolerance = 1e-11 if dtype == jnp.float64 else 5e-5
    np.testing.assert_allclose(value, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def test_groups_never_hold_a_single_number():
    for channels in (4, 6, 8, 12, 40, 128, 136, 320):
        norm = _group_norm(channels, compute_dtype=None, dtype=jnp.float32, rngs=nnx.Rngs(0))
        assert channels % norm.num_groups == 0
        assert norm.num_groups <= 32
        assert channels // norm.num_groups >= 4
        assert not norm.use_fast_variance


@pytest.mark.parametrize(("width", "multipliers", "blocks"), [(4, (1,), 1), (8, (1, 2), 1), (4, (1, 1, 2), 2)])
def test_number_of_weights(width, multipliers, blocks):
    """Counted from the architecture, layer by layer."""
    features, channels = 4 * width, [width * m for m in multipliers]

    def of_block(a, b):
        return 2 * a + 9 * a * b + b + 2 * features * b + 2 * b + 2 * b + 9 * b * b + b + (a != b) * (a * b + b)

    def of_attention(b):
        return 2 * b + 3 * b * b + 2 * b + b * b + b

    expected = 9 * features + features + features**2 + features
    expected += 9 * 2 * width + width + 2 * width + 9 * width * 2 + 2  # stem, last normalisation, head: 2 channels
    last = channels[-1]
    expected += 2 * of_block(last, last) + of_attention(last)
    skipped, now = [width], width
    for i, b in enumerate(channels):
        if i:
            expected += 9 * now * now + now
            skipped.append(now)
        for _ in range(blocks):
            expected += of_block(now, b)
            now = b
            skipped.append(b)
    for i in reversed(range(len(channels))):
        for _ in range(blocks + 1):
            expected += of_block(now + skipped.pop(), channels[i])
            now = channels[i]
        if i:
            expected += 9 * now * now + now
    net = nnx.eval_shape(lambda: UNet((8, 8, 2), width, multipliers, blocks, key=jax.random.key(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(net))) == expected


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(8, 8, 1), (8, 16, 3), (12, 4, 1), (32, 32, 3)])
def test_images_of_any_divisible_shape(shape):
    net = nnx.eval_shape(lambda: UNet(shape, width=8, key=jax.random.key(0)))
    assert net.dim == np.prod(shape)
    x = jax.ShapeDtypeStruct((net.dim,), jnp.float32)
    assert jax.eval_shape(lambda net, x: net(x, jnp.float32(0.1)), net, x).shape == (net.dim,)


@pytest.mark.slow
def test_every_pixel_reaches_every_pixel():
    """At the lowest resolution, the middle block looks everywhere."""
    net = randomised(UNet((8, 8, 1), 4, (1, 2), 1, key=jax.random.key(0), dtype=jnp.float64))
    x = jnp.asarray(np.random.default_rng(0).normal(size=64))
    jacobian = np.abs(jax.jit(jax.jacfwd(net))(x, jnp.array(0.2)))
    assert jacobian.min() > 1e-9


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shape": (8, 8)}, r"`shape` must be 3 of integers of at least 1, got \(8, 8\)"),
        ({"shape": (8, 8, 0)}, "`shape` must be"),
        ({"shape": (8, 6, 1)}, r"`shape` must have a height and a width divisible by 4, because 3 .*\(8, 6, 1\)"),
        ({"shape": (6, 8, 1)}, "`shape` must have a height and a width divisible by 4"),
        ({"width": 3}, "`width` must be an integer of at least 4, got 3"),
        ({"multipliers": ()}, "`multipliers` must have at least one entry"),
        ({"multipliers": (1, 0)}, "`multipliers` must be a sequence of integers of at least 1"),
        ({"multipliers": 2}, "`multipliers` must be a sequence of integers of at least 1, got 2"),
        ({"blocks": 0}, "`blocks` must be an integer of at least 1"),
        ({"attention": (16,)}, r"`attention` must name heights of feature maps, \[8, 4, 2\], got \[16\]"),
        ({"attention": 4}, "`attention` must be a sequence"),
        ({"heads": 3}, r"`heads` must divide the channels where blocks attend, \[16\], got 3"),
        ({"heads": 16, "attention": (8,)}, r"`heads` must divide the channels where blocks attend, \[8\], got 16"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        UNet(**{"shape": (8, 8, 1), "width": 8, **settings}, key=jax.random.key(0))


@pytest.mark.slow
def test_it_learns_a_handful_of_images():
    """Sixty steps on eight images: the loss falls from 1 (a network of zeros) to a third of it."""
    rows, columns = jnp.meshgrid(jnp.linspace(-1, 1, 8), jnp.linspace(-1, 1, 8), indexing="ij")
    turns = jnp.arange(8) * jnp.pi / 4
    images = jnp.stack([jnp.sign(jnp.cos(t) * rows + jnp.sin(t) * columns + 0.1).ravel() for t in turns])
    images = images.astype(jnp.float32)
    net = UNet((8, 8, 1), 8, (1, 2), 1, key=jax.random.key(0))
    graphdef, weights, rest = nnx.split(Denoiser(net, 1.0, images.mean(0)), nnx.Param, ...)
    optimiser = optax.adam(1e-2)

    def loss(weights, key):
        which, level, noise = jax.random.split(key, 3)
        points = images[jax.random.randint(which, (16,), 0, 8)]
        sigmas = jnp.exp(jax.random.uniform(level, (16,), jnp.float32, jnp.log(0.2), jnp.log(2.0)))
        noise = jax.random.normal(noise, points.shape, jnp.float32)
        denoiser = nnx.merge(graphdef, weights, rest)
        return jnp.mean(jax.vmap(denoising_loss, in_axes=(None, 0, 0, 0))(denoiser, points, noise, sigmas))

    @jax.jit
    def train(weights):
        def step(carry, key):
            weights, moments = carry
            value, gradient = jax.value_and_grad(loss)(weights, key)
            updates, moments = optimiser.update(gradient, moments)
            return (optax.apply_updates(weights, updates), moments), value

        return jax.lax.scan(step, (weights, optimiser.init(weights)), jax.random.split(jax.random.key(1), 60))[1]

    losses = np.asarray(train(weights))
    assert 0.8 < losses[0] < 1.3
    assert np.mean(losses[-10:]) < 0.35
