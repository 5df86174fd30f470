"""Pictures of statistics: labelled points, and shares of variance."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from scoregeo.plotting import explained_variance, labelled_points

POINTS = np.random.default_rng(0).normal(size=(20, 2))


@pytest.fixture
def ax():
    return Figure().subplots()


def test_labels_have_colours_and_then_shapes(ax):
    artists = labelled_points(ax, POINTS, np.arange(20) % 10, marked={"centers": POINTS[:3]}, s=5)
    assert list(artists.points) == list(range(10))
    np.testing.assert_array_equal(artists.points[3].get_offsets(), POINTS[3::10])
    looks = {(tuple(a.get_facecolor()[0]), len(a.get_paths()[0].vertices)) for a in artists.points.values()}
    assert len(looks) == 10
    np.testing.assert_array_equal(artists.marked["centers"].get_offsets(), POINTS[:3])
    assert ax.get_xlabel() == "$x_1$"


def test_without_labels_there_is_no_legend(ax):
    assert list(labelled_points(ax, POINTS).points) == [0]
    assert ax.get_legend() is None


def test_explained_variance(ax):
    bars = explained_variance(ax, [0.6, 0.3])
    np.testing.assert_allclose([bar.get_height() for bar in bars], [60, 30])
    assert [text.get_text() for text in ax.texts] == ["60%", "90%"]


def test_refused(ax):
    for points, labels, message in (
        (POINTS[:, :1], None, r"`points` must have shape \(n, 2\), got \(20, 1\)"),
        (POINTS, [1, 2], r"`labels` must have shape \(20,\)"),
        (POINTS * np.nan, None, "`points` must be finite"),
    ):
        with pytest.raises(ValueError, match=message):
            labelled_points(ax, points, labels)
    with pytest.raises(ValueError, match=r"`marked\['mean'\]` must have shape"):
        labelled_points(ax, POINTS, marked={"mean": [1.0, 2.0, 3.0]})
    with pytest.raises(ValueError, match="`ratios` must be numbers from 0 to 1"):
        explained_variance(ax, [1.5])
