"""The command line: ``scoregeo demo``, models (``train``, ``sample``, ``likelihood``, ``evaluate``, ``dimension``), and
their geometry (``geodesic``, ``distance``, ``compare``, ``plot``, ``explore``; of samples ``mean``, ``pca``,
``cluster``, ``embed``).

Every command has a file of its own, which imports JAX and is itself imported only when somebody names the command:
`scoregeo --help` answers at once. What goes wrong ends with one line on standard error and an exit status (`FAILED`,
`MISTAKE`, `_interrupts.STATUS`), from the first line of `main` on: so this file imports only what takes no time.
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

# Exit statuses: what was asked for could not be computed (a solve did not converge, a training diverged); and what was
# asked for makes no sense, or cannot be read or written. An interrupt ends with `_interrupts.STATUS`.
FAILED, MISTAKE = 1, 2

# What the help says about each command. The class `Demo` of the file demo.py is the command "demo", and so on.
_COMMANDS = {
    "demo": "Train a score on data, build the Stein metric, solve geodesics between real points, certify and draw "
    "them.",
    "train": "Learn the score of the points in a file and save the model. An interrupted run goes on when started "
    "again.",
    "evaluate": "Judge a saved model by points that it was not trained on, and recommend a noise level for geometry.",
    "sample": "Draw samples from a saved model.",
    "likelihood": "The log density that a saved model gives the points of a file.",
    "dimension": "How many dimensions the data have at the points of a file, by the score of a saved model.",
    "geodesic": "Solve one geodesic of a saved model, certify it, and optionally write and draw it.",
    "distance": "Print the geodesic distance of two points under a saved model, with its error estimate and status; or "
    "write those of all pairs of a file.",
    "mean": "The Frechet mean or median of the points in a file, in the metric of a saved model.",
    "pca": "Principal directions of the points in a file, in the tangent space at their Frechet mean.",
    "cluster": "Clusters of the points in a file, around Frechet means or around medoids.",
    "embed": "Coordinates for the points in a file in which Euclid's distances are like the geodesic ones.",
    "compare": "Compare distances between points, or between normal distributions about them, and say how far they "
    "agree.",
    "plot": "Draw the metric of a saved model in the plane, or in a plane through its data; or how it changes.",
    "explore": "Write a page to explore a metric in a browser: drag two points, and the geodesic follows.",
}

# Those of them whose files are in a folder.
_FOLDERS = {
    **{name: "models" for name in ("train", "sample", "likelihood", "evaluate", "dimension")},
    **{name: "pairs" for name in ("geodesic", "distance", "compare")},
    **{name: "statistics" for name in ("mean", "pca", "cluster", "embed")},
}

# Options that may stand before a command: help, and what prints or writes the completion of all commands.
_BEFORE = ("-h", "--help", "--tyro-print-completion", "--tyro-write-completion")

# What the help of the program ends with.
_EXAMPLES = (
    "demo --data moons --quick",
    "train --data points.csv --out model",
    "geodesic --model model --from 0 --to 1 --picture path.png",
    "train --help",
    "--version",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line ``arguments`` (default: those of the process, which is then the command's own)."""
    ends_at_once = arguments is None and _interrupts.install()
    from ._command import CommandError

    report = command = None
    try:
        command, settings = _read(sys.argv[1:] if arguments is None else list(arguments))
        from ._report import Report, say_warnings

        folder = None
        if arguments is None:  # otherwise the process, and its settings, are somebody else's
            folder = _cache.keep_programs()
            if command.compiles_most:
                _cache.compile_sooner()
            say_warnings()
        name, times = type(command).__name__.lower(), _cache.CompileTimes(folder)
        report = Report(as_json=settings.json, quiet=settings.quiet, command=name, times=times)
        # Whatever else prints must not get between a program and its JSON object.
        with contextlib.redirect_stdout(sys.stderr) if settings.json else contextlib.nullcontext():
            command.run(report)
        report.finish()
    # Training that diverges is a FloatingPointError, an integration that fails a RuntimeError.
    except (CommandError, FloatingPointError, RuntimeError, MemoryError) as error:
        if report is not None:
            report.finish(_line(error, command))
        _fail(error, FAILED, command)
    except (ValueError, TypeError, OSError, ImportError) as error:
        _fail(error, MISTAKE, command)
    except KeyboardInterrupt as error:
        if ends_at_once:  # threads that compile or write would crash an exit
            _interrupts.leave(str(error) or "interrupted")
        _fail(error if str(error) else "interrupted", _interrupts.STATUS)


