"""Pictures say where log p is a matter of the path that is integrated along."""

import functools
import warnings

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

from scoregeo import FunctionScore, GaussianScore, SteinMetric, geodesic
from scoregeo.datasets import Dataset
from scoregeo.plotting import density, pictures
from scoregeo.scores import LineIntegralScore

POINTS = np.random.default_rng(0).normal(size=(20, 2))
TURN = jnp.array([[0.0, 1.0], [-1.0, 0.0]])


def turning(curl):
    return FunctionScore(lambda x, curl: curl * (TURN @ x) - x, curl)


def draw_density(score):
    density(Figure().subplots(), LineIntegralScore(score, jnp.zeros(2)).log_prob, (-3, 3), (-3, 3), resolution=20)


def draw_plane(score):
    paths = {"Stein": [round_the_mean()], "again": [round_the_mean()]}
    return pictures.plane(Dataset(POINTS, "normal"), SteinMetric(score), paths)


@functools.cache
def round_the_mean():
    """A path that is bent. It need not be a geodesic of the metric that is drawn."""
    metric = SteinMetric(GaussianScore(jnp.zeros(2), jnp.eye(2)), 5.0)
    return geodesic(metric, jnp.array([-1.0, 0.5]), jnp.array([1.0, 0.7]))


@pytest.mark.slow
@pytest.mark.parametrize("draw", [draw_density, draw_plane])
def test_curl_is_warned_of_once(draw):
    with pytest.warns(UserWarning, match=r"log p depends on the path.* [\d.]+ nats") as caught:
        draw(turning(0.5))
    assert len(caught) == 1


@pytest.mark.slow
@pytest.mark.parametrize("draw", [draw_density, draw_plane])
def test_what_no_picture_shows(draw):
    """No curl, and a little of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for score in (turning(0.0), turning(0.001)):
            draw(score)


def test_spread_is_the_one_of_the_formula():
    """From base b, log p(x) - log p(b) has the part curl x^T TURN^T b = -curl (x_1 b_2 - x_2 b_1) of the rotation."""
    score, bases = LineIntegralScore(turning(0.5), jnp.zeros(2)), POINTS[:3]
    expected = 0.5 * (POINTS[:, None, 0] * bases[:, 1] - POINTS[:, None, 1] * bases[:, 0])
    expected = np.std(expected - expected.mean(0), axis=1)
    np.testing.assert_allclose(score.spread(POINTS, bases), expected, rtol=1e-9)
