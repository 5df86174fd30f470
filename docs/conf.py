"""Sphinx configuration. Build with `sphinx-build -W -b html docs docs/_build`: a warning fails the build."""

import pathlib
import re
import sys
from importlib import metadata

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import jax

import scoregeo
from scoregeo import datasets, explore

HERE = pathlib.Path(__file__).parent

project = "scoregeo"
author = "The scoregeo developers"
copyright = "2026, The scoregeo developers"
release = scoregeo.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
exclude_patterns = ["_build", "_pages"]
html_theme = "furo"
html_title = "scoregeo"

# MathJax from a package, in the build: formulas render without a network.
html_static_path = ["static"] + [
    str(file.locate()) for file in metadata.files("sphinx-mathjax-offline") or [] if file.name == "tex-svg.js"
]
html_css_files = ["scoregeo.css"]
mathjax_path = "tex-svg.js"

# Pages to explore, which the documentation shows in frames; made by the library that is documented.
html_extra_path = ["_pages"]
(HERE / "_pages").mkdir(exist_ok=True)

myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
math_eqref_format = "({number})"

# `name` in a docstring links to the object of that name if there is one, and is code if there is not.
default_role = "py:obj"
autodoc_default_options = {
    "members": True,
    "special-members": "__call__",
    "show-inheritance": True,
    "member-order": "bysource",
}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_class_signature = "mixed"
add_module_names = False
python_maximum_signature_line_length = 88


def as_restructured_text(lines: list[str]) -> list[str]:
    """Docstrings are plain text with formulas; what reStructuredText would misread is marked here.

    Indented blocks (formulas) become literal blocks, `|x|` is no substitution, `x_1 ` no link, and a list may follow
    its sentence directly.
    """
    out, in_list, in_block = [], False, False
    for line in lines:
        blank = not line.strip()
        before = out[-1] if out else ""
        if in_block and (blank or line.startswith("    ")):
            out.append(line)
            continue
        in_block = False
        if blank:
            out.append(line)
            continue
        item = line.lstrip().startswith("- ")
        if item and before.strip() and not in_list:
            out.append("")
        if line[0] != " ":
            in_list = item or (in_list and bool(before.strip()))
        if line.startswith("    ") and not in_list and not before.strip():
            out += ["::", "", line]
            in_block = True
            continue
        out.append(line if line.lstrip().startswith((">>>", "...")) else _escape(line))
    return out


def _escape(line: str) -> str:
    """Backslashes before `|` and before the underscore that ends a word, outside of backticks."""
    parts = re.split(r"(``[^`]*``|`[^`]*`)", line)
    return "".join(part if i % 2 else re.sub(r"\||(?<=\w)_(?!\w)", r"\\\g<0>", part) for i, part in enumerate(parts))


def process_docstring(app, what, name, obj, options, lines):
    lines[:] = as_restructured_text(lines)


def process_signature(app, what, name, obj, options, signature, returns):
    """Names as one writes them, in place of those that jaxtyping's types print as."""
    key = "Key[Array, ''] | UInt32[Array, '2'] | UInt32[Array, '4']"
    texts = [text and text.replace("jaxlib._jax.Array", "Array") for text in (signature, returns)]
    return tuple(text and text.replace(key, "PRNGKeyArray") for text in texts)


def skip_generated(app, what, name, obj, skip, options):
    """Leave out what has a generated docstring: the fields of named tuples, of which the class says what they are, and
    what scikit-learn adds to estimators to hand metadata on."""
    doc = getattr(obj, "__doc__", None) or ""
    generated = doc.startswith("Alias for field number") or re.fullmatch(r"set_\w+_request", name)
    return True if generated else None


def write_pages(app):
    """The pages that docs/explore.md has in frames."""
    moons = datasets.two_moons(jax.random.key(0), 400)
    settings = {"noise_levels": [0.15, 0.3], "ratio": 30.0, "resolution": 100, "references": 0}
    page = explore.score_page(moons.score, moons.points, **settings, title="Two moons")
    explore.write_page(HERE / "_pages" / "moons.html", page)
    explore.write_page(HERE / "_pages" / "normals.html", explore.normals_page())


def setup(app):
    app.connect("builder-inited", write_pages)
    app.connect("autodoc-process-docstring", process_docstring)
    app.connect("autodoc-process-signature", process_signature)
    app.connect("autodoc-skip-member", skip_generated)
