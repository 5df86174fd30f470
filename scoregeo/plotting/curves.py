"""Curves in the plane: geodesics, with the straight lines that they are not."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import matplotlib.patheffects
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection

from .._results import RESULTS
from ..geodesics import Geodesic
from .fields import check_axes, label_plane


class GeodesicArtists(NamedTuple):
    """What `geodesics` draws, one artist each: ``curves``, ``straight`` (``None`` if not asked for), ``ends``, and
    ``failed``, the curves whose status is none of success (``None`` if there are none)."""

    curves: LineCollection
    straight: LineCollection | None
    ends: PathCollection
    failed: LineCollection | None


def geodesics(
    ax: Axes,
    geodesics: Geodesic | Sequence[Geodesic],
    *,
    straight: bool = True,
    resolution: int = 200,
    **style: Any,
) -> GeodesicArtists:
    """Geodesics with their end points, and dashed the straight lines between these.

    A path whose solve did not converge is no geodesic: it is dotted, in another colour, and the legend says so.

    **Arguments**

    - ``ax``: the axes; equal aspect, and labels where it has none, are set, and limits grow to show the curves.
    - ``geodesics``: one `Geodesic` in the plane, a batch of them (leading axes, as ``jax.vmap`` makes), or a sequence.
    - ``straight``: whether to draw the straight lines.
    - ``resolution``: points along each curve. A geodesic without dense output is drawn through its ``points``.
    - ``**style``: passed on to the ``LineCollection`` of the curves, over the defaults here.

    A legend shows one entry for the curves and one for the straight lines. Raises ``ValueError`` for geodesics that are
    not in the plane (choose two coordinates, or use `image_strip`), or whose points are not finite (a failed solve).
    """
    check_axes(ax)
    singles = _flatten(geodesics)
    if not singles:
        raise ValueError("`geodesics` must hold at least one geodesic, got none")
    curves = [_samples(geodesic, resolution) for geodesic in singles]
    good = [bool(getattr(single, "result", RESULTS.successful) == RESULTS.successful) for single in singles]
    # A light casing keeps a curve readable on dark parts of a density.
    casing = [matplotlib.patheffects.withStroke(linewidth=4, foreground="white", alpha=0.8)]
    style = {"colors": "#D55E00", "linewidths": 2, "zorder": 4, "label": "geodesic", "path_effects": casing, **style}
    artist = LineCollection(
        [curve for curve, fine in zip(curves, good, strict=True) if fine], capstyle="round", **style
    )
    failed = lines = None
    if not all(good):
        dots = {"colors": "#882255", "linestyles": (0, (1, 1.5)), "label": "not converged"}
        others = [curve for curve, fine in zip(curves, good, strict=True) if not fine]
        failed = LineCollection(others, **{**style, **dots})
        ax.add_collection(failed)
    if any(good):
        ax.add_collection(artist)
    if straight:
        chords = [curve[[0, -1]] for curve in curves]
        dashes = {"colors": "#333333", "linewidths": 1.2, "linestyles": (0, (4, 3)), "label": "straight line"}
        lines = LineCollection(chords, zorder=style["zorder"] - 0.5, **dashes)
        ax.add_collection(lines)
    ends = np.concatenate([curve[[0, -1]] for curve in curves])
    ends_artist = ax.scatter(*ends.T, s=28, c="#111111", edgecolors="white", linewidths=0.8, zorder=style["zorder"] + 1)
    ax.autoscale_view()
    label_plane(ax)
    return GeodesicArtists(artist, lines, ends_artist, failed)


def _flatten(geodesics: Any) -> list:
    """One geodesic, a batch or nested sequences of them, as a list of single geodesics."""
    if not hasattr(geodesics, "points"):
        return [single for each in geodesics for single in _flatten(each)]
    if np.ndim(geodesics.points) <= 2:
        return [geodesics]
    each = range(len(geodesics.points))
    return [single for i in each for single in _flatten(jax.tree.map(lambda leaf, i=i: leaf[i], geodesics))]


def _samples(geodesic: Any, resolution: int) -> np.ndarray:
    dense = getattr(geodesic, "curve", True) is not None
    points = np.asarray(geodesic.evaluate(np.linspace(0, 1, resolution)) if dense else geodesic.points)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"`geodesics` must be in the plane, with points of shape (n, 2), got {points.shape}")
    if not np.isfinite(points).all():
        raise ValueError("`geodesics` must have finite points, got NaN or infinite ones: see its `result`")
    return points
