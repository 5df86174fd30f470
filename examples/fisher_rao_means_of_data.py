"""Samples become points: how far apart are three kinds of wine, measurement by measurement?

    python examples/fisher_rao_means_of_data.py [--out fisher_rao_means_of_data.png] [--quick]

Each measurement of each kind of wine is a sample of numbers, and `fit` makes it a point: the most likely distribution
of a family. Fisher-Rao distances between such points have no units, so colour in one family and alcohol in another can
be set side by side; and the geodesic between two of them leads through the distributions in between.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_wine

from scoregeo.fisher_rao import Gamma, MultivariateNormal, Normal

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", default="fisher_rao_means_of_data.png", help="the picture to write")
parser.add_argument("--quick", action="store_true", help="two measurements in place of three, no gradient")
options = parser.parse_args()
jax.config.update("jax_enable_x64", True)

wine = load_wine()
kinds = [wine.data[wine.target == kind] for kind in range(3)]
column = {name: wine.feature_names.index(name) for name in ("alcohol", "color_intensity", "proline")}


def distances(family, columns):
    """The distances of kinds 1 and 2, 1 and 3, 2 and 3, and the points."""
    points = [family.fit(kind[:, columns]) for kind in kinds]
    pairs = jnp.stack([jnp.stack([points[i], points[j]]) for i, j in ((0, 1), (0, 2), (1, 2))])
    return jax.vmap(family.dist)(pairs[:, 0], pairs[:, 1]), points


print("Fisher-Rao distances of the kinds      1-2     1-3     2-3")
families = {"alcohol": Normal(), "color_intensity": Gamma(), "proline": Gamma()}
if options.quick:
    del families["color_intensity"]
for name, family in families.items():
    between, points = distances(family, column[name])
    print(f"{name:16} {type(family).__name__:18}", *(f"{d:7.4f}" for d in between))
if not options.quick:
    both, _ = distances(MultivariateNormal(2), [column["alcohol"], column["color_intensity"]])
    print(f"{'the first two':16} {'MultivariateNormal':18}", *(f"{d:7.4f}" for d in both))

# From one distribution of prolines to another: the mean falls, and on the way the numbers spread more than at the ends.
family = Gamma()
first, second = points[0], points[1]
path = family.geodesic(first, second, (0.0, 0.25, 0.5, 0.75, 1.0))
print("\nproline from kind 1 to kind 2")
for t, (shape, rate) in zip(path.ts, path.points, strict=True):
    print(f"t = {t:4.2f}   mean {shape / rate:6.1f}   relative deviation {1 / jnp.sqrt(shape):.4f}")

# A fit is differentiable: which wine, if it counted a little more, would move its kind away from the other most?
if not options.quick:
    proline = kinds[0][:, column["proline"]]
    pull = jax.grad(lambda w: family.dist(family.fit(proline, w), second))(jnp.ones(len(proline)))
    least, most = proline.min(), proline.max()
    print(f"\nmost distinctive wine of kind 1: proline {proline[jnp.argmax(pull)]:.0f}, of {least:.0f} to {most:.0f}")

figure = Figure(figsize=(6, 3.6), layout="constrained")
ax = figure.subplots()
amounts = jnp.linspace(200, 1900, 400)
for i, color in enumerate(("#D55E00", "#0072B2")):
    sample = kinds[i][:, column["proline"]]
    ax.hist(sample, 15, density=True, color=color, alpha=0.25, label=f"kind {i + 1}")
for t, theta in zip(path.ts, path.points, strict=True):
    density = jnp.exp(jax.vmap(lambda x, theta=theta: family.log_prob(theta, x))(amounts))
    # From one colour to the other, as the distributions do.
    color = np.array([0.84, 0.37, 0.0]) * (1 - t) + np.array([0.0, 0.45, 0.70]) * t
    style = {"linewidth": 2} if t in (0, 1) else {"linewidth": 1.4, "linestyle": "--"}
    ax.plot(amounts, density, color=tuple(color.tolist()), **style)
ax.set(xlabel="proline (mg/l)", ylabel="density", title="From one kind of wine to another (dashed)")
ax.legend()
figure.savefig(options.out, dpi=150)
