"""Targets that can be drawn exactly: each is a map of standard normal variables, and a metric that suits it."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from helpers import CURL

from scoregeo import (
    AbstractMetric,
    ConformalMetric,
    DensityScore,
    FunctionScore,
    GaussianScore,
    KernelDensityScore,
    MatrixMetric,
    SteinMetric,
)
from scoregeo.metrics import DiagonalInnerProduct
from scoregeo.statistics import GeodesicSlice, LagrangianMonteCarlo, Langevin


class Problem(NamedTuple):
    """``to_normal`` takes a draw of the target ``log_prob`` to independent standard normal variables."""

    dim: int
    log_prob: object
    from_normal: object
    to_normal: object


def banana_to_normal(x):
    return jnp.stack([x[0], (x[1] - 0.6 * (x[0] ** 2 - 1)) / 0.5])


def banana_log_prob(x):
    z = banana_to_normal(x)
    return -z @ z / 2


BANANA = Problem(2, banana_log_prob, lambda z: jnp.stack([z[0], 0.5 * z[1] + 0.6 * (z[0] ** 2 - 1)]), banana_to_normal)


def funnel_log_prob(x):
    """Neal's funnel: x[0] is normal with standard deviation 3, the others with variance exp(x[0])."""
    return -(x[0] ** 2) / 18 - jnp.sum(x[1:] ** 2) * jnp.exp(-x[0]) / 2 - (x.size - 1) * x[0] / 2


def funnel(d):
    def from_normal(z):
        return jnp.append(3 * z[0], jnp.exp(1.5 * z[0]) * z[1:])

    def to_normal(x):
        return jnp.append(x[0] / 3, jnp.exp(-x[0] / 2) * x[1:])

    return Problem(d, funnel_log_prob, from_normal, to_normal)


class FunnelMetric(AbstractMetric):
    """The expected Fisher information of the funnel: steps that fit where it is narrow and where it is wide."""

    def at(self, x):
        others = jnp.full(x.size - 1, jnp.exp(-x[0]))
        return DiagonalInnerProduct(jnp.append(1 / 9 + (x.size - 1) / 2, others))


GAUSSIAN = GaussianScore(jnp.array([1.0, -2.0]), jnp.array([[2.0, 0.8], [0.8, 1.0]]))
MODES = KernelDensityScore(jnp.array([[-1.5, 0.0], [1.5, 0.0]]), 0.7)

# Four kinds of metric: rank one, rank one with curl, conformal, dense.
METRICS = {
    "stein": SteinMetric(DensityScore(banana_log_prob), 0.5),
    "curl": SteinMetric(FunctionScore(lambda x: jnp.tanh(jnp.asarray(CURL) @ x) - x), 1.0),
    "conformal": ConformalMetric(lambda x: 0.3 * jnp.sin(x[0]) + 0.2 * x[1]),
    "matrix": MatrixMetric(lambda x: jnp.array([[1.5 + jnp.sin(x[1]), 0.3], [0.3, 1 + 0.2 * x[0] ** 2]])),
}


def samplers(metric, log_prob):
    """One of each kind, with steps that suit the banana."""
    return {
        "langevin": Langevin(metric, log_prob, 0.15),
        "lagrangian": LagrangianMonteCarlo(metric, log_prob, 0.25, steps=4),
        "slice": GeodesicSlice(metric, log_prob, 2.0, expansions=3),
    }


@eqx.filter_jit
def walk(sampler, key, xs, steps):
    """``steps`` steps from each of ``xs``: where all chains were ``(n, steps, d)``."""

    def chain(x, key):
        def body(state, key):
            state, _ = sampler.step(key, state)
            return state, state.position

        return jax.lax.scan(body, sampler.init(x), jax.random.split(key, steps))[1]

    keys = jax.random.split(key, xs.shape[0])
    return jax.lax.map(lambda pair: chain(*pair), (xs, keys), batch_size=500)
