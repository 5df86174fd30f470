"""A matrix of distances, its pairs divided among devices.

    python examples/sharded_distances.py [--out sharded_distances.png] [--quick]

`pairwise_dist` takes a mesh of devices: chips of one machine, or of many. Here the CPU plays four. The script solves
the same pairs on one device and on four, and says whether the matrices agree.
"""

import argparse
import time

import jax
import jax.numpy as jnp
from matplotlib.figure import Figure

from scoregeo import RESULTS, SpectralNewton, SteinMetric, datasets, pairwise_dist, plotting

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", default="sharded_distances.png", help="the picture to write")
parser.add_argument("--quick", action="store_true", help="16 points in place of 48")
options = parser.parse_args()
# Before anything else of JAX: four devices, where the machine has one.
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_enable_x64", True)

count = 16 if options.quick else 48
data = datasets.three_modes(jax.random.key(1), count)
order = jnp.argsort(data.labels)
points, modes = data.points[order], data.labels[order]
metric = SteinMetric(data.score, strength=1.0)
solver = SpectralNewton(rtol=1e-2, path_rtol=1.0, max_elements=1)

mesh = jax.make_mesh((jax.device_count(),), ("pairs",), axis_types=(jax.sharding.AxisType.Auto,))
matrices = {}
for name, devices in {"one device": None, "four devices": mesh}.items():
    begin = time.perf_counter()
    matrix, results = pairwise_dist(metric, points, solver=solver, mesh=devices)
    matrices[name] = jax.block_until_ready(matrix)
    solved = (results == RESULTS.successful).mean()
    print(f"{name:13} {100 * solved:.1f}% converged, {time.perf_counter() - begin:.1f} s with compiling")
one, four = matrices.values()
print(f"largest relative difference {jnp.nanmax(jnp.abs(four - one) / jnp.where(one > 0, one, 1)):.0e}")

figure = Figure(figsize=(7, 3.2), layout="constrained")
left, right = figure.subplots(1, 2)
plotting.density(left, data.score.log_prob, (-3, 3), (-2, 3))
plotting.labelled_points(left, points, modes)
left.set_title(f"{count} points of three modes", fontsize=11)
artist = plotting.distance_matrix(right, four, order=False)
figure.colorbar(artist, ax=right, label="geodesic distance", shrink=0.9)
right.set_title("their distances, mode by mode", fontsize=11)
figure.savefig(options.out, dpi=150)
