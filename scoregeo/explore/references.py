"""Pairs of points whose geodesics the library solves, for readers to compare the page with."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from .._results import RESULTS, status_name
from .._types import Points
from ..geodesics import SpectralNewton
from ..operations import dist
from .grid import Grid
from .levels import Level
from .plane import Plane

# Lengths to four digits: the page has three.
_SOLVER = SpectralNewton(rtol=1e-4, path_rtol=1.0)
# Among how many points of the data ends are looked for, and at how many places of a line.
_CANDIDATES, _PLACES = 40, 65


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
    for k in order:
        if len(pairs) == count:
            break
        if not used & {first[k], second[k]}:
            pairs.append(k)
            used |= {first[k], second[k]}
    return np.stack([points[first[pairs]], points[second[pairs]]], 1)


def solve_references(
    levels: list[Level], kinds: list[str], data: Points, plane: Plane, pairs: np.ndarray, level: int, ratio: float
) -> list[Reference]:
    """The lengths of ``pairs`` ``(n, 2, 2)`` by the library in each of the metrics ``kinds``, at one level and
    ratio."""
    found = []
    for kind in kinds:
        metric = plane.restrict(levels[level].metric(kind, data, ratio))
        for start, end in pairs:
            length, result = dist(metric, jnp.asarray(start), jnp.asarray(end), solver=_SOLVER, with_result=True)
            good = bool(result == RESULTS.successful)
            status = "successful" if good else str(status_name(result))
            ends = (tuple(float(c) for c in start), tuple(float(c) for c in end))
            found.append(Reference(kind, level, ratio, *ends, float(length), status))  # pyright: ignore[reportArgumentType]
    return found
