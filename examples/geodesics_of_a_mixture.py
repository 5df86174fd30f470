"""Geodesics of a mixture of three Gaussians: exact score -> metric -> geodesics, checked and drawn.

    python examples/geodesics_of_a_mixture.py [--out geodesics_of_a_mixture.png] [--quick]

prints lengths with their error estimates and an independent check, and draws them.
"""

import argparse

import jax
import jax.numpy as jnp
from matplotlib.figure import Figure

from scoregeo import SpectralNewton, SteinMetric, datasets, dist, geodesic, plotting, verify

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", default="geodesics_of_a_mixture.png", help="the picture to write")
parser.add_argument("--quick", action="store_true", help="four digits in place of six, without the distance alone")
options = parser.parse_args()
# Single precision is enough for a picture; eight correct digits need double. Before anything else runs.
jax.config.update("jax_enable_x64", True)

# Three equal modes at (-1.5, 0), (1.5, 0) and (0, 1.5). Nothing is learned here: a mixture knows its score.
data = datasets.three_modes(jax.random.key(0), 500)

# G(x) = I + strength * s(x) s(x)^T: moving against the density costs more than moving along its level sets.
metric = SteinMetric(data.score, strength=1.0)
x, y = jnp.array([-1.5, 0.2]), jnp.array([1.4, -0.3])

# A geodesic is a path that no small change makes shorter; there can be several. The solver descends from a path to a
# geodesic near it. `init` says from which, as points at equal times from x to y: the straight line (which is also what
# it takes without `init`), and a line bent upwards by two and a half, over the top of the third mode.
t = jnp.linspace(0.0, 1.0, 33)[:, None]
straight = x + t * (y - x)
bent = straight + 2.5 * jnp.sin(jnp.pi * t) * jnp.array([0.0, 1.0])

# The longer geodesic turns sharply where it crosses between modes. By default the solver wants eight digits of the
# length, and raises an error if it cannot have them; here six are plenty.
solver = SpectralNewton(rtol=1e-4 if options.quick else 1e-6)
short = geodesic(metric, x, y, solver=solver, init=straight)
over_the_top = geodesic(metric, x, y, solver=solver, init=bent)  # other numbers, same program: compiled only once

print(f"straight line, Euclidean length   {jnp.linalg.norm(y - x):.6f}")
for name, path in {"from the straight line": short, "from the bent line": over_the_top}.items():
    # `error` is the solver's own estimate. `verify` does not trust it: diffrax integrates the geodesic equation again
    # between the samples, and the defect says how far that leads from them, relative to the length.
    defect = verify(metric, path)
    print(f"geodesic {name:25s}{path.length:.6f}   error {path.error:.1e}   defect {defect:.1e}")

# Where only the number is wanted, `dist` gives it (the length of the first one). It starts from the straight line.
if not options.quick:
    print(f"dist(metric, x, y)                {dist(metric, x, y):.6f}")

figure = Figure(figsize=(7, 5), layout="constrained")
ax = figure.subplots()
limits = (-3.0, 3.0), (-1.6, 3.0)
plotting.density(ax, data.score.log_prob, *limits)
# Balls of the metric: where an ellipse is thin, steps in that direction are long.
plotting.tissot(ax, metric, *limits)
plotting.geodesics(ax, over_the_top, colors="#0072B2", straight=False, label=f"from above, {over_the_top.length:.3f}")
plotting.geodesics(ax, short, label=f"from the straight line, {short.length:.3f}")
ax.plot(*bent.T, ":", color="#0072B2", linewidth=1.2, label="the bent start")
ax.set_xlim(*limits[0])
ax.set_ylim(*limits[1])
ax.legend(loc="upper right", fontsize=9)
figure.savefig(options.out, dpi=150)
