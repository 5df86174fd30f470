"""Graph, score Jacobian, pullback, stacked and inverse Stein metrics against matrices made by hand.

Nothing of the library enters the reference values: features and their Jacobians are written with jax.numpy here.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import MODES, network

from scoregeo import (
    DensityScore,
    EuclideanMetric,
    FunctionScore,
    GaussianScore,
    GraphMetric,
    InverseSteinMetric,
    KernelDensityScore,
    NetworkScore,
    PullbackMetric,
    ScoreJacobianMetric,
    SpectralNewton,
    StackedSteinMetric,
    SteinMetric,
    dist,
    geodesic,
)
from scoregeo.metrics import (
    GraphInnerProduct,
    as_low_rank_update,
    at_least_identity,
    lagrangian_acceleration,
    scale,
)

LAM, LEVEL, FLOOR = 3.0, 0.8, 0.3


def weights(d, seed=0, width=7):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(d, width)) / np.sqrt(d), rng.normal(size=(width, d)) / np.sqrt(width)


def height(x):
    return jnp.sum(jnp.sin(1.3 * x)) + 0.4 * x[0] * jnp.sum(x)


def three(x):
    return jnp.stack([height(x), jnp.cos(x @ x / x.size), x[-1] ** 3])


def image(x):
    return jnp.concatenate([x + 0.1 * x**3, jnp.sin(x), jnp.exp(0.3 * x)])


def log_density(x):
    return -jnp.sum(x**2) / 2 - jnp.sum(x**4) / 8 + height(x)


def jacobian_matrix(feature, lam, floor=1.0):
    def matrix(x):
        rows = jax.jacfwd(lambda y: jnp.atleast_1d(feature(y)))(x)
        return floor * jnp.eye(x.size) + lam * rows.T @ rows

    return matrix


def outer(s):
    return s[:, None] * s


def fields(d):
    """name: (metric, its matrix by hand), the scores with curl."""
    one, two = weights(d), weights(d, 1)

    def s(x):
        return network(x, *one)

    def t(x):
        return network(x, *two)

    score = FunctionScore(network, *one)
    return {
        "scalar": (GraphMetric(height, strength=LAM), jacobian_matrix(height, LAM)),
        "three values": (GraphMetric(three, strength=LAM), jacobian_matrix(three, LAM)),
        "many values": (GraphMetric(image, strength=LAM), jacobian_matrix(image, LAM)),
        "score Jacobian": (ScoreJacobianMetric(score, LEVEL, LAM), jacobian_matrix(s, LAM * LEVEL**4)),
        "pullback": (PullbackMetric(image), jacobian_matrix(image, 1.0, 0.0)),
        "pullback, floor": (PullbackMetric(three, floor=FLOOR), jacobian_matrix(three, 1.0, FLOOR)),
        "stacked": (
            StackedSteinMetric([score, FunctionScore(network, *two), DensityScore(log_density)], [LAM, 0.5, 0.2]),
            lambda x: jnp.eye(d) + LAM * outer(s(x)) + 0.5 * outer(t(x)) + 0.2 * outer(jax.grad(log_density)(x)),
        ),
        "inverse": (InverseSteinMetric(score, LAM), lambda x: jnp.linalg.inv(jnp.eye(d) + LAM * outer(s(x)))),
        "inverse, gradient": (
            InverseSteinMetric(DensityScore(log_density), LAM),
            lambda x: jnp.linalg.inv(jnp.eye(d) + LAM * outer(jax.grad(log_density)(x))),
        ),
    }


def points(d, seed, n=3):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(n, 2, d)))


def acceleration_by_hand(matrix, x, v):
    """-G^-1 Gamma_lij v^i v^j with Gamma of the first kind from the derivatives of G."""
    dg = jax.jacfwd(matrix)(x)
    lower = jnp.einsum("ijl,l,j->i", dg, v, v) - 0.5 * jnp.einsum("ijl,i,j->l", dg, v, v)
    return -jnp.linalg.solve(matrix(x), lower)


@pytest.mark.slow
@pytest.mark.parametrize("d", [2, 5, 20])
def test_acceleration(d):
    table = fields(d)
    library = jax.jit(lambda x, v: {name: metric.acceleration(x, v) for name, (metric, _) in table.items()})
    reference = jax.jit(lambda x, v: {name: acceleration_by_hand(g, x, v) for name, (_, g) in table.items()})
    for x, v in points(d, d):
        found, expected = library(x, v), reference(x, v)
        for name, value in expected.items():
            scaled = 1e-9 * float(jnp.abs(value).max())
            np.testing.assert_allclose(found[name], value, rtol=0, atol=scaled, err_msg=name)


@pytest.mark.slow
def test_algebra():
    d = 4
    table = fields(d)

    @jax.jit
    def library(x, v):
        def one(at):
            roots = at.sqrt_mv(at.sqrt_mv(v)), at.inv_sqrt_mv(at.inv_sqrt_mv(v))
            return at.mv(v), at.squared_norm(v), at.solve(v), at.logdet(d), at.matrix(d), *roots

        return {name: one(metric.at(x)) for name, (metric, _) in table.items()}

    by_hand = jax.jit(lambda x: {name: matrix(x) for name, (_, matrix) in table.items()})
    for x, v in points(d, d):
        found, matrices = library(x, v), by_hand(x)
        for name, matrix in matrices.items():
            g = np.asarray(matrix)
            product, inverse = g @ v, np.linalg.solve(g, v)
            expected = product, v @ product, inverse, np.linalg.slogdet(g)[1], g, product, inverse
            for a, b in zip(found[name], expected, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.slow
def test_one_dimension():
    x, v = jnp.array([0.7]), jnp.array([1.3])
    table = fields(1)
    found = jax.jit(lambda x, v: {name: (m.at(x).solve(v), m.acceleration(x, v)) for name, (m, _) in table.items()})(
        x, v
    )
    by_hand = jax.jit(lambda x, v: {name: jax.jvp(matrix, (x,), (v,)) for name, (_, matrix) in table.items()})(x, v)
    for name, (matrix, slope) in by_hand.items():
        expected = v / matrix[0], -slope[0] * v / (2 * matrix[0])
        for a, b in zip(found[name], expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, err_msg=name)


@pytest.mark.slow
def test_high_dimension_by_products_alone():
    d = 150
    score = FunctionScore(network, *weights(d))
    metric = ScoreJacobianMetric(score, LEVEL, LAM)
    x, v = points(d, 0)[0]
    matrix = jacobian_matrix(lambda y: network(y, *weights(d)), LAM * LEVEL**4)(x)
    np.testing.assert_allclose(metric.at(x).solve(v), jnp.linalg.solve(matrix, v), rtol=1e-9, atol=1e-10)
    # Lagrange's equation shares only the solve.
    np.testing.assert_allclose(metric.acceleration(x, v), lagrangian_acceleration(metric, x, v), rtol=1e-8, atol=1e-9)
    program = str(jax.make_jaxpr(metric.acceleration)(x, v))
    assert f"[{d},7]" in program  # the weights
    assert f"[{d},{d}]" not in program


def test_structure():
    x = jnp.array([0.3, -0.2, 0.5, 1.0])
    table = fields(4)
    products = {name: jax.eval_shape(metric.at, x) for name, (metric, _) in table.items()}
    low_rank = {name for name, product in products.items() if jax.eval_shape(as_low_rank_update, product) is not None}
    assert low_rank == {"scalar", "three values", "pullback, floor", "stacked"}
    above = {name for name, product in products.items() if at_least_identity(product)}
    assert above == {"scalar", "three values", "many values", "score Jacobian", "stacked"}


@pytest.mark.parametrize("name", ["three values", "many values"])
def test_scaled_and_added(name):
    x = jnp.array([0.3, -0.2, 0.5, 1.0])
    metric, matrix = fields(4)[name]
    joined = metric + 0.5 * ScoreJacobianMetric(lambda x: jnp.sin(x), 1.0, LAM) + EuclideanMetric()

    @jax.jit
    def values(x):
        sine = jnp.diag(0.5 * (1 + LAM * jnp.cos(x) ** 2))
        pairs = (scale(metric.at(x), 2.5), 2.5 * matrix(x)), (joined.at(x), matrix(x) + sine + jnp.eye(4))
        return [((at.matrix(4), at.solve(x), at.logdet(4), at.squared_norm(x)), g) for at, g in pairs]

    assert isinstance(joined.at(x), GraphInnerProduct)
    for found, g in values(x):
        expected = g, np.linalg.solve(g, x), np.linalg.slogdet(g)[1], x @ g @ x
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_equals_stein():
    score = KernelDensityScore(jnp.asarray(MODES), 0.5)
    graph, stein = GraphMetric(lambda x, s: s.log_prob(x), score, strength=2.0), SteinMetric(score, 2.0)

    @jax.jit
    def values(x, v):
        at = [metric.at(x) for metric in (graph, stein)]
        rows = [(a.matrix(2), a.mv(v), a.solve(v), a.logdet(), a.squared_norm(v)) for a in at]
        return [*zip(*rows, strict=True), (graph.acceleration(x, v), stein.acceleration(x, v))]

    for x, v in points(2, 3, 5):
        for one, other in values(x, v):
            np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_stacked_and_inverse_of_one_score():
    score = FunctionScore(network, *weights(3))
    stein, stacked, inverse = (
        SteinMetric(score, LAM),
        StackedSteinMetric([score], [LAM]),
        InverseSteinMetric(score, LAM),
    )
    for x, v in points(3, 4):
        np.testing.assert_allclose(stacked.acceleration(x, v), stein.acceleration(x, v), rtol=1e-12)
        np.testing.assert_allclose(inverse.at(x).mv(stein.at(x).mv(v)), v, rtol=1e-12)
        np.testing.assert_allclose(inverse.at(x).logdet(), -jnp.log1p(LAM * score(x) @ score(x)), rtol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_gaussian_distance(seed):
    """The score of a Gaussian is linear: d = |(I + lam sigma^4 Sigma^-2)^(1/2) (x - y)|."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(4, 4))
    cov = a @ a.T / 4 + 0.2 * np.eye(4)
    x, y = rng.normal(size=(2, 4))
    metric = ScoreJacobianMetric(GaussianScore(jnp.zeros(4), jnp.asarray(cov)), 0.6, 50.0)
    precision = np.linalg.inv(cov)
    exact = np.sqrt((x - y) @ (np.eye(4) + 50.0 * 0.6**4 * precision @ precision) @ (x - y))
    np.testing.assert_allclose(dist(metric, x, y), exact, rtol=1e-8)


