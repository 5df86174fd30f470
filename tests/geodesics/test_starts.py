"""Where boundary solves start, and MultiStart: the shortest of several local geodesics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import MODES, MODES_X, MODES_Y, three_modes

from scoregeo import (
    RESULTS,
    Bend,
    EuclideanMetric,
    GraphInit,
    MatrixMetric,
    MultiStart,
    SpectralNewton,
    StraightLine,
    dist,
    geodesic,
    models,
)

THREE = three_modes()
X, Y = jnp.asarray(MODES_X), jnp.asarray(MODES_Y)
QUICK = SpectralNewton(rtol=1e-3, path_rtol=1.0, max_elements=4)
T = jnp.linspace(0, 1, 65)


def points_of(curve):
    return np.asarray(jax.vmap(curve)(T)[0])


@pytest.mark.slow
def test_lines():
    np.testing.assert_allclose(points_of(StraightLine()(THREE, X, Y)), X + T[:, None] * (Y - X), atol=1e-14)
    bent = points_of(Bend([0.0, 3.0])(THREE, X, Y))
    np.testing.assert_allclose(bent[32], (X + Y) / 2 + jnp.array([0.0, 3.0]), atol=1e-12)
    np.testing.assert_allclose(bent[[0, -1]], [X, Y], atol=1e-14)


class TestGraphInit:
    @pytest.mark.parametrize("enabled", [True, False])
    def test_in_the_precision_of_its_caller(self, enabled):
        """Also where that has been changed for a while: the thread that calls back does not know."""
        angles = np.linspace(0, np.pi, 21)
        points = np.stack([-np.cos(angles), np.sin(angles)], -1)
        with jax.enable_x64(enabled):
            x, y = jnp.array([-1.1, 0.0]), jnp.array([1.1, 0.0])
            graph = GraphInit(points, 2)
            curve = jax.jit(lambda x, y: graph(EuclideanMetric(), x, y).nodes)(x, y)
            assert curve.dtype == (jnp.float64 if enabled else jnp.float32)
            radii = np.linalg.norm(np.asarray(curve), axis=1)
            assert abs(radii[32] - 1) < 0.02
            np.testing.assert_array_equal(curve[jnp.array([0, -1])], jnp.stack([x, y]))

    @pytest.mark.slow
    def test_follows_the_data_round_a_hole(self):
        """On a ring of points in Euclidean space: the shorter arc, at equal distances."""
        angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
        ring = np.stack([np.cos(angle), np.sin(angle)], -1)
        x, y = jnp.array([1.0, 0.0]), jnp.array([np.cos(2.0), np.sin(2.0)])
        for points in (ring, np.repeat(ring, 4, 0)):  # copies must not disconnect it
            path = points_of(GraphInit(points, neighbors=2)(EuclideanMetric(), x, y))
            np.testing.assert_allclose(np.linalg.norm(path, axis=-1), 1, atol=3e-3)
            steps = np.linalg.norm(np.diff(path, axis=0), axis=-1)
            np.testing.assert_allclose(steps.sum(), 2, rtol=2e-2)
            assert steps.max() < 1.1 * steps.min()
            np.testing.assert_allclose(path[[0, -1]], [x, y], atol=1e-12)

    @pytest.mark.slow
    def test_weights_are_lengths_in_the_metric(self):
        """Two ways round; the metric makes the upper one dear."""
        dear = MatrixMetric(lambda x: jnp.where(x[1] > 0, 100.0, 1.0) * jnp.eye(2))
        points = jnp.array([[0.0, 1.0], [0.0, -1.2]])
        path = points_of(
            GraphInit(points, neighbors=1)(EuclideanMetric(), jnp.array([-1.0, 0.1]), jnp.array([1.0, 0.1]))
        )
        assert path[32, 1] > 0.9
        graph = GraphInit(points, neighbors=1)
        both = GraphInit(jnp.concatenate([points, jnp.array([[-1.0, 0.0], [1.0, 0.0]])]), neighbors=3)
        assert points_of(both(dear, jnp.array([-1.0, -0.1]), jnp.array([1.0, -0.1])))[:, 1].max() < 0.05
        assert graph.neighbors == 1

    @pytest.mark.slow
    def test_unconnected_and_out_of_the_domain(self):
        """Without a way through the graph, the straight line."""
        half = models.HyperbolicHalfSpace()
        below = jnp.array([[0.0, -1.0], [0.5, -1.0], [1.0, -1.0]])
        x, y = jnp.array([0.0, 1.0]), jnp.array([1.0, 1.0])
        np.testing.assert_allclose(points_of(GraphInit(below, neighbors=1)(half, x, y))[32], [0.5, 1.0], atol=1e-12)

    @pytest.mark.slow
    def test_under_jit_and_vmap(self):
        graph = GraphInit(jax.random.normal(jax.random.key(0), (40, 2)), neighbors=4)
        ends = jnp.stack([Y, Y + 0.1])
        middle = jax.jit(jax.vmap(lambda y: graph(THREE, X, y)(0.5)[0]))(ends)
        for y, expected in zip(ends, middle, strict=True):
            np.testing.assert_allclose(graph(THREE, X, y)(0.5)[0], expected, atol=1e-12)

    def test_bad_arguments(self):
        with pytest.raises(
            ValueError, match="`neighbors` must be an integer from 1 to 2 for 3 different points, got 5"
        ):
            GraphInit(MODES, neighbors=5)
        with pytest.raises(TypeError, match="`points` must be concrete"):
            jax.jit(lambda p: GraphInit(p, neighbors=1)(THREE, X, Y)(0.5)[0])(MODES)
        with pytest.raises(ValueError, match=r"`points` must have shape \(n, 2\)"):
            geodesic(THREE, X, Y, init=GraphInit(jnp.zeros((4, 3)) + jnp.arange(4.0)[:, None], neighbors=1))


class TestMultiStart:
    @pytest.mark.slow
    def test_three_modes(self):
        """From a start that leads to the longer local geodesic, the shorter one, and the number of both."""
        alone = geodesic(THREE, X, Y, solver=QUICK, init=Bend([0.0, 3.0]))
        assert abs(float(alone.length) - 7.679) < 1e-2
        best = geodesic(THREE, X, Y, solver=MultiStart(QUICK), init=Bend([0.0, 3.0]))
        assert abs(float(best.length) - 5.055) < 5e-3
        assert best.result == RESULTS.successful
        assert int(best.stats["local_geodesics"]) == 2
        assert int(best.stats["converged_starts"]) == 8

    @pytest.mark.slow
    def test_a_start_that_fails_leaves_value_and_gradient(self):
        """Bent downwards, lines leave the domain; the rest is as from a single start."""

        def length(a, solver):
            metric = MatrixMetric(lambda x, a: a * jnp.eye(2) / x[1], a, domain=lambda x: x[1])
            return dist(metric, jnp.array([-1.0, 0.6]), jnp.array([1.0, 0.7]), solver=solver, throw=False)

        quick = SpectralNewton(rtol=1e-3, path_rtol=1.0, max_elements=4, continuation=0, adaptations=0)
        both = jax.jit(jax.value_and_grad(length), static_argnums=1)
        single, several = (both(1.5, solver) for solver in (quick, MultiStart(quick, bends=4)))
        np.testing.assert_allclose(several, single, rtol=1e-4)

    def test_bad_arguments(self):
        with pytest.raises(ValueError, match="`bends` must be an integer of at least 0, got -1"):
            MultiStart(bends=-1)
        with pytest.raises(TypeError, match="`starts` must be rules such as GraphInit"):
            MultiStart(starts=(jnp.zeros((3, 2)),))
        with pytest.raises(ValueError, match=r"`offset` must have shape \(2,\), got \(3,\)"):
            geodesic(THREE, X, Y, solver=MultiStart(QUICK, starts=(Bend([0.0, 1.0, 2.0]),)))
