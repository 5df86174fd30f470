"""Copies of a score of 8 x 8 digits: a student with a quarter of the weights, and shorter types.

For each copy: the errors of the score, of J v, and of the distances of 50 held-out pairs in the Stein metric against
the teacher's, and how many times faster each is. Beside the student, a network of its size that learned from the data.

    uv run python benchmarks/distillation.py --out benchmarks/results/distillation.csv
"""

import argparse
import dataclasses
import pathlib

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from interpolation import trained
from timing import write_rows

from scoregeo.comparison import evaluate_copy
from scoregeo.datasets import Dataset, digits
from scoregeo.diffusion import DiffusionModel, FitConfig, LogNormalLevels, distill, fit


def with_weights_in(model: DiffusionModel, dtype) -> DiffusionModel:
    """The same model with the weights of its network rounded to another type."""
    net = jax.tree.map(lambda leaf: leaf.astype(dtype), model.weights["net"])
    return eqx.tree_at(lambda m: m.weights["net"], model, net)


def size(model: DiffusionModel) -> int:
    """How many weights a network has."""
    return sum(leaf.size for leaf in jax.tree.leaves(model.weights["net"]))


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=4000, help="of the student")
    parser.add_argument("--teacher-steps", type=int, default=2000)
    parser.add_argument("--width", type=int, default=112)
    parser.add_argument("--pairs", type=int, default=50)
    parser.add_argument("--sigmas", type=float, nargs="+", default=[0.3, 0.1, 1.0], help="the metric has the first")
    parser.add_argument("--models", type=pathlib.Path, default=pathlib.Path("scoregeo-models"))
    parser.add_argument("--out", type=pathlib.Path)
    options = parser.parse_args()
    everything = digits()
    order = np.random.default_rng(0).permutation(len(everything.points))
    points = np.asarray(everything.points, np.float32)[order]
    data, held_out = Dataset(points[:1500], "digits"), jnp.asarray(points[1500:])
    config = FitConfig(steps=options.teacher_steps, batch_size=128, learning_rate=1e-3, width=256, depth=3)
    teacher = trained(options.models / f"distillation-{options.teacher_steps}", data, config)
    smaller = dataclasses.replace(
        config, steps=options.steps, width=options.width, learning_rate=3e-3, levels=LogNormalLevels(-1.2, 0.8)
    )
    copies = {
        "student": distill(teacher, data.points, smaller),
        "student, scores alone": distill(teacher, data.points, smaller, jacobian=0.0),
        "same size, from data": fit(data.points, smaller),
        "bfloat16 arithmetic": teacher.with_compute_dtype("bfloat16"),
        "bfloat16 weights": with_weights_in(teacher, jnp.bfloat16),
        "float16 weights": with_weights_in(teacher, jnp.float16),
    }
    rows = []
    for name, copy in copies.items():
        report = evaluate_copy(teacher, copy, held_out, options.sigmas, key=jax.random.key(0), pairs=options.pairs)
        print(
            f"\n{name}: {size(copy)} weights, {size(copy) / size(teacher):.2f} of the teacher's\n{report}", flush=True
        )
        row = {"copy": name, "weights": size(copy), "share": size(copy) / size(teacher)}
        for k, sigma in enumerate(report.sigmas):
            row |= {f"score_error_{sigma:g}": report.score_error[k], f"jvp_error_{sigma:g}": report.jvp_error[k]}
        row |= {
            "jvp_speed_up": report.speed_up[0],
            "distance_error_median": report.distance_error,
            "distance_error_worst": float(np.max(report.distance_errors, initial=0.0)),
            "pairs": report.pairs,
            "solved": report.solved,
            "distance_speed_up": report.distance_speed_up,
            "good_enough": report.good_enough,
        }
        rows.append(row)
        write_rows(options.out, rows)


if __name__ == "__main__":
    main()
