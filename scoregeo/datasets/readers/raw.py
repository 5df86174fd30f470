"""What every reader is asked for and returns, and what several of them share."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .delimited import Layout

# What is unpacked (sparse counts, compressed images) may be so large in float64, and is refused beyond.
MOST_BYTES = 8 * 2**30
# Columns, rows and files that one message names.
MOST_NAMES = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """The arguments of `scoregeo.datasets.load` that say what is read."""

    key: str | None = None
    columns: Sequence[str | float] | None = None
    label: str | float | None = None
    delimiter: str | None = None
    header: bool | None = None
    size: int | Sequence[int] | None = None
    channels: int | None = None
    drop: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Raw:
    """What a file holds.

    **Fields**

    - ``values``: numbers of any real type, ``(n, d)`` or, of images, ``(n, height, width)`` or ``(n, height, width,
      channels)``; NaN stands for what is missing.
    - ``feature_names``: d names, or ``None``.
    - ``labels``: ``(n,)`` integers from 0 on, -1 where one is missing; or ``None``.
    - ``label_names``: what they stand for; or ``None``.
    - ``layout``: how a .csv file was read; or ``None``.
    - ``left_out``: sentences on what nobody asked to leave out.
    - ``dropped``: sentences on what ``drop`` left out.
    """

    values: np.ndarray
    feature_names: Sequence | None = None
    labels: np.ndarray | None = None
    label_names: Sequence[str] | None = None
    layout: Layout | None = None
    left_out: Sequence[str] = ()
    dropped: Sequence[str] = ()


def listed(parts: Sequence, most: int = MOST_NAMES, total: int | None = None) -> str:
    """The first of ``parts``, with commas, and how many more there are, of ``total`` where ``parts`` are not all."""
    shown, total = ", ".join(str(part) for part in parts[:most]), len(parts) if total is None else total
    return shown if total <= most else f"{shown} and {total - most:,} more"


def check_start(first: bytes, starts: tuple[bytes, ...], where: str, kind: str) -> None:
    """Raise ``ValueError`` where a file does not start as its kind does: its ending does not say what it is."""
    if not first.startswith(starts):
        raise ValueError(f"{where} must be {kind}, but starts with the bytes {first[:6]!r}{_other_kind(first)}")


def _other_kind(first: bytes) -> str:
    """What a file is that starts in this way, for messages; nothing where that is not known."""
    known = {
        b"PK\x03\x04": "a .zip, .npz or .xlsx file",
        b"\x1f\x8b": "a .gz file",
        b"BZh": "a .bz2 file",
        b"\xfd7zXZ": "an .xz file",
        b"\x93NUMPY": "a .npy file",
        b"PAR1": "a .parquet file",
        b"\x89HDF": "an HDF5 file, such as .h5ad",
        b"\x89PNG": "a .png image",
        b"\xff\xd8\xff": "a .jpg image",
        b"%PDF": "a .pdf file",
    }
    return next((f", as {name} does" for start, name in known.items() if first.startswith(start)), "")


def check_text(first: bytes, where: str, kind: str) -> None:
    """Raise ``ValueError`` where a file that should be text starts as one of a known binary kind."""
    if _other_kind(first):
        check_start(first, (), where, kind)


def check_memory(shape: tuple[int, ...], where: str, advice: str) -> None:
    """Raise ``ValueError`` where an array of ``shape`` in float64 is larger than `MOST_BYTES`."""
    size = 8 * math.prod(shape)
    if size > MOST_BYTES:
        raise ValueError(
            f"{where} must hold at most {MOST_BYTES / 2**30:.3g} GiB once it is unpacked, got shape {shape}, which is "
            f"{size / 2**30:.1f} GiB in float64: {advice}"
        )


def as_labels(column: Any, where: str, name: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels ``(n,)`` from 0 on, in the order of their names, -1 for what is missing, and those names.

    Raises ``ValueError`` where the column ``name`` has numbers that are not whole, or lists.
    """
    import pandas as pd

    series: Any = pd.Series(column).reset_index(drop=True)
    if pd.api.types.is_float_dtype(series):
        known = series.dropna()
        if (known % 1 != 0).any():
            first = float(known[known % 1 != 0].iloc[0])
            raise ValueError(f"{where} must have classes for labels, words or whole numbers, got {first!r} in {name!r}")
        series = series.astype("Int64")
    try:
        codes, classes = pd.factorize(series, sort=True)
    except TypeError as error:
        raise ValueError(f"{where} must have classes for labels, but {name!r} has none: {error}") from error
    if not len(classes):
        raise ValueError(f"{where} must have labels, but every one of {name!r} is missing")
    return np.asarray(codes, np.int64), tuple(map(str, classes))


def chosen(columns: Any, names: Sequence, where: str, option: str = "columns") -> list[int]:
    """The places of the chosen ``columns`` among the ``names`` that a table has. Raises ``ValueError`` that names the
    ``option`` for others."""
    if isinstance(columns, str) or not len(columns):
        raise ValueError(f"`{option}` must be a list of one or more column names, got {columns!r}")
    # Columns without a header have numbers for names, which on the command line are words.
    places: dict[str, int] = {}
    for place, name in enumerate(names):
        places.setdefault(str(name), place)
    missing = [name for name in columns if str(name) not in places]
    if missing:
        known = f"[{listed([repr(name) for name in names], 20)}]"
        raise ValueError(f"`{option}` must be among {known} of {where}, got {missing}")
    return [places[str(name)] for name in columns]
