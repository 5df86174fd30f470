"""The command line keeps compiled programs for the next command, where the environment does not say otherwise."""

import os
import subprocess
import sys

import pytest

from scoregeo.cli._cache import program_folder

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
