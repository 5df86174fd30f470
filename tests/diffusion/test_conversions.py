"""Conversions between predictions: against their definitions at known data and noise, and the flow of a Gaussian."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

from scoregeo.diffusion.conversions import PREDICTIONS, convert
from scoregeo.diffusion.schedules import EDM, VE, VP, Cosine, RectifiedFlow, SubVP

SCHEDULES = [EDM(), VE(), VP(), SubVP(), Cosine(), RectifiedFlow()]
PAIRS = list(itertools.permutations(PREDICTIONS, 2))
LEVELS = (0.02, 0.7, 100.0)  # noise levels: little, middling, much


def forward_velocity(schedule, t, x0, eps):
    """dx_t/dt by central differences of the path, extrapolated: error of order step^4."""

    def difference(step):
        above, below = ((schedule.alpha(t + h) * x0 + schedule.sigma(t + h) * eps) for h in (step, -step))
        return (above - below) / (2 * step)

    return (4 * difference(1e-4 * t) - difference(2e-4 * t)) / 3


def draw(schedule, level, seed, shape=(5,)):
    """Time, noisy point, and all five predictions by their definitions; in float64."""
    t = schedule.time_at(jnp.float64(level))
    x0, eps = jax.random.normal(jax.random.key(seed), (2, *shape))
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    predictions = {
        "eps": eps,
        "x0": x0,
        "v": alpha * eps - sigma * x0,
        "score": -eps / sigma,
        "velocity": forward_velocity(schedule, t, x0, eps),
    }
    return t, alpha * x0 + sigma * eps, predictions


@functools.cache
def all_pairs(schedule):
    """A compiled function of the values of all sources, the point and the time: a dictionary of all conversions."""

    @jax.jit
    def converted(values, x_t, t):
        return {
            (source, target): convert(values[source], x_t, t, schedule, source=source, target=target)
            for source, target in itertools.product(PREDICTIONS, repeat=2)
        }

    return converted


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
class TestEverySchedule:
    @pytest.mark.parametrize("seed", [0, 1])
    def test_all_pairs_are_their_definitions(self, schedule, level, seed):
        t, x_t, predictions = draw(schedule, level, seed)
        converted = all_pairs(schedule)(predictions, x_t, t)
        assert len(converted) == 25
        for (source, target), value in converted.items():
            # The velocity by differences has about ten digits; large or small noise takes two of the rest.
            scale = np.abs(predictions[target]).max()
            np.testing.assert_allclose(
                value, predictions[target], rtol=0, atol=1e-8 * scale, err_msg=f"{source} to {target}"
            )

    def test_round_trips_and_detours_change_nothing(self, schedule, level):
        """For any values: not only for those of some data and noise."""
        t = schedule.time_at(jnp.float64(level))
        x_t, *values = jax.random.normal(jax.random.key(3), (6, 4))
        convert_all = all_pairs(schedule)
        direct = convert_all(dict(zip(PREDICTIONS, values, strict=True)), x_t, t)
        for source in PREDICTIONS:
            detours = convert_all({middle: direct[source, middle] for middle in PREDICTIONS}, x_t, t)
            for (middle, target), value in detours.items():
                expected = direct[source, target]
                scale = np.abs(expected).max()
                message = f"{source} by way of {middle} to {target}"
                np.testing.assert_allclose(value, expected, rtol=0, atol=1e-9 * scale, err_msg=message)

    def test_a_prediction_is_itself(self, schedule, level):
        t, x_t, predictions = draw(schedule, level, 0)
        for kind, value in predictions.items():
            np.testing.assert_array_equal(convert(value, x_t, t, schedule, source=kind, target=kind), value)

    def test_float32_loses_no_more_than_the_sum_of_two_terms(self, schedule, level):
        """The error is that of rounding p value and q x_t: the coefficients p and q have all their digits."""
        t, x_t, predictions = draw(schedule, level, 0)
        t, x_t, predictions = jax.tree.map(lambda a: a.astype("float32"), (t, x_t, predictions))
        single = all_pairs(schedule)(predictions, x_t, t)
        t, x_t, predictions = jax.tree.map(lambda a: a.astype("float64"), (t, x_t, predictions))
        first = all_pairs(schedule)(predictions, jnp.zeros_like(x_t), t)
        second = all_pairs(schedule)(jax.tree.map(jnp.zeros_like, predictions), x_t, t)
        for pair, value in single.items():
            assert value.dtype == jnp.float32
            size = np.abs(first[pair]) + np.abs(second[pair])
            error = np.abs(value - (first[pair] + second[pair]))
            assert (error <= 3e-6 * size).all(), f"{pair}: {np.max(error / size):.1e}"

    def test_it_is_exact_for_conditional_means(self, schedule, level):
        """Data N(m, c^2): E[x_0 | x_t], E[eps | x_t] and the score are known, each from regression on x_t."""
        t = schedule.time_at(jnp.float64(level))
        alpha, sigma, mean, spread = schedule.alpha(t), schedule.sigma(t), 0.4, 0.7
        x_t = jax.random.normal(jax.random.key(0), (6,)) * 2
        variance = alpha**2 * spread**2 + sigma**2
        score = jax.vmap(jax.grad(lambda x: -0.5 * (x - alpha * mean) ** 2 / variance))(x_t)
        x0 = mean + alpha * spread**2 / variance * (x_t - alpha * mean)
        eps = sigma / variance * (x_t - alpha * mean)
        velocity = schedule.drift(t) * x_t - 0.5 * schedule.squared_diffusion(t) * score
        for target, expected in (("x0", x0), ("eps", eps), ("velocity", velocity)):
            value = convert(score, x_t, t, schedule, source="score", target=target)
            np.testing.assert_allclose(value, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_the_velocity_is_the_flow_of_a_gaussian(schedule):
    """x_t = alpha m + sqrt(alpha^2 c^2 + sigma^2) z with the same z at all times, from the score alone."""
    mean, spread, z = 0.5, 0.7, np.array([-1.3, 0.2, 2.0])
    start, end = schedule.time_at(jnp.array([20.0, 0.05]))

    def moments(t):
        return schedule.alpha(t) * mean, schedule.alpha(t) ** 2 * spread**2 + schedule.sigma(t) ** 2

    @jax.jit
    def velocity(t, x):
        m, variance = moments(t)
        return convert((m - x) / variance, x, t, schedule, source="score", target="velocity")

    first, last = (m + np.sqrt(variance) * z for m, variance in map(moments, (start, end)))
    solution = scipy.integrate.solve_ivp(
        velocity, [start, end], np.asarray(first), method="DOP853", rtol=1e-9, atol=1e-10
    )
    np.testing.assert_allclose(solution.y[:, -1], last, rtol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_jit_vmap_and_grad(schedule):
    t = schedule.time_at(jnp.array([0.1, 1.0, 5.0]))
    x_t, value = jax.random.normal(jax.random.key(0), (2, 3, 4))

    def one(value, x_t, t):
        return jnp.stack([convert(value, x_t, t, schedule, source=a, target=b) for a, b in PAIRS])

    batch = jax.jit(jax.vmap(one))
    eager = [one(*arguments) for arguments in zip(value, x_t, t, strict=True)]
    np.testing.assert_allclose(batch(value, x_t, t), eager, rtol=1e-11, atol=1e-13)

    h = 1e-4 * t
    at = [batch(value, x_t, t + step * h) for step in (-2, -1, 1, 2)]
    difference = (8 * (at[2] - at[1]) - at[3] + at[0]) / (12 * h[:, None, None])
    gradient = jax.jit(jax.vmap(jax.jacrev(one, argnums=2)))(value, x_t, t)
    np.testing.assert_allclose(gradient, difference, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4), (0,)])
def test_any_shape(shape):
    t, x_t, predictions = draw(VP(), 0.5, 0, shape)
    value = convert(predictions["v"], x_t, t, VP(), source="v", target="x0")
    assert value.shape == shape
    np.testing.assert_allclose(value, predictions["x0"], rtol=1e-12, atol=1e-14)


@pytest.mark.slow
def test_v_knows_data_and_noise_at_every_noise_level():
    """In float32 at very small and very large noise, where eps no longer knows x0 nor x0 eps."""
    x0, eps = jax.random.normal(jax.random.key(0), (2, 8), jnp.float32)
    for level in (1e-4, 1e4):
        for schedule, source in itertools.product([VP(t_max=2.0), Cosine(), RectifiedFlow()], ["v", "velocity"]):
            t = schedule.time_at(jnp.float32(level))
            alpha, sigma = schedule.alpha(t), schedule.sigma(t)
            x_t = alpha * x0 + sigma * eps
            rates = (jax.grad(f)(t) for f in (schedule.alpha, schedule.sigma))
            a, b = (-sigma, alpha) if source == "v" else rates
            value = a * x0 + b * eps
            for target, expected in (("x0", x0), ("eps", eps)):
                result = convert(value, x_t, t, schedule, source=source, target=target)
                np.testing.assert_allclose(result, expected, rtol=0, atol=2e-6, err_msg=f"{schedule} {source} {level}")


def test_the_ends_of_the_straight_path():
    """At t = 0 there is no noise, at t = 1 no data: the velocity still gives both, and comes from what is known."""
    schedule = RectifiedFlow()
    x0, eps = jax.random.normal(jax.random.key(0), (2, 4))
    for t, x_t in ((0.0, x0), (1.0, eps)):
        for target, expected in (("x0", x0), ("eps", eps)):
            value = convert(eps - x0, x_t, t, schedule, source="velocity", target=target)
            np.testing.assert_allclose(value, expected, rtol=1e-15, atol=1e-15)
    np.testing.assert_allclose(convert(x0, eps, 1.0, schedule, source="x0", target="velocity"), eps - x0)
    np.testing.assert_allclose(convert(eps, x0, 0.0, schedule, source="eps", target="velocity"), eps - x0)
    np.testing.assert_allclose(convert(eps, eps, 1.0, schedule, source="eps", target="score"), -eps)
    assert not np.isfinite(convert(eps, eps, 1.0, schedule, source="eps", target="x0")).any()
    assert not np.isfinite(convert(x0, x0, 0.0, schedule, source="x0", target="eps")).any()


def test_types():
    single, double = jnp.ones(2, jnp.float32), jnp.ones(2)
    for value, x_t, dtype in ((single, single, "float32"), (double, single, "float64"), (single, double, "float64")):
        for t in (0.5, np.float64(0.5), jnp.float32(0.5)):
            for source, target in (("score", "v"), ("x0", "x0"), ("v", "velocity")):
                assert convert(value, x_t, t, VP(), source=source, target=target).dtype == dtype


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"source": "noise"}, ValueError, "`source` must be one of eps, x0, v, score, velocity, got 'noise'"),
        ({"target": None}, ValueError, "`target` must be one of eps, x0, v, score, velocity, got None"),
        ({"value": jnp.ones(4)}, ValueError, r"`value` must have the shape of `x_t`, \(3,\), got \(4,\)"),
        ({"t": jnp.full(3, 0.5)}, ValueError, r"`t` must be a scalar, got shape \(3,\); use jax.vmap"),
        ({"schedule": "VP"}, TypeError, "`schedule` must be a schedule such as EDM"),
        ({"x_t": "noise"}, TypeError, "`x_t` must be an array of numbers, got str"),
    ],
)
def test_bad_arguments_are_named(change, error, message):
    arguments = {"value": jnp.ones(3), "x_t": jnp.ones(3), "t": 0.5, "schedule": VP(), "source": "eps", "target": "x0"}
    with pytest.raises(error, match=message):
        convert(**(arguments | change))
