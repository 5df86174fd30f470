"""Digits: Fisher matrices and distances against mpmath, over the magnitudes of their parameters, in both precisions."""

import functools
import itertools

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import polygamma as scipy_polygamma

from scoregeo import RESULTS, SpectralNewton
from scoregeo.fisher_rao import (
    Bernoulli,
    Beta,
    Cauchy,
    DiagonalNormal,
    Dirichlet,
    Exponential,
    FisherRaoMetric,
    Gamma,
    Geometric,
    MultivariateNormal,
    Normal,
    Poisson,
    VonMises,
    Weibull,
    hellinger,
    jeffreys,
    kullback_leibler,
    wasserstein,
)
from scoregeo.fisher_rao.factored import FactoredInnerProduct, pull_back
from scoregeo.fisher_rao.families.polygamma import polygamma, polygamma_change, superadditivity
from scoregeo.metrics import DenseInnerProduct, DiagonalInnerProduct

PRECISIONS = pytest.mark.parametrize("dtype", [np.float64, np.float32])


def exactly(values):
    return [mp.mpf(float(value)) for value in np.ravel(values)]


def roundings(found, exact, scale=None):
    """The largest relative error, in units of rounding; infinite where something is not finite."""
    found = np.asarray(found)
    if not np.isfinite(found).all():
        return np.inf
    exact = list(exact)
    scale = exact if scale is None else scale
    errors = [abs((a - b) / s) for a, b, s in zip(exactly(found), exact, scale, strict=True) if s]
    return float(max(errors, default=0) / mp.mpf(float(np.finfo(found.dtype).eps)))


@pytest.fixture(autouse=True)
def digits():
    with mp.workdps(80):
        yield


@PRECISIONS
def test_polygamma_differences(dtype):
    """Values and derivatives of functions that subtraction would leave without digits."""
    rng = np.random.default_rng(0)
    x, y = (10 ** rng.uniform(-8, 10, (2, 60))).astype(dtype)
    y[:10] = x[:10]

    def psi(n, x):
        return abs(mp.psi(n, x))

    @jax.jit
    @jax.vmap
    def found(x, y):
        return (
            polygamma_change(0, x, y),
            jax.value_and_grad(lambda x, y: polygamma_change(1, x, y), (0, 1))(x, y),
            jax.value_and_grad(lambda x: polygamma(2, x))(x),
            superadditivity(x, y),
        )

    digamma, (trigamma, (along_x, along_y)), (second, third), excess = found(x, y)
    pairs = list(zip(exactly(x), exactly(y), strict=True))
    assert roundings(digamma, [abs(mp.psi(0, x) - mp.psi(0, x + y)) for x, y in pairs]) < 5
    assert roundings(trigamma, [psi(1, x) - psi(1, x + y) for x, y in pairs]) < 5
    assert roundings(along_x, [psi(2, x + y) - psi(2, x) for x, y in pairs]) < 5
    assert roundings(along_y, [psi(2, x + y) for x, y in pairs]) < 5
    assert roundings(second, [psi(2, x) for x, _ in pairs]) < 5
    assert roundings(third, [-psi(3, x) for x, _ in pairs]) < 5
    assert roundings(excess, [1 / psi(1, x + y) - 1 / psi(1, x) - 1 / psi(1, y) for x, y in pairs]) < 10


def concentrations(theta):
    total = mp.psi(1, sum(theta))
    return mp.matrix([[mp.psi(1, a) * (i == j) - total for j in range(len(theta))] for i, a in enumerate(theta)])


def gamma_information(theta):
    shape, rate = theta
    return mp.matrix([[mp.psi(1, shape), -1 / rate], [-1 / rate, shape / rate**2]])


def von_mises_information(theta):
    r = mp.sqrt(theta[0] ** 2 + theta[1] ** 2)
    ratio, u = mp.besseli(1, r) / mp.besseli(0, r), [value / r for value in theta]
    along, across = 1 - ratio / r - ratio**2, ratio / r
    return mp.matrix([[along * a * b + across * ((a is b) - a * b) for b in u] for a in u])


def weibull_information(theta):
    (shape, scale), shift = theta, 1 - mp.euler
    off = -shift / scale
    return mp.matrix([[(mp.pi**2 / 6 + shift**2) / shape**2, off], [off, shape**2 / scale**2]])


