"""Nearest neighbours in a metric: the same as by solving every pair, with most pairs left out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import half_space, network_score, three_modes
from path_length import PathLength

from scoregeo import (
    RESULTS,
    ConformalMetric,
    EuclideanMetric,
    MatrixMetric,
    ScoreJacobianMetric,
    SpectralNewton,
    models,
)
from scoregeo.statistics import nearest
from scoregeo.statistics._starts import least

RANDOM = np.random.default_rng(0)
XS, QUERIES = RANDOM.normal(size=(80, 2)).clip(-2, 2), RANDOM.normal(size=(5, 2)).clip(-2, 2)
SETTINGS = {"solver": PathLength(), "batch_size": 32, "neighbors": 6}
METRICS = {"stein": three_modes(4.0), "jacobian": ScoreJacobianMetric(network_score(0, 2), 0.3, 50.0)}


@pytest.mark.parametrize("name", METRICS)
def test_as_if_every_pair_were_solved(name):
    metric = METRICS[name]
    found, brute = (nearest(metric, XS, QUERIES, 4, prune=prune, **SETTINGS) for prune in (True, False))
    np.testing.assert_array_equal(found.indices, brute.indices)
    np.testing.assert_allclose(found.distances, brute.distances, rtol=1e-12)
    np.testing.assert_array_equal(brute.pruned, 0)
    assert (found.pruned > 0.4).all()
    assert (np.diff(found.distances, axis=1) >= 0).all()
    assert bool((found.result == RESULTS.successful).all())


def test_euclid_and_scikit_learn():
    from sklearn.neighbors import NearestNeighbors

    tree = NearestNeighbors(n_neighbors=3).fit(XS)
    for queries in (QUERIES, None):
        found = nearest(EuclideanMetric(), XS, queries, 3, **SETTINGS)
        distances, indices = tree.kneighbors(queries)
        np.testing.assert_array_equal(found.indices, indices)
        np.testing.assert_allclose(found.distances, distances, rtol=1e-9)
        assert found.pruned.min() > 0.9


def test_without_a_bound_every_pair_is_solved():
    points = RANDOM.uniform([0, 0.5], [2, 2], (20, 2))
    found = nearest(models.HyperbolicHalfSpace(), points, points[:2] + 0.01, 3, **SETTINGS | {"neighbors": 5})
    exact = half_space(points[:2, None] + 0.01, points[None])
    np.testing.assert_array_equal(found.indices[:, 0], [0, 1])
    assert (found.distances >= np.sort(exact, axis=1)[:, :3] * (1 - 1e-3)).all()
    np.testing.assert_allclose(found.distances, np.sort(exact, axis=1)[:, :3], rtol=0.1)
    np.testing.assert_array_equal(found.pruned, 0)


def test_the_path_on_the_graph_is_a_start():
    """Round a ring whose inside is dear, the neighbours across are as far as along the ring."""
    angle = np.arange(24) * np.pi / 12
    ring = np.stack([np.cos(angle), np.sin(angle)], -1)
    dear = ConformalMetric(lambda x: -2 * jnp.sum(x**2))
    found = nearest(dear, ring, ring[:1] * 1.01, 24, solver=PathLength(), neighbors=2)
    across = found.distances[0][found.indices[0] == 12][0]
    straight = float(jnp.sum(jax.vmap(lambda t: jnp.exp(-2 * (1.01 - 2.01 * t) ** 2))(jnp.linspace(0, 1, 2000))) * 2.01)
    assert across < 0.8 * straight / 2000


def test_failures_are_counted_and_stay_exact():
    """A solve that fails leaves the least length that it found; NaN is infinitely far."""
    right = np.concatenate([XS, [[2.5, 0.0], [2.6, 0.1]]])
    found, brute = (
        nearest(EuclideanMetric(), right, [[2.0, 0.0]], 3, prune=prune, **SETTINGS) for prune in (True, False)
    )
    np.testing.assert_array_equal(found.indices, brute.indices)
    assert brute.failed.tolist() == [2]
    code = np.asarray(found.result == RESULTS.stalled)
    np.testing.assert_array_equal(code[0], np.isin(found.indices[0], [80, 81]))
    wall = MatrixMetric(lambda x: jnp.where(jnp.abs(x[0]) < 0.1, jnp.nan, 1.0) * jnp.eye(2))
    points = np.array([[-1.0, 0.0], [-1.0, 1.0], [1.0, 0.0]])
    found = nearest(wall, points, [[-1.0, 0.2]], 3, solver=PathLength(), neighbors=2)
    assert found.indices.tolist() == [[0, 1, -1]]
    assert np.isinf(found.distances[0, 2])
    assert found.failed.tolist() == [1]


def test_the_least_of_several():
    def codes(*names):
        return jax.tree.map(lambda *parts: jnp.stack(parts), *(getattr(RESULTS, name) for name in names))

    cases = [
        ([2.0, 1.0], ("successful", "stalled"), 2.0),
        ([2.0, 1.0], ("successful", "accuracy_not_reached"), 1.0),
        ([2.0, 1.0], ("stalled", "stalled"), 1.0),
        ([jnp.nan, 1.0], ("metric_nonfinite", "stalled"), 1.0),
        ([1.0, 1.0], ("successful", "successful"), 1.0),
    ]
    for lengths, names, expected in cases:
        length, code, second = least(jnp.array(lengths), codes(*names))
        assert float(length) == expected
        chosen = names[int(second)]
        assert int(code) == int(jax.tree.leaves(getattr(RESULTS, chosen))[0])


def test_single_precision_and_copies():
    doubled = np.concatenate([XS, XS[:10]]).astype(np.float32)
    found = nearest(EuclideanMetric(), doubled, None, 2, **SETTINGS)
    np.testing.assert_allclose(found.distances[:10, 0], 0, atol=1e-6)


@pytest.mark.parametrize("different", [1, 3])
def test_no_more_neighbors_than_different_points(different):
    """The default number of neighbours is no reason to refuse points that are repeated."""
    points = np.tile(np.arange(float(different))[:, None], (12 // different, 1))
    found = nearest(EuclideanMetric(), points, points[:1] - 0.25, 5, solver=PathLength(), batch_size=16)
    expected = np.sort(np.abs(points[:, 0] - points[0, 0] + 0.25))[:5]
    np.testing.assert_allclose(found.distances[0], expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 81}, "`k` must be at most 80 for 80 points, got 81"),
        ({"queries": None, "k": 80}, "`k` must be at most 79 for 80 points, got 80"),
        ({"xs": XS[:1], "queries": None}, "`xs` must have at least two points where no `queries` are given, got 1"),
        ({"k": 0}, "`k` must be an integer of at least 1, got 0"),
        ({"queries": np.ones((1, 3))}, r"`queries` must have shape \(n, 2\)"),
        ({"neighbors": 0}, "`neighbors` must be an integer of at least 1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        nearest(EuclideanMetric(), **({"xs": XS, "queries": QUERIES} | arguments))


def test_not_under_a_trace(capfd):
    with pytest.raises(TypeError, match="works on the host"):
        jax.jit(lambda q: nearest(EuclideanMetric(), XS, q, 2).distances)(QUERIES)
    nearest(EuclideanMetric(), XS, QUERIES, 2, progress=True, **SETTINGS)
    assert "400/400" in capfd.readouterr().err


@pytest.mark.slow
def test_as_if_every_pair_were_solved_by_newton():
    solver = SpectralNewton(degree=12, max_elements=4, rtol=1e-4, path_rtol=1.0, continuation=0)
    found, brute = (
        nearest(METRICS["stein"], XS, QUERIES[:3], 4, prune=prune, solver=solver, batch_size=32)
        for prune in (True, False)
    )
    np.testing.assert_array_equal(found.indices, brute.indices)
    np.testing.assert_allclose(found.distances, brute.distances, rtol=1e-8)
