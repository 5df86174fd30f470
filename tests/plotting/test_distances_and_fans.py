"""Fans and distance fields against geodesics and distances in closed form."""

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

from scoregeo import RESULTS, ConformalMetric, EuclideanMetric, MatrixMetric, models
from scoregeo.plotting import distance_field, exponential_grid, geodesic_fan, voronoi
from scoregeo.plotting.distances import grid_distances

LIMITS = (-2.0, 2.0), (-1.5, 1.5)


@pytest.fixture
def ax():
    return Figure().subplots()


class TestFan:
    @pytest.mark.slow
    def test_of_the_sphere(self, ax):
        """From the pole of a stereographic chart, whose circles are circles: of radius 2 tan(r/2) or tan(r/2)."""
        artists = geodesic_fan(ax, models.Sphere(), jnp.zeros(2), 1.2, n=6, rings=3)
        np.testing.assert_allclose(artists.fan.length, 1.2, rtol=1e-6)
        outer = artists.circles.get_segments()[-1]
        unit = np.linalg.norm(outer, axis=-1) / np.tan(0.6)
        np.testing.assert_allclose(unit, unit[0], rtol=1e-5)
        assert (len(artists.rays.get_segments()), len(artists.circles.get_segments())) == (6, 3)
        # Closed.
        np.testing.assert_allclose(outer[0], outer[-1])

    @pytest.mark.slow
    def test_directions_are_equally_spaced_to_the_metric(self, ax):
        matrix = jnp.array([[4.0, 1.0], [1.0, 2.0]])
        fan = geodesic_fan(ax, MatrixMetric(lambda x: matrix), jnp.array([0.5, 0.0]), 2.0, n=8).fan
        steps = np.asarray(fan.points[:, -1] - fan.points[:, 0])
        inner = steps @ np.asarray(matrix) @ steps.T
        np.testing.assert_allclose(np.diag(inner), 4.0, rtol=1e-6)
        np.testing.assert_allclose(np.diag(inner, 1), 4 * np.cos(np.pi / 4), rtol=1e-6)

    @pytest.mark.slow
    def test_what_fails_ends_there(self, ax):
        """Too few steps: rays end where they failed, circles have gaps, and limits are finite."""
        artists = geodesic_fan(ax, models.HyperbolicHalfSpace(), jnp.array([0.0, 1.0]), 2.0, n=8, max_steps=5)
        failed = ~np.asarray(artists.fan.result == RESULTS.successful)
        assert failed.any()
        assert np.isnan(np.asarray(artists.fan.points)[failed, -1]).all()
        for ray, bad in zip(artists.rays.get_segments(), failed, strict=True):
            assert np.isfinite(ray).all()
            assert (len(ray) < 97) == bad
        assert np.isfinite(ax.get_xlim()).all()

    def test_bad_input(self, ax):
        with pytest.raises(ValueError, match="`x` must have shape"):
            geodesic_fan(ax, EuclideanMetric(), jnp.zeros(3), 1.0)
        with pytest.raises(ValueError, match="`radius` must be a positive number, got -1"):
            geodesic_fan(ax, EuclideanMetric(), jnp.zeros(2), -1)


