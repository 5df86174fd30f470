"""The exponential map in the plane, as a picture: geodesics that leave one point in all directions, with circles; and a
grid of the tangent plane, carried over."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection

from .._checks import as_point, check_count
from .._results import RESULTS
from .._types import Point, Vector
from ..geodesics import Geodesic, shoot
from ..metrics import AbstractMetric
from .fields import check_axes, label_plane

# Times at which a geodesic of a fan is drawn, per ring, and directions between two rays: circles are drawn through
# all of them, since rays part where the curvature is negative.
_PER_RING, _BETWEEN = 24, 8
# Into so many pieces the line of a grid is cut in each cell.
_PER_CELL = 6


class FanArtists(NamedTuple):
    """What `geodesic_fan` draws: ``rays``, ``circles``, the ``centre``, and ``fan``, the batch of `Geodesic` shown.

    ``fan.result`` has the status of every ray. One that failed ends where its integration did, and circles have gaps.
    """

    rays: LineCollection
    circles: LineCollection
    centre: PathCollection
    fan: Geodesic


def geodesic_fan(
    ax: Axes,
    metric: AbstractMetric,
    x: Point,
    radius: float,
    *,
    n: int = 32,
    rings: int = 4,
    max_steps: int = 1024,
    **style: Any,
) -> FanArtists:
    """``n`` geodesics from ``x`` in all directions, each of length ``radius`` in the metric, and circles around ``x``.

    In the plane this is the grid of polar coordinates that the exponential map makes. Directions are equally spaced to
    the metric at ``x``. A geodesic is the shortest way only up to where it meets others: beyond, circles cross.

    **Arguments**

    - ``ax``: the axes; equal aspect, and labels where it has none, are set, and limits grow to show the fan.
    - ``metric``: an `AbstractMetric` on the plane; ``x`` a point, ``(2,)``.
    - ``radius``: the length of the geodesics, and the radius of the outermost circle.
    - ``rings``: circles, equally spaced.
    - ``max_steps``: of each integration, as for `shoot`.
    - ``**style``: passed on to the ``LineCollection`` of the rays, over the defaults here.

    Raises ``ValueError`` for a point that is not in the plane, or a radius that is not positive.

    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> from scoregeo import models
    >>> fan = geodesic_fan(Figure().subplots(), models.Sphere(), np.zeros(2), 1.0, n=8).fan
    >>> fan.points.shape, bool(np.allclose(fan.length, 1.0))
    ((8, 97, 2), True)
    """
    check_axes(ax)
    x = as_point(x, "x", dim=2)
    check_count("n", n, 3)
    check_count("rings", rings, 1)
    _check_radius(radius)
    everyone = _fan(metric, x, jnp.asarray(radius, x.dtype), _BETWEEN * n, _PER_RING * rings + 1, max_steps)
    fan, points = jax.tree.map(lambda leaf: leaf[::_BETWEEN], everyone), np.asarray(everyone.points)
    style = {"colors": "#D55E00", "linewidths": 1.0, "zorder": 3, **style}
    rays = LineCollection([ray[np.isfinite(ray).all(-1)] for ray in points[::_BETWEEN]], capstyle="round", **style)
    around = np.concatenate([points, points[:1]])[:, _PER_RING::_PER_RING].swapaxes(0, 1)
    # matplotlib leaves a gap where a point is NaN.
    circles = LineCollection(list(around), colors="#0072B2", linewidths=1.0, zorder=style["zorder"] - 0.5)
    ax.add_collection(circles)
    ax.add_collection(rays)
    centre = _finish(ax, x, points)
    return FanArtists(rays, circles, centre, fan)


def _check_radius(radius: Any) -> None:
    if not (np.isfinite(radius) and radius > 0):
        raise ValueError(f"`radius` must be a positive number, got {radius!r}")


def _finish(ax: Axes, x: Point, points: np.ndarray) -> PathCollection:
    """Mark the point ``x`` that all starts from, and make room for those of ``points`` that are finite."""
    centre = ax.scatter(*np.asarray(x), s=28, c="#111111", edgecolors="white", linewidths=0.8, zorder=5)
    seen = points[np.isfinite(points).all(-1)]
    if len(seen):
        ax.update_datalim(seen)
        ax.autoscale_view()
    label_plane(ax)
    return centre


def _fan(metric: AbstractMetric, x: Point, radius: Any, n: int, samples: int, max_steps: int) -> Geodesic:
    """The geodesics of a fan, a batch; those that fail are there, with NaN from where they did."""
    ts = jnp.linspace(0.0, 1.0, samples, dtype=x.dtype)

    def of(angle):
        v = _to_metric(metric, x, jnp.stack([jnp.cos(angle), jnp.sin(angle)]))
        return shoot(metric, x, radius * v, ts=ts, dense=False, max_steps=max_steps, throw=False)

    return jax.jit(jax.vmap(of))(jnp.linspace(0.0, 2 * jnp.pi, n, endpoint=False, dtype=x.dtype))


def _to_metric(metric: AbstractMetric, x: Point, v: Vector) -> Vector:
    """``G(x)^(-1/2) v``: vectors ``v`` with Euclid's lengths and angles, as ones with the same to the metric."""
    values, vectors = jnp.linalg.eigh(metric.at(x).matrix(2))
    return vectors @ ((vectors.T @ v) / jnp.sqrt(values))


