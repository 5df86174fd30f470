"""Codimension, strength and noise level: how far do geodesics leave a curve or a surface in R^D, and how long are they?

A helix and a torus, whose noised scores are exact (`_shapes`): for every metric
over noise level and strength, the distance of geodesics from the shape and their Euclidean length against the exact
arc, with ends on the shape in R^3. Then ends with noise, in R^3, R^10 and R^50, at one noise level and the strength
that was best on other pairs; and a score that a network learned of the helix.

The strengths 10 to 1000 are dimensionless: they multiply sigma^2 in the Stein metric and in the score norm, nothing
in the score Jacobian, and are the ratio to which the power of p is calibrated.

    uv run python benchmarks/science/codimension.py
    uv run python benchmarks/science/codimension.py --quick --out /tmp/codimension.csv
"""

import dataclasses
import itertools
import warnings

import jax.numpy as jnp
import numpy as np
from _shapes import SHAPES, Pairs, Shape
from _study import QUICK, REPORTED, TUNING, Paths, Table, euclidean_length, main, solve, value

from scoregeo import AbstractMetric, ConformalMetric, ScoreJacobianMetric, SpectralNewton, SteinMetric
from scoregeo.metrics import ScoreNormFactor

NAME, SEED, TIMES = "codimension", 0, 129
LEVELS, STRENGTHS, DIMENSIONS = (0.05, 0.1, 0.2), (10.0, 100.0, 1e3), (3, 10, 50)
METRICS = ("Stein", "score_Jacobian", "power_of_p", "score_norm")
PAIRS = {TUNING: 8, REPORTED: 16}
# The other shapes of `_shapes` are for a run with more time.
NAMES = ("helix", "torus")
# The noise level at which ends have noise.
LEVEL = 0.1
SOLVER = SpectralNewton(rtol=1e-3, path_rtol=1e-2, max_elements=4, degree=16, continuation=6, adaptations=2)
# Solves that do not converge in the score norm would take most of the time.
SOLVERS = dict.fromkeys(METRICS, SOLVER) | {"score_norm": dataclasses.replace(SOLVER, max_evaluations=60_000)}


def metric_of(name: str, score, sigma: float, strength: float, data: np.ndarray) -> AbstractMetric:
    """The metric of a dimensionless strength."""
    if name == "Stein":
        return SteinMetric(score, strength * sigma**2)
    if name == "score_Jacobian":
        return ScoreJacobianMetric(score, sigma, strength)
    if name == "power_of_p":
        return ConformalMetric.power(score, data, strength)
    one = jnp.asarray(1.0)
    return ConformalMetric(ScoreNormFactor(one, score, jnp.asarray(strength * sigma**2)))


def figures(shape: Shape, points: np.ndarray, arcs: np.ndarray) -> dict[str, np.ndarray]:
    """Of paths ``(n, t, D)``: the mean distance from the shape, that over the middle half, the largest one, and the
    relative error of the Euclidean length, with its sign and without."""
    off, error = shape.off(points), euclidean_length(points) / arcs - 1
    quarter = points.shape[1] // 4
    return {
        "off": off.mean(1),
        "off_middle": off[:, quarter:-quarter].mean(1),
        "off_most": off.max(1),
        "arc_error": error,
        "arc_abs_error": np.abs(error),
    }


def add(table: Table, row: str, shape: Shape, paths: Paths, arcs: np.ndarray, kept: slice, **about) -> None:
    """The row of some of the pairs."""
    found = figures(shape, paths.points[kept], arcs[kept])
    table.add(row, found, converged=paths.converged[kept].mean(), seconds=paths.seconds, **about)
    print(row, {k: round(float(v.mean()), 4) for k, v in found.items()}, paths.converged[kept].mean(), flush=True)


def straight(xs: np.ndarray, ys: np.ndarray) -> Paths:
    """Straight lines, as `solve` gives paths."""
    t = np.linspace(0, 1, TIMES)[None, :, None]
    return Paths((1 - t) * xs[:, None] + t * ys[:, None], np.linalg.norm(ys - xs, axis=1), np.ones(len(xs)), 0.0)


