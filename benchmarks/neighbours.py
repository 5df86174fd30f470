"""Distances at scale: 1,797 digits of 8 x 8 pixels, the score of a network, and the nearest neighbours in its metrics.

For each metric: seconds for the graph of all pairs, how far its bounds are above solved distances, the share of pairs
that bounds alone leave out of the search for k neighbours, without any solve (`pruned_at_least`), and for `nearest` the
share that was never solved, and the seconds against those of solving every pair. The latter are measured
on the queries that are compared and extrapolated to all of them, or, where none is compared, on a sample of pairs.
Seconds are those of all cores, which what else the machine does hardly changes; programs are compiled before.

    uv run python benchmarks/neighbours.py --queries 200 --equal 20 --out benchmarks/results/neighbours.csv

With the network and the solver of the defaults a pair takes a tenth to a quarter of a second, and all of it a day, so
that only pairs were measured (`--single --queries 0`). Queries were with a smaller network and less accuracy, seven
minutes of one core for the Stein metric, half an hour for the score Jacobian metric:

    uv run python benchmarks/neighbours.py --width 64 --depth 2 --single --degree 6 --rtol 1e-2 --queries 200 --equal 20

Powers of a density at a ratio of 1000 take seconds a pair (`--pairs 40 --batch-size 8`); at a ratio of 10 there is one
query (`--pairs 20 --batch-size 16 --queries 1`); of a kernel density only what bounds leave out (`--pairs 0`).
"""

import argparse
import csv
import dataclasses
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from interpolation import trained
from scipy.spatial.distance import cdist
from timing import about, write_rows

from scoregeo import (
    RESULTS,
    ConformalMetric,
    KernelDensityScore,
    ScoreJacobianMetric,
    SteinMetric,
    recommend_strength,
)
from scoregeo._atomic import write_npz
from scoregeo.datasets import digits
from scoregeo.diffusion import FitConfig
from scoregeo.geodesics.base import default_solver
from scoregeo.metrics import lifted
from scoregeo.statistics import graph_dist, nearest

K, NEIGHBORS = 10, 10


def metrics(model, points, sigma: float) -> dict:
    """Two metrics that are Euclid's plus something, one of them for a contrast at which that is seen, and powers: of a
    density without a known maximum, and of one that has one."""
    score, kernels = model.score_at(sigma), KernelDensityScore(points, sigma)
    return {
        "Stein, ratio 10": lambda: SteinMetric(score, recommend_strength(SteinMetric, score, points, ratio=10.0)),
        "Stein, ratio 100": lambda: SteinMetric(score, recommend_strength(SteinMetric, score, points, ratio=100.0)),
        "score Jacobian, strength 10": lambda: ScoreJacobianMetric(score, sigma, 10.0),
        "score Jacobian, strength 100": lambda: ScoreJacobianMetric(score, sigma, 100.0),
        "power of p, ratio 10": lambda: ConformalMetric.power(score, points, 10.0),
        "power of p, ratio 1000": lambda: ConformalMetric.power(score, points, 1e3),
        "power of a kernel density, ratio 10": lambda: ConformalMetric.power(kernels, points, 10.0),
        "power of a kernel density, ratio 1000": lambda: ConformalMetric.power(kernels, points, 1e3),
    }


@dataclasses.dataclass
class Kept:
    """What was measured before, so that a run that was interrupted goes on: files in a folder, if one is given."""

    folder: pathlib.Path | None

    def timed(self, name: str, function: Callable[[], dict], warm_up: Callable[[], Any] | None = None):
        """The dictionary of arrays that ``function`` returns, and the seconds of all cores it took after ``warm_up``,
        which compiles."""
        path = self.folder / f"{name}.npz" if self.folder else None
        if path and path.exists():
            with np.load(path) as file:
                found = dict(file)
            return found, float(found.pop("seconds"))
        if warm_up:
            warm_up()
        start = time.process_time()
        found = function()
        seconds = time.process_time() - start
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_npz(path, seconds=seconds, **found)
        return found, seconds


