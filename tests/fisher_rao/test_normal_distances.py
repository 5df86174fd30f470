"""Distances between normal distributions against SciPy, quadrature, Monte Carlo and each other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
import scipy.stats

from scoregeo.fisher_rao.normal_distances import (
    calvo_oller,
    hellinger,
    jeffreys,
    kullback_leibler,
    sqrt_jeffreys,
    wasserstein,
)

FUNCTIONS = {f.__name__: f for f in (calvo_oller, hellinger, jeffreys, kullback_leibler, sqrt_jeffreys, wasserstein)}
DISTANCES = ("calvo_oller", "hellinger", "sqrt_jeffreys", "wasserstein")


def pairs(d, n, seed, condition=30.0):
    rng = np.random.default_rng(seed)

    def covs():
        q, _ = np.linalg.qr(rng.normal(size=(n, d, d)))
        return (q * condition ** rng.uniform(-0.5, 0.5, size=(n, 1, d))) @ np.swapaxes(q, 1, 2)

    return rng.normal(size=(n, d)), covs(), rng.normal(size=(n, d)), covs()


@functools.cache
def batched(name):
    return jax.jit(jax.vmap(FUNCTIONS[name]))


def by_hand(name, m1, s1, m2, s2):
    """The textbook formulas, with SciPy's matrix functions."""
    d, delta = len(m1), m2 - m1

    def divergence(m1, s1, m2, s2):
        quotient = np.linalg.solve(s2, s1)
        z = m1 - m2
        return 0.5 * (np.trace(quotient) - d - np.linalg.slogdet(quotient)[1] + z @ np.linalg.solve(s2, z))

    if name == "kullback_leibler":
        return divergence(m1, s1, m2, s2)
    if name == "jeffreys":
        return divergence(m1, s1, m2, s2) + divergence(m2, s2, m1, s1)
    if name == "sqrt_jeffreys":
        return (divergence(m1, s1, m2, s2) + divergence(m2, s2, m1, s1)) ** 0.5
    if name == "hellinger":
        mean = (s1 + s2) / 2
        determinants = (np.linalg.det(s1) * np.linalg.det(s2)) ** 0.25 / np.linalg.det(mean) ** 0.5
        return (1 - determinants * np.exp(-delta @ np.linalg.solve(mean, delta) / 8)) ** 0.5
    if name == "wasserstein":
        root = scipy.linalg.sqrtm(s1)
        cross = scipy.linalg.sqrtm(root @ s2 @ root)
        return (delta @ delta + np.trace(s1 + s2 - 2 * cross)) ** 0.5
    p1, p2 = (np.block([[s + np.outer(m, m), m[:, None]], [m[None], np.ones((1, 1))]]) for m, s in ((m1, s1), (m2, s2)))
    return (0.5 * (np.log(scipy.linalg.eigh(p2, p1, eigvals_only=True)) ** 2).sum()) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_random_pairs_against_scipy(name):
    for d in (1, 4):
        arguments = pairs(d, 20, seed=d)
        expected = np.array([by_hand(name, *pair) for pair in zip(*arguments, strict=True)])
        np.testing.assert_allclose(batched(name)(*arguments), expected, rtol=1e-10)
        if name != "kullback_leibler":
            m1, s1, m2, s2 = arguments
            np.testing.assert_allclose(batched(name)(m2, s2, m1, s1), expected, rtol=1e-11)
    single = batched(name)(*(a.astype(np.float32) for a in arguments))
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, expected, rtol=2e-4)


