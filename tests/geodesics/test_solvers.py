"""Every boundary solver on one set of named problems with known answers, in both precisions; and on impossible ones.

All problems are kernel densities of three centres in the plane, so each solver is compiled once for a precision.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import MODES, MODES_LENGTH, MODES_SD, MODES_X, MODES_Y, X, Y, radial, some_slow

from scoregeo import (
    RESULTS,
    EnergyDescent,
    Georce,
    KernelDensityScore,
    MultiStart,
    Refine,
    Shooting,
    SpectralNewton,
    SteinMetric,
    geodesic,
)

SPECTRAL = SpectralNewton(path_rtol=1e-6)
# Each with the relative accuracy of the length that it promises on the smooth problems, and on three modes.
SOLVERS = {
    "spectral": (SPECTRAL, 1e-8, 1e-8),
    "multistart": (MultiStart(SpectralNewton(path_rtol=1.0), bends=2), 1e-8, 1e-8),
    "refine": (Refine(SpectralNewton(path_rtol=1e-6, max_elements=4), Shooting()), 1e-9, 1e-9),
    "shooting": (Shooting(), 1e-9, None),
    "descent": (EnergyDescent(nodes=129), 1e-4, 1e-4),
    "georce": (Georce(), 1e-3, None),
}
TOLERANCE_32 = 2e-4
ONE = np.zeros((3, 2))


# centres, bandwidth, strength, x, y, length
PROBLEMS = {
    "euclid": (MODES, MODES_SD, 0.0, X, Y, np.hypot(2.0, 0.2)),
    "gaussian radial": (ONE, 1.0, 2.0, (0.0, 0.0), (1.2, 0.9), radial(1.5, np.sqrt(2.0))),
    "gaussian ray": (ONE, 2.0, 4.0, (0.6, 0.8), (1.8, 2.4), radial(3.0, 0.5) - radial(1.0, 0.5)),
    "three modes": (MODES, MODES_SD, 1.0, MODES_X, MODES_Y, MODES_LENGTH),
}


def run(name, dtype):
    solver = SOLVERS[name][0]

    @jax.jit
    def solve(centres, bandwidth, strength, x, y):
        metric = SteinMetric(KernelDensityScore(centres, bandwidth), strength)
        return geodesic(metric, x, y, solver=solver, ts=jnp.linspace(0, 1, 5), throw=False)

    return lambda *problem: solve(*(jnp.asarray(a, dtype) for a in problem))


@pytest.fixture(scope="module", params=some_slow(SOLVERS, fast=("spectral", "shooting", "georce")))
def solver(request):
    return request.param, run(request.param, jnp.float64)


@pytest.mark.slow
@pytest.mark.parametrize("problem", list(PROBLEMS))
def test_lengths(solver, problem):
    name, solve = solver
    *arguments, length = PROBLEMS[problem]
    _, smooth, hard = SOLVERS[name]
    tolerance = hard if problem == "three modes" else smooth
    result = solve(*arguments)
    if tolerance is None:
        # Too hard for this solver from a straight line: whatever it says, it must not claim a wrong length.
        honest = abs(float(result.length) - length) < 1e-3 * length
        assert honest or result.result != RESULTS.successful
        return
    assert result.result == RESULTS.successful
    error = abs(float(result.length) - length)
    assert error < tolerance * length
    assert error < 10 * float(result.error) + 1e-10
    np.testing.assert_allclose(result.points[0], arguments[3], atol=1e-9)
    np.testing.assert_allclose(result.points[-1], arguments[4], atol=1e-9)
    np.testing.assert_allclose(result.energy, result.length**2 / 2, rtol=1e-6)


@pytest.mark.slow
def test_equal_end_points(solver):
    _, solve = solver
    result = solve(MODES, MODES_SD, 1.0, X, X)
    assert float(result.length) < 1e-12
    assert result.result == RESULTS.successful
    np.testing.assert_allclose(result.points, np.broadcast_to(X, (5, 2)), atol=1e-9)


@pytest.mark.slow
def test_nan_on_the_path(solver):
    _, solve = solver
    result = solve(MODES * np.nan, MODES_SD, 1.0, X, Y)
    assert result.result == RESULTS.metric_nonfinite


@pytest.mark.slow
def test_enormous_strength_is_solved_or_refused(solver):
    """From a mode outwards at strength 1e6: right within its error, or not successful."""
    _, solve = solver
    result = solve(ONE, 1.0, 1e6, (0.0, 0.0), (1.2, 0.9))
    exact = radial(1.5, 1e3)
    error = abs(float(result.length) - exact)
    assert result.result != RESULTS.successful or error < max(1e-3 * exact, 10 * float(result.error))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["spectral", "refine", "shooting", "descent", "georce"])
def test_single_precision(name):
    solve = run(name, jnp.float32)
    for problem in ("euclid", "gaussian radial"):
        *arguments, length = PROBLEMS[problem]
        result = solve(*arguments)
        assert result.length.dtype == result.points.dtype == jnp.float32
        assert result.result == RESULTS.successful
        assert abs(float(result.length) - length) < max(TOLERANCE_32, SOLVERS[name][1]) * length


@pytest.mark.slow
@pytest.mark.parametrize("name", ["refine", "multistart"])
def test_gradients_of_compositions(name):
    """``jit(vmap(grad))`` with respect to end points, strength and closed-over centres, against central differences."""
    once = SpectralNewton(path_rtol=1e-6, max_elements=4, continuation=0, adaptations=0)
    solver = Refine(once, Shooting()) if name == "refine" else MultiStart(once, bends=2)

    def length(x, y, strength, centres):
        metric = SteinMetric(KernelDensityScore(centres, 0.8), strength)
        return geodesic(metric, x, y, solver=solver, ts=(0.0, 1.0), throw=False).length

    both = jax.jit(jax.vmap(jax.value_and_grad(length, argnums=(0, 1, 2, 3))))
    h, at = 1e-4, (jnp.asarray(X), jnp.asarray(Y), jnp.asarray(0.5), jnp.asarray(MODES))
    side = jnp.array([0.3, -0.8])
    changes = (side, side, jnp.asarray(1.0), jax.random.normal(jax.random.key(0), MODES.shape))
    # The point itself, and one on either side of it for each argument.
    signs = [jnp.array([0, *(sign * (i == j) for j in range(4) for sign in (1, -1))]) for i in range(4)]
    lanes = [a + h * jnp.multiply.outer(sign, c) for a, sign, c in zip(at, signs, changes, strict=True)]
    values, slopes = both(*lanes)
    expected = (values[1::2] - values[2::2]) / (2 * h)
    found = [jnp.sum(slope[0] * change) for slope, change in zip(slopes, changes, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-6)
