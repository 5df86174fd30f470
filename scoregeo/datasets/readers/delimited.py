"""What a .csv file does not say itself.

A .csv file says neither what separates its values nor whether its first row has names. Names that are words are easily
told from numbers; names that are numbers (years, wavelengths, the 0, 1, 2 of pandas) are told by what a point would
hardly be, next to the other rows: see `_are_names`.
"""

import csv
import dataclasses
import pathlib
import re
from collections.abc import Iterable
from typing import Any

import numpy as np

# Rows that are looked at: for the delimiter (by the standard library, in a time that grows with their length), and for
# names that are numbers; so many at least, though they have more characters than this.
_ROWS_FOR_DELIMITER, _ROWS_FOR_NAMES = 20, 200
_FEWEST_ROWS, _CHARACTERS = 5, 1_000_000
# A semicolon, a tab or a bar is no part of a number; a comma may be its decimal point; a space may stand in a name.
_DELIMITERS = (";\t|", ",", " ")
# What stands for a number that is missing, besides nan.
_MISSING = ("", "NA", "N/A", "null", "NULL", "None")


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a .csv file was read.

    **Fields**

    - ``delimiter``: the character between two values; ``" "`` stands for any white space.
    - ``header``: whether the first row has the names of the columns.
    - ``names``: those names, or the numbers 0, 1, ... of the columns.
    """

    delimiter: str
    header: bool
    names: tuple[Any, ...] = ()

    def __str__(self) -> str:
        shown = ", ".join(map(str, self.names[:4])) + (", ..." if len(self.names) > 4 else "")
        about = f"names in its first row ({shown})" if self.header else "no names in its first row"
        return f"delimiter {self.delimiter!r} and {about}"


def advice(layout: Layout | None) -> str:
    """The end of a message about a table: how it was read, and what says otherwise."""
    return "" if layout is None else f"; it was read with {layout}, `delimiter` and `header` say otherwise"


def guess_layout(path: pathlib.Path, delimiter: str | None, header: bool | None) -> Layout:
    """What is given, and a guess at what is not; raises ``ValueError`` for rows longer than their header."""
    if delimiter is not None and not (isinstance(delimiter, str) and len(delimiter) == 1 and delimiter not in '"\r\n'):
        raise ValueError(f"`delimiter` must be one character such as ';', got {delimiter!r}")
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = _first_lines(file)
    if delimiter is None:
        delimiter = _guess_delimiter(lines[:_ROWS_FOR_DELIMITER])
    if delimiter == " ":
        lines = [line.strip() for line in lines]
    first, *others = csv.reader(lines, delimiter=delimiter, skipinitialspace=True) if lines else [[]]
    layout = Layout(delimiter, _has_names(first, others) if header is None else bool(header))
    if others and len(others[0]) > len(first):
        # pandas would quietly take the first column for an index.
        raise ValueError(
            f"its header has {len(first)} names, but its rows have {len(others[0])} values{advice(layout)}"
        )
    return layout


def _first_lines(file: Iterable[str]) -> list[str]:
    """Lines that are not empty, so many as need be looked at; fewer of long ones."""
    lines, size = [], 0
    for line in filter(str.strip, file):
        lines.append(line)
        size += len(line)
        if len(lines) == _ROWS_FOR_NAMES or (len(lines) >= _FEWEST_ROWS and size > _CHARACTERS):
            break
    return lines


def _guess_delimiter(lines: list[str]) -> str:
    for candidates in _DELIMITERS:
        try:
            return csv.Sniffer().sniff("".join(lines), candidates).delimiter
        except csv.Error:
            continue
    return ","  # one column


def _has_names(first: list[str], others: list[list[str]]) -> bool:
    """Whether the first row has names: words over numbers, words that their column does not repeat (as it does those of
    classes), or numbers that are names (`_are_names`)."""
    others = [cells for cells in others if len(cells) == len(first)]
    numbers = [_as_numbers(cells) for cells in [first, *others]]
    # Where pandas writes an index, the first of the names is missing; in a point, any number may be.
    known = [j for j, cell in enumerate(first) if cell.strip() not in _MISSING]
    words = {j for j in known if any(row[j] is None for row in numbers)}
    if any(numbers[0][j] is None and first[j] not in {cells[j] for cells in others} for j in words):
        return True
    known = [j for j in known if j not in words]
    wholes = [all(_is_whole(cells[j]) for j in known) for cells in [first, *others]]
    table = np.array([[row[j] for j in known] for row in numbers], float)
    with np.errstate(invalid="ignore"):
        return len(others) > 0 and _are_names(table[0], table[1:], wholes[0], any(wholes[1:]))


def _as_numbers(cells: list[str]) -> list[float | None]:
    """The numbers of a row: NaN where one is missing, ``None`` where there is a word."""
    numbers: list[float | None] = []
    for cell in cells:
        try:
            numbers.append(np.nan if cell.strip() in _MISSING else float(cell))
        except ValueError:
            numbers.append(None)
    return numbers


def _is_whole(cell: str) -> bool:
    return re.fullmatch(r"[+-]?\d+", cell.strip()) is not None


def _are_names(first: np.ndarray, rows: np.ndarray, whole: bool, others_whole: bool) -> bool:
    """Whether the numbers of the first row, ``(d,)``, are names, next to those of the ``rows`` ``(n, d)`` after it.

    ``whole`` says that they are written as whole numbers, ``others_whole`` that those of some other row are. They are
    names if they are different, and

    - as no other row, three or more are whole, or six or more grow, or three or more grow in equal steps; or
    - they count 0, 1, ..., and either three or more do, or no other row is whole; or
    - they are farther from all that their columns hold than that is wide, and three or more grow, or all are whole: two
      that grow, or as no other row.
    """
    d = len(first)
    if d == 0 or len(np.unique(first)) < d:
        return False
    low, high = np.fmin.reduce(rows), np.fmax.reduce(rows)
    far = len(rows) >= 3 and bool((np.maximum(low - first, first - high) > high - low).all())
    grows = bool((np.diff(first) > 0).all())
    counts = bool((first == np.arange(d)).all())
    alone = whole and not others_whole
    return (
        (alone and (d >= 3 or counts or far))
        or (counts and d >= 3 and not (rows == first).all(1).any())
        or (grows and far and (d >= 3 or (whole and d == 2)))
        or (grows and d >= 3 and bool(_equal_steps(first[None]).all()) and not _equal_steps(rows).any())
        or (grows and d >= 6 and not (np.diff(rows) > 0).all(1).any())
    )


def _equal_steps(rows: np.ndarray) -> np.ndarray:
    """For each row of three or more numbers whether it grows in equal steps, to the digits that are written."""
    steps = np.diff(rows)
    mean = steps.mean(1, keepdims=True)
    return (mean[:, 0] > 0) & (np.abs(steps - mean) <= 1e-3 * mean).all(1)
