"""Metrics of all kinds for the targets of benchmarks/samplers.py, and chains from many starts."""

import equinox as eqx
import jax
import jax.numpy as jnp
from helpers import CURL
from samplers import banana_log_prob

from scoregeo import ConformalMetric, DensityScore, FunctionScore, MatrixMetric, SteinMetric
from scoregeo.statistics import GeodesicSlice, LagrangianMonteCarlo, Langevin

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
