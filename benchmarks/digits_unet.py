"""A U-Net of diffusers' kind, trained here on 8 x 8 digits: what a classifier of real digits thinks of its samples, and
whether the folder that is written is read as the same network, here and by diffusers itself.

    uv run python benchmarks/digits_unet.py train FOLDER --out benchmarks/results/digits-unet.json
    .venv-torch/bin/python benchmarks/digits_unet.py compare FOLDER --out benchmarks/results/digits-unet-read-back.json

`train` takes some minutes on two cores, seconds are those of all cores, with the compilation. `compare` needs torch and
diffusers (`.ci/torch` makes that environment).
"""

import argparse
import json
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from timing import about

from scoregeo import datasets
from scoregeo.adapters.diffusers import (
    DiffusersNetwork,
    DiscreteVP,
    Scheduler,
    UNet2DModel,
    load_diffusers,
    save_diffusers,
)
from scoregeo.datasets import Standardization
from scoregeo.diffusion import DiffusionModel, FitConfig, Heun, WarmupEMA, fit, memorization

SETTINGS = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": [32, 64],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 8,
}
STEPS = (0.0, 10.0, 300.0, 900.0)  # of the scheduler, at which networks are compared


def data() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """1500 digits and their labels, 297 others and theirs; the first have mean zero and variance one."""
    every = datasets.digits()
    points, labels = np.asarray(every.points, float), np.asarray(every.labels)
    order = np.random.default_rng(0).permutation(len(points))
    known, fresh = order[:1500], order[1500:]
    units = Standardization.fit(points[known], per_feature=False)  # a pipeline keeps neither mean nor scale
    points = np.asarray(units.apply(points), np.float32)
    return points[known], labels[known], points[fresh], labels[fresh]


def probe(known, labels, fresh, fresh_labels, samples) -> dict:
    """What a logistic regression on real digits says of samples and of digits that it has not seen."""
    from sklearn.linear_model import LogisticRegression

    classifier = LogisticRegression(max_iter=5000).fit(known, labels)
    confidence = {
        name: float(classifier.predict_proba(images).max(1).mean())
        for name, images in (("samples", samples), ("fresh digits", fresh))
    }
    shares = np.bincount(classifier.predict(samples), minlength=10) / len(samples)
    return {
        "mean top probability": confidence,
        "points between them": 100 * abs(confidence["samples"] - confidence["fresh digits"]),
        "accuracy on fresh digits": float(classifier.score(fresh, fresh_labels)),
        "smallest and largest share of a class": [float(shares.min()), float(shares.max())],
    }


def train(folder: pathlib.Path, steps: int) -> dict:
    """Train, sample, judge, write and read back."""
    known, labels, fresh, fresh_labels = data()
    schedule = DiscreteVP()
    network = DiffusersNetwork(UNet2DModel(SETTINGS, key=jax.random.key(0)), Scheduler(schedule, "v_prediction"))
    config = FitConfig(
        steps=steps, batch_size=128, learning_rate=1e-3, schedule=schedule, ema=WarmupEMA(0.998), holdout=0.0
    )
    wall, cores = time.perf_counter(), time.process_time()
    model = fit(known, config, network=network)
    trained = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cores}
    save_diffusers(model, folder)
    wall, cores = time.perf_counter(), time.process_time()
    samples = np.asarray(model.sample(jax.random.key(0), 500, sampler=Heun(steps=60, churn=20.0)))
    sampled = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cores}
    found = memorization(samples, known, fresh)
    return {
        "parameters": sum(w.size for w in jax.tree.leaves(nnx.state(network, nnx.Param))),
        "steps": steps,
        "seconds of training": trained,
        "seconds of 500 samples": sampled,
        **probe(known, labels, fresh, fresh_labels, samples),
        "memorisation gap": found.gap,
        "copies": found.copies,
        "read back by scoregeo, largest relative error": read_back(model, load_diffusers(folder), fresh[:16]),
    }


def read_back(model: DiffusionModel, again: DiffusionModel, points: np.ndarray) -> dict:
    """How far the scores of two models are apart at some noise levels, relative to the largest entry."""
    errors = {}
    for t in STEPS:
        sigma = model.schedule.noise_level(t)
        mine, theirs = (jax.vmap(m.score_at(sigma))(jnp.asarray(points)) for m in (model, again))
        errors[f"step {t:g}"] = float(jnp.abs(mine - theirs).max() / jnp.abs(mine).max())
    return errors


def compare(folder: pathlib.Path) -> dict:
    """The network in ``folder`` as diffusers reads it, and as it is read here."""
    import diffusers
    import torch

    pipeline = diffusers.DDPMPipeline.from_pretrained(folder)
    network = load_diffusers(folder).denoiser.net.unet
    images = data()[2][:16].reshape(-1, 8, 8, 1)
    errors = {}
    for t in STEPS:
        with torch.no_grad():
            theirs = pipeline.unet(torch.tensor(images.transpose(0, 3, 1, 2)), torch.tensor(t)).sample
        theirs = theirs.numpy().transpose(0, 2, 3, 1)
        ours = np.asarray(jax.vmap(lambda x, t=t: network(x, t))(jnp.asarray(images)))
        errors[f"step {t:g}"] = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
    return {
        "scheduler": type(pipeline.scheduler).__name__,
        "prediction": pipeline.scheduler.config.prediction_type,
        "read by diffusers and by scoregeo, largest relative error": errors,
    }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("train", "compare"))
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--out", type=pathlib.Path)
    options = parser.parse_args()
    if options.what == "train":
        row = about("jax", "jaxlib", "flax", "numpy", "scikit-learn") | train(options.folder, options.steps)
    else:
        row = about("jax", "jaxlib", "torch", "diffusers") | compare(options.folder)
    print(json.dumps(row, indent=1))
    if options.out is not None:
        options.out.write_text(json.dumps(row, indent=1) + "\n")


if __name__ == "__main__":
    main()
