"""Numbers from tables: .csv and .parquet files, which pandas reads, and whatever other readers make a data frame of."""

import dataclasses
import pathlib
import re
from typing import Any

import numpy as np

from .delimited import Layout, advice, guess_layout
from .raw import MOST_NAMES, Options, Raw, as_labels, check_start, check_text, chosen, listed

# By default pandas 2 reads decimals with a relative error of up to 1e-12; pandas 3 reads them exactly.
_EXACT: dict[str, dict[str, Any]] = {"2": {"float_precision": "round_trip"}}


def read_table(path: pathlib.Path, where: str, options: Options) -> Raw:
    """The numbers of a .csv or .parquet file, one point per row."""
    import pandas as pd

    kind, layout = path.suffix.lower(), None
    try:
        with path.open("rb") as file:
            first = file.read(8)
        if kind == ".csv":
            check_text(first, where, "a .csv file, which is text")
            layout = guess_layout(path, options.delimiter, options.header)
            frame = pd.read_csv(
                path,
                sep=r"\s+" if layout.delimiter == " " else layout.delimiter,
                header=0 if layout.header else None,
                skipinitialspace=True,
                low_memory=False,
                **_EXACT.get(pd.__version__.split(".")[0], {}),
            )
            layout = dataclasses.replace(layout, names=tuple(frame.columns))
        else:
            check_start(first, (b"PAR1",), where, "a .parquet file")
            frame = pd.read_parquet(path, engine="pyarrow")
    except ImportError as error:
        raise ImportError(f"reading {where} needs pyarrow: pip install scoregeo[data]") from error
    except (ValueError, OSError) as error:  # pandas and pyarrow raise subclasses of these
        if str(error).startswith(where):
            raise
        raise ValueError(f"{where} must be a {kind} file with a table of numbers: {error}{advice(layout)}") from error
    unnamed = layout is not None and layout.header and str(frame.columns[0]) == "Unnamed: 0"
    if unnamed and options.columns is None:
        raise ValueError(
            f"{where} has a first column without a name (an index?): give `columns` to `datasets.load`, among "
            f"[{listed([repr(name) for name in frame.columns], 20)}]"
        )
    return of_frame(frame, where, options, layout)


def of_frame(frame: Any, where: str, options: Options, layout: Layout | None = None) -> Raw:
    """The numbers of a pandas data frame. A column of lists of one length counts as so many columns; where it is the
    only one, its lists may be nested, as images are.

    Raises ``ValueError`` for columns that are not numeric, which it names with how much of them is none; with
    ``options.drop`` only for those that have some numbers.
    """
    import pandas as pd

    labels, label_names, names = None, None, list(frame.columns)
    if options.label is not None:
        (place,) = chosen([options.label], names, where, "label")
        labels, label_names = as_labels(frame.iloc[:, place], where, names[place])
    if options.columns is not None:
        frame = frame.iloc[:, chosen(options.columns, names, where)]
    elif options.label is not None:
        frame = frame.iloc[:, [j for j in range(len(names)) if j != place]]
    if frame.empty:
        shown = f"[{listed([repr(name) for name in frame.columns])}]"
        raise ValueError(f"{where} must hold at least one point and one feature, got {len(frame)} rows of {shown}")
    objects = [j for j, dtype in enumerate(frame.dtypes) if pd.api.types.is_object_dtype(dtype)]
    found = {j: _block(frame.iloc[:, j], where) for j in objects}
    blocks = {j: block for j, block in found.items() if block is not None}
    dropped: list[str] = []
    frame, blocks = _numeric(frame, blocks, where, options.drop, dropped, layout)
    shared = {
        "labels": labels, "label_names": label_names, "layout": layout, "dropped": dropped,
    }  # fmt: skip
    if not blocks:
        values = frame.to_numpy(dtype=np.float64, na_value=np.nan)
        return Raw(values=values, feature_names=list(frame.columns), **shared)
    if frame.shape[1] == 1 and blocks[0].ndim > 2:
        return Raw(values=blocks[0], **shared)
    parts, feature_names = [], []
    for j, name in enumerate(frame.columns):
        block = blocks.get(j)
        if block is None:
            block = frame.iloc[:, [j]].to_numpy(dtype=np.float64, na_value=np.nan)
            feature_names.append(name)
        else:
            block = block.reshape(len(block), -1)
            feature_names += [f"{name}[{k}]" for k in range(block.shape[1])]
        parts.append(block)
    return Raw(values=np.concatenate(parts, 1), feature_names=feature_names, **shared)


def _block(column: Any, where: str) -> np.ndarray | None:
    """The numbers of a column of lists, ``(n, k)`` or more; ``None`` for a column of anything else."""
    cells = column.tolist()
    if not isinstance(next((cell for cell in cells if cell is not None), None), list | tuple | np.ndarray):
        return None
    return stack_lists(cells, f"{where} must have lists of numbers of one length in column {column.name!r}")


