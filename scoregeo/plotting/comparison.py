"""Distances side by side, and the two spaces that they are of: data, and distributions."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from .._types import Point, Points, Scalar
from ..comparison import Comparison
from ..geodesics import Geodesic
from .curves import GeodesicArtists, _flatten, _samples, geodesics
from .fields import check_axes, density

# Told apart by readers who are colour-blind, on white and on the blue of a density.
_COLORS = ("#D55E00", "#009E73", "#AA3377", "#111111")


def half_plane(ax: Axes, paths: Geodesic | Sequence[Geodesic], **style: Any) -> GeodesicArtists:
    """Geodesics of univariate normal distributions in the half-plane of their mean and standard deviation.

    **Arguments**

    - ``ax``: the axes; labels and equal aspect are set, and limits grow to show the curves.
    - ``paths``: geodesics whose points are ``(mean, sd)``, as of ``Normal().geodesic(a, b)``; as in `geodesics`.
    - ``**style``: passed on as in `geodesics`.

    Below ``sd = 0`` there are no distributions: that part, where it is in the picture, is grey. Raises ``ValueError``
    for points that are not in the half-plane.

    >>> from matplotlib.figure import Figure
    >>> from scoregeo.fisher_rao import Normal
    >>> from scoregeo.plotting.comparison import half_plane
    >>> family = Normal()
    >>> path = family.geodesic(family.pack(mean=-1.0, sd=0.5), family.pack(mean=1.0, sd=0.5))
    >>> len(half_plane(Figure().subplots(), path).curves.get_segments())
    1
    """
    check_axes(ax)
    # The check comes before anything is drawn.
    curves = [_samples(path, style.get("resolution", 200)) for path in _flatten(paths)]
    lowest = min((curve[:, 1].min() for curve in curves), default=np.inf)
    if not lowest > 0:
        raise ValueError(f"`paths` must have positive standard deviations, got a smallest one of {lowest:.3g}")
    if not ax.get_xlabel():
        ax.set_xlabel("mean")
    if not ax.get_ylabel():
        ax.set_ylabel("standard deviation")
    artists = geodesics(ax, paths, **style)
    top = ax.get_ylim()[1]
    ax.axhspan(-top, 0, color="#DDDDDD", lw=0, zorder=0)
    ax.set_ylim(-0.04 * top, top)
    return artists


def distance_scatter(ax: Axes, comparison: Comparison, first: str, second: str, **style: Any) -> PathCollection:
    """One distance against another, a dot for each pair of which every distance is known.

    **Arguments**

    - ``ax``: the axes; both start at zero, and the title says the rank correlation with its interval.
    - ``comparison``: what `scoregeo.comparison.compare` returns.
    - ``first``, ``second``: names of distances in it, for the horizontal and the vertical axis.
    - ``**style``: passed on to ``Axes.scatter``.

    Raises ``ValueError`` for a name that is not in ``comparison``.
    """
    check_axes(ax)
    _check_comparison(comparison)
    for name in (first, second):
        if name not in comparison.names:
            raise ValueError(f"`comparison` has the distances {', '.join(comparison.names)}, not {name!r}")
    table = comparison.table[comparison.complete]
    style = {"s": 18, "c": "#0072B2", "alpha": 0.7, "linewidths": 0, **style}
    dots = ax.scatter(table[first], table[second], **style)
    ax.set_xlim(left=0)
    ax.set_ylim(bottom=0)
    ax.set_xlabel(first)
    ax.set_ylabel(second)
    i, j = comparison.names.index(first), comparison.names.index(second)
    rank = comparison.spearman
    title = f"rank correlation {rank.values[i, j]:.2f}"
    if np.isfinite(rank.low[i, j]):
        title += f" [{rank.low[i, j]:.2f}, {rank.high[i, j]:.2f}]"
    ax.set_title(title, fontsize=10)
    return dots


def correlation_matrix(ax: Axes, comparison: Comparison, *, rank: bool = True, **style: Any) -> AxesImage:
    """Correlations between distances, as coloured cells with the numbers and their intervals.

    **Arguments**

    - ``ax``: the axes; their ticks become the names of the distances.
    - ``comparison``: what `scoregeo.comparison.compare` returns.
    - ``rank``: rank correlations (Spearman), or with ``False`` linear ones (Pearson).
    - ``**style``: passed on to ``Axes.imshow``.

    The colours are the artist's array, from -1 to 1; a correlation that is not defined is left white.
    """
    check_axes(ax)
    _check_comparison(comparison)
    found, k = comparison.spearman if rank else comparison.pearson, len(comparison.names)
    # Each pair is shown once: the upper triangle says nothing new.
    below = np.tri(k, k, -1, dtype=bool)[1:, :-1]
    values, low, high = (part[1:, :-1] for part in (found.values, found.low, found.high))
    style = {"cmap": "PuOr_r", "vmin": -1, "vmax": 1, "aspect": "auto", **style}
    artist = ax.imshow(np.ma.masked_where(~below | np.isnan(values), values), **style)
    for i, j in zip(*np.nonzero(below), strict=True):
        defined = np.isfinite(values[i, j])
        text = f"{values[i, j]:.2f}" if defined else "not defined"
        if np.isfinite(low[i, j]):
            text += f"\n[{low[i, j]:.2f}, {high[i, j]:.2f}]"
        dark = defined and abs(values[i, j]) > 0.7
        ax.text(j, i, text, ha="center", va="center", fontsize=9, color="white" if dark else "black")
    ax.set_xticks(range(k - 1), comparison.names[:-1], rotation=30, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(k - 1), comparison.names[1:])
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.set_title(f"{'rank' if rank else 'linear'} correlation of distances", fontsize=10)
    return artist


def comparison_figure(
    comparison: Comparison,
    *,
    paths: Sequence[Geodesic] = (),
    log_prob: Callable[[Point], Scalar] | None = None,
    points: Points | None = None,
    distributions: Sequence[Geodesic] = (),
    scatter: tuple[str, str] | None = None,
) -> Figure:
    """A comparison on one page: data space, the half-plane of normal distributions, and how distances agree.

    **Arguments**

    - ``comparison``: what `scoregeo.comparison.compare` returns, whose rank correlations are shown.
    - ``paths``: geodesics of data space in the plane, over the density ``exp(log_prob)`` and the ``points`` ``(n, 2)``,
      where these are given.
    - ``distributions``: Fisher-Rao geodesics of univariate normal distributions, points ``(mean, sd)``; one has the
      colour of the path at its place in ``paths``.
    - ``scatter``: which two distances are drawn against each other; by default the first and the last.
    """
    _check_comparison(comparison)
    upper = [name for name, shown in (("data", paths), ("laws", distributions), ("scatter", "always")) if len(shown)]
    below = 0.6 + 0.5 * (len(comparison.names) - 1)  # inches of the matrix, whose cells have two lines
    # matplotlib's own type of nested lists does not allow a list of lists of strings.
    rows: list[Any] = [upper, ["matrix"] * len(upper)]
    heights = [3.6, below]
    if len(upper) == 3:  # the data are as high as both others
        rows, heights = [["data", "laws"], ["data", "scatter"], ["matrix", "matrix"]], [1.8, 1.8, below]
    figure = Figure(figsize=(7.5, sum(heights)), layout="constrained")
    axes = figure.subplot_mosaic(rows, height_ratios=heights)
    if len(paths):
        _data_space(axes["data"], paths, log_prob, points)
    if len(distributions):
        half_plane(axes["laws"], distributions, straight=False, colors=_cycle(distributions))
        axes["laws"].set_title("normal distributions, Fisher-Rao geodesics", fontsize=10)
    first, second = (comparison.names[0], comparison.names[-1]) if scatter is None else scatter
    distance_scatter(axes["scatter"], comparison, first, second)
    correlation_matrix(axes["matrix"], comparison)
    return figure


def _cycle(paths: Sequence[Geodesic]) -> list[str]:
    """The same colours for the same pairs in both spaces."""
    return [_COLORS[i % len(_COLORS)] for i in range(len(paths))]


def _data_space(ax: Axes, paths, log_prob, points) -> None:
    drawn = geodesics(ax, paths, colors=_cycle(paths))
    ends = np.concatenate(drawn.curves.get_segments() + ([] if points is None else [np.asarray(points)]))
    low, high = ends.min(0), ends.max(0)
    margin = 0.1 * (high - low).max()
    limits = list(zip(low - margin, high + margin, strict=True))
    if log_prob is not None:
        density(ax, log_prob, *limits)
    if points is not None:
        ax.scatter(*np.asarray(points).T, s=3, c="#6BAED6" if log_prob is None else "#1F3B57", alpha=0.5, linewidths=0)
    ax.set_xlim(limits[0])
    ax.set_ylim(limits[1])
    ax.legend(loc="best", fontsize=8, framealpha=0.9)
    ax.set_title("data, geodesics", fontsize=10)


def _check_comparison(comparison: Any) -> None:
    if not isinstance(comparison, Comparison):
        raise TypeError(f"`comparison` must be a Comparison, as of `compare`, got {type(comparison).__name__}")