def left_out(graph, lower) -> float:
    """The share of pairs that bounds alone leave out: the k-th nearest of a point is no farther than on the graph."""
    known = np.sort(graph.distances, axis=1)[:, K : K + 1]
    return float((lower > known).sum() / (len(lower) * (len(lower) - 1)))


def bounds(kept: Kept, lower, graph, pairs, batch: dict) -> dict:
    """How far the graph, and the bounds of pairs, are above solved distances, and those from below, below."""
    refine = batch | {"batch_size": min(batch["batch_size"], len(pairs))}

    def solve():
        found = graph.refine(pairs, **refine)
        good = np.asarray(found.result == RESULTS.successful)
        return {"distances": found.distances, "good": good, "from_graph": found.from_graph, "on_graph": found.bounds}

    # From a point to itself there is nothing to solve.
    found, seconds = kept.timed("pairs", solve, lambda: graph.refine(np.zeros_like(pairs), **refine))
    above, bound_seconds = kept.timed("bounds", lambda: {"above": graph.bounds(pairs)}, lambda: graph.bounds(pairs))
    good, distances = found["good"], found["distances"]
    on_graph, bound = (b[good] / distances[good] for b in (found["on_graph"], above["above"]))
    below = lower[*pairs.T][good] / distances[good]
    return {
        "pairs": len(pairs),
        "solved": float(good.mean()),
        "from_graph": float(found["from_graph"].mean()),
        "graph_over_distance_least": float(on_graph.min()),
        "graph_over_distance_median": float(np.median(on_graph)),
        "bound_over_distance_least": float(bound.min()),
        "bound_over_distance_median": float(np.median(bound)),
        "below_over_distance_median": float(np.median(below)),
        "seconds_per_bound": bound_seconds / len(pairs),
        "seconds_per_pair": seconds / len(pairs),
    }


def neighbours(kept: Kept, metric, points, queries, equal: int, batch: dict, per_pair: float):
    """What is pruned, the time that saves, and whether anything is lost: after every query that is compared."""
    batch = batch | {"neighbors": NEIGHBORS}

    def ask(some, **how) -> dict:
        found = nearest(metric, points, some, K, progress=True, **batch, **how)
        return {"indices": found.indices, "pruned": found.pruned, "failed": found.failed}

    def warm_up():
        nearest(metric, points[: K + 40], queries[:3], K, **batch)

    found, seconds = kept.timed(f"nearest-{len(queries)}", lambda: ask(queries), warm_up)
    row = {
        "queries": len(queries),
        "pruned": float(found["pruned"].mean()),
        "pruned_least": float(found["pruned"].min()),
        "failed": int(found["failed"].sum()),
        "nearest_seconds": seconds,
        "brute_seconds_extrapolated": per_pair * len(points) * len(queries),
        "equal": 0,
        "compared": 0,
    }
    yield row | {"faster": row["brute_seconds_extrapolated"] / row["nearest_seconds"]}
    spent = 0.0
    for i in range(min(equal, len(queries))):
        brute, seconds = kept.timed(f"every-{i}", lambda i=i: ask(queries[i : i + 1], prune=False), warm_up)
        spent += seconds
        row["equal"] += int((brute["indices"] == found["indices"][i : i + 1]).all())
        row["compared"] = i + 1
        row["brute_seconds_extrapolated"] = spent * len(queries) / (i + 1)
        yield row | {"faster": row["brute_seconds_extrapolated"] / row["nearest_seconds"]}


