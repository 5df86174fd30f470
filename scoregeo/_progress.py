"""Where progress is shown: as a bar that moves, on a terminal or in a notebook, or in lines of text."""

import importlib.util
import sys
from typing import Any


def live_console() -> Any:
    """The ``rich.console.Console`` on which a bar can move: standard error, if that is a terminal, or the cell of a
    notebook. ``None`` elsewhere, and in a notebook without ipywidgets, where ``rich`` would show nothing."""
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_jupyter:
        return console if importlib.util.find_spec("ipywidgets") else None
    return console if sys.stderr.isatty() else None
