"""Does a geodesic turn a letter? Images on a closed curve, whose true path is known.

    python examples/rotated_letters.py [--out rotated_letters.png] [--quick]

An F is seen under 240 angles. Nothing is told of angles: a score is learned from the images, a power of its density
makes the metric, and the geodesic between two images a quarter turn apart should pass through the images between them.
A straight line cross-fades. Prints how far both are from the nearest true image.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from scoregeo import ConformalMetric, GraphInit, SpectralNewton, datasets, geodesic, plotting
from scoregeo.diffusion import FitConfig, fit

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", default="rotated_letters.png", help="the picture to write")
parser.add_argument("--quick", action="store_true", help="200 steps of training in place of 1,500")
options = parser.parse_args()
jax.config.update("jax_enable_x64", True)

# 256 pixels, of which 24 principal components keep almost all.
letters = datasets.rotated_letters("F", 240)
data = letters.principal_components(24)
config = FitConfig(
    steps=200 if options.quick else 1500,
    batch_size=128,
    learning_rate=2e-3,
    width=64 if options.quick else 128,
    depth=2,
    reference_size=240,  # all of the data: the target of training is then exact
)
model = fit(np.asarray(data.points, np.float32), config, progress=False)

points = jnp.asarray(data.points, jnp.float64)
metric = ConformalMetric.power(model.score_at(0.2), points, ratio=1e3)
# A start through the data, without which the solver may find the way of a worse geodesic.
x, y = points[10], points[70]
solver = SpectralNewton(rtol=1e-2, path_rtol=1e-1, max_elements=2)
path = geodesic(metric, x, y, solver=solver, init=GraphInit(points), throw=False)
print(path)

# The truth, four times as fine as what was learned from.
fine = datasets.rotated_letters("F", 960).points
truth = jnp.asarray(data.standardization.apply(np.asarray(fine, np.float64)))
ts = jnp.linspace(0, 1, 61)
curves = {"straight line": x + ts[:, None] * (y - x), "geodesic": path.evaluate(ts)}
away = {name: jnp.linalg.norm(curve[:, None] - truth, axis=-1).min(1) for name, curve in curves.items()}
for name, distances in away.items():
    print(f"{name:13} {distances.mean():.3f} from the nearest true image on average, {distances.max():.3f} at most")

figure = Figure(figsize=(7.5, 3.2), layout="constrained")
ax, beside = figure.subplots(1, 2, width_ratios=(2.1, 1))
shown = jnp.arange(0, 61, 10)
rows = {name: data.undo(curve[shown]) for name, curve in curves.items()}
rows["true turn"] = datasets.rotated_letters("F", 15 + 90 * np.asarray(ts[shown])).points
plotting.image_strip(ax, rows, letters.image_shape, cmap="gray_r")
styles = {"straight line": {"color": "#333333", "linestyle": (0, (4, 3))}, "geodesic": {"color": "#D55E00"}}
for name, distances in away.items():
    beside.plot(ts, distances, linewidth=2, label=name, **styles[name])
beside.set(xlabel="$t$", ylim=(0, 2.4), title="distance to the nearest\ntrue image")
beside.title.set_fontsize(10)
beside.legend(fontsize=8, loc="upper right")
figure.savefig(options.out, dpi=150)
