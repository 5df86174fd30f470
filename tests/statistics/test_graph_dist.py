"""Distances on graphs: bounds from above, paths that can be refined, and graphs that fall apart."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import half_space, programs_of, three_modes
from path_length import PathLength

from scoregeo import RESULTS, ConformalMetric, EuclideanMetric, MatrixMetric, SpectralNewton, geodesic, models
from scoregeo._graphs import bridges, neighbor_pairs
from scoregeo.statistics import graph_dist
from scoregeo.statistics._chords import _chord_block, chord_lengths
from scoregeo.statistics._starts import _solve

RING = np.stack([np.cos(np.arange(24) * np.pi / 12), np.sin(np.arange(24) * np.pi / 12)], -1)
HALF = models.HyperbolicHalfSpace()
EUCLID = EuclideanMetric()


@pytest.fixture(scope="module")
def hyperbolic():
    """Points of the half-plane, where distances are known, and the graph."""
    points = np.random.default_rng(0).uniform([0, 0.5], [2, 2.5], (60, 2))
    return points, graph_dist(HALF, points, 8)


def test_bounds_from_above(hyperbolic):
    points, graph = hyperbolic
    exact = half_space(points[:, None], points[None])
    off = ~np.eye(60, dtype=bool)
    assert graph.distances.shape == (60, 60)
    np.testing.assert_array_equal(np.diag(graph.distances), 0)
    np.testing.assert_allclose(graph.distances, graph.distances.T, rtol=1e-12)
    ratio = graph.distances[off] / exact[off]
    assert ratio.min() >= 1 - 1e-9
    assert np.median(ratio) < 1.05
    assert (graph.errors <= 1e-3 * graph.lengths).all()
    assert not len(graph.bridges)


def test_bent_lines_are_bounds_that_are_close(hyperbolic):
    """Straight lines of the half-plane are up to a half longer than geodesics."""
    points, graph = hyperbolic
    pairs = np.random.default_rng(1).integers(60, size=(40, 2))
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    exact = half_space(*points[pairs.T])
    straight = sum(chord_lengths(HALF, jnp.asarray(points), pairs, 1e-3)) / exact
    bound = graph.bounds(pairs) / exact
    assert straight.max() > 1.1
    assert bound.min() >= 1 - 1e-9
    assert bound.max() < 1.03
    assert np.median(bound) < 1.002


def test_more_neighbors_are_closer(hyperbolic):
    points, graph = hyperbolic
    assert (graph_dist(HALF, points, 20).distances <= graph.distances * (1 + 1e-12)).all()


def test_edges_are_as_long_as_they_say():
    """A straight segment of the half-plane has a length in closed form; and a factor with a kink is resolved."""
    points = np.array([[0.0, 1.0], [0.0, 3.0], [2.0, 1.0], [1.0, 9.0]])
    lengths, errors = chord_lengths(HALF, jnp.asarray(points), np.array([[0, 1], [0, 2], [2, 3]]), 1e-6)
    slanted = np.sqrt(1 + 64) / 8 * np.log(9)
    np.testing.assert_allclose(lengths, [np.log(3), 2, slanted], rtol=1e-6)
    assert (errors < 1e-5).all()
    kink = ConformalMetric(lambda x: jnp.log1p(jnp.abs(x[0] - 0.3)))
    line = jnp.array([[0.0, 0.0], [1.0, 0.0]])
    (length,), (error,) = chord_lengths(kink, line, np.array([[0, 1]]), 1e-5)
    exact = 1 + (0.3**2 + 0.7**2) / 2
    assert abs(length - exact) <= max(error, 1e-12)


def test_paths_go_round_the_hole():
    graph = graph_dist(EUCLID, RING, 2)
    assert graph.route(0, 8) == list(range(9))
    path = np.asarray(graph.path(0, 8))
    assert path.shape == (65, 2)
    np.testing.assert_allclose(path[[0, -1]], RING[[0, 8]], atol=1e-12)
    steps = np.linalg.norm(np.diff(path, axis=0), axis=-1)
    # Pieces of the same length, but for those that cut a corner.
    assert steps.max() / steps.min() < 1.02
    np.testing.assert_allclose(graph.path(3, 3), np.broadcast_to(RING[3], (65, 2)))


@pytest.mark.slow
def test_paths_are_starts(hyperbolic):
    points, graph = hyperbolic
    solver = SpectralNewton(degree=8, max_elements=1, rtol=1e-3, path_rtol=1.0, continuation=0)
    found = geodesic(HALF, points[0], points[1], init=graph.path(0, 1), solver=solver)
    np.testing.assert_allclose(found.length, half_space(points[0], points[1]), rtol=1e-3)


def test_refined_from_both_starts():
    """The metric makes the inside of the ring dear: the path on the graph is shorter than the straight line for far
    points, longer for near ones."""
    dear = ConformalMetric(lambda x: -2 * jnp.sum(x**2))
    ring = jnp.asarray(RING)
    graph = graph_dist(dear, ring, 2)
    found = graph.refine([[0, 12], [0, 1], [3, 3], [5, 17]], solver=PathLength(), batch_size=3)
    np.testing.assert_array_equal(found.from_graph, [True, False, False, True])
    np.testing.assert_array_equal(found.pairs[0], [0, 12])
    assert bool((found.result == RESULTS.successful).all())
    assert (found.distances <= found.bounds * (1 + 1e-3)).all()
    assert found.distances[2] == 0
    across, beside = graph.bounds([[0, 12], [0, 1]])
    np.testing.assert_allclose(across, found.distances[0], rtol=5e-3)
    assert 0.9 < beside / found.distances[1] < 1  # the straight line bent outwards


def test_close_numbers_of_pairs_are_one_program():
    """Of edges as of pairs that are refined: their number is rounded up to a power of two."""
    graph = graph_dist(EUCLID, RING, 2)
    pairs = np.stack([np.zeros(8, int), np.arange(1, 9)], -1)
    counts = []
    for n in (8, 5, 7):
        found = graph.refine(pairs[:n], solver=PathLength())
        np.testing.assert_allclose(found.distances, 2 * np.sin(np.arange(1, n + 1) * np.pi / 24), rtol=1e-9)
        np.testing.assert_allclose(graph.bounds(pairs[:n]), found.distances, rtol=1e-9)
        counts.append((_chord_block._cached._cache_size(), programs_of(_solve)))
    assert counts[0] == counts[1] == counts[2]


def test_parts_are_bridged_by_the_spanning_tree():
    """Three heaps: two bridges, those of the minimum spanning tree of all points."""
    from scipy.sparse.csgraph import minimum_spanning_tree
    from scipy.spatial.distance import cdist

    random = np.random.default_rng(1)
    heaps = np.concatenate([random.normal(size=(8, 3)) + centre for centre in ([0, 0, 0], [30, 0, 0], [0, 50, 0])])
    joined = neighbor_pairs(heaps, 3)
    added = {tuple(pair) for pair in bridges(heaps, joined).tolist()}
    tree = minimum_spanning_tree(cdist(heaps, heaps)).tocoo()
    expected = {tuple(sorted((int(i), int(j)))) for i, j in zip(tree.row, tree.col, strict=True) if i // 8 != j // 8}
    assert added == expected
    graph = graph_dist(EUCLID, heaps, 3)
    assert {tuple(sorted(pair)) for pair in graph.bridges.tolist()} == expected
    assert np.isfinite(graph.distances).all()


def test_copies_of_a_point_are_at_distance_zero():
    points = np.concatenate([RING, RING[:3], RING[:1]])
    graph = graph_dist(EUCLID, points, 2)
    np.testing.assert_allclose(graph.distances[0, [24, 27]], 0, atol=1e-200)
    np.testing.assert_allclose(graph.distances[:24, :24], graph_dist(EUCLID, RING, 2).distances, rtol=1e-12)
    np.testing.assert_allclose(graph.distances[24:27], graph.distances[:3], rtol=1e-12, atol=1e-200)
    single = graph_dist(EUCLID, np.ones((3, 2)), 1)
    np.testing.assert_allclose(single.distances, 0, atol=1e-200)


def test_where_the_metric_is_not_finite_no_path_leads():
    wall = MatrixMetric(lambda x: jnp.where(jnp.abs(x[0]) < 0.1, jnp.nan, 1.0) * jnp.eye(2))
    points = np.array([[-1.0, 0.0], [-1.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    graph = graph_dist(wall, points, 2)
    assert graph.distances[0, 1] == pytest.approx(1, rel=1e-3)
    assert np.isinf(graph.distances[0, 2])
    with pytest.raises(ValueError, match="no path on the graph connects 0 and 2"):
        graph.path(0, 2)
    found = graph.refine([[0, 2]], solver=PathLength())
    assert not np.isfinite(found.distances[0])


def test_a_few_sources_and_single_precision():
    graph = graph_dist(EUCLID, RING.astype(np.float32), 2, sources=[5, 0])
    assert graph.distances.shape == (2, 24)
    np.testing.assert_allclose(graph.distances, graph_dist(EUCLID, RING, 2).distances[[5, 0]], rtol=1e-5)
    assert graph.path(0, 5).dtype == jnp.float32
    with pytest.raises(ValueError, match="point 3 is not one of the `sources`"):
        graph.route(3, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"neighbors": 24}, "`neighbors` must be an integer from 1 to 23 for 24 different points, got 24"),
        ({"neighbors": 0}, "`neighbors` must be an integer of at least 1, got 0"),
        ({"rtol": 2.0}, "`rtol` must be a number between 0 and 1, got 2.0"),
        ({"sources": [24]}, "`sources` must be from 0 to 23, got 24 to 24"),
        ({"sources": [0.5]}, r"`sources` must be integers of shape \(s,\)"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        graph_dist(EUCLID, RING, **arguments)


def test_bad_pairs_and_traces():
    graph = graph_dist(EUCLID, RING, 2)
    with pytest.raises(ValueError, match=r"`pairs` must be integers of shape \(p, 2\)"):
        graph.refine([0.5, 1.0])
    with pytest.raises(ValueError, match="integers from 0 to 23, got 99"):
        graph.route(0, 99)
    with pytest.raises(TypeError, match="works on the host"):
        jax.jit(lambda xs: graph_dist(EUCLID, xs, 2).distances)(RING)


@pytest.mark.slow
def test_refined_geodesics_of_three_modes():
    """As solved by themselves; never above the graph."""
    metric, points = three_modes(), np.random.default_rng(2).normal(size=(40, 2))
    graph = graph_dist(metric, points, 6)
    solver = SpectralNewton(degree=12, max_elements=4, rtol=1e-4, path_rtol=1.0, continuation=0)
    solve = functools.partial(geodesic, metric, solver=solver)
    found = graph.refine([[0, 1], [2, 9], [30, 5]], solver=solver)
    good = np.asarray(found.result == RESULTS.successful)
    assert good.all()
    assert (found.distances <= found.bounds * (1 + 1e-6)).all()
    for (i, j), length in zip(found.pairs, found.distances, strict=True):
        # Of as many points as the path: one program.
        straight = solve(points[i], points[j], init=jnp.linspace(points[i], points[j], 65)).length
        along = solve(points[i], points[j], init=graph.path(i, j)).length
        np.testing.assert_allclose(length, min(straight, along), rtol=1e-5)
