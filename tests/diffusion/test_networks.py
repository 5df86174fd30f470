"""Networks: shapes, smoothness, the gradient field, precision, descriptions, and one trace for fresh weights."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from scoregeo.diffusion import MLP, Denoiser, DiT, Potential, UNet
from scoregeo.diffusion.networks.conditioning import noise_features
from scoregeo.diffusion.networks.registry import network_from_dict
from scoregeo.scores import NetworkScore

# One small network of each kind, for points of dimension 48 (images of 4 by 6 by 2).
KINDS = {
    "MLP": lambda **kw: MLP(48, width=16, depth=3, **kw),
    "UNet": lambda **kw: UNet((4, 6, 2), width=4, multipliers=(1, 2), blocks=1, attention=(4,), heads=2, **kw),
    "DiT": lambda **kw: DiT((4, 6, 2), patch=2, width=8, depth=2, heads=2, **kw),
}
kinds = pytest.mark.parametrize("kind", KINDS)
POINT = np.random.default_rng(5).normal(size=48)


@functools.cache
def make(kind, dtype=jnp.float64, seed=0, **settings):
    """A network with random weights everywhere: the zeros of new layers would hide mistakes."""
    # From shapes alone: the initialisers of a U-Net take seconds to compile.
    graphdef, state = nnx.split(nnx.eval_shape(lambda: KINDS[kind](key=jax.random.key(0), dtype=dtype, **settings)))
    rng = np.random.default_rng(seed)

    def random(path, leaf):
        values = rng.normal(size=leaf.shape) * (0.3 if leaf.ndim < 2 else np.prod(leaf.shape[:-1]) ** -0.5)
        return jnp.asarray(values + ("scale" in jax.tree_util.keystr(path)), dtype)

    return nnx.merge(graphdef, jax.tree_util.tree_map_with_path(random, state))


def weights_of(net):
    return nnx.to_pure_dict(nnx.state(net))


@pytest.mark.slow
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


@pytest.mark.slow
@kinds
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
@pytest.mark.parametrize("wrap", [lambda net: net, Potential])
def test_every_kind_maps_points_to_points_of_their_type(kind, dtype, wrap):
    """Whatever the types of weights and noise level."""
    x = jax.ShapeDtypeStruct((48,), dtype)
    for weights, level in [(jnp.float32, jnp.float32), (jnp.float64, jnp.float32), (jnp.float32, jnp.float64)]:
        value = jax.eval_shape(wrap(make(kind, weights)), x, level(0.3))
        assert (value.shape, value.dtype) == ((48,), dtype)


@pytest.mark.slow
@kinds
def test_every_new_network_outputs_zero_and_has_a_gradient_to_leave_it(kind):
    net, x = KINDS[kind](key=jax.random.key(0)), jnp.asarray(POINT, jnp.float32)
    graphdef, weights = nnx.split(net)

    def loss(weights):
        output = nnx.merge(graphdef, weights)(x, jnp.float32(0.3))
        return jnp.mean((output - 1) ** 2), output

    (_, output), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(weights)
    np.testing.assert_array_equal(output, 0)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert np.abs(jax.tree.leaves(gradient["head"])[0]).max() > 1e-3


@pytest.mark.slow
@kinds
def test_all_weights_take_part(kind):
    """No weight is left out of the computation: each one has a gradient (at weights that are not zero)."""
    graphdef, weights = nnx.split(make(kind))
    x, c = jnp.asarray(POINT), jnp.array(0.3)
    gradient = jax.jit(jax.grad(lambda w: jnp.vdot(nnx.merge(graphdef, w)(x, c), jnp.arange(48.0))))(weights)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.abs(leaf).max() > 1e-12, jax.tree_util.keystr(path)


@pytest.mark.slow
@kinds
@pytest.mark.parametrize(("wrap", "seed"), [(lambda net: net, 0), (Potential, 1)])
def test_derivatives_are_those_of_finite_differences(kind, wrap, seed):
    """First and second derivatives along a line: no kinks anywhere near."""
    net, x, c = wrap(make(kind, seed=seed)), jnp.asarray(POINT), jnp.array(0.2)
    v, h = jnp.asarray(np.random.default_rng(seed).normal(size=48)), 1e-5

    def line(t):
        return net(x + t * v, c)

    def slope(t):
        return jax.jvp(line, (t,), (1.0,))[1]

    values, slopes = (jax.jit(jax.vmap(f))(jnp.array([-h, h])) for f in (line, slope))
    first, second = jax.jit(lambda t: jax.jvp(slope, (t,), (1.0,)))(0.0)
    scale = np.abs(first).max(), np.abs(second).max()
    np.testing.assert_allclose((values[1] - values[0]) / (2 * h), first, rtol=1e-6, atol=1e-6 * scale[0])
    np.testing.assert_allclose((slopes[1] - slopes[0]) / (2 * h), second, rtol=1e-5, atol=1e-5 * scale[1])


@pytest.mark.slow
@kinds
def test_the_potential_of_every_kind_has_a_symmetric_jacobian(kind):
    x, c = jnp.asarray(POINT), jnp.array(0.2)
    free, gradient = (np.asarray(jax.jit(jax.jacfwd(net))(x, c)) for net in (make(kind), Potential(make(kind))))
    scale = np.abs(gradient).max()
    np.testing.assert_allclose(gradient, gradient.T, rtol=0, atol=1e-12 * max(1, scale))
    assert np.abs(free - free.T).max() > 0.01 * np.abs(free).max()


@pytest.mark.slow
@kinds
def test_every_kind_sees_the_noise_level(kind):
    outputs = jax.jit(jax.vmap(make(kind), in_axes=(None, 0)))(jnp.asarray(POINT), jnp.linspace(-1.6, 1.1, 8))
    steps = np.linalg.norm(np.diff(outputs, axis=0), axis=1)
    assert steps.min() > 0.01 * np.linalg.norm(outputs[0])


@pytest.mark.slow
@kinds
def test_vmap_is_the_loop(kind):
    net, rng = make(kind), np.random.default_rng(0)
    xs, cs = jnp.asarray(rng.normal(size=(3, 48))), jnp.asarray(rng.normal(size=3))
    one = jax.jit(net)
    np.testing.assert_allclose(jax.jit(jax.vmap(net))(xs, cs), [one(x, c) for x, c in zip(xs, cs, strict=True)], 1e-9)


@pytest.mark.slow
@kinds
def test_single_precision_agrees_with_double(kind):
    net, x = make(kind, jnp.float32), jnp.asarray(POINT, jnp.float32)
    exact = jax.jit(net)(x.astype(jnp.float64), jnp.float64(0.25))
    np.testing.assert_allclose(jax.jit(net)(x, jnp.float32(0.25)), exact, rtol=0, atol=3e-5 * np.abs(exact).max())


@pytest.mark.slow
@kinds
@pytest.mark.parametrize("wrap", [lambda net: net, Potential])
def test_bfloat16_is_close_and_keeps_the_types(kind, wrap):
    single = wrap(make(kind, jnp.float32))
    half = wrap(make(kind, jnp.float32, compute_dtype=jnp.bfloat16))
    x = jnp.asarray(POINT, jnp.float32)
    expected, value = jax.jit(single)(x, jnp.float32(0.3)), jax.jit(half)(x, jnp.float32(0.3))
    assert value.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(weights_of(half))} == {jnp.dtype(jnp.float32)}
    error = np.linalg.norm(value - expected) / np.linalg.norm(expected)
    assert 1e-5 < error < 0.1  # 8 bits a step; and it is used at all


@kinds
def test_points_in_bfloat16_stay_so(kind):
    x = jnp.asarray(POINT, jnp.bfloat16)
    value, expected = (jax.jit(make(kind, jnp.float32))(y, jnp.float32(0.3)) for y in (x, x.astype(jnp.float32)))
    assert value.dtype == jnp.bfloat16
    np.testing.assert_array_equal(value, expected.astype(jnp.bfloat16))


@pytest.mark.slow
@kinds
@pytest.mark.parametrize("settings", [{}, {"classes": 3, "compute_dtype": "bfloat16"}, {"condition_dim": 5}])
@pytest.mark.parametrize("wrap", [lambda net: net, Potential])
def test_every_description_goes_through_json(kind, settings, wrap):
    net = nnx.eval_shape(lambda: wrap(KINDS[kind](key=jax.random.key(1), dtype=jnp.float64, **settings)))
    described = json.loads(json.dumps(net.to_dict()))
    again = nnx.eval_shape(lambda: network_from_dict(described, key=jax.random.key(2), dtype=jnp.float64))
    (structure, weights), (structure_again, weights_again) = nnx.split(net), nnx.split(again)
    assert again.to_dict() == net.to_dict()
    assert structure == structure_again
    assert hash(structure) == hash(structure_again)
    assert jax.tree.map(jnp.shape, weights) == jax.tree.map(jnp.shape, weights_again)


def test_a_description_of_an_older_model_still_builds():
    net = network_from_dict({"kind": "MLP", "dim": 2, "width": 8, "depth": 1}, key=jax.random.key(0))
    assert sorted(weights_of(net)) == ["head", "layers", "noise"]


@pytest.mark.slow
@kinds
def test_one_trace_for_fresh_networks_of_every_kind(kind):
    traces = []

    @jax.jit
    def evaluate(score, x):
        traces.append(1)
        return score(x)

    x = jnp.asarray(POINT)
    values = [evaluate(NetworkScore(Denoiser(make(kind, seed=seed), 1.0), 0.1 + seed), x) for seed in (0, 1)]
    assert len(traces) == 1
    assert not np.allclose(*values)


@kinds
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classes": 0}, "`classes` must be an integer of at least 1, got 0"),
        ({"condition_dim": 2.0}, "`condition_dim` must be an integer of at least 1, got 2.0"),
        ({"classes": 2, "condition_dim": 3}, "one must be None, got 2 and 3"),
        ({"compute_dtype": "int32"}, "`compute_dtype` must be None or a floating-point type"),
        ({"compute_dtype": "nonsense"}, "`compute_dtype` must be None or a floating-point type"),
    ],
)
def test_shared_settings_are_checked(kind, settings, message):
    with pytest.raises(ValueError, match=message):
        KINDS[kind](key=jax.random.key(0), **settings)


@kinds
def test_a_point_of_the_wrong_shape_is_named(kind):
    for shape in [(47,), (1, 48), (4, 6, 2)]:
        with pytest.raises(ValueError, match=r"`x` must have shape \(48,\), got .*use jax.vmap"):
            make(kind)(jnp.zeros(shape), jnp.array(0.1))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "UNET"}, r"one of \['MLP', 'UNet', 'DiT', 'Potential'\], got {'kind': 'UNET'}"),
        ({"kind": "DiT", "shape": [4, 4, 1]}, r"`network` of kind DiT must have \['depth', .* got \['shape'\]"),
        (
            {"kind": "MLP", "dim": 2, "width": 4, "depth": 1, "heads": 2},
            r"may have \['classes', 'compute_dtype', 'condition_dim'\], got .*'heads'",
        ),
        ({"kind": "MLP", "dim": 2, "width": 4, "depth": "1"}, "`depth` must be an integer"),
    ],
)
def test_errors_of_descriptions_say_what_is_wrong(values, message):
    with pytest.raises(ValueError, match=message):
        network_from_dict(values, key=jax.random.key(0))
