"""Likelihood by the probability flow, against exact log densities, at every noise level."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from oracles import ExactMarginal

from scoregeo.diffusion import EDM, VP, ProbabilityFlow
from scoregeo.diffusion.sampling.guidance import GuidedScore
from scoregeo.diffusion.sampling.likelihood import Likelihood, log_prob
from scoregeo.scores import GaussianScore

pytestmark = pytest.mark.slow

TIGHT = ProbabilityFlow(rtol=1e-8, atol=1e-8)
SCHEDULES = {"EDM": EDM(), "VP": VP()}


def in_precision(tree, dtype):
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf, tree)


def covariance(mixture):
    return jnp.einsum("k,kij->ij", mixture.weights, mixture.covs) + jnp.einsum(
        "k,ki,kj->ij", mixture.weights, mixture.means, mixture.means
    )


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_the_density_of_a_mixture_is_exact(schedule, dtype, modes):
    """At the least noise level and at others, on points of the data, between them, and in the tails."""
    mixture = modes[1]
    x = jnp.concatenate([mixture.sample(jax.random.key(3), 20), jnp.array([[0.0, 0.0], [3.0, -3.0], [0.0, 4.0]])])
    score = ExactMarginal(in_precision(mixture, dtype), schedule)
    for sigma in (None, 0.1, 0.7):
        likelihood = log_prob(score, x.astype(dtype), schedule, mean=jnp.zeros(2), variance=1.0, sigma=sigma)
        level = schedule.noise_level(schedule.t_min) if sigma is None else sigma
        exact = jax.vmap(mixture.noised(1.0, level).log_prob)(x)
        assert likelihood.log_prob.dtype == dtype
        assert (likelihood.result == diffrax.RESULTS.successful).all()
        assert not likelihood.standard_error.any()
        np.testing.assert_allclose(likelihood.log_prob[:20], exact[:20], atol=1e-4)
        # In the tails the log density is large, and the tolerance relative.
        np.testing.assert_allclose(likelihood.log_prob[20:], exact[20:], rtol=1e-4)


def test_with_the_covariance_of_the_data_the_mixture_is_exact_to_seven_digits(modes):
    mixture, schedule = modes[1], EDM()
    x = mixture.sample(jax.random.key(4), 10)
    likelihood = log_prob(
        ExactMarginal(mixture, schedule), x, schedule, mean=jnp.zeros(2), variance=covariance(mixture), flow=TIGHT
    )
    exact = jax.vmap(mixture.noised(1.0, schedule.sigma_min).log_prob)(x)
    np.testing.assert_allclose(likelihood.log_prob, exact, atol=1e-6)


@pytest.mark.parametrize("kind", ["scalar", "diagonal", "full"])
def test_the_density_of_a_gaussian_is_the_closed_form(kind):
    """With its own moments there is nothing to integrate; with others, the flow corrects them."""
    schedule = VP()
    mean = jnp.array([0.5, -0.3, 1.0])
    cov = {
        "scalar": 0.7 * jnp.eye(3),
        "diagonal": jnp.diag(jnp.array([0.2, 1.0, 3.0])),
        "full": jnp.array([[1.0, 0.5, 0.0], [0.5, 0.8, -0.2], [0.0, -0.2, 0.5]]),
    }[kind]
    variance = {"scalar": cov[0, 0], "diagonal": jnp.diagonal(cov), "full": cov}[kind]
    score = ExactMarginal(GaussianScore(mean, cov), schedule)
    x = mean + jnp.array([[0.0, 0.0, 0.0], [1.0, -2.0, 0.5], [0.3, 0.2, -3.0]])
    likelihood = log_prob(score, x, schedule, mean=mean, variance=variance)
    noise = float(schedule.noise_level(schedule.t_min)) ** 2 * np.eye(3)
    exact = scipy.stats.multivariate_normal(np.asarray(mean), np.asarray(cov) + noise).logpdf(np.asarray(x))
    np.testing.assert_allclose(likelihood.log_prob, exact, atol=1e-6)


def test_the_error_of_wrong_moments_is_what_the_documentation_says():
    """In root mean square |m - m_true|/R and |cov - cov_true|_F/(sqrt(2) R^2), to leading order."""
    schedule = EDM(sigma_min=0.1, sigma_max=50.0)
    mean, cov = jnp.array([0.5, -0.3]), jnp.array([[1.0, 0.6], [0.6, 2.0]])
    data = GaussianScore(mean, cov)
    score = ExactMarginal(data, schedule)
    x = data.noised(1.0, 0.1).sample(jax.random.key(0), 400)
    exact = jax.vmap(data.noised(1.0, 0.1).log_prob)(x)

    def error(mean, variance):
        likelihood = log_prob(score, x, schedule, mean=mean, variance=variance, flow=TIGHT)
        return float(jnp.sqrt(jnp.mean((likelihood.log_prob - exact) ** 2)))

    assert error(mean, cov) < 1e-7
    said = jnp.linalg.norm(cov - 1.5 * jnp.eye(2)) / (np.sqrt(2) * 50.0**2)
    np.testing.assert_allclose(error(mean, 1.5), said, rtol=0.15)
    shift = jnp.array([0.02, 0.05])
    np.testing.assert_allclose(error(mean + shift, cov), jnp.linalg.norm(shift) / 50.0, rtol=0.15)


@pytest.mark.slow
def test_random_probes_estimate_the_exact_trace(modes):
    """Unbiased, with the standard error that is reported; random signs have less variance than normal ones."""
    mixture, schedule = modes[1], EDM()
    score = ExactMarginal(mixture, schedule)
    x = mixture.sample(jax.random.key(5), 60)

    def estimate(**settings):
        return log_prob(score, x, schedule, mean=jnp.zeros(2), variance=1.0, sigma=0.1, **settings)

    exact = estimate().log_prob
    errors = {}
    for gaussian in (False, True):
        got = estimate(probes=8, gaussian=gaussian, key=jax.random.key(6))
        deviation, squared = got.log_prob - exact, jnp.mean(got.standard_error**2)
        assert abs(float(deviation.mean())) < 4 * float(jnp.sqrt(squared / 60))
        assert 0.6 < float(jnp.mean(deviation**2) / squared) < 1.6
        errors[gaussian] = float(squared)
    assert errors[False] < errors[True]
    single = estimate(probes=1, key=jax.random.key(7))
    assert jnp.isnan(single.standard_error).all()
    assert jnp.isfinite(single.log_prob).all()
    assert not np.allclose(single.log_prob, exact, atol=1e-3)


def test_random_signs_are_exact_where_the_jacobian_is_diagonal():
    schedule = VP()
    score = ExactMarginal(GaussianScore(jnp.zeros(3), jnp.diag(jnp.array([0.2, 1.0, 3.0]))), schedule)
    x = jax.random.normal(jax.random.key(0), (4, 3))
    settings = {"mean": jnp.zeros(3), "variance": 1.0}
    exact = log_prob(score, x, schedule, **settings)
    signs = log_prob(score, x, schedule, probes=3, key=jax.random.key(1), **settings)
    np.testing.assert_allclose(signs.log_prob, exact.log_prob, atol=1e-4)
    np.testing.assert_allclose(signs.standard_error, 0.0, atol=1e-10)


def test_the_density_integrates_to_one():
    """On a grid, for scores that are not those of one diffusion (guided ones): the flow still has a density."""
    schedule = EDM(sigma_min=0.05, sigma_max=50.0)
    parts = [GaussianScore(jnp.array([m]), jnp.array([[v]])) for m, v in ((0.5, 0.1), (0.0, 0.6))]
    score = GuidedScore(*(ExactMarginal(part, schedule) for part in parts), 1.5)
    grid = jnp.linspace(-1.5, 2.5, 161)
    likelihood = log_prob(score, grid[:, None], schedule, mean=jnp.array([0.75]), variance=0.1)
    np.testing.assert_allclose(jnp.trapezoid(jnp.exp(likelihood.log_prob), grid), 1.0, atol=2e-3)


def test_the_gradient_of_the_log_density_is_the_score(modes):
    """Reverse mode through the flow, under jit, with the noise level traced."""
    mixture, schedule = modes[1], EDM()
    score = ExactMarginal(mixture, schedule)

    @jax.jit
    def gradient(x, sigma):
        def value(x):
            return log_prob(score, x, schedule, mean=jnp.zeros(2), variance=1.0, sigma=sigma).log_prob

        return jax.grad(value)(x)

    for sigma in (0.1, 0.5):
        for x in jnp.array([[0.5, 0.9], [-1.0, 0.1]]):
            np.testing.assert_allclose(gradient(x, sigma), mixture.noised(1.0, sigma)(x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("solver", [diffrax.Tsit5(), diffrax.Heun()], ids=["Tsit5", "Heun"])
def test_evaluations_are_counted(solver):
    """Against a callback in the score, for one point. (With one coordinate there is one derivative.)"""
    schedule, calls = EDM(sigma_max=20.0), []

    class Counted(eqx.Module):
        def __call__(self, x, t):
            jax.debug.callback(lambda: calls.append(1))
            return -x / (0.3 + t**2)

    flow = ProbabilityFlow(rtol=1e-3, atol=1e-3, solver=solver)
    likelihood = log_prob(Counted(), jnp.array([0.4]), schedule, mean=jnp.zeros(1), variance=1.0, flow=flow)
    jax.effects_barrier()
    assert likelihood.evaluations.shape == ()
    assert int(likelihood.evaluations) == len(calls)


def test_bits_per_dimension():
    """Data with a uniform density on [0, 1] have 8 bits per 8-bit value, in any scaling."""
    log_density = jnp.array([0.0, -3.0])
    likelihood = Likelihood(log_density, jnp.zeros(2), jnp.ones(2, int), diffrax.RESULTS.successful, 3)
    np.testing.assert_allclose(likelihood.bits_per_dim(), [0.0, 1 / np.log(2)])
    np.testing.assert_allclose(likelihood.bits_per_dim(1 / 256), [8.0, 8 + 1 / np.log(2)])
    scaled = Likelihood(log_density - 3 * jnp.log(2.0), *jax.tree.leaves(likelihood)[1:3], likelihood.result, 3)
    np.testing.assert_allclose(scaled.bits_per_dim(2 / 256), likelihood.bits_per_dim(1 / 256))
    np.testing.assert_allclose(
        likelihood.bits_per_dim(jnp.array([1.0, 0.5, 0.25])), likelihood.bits_per_dim(1.0) + (0 + 1 + 2) / 3
    )
    assert likelihood.bits_per_dim(1 / 256).dtype == log_density.dtype
    with pytest.raises(ValueError, match=r"`bin_width` must be a scalar or have shape \(3,\), got \(2,\)"):
        likelihood.bits_per_dim(jnp.ones(2))
    with pytest.raises(ValueError, match="`bin_width` must be positive and finite"):
        likelihood.bits_per_dim(0.0)


@pytest.mark.slow
def test_a_trained_model_knows_its_density(modes, trained):
    """In float32, by its own path and by another up to the same noise level; nearly as likely as under the truth."""
    mixture = modes[1]
    x = mixture.noised(1.0, 0.1).sample(jax.random.key(8), 200).astype("float32")
    exact = jax.vmap(mixture.noised(1.0, 0.1).log_prob)(x.astype("float64"))
    likelihood = log_prob(trained, x, sigma=0.1)
    assert likelihood.log_prob.dtype == jnp.float32
    gap = float(jnp.mean(exact - likelihood.log_prob))
    assert -0.02 < gap < 0.1  # the mean gap is a Kullback-Leibler divergence: not negative but for the sample
    to_the_same_level = EDM(sigma_max=float(VP().noise_level(1.0)))
    by_each = [log_prob(trained, x, schedule, sigma=0.1).log_prob for schedule in (VP(), to_the_same_level)]
    np.testing.assert_allclose(*by_each, atol=1e-3)
    np.testing.assert_allclose(by_each[0], likelihood.log_prob, atol=0.1)


def test_failures_have_a_status_and_are_raised_outside_jit():
    class NotFinite(eqx.Module):
        def __call__(self, x, t):
            return -x * jnp.where((t > 1.0) & (x[0] > 0), jnp.nan, 1.0) / (1 + t**2)

    schedule, x = EDM(), jnp.array([[0.5], [-0.5], [1.0]])
    settings = {"mean": jnp.zeros(1), "variance": 2.0}
    with pytest.raises(RuntimeError, match=r"the log density of 2 of 3 points failed: the score was not finite.*Check"):
        log_prob(NotFinite(), x, schedule, **settings)
    quiet = log_prob(NotFinite(), x, schedule, throw=False, **settings)
    under_jit = jax.jit(lambda x: log_prob(NotFinite(), x, schedule, **settings).log_prob)(x)
    for values in (quiet.log_prob, under_jit):
        np.testing.assert_array_equal(jnp.isnan(values), [True, False, True])
    assert ((quiet.result == diffrax.RESULTS.successful) == jnp.array([False, True, False])).all()
    short = ProbabilityFlow(max_steps=2)
    steps = log_prob(lambda x, t: -x / (1 + t**2), x, schedule, flow=short, throw=False, **settings)
    assert (steps.result == diffrax.RESULTS.max_steps_reached).all()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model": 3}, TypeError, "`model` must be a DiffusionModel or a marginal score"),
        ({"schedule": None}, TypeError, "`schedule` must be a schedule such as EDM"),
        ({"mean": None}, ValueError, "`mean` and `variance` of the data are needed"),
        ({"variance": None}, ValueError, "`mean` and `variance` of the data are needed"),
        ({"mean": jnp.zeros((1, 2))}, ValueError, r"`mean` must have shape \(d,\), got \(1, 2\)"),
        ({"variance": jnp.ones(3)}, ValueError, r"`variance` must have shape .* with d = 2, got \(3,\)"),
        ({"variance": -1.0}, ValueError, r"`variance` must be positive \(definite\), but its smallest value is -1"),
        ({"variance": -jnp.eye(2)}, ValueError, r"`variance` must be positive \(definite\)"),
        ({"x": jnp.zeros(3)}, ValueError, r"`x` must have shape \(2,\) or \(n, 2\), got \(3,\)"),
        ({"x": jnp.array([jnp.nan, 0.0])}, ValueError, "`x` must be finite"),
        ({"sigma": jnp.ones(2)}, ValueError, "`sigma` must be a scalar"),
        ({"sigma": 0.0}, ValueError, "`sigma` must be positive and below the largest noise level, 80"),
        ({"sigma": 90.0}, ValueError, "`sigma` must be positive and below the largest noise level, 80"),
        ({"probes": 0, "key": jax.random.key(0)}, ValueError, "`probes` must be None .* got 0"),
        ({"probes": 2}, ValueError, "`key` is needed for the random directions"),
        ({"flow": "tight"}, TypeError, "`flow` must be a ProbabilityFlow with an explicit Runge-Kutta method"),
        ({"flow": ProbabilityFlow(solver=diffrax.Kvaerno5())}, TypeError, "`flow` must be a ProbabilityFlow"),
    ],
)
def test_bad_arguments_of_log_prob_are_named(change, error, message):
    settings = {"model": lambda x, t: -x, "x": jnp.zeros(2), "schedule": EDM(), "mean": jnp.zeros(2), "variance": 1.0}
    with pytest.raises(error, match=message):
        log_prob(**settings | change)
