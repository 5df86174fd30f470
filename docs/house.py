"""Draws the map of the package, docs/images/house.png, from the imports in its files.

    uv run python docs/house.py

Boxes are folders and single files, with what they hold; an arrow goes from what is imported to what imports it, thicker
for more imports. Everything flows to the right, or the tests of layers fail; leaves stand below.
"""

import ast
import collections
import io
import pathlib
import textwrap

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from PIL import Image

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent / "scoregeo"

# Centre (x, y) and width of every part; what is missing here is left out of the picture.
PLACES = {
    "scores": (1.0, 3.0, 2.1),
    "metrics": (3.6, 3.0, 2.3),
    "geodesics": (6.45, 3.0, 2.6),
    "_pairs": (9.05, 3.0, 1.8),
    "operations": (11.4, 3.0, 2.1),
    "fisher_rao": (14.1, 3.0, 2.5),
    "comparison": (16.8, 3.0, 2.0),
    "manifold": (9.0, 5.4, 2.8),
    "curvature": (12.9, 5.4, 2.5),
    "statistics": (16.7, 5.4, 2.4),
    "datasets": (1.0, 0.55, 2.1),
    "diffusion": (3.7, 0.55, 2.5),
    "plotting": (8.0, 0.5, 2.5),
    "explore": (10.85, 0.5, 2.4),
    "adapters": (13.5, 0.5, 2.1),
    "cli": (16.2, 0.5, 2.6),
}
LEAVES = ("plotting", "explore", "adapters", "cli")
COLOURS = {"datasets": "#d9e6f2", "diffusion": "#d9e6f2"} | dict.fromkeys(LEAVES, "#e7e7e7")
GEOMETRY = "#fbe5c8"


def part_of(path: pathlib.Path) -> str:
    """The folder below the package that holds ``path``, or its own name."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_parts(path: pathlib.Path):
    """The parts that a file imports, once for every statement."""
    package = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            for name in (node.module or "").split(".")[:1] if node.module else [alias.name for alias in node.names]:
                yield base[0] if base else name


def summary(name: str) -> str:
    """The first line of the docstring of a part; of a sentence that goes on below it, what stands before its colon."""
    path = ROOT / name / "__init__.py" if (ROOT / name).is_dir() else ROOT / f"{name}.py"
    line = ast.get_docstring(ast.parse(path.read_text())).split("\n")[0].replace("`", "")
    return line.rstrip(".") if line.endswith(".") else line.split(":")[0]


def contents(name: str) -> str:
    """The subfolders and files of a part."""
    if not (ROOT / name).is_dir():
        return ""
    children = sorted((ROOT / name).iterdir(), key=lambda p: (p.is_file(), p.name))
    folders = [f"{child.name}/" for child in children if child.is_dir() and not child.name.startswith("_")]
    files = [child.stem for child in children if child.suffix == ".py" and not child.name.startswith("_")]
    return " ".join([*folders, *files])


def box(ax, name, x, y, width):
    """A part with its name, what it is and what it holds; returns its half height."""
    said = textwrap.wrap(summary(name), int(width * 11.5))
    held = textwrap.wrap(contents(name), int(width * 13.5))
    height = 0.42 + 0.2 * len(said) + 0.17 * len(held)
    colour = COLOURS.get(name, GEOMETRY)
    corner = (x - width / 2, y - height / 2)
    ax.add_patch(
        FancyBboxPatch(corner, width, height, boxstyle="round,pad=0.05", fc=colour, ec="#555555", lw=1, zorder=2)
    )
    top = y + height / 2
    write = {"ha": "center", "va": "top", "zorder": 3, "linespacing": 1.1}
    ax.text(x, top, name, weight="bold", fontsize=13, **write)
    ax.text(x, top - 0.3, "\n".join(said), fontsize=9.5, **write)
    ax.text(x, top - 0.36 - 0.2 * len(said), "\n".join(held), fontsize=8.2, color="#444444", **write)
    return height / 2


def arrow(ax, source, target, halves, count):
    """From one part to another that imports it ``count`` times: straight between neighbours, else in an arc."""
    (x0, y0, w0), (x1, y1, w1) = PLACES[source], PLACES[target]
    start, end, bend = (x0 + w0 / 2 + 0.05, y0), (x1 - w1 / 2 - 0.05, y1), 0.0
    if y0 == y1 and x1 - x0 > 3:
        start, end, bend = (x0, y0 + halves[source]), (x1, y1 + halves[target]), -0.22
    elif y0 != y1:
        up = 1 if y1 > y0 else -1
        start, end = (x0, y0 + up * halves[source]), (x1, y1 - up * halves[target])
    style = {"arrowstyle": "-|>", "mutation_scale": 12, "color": "#7a8ca0", "zorder": 1}
    ax.add_patch(FancyArrowPatch(start, end, lw=0.7 + 0.35 * count**0.5, connectionstyle=f"arc3,rad={bend}", **style))


def main() -> None:
    """Write the picture."""
    counts = collections.Counter()
    for path in ROOT.rglob("*.py"):
        counts.update((part, part_of(path)) for part in imported_parts(path) if part != part_of(path))
    fig, ax = plt.subplots(figsize=(15.5, 6.5), layout="constrained")
    halves = {name: box(ax, name, *place) for name, place in PLACES.items()}
    for (source, target), count in counts.items():
        if source in halves and target in halves and target not in LEAVES:
            arrow(ax, source, target, halves, count)
    foundation = sorted(p.stem for p in ROOT.glob("_*.py") if not p.stem.startswith("__"))
    ax.text(0, 6.55, "Below all of it: " + ", ".join(foundation), fontsize=9.5, va="top")
    ax.text(12.0, 1.62, "Leaves: they import anything, nothing imports them.", fontsize=9.5, ha="center")
    ax.set(xlim=(-0.15, 18.0), ylim=(-0.6, 6.7))
    ax.set_aspect("equal")
    ax.axis("off")
    with io.BytesIO() as drawn:
        fig.savefig(drawn, dpi=90)
        # In few colours, so that the page loads quickly.
        picture = Image.open(drawn).convert("RGB").quantize(64, dither=Image.Dither.NONE)
        picture.save(HERE / "images" / "house.png", optimize=True)
    plt.close(fig)


if __name__ == "__main__":
    main()
