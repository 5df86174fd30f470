"""Attention that costs as much as there are tokens, and networks of sequences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from scoregeo.diffusion import DiT, UNet
from scoregeo.diffusion.networks.attention import FORMS, SelfAttention
from scoregeo.diffusion.networks.registry import network_from_dict

WIDTH, HEADS, TOKENS = 8, 2, 5


def layer(form, seed=0, dtype=jnp.float64):
    return SelfAttention(WIDTH, HEADS, form, compute_dtype=None, dtype=dtype, rngs=nnx.Rngs(seed))


def by_hand(layer, x):
    """The equations of the module, token by token, in NumPy."""
    _, parts = FORMS[layer.form]
    size = WIDTH // HEADS
    projected = np.asarray(x @ layer.inputs.kernel[...]).reshape(len(x), parts, HEADS, size)

    def normalised(z, norm):
        return z / np.sqrt(np.mean(z**2, -1, keepdims=True) + norm.epsilon) * np.asarray(norm.scale[...])

    out = np.zeros((len(x), HEADS, size))
    for h in range(HEADS):
        q, k, v = (projected[:, part, h] for part in range(3))
        q, k = normalised(q, layer.query_norm), normalised(k, layer.key_norm)
        if layer.form == "focus":
            f = normalised(projected[:, 3, h], layer.focus_norm)
            w = np.array([np.exp(f[j] @ k[j] / np.sqrt(size)) for j in range(len(x))])
            w = w / w.sum()
            key, value = sum(w[j] * k[j] for j in range(len(x))), sum(w[j] * v[j] for j in range(len(x)))
            out[:, h] = [value / (1 + np.exp(-q[i] @ key / np.sqrt(size))) for i in range(len(x))]
            continue
        for i in range(len(x)):
            if layer.form == "softmax":
                w = np.exp(k @ q[i] / np.sqrt(size))
            else:
                w = np.log1p(np.exp(k)) @ np.log1p(np.exp(q[i]))
            out[i, h] = (w / w.sum()) @ v
    return out.reshape(len(x), WIDTH) @ np.asarray(layer.outputs.kernel[...]) + np.asarray(layer.outputs.bias[...])


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("dtype", "rtol"), [(jnp.float64, 1e-10), (jnp.float32, 2e-5)])
def test_forms_are_their_equations(form, dtype, rtol):
    attention = layer(form, dtype=dtype)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(TOKENS, WIDTH)), dtype)
    found = attention(x)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, by_hand(attention, np.asarray(x, np.float64)), rtol=rtol, atol=rtol)


@pytest.mark.parametrize("form", FORMS)
def test_tokens_have_no_order(form):
    attention = layer(form)
    x = jnp.asarray(np.random.default_rng(2).normal(size=(TOKENS, WIDTH)))
    order = np.random.default_rng(3).permutation(TOKENS)
    np.testing.assert_allclose(attention(x[order]), attention(x)[order], rtol=1e-12, atol=1e-14)


def flops(form, tokens):
    """Of a product with the Jacobian, as XLA counts them."""
    attention = layer(form, dtype=jnp.float32)
    x = jnp.ones((tokens, WIDTH), jnp.float32)
    compiled = jax.jit(lambda x, v: jax.jvp(attention, (x,), (v,))).lower(x, x).compile()
    return compiled.cost_analysis()["flops"]


@pytest.mark.parametrize("form", FORMS)
def test_work_grows_with_the_number_of_tokens(form):
    """And with its square for the softmax, so that the count can tell."""
    growth = flops(form, 2048) / flops(form, 512)
    assert growth > 10 if form == "softmax" else growth < 4.2


@pytest.mark.slow
@pytest.mark.parametrize("form", ["linear", "focus"])
def test_derivatives_of_a_network(form):
    """Second derivatives, which geodesics take, against central differences."""
    network = _random(DiT((1, 16, 2), 2, 16, 2, 2, attention=form, key=jax.random.key(0), dtype=jnp.float64), 1)
    random = np.random.default_rng(0)
    x, v, w = random.normal(size=(3, 32))

    @jax.jit
    def product(x):
        return jax.vjp(lambda y: network(y, jnp.array(0.1)), x)[1](w)[0]

    _, exact = jax.jvp(product, (x,), (v,))
    step = 1e-5
    np.testing.assert_allclose(exact, (product(x + step * v) - product(x - step * v)) / (2 * step), atol=1e-6)


def _random(network, seed):
    """The network with random weights everywhere: the zeros of a new one would hide mistakes."""
    graphdef, state = nnx.split(network)
    leaves, structure = jax.tree.flatten(state)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    leaves = [0.3 * jax.random.normal(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)]
    return nnx.merge(graphdef, jax.tree.unflatten(structure, leaves))


@pytest.mark.parametrize("kind", [DiT, pytest.param(UNet, marks=pytest.mark.slow)])
def test_sequences_are_images_of_one_row(kind):
    """A DiT's patch of a sequence has its tokens in order; convolutions of a sequence do not see beyond its ends."""
    n, c = 8, 3
    settings = (
        {"patch": 2, "width": 4, "depth": 1, "heads": 1}
        if kind is DiT
        else {"width": 4, "multipliers": (1, 2), "blocks": 1}
    )
    network = _random(kind((1, n, c), **settings, key=jax.random.key(0), dtype=jnp.float64), 4)
    assert network.dim == n * c
    x = jnp.asarray(np.random.default_rng(0).normal(size=n * c))
    out = jax.jit(network)(x, jnp.array(0.3))
    assert out.shape == (n * c,)
    jacobian = np.asarray(jax.jacfwd(lambda x: network(x, jnp.array(0.3)))(x))
    assert (np.abs(jacobian) > 0).all()  # every place sees every other one
    again = network_from_dict(network.to_dict(), key=jax.random.key(1), dtype=jnp.float64)
    assert again.to_dict() == network.to_dict()


