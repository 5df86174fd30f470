"""Gaussians on a semicircle (Bethune et al. 2025, arXiv 2505.18230): do geodesics keep to where the density is high?

Two hundred Gaussians of unit covariance stand on a semicircle of radius 8, of equal weight (UCG) or of weights that
grow along it (WCG). Geodesics between 1,000 pairs of points, in metrics of the exact score and of a learned one: the
density along them, in the units of the paper and as a share of what the arc between the ends has, and the distance to
the arc. The setting of each metric is the best of a few on 100 other pairs.

    uv run python benchmarks/science/ucg_wcg.py
    uv run python benchmarks/science/ucg_wcg.py --quick --out /tmp/ucg_wcg.csv
"""

import functools
import warnings
from collections.abc import Callable, Iterator

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from _study import COLOURS, QUICK, REPORTED, TUNING, Paths, Table, equal_steps, main, solve, value

from scoregeo import (
    AbstractMetric,
    AbstractScore,
    ConformalMetric,
    LandMetric,
    RbfMetric,
    ScoreJacobianMetric,
    SpectralNewton,
    SteinMetric,
    recommend_strength,
)

NAME, SEED, RADIUS, GAUSSIANS, TIMES = "ucg_wcg", 0, 8.0, 200, 101
# Frames of a path whose densities the paper adds up: 50 with a density that integrates to one, which is 100 with one
# that does so on a full circle. See the page.
FRAMES = 50
# The heaviest Gaussian of WCG weighs so many times as much as the lightest. The paper's weights are not known to us.
HEAVIEST = 10.0
ENDS = ("arc", "samples")
# Bethune et al., table of the synthetic sets: accumulated probability, and distance to the oracle.
# Paths are smooth: fewer elements than the default compile in less time.
SOLVER = SpectralNewton(rtol=1e-3, path_rtol=1e-2, max_elements=4, degree=16, continuation=6, adaptations=2)


class Gaussians(AbstractScore):
    """The score of ``sum_k weights_k N(means_k, I)``: as that of a kernel density, with weights."""

    weights: jax.Array
    means: jax.Array
    conservative: bool = eqx.field(static=True, default=True)

    def _kernels(self, x):
        terms = self.means @ x - 0.5 * jnp.sum(self.means**2, -1)
        return terms, self.weights * jnp.exp(terms - jax.lax.stop_gradient(jnp.max(terms)))

    def __call__(self, x):
        """The score at ``x``."""
        _, kernels = self._kernels(x)
        return kernels @ self.means / jnp.sum(kernels) - x

    def log_prob(self, x):
        """The normalised log density at ``x``."""
        terms, kernels = self._kernels(x)
        logs = jnp.log(jnp.sum(kernels)) + jax.lax.stop_gradient(jnp.max(terms))
        return logs - 0.5 * x @ x - jnp.log(2 * jnp.pi)


class Density:
    """UCG or WCG: the exact score, a sample, and pairs of ends with the arc between them."""

    def __init__(self, name: str):
        angle = np.pi * (np.arange(GAUSSIANS) + 0.5) / GAUSSIANS
        weights = np.ones(GAUSSIANS) if name == "UCG" else np.linspace(1.0, HEAVIEST, GAUSSIANS)
        self.weights, self.means = weights / weights.sum(), on_arc(angle)
        self.score = Gaussians(jnp.asarray(self.weights), jnp.asarray(self.means))
        self.data = self.draw(np.random.default_rng(SEED), 4000)
        self.prob = jax.jit(lambda x: jnp.exp(jax.vmap(jax.vmap(self.score.log_prob))(x)))

    def draw(self, random: np.random.Generator, n: int) -> np.ndarray:
        """A sample ``(n, 2)``."""
        return self.means[random.choice(GAUSSIANS, n, p=self.weights)] + random.normal(size=(n, 2))

    def pairs(self, ends: str, split: str, n: int) -> tuple[np.ndarray, np.ndarray]:
        """``n`` pairs, on the arc at random angles or from a sample."""
        random = np.random.default_rng([SEED, split == REPORTED, ENDS.index(ends)])
        points = on_arc(random.uniform(0, np.pi, 2 * n)) if ends == "arc" else self.draw(random, 2 * n)
        return points[:n], points[n:]

    def figures(self, points: np.ndarray, xs: np.ndarray, ys: np.ndarray) -> dict[str, np.ndarray]:
        """Of paths at constant speed in the metric; the density at constant Euclidean speed too."""
        angles = np.arctan2(np.stack([xs, ys])[..., 1], np.stack([xs, ys])[..., 0])
        # Sampled ends may lie below the semicircle's ends, where arctan2 is negative.
        angles = np.where(angles < -np.pi / 2, angles + 2 * np.pi, angles)
        radii = np.linalg.norm(np.stack([xs, ys]), axis=-1)
        t = np.linspace(0, 1, points.shape[1])[None]
        angle, radius = ((1 - t) * end[0][:, None] + t * end[1][:, None] for end in (angles, radii))
        between = radius[..., None] * np.stack([np.cos(angle), np.sin(angle)], -1)
        even, arc = equal_steps(points), equal_steps(between)
        density, best = np.asarray(self.prob(even)).mean(1), np.asarray(self.prob(arc)).mean(1)
        return {
            "density": FRAMES * density,
            "density_metric_speed": FRAMES * np.asarray(self.prob(points)).mean(1),
            "share": density / best,
            "to_the_arc": np.sqrt(((even - arc) ** 2).sum(-1).mean(1)),
        }


