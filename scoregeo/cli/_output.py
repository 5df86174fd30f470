"""Files for results, in the format that the ending of their name says; they are whole or not there."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .._atomic import make_writable, replacing, write_figure, write_npy, write_npz
from ._report import Report

# What tables and arrays are written as, and what pictures are.
TABLES = (".npy", ".npz", ".csv", ".parquet")
PICTURES = (".png", ".pdf", ".svg")


def check_output(name: str, path: pathlib.Path | None, suffixes: Sequence[str]) -> None:
    """Make the folder of the file that the option ``--name`` gives, if it is given, before anything is computed.

    Raises ``ValueError`` for another ending than the ``suffixes``, ``OSError`` where no file can be written, and
    ``ImportError`` where its format needs a package that is missing.
    """
    if path is None:
        return
    if path.suffix not in suffixes:
        raise ValueError(f"`--{name}` must end in {either(suffixes)}, got {path}")
    if path.is_dir():
        raise OSError(f"`--{name}` must be a file, got the folder {path}")
    try:
        make_writable(path.parent, f"--{name}")
    except OSError as error:
        reason = f": {error.__cause__.strerror}" if isinstance(error.__cause__, OSError) else ""
        raise OSError(f"`--{name}` must be in a folder that can be written, got {path}{reason}") from error
    if path.suffix == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError as error:
            raise ImportError(f"`--{name}` {path} needs pyarrow: pip install 'scoregeo[data]'; or .csv") from error


def write_results(
    report: Report,
    path: pathlib.Path | None,
    values: Mapping[str, Any],
    *,
    array: str,
    columns: Mapping[str, Any] | Callable[[], Mapping[str, Any]],
    what: str = "",
) -> None:
    """Write ``values`` to ``path``, if it is given, and tell the report: .npz has all of them, .npy the one that
    ``array`` names, and .csv and .parquet a table of ``columns`` (or of what that function returns, if it is one), each
    ``(n,)`` or, as one column for each entry of a row, ``(n, k)``."""
    if path is None:
        return
    if path.suffix == ".npy":
        write_npy(path, np.asarray(values[array]))
    elif path.suffix == ".npz":
        write_npz(path, **values)
    else:
        write_table(path, columns() if callable(columns) else columns)
    report.wrote(path, what)


def write_table(path: pathlib.Path, columns: Mapping[str, Any]) -> None:
    """Write a table to a .csv or .parquet file."""
    import pandas as pd

    single: dict[str, Any] = {}
    for name, column in columns.items():
        if np.ndim(column) == 2:
            single |= {f"{name}{i}": part for i, part in enumerate(np.asarray(column).T)}
        else:
            single[name] = column if isinstance(column, pd.Categorical) else np.asarray(column)
    table = pd.DataFrame(single)
    with replacing(path) as temporary:
        if path.suffix == ".csv":
            table.to_csv(temporary, index=False)
        else:
            table.to_parquet(temporary, index=False)


def write_picture(report: Report, path: pathlib.Path | None, figure: Any) -> None:
    """Write a figure of matplotlib, if there is a path and a figure, and tell the report."""
    if path is not None and figure is not None:
        write_figure(path, figure)
        report.wrote(path)


def either(words: Sequence[str]) -> str:
    """``a``, ``a or b``, ``a, b or c``."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
