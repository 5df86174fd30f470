"""The Stein metric as a surface: the graph of the log density, stretched, and geodesics lifted onto it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from mpl_toolkits.mplot3d.art3d import Line3DCollection, Poly3DCollection
from mpl_toolkits.mplot3d.axes3d import Axes3D

from .._types import Point, Scalar
from ..geodesics import Geodesic
from .curves import _flatten, _samples
from .fields import evaluate, grid, log_density


class SurfaceArtists(NamedTuple):
    """What `graph_surface` draws: the ``surface``, and lifted ``curves`` (``None`` without paths)."""

    surface: Poly3DCollection
    curves: Line3DCollection | None


def graph_surface(
    ax: Axes3D,
    log_prob: Callable[[Point], Scalar],
    strength: float,
    xlim: Sequence[float],
    ylim: Sequence[float],
    *,
    paths: Geodesic | Sequence[Geodesic] = (),
    lowest: float = 8.0,
    resolution: int = 160,
    **style: Any,
) -> SurfaceArtists:
    """The surface ``(x, sqrt(strength) log p(x))``, on which lengths are those of the Stein metric, and ``paths``.

    **Arguments**

    - ``ax``: axes of three dimensions (``figure.add_subplot(projection="3d")``); drawn to scale.
    - ``log_prob``: function of one point of shape ``(2,)``, such as ``score.log_prob``; evaluated under ``jit(vmap)``.
    - ``strength``: of the metric.
    - ``paths``: geodesics in the plane, as for `geodesics`.
    - ``lowest``: how many nats below the highest point the picture ends: what is lower is left out, with the parts of
      paths there.
    - ``resolution``: points along the longer side.
    - ``**style``: passed on to ``Axes3D.plot_surface``, over the defaults here.

    Raises ``TypeError`` for axes of two dimensions, ``ValueError`` as `density` and `geodesics` do.

    >>> from matplotlib.figure import Figure
    >>> ax = Figure().add_subplot(projection="3d")
    >>> graph_surface(ax, lambda x: -x @ x / 2, 1.0, (-2, 2), (-2, 2), resolution=20).curves is None
    True
    """
    if not isinstance(ax, Axes3D):
        raise TypeError(f"`ax` must be axes of three dimensions (projection='3d'), got {type(ax).__name__}")
    if not (np.isfinite(strength) and strength >= 0):
        raise ValueError(f"`strength` must be a non-negative number, got {strength!r}")
    ticks, points = grid(xlim, ylim, resolution, "resolution", inset=False)
    values = log_density(log_prob, points)
    top, stretch = values.max(), np.sqrt(strength)
    heights = np.where(values < top - lowest, np.nan, stretch * (values - top)).reshape(len(ticks[1]), len(ticks[0]))
    counts = {"rcount": resolution, "ccount": resolution}
    style = {"cmap": "cividis", "alpha": 0.75, "linewidth": 0, "antialiased": True, **counts, **style}
    right, up = np.meshgrid(*ticks)
    surface = ax.plot_surface(right, up, heights, **style)
    curves = None
    singles = _flatten(paths)
    if singles:
        lifted = []
        for single in singles:
            curve = _samples(single, 200)
            above = evaluate(log_prob, curve, (), "log_prob") - top
            lifted.append(np.column_stack([curve, np.where(above < -lowest, np.nan, stretch * above)]))
        # On top of the surface, which would hide half of a line that lies in it.
        ax.computed_zorder = False
        curves = Line3DCollection(lifted, colors="#D55E00", linewidths=2.6, zorder=10)
        ax.add_collection3d(curves)
    ax.set_box_aspect((xlim[1] - xlim[0], ylim[1] - ylim[0], max(-np.nanmin(heights), 1e-6)))
    ax.set_xlabel("$x_1$")
    ax.set_ylabel("$x_2$")
    ax.set_zlabel("$\\sqrt{\\lambda}\\, \\log p$")
    return SurfaceArtists(surface, curves)
