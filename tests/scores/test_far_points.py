"""Warnings where a score is asked for far away from the data that it knows, and models in place of scores."""

import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scoregeo import (
    ConformalMetric,
    FunctionScore,
    GaussianScore,
    GraphMetric,
    InverseSteinMetric,
    KernelDensityScore,
    NetworkScore,
    PredictionScore,
    ScoreJacobianMetric,
    StackedSteinMetric,
    SteinMetric,
    VelocityScore,
)
from scoregeo.diffusion import EDM, MLP, VE, VP, Denoiser, Potential, RectifiedFlow
from scoregeo.metrics.conformal import PowerFactor
from scoregeo.scores import LineIntegralScore

DATA = np.random.default_rng(0).normal(size=(200, 2)) * 2 + np.array([5.0, 0.0])
NEAR, FAR = jnp.array([5.0, 1.0]), jnp.array([5.0, 2e4])
WARNING = r"a point is [\d.]+e\+0[34] standard deviations away .* its coordinate 1 is 20000, the mean .*same units"


def kernel():
    return KernelDensityScore(DATA, 0.5)


def network(level=0.5):
    return NetworkScore(Denoiser(Potential(MLP(2, 4, 1, key=jax.random.key(0))), 2.0, jnp.asarray(DATA.mean(0))), level)


@pytest.mark.slow
@pytest.mark.parametrize("make", [kernel, network])
@pytest.mark.parametrize(
    "metric",
    [
        SteinMetric,
        InverseSteinMetric,
        lambda score: StackedSteinMetric([score], [1.0]),
        lambda score: ScoreJacobianMetric(score, 0.5),
        lambda score: GraphMetric(lambda x, score: score(x), score),
        lambda score: GraphMetric(lambda x, score: score(x), score) + SteinMetric(score),
        lambda score: ConformalMetric(lambda x, score: score(x) @ score(x), score),
        lambda score: ConformalMetric(PowerFactor(jnp.ones(()), score, jnp.ones(()), jnp.ones(()))),
        lambda score: ConformalMetric(PowerFactor(jnp.ones(()), LineIntegralScore(score, NEAR), *jnp.ones(2))),
    ],
)
def test_far_points_are_warned_of(make, metric):
    metric = metric(make())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metric.check(NEAR)
        jax.jit(lambda metric, x: metric.check(x))(metric, FAR)  # nothing is known of what is traced
    with pytest.warns(UserWarning, match=WARNING):
        metric.check(FAR)


def noise(x, t):
    return x * t


def predicted(schedule, network=noise, **level):
    return PredictionScore(network, prediction="eps", schedule=schedule, **(level or {"noise_level": 0.3}))


HELD, SUITABLE = "the data that the score knows", "data of a size that suits the schedule"


@pytest.mark.parametrize(
    ("score", "known"),
    [
        (FunctionScore(lambda x, score, weight: weight * score(x), kernel(), 2.0), HELD),
        (predicted(VP(), eqx.Partial(lambda score, x, t: score(x), kernel())), HELD),
        (predicted(VE(0.01, 90.0)), SUITABLE),
        (predicted((jnp.cos, jnp.sin), t=0.5), SUITABLE),
        (VelocityScore(noise, RectifiedFlow(), 0.3), SUITABLE),
        (LineIntegralScore(predicted(EDM()), NEAR), SUITABLE),
    ],
)
def test_scores_made_of_others_and_of_predictions(score, known):
    metric = SteinMetric(score)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metric.check(NEAR)
        metric.check(jnp.array([255.0, -255.0]))  # grey levels as they come
    with pytest.warns(UserWarning, match=rf"deviations away from {known}: its coordinate 1 is 20000, the mean"):
        metric.check(FAR)


@pytest.mark.parametrize(
    "score",
    [
        predicted(VP(), noise_level=100.0),  # so much noise reaches there
        predicted(VE(0.01, 1e4)),  # data in large units, and noise to hide them
        FunctionScore(lambda x, t: -x / t, 2.0),  # of which nothing is known
        GaussianScore(jnp.zeros(2), jnp.eye(2)),  # exact everywhere
        network(level=1e4),  # data with so much noise are everywhere
        KernelDensityScore(DATA * [1.0, 1e4], 0.5),
    ],
)
def test_what_is_no_surprise(score):
    SteinMetric(score).check(FAR)


def test_a_model_is_no_score():
    class Model:
        def score_at(self, sigma):
            return lambda x: -x / sigma**2

    for make in (SteinMetric, InverseSteinMetric, lambda model: StackedSteinMetric([model], [1.0])):
        with pytest.raises(
            TypeError, match=r"got a Model, .* every noise level: choose one with `model.score_at\(sigma"
        ):
            make(Model())