def study(name: str, metric, points, options):
    """One row, ever more complete."""
    random = np.random.default_rng(0)
    n = len(points)
    solver = dataclasses.replace(default_solver(metric, length_only=True), rtol=options.rtol, degree=options.degree)
    batch = {"solver": solver, "batch_size": options.batch_size}
    row = {"metric": name, "points": n, "dimension": points.shape[1], "k": K, "rtol": options.rtol}
    row |= {"degree": options.degree, "width": options.width, "depth": options.depth, "precision": str(points.dtype)}
    own = "-".join(str(value) for value in row.values()).replace(" ", "-")
    kept = Kept(options.kept / own if options.kept else None)
    facts = about("jax")
    row |= {"date": facts["date"], "load": round(facts["load"][0], 1)}
    row |= {"cores": facts["cores"], "jax": facts["versions"]["jax"]}
    graph_dist(metric, points, NEIGHBORS, sources=[0])
    start = time.perf_counter(), time.process_time()
    graph = graph_dist(metric, points, NEIGHBORS)
    row["graph_seconds"], row["graph_wall_seconds"] = time.process_time() - start[1], time.perf_counter() - start[0]
    row["graph_median_edge_error"] = float(np.median(graph.errors / graph.lengths))
    lifts = np.asarray(jax.vmap(lambda x: lifted(metric, x))(points), np.float64)
    lower = np.nan_to_num(cdist(lifts, lifts))
    row["pruned_at_least"] = left_out(graph, lower)
    pairs = random.integers(n, size=(options.pairs, 2))
    if options.pairs:
        row |= bounds(kept, lower, graph, pairs[pairs[:, 0] != pairs[:, 1]], batch)
    yield row
    if options.pairs and options.queries:
        queries = points[random.permutation(n)[: options.queries]] + 0.05 * random.normal(size=(options.queries, 64))
        queries = queries.astype(points.dtype)
        for more in neighbours(kept, metric, points, queries, options.equal, batch, row["seconds_per_pair"]):
            yield row | more


SAME = ("metric", "points", "rtol", "degree", "width", "depth", "precision")


def replace_row(rows: list[dict], new: dict) -> list[dict]:
    """``rows`` with ``new`` in the place of the one that was measured of the same, with all columns in all of them."""
    others = [row for row in rows if any(str(row[name]) != str(new[name]) for name in SAME)]
    rows = [*others, new]
    columns = dict.fromkeys(name for row in reversed(rows) for name in row)
    return [{name: row.get(name, "") for name in columns} for row in rows]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--equal", type=int, default=0, help="queries that are solved for every pair, to compare")
    parser.add_argument("--pairs", type=int, default=200, help="on which bounds are compared with distances, if any")
    parser.add_argument("--points", type=int, default=1797)
    parser.add_argument("--steps", type=int, default=2000, help="of training")
    parser.add_argument("--width", type=int, default=256, help="of the network")
    parser.add_argument("--depth", type=int, default=3, help="of the network")
    parser.add_argument("--sigma", type=float, default=0.3)
    parser.add_argument("--rtol", type=float, default=1e-3)
    parser.add_argument("--degree", type=int, default=16, help="of the polynomials of the solver")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--only", nargs="+", help="metrics")
    parser.add_argument("--single", action="store_true", help="float32")
    parser.add_argument("--models", type=pathlib.Path, default=pathlib.Path("scoregeo-models"))
    parser.add_argument("--out", type=pathlib.Path, help="rows of other metrics and settings in it are kept")
    parser.add_argument("--kept", type=pathlib.Path, help="folder of what was measured, from which a run goes on")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", not options.single)
    data = digits()
    config = FitConfig(
        steps=options.steps, batch_size=128, learning_rate=1e-3, width=options.width, depth=options.depth
    )
    name = f"neighbours-{options.steps}-{options.width}x{options.depth}{'-single' if options.single else ''}"
    model = trained(options.models / name, data, config)
    points = jnp.asarray(data.points, jnp.result_type(float))
    points = points[np.sort(np.random.default_rng(1).permutation(len(points))[: options.points])]
    rows = []
    if options.out and options.out.exists():
        with options.out.open(newline="") as file:
            rows = list(csv.DictReader(file))
    for name, metric in metrics(model, points, options.sigma).items():
        if options.only and name not in options.only:
            continue
        for row in study(name, metric(), points, options):
            print(row, flush=True)
            rows = replace_row(rows, row)
            write_rows(options.out, rows)


if __name__ == "__main__":
    main()
