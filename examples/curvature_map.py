"""Curvature, seen and checked: the angles of a geodesic triangle know what is inside of it.

    python examples/curvature_map.py [--out curvature_map.png] [--quick]

The Gauss curvature of a Stein metric is positive where log p has a summit or a pit, and negative at its saddles and
where its level sets bend away. By the theorem of Gauss and Bonnet the angles of a triangle of geodesics sum to pi plus
the integral of the curvature over it. Prints both sides, which know nothing of each other: one is three geodesics, the
other a sum of curvatures over the area.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from scoregeo import GaussianMixtureScore, SteinMetric, geodesic, plotting, scalar_curvature, volume_density

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", default="curvature_map.png", help="the picture to write")
parser.add_argument("--quick", action="store_true", help="a coarser map and fewer places in the triangles")
options = parser.parse_args()
jax.config.update("jax_enable_x64", True)

means, covs = jnp.array([[-0.9, 0.0], [0.9, 0.0]]), jnp.stack([0.35 * jnp.eye(2)] * 2)
score = GaussianMixtureScore(jnp.ones(2) / 2, means, covs)
metric = SteinMetric(score, strength=1.0)


def angle(at, v, w):
    """The angle of two vectors at a point, as the metric measures it."""
    inner = metric.at(at).inner
    return jnp.arccos(inner(v, w) / jnp.sqrt(inner(v, v) * inner(w, w)))


def angle_sum(ab, bc, ca):
    """Of three geodesics from corner to corner."""
    ends = [(ca, ab), (ab, bc), (bc, ca)]
    return sum(angle(out.points[0], out.velocities[0], -into.velocities[-1]) for into, out in ends)


def curvature_inside(ab, bc, ca, n):
    """The integral of the curvature over the triangle: a square is mapped onto it, with n x n points of Gauss."""
    a, b, c = ab.points[0], bc.points[0], ca.points[0]

    def place(u):
        """Blends the three sides: u[0] runs from A to the side BC, u[1] from the side AB to the side AC."""
        s, t = u
        edge = (1 - t) * ab.evaluate(s) + t * ca.evaluate(1 - s)
        return edge + s * (bc.evaluate(t) - (1 - t) * b - t * c)

    def density(u):
        # With its sign, so that what is covered twice, where the sides bend much, counts once in the end.
        x, stretch = place(u), jnp.linalg.det(jax.jacfwd(place)(u))
        return scalar_curvature(metric, x) / 2 * volume_density(metric, x) * stretch

    nodes, weights = np.polynomial.legendre.leggauss(n)
    nodes, weights = (nodes + 1) / 2, weights / 2
    turn = jnp.sign(jnp.linalg.det(jnp.stack([b - a, c - a])))
    square = jnp.stack(jnp.meshgrid(jnp.asarray(nodes), jnp.asarray(nodes), indexing="ij"), -1).reshape(-1, 2)
    return turn * jnp.sum(jax.jit(jax.vmap(density))(square) * jnp.outer(weights, weights).reshape(-1))


triangles = {
    "over a mode": [(-1.85, -0.5), (-0.6, -0.7), (-0.9, 0.85)],
    "over the saddle": [(-0.35, -0.9), (0.35, -0.9), (0.0, 0.9)],
}
figure = Figure(figsize=(7, 4.3), layout="constrained")
ax = figure.subplots()
limits = (-2.5, 2.5), (-1.6, 1.6)
shown = plotting.curvature_map(ax, metric, *limits, resolution=50 if options.quick else 250)
figure.colorbar(shown, ax=ax, label="Gauss curvature", extend="both", shrink=0.8)
halo = [withStroke(linewidth=4, foreground="white")]
for (name, corners), spot in zip(triangles.items(), ((-1.55, 1.15), (0.0, -1.15)), strict=True):
    corners = jnp.array(corners)
    sides = [geodesic(metric, corners[i], corners[(i + 1) % 3]) for i in range(3)]
    excess = jnp.rad2deg(angle_sum(*sides) - jnp.pi)
    inside = jnp.rad2deg(curvature_inside(*sides, 12 if options.quick else 40))
    print(f"{name:16} angles sum to 180 {excess:+9.5f} degrees; curvature inside {inside:+9.5f} degrees")
    plotting.geodesics(ax, sides, straight=False, colors="#0072B2")
    text = f"{180 + excess:.1f}° = 180° {'+' if inside > 0 else '−'} {abs(inside):.1f}°"
    ax.annotate(text, spot, ha="center", va="center", fontsize=11, fontweight="bold", path_effects=halo, zorder=6)
# The level sets of log p, whose landscape this is.
xs, ys = jnp.linspace(*limits[0], 101), jnp.linspace(*limits[1], 65)
heights = jax.vmap(jax.vmap(score.log_prob))(jnp.stack(jnp.meshgrid(xs, ys), -1))
ax.contour(xs, ys, heights, levels=12, colors="#333333", linestyles="-", linewidths=0.5, alpha=0.5)
ax.set(xlim=limits[0], ylim=limits[1], title="Sums of angles, and the curvature that makes them")
figure.savefig(options.out, dpi=150)
