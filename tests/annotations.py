"""How annotations are checked while tests run: `checked` is what pyproject.toml gives to jaxtyping's plugin.

The parts that it names there are checked, arguments and results. Left out are `adapters.diffusers`, as beartype warns
of flax's lists of layers; `adapters.optuna`, whose functions check what they are given; the command line, whose tests
put stand-ins in the place of models; and what is small and private, as `_checks`.

There is one exception: of a door only what it returns is checked. Doors check what they are given themselves, in words,
and take lists, NumPy's arrays and integers where they say what these become; tests give them what is wrong on purpose.
They are

- the functions and plain dataclasses that a package exports, and the constructors that a public class writes itself
  or whose fields it checks;
- public methods, but for metrics and geodesics, where solvers call them for each point of a path.
"""

import ast
import pathlib
import re
from typing import Any

import numpy as np
from beartype import BeartypeConf, FrozenDict, beartype

PACKAGE = pathlib.Path(__file__).parents[1] / "scoregeo"
SOLVERS_CALL = ("scoregeo.metrics", "scoregeo.geodesics")
# NumPy's numbers are numbers, and so are integers where a float is asked for.
CONFIGURATION = BeartypeConf(
    hint_overrides=FrozenDict({float: float | int | np.number, int: int | np.integer, bool: bool | np.bool_})
)


def exported() -> set[str]:
    """Full names of functions and classes that a package of scoregeo exports, by where they are defined."""
    places = set()
    for path in PACKAGE.rglob("__init__.py"):
        package = ("scoregeo", *path.parent.relative_to(PACKAGE).parts)
        tree = ast.parse(path.read_text())
        lists = [n.value for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "__all__"]
        public = {name for names in lists for name in ast.literal_eval(names)}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.level:
                base = package[: len(package) - node.level + 1]
                module = ".".join((*base, *([node.module] if node.module else [])))
                places |= {f"{module}.{alias.name}" for alias in node.names if (alias.asname or alias.name) in public}
    return places


def constructors() -> set[str]:
    """Full names of what makes a public class: class methods, and ``__init__`` where it or a base of it writes one or
    checks its fields, or where it is a plain dataclass that is exported. That of the others takes what their fields
    hold."""
    classes = {}
    for path in PACKAGE.rglob("*.py"):
        module = ".".join(("scoregeo", *path.relative_to(PACKAGE).with_suffix("").parts))
        found = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef))
        classes |= {node.name: (f"{module}.{node.name}", node) for node in found}

    def checks(name: str) -> bool:
        if name not in classes:
            return False
        _, node = classes[name]
        own = {getattr(member, "name", None) for member in node.body}
        return bool(own & {"__init__", "__check_init__", "__post_init__"}) or any(
            checks(ast.unparse(base)) for base in node.bases
        )

    public = [(place, node) for name, (place, node) in classes.items() if not name.startswith("_")]
    # Such as `Entry`: the function that takes one checks what is in it.
    plain = {n.name for _, n in public if any("dataclass" in ast.unparse(d) for d in n.decorator_list)}
    given = {place for place, node in public if checks(node.name) or (node.name in plain and place in EXPORTED)}
    places = {f"{place}.__init__" for place in given}
    for place, node in public:
        for method in (member for member in node.body if isinstance(member, ast.FunctionDef)):
            if "classmethod" in map(ast.unparse, method.decorator_list):
                places.add(f"{place}.{method.name}")
    return places


SUM = re.compile(r"\w ?[-+] ?\d")
EXPORTED = exported()
DOORS = EXPORTED | constructors()


def is_door(module: str, name: str) -> bool:
    """Whether the function of this qualified name checks its arguments itself."""
    owner, _, method = name.rpartition(".")
    public_method = owner and not owner.startswith("_") and (method == "__call__" or not method.startswith("_"))
    return f"{module}.{name}" in DOORS or bool(public_method and not module.startswith(SOLVERS_CALL))


def checked(function: Any, *args: Any, **kwargs: Any) -> Any:
    """``function``, which jaxtyping makes of a signature, with checks of the annotations that are to be checked."""
    if is_door(function.__module__, function.__qualname__):
        # A size like d + 1 is known only where arguments have said what d is.
        kept = {k: v for k, v in function.__annotations__.items() if k == "return" and not SUM.search(str(v))}
        function.__annotations__ = kept
    return beartype(conf=CONFIGURATION)(function)
