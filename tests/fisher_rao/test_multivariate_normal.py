"""MultivariateNormal: the family against its definitions, geodesics against closed forms, diffrax and themselves."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.stats

import scoregeo
from scoregeo import RESULTS, SpectralNewton, shoot, verify
from scoregeo.fisher_rao.metric import FisherRaoMetric
from scoregeo.fisher_rao.multivariate_normal.family import FibreSolver, MultivariateNormal
from scoregeo.fisher_rao.normal_distances import calvo_oller, sqrt_jeffreys
from scoregeo.metrics.lagrangian import lagrangian_acceleration


def parameters(d, rng, condition=1e3, spread=3.0):
    """A mean several standard deviations from zero, and a covariance with random axes."""
    q, _ = np.linalg.qr(rng.normal(size=(d, d)))
    values = condition ** rng.uniform(-0.5, 0.5, size=d)
    return spread * rng.normal(size=d), (q * values) @ q.T


def flat(mean, cov):
    return np.concatenate([mean, cov[np.tril_indices(len(mean))]])


def points(d, n, seed, **settings):
    """``n`` points ``theta``, shape ``(n, size)``."""
    rng = np.random.default_rng(seed)
    return np.stack([flat(*parameters(d, rng, **settings)) for _ in range(n)])


def tangents(thetas, seed):
    return np.random.default_rng(seed).normal(size=thetas.shape)


def relative(a, b):
    a, b = np.asarray(a, float), np.asarray(b, float)
    return np.abs(a - b).max() / max(np.abs(b).max(), 1e-300)


# The family.
@functools.cache
def family_functions(d):
    family = MultivariateNormal(d)

    @jax.jit
    @jax.vmap
    def functions(theta, x, v):
        product = family.inner_product(theta)
        eta = family.natural(theta)
        to_eta, to_mu = (jax.jacfwd(f)(theta) for f in (family.natural, family.expectation))
        return {
            "log_prob": family.log_prob(theta, x),
            "exponential form": eta @ family.sufficient_statistic(x) - family.log_partition(eta),
            "expectation": family.expectation(theta),
            "gradient of A": jax.grad(family.log_partition)(eta),
            "round trip": family.from_natural(eta),
            "dual": to_eta.T @ to_mu,
            "matrix": family.fisher(theta),
            "mv": product.mv(v),
            "solve": product.solve(v),
            "sqrt_mv": product.sqrt_mv(v),
            "inv_sqrt_mv": product.inv_sqrt_mv(v),
            "logdet": product.logdet(),
            "acceleration": family.acceleration(theta, v),
            "lagrangian": lagrangian_acceleration(FisherRaoMetric(family), theta, v),
            "samples": family.sample(jax.random.key(1), theta, 2000),
        }

    return functions


@pytest.mark.slow
@pytest.mark.parametrize("d", [1, 3])
def test_the_family_against_its_definitions(d):
    family, thetas = MultivariateNormal(d), points(d, 6, seed=d, condition=30.0)
    x = 3 * np.random.default_rng(1).normal(size=(6, d))
    v = tangents(thetas, 2)
    got = jax.tree.map(np.asarray, family_functions(d)(thetas, x, v))
    for k, theta in enumerate(thetas):
        mean, cov = map(np.asarray, family.unpack(theta))
        law = scipy.stats.multivariate_normal(mean, cov)
        np.testing.assert_allclose(got["log_prob"][k], law.logpdf(x[k]), rtol=1e-11)
        # |v|^2 = dm^T S^-1 dm + 1/2 tr (S^-1 dS)^2, by polarisation a matrix.
        inverse, size = np.linalg.inv(cov), family.size

        def inner(v, w, inverse=inverse):
            (dm, ds), (em, es) = (map(np.asarray, family.unpack(a)) for a in (v, w))
            return dm @ inverse @ em + 0.5 * np.trace(inverse @ ds @ inverse @ es)

        g = np.array([[inner(e, f) for f in np.eye(size)] for e in np.eye(size)])
        values, vectors = np.linalg.eigh(g)
        assert relative(got["matrix"][k], g) < 1e-12
        assert relative(got["mv"][k], g @ v[k]) < 1e-12
        assert relative(got["solve"][k], np.linalg.solve(g, v[k])) < 1e-10
        assert relative(got["sqrt_mv"][k], (vectors * np.sqrt(values)) @ vectors.T @ v[k]) < 1e-10
        assert relative(got["inv_sqrt_mv"][k], (vectors / np.sqrt(values)) @ vectors.T @ v[k]) < 1e-10
        np.testing.assert_allclose(got["logdet"][k], np.linalg.slogdet(g)[1], rtol=1e-10)
        # 2,000 samples, whitened: within 4.5 standard errors of the moments of a standard normal vector.
        samples = (got["samples"][k] - mean) @ np.linalg.inv(np.linalg.cholesky(cov)).T
        assert (np.abs(samples.mean(0)) < 4.5 / 2000**0.5).all()
        assert (np.abs(samples.T @ samples / 2000 - np.eye(d)) < 4.5 * (2 / 2000) ** 0.5).all()
    np.testing.assert_allclose(got["exponential form"], got["log_prob"], rtol=1e-10, atol=1e-10)
    assert relative(got["gradient of A"], got["expectation"]) < 1e-11
    assert relative(got["round trip"], thetas) < 1e-11
    assert relative(got["dual"], got["matrix"]) < 1e-11
    assert relative(got["acceleration"], got["lagrangian"]) < 1e-10
    assert np.abs(got["acceleration"]).max() > 0.1


def test_the_information_is_the_covariance_of_the_fisher_score():
    """By 100,000 samples, within five standard errors of each entry."""
    family = MultivariateNormal(2)
    theta = jnp.asarray(points(2, 1, seed=4, condition=5.0)[0])
    samples = family.sample(jax.random.key(0), theta, 100_000)
    scores = np.asarray(jax.jit(jax.vmap(jax.grad(family.log_prob), (None, 0)))(theta, samples))
    products = scores[:, :, None] * scores[:, None, :]
    error = products.std(0) / len(products) ** 0.5
    assert (np.abs(products.mean(0) - np.asarray(family.fisher(theta))) < 5 * error).all()
    assert (error < 0.03 * np.abs(np.asarray(family.fisher(theta))).max()).all()


# From a point and a velocity.
@pytest.mark.slow
def test_the_exponential_map_is_what_diffrax_integrates():
    family = MultivariateNormal(3)
    metric = FisherRaoMetric(family)
    thetas = points(3, 4, seed=13, condition=30.0)

    @jax.jit
    @jax.vmap
    def both(theta, v):
        v = 2 * v / metric.norm(theta, v)
        end = family.exp(theta, v)
        back = -jax.jvp(lambda t: family.exp(theta, t * v), (jnp.ones(()),), (jnp.ones(()),))[1]
        path = shoot(metric, theta, v, throw=False)
        return v, end, path.points[-1], path.velocities[-1], back, family.exp(end, back)

    v, end, expected, velocity, back, home = both(thetas, tangents(thetas, 3))
    assert relative(end, expected) < 1e-8
    assert relative(-back, velocity) < 1e-7
    assert relative(home, thetas) < 1e-9
    # At rest, with its derivative the identity.
    theta = jnp.asarray(thetas[0])
    still, derivative = jax.jit(lambda v: (family.exp(theta, v), jax.jacrev(lambda v: family.exp(theta, v))(v)))(
        0 * v[0]
    )
    assert relative(still, theta) < 1e-14
    assert relative(derivative, np.eye(family.size)) < 1e-12


# Between two points.
TIMES = (0.0, 0.2, 0.5, 0.9, 1.0)


@functools.cache
def solved(d):
    """Compiled once per dimension: geodesics between pairs, there and back, and between their affine images."""
    family = MultivariateNormal(d)

    def image(theta, matrix, shift):
        mean, cov = family.unpack(theta)
        cov = matrix @ cov @ matrix.T
        return jnp.concatenate([matrix @ mean + shift, cov[np.tril_indices(d)]])

    @jax.jit
    @jax.vmap
    def solve(a, b, matrix, shift):
        starts = jnp.stack([a, b, image(a, matrix, shift)])
        ends = jnp.stack([b, a, image(b, matrix, shift)])
        return jax.vmap(lambda a, b: family.geodesic(a, b, TIMES, throw=False))(starts, ends)

    return solve


@functools.cache
def known(d):
    """Compiled once per dimension: speeds and ends of a path with velocity ``v``, and bounds of its length."""
    family = MultivariateNormal(d)
    speeds = jax.jit(jax.vmap(jax.vmap(FisherRaoMetric(family).norm)))
    shot = jax.jit(jax.vmap(lambda a, v: jax.vmap(lambda t: family.exp(a, t * v))(jnp.array(TIMES))))
    lower, upper = (
        jax.jit(jax.vmap(lambda a, b, f=f: f(*family.unpack(a), *family.unpack(b))))
        for f in (calvo_oller, sqrt_jeffreys)
    )
    return speeds, shot, lower, upper


@pytest.mark.slow
@pytest.mark.parametrize(("d", "n"), [(1, 100), (3, 100), (5, 400), (10, 20)])
def test_geodesics_between_random_normals(d, n):
    """Condition numbers up to 1e3, means many standard deviations apart: every target of the issue. With those there
    and back and their images, 1,200 pairs in one call for d = 5."""
    a, b = points(d, n, seed=d), points(d, n, seed=100 + d)
    rng = np.random.default_rng(d)
    q, _ = np.linalg.qr(rng.normal(size=(n, d, d)))
    matrix = q * 10 ** rng.uniform(-0.5, 0.5, size=(n, 1, d))
    path = jax.tree.map(np.asarray, solved(d)(a, b, matrix, rng.normal(size=(n, d))))
    speed, shot, lower, upper = known(d)
    speeds, there = speed(path.points[:, 0], path.velocities[:, 0]), shot(a, path.velocities[:, 0, 0])
    assert bool(jnp.all(path.result == RESULTS.successful))
    length = path.length[:, 0]
    np.testing.assert_allclose(path.length[:, 1], length, rtol=1e-10)
    np.testing.assert_allclose(path.length[:, 2], length, rtol=1e-10)
    np.testing.assert_allclose(speeds, np.broadcast_to(length[:, None], speeds.shape), rtol=1e-8)
    assert (lower(a, b) < length * (1 + 1e-12)).all()
    assert (upper(a, b) > length).all()
    assert path.residual.max() < 1e-8
    assert (path.error <= 1e-9 * path.length).all()
    assert np.abs(path.points[:, 0, 0] - a).max() < 1e-9 * np.abs(a).max()
    # Entries of the covariance of a path may be much larger than those of its ends.
    scale = np.abs(path.points[:, 0]).max((1, 2))[:, None, None]
    assert (np.abs(path.points[:, 0, -1] - b) / scale[..., 0]).max() < 1e-8
    backwards = np.asarray(path.points[:, 1])[:, [4, 2, 0]]
    assert (np.abs(path.points[:, 0][:, [0, 2, 4]] - backwards) / scale).max() < 1e-8
    assert (np.abs(there - path.points[:, 0]) / scale).max() < 1e-7
    if d == 1:
        exact = univariate(a, b)
        np.testing.assert_allclose(length, exact, rtol=1e-12)
        np.testing.assert_allclose(path.error[:, 0], 0, atol=1e-9)


def univariate(a, b):
    """The half-plane: sqrt2 arcosh(1 + ((m1 - m2)^2 / 2 + (s1 - s2)^2) / (2 s1 s2))."""
    (m1, v1), (m2, v2) = a.T, b.T
    s1, s2 = np.sqrt(v1), np.sqrt(v2)
    return 2 * 2**0.5 * np.arcsinh(np.sqrt(((m1 - m2) ** 2 / 2 + (s1 - s2) ** 2) / (4 * s1 * s2)))


@pytest.mark.slow
def test_closed_forms_for_equal_means_and_for_means_that_differ_along_one_axis():
    d, n = 3, 20
    a, b = points(d, n, seed=5), points(d, n, seed=6)
    b[:, :d] = a[:, :d]
    family = MultivariateNormal(d)
    eye, zero = np.broadcast_to(np.eye(d), (n, d, d)), np.zeros((n, d))
    length = np.asarray(solved(d)(a, b, eye, zero).length[:, 0])
    covs = [[np.asarray(family.unpack(theta)[1]) for theta in thetas] for thetas in (a, b)]
    logs = np.array([np.log(scipy.linalg.eigh(s2, s1, eigvals_only=True)) for s1, s2 in zip(*covs, strict=True)])
    np.testing.assert_allclose(length, np.sqrt(0.5 * (logs**2).sum(1)), rtol=1e-11)

    # Diagonal covariances: a product of half-planes where the mean moves along one axis. Along two the geodesic turns
    # the covariance, as S'' has -m_i' m_j' off its diagonal, and is shorter than within independent variables.
    a, b = points(d, n, seed=7), points(d, n, seed=8)
    rows, columns = np.tril_indices(d)
    diagonal = d + np.flatnonzero(rows == columns)
    for thetas in (a, b):
        thetas[:, d + np.flatnonzero(rows != columns)] = 0

    def product(a, b):
        return np.sqrt(sum(univariate(a[:, [i, j]], b[:, [i, j]]) ** 2 for i, j in enumerate(diagonal)))

    ratio = np.asarray(solved(d)(a, b, eye, zero).length[:, 0]) / product(a, b)
    assert ratio.max() < 1
    assert ratio.min() < 0.9
    b[:, 1:d] = a[:, 1:d]
    path = solved(d)(a, b, eye, zero)
    np.testing.assert_allclose(path.length[:, 0], product(a, b), rtol=1e-11)
    assert bool(jnp.all(path.result == RESULTS.successful))


@pytest.mark.slow
def test_the_spectral_solver_and_diffrax_agree():
    """Independent of the closed form: `SpectralNewton` on the metric alone, and `verify`, which integrates again."""
    family = MultivariateNormal(2)
    metric = FisherRaoMetric(family)
    a, b = points(2, 3, seed=20, condition=4.0, spread=0.7), points(2, 3, seed=21, condition=4.0, spread=0.7)

    spectral = SpectralNewton(degree=24, max_elements=1, continuation=0, adaptations=0)

    @jax.jit
    @jax.vmap
    def solve(a, b):
        ours = scoregeo.geodesic(metric, a, b, solver=FibreSolver(), ts=TIMES, throw=False)
        return ours, verify(metric, ours)

    ours, defect = solve(a, b)
    assert bool(jnp.all(ours.result == RESULTS.successful))
    assert np.max(defect) < 1e-8
    one = jax.tree.map(lambda leaf: leaf[0], ours)
    theirs = scoregeo.geodesic(metric, a[0], b[0], solver=spectral, ts=TIMES)
    np.testing.assert_allclose(one.length, theirs.length, rtol=1e-8)
    np.testing.assert_allclose(one.points, theirs.points, atol=1e-7)
    np.testing.assert_allclose(one.velocities, theirs.velocities, atol=1e-6)
    back = one.reverse()
    np.testing.assert_allclose(back.evaluate(0.3), one.evaluate(0.7), rtol=1e-13)
    np.testing.assert_allclose(back.velocity(0.3), -one.velocity(0.7), rtol=1e-13)
    lengths = [family.dist(x, y) for x, y in ((a[0], b[0]), (b[0], a[0]))]
    np.testing.assert_allclose(lengths, float(one.length), rtol=1e-14)


# Derivatives.
@pytest.mark.slow
def test_derivatives_against_finite_differences():
    family = MultivariateNormal(3)
    a, b = (jnp.asarray(points(3, 1, seed=s, condition=5.0, spread=1.0)[0]) for s in (30, 31))

    def dist(a, b):
        return family.dist(a, b, throw=False)

    def path(a, b):
        g = family.geodesic(a, b, (0.0, 0.4, 1.0), throw=False)
        return jnp.concatenate([g.points[1], g.velocities[0], g.velocities[2]])

    def gradient(a, b):
        return jnp.concatenate(jax.grad(dist, (0, 1))(a, b))

    @jax.jit
    def derivatives(a, b, da, db):
        moved = jnp.linspace(-2, 2, 5)[:, None] * 1e-3
        lengths = jax.vmap(lambda h: dist(a + h * da, b + h * db))(moved)
        paths = jax.vmap(lambda h: path(a + h * da, b + h * db))(moved)
        gradients = jax.vmap(lambda h: gradient(a + h * da, b + h * db))(moved)
        return {
            "dist": (jax.jvp(dist, (a, b), (da, db))[1], lengths),
            "path": (jax.jvp(path, (a, b), (da, db))[1], paths),
            "gradient": (
                jax.jvp(lambda *ab: jnp.concatenate(jax.grad(dist, (0, 1))(*ab)), (a, b), (da, db))[1],
                gradients,
            ),
            "reverse": (jax.vjp(path, a, b)[1](jnp.ones(3 * family.size)), jax.jvp(path, (a, b), (da, db))[1]),
        }

    rng = np.random.default_rng(0)
    da, db = 0.3 * rng.normal(size=(2, family.size))
    found = derivatives(a, b, da, db)
    for name in ("dist", "path", "gradient"):
        value, (f0, f1, _, f3, f4) = found[name]
        expected = (8 * (f3 - f1) - (f4 - f0)) / 12e-3
        assert relative(value, expected) < 1e-7, name
        assert np.abs(expected).max() > 1e-2
    (ga, gb), forward = found["reverse"]
    np.testing.assert_allclose(ga @ da + gb @ db, jnp.sum(forward), rtol=1e-9)


@pytest.mark.slow
def test_coincident_points_and_close_ones():
    family = MultivariateNormal(3)
    a = jnp.asarray(points(3, 1, seed=40)[0])
    v = jnp.asarray(tangents(np.asarray(a), 41))

    @jax.jit
    def at(a, b):
        dist, gradient = jax.value_and_grad(family.dist, (0, 1))(a, b, throw=False)
        curve = family.geodesic(a, b, (0.0, 1.0), throw=False)
        squared = jax.hessian(lambda b: 2 * family.geodesic(a, b, (0.0, 1.0), throw=False).energy)(b)
        return dist, gradient, curve, squared, jax.jacrev(lambda b: family.log(a, b, throw=False))(b)

    dist, gradient, curve, squared, jacobian = at(a, a)
    assert float(dist) == 0
    np.testing.assert_array_equal(gradient, np.zeros((2, family.size)))
    assert bool(curve.result == RESULTS.successful)
    np.testing.assert_allclose(curve.velocities, 0, atol=1e-12)
    assert relative(jacobian, np.eye(family.size)) < 1e-10
    assert relative(squared, 2 * family.fisher(a)) < 1e-6
    for size in (1e-3, 1e-6, 1e-9):
        dist, gradient, curve, _, _ = at(a, a + size * v)
        speed = float(family.inner_product(a).norm(v))
        np.testing.assert_allclose(dist, size * speed, rtol=10 * size * speed, atol=1e-15 * speed)
        assert bool(curve.result == RESULTS.successful), size
        assert np.isfinite(gradient).all()


# What may go wrong.
@pytest.mark.slow
def test_float32():
    family = MultivariateNormal(3)
    a, b = (points(3, 50, seed=s, condition=10.0, spread=1.0) for s in (50, 51))
    solve = jax.jit(jax.vmap(lambda a, b: family.geodesic(a, b, TIMES, throw=False)))
    single, double = solve(a.astype(np.float32), b.astype(np.float32)), solve(a, b)
    assert single.points.dtype == single.length.dtype == jnp.float32
    assert bool(jnp.all(single.result == RESULTS.successful))
    np.testing.assert_allclose(single.length, double.length, rtol=1e-5)
    np.testing.assert_allclose(single.points, double.points, rtol=1e-3, atol=1e-3)
    assert (np.abs(single.length - double.length) < 2 * np.asarray(single.error)).all()
    # Close points, of which the ends are rounded: the length is that of the rounded displacement.
    norm = jax.jit(jax.vmap(lambda a, v: family.inner_product(a).norm(v)))
    for dtype, sizes in ((np.float32, (1e-2, 1e-3, 1e-4, 1e-5)), (np.float64, (1e-6, 1e-9, 1e-10, 1e-12))):
        start = a.astype(dtype)
        for seed, size in enumerate(sizes):
            end = (a + size * tangents(a, seed)).astype(dtype)
            found = solve(start, end)
            assert bool(jnp.all(found.result == RESULTS.successful)), size
            expected = np.asarray(norm(start.astype(float), end.astype(float) - start))
            rounding = 100 * np.finfo(dtype).eps
            assert (np.abs(found.length - expected) < 3 * expected**2 + rounding).all(), size


@pytest.mark.slow
def test_distances_that_rounding_does_not_allow_say_so():
    """A hundred standard deviations apart is a distance of 13; a million is one of 38, beyond double precision."""
    family = MultivariateNormal(2)
    cov = np.array([[1.0, 0.3], [0.3, 2.0]])
    a = flat(np.zeros(2), np.eye(2))
    ends = np.stack([flat(np.array([s, 0.4 * s]), cov) for s in (1e1, 1e2, 1e6, 1e10, 1e200)])
    bad = np.stack([flat(np.zeros(2), np.diag([1.0, -1.0])), np.full(5, np.nan)])
    solve = jax.jit(jax.vmap(lambda b: family.geodesic(a, b, TIMES, throw=False)))
    result = solve(np.concatenate([ends, bad])).result
    np.testing.assert_array_equal(result == RESULTS.successful, [True, True, False, False, False, False, False])
    np.testing.assert_array_equal(result == RESULTS.outside_domain, [False] * 5 + [True, False])
    np.testing.assert_array_equal(result == RESULTS.metric_nonfinite, [False] * 4 + [True, False, True])
    lengths, logs = (
        jax.jit(jax.vmap(lambda b, f=f: f(a, b, throw=False)))(np.concatenate([ends, bad]))
        for f in (family.dist, family.log)
    )
    np.testing.assert_array_equal(np.isfinite(lengths), [True, True, False, False, False, False, False])
    np.testing.assert_array_equal(np.isnan(logs).all(1), ~np.isfinite(lengths))
    few = scoregeo.geodesic(FisherRaoMetric(family), a, ends[1], solver=FibreSolver(max_steps=2), ts=TIMES, throw=False)
    assert bool(few.result == RESULTS.solver_steps_reached)
    with pytest.raises(RuntimeError, match="Try"):
        family.dist(a, ends[3])


def test_wrong_arguments_are_named():
    family, theta = MultivariateNormal(2), flat(np.zeros(2), np.eye(2))
    with pytest.raises(ValueError, match="`dim` must be an integer"):
        MultivariateNormal(0)
    with pytest.raises(ValueError, match="`cov` must be symmetric and positive definite"):
        family.pack([0.0, 0.0], [[1.0, 2.0], [2.0, 1.0]])
    with pytest.raises(ValueError, match="`mean` must have shape"):
        family.pack([0.0], np.eye(2))
    with pytest.raises(ValueError, match=r"`b` must have shape \(5,\), got \(9,\)"):
        family.dist(theta, flat(np.zeros(3), np.eye(3)))
    with pytest.raises(ValueError, match="of `a` must be symmetric and positive definite"):
        family.dist(flat(np.zeros(2), -np.eye(2)), theta)
    with pytest.raises(ValueError, match=r"`v` must have shape \(5,\), got \(9,\)"):
        family.exp(theta, np.zeros(9))
    with pytest.raises(TypeError, match="FisherRaoMetric"):
        scoregeo.dist(scoregeo.EuclideanMetric(), theta, theta, solver=FibreSolver())
    with pytest.raises(ValueError, match="tolerance"):
        FibreSolver(tolerance=0.0)
    np.testing.assert_array_equal(family.pack([0.0, 0.0], np.eye(2)), theta)
