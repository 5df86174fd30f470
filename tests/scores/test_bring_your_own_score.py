"""The page on scores from anywhere keeps its promise of a few lines, which new weights do not compile again."""

import ast
import pathlib
import re

import jax
import numpy as np
import pytest
from helpers import programs_compiled

PAGE = (pathlib.Path(__file__).parents[2] / "docs" / "bring_your_own_score.md").read_text()
KINDS = (
    "A function", "flax linen", "flax nnx", "equinox", "Networks that predict", "Flow matching", "A condition",
    "A PyTorch module",
)  # fmt: skip
# What of the page makes weights, and what makes others.
OTHER_WEIGHTS = {"1.5)": "1.2)", "key(0)": "key(1)", "Rngs(0)": "Rngs(1)", "[[0.5, ": "[[0.4, "}


def sections():
    """What the page says of each kind, and under its title."""
    title, *parts = PAGE.split("\n## ")
    texts = {}
    for kind in KINDS:
        (texts[kind],) = (part for part in parts if part.startswith(kind))
    return title, texts


def blocks(text):
    return re.findall(r"```(?:\{code-block\} )?python\n(.*?)```", text, re.DOTALL)


def defines(statement):
    """Whether a statement imports something or makes functions, which a program of a reader does once."""
    makes = isinstance(statement, ast.Assign) and any(
        isinstance(part, ast.Lambda) for part in (statement.value, *getattr(statement.value, "elts", ()))
    )
    return makes or isinstance(statement, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef)


@pytest.mark.parametrize("kind", KINDS)
def test_eight_lines_for_each_kind(kind):
    found = [block for block in blocks(sections()[1][kind]) if "geodesic(" in block]
    assert found
    for block in found:
        lines = [line for line in block.splitlines() if line.strip()]
        assert len(lines) <= 8, f"{len(lines)} lines"
        assert "from scoregeo" in block, "a reader who copies it needs its imports"


@pytest.mark.slow
def test_other_weights_do_not_compile_again():
    """As the page stands, in single precision; of PyTorch, ``tests/adapters/test_torch_parity.py`` asks that."""
    title, texts = sections()
    names, counts, lengths = {}, {}, {}

    def run(text, again=False):
        for code in blocks(text):
            for statement in ast.parse(code).body:
                if again and defines(statement):
                    continue
                exec(compile(ast.Module([statement], []), "bring_your_own_score.md", "exec"), names)
                if "geodesic(" in ast.unparse(statement):
                    yield float(names["path"].length)

    with jax.enable_x64(False):
        assert not list(run(title))
        for kind in KINDS[:-1]:
            text = texts[kind]
            with programs_compiled() as before:
                lengths[kind] = [list(run(text))]
            for old, new in OTHER_WEIGHTS.items():
                text = text.replace(old, new)
            names |= {"w": 0.9 * names["w"]} if "w" in names else {}  # of a section before this one
            with programs_compiled() as after:
                lengths[kind].append(list(run(text, again=True)))
            counts[kind] = len(before), len(after)
    assert all(first > 0 and second == 0 for first, second in counts.values()), counts
    for kind, (first, second) in lengths.items():
        assert len(first) == len(second) > 0, kind
        assert np.isfinite(first).all(), kind
        assert not np.isclose(first, second, rtol=1e-5).any(), f"{kind}: the weights are the same"
