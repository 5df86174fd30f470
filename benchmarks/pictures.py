"""The picture of the main benchmark: error against seconds for every method, one panel for each problem."""

import math
import pathlib

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from accuracy import SCOREGEO

# Okabe & Ito's colours, which the colour-blind tell apart; markers repeat what they say.
STYLES = {
    SCOREGEO: ("#D55E00", "o"),
    "scipy_bvp": ("#0072B2", "s"),
    "georce": ("#999999", "v"),
    "georce_lowrank": ("#009E73", "^"),
    "georce_lowrank_nested": ("#009E73", "d"),
    "lbfgs": ("#56B4E9", "<"),
    "lbfgs_nested": ("#56B4E9", ">"),
    "adam_spline": ("#CC79A7", "P"),
    "geomstats": ("#F0E442", "X"),
    "finslerax": ("#000000", "*"),
}
FLOOR = 1e-12  # errors below are those of the references
_PER_ROW = 5


def _points(entry: dict, name: str) -> list[tuple[float, float]]:
    """(seconds, error) of the attempts of a method that have a length; of its two lengths the better one."""
    reference = entry["reference"]
    if reference is None:
        return []
    points = []
    for attempt in entry["attempts"]:
        lengths = [attempt[key] for key in ("length", "rule") if attempt[key] is not None]
        if attempt["competitor"] == name and lengths:
            error = min(abs(length / reference["length"] - 1) for length in lengths)
            points.append((attempt["seconds"], max(error, FLOOR)))
    return points


def _panel(ax, title: str, entry: dict) -> None:
    """One problem."""
    for name, (colour, marker) in STYLES.items():
        points = _points(entry, name)
        if not points:
            continue
        ours = name == SCOREGEO
        ax.plot(
            *zip(*points, strict=True),
            color=colour,
            marker=marker,
            markersize=9 if ours else 5.5,
            linewidth=3 if ours else 1.2,
            linestyle="--" if name.endswith("nested") else "-",
            markeredgecolor="white" if ours else "#404040",
            markeredgewidth=1.0 if ours else 0.4,
            zorder=5 if ours else 3,
        )
    ax.set_title(title, fontsize=15)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_ylim(FLOOR / 3, 3)
    ax.set_yticks([1, 1e-4, 1e-8, 1e-12], ["1", "$10^{-4}$", "$10^{-8}$", "$\\leq 10^{-12}$"])
    ax.minorticks_off()
    ax.grid(color="#e4e4e4", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=12)


def draw(entries: dict[str, dict], path: pathlib.Path) -> None:
    """Write the picture of the problems ``entries`` to ``path``."""
    columns = min(len(entries), _PER_ROW)
    rows = math.ceil(len(entries) / columns)
    # A legend beside few panels would be as large as they are.
    width = max(3.5 * columns, 9)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(width, 3.2 * rows + 1.8),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for ax, (title, entry) in zip(axes.flat, entries.items(), strict=False):
        _panel(ax, title, entry)
    for ax in axes.flat[len(entries) :]:
        ax.set_visible(False)
    drawn = [n for n in STYLES if any(_points(entry, n) for entry in entries.values())]
    handles = [
        plt.Line2D(
            [],
            [],
            color=STYLES[n][0],
            marker=STYLES[n][1],
            markersize=10 if n == SCOREGEO else 7,
            linewidth=3 if n == SCOREGEO else 1.5,
            linestyle="--" if n.endswith("nested") else "-",
        )
        for n in drawn
    ]
    labels = [n.replace("_", " ") for n in drawn]
    # The longest name takes less than three inches.
    ncols = min(int(width // 2.9), len(drawn))
    figure.legend(handles, labels, loc="outside upper center", ncols=ncols, fontsize=14, frameon=False)
    figure.supxlabel("seconds of one solve, without compiling", fontsize=15)
    figure.supylabel("relative error of the length", fontsize=15)
    figure.savefig(path, dpi=110)
    plt.close(figure)
