"""The tables and the contact sheets of `image_interpolation`."""

import numpy as np
from _study import COLOURS, HERE, REPORTED, value

Rows = list[dict[str, str]]
NAME = "image_interpolation"
TITLES = {"letters": "rotated letters", "digits": "8 x 8 digits", "digits28": "28 x 28 digits"}
# Those that the contact sheets show.
SHOWN = (
    *("straight", "spherical", "straight_denoised", "latent_spherical", "latent_norm_corrected", "noise_diffusion"),
    *("graph", "Stein", "power_of_p", "power_of_p_from_the_graph"),
)
LATENTS = ("latent_spherical", "latent_norm_corrected", "noise_diffusion")
SOLVED = ("power_of_p", "power_of_p_from_the_graph", "Stein", "score_norm_from_the_graph", "RBF_from_the_graph")
_COLUMNS = {
    "real": "real",
    "real_linear": "real, linear judge",
    "two_classes": "classes of the ends",
    "log_p": "log p per dimension",
    "held_out": "to held-out images",
    "detour": "detour",
    "largest_step": "largest step",
}
_LETTERS = {
    "to_the_same_time_45": "same time, 45°",
    "to_the_same_time_90": "90°",
    "to_the_same_time_180": "180°",
    "to_the_nearest": "to the nearest",
    "real": "real",
    "log_p": "log p per dimension",
    "largest_step": "largest step",
}


def shown(method: str) -> str:
    """The name of a path in tables."""
    words = method.replace("_", " ").replace(" from the graph", ", from the graph")
    return {
        "straight": "straight line",
        "straight denoised": "straight, denoised",
        "graph": "graph through the data",
        "latent spherical": "latents, spherical",
        "latent norm corrected": "latents, norm-corrected",
        "images": "*the ends themselves*",
    }.get(words, words)


def methods(rows: Rows, name: str) -> list[str]:
    """Those of a set that are in the table, in its order."""
    found = dict.fromkeys(row["row"] for row in rows if row["split"] == REPORTED and row["row"].startswith(f"{name}/"))
    return [row.split("/", 1)[1] for row in found]


def _cell(rows: Rows, row: str, figure: str) -> str:
    try:
        mean, error = (value(rows, row, figure, column) for column in ("mean", "standard_error"))
    except KeyError:
        return "–"
    text = f"{mean + 0.0:.2f}".replace("-", "−")
    return text if np.isnan(error) else f"{text} ± {error:.2f}"


def _table(rows: Rows, name: str, columns: dict[str, str]) -> str:
    heads = ["path", "setting", *columns.values(), "pairs", "converged"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for method in methods(rows, name):
        row = f"{name}/{method}"
        line = next(line for line in rows if line["row"] == row)
        cells = [shown(method), line["setting"] or "–", *(_cell(rows, row, figure) for figure in columns)]
        cells += [line["pairs"], f"{float(line['converged']):.2f}" if method in SOLVED else "–"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def tables(rows: Rows) -> dict[str, str]:
    """What the page shows."""
    return {name: _table(rows, name, _LETTERS if name == "letters" else _COLUMNS) for name in TITLES}


def figure(rows: Rows, frames: dict[str, np.ndarray]):
    """Contact sheets, and below them the share of frames called real against the distance to held-out images."""
    from matplotlib.figure import Figure

    kept = HERE.parents[1] / "build" / NAME / f"{NAME}-frames.npz"
    if not frames and kept.exists():
        frames = dict(np.load(kept))
    names = [name for name in TITLES if methods(rows, name)]
    page = Figure(figsize=(1.2 + 3.4 * len(names), 6.9), layout="constrained")
    grid = page.subplots(2, len(names), height_ratios=(1.25, 1), squeeze=False)
    for column, name in enumerate(names):
        _sheet(grid[0, column], name, rows, frames, labelled=column == 0)
        _dots(grid[1, column], name, rows, labelled=column == 0)
    handles, labels = grid[1, 0].get_legend_handles_labels()
    page.legend(handles, labels, loc="outside lower center", frameon=False, fontsize=8, ncols=3)
    return page


def _sheet(ax, name: str, rows: Rows, frames: dict[str, np.ndarray], labelled: bool) -> None:
    """A row of images for each path."""
    ax.set_axis_off()
    ax.set_title(TITLES[name], fontsize=10)
    known = set(methods(rows, name))
    lines = [method for method in SHOWN if method in known and f"{name}/{method}" in frames]
    if not lines:
        return
    images = [frames[f"{name}/{m}"] for m in lines]
    low, high = (np.percentile(np.stack(images), q) for q in (1, 99))
    # A margin of paper about every image.
    margin = max(1, images[0].shape[-1] // 8)
    images = [np.pad(i, ((0, 0), (margin, 0), (margin, 0)), constant_values=low) for i in images]
    side = images[0].shape[-1]
    images = [i.transpose(1, 0, 2).reshape(side, -1) for i in images]
    sheet = np.ones((len(SHOWN) * side, images[0].shape[1])) * low
    for method, image in zip(lines, images, strict=True):
        place = SHOWN.index(method)
        sheet[place * side : (place + 1) * side] = image
    ax.imshow(sheet, cmap="gray_r", vmin=low, vmax=high, interpolation="nearest")
    if labelled:
        for place, method in enumerate(SHOWN):
            ax.text(-0.4 * side, (place + 0.5) * side, shown(method), ha="right", va="center", fontsize=7)


def _dots(ax, name: str, rows: Rows, labelled: bool) -> None:
    """Up is real, left is near to images."""
    kinds = {"geodesics": (COLOURS[1], "o"), "latents": (COLOURS[0], "D"), "other baselines": (COLOURS[7], "s")}
    for label in kinds:
        colour, marker = kinds[label]
        ax.plot([], [], marker, color=colour, label=label)
    names: list[tuple[float, float, str]] = []
    for method in methods(rows, name):
        row = f"{name}/{method}"
        x, y = value(rows, row, "held_out"), value(rows, row, "real")
        if method == "images":
            ax.axhline(y, color="#999999", linewidth=0.8, linestyle=":")
            continue
        kind = "latents" if method in LATENTS else "geodesics" if method in SOLVED else "other baselines"
        colour, marker = kinds[kind]
        error = 2 * value(rows, row, "real", "standard_error")
        ax.errorbar(x, y, yerr=error, color=colour, marker=marker, markersize=5, linewidth=0.8)
        names.append((x, y, shown(method)))
    ax.margins(x=0.35)
    low, high = ax.get_xlim()
    placed: list[tuple[float, float]] = []
    # From the top down: a name moves down until it is clear of those beside it.
    for x, y, label in sorted(names, key=lambda one: -one[1]):
        height = y
        while any(abs(x - other) < 0.4 * (high - low) and abs(height - taken) < 0.05 for other, taken in placed):
            height -= 0.01
        placed.append((x, height))
        ax.text(x + 0.02 * (high - low), height, label, fontsize=6, va="center")
    ax.set_xlabel("distance to the nearest held-out image", fontsize=8)
    if labelled:
        ax.set_ylabel("share of frames called real", fontsize=8)
    ax.set_ylim(-0.05, 1.05)
    ax.tick_params(labelsize=8)
    ax.grid(color="#e4e4e4", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
