"""Families with closed forms: against geomstats, SciPy, and the definitions of exp, log and geodesics.

One compiled function for each family computes everything about its pairs of points; several tests look at it.
"""

import functools
import math
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from helpers import some_slow

from scoregeo import RESULTS
from scoregeo.fisher_rao import (
    AbstractExponentialFamily,
    Bernoulli,
    Binomial,
    Categorical,
    Cauchy,
    CenteredNormal,
    ClosedForm,
    DiagonalNormal,
    Exponential,
    FisherRaoMetric,
    Geometric,
    Laplace,
    Multinomial,
    Normal,
    Poisson,
    Weibull,
)
from scoregeo.fisher_rao.matrix_functions import gram_log, symmetric_expm

FAMILIES = {
    "normal": Normal(),
    "diagonal": DiagonalNormal(3),
    "centered": CenteredNormal(3),
    "exponential": Exponential(),
    "bernoulli": Bernoulli(),
    "binomial": Binomial(7),
    "poisson": Poisson(),
    "geometric": Geometric(),
    "categorical": Categorical(4),
    "multinomial": Multinomial(5, 4),
    "laplace": Laplace(),
    "cauchy": Cauchy(),
    "weibull": Weibull(),
}
PAIRS = 1000


def random_pairs(family, seed=0, n=PAIRS):
    u = np.random.default_rng(seed).normal(size=(2, n, family.dof))
    return jax.vmap(jax.vmap(family.from_unconstrained))(jnp.asarray(u))


def tangent_basis(family):
    """Columns that span the tangent vectors: all, or on a simplex those that sum to zero."""
    if family.dof == family.size:
        return np.eye(family.size)
    return np.eye(family.size, family.dof) - np.eye(family.size, family.dof, -1)


def facts(family, a, b):
    """What is known of one pair, from the closed forms on one side and their definitions on the other."""
    basis = tangent_basis(family)
    metric = FisherRaoMetric(family)
    one, t = jnp.ones(()), jnp.asarray(0.37)
    v = family.log(a, b)

    def velocity(t):
        return jax.jvp(lambda t: family.path(a, b, t), (t,), (one,))

    (x, speed), (_, acceleration) = jax.jvp(velocity, (t,), (one,))
    _, arrival = velocity(one)
    pull = jax.grad(family.dist, 1)(a, b)
    near = a + 1e-7 * v  # its rounded difference from a is what its distance is about
    step = near - a
    return {
        "dist": family.dist(a, b),
        "reverse dist": family.dist(b, a),
        "log": v,
        "exp": family.exp(a, v),
        "half": family.exp(a, v / 2),
        "middle": family.path(a, b, one / 2),
        "ends": jnp.stack([family.path(a, b, 0 * one), family.path(a, b, one)]),
        "norm of log": family.inner_product(a).norm(v),
        "speed": family.inner_product(x).norm(speed),
        "acceleration": acceleration,
        "metric acceleration": metric.acceleration(x, speed),
        # First variation: the gradient of the distance is the unit tangent where the geodesic arrives.
        "gradient": pull @ basis,
        "unit tangent": family.inner_product(b).mv(arrival) @ basis / family.dist(a, b),
        "gradient at a = b": jnp.stack(jax.grad(family.dist, (0, 1))(a, a)),
        "derivative of log at a = b": jax.jacrev(family.log, 1)(a, a) @ basis,
        "hessian at a = b": basis.T @ jax.hessian(family.squared_dist, 1)(a, a) @ basis,
        "fisher": basis.T @ family.inner_product(a).matrix(family.size) @ basis,
        "near dist": family.dist(a, near),
        "near norm": family.inner_product((a + near) / 2).norm(step),
    }


@functools.cache
def pair_facts(name):
    family = FAMILIES[name]
    a, b = random_pairs(family)
    return (
        np.asarray(a),
        np.asarray(b),
        jax.tree.map(np.asarray, jax.jit(jax.vmap(lambda a, b: facts(family, a, b)))(a, b)),
    )


