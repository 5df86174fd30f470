"""Distributions of noise levels, against their distribution functions in SciPy, with every schedule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from scipy.special import expit, logit

from scoregeo.diffusion import EDM, VP, schedules
from scoregeo.diffusion.training.noise_levels import LogitNormalTimes, LogNormalLevels, UniformTimes

SCHEDULES = [*(kind() for kind in schedules.SCHEDULES.values()), VP(beta_min=0.5, beta_max=0.5, t_max=2.0)]


def fraction(schedule, levels):
    """Where in its range of times the schedule has the given noise levels, in (0, 1)."""
    return (np.asarray(schedule.time_at(levels), float) - schedule.t_min) / (schedule.t_max - schedule.t_min)


# How a noise level becomes a variable of known distribution.
CASES = [
    (UniformTimes, {}, fraction, scipy.stats.uniform()),
    (LogNormalLevels, {}, lambda schedule, levels: np.log(levels), scipy.stats.norm(-1.2, 1.2)),
    (LogNormalLevels, {"mean": 0.5, "std": 2.0}, lambda schedule, levels: np.log(levels), scipy.stats.norm(0.5, 2.0)),
    (LogitNormalTimes, {}, lambda schedule, levels: logit(fraction(schedule, levels)), scipy.stats.norm(0, 1)),
    (
        LogitNormalTimes,
        {"mean": -0.7, "std": 0.5},
        lambda schedule, levels: logit(fraction(schedule, levels)),
        scipy.stats.norm(-0.7, 0.5),
    ),
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
@pytest.mark.parametrize(
    ("kind", "settings", "variable", "law"), CASES, ids=lambda value: getattr(value, "__name__", "")
)
class TestLaw:
    def test_independent_draws_have_it(self, kind, settings, variable, law, schedule):
        for seed in range(3):
            levels = kind(**settings, stratified=False)(jax.random.key(seed), 4000, schedule)
            assert levels.shape == (4000,)
            assert scipy.stats.kstest(variable(schedule, levels), law.cdf).pvalue > 1e-3

    def test_stratified_draws_are_one_in_each_part(self, kind, settings, variable, law, schedule):
        """And uniform within their parts, by Kolmogorov and Smirnov."""
        n = 1000
        levels = kind(**settings)(jax.random.key(0), n, schedule)
        parts = n * law.cdf(variable(schedule, levels))
        np.testing.assert_array_equal(np.floor(parts), np.arange(n))
        assert scipy.stats.kstest(parts % 1, "uniform").pvalue > 1e-3

    def test_the_quantile_inverts_the_distribution(self, kind, settings, variable, law, schedule):
        u = jnp.linspace(0.01, 0.99, 21)
        np.testing.assert_allclose(law.cdf(variable(schedule, kind(**settings).quantile(u, schedule))), u, rtol=1e-8)

    @pytest.mark.slow
    def test_float32_under_jit(self, kind, settings, variable, law, schedule):
        for stratified in (True, False):
            levels = kind(**settings, stratified=stratified)
            draw = jax.jit(lambda key, levels=levels: levels(key, 100_000, schedule, jnp.float32))(jax.random.key(0))
            assert draw.dtype == jnp.float32
            assert (jnp.isfinite(draw) & (draw > 0)).all()


@pytest.mark.parametrize("kind", [LogNormalLevels, LogitNormalTimes])
def test_the_ends_of_the_unit_interval_are_finite(kind, monkeypatch):
    """Uniform draws of exactly 0 and (by rounding) 1 do occur in float32."""
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape, dtype: jnp.array([0.0, 1.0], dtype))
    for stratified in (True, False):
        assert jnp.isfinite(kind(stratified=stratified)(jax.random.key(0), 2, VP(), jnp.float32)).all()


@pytest.mark.parametrize("stratified", [True, False])
def test_a_mean_loss_is_unbiased_and_stratified_draws_vary_less(stratified):
    """E log sigma over many batches of 16: right on average; the spread is 1.2/4 for independent draws."""
    levels = LogNormalLevels(stratified=stratified)
    keys = jax.random.split(jax.random.key(0), 2000)
    means = jax.vmap(lambda key: jnp.mean(jnp.log(levels(key, 16, EDM()))))(keys)
    np.testing.assert_allclose(means.mean(), -1.2, atol=4 * means.std() / np.sqrt(2000))
    if stratified:
        assert means.std() < 0.1
    else:
        np.testing.assert_allclose(means.std(), 0.3, rtol=0.1)


def test_logit_normal_times_avoid_the_ends():
    t = fraction(VP(), LogitNormalTimes(mean=0.0, std=0.5)(jax.random.key(0), 1000, VP()))
    assert t.min() > expit(-0.5 * 3.9)
    assert t.max() < expit(0.5 * 3.9)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (UniformTimes, {"stratified": 1}, "`stratified` must be True or False, got 1"),
        (LogNormalLevels, {"std": 0.0}, "`std` must be positive, got 0.0"),
        (LogNormalLevels, {"mean": float("nan")}, "`mean` must be a finite number, got nan"),
        (LogitNormalTimes, {"std": "1"}, "`std` must be a finite number, got '1'"),
        (LogitNormalTimes, {"mean": True}, "`mean` must be a finite number, got True"),
    ],
)
def test_bad_settings_are_named(kind, settings, message):
    with pytest.raises(ValueError, match=message):
        kind(**settings)
