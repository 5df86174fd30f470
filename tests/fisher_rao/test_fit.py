"""Families fitted to samples: the likelihood is level there, SciPy agrees, and what has no maximum says so."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats

from scoregeo import RESULTS
from scoregeo._results import status_name
from scoregeo.fisher_rao import (
    Bernoulli,
    Beta,
    Binomial,
    Categorical,
    Cauchy,
    CenteredNormal,
    DiagonalNormal,
    Dirichlet,
    Exponential,
    Gamma,
    Geometric,
    Laplace,
    Multinomial,
    MultivariateNormal,
    Normal,
    ParametricFamily,
    Poisson,
    Positive,
    Quadrature,
    Real,
    VonMises,
    Weibull,
)
from scoregeo.fisher_rao.families.polygamma import digamma_gap, log1p_excess

# A mean, a covariance, frequencies, a root and a minimum stand for the others in the fast tests.
FAST = [Categorical(3), Cauchy(), Gamma(), MultivariateNormal(2), Poisson()]
SLOW = [
    Bernoulli(),
    Beta(),
    Binomial(7),
    CenteredNormal(2),
    DiagonalNormal(2),
    Dirichlet(3),
    Exponential(),
    Geometric(),
    Laplace(),
    Multinomial(5, 3),
    Normal(),
    VonMises(),
    Weibull(),
]
BY_NAME = {type(family).__name__: family for family in FAST + SLOW}
N, FEW, SETS = 61, 12, 4
# Samples of which none is most likely in the family, or on its boundary.
SAME = {
    "Dirichlet": [0.2, 0.3, 0.5],
    "Categorical": 2,
    "Multinomial": [5, 0, 0],
    "Poisson": 0,
    "Exponential": 0.0,
    "CenteredNormal": [1.0, 2.0],
    "MultivariateNormal": [1.0, 2.0],
    "DiagonalNormal": [1.0, 2.0],
    "Bernoulli": 1,
    "Binomial": 7,
    "Geometric": 1,
    "Beta": 0.3,
}
CLOSED = (Bernoulli, Binomial, Categorical, Multinomial, Geometric)


def name_of(family):
    return type(family).__name__


def marked(families):
    return [
        pytest.param(family, id=name_of(family), marks=[] if family in FAST else pytest.mark.slow)
        for family in families
    ]


def each(families=(*FAST, *SLOW)):
    return pytest.mark.parametrize("family", marked(families))


def mean_log_prob(family, u, x, w=None):
    return jnp.average(jax.vmap(family.log_prob, (None, 0))(family.from_unconstrained(u), x), weights=w)


def local(family, theta, x):
    """In unconstrained coordinates: the point, the gradient of the mean log likelihood, the Fisher information."""
    u = family.to_unconstrained(theta)
    jacobian = jax.jacfwd(family.from_unconstrained)(u)
    fisher = jacobian.T @ family.inner_product(theta).matrix(family.size) @ jacobian
    return u, jax.grad(mean_log_prob, 1)(family, u, x), fisher


@functools.cache
def fit_of(name):
    """True points and samples from them, the fits, their codes, and what is `local` there. The last three sets are a
    few samples, repeated; the same as weights, beside samples of weight zero that no distribution has; and one sample
    that is always the same."""
    family, rng = BY_NAME[name], np.random.default_rng(11)
    truth = family.from_unconstrained
    starts = jnp.asarray(0.7 * rng.normal(size=(SETS, family.dof)))
    keys = jax.random.split(jax.random.key(0), SETS)
    sets = np.asarray(jax.jit(jax.vmap(lambda k, u: family.sample(k, truth(u), N)))(keys, starts), float)
    counts = np.full(FEW, 1)
    np.add.at(counts, rng.integers(FEW, size=N - FEW), 1)
    few = sets[0][:FEW]
    padded = np.concatenate([few, np.full((N - FEW, *family.sample_shape), np.nan)])
    same = np.full((N, *family.sample_shape), SAME.get(name, 1.5))
    samples = np.stack([*sets, np.repeat(few, counts, 0), padded, same])
    weights = np.ones(samples.shape[:2])
    weights[-2] = np.concatenate([counts, np.zeros(N - FEW)])

    @jax.jit
    @jax.vmap
    def run(x, w):
        theta, code = family.fit(x, w, with_result=True)
        return theta, code, local(family, theta, x)

    thetas, codes, around = run(samples, weights)
    return np.asarray(starts), samples, np.asarray(thetas), status_name(codes), [np.asarray(a) for a in around]


@pytest.mark.slow
@each()
def test_the_likelihood_is_level(family):
    truth, samples, thetas, codes, around = fit_of(name_of(family))
    for k in range(SETS):
        assert codes[k] == "converged"
        family.check(thetas[k])
        u, gradient, fisher = (a[k] for a in around)
        if isinstance(family, Laplace):  # which has a kink in the median
            median = np.median(samples[k])
            np.testing.assert_allclose(thetas[k], [median, np.mean(np.abs(samples[k] - median))], rtol=1e-12)
        else:
            assert np.sqrt(gradient @ np.linalg.solve(fisher, gradient)) < 1e-8
        # Within four standard errors of the truth; in several dimensions the square is chi squared.
        change = u - truth[k]
        assert N * change @ fisher @ change < scipy.stats.chi2.isf(6e-5, family.dof)


@each()
def test_integer_weights_are_repetitions(family):
    _, _, thetas, codes, _ = fit_of(name_of(family))
    assert codes[-3] == codes[-2]
    np.testing.assert_allclose(thetas[-2], thetas[-3], rtol=1e-10)


@each()
def test_no_maximum_and_boundary(family):
    _, _, thetas, codes, _ = fit_of(name_of(family))
    boundary = isinstance(family, CLOSED)
    assert codes[-1] == ("on_boundary" if boundary else "no_maximum")
    assert np.isnan(thetas[-1]).all() != boundary
    if boundary:
        assert family.domain(family.check(thetas[-1])) == 0
        assert jnp.isfinite(family.dist(thetas[0], thetas[-1]))


def polar(concentration, mean):
    return concentration * np.array([np.cos(mean), np.sin(mean)])


def gamma(x):
    shape, _, scale = scipy.stats.gamma.fit(x, floc=0)
    return shape, 1 / scale


SCIPY = {
    "Normal": scipy.stats.norm.fit,
    "Exponential": lambda x: 1 / scipy.stats.expon.fit(x, floc=0)[1],
    "Gamma": gamma,
    "Laplace": scipy.stats.laplace.fit,
    "Cauchy": scipy.stats.cauchy.fit,
    "CenteredNormal": lambda x: (x.T @ x / N)[np.tril_indices(2)],
    "MultivariateNormal": lambda x: np.r_[x.mean(0), np.cov(x.T, bias=True)[np.tril_indices(2)]],
    "Beta": lambda x: scipy.stats.beta.fit(x, floc=0, fscale=1)[:2],
    "VonMises": lambda x: polar(*scipy.stats.vonmises.fit(x, fscale=1)[:2]),
    "Weibull": lambda x: np.take(scipy.stats.weibull_min.fit(x, floc=0), [0, 2]),
}


@each([BY_NAME[name] for name in SCIPY])
def test_scipy_agrees(family):
    _, samples, thetas, _, _ = fit_of(name_of(family))
    for x, theta in zip(samples[:2], thetas, strict=False):
        np.testing.assert_allclose(theta, SCIPY[name_of(family)](x), rtol=3e-4, atol=1e-4)


@each()
@pytest.mark.slow
def test_no_point_is_more_likely(family):
    """SciPy's minimiser without derivatives finds nothing better, from the truth."""
    truth, samples, _, _, around = fit_of(name_of(family))
    loss = jax.jit(lambda u: -mean_log_prob(family, u, samples[1]))
    settings = {"xatol": 1e-9, "fatol": 1e-13, "maxiter": 4000, "maxfev": 4000}
    found = scipy.optimize.minimize(loss, truth[1], method="Nelder-Mead", options=settings)
    assert loss(around[0][1]) <= found.fun + 1e-13
    np.testing.assert_allclose(found.x, around[0][1], atol=1e-5)


