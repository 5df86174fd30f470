"""Networks of flax linen, flax nnx and equinox as they are: the same score, distance and gradient as the function that
they compute, and one program for new weights."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from helpers import X, Y, network, programs_of

from scoregeo import FunctionScore, GraphMetric, NetworkScore, PullbackMetric, SpectralNewton, SteinMetric, dist

WIDTH = 8


class LinenNet(linen.Module):
    @linen.compact
    def __call__(self, x):
        hidden = linen.Dense(WIDTH, use_bias=False, name="first", param_dtype=x.dtype)(x)
        return linen.Dense(x.size, use_bias=False, name="last", param_dtype=x.dtype)(jnp.tanh(hidden)) - x

    def score(self, x):
        return self(x)


class NNXNet(nnx.Module):
    def __init__(self, w, u):
        self.w, self.u, self.activation = nnx.Param(w), nnx.Param(u), jnp.tanh

    def __call__(self, x):
        return self.activation(x @ self.w[...]) @ self.u[...] - x


class NNXNoiseNet(NNXNet):
    def score(self, x, noise_level):
        return self(x) * noise_level


class EqxNet(eqx.Module):
    w: jax.Array
    u: jax.Array
    name: str
    scale: float

    def __call__(self, x):
        return self.scale * jnp.tanh(x @ self.w) @ self.u - x

    def method(self, x):
        return self(x)


def variables(w, u):
    return {"params": {"first": {"kernel": w}, "last": {"kernel": u}}}


LINEN = LinenNet()
# From the weights of `helpers.network` to the same function in another library.
KINDS = {
    "function": lambda w, u: FunctionScore(network, w, u),
    "linen": lambda w, u: FunctionScore(LINEN.apply, variables(w, u)),
    "linen module": lambda w, u: FunctionScore(LinenNet(), variables(w, u)),
    "linen method": lambda w, u: FunctionScore(LINEN.score, variables(w, u)),
    "linen jit": lambda w, u: FunctionScore(jax.jit(LINEN.apply), variables(w, u)),
    "linen bound": lambda w, u: FunctionScore(LINEN.bind(variables(w, u))),
    "linen partial": lambda w, u: FunctionScore(functools.partial(LINEN.apply, variables(w, u))),
    "nnx": lambda w, u: FunctionScore(NNXNet(w, u)),
    "nnx method": lambda w, u: FunctionScore(NNXNet(w, u).__call__),
    "nnx network": lambda w, u: NetworkScore(NNXNoiseNet(w, u), 1.0),
    "equinox": lambda w, u: FunctionScore(EqxNet(w, u, "net", 1.0)),
    "equinox method": lambda w, u: FunctionScore(EqxNet(w, u, "net", 1.0).method),
    "equinox argument": lambda w, u: FunctionScore(lambda_of_network, {"net": EqxNet(w, u, "net", 1.0)}),
    "equinox numpy": lambda w, u: FunctionScore(EqxNet(np.asarray(w), np.asarray(u), "net", 1.0)),
    "partial": lambda w, u: FunctionScore(functools.partial(network, w=w, u=u)),
}


def lambda_of_network(x, nets):
    return nets["net"](x)


def weights(seed, d, dtype=jnp.float64):
    keys = jax.random.split(jax.random.key(seed), 2)
    return jax.random.normal(keys[0], (d, WIDTH), dtype) / d**0.5, jax.random.normal(keys[1], (WIDTH, d), dtype) / 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("d", "dtype"), [(1, np.float64), (2, np.float32), (2, np.float64), (100, np.float64)])
def test_same_score_and_jacobian(kind, d, dtype):
    """The Jacobians are not symmetric: curl comes through too."""
    w, u = weights(0, d, dtype)
    score, twin = KINDS[kind](w, u), KINDS["function"](w, u)
    xs = jax.random.normal(jax.random.key(1), (3, d), dtype)
    found, expected = (jax.vmap(s)(xs) for s in (score, twin))
    assert found.dtype == dtype
    error = 1e-12 if dtype == np.float64 else 1e-5
    np.testing.assert_allclose(found, expected, rtol=error, atol=error)
    jacobians = [jax.jacrev(s)(xs[0]) for s in (score, twin)]
    np.testing.assert_allclose(*jacobians, rtol=error, atol=error)
    assert d == 1 or np.abs(jacobians[0] - jacobians[0].T).max() > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_new_weights_do_not_compile_again(kind):
    traces = 0

    @jax.jit
    def program(score, x):
        nonlocal traces
        traces += 1
        return score(x)

    for seed in range(3):
        w, u = weights(seed, 2)
        np.testing.assert_allclose(program(KINDS[kind](w, u), X), network(X, w, u), rtol=1e-12)
    assert traces == 1


@jax.jit
def distance(score, x, y):
    quick = SpectralNewton(rtol=1e-2, path_rtol=1.0, degree=8, max_elements=1)
    return jax.value_and_grad(lambda x, score: dist(SteinMetric(score), x, y, solver=quick), (0, 1))(x, score)


@functools.cache
def bare_distances():
    return [distance(KINDS["function"](*weights(seed, 2)), X, Y) for seed in (0, 1)]


def transposed(x, w, u):
    """`network` with its matrices as equinox keeps them."""
    return u @ jnp.tanh(w @ x) - x


@pytest.mark.parametrize("kind", ["linen", "linen bound", "nnx", "nnx network", "equinox layers"])
def test_compiled_programs_do_the_same_work(kind):
    """Not one operation more than the function that the network computes."""

    def counts(score):
        xs = jnp.ones((16, 64))
        program = jax.jit(jax.vmap(lambda score, x: score(x), (None, 0))).lower(score, xs).compile()
        return program.cost_analysis()["flops"], program.as_text().count(" = ")

    w, u = weights(0, 64)
    if kind == "equinox layers":
        layers = [eqx.nn.Linear(*w.shape, use_bias=False, key=jax.random.key(0)) for w in (w, u)]
        layers = [eqx.tree_at(lambda n: n.weight, n, w.T) for n, w in zip(layers, (w, u), strict=True)]
        found = FunctionScore(lambda x, net: net[1](jnp.tanh(net[0](x))) - x, layers)
        expected = FunctionScore(transposed, w.T, u.T)
    else:
        found, expected = KINDS[kind](w, u), KINDS["function"](w, u)
    if kind == "nnx network":  # whose network multiplies by the noise level
        expected = FunctionScore(lambda x, w, u, level: network(x, w, u) * level, w, u, 1.0)
    assert counts(found) == counts(expected)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "function"])
def test_same_distance_and_gradient_from_one_program(kind):
    traces = 0

    @jax.jit
    def program(score, x, y):
        nonlocal traces
        traces += 1
        return distance(score, x, y)

    for seed, (value, (at_x, at_weights)) in enumerate(bare_distances()):
        found, (found_x, found_weights) = program(KINDS[kind](*weights(seed, 2)), X, Y)
        np.testing.assert_allclose(found, value, rtol=1e-12)
        np.testing.assert_allclose(found_x, at_x, rtol=1e-12, atol=1e-12)
        # The derivatives with respect to the matrices, in whatever order a library keeps them.
        sizes = [
            np.sort(np.concatenate([np.abs(np.ravel(a)) for a in jax.tree.leaves(tree) if a.ndim == 2]))
            for tree in (found_weights, at_weights)
        ]
        np.testing.assert_allclose(*sizes, rtol=1e-10, atol=1e-12)
    assert traces == 1


@pytest.mark.slow
def test_geodesics_do_not_compile_again():
    """Outside of a program of the user's: what the library compiles itself."""
    from scoregeo.geodesics.solve import _solve

    def compiled(kind, seed):
        dist(SteinMetric(KINDS[kind](*weights(seed, 2))), X, Y)
        return programs_of(_solve)

    for kind in ("linen", "linen bound", "nnx", "equinox"):
        assert compiled(kind, 0) == compiled(kind, 1)


