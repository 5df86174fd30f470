"""A score is learned from points, and its geodesics are those of the true density.

    python examples/score_of_moons.py [--out score_of_moons.png] [--quick]

Two moons, from 4,000 points: `fit` trains a diffusion model, which knows the score of the data with any amount of
noise. The moons' own score is known too, so that what is learned can be held against it: the score, its derivative,
and the lengths of geodesics in a metric that is dear where data are rare.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from scoregeo import ConformalMetric, SpectralNewton, datasets, geodesic, plotting
from scoregeo.diffusion import FitConfig, evaluate_score, fit

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", default="score_of_moons.png", help="the picture to write")
parser.add_argument("--quick", action="store_true", help="300 steps of training in place of 3,000, rough solves")
options = parser.parse_args()

data = datasets.two_moons(jax.random.key(0), 4000)
model = fit(data.points, FitConfig(steps=300 if options.quick else 3000), progress=False)
print(evaluate_score(model, data.score, key=jax.random.key(1)))

# Geometry is read at one noise level. A network of potentials knows log p too, but for a constant.
sigma = 0.2
scores = {"learned": model.score_at(sigma), "true": data.score.noised(1.0, sigma)}
metrics = {name: ConformalMetric.power(score, data.points, ratio=100.0) for name, score in scores.items()}

# Along one moon, and from one moon to the other.
ends = jnp.array([[[-1.5, 0.1], [0.5, 0.1]], [[-0.7, 0.75], [0.7, -0.75]]])
solver = SpectralNewton(rtol=1e-3, path_rtol=1e-1, **({"max_elements": 1} if options.quick else {}))
paths = {
    name: jax.vmap(lambda x, y, m=metric: geodesic(m, x, y, solver=solver, throw=False))(ends[:, 0], ends[:, 1])
    for name, metric in metrics.items()
}
for name, found in paths.items():
    print(f"lengths, {name:8}", *(f"{length:8.4f}" for length in found.length))

figure = Figure(figsize=(7.5, 3.4), layout="constrained")
limits = (-2.1, 2.1), (-1.5, 1.5)
left, right = figure.subplots(1, 2)
left.scatter(*np.asarray(data.points).T, s=1, color="#56B4E9", linewidths=0)
plotting.score_field(left, scores["learned"], *limits, n=22, cmap="Greys", clim=(-4, 12))
left.set_title("points, and the score learned from them", fontsize=11)
plotting.density(right, scores["learned"].log_prob, *limits)
plotting.geodesics(right, paths["true"], colors="#111111", straight=False, linewidths=4, label="of the true score")
plotting.geodesics(right, paths["learned"], label="geodesic", path_effects=None)
right.set(xlim=limits[0], ylim=limits[1])
right.set_title("the density learned, geodesics", fontsize=11)
right.legend(loc="lower left", fontsize=8, framealpha=0.9)
figure.savefig(options.out, dpi=150)
