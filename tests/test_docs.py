"""Every public name has a page and a docstring, and the examples in the documentation do what they say."""

import doctest
import importlib
import inspect
import io
import pathlib
import pkgutil
import re

import diffrax
import jax
import pytest

import scoregeo
from scoregeo import RESULTS

PACKAGE = pathlib.Path(scoregeo.__file__).parent
DOCS = pathlib.Path(__file__).parents[1] / "docs"
# The command line, whose users read `scoregeo --help`.
COMMAND_LINE = "cli"
PUBLIC = [scoregeo.__name__] + [
    f"scoregeo.{module.name}"
    for module in pkgutil.iter_modules(scoregeo.__path__)
    if not module.name.startswith("_") and module.name != COMMAND_LINE
]


def public_names(module) -> dict[str, object]:
    """The names in ``__all__``; in a module without it, what it defines itself."""
    if hasattr(module, "__all__"):
        return {name: getattr(module, name) for name in module.__all__}
    mine = {name: thing for name, thing in vars(module).items() if getattr(thing, "__module__", "") == module.__name__}
    return {name: thing for name, thing in mine.items() if not name.startswith("_")}


def documented() -> list[object]:
    """The objects that the API pages show: all public names of a module, or one object by its full name."""
    objects = []
    for page in (DOCS / "api").glob("*.md"):
        for kind, name in re.findall(r"^\.\. auto(\w+):: (\S+)$", page.read_text(), re.MULTILINE):
            if kind == "module":
                module = importlib.import_module(name)
                objects += [module, *public_names(module).values()]
            else:
                module, member = name.rsplit(".", 1)
                objects.append(getattr(importlib.import_module(module), member))
    return objects


def own_doc(thing: object) -> str:
    """The docstring that somebody wrote for this object: not inherited, not generated from its fields."""
    doc = (vars(thing).get("__doc__") if inspect.isclass(thing) else inspect.getdoc(thing)) or ""
    return "" if doc.startswith(f"{getattr(thing, '__name__', '')}(") else doc.strip()


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_documented(name):
    module = importlib.import_module(name)
    assert own_doc(module), f"{name} has no docstring"
    members = public_names(module)
    pages = documented()
    missing = [member for member, thing in members.items() if not any(thing is page for page in pages)]
    assert not missing, f"not on any page in docs/api: {missing} of {name}"
    bare = [member for member, thing in members.items() if not own_doc(thing)]
    for member, thing in members.items():
        if inspect.isclass(thing):
            methods = {
                k: v for k, v in vars(thing).items() if not k.startswith("_") and (callable(v) or hasattr(v, "fget"))
            }
            # A method that overrides an abstract one may leave the description to it.
            bare += [f"{member}.{k}" for k in methods if not inspect.getdoc(getattr(thing, k))]
    assert not bare, f"without docstring: {bare} of {name}"


def run_example(example: doctest.DocTest) -> None:
    """Fail with doctest's own report where an example prints something else than it says."""
    output = io.StringIO()
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=output.write, clear_globs=False)
    assert not output.getvalue(), output.getvalue()


# Their examples compile for five seconds or more: solvers with metrics that are large programs, or several solvers.
SLOW_EXAMPLES = {
    "fisher_rao/base.py",
    "metrics/graph.py",
    "comparison/copies.py",
    "fisher_rao/families/gamma.py",
    "fisher_rao/families/von_mises.py",
    "fisher_rao/metric.py",
    "geodesics/anneal.py",
    "geodesics/multistart.py",
    "geodesics/refine.py",
    "geodesics/transport.py",
    "plotting/comparison.py",
    "statistics/neighbors.py",
    "statistics/sampling/brownian.py",
    "statistics/sampling/chains.py",
    "statistics/sampling/geodesic_slice.py",
    "statistics/sampling/targets.py",
}
WITH_EXAMPLES = [
    pytest.param(name, marks=pytest.mark.slow if name in SLOW_EXAMPLES else ())
    for path in sorted(PACKAGE.rglob("*.py"))
    if ">>>" in path.read_text() and (name := path.relative_to(PACKAGE).as_posix())
]


def test_slow_examples_exist():
    assert all(">>>" in (PACKAGE / name).read_text() for name in SLOW_EXAMPLES)


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_of_docstrings(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module("scoregeo." + name.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
    examples = [test for test in doctest.DocTestFinder().find(module) if test.examples]
    written = re.findall(r"^ *>>> ", (PACKAGE / name).read_text(), re.MULTILINE)
    assert sum(len(example.examples) for example in examples) == len(written), "an example that doctest does not find"
    with jax.enable_x64(False):  # readers see what JAX prints by default
        for example in examples:
            run_example(example)


def blocks(page: pathlib.Path) -> list[tuple[int, str]]:
    """Python blocks of a page with the lines where they start."""
    text = page.read_text()
    found = re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(text[: match.start(1)].count("\n"), match.group(1)) for match in found]


def shortened(code: str) -> str:
    """The same training with fewer steps: how good its result is, tests/diffusion says."""
    return re.sub(r"\bsteps=\d{4,}", "steps=200", code)


def test_every_status_has_its_advice():
    """A section of the page for each code of ours, which quotes how its message begins."""
    page = re.sub(r"\s+", " ", (DOCS / "faq.md").read_text())
    names = set(RESULTS._name_to_item) - set(diffrax.RESULTS._name_to_item)
    ours = {name: RESULTS[getattr(RESULTS, name)] for name in names}
    assert len(ours) > 8
    for name, text in ours.items():
        section = re.search(rf"## {name} \*\"(.*?)\"\*", page)
        assert section, f"docs/faq.md has no section {name}"
        assert text.startswith(section.group(1).removesuffix(".")), (name, section.group(1), text)


PAGES = [page.name for page in sorted(DOCS.glob("*.md")) if blocks(page)] + ["../CONTRIBUTING.md"]


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_examples_of_page(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # what an example writes does not stay
    names = {"__name__": "__main__"}
    for line, code in blocks(DOCS / name):
        if ">>>" not in code:
            exec(compile("\n" * line + shortened(code), DOCS / name, "exec"), names)
            continue
        example = doctest.DocTestParser().get_doctest(code, names, name, str(DOCS / name), line)
        run_example(example)
        names = example.globs
