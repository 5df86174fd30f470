"""Rotated letters: images on closed curves, whose angle is the truth to compare a path with."""

from collections.abc import Sequence

import numpy as np

from .base import Dataset

# The em square of the font is this part of the side of an image; the rest is room to turn in.
_EM = 0.694
# Outlines are filled on a grid that is so many times finer than the pixels, then averaged.
_FINE = 8
# Standard deviation of the blur, in pixels: without one an image changes in jumps as it turns.
_BLUR = 0.6


def rotated_letters(
    letters: str = "F5R", angles: int | Sequence[float] | np.ndarray = 360, *, size: int = 16
) -> Dataset:
    """Images of ``size`` x ``size`` pixels of each of ``letters``, turned by each of ``angles``: one closed curve for
    each letter.

    **Arguments**

    - ``letters``: characters of DejaVu Sans, the font that comes with matplotlib; drawn bold.
    - ``angles``: how many equal steps make a full turn, or the angles themselves, in degrees, counter-clockwise.
    - ``size``: pixels along each side.

    Points are pixels from 0 (paper) to 1 (ink), not standardised. The angles of a letter follow one another, and
    ``labels`` says which letter a row shows: row ``i * n + j`` is the ``i``-th letter at the ``j``-th of n angles. The
    outline itself is turned and then filled, so that an image at any angle is as sharp as at any other.

    Raises ``ValueError`` for a character that the font does not have or that has no outline, angles that are not
    finite, or ``size`` below 4.

    >>> from scoregeo.datasets import rotated_letters
    >>> data = rotated_letters("F", 4)
    >>> data.points.shape, data.image_shape, data.labels.tolist()
    ((4, 256), (16, 16), [0, 0, 0, 0])
    """
    if not isinstance(letters, str) or not letters:
        raise ValueError(f"`letters` must be one or more characters, got {letters!r}")
    if size < 4:
        raise ValueError(f"`size` must be at least 4 pixels, got {size}")
    if isinstance(angles, int | np.integer):
        if angles < 1:
            raise ValueError(f"`angles` must be at least 1, got {angles}")
        angles = 360 * np.arange(angles) / angles
    degrees = np.asarray(angles, float)
    if degrees.ndim != 1 or not degrees.size or not np.isfinite(degrees).all():
        raise ValueError(f"`angles` must be a number of steps, or finite angles in degrees, got {angles!r}")
    images = [_image(outline, degree, size) for outline in map(_outline, letters) for degree in degrees]
    labels = np.repeat(np.arange(len(letters)), degrees.size)
    return Dataset(
        np.stack(images).reshape(len(images), -1),
        "letters",
        labels=labels,
        label_names=letters,
        image_shape=(size, size),
    )


def _outline(letter: str):
    """The outline of ``letter`` about the middle of its box; one em is one unit long."""
    from matplotlib.font_manager import FontProperties, findfont, get_font
    from matplotlib.textpath import TextPath
    from matplotlib.transforms import Affine2D

    font = FontProperties(family="DejaVu Sans", weight="bold")
    if not get_font(findfont(font)).get_char_index(ord(letter)):
        raise ValueError(f"`letters` must be characters that DejaVu Sans has, got {letter!r}")
    if letter.isspace():
        raise ValueError(f"`letters` must have an outline, got {letter!r}")
    path = TextPath((0, 0), letter, size=1, prop=font)
    box = path.get_extents()
    return path.transformed(Affine2D().translate(-(box.x0 + box.x1) / 2, -(box.y0 + box.y1) / 2))


def _image(outline, degrees: float, size: int) -> np.ndarray:
    """``outline`` turned by ``degrees``, filled, blurred and averaged over pixels: ``(size, size)``, row 0 on top."""
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.transforms import Affine2D
    from scipy.ndimage import gaussian_filter

    side = size * _FINE
    placed = Affine2D().rotate_deg(degrees).scale(_EM * side).translate(side / 2, side / 2)
    renderer = RendererAgg(side, side, 72)
    pen = renderer.new_gc()
    pen.set_linewidth(0)
    renderer.draw_path(pen, outline, placed, (0.0, 0.0, 0.0))
    ink = np.asarray(renderer.buffer_rgba())[..., 3] / 255
    return gaussian_filter(ink, _BLUR * _FINE).reshape(size, _FINE, size, _FINE).mean((1, 3))
