"""The tables and the picture of `intrinsic_dimension`."""

import numpy as np
from _dimension.curvatures import LEVELS
from _study import COLOURS, REPORTED, value

Rows = list[dict[str, str]]
# Columns of the two tables: the name of a set in rows, what is above it, and the dimension.
HIGH = {"sphere_10": "10-sphere", "sphere_50": "50-sphere", "subspace_10": "10-plane", "subspace_50": "50-plane"}
LOW = {
    "swiss_roll": "Swiss roll",
    "lollipop_disk": "disk",
    "lollipop_stick": "stick",
    "lollipop_dot": "dot",
    "letters": "letter",
    "digits": "digits",
}
TRUTH = {"sphere_10": 10, "sphere_50": 50, "subspace_10": 10, "subspace_50": 50, "swiss_roll": 2}
TRUTH |= {"lollipop_disk": 2, "lollipop_stick": 1, "lollipop_dot": 0, "letters": 1}
SCORES = {"exact": "exact", "kernel": "kernel", "network": "learned, network", "potential": "learned, potential"}
FROM_SCORES = ("FLIPD", "slope", "denoising", "normal_bundle", "participation")
NEIGHBOURS = ("MLE", "MOM", "TLE", "lPCA", "TwoNN", "CorrInt", "MiND_ML")


def methods(rows: Rows, rules: tuple[str, ...]) -> list[tuple[str, str]]:
    """What is in a table, with what it is called: score and estimator."""
    names = {row["row"].partition("/")[2] for row in rows if row["split"] == REPORTED}
    found = [
        (f"{kind}/{which}/{rule}", f"{shown} | {which.replace('_', ' ')} | {rule}")
        for kind, shown in SCORES.items()
        for which in FROM_SCORES
        for rule in rules
    ]
    found += [(f"points/{name}", f"none | {name.replace('_', ' ')} | –") for name in NEIGHBOURS]
    return [(name, shown) for name, shown in found if name in names]


def _line(rows: Rows, row: str, figure: str) -> dict[str, str] | None:
    return next((line for line in rows if line["row"] == row and line["figure"] == figure), None)


def _cell(rows: Rows, row: str, figure: str = "dimension", digits: int = 2) -> str:
    line = _line(rows, row, figure)
    if line is None:
        return "–"
    star = "" if float(line["converged"]) > 0.999 else f" ({float(line['converged']):.0%})"
    # No minus before a zero.
    mean = f"{round(float(line['mean']), digits) + 0.0:.{digits}f}".replace("-", "−")
    return f"{mean} ± {float(line['standard_error']):.{digits}f}{star}"


