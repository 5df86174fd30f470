"""Pictures of statistics: points with their clusters and centers, and how much each direction explains."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .fields import check_axes, label_plane
from .images import image_strip

# Okabe & Ito's colours, which people who see colours differently tell apart; then in other shapes.
_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


class PointArtists(NamedTuple):
    """What `labelled_points` draws: ``points``, one artist for each label, and ``marked``, by name."""

    points: dict[Any, PathCollection]
    marked: dict[str, PathCollection]


def labelled_points(
    ax: Axes,
    points: Any,
    labels: Any = None,
    *,
    marked: Mapping[str, Any] | None = None,
    **style: Any,
) -> PointArtists:
    """Points of the plane in the colours, and beyond eight the shapes, of their labels.

    **Arguments**

    - ``ax``: the axes; equal aspect, and labels where it has none, are set.
    - ``points``: ``(n, 2)``; ``labels`` ``(n,)``, of clusters or classes; default one for all.
    - ``marked``: points ``(2,)`` or ``(k, 2)`` by name, such as centers and means: drawn large, on top, in the legend.
    - ``**style``: passed on to ``Axes.scatter`` for the points, over the defaults here.

    Raises ``ValueError`` for shapes that do not fit and points that are not finite.

    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> from scoregeo.plotting import labelled_points
    >>> artists = labelled_points(Figure().subplots(), np.eye(2), [3, 5], marked={"mean": [0.5, 0.5]})
    >>> list(artists.points), list(artists.marked)
    ([3, 5], ['mean'])
    """
    check_axes(ax)
    points = _in_the_plane(points, "points")
    labels = np.zeros(len(points), int) if labels is None else np.asarray(labels)
    if labels.shape != (len(points),):
        raise ValueError(f"`labels` must have shape ({len(points)},), one for each point, got {labels.shape}")
    large = {name: _in_the_plane(np.atleast_2d(value), f"marked[{name!r}]") for name, value in (marked or {}).items()}
    style = {"s": 14, "alpha": 0.7, "linewidths": 0, "zorder": 2, **style}
    kinds = np.unique(labels)
    artists = {}
    for i, kind in enumerate(kinds):
        look = {"color": _COLORS[i % len(_COLORS)], "marker": _MARKERS[i // len(_COLORS) % len(_MARKERS)]}
        name = str(kind) if len(kinds) > 1 else None
        artists[kind.item()] = ax.scatter(*points[labels == kind].T, label=name, **{**look, **style})
    marks = {}
    for (name, places), shape in zip(large.items(), "*XPD" * len(large), strict=False):
        look = {"marker": shape, "s": 160, "edgecolors": "black", "linewidths": 1.2, "zorder": 5}
        marks[name] = ax.scatter(*places.T, color="white" if shape == "*" else "#D55E00", label=name, **look)
    label_plane(ax)
    if len(kinds) > 1 or marks:
        ax.legend(fontsize=8, framealpha=0.9)
    return PointArtists(artists, marks)


def explained_variance(ax: Axes, ratios: Any, **style: Any) -> BarContainer:
    """How much of the variance each component explains, as bars, with what they explain together as numbers on them.

    ``ratios`` ``(k,)``, as ``explained_variance_ratio`` of `scoregeo.statistics.tangent_pca`; ``**style`` is passed on
    to ``Axes.bar``. Raises ``ValueError`` for another shape, and what is not between 0 and 1.
    """
    check_axes(ax)
    ratios = np.asarray(ratios, np.float64)
    if ratios.ndim != 1 or ratios.size == 0 or not ((ratios >= 0) & (ratios <= 1 + 1e-6)).all():
        raise ValueError(f"`ratios` must be numbers from 0 to 1 of shape (k,), got {np.array2string(ratios)}")
    bars = ax.bar(np.arange(1, ratios.size + 1), 100 * ratios, **{"color": "#0072B2", **style})
    ax.bar_label(bars, [f"{total:.0%}" for total in np.cumsum(ratios)], fontsize=8)
    ax.set_xlabel("component")
    ax.set_ylabel("explained variance (%), together above")
    ax.set_ylim(0, 110 * max(ratios.max(), 0.01))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return bars


def sample_figure(
    points: Any,
    labels: Any = None,
    *,
    marked: Mapping[str, Any] | None = None,
    title: str = "",
    images: Mapping[str, Any] | None = None,
    image_shape: Sequence[int] | None = None,
) -> Figure:
    """A figure of a sample in any dimension: `labelled_points` in the plane, or in the first two principal components.

    ``marked`` holds points ``(d,)`` or ``(k, d)`` by name; ``images`` rows of images, shown beside with
    ``image_shape``. Returns the figure, which no window shows.
    """
    figure = Figure(figsize=(6 if images is None else 11, 5), layout="constrained")
    axes = figure.subplots(1, 1 if images is None else 2, squeeze=False)[0]
    points = np.asarray(points, np.float64)
    seen = _projection(points)
    marked = {name: seen(np.atleast_2d(np.asarray(value))) for name, value in (marked or {}).items()}
    labelled_points(axes[0], seen(points), labels, marked=marked)
    if points.shape[1] > 2:
        axes[0].set_xlabel("first principal component")
        axes[0].set_ylabel("second principal component")
    axes[0].set_title(title, fontsize=11)
    if images is not None and image_shape is not None:
        # Rows of one length: short ones begin again.
        rows = {name: np.atleast_2d(np.asarray(row)) for name, row in images.items()}
        width = max(map(len, rows.values()))
        image_strip(axes[1], {name: row[np.arange(width) % len(row)] for name, row in rows.items()}, image_shape)
        axes[1].set_xlabel("")
        axes[1].set_xticks([])
    return figure


def components_figure(
    coordinates: Any,
    ratios: Any,
    *,
    walks: Mapping[str, Any] | None = None,
    image_shape: Sequence[int] | None = None,
    ts: Sequence[float] | None = None,
) -> Figure:
    """A figure of principal components: coordinates ``(n, k)`` along the first two beside `explained_variance`, and
    below, of images, ``walks`` along components (see `image_strip`). Returns the figure, which no window shows."""
    figure = Figure(figsize=(9, 4.2 if walks is None else 7), layout="constrained")
    grid = figure.add_gridspec(1 if walks is None else 2, 2, width_ratios=(1.6, 1))
    ax, bars = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[0, 1])
    coordinates = np.asarray(coordinates)
    labelled_points(ax, _first_two(coordinates))
    ax.set_xlabel("along the first component")
    ax.set_ylabel("along the second" if coordinates.shape[1] > 1 else "")
    explained_variance(bars, ratios)
    if walks is not None and image_shape is not None:
        strip = figure.add_subplot(grid[1, :])
        image_strip(strip, walks, image_shape, ts=ts)
        strip.set_xlabel("standard deviations from the mean")
    return figure


def embedding_figure(points: Any, labels: Any = None, *, title: str = "geodesic distances, embedded") -> Figure:
    """A figure of the first two coordinates of an embedding ``(n, k)``. Returns the figure, which no window shows."""
    figure = Figure(figsize=(6, 5), layout="constrained")
    ax = figure.subplots()
    labelled_points(ax, _first_two(np.asarray(points)), labels)
    ax.set_xlabel("first coordinate")
    ax.set_ylabel("second coordinate")
    ax.set_title(title, fontsize=11)
    return figure


def _first_two(points: np.ndarray) -> np.ndarray:
    """The first two columns, the second of them zero where there is but one."""
    second = points[:, 1] if points.shape[1] > 1 else np.zeros(len(points))
    return np.stack([points[:, 0], second], 1)


def _projection(points: np.ndarray) -> Any:
    """A function of points ``(m, d)`` that gives them as points of the plane."""
    if points.shape[1] <= 2:
        return _first_two
    mean = points.mean(0)
    axes = np.linalg.svd(points - mean, full_matrices=False)[2]
    return lambda xs: _first_two((np.asarray(xs) - mean) @ axes.T)


def _in_the_plane(points: Any, name: str) -> np.ndarray:
    points = np.asarray(points, np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) == 0:
        raise ValueError(f"`{name}` must have shape (n, 2), got {points.shape}")
    if not np.isfinite(points).all():
        raise ValueError(f"`{name}` must be finite, got NaN or infinite values")
    return points
