"""Classifier-free guidance, against the gradient of the guided log density and a law in closed form."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import ExactMarginal

from scoregeo.diffusion import EDM, VP, ProbabilityFlow
from scoregeo.diffusion.sampling.base import sample_path
from scoregeo.diffusion.sampling.guidance import GuidedScore
from scoregeo.diffusion.sampling.samplers import DPMSolver, Heun
from scoregeo.scores import GaussianScore


class Poison(eqx.Module):
    """A score that is finite between two times only."""

    low: float
    high: float

    def __call__(self, x, t):
        return jnp.where((t > self.low) & (t <= self.high), -x, jnp.nan)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("weight", [0.0, 1.0, 2.5, -0.5])
def test_the_guided_score_is_the_gradient_of_the_guided_density(weight, dtype, modes):
    """p_u (p_c/p_u)^weight at one noise level, with the gradient by autodiff."""
    mixture, schedule, t = modes[1], VP(), jnp.asarray(0.2, dtype)
    narrow = GaussianScore(mixture.means[0], 0.1 * jnp.eye(2))
    guided = GuidedScore(ExactMarginal(narrow, schedule), ExactMarginal(mixture, schedule), weight)
    conditional, unconditional = (data.noised(schedule.alpha(t), schedule.sigma(t)) for data in (narrow, mixture))

    def log_density(x):
        log_u = unconditional.log_prob(x)
        return log_u + weight * (conditional.log_prob(x) - log_u)

    points = jax.random.normal(jax.random.key(0), (20, 2)).astype(dtype)
    got = jax.vmap(lambda x: guided(x, t))(points)
    expected = jax.vmap(jax.grad(log_density))(points.astype("float64"))
    np.testing.assert_allclose(got, expected, rtol=1e-10 if dtype == "float64" else 1e-4, atol=1e-4)


def test_the_weight_and_the_scores_keep_single_precision():
    guided = GuidedScore(lambda x, t: 1 - x, lambda x, t: -x, 2.0, interval=(0.1, 1.0), schedule=EDM())
    assert guided(jnp.zeros(2, "float32"), jnp.float32(0.5)).dtype == jnp.float32


@pytest.mark.slow
@pytest.mark.parametrize("sampler", [ProbabilityFlow(), Heun()], ids=["ProbabilityFlow", "Heun"])
def test_guided_samples_of_gaussians_have_the_closed_form(sampler):
    """With one covariance, guidance moves the mean to m_u + w (m_c - m_u) at every noise level, and nothing else."""
    schedule, weight, n = EDM(), 3.0, 4000
    means, cov = jnp.array([[0.1, -0.2], [0.6, 0.3]]), jnp.array([[0.3, 0.1], [0.1, 0.2]])
    free, conditional = (ExactMarginal(GaussianScore(mean, cov), schedule) for mean in means)
    expected = means[0] + weight * (means[1] - means[0])
    score = GuidedScore(conditional, free, weight)
    samples = sample_path(sampler, score, schedule, expected, jax.random.key(0), n)
    np.testing.assert_allclose(samples.mean(0), expected, atol=4 * np.sqrt(0.3 / n))
    np.testing.assert_allclose(jnp.cov(samples.T), cov, atol=0.03)


def test_guidance_acts_within_its_interval_of_noise_levels():
    schedule = VP()
    conditional, free = (lambda x, t: 1 - x), (lambda x, t: -x)
    guided = GuidedScore(conditional, free, 5.0, interval=(0.3, 2.0), schedule=schedule)
    x = jnp.array([0.2, 0.7])
    for level, inside in ((0.29, False), (0.31, True), (1.99, True), (2.01, False), (100.0, False)):
        expected = 1 - x + (4.0 if inside else 0.0)
        got = eqx.filter_jit(guided)(x, schedule.time_at(jnp.asarray(level)))
        np.testing.assert_allclose(got, expected, rtol=1e-12)
    above = GuidedScore(conditional, free, 5.0, interval=(0.3, jnp.inf), schedule=schedule)
    np.testing.assert_allclose(above(x, jnp.asarray(1.0)), 5 - x)


@pytest.mark.slow
def test_samplers_of_fixed_steps_do_not_evaluate_the_unconditional_score_outside():
    """A score that is NaN outside would spoil the sample if it were used, and is counted if it is called."""
    schedule, calls = EDM(sigma_max=10.0), []

    class Counted(eqx.Module):
        def __call__(self, x, t):
            jax.debug.callback(lambda t: calls.append(float(t)), t)
            return -x / (1 + t**2)

    score = GuidedScore(lambda x, t: -x / (1 + t**2), Counted(), 2.0, interval=(0.5, 2.0), schedule=schedule)
    sample_path(DPMSolver(steps=20), score, schedule, jnp.zeros(2), jax.random.key(0), 3)
    jax.effects_barrier()
    levels = schedule.sampling_levels(21)[:-1]
    assert calls
    assert set(np.round(calls, 6)) == {round(float(level), 6) for level in levels if 0.5 < level <= 2.0}
    score = GuidedScore(lambda x, t: -x / (1 + t**2), Poison(0.5, 2.0), 2.0, interval=(0.5, 2.0), schedule=schedule)
    assert jnp.isfinite(sample_path(ProbabilityFlow(), score, schedule, jnp.zeros(2), jax.random.key(0), 3)).all()


def test_a_new_weight_does_not_compile_again(modes):
    traces = []

    class Counted(eqx.Module):
        def __call__(self, x, t):
            traces.append(1)
            return -x / (1 + t**2)

    schedule, counted = EDM(), Counted()
    first = sample_path(Heun(4), GuidedScore(NotZero(), counted, 2.0), schedule, jnp.zeros(2), jax.random.key(0), 3)
    n = len(traces)
    second = sample_path(Heun(4), GuidedScore(NotZero(), counted, 3.0), schedule, jnp.zeros(2), jax.random.key(0), 3)
    assert len(traces) == n
    assert not np.allclose(first, second)


class NotZero(eqx.Module):
    def __call__(self, x, t):
        return (1 - x) / (1 + t**2)


def test_arguments_that_make_no_sense_are_named():
    def zero(x, t):
        return x

    with pytest.raises(TypeError, match="`unconditional` must be a callable"):
        GuidedScore(zero, 1.0, 2.0)
    with pytest.raises(ValueError, match="`weight` must be a scalar"):
        GuidedScore(zero, zero, jnp.ones(2))
    with pytest.raises(ValueError, match="`weight` must be finite"):
        GuidedScore(zero, zero, float("inf"))
    with pytest.raises(ValueError, match="`interval` needs the `schedule`"):
        GuidedScore(zero, zero, 2.0, interval=(0.1, 1.0))
    with pytest.raises(ValueError, match=r"`interval` must be two noise levels \(low, high\), got shape \(3,\)"):
        GuidedScore(zero, zero, 2.0, interval=(0.1, 1.0, 2.0), schedule=EDM())
    for interval in ((1.0, 0.1), (-1.0, 1.0), (0.0, float("nan"))):
        with pytest.raises(ValueError, match=r"`interval` must be \(low, high\) with 0 <= low < high"):
            GuidedScore(zero, zero, 2.0, interval=interval, schedule=EDM())
