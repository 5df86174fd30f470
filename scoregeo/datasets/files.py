"""Data sets from .npy, .npz, .csv and .parquet files.

All messages name the argument or the file (``where``), what was expected, and what came. pandas is imported only where
a table is read.
"""

import csv
import os
import pathlib
import zipfile
import zlib
from collections.abc import Callable, Sequence

import numpy as np

from .base import Dataset, Standardization, as_numbers, check_entries, moments, moments_of_pixels


def load(
    path: str | os.PathLike,
    *,
    key: str | None = None,
    columns: Sequence[str | int] | None = None,
    per_feature: bool | None = None,
) -> Dataset:
    """Numbers from a ``.npy``, ``.npz``, ``.csv`` or ``.parquet`` file, standardised.

    **Arguments**

    - ``path``: the file. An array is ``(n, d)``, or an image stack ``(n, height, width)`` or ``(n, height, width,
      channels)``, which is flattened and keeps its ``image_shape``. A table has one point per row; a ``.csv`` file may
      lack a header, and then its columns are called 0, 1, ...
    - ``key``: which array of an ``.npz`` file; not needed if it has only one.
    - ``columns``: which columns of a table, in this order; all by default.
    - ``per_feature``: ``True`` for a scale per column, ``False`` for one common scale (see `Standardization.fit`). By
      default, a scale per column for tables and ``(n, d)`` arrays, and one common mean and scale for image stacks.

    **Raises** ``FileNotFoundError``, ``IsADirectoryError`` or ``PermissionError`` for a path that is no readable file;
    ``ValueError`` for a file that is not what its extension says, or is empty, or holds anything but finite real
    numbers (columns that are not numeric are named, the first bad entry is located; rows count from 0), or for a
    ``key`` or ``columns`` that it does not have; ``ImportError`` for ``.parquet`` without pyarrow (``pip install
    scoregeo[data]``).

    Nothing is unpickled, so a file cannot run code.
    """
    points, image_shape = read_points(path, key=key, columns=columns)
    return standardized(points, pathlib.Path(path).stem, image_shape, per_feature)


def standardized(
    points: np.ndarray, name: str, image_shape: tuple[int, ...] | None, per_feature: bool | None = None
) -> Dataset:
    """The data set of ``points`` ``(n, d)`` in the units of a file; arguments as `load` describes them."""
    common = image_shape is not None and per_feature is None
    mean, scale = moments_of_pixels(points) if common else moments(points, per_feature is not False)
    # In float64 on the host, so that a large offset does not eat the digits of float32.
    points = (points - mean) / scale
    return Dataset(points, name, standardization=Standardization(mean, scale), image_shape=image_shape)


def read_points(
    path: str | os.PathLike, *, key: str | None = None, columns: Sequence[str | int] | None = None
) -> tuple[np.ndarray, tuple[int, ...] | None]:
    """Points ``(n, d)`` in float64 from a file, and the shape of one image where the file holds a stack of images.

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
    _check_readable(path, where)
    if kind in (".npy", ".npz"):
        raw, names = _read_array(path, where, kind, key), None
    else:
        raw, names = _read_table(path, where, kind, columns)
    raw = as_numbers(raw, where)
    if raw.ndim not in (2, 3, 4):
        hint = "; reshape one feature to (n, 1), or one point to (1, d)" if raw.ndim == 1 else ""
        raise ValueError(f"{where} must hold an array (n, d), (n, h, w) or (n, h, w, c), got shape {raw.shape}{hint}")
    if raw.size == 0:
        raise ValueError(f"{where} must hold at least one point and one feature, got shape {raw.shape}")
    image_shape, raw = raw.shape[1:] if raw.ndim > 2 else None, raw.reshape(len(raw), -1)
    check_entries(raw, where, names)
    return raw, image_shape


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


def _read_table(path: pathlib.Path, where: str, kind: str, columns: Sequence | None) -> tuple[np.ndarray, list]:
    import pandas as pd

    try:
        frame = _read_csv(path, pd.read_csv) if kind == ".csv" else pd.read_parquet(path, engine="pyarrow")
    except ImportError as error:
        raise ImportError(f"reading {where} needs pyarrow: pip install scoregeo[data]") from error
    except (ValueError, OSError) as error:  # pandas and pyarrow raise subclasses of these
        raise ValueError(f"{where} must be a {kind} file with a table of numbers: {error}") from error
    names = list(frame.columns)
    if columns is not None:
        if isinstance(columns, str) or not len(columns):
            raise ValueError(f"`columns` must be a list of one or more column names, got {columns!r}")
        # Columns without a header have numbers for names, which on the command line are words.
        known = {str(name): name for name in names}
        missing = [name for name in columns if str(name) not in known]
        if missing:
            raise ValueError(f"`columns` must be among {names} of {where}, got {missing}")
        names = [known[str(name)] for name in columns]
        frame = frame[names]
    elif kind == ".csv" and names and str(names[0]) == "Unnamed: 0":
        raise ValueError(
            f"{where} has a first column without a name (an index?): give `columns` to `datasets.load`, among {names}"
        )
    if frame.empty:
        raise ValueError(f"{where} must hold at least one point and one feature, got {len(frame)} rows of {names}")
    _check_numeric(frame, where, pd)
    return frame.to_numpy(dtype=np.float64, na_value=np.nan), names


def _read_csv(path: pathlib.Path, read_csv: Callable):
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = (row for row in csv.reader(file) if row)
        first, second = next(rows, []), next(rows, [])
    if len(second) > len(first):
        # pandas would quietly take the first column for an index.
        raise ValueError(f"its header has {len(first)} names, but its rows have {len(second)} values")
    try:
        headless = [float(cell) for cell in first] != []
    except ValueError:
        headless = False
    return read_csv(path, header=None if headless else "infer", low_memory=False)


def _check_numeric(frame, where: str, pd) -> None:
    bad = []
    for position, name in enumerate(frame.columns):
        column = frame.iloc[:, position]
        types = pd.api.types
        if types.is_numeric_dtype(column) and not types.is_bool_dtype(column) and not types.is_complex_dtype(column):
            continue
        example = f"dtype {column.dtype}"
        if types.is_object_dtype(column) or types.is_string_dtype(column):
            text = column[pd.to_numeric(column.astype(str), errors="coerce").isna() & column.notna()]
            example = example if text.empty else f"{text.iloc[0]!r} in row {column.index.get_loc(text.index[0])}"
        bad.append(f"{name!r} ({example})")
    if bad:
        raise ValueError(
            f"{where} must have numeric columns, got {', '.join(bad)}; `datasets.load` chooses others with `columns`"
        )
