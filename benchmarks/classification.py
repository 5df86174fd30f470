"""Do neighbours along the data classify better? Handwritten digits, few labels, distances on a graph in many metrics.

Accuracy of 5 nearest neighbours on all images without a label, for a few labels a class, over ten random splits that
all distances share: means, and the gain over Euclid with its standard error. The score is learned from the images alone
(all of them: labels are what is rare, as is usual in semi-supervised learning). Distances are those of `graph_dist`, of
which "Euclid, on the graph" is Isomap's. All settings are reported; none was chosen by these splits.

    uv run python benchmarks/classification.py --out benchmarks/results/classification.csv
"""

import argparse
import pathlib
import time
from collections.abc import Iterator

import jax
import numpy as np
from sklearn.neighbors import KNeighborsClassifier
from timing import write_rows

from scoregeo import (
    AbstractMetric,
    ConformalMetric,
    EuclideanMetric,
    ScoreJacobianMetric,
    SteinMetric,
    recommend_strength,
)
from scoregeo.datasets import digits
from scoregeo.diffusion import DiffusionModel, FitConfig, fit
from scoregeo.statistics import graph_dist

jax.config.update("jax_enable_x64", True)


def metrics(model: DiffusionModel, images: np.ndarray) -> Iterator[tuple[str, AbstractMetric]]:
    """Metrics by name."""
    yield "Euclid, on the graph", EuclideanMetric()
    for sigma in (0.2, 0.5):
        score = model.score_at(sigma)
        for ratio in (10.0, 100.0):
            strength = recommend_strength(SteinMetric, score, images, ratio=ratio)
            yield f"Stein, sigma {sigma}, ratio {ratio:g}", SteinMetric(score, strength)
        yield f"score Jacobian, sigma {sigma}, strength 100", ScoreJacobianMetric(score, sigma, 100.0)
        for ratio in (3.0, 10.0, 1000.0):
            yield f"power of p, sigma {sigma}, ratio {ratio:g}", ConformalMetric.power(score, images, ratio)


def accuracies(distances: np.ndarray, classes: np.ndarray, count: int, splits: int) -> np.ndarray:
    """The accuracy of 5 nearest neighbours with ``count`` labels a class, one for each split."""
    random, found = np.random.default_rng(count), []
    for _ in range(splits):
        known = np.concatenate([random.choice(np.flatnonzero(classes == c), count, replace=False) for c in range(10)])
        rest = np.setdiff1d(np.arange(len(classes)), known)
        # With less than five labels a class, five neighbours would be of several classes.
        classifier = KNeighborsClassifier(min(5, count), metric="precomputed")
        classifier.fit(distances[np.ix_(known, known)], classes[known])
        found.append(classifier.score(distances[np.ix_(rest, known)], classes[rest]))
    return np.array(found)


def main() -> None:
    """Train, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--neighbors", type=int, default=8, help="of the graph")
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--model", type=pathlib.Path, help="a folder to keep the trained model in")
    parser.add_argument("--out", type=pathlib.Path)
    arguments = parser.parse_args()
    data = digits()
    images, classes = np.asarray(data.points, np.float64), np.asarray(data.labels)
    if arguments.model is not None and arguments.model.exists():
        model = DiffusionModel.load(arguments.model)
    else:
        config = FitConfig(steps=arguments.steps, batch_size=128, learning_rate=1e-3, width=256, depth=3)
        model = fit(images.astype(np.float32), config, progress=False)
        if arguments.model is not None:
            model.save(arguments.model)
    straight = np.linalg.norm(images[:, None] - images, axis=-1)
    rows, base = [], {}

    def record(name: str, distances: np.ndarray, seconds: float) -> None:
        for count in (1, 5, 20):
            found = accuracies(distances, classes, count, arguments.splits)
            base.setdefault(count, found)
            gain = found - base[count]
            error = len(gain) ** -0.5
            rows.append(
                {
                    "distance": name,
                    "labels a class": count,
                    "accuracy": round(found.mean(), 4),
                    "gain over Euclid": round(gain.mean(), 4),
                    "standard error of the gain": round(gain.std(ddof=1) * error, 4),
                    "seconds": round(seconds, 1),
                }
            )
            print(rows[-1], flush=True)

    record("Euclid", straight, 0.0)
    for name, metric in metrics(model, images):
        start = time.perf_counter()
        distances = graph_dist(metric, images, arguments.neighbors, rtol=1e-2).distances
        record(name, np.asarray(distances), time.perf_counter() - start)
        write_rows(arguments.out, rows)


if __name__ == "__main__":
    main()
