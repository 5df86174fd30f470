"""Where bars move, and where lines are printed instead."""

import importlib.util
import io
import sys
import types

import jax
import pytest
import rich.console
import rich.progress

from scoregeo._display import live_console
from scoregeo._pairs import progress
from scoregeo._pairs.progress import Compilation, progress_bar


@pytest.fixture
def notebook(monkeypatch):
    monkeypatch.setattr(rich.console, "_is_jupyter", lambda: True)


def test_a_terminal_has_a_bar(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert live_console() is None
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert live_console() is not None


@pytest.mark.parametrize("widgets", [True, False])
def test_a_notebook_has_one_where_widgets_are(notebook, monkeypatch, widgets):
    spec = types.SimpleNamespace() if widgets else None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec if name == "ipywidgets" else None)
    assert (live_console() is not None) is widgets


def test_a_notebook_without_widgets_is_not_warned(notebook, recwarn, capsys):
    with progress_bar(4) as advance:
        advance(4)
    assert not recwarn.list
    assert "4/4" in capsys.readouterr().err


def test_compilation_is_measured_and_told(monkeypatch):
    monkeypatch.setattr(progress, "_LARGE", 0.0)
    told = []
    with Compilation(told.append) as found:
        jax.jit(lambda x: 3 * x + 51)(2.0)
    assert told == [True, False] * (len(told) // 2)
    assert found.compiled == len(told) // 2 > 0
    assert found.read == 0
    assert 0 < found.seconds < 60
    jax.jit(lambda x: 3 * x + 52)(2.0)
    assert len(told) == 2 * found.compiled  # nobody listens any more


def test_one_time_within_another_counts_once(monkeypatch):
    clock = iter([10.0, 11.0, 20.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    found = Compilation()
    for seconds in (1.0, 4.0, 2.0):  # from 9 to 10, within 7 to 11; and from 18 to 20
        found._took(progress._TRACED, seconds)
    assert found.seconds == 6.0


def test_programs_that_were_kept_are_not_compiled(monkeypatch):
    found = Compilation()
    found._happened(progress._READ)
    found._took(progress._COMPILED, 5.0)
    assert (found.read, found.compiled, found.seconds) == (1, 0, 0)
    found._took(progress._COMPILED, 5.0)
    assert (found.read, found.compiled) == (1, 1)
    assert abs(found.seconds - 5) < 1e-6


def test_a_bar_says_that_it_compiles(monkeypatch, capsys):
    said, kind = [], rich.progress.Progress

    class Bar(kind):
        def update(self, task, **values):
            said.append(values.get("description"))
            super().update(task, **values)

    monkeypatch.setattr(rich.progress, "Progress", Bar)
    with progress_bar(4, about=", about 7 s") as advance:
        jax.jit(lambda x: 3 * x + 53)(2.0)
        advance(4)
    assert said[:2] == ["distances: compiling, about 7 s", "distances"]
    assert said[-1] is None