@pytest.mark.parametrize("metric", [PullbackMetric, GraphMetric])
def test_decoders_and_features_of_linen(metric):
    """Other metrics of functions take variables in the same way."""
    w, u = weights(0, 2)
    found, expected = (metric(LINEN.apply, variables(w, u)), metric(network, w, u))
    np.testing.assert_allclose(found.feature(jnp.asarray(X)), expected.feature(jnp.asarray(X)), rtol=1e-12)


# --- What is refused, and what is said then ---------------------------------------------------------------------------


class Dropping(nnx.Module):
    def __init__(self, rate=0.5):
        self.layers = nnx.List([nnx.Linear(2, 2, rngs=nnx.Rngs(0)), nnx.Dropout(rate, rngs=nnx.Rngs(1))])

    def __call__(self, x, noise_level=1.0):
        return self.layers[1](self.layers[0](x)) * noise_level


class Normalising(nnx.Module):
    def __init__(self):
        self.norm = nnx.BatchNorm(2, rngs=nnx.Rngs(0))

    def __call__(self, x, noise_level=1.0):
        return self.norm(x) * noise_level


@pytest.mark.parametrize("module", [Dropping, Normalising])
@pytest.mark.parametrize("make", [lambda net: NetworkScore(net, 1.0), FunctionScore, SteinMetric])
def test_training_mode_is_refused(module, make):
    net = module()
    with pytest.raises(ValueError, match=r"must be in evaluation mode, but its \w+ is in training mode.*module.eval()"):
        make(net)
    net.eval()
    score = make(net)
    score = score.score if isinstance(score, SteinMetric) else score
    np.testing.assert_allclose(score(jnp.asarray(X)), net(jnp.asarray(X)), rtol=1e-6)


