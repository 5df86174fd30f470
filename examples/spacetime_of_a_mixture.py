"""The spacetime of a diffusion model on a mixture of three Gaussians: a geodesic between noisy points, drawn.

    python examples/spacetime_of_a_mixture.py [--out spacetime_of_a_mixture.png] [--quick]

The one-dimensional example of Karczewski et al. 2026 (arXiv 2505.17517). Prints distances, and
draws the geodesic.
"""

import argparse

import jax
import jax.numpy as jnp
from matplotlib.figure import Figure

from scoregeo import GaussianMixtureScore, geodesic
from scoregeo.diffusion import VP
from scoregeo.fisher_rao import FlatPriorStart, SpacetimeDescent, SpacetimeMetric

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", default="spacetime_of_a_mixture.png", help="the picture to write")
parser.add_argument("--quick", action="store_true", help="65 nodes in place of 129")
options = parser.parse_args()
jax.config.update("jax_enable_x64", True)

# The density of the data, and its score with any amount of noise. Nothing is learned here; a trained DiffusionModel
# goes in the same place.
means = jnp.array([[-2.5], [0.5], [2.5]])
data = GaussianMixtureScore(jnp.array([0.275, 0.45, 0.275]), means, jnp.full((3, 1, 1), 0.75**2))

# Points are (x_t, log SNR). A noisy x_t says something about the clean x_0 it came from; the distance of two points
# tells how different what they say is. Only the log SNR matters, so any schedule with alpha^2 + sigma^2 = 1 is as good
# as the paper's, whose log SNR falls from 10 at t = 0 to -10 at t = 1: its t = 0.35 and 0.4 are log SNR 3 and 2.
metric = SpacetimeMetric(data, VP())
a, b = jnp.array([-2.3, 3.0]), jnp.array([2.0, 2.0])

# The path goes up into noise, where the two ends look alike, and down again. This solver needs no metric, only the
# denoiser along the path; it starts from a half circle, the answer if nothing were known about the data.
solver, start = SpacetimeDescent(nodes=65 if options.quick else 129), FlatPriorStart()
path = geodesic(metric, a, b, solver=solver, init=start)
noisiest = path.points[jnp.argmin(path.points[:, 1])]
print(f"distance                 {path.length:.4f}   error {path.error:.0e}")
print(f"noisiest point           x_t = {noisiest[0]:.2f}, log SNR = {noisiest[1]:.2f}")

# Between clean data it is the diffusion edit distance (`diffusion_edit_distance` in one call). Data get ever further
# apart as less noise hides them, so it comes with the noise level at which one starts: two modes, at log SNR 2 and 4.
for log_snr in (2.0, 4.0):
    left, middle = (metric.point(mode, log_snr) for mode in means[:2])
    edit = geodesic(metric, left, middle, solver=solver, init=start)  # other numbers, same program: not compiled again
    print(f"edit distance, log SNR {log_snr:.0f} {edit.length:.4f}   error {edit.error:.0e}")

# Up is more noise, as in the paper; the shading is the density of x_t at each noise level.
xs, log_snrs = jnp.linspace(-4.2, 4.2, 241), jnp.linspace(6.0, -4.0, 161)
alphas = jnp.sqrt(jax.nn.sigmoid(log_snrs))
sigmas = jnp.sqrt(jax.nn.sigmoid(-log_snrs))
density = jax.jit(jax.vmap(lambda a, s: jax.vmap(lambda x: jnp.exp(data.noised(a, s).log_prob(x[None])))(xs)))

figure = Figure(figsize=(7.5, 4.6), layout="constrained")
ax = figure.subplots()
shading = ax.pcolormesh(xs, log_snrs, density(alphas, sigmas), cmap="Greys", shading="gouraud", rasterized=True)
figure.colorbar(shading, ax=ax, label="density of $x_t$")
ax.plot([a[0], b[0]], [a[1], b[1]], "--", color="#0072B2", linewidth=1.8, label="straight line")
ax.plot(*path.points.T, color="#D55E00", linewidth=2.6, label=f"geodesic, length {path.length:.2f}")
ax.plot(*jnp.stack([a, b]).T, "o", color="black", markersize=7, markeredgecolor="white", zorder=5)
for name, point, side in (("a", a, -1), ("b", b, 1)):
    ax.annotate(name, point, (9 * side, -4), textcoords="offset points", ha="center", fontsize=12, fontweight="bold")
ax.set(xlabel="noisy point $x_t$", ylabel="log SNR  (upwards: more noise)", xlim=(-4.2, 4.2), ylim=(6, -4))
ax.set_title("A geodesic in the spacetime of a diffusion model")
ax.legend(loc="upper left", framealpha=0.95)
figure.savefig(options.out, dpi=150)