@pytest.mark.slow
def test_closed_over_arrays_have_derivatives():
    x, y = jnp.array([0.3, -0.2]), jnp.array([0.5, 0.9])
    solver = SpectralNewton(max_elements=1, continuation=0, adaptations=0)

    def length(a):
        return dist(GraphMetric(lambda z: a * z[0] ** 2, strength=1.0), x, y, solver=solver)

    def length_of_argument(a):
        return dist(GraphMetric(lambda z, a: a * z[0] ** 2, a, strength=1.0), x, y, solver=solver)

    slopes = jax.grad(length)(1.5), jax.grad(length_of_argument)(1.5)
    np.testing.assert_allclose(*slopes, rtol=1e-9)
    assert slopes[0] > 0.01


def test_new_numbers_compile_once():
    traces = []

    def feature(x, a):
        traces.append(1)
        return a * jnp.sin(x)

    @eqx.filter_jit
    def product(metric, x):
        return metric.at(x).mv(x)

    x = jnp.ones(3)
    score = FunctionScore(feature, 2.0)
    product(GraphMetric(feature, 2.0, strength=1.0), x)
    product(ScoreJacobianMetric(score, 0.5, 1.0), x)
    before = len(traces)
    product(GraphMetric(feature, 3.0, strength=0.5), x)
    product(ScoreJacobianMetric(FunctionScore(feature, 1.0), 0.7, 2.0), x)
    assert len(traces) == before


