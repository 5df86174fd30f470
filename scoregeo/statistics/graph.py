"""All distances at once, from above: shortest paths on a graph of neighbours whose edges have lengths in the metric."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from .._checks import as_points, check_count, check_fewer, is_integer, is_number
from .._graphs import along, as_sparse, bridges, neighbor_pairs, route, shortest
from .._numerics import is_traced
from .._pairs.progress import progress_bar
from .._pairs.stream import as_results
from .._results import RESULTS
from .._types import Points
from ..geodesics import AbstractBoundarySolver
from ..geodesics.checks import check_metric
from ..geodesics.curves import NODES
from ..metrics import AbstractMetric
from ._chords import bend, chord_lengths, side_by_side
from ._starts import TwoStarts

_RTOL = 1e-3


class RefinedDistances(eqx.Module):
    """Solved distances of chosen pairs.

    **Fields**

    - ``pairs`` ``(p, 2)``: which points.
    - ``distances`` ``(p,)``: the least length over the two starts, the straight line and the path on the graph.
    - ``result``: its `RESULTS` codes, ``(p,)``.
    - ``bounds`` ``(p,)``: the distances on the graph.
    - ``from_graph`` ``(p,)``: whether the path on the graph led there.
    """

    pairs: Int[np.ndarray, "p 2"]
    distances: Float[np.ndarray, " p"]
    result: RESULTS
    bounds: Float[np.ndarray, " p"]
    from_graph: np.ndarray


class GraphDistances(eqx.Module):
    """Distances on a graph, which bound those in the metric from above; what `graph_dist` returns.

    **Fields**

    - ``distances`` ``(s, n)``: lengths of the shortest paths from the sources to all points; infinite where no path
      leads there along edges of finite length.
    - ``predecessors`` ``(s, n)``: the point before each on its path, negative at its start.
    - ``sources`` ``(s,)``: the points where the rows start; all of them by default.
    - ``edges`` ``(e, 2)``, ``lengths`` ``(e,)``: the graph. A length is that of the straight edge in the metric plus
      its estimated error, so that it is a bound.
    - ``errors`` ``(e,)``: those estimates.
    - ``bridges`` ``(b, 2)``: the edges among them that connect what neighbours leave apart.
    - ``metric``, ``points`` ``(n, d)``.
    """

    metric: AbstractMetric
    points: Points
    distances: Float[np.ndarray, "s n"]
    predecessors: Int[np.ndarray, "s n"]
    sources: Int[np.ndarray, " s"]
    edges: Int[np.ndarray, "e 2"]
    lengths: Float[np.ndarray, " e"]
    errors: Float[np.ndarray, " e"]
    bridges: Int[np.ndarray, "b 2"]

    def route(self, i: int, j: int) -> list[int]:
        """The points on the path from ``i``, which must be a source, to ``j``, by their numbers.

        Raises ``ValueError`` where no path connects them.
        """
        row = self._row(i)
        found = route(self.predecessors[row], int(i), self._index(j))
        if found is None:
            raise ValueError(f"no path on the graph connects {i} and {j}: the metric is not finite on the way")
        return found

    def path(self, i: int, j: int) -> Points:
        """The path from ``i`` to ``j`` as 65 points at equal distances in the metric, ``(65, d)``: an ``init`` for
        `geodesic`."""
        corners = self.route(i, j)
        nodes = along(np.asarray(self.points)[corners], self.distances[self._row(i), corners], NODES)
        return jnp.asarray(nodes, self.points.dtype)

    def bounds(self, pairs: Any) -> Float[np.ndarray, " p"]:
        """Bounds from above for the ``pairs`` ``(p, 2)``, the first of which are sources: the least of the distance on
        the graph, and in the metric, with their estimated errors, of the lengths of the straight line and of a
        polynomial of degree four that some steps of descent from there lead to. Much less work than a solve."""
        pairs = _check_pairs(pairs)
        least = np.array([self.distances[self._row(i), self._index(j)] for i, j in pairs])
        curves = (None, bend(self.metric, self.points, pairs))
        for bends in curves:
            lengths, errors = chord_lengths(self.metric, self.points, pairs, _RTOL, bends=bends)
            least = np.minimum(least, lengths + errors)
        return least

    def refine(
        self,
        pairs: Any,
        *,
        solver: AbstractBoundarySolver | None = None,
        batch_size: int | None = None,
        progress: bool = False,
    ) -> RefinedDistances:
        """Distances of the ``pairs`` ``(p, 2)``, the first of which are sources, solved from the straight line and from
        the path on the graph.

        The distance is the least length over the starts whose solve gave a geodesic; where none did, the least finite
        length found, or NaN. ``result`` has the codes; nothing is raised for a solve that fails. Without a path on the
        graph both starts are the straight line.

        ``solver``, ``batch_size`` (in pairs), ``progress``: as for `pairwise_dist`.
        """
        pairs = _check_pairs(pairs)
        rows = [self._row(i) for i in pairs[:, 0]]
        bounds = np.array([self.distances[row, self._index(j)] for row, j in zip(rows, pairs[:, 1], strict=True)])
        solve, points = TwoStarts(self.metric, solver, batch_size, self.points), np.asarray(self.points)
        size = solve.size = side_by_side(solve.size, len(pairs))
        parts = []
        with progress_bar(len(pairs), shown=progress) as advance:
            for start in range(0, len(pairs), size):
                some, finite = pairs[start : start + size], np.isfinite(bounds[start : start + size])
                paths = [
                    np.asarray(self.path(i, j)) if known else np.linspace(points[i], points[j], NODES)
                    for (i, j), known in zip(some, finite, strict=True)
                ]
                parts.append(solve.solve(points[some[:, 0]], points[some[:, 1]], np.stack(paths)))
                advance(len(some))
        lengths, codes, from_graph = (np.concatenate(part) for part in zip(*parts, strict=True))
        return RefinedDistances(pairs, lengths, as_results(codes), bounds, from_graph)

    def _index(self, j: Any) -> int:
        if not (is_integer(j) and 0 <= j < len(self.points)):
            raise ValueError(f"points must be given as integers from 0 to {len(self.points) - 1}, got {j!r}")
        return int(j)

    def _row(self, i: Any) -> int:
        rows = np.flatnonzero(self.sources == self._index(i))
        if not rows.size:
            raise ValueError(f"point {i} is not one of the `sources` of this graph")
        return int(rows[0])


def _check_pairs(pairs: Any) -> Int[np.ndarray, "p 2"]:
    pairs = np.asarray(pairs)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or not np.issubdtype(pairs.dtype, np.integer) or not len(pairs):
        raise ValueError(f"`pairs` must be integers of shape (p, 2), p >= 1, got {pairs.dtype} {pairs.shape}")
    return pairs


def graph_dist(
    metric: AbstractMetric,
    xs: Points,
    neighbors: int = 10,
    *,
    sources: Sequence[int] | Int[np.ndarray, " s"] | None = None,
    rtol: float = _RTOL,
    progress: bool = False,
) -> GraphDistances:
    """Bounds from above of all distances among ``xs`` ``(n, d)``: the shortest paths on a graph, at the cost of a few
    evaluations of the metric for each edge and nothing else.

    Each point is joined with its ``neighbors`` nearest ones in Euclidean distance, in both directions. Where that
    leaves parts that are not connected, the shortest edges that connect them are added (of the minimum spanning tree;
    the result's ``bridges`` says which). An edge is as long as its straight segment in the metric: by Gauss quadrature
    on ever more panels until two numbers of them agree within ``rtol``, and twice the difference is added, so that it
    is a bound as far as such an estimate goes. The bound falls with more points and more neighbours; it is one of the
    least geodesic distance, where a solver may find a longer local geodesic. How close it is depends on the data: where
    points are few for their dimension, a path from point to point is a detour, and straight lines may be shorter
    (`GraphDistances.bounds` looks at these too).

    **Arguments**

    - ``neighbors``: less than the number of different points.
    - ``sources``: which points paths start from; default all, which takes a matrix ``(n, n)``, twice.
    - ``progress``: show a progress bar of the edges.

    **Returns** `GraphDistances`, whose ``path(i, j)`` is an ``init`` for `geodesic`, and whose ``refine(pairs)`` solves
    those pairs. On the host, by SciPy; raises ``TypeError`` under ``jit``.

    >>> import jax.numpy as jnp
    >>> from scoregeo import EuclideanMetric
    >>> from scoregeo.statistics import graph_dist
    >>> corner = jnp.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    >>> found = graph_dist(EuclideanMetric(), corner, neighbors=1)
    >>> found.distances.round(4).tolist()
    [[0.0, 1.0, 2.0], [1.0, 0.0, 1.0], [2.0, 1.0, 0.0]]
    >>> found.route(0, 2)
    [0, 1, 2]
    """
    xs = as_points(xs, "xs")
    if is_traced((metric, xs)):
        raise TypeError("`graph_dist` works on the host: call it outside of `jit`, `vmap` and `grad`")
    check_metric(metric, xs[0])
    n = len(xs)
    starts = np.arange(n) if sources is None else np.asarray(sources)
    if starts.ndim != 1 or not np.issubdtype(starts.dtype, np.integer) or not starts.size:
        raise ValueError(f"`sources` must be integers of shape (s,), s >= 1, got {starts.dtype} {starts.shape}")
    if starts.min() < 0 or starts.max() >= n:
        raise ValueError(f"`sources` must be from 0 to {n - 1}, got {starts.min()} to {starts.max()}")
    graph = metric_graph(metric, xs, neighbors, rtol, progress)
    distances, previous = shortest(as_sparse(n, graph.edges, graph.lengths), starts)
    return GraphDistances(metric, xs, distances, previous, starts, *graph)


class MetricGraph(NamedTuple):
    """The part of `GraphDistances` that is the graph."""

    edges: Int[np.ndarray, "e 2"]
    lengths: Float[np.ndarray, " e"]
    errors: Float[np.ndarray, " e"]
    bridges: Int[np.ndarray, "b 2"]


def metric_graph(metric: AbstractMetric, xs: Points, neighbors: int, rtol: float, progress: bool) -> MetricGraph:
    """The graph of nearest neighbours with lengths in the metric, connected; copies of a point are next to it."""
    if not (is_number(rtol) and 0 < rtol < 1):
        raise ValueError(f"`rtol` must be a number between 0 and 1, got {rtol!r}")
    check_count("neighbors", neighbors)
    values = np.asarray(xs)
    # The nearest neighbours of a point would be its own copies.
    _, first, inverse = np.unique(values, axis=0, return_index=True, return_inverse=True)
    inverse = inverse.reshape(-1)
    joined = np.zeros((0, 2), int)
    added = joined
    if len(first) > 1:
        check_fewer("neighbors", neighbors, len(first), "different points")
        joined = neighbor_pairs(values[first], int(neighbors))
        added = bridges(values[first], joined)
    edges = first[np.concatenate([joined, added])]
    lengths, errors = chord_lengths(metric, xs, edges, rtol, progress)
    copies = np.flatnonzero(first[inverse] != np.arange(len(values)))
    edges = np.concatenate([edges, np.stack([first[inverse[copies]], copies], -1)])
    nothing = np.zeros(len(copies))
    return MetricGraph(
        edges, np.concatenate([lengths + errors, nothing]), np.concatenate([errors, nothing]), first[added]
    )