def test_a_convolution_of_a_sequence_is_that_of_numpy():
    network = UNet((1, 10, 1), width=4, multipliers=(1,), blocks=1, key=jax.random.key(0), dtype=jnp.float64)
    x = np.random.default_rng(0).normal(size=10)
    kernel, bias = np.asarray(network.stem.kernel[...]), np.asarray(network.stem.bias[...])
    found = np.asarray(network.stem(jnp.asarray(x).reshape(1, 10, 1)))[0]
    for channel in range(4):
        expected = np.convolve(x, kernel[::-1, 0, channel], "same") + bias[channel]
        np.testing.assert_allclose(found[:, channel], expected, atol=1e-12)


def test_a_network_of_sequences_halves_and_doubles_along_them():
    from scoregeo.diffusion.networks.unet import _double, _halve

    x = jnp.arange(8.0).reshape(1, 8, 1)
    np.testing.assert_array_equal(_halve(x)[0, :, 0], [0.5, 2.5, 4.5, 6.5])
    np.testing.assert_array_equal(_double(_halve(x))[0, :, 0], [0.5, 0.5, 2.5, 2.5, 4.5, 4.5, 6.5, 6.5])


def test_models_of_before_keep_their_description():
    described = DiT((4, 4, 1), 2, 8, 1, 2, key=jax.random.key(0)).to_dict()
    assert "attention" not in described
    linear = DiT((4, 4, 1), 2, 8, 1, 2, attention="linear", key=jax.random.key(0))
    assert network_from_dict(linear.to_dict(), key=jax.random.key(0)).attention == "linear"


def test_bad_settings():
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="`attention` must be one of softmax, linear, focus, got 'quadratic'"):
        DiT((4, 4, 1), attention="quadratic", key=key)
    with pytest.raises(ValueError, match=r"`patch` must divide the length in `shape` \(1, 9, 1\), got 2"):
        DiT((1, 9, 1), 2, key=key)
    with pytest.raises(ValueError, match=r"`shape` must have a length divisible by 2.*\(1, 9, 1\)"):
        UNet((1, 9, 1), 8, (1, 2), key=key)
