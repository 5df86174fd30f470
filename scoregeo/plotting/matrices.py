"""Distances between many points, of any dimension: the matrix in an order that shows groups, and maps of images."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.image import AxesImage
from matplotlib.offsetbox import AnnotationBbox, OffsetImage

from .fields import check_axes
from .images import check_image_shape, check_images


def leaf_order(distances: Any) -> np.ndarray:
    """An order of the points in which near ones are next to each other: leaves of average-linkage clustering, ``(n,)``.

    ``distances`` ``(n, n)``, symmetric, finite. Neighbouring leaves are as near as the tree allows (Bar-Joseph et al.
    2001, as SciPy has it). Raises ``ValueError`` for other shapes, or distances that are NaN or infinite.

    >>> leaf_order(np.abs(np.subtract.outer([0.0, 5.0, 1.0, 6.0], [0.0, 5.0, 1.0, 6.0]))).tolist()
    [0, 2, 1, 3]
    """
    from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
    from scipy.spatial.distance import squareform

    matrix = _check(distances)
    if len(matrix) < 3:
        return np.arange(len(matrix))
    condensed = squareform((matrix + matrix.T) / 2, checks=False)
    return leaves_list(optimal_leaf_ordering(linkage(condensed, "average"), condensed))


def distance_matrix(
    ax: Axes, distances: Any, *, labels: Sequence[Any] | None = None, order: bool = True, **style: Any
) -> AxesImage:
    """A matrix of distances in colours, with the points in an order that puts near ones next to each other.

    **Arguments**

    - ``ax``: the axes.
    - ``distances``: ``(n, n)``, such as `pairwise_dist` returns; symmetric, finite.
    - ``labels``: ``(n,)``, what to write beside the rows; where there are more than 40 none are written.
    - ``order``: reorder by `leaf_order`; ``False`` keeps the order given.
    - ``**style``: passed on to ``Axes.imshow``, over the defaults here.

    ``figure.colorbar(artist)`` adds the scale. Raises ``ValueError`` for other shapes, or distances that are not
    finite: a solve that failed has no distance, so say what to do with it first.

    >>> from matplotlib.figure import Figure
    >>> places = np.array([0.0, 5.0, 1.0, 6.0])
    >>> artist = distance_matrix(Figure().subplots(), np.abs(places[:, None] - places), labels="abcd")
    >>> [text.get_text() for text in artist.axes.get_yticklabels()]
    ['a', 'c', 'b', 'd']
    """
    check_axes(ax)
    matrix = _check(distances)
    n = len(matrix)
    if labels is not None and len(labels) != n:
        raise ValueError(f"`labels` must have one entry for each of the {n} points, got {len(labels)}")
    places = leaf_order(matrix) if order else np.arange(n)
    artist = ax.imshow(matrix[np.ix_(places, places)], **{"cmap": "cividis_r", "interpolation": "nearest", **style})
    if labels is not None and n <= 40:
        names = [str(list(labels)[i]) for i in places.tolist()]
        ax.set_xticks(range(n), names, rotation=90, fontsize=8)
        ax.set_yticks(range(n), names, fontsize=8)
    else:
        ax.set_xlabel("point, in the order of the clustering" if order else "point")
        ax.set_xticks([])
        ax.set_yticks([])
    return artist


def thumbnails(
    ax: Axes, places: Any, images: Any, image_shape: Sequence[int], *, zoom: float = 2.0, **style: Any
) -> list[AnnotationBbox]:
    """Images ``(n, d)`` at ``places`` ``(n, 2)`` in the plane, such as an embedding of their distances.

    **Arguments**

    - ``ax``: the axes; limits grow to show all.
    - ``image_shape``: ``(height, width)``, or ``(height, width, channels)`` with 1, 3 or 4 channels; its product is d.
    - ``zoom``: points (1/72 inch) per pixel of an image.
    - ``**style``: passed on to ``OffsetImage``, over the defaults here.

    Raises ``ValueError`` for shapes that do not agree, and values that are not finite.
    """
    check_axes(ax)
    places, images = np.asarray(places, np.float64), np.asarray(images, np.float64)
    shape = check_image_shape(image_shape)
    if places.ndim != 2 or places.shape[1] != 2 or not len(places):
        raise ValueError(f"`places` must have shape (n, 2) with n >= 1, got {places.shape}")
    check_images("images", images, len(places), shape)
    low, high = images.min(), images.max()
    images = ((images - low) / (high - low if high > low else 1.0)).reshape(-1, *shape)
    boxes = []
    for place, image in zip(places, images.squeeze(-1) if shape[2:] == (1,) else images, strict=True):
        picture = OffsetImage(
            image, zoom=zoom, **{"cmap": "gray_r", "norm": Normalize(0, 1), "interpolation": "nearest", **style}
        )
        box = AnnotationBbox(picture, (float(place[0]), float(place[1])), frameon=False, pad=0)
        ax.add_artist(box)
        boxes.append(box)
    ax.update_datalim(places)
    ax.margins(0.08)
    ax.autoscale_view()
    ax.set_aspect("equal")
    return boxes


def _check(distances: Any) -> np.ndarray:
    matrix = np.asarray(distances, np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not len(matrix):
        raise ValueError(f"`distances` must have shape (n, n), got {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise ValueError(
            f"`distances` must be finite, but {int((~np.isfinite(matrix)).sum())} of {matrix.size} are not"
        )
    if not np.allclose(matrix, matrix.T, rtol=1e-3, atol=1e-6 * np.abs(matrix).max()):
        raise ValueError("`distances` must be symmetric")
    return matrix
