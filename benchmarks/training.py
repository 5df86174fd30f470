"""The speed of training: `fit` against a loop over single compiled steps, written by hand.

    uv run python benchmarks/training.py [--networks MLP UNet DiT] [--steps 20] [--out NAME.json]

Some minutes on two cores. Both train the same network with the same optimiser, batch and average, in float32; they are
timed in turns, once everything is compiled (what the first call took longer is given apart).
"""

import argparse
import json
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from timing import about, in_turns

from scoregeo import datasets
from scoregeo.diffusion import MLP, Denoiser, DiT, FitConfig, Potential, UNet, fit
from scoregeo.diffusion.training.losses import denoising_loss


def problem(name: str, steps: int) -> tuple[np.ndarray, nnx.Module, FitConfig]:
    """Data, an untrained network for them, and the settings."""
    key = jax.random.key(0)
    config = FitConfig(steps=steps, chunk_steps=steps, holdout=0.0)
    if name == "MLP":
        points = datasets.four_modes(key, 20_000).points
        return np.asarray(points, np.float32), Potential(MLP(2, config.width, config.depth, key=key)), config
    shape = (8, 8, 1)
    network = UNet(shape, 16, (1, 2), 1, key=key) if name == "UNet" else DiT(shape, 2, 64, 4, 4, key=key)
    config = FitConfig(steps=steps, chunk_steps=steps, warmup_steps=steps // 2, batch_size=128, holdout=0.0)
    return np.asarray(datasets.digits().points, np.float32), network, config


def by_hand(points: np.ndarray, network: nnx.Module, config: FitConfig):
    """A function that trains ``network`` as `fit` does, one call of a compiled step after the other."""
    data = jnp.asarray(points)
    graphdef, start, constants = nnx.split(Denoiser(network, 1.0, jnp.zeros(data.shape[1])), nnx.Param, ...)
    rate = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, config.warmup_steps, config.steps)
    optimiser = optax.chain(optax.clip_by_global_norm(config.clip_norm), optax.adam(rate))

    def loss(weights, batch, noise, levels):
        denoiser = nnx.merge(graphdef, weights, constants)
        return jnp.mean(jax.vmap(denoising_loss, (None, 0, 0, 0))(denoiser, batch, noise, levels))

    @jax.jit
    def step(weights, average, moments, key):
        keys = jax.random.split(key, 3)
        batch = data[jax.random.randint(keys[0], (config.batch_size,), 0, len(data))]
        levels = config.schedule.training_levels(keys[1], config.batch_size, jnp.float32)
        gradient = jax.grad(loss)(weights, batch, jax.random.normal(keys[2], batch.shape, jnp.float32), levels)
        updates, moments = optimiser.update(gradient, moments)
        weights = optax.apply_updates(weights, updates)
        return weights, optax.incremental_update(weights, average, 1 - config.ema.decay), moments

    def train():
        state = start, start, optimiser.init(start)
        for key in jax.random.split(jax.random.key(0), config.steps):
            state = step(*state, key)
        return state

    return train


def measure(name: str, steps: int, repeats: int) -> dict:
    """Seconds a step of both, and their ratio."""
    points, network, config = problem(name, steps)
    calls = [lambda: fit(points, config, network=network, progress=False).weights, by_hand(points, network, config)]
    first = []
    for call in calls:
        start = time.perf_counter()
        jax.block_until_ready(call())
        first.append(time.perf_counter() - start)
    ours, theirs = in_turns(*calls, repeats=repeats, limit=120.0)
    return {
        "network": name,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(nnx.state(network, nnx.Param))),
        "d": points.shape[1],
        "batch": config.batch_size,
        "steps": steps,
        "fit, seconds a step": ours / steps,
        "by hand, seconds a step": theirs / steps,
        "ratio": ours / theirs,
        "fit, compile seconds": first[0] - ours,
        "by hand, compile seconds": first[1] - theirs,
    }


NETWORKS = ("MLP", "UNet", "DiT")


def main() -> None:
    """Run the networks that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument(
        "--steps", type=int, default=20, help="steps with an image network; the MLP takes 50 times as many"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=pathlib.Path)
    arguments = parser.parse_args()
    results = about("jax", "jaxlib", "flax", "optax", "numpy")
    results["rows"] = []
    for name in arguments.networks:
        steps = arguments.steps * (50 if name == "MLP" else 1)
        results["rows"].append(measure(name, steps, arguments.repeats))
        print(json.dumps(results["rows"][-1], indent=2), flush=True)
        if arguments.out is not None:
            arguments.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
