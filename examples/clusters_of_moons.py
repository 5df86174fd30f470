"""Clusters of two moons, which Euclid's k-means cannot tell apart: by geodesic means, medoids, and a spectral method.

    python examples/clusters_of_moons.py [--out clusters_of_moons.png] [--quick]

prints how well labels agree with the moons (adjusted Rand index: 1 is perfect, 0 is chance), and draws
them.
"""

import argparse

import jax
import numpy as np
from matplotlib.figure import Figure
from sklearn.cluster import KMeans, SpectralClustering
from sklearn.metrics import adjusted_rand_score

from scoregeo import ConformalMetric, SpectralNewton, datasets, plotting
from scoregeo.statistics import affinity, graph_dist, kmeans, kmedoids

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", default="clusters_of_moons.png", help="the picture to write")
parser.add_argument("--quick", action="store_true", help="40 points in place of 80")
options = parser.parse_args()
jax.config.update("jax_enable_x64", True)
key = jax.random.key(0)
data = datasets.two_moons(key, 40 if options.quick else 80)
points, moons = data.points, np.asarray(data.labels)

# Lengths are divided by a power of the density, here of the data with a little noise: crossing the gap between the
# moons costs far more than walking along them. `ratio` says by how much.
metric = ConformalMetric.power(data.score.noised(1.0, 0.1), points, ratio=1e4)
labels = {"Euclid's k-means": KMeans(2, n_init=10, random_state=0).fit_predict(np.asarray(points))}

# Two digits of every length are plenty to say which center is nearest.
solver = SpectralNewton(rtol=1e-2, path_rtol=1e-1, max_elements=4)
found = kmeans(metric, points, 2, key, solver=solver, gtol=1e-2, throw=False)
labels["geodesic k-means"] = np.asarray(found.labels)

# All distances at once, bounded by shortest paths on a graph: no geodesic is solved, and methods that take a matrix of
# distances, or of affinities, work in the metric too.
distances = graph_dist(metric, points).distances
labels["k-medoids"] = np.asarray(kmedoids(distances, 2, key, restarts=3).labels)
spectral = SpectralClustering(2, affinity="precomputed", random_state=0)
labels["spectral"] = spectral.fit_predict(np.asarray(affinity(distances)))

for name, found_labels in labels.items():
    print(f"{name:18s} {adjusted_rand_score(moons, found_labels):6.3f}")

figure = Figure(figsize=(9, 3.6), layout="constrained")
for ax, name in zip(figure.subplots(1, 2), ("Euclid's k-means", "geodesic k-means"), strict=True):
    plotting.density(ax, metric.log_factor.score.log_prob, (-2, 2), (-1.4, 1.4))
    marked = {"Frechet means": found.centers} if name == "geodesic k-means" else None
    plotting.labelled_points(ax, points, labels[name], marked=marked)
    ax.set_title(name, fontsize=11)
figure.savefig(options.out, dpi=150)
