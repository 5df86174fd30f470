"""Numbers from .json and .jsonl files: rows, records, or columns."""

import json
import pathlib
from typing import Any

import numpy as np

from .raw import Options, Raw, check_text
from .tables import of_frame, stack_lists


def read_records(path: pathlib.Path, where: str, options: Options) -> Raw:
    """A .json file with a list of rows ``[[1, 2], ...]`` (or images, as nested lists), a list of records ``[{"x": 1},
    ...]``, or columns ``{"x": [1, ...]}``, as pandas writes them too; or a .jsonl file with a row or a record in each
    line. ``null`` and a key that a record does not have are missing values."""
    kind = path.suffix.lower()
    with path.open("rb") as file:
        check_text(file.read(8), where, f"a {kind} file, which is text")
    try:
        text = path.read_text(encoding="utf-8-sig")
        content = json.loads(text) if kind == ".json" else _lines(text, where)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{where} must be a {kind} file: {error}") from error
    if isinstance(content, dict):
        return _columns(content, where, options)
    if not isinstance(content, list) or not content:
        got = "an empty list" if content == [] else type(content).__name__
        raise ValueError(f"{where} must hold a list of rows or of records, or an object of columns, got {got}")
    if isinstance(content[0], dict):
        return _records(content, where, options)
    for option in ("columns", "label"):
        if getattr(options, option) is not None:
            raise ValueError(f"`{option}` names a column, but {where} holds rows without names")
    rows = content if isinstance(content[0], list) else [[value] for value in content]
    if "true" in text or "false" in text:
        _refuse_truth(rows, where)
    return Raw(values=stack_lists(rows, f"{where} must hold rows of numbers, as many in each"))


def _refuse_truth(rows: list, where: str) -> None:
    """Raise ``ValueError`` for true and false among numbers, which NumPy would take for 1 and 0."""

    def has_truth(part: Any) -> bool:
        return isinstance(part, bool) or (isinstance(part, list) and any(map(has_truth, part)))

    for i, row in enumerate(rows):
        if has_truth(row):
            raise ValueError(f"{where} must hold rows of numbers, got true or false in row {i}: {str(row)[:40]}")


def _lines(text: str, where: str) -> list:
    rows = []
    # Not `splitlines`: a string of JSON may hold what Unicode takes for the end of a line.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            shown = line.strip()[:40]
            raise ValueError(f"{where} must hold JSON in each line, but line {number} is {shown!r}: {error}") from error
        if isinstance(rows[-1], dict) is not isinstance(rows[0], dict):
            other, first = type(rows[-1]).__name__, type(rows[0]).__name__
            raise ValueError(f"{where} must hold the like in each line, but line {number} is {other} and not {first}")
    return rows


def _records(records: list, where: str, options: Options) -> Raw:
    import pandas as pd

    for i, record in enumerate(records):
        if not isinstance(record, dict):
            raise ValueError(f"{where} must hold records throughout, got {type(record).__name__} in row {i}")
    # In the order in which names are met first, each absent key being a missing value.
    names = list(dict.fromkeys(name for record in records for name in record))
    columns = {name: _as_column([record.get(name) for record in records]) for name in names}
    return of_frame(pd.DataFrame(columns), where, options)


def _columns(content: dict[str, Any], where: str, options: Options) -> Raw:
    import pandas as pd

    if set(content) == {"columns", "index", "data"}:  # as pandas writes `orient="split"`
        names, rows = content["columns"], content["data"]
        for i, row in enumerate(rows):
            if len(row) != len(names):
                raise ValueError(
                    f"{where} must have {len(names)} values in each row, as it has names, got row {i}: {row}"
                )
        return of_frame(
            pd.DataFrame({name: _as_column([row[j] for row in rows]) for j, name in enumerate(names)}), where, options
        )
    columns = {}
    for name, values in content.items():
        if isinstance(values, dict):  # index to value, as pandas writes by default
            values = list(values.values())
        if not isinstance(values, list):
            got = f"{type(values).__name__} for {name!r}"
            raise ValueError(f"{where} must hold a list of rows or of records, or an object of columns, got {got}")
        columns[name] = values
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{where} must have columns of one length, got {lengths}")
    return of_frame(pd.DataFrame({name: _as_column(values) for name, values in columns.items()}), where, options)


def _as_column(values: list) -> Any:
    """A column of numbers, with NaN for ``None``, if it is one; any other as it is."""
    if all(value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in values):
        return np.asarray([np.nan if value is None else value for value in values], np.float64)
    import pandas as pd

    return pd.Series(values, dtype=object)
