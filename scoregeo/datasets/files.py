"""Data sets from .npy, .npz, .csv and .parquet files.

All messages name the argument or the file (``where``), what was expected, and what came. pandas is imported only where
a table is read.
"""

import os
import pathlib
import zipfile
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .base import Dataset, Standardization, as_float64, check_entries, moments, moments_of_pixels
from .tables import Layout, read_table

# Of images: grey, grey and alpha, RGB, RGB and alpha.
_MOST_CHANNELS = 4


def load(
    path: str | os.PathLike,
    *,
    key: str | None = None,
    columns: Sequence[str | int] | None = None,
    per_feature: bool | None = None,
    delimiter: str | None = None,
    header: bool | None = None,
) -> Dataset:
    """Numbers from a ``.npy``, ``.npz``, ``.csv`` or ``.parquet`` file, standardised.

    **Arguments**

    - ``path``: the file. An array is ``(n, d)``, or an image stack ``(n, height, width)`` or ``(n, height, width,
      channels)``, which is flattened and keeps its ``image_shape``. A table has one point per row.
    - ``key``: which array of an ``.npz`` file; not needed if it has only one.
    - ``columns``: which columns of a table, in this order; all by default.
    - ``per_feature``: ``True`` for a scale per column, ``False`` for one common scale (see `Standardization.fit`). By
      default, a scale per column for tables and ``(n, d)`` arrays, and one common mean and scale for image stacks.
    - ``delimiter``: what separates the values of a ``.csv`` file; ``" "`` for white space. By default it is guessed
      (`csv.Sniffer`) among comma, semicolon, tab, bar and white space.
    - ``header``: whether the first row of a ``.csv`` file has the names of its columns; without names they are called
      0, 1, ... By default it has if a cell of it is no number, or if its numbers are unlike those of the other rows:
      the only whole ones, evenly spaced, growing where no other row does, or far outside (years, wavelengths, the 0, 1,
      2 of pandas). A file with few rows or one or two columns may be read wrongly: say it where it matters.

    **Raises** ``FileNotFoundError``, ``IsADirectoryError`` or ``PermissionError`` for a path that is no readable file;
    ``ValueError`` for a file that is not what its extension says, or is empty, or holds anything but finite real
    numbers (columns that are not numeric are named, the first bad entry is located; rows count from 0), or images with
    their channels in front, or for a ``key`` or ``columns`` that it does not have; ``ImportError`` for ``.parquet``
    without pyarrow (``pip install scoregeo[data]``).

    Nothing is unpickled, so a file cannot run code.
    """
    found = read_points(path, key=key, columns=columns, delimiter=delimiter, header=header)
    return standardized(found.points, pathlib.Path(path).stem, found.image_shape, per_feature)


def standardized(
    points: np.ndarray, name: str, image_shape: tuple[int, ...] | None, per_feature: bool | None = None
) -> Dataset:
    """The data set of ``points`` ``(n, d)`` in the units of a file; arguments as `load` describes them."""
    common = image_shape is not None and per_feature is None
    mean, scale = moments_of_pixels(points) if common else moments(points, per_feature is not False)
    # In float64 on the host, so that a large offset does not eat the digits of float32.
    points = (points - mean) / scale
    return Dataset(points, name, standardization=Standardization(mean, scale), image_shape=image_shape)


class FilePoints(NamedTuple):
    """What a file holds: ``points`` ``(n, d)`` in float64, the shape of one image where they are a stack of images, and
    the layout of a .csv file."""

    points: np.ndarray
    image_shape: tuple[int, ...] | None
    layout: Layout | None


def read_points(
    path: str | os.PathLike,
    *,
    key: str | None = None,
    columns: Sequence[str | int] | None = None,
    delimiter: str | None = None,
    header: bool | None = None,
) -> FilePoints:
    """The points of a file, as they are in it.

    Arguments and exceptions as for `load`. Nothing is standardised here, and nothing is unpickled.
    """
    path = pathlib.Path(path).expanduser()
    where, kind = f"`path` = '{path}'", path.suffix.lower()
    if kind not in (".npy", ".npz", ".csv", ".parquet"):
        raise ValueError(f"{where} must end in .npy, .npz, .csv or .parquet, got {path.suffix or 'no extension'!r}")
    if key is not None and kind != ".npz":
        raise ValueError(f"`key` names an array of an .npz file, but {where} is a {kind} file")
    if columns is not None and kind not in (".csv", ".parquet"):
        raise ValueError(f"`columns` names columns of a .csv or .parquet file, but {where} is an {kind} file")
    if (delimiter is not None or header is not None) and kind != ".csv":
        raise ValueError(f"`delimiter` and `header` say how to read a .csv file, but {where} is a {kind} file")
    _check_readable(path, where)
    if kind in (".npy", ".npz"):
        raw, names, layout = _read_array(path, where, kind, key), None, None
    else:
        raw, names, layout = read_table(path, where, columns, delimiter, header)
    raw = as_float64(raw, where)
    if raw.ndim not in (2, 3, 4):
        hint = "; reshape one feature to (n, 1), or one point to (1, d)" if raw.ndim == 1 else ""
        raise ValueError(f"{where} must hold an array (n, d), (n, h, w) or (n, h, w, c), got shape {raw.shape}{hint}")
    if raw.size == 0:
        raise ValueError(f"{where} must hold at least one point and one feature, got shape {raw.shape}")
    _check_channels_last(raw.shape[1:], where)
    image_shape, raw = raw.shape[1:] if raw.ndim > 2 else None, raw.reshape(len(raw), -1)
    check_entries(raw, where, names)
    return FilePoints(raw, image_shape, layout)


def _check_channels_last(image_shape: tuple[int, ...], where: str) -> None:
    """Raise ``ValueError`` for images that have three or so rows and many channels: theirs stand in front, as torch has
    them."""
    if len(image_shape) == 3 and image_shape[0] <= _MOST_CHANNELS < image_shape[2]:
        raise ValueError(
            f"{where} must have images (height, width, channels), got {image_shape}, whose channels seem to "
            "come first: move them to the end with `numpy.moveaxis(images, 1, -1)`, or flatten to (n, d) what has no "
            "such channels"
        )


def _check_readable(path: pathlib.Path, where: str) -> None:
    if path.is_dir():
        raise IsADirectoryError(f"{where} must be a file, got a directory")
    if not path.exists():
        raise FileNotFoundError(f"{where} does not exist")
    try:
        with path.open("rb") as file:
            first = file.read(1)
    except PermissionError as error:
        raise PermissionError(f"{where} must be readable, but permission was denied") from error
    if not first:
        raise ValueError(f"{where} must hold data, got an empty file (0 bytes)")


def _read_array(path: pathlib.Path, where: str, kind: str, key: str | None) -> np.ndarray:
    with path.open("rb") as file:
        start = file.read(6)
    if not start.startswith(b"\x93NUMPY" if kind == ".npy" else b"PK"):
        raise ValueError(f"{where} must be a NumPy {kind} file, but starts with the bytes {start!r}")
    names = []
    try:
        # np.load leaves a file that it opened itself open when the archive is broken.
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if kind == ".npy":
                return loaded
            names = list(loaded.files)
            if key in names or (key is None and len(names) == 1):
                return loaded[names[0] if key is None else key]
    except (ValueError, EOFError, OSError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{where} must be a NumPy {kind} file with an array of numbers: {error}") from error
    given = "`key`" if key is None else f"`key` = {key!r}"
    raise ValueError(f"{given} must name one of the arrays of {where}, which holds {names}")
