"""A classifier of handwritten digits by its nearest neighbours, in Euclid's distance and along the data.

    python examples/geodesic_neighbours.py [--out geodesic_neighbours.png] [--quick]

prints the accuracy for a few labels a class. Nothing of the labels is used but those few: the score is learned from
images alone, and distances are bounded by shortest paths on a graph of all images, whose edges have lengths in the
metric. The same graph with Euclid's lengths (Isomap's distances) says what of the gain is the graph's.
"""

import argparse

import jax
import numpy as np
from matplotlib.figure import Figure
from sklearn.neighbors import KNeighborsClassifier

from scoregeo import EuclideanMetric, ScoreJacobianMetric, datasets
from scoregeo.diffusion import FitConfig, fit
from scoregeo.statistics import graph_dist

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", default="geodesic_neighbours.png", help="the picture to write")
parser.add_argument("--quick", action="store_true", help="three classes in place of six, a quarter of the steps")
options = parser.parse_args()
jax.config.update("jax_enable_x64", True)
data = datasets.digits(classes=range(3 if options.quick else 6))
images, classes = np.asarray(data.points, np.float64), np.asarray(data.labels)

config = FitConfig(steps=100 if options.quick else 400, batch_size=128, learning_rate=1e-3, width=128, depth=2)
model = fit(images.astype(np.float32), config, progress=False)
metric = ScoreJacobianMetric(model.score_at(0.2), 0.2, strength=100.0)

geodesic = graph_dist(metric, images, neighbors=8, rtol=1e-2).distances
graph = graph_dist(EuclideanMetric(), images, neighbors=8, rtol=1e-2).distances
euclidean = np.linalg.norm(images[:, None] - images, axis=-1)

random = np.random.default_rng(0)
print("labels a class   Euclid   on the graph   score Jacobian")
counts, table = (2, 5, 20), []
for count in counts:
    accuracy = []
    for _ in range(10):
        known = np.concatenate(
            [random.choice(np.flatnonzero(classes == c), count, replace=False) for c in np.unique(classes)]
        )
        rest = np.setdiff1d(np.arange(len(images)), known)
        row = []
        for distances in (euclidean, graph, geodesic):
            classifier = KNeighborsClassifier(min(5, count), metric="precomputed")
            classifier.fit(distances[np.ix_(known, known)], classes[known])
            row.append(classifier.score(distances[np.ix_(rest, known)], classes[rest]))
        accuracy.append(row)
    euclid, joined, along = np.mean(accuracy, 0)
    table.append(accuracy)
    print(f"{count:14d}   {euclid:6.3f}   {joined:12.3f}   {along:14.3f}")

# Mean and standard deviation over the ten draws of labels.
figure = Figure(figsize=(5.5, 3.4), layout="constrained")
ax = figure.subplots()
table = np.array(table)
names, colors = ("Euclid", "on the graph", "score Jacobian"), ("#999999", "#56B4E9", "#D55E00")
for i, (name, color) in enumerate(zip(names, colors, strict=True)):
    places = np.arange(3) + 0.27 * (i - 1)
    ax.bar(places, table[..., i].mean(1), 0.25, yerr=table[..., i].std(1), capsize=3, color=color, label=name)
ax.set_xticks(range(3), counts)
ax.set(xlabel="labels a class", ylabel="accuracy", ylim=(0.5, 1.02), title="Nearest neighbours of digits")
figure.legend(loc="outside lower center", ncols=3, frameon=False)
figure.savefig(options.out, dpi=150)
