"""Every metric x every operation, on the two moons: what solvers, derivatives, batches and transport make of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import CURL

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
    geodesic,
    pairwise_dist,
    parallel_transport,
    verify,
)

pytestmark = pytest.mark.slow

MOONS = datasets.two_moons(jax.random.key(0), 100)
SCORE, WIDER = KernelDensityScore(MOONS.points, 0.2), KernelDensityScore(MOONS.points, 0.5)
# On the upper moon; neither on an axis of symmetry.
POINTS = jnp.array([[0.45, 0.0], [0.1, 0.6], [-0.4, 0.85]])
PAIRS = ((0, 1), (1, 2), (0, 2))


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
# Two levels alone: what differs from metric to metric is in each of them. That pairs are solved in a batch as they are
# alone, `geodesics.test_oracles` asks.
LEVELS = {"max_elements": 4, "continuation": 0, "adaptations": 0}
SOLVER = SpectralNewton(rtol=1e-8, path_rtol=1e-6, **LEVELS)
# A direction of both ends, along which lengths are differentiated.
STEP, H = jnp.array([[0.6, -0.8], [0.5, 0.7]]), 1e-4


@pytest.fixture(scope="module", params=METRICS)
def metric(request):
    return METRICS[request.param]()


def solve(metric, x, y):
    """The length, and the geodesic."""
    path = geodesic(metric, x, y, solver=SOLVER, throw=False)
    return path.length, path


@jax.jit
def lanes(metric, x, y):
    return jax.vmap(jax.value_and_grad(solve, (1, 2), has_aux=True), (None, 0, 0))(metric, x, y)


@jax.jit
def verified(metric, paths):
    return jax.vmap(lambda path: verify(metric, path))(paths)


@jax.jit
def transport(metric, path, vectors):
    return jax.vmap(lambda v: parallel_transport(metric, path, v, ts=(0.0, 1.0), throw=False)[1])(vectors)


@pytest.fixture(scope="module")
def batch(metric):
    """Geodesics of the three pairs, of the first the other way, and on either side of it; slopes at both ends."""
    ends = [POINTS[jnp.array(pair)] for pair in (*PAIRS, (1, 0))]
    ends = jnp.stack([*ends, ends[0] + H * STEP, ends[0] - H * STEP])
    (_, paths), slopes = lanes(metric, ends[:, 0], ends[:, 1])
    return paths, slopes


def test_geodesics_are_verified(metric, batch):
    paths, _ = batch
    assert bool((paths.result == RESULTS.successful).all())
    assert (verified(metric, jax.tree.map(lambda a: a[:2], paths)) < 1e-5).all()
    assert (paths.residual[:2] < 1e-5).all()
    assert float(paths.length[3]) == pytest.approx(float(paths.length[0]), rel=1e-8)  # the way back


def test_gradient(batch):
    paths, slopes = batch
    difference = (paths.length[-2] - paths.length[-1]) / (2 * H)
    along = sum(step @ slope[0] for step, slope in zip(STEP, slopes, strict=True))
    scale = max(np.abs(slope[0]).max() for slope in slopes)
    np.testing.assert_allclose(along, difference, rtol=0, atol=1e-5 * scale)


def test_transport_is_isometric(metric, batch):
    path, start = jax.tree.map(lambda a: a[0], batch[0]), jnp.array([[0.3, -1.0], [1.0, 0.5]])
    end = transport(metric, path, start)
    for i, j in ((0, 0), (0, 1)):
        before, after = (metric.inner(x, u[i], u[j]) for x, u in ((path.points[0], start), (path.points[-1], end)))
        assert float(after) == pytest.approx(float(before), rel=1e-5, abs=1e-6)


def test_all_pairs_in_float32(metric, batch):
    single = jax.tree.map(lambda a: a.astype(jnp.float32) if jnp.issubdtype(a.dtype, jnp.floating) else a, metric)
    matrix, results = pairwise_dist(single, POINTS.astype(jnp.float32), solver=SpectralNewton(**LEVELS))
    assert bool((results == RESULTS.successful).all())
    assert matrix.dtype == jnp.float32
    np.testing.assert_array_equal(matrix, matrix.T)
    np.testing.assert_allclose([matrix[pair] for pair in PAIRS], batch[0].length[:3], rtol=1e-4)
