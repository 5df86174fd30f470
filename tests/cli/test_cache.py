"""The command line keeps compiled programs for the next command, where the environment does not say otherwise."""

import os
import pathlib
import re
import subprocess
import sys

import jax
import pytest

from scoregeo import cli
from scoregeo.cli import _cache, _report
from scoregeo.cli._cache import CompileTimes, keep_programs, program_folder


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


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """That of a user with a cache below a folder, in this process; JAX's settings are as before when the test ends."""
    for name in [name for name in os.environ if name.startswith("JAX_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    settings = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in settings}
    yield monkeypatch
    for name, value in before.items():
        jax.config.update(name, value)


def test_programs_are_kept_below_the_users_cache(tmp_path, environment):
    assert keep_programs() == program_folder(tmp_path)
    assert jax.config.jax_compilation_cache_dir == str(program_folder(tmp_path))
    assert program_folder(tmp_path).is_dir()


@pytest.mark.parametrize(
    ("name", "value"), [("JAX_COMPILATION_CACHE_DIR", "/elsewhere"), ("JAX_ENABLE_COMPILATION_CACHE", "0")]
)
def test_the_environment_has_the_last_word(tmp_path, environment, name, value):
    """JAX reads these itself when it is imported; what it made of them stays."""
    environment.setenv(name, value)
    before = jax.config.jax_compilation_cache_dir
    assert keep_programs() is None
    assert jax.config.jax_compilation_cache_dir == before
    assert not any(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_no_reason_to_fail(tmp_path, environment):
    (tmp_path / "file").write_text("")
    environment.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    before = jax.config.jax_compilation_cache_dir
    assert keep_programs() is None
    assert jax.config.jax_compilation_cache_dir == before


_SOONER = """
import sys
from scoregeo import cli
from scoregeo.cli import demo
demo.Demo.run = lambda *_: None
sys.argv = ["scoregeo", "demo"]
try:
    cli.main()
except SystemExit:
    pass
import os, jax, jax.numpy as jnp
# It dies of a flag that XLA does not know.
print(os.environ["XLA_FLAGS"], jax.config.jax_compilation_cache_dir, float(jax.jit(jnp.sum)(jnp.ones(3))))
"""


@pytest.mark.slow
def test_the_demo_compiles_sooner_and_keeps_programs(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS" and not k.startswith("JAX_")}
    environment |= {"XDG_CACHE_HOME": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", _SOONER], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"--xla_cpu_use_fusion_emitters=false {program_folder(tmp_path)} 3.0"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "given", "expected"),
    [
        (["demo"], None, "--xla_cpu_use_fusion_emitters=false"),
        (["demo"], "--xla_own=1", "--xla_own=1"),
        (["sample", "--model", "none", "--out", "none.npy"], None, None),
    ],
)
def test_sooner_is_for_the_demo_without_flags_of_ones_own(environment, words, given, expected):
    """By `main` as a process calls it, with a command that does nothing."""
    environment.delenv("XLA_FLAGS", raising=False)
    if given is not None:
        environment.setenv("XLA_FLAGS", given)
    environment.setattr(sys, "argv", ["scoregeo", *words])
    environment.setattr(cli._interrupts, "install", lambda: False)
    environment.setattr(_report, "say_warnings", lambda: None)
    command = cli._import(words[0])
    environment.setattr(command, "run", lambda *_: None)
    cli.main()
    found = os.environ.get("XLA_FLAGS")
    environment.delenv("XLA_FLAGS", raising=False)  # one that is set here would stay
    assert found == expected
