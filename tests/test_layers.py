"""The import direction of the package: nouns import to the left only, heavy libraries stay in their folders."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent / "scoregeo"

# What each part may import from the rest of the package. Leaves (plotting, cli) may import anything; nothing imports
# them.
FOUNDATION = {
    "_types",
    "_checks",
    "_numerics",
    "_function",
    "_protocols",
    "_results",
    "_batching",
    "_cholesky",
    "_traces",
    "_graphs",
    "_display",
}
ALLOWED = {
    "_types": set(),
    "_checks": set(),
    "_numerics": {"_checks"},
    "_function": {"_checks"},
    "_protocols": {"_types"},
    "_batching": {"_numerics"},
    "_cholesky": set(),
    "_traces": {"_types", "_checks"},
    "_graphs": set(),
    "_display": set(),
    "_results": {"_checks"},
    "_atomic": set(),
    "scores": FOUNDATION,
    "datasets": FOUNDATION | {"scores"},
    "diffusion": FOUNDATION | {"_atomic", "scores", "datasets"},
    "metrics": FOUNDATION | {"scores"},
    "geodesics": FOUNDATION | {"scores", "metrics"},
    "_pairs": FOUNDATION | {"_atomic"},
    "operations": FOUNDATION | {"_pairs", "scores", "metrics", "geodesics"},
    "fisher_rao": FOUNDATION | {"scores", "metrics", "geodesics", "operations"},
    "curvature": FOUNDATION | {"scores", "metrics", "geodesics", "operations"},
    "manifold": FOUNDATION | {"scores"},
    "statistics": FOUNDATION | {"_atomic", "_pairs", "scores", "metrics", "geodesics", "operations"},
    "comparison": FOUNDATION | {"_atomic", "scores", "diffusion", "metrics", "geodesics", "operations"},
}
LEAVES = {
    "adapters",
    "explore",
    "plotting",
    "cli",
    "__init__",
    "__main__",
}

# Which parts may import a library at all.
LIBRARIES = {
    "flax": {"diffusion", "scores/network", "adapters/diffusers"},
    "optax": {"diffusion"},
    "orbax": {"diffusion/training/checkpoint"},
    "diffrax": {"geodesics", "diffusion", "statistics/sampling", "_results"},
    "blackjax": {"statistics/sampling"},
    "matplotlib": {"plotting", "datasets/letters", "datasets/real"},  # its font and its heights are data
    "PIL": {"datasets/readers/folders"},
    "anndata": {"datasets/readers/cells"},
    "datasets": {"datasets/readers/hub"},
    "geomstats": {"adapters"},
    "torch": {"adapters/torch"},
    "torchax": {"adapters/torch"},
    "optuna": {"adapters/optuna"},
    "sqlalchemy": {"adapters/optuna"},
}


def imports(path: pathlib.Path):
    """Every module that a file imports, anywhere in it, with relative names made absolute."""
    package = ("scoregeo", *path.relative_to(ROOT).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def part_of(module: str) -> str | None:
    pieces = module.split(".")
    return pieces[1] if pieces[0] == "scoregeo" and len(pieces) > 1 else None


FILES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_import_direction(path):
    own = path.relative_to(ROOT).parts[0].removesuffix(".py")
    if own in LEAVES:
        return
    names = {name.removesuffix(".py") for name in (p.name for p in ROOT.iterdir())}
    assert own in ALLOWED, f"{own} is a new part of the package: say in ALLOWED what it may import"
    for module in imports(path):
        part = part_of(module)
        if part in names and part != own:
            assert part in ALLOWED[own], f"{path.name} imports {module}: {own} may import only {sorted(ALLOWED[own])}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_libraries_stay_in_their_folders(path):
    own = str(path.relative_to(ROOT).with_suffix(""))
    for module in imports(path):
        places = LIBRARIES.get(module.split(".")[0])
        allowed = places is None or any(own == place or own.startswith(place + "/") for place in places)
        assert allowed, f"{own} imports {module}, which belongs to {sorted(places)}"


def module_name(path: pathlib.Path) -> str:
    parts = ("scoregeo", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_no_import_circle():
    """Between files, imports inside functions included; what only names a package's public interface is the package."""
    modules = {module_name(path): path for path in FILES}
    edges = {name: {m for m in imports(path) if m in modules and m != name} for name, path in modules.items()}
    # A file that imports a public name of its own package imports the package, which imports the file.
    order, state = [], {}

    def visit(name, trail):
        if state.get(name) == "done":
            return
        assert state.get(name) != "open", "a circle: " + " -> ".join([*trail[trail.index(name) :], name])
        state[name] = "open"
        for target in sorted(edges[name]):
            visit(target, [*trail, name])
        state[name] = "done"
        order.append(name)

    for name in sorted(modules):
        visit(name, [])
    assert len(order) == len(modules)


def test_every_part_is_on_the_map():
    """In the table that CONTRIBUTING.md opens with; and in its picture, which lists single files by itself."""
    root = ROOT.parent
    parts = {path for path in ROOT.iterdir() if not path.name.startswith("__") and path.suffix in ("", ".py")}
    table = (root / "CONTRIBUTING.md").read_text().split("## Three recipes")[0]
    missing = {path.name for path in parts if f"`{path.name}{'/' if path.is_dir() else ''}" not in table}
    assert not missing, f"CONTRIBUTING.md does not say what is in {missing}"
    drawing = ast.parse((root / "docs" / "house.py").read_text())
    (places,) = (n.value for n in drawing.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "PLACES")
    drawn = {path.stem for path in parts if path.is_dir() or not path.stem.startswith("_")}
    assert set(ast.literal_eval(places)) == drawn


# --- Sizes: what is longer has two subjects ---------------------------------------------------------------------------

LONGEST_FILE, LONGEST_FUNCTION, MOST_FILES = 400, 60, 16
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def body_lines(function) -> int:
    """Lines from the first statement after the docstring to the last, with functions inside it."""
    statements = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return statements[-1].end_lineno - statements[0].lineno + 1 if statements else 0


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_are_short(path):
    text = path.read_text()
    length = len(text.splitlines())
    assert length <= LONGEST_FILE, f"{path.name} has {length} lines"
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, FUNCTIONS)]
    long = {f"{f.name} (line {f.lineno})": body_lines(f) for f in functions if body_lines(f) > LONGEST_FUNCTION}
    assert not long, f"bodies of more than {LONGEST_FUNCTION} lines: {long}"


def test_the_iteration_of_the_solver_is_read_at_a_glance():
    text = (ROOT / "geodesics" / "spectral" / "refinement.py").read_text()
    (advance,) = (node for node in ast.parse(text).body if getattr(node, "name", None) == "advance")
    assert body_lines(advance) <= 30


def test_folders_are_small():
    folders = {path.parent for path in FILES}
    counts = {str(folder.relative_to(ROOT.parent)): len(list(folder.glob("*.py"))) for folder in folders}
    large = {folder: count for folder, count in counts.items() if count > MOST_FILES}
    assert not large, f"folders of more than {MOST_FILES} files: {large}"


def test_body_lines():
    """The docstring does not count; blank lines and functions inside do."""
    source = 'def f():\n    """One.\n\n    Two."""\n    x = 1\n\n    def g():\n        return x\n\n    return g\n'
    (function,) = ast.parse(source).body
    assert body_lines(function) == 6
    assert body_lines(ast.parse('def f():\n    """Only this."""\n').body[0]) == 0