def on_arc(angle: np.ndarray) -> np.ndarray:
    """Points of the semicircle."""
    return RADIUS * np.stack([np.cos(angle), np.sin(angle)], -1)


def exact(density: Density, quick: bool) -> dict[str, dict[str, Callable[[], AbstractMetric]]]:
    """For each metric its settings, with a function that makes it."""
    score, data = density.score, density.data[:1000]
    ratios = (100.0,) if quick else (100.0, 1e3, 1e4)
    found = {
        "Stein": {f"ratio {r:g}": functools.partial(stein, score, data, r) for r in ratios},
    }
    if quick:
        return found
    found["power of p"] = {f"ratio {r:g}": functools.partial(ConformalMetric.power, score, data, r) for r in ratios}
    found["score Jacobian"] = {
        f"strength {s:g}": functools.partial(ScoreJacobianMetric, score, 1.0, s) for s in (100.0, 1e3)
    }
    found["energy"] = {f"ratio {r:g}": functools.partial(ConformalMetric.energy, score, data, r) for r in (10.0, 30.0)}
    found["score norm"] = {
        f"ratio {r:g}": functools.partial(ConformalMetric.score_norm, score, data, r) for r in (5.0, 30.0)
    }
    found["LAND"] = {
        f"bandwidth {h:g}, ratio {r:g}": functools.partial(LandMetric.fit, data, h, r)
        for h, r in ((1.0, 10.0), (1.0, 100.0), (2.0, 100.0))
    }
    found["RBF"] = {
        f"spread {s:g}, ratio {r:g}": functools.partial(RbfMetric.fit, data, 30, r, spread=s)
        for s, r in ((1.0, 10.0), (1.0, 100.0), (2.0, 100.0))
    }
    return found


def learned(density: Density, steps: int) -> dict[str, dict[str, Callable[[], AbstractMetric]]]:
    """The same of a score that a network learned from the sample."""
    from scoregeo.diffusion import FitConfig, fit

    config = FitConfig(steps=steps, batch_size=256, width=64, depth=3, reference_size=4000, seed=SEED)
    model, data = fit(jnp.asarray(density.data), config), density.data[:1000]
    levels = [(s, model.score_at(s)) for s in (0.2, 0.5)]
    return {
        "Stein": {
            f"sigma {s:g}, ratio {r:g}": functools.partial(stein, score, data, r) for s, score in levels for r in (1e3,)
        },
        "power of p": {
            f"sigma {s:g}, ratio {r:g}": functools.partial(ConformalMetric.power, score, data, r)
            for s, score in levels
            for r in (1e3,)
        },
    }


def stein(score, data: np.ndarray, ratio: float) -> SteinMetric:
    """The Stein metric of a ratio."""
    return SteinMetric(score, recommend_strength(SteinMetric, score, data, ratio=ratio))


def follow(
    table: Table,
    name: str,
    density: Density,
    method: str,
    settings: dict,
    pairs: dict[str, int],
    solver: SpectralNewton,
) -> None:
    """The rows of a metric: one for each setting on the tuning pairs, and those of the best one for both kinds of
    ends."""
    chosen, best = "", -np.inf
    for setting, make in settings.items():
        row = f"{name}/{method}/{TUNING}/{setting}".replace(" ", "_")
        if row not in table:
            paths, xs, ys = between(density, make(), "arc", TUNING, pairs[TUNING], solver)
            add(table, row, density, paths, xs, ys, setting, TUNING)
        score = value(table.rows, row, "share")
        chosen, best = (setting, score) if score > best else (chosen, best)
    for ends in ENDS:
        row = f"{name}/{method}/{ends}".replace(" ", "_")
        if row not in table:
            paths, xs, ys = between(density, settings[chosen](), ends, REPORTED, pairs[ends], solver)
            add(table, row, density, paths, xs, ys, chosen, REPORTED)


def between(
    density: Density, metric: AbstractMetric, ends: str, split: str, n: int, solver: SpectralNewton
) -> tuple[Paths, ...]:
    """Geodesics of ``n`` pairs, and the pairs."""
    xs, ys = density.pairs(ends, split, n)
    return solve(metric, xs, ys, solver=solver, batch=100, times=TIMES), xs, ys


