import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

from scoregeo._results import RESULTS
from scoregeo.geodesics import Geodesic, PiecewisePolynomial
from scoregeo.plotting import geodesics


class Arc:
    """The least that a geodesic is: samples, and a way to evaluate in between."""

    ts = jnp.linspace(0.0, 1.0, 3)

    def __init__(self, dim=2, fill=0.0):
        self.dim, self.fill = dim, fill
        self.points = self.evaluate(self.ts)

    def evaluate(self, t):
        t = jnp.asarray(t)
        columns = [jnp.cos(jnp.pi * t), jnp.sin(jnp.pi * t)] + [t] * (self.dim - 2)
        return jnp.stack(columns, -1) + self.fill


@pytest.fixture
def ax():
    return Figure().subplots()


def test_one_geodesic(ax):
    artists = geodesics(ax, Arc())
    (curve,), (chord,) = artists.curves.get_segments(), artists.straight.get_segments()
    assert len(curve) == 200
    np.testing.assert_allclose(np.linalg.norm(curve, axis=-1), 1, rtol=1e-6)
    np.testing.assert_allclose(chord, [[1, 0], [-1, 0]], atol=1e-12)
    np.testing.assert_allclose(artists.ends.get_offsets(), [[1, 0], [-1, 0]], atol=1e-12)
    assert ax.get_aspect() == 1
    assert ax.get_xlabel()
    # The limits show the whole curve.
    assert ax.get_xlim()[0] < -1 < 1 < ax.get_xlim()[1]
    assert ax.get_ylim()[1] > 1
    ax.legend()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["geodesic", "straight line"]
    ax.figure.savefig(io.BytesIO(), format="png")


def test_several_geodesics_without_straight_lines(ax):
    artists = geodesics(ax, [Arc(), [Arc(fill=1.0)]], straight=False, colors="black")
    assert artists.straight is None
    assert len(artists.curves.get_segments()) == 2
    np.testing.assert_array_equal(artists.curves.get_colors(), [[0, 0, 0, 1]])


def bent(x, y):
    """A Geodesic by hand, a parabola: solving for one would compile for longer than all the rest takes."""
    curve = PiecewisePolynomial(jnp.array([0.0, 1.0]), x[None], jnp.stack([y - x, 0 * x, jnp.array([0.0, 1.0])])[None])
    ts, zero = jnp.linspace(0.0, 1.0, 3), jnp.zeros(())
    points, velocities = jax.vmap(curve)(ts)
    return Geodesic(ts, points, velocities, zero, zero, zero, zero, RESULTS.successful, {}, curve)


@pytest.mark.slow
def test_geodesics_and_batches_of_them(ax):
    starts, end = jnp.array([[-1.0, 0.5], [-1.0, 0.6], [-1.0, 0.7]]), jnp.array([1.0, 0.7])
    batch = jax.vmap(bent, in_axes=(0, None))(starts, end)
    curves = geodesics(ax, [batch, bent(starts[0], end)]).curves.get_segments()
    assert len(curves) == 4
    np.testing.assert_allclose([curve[0] for curve in curves], starts[jnp.array([0, 1, 2, 0])], atol=1e-12)
    np.testing.assert_allclose([curve[-1] for curve in curves], [end] * 4, atol=1e-12)
    np.testing.assert_allclose(curves[0], curves[3], atol=1e-12)


def test_geodesics_without_dense_output_are_drawn_through_their_points(ax):
    sparse = Arc()
    sparse.curve = None
    np.testing.assert_allclose(geodesics(ax, sparse).curves.get_segments()[0], sparse.points)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "`geodesics` must hold at least one geodesic"),
        (Arc(dim=3), r"`geodesics` must be in the plane, with points of shape \(n, 2\), got \(200, 3\)"),
        (Arc(fill=jnp.nan), "`geodesics` must have finite points"),
    ],
)
def test_geodesics_refuse(ax, given, message):
    with pytest.raises(ValueError, match=message):
        geodesics(ax, given)


def test_axes_come_first():
    with pytest.raises(TypeError, match="`ax` must be a matplotlib Axes"):
        geodesics(Arc(), Figure().subplots())
