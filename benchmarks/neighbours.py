"""Distances at scale: 1,797 digits of 8 x 8 pixels, the score of a network, and the nearest neighbours in its metrics.

For each metric: seconds for bounds of all pairs on the graph, how far they are above solved distances, and for
`nearest` the share of pairs that were never solved, and the seconds against those of solving every pair. The latter are
measured on a sample of pairs and extrapolated. Compile time is left out: every program runs once before.

    uv run python benchmarks/neighbours.py --queries 200 --equal 20 --out benchmarks/results/neighbours.csv
"""

import argparse
import dataclasses
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
from interpolation import trained
from timing import write_rows

from scoregeo import RESULTS, ConformalMetric, ScoreJacobianMetric, SteinMetric, recommend_strength
from scoregeo.datasets import digits
from scoregeo.diffusion import FitConfig
from scoregeo.geodesics.base import default_solver
from scoregeo.statistics import graph_dist, nearest

K, NEIGHBORS = 10, 10


def metrics(model, points, sigma: float) -> dict:
    """Two metrics that are Euclid's plus something, one of them for a contrast at which that is seen, and a power."""
    score = model.score_at(sigma)
    return {
        "Stein, ratio 10": SteinMetric(score, recommend_strength(SteinMetric, score, points, ratio=10.0)),
        "Stein, ratio 100": SteinMetric(score, recommend_strength(SteinMetric, score, points, ratio=100.0)),
        "score Jacobian, strength 10": ScoreJacobianMetric(score, sigma, 10.0),
        "score Jacobian, strength 100": ScoreJacobianMetric(score, sigma, 100.0),
        "power of p, ratio 1000": ConformalMetric.power(score, points, 1e3),
    }


def timed(function):
    """What ``function`` returns, and the seconds it took."""
    start = time.perf_counter()
    found = function()
    return found, time.perf_counter() - start


def study(name: str, metric, points, options) -> dict:
    """One row."""
    random = np.random.default_rng(0)
    n = len(points)
    solver = dataclasses.replace(default_solver(metric, length_only=True), rtol=options.rtol)
    batch = {"solver": solver, "batch_size": options.batch_size}
    row = {"metric": name, "points": n, "dimension": points.shape[1], "k": K, "rtol": options.rtol}
    graph_dist(metric, points[:100], NEIGHBORS)
    graph, row["graph_seconds"] = timed(lambda: graph_dist(metric, points, NEIGHBORS))
    row["graph_median_edge_error"] = float(np.median(graph.errors / graph.lengths))

    pairs = random.integers(n, size=(options.pairs, 2))
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    refine = {"solver": solver, "batch_size": min(options.batch_size, len(pairs))}
    graph.refine(pairs, **refine)
    found, seconds = timed(lambda: graph.refine(pairs, **refine))
    good = np.asarray(found.result == RESULTS.successful)
    on_graph, bound = (b[good] / found.distances[good] for b in (found.bounds, graph.bounds(pairs)))
    row |= {
        "pairs": len(pairs),
        "solved": float(good.mean()),
        "from_graph": float(found.from_graph.mean()),
        "graph_over_distance_least": float(on_graph.min()),
        "graph_over_distance_median": float(np.median(on_graph)),
        "bound_over_distance_least": float(bound.min()),
        "bound_over_distance_median": float(np.median(bound)),
        "seconds_per_pair": seconds / len(pairs),
    }
    queries = points[random.permutation(n)[: options.queries]] + 0.05 * random.normal(size=(options.queries, 64))
    nearest(metric, points[:50], queries[:3], K, neighbors=NEIGHBORS, **batch)
    neighbours, row["nearest_seconds"] = timed(
        lambda: nearest(metric, points, queries, K, neighbors=NEIGHBORS, progress=True, **batch)
    )
    row |= {
        "queries": len(queries),
        "pruned": float(neighbours.pruned.mean()),
        "failed": int(neighbours.failed.sum()),
        "brute_seconds_extrapolated": row["seconds_per_pair"] * n * len(queries),
    }
    row["faster"] = row["brute_seconds_extrapolated"] / row["nearest_seconds"]
    equal = []
    for i in range(options.equal):
        brute = nearest(metric, points, queries[i : i + 1], K, neighbors=NEIGHBORS, prune=False, **batch)
        equal.append(bool((brute.indices[0] == neighbours.indices[i]).all()))
    return row | {"equal": sum(equal), "compared": len(equal)}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--equal", type=int, default=0, help="queries that are solved for every pair, to compare")
    parser.add_argument("--pairs", type=int, default=200, help="on which bounds are compared with distances")
    parser.add_argument("--points", type=int, default=1797)
    parser.add_argument("--steps", type=int, default=2000, help="of training")
    parser.add_argument("--sigma", type=float, default=0.3)
    parser.add_argument("--rtol", type=float, default=1e-3)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--only", nargs="+", help="metrics")
    parser.add_argument("--single", action="store_true", help="float32")
    parser.add_argument("--models", type=pathlib.Path, default=pathlib.Path("scoregeo-models"))
    parser.add_argument("--out", type=pathlib.Path)
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", not options.single)
    data = digits()
    config = FitConfig(steps=options.steps, batch_size=128, learning_rate=1e-3, width=256, depth=3)
    model = trained(options.models / f"neighbours-{options.steps}", data, config)
    points = jnp.asarray(data.points, jnp.result_type(float))
    points = points[np.sort(np.random.default_rng(1).permutation(len(points))[: options.points])]
    rows = []
    for name, metric in metrics(model, points, options.sigma).items():
        if options.only and name not in options.only:
            continue
        rows.append(study(name, metric, points, options))
        print(rows[-1], flush=True)
        write_rows(options.out, rows)


if __name__ == "__main__":
    main()
