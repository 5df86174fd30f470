"""Reliability: ten thousand random boundary problems at default settings. How many converge, and is one of them wrong?

Problems are drawn anew for each of the metrics, with exact scores (mixtures of four Gaussians in 1 to 30 dimensions)
and with learned ones (networks, which are no gradient fields). Strengths are 10^U(-3, 3), ratios 10^U(0.1, 6). A solve
that says it converged is judged by what the solver has no part in:

- its length by 64-point Gauss quadrature on each element of its path;
- the path by diffrax: each of 32 pieces is integrated again from where it begins, and must end where it ended.

    uv run python benchmarks/science/reliability.py
    uv run python benchmarks/science/reliability.py --quick --out /tmp/reliability.csv
"""

import time
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from _study import QUICK, Estimate, Table, main

from scoregeo import (
    RESULTS,
    AbstractMetric,
    ConformalMetric,
    GaussianMixtureScore,
    GraphMetric,
    InverseSteinMetric,
    LandMetric,
    PullbackMetric,
    RbfMetric,
    ScoreJacobianMetric,
    StackedSteinMetric,
    SteinMetric,
    geodesic,
    verify,
)
from scoregeo._results import status_name

NAME, SEED, PIECES, NODES = "reliability", 0, 32, 64
PROBLEMS = 160
EXACT, LEARNED = (1, 2, 10, 30), (2, 10)
# A length is wrong that is off by more than so many of its error estimates, or of the default relative accuracy. So is
# a path of which a piece ends somewhere else, or with another velocity, by more than DEFECT of the length, without a
# sign of it in the result: neither its residual (twice the error of a velocity, at the samples) nor the estimated error
# of the path, which is a mean: an error that sits in one piece is sqrt(32) of it, and its peak a few times as much.
ESTIMATES, RTOL, DEFECT, PATH_ESTIMATES = 10.0, 1e-6, 0.01, 40.0
# A path that seems wrong is looked at again in pieces a sixteenth as long: where geodesics run apart fast, errors of a
# right one grow within a piece. Where integration fails, as it does from points at which a path is a hundred thousand
# times as fast as in the mean, only its length is judged.
# A path with a larger residual is rough: its length may be right, but not its velocity at some sample.
ROUGH = 0.1


class Problem(NamedTuple):
    """What a metric is made of: two noise levels of a score, data, a random number in [0, 1] for its strength, and the
    generator of further ones."""

    score: Any
    wider: Any
    sigma: float
    data: np.ndarray
    fraction: float
    random: np.random.Generator

    @property
    def strength(self) -> float:
        """10^U(-3, 3)."""
        return 10 ** (6 * self.fraction - 3)

    @property
    def ratio(self) -> float:
        """10^U(0.1, 6)."""
        return 10 ** (0.1 + 5.9 * self.fraction)


def _feature(x, weights):
    return jnp.tanh(weights @ x)


def _decoder(x, first, second):
    return second @ jnp.tanh(first @ x)


def _graph(p: Problem) -> AbstractMetric:
    d = p.data.shape[1]
    return GraphMetric(_feature, jnp.asarray(p.random.normal(size=(3, d)) / d**0.5), strength=p.strength)


def _pullback(p: Problem) -> AbstractMetric:
    d = p.data.shape[1]
    first, second = p.random.normal(size=(16, d)) / d**0.5, p.random.normal(size=(2 * d + 1, 16)) / 4
    return PullbackMetric(_decoder, jnp.asarray(first), jnp.asarray(second), floor=10 ** (-3 * p.fraction))


def _land(p: Problem) -> AbstractMetric:
    gaps = np.linalg.norm(p.data[:50, None] - p.data[None], axis=2)
    return LandMetric.fit(p.data, float(np.median(gaps)) / 2, p.ratio)


METRICS: dict[str, Callable[[Problem], AbstractMetric]] = {
    "Stein": lambda p: SteinMetric(p.score, p.strength),
    "inverse_Stein": lambda p: InverseSteinMetric(p.score, p.strength),
    "stacked_Stein": lambda p: StackedSteinMetric([p.score, p.wider], [p.strength, p.strength]),
    "score_Jacobian": lambda p: ScoreJacobianMetric(p.score, p.sigma, p.strength),
    "power_of_p": lambda p: ConformalMetric.power(p.score, p.data, p.ratio),
    "energy": lambda p: ConformalMetric.energy(p.score, p.data, p.ratio),
    "score_norm": lambda p: ConformalMetric.score_norm(p.score, p.data, p.ratio),
    "Stein_and_power": lambda p: SteinMetric(p.score, p.strength) + ConformalMetric.power(p.score, p.data, p.ratio),
    "graph": _graph,
    "pull-back": _pullback,
    "LAND": _land,
    "RBF": lambda p: RbfMetric.fit(p.data, 20, p.ratio),
}
# These know no score, so that a learned one changes nothing.
SCORELESS = {"graph", "pull-back", "LAND", "RBF"}


