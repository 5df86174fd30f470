"""A figure of one geodesic says what is true of it; paths that failed look it; surfaces, matrices, films."""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from scoregeo import RESULTS, EuclideanMetric, GaussianScore, SteinMetric, shoot
from scoregeo.plotting import (
    distance_matrix,
    explain,
    geodesics,
    graph_surface,
    leaf_order,
    thumbnails,
    write_animation,
)


def gaussian(d):
    return SteinMetric(GaussianScore(jnp.zeros(d), jnp.eye(d)))


@pytest.mark.slow
@pytest.mark.parametrize("d", [2, 12])
def test_explain(d, tmp_path):
    metric, x = gaussian(d), jnp.linspace(-1.0, 1.0, d)
    path = shoot(metric, x, jnp.ones(d))
    figure = explain(metric, path)
    words = "\n".join(text.get_text() for ax in figure.axes for text in ax.texts)
    assert "converged" in words
    assert f"{float(path.length):.6g}" in words
    # log p along the path, by the closed form.
    heights = figure.axes[2].lines[0].get_ydata()
    end = path.points[-1]
    np.testing.assert_allclose(heights[-1], (x @ x - end @ end) / 2, rtol=1e-3)
    assert np.ptp(figure.axes[3].lines[0].get_ydata()) < 1e-3
    if d > 2:
        assert "8 of 12" in figure.axes[0].get_title()
    figure.savefig(tmp_path / "figure.png")


@pytest.mark.slow
def test_explain_images_and_a_metric_without_a_score():
    path = shoot(EuclideanMetric(), jnp.zeros(12), jnp.ones(12))
    figure = explain(EuclideanMetric(), path, image_shape=(3, 4), check=False)
    assert figure.axes[0].images
    assert "no `score`" in figure.axes[2].texts[0].get_text()


def test_explain_refuses_batches_and_nan():
    path = shoot(EuclideanMetric(), jnp.zeros(2), jnp.ones(2))
    with pytest.raises(ValueError, match=r"`path` must be one geodesic, got a batch of shape \(1,\)"):
        explain(EuclideanMetric(), eqx.tree_at(lambda p: p.points, path, path.points[None]))
    with pytest.raises(ValueError, match="`path` must have finite points"):
        explain(EuclideanMetric(), dataclasses.replace(path, points=path.points * jnp.nan))


def test_a_path_that_failed_looks_like_it():
    path = shoot(EuclideanMetric(), jnp.zeros(2), jnp.ones(2))
    failed = dataclasses.replace(path, result=RESULTS.stalled)
    ax = Figure().subplots()
    artists = geodesics(ax, [path, failed])
    assert (len(artists.curves.get_segments()), len(artists.failed.get_segments())) == (1, 1)
    assert [text.get_text() for text in ax.legend().get_texts()] == ["not converged", "geodesic", "straight line"]
    assert geodesics(ax, path).failed is None


def test_surface():
    metric = gaussian(2)
    path = shoot(metric, jnp.array([1.0, 0.0]), jnp.array([-1.0, 1.0]))
    ax = Figure().add_subplot(projection="3d")
    artists = graph_surface(ax, metric.score.log_prob, 4.0, (-2, 2), (-2, 2), paths=path, resolution=20)
    (curve,) = artists.curves._segments3d
    np.testing.assert_allclose(curve[0, 2], 2 * -0.5, atol=0.03)  # sqrt(4) log p, from a top that a grid point misses
    with pytest.raises(TypeError, match="three dimensions"):
        graph_surface(Figure().subplots(), metric.score.log_prob, 1.0, (-2, 2), (-2, 2))
    with pytest.raises(ValueError, match="`strength` must be a non-negative number"):
        graph_surface(ax, metric.score.log_prob, -1.0, (-2, 2), (-2, 2))


def test_matrices():
    rng = np.random.default_rng(0)
    places = np.concatenate([rng.normal(size=20), 50 + rng.normal(size=20)])[rng.permutation(40)]
    matrix = np.abs(places[:, None] - places)
    order = leaf_order(matrix)
    assert sorted(order) == list(range(40))
    # The two groups are apart: one change between them.
    assert np.abs(np.diff((places[order] > 25).astype(int))).sum() == 1
    artist = distance_matrix(Figure().subplots(), matrix)
    np.testing.assert_allclose(artist.get_array(), matrix[np.ix_(order, order)])
    with pytest.raises(ValueError, match="`distances` must be finite, but 1 of 4 are not"):
        distance_matrix(Figure().subplots(), [[0.0, np.nan], [1.0, 0.0]])
    with pytest.raises(ValueError, match="`labels` must have one entry for each of the 40 points, got 2"):
        distance_matrix(Figure().subplots(), matrix, labels="ab")


def test_thumbnails(tmp_path):
    ax = Figure().subplots()
    boxes = thumbnails(ax, [[0.0, 0.0], [5.0, 1.0]], np.arange(32.0).reshape(2, 16), (4, 4, 1))
    assert len(boxes) == 2
    assert ax.get_xlim()[1] > 5
    # All images have one scale.
    assert {box.offsetbox.image.get_clim() for box in boxes} == {(0.0, 1.0)}
    ax.figure.savefig(tmp_path / "map.png")
    with pytest.raises(ValueError, match=r"`images` must have shape \(2, 16\) for images \(4, 4\), got \(2, 9\)"):
        thumbnails(ax, [[0.0, 0.0], [5.0, 1.0]], np.zeros((2, 9)), (4, 4))


def test_animation(tmp_path):
    def draw(figure, radius):
        figure.subplots().plot([0, radius])

    path = write_animation(tmp_path / "grow.gif", draw, [1.0, 2.0, 3.0], figsize=(2, 1))
    with Image.open(path) as film:
        assert film.n_frames == 3
    assert [file.name for file in tmp_path.iterdir()] == ["grow.gif"]
    with pytest.raises(ValueError, match=r"`path` must end in \.gif or \.mp4, got grow.webp"):
        write_animation(tmp_path / "grow.webp", draw, [1.0])
    with pytest.raises(ZeroDivisionError):
        write_animation(tmp_path / "other.gif", lambda figure, value: 1 / value, [1.0, 0.0])
    with pytest.raises(ZeroDivisionError):
        write_animation(tmp_path / "other.gif", lambda figure, value: 1 / value, [0.0])
    # What was begun is gone.
    assert [file.name for file in tmp_path.iterdir()] == ["grow.gif"]
