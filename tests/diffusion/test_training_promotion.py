"""Training, samples and likelihoods pass where JAX refuses every promotion of types and ranks that nobody asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scoregeo import GaussianMixtureScore
from scoregeo.diffusion import DDIM, FitConfig, evaluate_held_out, fit, memorization

CONFIG = FitConfig(steps=4, batch_size=8, width=4, depth=2, chunk_steps=2, condition_dropout=0.5)


@pytest.mark.parametrize(
    ("x64", "dtype"),
    [
        pytest.param(False, "float32", marks=pytest.mark.slow),
        pytest.param(True, "float32", marks=pytest.mark.slow),
        (True, "float64"),
    ],
)
def test_a_model_from_training_to_likelihood(x64, dtype):
    with jax.enable_x64(x64), jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        data = jax.random.normal(jax.random.key(0), (40, 2), dtype)
        model = fit(data, CONFIG, conditions=2000 + 10 * np.asarray(data), progress=False)
        condition = np.array([2010.0, 1990.0])
        assert model.score_at(0.3, condition)(data[0]).dtype == dtype
        samples = model.sample(jax.random.key(1), 2)
        guided = model.sample(jax.random.key(1), 2, sampler=DDIM(steps=2), condition=condition, guidance=2.0)
        assert (samples.dtype, guided.dtype) == (dtype, dtype)
        likelihood = model.log_prob(data[:2], condition=condition, probes=2, key=jax.random.key(2))
        assert likelihood.log_prob.dtype == likelihood.bits_per_dim().dtype == dtype
        assert np.isfinite(model.log_prob(data[:2], variance=jnp.eye(2, dtype=dtype)).log_prob).all()
        evaluate_held_out(model, data, (0.3,), key=jax.random.key(3))
        memorization(samples, data, data[:5] + 1)


@pytest.mark.slow
@pytest.mark.parametrize(("x64", "dtype"), [(False, "float32"), (True, "float64")])
def test_the_exact_score_of_a_mixture(x64, dtype):
    with jax.enable_x64(x64), jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        means = jnp.array([[0.0, 0.0], [1.0, 1.0]], dtype)
        score = GaussianMixtureScore(jnp.array([0.5, 0.5], dtype), means, jnp.stack([jnp.eye(2, dtype=dtype)] * 2))
        assert score(jnp.ones(2, dtype)).dtype == score.noised(1.0, 0.5).sample(jax.random.key(0), 3).dtype == dtype
