"""Missing values: an error that counts them, rows left out, or medians in their place."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .raw import listed


class Complete(NamedTuple):
    """Points without gaps, ``(m, d)``; their labels, or ``None``; the rows ``(m,)`` of the file that they are; and
    sentences on what was done."""

    points: np.ndarray
    labels: np.ndarray | None
    rows: np.ndarray
    notes: tuple[str, ...]


def complete(
    points: np.ndarray, labels: np.ndarray | None, names: Sequence | None, where: str, drop: bool, impute: str | None
) -> Complete:
    """``points`` ``(n, d)`` and ``labels`` ``(n,)`` without what is missing: NaN, and -1 among labels.

    ``impute="median"`` fills columns, and ``drop`` leaves out rows in which something is missing still. Raises
    ``ValueError``, with columns and counts, where something is after that; where all rows are left out; where a column
    has no value that a median could be taken of; and for infinite values, which are not missing.
    """
    rows, notes = np.arange(len(points)), []
    _refuse_infinite(points, names, where)
    gaps = np.isnan(points)
    unlabelled = np.zeros(len(points), bool) if labels is None else labels < 0
    if impute is not None and gaps.any():
        columns = np.flatnonzero(gaps.any(0))
        empty = columns[gaps[:, columns].all(0)]
        if empty.size:
            raise ValueError(
                f"{where} must have a value in each column for `impute` to take the median of, but these have none: "
                f"{listed([repr(_name(names, j)) for j in empty])}"
            )
        medians = np.nanmedian(points[:, columns], 0)
        points = points.copy()
        points[:, columns] = np.where(gaps[:, columns], medians, points[:, columns])
        notes.append(f"filled {_count(gaps, names)} with medians")
        gaps = np.zeros_like(gaps)
    if drop and (gaps.any() or unlabelled.any()):
        bad = gaps.any(1) | unlabelled
        if bad.all():
            raise ValueError(f"{where} must have a row in which nothing is missing, but {_count(gaps, names)} are")
        rows = np.flatnonzero(~bad)
        notes.append(f"left out {int(bad.sum())} of {len(bad)} rows, in which something is missing")
        return Complete(points[rows], None if labels is None else labels[rows], rows, tuple(notes))
    _refuse_gaps(gaps, names, where)
    if unlabelled.any():
        raise ValueError(
            f"{where} must have a label for every point, but {int(unlabelled.sum())} of {len(points)} are missing, the "
            f"first in row {int(np.argmax(unlabelled))}; `drop` leaves out their rows"
        )
    return Complete(points, labels, rows, tuple(notes))


def _name(names: Sequence | None, column: int | np.integer) -> object:
    return int(column) if names is None else names[int(column)]


def _count(bad: np.ndarray, names: Sequence | None) -> str:
    """How many values are bad, and in which columns."""
    counts = bad.sum(0)
    columns = np.flatnonzero(counts)
    each = listed([f"{_name(names, j)!r} {counts[j]}" for j in columns])
    return f"{int(bad.sum())} of {bad.size} values in {len(columns)} of {len(counts)} columns ({each})"


def _first(bad: np.ndarray, names: Sequence | None) -> str:
    row, column = (int(i) for i in np.argwhere(bad)[0])
    return f"the first in row {row}, column {_name(names, column)!r}"


def _refuse_infinite(points: np.ndarray, names: Sequence | None, where: str) -> None:
    bad = np.isinf(points)
    if bad.any():
        raise ValueError(
            f"{where} must hold finite numbers, but {_count(bad, names)} are infinite, {_first(bad, names)}: these are "
            "not missing values, which could be left out or filled"
        )


def _refuse_gaps(gaps: np.ndarray, names: Sequence | None, where: str) -> None:
    if gaps.any():
        raise ValueError(
            f"{where} must hold finite numbers, but {_count(gaps, names)} are missing or NaN, {_first(gaps, names)}; "
            f"`drop` leaves out these {int(gaps.any(1).sum())} of {len(gaps)} rows, `impute` fills in medians"
        )
