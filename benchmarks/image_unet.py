"""A geodesic between images in the metric that is recommended for them, under a trained U-Net of a million parameters:
does it converge in float32, how long does it take, in how much memory, and what part of it is network?

    uv run python benchmarks/image_unet.py train 28 --model FOLDER
    uv run python benchmarks/image_unet.py solve 28 --model FOLDER --out benchmarks/results/image-unet-28.json

and the same with 32. Images are the letters F, 5 and R at 1080 angles each (`datasets.rotated_letters`), standardised
with one scale. The metric is the power of the density (`ConformalMetric.power`), the start goes through the data
(`GraphInit`). A solve is a process of its own, so that its peak of memory is that of one solve and its compilation.

The part of the network: the solver asks for gradients with their linearisation, and for products with these, at all
points of a path at once. Both are timed alone, at as many points, in turns with the solve, and multiplied with how
often the solve did them.
"""

import argparse
import json
import pathlib
import resource
import time
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from timing import about, compiled

from scoregeo import ConformalMetric, EuclideanMetric, Geodesic, GraphInit, NetworkScore, SpectralNewton, geodesic
from scoregeo._results import status_name
from scoregeo.datasets import Dataset, Standardization, rotated_letters
from scoregeo.diffusion import Denoiser, DiffusionModel, FitConfig, LogNormalLevels, Potential, UNet, fit

SIGMA, RATIO = 0.5, 1e3
ANGLES, LETTERS = 1080, "F5R"
TURN = 30  # degrees between the ends
NETWORK = {"width": 16, "multipliers": (1, 3, 5), "blocks": 1}


def train(size: int, folder: pathlib.Path, steps: int) -> dict:
    """Train and save the network."""
    raw = np.asarray(rotated_letters(LETTERS, ANGLES, size=size).points, float)
    units = Standardization.fit(raw, per_feature=False)
    data = Dataset(np.asarray(units.apply(raw), np.float32), "letters", standardization=units)
    network = Potential(UNet((size, size, 1), **NETWORK, key=jax.random.key(0)))
    levels = LogNormalLevels(np.log(SIGMA), 0.8)
    config = FitConfig(steps=steps, chunk_steps=20, batch_size=8, learning_rate=1e-3, levels=levels, holdout=0.0)
    wall, cores = time.perf_counter(), time.process_time()
    model = fit(data, config, network=network)
    model.save(folder)
    return {
        "size": size,
        "steps": steps,
        "batch": config.batch_size,
        "wall_seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cores,
        "last_loss": float(model.history.train_loss[-1]),
        "peak_MiB": peak(),
    }


def turned(letters: str, angles: np.ndarray, size: int, model: DiffusionModel) -> jax.Array:
    """Images of letters at some angles, in the units of the model."""
    images = np.asarray(rotated_letters(letters, angles, size=size).points, float)
    return jnp.asarray(model.standardization.apply(images), jnp.float32)


def remaining_noise(denoiser: Denoiser, clean: jax.Array) -> float:
    """Which part of the variance of noise is left after one step of the denoiser."""
    noise = SIGMA * jax.random.normal(jax.random.key(0), clean.shape, clean.dtype)
    found = jax.jit(jax.vmap(lambda x: denoiser.denoise(x, jnp.float32(SIGMA))))(clean + noise)
    return float(jnp.mean((found - clean) ** 2) / SIGMA**2)


def say(*words: object) -> None:
    """A line of progress, with the seconds of all cores so far."""
    print(f"{time.process_time():.0f} s", *words, flush=True)


