"""Rotated characters (Burmester 2026, after Bethune et al. 2025, arXiv 2505.18230): do geodesics turn a character?

Seven characters at 360 angles, in codes of 64 dimensions (`_codes`). Geodesics between two angles of one character,
10 to 180 degrees apart, in metrics of a learned score, of the exact score of data with noise, and of kernels (RBF,
LAND); from the straight line, the spherical one and a graph through the data; with ends that are data, ends between
them, and noisy ends. Root mean square distances along a path, to the nearest datum and to the rotation at constant
speed. The setting of each metric is the best of a few on other pairs, from the graph.

    uv run python benchmarks/science/rotated_characters.py
    uv run python benchmarks/science/rotated_characters.py --quick --out /tmp/rotated_characters.csv
"""

import dataclasses
import functools
import pathlib
import time
import warnings
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from _codes import CHARACTERS, TIMES, Characters, Pairs, upsampled
from _study import BUDGET, COLOURS, HERE, QUICK, REPORTED, TUNING, Table, equal_steps, main, solve, value

from scoregeo import (
    AbstractMetric,
    ConformalMetric,
    GraphInit,
    KernelDensityScore,
    LandMetric,
    RbfMetric,
    ScoreJacobianMetric,
    SpectralNewton,
    SteinMetric,
    recommend_strength,
)
from scoregeo._atomic import write_npz

NAME, SEED, BATCH = "rotated_characters", 0, 20
SOLVER = BUDGET
# And a larger one, to see what that does.
PATIENCE = 100_000
# Kept between runs: what was trained, and the frames that the figure shows.
FOLDER = HERE.parents[1] / "build" / NAME
FRAMES = 9
# Burmester's thesis (2026), github.com/moritzburmester/score-based-riemannian-metrics, evaluation_results.ipynb of
# experiments_urc: distance to the data and to the rotation, from the graph, of clean ends and of noisy ones. Their
# power of p is 1/p, their score Jacobian has a constant (lambda .25), their score norm is without one.
PUBLISHED = {
    "RBF": ((0.118, 0.338), (1.045, 2.320)),
    "LAND": ((0.592, 1.607), (0.968, 1.968)),
    "power of p": ((1.226, 1.437), (2.059, 2.244)),
    "energy": ((0.744, 1.532), (1.372, 2.195)),
    "score norm": ((0.575, 0.954), (1.153, 2.096)),
    "score Jacobian": ((0.276, 0.666), (1.629, 1.982)),
}
SHOWN = ("rotation", "graph", "RBF", "score norm", "straight", "RBF, from straight", "score norm, from straight")
_Settings = dict[str, Callable[[], AbstractMetric]]


def metrics(characters: Characters, quick: bool) -> dict[str, _Settings]:
    """For each metric its settings, with a function that makes it."""
    data, score = jnp.asarray(characters.data, jnp.float32), characters.model.score_at
    found: dict[str, _Settings] = {
        "RBF": {
            f"300 centres, spread {s:g}, ratio 1000": functools.partial(RbfMetric.fit, data, 300, 1e3, spread=s)
            for s in ((1.0,) if quick else (0.75, 1.0, 1.5))
        },
        "power of p": {
            f"sigma {s:g}, ratio {r:g}": functools.partial(ConformalMetric.power, score(s), data, r)
            for s, r in (((0.2, 1e20),) if quick else ((0.1, 1e40), (0.2, 1e20), (0.2, 1e40), (0.2, 1e80)))
        },
    }
    if quick:
        return found
    found["power of p, exact score"] = {
        f"sigma {s:g}, ratio {r:g}": functools.partial(ConformalMetric.power, KernelDensityScore(data, s), data, r)
        for s, r in ((0.2, 1e40), (0.2, 1e80))
    }
    found["score norm"] = {
        f"sigma {s:g}, ratio {r:g}": functools.partial(ConformalMetric.score_norm, score(s), data, r)
        for s, r in ((0.1, 100.0), (0.1, 300.0), (0.2, 100.0), (0.2, 300.0))
    }
    found["score Jacobian"] = {
        f"sigma {s:g}, strength {r:g}": functools.partial(ScoreJacobianMetric, score(s), s, r)
        for s, r in ((0.1, 100.0), (0.2, 100.0))
    }
    found["LAND"] = {
        # Every fourth degree: an evaluation costs as much as there are data.
        f"bandwidth {h:g}, ratio {r:g}": functools.partial(LandMetric.fit, data[::4], h, r)
        for h, r in ((0.4, 1e3), (0.8, 1e3))
    }
    found["energy"] = {
        f"sigma {s:g}, ratio {r:g}": functools.partial(ConformalMetric.energy, score(s), data, r)
        for s, r in ((0.2, 100.0),)
    }
    found["Stein"] = {f"sigma {s:g}, ratio 1000": functools.partial(stein, score(s), data) for s in (0.2,)}
    return found