@pytest.mark.parametrize("make", [FunctionScore, SteinMetric])
def test_training_mode_of_equinox_is_refused(make):
    linear = eqx.nn.Linear(2, 2, key=jax.random.key(0))
    net = eqx.nn.Sequential([linear, eqx.nn.Dropout(0.5)])
    with pytest.raises(ValueError, match=r"its Dropout is in training mode.* `eqx.nn.inference_mode\(module\)`"):
        make(net)
    score = make(eqx.nn.inference_mode(net))
    score = score.score if isinstance(score, SteinMetric) else score
    np.testing.assert_allclose(score(jnp.asarray(X)), linear(jnp.asarray(X)), rtol=1e-6)
    FunctionScore(eqx.nn.Sequential([linear, eqx.nn.Dropout(0.0)]))


def test_dropout_of_nothing_is_taken():
    assert NetworkScore(Dropping(0.0), 1.0)(jnp.asarray(X)).shape == (2,)


class FakeTorchModule:
    """As `torch.nn.Module` looks from outside: torch is not installed where these tests run."""

    def forward(self, x):
        return x

    __call__ = forward


FakeTorchModule.__module__ = "torch.nn.modules.module"


class TorchNet(FakeTorchModule):
    pass


@pytest.mark.parametrize(
    "make",
    [
        FunctionScore,
        SteinMetric,
        PullbackMetric,
        lambda net: FunctionScore(net.forward),
        lambda net: NetworkScore(net, 1.0),
    ],
)
def test_modules_of_pytorch_are_sent_to_the_adapter(make):
    with pytest.raises(TypeError, match=r"got a \w+ of PyTorch: `scoregeo.adapters.torch` makes one of it"):
        make(TorchNet())


POINT, NORM = jnp.zeros(2), linen.BatchNorm(use_running_average=False)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: FunctionScore(LINEN.apply)(POINT),
            TypeError,
            r"LinenNet is a flax linen module without its variables",
        ),
        (lambda: FunctionScore(LINEN)(POINT), TypeError, r"FunctionScore\(net.apply, variables\)"),
        (
            lambda: FunctionScore(LINEN.apply, variables(*weights(0, 2))["params"])(POINT),
            TypeError,
            r"LinenNet needs variables as `net.init` returned them, .* got a mapping of \['first', 'last'\]",
        ),
        (
            lambda: FunctionScore(linen.Dropout(0.5, deterministic=False).apply, {})(POINT),
            TypeError,
            "Dropout draws random numbers, so that it is no function of the point: make it deterministic",
        ),
        (
            lambda: FunctionScore(NORM.apply, NORM.init(jax.random.key(0), POINT[None]))(POINT),
            TypeError,
            "BatchNorm is in training mode, where it changes its variables: make it normalise by its averages",
        ),
        (lambda: NetworkScore(LINEN, 1.0), TypeError, "must be a flax nnx.Module, got LinenNet: .* FunctionScore"),
        (
            lambda: NetworkScore(NNXNet(*weights(0, 2)), 1.0),
            TypeError,
            r"`module` must take \(x, noise_level\), but for a NNXNet: .* FunctionScore\(module\)",
        ),
        (lambda: FunctionScore(lambda x, mode: x, "mean"), TypeError, "`args` must hold numbers.*got 'mean'"),
        (lambda: FunctionScore(lambda x: (x, x))(POINT), TypeError, "got a tuple of 2: give a function that returns"),
        (lambda: FunctionScore(lambda x: {"s": x})(POINT), TypeError, "got a dict of 1"),
        (lambda: FunctionScore(lambda x: None)(POINT), TypeError, "must return an array of shape .*, got NoneType"),
        (lambda: FunctionScore(lambda x: x[None])(POINT), ValueError, r"got \(1, 2\): a batch of one point"),
        (lambda: FunctionScore(lambda x: x[:1])(POINT), ValueError, r"for a point of shape \(2,\), got \(1,\)$"),
        (lambda: FunctionScore("net"), TypeError, "`fn` must be callable, got str"),
    ],
)
def test_messages(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_list_of_numbers_is_one_array():
    assert FunctionScore(lambda x: [x[0], -x[1]])(jnp.asarray(X)).tolist() == [-1.0, -0.5]
