"""Density of paths on two moons, a checkerboard and a sine: log p along geodesics, for every metric and solver.

Rygaard & Hauberg 2025 (arXiv 2510.26266) compare metrics by the negative log likelihood along one path on each of such
densities, and a rank-one metric (Monge; here Stein) of strength 1 loses badly. Here are 40 pairs of points drawn from
each density, whose exact score is known: paths in the Stein metric of strength 1, and in every metric at the best of a
few settings on 40 other pairs, which are compared by the mean of log p along the path; then the same with other
solvers, with a start along the data, and with a score that a network learned.

    uv run python benchmarks/science/path_density.py
    uv run python benchmarks/science/path_density.py --quick --out /tmp/path_density.csv
"""

import functools
import time
import warnings
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from _path_pages import figure, tables
from _study import QUICK, REPORTED, TUNING, Estimate, Paths, Table, equal_steps, euclidean_length, main, solve, value

from scoregeo import (
    AbstractMetric,
    ConformalMetric,
    EnergyDescent,
    Georce,
    GraphInit,
    KernelDensityScore,
    LandMetric,
    RbfMetric,
    ScoreJacobianMetric,
    SpectralNewton,
    SteinMetric,
    recommend_strength,
)

__all__ = ["figure", "run", "tables"]

NAME, SEED, TIMES, PAIRS, POINTS = "path_density", 0, 101, 40, 2000
DENSITIES, NOISE = ("moons", "checkerboard", "sinus"), 0.1
SOLVER = SpectralNewton(rtol=1e-3, path_rtol=1e-2, max_elements=4, degree=16, continuation=6, adaptations=2)
OTHERS = {"Georce": Georce(rtol=1e-2), "EnergyDescent": EnergyDescent(rtol=1e-2)}
UNTUNED = "Stein, strength 1"
# The noise level of the learned score.
LEARNED = 0.05


def places(name: str) -> np.ndarray:
    """800 places ``(n, 2)``, nearer to each other than the noise: two half circles, eight unit squares of a board of
    16, or a period of the sine, evenly."""
    if name == "moons":
        angle = np.linspace(0, np.pi, 400)
        upper = np.stack([np.cos(angle) - 0.5, np.sin(angle) - 0.25], 1)
        return np.concatenate([upper, -upper])
    if name == "checkerboard":
        inside = (np.arange(10) + 0.5) / 10
        square = np.stack(np.meshgrid(inside, inside), -1).reshape(-1, 2)
        return np.concatenate(
            [square + np.array([i - 2, j - 2]) for i in range(4) for j in range(4) if (i + j) % 2 == 0]
        )
    fine = np.linspace(-np.pi, np.pi, 10_001)
    arc = np.concatenate([[0], np.hypot(np.diff(fine), np.diff(np.sin(fine))).cumsum()])
    first = np.interp(np.linspace(0, arc[-1], 800), arc, fine)
    return np.stack([first, np.sin(first)], 1)


