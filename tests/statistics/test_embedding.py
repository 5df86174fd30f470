"""Neighbours, affinities and coordinates from distances: against scikit-learn and coordinates that are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from scoregeo.statistics import MetricScaling, SpectralEmbedding, affinity, embed, nearest_neighbors

XS = np.random.default_rng(0).normal(size=(30, 3)) * [3.0, 2.0, 1.0]
DISTANCES = np.linalg.norm(XS[:, None] - XS, axis=-1)


def test_neighbors_are_scikit_learns():
    found = nearest_neighbors(DISTANCES, 4)
    distances, indices = NearestNeighbors(n_neighbors=4, metric="precomputed").fit(DISTANCES).kneighbors()
    np.testing.assert_array_equal(found[0], indices)
    np.testing.assert_allclose(found[1], distances)
    # A copy is a neighbour; the point itself never is.
    assert nearest_neighbors(np.zeros((3, 3)), 2)[0].tolist() == [[1, 2], [0, 2], [0, 1]]
    np.testing.assert_array_equal(jax.jit(lambda d: nearest_neighbors(d, 4)[0])(DISTANCES), indices)


def test_classical_scaling_finds_the_points():
    found = embed(DISTANCES, 3)
    again = np.linalg.norm(found.points[:, None] - found.points, axis=-1)
    np.testing.assert_allclose(again, DISTANCES, atol=1e-9)
    assert float(found.stress) < 1e-10
    # Axes in the order of their variance, and their signs fixed.
    assert jnp.all(jnp.diff(jnp.var(found.points, 0)) < 0)
    assert jnp.all(jnp.max(found.points, 0) > -jnp.min(found.points, 0))


def test_stress_is_less_with_more_coordinates_and_with_smacof():
    flat, line = embed(DISTANCES, 2), embed(DISTANCES, 1)
    assert 0 < flat.stress < line.stress
    assert embed(DISTANCES, 2, method=MetricScaling()).stress < flat.stress
    # By the definition, with the best factor for the coordinates.
    found = np.linalg.norm(flat.points[:, None] - flat.points, axis=-1)
    factor = np.sum(found * DISTANCES) / np.sum(found**2)
    stress = np.sqrt(np.sum((factor * found - DISTANCES) ** 2) / np.sum(DISTANCES**2))
    np.testing.assert_allclose(flat.stress, stress, rtol=1e-9)


def test_affinity():
    similar = affinity(DISTANCES, neighbors=3)
    scales = np.sort(DISTANCES, 1)[:, 3]
    np.testing.assert_allclose(similar, np.exp(-(DISTANCES**2) / np.outer(scales, scales)), rtol=1e-12)
    assert jnp.isfinite(affinity(np.zeros((4, 4)), neighbors=2)).all()
    copies = affinity(np.kron(np.array([[0.0, 1.0], [1.0, 0.0]]), np.ones((3, 3))), neighbors=1)
    assert jnp.isfinite(copies).all()


def test_affinity_where_all_points_have_copies():
    """Two points, three times each: no point has a scale of its own."""
    apart = np.kron(np.array([[0.0, 2.0], [2.0, 0.0]]), np.ones((3, 3)))
    np.testing.assert_allclose(affinity(apart, neighbors=2), np.where(apart > 0, np.exp(-1), 1), rtol=1e-6)


def test_spectral_embedding_separates_two_lumps():
    xs = np.concatenate([XS[:12], XS[:12] + np.array([40.0, 0, 0])])
    points = embed(np.linalg.norm(xs[:, None] - xs, axis=-1), 1, method=SpectralEmbedding()).points[:, 0]
    assert len({*np.sign(points[:12]).tolist()}) == len({*np.sign(points[12:]).tolist()}) == 1
    assert points[0] * points[12] < 0


def test_single_precision_and_small_matrices():
    found = embed(DISTANCES.astype(np.float32), 2)
    assert found.points.dtype == jnp.float32
    np.testing.assert_allclose(found.points, embed(DISTANCES, 2).points, atol=1e-3)
    np.testing.assert_allclose(embed(np.array([[0.0, 2.0], [2.0, 0.0]]), 1).points, [[1], [-1]])
    assert float(embed(np.zeros((3, 3)), 1).stress) == 0


def test_refused():
    bad = DISTANCES.copy()
    bad[1, 4] += 1.0
    for function in (lambda d: embed(d, 2), lambda d: nearest_neighbors(d, 2), affinity):
        with pytest.raises(ValueError, match=r"`distances` must be symmetric.*\(1, 4\)"):
            function(bad)
    with pytest.raises(ValueError, match="`k` must be an integer from 1 to 29 for 30 points, got 30"):
        embed(DISTANCES, 30)
    with pytest.raises(ValueError, match="`k` must be an integer from 1 to 29"):
        nearest_neighbors(DISTANCES, 0)
    with pytest.raises(ValueError, match="`neighbors` must be an integer from 1 to 29"):
        affinity(DISTANCES, neighbors=30)
    with pytest.raises(ValueError, match="`bandwidth` must be a positive number"):
        affinity(DISTANCES, bandwidth=-1.0)
    with pytest.raises(TypeError, match="`method` must be an embedding"):
        embed(DISTANCES, 2, method="spectral")
    with pytest.raises(TypeError, match="outside `jit`"):
        jax.jit(lambda d: embed(d, 2).points)(DISTANCES)