@pytest.mark.slow
def test_their_definitions_by_quadrature_and_monte_carlo():
    """One dimension by integrals; the Wasserstein distance there by quantiles; three dimensions by samples."""
    m1, s1, m2, s2 = 0.3, 0.8, -0.9, 1.7
    p, q = scipy.stats.norm(m1, s1), scipy.stats.norm(m2, s2)

    def integral(f, a=-30, b=30):
        return scipy.integrate.quad(f, a, b, epsabs=1e-13, epsrel=1e-13, limit=200)[0]

    arguments = tuple(jnp.asarray(a) for a in ([m1], [[s1**2]], [m2], [[s2**2]]))
    got = {name: float(f(*arguments)) for name, f in FUNCTIONS.items()}
    there = integral(lambda x: p.pdf(x) * (p.logpdf(x) - q.logpdf(x)))
    back = integral(lambda x: q.pdf(x) * (q.logpdf(x) - p.logpdf(x)))
    np.testing.assert_allclose(got["kullback_leibler"], there, rtol=1e-9)
    np.testing.assert_allclose(got["jeffreys"], there + back, rtol=1e-9)
    affinity = integral(lambda x: np.sqrt(p.pdf(x) * q.pdf(x)))
    np.testing.assert_allclose(got["hellinger"], np.sqrt(1 - affinity), rtol=1e-9)
    # With quantiles of the standard normal law as the variable: int (p^-1 - q^-1)^2.
    transport = integral(lambda z: scipy.stats.norm.pdf(z) * ((m1 - m2) + (s1 - s2) * z) ** 2)
    np.testing.assert_allclose(got["wasserstein"], np.sqrt(transport), rtol=1e-9)

    mean1, cov1, mean2, cov2 = (a[0] for a in pairs(3, 1, seed=9, condition=4.0))
    law1, law2 = scipy.stats.multivariate_normal(mean1, cov1), scipy.stats.multivariate_normal(mean2, cov2)
    x = law1.rvs(200_000, random_state=0)
    ratios = law1.logpdf(x) - law2.logpdf(x)
    for samples, value in (
        (ratios, kullback_leibler(mean1, cov1, mean2, cov2)),
        (1 - np.exp(-ratios / 2), hellinger(mean1, cov1, mean2, cov2) ** 2),
    ):
        error = samples.std() / len(samples) ** 0.5
        assert abs(samples.mean() - float(value)) < 4 * error < 0.1 * float(value)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_close_distributions_keep_their_digits(name):
    """Along a ray a distance d(a, a + h v) is h c (1 + O(h)), a divergence h^2 c: down to h = 1e-9."""
    m1, s1, dm, ds = pairs(3, 1, seed=3)
    factor = 2 if name in DISTANCES else 1  # divergences are compared by their square root
    values = []
    for h in (1e-3, 1e-6, 1e-9):
        value = float(batched(name)(m1, s1, m1 + h * dm, s1 + h * ds)[0])
        values.append((value if factor == 2 else value**0.5) / h)
    tolerance = {1: 3e-6, 2: 1e-5}[factor]
    np.testing.assert_allclose(values[1], values[2], rtol=tolerance)
    np.testing.assert_allclose(values[0], values[2], rtol=0.1)
    assert values[2] > 1e-3
    # Where only means differ, nothing is rounded.
    zero = np.zeros_like(m1)
    close, far = (float(batched(name)(zero, s1, h * dm, s1)[0]) for h in (1e-10, 1e-5))
    np.testing.assert_allclose(
        close / (1e-10 if factor == 2 else 1e-20), far / (1e-5 if factor == 2 else 1e-10), rtol=1e-8
    )
    if name == "sqrt_jeffreys":  # Fisher-Rao to first order
        inverse = np.linalg.inv(s1[0])
        expected = dm[0] @ inverse @ dm[0] + 0.5 * np.trace(inverse @ ds[0] @ inverse @ ds[0])
        np.testing.assert_allclose(values[2], expected**0.5, rtol=1e-5)
    assert abs(float(batched(name)(m1, s1, m1, s1)[0])) < (1e-30 if name in DISTANCES else 1e-14)


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivatives(name):
    """Gradients against finite differences; those of Wasserstein at a repeated singular value too, and its Hessian."""
    f = FUNCTIONS[name]
    arguments = jax.tree.map(lambda a: jnp.asarray(a[0]), pairs(3, 1, seed=17))
    rng = np.random.default_rng(18)
    steps = tuple(0.1 * jnp.asarray(rng.normal(size=a.shape)) for a in arguments)
    steps = tuple(a + a.T if a.ndim == 2 else a for a in steps)

    def along(arguments, h):
        return f(*(a + h * da for a, da in zip(arguments, steps, strict=True)))

    @jax.jit
    def derivatives(arguments):
        at = jnp.linspace(-2, 2, 5) * 1e-3
        values = jax.vmap(lambda h: along(arguments, h))(at)
        slopes = jax.vmap(jax.grad(lambda h: along(arguments, h)))(at)
        gradient = jax.grad(f, (0, 1, 2, 3))(*arguments)
        reverse = sum(jnp.sum(g * s) for g, s in zip(gradient, steps, strict=True))
        second = jax.jacfwd(jax.grad(lambda h: along(arguments, h)))(0.0)
        return values, slopes, reverse, second

    round_ones = (arguments[0], 2 * jnp.eye(3), arguments[2], 5 * jnp.eye(3))
    for where in (arguments, round_ones):
        (f0, f1, _, f3, f4), slopes, reverse, second = derivatives(where)
        np.testing.assert_allclose(reverse, (8 * (f3 - f1) - (f4 - f0)) / 12e-3, rtol=1e-7, atol=1e-9)
        s0, s1, _, s3, s4 = slopes
        np.testing.assert_allclose(second, (8 * (s3 - s1) - (s4 - s0)) / 12e-3, rtol=1e-6, atol=1e-9)
    same = jax.jit(jax.grad(f, (0, 1, 2, 3)))(arguments[0], arguments[1], arguments[0], arguments[1])
    for gradient in same:
        np.testing.assert_allclose(gradient, 0, atol=1e-12)


def test_the_bounds_are_ordered_and_exact_for_equal_means():
    m1, s1, m2, s2 = pairs(4, 200, seed=21, condition=1e3)
    assert (batched("calvo_oller")(m1, s1, m2, s2) <= batched("sqrt_jeffreys")(m1, s1, m2, s2)).all()
    logs = np.array([np.log(scipy.linalg.eigh(b, a, eigvals_only=True)) for a, b in zip(s1, s2, strict=True)])
    np.testing.assert_allclose(batched("calvo_oller")(m1, s1, m1, s2), np.sqrt(0.5 * (logs**2).sum(1)), rtol=1e-10)


def test_wrong_arguments_are_named():
    eye = np.eye(2)
    for f in FUNCTIONS.values():
        with pytest.raises(ValueError, match="`cov2` must be symmetric and positive definite"):
            f(np.zeros(2), eye, np.zeros(2), -eye)
        with pytest.raises(ValueError, match=r"`mean2` must have shape \(2,\), got \(3,\)"):
            f(np.zeros(2), eye, np.zeros(3), eye)