def stein(score, data) -> SteinMetric:
    """The Stein metric of a ratio of 1000."""
    return SteinMetric(score, recommend_strength(SteinMetric, score, data, ratio=1e3))


# Ends, start, number of pairs, and metrics, in the order in which they are run: what takes longest comes last, and has
# fewer pairs.
_FAST = ("RBF", "power of p", "score norm")
PLAN: tuple[tuple[str, str, int, tuple[str, ...]], ...] = (
    ("data", "graph", 100, _FAST),
    ("noisy", "graph", 40, _FAST),
    ("data", "graph", 40, ("score Jacobian",)),
    ("between", "graph", 40, _FAST),
    ("data", "straight", 40, _FAST),
    ("data", "spherical", 40, _FAST),
    ("data", "graph", 40, ("power of p, exact score", "LAND", "energy", "Stein")),
    ("noisy", "graph", 40, ("LAND", "score Jacobian")),
)


def run(table: Table, quick: bool, shown: dict[str, np.ndarray]) -> None:
    """All rows that are not there; ``shown`` is filled with the frames of the figure."""
    # What a family cannot reach is in the setting; a warning for each would say so again.
    warnings.filterwarnings("ignore", message="`ratio`")
    folder = table.path.with_suffix("") if quick else FOLDER
    characters = Characters(folder, "F" if quick else CHARACTERS, (30, 30) if quick else (3000, 6000), SEED)
    study = Study(table, characters, folder / "frames.npz", shown, quick)
    study.learned()
    found = metrics(characters, quick)
    for method in () if quick else ("RBF", "score norm"):
        study.with_patience(method, found[method])
    for ends, start, n, names in PLAN[:1] if quick else PLAN:
        study.baselines(ends, start, 2 if quick else n)
        for method in [name for name in names if name in found]:
            study.follow(ends, start, method, found[method], 2 if quick else n)


