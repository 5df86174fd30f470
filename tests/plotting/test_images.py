import io

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from scoregeo.plotting import image_strip, mean_images


@pytest.fixture
def ax():
    return Figure().subplots()


def random_paths(n, d):
    random = np.random.default_rng(0)
    return {"geodesic": random.uniform(size=(n, d)), "straight line": random.uniform(size=(n, d))}


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 1)])
def test_mosaic_of_grey_images(ax, shape):
    paths = random_paths(5, 12)
    artist = image_strip(ax, paths, shape)
    mosaic = artist.get_array()
    assert mosaic.shape == (2 * 4 + 1, 5 * 3 + 4)
    for row, points in enumerate(paths.values()):
        for column in range(5):
            tile = mosaic[row * 5 : row * 5 + 4, column * 4 : column * 4 + 3]
            np.testing.assert_array_equal(tile, points[column].reshape(4, 3))
    # The gaps, and nothing else, are empty.
    assert mosaic.mask.sum() == mosaic.size - 2 * 5 * 12
    assert mosaic.mask[4].all()
    assert mosaic.mask[:, 3].all()
    values = np.stack(list(paths.values()))
    assert artist.get_clim() == (values.min(), values.max())
    ax.figure.savefig(io.BytesIO(), format="png")


def test_mosaic_of_colour_images(ax):
    paths = {"only": np.stack([np.full(12, -1.0), np.arange(12.0)])}
    mosaic = image_strip(ax, paths, (2, 2, 3)).get_array()
    assert mosaic.shape == (2, 5, 3)
    np.testing.assert_allclose(mosaic[:, :2], 0)
    np.testing.assert_allclose(mosaic[:, 2], 1)
    np.testing.assert_allclose(mosaic[:, 3:], (np.arange(12.0).reshape(2, 2, 3) + 1) / 12)
    ax.figure.savefig(io.BytesIO(), format="png")


def test_rows_and_times_are_labelled(ax):
    image_strip(ax, random_paths(9, 12), (4, 3))
    assert [text.get_text() for text in ax.get_yticklabels()] == ["geodesic", "straight line"]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["0", "0.25", "0.5", "0.75", "1"]
    np.testing.assert_allclose(ax.get_yticks(), [1.5, 6.5])
    np.testing.assert_allclose(ax.get_xticks()[:2], [1, 9])
    assert ax.get_xlabel() == "$t$"


def test_times_limits_and_style(ax):
    artist = image_strip(ax, random_paths(2, 12), (4, 3), ts=[0.1, 0.9], limits=(0, 16), cmap="magma")
    assert [text.get_text() for text in ax.get_xticklabels()] == ["0.1", "0.9"]
    assert artist.get_clim() == (0, 16)
    assert artist.get_cmap().name == "magma"


def test_constant_images_are_drawn(ax):
    """Without limits, all colours of one value are at the low end, and no division by zero reaches the renderer."""
    artist = image_strip(ax, {"flat": np.ones((2, 12))}, (2, 2, 3))
    mosaic = artist.get_array()
    assert mosaic.shape == (2, 5, 3)
    np.testing.assert_array_equal(mosaic[:, [0, 1, 3, 4]], 0)
    np.testing.assert_array_equal(mosaic[:, 2], 1)
    canvas = FigureCanvasAgg(ax.figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    assert (pixels == 0).all(axis=-1).mean() > 0.1, "the black images are not on the canvas"


@pytest.mark.parametrize(
    ("paths", "shape", "options", "message"),
    [
        ({}, (2, 2), {}, "`paths` must hold at least one path"),
        (
            {"a": np.ones((3, 5))},
            (2, 2),
            {},
            r"`paths\['a'\]` must have shape \(3, 4\) for images \(2, 2\), got \(3, 5\)",
        ),
        ({"a": np.ones(4)}, (2, 2), {}, r"`paths\['a'\]` must have shape \(4, 4\) .*, got \(4,\)"),
        ({"a": np.ones((0, 4))}, (2, 2), {}, r"`paths\['a'\]` must have shape \('n', 4\)"),
        ({"a": np.ones((3, 4)), "b": np.ones((2, 4))}, (2, 2), {}, r"`paths\['b'\]` must have shape \(3, 4\)"),
        ({"a": np.full((3, 4), np.nan)}, (2, 2), {}, r"`paths\['a'\]` must be finite"),
        ({"a": np.ones((3, 4))}, (4,), {}, "`image_shape` must be"),
        ({"a": np.ones((3, 8))}, (2, 2, 2), {}, "`image_shape` must be .* with 1, 3 or 4 channels"),
        ({"a": np.ones((3, 4))}, (2, 2), {"ts": [0, 1]}, r"`ts` must have shape \(3,\)"),
        ({"a": np.ones((3, 4))}, (2, 2), {"limits": (1, 1)}, "`limits` must be"),
    ],
)
def test_image_strip_refuses(ax, paths, shape, options, message):
    with pytest.raises(ValueError, match=message):
        image_strip(ax, paths, shape, **options)


def test_axes_come_first():
    with pytest.raises(TypeError, match="`ax` must be a matplotlib Axes"):
        image_strip({}, Figure().subplots(), (2, 2))


@pytest.mark.parametrize("channels", [(), (3,)])
def test_means_below_a_row_of_images(ax, channels):
    """Every image is in the row, and every mean below it, three times as large, under its name."""
    random = np.random.default_rng(0)
    shape = (4, 3, *channels)
    images, means = random.uniform(size=(7, np.prod(shape))), random.uniform(size=(2, np.prod(shape)))
    mosaic = mean_images(ax, images, dict(zip("ab", means, strict=True)), shape, limits=(0, 1)).get_array()
    assert mosaic.shape == (4 + 1 + 3 * 4, 7 * 3 + 6, *channels)
    for i, image in enumerate(images):
        np.testing.assert_allclose(mosaic[:4, 4 * i : 4 * i + 3], image.reshape(shape))
    for middle, mean in zip(ax.get_xticks(), means, strict=True):
        left = round(middle + 0.5 - 4.5)
        np.testing.assert_allclose(mosaic[5::3, left : left + 9 : 3], mean.reshape(shape))
        np.testing.assert_allclose(mosaic[7::3, left + 2 : left + 9 : 3], mean.reshape(shape))
    assert [text.get_text() for text in ax.get_xticklabels()] == ["a", "b"]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["data", "means"]


@pytest.mark.parametrize(
    ("images", "means", "message"),
    [
        (np.ones((3, 5)), {"a": np.ones(4)}, r"`images` must have shape \(n, 4\) .*, got \(3, 5\) and 1"),
        (np.ones((1, 4)), {"a": np.ones(4), "b": np.ones(4)}, r"`means` 1 to n of them, got \(1, 4\) and 2"),
        (np.ones((3, 4)), {"a": np.ones((1, 4))}, r"`means\['a'\]` must have shape \(4,\), got \(1, 4\)"),
        (np.ones((3, 4)), {"a": np.full(4, np.nan)}, "`images` and `means` must be finite"),
    ],
)
def test_mean_images_refuses(ax, images, means, message):
    with pytest.raises(ValueError, match=message):
        mean_images(ax, images, means, (2, 2))