class Density:
    """An exact score, that of its `places` with noise, and points drawn from it: ``data`` to calibrate and learn with,
    and ends of pairs."""

    def __init__(self, name: str, points: int = POINTS, pairs: int = PAIRS):
        self.name, n, random = name, points + 4 * pairs, np.random.default_rng([SEED, DENSITIES.index(name)])
        where = places(name)
        self.score = KernelDensityScore(where, NOISE)
        drawn = where[random.choice(len(where), n)] + NOISE * random.normal(size=(n, 2))
        self.data, ends = drawn[:points], drawn[points:].reshape(4, pairs, 2)
        self._ends = {TUNING: (ends[0], ends[1]), REPORTED: (ends[2], ends[3])}
        self._log_prob = jax.jit(lambda paths: jax.vmap(jax.vmap(self.score.log_prob))(paths))

    def pairs(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Ends ``(n, 2)`` twice."""
        return self._ends[split]

    def figures(self, points: np.ndarray) -> dict[str, np.ndarray]:
        """Of paths ``(n, t, 2)``: mean and least log p at equal Euclidean steps, the mean at equal steps of the metric,
        and the length over that of the straight line."""
        even = np.asarray(self._log_prob(equal_steps(points)))
        return {
            "log_p": even.mean(1),
            "least_log_p": even.min(1),
            "log_p_metric_speed": np.asarray(self._log_prob(points)).mean(1),
            "detour": euclidean_length(points) / np.linalg.norm(points[:, -1] - points[:, 0], axis=1),
        }


def stein(score, data: np.ndarray, ratio: float) -> SteinMetric:
    """The Stein metric of a ratio."""
    return SteinMetric(score, recommend_strength(SteinMetric, score, data, ratio=ratio))


Settings = dict[str, Callable[[], AbstractMetric]]


def metrics(score, density: Density, noise: float, *, learned: bool = False) -> dict[str, Settings]:
    """For each metric its settings, with a function that makes it."""
    data, part = density.data[:1000], functools.partial
    found: dict[str, Settings] = {
        UNTUNED: {"strength 1": part(SteinMetric, score, 1.0)},
        "Stein": {f"ratio {r:g}": part(stein, score, data, r) for r in (100.0, 1e3, 1e4)},
        "power of p": {f"ratio {r:g}": part(ConformalMetric.power, score, data, r) for r in (10.0, 100.0, 1e3)},
    }
    if not learned:
        found["score norm"] = {f"ratio {r:g}": part(ConformalMetric.score_norm, score, data, r) for r in (10.0, 100.0)}
        found["score Jacobian"] = {f"strength {s:g}": part(ScoreJacobianMetric, score, noise, s) for s in (10.0, 100.0)}
        found["LAND"] = {
            f"bandwidth {h:g}, ratio 100": part(LandMetric.fit, data, h, 100.0) for h in (2 * NOISE, 4 * NOISE)
        }
        found["RBF"] = {f"spread {s:g}, ratio 100": part(RbfMetric.fit, data, 50, 100.0, spread=s) for s in (1.0, 2.0)}
    return found


def follow(table: Table, density: Density, kind: str, method: str, settings: Settings, solver) -> None:
    """The rows of a metric: each setting on the tuning pairs if there are several, and the best one on the others."""
    place = place_of(density.name, kind, method)
    chosen, best = "", -np.inf
    for setting, make in settings.items():
        row = place_of(place, TUNING, setting)
        if row not in table:
            add(table, row, density, make(), solver, setting, split=TUNING)
        score = value(table.rows, row, "log_p")
        chosen, best = (setting, score) if score > best or not chosen else (chosen, best)
    if place in table:
        return
    add(table, place, density, settings[chosen](), solver, chosen)


def place_of(*names: str) -> str:
    """The name of a row."""
    return "/".join(names).replace(", ", "_").replace(" ", "_")


def of(density: Density, kind: str, method: str, table: Table) -> tuple[str, str]:
    """The row of a metric, and the setting that was chosen."""
    row = place_of(density.name, kind, method)
    return row, next(line["setting"] for line in table.rows if line["row"] == row)


def add(
    table: Table, row: str, density: Density, metric, solver, setting: str, ending: str = "", *, split: str = REPORTED
) -> None:
    """Solve and add a row, of all paths, those that did not converge included.

    For pairs that are reported the program has been compiled before the time is taken: ``seconds`` of the wall and
    ``cpu_seconds`` of all cores are those of one path of a batch that runs.
    """
    xs, ys = density.pairs(split)
    # Straight lines are given as starts too: one program.
    starts, batch = line(xs, ys, 129), len(xs)
    if ending == "graph":
        graph = GraphInit(jnp.asarray(density.data[:500]), 8)
        ts = jnp.linspace(0, 1, 129)
        trace = jax.jit(jax.vmap(lambda x, y: jax.vmap(lambda t: graph(metric, x, y)(t)[0])(ts)))
        starts = np.asarray(trace(jnp.asarray(xs), jnp.asarray(ys)))
    settings = {"solver": solver, "starts": starts, "batch": batch, "times": TIMES}
    if ending in OTHERS:
        solve(metric, xs, ys, **settings)
    began = time.process_time()
    paths = solve(metric, xs, ys, **settings)
    spent = (time.process_time() - began) / len(xs)
    figures = density.figures(paths.points)
    save(table, row, figures | {"length": paths.lengths}, paths, spent, split, setting)


def save(table: Table, row: str, figures: dict, paths: Paths, spent: float, split: str, setting: str) -> None:
    """A row, which is printed too."""
    finite = np.isfinite(np.stack(list(figures.values()))).all(0)
    # A path that left the numbers has no density: it is left out, and has not converged.
    kept = {name: values[finite] for name, values in figures.items()} if finite.any() else {"paths": np.zeros(1)}
    about = {"converged": (paths.converged & finite).mean(), "seconds": paths.seconds}
    cpu = {"cpu_seconds": Estimate(spent, np.nan, len(finite))} if split == REPORTED else {}
    table.add(row, kept | cpu, setting=setting, split=split, **about)
    print(row, setting, {k: round(float(v.mean()), 3) for k, v in kept.items()}, about, round(spent, 4), flush=True)


def line(xs: np.ndarray, ys: np.ndarray, n: int) -> np.ndarray:
    """``n`` points of the straight line between each pair."""
    t = np.linspace(0, 1, n)[None, :, None]
    return (1 - t) * xs[:, None] + t * ys[:, None]


def straight(table: Table, density: Density) -> None:
    """The row of straight lines."""
    row = f"{density.name}/straight"
    if row not in table:
        xs, ys = density.pairs(REPORTED)
        points = line(xs, ys, TIMES)
        paths = Paths(points, np.linalg.norm(ys - xs, axis=1), np.ones(len(xs), bool), 0.0)
        save(table, row, density.figures(points) | {"length": paths.lengths}, paths, 0.0, REPORTED, "")


def learned_score(density: Density):
    """The score that a potential network learned from the data, at a noise level of half that of the data."""
    from scoregeo.diffusion import FitConfig, fit

    config = FitConfig(steps=1500, batch_size=256, width=64, depth=3, reference_size=POINTS, seed=SEED)
    return fit(jnp.asarray(density.data, jnp.float32), config).score_at(LEARNED)


def run(table: Table, quick: bool) -> None:
    """All rows that are not there."""
    # What a family cannot reach is in the setting; a warning for each would say so again.
    warnings.filterwarnings("ignore", message="`ratio`")
    if quick:
        density = Density("sinus", points=200, pairs=4)
        straight(table, density)
        settings = {"ratio 100": functools.partial(stein, density.score, density.data, 100.0)}
        follow(table, density, "exact", "Stein", settings, QUICK)
        return
    densities = [Density(name) for name in DENSITIES]
    for density in densities:
        straight(table, density)
        for method, settings in metrics(density.score, density, NOISE).items():
            follow(table, density, "exact", method, settings, SOLVER)
    for density in densities:
        if f"{density.name}/learned/power_of_p" not in table:
            score = learned_score(density)
            for method, settings in metrics(score, density, LEARNED, learned=True).items():
                follow(table, density, "learned", method, settings, SOLVER)
    for ending in ("graph", *OTHERS):
        for density in densities:
            for method, settings in metrics(density.score, density, NOISE).items():
                row, chosen = of(density, "exact", method, table)
                if f"{row}/{ending}" not in table:
                    add(
                        table,
                        f"{row}/{ending}",
                        density,
                        settings[chosen](),
                        OTHERS.get(ending, SOLVER),
                        chosen,
                        ending,
                    )


if __name__ == "__main__":
    main(__doc__, NAME, SEED, run, figure)
