"""Maps of volume and curvature against closed forms, and what they say to bad input."""

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

from scoregeo import GaussianScore, SteinMetric, models
from scoregeo.plotting import curvature_map, scalar_map, volume_map

LIMITS = (-2.0, 2.0), (-1.0, 1.0)


@pytest.fixture
def ax():
    return Figure().subplots()


def test_values_are_in_their_places(ax):
    mesh = scalar_map(ax, lambda x: x[0] + 10 * x[1], *LIMITS, resolution=4)
    # Cells of side one: centres at -1.5 ... 1.5 and -.5, .5; rows go up.
    np.testing.assert_allclose(mesh.get_array(), np.add.outer([-5.0, 5.0], [-1.5, -0.5, 0.5, 1.5]))
    np.testing.assert_allclose(mesh.get_coordinates()[0, :, 0], [-2, -1, 0, 1, 2])
    assert (ax.get_xlim(), ax.get_aspect()) == ((-2.0, 2.0), 1.0)


def test_colours_leave_out_peaks(ax):
    """One value of a thousand does not take the range for itself."""
    mesh = scalar_map(ax, lambda x: jnp.where(jnp.sum(x**2) < 1e-2, 1e9, x[0]), *LIMITS, resolution=60)
    assert mesh.get_clim()[1] < 2.1


def test_volume_of_the_stein_metric(ax):
    metric = SteinMetric(GaussianScore(jnp.zeros(2), jnp.eye(2)), 3.0)
    mesh = volume_map(ax, metric, *LIMITS, resolution=8)
    x, y = np.meshgrid(np.linspace(-1.75, 1.75, 8), np.linspace(-0.75, 0.75, 4))
    np.testing.assert_allclose(mesh.get_array(), 0.5 * np.log(1 + 3 * (x**2 + y**2)), rtol=1e-6)


def test_curvature_of_the_sphere_is_one_and_white_is_zero(ax):
    mesh = curvature_map(ax, models.Sphere(), *LIMITS, resolution=6)
    np.testing.assert_allclose(mesh.get_array(), 1.0, rtol=1e-5)
    low, high = mesh.get_clim()
    assert low == -high


def test_what_is_not_finite_is_white(ax):
    mesh = scalar_map(ax, lambda x: jnp.where(x[0] > 0, x[0], jnp.nan), *LIMITS, resolution=4)
    np.testing.assert_array_equal(np.ma.getmaskarray(mesh.get_array()), [[True, True, False, False]] * 2)
    with pytest.raises(ValueError, match="`fn` must be finite somewhere, but is not at any of 8 points"):
        scalar_map(ax, lambda x: jnp.nan * x[0], *LIMITS, resolution=4)


def test_bad_input(ax):
    with pytest.raises(TypeError, match="`ax` must be a matplotlib Axes"):
        scalar_map(None, lambda x: x[0], *LIMITS)
    with pytest.raises(ValueError, match=r"`fn` must have values of shape \(\)"):
        scalar_map(ax, lambda x: x, *LIMITS)
    with pytest.raises(ValueError, match="`xlim` must be a pair"):
        scalar_map(ax, lambda x: x[0], (1.0, 0.0), (0.0, 1.0))
