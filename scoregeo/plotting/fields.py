"""Fields over the plane: a density, a score, a metric."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.contour import QuadContourSet
from matplotlib.quiver import Quiver

from .._checks import as_float, check_count, warn
from .._types import Point, Scalar, Vector
from ..metrics import AbstractMetric
from ..scores import AbstractScore, LineIntegralScore

# From white to a blue light enough for black dashes and orange curves to stand out against its darkest.
_PALE_BLUES = LinearSegmentedColormap.from_list("pale_blues", ["#FFFFFF", "#C9DDF0", "#8DB8DE", "#5590C8"])

# Densities below so much of the largest one are white. A level of the picture is so many nats, and these are how many
# points and base points are asked whether log p is the same.
_VISIBLE, _LEVEL, _PLACES, _BASES = 0.01, 0.1, 64, 4


def density(
    ax: Axes,
    log_prob: Callable[[Point], Scalar],
    xlim: Sequence[float],
    ylim: Sequence[float],
    *,
    resolution: int = 200,
    **style: Any,
) -> QuadContourSet:
    """Filled contours of ``exp(log_prob)``, relative to its largest value in the picture (so constants do not matter).

    **Arguments**

    - ``ax``: the axes; limits, equal aspect, and labels where it has none, are set.
    - ``log_prob``: function of one point of shape ``(2,)``, such as ``score.log_prob``; evaluated under ``jit(vmap)``.
    - ``xlim``, ``ylim``: pairs ``(low, high)``.
    - ``resolution``: points along the longer side.
    - ``**style``: passed on to ``Axes.contourf``, over the defaults here (ten levels of blue).

    Raises ``ValueError`` for limits that do not increase, a function that does not take points of the plane to scalars,
    or a density that is NaN, infinite, or zero everywhere. Warns for the ``log_prob`` of a `LineIntegralScore` that
    would be another one from another base point, where the picture shows it.

    >>> from matplotlib.figure import Figure
    >>> from scoregeo.plotting import density
    >>> contours = density(Figure().subplots(), lambda x: -x @ x / 2, (-3, 3), (-2, 2))
    >>> len(contours.levels)
    11
    """
    check_axes(ax)
    ticks, points = grid(xlim, ylim, resolution, "resolution", inset=False)
    values = log_density(log_prob, points)
    relative = np.exp(values - values.max())
    _warn_of_curl(log_prob, points[relative > _VISIBLE])
    relative = relative.reshape(len(ticks[1]), len(ticks[0]))
    style = {"levels": np.linspace(0, 1, 11), "cmap": _PALE_BLUES, "zorder": 0, **style}
    artist = ax.contourf(*ticks, relative, **style)
    frame(ax, xlim, ylim)
    return artist


def score_field(
    ax: Axes,
    score: AbstractScore | Callable[[Point], Vector],
    xlim: Sequence[float],
    ylim: Sequence[float],
    *,
    n: int = 20,
    **style: Any,
) -> Quiver:
    """Arrows of equal length along the score, coloured by its size.

    Scores grow without bound away from the data, so arrows of proportional length would show the corners only.

    **Arguments**

    - ``ax``: the axes; limits, equal aspect, and labels where it has none, are set.
    - ``score``: an `AbstractScore` or a function, of one point of shape ``(2,)``; evaluated under ``jit(vmap)``.
    - ``xlim``, ``ylim``: pairs ``(low, high)``.
    - ``n``: arrows along the longer side.
    - ``**style``: passed on to ``Axes.quiver``, over the defaults here.

    The colours are the artist's array: ``figure.colorbar(score_field(...), label="|s|")``. Raises ``ValueError`` for
    limits that do not increase, or a score that is not finite or not a field on the plane.
    """
    check_axes(ax)
    _, points = grid(xlim, ylim, n, "n", inset=True)
    values = evaluate(score, points, (2,), "score")
    check_values(np.isfinite(values).all(-1), points, "`score` must be finite")
    sizes = np.linalg.norm(values, axis=-1)
    units = values / np.where(sizes > 0, sizes, 1)[:, None]
    arrow = 0.8 * spacing(xlim, ylim, n)
    style = {"cmap": "cividis", "pivot": "mid", "units": "xy", "width": arrow / 9, "zorder": 1, **style}
    artist = ax.quiver(*points.T, *(arrow * units).T, sizes, angles="xy", scale_units="xy", scale=1, **style)
    frame(ax, xlim, ylim)
    return artist


def tissot(
    ax: Axes,
    metric: AbstractMetric,
    xlim: Sequence[float],
    ylim: Sequence[float],
    *,
    n: int = 16,
    radius: float | None = None,
    **style: Any,
) -> EllipseCollection:
    """The balls ``{x + v : v^T G(x) v <= radius^2}`` of a metric, as ellipses on a grid (Tissot's indicatrix).

    An ellipse is what the metric takes for a disc: short where moving is expensive, long where it is cheap.

    **Arguments**

    - ``ax``: the axes; limits, equal aspect, and labels where it has none, are set.
    - ``metric``: an `AbstractMetric` on the plane; its ``at(x).matrix(2)`` is evaluated under ``jit(vmap)``.
    - ``xlim``, ``ylim``: pairs ``(low, high)``.
    - ``n``: ellipses along the longer side.
    - ``radius``: in the metric's units of length; by default such that the longest ellipse just fits its cell.
    - ``**style``: passed on to ``EllipseCollection``, over the defaults here.

    Raises ``ValueError`` for limits that do not increase, a radius that is not positive, a metric that is not on the
    plane, or one that is not finite and positive definite on the grid.

    >>> from matplotlib.figure import Figure
    >>> from scoregeo.metrics import EuclideanMetric
    >>> from scoregeo.plotting import tissot
    >>> ellipses = tissot(Figure().subplots(), EuclideanMetric(), (0, 4), (0, 2), n=4, radius=0.4)
    >>> len(ellipses.get_offsets()), ellipses.get_widths()[0].round(3).item()
    (8, 0.8)
    """
    check_axes(ax)
    _, centres = grid(xlim, ylim, n, "n", inset=True)
    _, eigenvalues, eigenvectors = metric_matrices(metric, centres)
    size = 0.46 * spacing(xlim, ylim, n) * np.sqrt(eigenvalues.min()) if radius is None else radius
    if not (np.isfinite(size) and size > 0):
        raise ValueError(f"`radius` must be a positive number, got {size!r}")
    # The eigenvector of the smallest eigenvalue is the long axis.
    long, short = 2 * size / np.sqrt(eigenvalues.T)
    angles = np.degrees(np.arctan2(eigenvectors[:, 1, 0], eigenvectors[:, 0, 0]))
    style = {"facecolors": "#E69F0088", "edgecolors": "#7A4A00", "linewidths": 0.9, "zorder": 2, **style}
    artist = EllipseCollection(long, short, angles, units="xy", offsets=centres, offset_transform=ax.transData, **style)
    ax.add_collection(artist)
    frame(ax, xlim, ylim)
    return artist


def _warn_of_curl(log_prob: Callable, points: np.ndarray) -> None:
    """Warn if ``log_prob`` is a line integral that depends on the line, at the ``points`` that a picture shows."""
    score = getattr(log_prob, "__self__", None)
    if not isinstance(score, LineIntegralScore) or score.score.conservative or len(points) < 2:
        return
    some, bases = (points[:: -(-len(points) // count)] for count in (_PLACES, _BASES))
    spread = float(np.max(score.spread(as_float(some, "points"), as_float(bases, "points"))))
    if spread > _LEVEL:
        warn(
            f"log p depends on the path, since the score has curl: from other base points it is {spread:.2g} nats away "
            "(standard deviation) where the picture shows it. A density that does not is learned with "
            "FitConfig(potential=True)",
        )


def check_axes(ax: Any) -> None:
    """Raise ``TypeError`` unless ``ax`` is a matplotlib ``Axes``."""
    if not isinstance(ax, Axes):
        raise TypeError(f"`ax` must be a matplotlib Axes, got {type(ax).__name__}")


def frame(ax: Axes, xlim: Sequence[float], ylim: Sequence[float]) -> None:
    """Limits, equal aspect, and axis labels where there are none yet."""
    ax.set_xlim(xlim[0], xlim[1])
    ax.set_ylim(ylim[0], ylim[1])
    label_plane(ax)


def label_plane(ax: Axes) -> None:
    """Equal aspect, and axis labels where there are none yet."""
    ax.set_aspect("equal")
    if not ax.get_xlabel():
        ax.set_xlabel("$x_1$")
    if not ax.get_ylabel():
        ax.set_ylabel("$x_2$")


def spacing(xlim: Sequence[float], ylim: Sequence[float], n: int) -> float:
    """Side of a grid cell with ``n`` cells along the longer side."""
    return max(xlim[1] - xlim[0], ylim[1] - ylim[0]) / n


def grid(
    xlim: Sequence[float], ylim: Sequence[float], n: int, name: str, *, inset: bool
) -> tuple[list[np.ndarray], np.ndarray]:
    """Ticks along both sides and the points ``(k, 2)`` of their grid: centres of square cells, or up to the edge."""
    for lim, lim_name in ((xlim, "xlim"), (ylim, "ylim")):
        if np.shape(lim) != (2,) or not np.isfinite(lim).all() or not lim[0] < lim[1]:
            raise ValueError(f"`{lim_name}` must be a pair (low, high) of finite numbers with low < high, got {lim!r}")
    smallest = 1 if inset else 2
    check_count(name, n, smallest)
    ticks, cell = [], spacing(xlim, ylim, n)
    for low, high in (xlim, ylim):
        k = max(smallest, round((high - low) / cell))
        margin = (high - low) / (2 * k) if inset else 0.0
        ticks.append(np.linspace(low + margin, high - margin, k))
    return ticks, np.stack(np.meshgrid(*ticks), -1).reshape(-1, 2)


def evaluate(fn: Callable, points: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
    """``fn`` at all ``points``; raises ``ValueError`` if it does not map points of the plane to ``shape``."""
    at = as_float(points, "points")
    try:
        got = jax.eval_shape(fn, at[0])
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{name}` must accept points of shape (2,), but raised: {error}") from error
    if getattr(got, "shape", None) != shape:
        got = getattr(got, "shape", type(got).__name__)
        raise ValueError(f"`{name}` must have values of shape {shape} at points of shape (2,), got {got}")
    return np.asarray(jax.jit(jax.vmap(fn))(at), np.float64)


def log_density(log_prob: Callable[[Point], Scalar], points: np.ndarray) -> np.ndarray:
    """``log_prob`` at all ``points``; raises ``ValueError`` if it is NaN or infinite, or -inf everywhere."""
    values = evaluate(log_prob, points, (), "log_prob")
    if np.isnan(values).any() or values.max() in (np.inf, -np.inf):
        got = "NaN" if np.isnan(values).any() else f"a largest value of {values.max()}"
        raise ValueError(f"`log_prob` must be a number below infinity, and not -inf everywhere, got {got}")
    return values


def metric_matrices(metric: AbstractMetric, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """G ``(n, 2, 2)`` at all ``points``, its eigenvalues ``(n, 2)``, the smaller one first, and its eigenvectors
    ``(n, 2, 2)`` in columns; raises ``ValueError`` if it is not finite and positive definite there."""
    matrices = evaluate(lambda x: metric.at(x).matrix(2), points, (2, 2), "metric")
    check_values(np.isfinite(matrices).all((-2, -1)), points, "`metric` must be finite")
    eigenvalues, eigenvectors = np.linalg.eigh(matrices)
    check_values(eigenvalues[:, 0] > 0, points, "`metric` must be positive definite")
    return matrices, eigenvalues, eigenvectors


def check_values(good: np.ndarray | np.bool, points: np.ndarray, requirement: str) -> None:
    """Raise ``ValueError`` with the first of the ``points`` that are not ``good``."""
    if not good.all():
        where = tuple(round(float(c), 4) for c in points[np.argmin(good)])
        raise ValueError(f"{requirement}, but is not at {int((~good).sum())} of {good.size} points (first at {where})")
