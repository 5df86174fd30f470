"""Score Jacobian geodesics beside Stein's: how far from a curve they run, and what they cost.

    uv run python benchmarks/score_jacobian.py [--dimensions 784 3072] [--learned] [--out NAME.json]

`closed_curve`: a smooth closed curve in R^10 and the exact score of data along it (noise level 0.15), between points 90
and 149 degrees apart; ScoreJacobianMetric at strength 100, SteinMetric at 100 over the mean of |s|^2 on the straight
line. `uneven`: the same curve with data that are 55 times as dense on one side as on the other (noise level 0.2).
`learned` (some minutes of training): the score that a potential network has learned from points of the even curve, at
the noise level 0.15, from straight lines and from a graph through some of these points (`from`). `network`: a random
network minus x (`foundation.network`) in high dimension, noise level 0.5. Two minutes on two idle cores without what is
learned, most of it compiling. Seconds of all cores beside those of the wall, which depend on what else runs.
"""

import argparse
import json
import pathlib
import resource
import time

import jax
import jax.numpy as jnp
import numpy as np
from foundation import network, random_network
from timing import about

from scoregeo import (
    RESULTS,
    FunctionScore,
    GaussianMixtureScore,
    GraphInit,
    KernelDensityScore,
    ScoreJacobianMetric,
    SteinMetric,
    geodesic,
)
from scoregeo.diffusion import FitConfig, fit

jax.config.update("jax_enable_x64", True)

NOISE_LEVEL = 0.15
SEPARATIONS = (np.pi / 2, 2.6)
SEEDS = (0, 1, 2)
UNEVEN_LEVEL = 0.2
NETWORK_LEVEL = 0.5
STRENGTH = 100.0


def closed_curve(angles, seed=2, d=10):
    """Points ``(..., d)`` of a closed curve: three harmonics, each a circle in a random plane."""
    rng = np.random.default_rng(seed)
    angles = np.asarray(angles)[..., None]
    total = 0
    for k in (1, 2, 3):
        plane = np.linalg.qr(rng.normal(size=(d, 2)))[0] / k
        total = total + np.cos(k * angles) * plane[:, 0] + np.sin(k * angles) * plane[:, 1]
    return 1.3 * total / np.sqrt(sum(k**-2.0 for k in (1, 2, 3)))


def points_of_curve(n, seed):
    """The first ``n`` of the points that are learned from."""
    return closed_curve(np.random.default_rng(seed).uniform(0, 2 * np.pi, n), seed)


def distance_to_curve(points, seed=2):
    """The distance of each of ``points`` ``(n, 10)`` to the curve."""
    curve = closed_curve(np.linspace(0, 2 * np.pi, 6001), seed)
    return np.linalg.norm(np.asarray(points)[:, None] - curve, axis=-1).min(1)


def curve_problem(separation, seed=2, score=None, noise_level=NOISE_LEVEL):
    """The metrics by name, and two points of the curve so many radians apart."""
    if score is None:
        score = KernelDensityScore(closed_curve(np.linspace(0, 2 * np.pi, 240, endpoint=False), seed), noise_level)
    x, y = closed_curve(np.array([0.3, 0.3 + separation]), seed)
    return metrics(score, x, y, noise_level), x, y


def uneven_score(seed):
    """The exact score of data whose density is exp(2 cos angle) along the curve."""
    angles = np.linspace(0, 2 * np.pi, 240, endpoint=False)
    weights = np.exp(2 * np.cos(angles - 0.3))
    covs = np.broadcast_to(UNEVEN_LEVEL**2 * np.eye(10), (240, 10, 10))
    return GaussianMixtureScore(weights / weights.sum(), closed_curve(angles, seed), covs)


def learned_score(seed):
    """The score that a potential network learns from 4,000 points of the curve."""
    points = points_of_curve(4000, seed)
    config = FitConfig(
        steps=4000, batch_size=256, learning_rate=2e-3, width=128, depth=3, potential=True, reference_size=4000
    )
    return fit(points.astype(np.float32), config).score_at(NOISE_LEVEL)


def metrics(score, x, y, noise_level):
    """Both metrics; Stein's with a strength that makes it cost about ``1 + STRENGTH`` across the line."""
    squared = jax.vmap(lambda z: jnp.sum(score(z) ** 2))(jnp.asarray(np.linspace(x, y, 65)))
    stein = SteinMetric(score, STRENGTH / float(jnp.mean(squared)))
    return {"stein": stein, "score Jacobian": ScoreJacobianMetric(score, noise_level, STRENGTH)}


def measured(metric, x, y, repeats=5, init=None):
    """The geodesic, and a record of it with the least seconds of ``repeats``."""

    def solve():
        return jax.block_until_ready(geodesic(metric, x, y, init=init, throw=False))

    start = time.perf_counter()
    path = solve()
    record = {"first_call_seconds": time.perf_counter() - start, "wall_seconds": np.inf, "cpu_seconds": np.inf}
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        solve()
        record["wall_seconds"] = min(record["wall_seconds"], time.perf_counter() - wall)
        record["cpu_seconds"] = min(record["cpu_seconds"], time.process_time() - cpu)
    record |= {
        "length": float(path.length),
        "error": float(path.error),
        "converged": bool(path.result == RESULTS.successful),
    }
    record |= {name: float(value) for name, value in path.stats.items()}
    record["peak_megabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return path, record


def main():
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description="Score Jacobian geodesics beside Stein's.")
    parser.add_argument("--dimensions", type=int, nargs="*", default=[784, 3072])
    parser.add_argument("--learned", action="store_true", help="also with a score that is learned first")
    parser.add_argument("--out", type=pathlib.Path)
    arguments = parser.parse_args()
    records = []

    def add(record):
        records.append(record)
        print(json.dumps(record), flush=True)

    def add_curves(problem, seed, init=None, **settings):
        for separation in SEPARATIONS:
            both, x, y = curve_problem(separation, seed, **settings)
            straight = float(distance_to_curve(np.linspace(x, y, 65), seed).mean())
            for name, metric in both.items():
                path, record = measured(metric, x, y, init=init)
                off = float(distance_to_curve(path.points, seed).mean())
                where = {"problem": problem, "seed": seed, "degrees": float(np.degrees(separation))}
                where["from"] = "straight lines" if init is None else "a graph of the data"
                add(where | {"metric": name, "distance": off, "straight": straight} | record)

    for seed in SEEDS:
        add_curves("closed_curve", seed)
    for seed in SEEDS:
        add_curves("uneven", seed, score=uneven_score(seed), noise_level=UNEVEN_LEVEL)
    for seed in SEEDS if arguments.learned else ():
        score = learned_score(seed)
        add_curves("learned", seed, score=score)
        add_curves("learned", seed, score=score, init=GraphInit(points_of_curve(400, seed)))
    for d in arguments.dimensions:
        weights, x, y = random_network(d)
        for name, metric in metrics(FunctionScore(network, *weights), x, y, NETWORK_LEVEL).items():
            add({"problem": "network", "d": d, "metric": name} | measured(metric, x, y, repeats=1)[1])
    if arguments.out:
        results = {"about": about("jax", "jaxlib", "scoregeo"), "records": records}
        arguments.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
