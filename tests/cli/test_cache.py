"""The command line keeps compiled programs for the next command, where the environment does not say otherwise."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

from scoregeo import cli
from scoregeo.cli import _cache
from scoregeo.cli._cache import CompileTimes, program_folder

_SCRIPT = """
from scoregeo.cli._cache import keep_programs
keep_programs()
import jax
print(jax.config.jax_compilation_cache_dir)
"""


def chosen(tmp_path, **changed):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    environment |= {"XDG_CACHE_HOME": str(tmp_path), "JAX_PLATFORMS": "cpu"} | changed
    done = subprocess.run([sys.executable, "-c", _SCRIPT], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_folder_of_its_own_for_each_number_of_threads(tmp_path, monkeypatch):
    folders = set()
    for threads in ("1", "2"):
        monkeypatch.setenv("NPROC", threads)
        folders.add(program_folder(tmp_path))
    assert len(folders) == 2
    assert all(folder.parent == tmp_path for folder in folders)


def test_the_next_command_knows_how_long_the_last_one_compiled(tmp_path):
    CompileTimes(tmp_path).keep("mean: the mean", 7.24, partly=False)
    times = CompileTimes(tmp_path)
    assert times.of("mean: the mean") == 7.2
    assert times.of("mean: drawing") is None
    assert times.of("pca: the mean") is None
    # Some programs were kept, and the others took less: the whole takes no less than it did.
    times.keep("mean: the mean", 1.0, partly=True)
    assert times.of("mean: the mean") == 7.2
    times.keep("mean: the mean", 1.0, partly=False)
    assert times.of("mean: the mean") == 1.0


@pytest.mark.parametrize("text", ["", "[1]", '{"mean: drawing": "long"}', '{"mean: drawing": null}', "\x00"])
def test_damaged_times_are_none(tmp_path, text):
    times = CompileTimes(tmp_path)
    times.keep("mean: drawing", 7.0, partly=False)
    (kept,) = tmp_path.iterdir()
    kept.write_text(text)
    assert times.of("mean: drawing") is None
    times.keep("mean: drawing", 8.0, partly=False)
    assert times.of("mean: drawing") == 8.0
    assert list(tmp_path.iterdir()) == [kept]


def test_times_that_cannot_be_kept_are_no_reason_to_fail(tmp_path):
    for folder in (None, tmp_path / "none"):
        CompileTimes(folder).keep("mean: drawing", 7.0, partly=False)
        assert CompileTimes(folder).of("mean: drawing") is None


def test_times_that_come_with_the_library_are_of_what_commands_do():
    """Where somebody gives a step another name, its time has to move with it."""
    sources = "".join(path.read_text() for path in pathlib.Path(_cache.__file__).parent.rglob("[!_]*.py"))
    sources += "".join(path.read_text() for path in pathlib.Path(_cache.__file__).parent.rglob("_[ps]*.py"))
    # What is put into a text while the program runs may be anything; a text that is nothing else says nothing.
    said = [re.sub(r"\\?{.*?}", ".+", re.escape(text)) for text in re.findall(r'f?"([\w{][^"\n]*)"', sources)]
    for key in _cache._MEASURED:
        named, doing = key.split(": ", 1)
        assert named.split()[0] in cli._COMMANDS
        assert any(re.fullmatch(text, doing) for text in said if re.search(r"\w", text)), key


@pytest.mark.slow
def test_programs_are_kept_below_the_users_cache(tmp_path):
    assert chosen(tmp_path) == str(program_folder(tmp_path))
    assert program_folder(tmp_path).is_dir()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "expected"),
    [({"JAX_COMPILATION_CACHE_DIR": "/elsewhere"}, "/elsewhere"), ({"JAX_ENABLE_COMPILATION_CACHE": "0"}, "None")],
)
def test_the_environment_has_the_last_word(tmp_path, changed, expected):
    assert chosen(tmp_path, **changed) == expected
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_a_folder_that_cannot_be_made_is_no_reason_to_fail(tmp_path):
    occupied = tmp_path / "file"
    occupied.write_text("")
    assert chosen(occupied) == "None"


_SOONER = """
import sys
from scoregeo import cli
from scoregeo.cli import demo
demo.Demo.run = lambda *_: None
sys.argv = ["scoregeo", *sys.argv[1:]]
try:
    cli.main()
except SystemExit:
    pass
import os, jax, jax.numpy as jnp
print(os.environ.get("XLA_FLAGS"), float(jax.jit(jnp.sum)(jnp.ones(3))))  # dies of a flag that XLA does not know
"""


@pytest.mark.slow
def test_the_demo_compiles_sooner_unless_told_otherwise(tmp_path):
    def flags(*words, **changed):
        environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | {"XDG_CACHE_HOME": str(tmp_path)}
        command = [sys.executable, "-c", _SOONER, *words]
        done = subprocess.run(command, env=environment | changed, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()[-1]

    assert flags("demo") == "--xla_cpu_use_fusion_emitters=false 3.0"
    own = "--xla_force_host_platform_device_count=2"
    assert flags("demo", XLA_FLAGS=own) == f"{own} 3.0"
    assert flags("likelihood", "--model", str(tmp_path / "none"), "--points", "none.csv").startswith("None")
