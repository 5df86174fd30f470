"""Geodesics that leave one point in all directions, and how far they get: the exponential map in the plane."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection

from .._checks import as_point, check_count
from .._types import Point
from ..geodesics import Geodesic, shoot
from ..metrics import AbstractMetric
from .fields import check_axes, label_plane

# Times at which a geodesic of a fan is drawn, per ring, and directions between two rays: circles are drawn through
# all of them, since rays part where the curvature is negative.
_PER_RING, _BETWEEN = 24, 8


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
    if not (np.isfinite(radius) and radius > 0):
        raise ValueError(f"`radius` must be a positive number, got {radius!r}")
    everyone = _fan(metric, x, jnp.asarray(radius, x.dtype), _BETWEEN * n, _PER_RING * rings + 1, max_steps)
    fan, points = jax.tree.map(lambda leaf: leaf[::_BETWEEN], everyone), np.asarray(everyone.points)
    style = {"colors": "#D55E00", "linewidths": 1.0, "zorder": 3, **style}
    rays = LineCollection([ray[np.isfinite(ray).all(-1)] for ray in points[::_BETWEEN]], capstyle="round", **style)
    around = np.concatenate([points, points[:1]])[:, _PER_RING::_PER_RING].swapaxes(0, 1)
    # matplotlib leaves a gap where a point is NaN.
    circles = LineCollection(list(around), colors="#0072B2", linewidths=1.0, zorder=style["zorder"] - 0.5)
    ax.add_collection(circles)
    ax.add_collection(rays)
    centre = ax.scatter(*np.asarray(x), s=28, c="#111111", edgecolors="white", linewidths=0.8, zorder=5)
    seen = points[np.isfinite(points).all(-1)]
    if len(seen):
        ax.update_datalim(seen)
        ax.autoscale_view()
    label_plane(ax)
    return FanArtists(rays, circles, centre, fan)


def _fan(metric: AbstractMetric, x: Point, radius: Any, n: int, samples: int, max_steps: int) -> Geodesic:
    """The geodesics of a fan, a batch; those that fail are there, with NaN from where they did."""
    ts = jnp.linspace(0.0, 1.0, samples, dtype=x.dtype)

    def of(angle):
        direction = jnp.stack([jnp.cos(angle), jnp.sin(angle)])
        # A direction of the unit circle, as a vector of length one to the metric: by the inverse root of G.
        values, vectors = jnp.linalg.eigh(metric.at(x).matrix(2))
        v = vectors @ ((vectors.T @ direction) / jnp.sqrt(values))
        return shoot(metric, x, radius * v, ts=ts, dense=False, max_steps=max_steps, throw=False)

    return jax.jit(jax.vmap(of))(jnp.linspace(0.0, 2 * jnp.pi, n, endpoint=False, dtype=x.dtype))
