"""The command line as a whole: which commands there are, what is imported for them, and how it ends."""

import pathlib
import subprocess
import sys

import pytest

from scoregeo import cli
from scoregeo.cli._command import Command, CommandError


def refuse(error):
    """A replacement for a function, which raises."""

    def raises(*arguments):
        raise error

    return raises


@pytest.fixture
def imported(monkeypatch):
    """The commands whose files are imported, in order."""
    names, import_command = [], cli._import

    def record(name):
        names.append(name)
        return import_command(name)

    monkeypatch.setattr(cli, "_import", record)
    return names


def test_every_file_is_a_command():
    folder = pathlib.Path(cli.__file__).parent
    files = [path for path in folder.rglob("[!_]*.py") if not path.parent.name.startswith("_")]
    assert sorted(path.stem for path in files) == sorted(cli._COMMANDS)
    for name in cli._COMMANDS:
        assert issubclass(cli._import(name), Command)


def test_module_is_a_program():
    done = subprocess.run([sys.executable, "-m", "scoregeo", "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name, summary in cli._COMMANDS.items():
        assert name in done.stdout
        assert summary.split()[0] in done.stdout


@pytest.mark.parametrize("words", [["--help"], ["-h"], []])
def test_help_imports_no_command(imported, capsys, words):
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    assert (stop.value.code == 0) == bool(words)
    assert imported == []
    printed = capsys.readouterr()
    assert ("subcommands" in printed.out) if words else ("scoregeo: name a command: demo, " in printed.err)


def test_help_of_a_command_imports_that_command(imported, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["sample", "--help"])
    assert stop.value.code == 0
    assert imported == ["sample"]
    help = capsys.readouterr().out
    assert "--guidance FLOAT" in help
    assert cli._COMMANDS["sample"] in help


@pytest.mark.parametrize(("words", "said"), [([], True), (["--quiet"], False)])
def test_loading_is_said_on_a_terminal(monkeypatch, capsys, words, said):
    """Before modules are imported, which takes seconds; afterwards nothing of it is left."""
    before = []
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    import_command = cli._import
    monkeypatch.setattr(cli, "_import", lambda name: (before.append(capsys.readouterr().err), import_command(name))[1])
    with pytest.raises(SystemExit):
        cli.main(["explore", "--out", "page.html", *words])
    assert before[0] == ("loading scoregeo and JAX" if said else "")
    assert capsys.readouterr().err.startswith("\r\x1b[Kscoregeo: " if said else "scoregeo: ")


def test_command_is_parsed_and_run(imported, monkeypatch):
    from scoregeo.cli.pairs.distance import Distance

    ran = []
    monkeypatch.setattr(Distance, "run", lambda self, report: ran.append((self.model, self.start, self.end)))
    cli.main(["distance", "--model", "m", "--from", "3", "--to", "b.npy"])
    assert ran == [(pathlib.Path("m"), "3", "b.npy")]
    assert imported == ["distance"]


def test_mistake_is_explained_by_all_commands(capsys):
    """An option that another command has: the message names that command, and appears once."""
    with pytest.raises(SystemExit) as stop:
        cli.main(["distance", "--model", "m", "--from", "3", "--to", "4", "--guidance", "2"])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "in scoregeo sample --help" in error
    assert error.endswith("; see scoregeo distance --help\n")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (CommandError("told in\n  two lines"), 1, "scoregeo: told in two lines\n"),
        (ImportError("No module named 'flax'"), 2, "scoregeo: No module named 'flax'\n"),
        (KeyboardInterrupt(), 130, "scoregeo: interrupted\n"),
        (KeyboardInterrupt("the last checkpoint is in x"), 130, "scoregeo: the last checkpoint is in x\n"),
    ],
)
def test_how_it_ends(monkeypatch, capsys, error, status, line):
    """What goes wrong while a command is imported is told like what goes wrong while it runs."""
    monkeypatch.setattr(cli, "_import", refuse(error))
    with pytest.raises(SystemExit) as stop:
        cli.main(["demo"])
    assert stop.value.code == status
    assert capsys.readouterr().err == line


def test_programming_errors_are_not_hidden(monkeypatch):
    monkeypatch.setattr(cli, "_import", refuse(AssertionError("a bug")))
    with pytest.raises(AssertionError, match="a bug"):
        cli.main(["demo"])
