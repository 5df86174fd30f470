"""Distances and geodesics against closed forms, invariants on random points, and an independent solver.

Oracles and random points are NumPy. What is compiled is shared: metrics are arguments of a few jitted functions at the
top of the file, so that tests with metrics of one kind and dimension use one program.
"""

import functools
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import (
    MODES,
    MODES_LENGTH,
    MODES_SD,
    MODES_X,
    MODES_Y,
    half_space,
    poincare_ball,
    radial,
    stereographic_sphere,
)
from scipy.integrate import solve_bvp
from scipy.spatial.distance import cdist
from scipy.special import logsumexp

from scoregeo import (
    RESULTS,
    DensityScore,
    EuclideanMetric,
    FunctionScore,
    GaussianMixtureScore,
    GaussianScore,
    KernelDensityScore,
    MatrixMetric,
    SpectralNewton,
    SteinMetric,
    christoffels,
    dist,
    exp,
    geodesic,
    log,
    models,
    pairwise_dist,
    shoot,
    squared_dist,
    verify,
)

# Every degree is compiled: one of them is enough for smooth problems, whose closed forms then say how accurate it is.
SINGLE = SpectralNewton(degree=48, max_elements=1, rtol=1e-8, path_rtol=1e-8)
SMOOTH = SpectralNewton(max_elements=4, rtol=1e-8, path_rtol=1e-8)
FLOAT32 = SpectralNewton(degree=48, max_elements=1, path_rtol=1e-5)


@functools.partial(jax.jit, static_argnames="solver")
def distance(metric, x, y, solver=SINGLE):
    return dist(metric, x, y, solver=solver, throw=False)


@functools.partial(jax.jit, static_argnames="solver")
def solve(metric, x, y, init=None, solver=SMOOTH):
    return geodesic(metric, x, y, init=init, solver=solver, throw=False)


at_times = jax.jit(lambda path, ts: jax.vmap(path.evaluate)(ts))


@jax.jit
def with_tangents(path, ts):
    return jax.vmap(lambda t: jax.jvp(path.evaluate, (t,), (1.0,)))(ts)


@jax.jit
def shot(metric, x, v):
    return exp(metric, x, v, throw=False)


check = jax.jit(verify)


def frame(rng, d):
    """A random orthonormal basis, as columns."""
    return np.linalg.qr(rng.normal(size=(d, d)))[0]


# --- Gaussian ---------------------------------------------------------------------------------------------------------


def clairaut(k, w1, w2, c):
    """A unit-speed geodesic of the paraboloid that comes as close to the axis as k: r^2 theta' = k, r^2 = k^2 + w^2.

    From w1 to w2 (w changes sign at the closest point): radii, angle swept and length,
    dl = sqrt(1 + c^2 (k^2 + w^2)) dw and dtheta = k / (k^2 + w^2) dl.
    """
    nodes, weights = np.polynomial.legendre.leggauss(200)
    w = 0.5 * (w1 + w2) + 0.5 * (w2 - w1) * nodes
    dl = 0.5 * (w2 - w1) * weights * np.sqrt(1 + c**2 * (k**2 + w**2))
    return np.hypot(k, w1), np.hypot(k, w2), np.sum(k / (k**2 + w**2) * dl), np.sum(dl)


def gaussian_metric(rng, d, variance, strength, variances=None):
    """N(m, R diag R^T) with the first two variances equal; returns the metric, m and R."""
    mean, rotation = rng.normal(size=d), frame(rng, d)
    cov = (rotation * (np.full(d, variance) if variances is None else variances)) @ rotation.T
    cov = 0.5 * (cov + cov.T)
    return SteinMetric(GaussianScore(jnp.asarray(mean), jnp.asarray(cov)), strength), mean, rotation


DIMENSIONS = (1, 2, 5, 100)