class TestExponentialGrid:
    @pytest.mark.slow
    def test_of_the_sphere(self, ax):
        """From the pole of a stereographic chart, (a, b) goes to the point in that direction at tan(|(a, b)| / 2)."""
        artists = exponential_grid(ax, models.Sphere(), jnp.zeros(2), 1.2, n=2)
        ticks, lines = np.linspace(-1.2, 1.2, 13), np.linspace(-1.2, 1.2, 3)
        vectors = np.stack(np.meshgrid(ticks, lines), -1)
        lengths = np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
        exact = vectors / lengths * np.tan(lengths / 2)
        np.testing.assert_allclose(artists.points, [exact, exact[..., ::-1]], atol=1e-6)
        np.testing.assert_array_equal(artists.lines.get_segments()[-1], artists.points[1, -1])
        assert np.asarray(artists.result == RESULTS.successful).all()

    def test_is_square_to_the_metric(self, ax):
        """In a flat metric all cells are one parallelogram, which the metric takes for a square."""
        matrix = np.array([[4.0, 1.0], [1.0, 2.0]])
        points = exponential_grid(
            ax, MatrixMetric(lambda x: jnp.asarray(matrix)), jnp.array([0.5, 0.0]), 2.0, n=4
        ).points
        sides = np.stack([points[0, 2, -1] - points[0, 2, 0], points[1, 2, -1] - points[1, 2, 0]])
        np.testing.assert_allclose(sides @ matrix @ sides.T, 16 * np.eye(2), atol=1e-5)
        np.testing.assert_allclose(points[:, 2, 12], [[0.5, 0.0]] * 2, atol=1e-9)

    @pytest.mark.slow
    def test_what_fails_is_a_gap(self, ax):
        artists = exponential_grid(ax, models.HyperbolicHalfSpace(), jnp.array([0.0, 1.0]), 2.0, n=2, max_steps=3)
        failed = ~np.asarray(artists.result == RESULTS.successful)
        assert failed.any()
        assert np.isnan(artists.points[failed]).all()
        assert np.isfinite(ax.get_xlim()).all()

    def test_bad_input(self, ax):
        with pytest.raises(ValueError, match="`x` must have shape"):
            exponential_grid(ax, EuclideanMetric(), jnp.zeros(3), 1.0)
        with pytest.raises(ValueError, match="`radius` must be a positive number, got 0"):
            exponential_grid(ax, EuclideanMetric(), jnp.zeros(2), 0)


class TestDistanceField:
    @pytest.mark.slow
    @pytest.mark.parametrize("source", [(0.0, 0.0), (0.33, -0.71)])
    @pytest.mark.parametrize(("stretch", "excess"), [(1.0, 0.01), (2.0, 0.016), (10.0, 0.25)])
    def test_flat(self, source, stretch, excess):
        """Ellipses of any shape, across the grid: never below the distance, and somewhat above."""
        turn = np.array([[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]])
        matrix = turn @ np.diag([1.0, stretch**2]) @ turn.T
        metric = MatrixMetric(lambda x: jnp.asarray(matrix))
        ticks, (field,) = grid_distances(metric, np.array([source]), *LIMITS, 121)
        steps = np.stack(np.meshgrid(*ticks), -1) - np.array(source)
        exact = np.sqrt(np.einsum("...i,ij,...j->...", steps, matrix, steps))
        assert (field > exact - 1e-6).all()
        far = exact > 0.5
        assert (field[far] < exact[far] * (1 + excess)).all()

    def test_half_plane(self):
        ticks, (field,) = grid_distances(models.HyperbolicHalfSpace(), np.array([[0.0, 1.0]]), (-1, 1), (0.4, 2), 61)
        x, y = np.meshgrid(*ticks)
        exact = np.arccosh(1 + (x**2 + (y - 1) ** 2) / (2 * y))
        np.testing.assert_allclose(field[exact > 0.3], exact[exact > 0.3], rtol=0.01)

    def test_round_an_obstacle(self):
        """The shortest way round a wall is found: of two quarter circles and a straight part, or so."""
        wall = ConformalMetric(lambda x: 4 / (1 + jnp.exp(150 * (jnp.linalg.norm(x) - 1))))
        ticks, (field,) = grid_distances(wall, np.array([[-1.5, 0.0]]), (-2, 2), (-2, 2), 81)
        at = (np.argmin(np.abs(ticks[1])), np.argmin(np.abs(ticks[0] - 1.5)))
        around = 2 * np.sqrt(1.5**2 - 1) + (np.pi - 2 * np.arccos(1 / 1.5))
        assert around < field[at] < 1.08 * around

    def test_pictures(self, ax):
        field = distance_field(ax, EuclideanMetric(), (0.0, 0.0), *LIMITS, resolution=30)
        assert 2.4 < field.levels.max() < 2.8
        cells = voronoi(ax, EuclideanMetric(), [(-1.0, 0.0), (1.0, 0.0)], *LIMITS, resolution=24).get_array()
        assert set(cells[:, :11].ravel()) == {0}
        assert set(cells[:, 13:].ravel()) == {1}

    def test_bad_input(self, ax):
        with pytest.raises(ValueError, match="`x` must lie within `xlim` and `ylim`"):
            distance_field(ax, EuclideanMetric(), (5.0, 0.0), *LIMITS, resolution=10)
        with pytest.raises(ValueError, match="`metric` must be positive definite"):
            distance_field(ax, MatrixMetric(lambda x: -jnp.eye(2)), (0.0, 0.0), *LIMITS, resolution=10)
