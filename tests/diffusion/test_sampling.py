"""Sampling along a path, the two samplers on diffrax, and samples of a trained model; see test_samplers for the law."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from oracles import ExactMarginal, NotFinite

from scoregeo.diffusion import EDM, VP, AbstractSampler, ProbabilityFlow, ReverseSDE
from scoregeo.diffusion.sampling.base import LearnedMarginalScore, sample_path
from scoregeo.scores import GaussianScore

pytestmark = pytest.mark.slow


def energy_statistic(x, y):
    """The energy distance between two samples, times the size that makes its null mean about one (Szekely & Rizzo)."""

    def mean_distance(a, b):
        return float(np.mean(scipy.spatial.distance.cdist(a, b)))

    x, y = np.asarray(x, float), np.asarray(y, float)
    return len(x) * len(y) / (len(x) + len(y)) * (2 * mean_distance(x, y) - mean_distance(x, x) - mean_distance(y, y))


SAMPLERS = [ProbabilityFlow(), ReverseSDE(steps=128)]


@pytest.mark.parametrize("schedule", [EDM(sigma_max=50.0), VP()], ids=["EDM", "VP"])
def test_the_flow_of_a_gaussian_is_the_closed_form(schedule):
    """For data N(m, c^2) the flow is affine: x_t = alpha m + sqrt(alpha^2 c^2 + sigma^2) z, the same z at all times."""
    mean, spread = jnp.array([0.5, -0.3]), 0.7
    score = ExactMarginal(GaussianScore(mean, spread**2 * jnp.eye(2)), schedule)
    x = jnp.array([1.0, -2.0])
    sampler = ProbabilityFlow(rtol=1e-9, atol=1e-9)
    end, result = sampler.solve(score, schedule, x, jax.random.key(0))
    moments = [
        (schedule.alpha(t) * mean, jnp.sqrt(schedule.alpha(t) ** 2 * spread**2 + schedule.sigma(t) ** 2))
        for t in (schedule.t_max, schedule.t_min)
    ]
    expected = moments[1][0] + moments[1][1] * (x - moments[0][0]) / moments[0][1]
    assert result == diffrax.RESULTS.successful
    np.testing.assert_allclose(end, expected, rtol=1e-6)


def test_more_steps_of_the_stochastic_sampler_are_closer():
    """Second moment of N(0, 1) data: too few steps are visibly wrong, and the error falls."""
    schedule = EDM(sigma_min=0.01, sigma_max=20.0)
    score = jax.tree_util.Partial(lambda x, t: -x / (1 + t**2))

    def error(steps):
        samples = sample_path(ReverseSDE(steps=steps), score, schedule, jnp.zeros(1), jax.random.key(0), 20_000)
        return abs(float(jnp.mean(samples**2)) - 1)

    coarse, fine = error(6), error(64)
    assert coarse > 0.1
    assert fine < 0.04


def test_the_learned_marginal_is_that_of_the_path(modes, trained):
    """s_t(x) = s(x/alpha; sigma/alpha)/alpha: compared with the exact marginal at a time of VP."""
    _, mixture = modes
    schedule, t = VP(), jnp.float32(0.3)
    learned = LearnedMarginalScore(trained.score_at(1.0), schedule)
    exact = mixture.noised(schedule.alpha(t), schedule.sigma(t))
    x = exact.sample(jax.random.key(0), 500).astype("float32")
    wanted = jax.vmap(exact)(x)
    got = jax.vmap(lambda x: learned(x, t))(x)
    assert jnp.sqrt(jnp.mean((got - wanted) ** 2) / jnp.mean(wanted**2)) < 0.1


@pytest.mark.parametrize("sampler", [None, ReverseSDE(steps=64)], ids=["default", "ReverseSDE"])
def test_a_trained_model_samples_its_data(sampler, modes, trained):
    samples = trained.sample(jax.random.key(0), 2000, sampler=sampler)
    assert samples.shape == (2000, 2)
    assert samples.dtype == jnp.float32
    data = modes[0]
    np.testing.assert_allclose(samples.mean(0), data.mean(0), atol=0.12)
    np.testing.assert_allclose(jnp.cov(samples.T), jnp.cov(data.T), atol=0.15)
    assert energy_statistic(samples, data[:2000]) < 10


def test_samples_are_decided_by_the_key(trained):
    sampler = ReverseSDE(steps=8)
    first, again, other = (
        trained.sample(jax.random.key(i), n, sampler=sampler) for i, n in ((0, 5), (0, np.int64(5)), (1, 5))
    )
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


def test_a_fresh_model_does_not_compile_again(trained):
    traces = []

    class Counted(AbstractSampler):
        def solve(self, score, schedule, x, key):
            traces.append(1)
            return score(x, jnp.asarray(schedule.t_max, x.dtype)), diffrax.RESULTS.successful

    other = eqx.tree_at(lambda m: m.weights, trained, jax.tree.map(lambda w: 0.9 * w, trained.weights))
    first, second = (model.sample(jax.random.key(0), 5, sampler=Counted()) for model in (trained, other))
    assert len(traces) == 1
    assert not np.allclose(first, second)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=["ProbabilityFlow", "ReverseSDE"])
def test_a_score_that_is_not_finite_is_reported(sampler):
    with pytest.raises(RuntimeError, match=r"7 of 7 samples failed: the score was not finite.*Check the score"):
        sample_path(sampler, NotFinite(), EDM(), jnp.zeros(2), jax.random.key(0), 7)
    under_jit = jax.jit(lambda: sample_path(sampler, NotFinite(), EDM(), jnp.zeros(2), jax.random.key(0), 7))
    assert jnp.isnan(under_jit()).all()


def test_running_out_of_steps_is_reported(trained):
    with pytest.raises(RuntimeError, match="ProbabilityFlow ran out of steps"):
        trained.sample(jax.random.key(0), 3, sampler=ProbabilityFlow(max_steps=4))


def test_bad_arguments_are_named(trained):
    for n in (0, 2.0, True):
        with pytest.raises(ValueError, match="`n` must be an integer of at least 1, got"):
            trained.sample(jax.random.key(0), n)
    with pytest.raises(TypeError, match="`sampler` must be a sampler such as ProbabilityFlow"):
        trained.sample(jax.random.key(0), 3, sampler="ode")
    with pytest.raises(ValueError, match="`steps` must be an integer of at least 1, got 0"):
        ReverseSDE(steps=0)
    with pytest.raises(ValueError, match=r"`max_steps` must be an integer of at least 1, got 1\.0"):
        ProbabilityFlow(max_steps=1.0)
    for name in ("rtol", "atol"):
        with pytest.raises(ValueError, match=f"`{name}` must be a number that is positive, got 0"):
            ProbabilityFlow(**{name: 0})
