"""The mean of a turned letter: a letter at the mean angle, or a blur.

    python examples/mean_of_letters.py [--out mean_of_letters.png] [--quick]

An R is seen under seven angles from -60 to 60 degrees. The arithmetic mean superposes the images. A Frechet mean
minimises the squared distances to them, and what it looks like is the metric's doing: a power of the density makes
distances long off the curve on which all turned letters lie. Nothing is told of angles. Prints how far each mean is
from the nearest turned letter, and at which angle that one is.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from scoregeo import (
    ConformalMetric,
    GraphInit,
    KernelDensityScore,
    SpectralNewton,
    SteinMetric,
    datasets,
    plotting,
    recommend_strength,
)
from scoregeo.statistics import frechet_mean

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", default="mean_of_letters.png", help="the picture to write")
parser.add_argument("--quick", action="store_true", help="five images in place of seven, one metric")
options = parser.parse_args()
jax.config.update("jax_enable_x64", True)

# All whole degrees, in 24 principal components. Their kernel density has an exact score: there is nothing to train.
letters = datasets.rotated_letters("R", 360, size=24)
data = letters.principal_components(24)
points = jnp.asarray(data.points, jnp.float64)
score = KernelDensityScore(points, 0.3)
metrics = {"power of p": ConformalMetric.power(score, points, ratio=1e3)}
if not options.quick:
    metrics["Stein"] = SteinMetric(score, recommend_strength(SteinMetric, score, points, ratio=1e3))

seen = points[jnp.linspace(-60, 60, 5 if options.quick else 7).round().astype(int) % 360]
means = {"arithmetic": seen.mean(0)}
# Descent starts at the image that is nearest to the arithmetic mean, and geodesics at paths through the data.
init = points[jnp.argmin(jnp.linalg.norm(points - means["arithmetic"], axis=1))]
solver = SpectralNewton(rtol=1e-2, path_rtol=1e-1, max_elements=1, continuation=0)
settings = {"solver": solver, "start": GraphInit(points), "init": init, "gtol": 1e-2, "max_steps": 20}
for name, metric in metrics.items():
    means[name] = frechet_mean(metric, seen, throw=False, **settings).point

# The truth, twice as fine as the data.
angles = np.linspace(-90, 90, 361)
fine = datasets.rotated_letters("R", angles, size=24).points
truth = jnp.asarray(data.standardization.apply(np.asarray(fine, np.float64)))
for name, mean in means.items():
    away = jnp.linalg.norm(truth - mean, axis=1)
    print(
        f"{name:10} mean   {away.min():5.2f} from the nearest letter, which is turned by {angles[away.argmin()]:+.1f}"
    )

figure = Figure(figsize=(7, 3.6), layout="constrained")
pixels = {name: data.undo(mean[None])[0] for name, mean in means.items()}
plotting.mean_images(figure.subplots(), data.undo(seen), pixels, letters.image_shape, cmap="gray_r", limits=(0, 1))
figure.savefig(options.out, dpi=150)
