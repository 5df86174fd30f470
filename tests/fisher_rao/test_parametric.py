"""User-given families: Fisher matrices by sums, quadrature, Monte Carlo against closed forms, and what is refused."""

import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy import stats
from scipy.special import polygamma

from scoregeo import SpectralNewton, dist, exp, pairwise_dist
from scoregeo.comparison import compare
from scoregeo.fisher_rao import FisherRaoMetric, Gamma
from scoregeo.fisher_rao.families.expectations import ExactSum, MonteCarlo, Quadrature
from scoregeo.fisher_rao.families.parametric import ParametricFamily, empirical_fisher
from scoregeo.fisher_rao.supports import Positive, PositiveDefinite, Real, Simplex, UnitInterval
from scoregeo.geodesics.checks import check_end_points

INF = math.inf


def normal_log_prob(theta, x):
    return stats.norm.logpdf(x, theta[0], theta[1])


def normal_sample(key, theta, n):
    return theta[0] + theta[1] * jax.random.normal(key, (n,), theta.dtype)


NORMAL = {"mean": Real(), "sd": Positive()}

# name: (log density, parameters, interval, Fisher matrix at theta), the last from textbooks.
UNIVARIATE = {
    "normal": (normal_log_prob, NORMAL, (-INF, INF), lambda m, s: np.diag([1, 2]) / s**2),
    "cauchy": (
        lambda theta, x: stats.cauchy.logpdf(x, theta[0], theta[1]),
        {"location": Real(), "scale": Positive()},
        (-INF, INF),
        lambda m, s: np.eye(2) / (2 * s**2),
    ),
    "logistic": (
        lambda theta, x: stats.logistic.logpdf(x, theta[0], theta[1]),
        {"location": Real(), "scale": Positive()},
        (-INF, INF),
        lambda m, s: np.diag([1 / 3, (3 + np.pi**2) / 9]) / s**2,
    ),
    "gamma": (
        lambda theta, x: stats.gamma.logpdf(x * theta[1], theta[0]) + jnp.log(theta[1]),
        {"shape": Positive(), "rate": Positive()},
        (0, INF),
        lambda k, b: np.array([[polygamma(1, k), -1 / b], [-1 / b, k / b**2]]),
    ),
    "negative exponential": (
        lambda theta, x: jnp.log(theta[0]) + theta[0] * x,
        {"rate": Positive()},
        (-INF, 0),
        lambda r: np.eye(1) / r**2,
    ),
    "beta": (
        lambda theta, x: stats.beta.logpdf(x, theta[0], theta[1]),
        {"a": Positive(), "b": Positive()},
        (0, 1),
        lambda a, b: np.diag(polygamma(1, [a, b])) - polygamma(1, a + b),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", UNIVARIATE)
def test_quadrature(name):
    """Finite, half-infinite and infinite intervals; heavy tails, and (gamma and beta) densities infinite at an end."""
    log_prob, parameters, interval, exact = UNIVARIATE[name]
    family = ParametricFamily(log_prob, parameters=parameters, expectation=Quadrature(*interval))
    rng = np.random.default_rng(0)
    thetas = np.exp(rng.uniform(-1, 1, (5, family.size))) + (name == "beta") * np.array([[0, 0.5]])[:, : family.size]
    expected = np.array([exact(*theta) for theta in thetas])
    fisher = jax.jit(jax.vmap(lambda theta: family.inner_product(theta).array))
    # The node nearest to 1 is a rounding error away from it, which (1 - x)^(b - 1) with b < 1 notices.
    rtol = 1e-6 if name == "beta" else 1e-9
    np.testing.assert_allclose(fisher(thetas), expected, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(family.fisher(thetas[0]), expected[0], rtol=rtol, atol=rtol)
    single = fisher(thetas.astype(np.float32))
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, expected, rtol=2e-3 if name == "beta" else 1e-4, atol=1e-4)


@pytest.mark.slow
def test_quadrature_of_vectors():
    """Two correlated normal numbers; and a normal, a gamma and a beta distributed one, each on its own interval."""

    def correlated(theta, x):
        mean, (rate, slope) = theta[:2], theta[2:]
        z = x - mean
        return stats.norm.logpdf(z[0] * rate) + stats.norm.logpdf(z[1] - slope * z[0]) + jnp.log(rate)

    family = ParametricFamily(correlated, parameters=4, sample_shape=(2,), expectation=Quadrature(nodes=200))
    rate, slope = 1.7, -0.6
    precision = np.array([[rate**2 + slope**2, -slope], [-slope, 1.0]])
    expected = np.zeros((4, 4))
    # Of the slope: E[z0^2] = 1 / rate^2; of the rate: twice that of a logarithm's, 2 / rate^2.
    expected[:2, :2], expected[2, 2], expected[3, 3] = precision, 2 / rate**2, 1 / rate**2
    np.testing.assert_allclose(family.fisher(jnp.array([0.3, -0.2, rate, slope])), expected, rtol=1e-9, atol=1e-9)

    def independent(theta, x):
        parts = (
            stats.norm.logpdf(x[0], theta[0]),
            stats.gamma.logpdf(x[1], theta[1]),
            stats.beta.logpdf(x[2], theta[2], 2),
        )
        return sum(parts)

    rule = Quadrature((-INF, 0.0, 0.0), (INF, INF, 1.0), nodes=80)
    family = ParametricFamily(independent, parameters=3, sample_shape=(3,), expectation=rule)
    expected = np.diag([1.0, polygamma(1, 2.5), polygamma(1, 1.5) - polygamma(1, 3.5)])
    np.testing.assert_allclose(family.fisher(jnp.array([0.4, 2.5, 1.5])), expected, rtol=2e-5, atol=1e-9)


@pytest.mark.slow
def test_exact_sum():
    """Binomial, and categorical with its simplex, where impossible outcomes do not spoil the sum."""
    n = 7

    def binomial_log_prob(theta, x):
        return stats.binom.logpmf(x, n, theta[0])

    binomial = ParametricFamily(
        binomial_log_prob, parameters={"p": UnitInterval()}, expectation=ExactSum(jnp.arange(n + 3))
    )
    for p in (0.01, 0.5, 0.9):
        np.testing.assert_allclose(binomial.fisher(jnp.array([p])), [[n / (p * (1 - p))]], rtol=1e-12)
    matrix, error = binomial.fisher_with_error(jnp.array([0.3]))
    assert matrix.shape == error.shape == (1, 1)
    assert float(error[0, 0]) == 0
    # Its derivative, which geodesics need, includes that of the probabilities.
    slope = jax.jacfwd(lambda theta: binomial.inner_product(theta).array)(jnp.array([0.3]))
    np.testing.assert_allclose(slope.squeeze(), n * (0.6 - 1) / (0.3 * 0.7) ** 2, rtol=1e-12)

    categorical = ParametricFamily(
        lambda theta, x: jnp.log(theta)[x], parameters={"p": Simplex(3)}, expectation=ExactSum(jnp.arange(3))
    )
    p = categorical.pack([0.2, 0.3, 0.5])
    np.testing.assert_allclose(categorical.fisher(p), np.diag(1 / np.asarray(p)), rtol=1e-12)
    logits = FisherRaoMetric(categorical, unconstrained=True).at(categorical.to_unconstrained(p)).array
    np.testing.assert_allclose(logits, (np.diag(p) - np.outer(p, p))[:2, :2], rtol=1e-12, atol=1e-15)


@pytest.mark.slow
def test_monte_carlo():
    """Samples of more than one dimension: the estimate is deterministic and smooth, and its standard error is honest:
    normalised errors over many keys have a standard deviation of about one."""

    def unpack(theta):
        return theta[:2], jnp.array([[theta[2], theta[3]], [theta[3], theta[4]]])

    def log_prob(theta, x):
        return stats.multivariate_normal.logpdf(x, *unpack(theta))

    def sample(key, theta, n):
        mean, cov = unpack(theta)
        return mean + jax.random.normal(key, (n, 2), theta.dtype) @ jnp.linalg.cholesky(cov).T

    def make(key):
        return ParametricFamily(
            log_prob,
            sample,
            parameters={"mean": Real((2,)), "cov": PositiveDefinite(2)},
            sample_shape=(2,),
            expectation=MonteCarlo(3000, key),
        )

    family = make(jax.random.key(0))
    theta = family.pack(mean=[1.0, -1.0], cov=[[2.0, 0.6], [0.6, 1.0]])
    # 1/2 tr(S^-1 E_i S^-1 E_j) for the covariance, S^-1 for the mean.
    inverse = np.linalg.inv([[2.0, 0.6], [0.6, 1.0]])
    basis = np.array([[[1, 0], [0, 0]], [[0, 1], [1, 0]], [[0, 0], [0, 1]]])
    expected = np.zeros((5, 5))
    expected[:2, :2] = inverse
    expected[2:, 2:] = 0.5 * np.einsum("ab,ibc,cd,jda->ij", inverse, basis, inverse, basis)
    keys = jax.random.split(jax.random.key(1), 60)
    matrix, error = jax.jit(jax.vmap(lambda key: make(key).fisher_with_error(theta)))(keys)
    z = (np.asarray(matrix) - expected) / np.asarray(error)
    assert np.all(np.abs(z.mean(0)) < 5 / np.sqrt(len(keys)))
    assert np.all((z.std(0) > 0.6) & (z.std(0) < 1.6))
    np.testing.assert_array_equal(family.fisher(theta), family.fisher(theta))

    # Common random numbers: the derivative of the estimate is what its own finite differences say.
    def trace(theta):
        return jnp.trace(family.inner_product(theta).array)

    value_and_gradient = jax.jit(jax.value_and_grad(trace))
    gradient = value_and_gradient(theta)[1]
    for i in range(5):
        step = 1e-5 * jnp.eye(5)[i]
        slope = (value_and_gradient(theta + step)[0] - value_and_gradient(theta - step)[0]) / 2e-5
        np.testing.assert_allclose(gradient[i], slope, rtol=1e-6, atol=1e-8)


@pytest.mark.slow
def test_normal_through_the_solver():
    """Distances with quadrature are those of the half-plane."""
    solver = SpectralNewton(degree=24, max_elements=1, path_rtol=1.0)

    distance = jax.jit(lambda family, a, b: dist(FisherRaoMetric(family), a, b, solver=solver, throw=False))
    a, b = jnp.array([0.0, 1.0]), jnp.array([1.0, 2.0])
    exact = np.sqrt(2) * np.arccosh(1 + (0.5 + 1) / 4)
    quadrature = ParametricFamily(normal_log_prob, parameters=NORMAL, expectation=Quadrature())
    np.testing.assert_allclose(distance(quadrature, a, b), exact, rtol=1e-8)


def test_empirical_fisher():
    family = ParametricFamily(normal_log_prob, normal_sample, parameters=NORMAL)
    assert family.sample(jax.random.key(0), jnp.array([0.0, 1.0]), 3).shape == (3,)
    data = np.random.default_rng(0).normal(1.0, 2.0, 50)
    theta = family.pack(0.5, 1.5)
    u = np.stack([(data - 0.5) / 1.5**2, ((data - 0.5) ** 2 / 1.5**2 - 1) / 1.5], -1)
    np.testing.assert_allclose(empirical_fisher(family, theta, data), u.T @ u / 50, rtol=1e-12)
    with pytest.raises(ValueError, match=r"`data` must have shape \('n',\)"):
        empirical_fisher(family, theta, np.ones((3, 2)))
    with pytest.raises(ValueError, match=r"`data` must be finite, but 1 of 50 .*first at \(3,\)"):
        empirical_fisher(family, theta, np.where(np.arange(50) == 3, np.nan, data))
    with pytest.raises(ValueError, match=r"but 2 of 3 samples are not \(first at \(1,\), of log density -inf\)"):
        empirical_fisher(Gamma(), Gamma().pack(2.0, 1.0), np.array([1.0, -1.0, -2.0]))
    assert np.isfinite(jax.jit(lambda x: empirical_fisher(family, theta, x))(data)).all()


@pytest.mark.slow
def test_bad_input():
    quadrature = Quadrature()

    def log_prob(theta, x):  # knows only the sum of a and b
        return stats.norm.logpdf(x, theta[0] + theta[1], theta[2])

    family = ParametricFamily(log_prob, parameters={"a": Real(), "b": Real(), "sd": Positive()}, expectation=quadrature)
    with pytest.raises(ValueError, match=r"degenerate.* direction (\+1 a -1 b|-1 a \+1 b)"):
        family.fisher(jnp.array([0.0, 1.0, 2.0]))
    metric, a, b = FisherRaoMetric(family), jnp.array([0.0, 1.0, 2.0]), jnp.array([1.0, 1.0, 2.0])
    pairs = {"a": metric, "b": lambda x, y: jnp.sum((x - y) ** 2)}
    for solve in (
        lambda: dist(metric, a, b),
        lambda: exp(FisherRaoMetric(family, unconstrained=True), a, b),
        lambda: pairwise_dist(metric, jnp.stack([a, b])),
        lambda: compare(jnp.stack([a, a, a]), jnp.stack([b, b, b]), metrics=pairs),
    ):
        with pytest.raises(ValueError, match="degenerate"):
            solve()
    vector = ParametricFamily(lambda theta, x: stats.norm.logpdf(x, theta[2]), parameters=3, expectation=quadrature)
    with pytest.raises(ValueError, match=r"degenerate.*theta\[[01]\]"):
        vector.fisher(jnp.zeros(3))

    # On the simplex, only directions that keep the sum count; p[1] and p[2] are told apart by nothing here.
    def simplex(log_prob):
        return ParametricFamily(log_prob, parameters={"p": Simplex(3)}, expectation=ExactSum(jnp.arange(3)))

    p = jnp.array([0.2, 0.3, 0.5])
    simplex(lambda theta, x: jnp.log(theta)[x] - jnp.log(jnp.sum(theta))).fisher(p)
    lumped = simplex(lambda theta, x: jnp.log(jnp.where(x == 0, theta[0], (1 - theta[0]) / 2)))
    with pytest.raises(ValueError, match=r"direction (\+1 p\[1\] -1 p\[2\]|-1 p\[1\] \+1 p\[2\])"):
        lumped.fisher(p)
    with pytest.raises(ValueError, match=r"`sd` of `theta` must be positive, got -1"):
        family.fisher(jnp.array([0.0, 1.0, -1.0]))

    unnormalised = ParametricFamily(lambda theta, x: -((x - theta[0]) ** 2), parameters=1, expectation=quadrature)
    with pytest.raises(ValueError, match=r"must add up to one, but Quadrature gives 1\.772"):
        unnormalised.fisher(jnp.zeros(1))
    narrow = ParametricFamily(normal_log_prob, parameters=NORMAL, expectation=Quadrature(nodes=30))
    with pytest.raises(ValueError, match="must add up to one"):
        narrow.fisher(jnp.array([50.0, 0.1]))
    poisson = ParametricFamily(
        lambda theta, x: stats.poisson.logpmf(x, theta[0]), parameters=1, expectation=ExactSum(jnp.arange(5))
    )
    # In a computation that does not know values there is NaN instead, which solvers report.
    assert not np.isfinite(jax.jit(lambda theta: poisson.inner_product(theta).array)(jnp.array([5.0]))).any()
    with pytest.raises(ValueError, match=r"ExactSum gives 0\.4"):
        poisson.fisher(jnp.array([5.0]))

    few = ParametricFamily(normal_log_prob, normal_sample, parameters=NORMAL, expectation=MonteCarlo(30))
    with pytest.warns(UserWarning, match=r"30 samples .*\((mean|sd), (mean|sd)\).* standard error"):
        few.fisher(jnp.array([0.0, 1.0]))
    with pytest.warns(UserWarning, match="30 samples") as warned:
        check_end_points(FisherRaoMetric(few), jnp.array([0.0, 1.0]), jnp.array([0.0, 2.0]))
    assert len(warned) == 2
    check_end_points(FisherRaoMetric(few), *jnp.array([[0.0, -1.0]] * 2))  # for solvers: outside of the domain
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ParametricFamily(normal_log_prob, normal_sample, parameters=NORMAL).fisher(jnp.array([0.0, 1.0]))

    discrete = ParametricFamily(
        lambda theta, x: stats.poisson.logpmf(x, theta[0]),
        lambda key, theta, n: jax.random.poisson(key, theta[0], (n,)),
        parameters={"rate": Positive()},
    )
    np.testing.assert_allclose(discrete.fisher(jnp.array([4.0])), [[0.25]], rtol=0.1)
    with pytest.raises(TypeError, match="use ExactSum"):
        jax.grad(lambda theta: discrete.inner_product(theta).array[0, 0])(jnp.array([4.0]))

    with pytest.raises(ValueError, match="MonteCarlo, which needs a function `sample`"):
        ParametricFamily(normal_log_prob, parameters=2, expectation=MonteCarlo())
    with pytest.raises(TypeError, match="`expectation` must be ExactSum"):
        ParametricFamily(normal_log_prob, parameters=2)
    with pytest.raises(TypeError, match="supports by name"):
        ParametricFamily(normal_log_prob, normal_sample, parameters={"mean": "real"})
    with pytest.raises(TypeError, match="`log_prob` must be callable"):
        ParametricFamily(3, normal_sample, parameters=2)
    with pytest.raises(ValueError, match=r"`sample` must return shape \(10000,\)"):
        ParametricFamily(normal_log_prob, lambda key, theta, n: jnp.ones(3), parameters=2).fisher(jnp.ones(2))
    with pytest.raises(ValueError, match="`log_prob` must return a scalar"):
        ParametricFamily(lambda theta, x: theta, normal_sample, parameters=2).log_prob(jnp.ones(2), 0.0)
    with pytest.raises(ValueError, match=r"`outcomes` must have shape \(n, .*, got \(0,\)"):
        ExactSum([])
    with pytest.raises(ValueError, match="`low` must be below `high`"):
        Quadrature(1.0, 1.0)
    with pytest.raises(ValueError, match="`low` must be below `high`"):
        Quadrature((0.0, 1.0), (1.0, 1.0))
    with pytest.raises(ValueError, match="`low` must be below `high`"):
        Quadrature((0.0, 1.0), (1.0, 2.0, 3.0))

    def vectors(shape, rule):
        log_prob = lambda theta, x: jnp.sum(stats.norm.logpdf(x, theta[0], theta[1]))  # noqa: E731
        return ParametricFamily(log_prob, parameters=2, sample_shape=shape, expectation=rule).fisher(jnp.ones(2))

    with pytest.raises(ValueError, match=r"would take 400\^3 nodes for sample_shape \(3,\): give it fewer"):
        vectors((3,), quadrature)
    with pytest.raises(ValueError, match=r"got sample_shape \(2, 2\) and 1 intervals"):
        vectors((2, 2), quadrature)
    with pytest.raises(ValueError, match=r"got sample_shape \(2,\) and 3 intervals"):
        vectors((2,), Quadrature((0.0, 0.0, 0.0), 1.0))