class Study:
    """The rows of a table, added one after the other."""

    def __init__(self, table: Table, characters: Characters, frames: pathlib.Path, shown: dict, quick: bool):
        self.table, self.characters, self.frames, self.shown, self.quick = table, characters, frames, shown, quick
        self.graph = GraphInit(jnp.asarray(characters.data))
        if frames.exists():
            shown.update(np.load(frames))
        self._pairs = functools.cache(functools.partial(Pairs, characters, SEED))
        self._starts = functools.cache(lambda start, *which: self._pairs(*which).starts(start, self.graph))

    def learned(self) -> None:
        """Of the autoencoder and the score: how good they are."""
        if "learned" in self.table:
            return
        began, characters = time.perf_counter(), self.characters
        random, figures = np.random.default_rng(SEED), characters.errors()
        for sigma in (0.1, 0.2, 0.4):
            clean = characters.data[random.choice(len(characters.data), 500)]
            x = jnp.asarray(clean + sigma * random.normal(size=clean.shape))
            exact = jax.vmap(KernelDensityScore(jnp.asarray(characters.data), sigma))(x)
            error = jax.vmap(characters.model.score_at(sigma))(x) - exact
            figures[f"score_error_{10 * sigma:.0f}"] = np.asarray(
                jnp.linalg.norm(error, axis=1) / jnp.linalg.norm(exact, axis=1)
            )
        self.table.add("learned", figures, converged=1.0, seconds=time.perf_counter() - began)

    def baselines(self, ends: str, start: str, n: int) -> None:
        """The rotation, and the start itself."""
        pairs = self._pairs(ends, REPORTED, n)
        for row, points in (
            (f"{ends}/rotation", pairs.rotation),
            (f"{ends}/{start}/start", equal_steps(upsampled(self._starts(start, ends, REPORTED, n)))),
        ):
            if row not in self.table:
                self._add(row, pairs, points, 1.0, 0.0, "", REPORTED)
                self._show(row.split("/")[1], ends, pairs, points)

    def follow(self, ends: str, start: str, method: str, settings: _Settings, n: int) -> None:
        """The rows of a metric: of each setting on the tuning pairs, and of the best one on those that are reported."""
        chosen = self._chosen(method, settings)
        row = f"{ends}/{start}/{method}".replace(" ", "_")
        if row not in self.table:
            points = self._geodesics(row, settings[chosen](), ends, start, REPORTED, n, chosen)
            name = method if start == "graph" else f"{method}, from {start}"
            self._show(name, ends, self._pairs(ends, REPORTED, n), points)

    def with_patience(self, method: str, settings: _Settings) -> None:
        """The rows of a metric with two budgets, for the same pairs."""
        chosen = self._chosen(method, settings)
        for budget in (SOLVER.max_evaluations, PATIENCE):
            row = f"budget/{budget}/{method}".replace(" ", "_")
            if row not in self.table:
                solver = dataclasses.replace(SOLVER, max_evaluations=budget)
                self._geodesics(row, settings[chosen](), "data", "graph", REPORTED, BATCH, chosen, solver)

    def _chosen(self, method: str, settings: _Settings) -> str:
        """The setting with the smallest sum of the two distances, on the tuning pairs."""
        chosen, best = "", np.inf
        for setting, make in settings.items():
            row = f"data/graph/{method}/{TUNING}/{setting}".replace(" ", "_")
            if row not in self.table:
                self._geodesics(row, make(), "data", "graph", TUNING, 2 if self.quick else BATCH, setting)
            errors = sum(value(self.table.rows, row, figure) for figure in ("to_data", "to_rotation"))
            chosen, best = (setting, errors) if errors < best else (chosen, best)
        return chosen

    def _geodesics(
        self,
        row: str,
        metric: AbstractMetric,
        ends: str,
        start: str,
        split: str,
        n: int,
        setting: str,
        solver: SpectralNewton | None = None,
    ) -> np.ndarray:
        """Add a row, and return its paths."""
        pairs, starts = self._pairs(ends, split, n), self._starts(start, ends, split, n)
        solver = QUICK if self.quick else solver or SOLVER
        # Single precision is enough for three digits, and twice as fast.
        xs, ys, curves = (array.astype(np.float32) for array in (pairs.xs, pairs.ys, starts))
        paths = solve(metric, xs, ys, solver=solver, starts=curves, batch=BATCH, times=TIMES)
        # Outside the domain of a metric there is no path: it is kept as it started, and has not converged.
        broken = ~np.isfinite(paths.points).all((1, 2))
        points = np.where(broken[:, None, None], upsampled(starts), paths.points)
        self._add(row, pairs, points, (paths.converged & ~broken).mean(), paths.seconds, setting, split)
        return points

    def _add(self, row: str, pairs: Pairs, points, converged: float, seconds: float, setting: str, split: str) -> None:
        figures = pairs.figures(points)
        self.table.add(row, figures, converged=converged, seconds=seconds, setting=setting, split=split)
        print(row, {k: round(float(v.mean()), 4) for k, v in figures.items()}, converged, round(seconds, 2), flush=True)

    def _show(self, name: str, ends: str, pairs: Pairs, points: np.ndarray) -> None:
        """Keep images of one path: of the pair that is nearest to a turn by 130 degrees."""
        if ends == "data":
            which = np.argmin(np.abs(pairs.turn[:BATCH] - 130))
            codes = points[which, np.linspace(0, TIMES - 1, FRAMES).astype(int)]
            self.shown[name] = np.asarray(self.characters.autoencoder.decode(codes))
            write_npz(self.frames, **self.shown)


def methods(rows: list[dict[str, str]], ends: str, start: str) -> Iterator[str]:
    """Names in the rows of this kind, in the order of the table; the start itself first."""
    kinds = (row["row"].split("/") for row in rows if row["split"] == REPORTED and row["figure"] == "to_data")
    return (kind[2] for kind in kinds if kind[:2] == [ends, start])