RADII = [1e-3, 0.3, 1.1, 8.0, 29.0, 31.0, 1e3, 1e7]
INFORMATION = {
    "beta": (Beta(), concentrations, itertools.product([1e-6, 1e-2, 2.0, 1e3, 1e7, 1e10], repeat=2)),
    "dirichlet": (Dirichlet(3), concentrations, itertools.product([1e-4, 2.0, 1e7], repeat=3)),
    "gamma": (Gamma(), gamma_information, itertools.product([1e-6, 1.0, 1e3, 1e9], [1e-6, 1e6])),
    "von_mises": (
        VonMises(),
        von_mises_information,
        [(r * np.cos(a), r * np.sin(a)) for r in RADII for a in (1, 1e-4)],
    ),
    "weibull": (Weibull(), weibull_information, itertools.product([1e-6, 1.0, 1e6], repeat=2)),
}


@functools.cache
def grid(name):
    return list(INFORMATION[name][2])


@pytest.mark.slow
@PRECISIONS
@pytest.mark.parametrize("name", INFORMATION)
def test_information(name, dtype):
    """Entries, determinant, inverse and derivatives of the Fisher matrix, however close to a singular one."""
    family, formula, _ = INFORMATION[name]
    thetas = np.array(grid(name), dtype)
    size, normal = family.size, float(np.finfo(dtype).tiny) ** 0.9

    @jax.jit
    @jax.vmap
    def found(theta):
        product = family.inner_product(theta)
        slopes = jax.jacfwd(lambda theta: family.inner_product(theta).matrix(size))(theta)
        return product.matrix(size), product.logdet(), jax.vmap(product.solve)(jnp.eye(size, dtype=dtype)), slopes

    for theta, matrix, logdet, inverse, slopes in zip(thetas, *found(thetas), strict=True):
        exact = formula(exactly(theta))
        assert roundings(matrix, exact) < 10, theta
        log = mp.log(mp.det(exact))
        assert roundings(logdet, [log], [max(1, abs(log))]) < 30, theta
        dual = exact**-1
        units = [mp.sqrt(dual[i, i] * dual[j, j]) for i in range(size) for j in range(size)]
        if max(units) < 1 / normal:
            assert roundings(inverse, dual, units) < 30, theta
        assert np.isfinite(slopes).all(), theta