# Laplace is Cauchy in all but a number (`test_formulas`) and its density.
@pytest.mark.parametrize(
    "name",
    some_slow(
        [name for name in FAMILIES if name != "laplace"], fast=("normal", "exponential", "poisson", "categorical")
    ),
)
def test_closed_forms(name):
    a, b, f = pair_facts(name)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-8, atol=1e-8)
    size = np.abs(b).max(1, keepdims=True)  # coordinates differ by orders of magnitude within `cov`
    close(f["exp"] / size, b / size)
    close(f["half"] / size, f["middle"] / size)
    close(f["ends"] / size[:, None], np.stack([a, b], 1) / size[:, None])
    close(f["norm of log"], f["dist"])
    close(f["speed"], f["dist"])
    close(f["reverse dist"], f["dist"], rtol=1e-12, atol=1e-12)
    scale = 1 + np.abs(f["acceleration"]).max(1, keepdims=True)
    close(f["acceleration"] / scale, f["metric acceleration"] / scale, atol=1e-7)
    close(f["gradient"], f["unit tangent"], rtol=1e-6, atol=1e-6)
    assert (f["gradient at a = b"] == 0).all()
    close(
        f["derivative of log at a = b"],
        np.broadcast_to(tangent_basis(FAMILIES[name]), (len(a), *f["derivative of log at a = b"].shape[1:])),
    )
    scale = np.abs(f["fisher"]).max((1, 2), keepdims=True)
    close(f["hessian at a = b"] / scale, 2 * f["fisher"] / scale)
    # No digits are lost on the way to close points, but by the coordinates of half-planes, which are rounded, and by
    # the condition of covariances.
    rounded = name in ("normal", "diagonal", "weibull", "centered")
    close(f["near dist"], f["near norm"], rtol=1e-7 if rounded else 1e-10, atol=0)


@functools.cache
def geomstats_spaces():
    import scoregeo.adapters.geomstats  # noqa: F401 (without it NumPy 2.4 cannot import geomstats 2.8.0)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from geomstats.information_geometry import binomial, categorical, exponential, geometric, multinomial, normal
        from geomstats.information_geometry.poisson import PoissonDistributions

    return {
        "normal": normal.UnivariateNormalDistributions(),
        "diagonal": normal.DiagonalNormalDistributions(3),
        "centered": normal.CenteredNormalDistributions(3),
        "exponential": exponential.ExponentialDistributions(),
        "bernoulli": binomial.BinomialDistributions(1),
        "binomial": binomial.BinomialDistributions(7),
        "poisson": PoissonDistributions(),
        "geometric": geometric.GeometricDistributions(),
        "categorical": categorical.CategoricalDistributions(3),
        "multinomial": multinomial.MultinomialDistributions(3, 5),
    }


LOWER = np.tril_indices(3)


def to_geomstats(name, points):
    if name == "centered":
        matrices = np.zeros((len(points), 3, 3))
        matrices[:, LOWER[0], LOWER[1]] = matrices[:, LOWER[1], LOWER[0]] = points
        return matrices
    if name == "diagonal":  # variances there
        return np.concatenate([points[:, :3], points[:, 3:] ** 2], 1)
    return points


def from_geomstats(name, points):
    if name == "centered":
        return points[:, LOWER[0], LOWER[1]]
    if name == "diagonal":
        return np.concatenate([points[:, :3], np.sqrt(points[:, 3:])], 1)
    return points


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in FAMILIES if n not in ("laplace", "cauchy", "weibull")])
def test_geomstats(name):
    a, b, f = pair_facts(name)
    metric = geomstats_spaces()[name].metric
    first, second = to_geomstats(name, a), to_geomstats(name, b)
    log = metric.log(second, first)
    half = from_geomstats(name, metric.exp(log / 2, first))
    # geomstats keeps mean and standard deviation as coordinates of vectors where points have variances.
    theirs = log[:, LOWER[0], LOWER[1]] if name == "centered" else log
    np.testing.assert_allclose(f["dist"], np.reshape(metric.dist(first, second), -1), rtol=1e-8, atol=1e-8)
    size = np.abs(f["log"]).max(1, keepdims=True)
    np.testing.assert_allclose(f["log"] / size, theirs / size, atol=1e-8)
    size = np.abs(half).max(1, keepdims=True)
    np.testing.assert_allclose(f["half"] / size, half / size, atol=1e-8)