CONTINUOUS = [f for f in FAST + SLOW if not isinstance(f, (*CLOSED, Poisson))]


@pytest.mark.slow
@each(CONTINUOUS)
def test_derivatives_are_those_of_central_differences(family):
    """With respect to samples and weights; second derivatives along a line too."""
    rng = np.random.default_rng(5)
    samples = fit_of(name_of(family))[1][0][:15]
    weights, direction, v = rng.uniform(0.5, 2, size=15), rng.normal(size=family.size), rng.normal(size=samples.shape)
    change = 0.1 * v * np.abs(samples)
    if isinstance(family, Beta):
        change = change * (1 - samples)
    if isinstance(family, Dirichlet):
        change = change - samples * change.sum(1, keepdims=True)
    lean = 0.1 * rng.normal(size=15)

    def along(t, s):
        return direction @ family.fit(samples + t * change, weights + s * lean)

    value = jax.jit(along)
    first = jax.jit(jax.jacfwd(along, (0, 1)))(0.0, 0.0)
    h = 1e-5
    np.testing.assert_allclose(first[0], (value(h, 0.0) - value(-h, 0.0)) / (2 * h), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(first[1], (value(0.0, h) - value(0.0, -h)) / (2 * h), rtol=1e-6, atol=1e-8)
    # Reverse mode, over forward mode.
    second = jax.jit(jax.grad(jax.jacfwd(along)))(0.0, 0.0)
    h = 1e-3
    numerical = (value(h, 0.0) - 2 * value(0.0, 0.0) + value(-h, 0.0)) / h**2
    np.testing.assert_allclose(second, numerical, rtol=1e-5, atol=1e-7)


def test_a_lane_without_maximum_leaves_the_gradient_of_the_others():
    family, good = Gamma(), jnp.array([1.0, 2.0, 5.0])
    sets = jnp.stack([good, jnp.ones(3)])

    def loss(sets):
        thetas, codes = jax.vmap(lambda x: family.fit(x, with_result=True))(sets)
        return jnp.sum(jnp.where((codes == RESULTS.successful)[:, None], thetas, 0))

    gradient = jax.jit(jax.grad(loss))(sets)
    np.testing.assert_array_equal(gradient[1], 0)
    change, h = jnp.zeros((2, 3)).at[0, 1].set(1), 1e-5
    run = jax.jit(loss)
    np.testing.assert_allclose(gradient[0, 1], (run(sets + h * change) - run(sets - h * change)) / (2 * h), rtol=1e-7)


# Hard data: in float32 the fit is that of the same numbers in float64.
HARD = {
    "offset": (Normal(), lambda rng: 1e4 + rng.normal(size=500)),
    "overflow": (Normal(), lambda rng: 1e25 * rng.normal(size=500)),
    "covariance": (MultivariateNormal(3), lambda rng: 1e4 + rng.normal(size=(500, 3)) @ rng.normal(size=(3, 3))),
    "laplace": (Laplace(), lambda rng: 1e4 + rng.laplace(size=500)),
    "gamma, small shape": (Gamma(), lambda rng: np.maximum(rng.gamma(1e-2, size=500), 1e-37)),
    "gamma, large shape": (Gamma(), lambda rng: rng.gamma(1e4, size=500)),
    "cauchy": (Cauchy(), lambda rng: 1e20 * rng.standard_cauchy(size=500)),
    "weibull": (Weibull(), lambda rng: 1e4 * rng.weibull(1e3, size=500)),
    "outlier": (Weibull(), lambda rng: np.append(1e8, rng.weibull(5, size=500))),
    "von mises": (VonMises(), lambda rng: rng.vonmises(3.1, 1e4, size=500)),
    "beta": (Beta(), lambda rng: rng.beta(1e5, 2e5, size=500)),
    "dirichlet": (Dirichlet(4), lambda rng: rng.dirichlet([1e4, 2e4, 3e2, 1], size=500)),
    "dirichlet, small": (Dirichlet(3), lambda rng: np.maximum(rng.dirichlet([0.1, 0.2, 0.3], size=500), 1e-30)),
}


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[] if case == "gamma, large shape" else pytest.mark.slow) for case in HARD]
)
def test_hard_data_in_single_precision(case):
    family, draw = HARD[case]
    single = draw(np.random.default_rng(2)).astype(np.float32)
    double = single.astype(float)
    if isinstance(family, Dirichlet):
        double /= double.sum(1, keepdims=True)
    rough, exact = family.fit(single), family.fit(double)
    assert (rough.dtype, exact.dtype) == (np.float32, np.float64)
    np.testing.assert_allclose(rough, exact, rtol=5e-6, atol=3e-6 * np.abs(exact).max() if case == "covariance" else 0)


