"""Draws the map of the package, docs/images/house.png, from the imports in its files.

    uv run python docs/house.py

Boxes are folders and single files, with what they hold; an arrow goes from what is imported to what imports it, thicker
for more imports. Everything flows to the right, or the tests of layers fail; leaves stand below.
"""

import ast
import collections
import pathlib
import textwrap

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent / "scoregeo"

# Centre (x, y) and width of every part; what is missing here is left out of the picture.
PLACES = {
    "datasets": (0.0, 1.0, 1.7),
    "diffusion": (2.5, 1.0, 2.5),
    "scores": (0.0, 3.2, 1.7),
    "metrics": (2.5, 3.2, 1.9),
    "geodesics": (5.2, 3.2, 2.5),
    "operations": (7.7, 3.2, 1.5),
    "fisher_rao": (10.1, 3.2, 2.4),
    "statistics": (7.7, 1.0, 1.5),
    "comparison": (12.7, 3.2, 1.7),
}
LEAVES = {"plotting": 5.0, "adapters": 8.6, "cli": 12.2}
COLOURS = {"data": "#d9e6f2", "geometry": "#fbe5c8", "leaf": "#e7e7e7"}


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
    """The first line of the docstring of a part."""
    path = ROOT / name / "__init__.py" if (ROOT / name).is_dir() else ROOT / f"{name}.py"
    return ast.get_docstring(ast.parse(path.read_text())).split("\n")[0].rstrip(".").replace("`", "")


def contents(name: str) -> str:
    """The subfolders and files of a part."""
    if not (ROOT / name).is_dir():
        return ""
    children = sorted((ROOT / name).iterdir(), key=lambda p: (p.is_file(), p.name))
    folders = [f"{child.name}/" for child in children if child.is_dir() and not child.name.startswith("_")]
    files = [child.stem for child in children if child.suffix == ".py" and not child.name.startswith("_")]
    return " ".join([*folders, *files])


def box(ax, name, x, y, width, colour):
    """A part with its name, what it is and what it holds; returns its half height."""
    wide = int(width * 17)
    said, held = textwrap.wrap(summary(name), wide), textwrap.wrap(contents(name), int(wide * 1.12))
    height = 0.34 + 0.15 * len(said) + 0.13 * len(held)
    patch = FancyBboxPatch(
        (x - width / 2, y - height / 2),
        width,
        height,
        boxstyle="round,pad=0.04",
        fc=colour,
        ec="#555555",
        lw=1,
        zorder=2,
    )
    ax.add_patch(patch)
    top = y + height / 2
    ax.text(x, top - 0.13, name, ha="center", va="center", weight="bold", fontsize=11, zorder=3)
    ax.text(x, top - 0.27, "\n".join(said), ha="center", va="top", fontsize=7.5, zorder=3)
    ax.text(
        x,
        top - 0.31 - 0.15 * len(said),
        "\n".join(held),
        ha="center",
        va="top",
        fontsize=6.3,
        color="#444444",
        zorder=3,
    )
    return height / 2


def main() -> None:
    """Write the picture."""
    counts = collections.Counter()
    for path in ROOT.rglob("*.py"):
        counts.update((part, part_of(path)) for part in imported_parts(path) if part != part_of(path))
    fig, ax = plt.subplots(figsize=(13, 5.4), layout="constrained")
    halves = {}
    for name, (x, y, width) in PLACES.items():
        if (ROOT / name).is_dir() or (ROOT / f"{name}.py").exists():
            halves[name] = box(
                ax, name, x, y, width, COLOURS["data" if name in ("datasets", "diffusion") else "geometry"]
            )
    for name, x in LEAVES.items():
        box(ax, name, x, -0.75, 3.2, COLOURS["leaf"])
    for (source, target), count in counts.items():
        if source in halves and target in halves:
            (x0, y0, w0), (x1, y1, w1) = PLACES[source], PLACES[target]
            far = x1 - x0 > 3.2 or (y0 == y1 and x1 - x0 > 2.8)
            start, end = (x0 + w0 / 2, y0), (x1 - w1 / 2, y1)
            bend = 0.0
            if far and y0 == y1:
                start, end, bend = (x0, y0 + halves[source]), (x1, y1 + halves[target]), -0.28
            elif x1 - w1 / 2 < x0 + w0 / 2:
                up = 1 if y1 > y0 else -1
                start, end = (x0, y0 + up * halves[source]), (x1, y1 - up * halves[target])
            width = 0.6 + 0.35 * count**0.5
            arrow = FancyArrowPatch(
                start, end, arrowstyle="-|>", mutation_scale=9, lw=width, color="#7a8ca0", zorder=1,
                connectionstyle=f"arc3,rad={bend}",
            )  # fmt: skip
            ax.add_patch(arrow)
    ax.text(-0.85, -0.75, "Leaves import anything;\nnothing imports them.", va="center", fontsize=8.5)
    foundation = sorted(p.stem for p in ROOT.glob("_*.py") if not p.stem.startswith("__"))
    ax.text(-0.85, 5.35, "Below all of it: " + ", ".join(foundation), fontsize=8.5, va="top")
    ax.set(xlim=(-1, 13.7), ylim=(-1.55, 5.45))
    ax.set_aspect("equal")
    ax.axis("off")
    fig.savefig(HERE / "images" / "house.png", dpi=110)


if __name__ == "__main__":
    main()
