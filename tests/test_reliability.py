"""Of the study of reliability: its judge sees what is wrong, and what it once found does not come back."""

import jax.numpy as jnp
import numpy as np
import pytest

from scoregeo import RESULTS, EuclideanMetric, SpectralNewton, geodesic


@pytest.fixture
def study(science):
    return science("reliability")


@pytest.mark.slow
def test_the_judge_measures_length_and_defect(study):
    path = geodesic(
        EuclideanMetric(),
        jnp.zeros(2),
        jnp.array([3.0, 4.0]),
        solver=SpectralNewton(degree=4, max_elements=1),
        ts=jnp.linspace(0.0, 1.0, study.PIECES + 1),
    )
    length, defect = study.judged(EuclideanMetric(), path)
    assert np.isclose(length, 5)
    assert defect < 1e-9
    # A path with a bend in it is longer, and no geodesic.
    bent = path.curve.velocities.at[0, 1, 0].set(0.5)
    curve = type(path.curve)(path.curve.breaks, path.curve.starts, bent)
    points, velocities = map(np.stack, zip(*(curve(t) for t in path.ts), strict=True))
    wrong = type(path)(**{**vars(path), "points": points, "velocities": velocities, "curve": curve})
    length, defect = study.judged(EuclideanMetric(), wrong)
    assert length > 5.001
    assert defect > 1e-3


@pytest.mark.slow
def test_an_error_that_no_newton_step_sees_is_told(study):
    """A speed with peaks between the coefficients: the length was said to be right to 7e-7, and was 2e-5 too long."""
    problem, (x, y) = study.exact_problem(2, np.random.default_rng([0, 0, 2, 0, 106]))
    metric, x, y = study.METRICS["Stein"](problem), jnp.asarray(x), jnp.asarray(y)
    path = geodesic(metric, x, y, throw=False)
    finer = SpectralNewton(max_elements=48, rtol=1e-9, path_rtol=1e-6)
    # The problem is so stiff that where the finer solve ends depends on how a processor rounds: but whatever its curve
    # is, a geodesic is no longer than it.
    other = geodesic(metric, x, y, solver=finer, init=path, throw=False)
    length, _ = study.judged(metric, other)
    assert path.length - length <= 2 * path.error
    if other.result == RESULTS.successful:
        assert abs(path.length - other.length) <= 2 * path.error
    own, _ = study.judged(metric, path)
    assert abs(path.length - own) <= 2 * path.error