def on_the_shape(table: Table, name: str, shape: Shape, pairs: Pairs, levels, strengths, solvers) -> None:
    """Noise level by strength, ends on the shape, in R^3: 8 pairs to choose settings on, and others to report."""
    random = np.random.default_rng(SEED + 1)
    data = shape.sample(random, 500)
    noise = random.normal(size=data.shape)
    parts = {TUNING: slice(None, PAIRS[TUNING]), REPORTED: slice(PAIRS[TUNING], None)}
    if f"{name}/straight" not in table:
        add(table, f"{name}/straight", shape, straight(pairs.xs, pairs.ys), pairs.arcs, parts[REPORTED])
    for metric, solver in solvers.items():
        for sigma in levels:
            for strength in strengths:
                row = f"{name}/{metric}/{sigma:g}/{strength:g}"
                if row in table:
                    continue
                made = metric_of(metric, shape.score(sigma), sigma, strength, data + sigma * noise)
                paths = solve(made, pairs.xs, pairs.ys, solver=solver, batch=len(pairs.arcs), times=TIMES)
                about = {"setting": f"sigma {sigma:g}, strength {strength:g}"}
                tuning = f"{name}/{metric}/{sigma:g}/{strength:g}/{TUNING}"
                if tuning not in table:
                    add(table, tuning, shape, paths, pairs.arcs, parts[TUNING], split=TUNING, **about)
                add(table, row, shape, paths, pairs.arcs, parts[REPORTED], split=REPORTED, **about)


def best(rows: list[dict[str, str]], name: str, metric: str, levels, strengths) -> tuple[float, float]:
    """Noise level and strength with the least error of the arc on the tuning pairs, among those at which at least nine
    in ten of them converged, if there are any."""
    errors, solved = {}, {}
    for setting in itertools.product(levels, strengths):
        row = f"{name}/{metric}/{setting[0]:g}/{setting[1]:g}/{TUNING}"
        errors[setting] = value(rows, row, "arc_abs_error")
        solved[setting] = value(rows, row, "arc_abs_error", "converged") >= 0.9
    good = {setting: error for setting, error in errors.items() if solved[setting]} or errors
    return min(good, key=good.get)


def noisy_ends(table: Table, name: str, shape: Shape, pairs: Pairs, strengths, metrics, dimensions) -> None:
    """Ends with noise of the level of the score in all coordinates, in R^D.

    Outside of the first three coordinates the density is isotropic: a geodesic stays in the plane of its ends there,
    and R^D becomes R^5.
    """
    for dimension in dimensions:
        random = np.random.default_rng([SEED + 2, dimension])
        data = np.pad(shape.sample(random, 500), ((0, 0), (0, dimension - 3)))
        data = data + LEVEL * random.normal(size=data.shape)
        xs, ys = (ends[PAIRS[TUNING] :] for ends in (pairs.xs, pairs.ys))
        noise = LEVEL * random.normal(size=(2, len(xs), dimension))
        plane = np.stack([_in_a_plane(noise[:, k, 3:]) for k in range(len(xs))], 1)
        xs, ys = (np.hstack([ends + z[:, :3], w]) for ends, z, w in zip((xs, ys), noise, plane, strict=True))
        arcs, everything = pairs.arcs[PAIRS[TUNING] :], slice(None)
        if f"{name}/noisy/{dimension}/straight" not in table:
            add(table, f"{name}/noisy/{dimension}/straight", shape, straight(xs, ys), arcs, everything)
        for metric in metrics:
            row = f"{name}/noisy/{dimension}/{metric}"
            if row in table:
                continue
            strength = best(table.rows, name, metric, (LEVEL,), strengths)[1]
            made = metric_of(metric, shape.score(LEVEL), LEVEL, strength, data)
            paths = solve(made, xs, ys, solver=SOLVERS[metric], batch=len(arcs), times=TIMES)
            add(table, row, shape, paths, arcs, everything, setting=f"sigma {LEVEL:g}, strength {strength:g}")


def _in_a_plane(two: np.ndarray) -> np.ndarray:
    """Two vectors ``(2, k)`` as ``(2, 2)``, with the same lengths and angle."""
    lower = np.linalg.qr(np.pad(two, ((0, 0), (0, 2))).T)[1].T
    return lower[:, :2]


