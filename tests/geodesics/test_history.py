"""The history of a solve is that of the solve."""

import jax.numpy as jnp
import numpy as np
import pytest

from scoregeo import GaussianMixtureScore, Georce, SpectralNewton, SteinMetric, geodesic
from scoregeo.geodesics import solve_history

SCORE = GaussianMixtureScore(
    np.array([0.5, 0.5]), np.array([[-1.0, 0.0], [1.0, 0.2]]), 0.3 * np.tile(np.eye(2), (2, 1, 1))
)
METRIC = SteinMetric(SCORE, 3.0)
ENDS = jnp.array([-1.2, 0.3]), jnp.array([1.1, -0.4])
SOLVER = SpectralNewton(degree=8, max_elements=4, rtol=1e-4, path_rtol=1e-2)


@pytest.fixture(scope="module")
def history():
    return solve_history(METRIC, *ENDS, solver=SOLVER)


@pytest.mark.slow
def test_it_ends_where_the_solve_ends(history):
    path = geodesic(METRIC, *ENDS, solver=SOLVER)
    assert history.status == "converged"
    for name in ("newton_steps", "cg_steps", "metric_evaluations"):
        assert getattr(history, name)[-1] == path.stats[name]
    np.testing.assert_allclose(history.error[-1], path.error, rtol=1e-6)
    # The last evaluation judges the path of the level before: its energy is that of the result.
    np.testing.assert_allclose(history.energy.min(), path.energy, rtol=1e-4)


@pytest.mark.slow
def test_energy_falls_and_counts_grow(history):
    n = len(history.energy)
    assert all(len(column) == n for column in history[:-1])
    first = history.energy[history.elements == 1]
    assert (np.diff(first) <= 1e-12 * first[0]).all()
    assert first[-1] < first[0]
    # Another pass computes the energy on other elements.
    assert (np.diff(history.energy[history.elements > 1]) <= 1e-4 * history.energy[-1]).all()
    assert (np.diff(history.metric_evaluations) > 0).all()
    assert (np.diff(history.elements) >= 0).all()
    assert history.accepted[0]
    assert ((history.step_size > 0) & (history.step_size <= 1)).all()
    assert (history.attempt == 0).all()


@pytest.mark.slow
def test_what_fails_is_told_not_raised():
    far = jnp.array([40.0, 0.0])
    found = solve_history(METRIC, ENDS[0], far, solver=SpectralNewton(degree=4, max_elements=1, max_steps=2))
    assert found.status != "converged"


def test_other_solvers_are_refused():
    with pytest.raises(TypeError, match="must be a SpectralNewton"):
        solve_history(METRIC, *ENDS, solver=Georce())
