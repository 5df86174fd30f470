"""Data sets from files and folders.

All messages name the argument or the file (``where``), what was expected, and what came. What reads a kind of file is
in ``readers/``; here is what all kinds have in common.
"""

import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .._checks import warn
from .base import Dataset, Standardization, as_float64, moments, moments_of_pixels
from .readers.arrays import read_array
from .readers.cells import read_cells
from .readers.delimited import Layout
from .readers.folders import read_folder
from .readers.hub import PREFIX, is_saved, read_hub
from .readers.missing import complete
from .readers.raw import Options, Raw
from .readers.records import read_records
from .readers.tables import read_table

# Of images: grey, grey and alpha, RGB, RGB and alpha.
_MOST_CHANNELS = 4
_FOLDER, _HUB = "a folder of images", "a data set of Hugging Face"
_READERS: dict[str, Callable[[pathlib.Path, str, Options], Raw]] = {
    ".npy": read_array,
    ".npz": read_array,
    ".csv": read_table,
    ".parquet": read_table,
    ".json": read_records,
    ".jsonl": read_records,
    ".h5ad": read_cells,
    _FOLDER: read_folder,
    _HUB: read_hub,
}
_TABLES = (".csv", ".parquet", ".json", ".jsonl", ".h5ad", _HUB)
# Which kinds an option is for.
_KINDS = {
    "key": (".npz", ".h5ad", _HUB),
    "columns": _TABLES,
    "label": (".npz", *_TABLES),
    "delimiter": (".csv",),
    "header": (".csv",),
    "size": (_FOLDER, _HUB),
    "channels": (_FOLDER, _HUB),
}


def load(
    path: str | os.PathLike,
    *,
    key: str | None = None,
    columns: Sequence[str | float] | None = None,
    label: str | float | None = None,
    per_feature: bool | None = None,
    drop: bool = False,
    impute: str | None = None,
    delimiter: str | None = None,
    header: bool | None = None,
    size: int | Sequence[int] | None = None,
    channels: int | None = None,
) -> Dataset:
    """Numbers from a ``.npy``, ``.npz``, ``.csv``, ``.parquet``, ``.json``, ``.jsonl`` or ``.h5ad`` file, a folder of
    images or a data set of Hugging Face, standardised.

    **Arguments**

    - ``path``: the file or folder. An array is ``(n, d)``, or an image stack ``(n, height, width)`` or ``(n, height,
      width, channels)``, which is flattened and keeps its ``image_shape``. A table has one point per row; a column of
      lists of one length counts as so many columns. JSON holds rows, records or columns, JSON lines a row or a record
      in each line. A folder holds images, grey or in colour, whose sub-folders are classes; what ``save_to_disk`` of
      Hugging Face's ``datasets`` wrote is told from that, and ``"hf:name"`` names a data set on their Hub,
      ``"hf:name:part"`` one of several under that name.
    - ``key``: which array of an ``.npz`` file, layer or embedding (``obsm``) of an ``.h5ad`` file, or split of a
      data set of Hugging Face; not needed if there is only one, or for the matrix X.
    - ``columns``: which columns of a table (genes of an ``.h5ad`` file), in this order; all by default.
    - ``label``: which column (array of an ``.npz`` file, column of ``obs``) has the labels: words or whole numbers. By
      default the sub-folders of images do, and the only column of classes of an ``.h5ad`` file or a Hugging Face set.
    - ``per_feature``: ``True`` for a scale per column, ``False`` for one common scale (see `Standardization.fit`). By
      default, a scale per column for tables and ``(n, d)`` arrays, and one common mean and scale for image stacks.
    - ``drop``: leave out columns in which nothing is a number, then rows in which something is missing.
    - ``impute``: ``"median"`` puts the median of its column for each number that is missing.
    - ``delimiter``: what separates the values of a ``.csv`` file; ``" "`` for white space. By default it is guessed
      (`csv.Sniffer`) among comma, semicolon, tab, bar and white space.
    - ``header``: whether the first row of a ``.csv`` file has the names of its columns; without names they are called
      0, 1, ... By default it has if a cell of it is no number, or if its numbers are unlike those of the other rows:
      the only whole ones, evenly spaced, growing where no other row does, or far outside (years, wavelengths, the 0, 1,
      2 of pandas). A file with few rows or one or two columns may be read wrongly: say it where it matters.
    - ``size``: pixels along each side, or ``(height, width)``, to which images are stretched.
    - ``channels``: 1 to read images as grey, 3 as colour; by default as they are, and all must be alike.

    **Raises** ``FileNotFoundError`` or ``PermissionError`` for a path that cannot be read; ``ValueError`` for a file
    that is not what its ending says, or is empty, or holds anything but finite real numbers (columns that are not
    numeric or miss values are named and counted; rows count from 0), or images that differ in size or kind (named), or
    have their channels in front, or for options that do not apply; ``ImportError`` where an extra is not installed:
    ``scoregeo[data]`` for ``.parquet``, ``[cells]`` for ``.h5ad``, ``[huggingface]``.

    **Warns** of files in a folder, and columns beside a column of images, that are left out.

    Nothing is unpickled, so a file cannot run code.
    """
    found = read_points(
        path, key=key, columns=columns, label=label, drop=drop, impute=impute, delimiter=delimiter, header=header,
        size=size, channels=channels,
    )  # fmt: skip
    for sentence in found.left_out:
        warn(f"`path` = '{path}': {sentence}")
    return standardized(found, name_of(path), per_feature)