@pytest.mark.slow
def test_single_precision():
    names = ("three values", "many values", "score Jacobian", "stacked", "inverse")
    table = {name: metric for name, (metric, _) in fields(3).items() if name in names}

    @jax.jit
    def values(x, v):
        return {name: (m.at(x).mv(v), m.at(x).solve(v), m.acceleration(x, v)) for name, m in table.items()}

    x, v = points(3, 0)[0]
    single, double = values(x.astype(jnp.float32), v.astype(jnp.float32)), values(x, v)
    for a, b in zip(jax.tree.leaves(single), jax.tree.leaves(double), strict=True):
        assert a.dtype == jnp.float32
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


class Known(nnx.Module):
    def __call__(self, x, noise_level):
        return -x / noise_level**2


def test_noise_level():
    x = jnp.array([1.0, 2.0])
    known = NetworkScore(Known(), 0.5)
    np.testing.assert_allclose(ScoreJacobianMetric(known, strength=3.0).at(x).matrix(2), 4 * np.eye(2), rtol=1e-12)
    assert ScoreJacobianMetric(known, 0.5).noise_level == 0.5
    with pytest.raises(ValueError, match=r"`noise_level` must be that of the score, 0.5, or left out, got 0.7"):
        ScoreJacobianMetric(known, 0.7)
    with pytest.raises(ValueError, match="`noise_level` is missing: a FunctionScore does not know"):
        ScoreJacobianMetric(lambda x: -x)
    for wrong in (0.0, -1.0):
        with pytest.raises(ValueError, match=f"`noise_level` must be positive, got {wrong}"):
            ScoreJacobianMetric(lambda x: -x, wrong)
    with pytest.raises(ValueError, match="`noise_level` must be finite"):
        ScoreJacobianMetric(lambda x: -x, np.nan)
    with pytest.raises(ValueError, match=r"`noise_level` must be a scalar, got shape \(2,\)"):
        ScoreJacobianMetric(lambda x: -x, [1.0, 2.0])


