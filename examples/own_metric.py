"""A metric of your own in five lines: light in a lens takes geodesics.

    python examples/own_metric.py [--out own_metric.png] [--quick]

Light takes the quickest way (Fermat), so its rays are geodesics of n(x)^2 I, where n is the refractive index. In
Maxwell's fish-eye, n = 2 / (1 + |x|^2), every ray from a point of the unit circle meets the point opposite, after the
same time. A metric is a class with one method; all else (solvers, derivatives, curvature, pictures) follows from it.
"""

import argparse

import jax
import jax.numpy as jnp
from matplotlib.figure import Figure

from scoregeo import AbstractMetric, dist, plotting, scalar_curvature, shoot
from scoregeo.metrics import DiagonalInnerProduct

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", default="own_metric.png", help="the picture to write")
parser.add_argument("--quick", action="store_true", help="7 rays in place of 21")
options = parser.parse_args()
jax.config.update("jax_enable_x64", True)


class FishEye(AbstractMetric):
    """G(x) = n(x)^2 I: the length of a path is the time that light takes for it."""

    def at(self, x):
        return DiagonalInnerProduct(jnp.full_like(x, (2 / (1 + x @ x)) ** 2))


lens, source = FishEye(), jnp.array([-1.0, 0.0])
# At the source n = 1, so a velocity of length pi is a ray of the time pi.
angles = jnp.deg2rad(jnp.linspace(-115, 115, 7 if options.quick else 21))
velocities = jnp.pi * jnp.stack([jnp.cos(angles), jnp.sin(angles)], 1)
rays = jax.vmap(lambda v: shoot(lens, source, v))(velocities)

ends = rays.points[:, -1]
print(f"rays meet at ({ends[:, 0].mean():.6f}, {ends[:, 1].mean():.6f}), to {jnp.ptp(ends, 0).max():.0e}")
# The fish-eye is a sphere of radius 1 in a flat map: its curvature is 1, and distances are those on the globe.
x, y = jnp.array([-0.5, 0.3]), jnp.array([0.4, 0.8])
print(f"Gauss curvature at x {scalar_curvature(lens, x) / 2:.6f}")
globe = 2 * jnp.arcsin(jnp.linalg.norm(x - y) / jnp.sqrt((1 + x @ x) * (1 + y @ y)))
print(f"dist(lens, x, y) {dist(lens, x, y):.8f}, on the globe {globe:.8f}")

figure = Figure(figsize=(6, 4.6), layout="constrained")
ax = figure.subplots()
shading = plotting.scalar_map(ax, lambda x: 2 / (1 + x @ x), (-2, 2), (-1.75, 1.75), cmap="Blues")
figure.colorbar(shading, ax=ax, label="refractive index", shrink=0.9)
plotting.geodesics(ax, rays, straight=False, linewidths=1.5, path_effects=None, label="ray")
# Where the light is at equal times: circles that widen and narrow again.
front = {"color": "#111111", "linewidth": 1.2, "linestyle": (0, (3, 2))}
for time in (13, 26, 39, 52):
    ax.plot(*rays.points[:, time].T, **front, label="wave front" if time == 13 else None)
ax.set(xlim=(-2, 2), ylim=(-1.75, 1.75), title="Rays in Maxwell's fish-eye")
ax.legend(loc="lower right")
figure.savefig(options.out, dpi=150)
