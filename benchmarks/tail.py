"""The tail: random problems one by one at default settings, also while other processes keep the cores busy.

Mixtures of four Gaussians with full covariances, end points sampled from them, strengths 10^U(-2, 2.5). Prints for each
dimension the share that converged and the median, 95th percentile and maximum of seconds and of metric evaluations.

    uv run python benchmarks/tail.py --dimensions 2 10 30 --problems 300 --busy 2
"""

import argparse
import contextlib
import pathlib
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from scoregeo import RESULTS, GaussianMixtureScore, SpectralNewton, SteinMetric, geodesic
from scoregeo.geodesics.base import default_solver

sys.path.append(str(pathlib.Path(__file__).parent / "science"))
from reliability import four_normals

jax.config.update("jax_enable_x64", True)


def random_problem(d: int, seed: int) -> tuple[SteinMetric, jax.Array, jax.Array]:
    """The metric of a mixture of `four_normals`, and two points."""
    random = np.random.default_rng((d, seed))
    means, covariances = four_normals(d, random)
    ends = [random.multivariate_normal(means[i], covariances[i]) for i in random.integers(4, size=2)]
    strength = 10 ** random.uniform(-2, 2.5)
    weights = random.dirichlet(np.full(4, 3.0))
    return SteinMetric(GaussianMixtureScore(weights, means, covariances), strength), *map(jnp.asarray, ends)


@contextlib.contextmanager
def busy(processes: int):
    """So many processes that do nothing but keep a core each busy."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def solve_all(d: int, problems: int, solver: SpectralNewton | None, length_only: bool) -> list[dict]:
    """What each of the random problems took; they share one program."""

    @jax.jit
    def solve(metric, x, y):
        how = default_solver(metric, length_only=length_only) if solver is None else solver
        return geodesic(metric, x, y, solver=how, ts=(0.0, 1.0), throw=False)

    rows = []
    for seed in range(problems):
        metric, x, y = random_problem(d, seed)
        if not rows:
            jax.block_until_ready(solve(metric, x, y))
        start = time.perf_counter()
        found = jax.block_until_ready(solve(metric, x, y))
        rows.append(
            {
                "seconds": time.perf_counter() - start,
                "evaluations": int(found.stats["metric_evaluations"]),
                "steps": int(found.stats["newton_steps"]),
                "elements": int(found.stats["elements"]),
                "converged": bool(found.result == RESULTS.successful),
                "error": float(found.error / found.length),
                "strength": float(metric.strength),
                "length": float(found.length),
                "seed": seed,
            }
        )
    return rows


def describe(name: str, rows: list[dict]) -> None:
    """Print one line for a set of problems."""
    print(f"{name:24s} converged {np.mean([row['converged'] for row in rows]):.4f}", end="")
    for key in ("seconds", "evaluations"):
        values = np.array([row[key] for row in rows])
        median, late, worst = np.median(values), np.quantile(values, 0.95), values.max()
        print(f" | {key} median {median:.4g}, 95th {late:.4g} ({late / median:.1f}x)", end="")
        print(f", worst {worst:.4g} ({worst / median:.0f}x)", end="")
    print(flush=True)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dimensions", type=int, nargs="+", default=[2, 10, 30])
    parser.add_argument("--problems", type=int, default=300)
    parser.add_argument("--busy", type=int, default=0, help="processes that keep a core busy each")
    parser.add_argument("--rtol", type=float, help="default: that of the default solver")
    parser.add_argument("--lengths", action="store_true", help="ask for lengths alone, as `dist` does")
    parser.add_argument("--worst", type=int, default=0, help="list so many of the slowest")
    options = parser.parse_args()
    solver = None if options.rtol is None else SpectralNewton(rtol=options.rtol, path_rtol=1.0)
    with busy(options.busy):
        for d in options.dimensions:
            rows = solve_all(d, options.problems, solver, options.lengths)
            describe(f"d = {d}", rows)
            for row in sorted(rows, key=lambda row: -row["evaluations"])[: options.worst]:
                print("  ", {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()})


if __name__ == "__main__":
    main()
