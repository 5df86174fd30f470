"""Networks: shapes, smoothness, the gradient field, and one trace for fresh weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from scoregeo.diffusion import MLP, Denoiser, Potential
from scoregeo.diffusion.networks import network_from_dict, noise_features
from scoregeo.scores import NetworkScore


@pytest.mark.parametrize("dim", [1, 2, 64])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("wrap", [lambda net: net, Potential])
def test_shape_and_type(dim, dtype, wrap, mlp):
    value = wrap(mlp(dim, dtype))(jnp.ones(dim, dtype), jnp.asarray(0.3, dtype))
    assert value.shape == (dim,)
    assert value.dtype == dtype
    assert (value != 0).all()


def test_a_new_mlp_outputs_zero():
    np.testing.assert_array_equal(MLP(2, key=jax.random.key(0))(jnp.ones(2), jnp.array(0.1)), 0)


def test_the_key_decides_the_weights():
    def first(seed):
        return MLP(2, key=jax.random.key(seed)).layers[0].kernel[...]

    np.testing.assert_array_equal(first(0), first(0))
    assert not np.allclose(first(0), first(1))


def test_noise_features_are_smooth_and_tell_levels_apart():
    c = jnp.linspace(-1.7, 1.2, 60)
    features = jax.vmap(noise_features)(c)
    assert features.shape == (60, 9)
    assert np.linalg.norm(np.diff(features, axis=0), axis=1).min() > 0.03
    np.testing.assert_allclose(features[:, 1:5] ** 2 + features[:, 5:] ** 2, 1, rtol=1e-12)


def test_the_network_sees_the_noise_level_in_every_layer(mlp):
    net, x = mlp(), jnp.array([0.3, -0.2, 0.5])
    for layer in range(net.depth):
        others = jax.tree.map(jnp.zeros_like, nnx.state(net.noise, nnx.Param))
        only = mlp()
        nnx.update(only.noise, others)
        only.noise[layer].kernel[...] = net.noise[layer].kernel[...]
        assert not np.allclose(only(x, jnp.array(-1.0)), only(x, jnp.array(1.0)))


def test_potential_is_the_gradient_by_finite_differences(mlp):
    potential, x, c, h = Potential(mlp()), jnp.array([0.3, -0.2, 0.5]), jnp.array(0.2), 1e-5
    differences = [
        (potential.potential(x + h * e, c) - potential.potential(x - h * e, c)) / (2 * h) for e in jnp.eye(3)
    ]
    np.testing.assert_allclose(potential(x, c), differences, rtol=1e-8)


def test_only_the_potential_has_a_symmetric_jacobian(mlp):
    x, c = jnp.array([0.3, -0.2, 0.5]), jnp.array(0.2)
    free, gradient = (np.asarray(jax.jacfwd(net)(x, c)) for net in (mlp(), Potential(mlp())))
    np.testing.assert_allclose(gradient, gradient.T, atol=1e-13)
    assert np.abs(free - free.T).max() > 0.01
    assert Potential.conservative
    assert not MLP.conservative


def test_the_jacobian_is_smooth(mlp):
    """The second derivative along a line is what finite differences of the first say: no kinks."""
    net, x, v, h = mlp(), jnp.array([0.3, -0.2, 0.5]), jnp.array([1.0, 2.0, -1.0]), 1e-5

    def slope(t):
        return jax.jvp(lambda y: net(y, jnp.array(0.2)), (x + t * v,), (v,))[1]

    second = jax.jvp(slope, (0.1,), (1.0,))[1]
    np.testing.assert_allclose(second, (slope(0.1 + h) - slope(0.1 - h)) / (2 * h), rtol=1e-6)


@pytest.mark.parametrize("wrap", [lambda net: net, Potential])
def test_description_builds_the_same_architecture(wrap, mlp):
    net = wrap(mlp())
    again = network_from_dict(net.to_dict(), key=jax.random.key(5), dtype=jnp.float64)
    (structure, weights), (structure_again, weights_again) = nnx.split(net), nnx.split(again)
    assert structure == structure_again
    assert jax.tree.map(jnp.shape, weights) == jax.tree.map(jnp.shape, weights_again)


@pytest.mark.parametrize("wrap", [lambda net: net, Potential])
def test_one_trace_for_weights_noise_levels_data_and_fresh_networks(wrap, mlp):
    traces = []

    @jax.jit
    def evaluate(score, x):
        traces.append(1)
        return score(x)

    values = [
        evaluate(NetworkScore(Denoiser(wrap(mlp(seed=seed)), sigma_data, jnp.full(3, mean)), sigma), jnp.ones(3))
        for seed, sigma_data, mean, sigma in [(0, 1.0, 0.0, 0.1), (1, 1.0, 0.0, 0.1), (1, 0.5, 0.2, 0.7)]
    ]
    assert len(traces) == 1
    assert not np.allclose(values[0], values[1])
    assert not np.allclose(values[1], values[2])


@pytest.mark.parametrize("bad", [{"dim": 0}, {"dim": 2.0}, {"width": -1}, {"depth": True}])
def test_bad_sizes_are_named(bad):
    (name,) = bad
    with pytest.raises(ValueError, match=f"`{name}` must be an integer of at least 1, got"):
        MLP(**{"dim": 2, **bad}, key=jax.random.key(0))


@pytest.mark.parametrize(
    "values", [None, {}, {"kind": "UNet"}, {"kind": "MLP", "dim": 2}, {"kind": "Potential", "net": None}]
)
def test_a_dictionary_that_is_no_network(values):
    with pytest.raises(ValueError, match="`network`"):
        network_from_dict(values, key=jax.random.key(0))
