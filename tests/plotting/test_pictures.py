"""Whole figures of geodesics on data."""

import numpy as np
import pytest

from scoregeo import geodesic
from scoregeo.datasets import Dataset
from scoregeo.metrics import SteinMetric
from scoregeo.plotting import pictures
from scoregeo.scores import GaussianScore


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dim", "image_shape", "name"), [(4, (2, 2), "strips"), (2, None, "metric"), (3, None, "projection")]
)
def test_picture_suits_the_data(dim, image_shape, name):
    points = np.random.default_rng(0).normal(size=(20, dim))
    metric = SteinMetric(GaussianScore(np.zeros(dim), np.eye(dim)), 0.0)
    path = geodesic(metric, points[0], points[1])
    found, figure = pictures.suitable(
        Dataset(points, "normal", image_shape=image_shape), metric, {"Stein": [path], "again": [path]}
    )
    assert found == name
    # Beside the strip and beside the plane, log p along the paths; a projection stands alone.
    titles = [ax.get_title() for ax in figure.axes]
    assert len(titles) == (1 if name == "projection" else 2)
    assert ("$\\log p$ along the paths" in titles) == (name != "projection")


@pytest.mark.slow
def test_distance_to_the_truth():
    """A straight line in the metric of Euclid: its distance to a curve that is known."""
    points = np.random.default_rng(0).normal(size=(20, 4))
    metric = SteinMetric(GaussianScore(np.zeros(4), np.eye(4)), 0.0)
    path = geodesic(metric, points[0], points[1])
    line = lambda ts: points[0] + ts[:, None] * (points[1] - points[0])  # noqa: E731
    away = np.array([1.0, 0.0, 0.0, 0.0])
    figure = pictures.strips(
        Dataset(points, "normal", image_shape=(2, 2)),
        metric,
        {"Stein": [path]},
        lambda i, ts: line(ts) + np.sin(np.pi * ts)[:, None] * away,
    )
    strip, profile = figure.axes
    assert [label.get_text() for label in strip.get_yticklabels()] == ["Stein", "straight line", "the truth"]
    for curve in profile.get_lines():
        ts, distances = curve.get_data()
        np.testing.assert_allclose(distances, np.sin(np.pi * ts), atol=1e-6)
