"""Six distances between the components of a Gaussian mixture fitted to real data, and how far they agree.

    python examples/gmm_components.py [--out gmm_components.png] [--quick]

A component is two things at once: a place in data space (its mean) and a distribution (its mean and covariance). The
score of the mixture bends data space, and Stein geodesics run between the means; Fisher information bends the space of
normal distributions, and Fisher-Rao geodesics run between the components. Prints a table of both and of four other
distances, and writes gmm_components.csv (every pair) here, and a picture.
"""

import argparse

import jax
import jax.numpy as jnp

from scoregeo import GaussianMixtureScore, SpectralNewton, SteinMetric, datasets, geodesic
from scoregeo.comparison import Entry, compare
from scoregeo.fisher_rao import FibreSolver, FisherRaoMetric, MultivariateNormal, Normal
from scoregeo.fisher_rao.normal_distances import hellinger, sqrt_jeffreys, wasserstein
from scoregeo.plotting.comparison import comparison_figure

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", default="gmm_components.png", help="the picture to write")
parser.add_argument("--quick", action="store_true", help="five components in place of eight, no geodesics drawn")
options = parser.parse_args()
jax.config.update("jax_enable_x64", True)

# 1,797 handwritten digits, in the plane of their first two principal components, in units of the first's deviation.
images = datasets.digits().points
images = images - images.mean(0)
_, _, axes = jnp.linalg.svd(images, full_matrices=False)
points = images @ axes[:2].T
points = points / points[:, 0].std()

mixture, _ = GaussianMixtureScore.fit(points, 5 if options.quick else 8, key=jax.random.key(0), tolerance=1e-4)
means, covs = mixture.means, mixture.covs

# The strength has units length^2. At this one, moving along the score costs about three times as much as moving across
# it, at a typical point of the data: strength |s|^2 = 10 there.
strength = 10 / jnp.median(jnp.sum(jax.vmap(mixture)(points) ** 2, -1))
stein = SteinMetric(mixture, strength)

family = MultivariateNormal(2)
thetas = jnp.stack([family.pack(mean, cov) for mean, cov in zip(means, covs, strict=True)])

solver = SpectralNewton(rtol=1e-2, path_rtol=1.0) if options.quick else SpectralNewton(rtol=1e-4)
result = compare(
    means,
    metrics={
        "Euclidean": lambda x, y: jnp.linalg.norm(x - y),
        "Stein": stein,
        # The others are distances of distributions, so their points are the components' parameters.
        "Fisher-Rao": Entry(FisherRaoMetric(family), thetas, solver=FibreSolver()),
        "sqrt Jeffreys": Entry(lambda a, b: sqrt_jeffreys(*a, *b), (means, covs)),
        "Hellinger": Entry(lambda a, b: hellinger(*a, *b), (means, covs)),
        "Wasserstein": Entry(lambda a, b: wasserstein(*a, *b), (means, covs)),
    },
    solver=solver,
)
print(result)
result.to_csv("gmm_components.csv")

# The same three pairs in both spaces, in the same colours. The half-plane shows normal distributions on the line: the
# components' marginals along the first principal component, which is the horizontal axis of the other picture.
order = jnp.argsort(means[:, 0])
pairs = [] if options.quick else [(order[0], order[-1]), (order[1], order[4]), (order[3], order[6])]
marginals = [Normal().pack(mean[0], jnp.sqrt(cov[0, 0])) for mean, cov in zip(means, covs, strict=True)]
figure = comparison_figure(
    result,
    paths=[geodesic(stein, means[i], means[j], solver=solver) for i, j in pairs],
    log_prob=mixture.log_prob,
    points=points,
    distributions=[Normal().geodesic(marginals[i], marginals[j]) for i, j in pairs],
    scatter=("Fisher-Rao", "Stein"),
)
figure.savefig(options.out, dpi=150)
