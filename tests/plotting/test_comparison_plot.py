"""Pictures of comparisons: what is drawn is what was found."""

import io

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

from scoregeo.comparison import compare
from scoregeo.fisher_rao import Normal
from scoregeo.plotting.comparison import comparison_figure, correlation_matrix, distance_scatter, half_plane


def norm(order):
    return lambda x, y: jnp.linalg.norm(x - y, order)


@pytest.fixture(scope="module")
def comparison():
    """Three norms and one distance that fails for one point and is constant otherwise."""
    xs = np.random.default_rng(0).normal(size=(8, 2))
    xs[0] = 10.0
    constant = lambda x, y: jnp.where(x[0] > 9, jnp.nan, 1.0)  # noqa: E731
    return compare(xs, metrics={"one": norm(1), "two": norm(2), "most": norm(jnp.inf), "same": constant}, resamples=50)


@pytest.fixture(scope="module")
def laws():
    family = Normal()
    ends = [(family.pack(m, 0.5), family.pack(m + 2.0, 0.8)) for m in (-1.0, 0.5)]
    return [family.geodesic(a, b) for a, b in ends]


@pytest.fixture
def ax():
    return Figure().subplots()


@pytest.mark.slow
def test_half_plane(ax, laws):
    artists = half_plane(ax, laws)
    ends = np.array([[-1.0, 0.5], [1.0, 0.8], [0.5, 0.5], [2.5, 0.8]])
    np.testing.assert_allclose(artists.ends.get_offsets(), ends, atol=1e-6)
    for (mean, sd), curve in zip(ends[::2], artists.curves.get_segments(), strict=True):
        # Half an ellipse about a point of the boundary, twice as high in mean^2 as in sd^2.
        a, b = curve[0], curve[-1]
        centre = (a[0] ** 2 - b[0] ** 2 + 2 * (a[1] ** 2 - b[1] ** 2)) / (2 * (a[0] - b[0]))
        radii = (curve[:, 0] - centre) ** 2 + 2 * curve[:, 1] ** 2
        np.testing.assert_allclose(radii, radii[0], rtol=1e-5)
        np.testing.assert_allclose(curve[0], [mean, sd], atol=1e-6)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("mean", "standard deviation")
    assert ax.get_ylim()[0] < 0 < ax.get_ylim()[1]
    assert ax.get_aspect() == 1


@pytest.mark.slow
def test_half_plane_without_distributions(ax):
    below = Normal().geodesic(jnp.array([0.0, 1.0]), jnp.array([1.0, 1.0]))
    points = type(below)(**{**vars(below), "curve": None, "points": below.points - jnp.array([0.0, 2.0])})
    with pytest.raises(ValueError, match="must have positive standard deviations, got a smallest one of -1"):
        half_plane(ax, points)
    nothing = type(below)(**{**vars(below), "curve": None, "points": below.points * jnp.nan})
    with pytest.raises(ValueError, match="must have finite points"):
        half_plane(ax, nothing)
    assert not ax.collections
    assert not ax.get_xlabel()


def test_scatter_has_the_complete_pairs(ax, comparison):
    dots = distance_scatter(ax, comparison, "two", "one")
    known = comparison.complete
    assert known.sum() == 21
    expected = np.stack([comparison.table["two"][known], comparison.table["one"][known]], -1)
    np.testing.assert_array_equal(dots.get_offsets(), expected)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("two", "one")
    assert ax.get_xlim()[0] == ax.get_ylim()[0] == 0
    assert f"{comparison.spearman.values[0, 1]:.2f} [" in ax.get_title()


@pytest.mark.parametrize("rank", [True, False])
def test_matrix_has_each_pair_once(ax, comparison, rank):
    image = correlation_matrix(ax, comparison, rank=rank)
    found = comparison.spearman if rank else comparison.pearson
    shown = image.get_array()
    assert image.get_clim() == (-1, 1)
    np.testing.assert_array_equal(shown.mask, [[False, True, True], [False, False, True], [True, True, True]])
    np.testing.assert_array_equal(shown.compressed(), found.values[[1, 2, 2], [0, 0, 1]])
    rows = [text.get_text() for text in ax.get_yticklabels()]
    columns = [text.get_text() for text in ax.get_xticklabels()]
    assert (columns, rows) == (["one", "two", "most"], ["two", "most", "same"])
    texts = {text.get_position(): text.get_text() for text in ax.texts}
    assert texts[0, 1] == f"{found.values[2, 0]:.2f}\n[{found.low[2, 0]:.2f}, {found.high[2, 0]:.2f}]"
    assert texts[1, 2] == "not defined"


@pytest.mark.slow
def test_figure(comparison, laws):
    paths = [law.reverse() for law in laws]
    figure = comparison_figure(
        comparison,
        paths=paths,
        log_prob=lambda x: -x @ x,
        points=np.zeros((3, 2)),
        distributions=laws,
        scatter=("one", "most"),
    )
    axes = {ax.get_label(): ax for ax in figure.axes}
    assert set(axes) == {"data", "laws", "scatter", "matrix"}
    curves = [ax.collections for ax in (axes["data"], axes["laws"])]
    colors = [next(c for c in group if len(c.get_edgecolors()) == 2).get_edgecolors() for group in curves]
    np.testing.assert_array_equal(*colors)  # the same pair has the same colour in both spaces
    assert axes["data"].get_title() == "data, geodesics"
    assert axes["scatter"].get_ylabel() == "most"
    figure.savefig(io.BytesIO(), format="png")
    assert {ax.get_label() for ax in comparison_figure(comparison).axes} == {"scatter", "matrix"}


def test_bad_arguments(ax, comparison):
    with pytest.raises(TypeError, match="`comparison` must be a Comparison, as of `compare`, got int"):
        correlation_matrix(ax, 3)
    with pytest.raises(ValueError, match="`comparison` has the distances one, two, most, same, not 'three'"):
        distance_scatter(ax, comparison, "one", "three")
    with pytest.raises(TypeError, match="`ax`"):
        half_plane(None, [])
