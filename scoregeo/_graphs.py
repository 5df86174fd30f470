"""Graphs of nearest neighbours and shortest paths on them: NumPy and SciPy, on the host. Knows no metric."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

# Above this dimension trees are no faster than all distances, which scikit-learn computes as products of matrices.
_MOST_FOR_TREES = 16
# SciPy takes a length of zero for a missing edge.
_LEAST = 1e-300


def nearest_in(points: Float[np.ndarray, "n d"], of: Float[np.ndarray, "q d"], k: int) -> Int[np.ndarray, "q k"]:
    """Which ``k`` of ``points`` are nearest to each point ``of`` others, in Euclidean distance, nearest first.

    >>> nearest_in(np.array([[0.0], [1.0], [3.0]]), np.array([[2.5]]), 2).tolist()
    [[2, 1]]
    """
    if points.shape[1] <= _MOST_FOR_TREES:
        from scipy.spatial import KDTree

        found = KDTree(points).query(of, k)[1]
    else:
        from sklearn.neighbors import NearestNeighbors

        found = NearestNeighbors(n_neighbors=k).fit(points).kneighbors(of, return_distance=False)
    return np.reshape(found, (len(of), k))


def neighbor_pairs(points: Float[np.ndarray, "n d"], neighbors: int) -> Int[np.ndarray, "e 2"]:
    """Every pair of different ``points`` of which one is among the ``neighbors`` nearest ones of the other."""
    n = len(points)
    nearest = nearest_in(points, points, neighbors + 1)  # themselves included
    pairs = np.stack([np.repeat(np.arange(n), neighbors + 1), nearest.reshape(-1)], -1)
    return np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], -1), axis=0)


def bridges(points: Float[np.ndarray, "n d"], pairs: Int[np.ndarray, "e 2"]) -> Int[np.ndarray, "b 2"]:
    """The shortest pairs, in Euclidean distance, that connect what ``pairs`` leave apart: the rest of a minimum
    spanning tree. None where they leave nothing apart.

    >>> bridges(np.array([[0.0], [1.0], [5.0], [6.0]]), np.array([[0, 1], [2, 3]])).tolist()
    [[1, 2]]
    """
    from scipy.sparse.csgraph import connected_components

    found = np.zeros((0, 2), int)
    while True:
        graph = as_sparse(len(points), np.concatenate([pairs, found]), np.ones(len(pairs) + len(found)))
        count, labels = connected_components(graph, directed=False)
        if count == 1:
            return found
        # Every part but the largest reaches out to what is nearest (Boruvka); few parts are left each time.
        added = [_way_out(points, labels == part) for part in np.argsort(np.bincount(labels))[:-1]]
        found = np.unique(np.concatenate([found, np.sort(added, -1)]), axis=0)


def _way_out(points: np.ndarray, inside: Bool[np.ndarray, " n"]) -> list[int]:
    """The shortest pair of a point inside and one outside."""
    within, without = np.flatnonzero(inside), np.flatnonzero(~inside)
    nearest = without[nearest_in(points[without], points[within], 1)[:, 0]]
    i = int(np.argmin(np.sum((points[within] - points[nearest]) ** 2, -1)))
    return [int(within[i]), int(nearest[i])]


def as_sparse(n: int, pairs: Int[np.ndarray, "e 2"], lengths: Float[np.ndarray, " e"]) -> Any:
    """A sparse graph of ``n`` points, an edge for each pair; those whose length is not finite are left out."""
    from scipy.sparse import coo_array

    usable = np.isfinite(lengths)
    weights = np.maximum(lengths[usable].astype(np.float64), _LEAST)
    return coo_array((weights, (pairs[usable, 0], pairs[usable, 1])), shape=(n, n)).tocsr()


def shortest(graph: Any, sources: Any, *, directed: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Lengths of the shortest paths from ``sources`` to all points, infinite where there is none, and what comes
    before each point on its path, negative at a source."""
    from scipy.sparse.csgraph import dijkstra

    return dijkstra(graph, directed=directed, indices=sources, return_predecessors=True)


def route(previous: Int[np.ndarray, " n"], source: int, target: int) -> list[int] | None:
    """The points from ``source`` to ``target``, both included; ``None`` where there is no path."""
    way = [target]
    while way[-1] != source:
        if previous[way[-1]] < 0:
            return None
        way.append(int(previous[way[-1]]))
    return way[::-1]


def along(
    corners: Float[np.ndarray, "k d"], lengths: Float[np.ndarray, " k"], nodes: int
) -> Float[np.ndarray, "nodes d"]:
    """``nodes`` points on the straight segments between ``corners``, the same length apart, where ``lengths`` are those
    from the first corner on.

    >>> along(np.array([[0.0], [1.0], [2.0]]), np.array([0.0, 3.0, 4.0]), 3).round(2).tolist()
    [[0.0], [0.67], [2.0]]
    """
    if not (np.isfinite(lengths[-1]) and lengths[-1] > 0):
        lengths = np.linspace(0, 1, len(corners))
    at = np.linspace(0, lengths[-1], nodes)
    return np.stack([np.interp(at, lengths, column) for column in corners.T], -1)
