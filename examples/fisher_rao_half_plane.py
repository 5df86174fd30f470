"""Normal distributions make a half-plane, and the shortest way between two narrow ones leads through wide ones.

    python examples/fisher_rao_half_plane.py [--out fisher_rao_half_plane.png] [--quick]

A point is a normal distribution, (mean, standard deviation). Fisher information measures how well one sample can tell
it from its neighbours: means are hard to tell apart where the deviation is large, so that paths between means rise to
where moving is cheap. Geodesics are half ellipses, and distances have a formula, which the solver confirms.
"""

import argparse

import jax
import jax.numpy as jnp
from matplotlib.figure import Figure

from scoregeo import SpectralNewton, dist, plotting
from scoregeo.fisher_rao import FisherRaoMetric, Normal

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", default="fisher_rao_half_plane.png", help="the picture to write")
parser.add_argument("--quick", action="store_true", help="without the check by the solver")
options = parser.parse_args()
jax.config.update("jax_enable_x64", True)

family = Normal()
pairs = [((-2.0, 0.4), (2.0, 0.4)), ((-2.0, 0.4), (-0.4, 0.4)), ((0.4, 0.3), (2.4, 1.2))]
pairs = [tuple(family.pack(mean=mean, sd=sd) for mean, sd in pair) for pair in pairs]
paths = [family.geodesic(a, b) for a, b in pairs]
print("from             to               distance   off the ellipse   width in the middle")
for (a, b), path in zip(pairs, paths, strict=True):
    # The ellipse (mean - c)^2 / 2 + sd^2 = r^2 through both ends has its centre c on the line sd = 0.
    c = ((b @ b + b[1] ** 2) - (a @ a + a[1] ** 2)) / (2 * (b[0] - a[0]))
    mean, sd = path.points.T
    off = jnp.ptp((mean - c) ** 2 / 2 + sd**2)
    ends = "   ".join(f"N({end[0]:4.1f}, {end[1]:.1f}^2)" for end in (a, b))
    print(f"{ends}   {path.length:8.5f}   {off:15.0e}   {path.evaluate(0.5)[1]:.4f}")
if not options.quick:
    solved = dist(FisherRaoMetric(family), *pairs[0], solver=SpectralNewton())
    print(f"the first one by the solver: {solved:.8f}, by the formula: {family.dist(*pairs[0]):.8f}")

figure = Figure(figsize=(7, 4.6), layout="constrained")
axes = figure.subplot_mosaic([["plane"] * 5, list("01234")], height_ratios=(1.5, 1))
ax = axes["plane"]
plotting.half_plane(ax, paths, colors=["#D55E00", "#009E73", "#CC79A7"])
ax.set_title("Geodesics of normal distributions; the longest of them as densities", fontsize=11)
# Dashed is the straight line from parameters to parameters: as narrow as the ends all the way, and so far from both.
xs = jnp.linspace(-5.0, 5.0, 401)
times = jnp.linspace(0.0, 1.0, 5)
straight = pairs[0][0] + times[:, None] * (pairs[0][1] - pairs[0][0])
density = jax.vmap(lambda theta: jax.vmap(lambda x: jnp.exp(family.log_prob(theta, x)))(xs))
places = jax.vmap(paths[0].evaluate)(times)
for i, (bell, line) in enumerate(zip(density(places), density(straight), strict=True)):
    panel = axes[str(i)]
    panel.fill_between(xs, bell, color="#D55E00", alpha=0.5, linewidth=0)
    panel.plot(xs, line, color="#333333", linewidth=1.2, linestyle=(0, (4, 3)))
    panel.set(xlabel="sample", ylim=(0, 1.05), xlim=(-5, 5), yticks=[], xticks=[-4, 0, 4])
    panel.set_title(f"$t = {times[i]:g}$", fontsize=10)
ax.plot(*places.T, "o", color="#D55E00", markersize=5, zorder=6)
axes["0"].set_ylabel("density")
figure.savefig(options.out, dpi=150)
