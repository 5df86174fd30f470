"""Accelerations, Christoffel symbols and inner products against their definitions, worked out here from the matrix G.

The geodesic equation is x''^k = -Gamma^k_ij v^i v^j with Gamma from the derivatives of G (do Carmo, ch. 2). Nothing of
the library enters the reference values: scores, metric matrices and Christoffel symbols are written by hand below.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scoregeo import (
    DensityScore,
    EuclideanMetric,
    FunctionScore,
    GaussianMixtureScore,
    GaussianScore,
    MatrixMetric,
    SteinMetric,
    christoffels,
    models,
    shoot,
)

STRENGTHS = (0.1, 1.0, 100.0)
HIDDEN = 12


# Fields written by hand: a non-gradient network, and a smooth function with its gradient.
def mlp(x, params):
    w1, b1, w2, b2 = params
    return w2 @ jnp.tanh(w1 @ x + b1) + b2


def smooth(x, params):
    w1, b1, a, _ = params
    return jnp.sum(a * jnp.sin(w1 @ x + b1)) - 0.25 * jnp.sum(x**2)


def smooth_gradient(x, params):
    w1, b1, a, _ = params
    return w1.T @ (a * jnp.cos(w1 @ x + b1)) - 0.5 * x


def network_params(seed, d):
    rng = np.random.default_rng(seed)
    w1 = rng.normal(size=(HIDDEN, d)) / np.sqrt(d)
    return w1, rng.normal(size=HIDDEN), rng.normal(size=(d, HIDDEN)) / np.sqrt(HIDDEN), 0.3 * rng.normal(size=d)


def smooth_params(seed, d):
    w1, b1, _, b2 = network_params(seed, d)
    return w1, b1, np.random.default_rng(seed + 100).normal(size=HIDDEN), b2


# name: (library score, the same field by hand, parameters)
FIELDS = {
    "density": (lambda p: DensityScore(smooth, p), smooth_gradient, smooth_params),
    "gradient": (lambda p: FunctionScore(smooth_gradient, p, conservative=True), smooth_gradient, smooth_params),
    "gradient, general": (lambda p: FunctionScore(smooth_gradient, p), smooth_gradient, smooth_params),
    "network": (lambda p: FunctionScore(mlp, p), mlp, network_params),
}


def christoffels_by_hand(matrix, x):
    """Gamma^k_ij = 1/2 G^kl (d_i G_lj + d_j G_li - d_l G_ij)."""
    dg = jax.jacfwd(matrix)(x)  # dg[i, j, l] = d_l G_ij
    lower = 0.5 * (jnp.einsum("lji->lij", dg) + jnp.einsum("lij->lij", dg) - jnp.einsum("ijl->lij", dg))
    return jnp.einsum("kl,lij->kij", jnp.linalg.inv(matrix(x)), lower)


def acceleration_by_hand(matrix, x, v):
    """The same contraction with v before the solve, which loses fewer digits: -G^-1 Gamma_lij v^i v^j."""
    dg = jax.jacfwd(matrix)(x)
    lower = jnp.einsum("ijl,l,j->i", dg, v, v) - 0.5 * jnp.einsum("ijl,i,j->l", dg, v, v)
    return -jnp.linalg.solve(matrix(x), lower)


def stein_matrix(field, params, strength):
    def matrix(x):
        s = field(x, params)
        return jnp.eye(x.size, dtype=x.dtype) + strength * s[:, None] * s[None, :]

    return matrix


@functools.cache
def accelerations(name):
    """Compiled once per field and shape: the library's acceleration and the reference, over a batch."""
    score, field, _ = FIELDS[name]

    @jax.jit
    @jax.vmap
    def library(params, strength, x, v):
        return SteinMetric(score(params), strength).acceleration(x, v)

    @jax.jit
    @jax.vmap
    def reference(params, strength, x, v):
        return acceleration_by_hand(stein_matrix(field, params, strength), x, v)

    return library, reference


