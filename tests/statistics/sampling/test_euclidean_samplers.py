"""Without geometry, and with a Stein metric of strength zero, the samplers are those of blackjax, key by key."""

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scoregeo import EuclideanMetric, GaussianScore, SteinMetric
from scoregeo.statistics import LagrangianMonteCarlo, Langevin

TARGET = GaussianScore(jnp.array([0.5, -1.0, 0.0]), jnp.array([[2.0, 0.5, 0.1], [0.5, 1.0, 0.2], [0.1, 0.2, 0.7]]))
METRICS = {"euclid": EuclideanMetric(), "stein": SteinMetric(TARGET, 0.0)}


def run(algorithm, steps=40):
    @jax.jit
    def chain(x, keys):
        def body(state, key):
            state, info = algorithm.step(key, state)
            return state, (state.position, info.acceptance_rate)

        return jax.lax.scan(body, algorithm.init(x), keys)[1]

    return chain(jnp.ones(3), jax.random.split(jax.random.key(1), steps))


@pytest.mark.parametrize("name", ["stein", pytest.param("euclid", marks=pytest.mark.slow)])
def test_langevin_is_mala(name):
    ours, theirs = run(Langevin(METRICS[name], TARGET, 0.5)), run(blackjax.mala(TARGET.log_prob, 0.5))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-10)
    assert 0.2 < np.mean(ours[1]) < 0.95  # some are refused


@pytest.mark.parametrize("name", ["stein", pytest.param("euclid", marks=pytest.mark.slow)])
def test_lagrangian_is_hamiltonian(name):
    ours = run(LagrangianMonteCarlo(METRICS[name], TARGET, 1.1, steps=7))
    theirs = run(blackjax.hmc(TARGET.log_prob, 1.1, jnp.ones(3), 7))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-10)
    assert 0.2 < np.mean(ours[1]) < 0.95
