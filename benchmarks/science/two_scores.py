"""Two scores of the same data: do Stein distances order pairs as Fisher-Rao distances do?

A mixture of normals is fitted to each of several real sets. Its components are points of two spaces: their means, in
data space with the Stein metric of the mixture's score, and the components themselves, among all normal distributions
with the Fisher-Rao metric. And in the mean over the data the Stein metric is Fisher information: for the location
family p(x - theta), E[G] = I + strength F. So for pairs of data, too, there are two distances: along geodesics, and by
that one matrix. Rank correlations, with intervals, at several noise levels: noise of sigma is added to the data, so to
every covariance.

    uv run python benchmarks/science/two_scores.py
    uv run python benchmarks/science/two_scores.py --quick --out /tmp/two_scores.csv
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
from _study import COLOURS, QUICK, Estimate, Table, main, value

from scoregeo import GaussianMixtureScore, SpectralNewton, SteinMetric, recommend_strength
from scoregeo.comparison import Comparison, Entry, compare
from scoregeo.datasets import real
from scoregeo.fisher_rao import MultivariateNormal, location_fisher, wasserstein

NAME, SEED = "two_scores", 0
SETS = ("iris", "wine", "breast_cancer", "digits")
DIM, COMPONENTS, PAIRS = 4, 10, 100
LEVELS, RATIO = (0.0, 0.3, 1.0), 100.0
SOLVER = SpectralNewton(rtol=1e-3, path_rtol=1.0, max_elements=4, degree=16, continuation=6, adaptations=2)


def fitted(name: str) -> tuple[np.ndarray, GaussianMixtureScore]:
    """The set as its first four principal components, scaled together to variance one, and the mixture."""
    points = np.asarray(real(name).points, float)
    points = points - points.mean(0)
    _, _, axes = np.linalg.svd(points, full_matrices=False)
    points = points @ axes[:DIM].T
    points = points / points.std()
    score, _ = GaussianMixtureScore.fit(
        points, COMPONENTS, key=jax.random.key(SEED), max_steps=1000, tolerance=1e-5, floor=3e-2
    )
    return points, score


def parameters(score: GaussianMixtureScore) -> tuple[np.ndarray, np.ndarray]:
    """Weights and covariances of the components."""
    lower = jnp.linalg.inv(score.whitenings)
    return np.exp(np.asarray(score.log_weights)), np.asarray(lower @ lower.transpose(0, 2, 1))


def among_components(score: GaussianMixtureScore, data: np.ndarray, ratio: float, solver: SpectralNewton) -> Comparison:
    """Four distances between all pairs of components."""
    family, (_, covs) = MultivariateNormal(DIM), parameters(score)
    thetas = jax.vmap(family.pack)(score.means, jnp.asarray(covs))
    metrics = {
        "Euclid": Entry(lambda x, y: jnp.linalg.norm(x - y)),
        "Stein": SteinMetric(score, recommend_strength(SteinMetric, score, data, ratio=ratio)),
        "Fisher_Rao": Entry(family.dist, thetas),
        "Wasserstein": Entry(lambda x, y: wasserstein(*x, *y), (score.means, jnp.asarray(covs))),
    }
    return compare(score.means, metrics=metrics, solver=solver, seed=SEED)


def among_data(score: GaussianMixtureScore, data: np.ndarray, ratio: float) -> Comparison:
    """Stein distances of random pairs of data, and those by the mean of the metric."""
    random = np.random.default_rng(SEED)
    chosen = np.stack([random.choice(len(data), 2, replace=False) for _ in range(PAIRS)])
    strength = recommend_strength(SteinMetric, score, data, ratio=ratio)
    information = location_fisher(score, score.sample(jax.random.key(SEED), 20_000)).matrix
    mean_metric = jnp.eye(DIM) + strength * information
    metrics = {
        "Euclid": Entry(lambda x, y: jnp.linalg.norm(x - y)),
        "Stein": SteinMetric(score, strength),
        "mean_metric": Entry(lambda x, y: jnp.sqrt((x - y) @ mean_metric @ (x - y))),
    }
    xs, ys = (jnp.asarray(data[chosen[:, k]]) for k in (0, 1))
    return compare(xs, ys, metrics=metrics, solver=SOLVER, seed=SEED)


def figures(found: Comparison) -> dict[str, Estimate]:
    """Rank correlations of each two distances with the ends of their intervals of 95%, and those of Stein and another
    at fixed Euclidean distance."""
    pairs, made = int(found.complete.sum()), {}
    rank = found.spearman
    for i, first in enumerate(found.names):
        for j, second in enumerate(found.names[:i]):
            error = (rank.high[i, j] - rank.low[i, j]) / 3.92
            for end, part in (("", rank.values), ("_low", rank.low), ("_high", rank.high)):
                made[f"{second}_{first}{end}"] = Estimate(part[i, j], error, pairs)
    euclid, stein = found.names.index("Euclid"), found.names.index("Stein")
    for k, name in enumerate(found.names):
        if k not in (euclid, stein):
            a, b, c = rank.values[stein, k], rank.values[stein, euclid], rank.values[k, euclid]
            partial = (a - b * c) / np.sqrt((1 - b**2) * (1 - c**2))
            made[f"Stein_{name}_given_Euclid"] = Estimate(partial, 1 / np.sqrt(pairs - 4), pairs)
    return made


def run(table: Table, quick: bool) -> None:
    """All rows that are not there."""
    for name in SETS[:1] if quick else SETS:
        data, score = fitted(name)
        settings = [(sigma, RATIO) for sigma in LEVELS]
        for sigma, ratio in settings[:1] if quick else settings:
            noised = score.noised(1.0, sigma)
            for kind in ("components",) if quick else ("components", "data"):
                row = f"{name}/{kind}/{sigma:g}/{ratio:g}"
                if row in table:
                    continue
                began = time.perf_counter()
                noisy = data + sigma * np.random.default_rng(SEED).normal(size=data.shape)
                if kind == "components":
                    found = among_components(noised, noisy, ratio, QUICK if quick else SOLVER)
                else:
                    found = among_data(noised, noisy, ratio)
                seconds = (time.perf_counter() - began) / len(found.table)
                setting = f"sigma {sigma:g}, ratio {ratio:g}"
                table.add(row, figures(found), converged=found.complete.mean(), seconds=seconds, setting=setting)
                print(row, found.complete.mean(), np.round(found.spearman.values, 2).tolist(), flush=True)


def tables(rows: list[dict[str, str]]) -> dict[str, str]:
    """What the page shows."""
    names = list(dict.fromkeys(line["row"].split("/")[0] for line in rows))
    lines = [
        "| set | noise level | Stein, Fisher–Rao | at fixed Euclidean distance | Stein, Euclid | Fisher–Rao, Euclid "
        "| pairs of components | data: Stein, mean metric |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in names:
        for sigma in LEVELS:
            row, other = (f"{name}/{kind}/{sigma:g}/{RATIO:g}" for kind in ("components", "data"))
            cells = [name.replace("_", " "), f"{sigma:g}", interval(rows, row, "Stein_Fisher_Rao")]
            cells += [f"{value(rows, row, 'Stein_Fisher_Rao_given_Euclid'):.2f}".replace("-", "−")]
            cells += [interval(rows, row, figure) for figure in ("Euclid_Stein", "Euclid_Fisher_Rao")]
            cells.append(
                next(line["pairs"] for line in rows if (line["row"], line["figure"]) == (row, "Stein_Fisher_Rao"))
            )
            lines.append("| " + " | ".join([*cells, interval(rows, other, "Stein_mean_metric")]) + " |")
    return {"correlations": "\n".join(lines) + "\n"}


def interval(rows: list[dict[str, str]], row: str, figure: str) -> str:
    """A correlation and its interval."""
    middle, low, high = (value(rows, row, figure + end) for end in ("", "_low", "_high"))
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]".replace("-", "−")


def figure(rows: list[dict[str, str]]):
    """Rank correlations against the noise level, one line for each set."""
    from matplotlib.figure import Figure

    page = Figure(figsize=(9.6, 3.6), layout="constrained")
    axes = page.subplots(1, 3, sharey=True)
    shown = (
        ("components", "Stein_Fisher_Rao", "components: Stein, Fisher–Rao"),
        ("components", "Stein_Wasserstein", "components: Stein, Wasserstein"),
        ("data", "Stein_mean_metric", "data: Stein, mean metric"),
    )
    names = list(dict.fromkeys(line["row"].split("/")[0] for line in rows))
    have = {line["row"] for line in rows}
    for ax, (kind, what, title) in zip(axes, shown, strict=True):
        for k, name in enumerate(names):
            places = [i for i, sigma in enumerate(LEVELS) if f"{name}/{kind}/{sigma:g}/{RATIO:g}" in have]
            if not places:
                continue
            ends = [
                [value(rows, f"{name}/{kind}/{LEVELS[i]:g}/{RATIO:g}", what + end) for i in places]
                for end in ("", "_low", "_high")
            ]
            middle, low, high = np.array(ends)
            x = np.array(places) + 0.08 * (k - 2)
            style = {"color": COLOURS[k], "marker": "os^Dv"[k], "markersize": 5, "linewidth": 1.2}
            label = name.replace("_", " ")
            ax.errorbar(x, middle, yerr=[middle - low, high - middle], label=label, elinewidth=0.8, **style)
        ax.set_title(title, fontsize=11)
        ax.set_xticks(range(len(LEVELS)), [f"{sigma:g}" for sigma in LEVELS])
        ax.axhline(0, color="#999999", linewidth=0.8)
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", color="#e4e4e4", linewidth=0.8)
        ax.set_axisbelow(True)
    page.supxlabel("noise level, in standard deviations of the data", fontsize=10)
    axes[0].set_ylabel("rank correlation, 95% intervals")
    axes[0].set_ylim(top=1.02)
    axes[-1].legend(frameon=False, loc="lower right", fontsize=9)
    return page


if __name__ == "__main__":
    main(__doc__, NAME, SEED, run, figure)
