"""Batches: many pairs under `jax.vmap` against one at a time, and what one hard pair costs a batch of easy ones."""

import time

import jax
import jax.numpy as jnp
import numpy as np
from problems import problems
from timing import compiled, in_turns, median_seconds

from scoregeo import RESULTS, KernelDensityScore, SpectralNewton, geodesic

RTOL = 1e-5


def _solve(metric, x, y):
    """Length, whether it is good, elements and metric evaluations of the geodesic between two points."""
    found = geodesic(metric, x, y, solver=SpectralNewton(rtol=RTOL, path_rtol=1.0), ts=(0.0, 1.0), throw=False)
    return found.length, found.result == RESULTS.successful, found.stats["elements"], found.stats["metric_evaluations"]


_solve_all = jax.vmap(_solve, (None, 0, 0))


def sampled_pairs(name: str, pairs: int, seed: int = 0):
    """The metric of a problem and random pairs of points from its density; for a network, whose score belongs to none,
    from a standard normal distribution."""
    (problem,) = problems([name])
    random = np.random.default_rng(seed)
    points = random.standard_normal((2, pairs, problem.d))
    if isinstance(problem.score, KernelDensityScore):
        # A sample of a kernel density estimate is one of its points plus noise.
        data = np.asarray(problem.score.data)
        points = data[random.integers(len(data), size=(2, pairs))] + float(problem.score.bandwidth) * points
    return problem.metric, *map(jnp.asarray, points)


def throughput(name: str, pairs: int = 2000, alone: int = 100) -> dict:
    """Seconds a pair: ``alone`` of them one at a time, and all at once."""
    metric, x, y = sampled_pairs(name, pairs)
    one, one_compile = compiled(_solve, metric, x[0], y[0])
    batch, batch_compile = compiled(_solve_all, metric, x, y)
    ends = [(jnp.asarray(a), jnp.asarray(b)) for a, b in zip(x[:alone], y[:alone], strict=True)]
    jax.block_until_ready(one(metric, *ends[0]))
    times = []
    for a, b in ends:
        start = time.perf_counter()
        jax.block_until_ready(one(metric, a, b))
        times.append(time.perf_counter() - start)
    together = median_seconds(batch, metric, x, y, repeats=3) / pairs
    lengths, good, elements, _ = batch(metric, x, y)
    differences = [abs(float(one(metric, a, b)[0]) / float(lengths[i]) - 1) for i, (a, b) in enumerate(ends)]
    return {
        "metric": name,
        "pairs": pairs,
        "not_converged": int(jnp.sum(~good)),
        "elements": {str(k): int(jnp.sum(elements == k)) for k in sorted(set(np.asarray(elements).tolist()))},
        "alone_seconds_mean": float(np.mean(times)),
        "alone_seconds_median": float(np.median(times)),
        "together_seconds": together,
        # The mean, as that is what a loop over all pairs would cost.
        "ratio": float(np.mean(times)) / together,
        "largest_difference": max(differences),
        "compile_seconds": {"one": one_compile["wall"], "batch": batch_compile["wall"]},
    }


def stall(name: str, pairs: int = 256) -> dict:
    """A batch of the easiest of four times as many random pairs, and the same with one replaced by the hardest of them;
    easy and hard by the number of metric evaluations."""
    metric, x, y = sampled_pairs(name, 4 * pairs)
    batch, _ = compiled(_solve_all, metric, x[:pairs], y[:pairs])
    blocks = [batch(metric, x[i : i + pairs], y[i : i + pairs]) for i in range(0, 4 * pairs, pairs)]
    _, good, elements, evaluations = (np.concatenate(part) for part in zip(*blocks, strict=True))
    order = np.argsort(np.where(good, evaluations, 0), stable=True)
    hard, order = order[-1], order[np.isin(order, np.flatnonzero(good))]
    easy = order[:pairs]
    mixed = easy.copy()
    mixed[pairs // 2] = hard
    one, _ = compiled(_solve, metric, x[0], y[0])
    x_easy, y_easy, x_mixed, y_mixed, x_hard, y_hard = x[easy], y[easy], x[mixed], y[mixed], x[hard], y[hard]
    easy_seconds, mixed_seconds, alone = in_turns(
        lambda: batch(metric, x_easy, y_easy),
        lambda: batch(metric, x_mixed, y_mixed),
        lambda: one(metric, x_hard, y_hard),
    )
    return {
        "metric": name,
        "pairs": pairs,
        "elements_easy": int(elements[easy].max()),
        "elements_hard": int(elements[hard]),
        "evaluations_easy_mean": float(evaluations[easy].mean()),
        "evaluations_hard": int(evaluations[hard]),
        "easy_seconds": easy_seconds,
        "with_hard_seconds": mixed_seconds,
        "hard_alone_seconds": alone,
        "over_easy": mixed_seconds / easy_seconds,
        "over_easy_and_hard_alone": mixed_seconds / (easy_seconds + alone),
    }
