"""Ctrl-C: at whatever moment it comes, a command ends with status 130 and says what there is to go on from."""

import os
import pathlib
import signal
import subprocess
import sys
import time
import types

import numpy as np
import pytest

from scoregeo import cli
from scoregeo.cli import _interrupts
from scoregeo.cli._interrupts import TrainingRun
from scoregeo.cli.models import train

# The command line in a process whose interrupt comes when a module is looked for, or some seconds later.
AT_IMPORT = """
import os, signal, sys, threading

class Interrupt:
    def find_spec(self, name, path, target=None):
        if name == moment and float(seconds) > 0:
            threading.Timer(float(seconds), os.kill, (os.getpid(), signal.SIGINT)).start()
        elif name == moment:
            os.kill(os.getpid(), signal.SIGINT)

moment, seconds, *sys.argv[1:] = sys.argv[1:]
sys.meta_path.insert(0, Interrupt())
from scoregeo.cli import main
main()
"""

# A command that swallows whatever is raised in it, as callbacks from native code do.
DEAF = """
import sys, time
from scoregeo import cli
from scoregeo.cli._command import Command, OutputOptions

def run(*_):
    print("ready", file=sys.stderr, flush=True)
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass

cli._read = lambda words: (type("Deaf", (Command,), {"run": run})(), OutputOptions())
print("some output")
cli.main()
"""


def start(program, *words):
    """A process, which is not deaf to interrupts even if the tests are."""
    command = [sys.executable, *(["-c", program] if program else ["-m", "scoregeo"]), *map(str, words)]
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": os.environ["SCOREGEO_TEST_CACHE"]}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def end(process):
    """What it prints on standard error; its status is 130."""
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    return errors


@pytest.fixture
def words(tmp_path):
    """A command that trains."""
    np.save(tmp_path / "data.npy", np.random.default_rng(0).normal(size=(300, 2)))
    sizes = ["--width", "16", "--depth", "2", "--steps", "1000000", "--chunk-steps", "50", "--batch-size", "32"]
    return ["train", "--data", tmp_path / "data.npy", "--out", tmp_path / "model", *sizes]


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["tyro", "jax", "flax.nnx"])
def test_while_modules_are_imported(words, moment):
    assert end(start(AT_IMPORT, moment, 0, *words)) == "scoregeo: interrupted\n"


def test_where_an_exception_would_be_swallowed():
    process = start(DEAF, "anything")
    assert process.stderr.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (130, "some output\n", "scoregeo: interrupted\n")


def test_a_process_in_the_background_stays_deaf():
    program = "import signal; from scoregeo.cli import _interrupts; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    program += "print(_interrupts.install(), signal.getsignal(signal.SIGINT) == signal.SIG_IGN)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == ["False", "True"], done.stderr


class TestTrainingRun:
    def test_it_ends_at_once_before_its_first_chunk(self, tmp_path):
        assert not TrainingRun(tmp_path / "nowhere", 100).ends_itself()

    def test_it_ends_itself_after_a_chunk(self, tmp_path):
        run = TrainingRun(tmp_path, 100)
        run(types.SimpleNamespace(last_step=20))
        assert run.ends_itself()
        with pytest.raises(KeyboardInterrupt):
            run(types.SimpleNamespace(last_step=40))

    def test_the_second_interrupt_ends_at_once(self, tmp_path):
        run = TrainingRun(tmp_path, 100)
        run(types.SimpleNamespace(last_step=20))
        assert [run.ends_itself(), run.ends_itself()] == [True, False]

    def test_after_the_last_chunk_there_is_nothing_to_wait_for(self, tmp_path):
        run = TrainingRun(tmp_path, 100)
        run(types.SimpleNamespace(last_step=100))
        assert not run.ends_itself()

    def test_it_knows_the_last_whole_checkpoint(self, tmp_path):
        run = TrainingRun(tmp_path, 100)
        assert "nothing was kept" in run.kept()
        for name in ("8", "20", "40.orbax-checkpoint-tmp", "20.damaged"):
            (tmp_path / name).mkdir()
        assert f"the last checkpoint is in {tmp_path / '20'} (" in run.kept()


@pytest.mark.slow
class TestTraining:
    @pytest.mark.parametrize("seconds", [0, 1])
    def test_before_the_first_chunk(self, words, seconds):
        """From the import of the last module on: while programs are traced and compiled, at which time there is nothing
        to keep. A fast machine may have done a chunk by then."""
        errors = end(start(AT_IMPORT, "scoregeo.diffusion.training.checkpoint", seconds, *words))
        nothing = "scoregeo: interrupted; nothing was kept (there is no checkpoint yet)"
        assert errors.splitlines()[-1].startswith("scoregeo: ") if seconds else errors == f"{nothing}\n"

    def test_in_chunks_and_after_a_restart(self, words, monkeypatch):
        """A checkpoint; which is named if the next run ends before it has done anything."""
        process = start("", *words)
        assert process.stderr.readline().startswith("step ")
        time.sleep(0.5)  # any moment of short chunks and of checkpoints
        process.send_signal(signal.SIGINT)
        errors = end(process)
        assert "the run ends after this chunk of steps" in errors
        checkpoint = pathlib.Path(errors.split("the last checkpoint is in ")[1].split(" (")[0])
        assert checkpoint.is_dir()

        seen = []

        def fit(*_, callbacks, **settings):
            (run,) = callbacks
            seen.append((run is _interrupts._run, run.ends_itself(), run.kept()))
            raise KeyboardInterrupt

        monkeypatch.setattr(train, "fit", fit)
        with pytest.raises(SystemExit) as stop:
            cli.main([*map(str, words)])
        assert stop.value.code == 130
        kept = f"; the last checkpoint is in {checkpoint} (the same command goes on from there)"
        assert seen == [(True, False, kept)]

    def test_the_second_one_ends_a_long_chunk(self, words):
        """What it did of the chunk is lost: there is no checkpoint of its end."""
        process = start("", *("20000" if word == "50" else word for word in words))
        assert process.stderr.readline().startswith("step ")
        process.send_signal(signal.SIGINT)
        assert "the run ends after this chunk" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        errors = end(process)
        assert errors.startswith("scoregeo: interrupted; ")
        assert "40000" not in errors