def four_normals(d: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Means about 3 apart, and covariances .2 I + A A^T / d with A of standard normals."""
    means = 1.5 * (2 / d) ** 0.5 * random.standard_normal((4, d))
    factors = random.standard_normal((4, d, d)) / d**0.5
    return means, 0.2 * np.eye(d) + factors @ factors.swapaxes(1, 2)


def mixture(d: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, means and covariances of a mixture of `four_normals`."""
    means, covariances = four_normals(d, random)
    return random.dirichlet(np.full(4, 3.0)), means, covariances


def draw(parts: tuple[np.ndarray, np.ndarray, np.ndarray], n: int, random: np.random.Generator) -> np.ndarray:
    """``(n, d)`` samples of a mixture."""
    weights, means, covariances = parts
    factors = np.linalg.cholesky(covariances)
    which = random.choice(len(weights), n, p=weights)
    return means[which] + np.einsum("nij,nj->ni", factors[which], random.standard_normal((n, means.shape[1])))


def exact_problem(d: int, random: np.random.Generator) -> tuple[Problem, np.ndarray]:
    """A mixture of its own, and two points of it."""
    parts = mixture(d, random)
    weights, means, covariances = parts
    scores = (GaussianMixtureScore(weights, means, covariances + c * np.eye(d)) for c in (0.0, 0.5))
    # All noise that the covariances are sure to hold.
    return Problem(*scores, 0.2**0.5, draw(parts, 200, random), random.uniform(), random), draw(parts, 2, random)


def learned(d: int, steps: int):
    """A model of 4,000 points of a mixture, and the mixture."""
    from scoregeo.diffusion import FitConfig, fit

    parts = mixture(d, np.random.default_rng([SEED, d]))
    data = draw(parts, 4000, np.random.default_rng([SEED, d, 1]))
    config = FitConfig(steps=steps, batch_size=256, width=64, depth=3, reference_size=1000, seed=SEED)
    return fit(jnp.asarray(data), config), parts


def learned_problem(model, parts, random: np.random.Generator) -> tuple[Problem, np.ndarray]:
    """Noise levels 10^U(-1, 0), and two points that the model has not seen."""
    sigma = 10 ** random.uniform(-1, 0)
    scores = (model.score_at(sigma), model.score_at(2 * sigma))
    return Problem(*scores, sigma, draw(parts, 200, random), random.uniform(), random), draw(parts, 2, random)


@eqx.filter_jit
def solved(metric: AbstractMetric, x, y, solver, ts):
    """The geodesic that a user gets."""
    return geodesic(metric, x, y, solver=solver, ts=ts, throw=False)


@eqx.filter_jit
def judged(metric: AbstractMetric, path):
    """The length of a path by quadrature on its elements, and the largest defect of its pieces."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    nodes, weights = (nodes + 1) / 2, weights / 2
    breaks = path.curve.breaks
    starts, widths = breaks[:-1], jnp.diff(breaks)

    def speed(t):
        x, v = path.curve(t)
        return metric.at(x).norm(v)

    times = starts[:, None] + widths[:, None] * nodes
    speeds = jax.lax.map(speed, times.ravel(), batch_size=NODES).reshape(times.shape)
    # Elements of no width are not used; nothing there counts.
    length = jnp.sum(jnp.where(widths > 0, widths * (speeds @ weights), 0.0))
    return length, verify(metric, path, max_steps=4096)


KINDS = ("converged", "wrong", "rough", "unintegrated")


class Found(NamedTuple):
    """Of one problem: did it converge, is it wrong all the same, how long did it take, and how far is it off?"""

    converged: bool
    wrong: bool
    rough: bool
    unintegrated: bool
    # Of a processor: what it takes does not depend on what else the machine does.
    seconds: float
    evaluations: int
    status: str
    # Of the length, relative, and relative to the estimate.
    error: float
    of_the_estimate: float
    # Of the path, and relative to the estimate.
    defect: float
    defect_of_the_estimate: float


def outcome(metric: AbstractMetric, x, y, solver) -> Found:
    """Solve one problem and judge it."""
    start = time.process_time()
    path = jax.block_until_ready(solved(metric, x, y, solver, jnp.linspace(0.0, 1.0, PIECES + 1)))
    spent = (time.process_time() - start, int(path.stats["metric_evaluations"]), str(status_name(path.result)))
    if not bool(path.result == RESULTS.successful):
        return Found(False, False, False, False, *spent, *(np.nan,) * 4)
    length, defect = map(float, judged(metric, path))
    found, error = float(path.length), float(path.error)
    off = abs(length - found)
    expected, residual = float(path.stats["path_error"]), float(path.residual)
    told = max(DEFECT, PATH_ESTIMATES * expected, residual)
    if defect > told:
        finer = solved(metric, x, y, solver, jnp.linspace(0.0, 1.0, 16 * PIECES + 1))
        defect = float(judged(metric, finer)[1])
    integrated = np.isfinite(defect)
    right = off <= ESTIMATES * error + RTOL * found and (defect <= told or residual > ROUGH or not integrated)
    if not integrated:
        defect = np.nan
    return Found(
        True, not right, residual > ROUGH, not integrated, *spent, off / found, off / error, defect, defect / expected
    )


def group(name: str, make: Callable, problems: int, solver, seed: list[int]) -> list[Found]:
    """What became of random problems of a metric. Those that cannot be calibrated are drawn again."""
    rows, k = [], 0
    while len(rows) < problems:
        problem, ends = make(np.random.default_rng([SEED, *seed, k]))
        k += 1
        try:
            metric = METRICS[name](problem)
        except ValueError as error:
            print(name, "drawn again:", error)
            continue
        x, y = jnp.asarray(ends)
        if not rows:
            # Compiles.
            outcome(metric, x, y, solver)
        rows.append(outcome(metric, x, y, solver))
        if rows[-1].wrong:
            print("wrong:", name, [SEED, *seed, k - 1], rows[-1], flush=True)
    return rows


def add(table: Table, row: str, rows: list[Found]) -> None:
    """The row of a group."""
    good = [r for r in rows if r.converged]
    relative = {
        f"{figure}_{q}": Estimate(np.quantile(values, q / 100) / np.median(values), np.nan, len(rows))
        for figure, values in (
            ("seconds", np.array([r.seconds for r in rows])),
            ("evaluations", np.array([r.evaluations for r in rows])),
        )
        for q in (95, 99, 100)
    }
    worst = {
        figure: Estimate(float(np.nanmax([getattr(r, figure) for r in good], initial=0.0)), np.nan, len(good))
        for figure in ("error", "of_the_estimate", "defect", "defect_of_the_estimate")
    }
    figures = {name: np.array([getattr(r, name) for r in rows], float) for name in KINDS}
    figures["median_seconds"] = Estimate(float(np.median([r.seconds for r in rows])), np.nan, len(rows))
    figures |= relative | worst
    ended = ", ".join(f"{status} {n}" for status, n in Counter(r.status for r in rows).most_common())
    share, seconds = np.mean(figures["converged"]), np.mean([r.seconds for r in rows])
    table.add(row, figures, converged=share, seconds=seconds, setting=ended)
    print(row, {k: f"{np.mean(getattr(v, 'value', v)):.3g}" for k, v in figures.items()}, ended, flush=True)


def run(table: Table, quick: bool) -> None:
    """All groups that are not there."""
    warnings.filterwarnings("ignore", message=".*`ratio`")
    warnings.filterwarnings("ignore", message=".*far from")
    solver, problems = (QUICK, 3) if quick else (None, PROBLEMS)
    names = list(METRICS)
    for d in (2,) if quick else EXACT:
        for i, name in enumerate(names[:2] if quick else names):
            row = f"{name}/exact/{d}"
            if row not in table:
                add(table, row, group(name, lambda r, d=d: exact_problem(d, r), problems, solver, [i, d, 0]))
    for d in (2,) if quick else LEARNED:
        wanted = [name for name in (names[:1] if quick else names) if name not in SCORELESS]
        if all(f"{name}/learned/{d}" in table for name in wanted):
            continue
        model, parts = learned(d, 50 if quick else 2000)
        for name in wanted:
            row, i = f"{name}/learned/{d}", names.index(name)
            if row not in table:
                make = lambda r, model=model, parts=parts: learned_problem(model, parts, r)  # noqa: E731
                add(table, row, group(name, make, problems, solver, [i, d, 1]))


def groups(rows: list[dict[str, str]]) -> dict[str, dict[str, float]]:
    """The figures of every group, by its row, with the number of its ``problems``."""
    found: dict[str, dict[str, float]] = {}
    for line in rows:
        group = found.setdefault(line["row"], {})
        group[line["figure"]] = float(line["mean"])
        if line["figure"] == "converged":
            group["problems"] = int(line["pairs"])
    return found


# Of the tails of groups, which are a metric in one dimension with scores of one kind, tables have the median.
_TAILS = {"seconds_99": "time: 99th percentile / median", "evaluations_99": "evaluations: the same"}


def tables(rows: list[dict[str, str]]) -> dict[str, str]:
    """What the page shows: a row for each metric, one for each dimension and kind of score, and one for all."""
    found = groups(rows)
    metrics = {name.replace("_", " "): [g for row, g in found.items() if row.split("/")[0] == name] for name in METRICS}
    kinds = {
        f"{kind}, d = {d}": [g for row, g in found.items() if row.endswith(f"/{kind}/{d}")]
        for kind, dimensions in (("exact", EXACT), ("learned", LEARNED))
        for d in dimensions
    }
    return {
        "metrics": _table("metric", metrics),
        "dimensions": _table("scores", kinds),
        "all": _table("", {"all": list(found.values())}),
    }


def _table(heading: str, parts: dict[str, list[dict[str, float]]]) -> str:
    headings = (heading, "problems", "converged", "wrong", "rough", "largest error / estimate", *_TAILS.values())
    lines = ["| " + " | ".join(headings) + " |", "|---" * len(headings) + "|"]
    for name, some in parts.items():
        if some:
            n = sum(g["problems"] for g in some)
            share, wrong, rough = (sum(g[k] * g["problems"] for g in some) for k in ("converged", "wrong", "rough"))
            worst = max(g["of_the_estimate"] for g in some)
            tails = (f"{np.median([g[tail] for g in some]):.0f}" for tail in _TAILS)
            cells = (name, f"{n:.0f}", f"{share / n:.1%}", f"{wrong:.0f}", f"{rough:.0f}", f"{worst:.1f}", *tails)
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def figure(rows: list[dict[str, str]]):
    """Two panels, metrics by dimension and kind of score: the share that converged, and the tail of the time."""
    from matplotlib.figure import Figure

    found = groups(rows)
    wanted = [f"exact/{d}" for d in EXACT] + [f"learned/{d}" for d in LEARNED]
    kinds = [kind for kind in wanted if any(row.endswith(f"/{kind}") for row in found)]
    page = Figure(figsize=(9.4, 5.2), layout="constrained")
    left, right = page.subplots(1, 2, sharey=True)

    def grid(name: str) -> np.ndarray:
        return np.array([[found.get(f"{metric}/{kind}", {}).get(name, np.nan) for kind in kinds] for metric in METRICS])

    _panel(left, "share that converged, %", 100 * grid("converged"), 80, 100, "cividis")
    _panel(right, "time: 99th percentile / median", grid("seconds_99"), 60, 0, "cividis_r")
    for ax in (left, right):
        ax.set_xticks(range(len(kinds)), [kind.replace("/", "\nd = ") for kind in kinds], fontsize=9)
    left.set_yticks(range(len(METRICS)), [name.replace("_", " ") for name in METRICS], fontsize=9)
    return page


def _panel(ax, title: str, grid: np.ndarray, bad: float, good: float, colours: str) -> None:
    """A map of numbers, light where they are good."""
    ax.imshow(grid, cmap=colours, vmin=min(bad, good), vmax=max(bad, good), aspect="auto")
    ax.set_title(title, fontsize=11)
    for (i, j), value in np.ndenumerate(grid):
        if np.isfinite(value):
            dark = abs(value - good) > abs(bad - good) / 2
            ax.text(j, i, f"{value:.3g}", ha="center", va="center", fontsize=8, color="white" if dark else "black")


if __name__ == "__main__":
    main(__doc__, NAME, SEED, run, figure)
