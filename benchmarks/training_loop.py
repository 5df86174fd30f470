"""What a geodesic distance costs in a training loop, in units of the network's own step.

A step of Adam of an encoder (two hidden layers of 64 units) on a batch of 32 pairs, with three losses: the squared
Euclidean distance of the network's answers from their targets; the squared norm of the difference in the metric at its
midpoint, which no solver is needed for; and the squared geodesic distance, with the solver that
docs/in_a_training_loop.md recommends. Median seconds of steps that run in turns, compile time apart.

    uv run python benchmarks/training_loop.py --out benchmarks/results/training-loop.json
"""

import argparse
import json
import pathlib

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from timing import about, compiled, in_turns

from scoregeo import RESULTS, ConformalMetric, FunctionScore, SpectralNewton, SteinMetric, datasets, squared_dist

BATCH = 32
SOLVER = SpectralNewton(rtol=5e-2, path_rtol=1.0, max_elements=1, max_evaluations=20_000)


def problems():
    """Metrics, with pairs of points ``(BATCH, d)`` that a network sees and shall answer."""
    data = datasets.three_modes(jax.random.key(0), 2 * BATCH)
    pairs = data.points[:BATCH], data.points[BATCH:]
    yield "mixture, d = 2, Stein", SteinMetric(data.score, 1.0), pairs
    yield "mixture, d = 2, power of p, ratio 30", ConformalMetric.power(data.score, data.points, ratio=30.0), pairs
    network = eqx.nn.MLP(64, 64, 128, 2, activation=jax.nn.silu, key=jax.random.key(1))
    score = FunctionScore(lambda x, net: net(x) - x, network)
    points = jax.random.normal(jax.random.key(2), (2 * BATCH, 64))
    yield "network of 128 units, d = 64, Stein", SteinMetric(score, 0.1), (points[:BATCH], points[BATCH:])


def losses(metric):
    """From answers and targets to a loss and the share of pairs that it counts, by name."""

    def euclid(x, y):
        return jnp.sum((x - y) ** 2), True

    def midpoint(x, y):
        return metric.at((x + y) / 2).inner(x - y, x - y), True

    def geodesic(x, y):
        value, result = squared_dist(metric, x, y, solver=SOLVER, with_result=True)
        return value, result == RESULTS.successful

    def mean(one):
        def loss(xs, ys):
            values, good = jax.vmap(one)(xs, ys)
            good = jnp.broadcast_to(good, values.shape)
            return jnp.sum(jnp.where(good, values, 0)) / jnp.maximum(good.sum(), 1), good.mean()

        return loss

    return {one.__name__: mean(one) for one in (euclid, midpoint, geodesic)}


def measure(metric, xs, ys) -> dict[str, dict]:
    """Seconds of a step and of its compilation, for each loss."""
    d = xs.shape[1]
    encoder = eqx.nn.MLP(d, d, 64, 2, activation=jnp.tanh, key=jax.random.key(3))
    weights, rest = eqx.partition(encoder, eqx.is_inexact_array)
    optimizer = optax.adam(1e-3)
    programs, report = [], {}
    for name, loss in losses(metric).items():

        def step(weights, state, loss=loss):
            def objective(weights):
                # Answers near their inputs, as those of an encoder that has begun to learn.
                return loss(xs + 0.1 * jax.vmap(eqx.combine(weights, rest))(xs), ys)

            (value, share), slope = jax.value_and_grad(objective, has_aux=True)(weights)
            updates, state = optimizer.update(slope, state)
            return optax.apply_updates(weights, updates), state, value, share

        arguments = weights, optimizer.init(weights)
        program, seconds = compiled(step, *arguments)
        programs.append(lambda program=program, arguments=arguments: program(*arguments))
        share = float(program(*arguments)[3])
        report[name] = {"compile": seconds, "share_solved": share}
    for name, seconds in zip(report, in_turns(*programs, repeats=15, limit=8.0), strict=True):
        report[name]["seconds"] = seconds
        report[name]["ratio"] = seconds / report["euclid"]["seconds"]
    return report


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, help="the file to write")
    options = parser.parse_args()
    entries = {}
    for name, metric, (xs, ys) in problems():
        entries[name] = measure(metric, xs, ys)
        for loss, found in entries[name].items():
            line = f"{1e3 * found['seconds']:8.2f} ms, {found['ratio']:6.1f} times, {100 * found['share_solved']:3.0f}%"
            print(f"{name:37} {loss:9} {line}, compiled in {found['compile']['cpu']:.1f} s of the cores")
    if options.out:
        options.out.write_text(
            json.dumps({**about("jax", "equinox", "optax"), "batch": BATCH, "steps": entries}, indent=1)
        )
