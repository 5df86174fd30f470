"""Means of handwritten digits, class by class: an image that could have been written, or a blur.

    python examples/means_of_digits.py [--out means_of_digits.png] [--quick]

The arithmetic mean of eight images superposes them. A Frechet mean in a metric that makes distances long where there
are no images stays closer to some. Prints how far both are from the nearest of all images, in the mean over classes,
and draws them, with the image that is nearest to the Frechet mean.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from scoregeo import ConformalMetric, GraphInit, KernelDensityScore, SpectralNewton, datasets, plotting
from scoregeo.statistics import frechet_mean

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", default="means_of_digits.png", help="the picture to write")
parser.add_argument("--quick", action="store_true", help="two classes in place of ten, four images of each")
options = parser.parse_args()
jax.config.update("jax_enable_x64", True)

# The first images of each class, in 24 principal components; their kernel density has an exact score.
classes, seen = (2, 4) if options.quick else (10, 8)
everything = datasets.digits(classes=range(classes))
data = everything.principal_components(24)
labels = np.asarray(everything.labels)
kept = np.concatenate([np.flatnonzero(labels == c)[:40] for c in range(classes)])
points, labels = jnp.asarray(data.points[kept], jnp.float64), labels[kept]
metric = ConformalMetric.power(KernelDensityScore(points, 0.5), points, ratio=100.0)

solver = SpectralNewton(rtol=1e-2, path_rtol=1e-1, max_elements=1, continuation=0)
settings = {"solver": solver, "start": GraphInit(points), "gtol": 1e-2, "max_steps": 20}
means = {"Frechet": [], "arithmetic": []}
for c in range(classes):
    group = points[labels == c][:seen]
    means["arithmetic"].append(group.mean(0))
    # Descent starts at the image that is nearest to the arithmetic mean, and geodesics at paths through the data.
    init = group[jnp.argmin(jnp.linalg.norm(group - group.mean(0), axis=1))]
    means["Frechet"].append(frechet_mean(metric, group, init=init, throw=False, **settings).point)

rows = {name: jnp.stack(found) for name, found in means.items()}
for name, found in rows.items():
    away = jnp.linalg.norm(points[:, None] - found, axis=-1)
    print(f"{name:10} means are {away.min(0).mean():.2f} from the nearest image")
    if name == "Frechet":
        nearest = points[away.argmin(0)]
rows["nearest image"] = nearest
figure = Figure(figsize=(7, 2.4), layout="constrained")
ax = figure.subplots()
plotting.image_strip(ax, {name: data.undo(np.asarray(found)) for name, found in rows.items()}, everything.image_shape)
ax.set(xlabel="", xticks=[])
figure.savefig(options.out, dpi=150)
