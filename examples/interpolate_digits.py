"""From one handwritten digit to another: a straight line mixes two images, a geodesic hurries through what is none.

    python examples/interpolate_digits.py [--out interpolate_digits.png] [--quick]

A score is learned from 1,797 images of 8 x 8 pixels; lengths are divided by a power of its density. Between unrelated
images there is no true path to find, but there are likely and unlikely images to pass. Prints how far the paths are
from the nearest real image, on average at equal times, and writes the images along them.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from scoregeo import ConformalMetric, SpectralNewton, datasets, geodesic, plotting
from scoregeo.diffusion import FitConfig, fit

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", default="interpolate_digits.png", help="the picture to write")
parser.add_argument("--quick", action="store_true", help="150 steps of training in place of 2,500, one pair")
options = parser.parse_args()
jax.config.update("jax_enable_x64", True)

data = datasets.digits()
images, classes = np.asarray(data.points, np.float32), np.asarray(data.labels)
steps, width = (150, 64) if options.quick else (2500, 192)
config = FitConfig(steps=steps, batch_size=128, learning_rate=1e-3, width=width, depth=2)
model = fit(images, config, progress=False)

points = jnp.asarray(images, jnp.float64)
metric = ConformalMetric.power(model.score_at(0.1), points[:500], ratio=1000.0)
solver = SpectralNewton(rtol=1e-2, path_rtol=1e-1, max_elements=4)
ts = jnp.linspace(0, 1, 65)

print("mean distance to the nearest image\n         straight line   geodesic")
rows = {}
for a, b in [(3, 8)] if options.quick else [(3, 8), (1, 7), (0, 6)]:
    # Of each class the image in the middle of the file.
    x, y = (points[np.flatnonzero(classes == c)[90]] for c in (a, b))
    path = geodesic(metric, x, y, solver=solver, throw=False)
    curves = {"straight": x + ts[:, None] * (y - x), "geodesic": path.evaluate(ts)}
    away = [jnp.linalg.norm(curve[:, None] - points, axis=-1).min(1).mean() for curve in curves.values()]
    print(f"{a} to {b}   {away[0]:13.2f}   {away[1]:8.2f}   {path}")
    rows |= {f"{a} to {b}, {name}": data.undo(curve[::8]) for name, curve in curves.items()}

figure = Figure(figsize=(6.5, 0.58 * len(rows) + 0.7), layout="constrained")
plotting.image_strip(figure.subplots(), rows, data.image_shape)
figure.savefig(options.out, dpi=150)
