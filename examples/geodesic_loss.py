"""A network that predicts places on the data: Euclid's loss pulls them off it, a geodesic loss keeps them.

    python examples/geodesic_loss.py [--out geodesic_loss.png] [--quick]

The data are a ring. A network is told an angle, and shall say where on the ring a point is that was seen there with an
error of 40 degrees or so. The best answer in squared distance is a mean: to Euclid one inside of the ring, where no
data are; along the data a Frechet mean, which is on it. One loss serves networks of equinox and of flax.
"""

import argparse
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from flax import nnx
from matplotlib.figure import Figure

from scoregeo import RESULTS, ConformalMetric, SpectralNewton, datasets, plotting, squared_dist

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", default="geodesic_loss.png", help="the picture to write")
parser.add_argument("--quick", action="store_true", help="a quarter of the steps, with equinox alone")
options = parser.parse_args()

ring = datasets.rings(jax.random.key(0), 500, noise=0.2, radii=(1.0,))
metric = ConformalMetric.power(ring.score, ring.points, ratio=30.0)
# A loss needs a direction, not digits: 5% of the length are plenty, and 20 times as fast as the default accuracy.
solver = SpectralNewton(rtol=5e-2, path_rtol=1.0, max_elements=1, max_evaluations=5000)


def euclid(places, seen):
    """Mean squared Euclidean distance."""
    return jnp.mean(jnp.sum((places - seen) ** 2, -1)), 1.0


def along_the_data(places, seen):
    """Mean squared geodesic distance of the pairs that were solved, and their share."""
    solve = partial(squared_dist, metric, solver=solver, with_result=True)
    squares, results = jax.vmap(solve)(places, seen)
    solved = results == RESULTS.successful
    return jnp.sum(jnp.where(solved, squares, 0)) / jnp.maximum(solved.sum(), 1), solved.mean()


# A network is a pytree of weights and a function. From here on nobody asks which library it came from.
def equinox_network():
    mlp = eqx.nn.MLP(2, 2, 32, 2, activation=jnp.tanh, key=jax.random.key(1))
    weights, rest = eqx.partition(mlp, eqx.is_inexact_array)
    return weights, lambda weights, x: eqx.combine(weights, rest)(x)


def flax_network():
    rngs = nnx.Rngs(1)
    layers = (
        nnx.Linear(2, 32, rngs=rngs),
        nnx.tanh,
        nnx.Linear(32, 32, rngs=rngs),
        nnx.tanh,
        nnx.Linear(32, 2, rngs=rngs),
    )
    structure, weights = nnx.split(nnx.Sequential(*layers))
    return weights, lambda weights, x: nnx.merge(structure, weights)(x)


def circle(angles):
    return jnp.stack([jnp.cos(angles), jnp.sin(angles)], -1)


def train(weights, apply, loss, steps, learning_rate, batch=24):
    """Adam on a loss of the places that the network says and those where points were seen: weights, solved shares."""
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))

    def objective(weights, key):
        told = jax.random.uniform(key, (batch,), maxval=2 * jnp.pi)
        seen = told + 0.8 * jax.random.truncated_normal(jax.random.fold_in(key, 1), -2, 2, (batch,))
        return loss(jax.vmap(apply, (None, 0))(weights, circle(told)), circle(seen))

    @jax.jit
    def step(weights, state, key):
        (_, solved), slope = jax.value_and_grad(objective, has_aux=True)(weights, key)
        updates, state = optimizer.update(slope, state)
        return optax.apply_updates(weights, updates), state, solved

    state, shares = optimizer.init(weights), []
    for key in jax.random.split(jax.random.key(2), steps):
        weights, state, solved = step(weights, state, key)
        shares.append(solved)
    return weights, jnp.mean(jnp.array(shares))


def show(name, weights, apply, solved, **style):
    """A line of the report, and one of the picture."""
    places = jax.vmap(apply, (None, 0))(weights, circle(jnp.linspace(0, 2 * jnp.pi, 181)))
    radius = jnp.linalg.norm(places, axis=1)
    print(f"{name:20} solved {100 * solved:5.1f}%   radius {radius.mean():.3f} +- {radius.std():.3f}")
    ax.plot(*places.T, linewidth=2.2, label=name, **style)


figure = Figure(figsize=(4.6, 4.4), layout="constrained")
ax = figure.subplots()
plotting.density(ax, ring.score.log_prob, (-1.5, 1.5), (-1.5, 1.5))
few = 4 if options.quick else 1
networks = {"equinox": equinox_network} if options.quick else {"equinox": equinox_network, "flax": flax_network}
styles = {"equinox": {"color": "#D55E00"}, "flax": {"color": "#111111", "linestyle": ":"}}
for library, network in networks.items():
    # Geodesics between nonsense and data cost much and teach little: Euclid's loss first.
    weights, apply = network()
    weights, solved = train(weights, apply, euclid, 600 // few, 1e-2)
    if library == "equinox":
        show("Euclid's loss", weights, apply, solved, color="#333333", linestyle=(0, (4, 3)))
    weights, solved = train(weights, apply, along_the_data, 160 // few, 5e-3)
    show(f"geodesic, {library}", weights, apply, solved, **styles[library])
ax.set_title("Where networks say that the data are")
ax.legend(loc="center", fontsize=9, framealpha=0.9)
figure.savefig(options.out, dpi=150)