def stein_batch(name, d, seeds=range(4)):
    """All seeds crossed with all strengths, stacked along the first axis."""
    batch = []
    for seed in seeds:
        rng = np.random.default_rng(1000 + seed)
        for strength in STRENGTHS:
            batch.append((FIELDS[name][2](seed, d), np.float64(strength), rng.normal(size=d), rng.normal(size=d)))
    return jax.tree.map(lambda *leaves: np.stack(leaves), *batch)


def relative_error(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.max(np.linalg.norm(a - b, axis=-1) / np.linalg.norm(b, axis=-1))


@pytest.mark.slow
@pytest.mark.parametrize("d", [2, 8, 32])
@pytest.mark.parametrize("name", FIELDS)
def test_stein_acceleration_is_minus_the_christoffel_contraction(name, d):
    """x''^k = -Gamma^k_ij v^i v^j with Gamma from autodiff of I + lam s s^T, strengths 0.1, 1, 100, four seeds."""
    library, reference = accelerations(name)
    batch = stein_batch(name, d)
    assert relative_error(library(*batch), reference(*batch)) < 1e-10


@pytest.mark.parametrize("name", ["density", "network"])
def test_stein_acceleration_in_float32(name):
    library, reference = accelerations(name)
    # Rounded first: the two see the same numbers.
    single = jax.tree.map(np.float32, stein_batch(name, 8))
    double = jax.tree.map(np.float64, single)
    value = library(*single)
    assert value.dtype == jnp.float32
    assert relative_error(value, reference(*double)) < 1e-4


def test_acceleration_is_quadratic_in_the_velocity():
    library, _ = accelerations("network")
    params, strength, x, v = stein_batch("network", 8)
    once = np.asarray(library(params, strength, x, v))
    np.testing.assert_allclose(library(params, strength, x, -3 * v), 9 * once, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(library(params, strength, x, 0 * v), 0 * v)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_conservative_formula_is_wrong_for_a_field_with_curl(seed):
    """Without the curl term -lam (s.v) G^-1 (J - J^T) v the acceleration is another one (docs/mathematics.md).

    That term is G-orthogonal to v, because J - J^T is antisymmetric: leaving it out changes where the path goes but not
    its speed, so that a constant speed does not certify a geodesic.
    """
    library, reference = accelerations("network")
    batch = stein_batch("network", 8, [seed])
    wrong = jax.vmap(
        lambda p, lam, x, v: SteinMetric(FunctionScore(mlp, p, conservative=True), lam).acceleration(x, v)
    )(*batch)
    right = library(*batch)
    assert relative_error(right, reference(*batch)) < 1e-10
    for params, strength, x, v, difference, expected in zip(*map(unstack, (*batch, wrong - right, right)), strict=True):
        jacobian, s = np.asarray(jax.jacfwd(mlp)(x, params)), np.asarray(mlp(x, params))
        g = np.eye(8) + strength * np.outer(s, s)
        curl = strength * (s @ v) * np.linalg.solve(g, (jacobian - jacobian.T) @ v)
        np.testing.assert_allclose(difference, curl, rtol=1e-9, atol=1e-9 * np.linalg.norm(curl))
        assert np.linalg.norm(curl) > 0.05 * np.linalg.norm(expected)
        assert abs(v @ g @ curl) < 1e-10 * np.sqrt((v @ g @ v) * (curl @ g @ curl))

    params, _, x, v = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), batch)
    v = 2 * v / jnp.linalg.norm(v)
    ends = []
    for conservative in (False, True):
        path = flow(SteinMetric(FunctionScore(mlp, params, conservative=conservative), 1.0), x, v)
        s = np.asarray(jax.vmap(mlp, (0, None))(path.points, params))
        velocities = np.asarray(path.velocities)
        speed2 = np.sum(velocities**2, 1) + np.sum(s * velocities, 1) ** 2  # <v, v>_G by hand
        assert np.abs(speed2 / speed2[0] - 1).max() < 1e-8
        ends.append(np.asarray(path.points[-1]))
    assert np.linalg.norm(ends[0] - ends[1]) > 0.05


