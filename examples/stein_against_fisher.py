"""Stein against Fisher: one density, two scores, two spaces.

    python examples/stein_against_fisher.py [--out stein_against_fisher.png] [--quick]

The Stein score is a derivative with respect to data, and bends data space: G(x) = I + strength s(x) s(x)^T. The Fisher
score is one with respect to parameters. Let the parameter be where the whole density stands, p(x - theta): its Fisher
information F = E[s s^T] is the same everywhere, so that space is flat. The first metric, averaged over the data, is
I + strength F: what Fisher knows of a density is the mean of what Stein knows of its points.
"""

import argparse

import jax
import jax.numpy as jnp
from matplotlib.figure import Figure

from scoregeo import GaussianMixtureScore, MatrixMetric, SteinMetric, geodesic, plotting
from scoregeo.fisher_rao import location_fisher

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", default="stein_against_fisher.png", help="the picture to write")
parser.add_argument("--quick", action="store_true", help="a tenth of the samples")
options = parser.parse_args()
jax.config.update("jax_enable_x64", True)

# Two lobes, one beside the other and both narrow in the same direction.
covs = jnp.stack([jnp.array([[0.7, 0.25], [0.25, 0.2]])] * 2)
score = GaussianMixtureScore(jnp.ones(2) / 2, jnp.array([[-0.3, 0.7], [0.3, -0.7]]), covs)
strength = 2.0
stein = SteinMetric(score, strength)

samples = score.sample(jax.random.key(0), 10_000 if options.quick else 100_000)
fisher, standard_error = location_fisher(score, samples)
average = jax.vmap(lambda x: stein.at(x).matrix(2))(samples).mean(0)
print("Fisher information of the location family, from samples\n", fisher.round(3))
print("standard error\n", standard_error.round(4))
gap = jnp.abs(average - jnp.eye(2) - strength * fisher).max()
print(f"the Stein metric, averaged over the data, is I + strength F to {gap:.0e}")

shift = MatrixMetric(lambda theta, fisher: jnp.eye(2) + strength * fisher, fisher)
x, y = jnp.array([-1.7, -0.2]), jnp.array([1.3, 1.0])
figure = Figure(figsize=(7.5, 3.5), layout="constrained")
limits = (-2.3, 2.3), (-2.0, 2.0)
ball = {"n": 12, "radius": 0.16}
for ax, metric in zip(figure.subplots(1, 2), (stein, shift), strict=True):
    path = geodesic(metric, x, y)
    plotting.tissot(ax, metric, *limits, **ball)
    plotting.geodesics(ax, path)
    ax.set(xlim=limits[0], ylim=limits[1])
    if metric is stein:
        plotting.density(ax, score.log_prob, *limits)
        ax.set_title("Stein: a point is a datum $x$", fontsize=11)
        off = jnp.abs(path.points - (x + path.ts[:, None] * (y - x))).max()
        print(f"Stein geodesic   length {path.length:.4f}, {off:.3f} off the straight line")
    else:
        ax.set(xlabel=r"$\theta_1$", ylabel=r"$\theta_2$")
        ax.set_title(r"Fisher: a point is the density $p(x - \theta)$", fontsize=11)
        print(f"Fisher geodesic  length {path.length:.4f}, the straight line")
    ax.legend(loc="lower right", fontsize=8, framealpha=0.9)
figure.savefig(options.out, dpi=150)
