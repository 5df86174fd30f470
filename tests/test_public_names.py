"""The names of the package: the same for programs and type checkers, and loaded when they are first used."""

import ast
import importlib
import pathlib
import subprocess
import sys

import pytest

import scoregeo


def names_for_type_checkers() -> dict[str, str | None]:
    """The names that the ``if TYPE_CHECKING`` block imports, with their modules; a subpackage has ``None``."""
    tree = ast.parse(pathlib.Path(scoregeo.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    return {alias.name: node.module for node in block.body for alias in node.names}


def test_type_checkers_see_what_programs_see():
    names = names_for_type_checkers()
    assert sorted(name for name, module in names.items() if module) == sorted(scoregeo.__all__)
    assert sorted(name for name, module in names.items() if not module) == sorted(scoregeo._SUBPACKAGES)
    for name, module in names.items():
        if module is None:
            assert getattr(scoregeo, name) is importlib.import_module(f"scoregeo.{name}")
        else:
            assert getattr(scoregeo, name) is getattr(importlib.import_module(f"scoregeo.{module}"), name)


def test_functions_and_the_packages_of_similar_name():
    assert callable(scoregeo.geodesic)
    assert scoregeo.geodesics.geodesic is scoregeo.geodesic
    assert scoregeo.metrics.models is scoregeo.models


def test_dir_and_star_import():
    assert {*scoregeo.__all__, *scoregeo._SUBPACKAGES, "__version__"} <= set(dir(scoregeo))
    assert set(scoregeo.scores.__all__) <= set(dir(scoregeo.scores))
    names = {}
    exec("from scoregeo import *", names)
    assert set(scoregeo.__all__) == set(names) - {"__builtins__"}


@pytest.mark.parametrize("module", [scoregeo, scoregeo.scores])
def test_unknown_name(module):
    with pytest.raises(AttributeError, match=f"^module '{module.__name__}' has no attribute 'geodesik'$"):
        module.geodesik  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'geodesik'"):
        exec(f"from {module.__name__} import geodesik")


@pytest.mark.slow
def test_what_is_loaded_when():
    """Heavy libraries are loaded by the programs that need them. A process of its own, because here all are loaded."""
    program = """
import sys

HEAVY = {"diffrax", "flax", "geomstats", "jax", "matplotlib", "optax", "orbax", "pandas", "scipy", "sklearn", "torch"}

def loaded():
    return HEAVY & set(sys.modules)

import scoregeo
assert not loaded(), loaded()

import scoregeo.cli
try:
    scoregeo.cli.main(["--help"])
except SystemExit as stop:
    assert not stop.code, stop.code
assert not loaded(), loaded()

scoregeo.dist, scoregeo.datasets.two_moons
assert loaded() == {"jax", "diffrax"}, loaded()

scoregeo.NetworkScore
assert "flax" in loaded()
assert "matplotlib" not in loaded()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "geodesic" in done.stdout
