"""Images along paths, and means of images, for data sets whose points are images."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from .._checks import check_count
from .._types import Point, Points
from .fields import check_axes

# Pixels between images; white, or what the colour map has for missing values.
_GAP = 1
# Inches that a grid is wide, at most.
_WIDEST = 8.0


def image_strip(
    ax: Axes,
    paths: Mapping[str, Points | np.ndarray],
    image_shape: Sequence[int],
    *,
    ts: Sequence[float] | None = None,
    limits: tuple[float, float] | None = None,
    **style: Any,
) -> AxesImage:
    """Rows of images, one row for each path: a geodesic above, a straight line below.

    **Arguments**

    - ``ax``: the axes; its ticks become the names of the rows and the times of the columns.
    - ``paths``: from the name of a row to points ``(n, d)``, with the same n in every row. Undo a standardisation first
      (``dataset.undo(geodesic.evaluate(ts))``).
    - ``image_shape``: ``(height, width)``, or ``(height, width, channels)`` with 1, 3 or 4 channels; its product is d.
    - ``ts``: ``(n,)``, the times; by default equally spaced from 0 to 1.
    - ``limits``: the values shown as black and white; by default the smallest and largest of all images.
    - ``**style``: passed on to ``Axes.imshow``, over the defaults here.

    Raises ``ValueError`` for shapes that do not agree, values that are not finite, or limits that do not increase.

    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> from scoregeo.plotting import image_strip
    >>> path = np.linspace(np.zeros(64), np.ones(64), 5)
    >>> image_strip(Figure().subplots(), {"straight line": path}, (8, 8)).get_array().shape
    (8, 44)
    """
    check_axes(ax)
    rows = {name: np.asarray(points, np.float64) for name, points in paths.items()}
    shape = check_image_shape(image_shape)
    if not rows:
        raise ValueError("`paths` must hold at least one path, got none")
    columns = len(next(iter(rows.values())))
    for name, points in rows.items():
        check_images(f"paths[{name!r}]", points, columns, shape)
    times = np.linspace(0, 1, columns) if ts is None else np.asarray(ts, np.float64)
    if times.shape != (columns,):
        raise ValueError(f"`ts` must have shape ({columns},) to match `paths`, got {times.shape}")
    values = np.stack(list(rows.values()))
    artist = _show(ax, _mosaic(values.reshape(len(rows), columns, *shape)), _limits(values, limits), style)
    _label(ax, list(rows), times, shape)
    return artist


def mean_images(
    ax: Axes,
    images: Points | np.ndarray,
    means: Mapping[str, Point | np.ndarray],
    image_shape: Sequence[int],
    *,
    limits: tuple[float, float] | None = None,
    **style: Any,
) -> AxesImage:
    """A row of images, and below it their means under several metrics, enlarged, with their names.

    **Arguments**

    - ``ax``: the axes; its ticks become the names.
    - ``images``: ``(n, d)``, in the units of the images; ``image_shape``, ``limits``, ``**style``: as in `image_strip`.
    - ``means``: from a name to the mean ``(d,)``, such as the arithmetic one and the ``point`` of a `FrechetMean`;
      ``n`` at most. They are as large as the width of the row allows.

    Raises ``ValueError`` for shapes that do not agree, or values that are not finite.

    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> from scoregeo.plotting import mean_images
    >>> images = np.eye(4)
    >>> means = {"arithmetic": images.mean(0), "medoid": images[0]}
    >>> mean_images(Figure().subplots(), images, means, (2, 2)).get_array().shape
    (7, 11)
    """
    check_axes(ax)
    shape, images = check_image_shape(image_shape), np.asarray(images, np.float64)
    size, n, k = int(np.prod(shape)), len(images), len(means)
    if images.shape != (n, size) or not 1 <= k <= n:
        raise ValueError(f"`images` must have shape (n, {size}) for images {shape}, and `means` 1 to n of them, got "
                         f"{images.shape} and {k}")  # fmt: skip
    centers = {name: np.asarray(mean, np.float64) for name, mean in means.items()}
    for name, mean in centers.items():
        if mean.shape != (size,):
            raise ValueError(f"`means[{name!r}]` must have shape ({size},), got {mean.shape}")
    values = np.concatenate([images, np.stack(list(centers.values()))])
    if not np.isfinite(values).all():
        raise ValueError("`images` and `means` must be finite, got NaN or infinite values")
    row = _mosaic(images.reshape(1, n, *shape))
    (h, width), w, times = row.shape[:2], shape[1], n // k
    below = np.full((h * times, *row.shape[1:]), np.nan)
    middles = (np.arange(k) + 0.5) * width / k
    for middle, mean in zip(middles, centers.values(), strict=True):
        left = round(middle - w * times / 2)
        image = _mosaic(mean.reshape(1, 1, *shape))
        below[:, left : left + w * times] = image.repeat(times, 0).repeat(times, 1)
    mosaic = np.concatenate([row, np.full((_GAP, *row.shape[1:]), np.nan), below])
    artist = _show(ax, mosaic, _limits(values, limits), style)
    ax.set_xticks(middles - 0.5, list(centers))
    ax.set_yticks([(h - 1) / 2, h + _GAP + (h * times - 1) / 2], ["data", "means"])
    _bare(ax)
    return artist


def image_grid(
    images: Points | np.ndarray,
    image_shape: Sequence[int],
    *,
    columns: int | None = None,
    limits: tuple[float, float] | None = None,
) -> Figure:
    """Images side by side, row after row: samples of a model, say.

    **Arguments**

    - ``images``: points ``(n, d)``, in the units of the images; ``image_shape``, ``limits``: as in `image_strip`.
    - ``columns``: how many in a row; default about as many as rows.

    **Returns** a figure without axes, whose sides are those of the grid.

    >>> import numpy as np
    >>> from scoregeo.plotting import image_grid
    >>> image_grid(np.zeros((6, 64)), (8, 8), columns=3).axes[0].images[0].get_array().shape
    (17, 26)
    """
    images = np.asarray(images, np.float64)
    if images.ndim != 2 or len(images) == 0:
        raise ValueError(f"`images` must have shape (n, d), n >= 1, got {images.shape}")
    columns = max(1, round(len(images) ** 0.5)) if columns is None else check_count("columns", columns)
    rows = -(-len(images) // columns)
    # The last row is filled with the darkest value there is, so that it stays empty.
    empty = np.full((rows * columns - len(images), images.shape[1]), images.min() if limits is None else limits[0])
    whole = np.concatenate([images, empty]).reshape(rows, columns, -1)
    h, w = (side + _GAP for side in tuple(image_shape)[:2])
    width = min(_WIDEST, max(2.0, columns * w / 40))
    figure = Figure(figsize=(width, width * rows * h / (columns * w)), dpi=150)
    ax = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    image_strip(ax, {str(i): row for i, row in enumerate(whole)}, image_shape, limits=limits)
    ax.set_axis_off()
    return figure


def check_image_shape(image_shape: Sequence[int]) -> tuple[int, ...]:
    """``(height, width)`` or ``(height, width, channels)``; raises ``ValueError`` for what no image has."""
    shape = tuple(int(side) for side in image_shape)
    if len(shape) not in (2, 3) or min(shape) < 1 or (len(shape) == 3 and shape[2] not in (1, 3, 4)):
        raise ValueError(f"`image_shape` must be (height, width) with 1, 3 or 4 channels or none, got {shape}")
    return shape


def check_images(name: str, points: np.ndarray, n: int, shape: tuple[int, ...]) -> None:
    """Raise ``ValueError`` unless ``points`` are ``n`` images of ``shape``, one at least, and finite."""
    expected = (n or "n", int(np.prod(shape)))
    if points.shape != expected:
        raise ValueError(f"`{name}` must have shape {expected} for images {shape}, got {points.shape}")
    if not np.isfinite(points).all():
        raise ValueError(f"`{name}` must be finite, got NaN or infinite values")


def _mosaic(images: np.ndarray) -> np.ndarray:
    """From ``(rows, columns, h, w[, c])`` to one image, with NaN in the gaps."""
    if images.ndim == 5 and images.shape[-1] == 1:
        images = images[..., 0]
    rows, columns, h, w = images.shape[:4]
    cells = np.full((rows, columns, h + _GAP, w + _GAP, *images.shape[4:]), np.nan)
    cells[:, :, :h, :w] = images
    whole = np.moveaxis(cells, 2, 1).reshape(rows * (h + _GAP), columns * (w + _GAP), *images.shape[4:])
    return whole[: -_GAP or None, : -_GAP or None]


def _limits(values: np.ndarray, limits: tuple[float, float] | None) -> tuple[float, float]:
    if limits is not None and not limits[0] < limits[1]:
        raise ValueError(f"`limits` must be (low, high) with low < high, got {limits!r}")
    return (values.min(), values.max()) if limits is None else limits


def _show(ax: Axes, mosaic: np.ndarray, limits: tuple[float, float], style: dict[str, Any]) -> AxesImage:
    """Draw a mosaic whose gaps are NaN."""
    low, high = limits
    if mosaic.ndim == 3:
        # matplotlib wants colours between 0 and 1; gaps are white.
        shown = np.clip((mosaic - low) / (high - low if high > low else 1.0), 0, 1)
        shown = np.where(np.isnan(shown), 1.0, shown)
    else:
        shown, style = np.ma.masked_invalid(mosaic), {"cmap": "gray", "vmin": low, "vmax": high, **style}
    return ax.imshow(shown, **{"interpolation": "nearest", **style})


def _label(ax: Axes, names: list[str], ts: np.ndarray, shape: tuple[int, ...]) -> None:
    h, w = shape[:2]
    # At most five times, first and last among them: more do not fit below small images.
    shown = np.unique(np.linspace(0, len(ts) - 1, min(5, len(ts))).round().astype(int))
    ax.set_xticks(shown * (w + _GAP) + (w - 1) / 2, [f"{ts[i]:.2g}" for i in shown])
    ax.set_yticks(np.arange(len(names)) * (h + _GAP) + (h - 1) / 2, names)
    ax.set_xlabel("$t$")
    _bare(ax)


def _bare(ax: Axes) -> None:
    """Names, but no marks and no frame."""
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