def of_a_learned_score(table: Table, name: str, shape: Shape, pairs: Pairs, dimensions) -> None:
    """Ends on the shape, metrics of a network that saw 5,000 points of it."""
    from scoregeo.diffusion import FitConfig, fit

    wanted = [("Stein", 1e3), ("power_of_p", 1e3), ("score_Jacobian", 100.0)]
    for dimension in dimensions:
        pad = ((0, 0), (0, dimension - 3))
        rows = [(f"{name}/learned/{dimension}/{m}/{s:g}", m, s, c) for m, c in wanted for s in (0.1, 0.2)]
        if all(row in table for row, *_ in rows):
            continue
        data = np.pad(shape.sample(np.random.default_rng(SEED + 3), 5000), pad)
        config = FitConfig(steps=3000, batch_size=256, width=128, depth=3, reference_size=5000, seed=SEED)
        model = fit(jnp.asarray(data), config)
        xs, ys = (np.pad(ends, pad)[PAIRS[TUNING] :] for ends in (pairs.xs, pairs.ys))
        arcs = pairs.arcs[PAIRS[TUNING] :]
        for row, metric, sigma, strength in rows:
            if row not in table:
                noisy = data[:500] + sigma * np.random.default_rng(SEED + 4).normal(size=data[:500].shape)
                made = metric_of(metric, model.score_at(sigma), sigma, strength, noisy)
                paths = solve(made, xs, ys, solver=SOLVERS[metric], batch=len(arcs), times=TIMES)
                about = f"sigma {sigma:g}, strength {strength:g}"
                add(table, row, shape, paths, arcs, slice(None), setting=about)


def run(table: Table, quick: bool) -> None:
    """All rows that are not there."""
    warnings.filterwarnings("ignore", message="`ratio`")
    solvers = {"Stein": QUICK} if quick else SOLVERS
    levels, strengths = ((LEVEL,), (100.0,)) if quick else (LEVELS, STRENGTHS)
    shapes = {name: make() for name, make in SHAPES.items() if name in (("sphere",) if quick else NAMES)}
    pairs = {name: shape.pairs(np.random.default_rng(SEED), sum(PAIRS.values())) for name, shape in shapes.items()}
    for name, shape in shapes.items():
        on_the_shape(table, name, shape, pairs[name], levels, strengths, solvers)
    if quick:
        return
    noisy_ends(table, "helix", shapes["helix"], pairs["helix"], strengths, METRICS, DIMENSIONS)
    of_a_learned_score(table, "helix", shapes["helix"], pairs["helix"], (3,))


def tables(rows: list[dict[str, str]]) -> dict[str, str]:
    """What the page shows."""
    return {"best": _best_table(rows), "noisy": _noisy_table(rows), "learned": _learned_table(rows)}


