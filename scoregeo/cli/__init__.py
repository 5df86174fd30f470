"""The command line: ``scoregeo demo``, models (``train``, ``sample``, ``likelihood``, ``evaluate``), and their geometry
(``geodesic``, ``distance``, ``compare``, ``explore``; of samples ``mean``, ``pca``, ``cluster``, ``embed``).

Every command has a file of its own, which imports JAX and is itself imported only when somebody names the command:
`scoregeo --help` answers at once. A user's mistake ends with one line on standard error and exit status 2, an interrupt
with 130 (`_interrupts`), from the first line of `main` on: so this file imports only what takes no time.
"""

import contextlib
import dataclasses
import functools
import importlib
import io
import operator
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from . import _cache, _interrupts

if TYPE_CHECKING:
    from ._command import Command

__all__ = ["main"]

# What the help says about each command. The class `Demo` of the file demo.py is the command "demo", and so on.
_COMMANDS = {
    "demo": "Train a score on data, build the Stein metric, solve geodesics between real points, certify and draw "
    "them.",
    "train": "Learn the score of the points in a file and save the model. An interrupted run goes on when started "
    "again.",
    "sample": "Draw samples from a saved model.",
    "likelihood": "The log density that a saved model gives the points of a file.",
    "evaluate": "Judge a saved model by points that it was not trained on, and recommend a noise level for geometry.",
    "geodesic": "Solve one geodesic of a saved model, certify it, and optionally write and draw it.",
    "distance": "Print the geodesic distance of two points under a saved model, with its error estimate and status; or "
    "write those of all pairs of a file.",
    "compare": "Compare distances between points, or between normal distributions about them, and say how far they "
    "agree.",
    "explore": "Write a page to explore a metric in a browser: drag two points, and the geodesic follows.",
    "mean": "The Frechet mean or median of the points in a file, in the metric of a saved model.",
    "pca": "Principal directions of the points in a file, in the tangent space at their Frechet mean.",
    "cluster": "Clusters of the points in a file, around Frechet means or around medoids.",
    "embed": "Coordinates for the points in a file in which Euclid's distances are like the geodesic ones.",
}

# Those of them whose files are in a folder.
_FOLDERS = {
    **{name: "models" for name in ("train", "sample", "likelihood", "evaluate")},
    **{name: "statistics" for name in ("mean", "pca", "cluster", "embed")},
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line ``arguments`` (default: those of the process, which is then the command's own)."""
    ends_at_once = arguments is None and _interrupts.install()
    from ._command import CommandError

    try:
        command = _read(sys.argv[1:] if arguments is None else list(arguments))
        if arguments is None:  # otherwise the process, and its settings of JAX, are somebody else's
            _cache.keep_programs()
        command.run(_console())
    # Training that diverges is a FloatingPointError, an integration that fails a RuntimeError.
    except (CommandError, ValueError, TypeError, OSError, ImportError, FloatingPointError, RuntimeError) as error:
        _fail(error, 2)
    except KeyboardInterrupt as error:
        if ends_at_once:  # threads that compile or write would crash an exit
            _interrupts.leave(str(error) or "interrupted")
        _fail(error if str(error) else "interrupted", _interrupts.STATUS)


def _read(words: list[str]) -> "Command":
    """The command that ``words`` name, with its arguments; help and mistakes are printed and exit."""
    if set(words) <= {"-h", "--help"}:
        return _parse(words, {})
    if words[0] in _COMMANDS:
        named = {words[0]: _import(words[0])}
        try:
            with _silence():
                return _parse(words, named)
        except SystemExit as stop:
            if not stop.code:  # somebody asks for the help of this command
                return _parse(words, named)
    # Where there is a mistake, tyro looks for options with similar names in all commands.
    return _parse(words, {name: _import(name) for name in _COMMANDS})


def _import(name: str) -> "type[Command]":
    path = f".{_FOLDERS[name]}.{name}" if name in _FOLDERS else f".{name}"
    return getattr(importlib.import_module(path, __name__), name.capitalize())


def _parse(words: list[str], imported: "Mapping[str, type[Command]]") -> "Command":
    """``words`` as tyro reads them. Commands that are not ``imported`` have a name and a summary, and no arguments."""
    import tyro

    from ._command import ARGUMENT_TYPES

    commands = [
        Annotated[imported.get(name, _Unread), tyro.conf.subcommand(name, description=summary)]
        for name, summary in _COMMANDS.items()
    ]
    # Types know no union that is made while a program runs.
    union: Any = functools.reduce(operator.or_, commands)
    return tyro.cli(
        union,
        prog="scoregeo",
        description="Riemannian geometry of score models: from data to geodesics.",
        args=words,
        config=(tyro.conf.OmitSubcommandPrefixes,),
        registry=ARGUMENT_TYPES,
    )


@dataclasses.dataclass(frozen=True)
class _Unread:
    """Stands for a command whose file is not imported."""


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Print nothing inside the block."""
    nowhere = io.StringIO()
    with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        yield


def _console() -> Any:
    from rich.console import Console

    console = Console()
    # Off a terminal rich assumes 80 columns, which cuts the table.
    return console if console.is_terminal else Console(width=110)


def _fail(error: Any, status: int) -> None:
    line = " ".join(str(error).split())
    print(f"scoregeo: {line}", file=sys.stderr)
    raise SystemExit(status)
