"""Curvature against the Riemann tensor of the Christoffel symbols, closed forms, and the holonomy of small loops."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import X, network_score, three_modes

from scoregeo import (
    AbstractMetric,
    ConformalMetric,
    DensityScore,
    FunctionScore,
    GaussianScore,
    GraphMetric,
    PullbackMetric,
    ScoreJacobianMetric,
    SteinMetric,
    TransportODE,
    christoffels,
    models,
    ricci_curvature,
    scalar_curvature,
    sectional_curvature,
    volume_density,
)
from scoregeo.curvature import RiemannTensor, conformal_tensor, riemann_tensor
from scoregeo.fisher_rao import Categorical, FisherRaoMetric, MultivariateNormal, Normal
from scoregeo.geodesics.curves import Polyline
from scoregeo.metrics import DiagonalInnerProduct


def riemann_by_hand(metric, x):
    """``[u, v, w, z]``, from derivatives of the Christoffel symbols (do Carmo, ch. 4):
    ``R(d_i, d_j) d_k = (d_i Gamma^l_jk - d_j Gamma^l_ik + Gamma^l_im Gamma^m_jk - Gamma^l_jm Gamma^m_ik) d_l`` and
    ``Riem(u, v, w, z) = <R(u, v) z, w>``."""
    gamma = christoffels(metric, x)
    d_gamma = jax.jacfwd(lambda y: christoffels(metric, y))(x)  # [l, i, j, k] = d_k Gamma^l_ij
    upper = jnp.einsum("ljki->lkij", d_gamma) + jnp.einsum("lim,mjk->lkij", gamma, gamma)
    upper = upper - jnp.swapaxes(upper, 2, 3)
    return jnp.einsum("pl,lzuv->uvpz", metric.at(x).matrix(x.size), upper)


def wavy(x):
    """A function with a Hessian of full rank."""
    return -0.5 * jnp.sum(jnp.sin(jnp.arange(1.0, x.size + 1) * x)) - 0.2 * jnp.sum(x) ** 2 + jnp.prod(jnp.cos(x))


def wavy_feature(m, x):
    angles = jnp.sin(jnp.arange(1.0, m * x.size + 1)).reshape(m, x.size)
    return jnp.tanh(angles @ x) + 0.3 * (x @ x) * jnp.arange(1, m + 1) / m


class Conformal(AbstractMetric):
    def at(self, x):
        return DiagonalInnerProduct(jnp.full(x.shape, jnp.exp(2 * 0.3 * wavy(x))))


@riemann_tensor.register
def _(metric: Conformal, x) -> RiemannTensor:
    return conformal_tensor(lambda y: 0.3 * wavy(y), x)


# Metric, dimension, whether by products, and whether what follows from the tensor is looked at too.
TENSORS = {
    "Stein, gradient field": (lambda d: SteinMetric(DensityScore(wavy), 1.7), 5, True, True),
    "Stein, curl": (lambda d: SteinMetric(network_score(3, d), 1.7), 3, False, True),
    "sum": (lambda d: models.Sphere() + SteinMetric(DensityScore(wavy)), 3, False, False),
    "graph, m = 3": (lambda d: GraphMetric(functools.partial(wavy_feature, 3), strength=0.8), 4, True, False),
    "pullback": (lambda d: PullbackMetric(functools.partial(wavy_feature, 9), floor=0.2), 3, False, False),
    "immersed surface": (lambda d: PullbackMetric(functools.partial(wavy_feature, 3)), 2, True, False),
    "score Jacobian, curl": (lambda d: ScoreJacobianMetric(network_score(3, d), 0.6, 5.0), 3, True, False),
    "conformal": (lambda d: Conformal(), 5, True, False),
    "one dimension": (lambda d: Conformal(), 1, True, True),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TENSORS)
def test_against_christoffel_symbols(name):
    make, d, by_products, everything = TENSORS[name]
    metric = make(d)
    assert riemann_tensor(metric, jnp.zeros(d)).by_products == by_products

    @jax.jit
    @jax.vmap
    def both(x, vectors):
        u, v = vectors[:2]
        full = riemann_by_hand(metric, x)
        expected = [jnp.einsum("ijkl,i,j,k,l", full, *vectors)]
        found = [riemann_tensor(metric, x).form(*vectors)]
        if everything:
            g = metric.at(x).matrix(d)
            inverse, area = jnp.linalg.inv(g), (u @ g @ u) * (v @ g @ v) - (u @ g @ v) ** 2
            expected += [
                jnp.einsum("ijkl,i,j,k,l", full, u, v, u, v) / area,
                jnp.einsum("ijkl,ik,j,l", full, inverse, v, v),
                jnp.einsum("ijkl,ik,jl", full, inverse, inverse),
            ]
            found += [
                sectional_curvature(metric, x, u, v),
                ricci_curvature(metric, x, v),
                scalar_curvature(metric, x),
            ]
        return jnp.stack(found), jnp.stack(expected)

    rng = np.random.default_rng(0)
    found, expected = both(jnp.asarray(0.7 * rng.normal(size=(5, d))), jnp.asarray(rng.normal(size=(5, 4, d))))
    if d == 1:
        assert np.isnan(found[:, 1]).all()  # no plane
        found, expected = np.delete(found, 1, 1), np.delete(expected, 1, 1)
    else:
        assert np.abs(expected).max(0).min() > 0.01
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.slow
def test_graph_of_the_log_density():
    """It is the Stein metric, and so are its curvatures."""
    mixture, x = three_modes().score, jnp.array([0.3, 0.6])

    @jax.jit
    def curvatures(metric):
        return sectional_curvature(metric, x, *jnp.eye(2)), scalar_curvature(metric, x), volume_density(metric, x)

    graph, stein = GraphMetric(mixture.log_prob, strength=3.0), SteinMetric(mixture, 3.0)
    np.testing.assert_allclose(curvatures(graph), curvatures(stein), rtol=1e-11)


def test_gaussian_in_the_plane():
    """K = (lam / sigma^4) / (1 + lam r^2 / sigma^4)^2."""
    rng = np.random.default_rng(1)
    for variance, strength in ((0.5, 3.0), (2.0, 0.1), (1.0, 100.0)):
        metric, x = SteinMetric(GaussianScore(np.zeros(2), variance * np.eye(2)), strength), rng.normal(size=2)
        c = strength / variance**2
        k = c / (1 + c * x @ x) ** 2
        np.testing.assert_allclose(sectional_curvature(metric, x, *rng.normal(size=(2, 2))), k, rtol=1e-10)
        np.testing.assert_allclose(scalar_curvature(metric, x), 2 * k, rtol=1e-10)
        np.testing.assert_allclose(volume_density(metric, x), np.sqrt(1 + c * x @ x), rtol=1e-12)


def test_power_of_a_gaussian_density():
    """p^(-2b) I in the plane: K = -(2b / sigma^2) exp(-b r^2 / sigma^2), with p = 1 at its mode."""
    b, variance, x = 0.7, 0.5, jnp.array([0.4, -0.3])
    tensor = conformal_tensor(lambda y: b * (y @ y) / (2 * variance), x)
    area = np.exp(2 * b * (x @ x) / variance)  # of the unit square
    expected = -2 * b / variance * np.exp(-b * (x @ x) / variance)
    np.testing.assert_allclose(tensor.form(*np.eye(2), *np.eye(2)) / area, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("space", "curvature"),
    [
        (models.Sphere(), 1.0),
        (4.0 * models.HyperbolicHalfSpace(), -0.25),
        (ConformalMetric(lambda x: -jnp.log(x[-1])), -1.0),
    ],
    ids=["sphere", "half-space", "conformal"],
)
def test_model_spaces(space, curvature):
    rng, d = np.random.default_rng(2), 4
    x = jnp.append(rng.normal(size=d - 1), 0.7)
    u, v = jnp.asarray(rng.normal(size=(2, d)))
    np.testing.assert_allclose(sectional_curvature(space, x, u, v), curvature, rtol=1e-9)
    # Vectors that are nearly parallel span the same plane.
    np.testing.assert_allclose(sectional_curvature(space, x, u, u + 1e-5 * v), curvature, rtol=1e-6)
    np.testing.assert_allclose(ricci_curvature(space, x, v), curvature * (d - 1) * space.norm(x, v) ** 2, rtol=1e-9)
    np.testing.assert_allclose(scalar_curvature(space, x), curvature * d * (d - 1), rtol=1e-9)


def test_families_of_distributions():
    rng = np.random.default_rng(3)
    normal = FisherRaoMetric(Normal())
    np.testing.assert_allclose(sectional_curvature(normal, [0.3, 1.2], *rng.normal(size=(2, 2))), -0.5, rtol=1e-9)
    np.testing.assert_allclose(scalar_curvature(normal, [0.3, 1.2]), -1.0, rtol=1e-9)
    # The simplex is a part of the sphere of radius 2: in probabilities, with vectors that sum to zero, and in a chart.
    u, v = rng.normal(size=(2, 4)) @ (np.eye(4) - 0.25)
    p = np.array([0.1, 0.2, 0.3, 0.4])
    np.testing.assert_allclose(sectional_curvature(FisherRaoMetric(Categorical(4)), p, u, v), 0.25, rtol=1e-9)
    chart = FisherRaoMetric(Categorical(3), unconstrained=True)
    np.testing.assert_allclose(scalar_curvature(chart, rng.normal(size=2)), 0.5, rtol=1e-9)


@pytest.mark.slow
def test_bivariate_normal():
    """Scalar curvature -9/2, everywhere (Sato, Sugawa & Kawaguchi 1979)."""
    metric = FisherRaoMetric(MultivariateNormal(2), unconstrained=True)
    np.testing.assert_allclose(scalar_curvature(metric, np.array([0.3, -0.1, 0.2, 0.4, -0.2])), -4.5, rtol=1e-8)


def test_gradient():
    """K = (lam / 4) / (1 + lam r^2 / 4)^2 for a variance of 2, by strength."""

    def curvature(strength):
        return sectional_curvature(SteinMetric(GaussianScore(np.zeros(2), 2 * np.eye(2)), strength), X, *np.eye(2))

    excess = 0.75 * X @ X
    expected = (1 - excess) / (1 + excess) ** 3 / 4
    np.testing.assert_allclose(jax.grad(curvature)(3.0), expected, rtol=1e-10)


def test_holonomy():
    """A vector that was carried round a small square is turned by the integral of K."""
    metric, x = three_modes(2.0), jnp.array([0.3, 0.6])
    square = jnp.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])

    @jax.jit
    def carried(corners, w):
        def along(w, edge):
            ends, one = Polyline(jnp.stack(edge)), jnp.ones(1)
            return TransportODE().transport(metric, ends, w, one, one[0])[0][0], None

        return jax.lax.scan(along, w, (corners, jnp.roll(corners, -1, 0)))[0]

    def curvature(side):
        corners, w = x + side * square, jnp.array([1.0, 0.0])
        frame = jnp.linalg.cholesky(metric.at(corners[0]).matrix(2)).T  # to orthonormal coordinates
        before, after = frame @ w, frame @ carried(corners, w)
        angle = jnp.arctan2(before[0] * after[1] - before[1] * after[0], before @ after)
        return angle / (side**2 * volume_density(metric, x))

    large, small = curvature(0.1), curvature(0.05)
    expected = sectional_curvature(metric, x, *jnp.eye(2))
    assert abs(expected) > 0.1
    np.testing.assert_allclose((4 * small - large) / 3, expected, rtol=1e-3)


# --- Traces by random directions --------------------------------------------------------------------------------------


def test_standard_errors_are_those_of_the_estimates():
    """Without bias, and as far from the exact value as they say."""
    d = 12
    metric, x = SteinMetric(DensityScore(wavy), 0.5), jnp.asarray(0.5 * np.random.default_rng(4).normal(size=d))
    v = jnp.ones(d)

    @jax.jit
    @jax.vmap
    def estimates(key):
        settings = {"probes": 25, "key": key, "with_error": True}
        return scalar_curvature(metric, x, **settings), ricci_curvature(metric, x, v, **settings)

    exact = scalar_curvature(metric, x, with_error=True), ricci_curvature(metric, x, v, with_error=True)
    for (value, no_error), (values, errors) in zip(
        exact, estimates(jax.random.split(jax.random.key(0), 400)), strict=True
    ):
        assert no_error == 0
        spread = np.std(values)
        assert abs(np.mean(values) - value) < 4 * spread / 20
        assert 0.8 < np.sqrt(np.mean(errors**2)) / spread < 1.3
        assert np.mean(np.abs(values - value) < 3 * errors) > 0.95


def network_potential(x, w, a):
    return a @ jnp.tanh(w @ x) - 0.5 * jnp.sum(x**2)


def test_many_dimensions():
    """d = 784: within three standard errors of at most 5%; a thousand sectional curvatures in one call."""
    d, keys = 784, jax.random.split(jax.random.key(1), 6)
    w, a = jax.random.normal(keys[0], (64, d)) / np.sqrt(d), 3 * jax.random.normal(keys[1], (64,))
    x = jax.random.normal(keys[2], (d,))
    metric = SteinMetric(DensityScore(network_potential, w, a), 0.1)
    exact = scalar_curvature(metric, x)
    value, error = scalar_curvature(metric, x, probes=100, key=keys[3], with_error=True)
    assert error < 0.05 * abs(exact)
    assert abs(value - exact) < 3 * error
    us, vs = jax.random.normal(keys[4], (2, 1000, d))
    curvatures = jax.vmap(functools.partial(sectional_curvature, metric, x))(us, vs)
    assert curvatures.shape == (1000,)
    np.testing.assert_allclose(curvatures[7], sectional_curvature(metric, x, us[7], vs[7]), rtol=1e-10)


def test_many_dimensions_without_a_formula():
    d = 100
    x, u, v = jnp.asarray(np.random.default_rng(5).normal(size=(3, d)) / 10)
    np.testing.assert_allclose(sectional_curvature(models.Sphere(), x, u, v), 1.0, rtol=1e-9)
    with pytest.raises(ValueError, match=r"`probes` and `key` must be given in 100 dimensions: .* up to 64"):
        scalar_curvature(models.Sphere(), x)
    value, error = ricci_curvature(models.Sphere(), x, v, probes=50, key=jax.random.key(0), with_error=True)
    assert abs(value - (d - 1) * models.Sphere().norm(x, v) ** 2) < 3 * error + 1e-9


# --- Arguments --------------------------------------------------------------------------------------------------------


def test_single_precision():
    metric, x = three_modes(2.0), np.array([0.3, 0.6])
    single = jax.tree.map(lambda a: a.astype(jnp.float32), metric)
    u, v = np.eye(2, dtype=np.float32)
    for function, vectors in ((sectional_curvature, (u, v)), (ricci_curvature, (v,)), (scalar_curvature, ())):
        found = function(single, x.astype(np.float32), *vectors)
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, function(metric, x, *vectors), rtol=1e-4)


def test_new_strengths_do_not_compile_again():
    traces = 0

    def field(x):
        nonlocal traces
        traces += 1
        return -x

    score = FunctionScore(field, conservative=True)
    values = []
    for strength in (1.0, 2.0, 3.0):
        before = traces
        values.append(sectional_curvature(SteinMetric(score, strength), np.array([0.5, 0.0]), *np.eye(2)))
    assert traces - before <= 1  # the check of shapes at the door
    np.testing.assert_allclose(values, [s / (1 + s / 4) ** 2 for s in (1.0, 2.0, 3.0)], rtol=1e-12)


@pytest.mark.parametrize("factor", [2.0, -1.0, 0.0])
def test_no_plane(factor):
    u = jnp.array([0.3, 0.1, 0.7])
    message = "one of them is zero" if factor == 0 else "parallel in 3 dimensions"
    with pytest.raises(ValueError, match=f"`u` and `v` must span a plane, but .*{message}"):
        sectional_curvature(models.Sphere(), u, u, factor * u)
    assert np.isnan(jax.jit(sectional_curvature)(models.Sphere(), u, u, factor * u))


def test_outside_the_domain():
    space, x = models.HyperbolicHalfSpace(), np.array([0.3, -1.0])
    for value in (sectional_curvature(space, x, *np.eye(2)), scalar_curvature(space, x), volume_density(space, x)):
        assert np.isnan(value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: sectional_curvature(m, np.zeros(2), np.ones(3), np.ones(2)), r"`u` must have shape \(2,\), got \(3"),
        (lambda m: sectional_curvature(m, np.zeros((2, 2)), np.ones(2), np.ones(2)), r"`x` must have shape \(d,\)"),
        (lambda m: ricci_curvature(m, np.zeros(2), [np.nan, 0.0]), "`v` must be finite"),
        (lambda m: scalar_curvature(m, np.zeros(2), probes=10), "`key` must be given with probes=10"),
        (lambda m: scalar_curvature(m, np.zeros(2), key=jax.random.key(0)), "`probes`, the number of random"),
        (lambda m: scalar_curvature(m, np.zeros(2), probes=2, key=jax.random.key(0)), "`probes` must be .* least 3"),
        (lambda m: scalar_curvature(m, np.zeros(3)), r"`metric` cannot be evaluated at a point of shape \(3,\)"),
        (lambda m: scalar_curvature(SteinMetric(DensityScore(wavy)), np.zeros(1025)), "1025 dimensions: .* up to 1024"),
    ],
)
def test_wrong_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call(three_modes())


def test_no_metric():
    with pytest.raises(TypeError, match="`metric` must be an AbstractMetric"):
        scalar_curvature(lambda x: x, np.zeros(2))
