"""Gamma, Beta, Dirichlet and von Mises: densities, Fisher matrices, samplers against SciPy and mpmath, and distances.

These families have no closed geodesics, but isometries with one fixed curve each, which is therefore a geodesic: its
length is an integral of one variable. Gamma: m -> m0^2 / m keeps the curve of constant mean; Dirichlet: permutations
keep that of equal concentrations; von Mises: a reflection keeps the line through the uniform distribution.
"""

import functools
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from scipy.integrate import quad
from scipy.special import ive, polygamma, psi

from scoregeo import RESULTS, SpectralNewton, dist, geodesic, verify
from scoregeo.fisher_rao import FisherRaoMetric
from scoregeo.fisher_rao.families.beta import Beta, Dirichlet
from scoregeo.fisher_rao.families.gamma import Gamma, trigamma_excess
from scoregeo.fisher_rao.families.von_mises import VonMises, mean_factor

# Every level of refinement is compiled: one of high degree is enough here.
SINGLE = SpectralNewton(degree=40, max_elements=1, path_rtol=1e-5)
FAMILIES = {"gamma": Gamma(), "beta": Beta(), "dirichlet": Dirichlet(3), "von_mises": VonMises()}


def random_points(family, seed, n=6, low=0.1, high=100.0):
    rng = np.random.default_rng(seed)
    values = np.exp(rng.uniform(np.log(low), np.log(high), (n, family.size)))
    if isinstance(family, VonMises):
        angle, r = rng.uniform(-np.pi, np.pi, n), values[:, 0]
        values = r[:, None] * np.stack([np.cos(angle), np.sin(angle)], -1)
    return values


def scipy_log_prob(name, theta, x):
    if name == "gamma":
        return scipy.stats.gamma.logpdf(x, theta[0], scale=1 / theta[1])
    if name == "beta":
        return scipy.stats.beta.logpdf(x, *theta)
    if name == "dirichlet":
        return scipy.stats.dirichlet.logpdf(x, theta)
    return scipy.stats.vonmises.logpdf(x, np.hypot(*theta), loc=np.arctan2(theta[1], theta[0]))


def scipy_fisher(name, theta):
    if name == "gamma":
        (k, b), off = theta, -1 / theta[1]
        return np.array([[polygamma(1, k), off], [off, k / b**2]])
    if name == "von_mises":
        r = np.hypot(*theta)
        ratio, direction = ive(1, r) / ive(0, r), theta / r
        radial = np.outer(direction, direction)
        return (1 - ratio / r - ratio**2) * radial + ratio / r * (np.eye(2) - radial)
    return np.diag(polygamma(1, theta)) - polygamma(1, theta.sum())


