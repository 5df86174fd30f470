"""The diffusion transformer against NumPy, its positions, and its settings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from oracles import randomised
from scipy.special import expit, softmax

from scoregeo.diffusion.networks.attention import SelfAttention
from scoregeo.diffusion.networks.conditioning import noise_features
from scoregeo.diffusion.networks.dit import DiT, positions

# The oracle: the same network from its description, with NumPy. `w` are named weights.


def silu(x):
    return x * expit(x)


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def linear(w, x):
    return x @ w["kernel"] + w.get("bias", 0)


def layer_norm(x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)


def attention(w, tokens, heads):
    queries, keys, values = np.split(linear(w["inputs"], tokens), 3, -1)
    result = []
    for q, k, v in zip(*(np.split(part, heads, -1) for part in (queries, keys, values)), strict=True):
        q = q / np.sqrt((q**2).mean(-1, keepdims=True) + 1e-6) * w["query_norm"]["scale"]
        k = k / np.sqrt((k**2).mean(-1, keepdims=True) + 1e-6) * w["key_norm"]["scale"]
        result.append(softmax(q @ k.T / np.sqrt(q.shape[1]), axis=1) @ v)
    return linear(w["outputs"], np.concatenate(result, -1))


def transformer(w, x, c_noise, shape, patch, heads):
    h, w_, c = shape
    image = x.reshape(shape)
    corners = [(i, j) for i in range(0, h, patch) for j in range(0, w_, patch)]
    tokens = np.stack([linear(w["stem"], image[i : i + patch, j : j + patch].reshape(-1)) for i, j in corners])
    tokens = tokens + positions(h // patch, w_ // patch, width=tokens.shape[1])
    embedding = w["embedding"]
    level = linear(embedding["first"], np.asarray(noise_features(jnp.array(c_noise))))
    level = silu(linear(embedding["second"], silu(level)))
    for i in range(len(w["layers"])):
        layer = w["layers"][i]
        scale, shift, gate, scale2, shift2, gate2 = np.split(linear(layer["level"], level), 6)
        tokens = tokens + gate * attention(layer["attention"], layer_norm(tokens) * (1 + scale) + shift, heads)
        inner = linear(layer["first"], layer_norm(tokens) * (1 + scale2) + shift2)
        tokens = tokens + gate2 * linear(layer["second"], gelu(inner))
    scale, shift = np.split(linear(w["level"], level), 2)
    output = np.empty(shape)
    for (i, j), values in zip(corners, linear(w["head"], layer_norm(tokens) * (1 + scale) + shift), strict=True):
        output[i : i + patch, j : j + patch] = values.reshape(patch, patch, c)
    return output.reshape(-1)


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "patch"), [((4, 6, 2), 2), ((3, 3, 1), 1), ((6, 3, 1), 3)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_the_network_is_that_of_its_docstring(shape, patch, dtype):
    net = randomised(DiT(shape, patch, width=8, depth=2, heads=2, key=jax.random.key(0), dtype=dtype), patch)
    weights = jax.tree.map(lambda a: np.asarray(a, np.float64), nnx.to_pure_dict(nnx.state(net)))
    x = np.random.default_rng(patch).normal(size=net.dim)
    c = np.asarray(0.3, dtype)
    expected = transformer(weights, x.astype(dtype).astype(float), c.astype(float), shape, patch, 2)
    tolerance = 1e-11 if dtype == jnp.float64 else 5e-5
    value = jax.jit(net)(jnp.asarray(x, dtype), jnp.asarray(c))
    np.testing.assert_allclose(value, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def test_positions_are_sines_and_cosines_of_row_and_column():
    rows, columns, width = 3, 5, 12
    expected = np.array(
        [
            [
                function(place * 10_000 ** (-k / 3))
                for place in (i, j)
                for function in (np.sin, np.cos)
                for k in range(3)
            ]
            for i in range(rows)
            for j in range(columns)
        ]
    )
    features = positions(rows, columns, width=width)
    np.testing.assert_allclose(features, expected, rtol=1e-12, atol=1e-14)
    gaps = np.linalg.norm(features[:, None] - features[None], axis=-1) + 9 * np.eye(15)
    assert gaps.min() > 0.5  # no two places look the same


def test_attention_logits_are_bounded_however_large_the_tokens():
    """Normalised queries and keys: scaling all tokens up does not make attention a hard choice."""
    layer = SelfAttention(8, 2, compute_dtype=None, dtype=jnp.float64, rngs=nnx.Rngs(0))
    tokens = jnp.asarray(np.random.default_rng(0).normal(size=(5, 8)))
    np.testing.assert_allclose(layer(1e6 * tokens) / 1e6, layer(1e3 * tokens) / 1e3, rtol=1e-4)


def test_a_new_block_changes_nothing():
    """adaLN-Zero: all gates start at zero, so that the tokens pass through."""
    net = DiT((4, 4, 1), width=8, depth=1, heads=2, key=jax.random.key(0))
    tokens = jnp.asarray(np.random.default_rng(0).normal(size=(4, 8)), jnp.float32)
    np.testing.assert_array_equal(net.layers[0](tokens, jnp.ones(8, jnp.float32)), tokens)


def test_number_of_weights():
    n, depth, patch_size = 16, 3, 2 * 2 * 3
    block = (n * 6 * n + 6 * n) + (3 * n * n + 2 * (n // 4) + n * n + n) + (n * 4 * n + 4 * n) + (4 * n * n + n)
    ends = (9 * n + n + n * n + n) + (patch_size * n + n) + (n * 2 * n + 2 * n) + (n * patch_size + patch_size)
    net = nnx.eval_shape(lambda: DiT((8, 8, 3), 2, n, depth, 4, key=jax.random.key(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(net))) == depth * block + ends


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shape": [8, 8]}, r"`shape` must be 3 of integers of at least 1, got \[8, 8\]"),
        ({"patch": 3}, r"`patch` must divide the height and the width of `shape` \(8, 8, 1\), got 3"),
        ({"patch": 0}, "`patch` must be an integer of at least 1, got 0"),
        ({"width": 6, "heads": 2}, "`width` must be a multiple of 4 .* got 6"),
        ({"width": 8, "heads": 3}, "`heads` must divide `width` 8, got 3"),
        ({"depth": True}, "`depth` must be an integer of at least 1, got True"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        DiT(**{"shape": (8, 8, 1), **settings}, key=jax.random.key(0))