def _best_table(rows) -> str:
    lines = [
        "| shape | metric | noise level | strength | arc error | from the shape | converged |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in NAMES:
        cells = [name.replace("_", " "), "straight line", "–", "–"]
        lines.append("| " + " | ".join(cells + _figures(rows, f"{name}/straight", "off")) + " |")
        for metric in _metrics(rows, name):
            sigma, strength = best(rows, name, metric, LEVELS, STRENGTHS)
            cells = [name.replace("_", " "), metric.replace("_", " "), f"{sigma:g}", f"{strength:g}"]
            lines.append(
                "| " + " | ".join(cells + _figures(rows, f"{name}/{metric}/{sigma:g}/{strength:g}", "off")) + " |"
            )
    return "\n".join(lines) + "\n"


def _metrics(rows, start: str) -> list[str]:
    """Those with all rows ``start/metric/noise level/strength``."""
    have = {line["row"] for line in rows}
    cells = [f"{sigma:g}/{strength:g}" for sigma in LEVELS for strength in STRENGTHS]
    return [metric for metric in METRICS if all(f"{start}/{metric}/{cell}" in have for cell in cells)]


def _figures(rows, row: str, off: str) -> list[str]:
    """Cells of a row: errors in percent, distances in hundredths of a unit, with standard errors."""
    converged = next(float(line["converged"]) for line in rows if line["row"] == row)

    def cell(figure, unit, sign):
        mean, error = (100 * value(rows, row, figure, column) for column in ("mean", "standard_error"))
        return f"{mean:+.1f}{unit} ± {error:.1f}{unit}".replace("-", "−") if sign else f"{mean:.1f} ± {error:.1f}"

    return [cell("arc_error", "%", True), cell(off, "", False), f"{converged:.2f}"]


def _noisy_table(rows) -> str:
    lines = [
        "| shape | D | metric | strength | from the shape, middle half | whole path | converged |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in ("helix",):
        for dimension in DIMENSIONS:
            for metric in ("straight", *METRICS):
                row = f"{name}/noisy/{dimension}/{metric}"
                if not any(line["row"] == row for line in rows):
                    continue
                setting = next(line["setting"] for line in rows if line["row"] == row)
                cells = [name, str(dimension), metric.replace("_", " "), setting.rpartition(" ")[2] or "–"]
                middle, whole = _figures(rows, row, "off_middle")[1], _figures(rows, row, "off")
                lines.append("| " + " | ".join([*cells, middle, *whole[1:]]) + " |")
    return "\n".join(lines) + "\n"


def _learned_table(rows) -> str:
    lines = [
        "| D | metric | noise level | strength | arc error | from the shape | converged |",
        "|---|---|---|---|---|---|---|",
    ]
    found = dict.fromkeys(line["row"] for line in rows if "/learned/" in line["row"])
    for row in found:
        _, _, dimension, metric, sigma = row.split("/")
        setting = next(line["setting"] for line in rows if line["row"] == row)
        cells = [dimension, metric.replace("_", " "), sigma, setting.rpartition(" ")[2]]
        lines.append("| " + " | ".join(cells + _figures(rows, row, "off")) + " |")
    return "\n".join(lines) + "\n"


def figure(rows: list[dict[str, str]]):
    """Heat maps: the error of the arc, one row for each shape and one column for each metric."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    have = {line["row"] for line in rows}
    names = [name for name in SHAPES if f"{name}/straight" in have]
    norm, ticks = LogNorm(0.1, 10), (0.1, 0.3, 1, 3, 10)
    page = Figure(figsize=(9.4, 1.9 * len(names) + 0.9), layout="constrained")
    axes = page.subplots(len(names), len(METRICS), squeeze=False, sharex=True, sharey=True)
    for i, (name, line) in enumerate(zip(names, axes, strict=True)):
        for metric, ax in zip(METRICS, line, strict=True):
            _heat_map(ax, rows, have, f"{name}/{metric}", norm)
            if i == 0:
                ax.set_title(metric.replace("_", " "), fontsize=11)
            if i == len(names) - 1:
                ax.set_xlabel("strength", fontsize=10)
        line[0].set_ylabel(name.replace("_", " ") + "\nnoise level", fontsize=10)
    bar = page.colorbar(ScalarMappable(norm, "cividis_r"), ax=axes, ticks=ticks)
    bar.ax.set_yticklabels([f"{tick:g}" for tick in ticks])
    bar.set_label("error of the arc, %")
    return page


def _heat_map(ax, rows: list[dict[str, str]], have: set[str], start: str, norm) -> None:
    """One panel: noise level by strength."""
    grid = np.full((len(LEVELS), len(STRENGTHS)), np.nan)
    for a, sigma in enumerate(LEVELS):
        for b, strength in enumerate(STRENGTHS):
            row = f"{start}/{sigma:g}/{strength:g}"
            if row not in have:
                continue
            grid[a, b] = 100 * value(rows, row, "arc_abs_error")
            solved = value(rows, row, "arc_abs_error", "converged") >= 0.9
            text = f"{grid[a, b]:.2f}" if grid[a, b] < 0.995 else f"{grid[a, b]:.1f}"
            shade = "white" if grid[a, b] > 1.2 else "black"
            ax.text(b, a, text + ("" if solved else "*"), ha="center", va="center", fontsize=10, color=shade)
    if np.isnan(grid).all():
        ax.text(1, 1, "not run", ha="center", va="center", fontsize=10, color="#777777")
    ax.imshow(grid, cmap="cividis_r", norm=norm, origin="lower", aspect="auto")
    ax.set_xticks(range(len(STRENGTHS)), [f"{strength:g}" for strength in STRENGTHS], fontsize=9)
    ax.set_yticks(range(len(LEVELS)), [f"{sigma:g}" for sigma in LEVELS], fontsize=9)


if __name__ == "__main__":
    main(__doc__, NAME, SEED, run, figure)