def name_of(path: str | os.PathLike) -> str:
    """What to call the data of a file or a folder."""
    return pathlib.Path(path).stem or pathlib.Path(path).resolve().name


class FilePoints(NamedTuple):
    """What a file holds.

    - ``points``: ``(n, d)`` in float64, in the units of the file.
    - ``image_shape``: the shape of one image where they are images, or ``None``.
    - ``layout``: that of a .csv file, or ``None``.
    - ``labels``, ``label_names``, ``feature_names``: as `Dataset` has them.
    - ``rows``: which rows of the file they are, ``(n,)``: all, but for those that ``drop`` leaves out.
    - ``total``: how many rows the file has.
    - ``left_out``: sentences on what nobody asked to leave out.
    - ``notes``: sentences on what ``drop`` and ``impute`` did.
    """

    points: np.ndarray
    image_shape: tuple[int, ...] | None
    layout: Layout | None
    labels: np.ndarray | None
    label_names: tuple[str, ...] | None
    feature_names: tuple[str, ...] | None
    rows: np.ndarray
    total: int
    left_out: tuple[str, ...]
    notes: tuple[str, ...]


def standardized(found: FilePoints, name: str, per_feature: bool | None = None) -> Dataset:
    """The data set of what a file holds; arguments as `load` describes them."""
    points, image_shape = found.points, found.image_shape
    common = image_shape is not None and per_feature is None
    mean, scale = moments_of_pixels(points) if common else moments(points, per_feature is not False)
    return Dataset(
        # In float64 on the host, so that a large offset does not eat the digits of float32.
        (points - mean) / scale, name, standardization=Standardization(mean, scale), image_shape=image_shape,
        labels=found.labels, label_names=found.label_names, feature_names=found.feature_names,
    )  # fmt: skip


def read_points(path: str | os.PathLike, *, impute: str | None = None, **options: Any) -> FilePoints:
    """The points of a file, as they are in it.

    ``options`` are those of `Options`; they, ``impute`` and exceptions are as for `load`. Nothing is standardised here,
    and nothing is unpickled.
    """
    asked = Options(**options)
    if impute not in (None, "median"):
        raise ValueError(f"`impute` must be 'median' or None, got {impute!r}")
    path = pathlib.Path(path).expanduser()
    where = f"`path` = '{path}'"
    kind = _kind(path, where)
    for option, kinds in _KINDS.items():
        if getattr(asked, option) is not None and kind not in kinds:
            it_is = kind if kind in (_FOLDER, _HUB) else f"a {kind} file"
            raise ValueError(f"`{option}` is for {', '.join(kinds)}, but {where} is {it_is}")
    if kind not in (_FOLDER, _HUB):
        _check_readable(path, where)
    raw = _READERS[kind](path, where, asked)
    values = as_float64(raw.values, where)
    if values.ndim not in (2, 3, 4):
        hint = "; reshape one feature to (n, 1), or one point to (1, d)" if values.ndim == 1 else ""
        raise ValueError(
            f"{where} must hold an array (n, d), (n, h, w) or (n, h, w, c), got shape {values.shape}{hint}"
        )
    if values.size == 0:
        raise ValueError(f"{where} must hold at least one point and one feature, got shape {values.shape}")
    _check_channels_last(values.shape[1:], where)
    image_shape, values = values.shape[1:] if values.ndim > 2 else None, values.reshape(len(values), -1)
    names = raw.feature_names
    points, labels, rows, notes = complete(values, raw.labels, names, where, asked.drop, impute)
    return FilePoints(
        points, image_shape, raw.layout, labels, None if labels is None else tuple(raw.label_names or ()),
        None if names is None else tuple(map(str, names)), rows, len(values), tuple(raw.left_out),
        (*raw.dropped, *notes),
    )  # fmt: skip


def _kind(path: pathlib.Path, where: str) -> str:
    """What kind of file or folder is there, a key of ``_READERS``."""
    if str(path).startswith(PREFIX):
        return _HUB
    if path.is_dir():
        return _HUB if is_saved(path) else _FOLDER
    kind = path.suffix.lower()
    if kind in _READERS:
        return kind
    if not kind and not path.exists():
        raise FileNotFoundError(f"{where} does not exist")
    known = ", ".join(kind for kind in _READERS if kind.startswith("."))
    raise ValueError(f"{where} must be a folder or end in one of {known}, got {path.suffix or 'no extension'!r}")


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
    if not path.exists():
        raise FileNotFoundError(f"{where} does not exist")
    try:
        with path.open("rb") as file:
            first = file.read(1)
    except PermissionError as error:
        raise PermissionError(f"{where} must be readable, but permission was denied") from error
    if not first:
        raise ValueError(f"{where} must hold data, got an empty file (0 bytes)")