@pytest.mark.slow
@pytest.mark.parametrize("d", DIMENSIONS)
def test_gaussian_radial_distance(d):
    """Along one ray, from the centre, and through the centre (|c r| < 1.5: further, the diameter is no minimum)."""
    rng = np.random.default_rng(d)
    for variance, strength, r1, r2 in [
        (1.0, 1.0, 0.0, 1.3),
        (1.0, 1.0, 0.0, 6.0),
        (0.5, 3.0, 0.3, 2.0),
        (2.0, 0.1, 1.0, 5.0),
        (1.0, 1.0, -0.9, 1.2),
        (0.7, 0.5, -1.0, 0.4),
        (1.0, 100.0, 0.5, 0.8),
    ]:
        metric, mean, rotation = gaussian_metric(rng, d, variance, strength)
        c = np.sqrt(strength) / variance
        expected = radial(r2, c) - radial(r1, c)
        value = distance(metric, mean + r1 * rotation[:, 0], mean + r2 * rotation[:, 0])
        np.testing.assert_allclose(value, expected, rtol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("d", DIMENSIONS[1:])
def test_gaussian_distance_past_the_centre(d):
    """Clairaut: any geodesic of N(0, sigma^2 I), with and without a point nearest to the centre."""
    rng = np.random.default_rng(d)
    for variance, strength, k, w1, w2 in [
        (1.0, 1.0, 0.8, 0.2, 2.0),
        (1.0, 1.0, 0.8, -1.0, 0.7),
        (0.5, 2.0, 1.0, -0.4, 0.3),
        (1.0, 10.0, 2.0, -0.2, 0.3),
        (2.0, 0.3, 1.5, -2.0, 2.5),
    ]:
        metric, mean, rotation = gaussian_metric(rng, d, variance, strength)
        r1, r2, angle, length = clairaut(k, w1, w2, np.sqrt(strength) / variance)
        assert angle < 0.9 * np.pi
        x = mean + r1 * rotation[:, 0]
        y = mean + r2 * (np.cos(angle) * rotation[:, 0] + np.sin(angle) * rotation[:, 1])
        np.testing.assert_allclose(distance(metric, x, y), length, rtol=1e-8)
        np.testing.assert_allclose(distance(metric, y, x), length, rtol=1e-8)


@pytest.mark.parametrize("d", DIMENSIONS[2:])
def test_anisotropic_gaussian(d):
    """Its principal axes are geodesics, and so is every plane of two equal variances (reflections fix them)."""
    rng = np.random.default_rng(10 + d)
    for _ in range(3):
        variances = rng.uniform(0.5, 4.0, size=d)
        variances[1] = variances[0]
        strength = rng.uniform(0.2, 3.0)
        metric, mean, rotation = gaussian_metric(rng, d, None, strength, variances)
        for axis in (0, d - 1):
            c = np.sqrt(strength) / variances[axis]
            r1, r2 = 0.2 / c, 1.6 / c
            value = distance(metric, mean + r1 * rotation[:, axis], mean + r2 * rotation[:, axis])
            np.testing.assert_allclose(value, radial(r2, c) - radial(r1, c), rtol=1e-8)
        c = np.sqrt(strength) / variances[0]
        r1, r2, angle, length = clairaut(0.9 / c, -0.4 / c, 0.5 / c, c)
        x = mean + r1 * rotation[:, 0]
        y = mean + r2 * (np.cos(angle) * rotation[:, 0] + np.sin(angle) * rotation[:, 1])
        np.testing.assert_allclose(distance(metric, x, y), length, rtol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("d", DIMENSIONS)
def test_strength_zero_is_euclid(d):
    rng = np.random.default_rng(d)
    metric, *_ = gaussian_metric(rng, d, 0.3, 0.0)
    x, y = rng.normal(size=(2, d))
    np.testing.assert_allclose(distance(metric, x, y), np.linalg.norm(x - y), rtol=1e-14)
    if d == 2:
        np.testing.assert_allclose(distance(EuclideanMetric(), x, y), np.linalg.norm(x - y), rtol=1e-14)


@pytest.mark.slow
def test_clairaut_relation_along_geodesics():
    """r^2 theta' = x1 v2 - x2 v1 is constant along a geodesic of N(0, sigma^2 I), whether solved for or shot."""
    metric = SteinMetric(GaussianScore(jnp.zeros(2), 0.8 * jnp.eye(2)), 2.0)
    for x, y in [([1.0, 0.2], [-0.3, 1.1]), ([2.0, 0.0], [1.0, 2.0]), ([0.1, 0.0], [1.0, 1.0])]:
        path = solve(metric, np.array(x), np.array(y), np.linspace(x, y, 33), solver=SINGLE)
        shooting = trajectory(metric, path.points[0], path.velocities[0])
        for curve in (path, shooting):
            (x1, x2), (v1, v2) = np.asarray(curve.points).T, np.asarray(curve.velocities).T
            momentum = x1 * v2 - x2 * v1
            assert np.ptp(momentum) < 1e-7 * np.abs(momentum).max()


@jax.jit
def trajectory(metric, x, v):
    return shoot(metric, x, v, throw=False)


@pytest.mark.slow
def test_the_diameter_of_a_gaussian_stops_being_a_minimum_at_its_conjugate_point():
    """sqrt(1 + u^2)/u = asinh u with u = c r at u* = 1.50888: from there on it is shorter to go round the centre."""
    metric = SteinMetric(GaussianScore(jnp.zeros(2), jnp.eye(2)), 1.0)
    t = np.linspace(0, 1, 33)
    for u, shorter in [(1.4, False), (1.6, True), (3.0, True)]:
        x = np.array([u, 0.0])
        bent = np.stack([u * np.cos(np.pi * t), 0.5 * u * np.sin(np.pi * t)], 1)
        path = solve(metric, x, -x, bent, solver=SINGLE)
        assert path.result == RESULTS.successful
        if shorter:
            assert path.length < 2 * radial(u, 1.0) * (1 - 1e-5)
        else:
            np.testing.assert_allclose(path.length, 2 * radial(u, 1.0), rtol=1e-8)
    # The long way round has a closed form too: at the nearest point k the angle swept is pi.
    k = np.linalg.norm(path.points, axis=1).min()
    w = np.sqrt(9.0 - k**2)
    *_, angle, length = clairaut(k, -w, w, 1.0)
    np.testing.assert_allclose(angle, np.pi, rtol=1e-6)
    np.testing.assert_allclose(path.length, length, rtol=1e-6)


# --- Flat -------------------------------------------------------------------------------------------------------------


def linear(x, s):
    return s @ x


@pytest.mark.slow
@pytest.mark.parametrize("strength", [0.0, 0.1, 1.0, 1000.0])
def test_linear_log_density_is_flat(strength):
    """d^2 = dx^T (I + lam s s^T) dx, along straight lines."""
    rng = np.random.default_rng(2)
    s, x, y = rng.normal(size=(3, 3))
    metric = SteinMetric(DensityScore(linear, s), strength)
    expected = np.sqrt((y - x) @ (y - x) + strength * (s @ (y - x)) ** 2)
    path = solve(metric, x, y, solver=SINGLE)
    np.testing.assert_allclose(path.length, expected, rtol=1e-12)
    np.testing.assert_allclose(path.points, x + np.linspace(0, 1, 65)[:, None] * (y - x), atol=1e-9)


def score_jacobian(x, score):
    jacobian = jax.jacfwd(score)(x)
    return jacobian.T @ jacobian


@pytest.mark.slow
def test_score_jacobian_of_a_gaussian():
    """G = J^T J with J = -Sigma^-1: d = |Sigma^-1 (x - y)|."""
    rng = np.random.default_rng(3)
    cov = np.array([[1.0, 0.4, 0.0], [0.4, 0.6, -0.1], [0.0, -0.1, 2.0]])
    mean, x, y = rng.normal(size=(3, 3))
    metric = MatrixMetric(score_jacobian, GaussianScore(jnp.asarray(mean), jnp.asarray(cov)))
    expected = np.linalg.norm(np.linalg.solve(cov, x - y))
    np.testing.assert_allclose(distance(metric, x, y), expected, rtol=1e-10)


def power_law(x, a):
    return (x @ x) ** a * jnp.eye(x.size)


@pytest.mark.slow
def test_power_law_is_a_flat_cone():
    """p = r^-a, G = p^-2 I: rho = r^(1+a)/(1+a) and angle (1+a) theta are polar coordinates of the plane."""
    for a, r1, r2, angle in [(0.5, 1.0, 1.5, 1.0), (0.5, 1.0, 0.4, 1.2), (1.0, 1.0, 2.0, 0.9), (-0.3, 0.7, 1.5, 2.0)]:
        x, y = np.array([r1, 0.0]), r2 * np.array([np.cos(angle), np.sin(angle)])
        b = 1 + a
        p, q = r1**b / b, r2**b / b * np.exp(1j * b * angle)
        value = distance(MatrixMetric(power_law, np.float64(a)), x, y)
        np.testing.assert_allclose(value, abs(p - q), rtol=1e-8)


# --- Constant curvature -----------------------------------------------------------------------------------------------


def epanechnikov(x):
    p = 0.5 * (1 - x @ x)
    return jnp.eye(x.size) / p**2


def in_ball(rng, d):
    x = rng.normal(size=d)
    return x / np.linalg.norm(x) * rng.uniform(0.0, 0.8)


def above(rng, d):
    return np.append(rng.normal(size=d - 1), rng.uniform(0.3, 2.5))


SPACES = {
    "poincare": (MatrixMetric(epanechnikov), poincare_ball, in_ball, (2, 3)),
    "sphere": (models.Sphere(), stereographic_sphere, in_ball, (3,)),
    "half-space": (models.HyperbolicHalfSpace(), half_space, above, (2,)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(SPACES))
def test_model_spaces(name):
    """Closed distances: p^-2 I with p = (1 - |x|^2)/2 is the Poincare ball; stereographic sphere; half-space."""
    metric, oracle, draw, dimensions = SPACES[name]
    for d in dimensions:
        rng = np.random.default_rng(d)
        for _ in range(6):
            x, y = draw(rng, d), draw(rng, d)
            np.testing.assert_allclose(distance(metric, x, y), oracle(x, y), rtol=1e-8)


@pytest.mark.slow
def test_half_space_in_float32():
    rng = np.random.default_rng(7)
    for _ in range(6):
        x, y = above(rng, 2), above(rng, 2)
        value = distance32(models.HyperbolicHalfSpace(), np.float32(x), np.float32(y))
        assert value.dtype == jnp.float32
        np.testing.assert_allclose(value, half_space(x, y), rtol=1e-4)


@jax.jit
def distance32(metric, x, y):
    return dist(metric, x, y, solver=FLOAT32, throw=False)


# --- Curvature --------------------------------------------------------------------------------------------------------


def riemann(metric, x):
    """R_ijkl from Gamma and its derivatives, with R_ijij = K (|e_i|^2 |e_j|^2 - <e_i, e_j>^2)."""
    gamma, derivative = christoffels(metric, x), jax.jacfwd(lambda x: christoffels(metric, x))(x)
    # R^a_bcd = d_c Gamma^a_db - d_d Gamma^a_cb + Gamma^a_ce Gamma^e_db - Gamma^a_de Gamma^e_cb
    up = jnp.einsum("adbc->abcd", derivative) - jnp.einsum("acbd->abcd", derivative)
    up += jnp.einsum("ace,edb->abcd", gamma, gamma) - jnp.einsum("ade,ecb->abcd", gamma, gamma)
    return jnp.einsum("ea,abcd->ebcd", metric.at(x).matrix(x.size), up)


compiled_riemann = jax.jit(riemann)


@pytest.mark.slow
def test_gauss_equation_of_a_mixture():
    """R_ijkl = lam/L (H_ik H_jl - H_il H_jk); Ricci and scalar curvature are its traces (docs/mathematics.md)."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=(3, 4, 4))
    covs = jnp.asarray(a @ a.transpose(0, 2, 1) / 4 + 0.5 * np.eye(4))
    score = GaussianMixtureScore(jnp.array([0.2, 0.3, 0.5]), jnp.asarray(rng.normal(size=(3, 4))), covs)
    lam, x = 1.7, rng.normal(size=4)
    value = np.asarray(compiled_riemann(SteinMetric(score, lam), jnp.asarray(x)))
    s, h = np.asarray(score(x)), np.asarray(jax.jacfwd(score)(jnp.asarray(x)))
    big_l = 1 + lam * s @ s
    expected = lam / big_l * (np.einsum("ik,jl->ijkl", h, h) - np.einsum("il,jk->ijkl", h, h))
    np.testing.assert_allclose(value, expected, atol=1e-10 * np.abs(expected).max())
    inverse = np.linalg.inv(np.eye(4) + lam * np.outer(s, s))
    gh = inverse @ h
    ricci = lam / big_l * (np.trace(gh) * h - h @ gh)
    np.testing.assert_allclose(np.einsum("ik,ijkl->jl", inverse, value), ricci, atol=1e-10 * np.abs(ricci).max())
    scalar = lam / big_l * (np.trace(gh) ** 2 - np.trace(gh @ gh))
    np.testing.assert_allclose(np.einsum("ik,jl,ijkl", inverse, inverse, value), scalar, rtol=1e-9)


def sectional(metric, x):
    x = jnp.asarray(x)
    return compiled_riemann(metric, x)[0, 1, 0, 1] / jnp.linalg.det(metric.at(x).matrix(2))


def gaussian_conformal(x, b, variance):
    return jnp.exp(b * x @ x / variance) * jnp.eye(2)


@pytest.mark.slow
def test_curvature_of_surfaces():
    """2-D K: Gaussian (lam/s^4)/(1 + lam r^2/s^4)^2; p^-2b I: -(2b/s^2) exp(-b r^2/s^2); constant on model spaces."""
    rng = np.random.default_rng(1)
    for _ in range(3):
        x, variance, lam, b = *rng.normal(size=(1, 2)), *rng.uniform(0.5, 2.0, 3)
        r2 = x @ x
        k = sectional(SteinMetric(GaussianScore(jnp.zeros(2), variance * jnp.eye(2)), lam), x)
        np.testing.assert_allclose(k, lam / variance**2 / (1 + lam * r2 / variance**2) ** 2, rtol=1e-9)
        k = sectional(MatrixMetric(gaussian_conformal, b, variance), x)
        np.testing.assert_allclose(k, -2 * b / variance * np.exp(-b * r2 / variance), rtol=1e-9)
        np.testing.assert_allclose(sectional(models.Sphere(), x), 1.0, rtol=1e-9)
        y = np.array([x[0], 0.2 + abs(x[1])])
        np.testing.assert_allclose(sectional(models.HyperbolicHalfSpace(), y), -1.0, rtol=1e-9)
        np.testing.assert_allclose(sectional(MatrixMetric(epanechnikov), 0.3 * x), -1.0, rtol=1e-9)
        np.testing.assert_allclose(sectional(MatrixMetric(power_law, b), y), 0.0, atol=1e-9)


def test_hessian_of_a_noised_density_is_bounded_below():
    """eig(H) >= -1/sigma^2 wherever the density is smoothed by a Gaussian of variance sigma^2."""
    rng = np.random.default_rng(1)
    h = 0.3
    score = KernelDensityScore(jnp.asarray(rng.normal(size=(30, 3))), h)
    hessians = jax.vmap(jax.jacfwd(score))(2 * rng.normal(size=(50, 3)))
    eigenvalues = np.linalg.eigvalsh(hessians)
    assert eigenvalues.min() >= -1 / h**2 * (1 + 1e-9)
    assert eigenvalues.max() > 0


# --- Invariants, on a mixture and on a network that is not a gradient -------------------------------------------------

WEIGHTS = np.array([0.5, 0.3, 0.2])
MEANS = np.array([[-1.0, 0.0], [1.0, 0.3], [0.0, 1.2]])
COVS = np.array([[[0.8, 0.1], [0.1, 0.6]], [[0.7, 0.0], [0.0, 0.7]], [[0.6, -0.2], [-0.2, 0.9]]])


def log_density(x):
    """log p of the mixture, in NumPy, batched."""
    delta = x[..., None, :] - MEANS
    mahalanobis = np.einsum("...ki,kij,...kj->...k", delta, np.linalg.inv(COVS), delta)
    return logsumexp(np.log(WEIGHTS) - 0.5 * np.linalg.slogdet(COVS)[1] - 0.5 * mahalanobis, axis=-1)


def score_and_hessian(x):
    """s and H of the mixture, in NumPy, by hand: H = -sum r P + sum r g g^T - s s^T with g_k = -P_k (x - m_k)."""
    precisions = np.linalg.inv(COVS)
    g = -np.einsum("kij,...kj->...ki", precisions, x[..., None, :] - MEANS)
    mahalanobis = -np.einsum("...ki,...ki->...k", g, x[..., None, :] - MEANS)
    logits = np.log(WEIGHTS) - 0.5 * np.linalg.slogdet(COVS)[1] - 0.5 * mahalanobis
    r = np.exp(logits - logsumexp(logits, axis=-1, keepdims=True))
    s = np.einsum("...k,...ki->...i", r, g)
    h = np.einsum("...k,...ki,...kj->...ij", r, g, g) - np.einsum("...k,kij->...ij", r, precisions)
    return s, h - s[..., :, None] * s[..., None, :]


def mixture(strength=1.0, rotation=None, dtype=np.float64):
    rotation = np.eye(2) if rotation is None else rotation
    means, covs = MEANS @ rotation.T, rotation @ COVS @ rotation.T
    covs = 0.5 * (covs + covs.transpose(0, 2, 1))
    score = GaussianMixtureScore(*(jnp.asarray(a.astype(dtype)) for a in (WEIGHTS, means, covs)))
    return SteinMetric(score, dtype(strength))


def mlp(x, params):
    w1, b1, w2 = params
    return w2 @ jnp.tanh(w1 @ x + b1)


def mlp_params():
    rng = np.random.default_rng(12)
    return rng.normal(size=(10, 3)), rng.normal(size=10), rng.normal(size=(3, 10)) / np.sqrt(10)


def network(strength=1.0, rotation=None, dtype=np.float64):
    rotation = np.eye(3) if rotation is None else rotation
    w1, b1, w2 = mlp_params()
    params = tuple(jnp.asarray(a.astype(dtype)) for a in (w1 @ rotation.T, b1, rotation @ w2))
    return SteinMetric(FunctionScore(mlp, params), dtype(strength))


def random_points(d, n=4):
    return np.random.default_rng(40 + d).normal(size=(n, d))


CASES = [(mixture, 2), (network, 3)]


@functools.cache
def paths(make, d):
    """Geodesics between all ordered pairs of the random points."""
    points = random_points(d)
    return {(i, j): solve(make(), points[i], points[j]) for i, j in itertools.permutations(range(len(points)), 2)}


@pytest.mark.slow
@pytest.mark.parametrize(("make", "d"), CASES)
def test_solves_say_that_they_succeeded(make, d):
    """result, the error estimate, and energy = 1/2 length^2; the length from the samples is the one reported."""
    for path in paths(make, d).values():
        assert path.result == RESULTS.successful
        assert path.error < 1e-8 * path.length
        np.testing.assert_allclose(path.energy, 0.5 * path.length**2, rtol=1e-8)


@pytest.mark.parametrize(("make", "d"), CASES)
def test_symmetry_and_reversal(make, d):
    """d(x, y) = d(y, x), and the way back is the way there: gamma_yx(1 - t) = gamma_xy(t)."""
    for (i, j), there in paths(make, d).items():
        back = paths(make, d)[j, i]
        np.testing.assert_allclose(there.length, back.length, rtol=1e-9)
        np.testing.assert_allclose(back.points[::-1], there.points, atol=1e-6)
        np.testing.assert_allclose(-back.velocities[::-1], there.velocities, atol=1e-5)
        t = np.array([0.0, 0.137, 0.8, 1.0])
        np.testing.assert_allclose(at_times(there, t), at_times(back, 1 - t), atol=1e-6)
        if i == 0 and j == 1:
            np.testing.assert_allclose(at_times(there, t), at_times(there.reverse(), 1 - t), atol=1e-12)


@pytest.mark.parametrize(("make", "d"), CASES)
def test_triangle_inequality(make, d):
    lengths = {pair: float(path.length) for pair, path in paths(make, d).items()}
    slack = [lengths[i, j] + lengths[j, k] - lengths[i, k] for i, j, k in itertools.permutations(range(4), 3)]
    assert min(slack) > -1e-9
    assert min(slack) < 1.0


@pytest.mark.slow
@pytest.mark.parametrize(("make", "d"), CASES)
def test_exp_undoes_log(make, d):
    """exp_x(log_x(y)) = y, |log_x(y)| = d(x, y); `log` is the initial velocity of `geodesic`."""
    metric, points = make(), random_points(d)
    for (i, j), path in list(paths(make, d).items())[::3]:
        np.testing.assert_allclose(shot(metric, points[i], path.velocities[0]), points[j], atol=1e-7)
        np.testing.assert_allclose(metric.norm(points[i], path.velocities[0]), path.length, rtol=1e-7)
    if d == 3:
        v = log(metric, points[2], points[3], solver=SINGLE)
        np.testing.assert_allclose(v, paths(make, d)[2, 3].velocities[0], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("make", "d"), CASES)
def test_speed_is_constant_and_the_geodesic_equation_holds(make, d):
    """|gamma'|_G = length at every sample; `verify` by re-integration below 1e-6; `residual` tells the same."""
    metric = make()
    for path in list(paths(make, d).values())[::2]:
        speeds = jax.vmap(metric.norm)(path.points, path.velocities)
        np.testing.assert_allclose(speeds, path.length, rtol=1e-6)
        assert path.residual < 1e-6
        assert check(metric, path) < 1e-6


@pytest.mark.parametrize(("make", "d"), CASES)
def test_verify_rejects_what_is_no_geodesic(make, d):
    """A bent path, the straight line, another strength, another speed, velocities that do not belong to the points."""
    metric, path = make(), paths(make, d)[0, 1]
    t = np.asarray(path.ts)[:, None]
    bump = 0.05 * np.eye(d)[0]

    def replaced(points, velocities):
        return eqx.tree_at(lambda p: (p.points, p.velocities), path, (jnp.asarray(points), jnp.asarray(velocities)))

    def shifted(h, dh):
        return replaced(path.points + h(t) * bump, path.velocities + dh(t) * bump)

    assert check(metric, path) < 1e-6
    assert check(metric, shifted(lambda t: np.sin(np.pi * t), lambda t: np.pi * np.cos(np.pi * t))) > 1e-4
    assert check(metric, shifted(lambda t: 0 * t, lambda t: 0 * t + 1)) > 1e-4
    chord = np.asarray(path.points[-1] - path.points[0])
    assert check(metric, replaced(path.points[0] + t * chord, 0 * t + chord)) > 1e-4
    warped, tangents = with_tangents(path, path.ts**2)
    assert check(metric, replaced(warped, 2 * t * tangents)) > 1e-4
    assert check(make(2.0), path) > 1e-4


def test_verify_sees_a_dropped_curl_term():
    """The wrong flag gives another equation, whose solutions have constant speed all the same."""
    params = tuple(map(jnp.asarray, mlp_params()))
    wrong = SteinMetric(FunctionScore(mlp, params, conservative=True), 1.0)
    assert check(wrong, paths(network, 3)[0, 1]) > 1e-4


@pytest.mark.parametrize(("make", "d"), CASES)
def test_rotation_equivariance(make, d):
    """Rotating the density rotates its geodesics: s_R(x) = R s(R^T x)."""
    rotation, points = frame(np.random.default_rng(5), d), random_points(d)
    for pair in [(0, 1), (2, 3), (3, 0)]:
        x, y = points[list(pair)] @ rotation.T
        rotated = solve(make(rotation=rotation), x, y)
        np.testing.assert_allclose(rotated.length, paths(make, d)[pair].length, rtol=1e-9)
        np.testing.assert_allclose(rotated.points, paths(make, d)[pair].points @ rotation.T, atol=1e-6)


@pytest.mark.parametrize(("make", "d"), CASES)
def test_distance_grows_with_the_strength(make, d):
    """From |x - y| at lam = 0, strictly, and never above the length of the straight line."""
    points = random_points(d)
    for i, j in [(0, 1), (2, 3), (3, 0)]:
        x, y = points[i], points[j]
        lengths = [float(solve(make(lam), x, y).length) for lam in (0.0, 0.01, 0.1, 0.5, 1.0, 3.0)]
        np.testing.assert_allclose(lengths[0], np.linalg.norm(x - y), rtol=1e-13)
        assert np.all(np.diff(lengths) > 0)
        nodes, weights = np.polynomial.legendre.leggauss(100)
        line = x + 0.5 * (nodes[:, None] + 1) * (y - x)
        s = np.asarray(jax.vmap(make().score)(line))
        for lam, length in zip((0.0, 0.01, 0.1, 0.5, 1.0, 3.0), lengths, strict=True):
            straight = np.sqrt((y - x) @ (y - x) + lam * (s @ (y - x)) ** 2) @ weights / 2
            assert length <= straight * (1 + 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("make", "d"), CASES)
def test_pairwise_dist_is_dist_pair_by_pair(make, d):
    points = random_points(d)
    if d == 2:
        matrix, results = pairwise_dist(make(), points[:3], points[1:], solver=SINGLE)
        pairs = itertools.product(range(3), range(1, 4))
    else:
        matrix, results = pairwise_dist(make(), points, solver=SINGLE)
        pairs = itertools.product(range(4), range(4))
        np.testing.assert_array_equal(np.diag(matrix), 0.0)
        np.testing.assert_array_equal(matrix, matrix.T)
    successful = results == RESULTS.successful
    assert np.all(successful)
    expected = [0.0 if i == j else float(paths(make, d)[i, j].length) for i, j in pairs]
    assert successful.shape == matrix.shape == ((3, 3) if d == 2 else (4, 4))
    np.testing.assert_allclose(np.ravel(matrix), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("make", "d"), CASES)
def test_dist_and_its_square_are_the_length(make, d):
    length, (x, y) = paths(make, d)[0, 1].length, random_points(d)[:2]
    if d == 2:
        np.testing.assert_allclose(distance(make(), x, y), length, rtol=1e-9)
    else:
        np.testing.assert_allclose(squared_dist(make(), x, y, solver=SINGLE), length**2, rtol=1e-9)


# --- The mixture as a graph -------------------------------------------------------------------------------------------


def test_length_is_that_of_the_lift_to_the_graph():
    """x -> (x, sqrt(lam) log p(x)) is an isometry: d is the Euclidean length of the lift, and at least its chord."""
    points, fine = random_points(2), jnp.asarray(np.linspace(0, 1, 2001))
    for (i, j), path in list(paths(mixture, 2).items())[::4]:
        curve = np.asarray(at_times(path, fine))
        lift = np.column_stack([curve, log_density(curve)])
        coarse = [np.linalg.norm(np.diff(lift[::k], axis=0), axis=1).sum() for k in (1, 2)]
        np.testing.assert_allclose((4 * coarse[0] - coarse[1]) / 3, path.length, rtol=1e-8)
        chord = np.hypot(np.linalg.norm(points[i] - points[j]), np.diff(log_density(points[[i, j]]))[0])
        assert chord < path.length


def test_gauss_bonnet_on_geodesic_triangles():
    """Angle sum - pi = int K dA with K = lam det H / L^2 and dA = sqrt(L) dx, over triangles of geodesics."""
    metric, solved = mixture(), paths(mixture, 2)
    nodes, weights = np.polynomial.legendre.leggauss(40)
    u, w = 0.5 * (nodes + 1), 0.5 * weights
    tested = 0
    for corners in [(0, 1, 2), (0, 3, 2), (1, 2, 3)]:
        points = random_points(2)[list(corners)]
        centre, total, angles = points.mean(0), 0.0, 0.0
        for a, b, c in (corners, corners[1:] + corners[:1], corners[2:] + corners[:2]):
            p, q = solved[a, b].velocities[0], solved[a, c].velocities[0]
            at = metric.at(solved[a, b].points[0])
            angles += float(jnp.arccos(at.inner(p, q) / (at.norm(p) * at.norm(q))))
            # The fan from the centre: c + r (gamma(t) - c), with area element r (gamma - c) x gamma' dr dt.
            curve, tangent = with_tangents(solved[a, b], u)
            curve, tangent = np.asarray(curve) - centre, np.asarray(tangent)
            s, h = score_and_hessian(centre + u[:, None, None] * curve)
            big_l = 1 + np.sum(s**2, -1)
            density = np.linalg.det(h) / big_l**1.5  # K dA
            cross = curve[:, 0] * tangent[:, 1] - curve[:, 1] * tangent[:, 0]
            total += np.einsum("r,t,rt,r,t->", w, w, density, u, cross)
        turn = np.sign(np.linalg.det(points[1:] - points[0]))
        np.testing.assert_allclose(angles - np.pi, turn * total, atol=1e-6)
        tested += abs(total) > 1e-2
    assert tested


@pytest.mark.slow
def test_an_independent_solver_finds_the_same_geodesics():
    """SciPy's collocation with x'' = -lam (v^T H v) s / L in NumPy, from the straight line; length to 1e-7."""
    lam, points = 1.0, random_points(2)

    def ode(_, state):
        x, v = state[:2].T, state[2:].T
        s, h = score_and_hessian(x)
        factor = -lam * np.einsum("ni,nij,nj->n", v, h, v) / (1 + lam * np.sum(s**2, 1))
        return np.concatenate([state[2:], (factor[:, None] * s).T])

    for i, j in [(0, 1), (2, 3), (1, 3)]:
        x, y = points[i], points[j]
        t = np.linspace(0, 1, 40)
        guess = np.concatenate([(x + t[:, None] * (y - x)).T, np.repeat((y - x)[:, None], 40, 1)])
        solution = solve_bvp(
            ode, lambda a, b, x=x, y=y: np.append(a[:2] - x, b[:2] - y), t, guess, tol=1e-9, max_nodes=50_000
        )
        assert solution.success
        v = solution.sol(0.0)[2:]
        s, _ = score_and_hessian(x)
        np.testing.assert_allclose(paths(mixture, 2)[i, j].length, np.sqrt(v @ v + lam * (s @ v) ** 2), rtol=1e-7)
        middle = np.asarray(paths(mixture, 2)[i, j].evaluate(0.5))
        np.testing.assert_allclose(middle, solution.sol(0.5)[:2], atol=1e-6)


# --- The three-mode reference problem ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_three_mode_reference_problem():
    """Length 5.05502938; a worse local geodesic has 7.70. Also by the lift to the graph, in NumPy."""
    covs = jnp.stack([MODES_SD**2 * jnp.eye(2)] * 3)
    score = GaussianMixtureScore(jnp.ones(3) / 3, jnp.asarray(MODES), covs)
    path = geodesic(SteinMetric(score, 1.0), MODES_X, MODES_Y)
    assert path.result == RESULTS.successful
    np.testing.assert_allclose(path.length, MODES_LENGTH, rtol=2e-8)
    curve = np.asarray(jax.vmap(path.evaluate)(jnp.linspace(0, 1, 20001)))
    lift = np.column_stack([curve, logsumexp(-2 * cdist(curve, MODES, "sqeuclidean"), axis=1)])
    np.testing.assert_allclose(np.linalg.norm(np.diff(lift, axis=0), axis=1).sum(), path.length, rtol=1e-6)


# --- float32 ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_gaussian_in_float32():
    """Radial and Clairaut distances to 1e-4, d = 5, with the default solver's float32 tolerances."""
    rng = np.random.default_rng(3)
    for k, w1, w2 in [(0.8, 0.2, 2.0), (0.8, -1.0, 0.7), (1.5, -0.5, 0.8)]:
        metric, mean, rotation = gaussian_metric(rng, 5, 1.0, 1.0)
        single = jax.tree.map(lambda a: a.astype(jnp.float32), metric)
        r1, r2, angle, length = clairaut(k, w1, w2, 1.0)
        x = mean + r1 * rotation[:, 0]
        y = mean + r2 * (np.cos(angle) * rotation[:, 0] + np.sin(angle) * rotation[:, 1])
        value = distance32(single, np.float32(x), np.float32(y))
        assert value.dtype == jnp.float32
        np.testing.assert_allclose(value, length, rtol=1e-4)
        value = distance32(single, np.float32(mean), np.float32(x))
        np.testing.assert_allclose(value, radial(r1, 1.0), rtol=1e-4)


@jax.jit
def solve32(metric, x, y):
    return geodesic(metric, x, y, solver=FLOAT32, throw=False)


@pytest.mark.slow
@pytest.mark.parametrize(("make", "d"), CASES)
def test_invariants_in_float32(make, d):
    """The float64 length, symmetry, exp(log(x, y)) = y and `verify`, to 1e-4."""
    metric, points = make(dtype=np.float32), random_points(d).astype(np.float32)
    metric = jax.tree.map(lambda a: a.astype(jnp.float32), metric)
    for i, j in [(0, 1), (2, 3), (3, 0)]:
        there, back = solve32(metric, points[i], points[j]), solve32(metric, points[j], points[i])
        assert there.length.dtype == there.points.dtype == jnp.float32
        assert there.result == RESULTS.successful
        np.testing.assert_allclose(there.length, paths(make, d)[i, j].length, rtol=1e-4)
        np.testing.assert_allclose(there.length, back.length, rtol=1e-4)
        np.testing.assert_allclose(back.points[::-1], there.points, atol=1e-4)
        np.testing.assert_allclose(shot(metric, points[i], there.velocities[0]), points[j], atol=1e-4)
        assert check(metric, there) < 1e-4
