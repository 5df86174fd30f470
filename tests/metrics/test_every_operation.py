"""Every metric x every operation, on the two moons: what solvers, derivatives, batches and transport make of it."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import CURL, central_differences

from scoregeo import (
    RESULTS,
    ConformalMetric,
    FunctionScore,
    GraphMetric,
    InverseSteinMetric,
    KernelDensityScore,
    LandMetric,
    PullbackMetric,
    RbfMetric,
    ScoreJacobianMetric,
    SpectralNewton,
    StackedSteinMetric,
    SteinMetric,
    datasets,
    dist,
    geodesic,
    pairwise_dist,
    parallel_transport,
    squared_dist,
    verify,
)

pytestmark = pytest.mark.slow

MOONS = datasets.two_moons(jax.random.key(0), 100)
SCORE, WIDER = KernelDensityScore(MOONS.points, 0.2), KernelDensityScore(MOONS.points, 0.5)
# On the upper moon; neither on an axis of symmetry.
POINTS = np.array([[0.45, 0.0], [0.1, 0.6], [-0.8, 0.75], [-1.3, 0.45]])


def swirl(x, score):
    return score(x) + 0.3 * jnp.asarray(CURL) @ x


def log_prob(x, score):
    return score.log_prob(x)


def decoder(x):
    """A surface in space that bends both ways."""
    return jnp.array([x[0], x[1], 0.4 * x[0] ** 2 - 0.3 * x[1] ** 2, jnp.sin(x[0] + x[1])])


METRICS = {
    "Stein": lambda: SteinMetric(FunctionScore(swirl, SCORE), 0.1),
    "inverse Stein": lambda: InverseSteinMetric(SCORE, 0.05),
    "stacked Stein": lambda: StackedSteinMetric([SCORE, WIDER], [0.02, 0.1]),
    "graph": lambda: GraphMetric(log_prob, SCORE, strength=0.1),
    "score Jacobian": lambda: ScoreJacobianMetric(FunctionScore(swirl, WIDER), 0.5, 3.0),
    "pull-back": lambda: PullbackMetric(decoder, floor=0.1),
    "sum": lambda: SteinMetric(SCORE, 0.05) + 0.5 * ConformalMetric.power(SCORE, MOONS.points, 30.0),
    "power": lambda: ConformalMetric.power(SCORE, MOONS.points, 1e3),
    "power, curl": lambda: ConformalMetric.power(FunctionScore(swirl, SCORE), MOONS.points, 1e2, nodes=16),
    "energy": lambda: ConformalMetric.energy(SCORE, MOONS.points, 10.0),
    "score norm": lambda: ConformalMetric.score_norm(FunctionScore(swirl, SCORE), MOONS.points, 3.0),
    "land": lambda: LandMetric(MOONS.points, 0.3, 0.5),
    "rbf": lambda: RbfMetric.fit(MOONS.points, 12, 2.0, spread=1.5),
}
SOLVER = SpectralNewton(rtol=1e-8, path_rtol=1e-6)


@pytest.fixture(scope="module", params=METRICS)
def metric(request):
    return METRICS[request.param]()


@jax.jit
def solve(metric, x, y):
    return geodesic(metric, x, y, solver=SOLVER, throw=False)


@jax.jit
def slopes(metric, x, y):
    return jax.grad(lambda *ends: squared_dist(metric, *ends, solver=SOLVER), (0, 1))(x, y)


def test_geodesic_is_verified(metric):
    path = solve(metric, POINTS[0], POINTS[3])
    assert path.result == RESULTS.successful
    assert float(verify(metric, path)) < 1e-5
    assert float(path.residual) < 1e-5
    back = solve(metric, POINTS[3], POINTS[0])
    assert float(back.length) == pytest.approx(float(path.length), rel=1e-8)


def test_gradient(metric):
    x, y = (jnp.asarray(point) for point in POINTS[:2])
    for argnum, slope in enumerate(slopes(metric, x, y)):
        expected = central_differences(lambda *ends: solve(metric, *ends).length ** 2, (x, y), argnum, h=1e-4)
        np.testing.assert_allclose(slope, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_batches(metric):
    matrix, results = pairwise_dist(metric, POINTS, solver=SOLVER)
    assert bool((results == RESULTS.successful).all())
    np.testing.assert_array_equal(matrix, matrix.T)
    lanes = jax.jit(jax.vmap(lambda x, y: dist(metric, x, y, solver=SOLVER)))(POINTS[:3], POINTS[1:])
    alone = [solve(metric, x, y).length for x, y in itertools.pairwise(POINTS)]
    np.testing.assert_allclose(lanes, alone, rtol=1e-8)
    np.testing.assert_allclose(np.diagonal(matrix, 1), alone, rtol=1e-8)


def test_transport_is_isometric(metric):
    path = solve(metric, POINTS[0], POINTS[1])
    v, w = jnp.array([0.3, -1.0]), jnp.array([1.0, 0.5])
    moved = [parallel_transport(metric, path, u) for u in (v, w)]
    moved = [u[-1] if u.ndim == 2 else u for u in moved]
    for a, b, c, d in ((v, v, *moved[:1], *moved[:1]), (v, w, *moved)):
        start, end = metric.inner(path.points[0], a, b), metric.inner(path.points[-1], c, d)
        assert float(end) == pytest.approx(float(start), rel=1e-5, abs=1e-6)


def test_float32(metric):
    single = jax.tree.map(lambda a: a.astype(jnp.float32) if jnp.issubdtype(a.dtype, jnp.floating) else a, metric)
    path = jax.jit(lambda m, x, y: geodesic(m, x, y, throw=False))(single, *np.float32(POINTS[1:3]))
    assert path.result == RESULTS.successful
    assert path.points.dtype == jnp.float32
    assert float(path.length) == pytest.approx(float(solve(metric, POINTS[1], POINTS[2]).length), rel=1e-4)