def test_formulas():
    """The distances as textbooks write them."""
    for name, formula in {
        "normal": lambda a, b: (
            np.sqrt(2) * np.arccosh(1 + ((a[0] - b[0]) ** 2 / 2 + (a[1] - b[1]) ** 2) / (2 * a[1] * b[1]))
        ),
        "laplace": lambda a, b: np.arccosh(1 + ((a - b) ** 2).sum(0) / (2 * a[1] * b[1])),
        "cauchy": lambda a, b: np.arccosh(1 + ((a - b) ** 2).sum(0) / (2 * a[1] * b[1])) / np.sqrt(2),
        "exponential": lambda a, b: np.abs(np.log(a / b))[0],
        "bernoulli": lambda a, b: 2 * np.abs(np.arcsin(np.sqrt(a)) - np.arcsin(np.sqrt(b)))[0],
        "binomial": lambda a, b: 2 * np.sqrt(7) * np.abs(np.arcsin(np.sqrt(a)) - np.arcsin(np.sqrt(b)))[0],
        "poisson": lambda a, b: 2 * np.abs(np.sqrt(a) - np.sqrt(b))[0],
        "geometric": lambda a, b: 2 * np.abs(np.arctanh(np.sqrt(1 - a)) - np.arctanh(np.sqrt(1 - b)))[0],
        "categorical": lambda a, b: 2 * np.arccos(np.sqrt(a * b).sum(0)),
        "multinomial": lambda a, b: 2 * np.sqrt(5) * np.arccos(np.sqrt(a * b).sum(0)),
    }.items():
        a, b = random_pairs(FAMILIES[name])
        found = jax.vmap(FAMILIES[name].dist)(a, b)
        np.testing.assert_allclose(found, formula(np.asarray(a).T, np.asarray(b).T), rtol=1e-8, atol=1e-7, err_msg=name)


@pytest.mark.slow
def test_far_points():
    family = Normal()
    # Symmetric about x = 0: the top of a half circle. Upright: geometric means.
    for mean in (1e3, 1e8):
        a, b = family.pack(-mean, 1e-3), family.pack(mean, 1e-3)
        top = np.array([0, math.hypot(mean / math.sqrt(2), 1e-3)])
        np.testing.assert_allclose(family.path(a, b, 0.5), top, rtol=1e-13, atol=1e-13 * top[1])
        np.testing.assert_allclose(family.exp(a, family.log(a, b)), b, rtol=1e-6)
    a, b = family.pack(2.0, 1e-100), family.pack(2.0, 1e60)
    np.testing.assert_allclose(family.path(a, b, 0.25), [2, 1e-60], rtol=1e-12)
    np.testing.assert_allclose(family.dist(a, b), math.sqrt(2) * 160 * math.log(10), rtol=1e-14)
    np.testing.assert_allclose(family.exp(a, family.log(a, b)), b, rtol=1e-10)
    np.testing.assert_allclose(family.exp(b, family.log(b, a)), a, rtol=1e-10)
    a, b = family.pack(0.0, 1e-75), family.pack(1e75, 1e-75)
    np.testing.assert_allclose(family.path(a, b, 0.5), [0.5e75, 0.5e75 / math.sqrt(2)], rtol=1e-12)
    # Geometric distributions of very different probability, in which 1 - p is rounded to one.
    a, b = Geometric().pack(1e-20), Geometric().pack(0.5)
    np.testing.assert_allclose(
        Geometric().dist(a, b), 2 * math.log(2) - math.log(1e-20) - 2 * math.atanh(math.sqrt(0.5)), rtol=1e-14
    )