def test_hard_data_in_double_precision():
    x = np.random.default_rng(0).normal(size=500)
    np.testing.assert_allclose(Normal().fit(1e8 + x), [1e8 + x.mean(), x.std()], rtol=1e-7)
    # Close shapes are a quotient of a mean and a small difference: 1 / (2 k) + 1 / (12 k^2) = gap.
    close = 1 + 1e-6 * x
    z = (close - close.mean()) / close.mean()
    gap = np.mean(z**2 / 2 - z**3 / 3 + z**4 / 4)
    np.testing.assert_allclose(Gamma().fit(close)[0], 1 / (2 * gap) + 1 / 6, rtol=1e-9)


@pytest.mark.slow
def test_searches_end_for_any_data():
    """Heavy tails, clusters, nearly equal samples: none of two thousand searches fails."""
    rng = np.random.default_rng(1)
    scales = rng.uniform(0.01, 8, size=(200, 1))
    logs = rng.normal(size=(200, 101)) * scales
    logistic = np.clip(1 / (1 + np.exp(logs + rng.normal(size=(200, 1)))), 1e-6, 1 - 1e-6)
    rows = np.exp(rng.normal(size=(200, 101, 4)) * scales[:, None] / 2)
    clusters = np.where(rng.random((200, 101)) < 0.5, 0, 1e4) + logs
    sets = {
        Gamma(): np.exp(logs),
        Weibull(): np.exp(logs),
        Beta(): logistic,
        Dirichlet(4): np.maximum(rows / rows.sum(-1, keepdims=True), 1e-30),
        Cauchy(): clusters,
        VonMises(): logs,
    }
    for family, x in sets.items():
        run = jax.jit(jax.vmap(lambda x: family.fit(x, with_result=True)[1]))  # noqa: B023
        for dtype in (np.float32, np.float64):
            assert (run(x.astype(dtype)) == RESULTS.successful).all(), (family, dtype)