def _dimensions(rows: Rows, columns: dict[str, str]) -> str:
    lines = [
        "| score | estimator | level | " + " | ".join(columns.values()) + " |",
        "|" + "---|" * (3 + len(columns)),
        "| *truth* | | | " + " | ".join(f"*{TRUTH[name]}*" if name in TRUTH else "*?*" for name in columns) + " |",
    ]
    for method, shown in methods(rows, ("knee", "best")):
        cells = [_cell(rows, f"{name}/{method}") for name in columns]
        if any(cell != "–" for cell in cells):
            lines.append(f"| {shown} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _curvature(rows: Rows) -> str:
    lines = [
        "| data | score | k | truth | " + " | ".join(f"σ = {ratio:g} r" for ratio in LEVELS) + " | planes above 0 |",
        "|" + "---|" * (5 + len(LEVELS)),
    ]
    seen = dict.fromkeys(row["row"].rpartition("/")[0] for row in rows if row["figure"] == "scalar")
    for case in seen:
        name, kind, _, k = case.split("/")
        truth = "?" if name == "digits" else "0" if name == "swiss_roll" else "1"
        cells = [_cell(rows, f"{case}/{ratio:g}", "sectional", 3) for ratio in LEVELS]
        shares = [_line(rows, f"{case}/{ratio:g}", "positive") for ratio in LEVELS]
        share = " / ".join(f"{float(line['mean']):.0%}" for line in shares if line)
        shown = f"{name.replace('_', ' ')} | {SCORES[kind]} | {k[1:]} | {truth}"
        lines.append(f"| {shown} | " + " | ".join(cells) + f" | {share} |")
    return "\n".join(lines) + "\n"


def _bending(rows: Rows) -> str:
    lines = ["| score | σ / r | bending | truth | relative error |", "|---|---|---|---|---|"]
    for kind in ("exact", "potential"):
        for ratio in LEVELS:
            row = f"letters/{kind}/bending/{ratio:g}"
            if _line(rows, row, "bending"):
                cells = [_cell(rows, row, figure) for figure in ("bending", "true", "relative_error")]
                lines.append(f"| {SCORES[kind]} | {ratio:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def tables(rows: Rows) -> dict[str, str]:
    """What the page shows."""
    return {
        "high": _dimensions(rows, HIGH),
        "low": _dimensions(rows, LOW),
        "curvature": _curvature(rows),
        "bending": _bending(rows),
    }


def figure(rows: Rows):
    """A map of the errors of every estimator on every set, and curvatures of the digits and of the control."""
    from matplotlib.figure import Figure

    page = Figure(figsize=(8.4, 5.4), layout="constrained")
    left, right = page.subfigures(1, 2, width_ratios=(1.4, 1))
    _map(left.subplots(), rows)
    above, below = right.subplots(2, 1)
    _levels(above, rows)
    _classes(below, rows)
    return page


def _map(ax, rows: Rows) -> None:
    """Dimensions in numbers, and their relative errors as shades."""
    from matplotlib.colors import BoundaryNorm, ListedColormap

    columns = HIGH | LOW
    lines = [(name, shown) for name, shown in methods(rows, ("knee",)) if not name.startswith(("kernel", "network"))]
    grid = np.full((len(lines), len(columns)), np.nan)
    for a, (method, _) in enumerate(lines):
        for b, name in enumerate(columns):
            line = _line(rows, f"{name}/{method}", "dimension")
            if line is None:
                continue
            mean, shade = float(line["mean"]), "black"
            if name in TRUTH:
                # Global estimators have one error.
                has = _line(rows, f"{name}/{method}", "abs_error")
                error = float(has["mean"]) if has else abs(mean - TRUTH[name])
                grid[a, b] = max(error / max(TRUTH[name], 1), 1e-2)
                shade = "white" if grid[a, b] > 0.3 else "black"
            text = f"{mean:.0f}" if abs(mean) >= 19.5 else f"{round(mean, 1) + 0.0:.1f}"
            ax.text(b, a, text, ha="center", va="center", fontsize=7.5, color=shade)
    shades = ListedColormap(["#ffffcc", "#c7e3b4", "#7fb8d4", "#22438f"])
    ax.imshow(grid, cmap=shades, norm=BoundaryNorm([0, 0.03, 0.1, 0.3, 1e3], 4), aspect="auto")
    names = [shown.split(" | ") for _, shown in lines]
    labels = [f"{which}, {kind.removeprefix('learned, ')}" if kind != "none" else which for kind, which, _ in names]
    ax.set_yticks(range(len(lines)), labels, fontsize=8)
    truths = [f"{shown} ({TRUTH.get(name, '?')})" for name, shown in columns.items()]
    ax.set_xticks(range(len(columns)), truths, fontsize=8, rotation=40, ha="right")
    ax.set_title("dimension found; shades: error up to 3%, 10%, 30%, more", fontsize=8.5)


def _levels(ax, rows: Rows) -> None:
    """Mean sectional curvature over the noise level."""
    series = {
        "sphere_10/exact/curvature/k10": ("10-sphere, exact", COLOURS[6], "-"),
        "sphere_10/potential/curvature/k10": ("10-sphere, potential", COLOURS[1], "-"),
        "sphere_10/network/curvature/k10": ("10-sphere, network", COLOURS[5], "--"),
        "control/potential/curvature/k10": ("control, potential", COLOURS[2], "-"),
        "digits/potential/curvature/k10": ("digits, potential", COLOURS[0], "-"),
    }
    for case, (label, colour, style) in series.items():
        have = [ratio for ratio in LEVELS if _line(rows, f"{case}/{ratio:g}", "sectional")]
        if have:
            of = [f"{case}/{ratio:g}" for ratio in have]
            mean = [value(rows, row, "sectional") for row in of]
            error = [2 * value(rows, row, "sectional", "standard_error") for row in of]
            ax.errorbar(have, mean, yerr=error, color=colour, linestyle=style, marker="o", markersize=4, label=label)
    ax.axhline(1, color="#999999", linewidth=0.8, zorder=0)
    ax.axhline(0, color="#999999", linewidth=0.8, zorder=0)
    ax.set_xscale("log")
    ax.set_xticks(LEVELS, [f"{ratio:g}" for ratio in LEVELS])
    ax.minorticks_off()
    ax.set_xlabel("noise level / r", fontsize=8)
    ax.set_ylabel("sectional curvature · r²", fontsize=8)
    if ax.get_legend_handles_labels()[1]:
        ax.legend(frameon=False, fontsize=7.5, loc=(0.06, 0.2))
    _plain(ax)


def _classes(ax, rows: Rows) -> None:
    """Of each digit."""
    styles = zip((COLOURS[5], COLOURS[1], COLOURS[6]), "os^", (-0.2, 0, 0.2), strict=True)
    for ratio, (colour, marker, shift) in zip(LEVELS[1:], styles, strict=True):
        found = [f"digits/potential/curvature/k10/{ratio:g}/digit_{digit}" for digit in range(10)]
        have = [digit for digit, row in enumerate(found) if _line(rows, row, "sectional")]
        if have:
            mean = [value(rows, found[digit], "sectional") for digit in have]
            error = [2 * value(rows, found[digit], "sectional", "standard_error") for digit in have]
            at = np.array(have) + shift
            ax.errorbar(at, mean, yerr=error, fmt=marker, color=colour, markersize=4, label=f"σ = {ratio:g} r")
    ax.axhline(0, color="#999999", linewidth=0.8, zorder=0)
    ax.set_xticks(range(10))
    ax.set_xlabel("one image of each digit; bars: 2 SE over 3 trainings", fontsize=8)
    ax.set_ylabel("sectional curvature · r²", fontsize=8)
    if ax.get_legend_handles_labels()[1]:
        ax.legend(frameon=False, fontsize=7.5, loc="upper left")
    _plain(ax)


def _plain(ax) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8)