def test_functions_of_matrices():
    """Logarithm and exponential where eigenvalues are far apart, close, and equal."""
    rng = np.random.default_rng(3)
    q = np.linalg.qr(rng.normal(size=(50, 3, 3)))[0]
    gaps = np.repeat([0.0, 1e-6, 0.015, 0.05, 4.0], 10)
    logs = rng.normal(size=(50, 1)) + gaps[:, None] * np.array([-1.0, 0.0, 1.0])
    logarithm, matrix = (np.einsum("nij,nj,nkj->nik", q, values, q) for values in (logs, np.exp(logs)))
    direction = rng.normal(size=(50, 3, 3))
    direction = direction + direction.transpose(0, 2, 1)

    def log(matrix):
        return gram_log(jnp.linalg.cholesky(matrix), matrix - jnp.eye(3))

    @jax.jit
    @jax.vmap
    def compute(matrix, logarithm, direction):
        found, slope = jax.jvp(log, (matrix,), (direction,))
        # The derivative of the exponential undoes that of the logarithm.
        value, back = jax.jvp(symmetric_expm, (logarithm,), (slope,))
        return found, value, back

    found, value, back = compute(matrix, logarithm, direction)
    np.testing.assert_allclose(found, logarithm, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(value, matrix, rtol=1e-12, atol=1e-12 * np.exp(logs.max()))
    np.testing.assert_allclose(back, direction, rtol=1e-7, atol=1e-7)


@pytest.mark.slow
def test_ends_of_families():
    """Distributions that are certain of their outcome are at finite distances; beyond them there is nothing."""
    bernoulli, poisson, geometric, categorical = Bernoulli(), Poisson(), Geometric(), Categorical(3)
    zero, one = bernoulli.pack(0.0), bernoulli.pack(1.0)
    np.testing.assert_allclose(bernoulli.dist(zero, one), math.pi, rtol=1e-15)
    np.testing.assert_allclose(bernoulli.path(zero, one, 0.5), [0.5], rtol=1e-15)
    for family, p, b in ((bernoulli, 0.3, one), (bernoulli, 0.3, zero), (geometric, 0.4, geometric.pack(1.0))):
        a = family.pack(p)
        v = family.log(a, b)
        np.testing.assert_allclose(family.exp(a, v), b, atol=1e-15)
        assert np.isnan(family.exp(a, 1.001 * v)).all()
    rate = poisson.pack(2.0)
    assert np.isfinite(poisson.exp(rate, -3.99 * jnp.ones(1)))
    assert np.isnan(poisson.exp(rate, -4.01 * jnp.ones(1)))

    # At the end itself the metric is infinite, and no vector is the velocity of a geodesic.
    for family, end, inside in ((bernoulli, zero, 0.3), (bernoulli, one, 0.3), (geometric, geometric.pack(1.0), 0.4)):
        for function in (family.log, jax.jit(family.log), family.exp):
            assert np.isnan(function(end, family.pack(inside))).all()
    two, corner = Categorical(2), jnp.array([0.0, 1.0])
    assert np.isnan(two.log(corner, two.pack([0.5, 0.5]))).all()
    assert np.isnan(two.exp(corner, jnp.array([0.5, -0.5]))).all()
    np.testing.assert_array_equal(two.fisher(corner), np.diag([np.inf, 1]))

    corner, other, edge = (categorical.pack(p) for p in ([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.5, 0.5, 0.0]))
    np.testing.assert_allclose(categorical.dist(corner, other), math.pi, rtol=1e-15)
    np.testing.assert_allclose(categorical.path(corner, other, 0.5), edge, atol=1e-15)
    found = jax.jit(categorical.geodesic)(corner, other)
    assert found.result == RESULTS.successful
    angle = np.pi / 2 * np.linspace(0, 1, 65)
    np.testing.assert_allclose(found.points, np.stack([np.cos(angle), np.sin(angle), 0 * angle], 1) ** 2, atol=1e-15)
    inside = categorical.pack([0.2, 0.3, 0.5])
    v = categorical.log(inside, edge)
    np.testing.assert_allclose(categorical.exp(inside, v), edge, atol=1e-15)
    ray = jax.vmap(lambda t: categorical.exp(inside, t * v))(jnp.asarray([0.999, 1.001, 2.0, 5.0, 10.0]))
    assert np.isfinite(ray[0]).all()
    assert np.isnan(ray[1:]).all()
    # In a traced computation what is not tangent is removed; otherwise it is refused.
    off = v + 0.1 * inside
    np.testing.assert_allclose(jax.jit(categorical.exp)(inside, off), edge, atol=1e-15)
    with pytest.raises(ValueError, match=r"`v` must sum to zero.*its sum is 0.1"):
        categorical.exp(inside, off)


@pytest.mark.parametrize(
    ("family", "theta", "x", "gradient"),
    [
        (Bernoulli(), [0.0], 0, [-1]),
        (Binomial(5), [0.0], 0, [-5]),
        (Binomial(5), [1.0], 5, [5]),
        (Geometric(), [1.0], 1, [1]),
        (Multinomial(3, 2), [0.0, 1.0], [0, 3], [0, 3]),
        (Weibull(), [1.0, 2.0], 0.0, [-np.inf, -0.5]),  # the density at 0 jumps from infinity to 0 at this shape
    ],
    ids=lambda x: type(x).__name__ if hasattr(x, "log_prob") else None,
)
def test_scores_at_the_edge(family, theta, x, gradient):
    """Of outcomes that are certain, and where the density ends."""
    np.testing.assert_allclose(jax.grad(family.log_prob)(jnp.array(theta), jnp.array(x)), gradient, rtol=1e-12)


def test_far_tails_in_single_precision():
    """The Cauchy density of numbers whose squares overflow."""
    value = jax.value_and_grad(Cauchy().log_prob)
    for location, scale, x in ((0.0, 1e-30, 1.0), (0.0, 1e-30, 0.0), (0.0, 1.0, 1e25), (3.0, 1e-20, 1e25)):
        theta = jnp.array([location, scale], jnp.float32)
        found, gradient = value(theta, jnp.float32(x))
        exact = np.log(scale / np.pi) - 2 * np.log(np.hypot(x - location, scale))
        np.testing.assert_allclose(found, exact, rtol=1e-6)
        assert np.isfinite(gradient).all()


def test_outside_the_family():
    """Where values are traced nothing can be raised: distances are NaN there, with finite derivatives inside."""
    eye, flat = jnp.array([1.0, 0.0, 1.0]), jnp.array([1.0, 2.0, 1.0])
    for family, a, outside in [
        (Normal(), [0.0, 1.0], [[0.0, -1.0]]),
        (Bernoulli(), [0.2], [[-0.1], [1.1]]),
        (Poisson(), [2.0], [[-1.0]]),
        (Geometric(), [0.4], [[-0.1], [1.1]]),
        (Categorical(2), [0.5, 0.5], [[1.1, -0.1], [0.5, 0.9]]),
        (CenteredNormal(2), eye, [flat]),
    ]:
        at = jax.jit(jax.value_and_grad(family.dist, (0, 1)))
        a = jnp.asarray(a)
        for b in map(jnp.asarray, outside):
            assert np.isnan(at(a, b)[0])
            assert np.isnan(at(b, a)[0])
        value, gradient = at(a, a)
        assert value == 0
        assert np.isfinite(gradient).all()
    value, gradient = jax.jit(jax.value_and_grad(Categorical(2).dist))(jnp.array([1.0, 0.0]), jnp.array([1.0, 0.0]))
    assert value == 0
    assert np.isfinite(gradient).all()


@pytest.mark.slow
def test_geodesics_say_how_accurate_they_are():
    ts = (0.0, 0.3, 0.7, 1.0)
    for family in (Normal(), CenteredNormal(2)):
        solve = jax.jit(jax.vmap(lambda a, b, family=family: family.geodesic(a, b, ts)))
        for dtype, step in ((jnp.float64, 1e-9), (jnp.float32, 1e-5)):
            u = 0.5 * np.random.default_rng(0).normal(size=(2, 50, family.dof))
            a, b = jax.vmap(jax.vmap(family.from_unconstrained))(jnp.asarray(u, dtype))
            for end in (b, a + (b - a) * jnp.asarray(step, dtype), jnp.nextafter(a, b), a):
                assert (solve(a, end).result == RESULTS.successful).all()
    cov = CenteredNormal(2)
    far = cov.geodesic(cov.pack(jnp.eye(2)), cov.pack(jnp.diag(jnp.array([1e-24, 1.0]))), ts, throw=False)
    assert far.result == RESULTS.accuracy_not_reached
    # The information 2 / sd^2 times the square of a velocity is not a number of single precision.
    far = Normal().geodesic(jnp.array([0, 1e-18], jnp.float32), jnp.array([0, 1e3], jnp.float32), ts, throw=False)
    assert far.result == RESULTS.accuracy_not_reached
    np.testing.assert_allclose(far.length, math.sqrt(2) * 21 * math.log(10), rtol=1e-6)
    with pytest.raises(RuntimeError, match="for a closed form, float64"):
        Normal().geodesic(jnp.array([0, 1e-18], jnp.float32), jnp.array([0, 1e3], jnp.float32), ts)
    off = jax.jit(lambda a, b: Categorical(2).geodesic(a, b, ts))(jnp.array([0.5, 0.5]), jnp.array([0.5, 0.9]))
    assert off.result == RESULTS.outside_domain


def outcomes(family):
    """Values to compare probabilities at, with some outside the support."""
    if isinstance(family, DiagonalNormal | CenteredNormal):
        return np.random.default_rng(1).normal(size=(9, 3))
    if isinstance(family, Multinomial):
        return np.array([[5, 0, 0, 0], [1, 2, 0, 2], [2, 1, 1, 1], [1, 1, 1, 1], [6, -1, 0, 0], [2.5, 2.5, 0, 0]])
    return np.array([-3.5, -1.0, 0.0, 0.4, 1.0, 2.0, 3.0, 7.0, 8.0])


SCIPY = {
    "normal": lambda x, m, s: scipy.stats.norm.logpdf(x, m, s),
    "diagonal": lambda x, m, s: scipy.stats.norm.logpdf(x, m, s).sum(1),
    "centered": lambda x, c: scipy.stats.multivariate_normal.logpdf(x, np.zeros(3), c),
    "exponential": lambda x, r: scipy.stats.expon.logpdf(x, scale=1 / r),
    "bernoulli": lambda x, p: scipy.stats.bernoulli.logpmf(x, p),
    "binomial": lambda x, p: scipy.stats.binom.logpmf(x, 7, p),
    "poisson": lambda x, r: scipy.stats.poisson.logpmf(x, r),
    "geometric": lambda x, p: scipy.stats.geom.logpmf(x, p),
    "categorical": lambda x, p: scipy.stats.rv_discrete(values=(range(4), p / p.sum())).logpmf(x),
    "multinomial": lambda x, p: np.array([scipy.stats.multinomial.logpmf(row, 5, p) for row in x]),
    "laplace": lambda x, m, s: scipy.stats.laplace.logpdf(x, m, s),
    "cauchy": lambda x, m, s: scipy.stats.cauchy.logpdf(x, m, s),
    "weibull": lambda x, k, s: scipy.stats.weibull_min.logpdf(x, k, scale=s),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
def test_log_prob_and_samples(name):
    family = FAMILIES[name]
    theta = random_pairs(family, seed=5, n=1)[0, 0]
    x = outcomes(family)
    expected = SCIPY[name](x, *(np.asarray(value) for value in family.unpack(theta)))
    n = 20_000

    @jax.jit
    def compute(theta, x):
        samples = family.sample(jax.random.key(0), theta, n)
        scores = jax.vmap(jax.grad(family.log_prob), (None, 0))(theta, samples) @ tangent_basis(family)
        return (
            jax.vmap(family.log_prob, (None, 0))(theta, x),
            samples,
            scores,
            family.inner_product(theta).matrix(theta.size),
        )

    found, samples, scores, fisher = jax.tree.map(np.asarray, compute(theta, x))
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    # Samples come from this density: the score has mean zero, and the Fisher information as its covariance.
    assert samples.shape == (n, *family.sample_shape)
    fisher = tangent_basis(family).T @ fisher @ tangent_basis(family)
    errors = np.sqrt(np.diagonal(fisher) / n)
    assert (np.abs(scores.mean(0)) < 4.5 * errors).all()
    whitener = np.linalg.inv(np.linalg.cholesky(fisher))
    covariance = np.atleast_2d(np.cov(scores.T))
    np.testing.assert_allclose(whitener @ covariance @ whitener.T, np.eye(family.dof), atol=0.1)
    discrete = ("bernoulli", "binomial", "poisson", "geometric", "categorical", "multinomial")
    assert np.issubdtype(samples.dtype, np.integer if name in discrete else np.floating)


@pytest.mark.parametrize("name", [n for n, f in FAMILIES.items() if isinstance(f, AbstractExponentialFamily)])
def test_exponential_family(name):
    family = FAMILIES[name]
    a, b = random_pairs(family, seed=7, n=20)
    x = outcomes(family)[2 if name == "multinomial" else 4]

    @jax.jit
    @jax.vmap
    def compute(a, b):
        eta, other = family.natural(a), family.natural(b)
        jacobian = jax.jacfwd(family.from_natural)(eta)
        potential = jax.value_and_grad(family.log_partition)
        (value, mean), (other_value, _) = potential(eta), potential(other)
        return {
            "from_natural": (family.from_natural(eta), a),
            "expectation": (family.expectation(a), mean),
            "hessian": (
                jax.hessian(family.log_partition)(eta),
                jacobian.T @ family.inner_product(a).matrix(a.size) @ jacobian,
            ),
            "densities": (
                family.log_prob(a, x) - family.log_prob(b, x),
                (eta - other) @ family.sufficient_statistic(x) - value + other_value,
            ),
        }

    for key, (found, expected) in compute(a, b).items():
        assert np.shape(found) == np.shape(expected)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9, err_msg=key)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["normal", "centered", "geometric", "multinomial", "weibull"])
