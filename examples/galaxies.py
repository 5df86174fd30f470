"""Geodesics between galaxies, under the score of someone else's network.

    pip install galaxygrad==0.1.9
    python examples/galaxies.py [--out galaxies.png] [--quick]

galaxygrad (Sampson et al.) brings score networks of images of galaxies from the Hyper Suprime-Cam survey, as equinox
modules; its package states no licence, so it is imported and nothing of it is here. The script draws two galaxies from
the network of 32 x 32 pixels, prints what its Jacobian looks like there, and the lengths of geodesics between them
under three metrics, and draws a row of images along each geodesic.
"""

import argparse

import jax
import jax.numpy as jnp
from matplotlib.figure import Figure

from scoregeo import EuclideanMetric, FunctionScore, InverseSteinMetric, SpectralNewton, SteinMetric, geodesic, plotting
from scoregeo.diffusion import DDIM, VP
from scoregeo.manifold import intrinsic_dimension

try:
    from galaxygrad.scorenet import HSC_32
except ImportError as error:
    raise SystemExit("this example needs galaxygrad: pip install galaxygrad==0.1.9") from error

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", default="galaxies.png", help="the picture to write")
parser.add_argument("--quick", action="store_true", help="a quarter of the steps and of the probes")
options = parser.parse_args()

SHAPE = (1, 32, 32)
# The network says the score of exp(-t/2) x + sqrt(1 - exp(-t)) eps for t from 0 to 10.
schedule = VP(beta_min=10.0, beta_max=10.0)


def noised(x, t):
    """The score of a noisy image at time t of the schedule, which ends at 1."""
    return HSC_32(x.reshape(SHAPE), 10 * t).reshape(-1)


@jax.jit
def galaxy(key):
    """One draw, from noise to an image with almost none."""
    noise = jax.random.normal(key, (1024,))
    return DDIM(steps=50 if options.quick else 200).solve(noised, schedule, noise, key)[0]


def score_at(sigma):
    """The score of the images themselves with noise of standard deviation sigma added."""
    t = schedule.time_at(sigma)
    return FunctionScore(lambda x, t, alpha: alpha * noised(alpha * x, t), t, schedule.alpha(t))


def asymmetry(score, x, v):
    """How far the Jacobian is from that of a gradient field, in the direction v."""
    forward = jax.jvp(score, (x,), (v,))[1]
    return jnp.linalg.norm(forward - jax.vjp(score, x)[1](v)[0]) / jnp.linalg.norm(forward)


x, y = jax.vmap(galaxy)(jax.random.split(jax.random.key(3)))
sigma = 0.5
score = score_at(sigma)
print(f"two galaxies, {jnp.linalg.norm(x - y):.2f} apart")
probe = {"probes": 16 if options.quick else 64, "key": jax.random.key(1)}
for name, point in {"x": x, "y": y}.items():
    dimension, error = intrinsic_dimension(score, point, sigma, with_error=True, **probe)
    print(f"intrinsic dimension at {name}     {dimension:7.1f} +- {error:.1f} of {point.size}")
print(f"asymmetry of the Jacobian at x {asymmetry(score, x, jax.random.normal(jax.random.key(2), (1024,))):.3f}")

# Strengths in units of the score's mean square at the two galaxies.
size = jnp.mean(jax.vmap(lambda p: jnp.sum(score(p) ** 2))(jnp.stack([x, y])))
metrics = {
    "Euclid": EuclideanMetric(),
    "Stein": SteinMetric(score, 10 / size),
    "inverse Stein": InverseSteinMetric(score, 0.5 / size),
}
solver = SpectralNewton(rtol=1e-2, path_rtol=1.0, max_elements=1, degree=8)
rows = {}
for name, metric in metrics.items():
    found = geodesic(metric, x, y, solver=solver, ts=jnp.linspace(0, 1, 8), throw=False)
    print(f"{name:15s} {found}")
    rows[name] = found.points

figure = Figure(figsize=(8, 4), layout="constrained")
plotting.image_strip(figure.subplots(), rows, SHAPE[1:])
figure.savefig(options.out, dpi=150)
