"""Conditions: they matter, "no condition" is one thing however it is said, and errors name them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from scoregeo.diffusion import MLP, Denoiser, DiT, Potential, UNet
from scoregeo.diffusion.networks.conditioning import drop_condition
from scoregeo.diffusion.training.losses import denoising_target

KINDS = {
    "MLP": lambda **kw: MLP(16, width=8, depth=2, **kw),
    "UNet": lambda **kw: UNet((4, 4, 1), width=4, multipliers=(1,), blocks=1, **kw),
    "DiT": lambda **kw: DiT((4, 4, 1), patch=2, width=8, depth=1, heads=2, **kw),
}
kinds = pytest.mark.parametrize("kind", KINDS)
POINT, LEVEL = jnp.asarray(np.random.default_rng(5).normal(size=16)), jnp.array(0.3)
VECTOR = jnp.array([0.5, -1.0, 2.0])


@functools.cache
def make(kind, dtype=jnp.float64, **settings):
    """A network with random weights everywhere: the zeros of new layers would hide mistakes."""
    # From shapes alone: the initialisers of a U-Net take seconds to compile.
    graphdef, state = nnx.split(nnx.eval_shape(lambda: KINDS[kind](key=jax.random.key(0), dtype=dtype, **settings)))
    rng = np.random.default_rng(0)

    def random(path, leaf):
        values = rng.normal(size=leaf.shape) * (0.3 if leaf.ndim < 2 else np.prod(leaf.shape[:-1]) ** -0.5)
        return jnp.asarray(values + ("scale" in jax.tree_util.keystr(path)), dtype)

    return nnx.merge(graphdef, jax.tree_util.tree_map_with_path(random, state))


wrapped = pytest.mark.parametrize(
    ("kind", "wrap"), [*((kind, lambda net: net) for kind in KINDS), ("MLP", Potential), ("DiT", Potential)]
)


@pytest.mark.slow
@wrapped
def test_labels(kind, wrap):
    net = wrap(make(kind, classes=3))
    outputs = jax.jit(jax.vmap(net, in_axes=(None, None, 0)))(POINT, LEVEL, jnp.array([0, 1, 2, -1, 3, -2]))
    size = np.linalg.norm(outputs[0])
    for i in range(4):
        for j in range(i):
            assert np.linalg.norm(outputs[i] - outputs[j]) > 0.01 * size  # every label and none of them
    np.testing.assert_allclose(jax.jit(net)(POINT, LEVEL), outputs[3], rtol=1e-10)
    # The last two are traced and out of range: not the values of some other label.
    assert np.isnan(outputs[4:]).all()


@pytest.mark.slow
@wrapped
def test_vectors(kind, wrap):
    net = wrap(make(kind, condition_dim=3))
    one = jax.jit(net)
    given, other = one(POINT, LEVEL, VECTOR), one(POINT, LEVEL, VECTOR + 0.1)
    zero, none = one(POINT, LEVEL, jnp.zeros(3)), one(POINT, LEVEL)
    size = np.linalg.norm(given)
    assert np.linalg.norm(given - other) > 1e-3 * size
    assert np.linalg.norm(zero - none) > 0.01 * size  # a vector of zeros is a condition like any other
    np.testing.assert_allclose(one(POINT, LEVEL, (VECTOR, True)), given, rtol=1e-10)
    np.testing.assert_allclose(one(POINT, LEVEL, (VECTOR, False)), none, rtol=1e-10)
    both = jax.jit(jax.vmap(net, in_axes=(None, None, 0)))(POINT, LEVEL, (jnp.stack([VECTOR] * 2), jnp.arange(2) > 0))
    np.testing.assert_allclose(both, [none, given], rtol=1e-10)


@pytest.mark.slow
@kinds
def test_the_output_is_smooth_in_the_vector(kind):
    net, v, h = make(kind, condition_dim=3), jnp.array([1.0, -2.0, 0.5]), 1e-5
    line = jax.jit(lambda t: net(POINT, LEVEL, VECTOR + t * v))
    slope = jax.jit(lambda: jax.jvp(line, (0.0,), (1.0,))[1])()
    np.testing.assert_allclose((line(h) - line(-h)) / (2 * h), slope, rtol=1e-6, atol=1e-8 * np.abs(slope).max())


@pytest.mark.slow
@kinds
def test_a_missing_vector_may_hold_nan(kind):
    """Neither the output nor the gradient of the weights sees it."""
    graphdef, weights = nnx.split(make(kind, condition_dim=3))

    @jax.jit
    @jax.grad
    def gradient(weights, vector):
        return jnp.sum(nnx.merge(graphdef, weights)(POINT, LEVEL, (vector, jnp.array(False))) ** 2)

    for a, b in zip(*(jax.tree.leaves(gradient(weights, v)) for v in (VECTOR, VECTOR * jnp.nan)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_dropped_conditions():
    drop = jnp.array([True, False, True])
    labels = drop_condition(np.array([0, 255, 7], np.uint8), drop)
    np.testing.assert_array_equal(labels, [-1, 255, -1])
    vectors, given = drop_condition(jnp.ones((3, 2)), drop)
    np.testing.assert_array_equal(vectors, 1)
    np.testing.assert_array_equal(given, [False, True, False])
    # Dropping what is partly missing already.
    np.testing.assert_array_equal(drop_condition((vectors, jnp.array([True, False, False])), drop)[1], False)
    assert jax.jit(drop_condition)(jnp.array(4), jnp.array(True)) == -1


def test_an_unsigned_label_is_not_mistaken_for_none():
    net = make("MLP", classes=256)
    np.testing.assert_array_equal(net(POINT, LEVEL, np.uint8(255)), net(POINT, LEVEL, 255))
    assert not np.allclose(net(POINT, LEVEL, np.uint8(255)), net(POINT, LEVEL))


@pytest.mark.slow
@kinds
@pytest.mark.parametrize("settings", [{"classes": 3}, {"condition_dim": 3}])
def test_types_follow_the_point(kind, settings):
    x = POINT.astype(jnp.float32)
    condition = 1 if "classes" in settings else np.array([1.0, 2.0, 3.0])  # float64, as NumPy makes it
    for compute in (None, jnp.bfloat16):
        net = make(kind, jnp.float32, compute_dtype=compute, **settings)
        shapes = [jax.eval_shape(net, x, jnp.float32(0.3), value) for value in (condition, None)]
        assert {shape.dtype for shape in shapes} == {jnp.dtype(jnp.float32)}
    exact, half = (
        jax.jit(make(kind, jnp.float32, compute_dtype=c, **settings))(x, jnp.float32(0.3), condition)
        for c in (None, jnp.bfloat16)
    )
    assert 1e-5 < np.linalg.norm(half - exact) / np.linalg.norm(exact) < 0.06


@kinds
@pytest.mark.parametrize("wrap", [lambda net: net, Potential])
def test_a_network_without_conditions_says_so(kind, wrap):
    with pytest.raises(ValueError, match=f"`condition` must be None: this {kind} takes no conditions"):
        wrap(make(kind))(POINT, LEVEL, 1)


@pytest.mark.parametrize(
    ("settings", "condition", "message"),
    [
        ({"classes": 3}, 3, "must be a label from 0 to 2, or -1 for no condition, got 3"),
        ({"classes": 3}, -2, "must be a label from 0 to 2, or -1 for no condition, got -2"),
        ({"classes": 3}, 1.0, r"must be an integer label of shape \(\), got shape \(\) and dtype float64"),
        ({"classes": 3}, True, r"must be an integer label of shape \(\), got shape \(\) and dtype bool"),
        ({"classes": 3}, jnp.arange(2), r"must be an integer label of shape \(\), got shape \(2,\)"),
        ({"classes": 3}, (1, True), r"must be an integer label of shape \(\), got a tuple"),
        ({"classes": 3}, np.ma.array(1, mask=True), "must have no masked entries, but 1 of 1 are masked"),
        ({"classes": 3}, np.array(2**32 + 1), f"must be a label from 0 to 2, or -1 for no condition, got {2**32 + 1}"),
        ({"condition_dim": 3}, 1, r"must be a vector of shape \(3,\), .* got shape \(\)"),
        ({"condition_dim": 3}, jnp.zeros(2), r"must be a vector of shape \(3,\), .* got shape \(2,\)"),
        (
            {"condition_dim": 3},
            (jnp.zeros(3), jnp.zeros(3)),
            r"must be a vector of shape \(3,\), .* got shape \(3,\) and \(3,\)",
        ),
    ],
)
def test_bad_conditions_are_named(settings, condition, message):
    net = make("MLP", **settings)
    with pytest.raises(ValueError, match="`condition` of this MLP " + message):
        net(POINT, LEVEL, condition)
    if not isinstance(condition, tuple):  # a constant is also checked where the rest is traced
        with pytest.raises(ValueError, match="`condition` of this MLP " + message):
            jax.jit(lambda x: net(x, LEVEL, condition))(POINT)


@pytest.mark.slow
def test_one_network_learns_the_score_with_and_without_the_class():
    """Two classes N(-1, 0.3^2) and N(1, 0.3^2), a third of the labels dropped: three exact scores to compare with."""
    graphdef, weights, rest = nnx.split(
        Denoiser(MLP(1, 32, 2, classes=2, key=jax.random.key(0)), 1.0, jnp.zeros(1, jnp.float32)), nnx.Param, ...
    )
    optimiser = optax.adam(optax.cosine_decay_schedule(1e-2, 800))

    def loss(weights, key):
        keys = jax.random.split(key, 5)
        labels = jax.random.randint(keys[0], (256,), 0, 2)
        points = 2.0 * labels[:, None] - 1 + 0.3 * jax.random.normal(keys[1], (256, 1), jnp.float32)
        noise = jax.random.normal(keys[2], (256, 1), jnp.float32)
        sigmas = jnp.exp(jax.random.uniform(keys[3], (256,), jnp.float32, jnp.log(0.3), jnp.log(2.0)))
        labels = drop_condition(labels, jax.random.bernoulli(keys[4], 1 / 3, (256,)))

        def one(point, noise, sigma, label):
            output = denoiser.network_output(point + sigma * noise, sigma, label)
            return jnp.mean((output - denoising_target(denoiser, point, noise, sigma)) ** 2)

        denoiser = nnx.merge(graphdef, weights, rest)
        return jnp.mean(jax.vmap(one)(points, noise, sigmas, labels))

    @jax.jit
    def train(weights):
        def step(state, key):
            weights, moments = state
            updates, moments = optimiser.update(jax.grad(loss)(weights, key), moments)
            return (optax.apply_updates(weights, updates), moments), None

        keys = jax.random.split(jax.random.key(1), 800)
        return jax.lax.scan(step, (weights, optimiser.init(weights)), keys)[0][0]

    denoiser = nnx.merge(graphdef, train(weights), rest)
    xs, sigma = np.linspace(-1.8, 1.8, 41), 0.6
    score = jax.jit(jax.vmap(lambda x, label: denoiser.score(x[None], jnp.float32(sigma), label)[0]))
    variance = 0.09 + sigma**2
    each = [-(xs - mean) / variance for mean in (-1, 1)]
    share = 1 / (1 + np.exp(-2 * xs / variance))
    exact = {0: each[0], 1: each[1], -1: (1 - share) * each[0] + share * each[1]}
    for label, expected in exact.items():
        learned = score(jnp.asarray(xs, jnp.float32), jnp.full(41, label))
        error = np.sqrt(np.mean((learned - expected) ** 2) / np.mean(expected**2))
        others = [np.sqrt(np.mean((learned - exact[other]) ** 2)) for other in exact if other != label]
        assert error < 0.12, label
        assert min(others) > 0.3