@pytest.mark.parametrize(
    "make",
    [
        lambda value: GraphMetric(height, strength=value),
        lambda value: ScoreJacobianMetric(lambda x: -x, 1.0, value),
        lambda value: InverseSteinMetric(lambda x: -x, value),
        lambda value: SteinMetric(lambda x: -x, value),
    ],
)
def test_wrong_strengths(make):
    with pytest.raises(ValueError, match=r"`strength` must be non-negative, got -1\.0"):
        make(-1.0)
    with pytest.raises(ValueError, match="`strength` must be finite"):
        make(np.inf)
    with pytest.raises(ValueError, match=r"`strength` must be a scalar, got shape \(2,\)"):
        make([1.0, 2.0])
    x = jnp.ones(2)
    assert jnp.all(jnp.isnan(jax.jit(lambda value: make(value).at(x).mv(x))(-1.0)))


def test_wrong_arguments():
    with pytest.raises(ValueError, match="`floor` must be non-negative"):
        PullbackMetric(image, floor=-0.1)
    with pytest.raises(ValueError, match="`scores` must hold at least one score"):
        StackedSteinMetric([], [])
    with pytest.raises(ValueError, match=r"`strengths` must have shape \(1,\), one for each score, got \(2,\)"):
        StackedSteinMetric([lambda x: -x], [1.0, 2.0])
    with pytest.raises(ValueError, match=r"`strengths` must be non-negative, got -2\.0"):
        StackedSteinMetric([lambda x: -x] * 2, [1.0, -2.0])
    with pytest.raises(TypeError, match="`feature` must be callable, got int"):
        GraphMetric(3)
    with pytest.raises(TypeError, match="`score` must be an AbstractScore"):
        ScoreJacobianMetric(3, 1.0)


def test_wrong_features():
    x, y = jnp.array([-1.0, 0.5]), jnp.array([1.0, 0.5])
    for feature in (lambda x: x[:, None] * x, lambda x: x[:0]):
        with pytest.raises(ValueError, match=r"`feature` must return a scalar or shape \(m,\)"):
            dist(GraphMetric(feature), x, y)
    with pytest.raises(TypeError, match="`feature` must return real numbers, got dtype complex128"):
        dist(GraphMetric(lambda x: 1j * x), x, y)
    with pytest.raises(ValueError, match=r"`score` must return shape \(2,\)"):
        dist(ScoreJacobianMetric(lambda x: x[:1], 1.0), x, y)
    # The logarithm of a negative number is NaN, and its derivative is not.
    with pytest.raises(ValueError, match="1 of its 1 values are not at x = "):
        dist(GraphMetric(lambda x: jnp.log(x[0])), x, y)


@pytest.mark.slow
def test_not_finite_between_the_end_points():
    x, y = jnp.array([-1.0, 0.5]), jnp.array([1.0, 0.5])
    between = GraphMetric(lambda x: jnp.log(x[0] ** 2 - 0.25))
    path = geodesic(between, x, y, solver=SpectralNewton(max_elements=1, continuation=0), throw=False)
    assert "NaN" in str(path) or "nan" in str(path)
    assert jnp.isnan(between.at(jnp.zeros(2)).squared_norm(x))