def stack_lists(rows: list, must: str) -> np.ndarray:
    """Rows that are lists of numbers, or of lists, as one array in float64; ``None`` in them is NaN.

    Raises ``ValueError`` that begins with ``must`` and locates the first row of another shape than the row before it
    has, or that holds anything but numbers.
    """
    try:  # all at once, as is nearly always possible, is ten times as fast as row by row
        values = np.asarray(rows)
        if values.dtype.kind in "iuf":
            return values.astype(np.float64)
    except (ValueError, OverflowError):
        pass
    arrays: list[np.ndarray] = []
    for i, row in enumerate(rows):
        if not isinstance(row, list | tuple | np.ndarray):
            raise ValueError(f"{must}, got {type(row).__name__} in row {i}: {str(row)[:40]!r}")
        arrays.append(_as_row(row, f"{must}, got row {i}"))
        if arrays[i].shape != arrays[0].shape:
            got, others = (str(a.size) if a.ndim == 1 else str(a.shape) for a in (arrays[i], arrays[0]))
            raise ValueError(f"{must}, got {got} values in row {i}, but {others} in the rows before it")
    return np.stack(arrays)


def _as_row(row: Any, got: str) -> np.ndarray:
    try:
        values = np.asarray(row)
    except ValueError as error:
        if isinstance(row, np.ndarray):
            raise ValueError(f"{got} with lists of different lengths") from error
        raise ValueError(f"{got} with lists of different lengths") from error
    if values.dtype.kind in "iuf":
        return values.astype(np.float64)
    if values.dtype == object:
        # Lists in arrays, as pyarrow gives them, or None for a number.
        if values.ndim == 1 and any(isinstance(part, list | tuple | np.ndarray) for part in values):
            parts = [_as_row(part, got) for part in values]
            if len({part.shape for part in parts}) > 1:
                raise ValueError(f"{got} with lists of different lengths")
            return np.stack(parts)
        if all(part is None or (isinstance(part, int | float) and not isinstance(part, bool)) for part in values.flat):
            return values.astype(np.float64)
    raise ValueError(f"{got} with what is no number: {str(row)[:40]}")


def _numeric(
    frame: Any, blocks: dict[int, np.ndarray], where: str, drop: bool, dropped: list[str], layout: Layout | None
) -> tuple[Any, dict[int, np.ndarray]]:
    """The numeric columns of ``frame``, if all are or ``drop`` is given, and ``blocks`` by their new places."""
    bad = {j for j, numeric in enumerate(_is_numeric(frame)) if not numeric and j not in blocks}
    if drop:
        # A column that is empty has no number either.
        bad |= {j for j in np.flatnonzero(frame.isna().to_numpy().all(0)).tolist() if j not in blocks}
    if not bad:
        return frame, blocks
    # Of thousands, an error looks at no more than it names.
    found = {j: _words(frame.iloc[:, j]) for j in sorted(bad)[: None if drop else MOST_NAMES]}
    mixed = {j: words for j, words in found.items() if words.some_numbers}
    if mixed or not drop:
        count = len(mixed) if drop else len(bad)
        raise ValueError(_refusal(frame, mixed if drop else found, count, where, drop, layout))
    columns = frame.columns.tolist()
    names = [repr(columns[j]) for j in found]
    dropped.append(f"left out {len(found)} of {frame.shape[1]} columns, which have no numbers: {listed(names)}")
    kept = [j for j in range(frame.shape[1]) if j not in found]
    if not kept:
        raise ValueError(f"{where} must have numeric columns, got none: {listed(names)}{advice(layout)}")
    return frame.iloc[:, kept], {kept.index(j): block for j, block in blocks.items()}


def _is_numeric(frame: Any) -> list[bool]:
    """Whether each column holds real numbers, as its type says."""
    import pandas as pd

    types = pd.api.types
    known: dict[Any, bool] = {}
    for dtype in set(frame.dtypes):
        real = types.is_numeric_dtype(dtype) and not types.is_bool_dtype(dtype) and not types.is_complex_dtype(dtype)
        known[dtype] = real
    return [known[dtype] for dtype in frame.dtypes]


@dataclasses.dataclass(frozen=True)
class _Words:
    """What a column holds besides numbers: for a message, the first of them, and whether it has some numbers too."""

    about: str
    example: str
    some_numbers: bool


def _words(column: Any) -> _Words:
    import pandas as pd

    known: Any = column[column.notna()]
    if pd.api.types.is_object_dtype(column) or pd.api.types.is_string_dtype(column):
        numbers: Any = pd.to_numeric(known.astype(str), errors="coerce")
        text = known[numbers.isna()]
        if not text.empty:
            first, row = str(text.iloc[0])[:40], column.index.get_loc(text.index[0])
            different = text.astype(str).nunique()
            about = f"{len(text)} of {len(column)} are no numbers, {different} different, first {first!r} in row {row}"
            return _Words(about, first, len(text) < len(known))
        return _Words(f"dtype {column.dtype}", "", len(known) > 0)
    return _Words(f"dtype {column.dtype}", "", False)


def _refusal(frame: Any, refused: dict[int, _Words], count: int, where: str, drop: bool, layout: Layout | None) -> str:
    """What is said of ``count`` columns that are not numeric, of which ``refused`` are the first."""
    columns = frame.columns.tolist()
    shown = listed([f"{columns[j]!r} ({words.about})" for j, words in refused.items()], total=count)
    commas = any(re.fullmatch(r"[+-]?\d+,\d+", words.example.strip()) for words in refused.values())
    hint = "; decimal commas are not read, write points" if commas else ""
    ways = "`columns` chooses others" if drop else "`columns` chooses others, `label` takes one for the labels"
    if not drop and not any(words.some_numbers for words in refused.values()):
        ways += ", `drop` leaves them out"
    return (
        f"{where} must have numeric columns, but {count} of {frame.shape[1]} are not: {shown}{hint}; {ways}"
        f"{advice(layout)}"
    )