def _read(words: list[str]) -> "tuple[Command, Any]":
    """The command that ``words`` name, with its arguments, and its `OutputOptions`; help and mistakes are printed and
    exit."""
    if words == ["--version"]:
        from importlib import metadata

        print(f"scoregeo {metadata.version('scoregeo')}")
        raise SystemExit(0)
    if not words:
        raise ValueError(f"name a command: {', '.join(_COMMANDS)}; see scoregeo --help")
    if set(words) <= {"-h", "--help"}:
        return _parse(words, {})
    if words[0] in _BEFORE:
        return _parse(words, {name: _import(name) for name in _COMMANDS})
    from . import _mistakes

    if words[0].startswith("-"):
        raise ValueError(f"name a command before {words[0]!r}, as in scoregeo mean --json; see scoregeo --help")
    if words[0] not in _COMMANDS:
        raise ValueError(_mistakes.unknown_command(words[0], _COMMANDS))
    with _loading(words):
        named = {words[0]: _import(words[0])}
    try:
        with _silence():
            return _parse(words, named)
    except SystemExit as stop:
        if not stop.code:  # somebody asks for the help of this command
            return _parse(words, named)
    try:  # Where there is a mistake, tyro looks for options with similar names in all commands.
        with _silence() as told:
            return _parse(words, {name: _import(name) for name in _COMMANDS})
    except SystemExit:
        line = _mistakes.in_options(_mistakes.from_box(told.getvalue(), words[0]), named[words[0]])
    raise ValueError(line)


@contextlib.contextmanager
def _loading(words: list[str]) -> Iterator[None]:
    """While modules are imported, which takes seconds, a line on standard error, if it is a terminal; it goes away."""
    shown = sys.stderr.isatty() and "--quiet" not in words
    if shown:
        print("loading scoregeo and JAX", end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        if shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _import(name: str) -> "type[Command]":
    path = f".{_FOLDERS[name]}.{name}" if name in _FOLDERS else f".{name}"
    return getattr(importlib.import_module(path, __name__), name.capitalize())


def _parse(words: list[str], imported: "Mapping[str, type[Command]]") -> "tuple[Command, Any]":
    """``words`` as tyro reads them. Commands that are not ``imported`` have a name and a summary, and no arguments."""
    import tyro

    from ._command import ARGUMENT_TYPES

    commands = [
        Annotated[
            _with_output(imported[name]) if name in imported else _Unread,
            tyro.conf.subcommand(name, description=summary),
        ]
        for name, summary in _COMMANDS.items()
    ]
    # Types know no union that is made while a program runs.
    union: Any = functools.reduce(operator.or_, commands)
    try:
        command = tyro.cli(
            union,
            prog="scoregeo",
            description="Riemannian geometry of score models: from data to geodesics.",
            args=words,
            config=(tyro.conf.OmitSubcommandPrefixes, tyro.conf.OmitArgPrefixes),
            registry=ARGUMENT_TYPES,
        )
    except SystemExit as stop:
        if not stop.code and {"-h", "--help"} & set(words):
            _print_examples(words[0], imported)
        raise
    return command, command.output


def _with_output(command: "type[Command]") -> "type[Command]":
    """``command`` with the options that all commands have, as its last ones."""
    from ._command import OutputOptions

    field = ("output", OutputOptions, OutputOptions())
    return dataclasses.make_dataclass(command.__name__, [field], bases=(command,), frozen=True, kw_only=True)


def _print_examples(name: str, imported: "Mapping[str, type[Command]]") -> None:
    lines = [f"{name} {words}" for words in imported[name].examples] if name in imported else _EXAMPLES
    print("\n".join(["examples:", *(f"  scoregeo {line}" for line in lines)]))


@dataclasses.dataclass(frozen=True)
class _Unread:
    """Stands for a command whose file is not imported."""


@contextlib.contextmanager
def _silence() -> Iterator[io.StringIO]:
    """Print nothing inside the block; gives what would have been."""
    kept = io.StringIO()
    with contextlib.redirect_stdout(kept), contextlib.redirect_stderr(kept):
        yield kept


def _line(error: Any, command: "Command | None") -> str:
    """``error`` on one line, with the names of the options of ``command``."""
    from . import _mistakes

    text = " ".join(str(error).split())
    text = text if command is None else _mistakes.in_options(text, command)
    return f"out of memory: {text}" if isinstance(error, MemoryError) else text


def _fail(error: Any, status: int, command: "Command | None" = None) -> None:
    print(f"scoregeo: {_line(error, command)}", file=sys.stderr)
    raise SystemExit(status)