class GridArtists(NamedTuple):
    """What `exponential_grid` draws: ``lines``, the ``centre``, and what they are drawn from: ``points``
    ``(2, n + 1, m, 2)``, the lines across and the lines up, and their status ``result``, ``(2, n + 1, m)``.

    Where an integration failed the points are NaN, and lines have gaps.
    """

    lines: LineCollection
    centre: PathCollection
    points: np.ndarray
    result: RESULTS


def exponential_grid(
    ax: Axes, metric: AbstractMetric, x: Point, radius: float, *, n: int = 8, max_steps: int = 1024, **style: Any
) -> GridArtists:
    """The tangent plane at ``x``, ruled in squares, as the exponential map lays it on the plane.

    A vector of the tangent plane goes where the geodesic with that velocity is at time 1. Squares and right angles are
    those of the metric at ``x``; away from there they are kept as far as the metric is flat, and lines cross where
    geodesics have met.

    **Arguments**

    - ``ax``: the axes; equal aspect, and labels where it has none, are set, and limits grow to show the grid.
    - ``metric``: an `AbstractMetric` on the plane; ``x`` a point, ``(2,)``.
    - ``radius``: half the side of the whole square, as a length of the metric.
    - ``n``: cells along each side; an even number has lines through ``x``.
    - ``max_steps``: of each integration, as for `shoot`.
    - ``**style``: passed on to the ``LineCollection``, over the defaults here.

    Raises ``ValueError`` for a point that is not in the plane, or a radius that is not positive.

    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> from scoregeo import EuclideanMetric
    >>> points = exponential_grid(Figure().subplots(), EuclideanMetric(), np.zeros(2), 1.0, n=2).points
    >>> points.shape, points[0, :, 0].round(6).tolist()
    ((2, 3, 13, 2), [[-1.0, -1.0], [-1.0, 0.0], [-1.0, 1.0]])
    """
    check_axes(ax)
    x = as_point(x, "x", dim=2)
    check_count("n", n)
    _check_radius(radius)
    along, across = jnp.linspace(-radius, radius, _PER_CELL * n + 1), jnp.linspace(-radius, radius, n + 1)
    lines = jnp.stack(jnp.meshgrid(along, across), -1)
    vectors = jnp.stack([lines, lines[..., ::-1]]).astype(x.dtype)

    def end(v):
        path = shoot(metric, x, _to_metric(metric, x, v), ts=jnp.array([0.0, 1.0]), dense=False, max_steps=max_steps,
                     throw=False)  # fmt: skip
        return path.points[-1], path.result

    flat, result = jax.jit(jax.vmap(end))(vectors.reshape(-1, 2))
    points = np.asarray(flat).reshape(vectors.shape)
    result = jax.tree.map(lambda leaf: leaf.reshape(vectors.shape[:-1]), result)
    style = {"colors": ["#D55E00"] * (n + 1) + ["#0072B2"] * (n + 1), "linewidths": 1.0, "zorder": 3, **style}
    artist = LineCollection(list(points.reshape(-1, *points.shape[2:])), capstyle="round", **style)
    ax.add_collection(artist)
    centre = _finish(ax, x, points)
    return GridArtists(artist, centre, points, result)
