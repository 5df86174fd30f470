"""The picture of the intrinsic dimension over noise levels."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from scoregeo.manifold import knee
from scoregeo.plotting import dimension_curve

LEVELS = np.geomspace(0.01, 1.0, 7)
FALLING = 2 + 6 / (1 + (LEVELS / 0.02) ** 2)


@pytest.fixture
def ax():
    return Figure().subplots()


def texts(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_one_point(ax):
    artists = dimension_curve(ax, LEVELS, FALLING, truth=2, color="black")
    np.testing.assert_array_equal(artists.curve.get_xydata(), np.stack([LEVELS, FALLING], 1))
    assert artists.curve.get_color() == "black"
    assert artists.band is None
    np.testing.assert_allclose(artists.knee.get_xdata(), knee(LEVELS, FALLING))
    np.testing.assert_allclose(artists.truth.get_ydata(), 2)
    assert ax.get_xscale() == "log"
    assert ax.get_ylabel() == "intrinsic dimension"
    assert {"dimension", "true: 2"} < set(texts(ax))
    assert any("knee: 2" in text for text in texts(ax))


def test_many_points(ax):
    spread = FALLING + np.linspace(-1, 1, 21)[:, None]
    artists = dimension_curve(ax, LEVELS, spread)
    np.testing.assert_allclose(artists.curve.get_ydata(), FALLING)
    (outline,) = artists.band.get_paths()
    np.testing.assert_allclose(outline.vertices[:, 1].max(), FALLING.max() + 0.8)
    assert artists.truth is None
    assert "median dimension" in texts(ax)


def test_no_knee(ax):
    assert dimension_curve(ax, LEVELS, np.full(7, 2.0)).knee is None
    assert dimension_curve(ax, LEVELS, FALLING, knee=False).knee is None


@pytest.mark.parametrize(
    ("dimensions", "message"),
    [
        (np.ones(6), r"`dimensions` must have shape \(7,\) or \(p, 7\), got \(6,\)"),
        (np.ones((0, 7)), r"`dimensions` must have shape"),
        (np.full(7, np.nan), "`dimensions` must be finite"),
    ],
)
def test_wrong_dimensions(ax, dimensions, message):
    with pytest.raises(ValueError, match=message):
        dimension_curve(ax, LEVELS, dimensions)