def hyperbolic(a, b):
    return 2 * mp.asinh(mp.sqrt(((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2) / (4 * a[1] * b[1])))


def normal_distance(a, b):
    return mp.sqrt(2) * hyperbolic((a[0] / mp.sqrt(2), a[1]), (b[0] / mp.sqrt(2), b[1]))


def diagonal_distance(a, b):
    return mp.sqrt(sum(normal_distance(a[i::2], b[i::2]) ** 2 for i in range(2)))


def weibull_distance(a, b):
    c = mp.pi / mp.sqrt(6)
    return c * hyperbolic(*(((mp.log(p[1]) + (1 - mp.euler) / p[0]) / c, 1 / p[0]) for p in (a, b)))


def geometric_coordinate(p):
    return 2 * mp.log1p(mp.sqrt(1 - p)) - mp.log(p)


DISTANCES = {
    "normal": (Normal(), normal_distance),
    "diagonal": (DiagonalNormal(2), diagonal_distance),
    "cauchy": (Cauchy(), lambda a, b: hyperbolic(a, b) / mp.sqrt(2)),
    "weibull": (Weibull(), weibull_distance),
    "exponential": (Exponential(), lambda a, b: abs(mp.log(a[0] / b[0]))),
    "poisson": (Poisson(), lambda a, b: 2 * abs(mp.sqrt(a[0]) - mp.sqrt(b[0]))),
    "bernoulli": (Bernoulli(), lambda a, b: 2 * abs(mp.asin(mp.sqrt(a[0])) - mp.asin(mp.sqrt(b[0])))),
    "geometric": (Geometric(), lambda a, b: abs(geometric_coordinate(a[0]) - geometric_coordinate(b[0]))),
}


def points(name, rng, n):
    """Parameters of all magnitudes; probabilities as close to one as to zero."""
    family = DISTANCES[name][0]
    if name in ("bernoulli", "geometric"):
        small = 10 ** rng.uniform(-6, -0.5, (n, 1))
        return np.where(rng.random((n, 1)) < 0.5, small, 1 - small)
    values = 10 ** rng.uniform(-6, 6, (n, family.size))
    if name == "weibull":
        values[:, 0] = values[:, 0] ** 0.5
    return values


@pytest.mark.slow
@PRECISIONS
@pytest.mark.parametrize("name", DISTANCES)
def test_distances(name, dtype):
    """Of near and of far points, all to the last digits; and the velocities that `log` returns have that length."""
    family, formula = DISTANCES[name]
    rng, n = np.random.default_rng(1), 40
    a = np.tile(points(name, rng, n), (3, 1)).astype(dtype)
    b = a * (1 + np.repeat([0, 1e-2, 20 * np.finfo(dtype).eps], n)[:, None] * rng.uniform(-1, 1, a.shape))
    b[:n] = points(name, rng, n)
    b = np.minimum(b, 1 - np.finfo(dtype).epsneg if name in ("bernoulli", "geometric") else np.inf).astype(dtype)

    @jax.jit
    @jax.vmap
    def found(a, b):
        squared = functools.partial(family.squared_dist, a)
        return family.dist(a, b), family.inner_product(a).norm(family.log(a, b)), jax.grad(squared)(a)

    distances, lengths, slopes = found(a, b)
    exact = [formula(exactly(p), exactly(q)) * (p != q).any() for p, q in zip(a, b, strict=True)]
    assert roundings(distances, exact) < 10
    # The scale of a Weibull distribution is the exponential of a sum that a small shape makes large.
    assert roundings(lengths, exact) < (1000 if name == "weibull" else 100)
    assert (np.asarray(slopes) == 0).all()


def test_probabilities_next_to_one():
    """`log` and `exp` have the digits of 1 - p."""
    family, a, b = Bernoulli(), jnp.array([1 - 2.0**-40]), jnp.array([1 - 2.0**-38])
    # d u = d p / sqrt(p (1 - p)), and 1 - p = sin^2
    speed = 2 * (mp.asin(mp.mpf(2) ** -20) - mp.asin(mp.mpf(2) ** -19))
    velocity = speed * mp.sqrt((1 - mp.mpf(2) ** -40) * mp.mpf(2) ** -40)
    np.testing.assert_allclose(family.log(a, b), [float(velocity)], rtol=1e-14)
    np.testing.assert_allclose(1 - family.exp(a, family.log(a, b)), 1 - b, rtol=1e-4)


def affine_distance(a, b):
    """Of normal distributions with equal means: of their covariances."""
    whiten = mp.cholesky(a) ** -1
    inner = whiten * b * whiten.T
    return mp.sqrt(sum(mp.log(value) ** 2 for value in mp.eigsy((inner + inner.T) / 2, eigvals_only=True)) / 2)


def bures_distance(a, b):
    values, q = mp.eigsy(a)
    root = q * mp.diag([mp.sqrt(value) for value in values]) * q.T
    inner = root * b * root
    inner = mp.eigsy((inner + inner.T) / 2, eigvals_only=True)
    return mp.sqrt(sum(a[i, i] + b[i, i] - 2 * mp.sqrt(value) for i, value in enumerate(inner)))


@pytest.mark.slow
@PRECISIONS
def test_close_normal_distributions(dtype):
    """`FibreSolver` and the distances in closed form: equal means in two dimensions, moved ones in one."""
    rng, eps = np.random.default_rng(3), np.finfo(dtype).eps
    family = MultivariateNormal(2)
    zero = np.zeros(2, dtype)

    @jax.jit
    def two(a, b):
        path = family.geodesic(family.pack(zero, a), family.pack(zero, b), (0.0, 1.0), throw=False)
        return path.length, path.error, path.result == RESULTS.successful, wasserstein(zero, a, zero, b)

    for step in (1, 1e-2, 1e-5):
        root = np.eye(2) + rng.uniform(-0.5, 0.5, (2, 2))
        a, b = ((r @ r.T).astype(dtype) for r in (root, root + step * rng.normal(size=(2, 2))))
        length, error, success, bures = two(a, b)
        matrices = [mp.matrix(matrix.astype(float).tolist()) for matrix in (a, b)]
        exact = affine_distance(*matrices)
        assert success
        assert abs(float(length) - exact) < 3 * float(error)
        assert roundings(length, [exact]) < (20 if step < 1e-2 else 1e3)
        assert abs(float(bures) / bures_distance(*matrices) - 1) < max(1e3 * eps, (10 * eps / step) ** 2)

    family = MultivariateNormal(1)
    one = jax.jit(lambda *pair: [f(*pair) for f in (hellinger, jeffreys, kullback_leibler)])
    solve = jax.jit(lambda a, b: family.geodesic(a, b, (0.0, 1.0), throw=False))
    for step in (0.3, 1e-3, 1e-5):
        a = np.array([1.7, 0.6], dtype)
        b = (a * (1 + step * np.array([1, -0.7]))).astype(dtype)
        (m, v), (n, w) = exactly(a), exactly(b)
        path = solve(jnp.asarray(a), jnp.asarray(b))
        exact = normal_distance((m, mp.sqrt(v)), (n, mp.sqrt(w)))
        assert path.result == RESULTS.successful
        assert abs(float(path.length) - exact) < 3 * float(path.error)
        assert roundings(path.length, [exact]) < 100

        def divergence(ratio, shift):
            return (ratio - 1 - mp.log(ratio) + shift) / 2

        there, back = divergence(v / w, (m - n) ** 2 / w), divergence(w / v, (m - n) ** 2 / v)
        overlap = (m - n) ** 2 / (4 * (v + w)) + mp.log((v + w) / 2 / mp.sqrt(v * w)) / 2
        values = [mp.sqrt(-mp.expm1(-overlap)), there + back, there]
        for found, value in zip(one(a[:1], a[1:, None], b[:1], b[1:, None]), values, strict=True):
            assert roundings(found, [value]) < 30
    slope = jax.grad(family.squared_dist)(jnp.asarray(a), jnp.asarray(a))
    np.testing.assert_array_equal(slope, [0, 0])


def clairaut_distance(low, high, rise):
    """The distance of Gamma distributions of shapes ``low`` and ``high`` and means with this difference of logarithms,
    so large that the shape falls before it rises, to ``least``, the squared (constant) momentum of that logarithm."""

    def along(least, weight):
        def slope(z):  # by the root of k - least, with which nothing is singular
            k = least + z**2
            return 2 * np.sqrt(k * scipy_polygamma(1, k) - 1) * weight(k)

        return sum(quad(slope, 0, np.sqrt(end - least), epsabs=1e-12)[0] for end in (low, high))

    least = brentq(lambda least: along(least, lambda k: np.sqrt(least) / k) - rise, 1e-3 * low, low, xtol=1e-12)
    return along(least, lambda k: 1)


@pytest.mark.slow
def test_shapes_of_very_different_size():
    """Beta(a, b) for large b is Gamma(a) in units of 1 / b. In float32 its distances came out with a negative error."""
    family = Beta()
    a, b = (jnp.array([shape, 1e7], jnp.float32) for shape in (2, 5))
    solver = SpectralNewton(degree=24, max_elements=1, path_rtol=1e-3)
    found = family.geodesic(a, b, solver=solver, throw=False)
    assert found.result == RESULTS.successful
    expected = clairaut_distance(2, 5, np.log(5 / 2))
    np.testing.assert_allclose(found.length, expected, rtol=3e-6)
    assert 0 < found.error < 1e-4
    assert found.residual < 1e-3


def test_norms_are_never_negative():
    """Along the direction that a Gamma distribution of large shape, or a normal one of bad condition, hardly shows."""
    gamma = Gamma().pack(np.float32(3e8), np.float32(7.0))
    for scale in (1.0, 1 + 2e-7, 1 - 2e-7):
        step = gamma * jnp.array([1, scale], jnp.float32)
        assert Gamma().inner_product(gamma).squared_norm(step) > 0
        metric = FisherRaoMetric(Gamma(), unconstrained=True)
        assert metric.at(jnp.log(gamma)).squared_norm(jnp.array([1, scale], jnp.float32)) > 0
    np.testing.assert_allclose(Gamma().inner_product(gamma).squared_norm(gamma), 0.5, rtol=1e-3)

    family, rng = MultivariateNormal(2), np.random.default_rng(0)
    for root in rng.normal(size=(20, 2, 2)) @ np.diag([1, 2e-3]):
        theta = family.pack(jnp.zeros(2, jnp.float32), jnp.asarray(root @ root.T, jnp.float32))
        product = family.inner_product(theta)
        exact = np.array(product.matrix(family.size), float)
        v = np.linalg.eigh(exact)[1][:, 0].astype(np.float32)
        assert product.squared_norm(jnp.asarray(v)) >= 0


@pytest.mark.slow
def test_factored_inner_product():
    rng = np.random.default_rng(2)
    factor, jacobian, v, w = (jnp.asarray(rng.normal(size=shape)) for shape in ((5, 3), (3, 2), 3, 3))
    product, dense = FactoredInnerProduct(factor, factor.T @ factor), DenseInnerProduct(factor.T @ factor)
    for method in ("mv", "solve", "sqrt_mv", "inv_sqrt_mv", "squared_norm"):
        np.testing.assert_allclose(getattr(product, method)(v), getattr(dense, method)(v), rtol=1e-10, err_msg=method)
    np.testing.assert_allclose(product.inner(v, w), dense.inner(v, w), rtol=1e-12)
    np.testing.assert_allclose(product.logdet(), dense.logdet(), rtol=1e-12)
    for some in (product, dense, DiagonalInnerProduct(v**2)):
        pulled = pull_back(some, jacobian)
        np.testing.assert_allclose(pulled.matrix(2), jacobian.T @ some.matrix(3) @ jacobian, rtol=1e-12)
        np.testing.assert_allclose(pulled.squared_norm(w[:2]), some.squared_norm(jacobian @ w[:2]), rtol=1e-12)
