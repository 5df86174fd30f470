"""Tables that print, by ``rich``."""

from typing import Any, TypeAlias

Table: TypeAlias = tuple[list[str], list[list[str]]]
"""Headings, and rows of cells."""


def rich_table(headings: list[str], rows: list[list[str]]) -> Any:
    """A ``rich.table.Table`` without lines; its cells are plain text, so that no name is taken for markup."""
    from rich import table as rich
    from rich.text import Text

    table = rich.Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="right" if i else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table
