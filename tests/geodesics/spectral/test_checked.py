"""The last look at a path: what it would gain at constant speed is an error of its length."""

import jax.numpy as jnp
import numpy as np
import pytest

from scoregeo import EuclideanMetric, SpectralNewton
from scoregeo.geodesics.spectral.energy import PathEnergy
from scoregeo.geodesics.spectral.refinement import checked, initial_state, wants_check

SETTINGS = SpectralNewton().settings(jnp.dtype("float64"))
LAST = len(SETTINGS.elements) - 1


def state_at(uneven: float, energy: float, level: int, error: float):
    """The straight line from 0 to 1 whose speed, on each of the elements, is uneven, judged to have this ``error``."""
    start = jnp.zeros((SETTINGS.elements[-1], SETTINGS.degree, 1))
    state = initial_state(start, SETTINGS)
    path = state.best.path._replace(c=start.at[:, 1, 0].set(uneven))
    best = state.best._replace(
        path=path, energy=jnp.asarray(energy), error=jnp.asarray(error), path_error=jnp.asarray(1e-9)
    )
    return state._replace(best=best._replace(level=jnp.asarray(level, jnp.int32))), start


@pytest.mark.parametrize("uneven", [1e-3, 0.01, 0.1])
def test_the_error_covers_what_constant_speed_gains(uneven):
    energy = 0.5 * (1 + SETTINGS.elements[-1] * uneven**2)
    state, start = state_at(uneven, energy, LAST, 1e-12)
    assert wants_check(state, SETTINGS)
    found = checked((PathEnergy(EuclideanMetric(), jnp.zeros(1), jnp.ones(1)), start), state, SETTINGS)
    gain = np.sqrt(2 * energy) - 1
    np.testing.assert_allclose(found.best.error, gain, rtol=1e-6)
    np.testing.assert_allclose(found.best.path_error, np.sqrt(2 * gain / (1 + gain)), rtol=1e-6)
    assert not wants_check(found, SETTINGS)
    assert found.counts.metric == 3 * SETTINGS.degree * SETTINGS.elements[-1]


def test_a_larger_estimate_stays():
    state, start = state_at(0.01, 0.5 * (1 + SETTINGS.elements[-1] * 1e-4), LAST, 0.5)
    found = checked((PathEnergy(EuclideanMetric(), jnp.zeros(1), jnp.ones(1)), start), state, SETTINGS)
    assert found.best.error == 0.5


def test_paths_of_earlier_levels_were_judged_on_more_elements():
    assert not wants_check(state_at(0.01, 0.5, LAST - 1, 1e-9)[0], SETTINGS)
    assert not wants_check(state_at(0.01, 0.5, LAST, np.inf)[0], SETTINGS)


def test_what_is_not_finite_has_no_finite_error():
    state, start = state_at(0.01, 0.5, LAST, 1e-9)
    broken = state._replace(best=state.best._replace(path=state.best.path._replace(c=jnp.full_like(start, jnp.nan))))
    found = checked((PathEnergy(EuclideanMetric(), jnp.zeros(1), jnp.ones(1)), start), broken, SETTINGS)
    assert found.best.error == jnp.inf