def unstack(tree):
    return [jax.tree.map(lambda leaf, i=i: np.asarray(leaf)[i], tree) for i in range(len(jax.tree.leaves(tree)[0]))]


@jax.jit
def flow(metric, x, v):
    return shoot(metric, x, v, throw=False)


def test_for_a_gradient_the_two_formulas_agree():
    a, _ = accelerations("gradient")
    b, _ = accelerations("gradient, general")
    batch = stein_batch("gradient", 8)
    assert relative_error(a(*batch), b(*batch)) < 1e-11


# Other metrics. By hand: the matrix; points inside the chart.
def wavy(x, a):
    """A full, x-dependent positive definite matrix."""
    b = jnp.sin(a @ x)
    return jnp.diag(1.0 + x**2) + jnp.outer(b, b) + 0.1 * jnp.outer(jnp.cos(x), jnp.cos(x))


WAVES = np.random.default_rng(5).normal(size=(3, 3))
MATRICES = {
    "euclid": (EuclideanMetric(), lambda x: jnp.eye(3)),
    "matrix": (MatrixMetric(wavy, WAVES), lambda x: wavy(x, WAVES)),
    "sphere": (models.Sphere(), lambda x: 4.0 / (1.0 + x @ x) ** 2 * jnp.eye(3)),
    "half-space": (models.HyperbolicHalfSpace(), lambda x: jnp.eye(3) / x[-1] ** 2),
}