def test_of_one_trace_and_any_type():
    traces = []

    @jax.jit
    def run(x, w):
        traces.append(1)
        return Normal().fit(x, w)

    run(jnp.arange(4.0), jnp.ones(4))
    np.testing.assert_allclose(run(jnp.array([0.0, 0.0, 4.0, 9.0]), jnp.array([1.0, 1.0, 2.0, 0.0])), [2, 2])
    assert len(traces) == 1
    assert Poisson().fit(np.float16([1, 2, 3])).dtype == np.float32
    for x in ([1, 2, 3], np.uint8([1, 2, 3]), np.array([1, 2, 3], ">f8"), [jnp.asarray(1.0), 2, 3]):
        np.testing.assert_array_equal(Poisson().fit(x), np.float64([2]))
    np.testing.assert_allclose(Bernoulli().fit(np.array([True, False, True, True])), 0.75)
    # More than one batch axis, and a number of trials that is traced.
    np.testing.assert_allclose(jax.vmap(jax.vmap(Poisson().fit))(np.ones((2, 3, 5))), np.ones((2, 3, 1)))
    np.testing.assert_allclose(jax.jit(lambda n: Binomial(n).fit(jnp.array([1, 2, 3])))(4), 0.5)


ERRORS = [
    (Normal(), 3.0, None, r"`samples` must have shape \(n,\) with n >= 1, got \(\)"),
    (Normal(), [], None, r"`samples` must have shape \(n,\) with n >= 1, got \(0,\)"),
    (MultivariateNormal(2), np.ones((4, 3)), None, r"must have shape \(n, 2\) with n >= 1, got \(4, 3\); use jax.vmap"),
    (Normal(), [1, np.nan, 2], None, r"must be finite, but 1 of 3 are not \(first at index 1: nan\)"),
    (Gamma(), [1, 2, -3.5, 0], None, r"finite and positive, but 2 of 4 are not \(first at index 2: -3.5\)"),
    (Exponential(), [1, -2], None, r"`samples` of Exponential must be finite and not negative, but 1 of 2"),
    (Poisson(), [1, 2.5], None, r"counts 0, 1, 2, ..., but 1 of 2 are not \(first at index 1: 2.5\)"),
    (Geometric(), [1, 0], None, r"numbers of trials 1, 2, ..., but"),
    (Binomial(7), [1, 8], None, r"numbers of successes from 0 to 7, but"),
    (Bernoulli(), [0, 2], None, r"numbers of successes from 0 to 1, but"),
    (Categorical(3), [0, 3], None, r"categories 0, ..., 2, but"),
    (Multinomial(5, 3), [[1, 2, 2], [1, 2, 3]], None, r"3 counts with the sum 5, but .* \(first at index 1: "),
    (Beta(), [0.5, 1.0], None, r"above 0 and below 1, but"),
    (Dirichlet(2), [[0.5, 0.6]], None, r"2 positive numbers that sum to one, but"),
    (Weibull(), [1.0, 0.0], None, r"finite and positive, but"),
    (Normal(), [1, 2], [1, 2, 3], r"`weights` must have shape \(2,\), one for each sample, got \(3,\)"),
    (Normal(), [1, 2], [1, -2], r"`weights` must not be negative, got -2 at index 1"),
    (Normal(), [1, 2], [1, np.nan], r"`weights` must be finite"),
    (Normal(), [1, 2], [0, 0], r"`weights` must have a positive and finite sum, got 0"),
]


