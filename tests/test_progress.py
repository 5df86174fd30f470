"""Where bars move, and where lines are printed instead."""

import importlib.util
import io
import sys
import types

import pytest
import rich.console

from scoregeo._display import live_console
from scoregeo._pairs.progress import progress_bar


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
