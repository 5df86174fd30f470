"""Geodesics of a Gaussian: the Stein score builds a metric, and its straight lines bend.

    python examples/gaussian_geodesic.py [--out gaussian_geodesic.png] [--quick]

The Fisher score builds the metric of statistical manifolds. Christian Perone (2023, 2024) asked which metric the Stein
score s(x) = grad log p(x) builds, and on which manifold: on data space itself, G(x) = I + strength s(x) s(x)^T. The
stronger it is, the more a step that changes log p costs. Prints the lengths for some strengths, and draws the paths.
"""

import argparse

import jax
import jax.numpy as jnp
from matplotlib.figure import Figure

from scoregeo import GaussianScore, SteinMetric, geodesic, plotting

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", default="gaussian_geodesic.png", help="the picture to write")
parser.add_argument("--quick", action="store_true", help="two strengths in place of four")
options = parser.parse_args()
jax.config.update("jax_enable_x64", True)

cov = jnp.array([[1.0, 0.5], [0.5, 0.8]])
score = GaussianScore(jnp.zeros(2), cov)


def level(angle):
    """A point of the ellipse on which log p is that of two standard deviations."""
    return 2.0 * jnp.linalg.cholesky(cov) @ jnp.array([jnp.cos(angle), jnp.sin(angle)])


start, end = jnp.deg2rad(jnp.array([-170.0, -15.0]))
x, y = level(start), level(end)

# One program for all strengths: they are numbers like any other, and `vmap` runs over them.
strengths = jnp.array([0.5, 50.0] if options.quick else [0.1, 0.5, 2.0, 50.0])
paths = jax.vmap(lambda strength: geodesic(SteinMetric(score, strength), x, y, throw=False))(strengths)

# The longer a detour, the less it climbs. Without end, the path would be the level set itself.
ellipse = jax.vmap(level)(jnp.linspace(start, end, 1001))
around = jnp.linalg.norm(jnp.diff(ellipse, axis=0), axis=1).sum()
heights = jax.vmap(jax.vmap(score.log_prob))(paths.points) - score.log_prob(x)
walked = jnp.linalg.norm(jnp.diff(paths.points, axis=1), axis=2).sum(1)
print(f"strength   length   to Euclid   log p climbs   error\n       0   {jnp.linalg.norm(y - x):6.4f}")
for row in zip(strengths, paths.length, walked, heights.max(1), paths.error, strict=True):
    print("{:8g}   {:6.4f}   {:9.4f}   {:12.4f}   {:.0e}".format(*row))
print(f"the level set between the points: {around:.4f}")

figure = Figure(figsize=(7.5, 3.7), layout="constrained")
ax, beside = figure.subplots(1, 2, width_ratios=(1.25, 1))
limits = (-2.7, 2.7), (-2.3, 2.3)
plotting.density(ax, score.log_prob, *limits)
plotting.tissot(ax, SteinMetric(score, 2.0), *limits, n=13, facecolors="#00000010", edgecolors="#00000038")
shades = ["#F0A35C", "#D55E00", "#9C3D00", "#521F00"][-len(strengths) :]
for i, color in enumerate(shades):
    path = jax.tree.map(lambda leaf, i=i: leaf[i], paths)
    label = f"strength {strengths[i]:g}"
    plotting.geodesics(ax, path, colors=color, straight=i == 0, label=label)
    beside.plot(paths.ts[i], heights[i], color=color, linewidth=2, label=label)
ax.plot(*ellipse.T, ":", color="#0072B2", linewidth=2, zorder=6)
ax.set(xlim=limits[0], ylim=limits[1], title="balls of $I + 2\\,s\\,s^T$, and geodesics")
line = jax.vmap(score.log_prob)(x + paths.ts[0][:, None] * (y - x)) - score.log_prob(x)
beside.plot(paths.ts[0], line, color="#333333", linewidth=1.2, linestyle=(0, (4, 3)), label="straight line")
beside.axhline(0, color="#0072B2", linestyle=":", linewidth=2, label="level set")
beside.set(xlabel="$t$", ylabel="$\\log p - \\log p(x)$", ylim=(-0.1, 2.7), title="what they climb")
beside.legend(fontsize=8, ncols=2, loc="upper center")
figure.savefig(options.out, dpi=150)
