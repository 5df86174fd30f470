"""Pairs of points whose geodesics the library solves, for readers to compare the page with."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from .._graphs import along, as_sparse, route
from .._graphs import shortest as shortest_on
from .._results import RESULTS, status_name
from .._types import Points
from ..geodesics import SpectralNewton
from ..metrics import AbstractMetric
from ..operations import dist
from .grid import Grid, any_values_on
from .levels import Level
from .plane import Plane

# Lengths to four digits: the page has three.
_SOLVER = SpectralNewton(rtol=1e-4, path_rtol=1.0)
# Among how many points of the data ends are looked for, and at how many places of a line.
_CANDIDATES, _PLACES = 40, 65
# Cells of the coarse grid along its longer side, and where one moves on it.
_CELLS, _MOVES = 40, ((1, 0), (0, 1), (1, 1), (1, -1), (2, 1), (1, 2), (2, -1), (1, -2))


@dataclasses.dataclass(frozen=True)
class Reference:
    """A length by the library: which metric of which level, how strong, between which points of the plane."""

    metric: str
    level: int
    ratio: float
    start: tuple[float, float]
    end: tuple[float, float]
    length: float
    status: str

    def to_dict(self) -> dict[str, Any]:
        """What the page is told of it; the length is ``None`` where the solve failed."""
        length = self.length if self.status == "successful" else None
        return dataclasses.asdict(self) | {"length": length}


def choose_pairs(grid: Grid, level: Level, shown: np.ndarray, ratio: float, count: int) -> np.ndarray:
    """``count`` pairs among ``shown`` ``(n, 2)`` with different ends, whose straight lines are longest in the Stein
    metric; shape ``(count, 2, 2)``."""
    low, high = np.array(grid.view).reshape(2, 2).T
    border = 0.03 * (high - low)
    inside = shown[((shown > low + border) & (shown < high - border)).all(1)]
    if len(inside) < 2:
        inside = low + (high - low) * np.array([[0.25, 0.4], [0.75, 0.6]])
    some = np.random.default_rng(0).permutation(len(inside))[:_CANDIDATES]
    points = inside[np.sort(some)]
    first, second = np.triu_indices(len(points), 1)
    t = np.linspace(0, 1, _PLACES)[:, None, None]
    lines = (1 - t) * points[first] + t * points[second]
    heights = grid.evaluate(level.log_prob, lines.reshape(-1, 2)).reshape(_PLACES, -1)
    steps = (np.diff(lines, axis=0) ** 2).sum(-1) + level.stein * (ratio - 1) * np.diff(heights, axis=0) ** 2
    order = np.argsort(-np.sqrt(steps).sum(0), kind="stable")
    pairs: list[int] = []
    used: set[int] = set()
    for k in order.tolist():
        ends = {int(first[k]), int(second[k])}
        if len(pairs) < count and not used & ends:
            pairs.append(k)
            used |= ends
    return np.stack([points[first[pairs]], points[second[pairs]]], 1)


def solve_references(
    levels: list[Level],
    kinds: list[str],
    data: Points,
    plane: Plane,
    grid: Grid,
    pairs: np.ndarray,
    level: int,
    ratio: float,
) -> list[Reference]:
    """The lengths of ``pairs`` ``(n, 2, 2)`` by the library in each of the metrics ``kinds``, at one level and ratio:
    the shorter of two solves, from the straight line and from the shortest path on a coarse grid."""
    found = []
    for kind in kinds:
        metric = plane.restrict(levels[level].metric(kind, data, ratio))
        starts = grid_paths(metric, grid, pairs)
        for pair, start in zip(pairs, starts, strict=True):
            length, status = shortest(metric, pair, start)
            ends = [tuple(float(c) for c in end) for end in pair]
            found.append(Reference(kind, level, ratio, ends[0], ends[1], length, status))  # pyright: ignore[reportArgumentType]
    return found


def shortest(metric: AbstractMetric, pair: np.ndarray, start: np.ndarray) -> tuple[float, str]:
    """The shorter geodesic of those from two starts, the straight line and the nodes ``start``: length and status."""
    line = np.linspace(pair[0], pair[1], len(start))
    best, status = np.inf, ""
    for nodes in (start, line):
        ends = jnp.asarray(pair[0]), jnp.asarray(pair[1])
        length, result = dist(metric, *ends, solver=_SOLVER, init=jnp.asarray(nodes), with_result=True)
        good = bool(result == RESULTS.successful)
        if good and (status != "successful" or float(length) < best):
            best, status = float(length), "successful"
        elif not status:
            best, status = float(length), str(status_name(result))
    return best, status


def grid_paths(metric: AbstractMetric, grid: Grid, pairs: np.ndarray) -> list[np.ndarray]:
    """Nodes of shortest paths on a coarse grid over the view, for ``pairs`` ``(n, 2, 2)``, each ``(65, 2)`` at equal
    lengths of the metric (Dijkstra 1959); the straight line where there is none.

    Where a metric overflows, in the corners of a picture, no way leads through.
    """
    low, high = np.array(grid.view).reshape(2, 2).T
    step = (high - low).max() / _CELLS
    nx, ny = (int(side) for side in np.round((high - low) / step) + 1)
    points = low + step * np.stack(np.meshgrid(np.arange(nx), np.arange(ny)), -1).reshape(-1, 2)
    matrices = any_values_on(lambda u: metric.at(u).matrix(2), points)

    def lengths(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        steps = points[second] - points[first]
        with np.errstate(over="ignore", invalid="ignore"):
            both = [np.sqrt(np.einsum("ki,kij,kj->k", steps, matrices[at], steps)) for at in (first, second)]
        return (both[0] + both[1]) / 2

    first, second = _moves(nx, ny)
    graph = as_sparse(len(points), np.stack([first, second], -1), lengths(first, second))
    paths = []
    for pair in pairs:
        start, end = (int(np.argmin(np.linalg.norm(points - place, axis=1))) for place in pair)
        back = route(shortest_on(graph, end)[1], end, start)
        if back is None or len(back) < 3:  # no way, or two ends in one cell
            paths.append(np.linspace(pair[0], pair[1], _PLACES))
            continue
        whole = np.array(back[::-1])
        sums = np.concatenate([[0.0], np.cumsum(lengths(whole[:-1], whole[1:]))])
        path = along(points[whole], sums, _PLACES)
        path[0], path[-1] = pair
        paths.append(path)
    return paths


def _moves(nx: int, ny: int) -> tuple[np.ndarray, np.ndarray]:
    """From where to where one moves on a grid: the nodes at both ends, each ``(k,)``."""
    i, j = np.meshgrid(np.arange(nx), np.arange(ny))
    first, second = [], []
    for p, q in _MOVES:
        inside = (i + p < nx) & (j + q >= 0) & (j + q < ny)
        first.append((j * nx + i)[inside])
        second.append(((j + q) * nx + i + p)[inside])
    return np.concatenate(first), np.concatenate(second)
