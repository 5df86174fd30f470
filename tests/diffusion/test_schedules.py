"""Schedules: their formulas against autodiff and moments of the forward equation, their draws against scipy."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from scoregeo.diffusion.config import KINDS
from scoregeo.diffusion.schedules import (
    EDM,
    VE,
    VP,
    Cosine,
    RectifiedFlow,
    SubVP,
)
from scoregeo.diffusion.schedules import SCHEDULES as SCHEDULES_BY_NAME

KNOWN = KINDS["schedule"]

SCHEDULES = [
    EDM(),
    EDM(sigma_min=0.01, sigma_max=5.0, rho=3.0),
    VP(),
    VP(beta_min=0.5, beta_max=0.5, t_max=2.0),
    SubVP(),
    SubVP(beta_min=0.5, beta_max=0.5, t_min=0.1, t_max=2.0),
    VE(),
    VE(sigma_min=0.002, sigma_max=80.0),
    Cosine(),
    Cosine(offset=0.0, t_min=0.01, t_max=0.9),
    RectifiedFlow(),
    RectifiedFlow(t_min=1e-5, t_max=0.999),
]


def times(schedule, dtype="float64"):
    """From ``t_min`` to ``t_max``, most of them near ``t_min``."""
    return (schedule.t_min + (schedule.t_max - schedule.t_min) * jnp.linspace(0, 1, 17) ** 2).astype(dtype)


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

    @pytest.mark.slow
    @pytest.mark.parametrize(("mean", "variance"), [(1.5, 0.0), (-0.3, 0.8)])
    def test_the_forward_equation_has_these_moments(self, schedule, mean, variance):
        """Mean and variance of dx = f x dt + g dw, integrated, against those of alpha x_0 + sigma eps."""
        f, g2 = jax.jit(schedule.drift), jax.jit(schedule.squared_diffusion)

        def moments(t):
            return np.array([schedule.alpha(t) * mean, schedule.alpha(t) ** 2 * variance + schedule.sigma(t) ** 2])

        def rate(t, y):
            return [f(t) * y[0], 2 * f(t) * y[1] + g2(t)]

        stops = np.linspace(schedule.t_min, schedule.t_max, 5)
        solution = scipy.integrate.solve_ivp(
            rate, stops[[0, -1]], moments(stops[0]), method="DOP853", t_eval=stops, rtol=1e-10, atol=1e-13
        )
        np.testing.assert_allclose(solution.y.T, [moments(t) for t in stops], rtol=1e-7, atol=1e-10)

    def test_times_and_noise_levels_are_inverses(self, schedule):
        t = times(schedule)
        np.testing.assert_allclose(schedule.time_at(schedule.noise_level(t)), t, rtol=1e-10, atol=1e-14)
        np.testing.assert_allclose(schedule.time_at_log_snr(schedule.log_snr(t)), t, rtol=1e-10, atol=1e-14)
        levels = jnp.geomspace(schedule.noise_level(schedule.t_min), schedule.noise_level(schedule.t_max), 17)
        np.testing.assert_allclose(schedule.noise_level(schedule.time_at(levels)), levels, rtol=1e-10)
        log_snr = jnp.linspace(schedule.log_snr(schedule.t_max), schedule.log_snr(schedule.t_min), 17)
        np.testing.assert_allclose(schedule.log_snr(schedule.time_at_log_snr(log_snr)), log_snr, rtol=1e-10, atol=1e-10)

    def test_log_snr_is_minus_twice_the_log_of_the_noise_level_and_falls(self, schedule):
        values = schedule.log_snr(times(schedule))
        np.testing.assert_allclose(values, -2 * np.log(schedule.noise_level(times(schedule))), rtol=1e-10, atol=1e-12)
        assert (np.diff(values) < 0).all()

    def test_signal_does_not_grow_and_noise_does(self, schedule):
        """What the conversions rely on for their digits."""
        assert (np.diff(schedule.alpha(times(schedule))) <= 0).all()
        assert (np.diff(schedule.sigma(times(schedule))) > 0).all()

    def test_float32_keeps_its_type_and_five_digits(self, schedule):
        t = times(schedule, "float32")
        arguments = dict.fromkeys(("alpha", "sigma", "drift", "squared_diffusion", "noise_level", "log_snr"), t)
        arguments |= {"time_at": schedule.noise_level(t), "time_at_log_snr": schedule.log_snr(t)}
        for name, argument in arguments.items():
            value = getattr(schedule, name)(argument)
            assert value.dtype == jnp.float32
            exact = getattr(schedule, name)(argument.astype("float64"))
            np.testing.assert_allclose(value, exact, rtol=1e-5, atol=1e-6, err_msg=name)

    def test_small_noise_keeps_its_digits_in_float32(self, schedule):
        """A noise level of 1e-4 would be lost in 1 - alpha^2."""
        level = jnp.float32(1e-4)
        np.testing.assert_allclose(schedule.noise_level(schedule.time_at(level)), level, rtol=3e-6)

    @pytest.mark.slow
    def test_all_methods_work_under_transformations(self, schedule):
        t = times(schedule)[3]
        for name in ("alpha", "sigma", "drift", "squared_diffusion", "noise_level", "log_snr"):
            method = getattr(schedule, name)
            np.testing.assert_allclose(jax.jit(method)(t), method(t), rtol=1e-13, atol=1e-15)
            np.testing.assert_allclose(jax.vmap(method)(times(schedule)), method(times(schedule)), rtol=1e-13)
            step = 1e-5 * t
            difference = (method(t + step) - method(t - step)) / (2 * step)
            np.testing.assert_allclose(jax.grad(method)(t), difference, rtol=1e-6, atol=1e-9, err_msg=name)
        level = schedule.noise_level(t)
        np.testing.assert_allclose(
            jax.grad(schedule.time_at)(level) * jax.grad(schedule.noise_level)(t), 1, rtol=1e-9, atol=0
        )

    def test_sampling_levels_fall_from_the_largest_to_the_smallest(self, schedule):
        levels = schedule.sampling_levels(9)
        assert (np.diff(levels) < 0).all()
        ends = schedule.noise_level(jnp.array([schedule.t_max, schedule.t_min]))
        np.testing.assert_allclose(levels[jnp.array([0, -1])], ends, rtol=1e-12)

    @pytest.mark.slow
    def test_training_levels_are_stratified(self, schedule):
        # One level in each of 64 equally likely parts: ranks of a large draw say which part each level is in.
        population = np.sort(schedule.training_levels(jax.random.key(0), 64_000))
        parts = np.searchsorted(population, np.sort(schedule.training_levels(jax.random.key(1), 64))) / 1000
        assert (np.abs(parts - np.arange(64) - 0.5) < 0.51).all()

    @pytest.mark.slow
    def test_levels_in_float32(self, schedule):
        for levels in (
            schedule.training_levels(jax.random.key(0), 512, jnp.float32),
            schedule.sampling_levels(9, jnp.float32),
        ):
            assert levels.dtype == jnp.float32
            assert (np.isfinite(levels) & (levels > 0)).all()

    def test_round_trip_through_json(self, schedule):
        assert KNOWN.from_dict(json.loads(json.dumps(KNOWN.to_dict(schedule)))) == schedule

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_the_prior_is_a_normal_distribution(self, schedule, dtype):
        mean = jnp.array([0.5, -2.0, 1.0], dtype)
        samples = schedule.prior_sample(jax.random.key(0), mean, 4000)
        assert samples.shape == (4000, 3)
        assert samples.dtype == dtype
        exact = scipy.stats.norm(schedule.alpha(schedule.t_max) * mean, schedule.sigma(schedule.t_max))
        assert (scipy.stats.kstest(exact.cdf(samples), "uniform", axis=0).pvalue > 1e-3).all()
        log_prob = jax.vmap(schedule.prior_log_prob, in_axes=(0, None))(samples, mean)
        assert log_prob.dtype == dtype
        np.testing.assert_allclose(log_prob, exact.logpdf(samples).sum(1), rtol=1e-5 if dtype == "float32" else 1e-12)


@pytest.mark.parametrize("schedule", [VP(), Cosine(), Cosine(offset=0.1)], ids=repr)
def test_variance_preserving_paths_keep_the_variance(schedule):
    t = times(schedule)
    np.testing.assert_allclose(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, 1, rtol=1e-14)


@pytest.mark.parametrize("kind", [VP, SubVP])
def test_alpha_is_the_integral_of_beta(kind):
    t = np.linspace(0, 0.7, 200_001)
    integral = np.trapezoid(0.1 + 19.9 * t, t)
    np.testing.assert_allclose(kind().alpha(0.7), np.exp(-integral / 2), rtol=1e-12)


@pytest.mark.parametrize(
    ("method", "formula"),
    [("sigma", lambda beta, b: 1 - np.exp(-b)), ("squared_diffusion", lambda beta, b: beta * (1 - np.exp(-2 * b)))],
)
def test_sub_vp_is_that_of_song(method, formula):
    """Song et al. 2021, equations 28 and 29."""
    t = jnp.linspace(0.1, 1, 5)
    values = getattr(SubVP(), method)(t)
    np.testing.assert_allclose(values, formula(0.1 + 19.9 * t, 0.1 * t + 9.95 * t**2), rtol=1e-12)


def test_sub_vp_has_less_noise_than_vp():
    t = times(VP())
    np.testing.assert_allclose(SubVP().alpha(t), VP().alpha(t), rtol=1e-15)
    np.testing.assert_allclose(SubVP().sigma(t), VP().sigma(t) ** 2, rtol=1e-13)


def test_ve_is_that_of_song():
    """Noise levels of equal ratio, and g = sigma_min (sigma_max/sigma_min)^t sqrt(2 log(sigma_max/sigma_min))."""
    schedule, t = VE(sigma_min=0.03, sigma_max=12.0), np.linspace(0, 1, 5)
    np.testing.assert_allclose(schedule.sampling_levels(7), np.geomspace(12.0, 0.03, 7), rtol=1e-12)
    np.testing.assert_allclose(schedule.squared_diffusion(t), (0.03 * 400**t) ** 2 * 2 * np.log(400), rtol=1e-12)


@pytest.mark.parametrize("offset", [0.008, 0.0, 0.3])
def test_cosine_is_that_of_nichol_and_dhariwal(offset):
    """alpha^2 = f(t)/f(0) with f(t) = cos((t + s)/(1 + s) pi/2)^2, their equation 17."""
    t = np.linspace(0.05, 0.95, 7)
    alpha_bar = (np.cos((t + offset) / (1 + offset) * np.pi / 2) / np.cos(offset / (1 + offset) * np.pi / 2)) ** 2
    np.testing.assert_allclose(Cosine(offset=offset).alpha(t) ** 2, alpha_bar, rtol=1e-12)
    np.testing.assert_allclose(Cosine(offset=offset).sigma(t) ** 2, 1 - alpha_bar, rtol=1e-12)


def test_cosine_without_offset_is_the_tangent():
    t = np.linspace(0.01, 0.99, 9)
    np.testing.assert_allclose(Cosine(offset=0.0).noise_level(t), np.tan(np.pi * t / 2), rtol=1e-12)


def test_rectified_flow_is_straight():
    t = np.linspace(0.01, 0.99, 9)
    np.testing.assert_allclose(RectifiedFlow().alpha(t) * 3.0 + RectifiedFlow().sigma(t) * 5.0, 3.0 + t * 2.0)


def test_vp_and_cosine_start_at_the_data():
    """At t = 0, outside the range of sampling but where the forward equation starts, everything is finite."""
    for schedule in (VP(), SubVP(), Cosine(), RectifiedFlow()):
        assert schedule.sigma(0.0) == 0
        assert schedule.time_at(0.0) == 0
        np.testing.assert_allclose(schedule.alpha(0.0), 1, rtol=1e-15)
        assert np.isfinite([schedule.drift(0.0), schedule.squared_diffusion(0.0)]).all()


def test_edm_sampling_levels_are_those_of_karras():
    levels = EDM(sigma_min=0.02, sigma_max=10.0, rho=7.0).sampling_levels(5)
    by_hand = [(10 ** (1 / 7) + i / 4 * (0.02 ** (1 / 7) - 10 ** (1 / 7))) ** 7 for i in range(5)]
    np.testing.assert_allclose(levels, by_hand, rtol=1e-12)


def test_training_levels_have_the_stated_law():
    # Stratified draws have a much smaller Kolmogorov-Smirnov distance than independent ones: 1/n at most.
    levels = EDM().training_levels(jax.random.key(0), 4096)
    assert scipy.stats.kstest(np.log(levels), scipy.stats.norm(-1.2, 1.2).cdf).statistic < 1 / 2000
    log_uniform = scipy.stats.loguniform(0.01, 50.0)
    levels = VE().training_levels(jax.random.key(0), 4096)
    assert scipy.stats.kstest(levels, log_uniform.cdf).statistic < 1 / 2000
    for schedule in (VP(), SubVP(), Cosine(), RectifiedFlow()):
        t = schedule.time_at(schedule.training_levels(jax.random.key(0), 4096))
        uniform = scipy.stats.uniform(schedule.t_min, schedule.t_max - schedule.t_min)
        assert scipy.stats.kstest(t, uniform.cdf).statistic < 1 / 2000


def test_sampling_times_are_uniform():
    for schedule in (VP(), SubVP(), Cosine(), RectifiedFlow()):
        t = schedule.time_at(schedule.sampling_levels(6))
        np.testing.assert_allclose(t, np.linspace(schedule.t_max, schedule.t_min, 6), rtol=1e-10)


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
        (lambda: SubVP(beta_min=-1.0), "beta_min"),
        (lambda: SubVP(t_min=0), "t_min"),
        (lambda: VE(sigma_min=-1.0), "sigma_min"),
        (lambda: VE(sigma_max=0.001), "sigma_max"),
        (lambda: VE(sigma_max=float("inf")), "sigma_max"),
        (lambda: Cosine(offset=-0.1), "offset"),
        (lambda: Cosine(t_max=1.0), "t_max"),
        (lambda: Cosine(t_min=True), "t_min"),
        (lambda: RectifiedFlow(t_min=0.0), "t_min"),
        (lambda: RectifiedFlow(t_max=1), "t_max"),
        (lambda: RectifiedFlow(t_min=0.5, t_max=0.4), "t_max"),
    ],
)
def test_bad_parameters_are_named(make, name):
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        make()


@pytest.mark.parametrize("values", [{"kind": "Linear"}, {"kind": "VP", "sigma_min": 1.0}, {}, None, "EDM"])
def test_a_dictionary_that_is_no_schedule(values):
    with pytest.raises(ValueError, match=r"`schedule` (must be|has unknown)"):
        KNOWN.from_dict(values)


def test_only_schedules_of_this_package_are_saved():
    class Mine(EDM):
        pass

    with pytest.raises(TypeError, match=r"`schedule` must be one of Cosine, EDM, .* to be saved, got Mine"):
        KNOWN.to_dict(Mine())


def test_every_schedule_is_known_by_its_name_and_tested():
    assert {type(schedule) for schedule in SCHEDULES} == set(KNOWN.known)
    assert KNOWN.types == SCHEDULES_BY_NAME
