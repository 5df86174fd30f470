"""docs/command_line.md: its table has the commands that there are, and its session runs as it stands."""

import itertools
import json
import pathlib
import re
import shlex
import shutil

import numpy as np
import pytest

from scoregeo import cli
from scoregeo.cli._command import OutputOptions
from scoregeo.cli._mistakes import _names

PAGE = (pathlib.Path(__file__).parents[2] / "docs" / "command_line.md").read_text()
SESSIONS = [
    re.findall(r"^\$ scoregeo (.*)$", block, re.MULTILINE)
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
]
# Trained for a moment, on the same terms.
BRIEFLY = ["--steps", "40", "--chunk-steps", "40", "--width", "16", "--depth", "2", "--warmup-steps", "4"]


@pytest.fixture
def here(tiny, tmp_path, monkeypatch):
    """A folder with the files that the page names, and a model."""
    monkeypatch.chdir(tmp_path)
    points = np.load(tiny / "train.npy")
    for name, part in (("points.csv", points), ("held_out.csv", points[:8] + 0.01)):
        np.savetxt(name, part, delimiter=",", header="x,y", comments="")
    shutil.copytree(tiny / "model", "model")
    return tmp_path


def run(line):
    words = shlex.split(line)
    cli.main([*words, *(BRIEFLY if words[0] == "train" else [])])
    named = dict(itertools.pairwise(words))
    for option in ("--out", "--picture"):
        if option in named:
            assert pathlib.Path(named[option]).exists(), line


def test_the_table_has_all_commands():
    named = re.findall(r"^\| `([a-z]+)` \|", PAGE.split("## A session")[0], re.MULTILINE)
    assert named == list(cli._COMMANDS)


def test_options_of_the_vocabulary_exist():
    """Every option that the page names is one of some command."""
    found = set(re.findall(r"`(--[a-z-]+)", PAGE)) - {"--help"}
    known = {"--tyro-print-completion", "--from", "--to", "--metric", "--sweep"}
    for name in cli._COMMANDS:
        for command in (cli._import(name), OutputOptions):
            known |= {f"--{field.replace('_', '-')}" for field in _names(command)}
    assert found <= known, found - known


@pytest.mark.slow
def test_the_session(here, capsys):
    for line in SESSIONS[0]:
        run(line)
    assert (np.loadtxt("samples.csv", delimiter=",", skiprows=1)).shape == (500, 2)
    assert json.loads(pathlib.Path("report.json").read_text())["training_points"] == 0


@pytest.mark.slow
def test_what_is_measured(here, capsys):
    for line in SESSIONS[1]:
        run(line)
    assert '"metric": "power"' in capsys.readouterr().out
    assert np.load("mean.npy").shape == (2,)
