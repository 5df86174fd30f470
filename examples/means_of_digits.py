"""Means along the data: of handwritten digits, class by class, and of a letter seen under several angles.

    python examples/means_of_digits.py [--out means_of_digits.png]

prints how far both means are from real images, and draws them: Frechet means above, the arithmetic
means below, which are superpositions of images and none themselves.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from scoregeo import ConformalMetric, SpectralNewton, datasets, plotting
from scoregeo.diffusion import FitConfig, fit
from scoregeo.statistics import frechet_mean

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", default="means_of_digits.png", help="the picture to write")
options = parser.parse_args()
jax.config.update("jax_enable_x64", True)
# Pictures need two digits. Steps of a mean start from the geodesics of the step before.
solver = SpectralNewton(rtol=1e-2, path_rtol=1e-1, max_elements=1, continuation=0)


def means(data, groups, sigma, ratio):
    """Frechet means of groups of points of ``data``, of 12 each, and their arithmetic means."""
    config = FitConfig(steps=600, batch_size=128, learning_rate=1e-3, width=64, depth=2)
    model = fit(np.asarray(data.points, np.float32), config, progress=False)
    points = jnp.asarray(data.points, jnp.float64)
    metric = ConformalMetric.power(model.score_at(sigma), points[:240], ratio)
    found, straight = [], []
    for group in groups:
        mean = frechet_mean(metric, points[group], solver=solver, gtol=1e-2, max_steps=15, throw=False)
        found.append(mean.point)
        straight.append(points[group].mean(0))
    found, straight = np.stack(found), np.stack(straight)
    for name, centers in {"Frechet": found, "arithmetic": straight}.items():
        away = np.linalg.norm(np.asarray(points)[:, None] - centers, axis=-1).min(0)
        print(f"  {name:10s} means are {away.mean():.2f} from the nearest image")
    return {"Frechet": data.undo(found), "arithmetic": data.undo(straight)}


random = np.random.default_rng(0)
everything = datasets.digits(classes=range(3))
# As many coordinates as the letters below: both share what is compiled.
digits = everything.principal_components(24)
classes = np.asarray(everything.labels)
print("digits, one class each")
groups = [random.choice(np.flatnonzero(classes == c), 12, replace=False) for c in range(3)]
of_digits = means(digits, groups, sigma=0.5, ratio=30.0)

# Rotations of a letter lie on a closed curve: their mean should be the letter in the middle of the angles.
turned = datasets.rotated_letters("F", 240)
letters = turned.principal_components(24)
print("a letter, turned by 90 degrees about each of three angles")
groups = [(80 * k + np.linspace(-30, 30, 12).round().astype(int)) % 240 for k in range(3)]
of_letters = means(letters, groups, sigma=0.3, ratio=1e3)

figure = Figure(figsize=(9, 4), layout="constrained")
for ax, rows, shape in zip(figure.subplots(1, 2), (of_digits, of_letters), ((8, 8), turned.image_shape), strict=True):
    plotting.image_strip(ax, rows, shape)
    ax.set_xlabel("")
    ax.set_xticks([])
figure.savefig(options.out, dpi=150)
