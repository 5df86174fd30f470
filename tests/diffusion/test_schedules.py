"""Schedules: their formulas against autodiff and integrals of the forward equation, their draws against scipy."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from scoregeo.diffusion import EDM, VP
from scoregeo.diffusion.schedules import schedule_from_dict, schedule_to_dict

SCHEDULES = [EDM(), EDM(sigma_min=0.01, sigma_max=5.0, rho=3.0), VP(), VP(beta_min=0.5, beta_max=0.5, t_max=2.0)]


def times(schedule, dtype="float64"):
    return jnp.geomspace(schedule.t_min, schedule.t_max, 17).astype(dtype)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
class TestFormulas:
    def test_drift_is_the_derivative_of_log_alpha(self, schedule):
        expected = jax.vmap(jax.grad(lambda t: jnp.log(schedule.alpha(t))))(times(schedule))
        np.testing.assert_allclose(jax.vmap(schedule.drift)(times(schedule)), expected, rtol=1e-12, atol=1e-15)

    def test_diffusion_is_what_moves_the_variance(self, schedule):
        t = times(schedule)
        growth = jax.vmap(jax.grad(lambda t: schedule.sigma(t) ** 2))(t)
        expected = growth - 2 * jax.vmap(schedule.drift)(t) * schedule.sigma(t) ** 2
        np.testing.assert_allclose(schedule.squared_diffusion(t), expected, rtol=1e-10)

    def test_diffusion_is_the_growth_of_the_noise_level(self, schedule):
        t = times(schedule)
        growth = jax.vmap(jax.grad(lambda t: jnp.log(schedule.noise_level(t))))(t)
        np.testing.assert_allclose(2 * schedule.sigma(t) ** 2 * growth, schedule.squared_diffusion(t), rtol=1e-10)

    def test_time_at_inverts_the_noise_level(self, schedule):
        t = times(schedule)
        np.testing.assert_allclose(schedule.time_at(schedule.noise_level(t)), t, rtol=1e-10)

    def test_log_snr_is_minus_twice_the_log_of_the_noise_level_and_falls(self, schedule):
        values = schedule.log_snr(times(schedule))
        np.testing.assert_allclose(values, -2 * np.log(schedule.noise_level(times(schedule))), rtol=1e-10, atol=1e-12)
        assert (np.diff(values) < 0).all()

    def test_float32_keeps_its_type_and_five_digits(self, schedule):
        t = times(schedule, "float32")
        for name in ("alpha", "sigma", "drift", "squared_diffusion", "time_at", "noise_level", "log_snr"):
            value = getattr(schedule, name)(t)
            assert value.dtype == jnp.float32
            exact = getattr(schedule, name)(t.astype("float64"))
            np.testing.assert_allclose(value, exact, rtol=1e-5, atol=1e-6, err_msg=name)

    def test_sampling_levels_fall_from_the_largest_to_the_smallest(self, schedule):
        levels = schedule.sampling_levels(9)
        assert (np.diff(levels) < 0).all()
        ends = schedule.noise_level(jnp.array([schedule.t_max, schedule.t_min]))
        np.testing.assert_allclose(levels[jnp.array([0, -1])], ends, rtol=1e-12)

    def test_training_levels_are_stratified(self, schedule):
        # One level in each of 64 equally likely parts: ranks of a large draw say which part each level is in.
        population = np.sort(schedule.training_levels(jax.random.key(0), 64_000))
        parts = np.searchsorted(population, np.sort(schedule.training_levels(jax.random.key(1), 64))) / 1000
        assert (np.abs(parts - np.arange(64) - 0.5) < 0.51).all()

    def test_round_trip_through_json(self, schedule):
        assert schedule_from_dict(json.loads(json.dumps(schedule_to_dict(schedule)))) == schedule


def test_vp_keeps_the_variance():
    t = times(VP())
    np.testing.assert_allclose(VP().alpha(t) ** 2 + VP().sigma(t) ** 2, 1, rtol=1e-14)


def test_vp_alpha_is_the_integral_of_beta():
    t = np.linspace(0, 0.7, 200_001)
    integral = np.trapezoid(0.1 + 19.9 * t, t)
    np.testing.assert_allclose(VP().alpha(0.7), np.exp(-integral / 2), rtol=1e-12)


def test_edm_sampling_levels_are_those_of_karras():
    levels = EDM(sigma_min=0.02, sigma_max=10.0, rho=7.0).sampling_levels(5)
    by_hand = [(10 ** (1 / 7) + i / 4 * (0.02 ** (1 / 7) - 10 ** (1 / 7))) ** 7 for i in range(5)]
    np.testing.assert_allclose(levels, by_hand, rtol=1e-12)


def test_training_levels_have_the_stated_law():
    # Stratified draws have a much smaller Kolmogorov-Smirnov distance than independent ones: 1/n at most.
    levels = EDM().training_levels(jax.random.key(0), 4096)
    assert scipy.stats.kstest(np.log(levels), scipy.stats.norm(-1.2, 1.2).cdf).statistic < 1 / 2000
    t = VP().time_at(VP().training_levels(jax.random.key(0), 4096))
    assert scipy.stats.kstest(t, scipy.stats.uniform(1e-3, 1 - 1e-3).cdf).statistic < 1 / 2000
    single = VP().training_levels(jax.random.key(0), 8, jnp.float32)
    assert single.dtype == jnp.float32


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: EDM(sigma_min=0.0), "sigma_min"),
        (lambda: EDM(sigma_min=2.0, sigma_max=1.0), "sigma_max"),
        (lambda: EDM(p_std=-1.0), "p_std"),
        (lambda: EDM(p_mean=float("nan")), "p_mean"),
        (lambda: EDM(rho="7"), "rho"),
        (lambda: VP(beta_min=0.0), "beta_min"),
        (lambda: VP(beta_max=0.01), "beta_max"),
        (lambda: VP(t_min=1.0), "t_max"),
    ],
)
def test_bad_parameters_are_named(make, name):
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        make()


@pytest.mark.parametrize("values", [{"kind": "Linear"}, {"kind": "VP", "sigma_min": 1.0}, {}, None, "EDM"])
def test_a_dictionary_that_is_no_schedule(values):
    with pytest.raises(ValueError, match=r"`schedule` (must be|has unknown)"):
        schedule_from_dict(values)