def tables(rows: list[dict[str, str]]) -> dict[str, str]:
    """What the page shows."""
    found = {f"{ends}_{start}": _table(rows, ends, start) for ends, start, *_ in PLAN}
    lines = [
        "| metric | evaluations | to the data | to the rotation | pairs | converged |",
        "|---|---|---|---|---|---|",
    ]
    for row in dict.fromkeys(line["row"] for line in rows if line["row"].startswith("budget/")):
        _, budget, method = row.split("/")
        errors = [with_error(rows, row, figure) for figure in ("to_data", "to_rotation")]
        pairs, share = (value(rows, row, "to_data", column) for column in ("pairs", "converged"))
        cells = [method.replace("_", " "), budget, *errors, f"{pairs:.0f}", f"{share:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return found | {"budget": "\n".join(lines) + "\n"}


def _table(rows: list[dict[str, str]], ends: str, start: str) -> str:
    published = start == "graph" and ends != "between"
    head = ["metric", "setting", "to the data", "to the rotation", "at equal steps", "astray", "pairs", "converged"]
    head += ["seconds for one"] + ["published: to the data", "to the rotation"] * published
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    named = [(f"{ends}/rotation", "the rotation itself", "")] if start == "graph" else []
    for method in methods(rows, ends, start):
        label = method.replace("_", " ")
        named.append((f"{ends}/{start}/{method}", f"*{start}* itself" if label == "start" else label, label))
    for row, label, name in named:
        line = next(line for line in rows if line["row"] == row)
        cells = [label, line["setting"] or "–"]
        cells += [with_error(rows, row, figure) for figure in ("to_data", "to_rotation", "to_rotation_even")]
        cells += [f"{value(rows, row, 'astray'):.2f}", line["pairs"]]
        solved = bool(line["setting"])
        cells += [f"{float(line['converged']):.2f}", f"{float(line['seconds']):.2f}"] if solved else ["–", "–"]
        if published:
            known = PUBLISHED.get(name)
            cells += [f"{v:.3f}" for v in known[ends == "noisy"]] if known else ["–", "–"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def with_error(rows: list[dict[str, str]], row: str, figure: str) -> str:
    """A mean and its standard error."""
    return f"{value(rows, row, figure):.3f} ± {value(rows, row, figure, 'standard_error'):.3f}"


def figure(rows: list[dict[str, str]], shown: dict[str, np.ndarray]):
    """Frames of one pair, and the two distances of every metric from the graph."""
    from matplotlib.figure import Figure

    if not shown and (FOLDER / "frames.npz").exists():
        shown = dict(np.load(FOLDER / "frames.npz"))
    names = [name for name in methods(rows, "data", "graph") if name != "start"]
    page = Figure(figsize=(10.5, 4.4), layout="constrained")
    strips, left, right = page.subplots(1, 3, width_ratios=(2, 1, 1))
    _strips(strips, {name: shown[name] for name in SHOWN if name in shown})
    for ax, what in ((left, 0), (right, 1)):
        for place, name in enumerate(["start", *names]):
            row = f"data/graph/{name}"
            mean, error = (
                value(rows, row, ("to_data", "to_rotation")[what], column) for column in ("mean", "standard_error")
            )
            style = {"color": COLOURS[1], "marker": "o", "markersize": 5}
            ax.errorbar(mean, -place, xerr=2 * error, label="here" if place == 0 else None, **style)
            theirs = PUBLISHED.get(name.replace("_", " "))
            if theirs:
                style = {"color": COLOURS[0], "marker": "D", "markerfacecolor": "none", "linestyle": "none"}
                label = "published, other codes" if name == "RBF" else None
                ax.plot(theirs[0][what], -place, label=label, **style)
        ax.set_xscale("log")
        ax.grid(axis="x", color="#e4e4e4", linewidth=0.8)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
        ax.set_ylim(-len(names) - 0.6, 0.6)
    left.set_yticks(-np.arange(len(names) + 1), ["graph itself", *(n.replace("_", " ") for n in names)], fontsize=8)
    right.set_yticks(-np.arange(len(names) + 1), [])
    left.set_xlabel("distance to the data")
    right.set_xlabel("distance to the rotation")
    page.legend(*left.get_legend_handles_labels(), loc="outside lower right", frameon=False, fontsize=8, ncols=2)
    return page


def _strips(ax, shown: dict[str, np.ndarray]) -> None:
    """Rows of images with their names."""
    ax.set_axis_off()
    if not shown:
        return
    side = int(np.sqrt(next(iter(shown.values())).shape[-1]))
    lines = [images.reshape(-1, side, side).transpose(1, 0, 2).reshape(side, -1) for images in shown.values()]
    ax.imshow(1 - np.concatenate(lines), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    for place, name in enumerate(shown):
        ax.text(-4, (place + 0.5) * side, name, ha="right", va="center", fontsize=8)


if __name__ == "__main__":
    frames: dict[str, np.ndarray] = {}
    main(__doc__, NAME, SEED, functools.partial(run, shown=frames), functools.partial(figure, shown=frames))
