"""The tables and the picture of `path_density`."""

import numpy as np
from _study import COLOURS, value

Rows = list[dict[str, str]]
DENSITIES = ("moons", "checkerboard", "sinus")
METHODS = ("Stein_strength_1", "Stein", "power_of_p", "score_norm", "score_Jacobian", "LAND", "RBF")
SOLVERS = {"": "SpectralNewton", "/Georce": "Georce", "/EnergyDescent": "EnergyDescent"}


def _line(rows: Rows, row: str, figure: str = "log_p") -> dict[str, str] | None:
    return next((line for line in rows if line["row"] == row and line["figure"] == figure), None)


def _cell(rows: Rows, row: str, figure: str, digits: int = 2) -> str:
    line = _line(rows, row, figure)
    if line is None:
        return "–"
    # No minus before a zero.
    mean = f"{round(float(line['mean']), digits) + 0.0:.{digits}f}".replace("-", "−")
    return f"{mean} ± {float(line['standard_error']):.{digits}f}"


def shown(method: str) -> str:
    """The name of a metric in tables."""
    return {"Stein_strength_1": "Stein, strength 1 (untuned)"}.get(method, method.replace("_", " "))


def _metrics(rows: Rows, density: str, kind: str) -> str:
    graphs = any(row["row"].startswith(f"{density}/{kind}/") and row["row"].endswith("/graph") for row in rows)
    heads = ["metric", "setting", "mean log p", "at metric speed", "least log p", "detour", "pairs", "converged"]
    heads += ["CPU ms", *(["start along the data: mean log p", "converged"] if graphs else [])]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for method, row in [
        ("straight line", f"{density}/straight"),
        *((shown(m), f"{density}/{kind}/{m}") for m in METHODS),
    ]:
        line = _line(rows, row)
        if line is None:
            continue
        cells = [method, line["setting"] or "–"]
        cells += [_cell(rows, row, f) for f in ("log_p", "log_p_metric_speed", "least_log_p", "detour")]
        cells += [line["pairs"], f"{float(line['converged']):.2f}", _milliseconds(rows, row)]
        if graphs:
            graph = _line(rows, f"{row}/graph")
            cells += [_cell(rows, f"{row}/graph", "log_p"), f"{float(graph['converged']):.2f}" if graph else "–"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _milliseconds(rows: Rows, row: str) -> str:
    line = _line(rows, row, "cpu_seconds")
    return f"{1e3 * float(line['mean']):.0f}" if line and float(line["mean"]) else "–"


def _solvers(rows: Rows) -> str:
    lines = [
        "| density | metric | " + " | ".join(f"{name}: log p | converged | CPU ms" for name in SOLVERS.values()) + " |",
        "|" + "---|" * (2 + 3 * len(SOLVERS)),
    ]
    for density in DENSITIES:
        for method in METHODS:
            row = f"{density}/exact/{method}"
            if all(_line(rows, row + ending) is None for ending in SOLVERS if ending):
                continue
            cells = [density, shown(method)]
            for ending in SOLVERS:
                line = _line(rows, row + ending)
                cells += [_cell(rows, row + ending, "log_p")]
                cells += [f"{float(line['converged']):.2f}" if line else "–", _milliseconds(rows, row + ending)]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def tables(rows: Rows) -> dict[str, str]:
    """What the page shows."""
    kinds = [(density, kind) for density in DENSITIES for kind in ("exact", "learned")]
    return {"_".join(names): _metrics(rows, *names) for names in kinds} | {"solvers": _solvers(rows)}


def figure(rows: Rows):
    """Mean log p along the path for each metric on each density: exact, started along the data, and learned."""
    from matplotlib.figure import Figure

    names = [name for name in DENSITIES if _line(rows, f"{name}/straight")]
    page = Figure(figsize=(9.2, 3.6), layout="constrained")
    axes = page.subplots(1, len(names), squeeze=False, sharey=True)[0]
    series = (
        ("exact", "", "exact score", COLOURS[1], "o"),
        ("exact", "/graph", "exact score, start along the data", COLOURS[2], "s"),
        ("learned", "", "learned score", COLOURS[0], "^"),
    )
    for ax, name in zip(axes, names, strict=True):
        line = value(rows, f"{name}/straight", "log_p")
        ax.axvline(line, color="#999999", linewidth=1, linestyle="--", zorder=0, label="straight line")
        for shift, (kind, ending, label, colour, marker) in zip((0.2, 0.0, -0.2), series, strict=True):
            have = [m for m in METHODS if _line(rows, f"{name}/{kind}/{m}{ending}")]
            of = [f"{name}/{kind}/{m}{ending}" for m in have]
            mean = [value(rows, row, "log_p") for row in of]
            error = [2 * value(rows, row, "log_p", "standard_error") for row in of]
            y = shift - np.array([METHODS.index(m) for m in have])
            if have:
                ax.errorbar(mean, y, xerr=error, fmt=marker, color=colour, markersize=4.5, label=label, linewidth=1)
        ax.set_title(name, fontsize=10)
        ax.set_xlabel("mean log p along the path", fontsize=9)
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="x", color="#e4e4e4", linewidth=0.8)
        ax.set_axisbelow(True)
        ax.tick_params(labelsize=8.5)
    axes[0].set_yticks(-np.arange(len(METHODS)), [shown(m) for m in METHODS])
    handles, labels = axes[0].get_legend_handles_labels()
    page.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8.5)
    return page