def peak() -> float:
    """The most memory that this process has had, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def network_calls(metric: ConformalMetric, points: jax.Array, products: int) -> jax.Array:
    """Gradients of phi at ``points``, linearised, and as many products with the linearisation."""
    (values, gradients), linearised = jax.linearize(jax.vmap(jax.value_and_grad(metric.phi)), points)

    def product(_, direction):
        result = linearised(direction)[1]
        return result / jnp.linalg.norm(result)

    return jnp.sum(values) + jnp.sum(jax.lax.fori_loop(0, products, product, gradients))


def values(metric: ConformalMetric, points: jax.Array) -> jax.Array:
    """phi alone: what preconditioner and verdict ask for."""
    return jnp.sum(jax.vmap(metric.phi)(points))


def in_rounds(calls: dict[str, Callable], rounds: int) -> dict[str, dict[str, float]]:
    """Medians of the seconds of each of ``calls``, of the wall and of all cores, run in turns as the load changes; the
    first round is not counted."""
    taken = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            wall, cores = time.perf_counter(), time.process_time()
            jax.block_until_ready(call())
            taken[name].append((time.perf_counter() - wall, time.process_time() - cores))
    return {
        name: dict(zip(("wall", "cpu"), np.median(rows[1:], 0).tolist(), strict=True)) for name, rows in taken.items()
    }


def share(solved: Callable, metric: ConformalMetric, points: jax.Array, found: Geodesic, rounds: int) -> dict:
    """The seconds of a solve, of what it asks of the network, and their quotient.

    A path of one polynomial has ``q`` points. At each of ``e`` paths that were tried, the solver wants the gradient and
    its linearisation, for each conjugate gradient step a product; and at the paths that it kept, phi itself for the
    preconditioner. In the end, gradient and phi at ``2 q`` points are the verdict.
    """
    q, products = len(points), int(found.stats["cg_steps"])
    tried = int(found.stats["metric_evaluations"]) // q - products - 2
    kept = int(found.stats["newton_steps"]) + 1
    few, many = 1, 5
    calls = {
        name: compiled(lambda m, p, n=n: network_calls(m, p, n), metric, points)[0]
        for name, n in {"few": few, "many": many}.items()
    }
    calls["value"], _ = compiled(values, metric, points)
    say("network calls compiled")
    times = in_rounds({"solve": solved} | {name: partial(call, metric, points) for name, call in calls.items()}, rounds)
    row = {"points of a path": q, "paths tried": tried, "paths kept": kept, "cg_steps": products}
    for clock in ("wall", "cpu"):
        solve, first, second, value = (times[name][clock] for name in ("solve", "few", "many", "value"))
        product = (second - first) / (many - few)
        gradient = first - few * product
        network = (tried + 2) * gradient + products * product + (kept + 2) * value
        row[f"{clock} seconds"] = {
            "solve": solve,
            "gradient": gradient,
            "product": product,
            "value": value,
            "network": network,
            "share": network / solve,
        }
    return row


def solve(size: int, folder: pathlib.Path, degree: int, rounds: int) -> dict:
    """One solve, what it took, and the network's part of it."""
    model = DiffusionModel.load(folder)
    denoiser = model.denoiser
    step = 360 / ANGLES
    # The ends are half-way between angles that were trained on.
    x, y = turned("F", 30 + step / 2 + np.array([0.0, TURN]), size, model)
    score = NetworkScore(denoiser, SIGMA, conservative=True)
    metric = ConformalMetric.power(score, turned(LETTERS, step * np.arange(0, ANGLES, 9), size, model), RATIO)
    # Lengths of edges in Euclid's metric: the graph is the curve of the letter in either, and its nodes are data.
    start = GraphInit(turned("F", step * np.arange(0, ANGLES, 3), size, model))(EuclideanMetric(), x, y)
    start = jax.vmap(lambda t: start(t)[0])(jnp.linspace(0, 1, 129, dtype=x.dtype))
    solver = SpectralNewton(rtol=1e-3, tolerance=3e-3, degree=degree, max_elements=1, continuation=0)

    def path(metric, x, y, start):
        return geodesic(metric, x, y, solver=solver, init=start, ts=(0.0, 1.0), throw=False)

    say("metric and start")
    program, compiling = compiled(path, metric, x, y, start)
    say("compiled")
    found = jax.block_until_ready(program(metric, x, y, start))
    say(str(found), {k: int(v) for k, v in found.stats.items()})
    row = {
        "size": size,
        "dimension": int(x.size),
        "parameters": sum(w.size for w in jax.tree.leaves(nnx.state(denoiser.net, nnx.Param))),
        "noise that one step of the denoiser leaves": remaining_noise(denoiser, jnp.stack([x, y])),
        "dtype": str(found.length.dtype),
        "metric": f"ConformalMetric.power, sigma {SIGMA}, ratio {RATIO:g}",
        "ends": f"F, {TURN} degrees apart",
        "status": status_name(found.result),
        "length": float(found.length),
        "error": float(found.error),
        "straight_line": float(jnp.linalg.norm(y - x)),
        "path_error": float(found.stats["path_error"]),
        **{name: int(found.stats[name]) for name in ("newton_steps", "cg_steps", "metric_evaluations")},
        "compile_seconds": compiling,
        "buffers_MiB": program.memory_analysis().temp_size_in_bytes / 2**20,
        "peak_MiB": peak(),
    }
    print(json.dumps(row, indent=1), flush=True)
    times = (jnp.arange(2 * degree, dtype=x.dtype) + 0.5) / (2 * degree)
    places = jax.vmap(lambda t: found.curve(t)[0])(times)
    return row | share(partial(program, metric, x, y, start), metric, places, found, rounds)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("train", "solve"))
    parser.add_argument("size", type=int, choices=(28, 32), nargs="?", default=28, help="of the images")
    parser.add_argument("--model", type=pathlib.Path, required=True, help="its folder")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--degree", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2, help="in which times are taken")
    parser.add_argument("--out", type=pathlib.Path)
    options = parser.parse_args()
    row = about("jax", "jaxlib", "flax", "numpy")
    if options.what == "train":
        row |= train(options.size, options.model, options.steps)
    else:
        row |= solve(options.size, options.model, options.degree, options.rounds)
    print(json.dumps(row, indent=1))
    if options.out is not None:
        options.out.write_text(json.dumps(row, indent=1) + "\n")


if __name__ == "__main__":
    main()