def test_single_precision(name):
    family = FAMILIES[name]
    a, b, f = pair_facts(name)

    @jax.jit
    @jax.vmap
    def compute(a, b):
        v = family.log(a, b)
        return family.dist(a, b), v, family.exp(a, v), family.path(a, b, 0.5), jax.grad(family.dist)(a, b)

    found = compute(*(jnp.asarray(p[:100], jnp.float32) for p in (a, b)))
    assert all(array.dtype == jnp.float32 for array in found)
    # Of the condition number of covariances, up to 1e6 here, single precision sees little.
    rtol = 1e-2 if name == "centered" else 3e-4
    for array, expected in zip(found, (f["dist"], f["log"], b, f["middle"]), strict=False):
        expected = expected[:100].reshape(100, -1)
        size = np.abs(expected).max(1, keepdims=True)
        error = np.abs(np.asarray(array).reshape(100, -1) - expected) / size
        assert np.median(error) < rtol / 30
        assert error.max() < rtol
    assert np.isfinite(found[-1]).all()


def test_pack_and_errors():
    family = Normal()
    theta = family.pack(sd=2.0, mean=1)
    assert theta.tolist() == [1, 2]
    assert [float(value) for value in family.unpack(theta)] == [1, 2]
    assert family.pack(jnp.float32(1), 2.0).dtype == jnp.float32  # a Python number does not widen
    cov = jnp.array([[2.0, 0.5], [0.5, 1.0]])
    assert CenteredNormal(2).pack(cov=cov).tolist() == [2.0, 0.5, 1.0]
    assert CenteredNormal(2).unpack(CenteredNormal(2).pack(cov))[0].tolist() == cov.tolist()
    assert (Multinomial(4, 3).size, Multinomial(4, 3).dof, CenteredNormal(4).size) == (3, 2, 10)

    inside = family.pack(0.0, 1.0)
    for call, kind, message in [
        (lambda: family.pack(0.0, -1.0), ValueError, "`sd` must be positive, got -1"),
        (lambda: family.pack(0.0), TypeError, "Normal has the parameters mean, sd: got 1 by position and none by name"),
        (lambda: family.pack(0.0, 1.0, mean=1.0), TypeError, "got 2 by position and mean by name"),
        (lambda: family.pack(0.0, scale=1.0), TypeError, "got 1 by position and scale by name"),
        (lambda: family.pack(jnp.zeros(2), 1.0), ValueError, r"`mean` must have shape \(\), got \(2,\)"),
        (lambda: family.pack(jnp.nan, 1.0), ValueError, "`mean` must be finite"),
        (lambda: family.dist(inside, jnp.array([0.0, -1.0])), ValueError, "`sd` of `b` must be positive, got -1"),
        (lambda: family.dist(inside, jnp.zeros(3)), ValueError, r"`b` must have shape \(2,\), got \(3,\)"),
        (lambda: family.exp(inside, jnp.zeros(3)), ValueError, r"`v` must have shape \(2,\), got \(3,\)"),
        (lambda: family.log(jnp.array([0.0, -1.0]), inside), ValueError, "`sd` of `a` must be positive"),
        (lambda: family.fisher(jnp.array([0.0, 0.0])), ValueError, "`sd` of `theta` must be positive, got 0"),
        (lambda: Bernoulli().pack(1.5), ValueError, "`probability` must be between 0 and 1, got 1.5"),
        (lambda: Geometric().pack(0.0), ValueError, "`probability` must be above 0 and at most 1, got 0"),
        (lambda: Poisson().pack(rate=0.0), ValueError, "`rate` must be positive"),
        (
            lambda: Categorical(3).pack([0.2, 0.2, 0.5]),
            ValueError,
            "3 probabilities that sum to one, but their sum is 0.9",
        ),
        (lambda: Categorical(3).pack([0.6, -0.1, 0.5]), ValueError, "but entry 1 is -0.1"),
        (
            lambda: CenteredNormal(2).pack(-cov),
            ValueError,
            "`cov` must be symmetric and positive definite.*eigenvalue is",
        ),
        (lambda: CenteredNormal(2).pack(cov.at[0, 1].set(0.1)), ValueError, "differs from its transpose by 0.4"),
        (lambda: DiagonalNormal(0), ValueError, "`dim` must be an integer of at least 1, got 0"),
        (lambda: Categorical(1), ValueError, "`k` must be an integer of at least 2, got 1"),
        (lambda: Binomial(0), ValueError, "`n` must be a positive integer, got 0"),
        (lambda: Binomial(2**80), ValueError, f"`n` must be at most {2**63 - 1}, got {2**80}"),
        (lambda: Binomial(2.5), ValueError, "`n` must be a positive integer, got 2.5"),
        (lambda: Multinomial(True, 3), ValueError, "`n` must be a positive integer, got True"),
        (lambda: Multinomial([3, 4], 3), ValueError, "`n` must be a positive integer"),
    ]:
        with pytest.raises(kind, match=message):
            call()


def test_number_of_trials_is_traced():
    traces = []

    @eqx.filter_jit
    def compute(family, a, b):
        traces.append(family)
        return (
            family.dist(a, b),
            family.log_prob(a, 1),
            ClosedForm().solve(FisherRaoMetric(family), a, b, None, jnp.linspace(0, 1, 3)).length,
        )

    a, b = Binomial(1).pack(0.2), Binomial(1).pack(0.6)
    for n in (1, 4, 9):
        found = compute(Binomial(n), a, b)
        expected = 2 * math.sqrt(n) * (math.asin(math.sqrt(0.6)) - math.asin(math.sqrt(0.2)))
        np.testing.assert_allclose(found, [expected, scipy.stats.binom.logpmf(1, n, 0.2), expected], rtol=1e-12)
    assert len(traces) == 1
