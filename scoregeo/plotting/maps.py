"""Maps of what a metric does to the plane: its volume and its curvature."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh

from .._types import Point, Scalar
from ..curvature import scalar_curvature
from ..metrics import AbstractMetric
from .fields import check_axes, evaluate, frame, grid

# So much of the values lies within the range of the colours: a curvature has peaks that would hide all else.
_WITHIN = 0.98


def scalar_map(
    ax: Axes,
    fn: Callable[[Point], Scalar],
    xlim: Sequence[float],
    ylim: Sequence[float],
    *,
    resolution: int = 120,
    centre: float | None = None,
    **style: Any,
) -> QuadMesh:
    """A function on the plane, in colours.

    **Arguments**

    - ``ax``: the axes; limits, equal aspect, and labels where it has none, are set.
    - ``fn``: a function of one point of shape ``(2,)`` to a scalar; evaluated under ``jit(vmap)``.
    - ``xlim``, ``ylim``: pairs ``(low, high)``.
    - ``resolution``: cells along the longer side.
    - ``centre``: the value that is white, with colours of two kinds on both sides, such as zero for a curvature. By
      default colours of one kind.
    - ``**style``: passed on to ``Axes.pcolormesh``, over the defaults here. The colours span the middle 98% of the
      values; others have the colour at the end: ``figure.colorbar(artist, extend="both")`` says so.

    Values that are not finite are left white. Raises ``ValueError`` for limits that do not increase, a function that
    does not take points of the plane to scalars, or one that is finite nowhere.

    >>> from matplotlib.figure import Figure
    >>> mesh = scalar_map(Figure().subplots(), lambda x: x @ x, (-2, 2), (-1, 1), resolution=20)
    >>> mesh.get_array().shape
    (10, 20)
    """
    check_axes(ax)
    ticks, points = grid(xlim, ylim, resolution, "resolution", inset=True)
    values = evaluate(fn, points, (), "fn")
    finite = np.isfinite(values)
    if not finite.any():
        raise ValueError(f"`fn` must be finite somewhere, but is not at any of {values.size} points")
    low, high = np.quantile(values[finite], [(1 - _WITHIN) / 2, (1 + _WITHIN) / 2])
    colours: dict[str, Any] = {"cmap": "cividis", "vmin": low, "vmax": high}
    if centre is not None:
        reach = max(abs(high - centre), abs(low - centre)) or 1.0
        colours = {"cmap": "PuOr_r", "vmin": centre - reach, "vmax": centre + reach}
    if "norm" in style:  # has limits of its own
        colours = {"cmap": colours["cmap"]}
    style = {"zorder": 0, "rasterized": True, **colours, **style}
    image = np.ma.masked_invalid(values.reshape(len(ticks[1]), len(ticks[0])))
    artist = ax.pcolormesh(*(_edges(t, lim) for t, lim in zip(ticks, (xlim, ylim), strict=True)), image, **style)
    frame(ax, xlim, ylim)
    return artist


def volume_map(
    ax: Axes, metric: AbstractMetric, xlim: Sequence[float], ylim: Sequence[float], **settings: Any
) -> QuadMesh:
    """A map of ``log sqrt(det G)``: how much larger than to Euclid a small area is to the metric, as a logarithm.

    Arguments and errors as for `scalar_map`, with a metric in place of the function.
    """
    return scalar_map(ax, lambda x: metric.at(x).logdet(2) / 2, xlim, ylim, **settings)


def curvature_map(
    ax: Axes, metric: AbstractMetric, xlim: Sequence[float], ylim: Sequence[float], **settings: Any
) -> QuadMesh:
    """A map of Gauss's curvature, white where it is zero: geodesics close together draw nearer where it is positive
    (orange), and part where it is negative (violet).

    Arguments and errors as for `scalar_map`, with a metric in place of the function. Its units are those of the points
    to the power -2.

    >>> from matplotlib.figure import Figure
    >>> from scoregeo import models
    >>> mesh = curvature_map(Figure().subplots(), models.Sphere(), (-1, 1), (-1, 1), resolution=4)
    >>> mesh.get_array().round(4).max().item()  # of a sphere of radius 1
    1.0
    """
    settings = {"centre": 0.0, **settings}
    return scalar_map(ax, lambda x: scalar_curvature(metric, x) / 2, xlim, ylim, **settings)


def _edges(centres: np.ndarray, lim: Sequence[float]) -> np.ndarray:
    """The edges of the cells around ``centres``, which fill ``lim``."""
    return np.linspace(lim[0], lim[1], len(centres) + 1)
