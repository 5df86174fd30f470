"""Scores from predictions of noise, data, v, score and velocity, against closed forms of Gaussians and mixtures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scoregeo import FunctionScore, GaussianMixtureScore, GaussianScore, PredictionScore, SteinMetric, VelocityScore
from scoregeo.diffusion import EDM, VE, VP, Cosine, GuidedScore, RectifiedFlow, SubVP, convert
from scoregeo.scores import at_noise_level
from scoregeo.scores.base import noise_level_of


def clean(d, kind, dtype=jnp.float64):
    random = np.random.default_rng(d)
    means, factors = random.normal(size=(3, d)), random.normal(size=(3, d, d)) / d**0.5
    covs = factors @ factors.transpose(0, 2, 1) + 0.3 * np.eye(d)
    if kind == "gaussian":
        return GaussianScore(jnp.asarray(means[0], dtype), jnp.asarray(covs[0], dtype))
    parts = np.array([0.5, 0.2, 0.3]), means, covs
    return GaussianMixtureScore(*(jnp.asarray(part, dtype) for part in parts))


def posterior_mean(data, x, alpha, sigma):
    """E[x_0 | alpha x_0 + sigma eps = x] by conditioning each component: no score is used."""
    if isinstance(data, GaussianScore):
        weights, means, covs = np.ones(1), np.asarray(data.mean)[None], np.asarray(data.cov)[None]
    else:
        weights, means, covs = (np.asarray(part) for part in (data.weights, data.means, data.covs))
    total = alpha**2 * covs + sigma**2 * np.eye(x.size)
    away = x - alpha * means
    solved = np.stack([np.linalg.solve(cov, part) for cov, part in zip(total, away, strict=True)])
    logs = np.log(weights) - 0.5 * (np.sum(away * solved, -1) + np.linalg.slogdet(total)[1])
    shares = np.exp(logs - logs.max())
    each = means + alpha * np.einsum("kij,kj->ki", covs, solved)
    return shares @ each / shares.sum()


# Factors of data and noise with their derivatives, in the time of scoregeo: data at 0.
PATHS = {
    "rectified flow": (lambda t: (1 - t, t), lambda t: (-1.0, 1.0), RectifiedFlow()),
    "trigonometric": (
        lambda t: (np.cos(np.pi * t / 2), np.sin(np.pi * t / 2)),
        lambda t: (-np.pi / 2 * np.sin(np.pi * t / 2), np.pi / 2 * np.cos(np.pi * t / 2)),
        (lambda t: jnp.cos(jnp.pi * t / 2), lambda t: jnp.sin(jnp.pi * t / 2)),
    ),
    "variance preserving": (
        lambda t: (np.exp(-2.5 * t**2), np.sqrt(1 - np.exp(-5 * t**2))),
        lambda t: (-5 * t * np.exp(-2.5 * t**2), 5 * t * np.exp(-5 * t**2) / np.sqrt(1 - np.exp(-5 * t**2))),
        # beta(t) = 10 t: the schedule's own formula, with another pair of functions for the derivatives.
        (lambda t: jnp.exp(-2.5 * t**2), lambda t: jnp.sqrt(-jnp.expm1(-5 * t**2))),
    ),
}


def predictions(data, x_t, factors, rates):
    (alpha, sigma), (alpha_rate, sigma_rate) = factors, rates
    x0 = posterior_mean(data, x_t, alpha, sigma)
    eps = (x_t - alpha * x0) / sigma
    return {
        "x0": x0,
        "eps": eps,
        "v": alpha * eps - sigma * x0,
        "score": -eps / sigma,
        "velocity": alpha_rate * x0 + sigma_rate * eps,
    }


def network_of(answers, alpha, points):
    """A network that has learned the ``answers`` at ``alpha`` times the ``points`` by heart."""
    inputs = jnp.asarray(alpha * points)

    def network(x_t, t):
        near = jnp.max(jnp.abs(inputs - x_t), -1) < 1e-6
        return jnp.where(near.any(), jnp.asarray(answers)[jnp.argmax(near)], jnp.nan)

    return network


@pytest.mark.parametrize("data_at", [0, 1])
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("kind", "d"),
    [
        pytest.param("gaussian", 1, marks=pytest.mark.slow),
        ("mixture", 2),
        pytest.param("mixture", 10, marks=pytest.mark.slow),
        ("gaussian", 100),
    ],
)
def test_exact_for_gaussians_and_mixtures(kind, d, path, data_at):
    data, (factors_at, rates_at, schedule) = clean(d, kind), PATHS[path]
    points = np.random.default_rng(1).normal(size=(4, d))
    for t in (0.05, 0.9):
        factors, rates = factors_at(t), rates_at(t)
        alpha, sigma = factors
        expected = jax.vmap(data.noised(1.0, sigma / alpha))(jnp.asarray(points))
        found = [predictions(data, alpha * x, factors, rates) for x in points]
        for prediction in found[0]:
            sign = -1 if prediction == "velocity" and data_at == 1 else 1  # of dx_t/dt, as time runs the other way
            answers = np.stack([sign * one[prediction] for one in found])
            own_time = 1 - t if data_at else t
            network = network_of(answers, alpha, points)
            settings = {"schedule": schedule, "t": own_time, "data_at": data_at}
            score = PredictionScore(network, prediction=prediction, **settings)
            np.testing.assert_allclose(float(score.noise_level), sigma / alpha, rtol=1e-12)
            error = 1e-10 * max(1, float(np.abs(expected).max()))
            np.testing.assert_allclose(jax.vmap(score)(jnp.asarray(points)), expected, atol=error)
            if prediction == "velocity":
                other = VelocityScore(network, schedule, own_time, data_at=data_at)
                np.testing.assert_array_equal(other(points[0]), score(points[0]))


SCHEDULES = [VP(), SubVP(), Cosine(), EDM(), VE(), RectifiedFlow()]


def linear_network(x, t, w):
    return jnp.tanh(x @ w) + t * x


@pytest.mark.slow
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_agrees_with_the_conversions(schedule, dtype):
    """Of any function, not of one that has learned something; the score of x_t is in other units than that of x."""
    w, x = jax.random.normal(jax.random.key(0), (2, 3, 3), dtype)[0], jnp.array([0.3, -1.0, 2.0], dtype)
    level = jnp.asarray(0.7)
    t = schedule.time_at(level)
    alpha = schedule.alpha(t).astype(dtype)
    for prediction in ("eps", "x0", "v", "score", "velocity"):
        score = PredictionScore(linear_network, w, prediction=prediction, schedule=schedule, noise_level=level)
        value = linear_network(alpha * x, t.astype(dtype), w)
        expected = alpha * convert(value, alpha * x, t, schedule, source=prediction, target="score")
        assert score(x).dtype == dtype
        error = 1e-12 if dtype == jnp.float64 else 2e-5
        np.testing.assert_allclose(score(x), expected, rtol=error, atol=error * np.abs(expected).max())


def test_new_times_levels_and_weights_do_not_compile_again():
    traces = 0

    @jax.jit
    def program(score, x):
        nonlocal traces
        traces += 1
        return score(x)

    @jax.jit
    def made_inside(w, level, x):
        return PredictionScore(linear_network, w, prediction="v", schedule=VP(), noise_level=level)(x)

    x = jnp.array([1.0, 2.0])
    for k in (1.0, 2.0):
        w, level = k * jnp.eye(2), 0.3 * k
        score = PredictionScore(linear_network, w, prediction="v", schedule=VP(), noise_level=level)
        np.testing.assert_allclose(program(score, x), made_inside(w, level, x), rtol=1e-12)
        np.testing.assert_allclose(program(at_noise_level(score, 0.5), x), at_noise_level(score, 0.5)(x), rtol=1e-12)
    assert traces == 1
    by_level = jax.grad(lambda level: made_inside(jnp.eye(2), level, x)[0])(0.5)
    difference = (made_inside(jnp.eye(2), 0.5 + 1e-5, x)[0] - made_inside(jnp.eye(2), 0.5 - 1e-5, x)[0]) / 2e-5
    np.testing.assert_allclose(by_level, difference, rtol=1e-7)


def test_knows_its_noise_level():
    data = clean(2, "mixture")
    velocity = lambda x, t: convert(  # noqa: E731
        data.noised(1 - t, t)(x), x, t, RectifiedFlow(), source="score", target="velocity"
    )
    score = VelocityScore(velocity, RectifiedFlow(), 0.2)
    np.testing.assert_allclose(float(noise_level_of(score, None)), 0.25)
    x = jnp.array([0.3, 0.4])
    for level in (0.1, 1.0):
        np.testing.assert_allclose(at_noise_level(score, level)(x), at_noise_level(data, level)(x), rtol=1e-10)
    pair = VelocityScore(velocity, (lambda t: 1 - t, lambda t: t), 0.2)
    np.testing.assert_array_equal(pair(x), score(x))
    with pytest.raises(TypeError, match="a pair of functions has none: give `t`"):
        at_noise_level(pair, 0.1)


def test_steps_of_ddpm():
    """Integer steps and a table of products of 1 - beta, in the time that such a network knows; images, in float32."""
    table = jnp.cumprod(1 - jnp.linspace(1e-4, 0.02, 1000))
    seen = []

    def network(x, t):
        seen.append((x.shape, x.dtype, t.dtype))
        return x * jnp.sqrt(1 - table[t.astype(int)]).astype(x.dtype)  # E[eps | x_t] of data N(0, I)

    path = lambda t: jnp.sqrt(table[t.astype(int)]), lambda t: jnp.sqrt(1 - table[t.astype(int)])
    score = PredictionScore(network, prediction="eps", schedule=path, t=200, shape=(2, 2, 1), conservative=True)
    x, level = jnp.arange(4.0, dtype=jnp.float32), float(jnp.sqrt(1 / table[200] - 1))
    np.testing.assert_allclose(score(x), -x / (1 + level**2), rtol=1e-6)
    assert seen[0] == ((2, 2, 1), jnp.float32, jnp.float32)
    assert score.conservative
    assert SteinMetric(score).score is score


def test_half_precision_inside_of_a_network():
    """The network is called in bfloat16; what it returns in float32 keeps its digits."""
    fine = jnp.float32(1.001)
    score = PredictionScore(lambda x, t: fine * x.astype(jnp.float32), dtype=jnp.bfloat16, **GOOD)
    x = jnp.ones(1, jnp.float32)
    rounded = (score.signal.astype(jnp.float32) * x).astype(jnp.bfloat16).astype(jnp.float32)
    np.testing.assert_allclose(score(x), score.gain * fine * rounded, rtol=1e-6)
    assert score(x).dtype == jnp.float32


def test_guidance():
    """The conditional noise beyond the unconditional one, in a function of five lines and as `GuidedScore` has it."""
    schedule, x = VP(), jnp.array([0.5, -1.0])

    def network(x, t, label):
        return x * schedule.sigma(t) + label

    def guided(x, t, label, weight):
        plain = network(x, t, 0.0)
        return plain + weight * (network(x, t, label) - plain)

    score = PredictionScore(guided, 2.0, 3.0, prediction="eps", schedule=schedule, noise_level=0.5)
    parts = [lambda x, t, label=label: -network(x, t, label) / schedule.sigma(t) for label in (2.0, 0.0)]
    other = GuidedScore(*parts, 3.0)
    other = PredictionScore(other, prediction="score", schedule=schedule, noise_level=0.5)
    np.testing.assert_allclose(score(x), other(x), rtol=1e-12)


def test_linen_and_equinox_networks():
    import equinox as eqx
    from flax import linen

    x, settings = jnp.array([0.5, -1.0]), {"prediction": "eps", "schedule": VP(), "noise_level": 0.5}

    class Net(linen.Module):
        @linen.compact
        def __call__(self, x, t):
            return linen.Dense(2)(x) * t

    net = Net()
    variables = net.init(jax.random.key(0), x, 0.5)
    expected = PredictionScore(lambda x, t: net.apply(variables, x, t), **settings)(x)
    np.testing.assert_array_equal(PredictionScore(net.apply, variables, **settings)(x), expected)
    np.testing.assert_array_equal(PredictionScore(net.bind(variables), **settings)(x), expected)

    layer = eqx.nn.Linear(2, 2, key=jax.random.key(0))
    found = PredictionScore(lambda x, t, layer: layer(x) * t, layer, **settings)(x)
    t = VP().time_at(0.5)
    np.testing.assert_allclose(found, -layer(VP().alpha(t) * x) * t / 0.5, rtol=1e-12)


TRIGONOMETRIC = PATHS["trigonometric"][2]


@pytest.mark.parametrize("schedule", [RectifiedFlow(), TRIGONOMETRIC])
@pytest.mark.parametrize(("t", "what"), [(0.0, "noise"), (1.0, "data"), (-0.1, "noise"), (1.1, "data")])
@pytest.mark.parametrize("data_at", [0, 1])
def test_there_is_no_score_at_the_ends(schedule, t, what, data_at):
    t = 1 - t if data_at else t
    with pytest.raises(ValueError, match=rf"no score at `t` = .*: the factor of the {what} in x_t"):
        VelocityScore(lambda x, t: x, schedule, t, data_at=data_at)
    traced = jax.jit(lambda t: VelocityScore(lambda x, t: x, schedule, t, data_at=data_at)(jnp.ones(1)))(t)
    assert schedule is TRIGONOMETRIC or not np.isfinite(traced).all()


GOOD = {"prediction": "eps", "schedule": VP(), "t": 0.5}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"prediction": "noise"}, ValueError, "`prediction` must be one of eps, x0, v, score, velocity, got 'noise'"),
        ({"schedule": None}, TypeError, r"`schedule` must be a schedule such as .* got None"),
        ({"schedule": (1.0, 2.0)}, TypeError, "pair of functions"),
        ({"t": None}, ValueError, "give either `t` or `noise_level`, got t=None and noise_level=None"),
        ({"noise_level": 0.5}, ValueError, "give either `t` or `noise_level`"),
        ({"t": None, "noise_level": 1e3}, ValueError, "`noise_level` must be one of the schedule's, from .* got 1000"),
        ({"t": None, "noise_level": 0.5, "schedule": TRIGONOMETRIC}, TypeError, "has none: give `t`"),
        ({"t": jnp.ones(2)}, ValueError, r"`t` must be a scalar, got shape \(2,\)"),
        ({"t": jnp.nan}, ValueError, "`t` must be finite"),
        ({"data_at": 2}, ValueError, "`data_at` must be one of 0, 1, got 2"),
        ({"schedule": (lambda t: jnp.ones(2), jnp.sin)}, ValueError, r"must give scalars .* got \(2,\)"),
        (
            {"prediction": "velocity", "schedule": (lambda t: 1 + 0 * t, lambda t: 1 + 0 * t)},
            ValueError,
            "the ratio of noise and data does not change there",
        ),
        ({"shape": (0,)}, ValueError, "`shape` must be a tuple of positive integers"),
        ({"dtype": int}, TypeError, "`dtype` must be a floating-point type"),
    ],
)
def test_what_is_refused(change, error, message):
    with pytest.raises(error, match=message):
        PredictionScore(lambda x, t: x, **GOOD | change)


def test_a_tuple_from_the_network_is_explained():
    with pytest.raises(TypeError, match="got a tuple of 2"):
        PredictionScore(lambda x, t: (x, x), **GOOD)(jnp.ones(2))


def test_of_the_scaled_point_or_of_the_data():
    """A score network in its own variable and one in that of the data are the same score in other units."""
    schedule, t = VP(), jnp.asarray(0.4)
    data = clean(2, "mixture")
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    of_x_t = FunctionScore(data.noised(alpha, sigma))
    score = PredictionScore(lambda x, t: of_x_t(x), prediction="score", schedule=schedule, t=t)
    x = jnp.array([0.2, 0.3])
    np.testing.assert_allclose(score(x), alpha * of_x_t(alpha * x), rtol=1e-12)
    np.testing.assert_allclose(score(x), data.noised(1.0, sigma / alpha)(x), rtol=1e-10)