def chart_points(n=6, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    x[:, -1] = 0.3 + np.abs(x[:, -1])
    return x, rng.normal(size=(n, 3))


@pytest.mark.parametrize("name", MATRICES)
def test_acceleration_and_christoffels_of_other_metrics(name):
    """`acceleration` and `christoffels` of MatrixMetric and the model spaces against the definition."""
    metric, matrix = MATRICES[name]
    x, v = chart_points()
    accelerations, symbols = jax.jit(jax.vmap(lambda x, v: (metric.acceleration(x, v), christoffels(metric, x))))(x, v)
    expected, symbols_expected = jax.jit(
        jax.vmap(lambda x, v: (acceleration_by_hand(matrix, x, v), christoffels_by_hand(matrix, x)))
    )(x, v)
    np.testing.assert_allclose(accelerations, expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(symbols, symbols_expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(accelerations, -np.einsum("nkij,ni,nj->nk", symbols, v, v), rtol=1e-10, atol=1e-12)
    if name != "euclid":
        assert np.abs(expected).max() > 0.1


def test_half_space_christoffels_are_the_textbook_ones():
    """G = I / x_n^2: Gamma^k_kn = -1/x_n, Gamma^n_kk = 1/x_n for k < n, Gamma^n_nn = -1/x_n (do Carmo, ch. 8)."""
    x = jnp.array([0.3, -0.7, 1.7])
    expected = np.zeros((3, 3, 3))
    for k in range(2):
        expected[k, k, 2] = expected[k, 2, k] = -1 / 1.7
        expected[2, k, k] = 1 / 1.7
    expected[2, 2, 2] = -1 / 1.7
    np.testing.assert_allclose(christoffels(models.HyperbolicHalfSpace(), x), expected, rtol=1e-13, atol=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("name", ["density", "network"])
def test_stein_christoffels_against_autodiff_and_finite_differences(name, strength):
    """[k, i, j], upper index first; finite differences of NumPy's I + lam s s^T, fourth order."""
    score, field, make = FIELDS[name]
    params, x = make(3, 4), np.random.default_rng(8).normal(size=4)
    value = np.asarray(christoffels(SteinMetric(score(params), strength), jnp.asarray(x)))
    by_hand = christoffels_by_hand(stein_matrix(field, params, strength), jnp.asarray(x))
    assert np.abs(value - by_hand).max() < 1e-10 * np.abs(by_hand).max()
    np.testing.assert_allclose(value, value.transpose(0, 2, 1), rtol=1e-10, atol=1e-12)

    def matrix(x):
        s = np.asarray(field(x, params))
        return np.eye(4) + strength * np.outer(s, s)

    h, dg = 2e-3, np.empty((4, 4, 4))
    for i, e in enumerate(np.eye(4)):
        dg[:, :, i] = (8 * (matrix(x + h * e) - matrix(x - h * e)) - matrix(x + 2 * h * e) + matrix(x - 2 * h * e)) / (
            12 * h
        )
    lower = 0.5 * (dg.transpose(0, 2, 1) + dg - dg.transpose(2, 0, 1))  # [l, i, j]
    differences = np.einsum("kl,lij->kij", np.linalg.inv(matrix(x)), lower)
    assert np.abs(value - differences).max() < 1e-7 * np.abs(value).max()


def test_a_gaussian_has_the_textbook_symbols():
    """s = -P(x - m): Gamma^k_ij = lam H_ij s_k / L with H = -P."""
    rng = np.random.default_rng(0)
    cov = np.array([[1.0, 0.3, 0.0], [0.3, 0.5, 0.1], [0.0, 0.1, 2.0]])
    mean, x, lam = rng.normal(size=3), rng.normal(size=3), 2.5
    s = -np.linalg.solve(cov, x - mean)
    expected = np.einsum("ij,k->kij", -np.linalg.inv(cov), s) * lam / (1 + lam * s @ s)
    value = christoffels(SteinMetric(GaussianScore(jnp.asarray(mean), jnp.asarray(cov)), lam), jnp.asarray(x))
    np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-13)


# Inner products.
@jax.jit
def algebra(metric, x, v, w):
    at = metric.at(x)
    return {
        "mv": at.mv(v),
        "solve": at.solve(v),
        "sqrt_mv": at.sqrt_mv(v),
        "inv_sqrt_mv": at.inv_sqrt_mv(v),
        "logdet": at.logdet(),
        "inner": at.inner(v, w),
        "norm": at.norm(v),
        "matrix": at.matrix(x.size),
    }


def algebra_by_hand(g, v, w):
    values, vectors = np.linalg.eigh(g)

    def power(a):
        return (vectors * values**a) @ vectors.T @ v

    return {
        "mv": g @ v,
        "solve": np.linalg.solve(g, v),
        "sqrt_mv": power(0.5),
        "inv_sqrt_mv": power(-0.5),
        "logdet": np.linalg.slogdet(g)[1],
        "inner": v @ g @ w,
        "norm": np.sqrt(v @ g @ v),
        "matrix": g,
    }


def constant(x, s):
    return s


def check_algebra(metric, x, g, rtol, seed=0):
    rng = np.random.default_rng(seed)
    v, w = rng.normal(size=(2, g.shape[0])).astype(x.dtype)
    got, expected = algebra(metric, jnp.asarray(x), v, w), algebra_by_hand(g, v.astype(float), w.astype(float))
    for name, value in expected.items():
        scale = 1.0 if name == "logdet" else np.abs(value).max()
        np.testing.assert_allclose(got[name], value, rtol=rtol, atol=rtol * scale, err_msg=name)
        if name != "matrix":
            assert got[name].dtype == x.dtype, name


@pytest.mark.parametrize("strength", [0.0, 0.1, 1.0, 100.0])
@pytest.mark.parametrize("d", [1, 2, 32, 300])
def test_stein_inner_product_against_dense_linear_algebra(d, strength):
    """mv, solve, logdet, square roots, inner, norm, matrix of I + lam s s^T; also at score zero."""
    rng = np.random.default_rng(d)
    x = rng.normal(size=d)
    for s in (rng.normal(size=d), 1e-7 * rng.normal(size=d), np.zeros(d)):
        g = np.eye(d) + strength * np.outer(s, s)
        check_algebra(SteinMetric(FunctionScore(constant, s), strength), x, g, 1e-11)


@pytest.mark.parametrize("magnitude", [1.0, 1e3, 1e-3, 1e-12, 1e-25, 0.0])
def test_stein_inner_product_in_float32(magnitude):
    """Also where |s|^2 underflows: the rank-one terms then vanish, and nothing is NaN."""
    rng = np.random.default_rng(3)
    x, s = rng.normal(size=8).astype(np.float32), (magnitude * rng.normal(size=8)).astype(np.float32)
    metric = SteinMetric(FunctionScore(constant, s), np.float32(2.0))
    g = np.eye(8) + 2.0 * np.outer(s.astype(float), s.astype(float))
    if magnitude < 1e3:
        check_algebra(metric, x, g, 1e-4)
    else:  # condition number 1e7: compare what does not cancel
        v, w = rng.normal(size=(2, 8)).astype(np.float32)
        got, expected = algebra(metric, x, v, w), algebra_by_hand(g, v.astype(float), w.astype(float))
        for name in ("mv", "sqrt_mv", "logdet", "inner", "norm", "matrix"):
            assert np.abs(got[name] - expected[name]).max() < 1e-4 * np.abs(expected[name]).max(), name


def test_the_matrix_has_the_precision_of_the_score():
    """A float32 score has a float32 matrix, like every other result of `at`, although the session is in float64."""
    metric = SteinMetric(FunctionScore(constant, np.ones(2, np.float32)), 2.0)
    assert metric.at(jnp.ones(2, jnp.float32)).mv(jnp.ones(2, jnp.float32)).dtype == jnp.float32
    assert metric.at(jnp.ones(2, jnp.float32)).matrix(2).dtype == jnp.float32


@pytest.mark.parametrize("magnitude", [1e-3, 1e-8, 1e-140])
def test_logdet_of_a_small_score_keeps_its_digits(magnitude):
    """log L = log1p(lam |s|^2), which log(1 + lam |s|^2) rounds away."""
    s = magnitude * np.array([3.0, -4.0])
    logdet = SteinMetric(FunctionScore(constant, s), 2.0).at(jnp.zeros(2)).logdet()
    np.testing.assert_allclose(logdet, np.log1p(50 * magnitude**2), rtol=1e-12)


def test_square_roots_compose():
    """G^1/2 G^1/2 = G, G^-1/2 G^1/2 = 1, |G^1/2 v| = |v|_G, for the Stein metric of a mixture."""
    means, covs = jnp.array([[-1.0, 0, 0], [1, 1, 0]]), jnp.stack([jnp.eye(3)] * 2)
    score = GaussianMixtureScore(jnp.array([0.3, 0.7]), means, covs)
    at = SteinMetric(score, 10.0).at(jnp.array([0.4, -0.8, 0.3]))
    v = jnp.array([0.3, -1.0, 0.7])
    np.testing.assert_allclose(at.sqrt_mv(at.sqrt_mv(v)), at.mv(v), rtol=1e-12)
    np.testing.assert_allclose(at.inv_sqrt_mv(at.sqrt_mv(v)), v, rtol=1e-12)
    np.testing.assert_allclose(at.solve(at.mv(v)), v, rtol=1e-12)
    np.testing.assert_allclose(jnp.linalg.norm(at.sqrt_mv(v)), at.norm(v), rtol=1e-12)


@pytest.mark.parametrize("name", MATRICES)
def test_inner_products_of_other_metrics(name):
    metric, matrix = MATRICES[name]
    x, _ = chart_points(1, seed=4)
    check_algebra(metric, x[0], np.asarray(matrix(x[0]) * np.eye(3) if name == "euclid" else matrix(x[0])), 1e-11)
