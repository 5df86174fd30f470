"""Weightings of the loss: each against its definition in terms of the noise, the score or the denoiser."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from scoregeo.diffusion import EDM, VP, AbstractWeighting, Denoiser, denoising_loss, schedules
from scoregeo.diffusion.config import KINDS
from scoregeo.diffusion.training.weightings import (
    EDMWeighting,
    LearnedWeighting,
    LikelihoodWeighting,
    MinSNRWeighting,
    SimpleWeighting,
)

WEIGHTINGS = [EDMWeighting(), SimpleWeighting(), LikelihoodWeighting(), MinSNRWeighting(), MinSNRWeighting(gamma=0.5)]
SCHEDULES = [*(kind() for kind in schedules.SCHEDULES.values()), VP(beta_min=0.5, beta_max=4.0, t_max=2.0)]
DATA = 0.7


@pytest.fixture(params=[0.02, 0.3, 5.0])
def case(request, mlp):
    """A denoiser with random weights, a clean point, noise, and its level."""
    denoiser = Denoiser(mlp(), DATA, jnp.array([0.3, -1.0, 2.0]))
    x, noise = (jax.random.normal(jax.random.key(i), (3,)) for i in (1, 2))
    return denoiser, x, noise, jnp.array(request.param)


def weighted(weighting, case, schedule):
    return weighting(case[3], case[0].sigma_data[...], schedule) * denoising_loss(*case)


def test_edm_is_the_base_loss(case):
    assert weighted(EDMWeighting(), case, EDM()) == denoising_loss(*case)


def test_simple_is_the_error_of_the_noise(case):
    denoiser, x, noise, sigma = case
    predicted = -sigma * denoiser.score(x + sigma * noise, sigma)
    np.testing.assert_allclose(weighted(SimpleWeighting(), case, EDM()), jnp.mean((predicted - noise) ** 2), rtol=1e-10)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_likelihood_is_the_error_of_the_score_in_time_times_g_squared(schedule, case):
    """The score of x_t and its denoising target, from alpha and sigma of the schedule, not through the noise level."""
    denoiser, x, noise, sigma = case
    t = schedule.time_at(sigma)
    alpha, std = schedule.alpha(t), schedule.sigma(t)
    x_t = alpha * x + std * noise
    score = denoiser.score(x_t / alpha, sigma) / alpha
    target = -(x_t - alpha * x) / std**2
    expected = schedule.squared_diffusion(t) * jnp.mean((score - target) ** 2)
    np.testing.assert_allclose(weighted(LikelihoodWeighting(), case, schedule), expected, rtol=1e-8)


@pytest.mark.parametrize("gamma", [0.1, 5.0, 1e4])
def test_min_snr_is_the_clipped_error_of_the_denoiser(gamma, case):
    denoiser, x, noise, sigma = case
    error = (denoiser.denoise(x + sigma * noise, sigma) - x) / DATA
    expected = min((DATA / float(sigma)) ** 2, gamma) * jnp.mean(error**2)
    np.testing.assert_allclose(weighted(MinSNRWeighting(gamma), case, EDM()), expected, rtol=1e-8)


@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=repr)
def test_weights_are_positive_and_finite_in_float32_and_under_transforms(weighting):
    levels = jnp.geomspace(1e-6, 1e6, 49, dtype=jnp.float32)
    for schedule in (EDM(), VP()):
        weights = jax.jit(jax.vmap(lambda s, schedule=schedule: weighting(s, jnp.float32(DATA), schedule)))(levels)
        assert weights.dtype == jnp.float32
        assert jnp.isfinite(weights).all()
        # The likelihood weight of VP falls as exp(-B(t)), the others not faster than sigma^-2 or sigma^2.
        assert (weights > 0).all()
        exact = jax.vmap(lambda s, schedule=schedule: weighting(s, DATA, schedule))(levels.astype("float64"))
        good = levels > 1e-3  # sigma(t)^2 = 1 - exp(-B) of VP has lost its digits below
        np.testing.assert_allclose(weights[good], exact[good], rtol=1e-4)


class TestLearned:
    def test_it_starts_with_the_loss_itself(self):
        learned = LearnedWeighting()
        parameters = learned.initial(jnp.float32)
        assert {leaf.dtype for leaf in jax.tree.leaves(parameters)} == {np.dtype("float32")}
        for sigma in (1e-3, 0.4, 80.0):
            assert learned.apply(parameters, jnp.float32(0.3), jnp.float32(sigma)) == jnp.float32(0.3)

    def test_the_best_u_is_the_logarithm_of_the_expected_loss(self):
        """The minimum over a constant u of the mean over random losses, found by SciPy."""
        learned, losses = LearnedWeighting(), jax.random.exponential(jax.random.key(0), (1000,)) * 0.2
        features = learned.initial()["features"]

        @jax.jit
        def mean(bias):
            parameters = {"bias": bias, "features": features}
            return jnp.mean(jax.vmap(lambda loss: learned.apply(parameters, loss, jnp.array(0.5)))(losses))

        best = minimize_scalar(lambda bias: float(mean(bias)), bracket=(-3.0, 0.0), tol=1e-10)
        np.testing.assert_allclose(best.x, np.log(losses.mean()), atol=1e-5)

    def test_the_gradient_is_that_of_the_loss_over_its_size(self):
        learned = LearnedWeighting()
        parameters = {"bias": jnp.array(0.4), "features": 0.1 * jnp.arange(9.0)}
        for sigma in (jnp.array(0.01), jnp.array(3.0)):
            u = learned.log_variance(parameters, sigma)
            slope = jax.grad(learned.apply, argnums=1)(parameters, jnp.array(0.3), sigma)
            np.testing.assert_allclose(slope, np.exp(-u), rtol=1e-12)
        assert abs(u - 0.4) > 0.1  # it does depend on the level

    def test_it_can_follow_a_loss_that_depends_on_the_level(self):
        """Least squares in its ten features: log losses from 0.01 to 1 over the usual levels to 10 per cent."""
        learned = LearnedWeighting()
        sigma = jnp.geomspace(0.01, 20.0, 60)
        target = np.log(0.01 + sigma**2 / (1 + sigma**2))
        unit = jax.vmap(
            lambda i: jax.vmap(
                lambda s: learned.log_variance({"bias": jnp.eye(10)[i, 0], "features": jnp.eye(10)[i, 1:]}, s)
            )(sigma)
        )(jnp.arange(10))
        solution = np.linalg.lstsq(np.asarray(unit).T, target, rcond=None)[0]
        assert np.abs(unit.T @ solution - target).max() < 0.1


@pytest.mark.parametrize("gamma", [0.0, -1.0, float("inf"), float("nan"), True, "5"])
def test_bad_gamma_is_named(gamma):
    with pytest.raises(ValueError, match="`gamma` must be a number that is positive, got"):
        MinSNRWeighting(gamma)


def test_a_weight_without_parameters_is_a_factor():
    weighting, sigma, data = MinSNRWeighting(), jnp.array(0.3), jnp.array(0.8)
    assert weighting.initial() == {}
    loss = weighting.apply({}, jnp.array(2.0), sigma, data, EDM())
    np.testing.assert_array_equal(loss, 2 * weighting(sigma, data, EDM()))


def test_every_weighting_is_one():
    assert all(isinstance(kind(), AbstractWeighting) for kind in KINDS["weighting"].known)
