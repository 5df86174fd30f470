"""Nearest neighbours in a metric, exactly, without solving for most pairs: what is surely far is not asked how far."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._checks import as_points, check_count
from .._graphs import along, as_sparse, nearest_in, route, shortest
from .._numerics import is_traced, with_own_settings
from .._pairs.progress import progress_bar
from .._pairs.stream import as_results
from .._results import RESULTS
from .._types import Points
from ..geodesics import AbstractBoundarySolver
from ..geodesics.checks import check_metric
from ..geodesics.curves import NODES
from ..metrics import AbstractMetric, lifted
from ._chords import chord_lengths
from ._starts import TwoStarts
from .graph import metric_graph

# A bound counts only where it is larger by more than this, relative to it: solved lengths have errors.
_SLACK = 1e-3
# How exact the lengths of edges are: they lead to starts and to an order of candidates, to no result.
_RTOL = 1e-2
# Pairs of queries and points that are looked at together: a few arrays of this size are in memory.
_MOST_PAIRS = 2**24
# Points that are lifted side by side.
_LIFTED = 1024


class Neighbors(eqx.Module):
    """The nearest points in a metric, as `nearest` returns them.

    **Fields**

    - ``indices`` ``(q, k)``: which of the points, nearest first; -1 where fewer than k have a finite distance.
    - ``distances`` ``(q, k)``: how far they are; infinite there.
    - ``result``: the `RESULTS` codes of these distances, ``(q, k)``.
    - ``pruned`` ``(q,)``: the share of the points that were never solved for.
    - ``failed`` ``(q,)``: for how many points no solve gave a geodesic, of those that were solved for.
    """

    indices: Int[np.ndarray, "q k"]
    distances: Float[np.ndarray, "q k"]
    result: RESULTS
    pruned: Float[np.ndarray, " q"]
    failed: Int[np.ndarray, " q"]


def nearest(
    metric: AbstractMetric,
    xs: Points,
    queries: Float[Array, "q d"] | None = None,
    k: int = 10,
    *,
    neighbors: int = 10,
    solver: AbstractBoundarySolver | None = None,
    batch_size: int | None = None,
    prune: bool = True,
    progress: bool = False,
) -> Neighbors:
    """The ``k`` points among ``xs`` ``(n, d)`` that are nearest in the metric to each of ``queries`` ``(q, d)``;
    without queries, to each of ``xs``, itself left out.

    The distance of two points is the least length over two solves: from the straight line, and from the shortest path
    on the graph of nearest neighbours among ``xs`` (see `graph_dist`) to which the query is joined. What counts are
    solves that gave a geodesic (``successful``, or ``accuracy_not_reached``); where neither did, the least finite
    length that was found stands for it, and counts in ``failed``; where there is none, the point is infinitely far.

    **Exact**: the same as solving for every pair (``prune=False``), but pairs are not solved whose distance cannot be
    among the k least. Candidates are taken in order of a lower bound (`scoregeo.metrics.lower_bound`), after those that
    the graph says are near; the rest is left as soon as the next bound is above the k-th distance. How much that saves
    depends on how close the bound is. Metrics that are Euclid's plus something have Euclid's distance, graph metrics
    and Stein metrics of a known log density that of the graph. Powers of a density have Euclid's times the least factor
    there is, which for large contrasts is far below the usual one, and where the density has no known maximum nothing:
    then every pair is solved.

    **Arguments**

    - ``neighbors``: of each point on the graph of the starts, at most one less than there are different points.
    - ``solver``, ``batch_size`` (in pairs): as for `pairwise_dist`.
    - ``progress``: show a progress bar; pairs that are pruned count as done.

    Works on the host; raises ``TypeError`` under ``jit``, ``ValueError`` for ``k`` larger than there are points.

    >>> import jax.numpy as jnp
    >>> from scoregeo import GraphMetric
    >>> from scoregeo.statistics import nearest
    >>> slope = GraphMetric(lambda x: 3.0 * x[0])  # one direction is dear
    >>> found = nearest(slope, jnp.array([[1.0, 0.0], [0.0, 2.0], [9.0, 9.0]]), jnp.zeros((1, 2)), k=1, neighbors=1)
    >>> found.indices.tolist(), found.distances.round(3).tolist()
    ([[1]], [[2.0]])
    """
    xs = as_points(xs, "xs")
    among = queries is None
    queries = xs if queries is None else as_points(queries, "queries", dim=xs.shape[1])
    if is_traced((metric, xs, queries)):
        raise TypeError("`nearest` works on the host: call it outside of `jit`, `vmap` and `grad`")
    xs, queries = xs.astype(jnp.result_type(xs, queries)), queries.astype(jnp.result_type(xs, queries))
    check_metric(metric, xs[0])
    if among and len(xs) < 2:
        raise ValueError(f"`xs` must have at least two points where no `queries` are given, got {len(xs)}")
    if check_count("k", k) > len(xs) - among:
        raise ValueError(f"`k` must be at most {len(xs) - among} for {len(xs)} points, got {k}")
    # Copies of a point are no neighbours of their own on the graph.
    different = len(np.unique(np.asarray(xs), axis=0))
    neighbors = min(check_count("neighbors", neighbors), max(1, different - 1))
    edges, lengths = metric_graph(metric, xs, neighbors, _RTOL, False)[:2]
    if batch_size is None:
        # No more than there is to ask at once.
        batch_size = min(TwoStarts(metric, solver, None, xs).size, 2 ** int(np.ceil(np.log2(len(queries) * k))))
    two, parts = TwoStarts(metric, solver, batch_size, xs), []
    some = max(1, _MOST_PAIRS // len(xs))
    with progress_bar(len(xs) * len(queries), shown=progress) as advance:
        for start in range(0, len(queries), some):
            ends = queries[start : start + some]
            starts = _Starts(metric, xs, ends, edges, lengths, neighbors)
            bounds = _lower_bounds(metric, xs, ends) if prune else np.zeros((len(ends), len(xs)))
            search = _Search(bounds, starts.bounds, int(k), start if among else None)
            _solve_what_matters(search, starts, two, xs, ends, advance)
            parts.append(search.found())
    indices, distances, codes, pruned, failed = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Neighbors(indices, distances, as_results(codes), pruned, failed)


def _solve_what_matters(
    search: "_Search",
    starts: "_Starts",
    two: TwoStarts,
    xs: Points,
    queries: Float[Array, "q d"],
    advance: Callable[[int], None],
) -> None:
    points, ends, done = np.asarray(xs), np.asarray(queries), 0
    while True:
        rows, columns = search.next_batch(two.size)
        if not rows.size:
            break
        paths = np.stack([starts.path(i, j) for i, j in zip(rows, columns, strict=True)])
        lengths, codes, _ = two.solve(ends[rows], points[columns], paths)
        search.learn(rows, columns, lengths, codes)
        now = search.settled()
        advance(now - done)
        done = now
    advance(search.settled() - done)


class _Starts:
    """Paths from queries to points on the graph of the points; no path leads through another query."""

    def __init__(
        self,
        metric: AbstractMetric,
        xs: Points,
        queries: Float[Array, "q d"],
        edges: Int[np.ndarray, "e 2"],
        lengths: Float[np.ndarray, " e"],
        neighbors: int,
    ):
        n, q = len(xs), len(queries)
        close = nearest_in(np.asarray(xs), np.asarray(queries), min(neighbors, n))
        links = np.stack([np.repeat(n + np.arange(q), close.shape[1]), close.reshape(-1)], -1)
        self._corners = np.concatenate([np.asarray(xs), np.asarray(queries)])
        link_lengths, errors = chord_lengths(metric, jnp.asarray(self._corners), links, _RTOL)
        pairs = np.concatenate([edges, edges[:, ::-1], links])
        graph = as_sparse(n + q, pairs, np.concatenate([lengths, lengths, link_lengths + errors]))
        distances, self._previous = shortest(graph, n + np.arange(q), directed=True)
        self._distances, self._n = distances, n
        self.bounds = distances[:, :n]

    def path(self, query: int, point: int) -> np.ndarray:
        """The nodes of the path; of the straight line where there is none."""
        source = self._n + query
        way = route(self._previous[query], source, point)
        if way is None:
            return np.linspace(self._corners[source], self._corners[point], NODES)
        return along(self._corners[way], self._distances[query, way], NODES)


class _Search:
    """Which pairs are still to be solved. Those that the graph says are near come first, then in order of bounds."""

    def __init__(self, bounds: Float[np.ndarray, "q n"], above: Float[np.ndarray, "q n"], k: int, own: int | None):
        self._bounds, self._k = bounds * (1 - _SLACK), k
        q, n = bounds.shape
        self._lengths, self._codes = np.full((q, n), np.inf), np.zeros((q, n), np.int32)
        self._solved = np.zeros((q, n), bool)
        self._own = None if own is None else (np.arange(q), own + np.arange(q))
        if self._own is not None:
            self._solved[self._own] = True  # and infinitely far: never asked for
        first = np.argsort(np.where(self._solved, np.inf, above), axis=1, kind="stable")[:, :k]
        ahead = np.full((q, n), 1)
        np.put_along_axis(ahead, first, 0, 1)
        self._order = np.lexsort((self._bounds, ahead), axis=1)
        self._at, self._open = np.zeros(q, int), np.ones(q, bool)
        self._threshold = np.full(q, np.inf)

    def next_batch(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Up to ``size`` pairs that may matter, from all queries in turn."""
        rows: list[int] = []
        columns: list[int] = []
        while len(rows) < size and self._open.any():
            # A few from every query: what they tell leaves out more.
            share = max(1, (size - len(rows)) // int(self._open.sum()))
            for i in np.flatnonzero(self._open):
                room = min(share, size - len(rows))
                if room == 0:
                    break
                chosen = self._next_of(int(i), room)
                rows += [int(i)] * len(chosen)
                columns += chosen
            if rows and not np.isfinite(self._threshold[self._open]).all():
                break  # the first k of a query say where to stop
        return np.array(rows, int), np.array(columns, int)

    def _next_of(self, i: int, room: int) -> list[int]:
        chosen: list[int] = []
        # Before k are known no bound can tell, and more than k would be asked in vain.
        room = min(room, max(1, self._k - self._at[i])) if not np.isfinite(self._threshold[i]) else room
        while len(chosen) < room:
            if self._at[i] == self._order.shape[1]:
                self._open[i] = False
                break
            j = int(self._order[i, self._at[i]])
            if self._at[i] >= self._k and self._bounds[i, j] > self._threshold[i]:
                self._open[i] = False  # and so are all that follow
                break
            self._at[i] += 1
            if not self._solved[i, j]:
                chosen.append(j)
                self._solved[i, j] = True
        return chosen

    def learn(self, rows: np.ndarray, columns: np.ndarray, lengths: np.ndarray, codes: np.ndarray) -> None:
        """What was solved."""
        self._lengths[rows, columns] = np.where(np.isfinite(lengths), lengths, np.inf)
        self._codes[rows, columns] = codes
        touched = np.unique(rows)
        self._threshold[touched] = np.partition(self._lengths[touched], self._k - 1, axis=1)[:, self._k - 1]

    def settled(self) -> int:
        """How many pairs are solved, or need not be."""
        return int(np.where(self._open, self._at, self._order.shape[1]).sum())

    def found(self) -> tuple[np.ndarray, ...]:
        """The fields of `Neighbors`, with numbers of codes, once there is no more to solve."""
        order = np.argsort(self._lengths, axis=1, kind="stable")[:, : self._k]
        lengths, codes = (np.take_along_axis(part, order, 1) for part in (self._lengths, self._codes))
        asked, candidates = self._solved.copy(), self._solved.shape[1]
        if self._own is not None:
            asked[self._own] = False
            candidates -= 1
        indices = np.where(np.isfinite(lengths), order, -1)
        failed = (asked & ~self._gave_geodesic()).sum(1)
        return indices, lengths, codes, 1 - asked.sum(1) / candidates, failed

    def _gave_geodesic(self) -> Bool[np.ndarray, "q n"]:
        good = [int(jax.tree.leaves(code)[0]) for code in (RESULTS.successful, RESULTS.accuracy_not_reached)]
        return np.isin(self._codes, good) & np.isfinite(self._lengths)


def _lower_bounds(metric: AbstractMetric, xs: Points, queries: Float[Array, "q d"]) -> Float[np.ndarray, "q n"]:
    """Lower bounds of all distances; zero where they are not numbers."""
    from scipy.spatial.distance import cdist

    lifts = [np.asarray(_lift_all(metric, points), np.float64) for points in (queries, xs)]
    return np.nan_to_num(cdist(lifts[0], lifts[1]), nan=0.0, posinf=0.0)


@eqx.filter_jit
@with_own_settings
def _lift_all(metric: AbstractMetric, points: Points) -> Any:
    return jax.lax.map(lambda x: lifted(metric, x), points, batch_size=_LIFTED)