def add(table: Table, row: str, density: Density, paths: Paths, xs, ys, setting: str, split: str) -> None:
    """Figures of all paths, those that did not converge included."""
    figures = density.figures(paths.points, xs, ys)
    table.add(row, figures, converged=paths.converged.mean(), seconds=paths.seconds, setting=setting, split=split)
    print(row, {k: round(float(v.mean()), 4) for k, v in figures.items()}, paths.converged.mean(), flush=True)


def run(table: Table, quick: bool) -> None:
    """All rows that are not there."""
    # What a family cannot reach is in the setting; a warning for each would say so again.
    warnings.filterwarnings("ignore", message="`ratio`")
    pairs = {TUNING: 8, "arc": 8, "samples": 8} if quick else {TUNING: 100, "arc": 1000, "samples": 200}
    for name in ("UCG",) if quick else ("UCG", "WCG"):
        density = Density(name)
        for ends in ENDS:
            xs, ys = density.pairs(ends, REPORTED, pairs[ends])
            t = np.linspace(0, 1, TIMES)[None, :, None]
            line = Paths((1 - t) * xs[:, None] + t * ys[:, None], xs, np.ones(len(xs)), 0.0)
            if f"{name}/exact/straight/{ends}" not in table:
                add(table, f"{name}/exact/straight/{ends}", density, line, xs, ys, "", REPORTED)
        for method, settings in exact(density, quick).items():
            follow(table, f"{name}/exact", density, method, settings, pairs, QUICK if quick else SOLVER)
    if quick:
        return
    for name in ("UCG", "WCG"):
        density = Density(name)
        for method, settings in learned(density, 2500).items():
            follow(
                table, f"{name}/learned", density, method, settings, {TUNING: 100, "arc": 200, "samples": 100}, SOLVER
            )


def methods(rows: list[dict[str, str]], name: str, kind: str) -> Iterator[str]:
    """Of a table, in its order."""
    seen = [row["row"].split("/") for row in rows if row["split"] == REPORTED and row["figure"] == "share"]
    return (method for n, k, method, ends in seen if (n, k, ends) == (name, kind, "arc"))


def tables(rows: list[dict[str, str]]) -> dict[str, str]:
    """What the page shows."""
    return {name: _table(rows, name) for name in ("UCG", "WCG")}


def _table(rows: list[dict[str, str]], name: str) -> str:
    lines = [
        "| score | metric | setting | density | at metric speed | share of the arc | to the arc "
        "| pairs | converged | ends sampled: density | pairs | converged |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for kind in ("exact", "learned"):
        for method in methods(rows, name, kind):
            row = f"{name}/{kind}/{method}/arc"
            line = next(line for line in rows if line["row"] == row)
            cells = [kind, method.replace("_", " "), line["setting"] or "–"]
            cells += [with_error(rows, row, figure) for figure in ("density", "density_metric_speed", "share")]
            cells += [with_error(rows, row, "to_the_arc"), line["pairs"], f"{float(line['converged']):.3f}"]
            other = next(line for line in rows if line["row"] == row[:-3] + "samples")
            cells += [with_error(rows, other["row"], "density"), other["pairs"], f"{float(other['converged']):.3f}"]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def with_error(rows: list[dict[str, str]], row: str, figure: str) -> str:
    """A mean and its standard error."""
    return f"{value(rows, row, figure):.3f} ± {value(rows, row, figure, 'standard_error'):.3f}"


def figure(rows: list[dict[str, str]]):
    """Share of the density of the arc, and distance to it, for each metric and both densities."""
    from matplotlib.figure import Figure

    names = [name for name in ("UCG", "WCG") if any(row["row"].startswith(name) for row in rows)]
    page = Figure(figsize=(8.4, 3.8), layout="constrained")
    left, right = page.subplots(1, 2, sharey=True)
    labels = [(kind, method) for kind in ("exact", "learned") for method in methods(rows, names[0], kind)]
    for k, name in enumerate(names):
        for ax, what in ((left, "share"), (right, "to_the_arc")):
            for place, (kind, method) in enumerate(labels):
                row = f"{name}/{kind}/{method}/arc"
                if not any(line["row"] == row for line in rows):
                    continue
                mean, error = (value(rows, row, what, column) for column in ("mean", "standard_error"))
                y, style = -place - 0.15 + 0.3 * k, {"color": COLOURS[k], "marker": "os"[k], "markersize": 5}
                ax.errorbar(mean, y, xerr=2 * error, label=name if place == 0 else None, **style)
    left.set_yticks(-np.arange(len(labels)), [f"{m.replace('_', ' ')} ({k})" for k, m in labels], fontsize=9)
    left.axvline(1.0, color="#999999", linewidth=0.8, zorder=0)
    left.set_xlabel("density, as a share of the arc's")
    right.set_xlabel("root mean square distance to the arc")
    right.set_xlim(left=0)
    right.legend(frameon=False, loc="lower right")
    for ax in (left, right):
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="x", color="#e4e4e4", linewidth=0.8)
        ax.set_axisbelow(True)
    return page


if __name__ == "__main__":
    main(__doc__, NAME, SEED, run, figure)