QUICK = (Normal, MultivariateNormal, Poisson, Categorical)
BAD = [pytest.param(*case, marks=[] if isinstance(case[0], QUICK) else pytest.mark.slow) for case in ERRORS]


@pytest.mark.parametrize(("family", "samples", "weights", "message"), BAD)
def test_bad_input_is_named(family, samples, weights, message):
    with pytest.raises(ValueError, match=message):
        family.fit(samples, weights)


def test_bad_input_inside_a_trace_is_nan():
    run = jax.jit(lambda x, w: Normal().fit(x, w, with_result=True))
    x, w = jnp.array([1.0, 2.0, 4.0]), jnp.ones(3)
    for bad in ((x.at[0].set(jnp.nan), w), (x, -w), (x, 0 * w), (x, w * jnp.inf)):
        theta, code = run(*bad)
        assert code == RESULTS.no_maximum
        assert jnp.isnan(theta).all()
    assert run(x, w)[1] == RESULTS.successful


def test_what_has_no_maximum_raises_with_advice():
    with pytest.raises(RuntimeError, match="no distribution of Normal is most likely: all samples are equal"):
        Normal().fit([3.3])
    with pytest.raises(RuntimeError, match="all samples are zero, and so would the rate be"):
        Poisson().fit([0, 0])
    with pytest.raises(RuntimeError, match=r"covariance of the samples is singular. .* at least `dim \+ 1` of them"):
        MultivariateNormal(3).fit(np.random.default_rng(0).normal(size=(3, 3)))
    assert jnp.isnan(Normal().fit([3.3, 3.3], throw=False)).all()
    # Two points of a Cauchy family have a circle of maxima.
    assert Cauchy().fit([0.0, 1.0], with_result=True)[1] == RESULTS.no_maximum
    # On a closed boundary there is a distribution.
    theta, code = Categorical(3).fit([0, 0, 2, 2], with_result=True)
    assert code == RESULTS.on_boundary
    np.testing.assert_array_equal(theta, [0.5, 0, 0.5])
    np.testing.assert_array_equal(Categorical(3).fit([0, 0, 2, 2]), theta)


@pytest.mark.slow
def test_a_family_of_the_user_is_fitted():
    def log_prob(theta, x):
        return jax.scipy.stats.logistic.logpdf(x, theta[0], theta[1])

    family = ParametricFamily(
        log_prob, parameters={"location": Real(), "scale": Positive()}, expectation=Quadrature(-60.0, 60.0)
    )
    x = np.random.default_rng(0).logistic(30.0, 4.0, size=200)
    theta, code = family.fit(x, with_result=True)
    assert code == RESULTS.successful
    np.testing.assert_allclose(theta, scipy.stats.logistic.fit(x), rtol=1e-4)
    gradient = jax.grad(mean_log_prob, 1)(family, family.to_unconstrained(theta), x, None)
    np.testing.assert_allclose(gradient, 0, atol=1e-12)
    np.testing.assert_allclose(family.fit(x, init=family.pack(20.0, 1.0)), theta, rtol=1e-10)
    with pytest.raises(ValueError, match="`scale` of `init` must be positive"):
        family.fit(x, init=[0.0, -1.0])


def test_gaps_of_logarithms():
    x = np.geomspace(1e-3, 1e6, 60)
    direct = np.log(x) - scipy.special.digamma(x)
    series = 1 / (2 * x) + 1 / (12 * x**2) - 1 / (120 * x**4) + 1 / (252 * x**6)
    np.testing.assert_allclose(digamma_gap(x), np.where(x < 60, direct, series), rtol=2e-13)
    small = np.array([-0.2, -1e-3, 1e-8, 0.0, 1e-5, 0.25])
    series = sum((-1) ** (n + 1) * small**n / n for n in range(40, 1, -1))
    np.testing.assert_allclose(log1p_excess(small), series, rtol=1e-14)
    np.testing.assert_allclose(log1p_excess(np.array([-0.9, 3.0])), np.log([0.1, 4]) - [-0.9, 3.0], rtol=1e-14)
