"""What several files share: exact scores at all times, one that is not finite, and networks without zero weights."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx


class ExactMarginal(eqx.Module):
    """The exact score of ``x_t`` for data whose noised score is known."""

    data: eqx.Module
    schedule: eqx.Module

    def __call__(self, x, t):
        return self.data.noised(self.schedule.alpha(t), self.schedule.sigma(t))(x)


class NotFinite(eqx.Module):
    """A score that is NaN at early times."""

    def __call__(self, x, t):
        return x * jnp.where(t < 0.5, jnp.nan, 1.0)


def randomised(net, seed=0):
    """The network with other weights: its last layers have none that are zero."""
    graphdef, state = nnx.split(net)
    leaves, structure = jax.tree.flatten(state)
    rng = np.random.default_rng(seed)
    leaves = [leaf + 0.3 * jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype) for leaf in leaves]
    return nnx.merge(graphdef, jax.tree.unflatten(structure, leaves))