def scipy_expectation(name, theta):
    if name == "gamma":
        return np.array([psi(theta[0]) - np.log(theta[1]), theta[0] / theta[1]])
    if name == "von_mises":
        r = np.hypot(*theta)
        return ive(1, r) / ive(0, r) * theta / r
    return psi(theta) - psi(theta.sum())


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_definitions(name):
    """Density, Fisher matrix and exponential family parameters on random points, in both precisions."""
    family = FAMILIES[name]
    thetas = random_points(family, 0, high=30.0)
    keys = jax.random.split(jax.random.key(0), len(thetas))

    @jax.jit
    @jax.vmap
    def everything(key, theta):
        x = family.sample(key, theta, 5)
        eta = family.natural(theta)
        jacobian = jax.jacfwd(family.natural)(theta)
        return {
            "x": x,
            "log_prob": jax.vmap(family.log_prob, (None, 0))(theta, x),
            "exponential": jax.vmap(lambda x: family.sufficient_statistic(x) @ eta - family.log_partition(eta))(x),
            "fisher": family.inner_product(theta).array,
            "hessian": jacobian.T @ jax.hessian(family.log_partition)(eta) @ jacobian,
            "expectation": family.expectation(theta),
            "mu": jax.grad(family.log_partition)(eta),
            "back": family.from_natural(eta),
            "unconstrained": family.from_unconstrained(family.to_unconstrained(theta)),
            "packed": family.pack(*family.unpack(theta)),
        }

    got = jax.tree.map(np.asarray, everything(keys, thetas))
    for i, theta in enumerate(thetas):
        for x, value in zip(got["x"][i], got["log_prob"][i], strict=True):
            np.testing.assert_allclose(value, scipy_log_prob(name, theta, x), rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(got["fisher"][i], scipy_fisher(name, theta), rtol=1e-10, atol=1e-13)
        np.testing.assert_allclose(got["expectation"][i], scipy_expectation(name, theta), rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(got["hessian"], got["fisher"], rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(got["mu"], got["expectation"], rtol=1e-12, atol=1e-13)
    for back in ("back", "unconstrained", "packed"):
        np.testing.assert_allclose(got[back], thetas, rtol=1e-13, atol=1e-13)
    # log p = <eta, T> - A + log h, and h is the same for all theta.
    x = got["x"]
    logs = {"gamma": lambda: np.log(x), "beta": lambda: np.log(x) + np.log1p(-x), "von_mises": lambda: 0 * x}
    log_h = -logs.get(name, lambda: np.log(x).sum(-1))()
    np.testing.assert_allclose(got["log_prob"], got["exponential"] + log_h, rtol=1e-11, atol=1e-11)

    single = jax.tree.map(np.asarray, everything(keys, thetas.astype(np.float32)))
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(single))
    for key in ("fisher", "expectation", "packed"):
        scale = np.abs(got[key]).max(axis=tuple(range(1, got[key].ndim)), keepdims=True)
        np.testing.assert_allclose(single[key] / scale, got[key] / scale, atol=2e-6)


def test_outside_support():
    for family, bad in ((Gamma(), -1.0), (Beta(), 1.5), (Beta(), 0.0), (Dirichlet(2), [0.5, 0.6])):
        value, gradient = jax.value_and_grad(family.log_prob)(jnp.array([2.0, 3.0]), jnp.asarray(bad))
        assert value == -jnp.inf
        assert jnp.all(jnp.isfinite(gradient))
    with pytest.raises(ValueError, match=r"`rate` must be positive, got -1"):
        Gamma().pack(shape=1.0, rate=-1.0)
    with pytest.raises(ValueError, match=r"`concentration` must be positive, got 0"):
        VonMises().pack(0.3, 0.0)
    with pytest.raises(ValueError, match=r"`beta` of `theta` must be positive"):
        Beta().fisher(jnp.array([1.0, -2.0]))
    with pytest.raises(ValueError, match=r"`concentration` must have shape \(3,\)"):
        Dirichlet(3).pack([1.0, 2.0])
    with pytest.raises(ValueError, match="at least 2"):
        Dirichlet(1)
    assert float(VonMises().domain(jnp.zeros(2))) > 0
    np.testing.assert_allclose(VonMises().fisher(jnp.zeros(2)), np.eye(2) / 2)  # smooth at the uniform distribution


# mpmath 1.3 with 60 digits: k, psi1(k) - 1/k, and its derivative.
EXCESS = np.array(
    [
        (0.001, 999001.6425331958, -1999000002.3976321),
        (0.5, 2.9348022005446794, -12.82879664423432),
        (3.0, 0.061600733514893105, -0.04300269520807746),
        (17.0, 0.001764003991474656, -0.00020952126150221474),
        (1000.0, 5.001666666333334e-07, -1.0004999998333335e-09),
        (1000000.0, 5.000001666666667e-13, -1.0000005e-18),
    ]
)
# Likewise: r, g = I1(r) / (r I0(r)), and its derivative with respect to r^2, (1 - 2 g - r^2 g^2) / (2 r^2).
BESSEL = np.array(
    [
        (0.001, 0.4999999375000104, -0.062499979166672034),
        (1.0, 0.4463899658965345, -0.04602196672308913),
        (8.0, 0.11690443669117982, -0.0008474554823407207),
        (29.5, 0.03331871402263787, -1.8807178861091314e-05),
        (30.5, 0.032244837268834245, -1.7037393324021373e-05),
        (1000.0, 0.0009994998748748044, -4.994998122495105e-10),
    ]
)


@pytest.mark.parametrize(("dtype", "rtol"), [(jnp.float64, 5e-15), (jnp.float32, 2e-6)])
def test_special_functions(dtype, rtol):
    """No cancellation for small or large arguments, in value and derivative."""
    value, slope = jax.jit(jax.vmap(jax.value_and_grad(trigamma_excess)))(jnp.asarray(EXCESS[:, 0], dtype))
    np.testing.assert_allclose(value, EXCESS[:, 1], rtol=rtol)
    np.testing.assert_allclose(slope, EXCESS[:, 2], rtol=rtol)
    value, slope = jax.jit(jax.vmap(jax.value_and_grad(mean_factor)))(jnp.asarray(BESSEL[:, 0] ** 2, dtype))
    np.testing.assert_allclose(value, BESSEL[:, 1], rtol=rtol)
    np.testing.assert_allclose(slope, BESSEL[:, 2], rtol=rtol)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_samples(name):
    """Means of the sufficient statistic within 5 standard errors (from the Fisher matrix) at extreme parameters too,
    and the whole distribution by Kolmogorov & Smirnov."""
    family, n = FAMILIES[name], 4000
    thetas = random_points(family, 3, low=0.3, high=300.0)
    sample = jax.jit(lambda key, theta: family.sample(key, theta, n))
    for i, theta in enumerate(thetas):
        x = np.asarray(sample(jax.random.key(i), theta))
        assert x.shape == (n, *family.sample_shape)
        statistic = np.asarray(jax.vmap(family.sufficient_statistic)(x))
        jacobian = np.asarray(jax.jacfwd(family.natural)(theta))
        inverse = np.linalg.inv(jacobian)
        error = np.sqrt(np.diagonal(inverse.T @ scipy_fisher(name, theta) @ inverse) / n)
        assert np.all(np.abs(statistic.mean(0) - scipy_expectation(name, theta)) < 5 * error)
        if name == "von_mises":
            mean, r = np.arctan2(theta[1], theta[0]), np.hypot(*theta)
            centered = (x - mean + np.pi) % (2 * np.pi) - np.pi
            p = scipy.stats.kstest(centered, scipy.stats.vonmises(r).cdf).pvalue
            assert np.abs(x).max() <= np.pi
        else:
            marginal = {
                "gamma": scipy.stats.gamma(theta[0], scale=1 / theta[1]),
                "beta": scipy.stats.beta(theta[0], theta[-1]),
                "dirichlet": scipy.stats.beta(theta[0], theta.sum() - theta[0]),
            }[name]
            p = scipy.stats.kstest(x if x.ndim == 1 else x[:, 0], marginal.cdf).pvalue
        assert p > 1e-4
    for r in (1e-12, 1e9):  # almost uniform, almost a point
        x = VonMises().sample(jax.random.key(0), jnp.array([r, 0.0]), 1000)
        assert np.isclose(np.var(np.asarray(x)), min(np.pi**2 / 3, 1 / r), rtol=0.2)


def fixed_curve(name, s):
    """The point at ``s`` of the curve that an isometry keeps, and its squared speed."""
    if name == "gamma":
        return np.array([s, s / 1.7]), polygamma(1, s) - 1 / s
    if name == "von_mises":
        f = ive(1, abs(s)) / ive(0, abs(s))
        return s * np.array([0.6, 0.8]), (1 - f / abs(s) - f**2) if s else 0.5
    k = FAMILIES[name].size
    return np.full(k, s), k * polygamma(1, s) - k**2 * polygamma(1, k * s)


@eqx.filter_jit
def lengths(metric, xs, ys):
    def solve(x, y):
        path = geodesic(metric, x, y, solver=SINGLE, ts=jnp.linspace(0, 1, 3), throw=False)
        return path.length, path.result, verify(metric, path)

    return jax.vmap(solve)(xs, ys)


GEOMSTATS = {
    "gamma": [([1.0, 1.0], [3.0, 2.0]), ([2.0, 2.0], [5.0, 1.25])],
    "dirichlet": [([1.0, 2.0, 3.0], [3.0, 1.0, 4.0])],
    "von_mises": [],
}


@functools.cache
def geomstats_dist(name):
    import scoregeo.adapters.geomstats  # noqa: F401 (without it NumPy 2.4 cannot import geomstats 2.8.0)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own loader
        import geomstats.backend  # noqa: F401
    from geomstats.information_geometry.beta import BetaDistributions
    from geomstats.information_geometry.dirichlet import DirichletDistributions
    from geomstats.information_geometry.gamma import GammaDistributions

    space = {"gamma": GammaDistributions, "beta": BetaDistributions, "dirichlet": lambda: DirichletDistributions(3)}
    metric = space[name]().metric

    def coordinates(theta):  # geomstats has gamma distributions by shape and mean
        return np.array([theta[0], theta[0] / theta[1]] if name == "gamma" else theta)

    return lambda a, b: float(np.squeeze(metric.dist(coordinates(a), coordinates(b))))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gamma", "dirichlet", "von_mises"])
def test_distances(name):
    """Symmetric, verified by diffrax, equal to integrals on curves kept by isometries and to
    geomstats' numerical solution, for parameters from 0.1 to 100."""
    family = FAMILIES[name]
    hard, ends = random_points(family, 1, 8), [(0.1, 100.0), (0.5, 3.0)]
    if name == "von_mises":
        ends = [(-4.0, 4.0), (0.01, 20.0), (-20.0, 3.0)]  # through the uniform distribution
    curves = [(fixed_curve(name, s)[0], fixed_curve(name, t)[0]) for s, t in ends]
    pairs = np.array([*zip(hard[:4], hard[4:], strict=True), *curves, *GEOMSTATS[name]])
    xs, ys = np.concatenate([pairs[:, 0], pairs[:, 1]]), np.concatenate([pairs[:, 1], pairs[:, 0]])
    found = lengths(FisherRaoMetric(family), jnp.array(xs), jnp.array(ys))
    length, result, defect = jax.tree.map(np.asarray, found)
    there, back = np.split(length, 2)
    assert np.all(result == RESULTS.successful)
    np.testing.assert_allclose(there, back, rtol=1e-8)
    assert defect.max() < 1e-6
    for (s, t), value in zip(ends, there[4:], strict=False):
        breaks = np.geomspace(s, t, 9)[1:-1] if s > 0 else [0.0]
        expected = quad(lambda s: np.sqrt(fixed_curve(name, s)[1]), s, t, points=breaks, limit=400, epsabs=1e-11)[0]
        np.testing.assert_allclose(value, expected, rtol=1e-7)
    for (a, b), value in zip(GEOMSTATS[name], there[4 + len(ends) :], strict=True):
        np.testing.assert_allclose(value, geomstats_dist(name)(a, b), rtol=2e-3)


@pytest.mark.slow
def test_unconstrained_and_gradient():
    """Beta: the metric in logarithmic coordinates; distances agree with geomstats; their gradients agree with finite
    differences, and vanish at coincident points."""
    family = Beta()
    pair = np.array([0.3, 2.0]), np.array([4.0, 1.0])
    a, b = map(jnp.asarray, pair)

    @eqx.filter_jit
    def between(metric, a, b):
        return jax.value_and_grad(lambda a: dist(metric, a, b, solver=SINGLE, throw=False))(a)

    metric, logs = FisherRaoMetric(family), FisherRaoMetric(family, unconstrained=True)
    scaled = np.diag(a) @ scipy_fisher("beta", pair[0]) @ np.diag(a)
    np.testing.assert_allclose(logs.at(jnp.log(a)).array, scaled, rtol=1e-12)
    value, gradient = between(metric, a, b)
    np.testing.assert_allclose(value, geomstats_dist("beta")(*pair), rtol=2e-3)
    for i in range(2):
        step = 1e-4 * jnp.eye(2)[i] * a
        slope = (between(metric, a + step, b)[0] - between(metric, a - step, b)[0]) / (2 * step[i])
        np.testing.assert_allclose(gradient[i], slope, rtol=1e-5)
    value, gradient = between(metric, a, a)
    assert float(value) == 0
    assert np.all(np.asarray(gradient) == 0)
