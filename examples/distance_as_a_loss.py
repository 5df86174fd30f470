"""A geodesic distance inside a training loop: encoder weights and the strength of the metric, learned with optax.

    python examples/distance_as_a_loss.py [--out distance_as_a_loss.png] [--quick]

`squared_dist` is an ordinary JAX function. It goes under `jit`, `vmap` and `grad`, and its gradient reaches whatever
made the points or the metric: here the weights of a flax network, and then the strength. Prints both losses going down,
and draws them.
"""

import argparse

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from matplotlib.figure import Figure

from scoregeo import SpectralNewton, SteinMetric, datasets, squared_dist

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", default="distance_as_a_loss.png", help="the picture to write")
parser.add_argument("--quick", action="store_true", help="the strength alone, in half of the steps")
options = parser.parse_args()

# A loss needs a direction, not digits: with 5% of the length a step takes hundredths of a second, with the default
# accuracy seconds. A solve that does not reach even that raises an error, also from inside `jit`.
solver = SpectralNewton(rtol=5e-2, path_rtol=1.0, max_elements=1)


def squared_dists(metric, xs, ys):
    """Squared distances from each of ``xs`` ``(b, d)`` to the one of ``ys`` beside it, ``(b,)``."""
    return jax.vmap(lambda x, y: squared_dist(metric, x, y, solver=solver))(xs, ys)


def train(loss, parameters, learning_rate, steps):
    """Adam on ``loss(parameters)``. Compiled once: every step is the same program with other numbers."""
    optimizer = optax.adam(learning_rate)

    @jax.jit
    def step(parameters, state):
        value, slope = jax.value_and_grad(loss)(parameters)
        updates, state = optimizer.update(slope, state)
        return optax.apply_updates(parameters, updates), state, value

    state, losses = optimizer.init(parameters), []
    for i in range(steps):
        parameters, state, value = step(parameters, state)
        losses.append(value)
        if i % (steps // 5) == 0 or i == steps - 1:
            print(f"  step {i:3d}   loss {value:.4f}")
    return parameters, losses


# Part 1: a network that knows where the middle is. The Fréchet mean of some points minimises the mean squared distance
# to them. In a curved space there is no formula for it; an encoder learns to guess it from the points.


class Middle(nnx.Module):
    """Three points of the plane to one: their Euclidean mean, plus a correction that starts at zero."""

    def __init__(self, width: int, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(6, width, rngs=rngs)
        self.head = nnx.Linear(width, 2, kernel_init=nnx.initializers.zeros, rngs=rngs)

    def __call__(self, triple):
        return triple.mean(0) + self.head(jnp.tanh(self.hidden(triple.reshape(-1))))


data = datasets.three_modes(jax.random.key(0), 48)
triples = data.points.reshape(-1, 3, 2)
metric = SteinMetric(data.score, strength=1.0)
structure, weights = nnx.split(Middle(32, nnx.Rngs(0)))


def spread(weights):
    """Mean squared geodesic distance from the guessed middles to their three points."""
    middles = jax.vmap(nnx.merge(structure, weights))(triples)
    return squared_dists(metric, jnp.repeat(middles, 3, axis=0), data.points).mean()


# The first loss is that of the Euclidean means, which the encoder starts from.
spreads = []
if not options.quick:
    print("learning middles")
    _, spreads = train(spread, weights, 3e-3, 100)

# Part 2: the metric itself is learned. Somebody measured dissimilarities; which strength explains them? The gradient
# with respect to the metric costs no more than that with respect to the points, and no new value compiles again.

starts, ends = data.points[:12], data.points[12:24]
measured = jnp.sqrt(squared_dists(SteinMetric(data.score, strength=2.0), starts, ends))


def mismatch(log_strength):
    """Mean squared difference of distances. The logarithm keeps the strength positive."""
    metric = SteinMetric(data.score, jnp.exp(log_strength))
    return jnp.mean((jnp.sqrt(squared_dists(metric, starts, ends)) - measured) ** 2)


print("learning the strength from distances at strength 2")
log_strength, mismatches = train(mismatch, jnp.log(0.5), 0.1, 25 if options.quick else 60)
print(f"  strength {jnp.exp(log_strength):.3f}")

figure = Figure(figsize=(7, 3), layout="constrained")
left, right = figure.subplots(1, 2)
left.plot(spreads, color="#D55E00", linewidth=2)
left.set(xlabel="step", ylabel="mean squared distance", title="a network learns middles")
right.semilogy(mismatches, color="#0072B2", linewidth=2)
right.set(xlabel="step", ylabel="squared mismatch", title="a metric learns its strength")
figure.savefig(options.out, dpi=150)
