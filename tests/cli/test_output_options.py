"""What all commands print: --json, --quiet, --version, and the help with its examples; exit statuses."""

import ast
import io
import json
import re
import subprocess
import sys
from importlib import metadata

import jax
import numpy as np
import pytest
from rich.console import Console
from rich.table import Table

from scoregeo import cli
from scoregeo._pairs import progress
from scoregeo.cli import _report
from scoregeo.cli._cache import CompileTimes
from scoregeo.cli._command import CommandError
from scoregeo.cli._report import Report


def tells(report):
    """A command that tells of everything there is."""
    print("from a library")
    report.say("a sentence")
    table = Table("column")
    table.add_row("cell")
    report.say(table)
    report.note("a note")
    report.keep(number=np.float64(2.5), missing=float("nan"), array=np.arange(3), nested={"a": (1, np.inf)})


def run(monkeypatch, name, *words, fails=False):
    command = cli._import(name)

    def does(self, report):
        tells(report)
        if fails:
            raise CommandError("it did not\nconverge")

    monkeypatch.setattr(command, "run", does)
    cli.main([name, *command.examples[0].split(), *words])


@pytest.mark.parametrize("name", cli._COMMANDS)
def test_json_is_all_that_is_on_standard_output(monkeypatch, capsys, name):
    run(monkeypatch, name, "--json")
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    expected = {"number": 2.5, "missing": None, "array": [0, 1, 2], "nested": {"a": [1, None]}, "notes": ["a note"]}
    assert found == expected
    assert printed.err == "from a library\n"


def test_without_options_people_read_it(monkeypatch, capsys):
    run(monkeypatch, "sample", "--no-json")
    printed = capsys.readouterr().out
    assert [word in printed for word in ("a sentence", "cell", "a note", "2.5")] == [True, True, True, False]


def test_quiet_prints_errors_only(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, "sample", "--quiet", fails=True)
    assert capsys.readouterr() == ("from a library\n", "scoregeo: it did not converge\n")


def test_what_fails_has_a_status_of_its_own_and_its_numbers(monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, "distance", "--json", fails=True)
    printed = capsys.readouterr()
    assert stop.value.code == cli.FAILED == 1
    assert json.loads(printed.out)["error"] == "it did not converge"
    assert json.loads(printed.out)["number"] == 2.5
    assert printed.err.splitlines()[-1] == "scoregeo: it did not converge"


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"scoregeo {metadata.version('scoregeo')}\n"


@pytest.mark.parametrize("name", cli._COMMANDS)
def test_help_ends_with_examples_that_can_be_run(capsys, name):
    with pytest.raises(SystemExit) as stop:
        cli.main([name, "--help"])
    assert stop.value.code == 0
    _, examples = capsys.readouterr().out.split("\nexamples:\n")
    command = cli._import(name)
    assert examples.splitlines() == [f"  scoregeo {name} {words}" for words in command.examples]
    for words in command.examples:
        found, _ = cli._parse([name, *words.split()], {name: command})
        assert isinstance(found, command)


def test_help_of_the_program_is_fast_and_has_examples():
    program = "import time; b = time.process_time(); import sys; from scoregeo import cli\n"
    program += "try:\n    cli.main(['--help'])\nexcept SystemExit:\n    print(time.process_time() - b, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "examples:\n  scoregeo demo --data moons --quick\n" in done.stdout
    assert float(done.stderr) < 1.0  # about 0.3 s


def test_completion_knows_every_option_and_each_has_a_help_line(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--tyro-print-completion", "bash"])
    assert not stop.value.code
    (line,) = re.findall(r"^COMPLETION_SPEC = (.*)$", capsys.readouterr().out, re.MULTILINE)
    commands = ast.literal_eval(line)["subcommands"]
    assert set(commands) == set(cli._COMMANDS)
    for name, command in commands.items():
        about = {option["flags"][0]: option["description"] for option in command["options"]}
        assert {"--json", "--quiet"} < set(about)
        for option, text in about.items():
            words = re.sub(r"\((default|required).*", "", text.split(" • ")[-1]).split()
            assert len(words) > 1, f"{option} of {name} has no help: {text}"


class TestReport:
    def terminal(self):
        text = io.StringIO()
        return text, Console(file=text, force_terminal=True, width=120)

    def test_nobody_sees_progress_off_a_terminal(self, capsys):
        report = Report()
        with report.busy("solving"), report.first("training"):
            pass
        assert list(report.each(range(3), "samples", "batches")) == [0, 1, 2]
        assert capsys.readouterr() == ("", "")
        assert not report.shows_progress

    @pytest.fixture
    def times(self, tmp_path, monkeypatch):
        """Every program counts as large; what some command did took seven seconds the last time."""
        monkeypatch.setattr(progress, "_LARGE", 0.0)
        times = CompileTimes(tmp_path)
        for doing in ("solving n pairs", "training"):
            times.keep(f"mean MLP stein: {doing}", 7.2, partly=False)
        return times

    def report(self, times, **settings):
        """That of the command mean, of a model with a network called MLP, in the metric stein."""
        report = Report(command="mean", times=times, **settings)
        for name in ("MLP", "stein", "stein"):
            report.compiles_for(name)
        return report

    def test_compilation_is_named(self, monkeypatch, times):
        """What JAX says it does is what the line says; before, that it may have to, and for how long."""
        text, errors = self.terminal()
        said, bars = [], _report.Progress

        class Bar(bars):
            def update(self, task, **values):
                said.append(values["description"])
                super().update(task, **values)

        monkeypatch.setattr(_report, "Progress", Bar)
        with self.report(times, errors=errors).busy("solving 12 pairs"):
            jax.jit(lambda x: 3 * x + 41)(2.0)
        assert "solving 12 pairs (the first time it compiles, about 7 s)" in text.getvalue()
        assert said[:2] == ["solving 12 pairs: compiling, about 7 s", "solving 12 pairs"]
        assert set(said) == set(said[:2])
        # It took less this time, which is what is known from now on; and that is not worth a word.
        assert times.of("mean MLP stein: solving n pairs") < 2
        text, errors = self.terminal()
        with self.report(times, errors=errors).busy("solving 3 pairs"):
            pass
        assert "solving 3" in text.getvalue()
        assert "compiles" not in text.getvalue()

    def test_bars_name_it_too(self, times):
        text, errors = self.terminal()
        with self.report(times, errors=errors).first("training"):
            pass
        assert (
            text.getvalue()
            .strip()
            .endswith("training: the first step takes longest, it compiles, about 7 s, unless that was kept\x1b[0m")
        )

    def test_quiet_commands_measure_it_too(self, times):
        with self.report(times, quiet=True).busy("solving 12 pairs"):
            jax.jit(lambda x: 3 * x + 42)(2.0)
        assert times.of("mean MLP stein: solving n pairs") < 7

    def test_there_is_one_line_at_a_time(self):
        """What is entered within another says nothing, and afterwards there is room again."""
        text, errors = self.terminal()
        report = Report(errors=errors)
        for outer in (report.busy("outer"), report.bar(3, "outer", "steps")):
            with outer, report.busy("inner"):
                pass
        assert "outer" in text.getvalue()
        assert "inner" not in text.getvalue()
        with report.busy("afterwards"):
            pass
        assert "afterwards" in text.getvalue()

    def test_quiet_has_no_progress_on_terminals(self):
        text, errors = self.terminal()
        assert Report(errors=errors).shows_progress
        report = Report(errors=errors, quiet=True)
        with report.busy("solving"):
            pass
        assert text.getvalue() == ""
