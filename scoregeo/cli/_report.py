"""What a command tells: sentences and tables for people, or one JSON object for programs; and how far it is.

Results go to standard output. Progress goes to standard error, and only on a terminal.
"""

import contextlib
import json
import math
import pathlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from .._pairs.progress import Compilation, progress_bar
from ._cache import CompileTimes

_Item = TypeVar("_Item")
# Less is not worth a word.
_LEAST_SECONDS = 2.0


class Report:
    """Where a command tells what it does, and what the user's ``--json`` and ``--quiet`` make of it.

    **Arguments**

    - ``as_json``: print nothing but, in `finish`, one JSON object of what was kept.
    - ``quiet``: print neither sentences and tables nor progress.
    - ``console``, ``errors``: where results and progress go; by default standard output and standard error.
    - ``command``, ``times``: which command tells, and how long commands compile, as far as that is known.
    """

    def __init__(
        self,
        *,
        as_json: bool = False,
        quiet: bool = False,
        console: Console | None = None,
        errors: Console | None = None,
        command: str = "",
        times: CompileTimes | None = None,
    ):
        self._as_json, self._quiet = as_json, quiet
        self._console = _wide(Console()) if console is None else console
        self._errors = Console(stderr=True) if errors is None else errors
        self._named, self._times = [command], CompileTimes() if times is None else times
        self._values: dict[str, Any] = {}
        # Whether a line or bar is on the terminal: there is room for one.
        self._live = False

    @property
    def shows_progress(self) -> bool:
        """Whether somebody sees a bar on standard error."""
        return self._errors.is_terminal and not self._quiet

    @property
    def quiet(self) -> bool:
        """Whether the user wants no progress, in whatever form."""
        return self._quiet

    def say(self, text: Any) -> None:
        """Print a sentence, or a table of rich's."""
        if self._as_json or self._quiet:
            return
        if isinstance(text, str):
            self._console.print(text, soft_wrap=True, markup=False, highlight=False)
        else:
            self._console.print(text)

    def compiles_for(self, name: str) -> None:
        """Say for what kind of network, or of metric, JAX will compile, on which it depends how long that takes."""
        if name not in self._named:
            self._named.append(name)

    def rule(self, title: str) -> None:
        """Print a line with a title."""
        if not (self._as_json or self._quiet):
            self._console.rule(title)

    def note(self, sentence: str) -> None:
        """Print a sentence that readers of the JSON object need too: it is among its ``notes``."""
        self._values.setdefault("notes", []).append(sentence)
        self.say(sentence)

    def keep(self, **values: Any) -> None:
        """Values of the JSON object: numbers, strings, arrays, and lists and dictionaries of them."""
        self._values |= values

    def wrote(self, path: pathlib.Path, what: str = "") -> None:
        """Say that a file was written; ``what`` is in it. It is among the ``files`` of the JSON object."""
        self._values.setdefault("files", []).append(str(path))
        self.say(f"wrote {what} to {path}" if what else f"wrote {path}")

    def finish(self, error: str | None = None) -> None:
        """Print the JSON object, if that is asked for; with the ``error`` that the command ended with."""
        if self._as_json:
            values = self._values if error is None else self._values | {"error": error}
            print(json.dumps(plain(values), allow_nan=False))

    @contextlib.contextmanager
    def busy(self, doing: str) -> Iterator[None]:
        """While entered, say what is done and for how long, and when JAX compiles for it, with the seconds that takes
        as far as they are known. Within another `busy` or `bar`, that one stays."""
        if self._live:
            yield
            return
        if not self.shows_progress:
            with self._compiling(doing):
                yield
            return
        about = self._about(doing)
        # Nobody knows yet whether there is something to compile: it may be kept from another time.
        before = f"{doing} (the first time it compiles{about})" if about else doing
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=self._errors, transient=True) as bar:
            task = bar.add_task(before)

            def tell(compiles: bool) -> None:
                after = doing if compilation.compiled else before
                bar.update(task, description=f"{doing}: compiling{about}" if compiles else after)

            with self._compiling(doing, tell) as compilation, self._alone():
                yield

    @contextlib.contextmanager
    def first(self, doing: str) -> Iterator[None]:
        """While entered, something has a bar of its own, whose first step takes long because it compiles: say so on a
        terminal."""
        if self.shows_progress:
            line = f"{doing}: the first step takes longest, it compiles{self._about(doing)}, unless that was kept"
            self._errors.print(line, style="dim", highlight=False, markup=False, soft_wrap=True)
        with self._compiling(doing):
            yield

    @contextlib.contextmanager
    def bar(self, total: int, doing: str, unit: str) -> Iterator[Callable[[int], None]]:
        """While entered, a bar of how many of ``total`` are done, with their rate and the time that is left; gives a
        function to call with how many more are."""
        settings = {"shown": self.shows_progress, "name": doing, "unit": unit, "about": self._about(doing)}
        with self._compiling(doing), progress_bar(total, **settings) as advance, self._alone():
            yield advance

    def each(self, items: Iterable[_Item], doing: str, unit: str) -> Iterator[_Item]:
        """The ``items``, with a `bar` of those that are done."""
        items = list(items)
        if len(items) == 1:
            with self.busy(doing):
                yield items[0]
            return
        with self.bar(len(items), doing, unit) as advance:
            for item in items:
                yield item
                advance(1)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """While entered, there is no room on the terminal for another line or bar."""
        self._live = True
        try:
            yield
        finally:
            self._live = False

    def _program(self, doing: str) -> str:
        """The name of what JAX compiles for what one is ``doing``, to keep the seconds by. How many points there are
        matters little."""
        return f"{' '.join(self._named)}: {re.sub('[0-9]+', 'n', doing)}"

    def _about(self, doing: str) -> str:
        """The words for how long it takes to compile what one is ``doing``; none if nobody knows, or it is little."""
        seconds = self._times.of(self._program(doing))
        return "" if seconds is None or seconds < _LEAST_SECONDS else f", about {seconds:.0f} s"

    @contextlib.contextmanager
    def _compiling(self, doing: str, tell: Callable[[bool], None] = lambda compiles: None) -> Iterator[Compilation]:
        """While entered, measure how long JAX compiles, for the next time; programs that were kept say nothing."""
        name = self._program(doing)
        with Compilation(tell) as found:
            yield found
        if found.compiled:
            self._times.keep(name, found.seconds, partly=found.read > 0)


def plain(value: Any) -> Any:
    """``value`` as JSON has it: arrays are lists, paths strings, and what is not finite is null."""
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, pathlib.Path):
        return str(value)
    return plain(np.asarray(value).tolist())


def say_warnings() -> None:
    """From now on, warnings are lines on standard error, without the line of code that they came from."""
    import warnings

    def show(message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None) -> None:
        if issubclass(category, UserWarning):
            print(f"scoregeo: warning: {' '.join(str(message).split())}", file=sys.stderr)

    warnings.showwarning = show


def _wide(console: Console) -> Console:
    # Off a terminal rich assumes 80 columns, which cuts tables.
    return console if console.is_terminal else Console(width=110)
